"""One thread for each running verb: drains what the handler writes at once, and sees it end.

It only reads and puts events on the agent's queue; it decides nothing. Output and handler events are folded into at
most one Progressed a second, and the reading of events takes no more than its share of a processor: a chatty handler
waits, not the agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import termios
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from thingjobs.exits import Exit
from thingjobs.machine.events import Ending, Finished, Progressed
from thingjobs.redact import discreet
from thingjobs.runner import events, exits, files, joblog
from thingjobs.runner.events import Lines, Said, Wanted, fold
from thingjobs.runner.joblog import JobLog, Tail, Words
from thingjobs.runner.pace import Pace
from thingjobs.runner.process import SHIM_FAILED

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from thingjobs.model import Identity, Verb
    from thingjobs.runner.sweep import Family

Result = TypeVar("Result")

READ_BYTES = 64 * 1024
#: Few enough that even lines that are no events take a slow processor only for a moment.
EVENT_BYTES = 8 * 1024
FOLD_SECONDS = 1.0
MAX_SAID_BYTES = 2 * 1024 * 1024
#: Of a processor, for the events of one verb; so much at once is free.
EVENT_SHARE, EVENT_BURST_SECONDS = 0.2, 0.1
#: A killed process is gone at once, unless the kernel is stuck with it.
DEATH_SECONDS = 10.0
#: More than it takes the kernel to take a handler apart that had gigabytes.
SEEN_SECONDS = 2.0
PATIENCE_TRIES, PATIENCE_PAUSE = 120, 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """What a watcher watches: one run of a verb.

    Attributes:
        child: the shim if it is our own child, None after a re-adoption.
        pipes: the reading ends of stdout, stderr and the events, in this order; closed by the watcher.
        exit_file: where the exit status is stored.
        exit_fd: the same, open for reading; closed by the watcher. -1: it is gone.
        family: all that the verb started; its pidfd is closed by the watcher.
        grace: seconds between SIGTERM and SIGKILL.
        memory: bytes that it may use, None: as many as it wants.
    """

    identity: Identity
    verb: Verb
    attempt: int
    child: subprocess.Popen[bytes] | None
    pipes: tuple[int, int, int]
    exit_file: Path
    exit_fd: int
    family: Family
    grace: float
    memory: int | None = None


class Watcher(threading.Thread):
    """Watches one verb of one execution until it ended or the agent lets go of it.

    Args:
        said: what an earlier agent heard of it.
        put: takes the events.
    """

    def __init__(
        self,
        subject: Subject,
        put: Callable[[Progressed | Finished | Wanted], None],
        said: Said = events.NOTHING_SAID,
    ) -> None:
        super().__init__(name=f"watch {subject.identity} {subject.verb}", daemon=True)
        self._subject = subject
        self.identity = subject.identity
        self._put = put
        self._family = subject.family
        self._child = subject.child
        self._out, self._err, self._events = subject.pipes
        self._poller = select.poll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        #: Held to write to `_wake` and to close it: once closed, its number may be that of another file.
        self._waking = threading.Lock()
        self._log = JobLog(subject.exit_file.parent)
        self._tails = {self._out: Tail(), self._err: Tail()}
        self._words = {self._out: Words(), self._err: Words()}
        if subject.child is None:
            self._tails[self._err].append(joblog.last_words(subject.exit_file.parent))
        self._lines = Lines()
        self._said = said
        self._kept = events.kept(said)
        self._pace = Pace(EVENT_SHARE, EVENT_BURST_SECONDS)
        self._news = self._alive = False
        self._told_at = self._refreshed_at = self._wanted_at = 0.0
        self._kill_at: float | None = None
        self._end_asked = False
        self._let_go = False
        self._stored = exits.Stored(complete=False)
        #: Pipes that nobody has open for writing: they would be told ready for ever.
        self._silent: set[int] = set()
        #: There was never more of it than its shim and its handler.
        self._alone = False
        #: Its end is told; what the kernel still does to it is soon over, and with that this thread.
        self.told = False
        #: It was not: it is not waited for again.
        self.stuck = False
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
        for fd in (self._family.pidfd, self._out, self._err, self._events, self._wake):
            self._poller.register(fd, select.POLLIN)
        try:
            # An earlier agent may have read the wake-up.
            over = self._child is None and self._is_over()
            while not over and not self._let_go:
                over = self._turn()
            if over:
                self._finish()
            else:
                self._press(time.monotonic())  # It may have been told to end it and to let go of it in one breath.
        finally:
            self.close()

    def _turn(self) -> bool:
        """Wait for something and deal with it; return whether the verb is over."""
        now = time.monotonic()
        paused = self._pace.wait(now)
        if self._events not in self._silent:
            self._poller.register(self._events, 0 if paused else select.POLLIN)
        ready = {fd for fd, _ in self._poller.poll(self._timeout(now, paused))}
        if paused:
            ready.discard(self._events)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        began = time.thread_time()
        self._read(ready)
        if self._family.pidfd in ready:
            return True
        self._press(time.monotonic())
        self._tell(time.monotonic())
        self._want(time.monotonic())
        if self._events not in ready:
            return False
        # By an empty line among the events the exit status is said to be stored; whoever may say so.
        over = self._is_over()
        self._pace.spent(time.thread_time() - began, time.monotonic())
        return over

    def _timeout(self, now: float, paused: float) -> int | None:
        waits = [paused] if paused else []
        if self._news or self._alive or self._said.refresh:
            waits.append((self._refreshed_at if self._said.refresh else self._told_at) + FOLD_SECONDS - now)
        if self._said.cloud is not None:
            waits.append(self._wanted_at + FOLD_SECONDS - now)
        if self._kill_at is not None:
            waits.append(self._kill_at - now)
        return max(0, int(min(waits) * 1000) + 1) if waits else None

    def _read(self, fds: Iterable[int]) -> None:
        """Read once from each stream that has something."""
        for fd in fds:
            if fd in (self._out, self._err, self._events):
                self._read_one(fd, EVENT_BYTES if fd == self._events else READ_BYTES)

    def _read_one(self, fd: int, most: int) -> int:
        """Read once from a stream; return how much it was."""
        try:
            data = os.read(fd, most)
        except BlockingIOError:
            return 0
        self._take(fd, data)
        if not data and fd not in self._silent:
            self._silent.add(fd)
            self._poller.unregister(fd)
        return len(data)

    def _press(self, now: float) -> None:
        if self._end_asked and self._kill_at is None:
            self._family.stop()
        elif self._kill_at is not None and now >= self._kill_at:
            self._family.kill()
        else:
            return
        self._kill_at = now + self._subject.grace

    def _take(self, fd: int, data: bytes) -> None:
        if not data:
            return
        if fd == self._events:
            self._hear(data)
            return
        self._alive = True
        self._tails[fd].append(data)
        self._log.append(self._words[fd].feed(data))

    def _hear(self, data: bytes) -> None:
        before = self._said
        for line in self._lines.feed(data):
            self._said = fold(self._said, line)
        if self._said is not before:
            self._news = self._alive = True
            self._keep(self._said)

    def _keep(self, said: Said) -> None:
        """Write down what must not be lost with the agent, when there is something new."""
        kept = events.kept(said)
        if kept == self._kept:
            return
        self._kept = kept
        name = said_file(self._subject.exit_file)
        with contextlib.suppress(OSError), files.opened_folder(name.parent) as folder:  # A full disk loses words only.
            files.replace(name.name, kept, folder=folder)

    def _tell(self, now: float) -> None:
        asks = self._said.refresh and now >= self._refreshed_at + FOLD_SECONDS
        if not asks and (not (self._news or self._alive) or now < self._told_at + FOLD_SECONDS):
            return
        said = self._said if self._news else Said()
        self._put(Progressed(self._subject.identity, said.percent, said.message, said.details, refresh=asks))
        self._news = self._alive = False
        self._told_at = now
        if asks:
            self._said = replace(self._said, refresh=False)
            self._refreshed_at = now

    def _want(self, now: float) -> None:
        """Pass on a question for credentials, at most one a second; the core has nothing to decide there."""
        if self._said.cloud is not None and now >= self._wanted_at + FOLD_SECONDS:
            self._put(Wanted(self._subject.identity, self._said.cloud))
            self._said = replace(self._said, cloud=None)
            self._wanted_at = now

    def _is_over(self) -> bool:
        """Return whether it is stored how it ended.

        What a handler stores as its last act counts where it is alone. Else it has to be gone before anybody can say
        what it left behind: then its shim's word is waited for.
        """
        if not self._has_stored():
            return False
        self._alone = self._family.is_alone()
        return self._alone or not self._stored.early

    def _has_stored(self) -> bool:
        self._stored = exits.stored_in(self._subject.exit_fd)
        return self._stored.complete

    # --- the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The handler ended, or its shim died: read and keep all that it said, end what it left, tell how it ended."""
        self._drain()
        if (self._stored.complete or self._has_stored()) and self._stored.code != 0:
            self._keep(replace(self._said, reason=self._reason(self._stored.code)))
        # Nobody is left who could say more, or is to be ended: how long the kernel takes to bury a handler and its
        # shim keeps no report waiting.
        if self._alone and self._stored.code == 0:
            self._tell_end(self._ending(None))
        self._wait_for_shim()
        status = _patiently(self._end_shim, None)
        out_of_memory = _patiently(self._family.ran_out_of_memory, otherwise=False)
        _patiently(partial(self._family.sweep, alone=self._alone), None)
        self._drain()
        self.silent = all(_at_end(fd) for fd in (self._out, self._err, self._events))
        self._end_words()
        if self._said.broken:
            self._log.append(b"\n[thingjobs: %d lines in $JOB_EVENTS were no events]\n" % self._said.broken)
        if self.told:
            return
        ending = self._ending(status)
        if out_of_memory and ending.code != 0:
            reason = f"it used more memory than its limit of {size(self._subject.memory)}"
            ending = replace(ending, code=None, signal="SIGKILL", reason=reason)
        self._tell_end(ending)

    def _tell_end(self, ending: Ending) -> None:
        self.told = True
        self._put(Finished(self._subject.identity, self._subject.verb, self._subject.attempt, ending))

    def _end_words(self) -> None:
        for words in self._words.values():
            self._log.append(words.end())

    def _end_shim(self) -> int | None:
        """End the shim and what its handler may not leave; return its exit status if nothing else tells one."""
        if self._stored.complete:
            self._family.dismiss()
        else:
            self._family.kill()
        if self._child is None:
            self._family.wait(DEATH_SECONDS)
            status = self._family.bury()
        else:
            status = self._child.wait()
        return None if self._stored.complete else status

    def _wait_for_shim(self) -> None:
        """Wait until the shim has seen the end of a handler that stored it itself: then it is gone, and buried."""
        until = time.monotonic() + SEEN_SECONDS
        waiting = select.poll()
        for fd in (self._family.pidfd, self._events):
            waiting.register(fd, select.POLLIN)
        # It may have told so before this was called, and nobody be woken any more.
        while self._has_stored() and self._stored.early and (left := until - time.monotonic()) > 0:
            ready = {fd for fd, _ in waiting.poll(left * 1000)}
            if self._family.pidfd in ready:
                return
            self._read(ready)

    def _drain(self) -> None:
        """Read what is in the pipes now, and not what somebody who may stay goes on to write."""
        for fd in (self._out, self._err, self._events):
            left = _waiting(fd)
            while left > 0 and (got := self._read_one(fd, min(left, READ_BYTES))):
                left -= got
        self._take(self._events, b"\n")  # A last line without its newline is complete now, or was cut and is no JSON.

    def _reason(self, code: int | None) -> str:
        return discreet(exits.reason(self._subject.verb, code, self._said, self._tails[self._err].last_line()))

    def _ending(self, status: int | None) -> Ending:
        if self._stored.never:
            return Ending(Exit.LATER, reason="an earlier agent ended before it could begin", after=0.0)
        code = self._stored.code
        if code is None and status is not None and status != SHIM_FAILED:
            code = 128 - status if status < 0 else status
        return exits.ending(code, self._said, self._reason(code))

    def close(self) -> None:
        """Close all that was opened to watch."""
        self._end_words()
        self._log.close()
        for fd in (self._family.pidfd, self._out, self._err, self._events, self._subject.exit_fd):
            if fd >= 0:
                os.close(fd)
        self.discard()

    def discard(self) -> None:
        """Close what is the watcher's own."""
        with self._waking:
            os.close(self._wake)
            self._wake = -1


def _patiently(act: Callable[[], Result], otherwise: Result) -> Result:
    """Do what may fail for want of open files, until it does not, for a minute: the agent waits to hear of the end."""
    for _ in range(PATIENCE_TRIES):
        try:
            return act()
        except OSError:
            time.sleep(PATIENCE_PAUSE)
    return otherwise


def _waiting(fd: int) -> int:
    """Return how many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _at_end(fd: int) -> bool:
    """Return whether nobody holds the writing end of a pipe any more."""
    try:
        return os.read(fd, 1) == b""
    except BlockingIOError:
        return False


def said_file(exit_file: Path) -> Path:
    """Return the file, beside the exit status, that keeps what one run of a verb said."""
    return exit_file.with_name(exit_file.name.replace("exit", "said", 1))


def said_before(exit_file: Path) -> Said:
    """Return what one run of a verb said to an earlier agent."""
    kept = files.read(said_file(exit_file), MAX_SAID_BYTES)
    return fold(events.NOTHING_SAID, kept) if kept else events.NOTHING_SAID


def size(count: int | None) -> str:
    """Return a number of bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count is not None and count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count} bytes"
