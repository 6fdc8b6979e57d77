"""What executions leave behind: their logs, which are kept, and what a crash kept from being removed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from thingjobs.runner import joblog
from thingjobs.runner.place import Place, homes
from thingjobs.runner.sweep import end_verbs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def keep_log(place: Place, logs: Path, key: str, most: int) -> None:
    """Put an execution's log away, and keep no more than `most`; a full disk loses a log, never a job."""
    with contextlib.suppress(OSError):
        if joblog.collect(place.folder, logs / f"{key}.log"):
            for old in sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)[:-most]:
                old.unlink()


def remove_others(state: Path, runtime: Path | None, keep: set[str]) -> None:
    """End what still runs of executions that are not among the keys `keep`, and remove their folders.

    Raises:
        OSError: it cannot be known what there is.
    """
    for path in _left_behind(state, runtime):
        if path.name not in keep:
            place = Place(path)
            end_verbs(place.folder)
            place.remove()


def _left_behind(state: Path, runtime: Path | None) -> Iterator[Path]:
    for jobs in (state / "jobs", *homes(state, runtime, existing=True)):
        if jobs.is_dir():
            yield from list(jobs.iterdir())
