"""Which boot this is, how long it has been, and what a pid stands for: facts of the kernel, read from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.errors import StateError
from thingjobs.machine.state import Now

if TYPE_CHECKING:
    from thingjobs.model import Process

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
#: Fields of /proc/PID/stat, counted from 0 behind the command's closing bracket, which stands for field 2.
_STATE, _GROUP, _FLAGS, _START_TIME = 3 - 3, 5 - 3, 9 - 3, 22 - 3
#: PF_KTHREAD of the kernel's include/linux/sched.h.
_OF_THE_KERNEL = 0x00200000
_FORKS = b"\nprocesses "
#: More than it takes to judge a document, or to start a verb and to watch it.
_SPARE_FILES = 24
#: So many of them are looked for in the whole machine, too.
_SPARE_IN_MACHINE = 8


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
    """Return when the process `pid` was started, in clock ticks since boot; None when there is none.

    Raises:
        OSError: it cannot be known, for want of files.
    """
    fields = _stat(pid)
    return int(fields[_START_TIME]) if fields else None


def processes() -> list[int]:
    """Return all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - a Path each costs too much


@dataclass(frozen=True, slots=True)
class Moment:
    """What the kernel had counted at some time; it tells afterwards which pids can have been given out since.

    Attributes:
        forks: processes and threads made since boot.
        tasks: processes and threads there were.
    """

    forks: int
    tasks: int


def moment() -> Moment | None:
    """Return the present one; None when it cannot be known."""
    try:
        # proc(5), /proc/loadavg: behind the slash stands the number of all tasks.
        return Moment(_forks(), int(_content("/proc/loadavg").split()[3].partition(b"/")[2]))
    except (OSError, ValueError, IndexError):
        return None


def younger(pid: int, since: Moment | None) -> list[int]:
    """Return the processes that can have been started after `pid`: a few, or all when that cannot be known.

    Pids count up, skip those in use, and begin anew at a limit: until then each fork gets a number that is higher by
    no more than the forks since and the tasks that there were.

    Args:
        pid: of any process.
        since: a moment before it was started.
    """
    every = processes()
    made = forks_since(since)
    if since is None or made is None:
        return every
    last = pid + made + since.tasks
    return [one for one in every if pid < one <= last] if last < _pid_max() else every


def _pid_max() -> int:
    try:
        return int(_content("/proc/sys/kernel/pid_max"))
    except (OSError, ValueError):
        return 0


def forks_since(since: Moment | None) -> int | None:
    """Return how many processes and threads were made since a moment; None when it cannot be known."""
    try:
        return _forks() - since.forks if since else None
    except (OSError, ValueError):
        return None


def _forks() -> int:
    stat = _content("/proc/stat")
    return int(stat[stat.index(_FORKS) + len(_FORKS) :].split(None, 1)[0])


def _content(path: str) -> bytes:
    """Return what is in a small file of the kernel; a Path, a file object and a decoder would cost more than that."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while data := os.read(fd, 65536):
            content += data
        return content
    finally:
        os.close(fd)


def spare_files() -> None:
    """Make sure that some files can be opened, so that what takes a few does not fail half way.

    Raises:
        OSError: there are too many open already, here or in the whole machine.
    """
    opened: list[int] = []
    try:
        while len(opened) < _SPARE_IN_MACHINE:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        while len(opened) < _SPARE_FILES:
            opened.append(os.dup(opened[0]))  # Takes a place here, at a quarter of the cost, and none in the machine.
    finally:
        for fd in opened:
            os.close(fd)


def members(group: int) -> list[int]:
    """Return the processes of a process group."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if (fields := _stat(pid)) and int(fields[_GROUP]) == group:
                found.append(pid)
    return found


def environment(pid: int) -> list[bytes]:
    """Return the environment that a process was started with, as NAME=VALUE.

    It is empty when it cannot be known: of a process that is just becoming another program, for one.
    """
    try:
        return [entry for entry in _content(f"/proc/{pid}/environ").split(b"\0") if entry]
    except OSError:
        return []


def may_have_environment(pid: int) -> bool:
    """Return whether an empty environment may be of the moment: the process lives, and is nobody else's to look at."""
    with contextlib.suppress(OSError):
        if (fields := _stat(pid)) and os.access(f"/proc/{pid}/environ", os.R_OK):
            return not int(fields[_FLAGS]) & _OF_THE_KERNEL
    return False


def command(pid: int) -> list[bytes]:
    """Return the arguments that a process was started with; empty when they cannot be known."""
    try:
        return _content(f"/proc/{pid}/cmdline").split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[bytes]:
    try:
        stat = _content(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = stat[stat.rindex(b")") + 2 :].split()
    return [] if fields[_STATE] == b"Z" else fields


def lives(process: Process, boot: str) -> bool:
    """Return whether `process` still is the process that was started: same boot, same pid, same start time.

    Raises:
        OSError: it cannot be known, for want of files.
    """
    return process.boot == boot and start_time(process.pid) == process.started
