"""The agent's memory on disk: one file an execution, replaced atomically, with the generation before it kept.

There is never a moment without a current file: the new generation is written and synced beside it, the current one
gets a second name, and only then is it renamed over. A reserve of 1 MiB is given up when the disk is full, so that
one job at a time can still be journalled. It decides nothing: what to save and when is the core's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs import records
from thingjobs.errors import StateBusyError, StateError
from thingjobs.model import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.model import Identity, Record

RESERVE_BYTES = 1024 * 1024
#: Finished executions whose tombstones are kept, so that nothing runs again.
MAX_TOMBSTONES = 200
PRUNE_AT = 300
#: Reading failed for want of something that says nothing about the file.
_PASSING = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A record as it was found.

    Attributes:
        previous: the current generation was damaged, so this is the one before it.
    """

    record: Record
    previous: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that the journal held.

    Attributes:
        loaded: the readable records, finished ones included, oldest first.
        quarantined: file names that no generation of could be read; moved aside.
        newer: file names that a later release wrote; left as they are.
    """

    loaded: tuple[Loaded, ...]
    quarantined: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()


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


class Journal:
    """The state folder of one agent.

    Args:
        folder: made if it does not exist; others may pass through it to their own job's folder, but not look.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = folder / "journal"
        self._folder_fd = -1
        self._lock_fd = -1
        self._finished: dict[str, float] = {}
        self._reserve_gone = False

    def open(self) -> None:
        """Make the folders and take the lock.

        Raises:
            StateBusyError: another agent holds the folder.
            StateError: the folder cannot be used.
        """
        try:
            self._open()
        except BlockingIOError:
            self.close()
            raise StateBusyError(f"cannot use the state folder {self.folder}: another agent runs on it") from None
        except OSError as error:
            self.close()
            raise StateError(f"cannot use the state folder {self.folder}: {error.strerror}") from None
        self._make_reserve()

    def _open(self) -> None:
        new = not self._records.is_dir()
        self._records.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self._records.chmod(0o700)
        if new:
            # Syncing a folder keeps the names in it, not its own: that one stands in its parent.
            for folder in (self.folder, self.folder.parent):
                _sync(folder)
        self._lock_fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._folder_fd = os.open(self._records, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Give the lock back."""
        for fd in (self._folder_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._folder_fd = self._lock_fd = -1

    # --- writing --------------------------------------------------------------------------------------------------

    def save(self, record: Record) -> None:
        """Replace the file of `record` durably: when this returns, no power cut can take it back.

        A finished execution is the exception: the service has its result, so one that a power cut makes unfinished
        again is reported once more, and the answer shows that it was known. That is not worth waiting for a disk.

        Raises:
            StateError: it could not be written; the generation before is untouched.
        """
        try:
            self._save(record)
        except OSError as error:
            raise StateError(f"cannot write {self._records}/{record.identity.key}.json: {error.strerror}") from None
        if record.phase is Phase.DONE:
            self._finished[record.identity.key] = record.finished_at or 0.0
            self._prune()
            if self._reserve_gone:
                self._make_reserve()

    def _save(self, record: Record) -> None:
        data = records.dump(record)
        durable = record.phase is not Phase.DONE
        try:
            self._replace(record.identity.key, data, durable=durable)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._give_up_reserve():
                raise
            self._replace(record.identity.key, data, durable=durable)

    def _replace(self, key: str, data: bytes, *, durable: bool) -> None:
        try:
            self._write(f"{key}.tmp", data, durable=durable)
            self._exchange(f"{key}.json", f"{key}.prev", f"{key}.tmp", keep=durable)
            if durable:
                os.fsync(self._folder_fd)
        except OSError:
            # On a full disk, what could not be used is room that the next try needs.
            with contextlib.suppress(OSError):
                os.unlink(f"{key}.tmp", dir_fd=self._folder_fd)
            raise

    def _write(self, name: str, data: bytes, *, durable: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._folder_fd)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _exchange(self, current: str, previous: str, temporary: str, *, keep: bool) -> None:
        """Put the new generation in the place of the current one.

        The current one is kept; not that of a finished execution: it holds the parameters, which may be secrets.
        """
        where = self._folder_fd
        with contextlib.suppress(FileNotFoundError):
            os.unlink(previous, dir_fd=where)
        with contextlib.suppress(FileNotFoundError):
            if keep:
                os.link(current, previous, src_dir_fd=where, dst_dir_fd=where)
        os.rename(temporary, current, src_dir_fd=where, dst_dir_fd=where)

    def forget(self, identity: Identity) -> None:
        """Remove the files of an execution that was never ours.

        Raises:
            StateError: they could not be removed.
        """
        try:
            self._remove(identity.key)
        except OSError as error:
            raise StateError(f"cannot remove {self._records}/{identity.key}.json: {error.strerror}") from None

    def _remove(self, key: str) -> None:
        # The current file goes last: without it, the generation before would be taken for the truth.
        for suffix in ("tmp", "prev", "json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{key}.{suffix}", dir_fd=self._folder_fd)

    def _prune(self) -> None:
        if len(self._finished) <= PRUNE_AT:
            return
        oldest = sorted(self._finished, key=self._finished.__getitem__)[: len(self._finished) - MAX_TOMBSTONES]
        for key in oldest:
            del self._finished[key]
            with contextlib.suppress(OSError):
                self._remove(key)

    # --- reading --------------------------------------------------------------------------------------------------

    def load(self) -> Found:
        """Read every record; what cannot be read is put aside and named.

        Raises:
            StateError: the folder itself cannot be read.
        """
        try:
            names = sorted(path.name for path in self._records.iterdir())
        except OSError as error:
            raise StateError(f"cannot read {self._records}: {error.strerror}") from None
        keys = sorted({name.rsplit(".", 1)[0] for name in names if name.endswith((".json", ".prev"))})
        loaded: list[Loaded] = []
        quarantined: list[str] = []
        newer: list[str] = []
        for key in keys:
            try:
                loaded.append(self._load(key))
            except records.NewerError:
                newer.append(key)
            except records.CorruptError:
                quarantined.append(key)
                self._quarantine(key)
        self._remove_unfinished(names, newer)
        self._finished = {
            one.record.identity.key: one.record.finished_at or 0.0 for one in loaded if one.record.phase is Phase.DONE
        }
        loaded.sort(key=lambda one: (one.record.finished_at or 0.0, one.record.identity.queued_at))
        return Found(tuple(loaded), tuple(quarantined), tuple(newer))

    def _load(self, key: str) -> Loaded:
        try:
            return Loaded(self._read(key, "json"))
        except records.CorruptError:
            return Loaded(self._read(key, "prev"), previous=True)

    def _read(self, key: str, suffix: str) -> Record:
        path = self._records / f"{key}.{suffix}"
        try:
            record = records.load(path.read_bytes())
        except OSError as error:
            if error.errno in _PASSING:
                raise StateError(f"cannot read {path}: {error.strerror}") from None
            raise records.CorruptError(f"cannot read {path}: {error.strerror}") from None
        if record.identity.key != key:
            raise records.CorruptError(f"{path} holds the record of {record.identity.key}")
        return record

    def _remove_unfinished(self, names: list[str], newer: list[str]) -> None:
        """Remove what a crash left half written; of an execution that is a later release's, not even that."""
        for name in names:
            key, _, suffix = name.rpartition(".")
            if suffix == "tmp" and key not in newer:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._folder_fd)

    def _quarantine(self, key: str) -> None:
        aside = self.folder / "quarantine"
        for suffix in ("json", "prev"):
            with contextlib.suppress(OSError):
                aside.mkdir(mode=0o700, exist_ok=True)
                (self._records / f"{key}.{suffix}").rename(aside / f"{key}.{suffix}")

    # --- the reserve ----------------------------------------------------------------------------------------------

    def _make_reserve(self) -> None:
        path = self.folder / "reserve"
        try:
            if path.exists() and path.stat().st_size >= RESERVE_BYTES:
                return
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
            self._reserve_gone = False
        except OSError:
            # No room for it now: then it is missing until a job is done. Jobs are still journalled while they can be.
            self._reserve_gone = True
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _give_up_reserve(self) -> bool:
        try:
            (self.folder / "reserve").unlink()
        except OSError:
            return False
        self._reserve_gone = True
        return True


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
