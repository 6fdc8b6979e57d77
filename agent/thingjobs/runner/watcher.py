"""One thread for each running verb: drains what the handler writes at once, and sees it end.

It only reads and puts events on the agent's queue; it decides nothing. Output and handler events are folded into at
most one Progressed a second, so a chatty handler costs the agent nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

from thingjobs.machine.events import Ending, Finished, Progressed
from thingjobs.runner.events import Lines, Said, fold
from thingjobs.runner.joblog import JobLog, Tail

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.model import Identity, Verb

READ_BYTES = 64 * 1024
FOLD_SECONDS = 1.0
KILL_AFTER_SECONDS = 30.0
#: A process that escaped from the group and still writes may not hold up the end: so often its pipes are emptied.
DRAIN_ROUNDS = 64
#: What the shim stores when the agent died before it said go: nothing ran.
NEVER = b"never\n"
#: The file is the handler's user's to write: no more of it is read than an exit status needs.
_EXIT_BYTES = 16


class Watcher(threading.Thread):
    """Watches one verb of one execution until it ended or the agent lets go of it.

    Args:
        pid: of the shim; leader of its session and process group.
        child: the shim if it is our own child, None after a re-adoption.
        pidfd: becomes readable when the shim ends; closed by the watcher.
        pipes: the reading ends of stdout, stderr and the events, in this order; closed by the watcher.
        exit_file: where the shim writes the exit status.
        put: takes the events.
    """

    def __init__(  # noqa: PLR0913 - all of it is needed to watch one process
        self,
        identity: Identity,
        verb: Verb,
        attempt: int,
        *,
        pid: int,
        child: subprocess.Popen[bytes] | None,
        pidfd: int,
        pipes: tuple[int, int, int],
        exit_file: Path,
        put: Callable[[Progressed | Finished], None],
    ) -> None:
        super().__init__(name=f"watch {identity} {verb}", daemon=True)
        self.identity = identity
        self._verb = verb
        self._attempt = attempt
        self._pid = pid
        self._child = child
        self._pidfd = pidfd
        self._out, self._err, self._events = pipes
        self._exit_file = exit_file
        self._put = put
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: Held to write to `_wake` and to close it: once closed, its number may be that of another file.
        self._waking = threading.Lock()
        self._log = JobLog(exit_file.parent)
        self._tails = {self._out: Tail(), self._err: Tail()}
        self._lines = Lines()
        self._said = Said()
        self._news = self._alive = False
        self._told_at = 0.0
        self._kill_at: float | None = None
        self._end_asked = False
        self._let_go = False
        #: After the end: nothing that this verb started can write into its pipes any more.
        self.silent = False

    # --- called by the agent's thread -----------------------------------------------------------------------------

    def end(self) -> None:
        """Send SIGTERM to all of it, and SIGKILL when that did not help.

        The thread does it: only there it is known that the process group is still the one that was started.
        """
        self._end_asked = True
        self._poke()

    def let_go(self) -> None:
        """Stop watching; the handler goes on, for the next agent to find."""
        self._let_go = True
        self._poke()

    def _poke(self) -> None:
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # --- the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until the end."""
        poller = select.poll()
        for fd in (self._pidfd, self._out, self._err, self._events, self._wake):
            poller.register(fd, select.POLLIN)
        try:
            while not self._let_go:
                ready = {fd for fd, _ in poller.poll(self._timeout())}
                self._read(ready, poller)
                if self._pidfd in ready:
                    self._finish()
                    return
                now = time.monotonic()
                self._press(now)
                self._tell(now)
            self._press(time.monotonic())  # It may have been told to end it and to let go of it in one breath.
        finally:
            self._close()

    def _timeout(self) -> int | None:
        now = time.monotonic()
        waits = []
        if self._news or self._alive:
            waits.append(self._told_at + FOLD_SECONDS - now)
        if self._kill_at is not None:
            waits.append(self._kill_at - now)
        return max(0, int(min(waits) * 1000) + 1) if waits else None

    def _read(self, ready: set[int], poller: select.poll | None) -> bool:
        """Read once from each stream that has something; return whether any had."""
        got = False
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        for fd in (self._out, self._err, self._events):
            if fd not in ready:
                continue
            with contextlib.suppress(BlockingIOError):
                data = os.read(fd, READ_BYTES)
                got = got or bool(data)
                self._take(fd, data)
                if not data and poller is not None:
                    poller.unregister(fd)
        return got

    def _press(self, now: float) -> None:
        if self._end_asked and self._kill_at is None:
            self._signal(signal.SIGTERM)
        elif self._kill_at is not None and now >= self._kill_at:
            self._signal(signal.SIGKILL)
        else:
            return
        self._kill_at = now + KILL_AFTER_SECONDS

    def _take(self, fd: int, data: bytes) -> None:
        if not data:
            return
        self._alive = True
        if fd == self._events:
            for line in self._lines.feed(data):
                self._said = fold(self._said, line)
                self._news = True
            return
        self._tails[fd].append(data)
        self._log.append(data)

    def _tell(self, now: float) -> None:
        if not (self._news or self._alive) or now < self._told_at + FOLD_SECONDS:
            return
        said = self._said if self._news else Said()
        self._put(Progressed(self.identity, said.percent, said.message, said.details))
        self._news = self._alive = False
        self._told_at = now

    def _finish(self) -> None:
        """The shim ended: end what it left behind, drain what is still in the pipes, tell how it ended."""
        self._signal(signal.SIGKILL)
        status = self._child.wait() if self._child else None
        streams = {self._out, self._err, self._events}
        for _ in range(DRAIN_ROUNDS):
            if not self._read(streams, None):
                break
        self.silent = all(_at_end(fd) for fd in streams)
        self._take(self._events, b"\n")  # A last line without its newline is complete now, or was cut and is no JSON.
        if self._said.broken:
            self._log.append(b"\n[thingjobs: %d lines in $JOB_EVENTS were no events]\n" % self._said.broken)
        self._put(Finished(self.identity, self._verb, self._attempt, self._ending(status)))

    def _ending(self, status: int | None) -> Ending:
        code = read_exit(self._exit_file)
        if code is None and status is not None and status < 0:
            code = 128 - status
        said = self._said
        reason = said.reason or self._tails[self._err].last_line()
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

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _close(self) -> None:
        self._log.close()
        for fd in (self._pidfd, self._out, self._err, self._events):
            os.close(fd)
        with self._waking:
            os.close(self._wake)
            self._wake = -1


def _at_end(fd: int) -> bool:
    """Return whether nobody holds the writing end of a pipe any more."""
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def read_exit(path: Path) -> int | None:
    """Return the exit status that the shim stored; None when there is no complete line."""
    line, newline, _ = _stored(path).partition(b"\n")
    return int(line) if newline and line.isdigit() else None


def never_began(path: Path) -> bool:
    """Return whether the shim stored that it was never let go."""
    return _stored(path) == NEVER


def _stored(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_EXIT_BYTES)
    except OSError:
        return b""


def signal_name(code: int | None) -> str:
    """Return the signal that a shell's exit status stands for, "" when it is a plain status."""
    if code is None or not 128 < code <= 192:
        return ""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"
