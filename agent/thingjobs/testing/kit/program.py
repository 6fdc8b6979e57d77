"""A handler that is a program: a real process for each verb, which finds job.json, $JOB_EVENTS and the rest.

What the agent does besides is left out: no shim that outlives it, no cgroup, no other account. So nothing here needs
root, and a verb takes as long as its program.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from thingjobs.runner import given
from thingjobs.runner.events import Lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thingjobs.testing.kit.running import Running

#: Real seconds without an event after which a program counts as hanging.
QUIET_SECONDS = 0.5
#: Real seconds between SIGTERM and SIGKILL; the agent gives thirty.
GRACE_SECONDS = 2.0
#: Real seconds after which a test is told that its handler does not end.
MOST_SECONDS = 60.0
READ_BYTES = 64 * 1024


def run_program(argv: Sequence[str], running: Running, environment: Mapping[str, str]) -> int:
    """Run one verb to its end, and return its exit status as a shell tells it: 128 + N for signal N.

    Args:
        argv: the program.
        running: which verb of which job; takes what the program says.
        environment: for the program, on top of what the contract promises.

    Raises:
        OSError: it cannot be started.
        AssertionError: it does not end.
        Ended: the power was cut while it ran; nothing of it is left.
    """
    running.put_job()
    events = running.folder / "events"
    if not events.exists():
        os.mkfifo(events, 0o600)
    with contextlib.ExitStack() as stack:
        # Held open for writing too: a handler never waits for a reader, and never loses one.
        fd = os.open(events, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        child = stack.enter_context(
            subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=running.work,
                env=environment_of(running, environment),
                start_new_session=True,
            )
        )
        stack.callback(_end, child)
        Watch(child, fd, running).watch()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def on_top(more: Mapping[str, str]) -> dict[str, str]:
    """Return what the agent would give to a handler on top of what the contract promises; PATH is in it."""
    return {"PATH": given.with_own_commands(os.environ.get("PATH", os.defpath)), **more}


def environment_of(running: Running, more: Mapping[str, str]) -> dict[str, str]:
    """Return what a handler finds in its environment."""
    return given.environment(
        on_top(more),
        home=os.environ.get("HOME", "/"),
        verb=running.run.verb,
        work=running.work,
        events=running.folder / "events",
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of a verb: itself, and all in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


class Watch:
    """Reads what a program says until it ends, and ends it when it is told to stop."""

    def __init__(self, child: subprocess.Popen[bytes], events: int, running: Running) -> None:
        self._child = child
        self._events = events
        self._running = running
        self._lines = Lines()
        assert child.stdout is not None  # noqa: S101 - it was asked for a line ago
        assert child.stderr is not None  # noqa: S101
        self._out, self._err = child.stdout.fileno(), child.stderr.fileno()
        self._open = [self._out, self._err, self._events]
        self._kill_at: float | None = None
        self._quiet_at: float | None = time.monotonic() + QUIET_SECONDS

    def watch(self) -> None:
        """Read until the end."""
        give_up_at = time.monotonic() + MOST_SECONDS
        pidfd = os.pidfd_open(self._child.pid)
        try:
            while not self._read(pidfd):
                if time.monotonic() > give_up_at:
                    raise AssertionError(f"{self._running.run.verb} still runs after {MOST_SECONDS:.0f} s")
        finally:
            os.close(pidfd)
        self._child.wait()
        _end(self._child)
        while self._drain():
            pass
        self._take(self._events, b"\n")  # A last line without its newline is complete now.

    def _read(self, pidfd: int) -> bool:
        """Read what there is, waiting for it; return whether the program ended."""
        ready = select.select([*self._open, pidfd], [], [], self._patience())[0]
        for fd in ready:
            if fd != pidfd:
                self._take(fd, os.read(fd, READ_BYTES))
        if self._quiet_at is not None and time.monotonic() >= self._quiet_at:
            self._quiet_at = None
            self._running.hangs()
        self._press()
        return pidfd in ready

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min((at - now for at in (self._kill_at, self._quiet_at) if at is not None), default=1.0))

    def _press(self) -> None:
        if not self._running.told:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_SECONDS
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)
        elif time.monotonic() >= self._kill_at:
            _end(self._child)

    def _drain(self) -> bool:
        """Read what is left in the pipes; return whether there was anything."""
        ready = select.select(self._open, [], [], 0)[0]
        for fd in ready:
            self._take(fd, os.read(fd, READ_BYTES))
        return bool(ready)

    def _take(self, fd: int, data: bytes) -> None:
        if fd == self._events:
            for line in self._lines.feed(data):
                if self._quiet_at is not None:
                    self._quiet_at = time.monotonic() + QUIET_SECONDS
                self._running.event(line)
        elif not data:
            self._open.remove(fd)
        else:
            self._running.write(data.decode(errors="replace"), error=fd == self._err)
