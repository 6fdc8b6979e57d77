"""Asking a child process something: what a class declares, which entry points there are, whether params fit.

Whatever the child does, an answer comes within its time: its output is bounded, and in the end it is killed with all
that it started, those that left its session included as far as their environment tells.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.marked import end_marked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thingjobs.boot import Moment

MAX_ANSWER = 64 << 10
#: How often is looked whether the child ended although somebody else holds its output.
GLANCE_SECONDS = 0.1
MARK = "THINGJOBS_ASKED"


class AskError(Exception):
    """The child gave no answer; the message says why, as the rest of a sentence."""


@dataclass(slots=True)
class _Output:
    """What a child wrote: of its answer the beginning, of its complaints the end."""

    answer: bytearray = field(default_factory=bytearray)
    complaint: bytearray = field(default_factory=bytearray)

    def add_complaint(self, data: bytes) -> None:
        self.complaint += data
        del self.complaint[:-MAX_ANSWER]

    def last_words(self) -> str:
        lines = self.complaint.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def ask(argv: Sequence[str], *, seconds: float, user: str | None = None, question: bytes = b"") -> bytes:
    """Return what a program prints.

    Args:
        argv: the program and its arguments.
        seconds: how long it may take.
        user: the account to run it as; None: the agent's own.
        question: its standard input.

    Raises:
        AskError: it failed, took too long, or printed more than it may.
    """
    mark = os.urandom(16).hex()
    since = boot.moment()
    try:
        child = _start(argv, user, question, mark)
    except KeyError:
        raise AskError(f"there is no user {user} on this device; create it, or set [handlers] user") from None
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "strerror", None) or error
        raise AskError(f"{argv[0]} cannot be started: {why}") from None
    output = _Output()
    try:
        status = _listen(child, output, time.monotonic() + seconds)
    finally:
        _end(child, mark, since)
    if status is None:
        raise AskError(f"it took longer than {seconds:g} s")
    if len(output.answer) > MAX_ANSWER:
        raise AskError(f"it printed more than {MAX_ANSWER >> 10} KiB")
    if status != 0 or not output.answer:
        raise AskError(output.last_words() or "it printed nothing")
    return bytes(output.answer)


def _start(argv: Sequence[str], user: str | None, question: bytes, mark: str) -> subprocess.Popen[bytes]:
    entry = pwd.getpwnam(user) if user is not None else None
    # A file in memory, so that neither side waits for the other.
    stdin = os.memfd_create("question") if question else os.open(os.devnull, os.O_RDONLY)
    try:
        if question:
            os.write(stdin, question)
            os.lseek(stdin, 0, os.SEEK_SET)
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={**_environment(entry), MARK: mark},
            start_new_session=True,
            user=entry.pw_uid if entry else None,
            group=entry.pw_gid if entry else None,
            extra_groups=os.getgrouplist(entry.pw_name, entry.pw_gid) if entry else None,
        )
    finally:
        os.close(stdin)


def _environment(entry: pwd.struct_passwd | None) -> Mapping[str, str]:
    """Return PATH, LANG and HOME, and nothing else of what the agent knows."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    return {**kept, "HOME": entry.pw_dir} if entry else kept


def _listen(child: subprocess.Popen[bytes], output: _Output, until: float) -> int | None:
    """Read until the child ends or the time is over; return its exit status, None if it did not end.

    What holds the pipes open after the child is not waited for.
    """
    assert child.stdout is not None  # noqa: S101 - for the type
    assert child.stderr is not None  # noqa: S101
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        selector.register(child.stderr, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0 and len(output.answer) <= MAX_ANSWER:
            ended = _status(child, wait=not selector.get_map() and left)
            ready = selector.select(0 if ended is not None else min(left, GLANCE_SECONDS)) if selector.get_map() else []
            if ended is not None and not ready:
                return ended
            for key, _ in ready:
                data = os.read(key.fd, MAX_ANSWER)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    output.answer += data
                else:
                    output.add_complaint(data)
    return _status(child) if len(output.answer) <= MAX_ANSWER else 0


def _status(child: subprocess.Popen[bytes], *, wait: float | bool = False) -> int | None:
    """Return how the child ended, None if it did not; it is not reaped, so that nobody else gets its number."""
    until = time.monotonic() + (wait or 0)
    while True:
        found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None or time.monotonic() >= until:
            return None if found is None else found.si_status
        time.sleep(0.01)


def _end(child: subprocess.Popen[bytes], mark: str, since: Moment | None) -> None:
    """Kill the child's group, and whoever left it, and let go of all; `since` is a moment before it began."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    # Until it is waited for below, its number is nobody else's, and tells which processes can have come of it.
    end_marked(f"{MARK}={mark}".encode(), lambda: boot.younger(child.pid, since))
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    child.wait()
