"""Making the process of a verb: its folder, its pipes, the shim that outlives the agent, and the go gate.

The shim is a few lines of `sh` that waits for "go" (the agent says it only after the journal knows the pid; if the
agent dies before, nothing ran, and a file says so), holds the pipes open so that a handler without an agent blocks
instead of dying, and stores the exit status in that file. What the shell itself has to say of a handler's death
("Killed") goes nowhere: the handler's own last words are the reason.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import signal
import stat
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.errors import StateError
from thingjobs.handler import CONTRACT
from thingjobs.model import Process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thingjobs.machine.effects import Run
    from thingjobs.model import Json, Verb

SHIM = """\
read -r go || { echo never >>"$1"; exit 125; }
exec 3<>"$JOB_EVENTS" 4>>"$1" 5>&2 2>/dev/null </dev/null || exit 125
shift
trap : TERM INT HUP
(exec "$@" 2>&5 3>&- 4>&- 5>&-)
echo "$?" >&4
"""
#: By this, and the file behind it, a shim is known among all processes.
SHIM_NAME = b"thingjobs"
STREAMS = ("stdout", "stderr", "events")
#: A process that starts others as it dies is followed so often.
LEFTOVER_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs a handler: the numbers of a local account."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account_of(name: str) -> Account:
    """Return the local account `name`.

    Raises:
        StateError: there is none.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StateError(f"cannot run as {name}: there is no such user here") from None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one execution: the agent's own, with the handler's `work` in it."""

    folder: Path

    @property
    def work(self) -> Path:
        """The handler's folder, and its working directory."""
        return self.folder / "work"

    def exit_file(self, verb: Verb, attempt: int) -> Path:
        """Return where the shim stores the exit status of one run."""
        return self.folder / f"exit-{verb}-{attempt}"

    def make(self, account: Account | None) -> None:
        """Make folders and pipes; what is there already is kept; what is no pipe, or one open to others, is made anew.

        Raises:
            OSError: it could not be made.
        """
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.work.mkdir(mode=0o700, exist_ok=True)
        for name in STREAMS:
            path = self.folder / name
            if os.path.lexists(path):
                if path.lstat().st_mode == stat.S_IFIFO | 0o600:
                    continue
                path.unlink()
            os.mkfifo(path, 0o600)
            self._give(path, account)
        self._give(self.work, account)

    def _give(self, path: Path, account: Account | None) -> None:
        if account is not None and account.uid != os.geteuid():
            os.chown(path, account.uid, account.gid, follow_symlinks=False)

    def prepare_run(self, job: Json, exit_file: Path, account: Account | None) -> None:
        """Write job.json for a run, and make the empty file for its exit status.

        Raises:
            OSError: it could not be written.
        """
        self.make(account)
        where = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._write_job(where, job, account)
        finally:
            os.close(where)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(exit_file, flags, 0o600))
        self._give(exit_file, account)

    def _write_job(self, where: int, job: Json, account: Account | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(".job.json.new", dir_fd=where)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(".job.json.new", flags, 0o600, dir_fd=where)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(job, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
            if account is not None and account.uid != os.geteuid():
                os.fchown(file.fileno(), account.uid, account.gid)
        os.rename(".job.json.new", "job.json", src_dir_fd=where, dst_dir_fd=where)

    def open_pipes(self) -> tuple[int, int, int]:
        """Open the reading ends of the pipes, none of which blocks.

        Raises:
            OSError: one is gone, or is no pipe.
        """
        fds: list[int] = []
        try:
            for name in STREAMS:
                fds.append(_open_pipe(self.folder / name))  # noqa: PERF401 - what was opened must be known to be closed
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds[0], fds[1], fds[2]

    def remove(self) -> None:
        """Remove the folder and all in it; what resists stays."""
        import shutil  # noqa: PLC0415 - it brings three compression libraries along, and is seldom wanted

        shutil.rmtree(self.folder, ignore_errors=True)

    def give_back(self, spare: Path) -> bool:
        """Empty the folder and keep it as `spare` for the next execution; False if it is not fit for that.

        Making and removing folders and pipes costs a disk more than all else around a short job.
        """
        try:
            for path in self.folder.iterdir():
                if path.name not in (*STREAMS, "work"):
                    path.unlink()
            if not stat.S_ISDIR(self.work.lstat().st_mode):
                return False
            for path in self.work.iterdir():
                path.unlink()
            # Made anew for the next: a process that escaped may stand in this one, and its mode may be anything.
            self.work.rmdir()
            self.folder.rename(spare)
        except OSError:
            return False
        return True


def _open_pipe(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, "is not a pipe", str(path))


def job_json(run: Run, thing: str, deadline: float) -> Json:
    """Return what the handler reads as job.json (contract version 1)."""
    identity = run.record.identity
    return {
        "contract": CONTRACT,
        "jobId": identity.job_id,
        "execution": identity.number,
        "thing": thing,
        "params": run.record.plan.params,
        "verb": run.verb,
        "attempt": run.attempt,
        "resumed": run.resumed,
        "rebooted": run.rebooted,
        "dryRun": run.dry_run,
        "deadline": deadline,
        "revision": 1,
    }


@dataclass(slots=True)
class Started:
    """A process that waits for its go."""

    child: subprocess.Popen[bytes]
    process: Process
    gate: int
    pidfd: int
    pipes: tuple[int, int, int]
    exit_file: Path

    def go(self) -> None:
        """Let it begin."""
        with contextlib.suppress(OSError):
            os.write(self.gate, b"go\n")
        os.close(self.gate)

    def abandon(self) -> None:
        """End it before it began: nothing runs, nothing is left."""
        os.close(self.gate)
        self.child.kill()
        self.child.wait()
        for fd in (self.pidfd, *self.pipes):
            os.close(fd)


def start(
    place: Place, run: Run, *, job: Json, environment: Mapping[str, str], account: Account | None, boot_id: str
) -> Started:
    """Make the process of a verb, waiting for its go.

    Raises:
        OSError: it could not be made; nothing is left of it.
    """
    exit_file = place.exit_file(run.verb, run.attempt)
    place.prepare_run(job, exit_file, account)
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as held:
        pipes = place.open_pipes()
        for fd in pipes:
            undo.callback(os.close, fd)
        wait, gate = os.pipe()
        held.callback(os.close, wait)
        undo.callback(os.close, gate)
        out = os.open(place.folder / "stdout", os.O_RDWR | os.O_CLOEXEC)
        held.callback(os.close, out)
        err = os.open(place.folder / "stderr", os.O_RDWR | os.O_CLOEXEC)
        held.callback(os.close, err)
        argv = ["/bin/sh", "-c", SHIM, SHIM_NAME.decode(), str(exit_file), *run.record.plan.argv]
        child = _spawn(argv, (wait, out, err), place.work, environment, account)
        undo.callback(child.wait)
        undo.callback(child.kill)
        pidfd = os.pidfd_open(child.pid)
        undo.pop_all()
    process = Process(child.pid, boot.start_time(child.pid) or 0, boot_id)
    return Started(child, process, gate, pidfd, pipes, exit_file)


def _spawn(
    argv: list[str],
    streams: tuple[int, int, int],
    work: Path,
    environment: Mapping[str, str],
    account: Account | None,
) -> subprocess.Popen[bytes]:
    other = account is not None and account.uid != os.geteuid()
    return subprocess.Popen(
        argv,
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        cwd=work,
        env=dict(environment),
        start_new_session=True,
        user=account.uid if account and other else None,
        group=account.gid if account and other else None,
        extra_groups=account.groups if account and other else None,
    )


def end_leftovers(process: Process, work: Path) -> None:
    """Kill what is left of a verb whose shim is gone: members of its group that know the job's folder.

    The number of the group may belong to others by now, who do not.
    """
    mark = b"JOB_DIR=" + os.fsencode(work)
    for _ in range(LEFTOVER_ROUNDS):
        left = [pid for pid in boot.members(process.pid) if mark in boot.environment(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.01)


def end_verbs(folder: Path) -> None:
    """Kill each verb that still runs in the folder; what a verb that ended left behind on purpose is spared."""
    start_of_exit_file = os.fsencode(folder / "exit-")
    for pid in boot.processes():
        argv = boot.command(pid)
        if len(argv) > 4 and argv[3] == SHIM_NAME and argv[4].startswith(start_of_exit_file):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
