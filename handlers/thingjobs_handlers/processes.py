"""Running the program of a step: its identity, its output, its end. Knows nothing of jobs.

A program stays in the handler's session and process group, so that the agent can stop all of it. Its output is passed
on to our own stdout and stderr, where the agent's bounded log takes it; of each stream only a tail and a count stay
in memory.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING

from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TAIL_BYTES = 1024
_CHUNK_BYTES = 65536
#: How long output may still come after the program ended: what it left running may hold the streams for ever.
_LINGER_S = 2.0
_STDOUT, _STDERR = 1, 2


class CannotStartError(Exception):
    """The program of a step did not start; the message says why.

    Attributes:
        code: why, for programs.
    """

    def __init__(self, reason: str, code: Code = Code.STEP_FAILED) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run.

    Attributes:
        argv: its name or path, and its arguments; no shell ever sees them.
        user: the account to run it as; None: our own.
        stdin: what it reads on standard input.
        failures: what certain exit statuses mean; all others are `step.failed`.
        talks: it is one of ours, and its stdout is for `heard` alone.
    """

    argv: tuple[str, ...]
    user: str | None = None
    stdin: str = ""
    failures: Mapping[int, Code] = field(default_factory=dict)
    talks: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status; below 0: the signal that killed it.
        stdout: the last bytes of its standard output.
        stderr: the last bytes of its standard error.
        stderr_lines: how many lines it wrote to standard error.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    stderr_lines: int = 0


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who a program runs as: what Popen needs to become another account; all None: nobody else."""

    argv: tuple[str, ...]
    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    environment: dict[str, str] | None = None


def run(program: Program, heard: Callable[[bytes], None] | None = None) -> Ended:
    """Run a program to its end.

    Args:
        program: what to run.
        heard: is given the stdout of a program that `talks`, in pieces, from another thread.

    Raises:
        CannotStartError: it did not start.
    """
    identity = _identity_of(program)
    try:
        process = subprocess.Popen(
            identity.argv,
            stdin=subprocess.PIPE if program.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=identity.environment,
            user=identity.uid,
            group=identity.gid,
            extra_groups=identity.groups,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CannotStartError(_why_not(identity.argv[0], error)) from error
    assert process.stdout is not None  # noqa: S101 - asked for above
    assert process.stderr is not None  # noqa: S101 - likewise
    out = _Drain(process.stdout, heard if program.talks and heard else _passing_to(_STDOUT))
    err = _Drain(process.stderr, _passing_to(_STDERR))
    _feed(process, program.stdin)
    status = process.wait()
    deadline = time.monotonic() + _LINGER_S
    for drain in (out, err):
        drain.join(max(0, deadline - time.monotonic()))
    return Ended(status, out.tail, err.tail, err.lines)


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


class _Drain(Thread):
    """Empties one stream as fast as it fills and keeps its end: a full pipe would stop the program."""

    def __init__(self, stream: IO[bytes], take: Callable[[bytes], None]) -> None:
        super().__init__(daemon=True)
        self.tail = b""
        self._newlines = 0
        self._stream = stream
        self._take = take
        self.start()

    @property
    def lines(self) -> int:
        """Lines so far; a last one without its newline counts."""
        return self._newlines + (self.tail != b"" and not self.tail.endswith(b"\n"))

    def run(self) -> None:
        with self._stream:
            while chunk := self._stream.read(_CHUNK_BYTES):
                self.tail = (self.tail + chunk)[-TAIL_BYTES:]
                self._newlines += chunk.count(b"\n")
                # Nobody takes it any more: the program is not to suffer for that.
                with suppress(OSError):
                    self._take(chunk)


def _passing_to(descriptor: int) -> Callable[[bytes], None]:
    def take(chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]

    return take


def _feed(process: subprocess.Popen[bytes], text: str) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(text.encode())


def _identity_of(program: Program) -> _Identity:
    if program.user is None:
        return _Identity(program.argv)
    try:
        account = pwd.getpwnam(program.user)
    except KeyError:
        raise CannotStartError(f'there is no user "{program.user}" on this device', Code.USER_UNKNOWN) from None
    if account.pw_uid == os.geteuid():
        return _Identity(program.argv)
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise CannotStartError(f"to run as {program.user} it needs sudo, which is not installed")
        # -n: never ask for a password; --: nothing that follows is an option or a variable of sudo's.
        return _Identity(("sudo", "-n", "-u", program.user, "--", *program.argv))
    names = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return _Identity(program.argv, account.pw_uid, account.pw_gid, groups, {**os.environ, **names})


def _why_not(name: str, error: Exception) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT if "/" in name and Path(name).exists():
            return f"the interpreter that the first line of {name} names is not on this device"
        case errno.ENOENT | errno.ENOTDIR:
            return f"there is no program {name} on this device"
        case errno.EACCES:
            return f"{name} may not be executed"
        case errno.ENOEXEC:
            return f"{name} is not a program for this machine, or a script without a first line such as #!/bin/sh"
        case _:
            return f"{name} cannot be executed: {error}"
