"""Gates that are programs: run one, and tell from its end whether it is open.

They are the operator's own and run as the agent does. What one starts ends with it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING

from thingjobs.gates.closed import first_line, sentence
from thingjobs.registry.trust import program_problem
from thingjobs.runner.exits import signal_name
from thingjobs.runner.given import DEFAULT_PATH
from thingjobs.runner.joblog import Tail

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_SECONDS = 10.0
#: A killed process is gone at once, unless the kernel holds it; then it is left to itself.
_GONE_SECONDS = 1.0
_HEAD_BYTES = 4096
_READ_BYTES = 64 * 1024


def environment(before: str, job_id: str, handler: str) -> dict[str, str]:
    """Return the environment of a gate: nothing of the agent's own, and of the job only names that were checked."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = "/"
    return {
        "PATH": DEFAULT_PATH,
        "LANG": "C.UTF-8",
        "HOME": home,
        "GATE_BEFORE": before,
        "JOB_ID": job_id,
        "JOB_HANDLER": handler,
    }


def ask(gate: Path, environ: dict[str, str], *, stop: int, seconds: float = ANSWER_SECONDS) -> str:
    """Run a gate and return why it is closed, "" if it is open.

    Args:
        gate: the program.
        environ: its environment, all of it.
        stop: an eventfd; once it is written to, the gate is ended.
        seconds: how long the gate may take.
    """
    name = sentence(gate.name)
    try:
        if distrust := _distrust(gate):
            return f"gate {name} cannot be trusted: {distrust}"
        child = subprocess.Popen(
            [gate],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environ,
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"gate {name} cannot be run: {getattr(error, 'strerror', None) or error}"
    watched = _Watched(child)
    try:
        if not watched.ended(stop, seconds):
            return f"gate {name} gave no answer within {seconds:g} s"
    except OSError as error:
        return f"gate {name} cannot be watched: {error.strerror}"
    finally:
        watched.end()
    return _verdict(name, child.returncode, first_line(watched.head), sentence(watched.tail.last_line()))


def _distrust(gate: Path) -> str:
    """Return why a program may not be run: others than root and the agent could change it, or it is none.

    Raises:
        OSError: it cannot be looked at.
    """
    status = gate.stat()
    if not stat.S_ISREG(status.st_mode):
        return "it is not a file; move it away"
    if not os.access(gate, os.X_OK):
        return f"it is not executable; run chmod +x {gate}, or move it away"
    return program_problem(gate)


def _verdict(name: str, code: int, said: str, complained: str) -> str:
    match code:
        case 0:
            return ""
        case 75:
            return f"gate {name}: {said or 'closed'}"
        case _:
            how = f"ended by {signal_name(128 - code)}" if code < 0 else f"exited with status {code}"
            return f"gate {name} failed: {how}{': ' * bool(complained)}{complained}"


class _Watched:
    """A gate that runs: what it writes is read at once, and little of it kept."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None  # noqa: S101 - both were asked for
        assert child.stderr is not None  # noqa: S101
        self.head = b""
        self.tail = Tail()
        self._child = child
        self._files = (child.stdout, child.stderr)
        self._streams = tuple(file.fileno() for file in self._files)
        for fd in self._streams:
            os.set_blocking(fd, False)
        self._pidfd = -1

    def ended(self, stop: int, seconds: float) -> bool:
        """Wait until it ended, and return whether it did in time and before it was told to stop.

        Raises:
            OSError: the process cannot be waited for.
        """
        self._pidfd = os.pidfd_open(self._child.pid)
        poll = select.poll()
        for fd in (*self._streams, self._pidfd, stop):
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if stop in ready:
                return False
            if self._pidfd in ready:
                for fd in self._streams:  # What it wrote last may have come while the poll was going on.
                    self._read(fd)
                return True
            for fd in ready:
                if not self._read(fd):
                    poll.unregister(fd)
        return False

    def _read(self, fd: int) -> bool:
        """Take what a stream has; return whether more may come."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if fd == self._streams[0]:
            self.head += data[: _HEAD_BYTES - len(self.head)]
        else:
            self.tail.append(data)
        return bool(data)

    def end(self) -> None:
        """Kill it and all that it started, and forget it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_GONE_SECONDS)
        for file in self._files:
            file.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
