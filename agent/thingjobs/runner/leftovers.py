"""What executions leave behind: their logs, which are kept, their folders, and what a crash kept from being removed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from thingjobs.runner import joblog
from thingjobs.runner.place import Place, homes
from thingjobs.runner.sweep import end_verbs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thingjobs.runner.settings import Settings

MAX_LOGS = 50
#: An emptied folder that waits for the next execution.
SPARE = "spare"


class Leftovers:
    """Puts away what executions leave in their folders.

    Args:
        settings: say where the folders are.
    """

    def __init__(self, settings: Settings) -> None:
        self._state = settings.state
        self._runtime = settings.runtime
        self._spare = Place(settings.state / SPARE)

    def put_away(self, place: Place, *, fit: bool) -> None:
        """Keep the log of an execution, and remove its folder or keep it emptied for the next one.

        Args:
            place: where nobody works any more.
            fit: another execution may have the folder.
        """
        self._keep_log(place)
        if not (fit and _ours(place) and place.give_back(self._spare.folder)):
            place.remove()

    def take_spare(self, place: Place) -> None:
        """Let an execution have the emptied folder of an earlier one, if there is one."""
        with contextlib.suppress(OSError):
            self._spare.folder.rename(place.folder)

    def remove_others(self, keep: set[str]) -> None:
        """End what still runs of executions that are not among the keys `keep`, and put their folders away.

        Raises:
            OSError: it cannot be known what there is.
        """
        for path in self._left_behind():
            if path.name not in keep:
                place = Place(path)
                end_verbs(place.folder)
                if not self._log_of(place).exists():  # Else it was kept, and only the folder was not yet removed.
                    self._keep_log(place)
                place.remove()
        self._spare.remove()

    def _left_behind(self) -> Iterator[Path]:
        for jobs in (self._state / "jobs", *homes(self._state, self._runtime, existing=True)):
            if jobs.is_dir():
                yield from list(jobs.iterdir())

    def _log_of(self, place: Place) -> Path:
        return self._state / "logs" / f"{place.folder.name}.log"

    def _keep_log(self, place: Place) -> None:
        """Keep the log of an execution, and no more than MAX_LOGS; a full disk loses a log, never a job."""
        target = self._log_of(place)
        with contextlib.suppress(OSError):
            if joblog.collect(place.folder, target):
                for old in sorted(target.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_LOGS]:
                    old.unlink()


def _ours(place: Place) -> bool:
    """Return whether the handler ran as the agent itself: only then the next one may have its folder."""
    try:
        return place.work.lstat().st_uid == os.geteuid()
    except OSError:
        return False
