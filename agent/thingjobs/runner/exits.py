"""The exit status as the shim stored it, and how a verb ended by it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.exits import Exit
from thingjobs.machine.events import Ending
from thingjobs.model import Verb

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.runner.events import Said

#: What the shim stores when the agent died before it said go: nothing ran.
NEVER = b"never\n"
_MOST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands in the exit file of one run of a verb.

    Attributes:
        complete: the shim wrote its line, which is the last thing it does; or the handler did, as its last act.
        never: the verb was never let go: nothing ran.
        code: a shell's exit status, None when there is none that makes sense.
        early: the handler did, and the shim has not seen it end.
    """

    complete: bool
    never: bool = False
    code: int | None = None
    early: bool = False


def open_exit(path: Path) -> int:
    """Open an exit file, to read it whatever becomes of its folder.

    Raises:
        OSError: it is gone.
    """
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def stored(path: Path) -> Stored:
    """Return what stands in an exit file; it is the handler's user's to write, so no more is believed than fits."""
    try:
        fd = open_exit(path)
    except OSError:
        return Stored(complete=False)
    try:
        return stored_in(fd)
    finally:
        os.close(fd)


def stored_in(fd: int) -> Stored:
    """Return what stands in an exit file that is open: also when its folder was deleted or nothing can be opened."""
    try:
        # The size first: what the shim writes between two looks would be an end without a beginning.
        size = os.fstat(fd).st_size
        return _understood(os.pread(fd, _MOST_BYTES, 0), os.pread(fd, 1, max(0, size - 1)))
    except OSError:
        return Stored(complete=False)


def _understood(head: bytes, end: bytes) -> Stored:
    line, newline, rest = head.partition(b"\n")
    code = int(line) if newline and line.isdigit() else None
    # As `thingjobs.child` writes it: no shell stores leading zeros.
    early = not rest and len(line) == 4 and line.startswith(b"0")
    return Stored(end == b"\n", head == NEVER, code, early)


def signal_name(code: int | None) -> str:
    """Return the signal that a shell's exit status stands for, "" when it is a plain status."""
    if code is None or not 128 < code <= 192:
        return ""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"


def reason(verb: Verb, code: int | None, said: Said, last_line: str) -> str:
    """Return why a verb ended as it did: what the handler gave, else the last line that it wrote to stderr.

    Where all is well, what is on stderr is not why.
    """
    well = code == Exit.DONE or (code == Exit.ALREADY and verb is Verb.CHECK)
    return said.reason or ("" if well else last_line)


def ending(code: int | None, said: Said, reason: str) -> Ending:
    """Return how a verb ended, of which `code` is a shell's exit status, None if nobody knows it."""
    name = signal_name(code)
    return Ending(
        code=None if name else code,
        signal=name,
        reason=reason,
        fault=said.code,
        reject=said.reject,
        after=said.after,
        details=said.details,
    )
