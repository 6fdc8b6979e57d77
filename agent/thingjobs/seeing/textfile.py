"""The file with the metrics: when it is written, and that whoever reads it finds all of it or none.

It is on a tmpfs if the guide was followed, so the loop writes it itself, in no time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from thingjobs.seeing import metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.machine import State
    from thingjobs.model import Json

log = logging.getLogger("thingjobs.report")

#: Between two writes: Prometheus hardly reads more often.
APART_SECONDS = 5.0
#: After a change, because one seldom comes alone.
SETTLE_SECONDS = 1.5
#: Without a change the file is looked after so often: the folder may be made anew without it, or have been missing.
CARE_SECONDS = 60.0
#: The clock was set, if the agent seems to have started so much earlier or later than it did before.
_SET_SECONDS = 60.0


class TextFile:
    """Metrics for node_exporter. Times are seconds since boot.

    Args:
        path: the file.
        version: the agent's.
        expires: tells the end of the device certificate, seconds since the epoch, None if nobody knows.
        now: when the agent starts.

    Attributes:
        due: when `act` has something to do.
    """

    def __init__(self, path: Path, version: str, expires: Callable[[], float | None], now: float) -> None:
        self.due = now + SETTLE_SECONDS
        self._path = path
        self._version = version
        self._expires = expires
        self._began = now
        self._started = time.time()
        self._ended: Counter[str] = Counter()
        self._at = now - APART_SECONDS
        self._text = ""
        self._wrong = ""

    def observe(self, before: State, after: State, now: float) -> None:
        """A step was made."""
        self._ended.update(metrics.ended_in(before, after))
        self.changed(now)

    def changed(self, now: float) -> None:
        """What is told may be another now."""
        self.due = min(self.due, max(now + SETTLE_SECONDS, self._at + APART_SECONDS))

    def act(self, now: float, status: Callable[[], Json]) -> None:
        """Write the file if that is due, and it does not say all that already."""
        if now < self.due:
            return
        self.due = now + CARE_SECONDS
        started, expires = self._start(now), self._expires()
        text = metrics.text(self._version, status(), self._ended, started=started, expires=expires)
        if text != self._text or not os.access(self._path, os.F_OK):
            self._at = now
            self._write(text)

    def _start(self, now: float) -> float:
        """Return when the agent started, by the clock as it is now: without a battery it begins in the past."""
        started = time.time() - (now - self._began)
        if abs(started - self._started) > _SET_SECONDS:
            self._started = started
        return self._started

    def _write(self, text: str) -> None:
        try:
            replace_file(self._path, text)
        except OSError as error:
            wrong = f"cannot write {self._path} (report.textfile): {error.strerror}"
            if wrong != self._wrong:
                log.warning("%s", wrong)
            self._text, self._wrong = "", wrong
            self.remove()  # Nobody could tell it from that of an agent to which nothing happens.
        else:
            self._text, self._wrong = text, ""

    def remove(self) -> None:
        """Take the metrics away."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def replace_file(path: Path, text: str) -> None:
    """Replace a file at once, so that whoever reads it finds the old or the new one; everybody may read it.

    It is not synced: after a power cut it is written anew anyway.

    Raises:
        OSError: it cannot be written.
    """
    # The collector reads what ends in .prom.
    new = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # Not written to: others may write in that folder, too, and it may be a link.
        with new.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
