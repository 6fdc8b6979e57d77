"""Which boot this is, how long it has been, and what a pid stands for: facts of the kernel, read from /proc."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.errors import StateError
from thingjobs.machine.state import Now

if TYPE_CHECKING:
    from thingjobs.model import Process

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
#: Fields of /proc/PID/stat, counted from 0 behind the command's closing bracket, which stands for field 2.
_STATE, _GROUP, _START_TIME = 3 - 3, 5 - 3, 22 - 3


def clock() -> float:
    """Return seconds since boot, counting those in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id(file: Path = BOOT_ID_FILE) -> str:
    """Return the id of this boot.

    Raises:
        StateError: the file cannot be read.
    """
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read the boot id from {file}: {error}") from None


def now(boot: str) -> Now:
    """Return one reading of all clocks."""
    return Now(clock=clock(), boot=boot, wall=time.time())


def start_time(pid: int) -> int | None:
    """Return when the process `pid` was started, in clock ticks since boot; None when there is none."""
    fields = _stat(pid)
    return int(fields[_START_TIME]) if fields else None


def processes() -> list[int]:
    """Return all processes."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def members(group: int) -> list[int]:
    """Return the processes of a process group."""
    return [pid for pid in processes() if (fields := _stat(pid)) and int(fields[_GROUP]) == group]


def environment(pid: int) -> list[bytes]:
    """Return the environment that a process was started with, as NAME=VALUE; empty when it cannot be known."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def command(pid: int) -> list[bytes]:
    """Return the arguments that a process was started with; empty when they cannot be known."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[bytes]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    fields = stat[stat.rindex(b")") + 2 :].split()
    return [] if fields[_STATE] == b"Z" else fields


def lives(process: Process, boot: str) -> bool:
    """Return whether `process` still is the process that was started: same boot, same pid, same start time."""
    return process.boot == boot and start_time(process.pid) == process.started
