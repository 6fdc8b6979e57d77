"""What a state folder holds: which generation of each record can be believed. It reads; `journal` writes and tidies."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thingjobs import records
from thingjobs.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.model import Record

#: Reading failed for want of something that says nothing about the file.
_PASSING = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A record as it was found.

    Attributes:
        previous: the current generation was damaged, so this is the one before it.
        born: the format that it was born with.
    """

    record: Record
    previous: bool = False
    born: int = records.FORMAT


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that the journal held.

    Attributes:
        loaded: the readable records, finished ones included, those first that finished first.
        quarantined: file names that no generation of could be read; moved aside.
        newer: file names that a later release wrote; left as they are.
        unsynced: file names of finished executions whose end was not on the disk yet when the power failed; removed.
    """

    loaded: tuple[Loaded, ...]
    quarantined: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()
    unsynced: tuple[str, ...] = ()


def read_only(folder: Path) -> list[Record]:
    """Return the readable records in a state folder without taking its lock or changing anything; for people.

    Raises:
        StateError: the folder cannot be read.
    """
    found: list[Record] = []
    try:
        # An agent that runs may remove what was listed a moment ago.
        with contextlib.suppress(FileNotFoundError):
            for path in (folder / "journal").iterdir():
                if path.suffix == ".json":
                    with contextlib.suppress(FileNotFoundError, records.CorruptError, records.NewerError):
                        found.append(records.load(path.read_bytes()))
    except OSError as error:
        raise StateError(f"cannot read {folder}: {error.strerror}") from None
    return sorted(found, key=lambda record: record.finished_at or 0.0)


def read_all(folder: Path, names: list[str]) -> Found:
    """Read every record of which there is a file among `names`; nothing is changed.

    Raises:
        StateError: a file cannot be read now, which says nothing about it.
    """
    loaded: list[Loaded] = []
    odd: dict[type[StateError], list[str]] = {records.NewerError: [], records.CorruptError: [], records.CutError: []}
    for key in sorted({name.rsplit(".", 1)[0] for name in names if name.endswith((".json", ".prev"))}):
        try:
            loaded.append(_read_one(folder, key, alone=f"{key}.prev" not in names))
        except (records.CorruptError, records.NewerError) as error:
            odd[type(error)].append(key)
    loaded.sort(key=lambda one: (one.record.order, one.record.finished_at or 0.0, one.record.identity.queued_at))
    return Found(
        tuple(loaded),
        quarantined=tuple(odd[records.CorruptError]),
        newer=tuple(odd[records.NewerError]),
        unsynced=tuple(odd[records.CutError]),
    )


def _read_one(folder: Path, key: str, *, alone: bool) -> Loaded:
    """Return the newest generation that can be read.

    The end of an execution is the one thing that is written without waiting for the disk, and it alone has no
    generation before it. So a file that is cut and stands alone is such an end: the service has the result.
    """
    try:
        return _read(folder, key, "json")
    except records.CutError:
        if alone:
            raise
    except records.CorruptError:
        pass
    try:
        return replace(_read(folder, key, "prev"), previous=True)
    except records.CutError as error:
        raise records.CorruptError(str(error)) from None


def _read(folder: Path, key: str, suffix: str) -> Loaded:
    path = folder / f"{key}.{suffix}"
    try:
        record, born = records.load_born(path.read_bytes())
    except OSError as error:
        if error.errno in _PASSING:
            raise StateError(f"cannot read {path}: {error.strerror}") from None
        raise records.CorruptError(f"cannot read {path}: {error.strerror}") from None
    if record.identity.key != key:
        raise records.CorruptError(f"{path} holds the record of {record.identity.key}")
    return Loaded(record, born=born)
