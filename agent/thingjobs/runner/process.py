"""Making the process of a verb: the shim that outlives the agent, and the go gate.

The shim is a few lines of `sh` that waits for "go" (the agent says it only after the journal knows the pid; if the
agent dies before, nothing ran, and a file says so), holds the pipes open so that a handler without an agent blocks
instead of dying, and stores the exit status in that file. Then it wakes the agent by an empty line among the events,
and stays, and with it what is in the pipes, until an agent has read that and kills it. What the shell itself has to
say of a handler's death ("Killed") goes nowhere: the handler's own last words are the reason.

A handler class is run by our own `thingjobs.child`. It is started before the go, and waits for it by itself: the start
of an interpreter takes longer than all else around a short job. It gets its job with the go, and stores its exit status
itself as its last act; the shim does so too, when it has seen it end.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.child import EXIT, GATE, GO, START
from thingjobs.model import Process
from thingjobs.runner.exits import NEVER, open_exit
from thingjobs.runner.sweep import SHIM_NAME, Family

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thingjobs.machine.effects import Run
    from thingjobs.model import Json
    from thingjobs.runner.cgroup import Cell, Tree
    from thingjobs.runner.place import Account, Place

#: The word by which a shim lets an interpreter start.
READY = b"ready\n"
#: Every Python since 3.4 reads it; the one that is started may be another than the one that runs here by now.
MARSHAL_VERSION = 4
#: What the shim exits with by itself: nothing ran.
SHIM_FAILED = 125


def _shim(program: str) -> str:
    """Return the shim that runs `program` and stores how it ended.

    If the status cannot be stored (the disk is full), the shim's own says it; an agent that is there hears that.
    """
    return f"""\
read -r go || {{ echo never >>"$1"; exit {SHIM_FAILED}; }}
exec 3<>"$JOB_EVENTS" 4>>"$1" 5>&2 6<&0 2>/dev/null </dev/null || exit {SHIM_FAILED}
file=$1 hold=${{1%/*}}/hold
shift
trap : TERM INT HUP
({program})
status=$?
trap '' TERM INT HUP
echo "$status" >&4 || exit "$status"
echo >&3
read -r status <>"$hold"
"""


SHIM = _shim('exec "$@" 2>&5 3>&- 4>&- 5>&- 6<&-')
#: The first word that it reads is only that it is where it belongs; the go is for the program that it starts.
EAGER_SHIM = _shim(f'export {GATE}=4 {EXIT}="$file"; exec "$@" 2>&5 <&6 3>&- 5>&- 6<&-')


@dataclass(frozen=True, slots=True)
class Started:
    """A process that waits for its go."""

    child: subprocess.Popen[bytes]
    process: Process
    gate: int
    pipes: tuple[int, int, int]
    exit_file: Path
    exit_fd: int
    family: Family
    eager: bool

    def warm(self) -> None:
        """Let its interpreter start, if it has one of ours: it is where it belongs."""
        if self.eager:
            self._say(READY)

    def go(self, job: Json) -> None:
        """Let it begin; the go ends where the pipe does.

        Args:
            job: what stands in job.json. An interpreter of ours is told here too, as far as the pipe has room for that.
        """
        self._say(GO)
        if self.eager:
            os.set_blocking(self.gate, False)
            with contextlib.suppress(ValueError):  # It is nested too deep for that.
                self._say(marshal.dumps(job, MARSHAL_VERSION))
        os.close(self.gate)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.gate, word)

    def abandon(self) -> None:
        """End it before it began: nothing runs, nothing is left but a file that says so."""
        self.family.kill()  # Before the gate closes, so that nobody is there to see that.
        self.child.wait()
        os.close(self.gate)
        # The shim says so too, where it was quick enough. An agent that finds its pid in the journal must not wonder.
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self.exit_file, flags)
            with contextlib.closing(os.fdopen(fd, "wb")) as file:
                file.write(NEVER)
        try:
            self.family.sweep()
        finally:
            for fd in (self.family.pidfd, self.exit_fd, *self.pipes):
                os.close(fd)


def start(
    place: Place, run: Run, *, environment: Mapping[str, str], account: Account | None, boot_id: str, confine: bool
) -> Started:
    """Make the process of a verb, waiting for its go, in a place that was prepared for the run.

    Args:
        place: where it works.
        run: what is to run.
        environment: of the handler.
        account: who it is to be.
        boot_id: of this boot.
        confine: it is to be put into a cgroup, and `warm` then says that its interpreter may start.

    Raises:
        OSError: it could not be made; nothing is left of it.
    """
    exit_file = place.exit_file(run.verb, run.attempt)
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as held:
        pipes = place.open_pipes()
        for fd in pipes:
            undo.callback(os.close, fd)
        exit_fd = open_exit(exit_file)
        undo.callback(os.close, exit_fd)
        wait, gate = os.pipe()
        held.callback(os.close, wait)
        undo.callback(os.close, gate)
        out = os.open(place.folder / "stdout", os.O_RDWR | os.O_CLOEXEC)
        held.callback(os.close, out)
        err = os.open(place.folder / "stderr", os.O_RDWR | os.O_CLOEXEC)
        held.callback(os.close, err)
        eager = any(word.endswith(START) for word in run.record.plan.argv)
        shim = EAGER_SHIM if eager else SHIM
        if eager and not confine:  # Before it can wait for that.
            os.write(gate, READY)
        argv = ["/bin/sh", "-c", shim, SHIM_NAME.decode(), str(exit_file), *run.record.plan.argv]
        since = boot.moment()
        child = _spawn(argv, (wait, out, err), place.work, environment, account)
        undo.callback(child.wait)
        undo.callback(os.killpg, child.pid, signal.SIGKILL)
        pidfd = os.pidfd_open(child.pid)
        undo.callback(os.close, pidfd)
        process = Process(child.pid, boot.start_time(child.pid) or 0, boot_id)
        undo.pop_all()
    keeps = run.record.plan.keeps_daemons
    family = Family(child.pid, pidfd, place.work, since=since, keeps=keeps)
    return Started(child, process, gate, pipes, exit_file, exit_fd, family, eager)


def put_into(started: Started, tree: Tree, cell: Cell) -> Started:
    """Put a process that waits for its go into a cgroup.

    Raises:
        OSError: it cannot be.
    """
    cell.add(started.process.pid)
    return replace(started, family=replace(started.family, tree=tree, cell=cell))


def _spawn(
    argv: list[str],
    streams: tuple[int, int, int],
    work: Path,
    environment: Mapping[str, str],
    account: Account | None,
) -> subprocess.Popen[bytes]:
    other = account is not None and account.owner is not None
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
