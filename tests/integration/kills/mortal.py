"""`thingjobs` as it is, but that it kills itself at a chosen point of a job: a program that tests start in its place.

    THINGJOBS_MORTAL='{"fw-1": "rename applying.1"}' python mortal.py run --config agent.toml

A point is a moment at which the agent can die and something is different afterwards: before each change that the
journal makes on the disk, and in the middle of what it writes there; before and after each effect and each event of a
job, and where a watcher has seen a verb end. It has the name of the moment and a number: how often it came in this
process, for this job. Each one that is passed is written down in the file THINGJOBS_MORTAL_TRACE.

What a person or the system would do is done here, so that it comes at the same moment each time: an agent that waits
for its restart, or has asked for a reboot, is told to end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.machine import State
    from thingjobs.machine.effects import Effect
    from thingjobs.machine.events import Event
    from thingjobs.runner.watcher import Watcher

#: The job of what belongs to none: the state folder and its lock.
NO_JOB = "-"


class Watched:
    """`os` as the journal sees it.

    Args:
        before: is called before each change of the disk with operation, name and more; what it raises is raised
            there. A write becomes two, of a half each.
        write_at_most: the kernel takes no more bytes at once than these.
    """

    def __init__(self, before: Callable[[tuple[Any, ...]], None], write_at_most: int = 1 << 30) -> None:
        self._before = before
        self._write_at_most = write_at_most
        self._names: dict[int, str | Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            self._before(("create", path))
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        self._names[fd] = path
        return fd

    def write(self, fd: int, data: bytes) -> int:
        part = bytes(data)[: self._write_at_most]
        written = 0
        for half in (part[: len(part) // 2], part[len(part) // 2 :]):
            if half:
                self._before(("write", self._names[fd], half))
                written += os.write(fd, half)
        return written

    def fsync(self, fd: int) -> None:
        self._before(("fsync", self._names.get(fd, ".")))
        os.fsync(fd)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        self._before(("allocate", self._names[fd]))
        os.posix_fallocate(fd, offset, length)

    def unlink(self, path: str, *, dir_fd: int) -> None:
        os.stat(path, dir_fd=dir_fd)
        self._before(("unlink", path))
        os.unlink(path, dir_fd=dir_fd)

    def link(self, path: str, other: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.stat(path, dir_fd=src_dir_fd)
        self._before(("link", path, other))
        os.link(path, other, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def rename(self, path: str, other: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.stat(path, dir_fd=src_dir_fd)
        self._before(("rename", path, other))
        os.rename(path, other, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


class Fate:
    """Counts the points of each job, writes them down, and ends the process at the one that was chosen.

    Args:
        deaths: the name of the point at which to die, by job.
        trace: takes a line for each point: job, name, open files, threads.
    """

    def __init__(self, deaths: dict[str, str], trace: int) -> None:
        self._deaths = deaths
        self._trace = trace
        self._passed: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def point(self, job: str, what: str) -> None:
        """Die here, if this is the point."""
        with self._lock:
            self._passed[job, what] += 1
            name = f"{what}.{self._passed[job, what]}"
            os.write(self._trace, f"{job}\t{name}\t{open_files()}\t{threading.active_count()}\n".encode())
            if self._deaths.get(job) == name:
                os.kill(os.getpid(), signal.SIGKILL)


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - the listing itself is the one too many


def mark_journal(fate: Fate) -> None:
    """Each change of the disk is a point, named after the phase that is being saved."""
    from thingjobs import journal

    saving = ["", ""]

    def noted(replace: Callable[..., None]) -> Callable[..., None]:
        def save(self: journal.Journal, record: Any) -> None:
            saving[:] = record.identity.job_id, record.phase.value
            replace(self, record)
            saving[:] = "", ""

        return save

    def before(step: tuple[Any, ...]) -> None:
        name = Path(step[1]).name
        if name == journal.OLD:  # When that goes is a matter of what else there is to do.
            return
        job, phase = saving
        # Outside of a save: what is removed of a job, or made for whichever is next.
        job = job or (name.split(".")[0] if "." in name and name != journal.NEXT else NO_JOB)
        fate.point(job, " ".join([step[0], name.rpartition(".")[2], phase]).rstrip())

    journal.Journal._replace = noted(journal.Journal._replace)  # type: ignore[method-assign]
    vars(journal)["os"] = Watched(before)


def mark_loop(fate: Fate) -> None:
    """Each effect and each event of a job is a point, before and after."""
    from thingjobs import daemon, doer
    from thingjobs.machine import step
    from thingjobs.machine.effects import Note, Reboot

    do, put = doer.Doer.do, doer.Doer._put_away

    def done(self: doer.Doer, effect: Effect) -> None:
        identity = doer.about(effect)
        if isinstance(effect, Note) or identity is None:
            do(self, effect)
            return
        what = " ".join([type(effect).__name__, *detail(effect)])
        await_watchers(effect)
        fate.point(identity.job_id, f"before {what}")
        do(self, effect)
        if isinstance(effect, Reboot):
            await_reboot()
        fate.point(identity.job_id, f"after {what}")
        if wants_to_end(effect):
            os.kill(os.getpid(), signal.SIGTERM)

    def stepped(state: State, event: Event, now: Any) -> Any:
        if job := whose(state, event):
            fate.point(job, " ".join(["event", type(event).__name__, *detail(event)]))
        return step(state, event, now)

    def put_away(self: doer.Doer, identity: Any) -> Any:
        fate.point(identity.job_id, "before put away")
        events = put(self, identity)
        fate.point(identity.job_id, "after put away")
        return events

    doer.Doer.do = done  # type: ignore[method-assign]
    doer.Doer._put_away = put_away  # type: ignore[method-assign]
    vars(daemon)["step"] = stepped


def await_reboot() -> None:
    """Wait until the program has ended that reboots the machine."""
    for thread in threading.enumerate():
        if thread.name == "reboot":
            thread.join()


def await_watchers(effect: Effect) -> None:
    """Wait before a new job until what watched verbs of the one before has given back all: what is open is counted now.

    A watcher tells of the end first, so the next job may come before it has ended itself.
    """
    from thingjobs.machine.effects import Judge
    from thingjobs.runner.watcher import Watcher

    for thread in threading.enumerate() if isinstance(effect, Judge) else ():
        if isinstance(thread, Watcher) and thread.told:
            thread.join(10)


def wants_to_end(effect: Effect) -> bool:
    """Return whether a person, or the system, ends the agent now."""
    from thingjobs.machine.effects import Reboot, Save
    from thingjobs.machine.verbs import RESTART_NOTE

    return isinstance(effect, Reboot) or (isinstance(effect, Save) and effect.record.note == RESTART_NOTE)


def whose(state: State, event: Event) -> str:
    """Return the job that an event is about, "" when it is about none that the agent is busy with."""
    record = getattr(event, "record", None)
    if record is not None:
        return str(record.identity.job_id)
    identity, token = getattr(event, "identity", None), getattr(event, "token", None)
    for job in state.jobs.values():
        if job.identity == identity or (job.open is not None and job.open.token == token):
            return str(job.identity.job_id)
    return ""


def detail(subject: Effect | Event) -> list[str]:
    """Return what tells an effect or an event from others of its kind, so that the same point has the same name."""
    record, request = getattr(subject, "record", None), getattr(subject, "request", None)
    request_or_reply = getattr(subject, "state", None) or request
    said = (
        getattr(record, "phase", None),
        getattr(subject, "verb", None),
        getattr(subject, "timer", None),
        request and type(request).__name__,
        getattr(request_or_reply, "status", None),
    )
    return [str(word) for word in said if word]


def mark_watchers(fate: Fate) -> None:
    """The end of a verb is a point before it is dealt with, and when nobody was told of it yet."""
    from thingjobs.runner import watcher

    finish, put = watcher.Watcher._finish, watcher.Watcher._ending

    def finishing(self: Watcher) -> None:
        fate.point(self.identity.job_id, "end seen")
        finish(self)

    def ending(self: Watcher, status: int | None) -> Any:
        fate.point(self.identity.job_id, "end kept")
        return put(self, status)

    watcher.Watcher._finish = finishing  # type: ignore[method-assign]
    watcher.Watcher._ending = ending  # type: ignore[method-assign]


def main() -> int:
    """Run `thingjobs` with the arguments of this program."""
    from thingjobs import cli

    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    trace = os.open(os.environ["THINGJOBS_MORTAL_TRACE"], flags, 0o600)
    fate = Fate(json.loads(os.environ["THINGJOBS_MORTAL"]), trace)
    mark_journal(fate)
    mark_loop(fate)
    mark_watchers(fate)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
