"""Inhibit files: whoever works on the device holds jobs back for as long as that takes.

A file is in force while somebody holds a lock of flock(2) on it, or until the time that its first line begins with.
All others are what somebody left behind: a process that died has let go of its lock, and no time lasts for ever.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from typing import TYPE_CHECKING

from thingjobs.config.zones import zone
from thingjobs.gates.closed import Closed, entries, first_line, sentence

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("thingjobs")

_READ_BYTES = 4096
#: What means to say until when; whether it does is another question.
_UNTIL = re.compile(r"(?=until\s|[0-9]{4}-)(?:until\s+)?([0-9]{4}-\S*(?: [0-9]{2}:\S*)?)?\s*(.*)")


class Inhibit:
    """The folder of inhibit files.

    Args:
        folder: need not be there.
        time_zone: what times without a zone are meant in; empty: the device's own.
    """

    def __init__(self, folder: Path, time_zone: str = "") -> None:
        self._folder = folder
        self._time_zone = time_zone
        self._told: dict[str, int] = {}

    def closed(self, now: float) -> Closed | None:
        """Return the first file that is in force at `now`, seconds since the epoch."""
        try:
            files = entries(self._folder)
        except OSError as error:
            return Closed(f"the inhibit files in {self._folder} cannot be listed: {error.strerror}")
        return next((closed for file in files if (closed := self._in_force(file, now))), None)

    def _in_force(self, file: Path, now: float) -> Closed | None:
        name = sentence(file.name)
        try:
            text, held, written = _look(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Closed(f"inhibited by {name}, which cannot be read: {error.strerror}")
        if held:
            return Closed(f"inhibited by {name}{': ' * bool(text)}{text}")
        if found := _UNTIL.match(text):
            time, reason = found.groups(default="")
            return self._until(name, time or text, reason, now)
        if text:
            self._left_behind(file, written)
        return None

    def _until(self, name: str, time: str, reason: str, now: float) -> Closed | None:
        """Return that a file that nobody holds is in force until later, or that nobody can tell until when."""
        try:
            end = self._moment(time)
        except ValueError as error:
            return Closed(f"inhibited by {name}: {error}")
        if end <= now:
            return None
        return Closed(f"inhibited by {name} until {time}{': ' * bool(reason)}{reason}", end - now)

    def _moment(self, time: str) -> float:
        from datetime import datetime  # noqa: PLC0415 - seldom wanted

        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            raise ValueError(f"{time} is no time; write one like 2026-03-01T04:00+01:00, or remove the file") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone(self._time_zone))).timestamp()

    def _left_behind(self, file: Path, written: int) -> None:
        """Say once that a file has no effect: who wrote it may believe that it has."""
        if self._told.get(file.name) != written:
            self._told[file.name] = written
            log.warning("%s holds nothing back: nobody has locked it, and it does not begin with a time", file)


def _look(file: Path) -> tuple[str, bool, int]:
    """Return the first line of a file, whether somebody holds a lock on it, and when it was written.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        return first_line(os.read(fd, _READ_BYTES)), _held(fd), os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _held(fd: int) -> bool:
    """Return whether somebody holds a lock on a file, exclusive or shared."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False  # ours goes with the descriptor
