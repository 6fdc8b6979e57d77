"""A process that is made ready before anybody asks for it: its interpreter starts, and nothing else does."""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import queue
import signal
import sys
import tempfile
import termios
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.child import START
from thingjobs.exits import Exit
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Evidence, Finished
from thingjobs.model import Identity, JobId, Phase, Plan, Process, Record, Verb
from thingjobs.runner import Runner, Settings, exits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.runner.process import Started

IDENTITY = Identity(JobId("fw-1"), 1, 1_790_000_000)
PATIENCE_SECONDS = 30
MODULE = """
import pathlib, sys

pathlib.Path("imported").touch()

class Noop:
    def apply(self, ctx, params):
        pathlib.Path("read").write_text(sys.stdin.read())
        ctx.progress(100, params["slot"])

    prepare = apply
"""


class Bench:
    """A runner, and a handler class that leaves a file when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        (folder / "ready_noop.py").write_text(MODULE, encoding="utf-8")
        start = f"import sys; sys.path.append({str(folder)!r})"
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        environment = {"PATH": "/usr/bin:/bin"}
        # -I keeps everything else out; the module is found as an installed one is: through site-packages.
        self.argv = (sys.executable, "-I", "-c", f"{start}; {START}", "ready_noop:Noop")
        self.environment = environment
        self.next()

    def next(self) -> None:
        """Have the runner of the next agent."""
        self.runner = Runner(Settings(self.state, "pump-7", boot.boot_id(), self.environment), self.events.put)

    def run(self, verb: Verb = Verb.APPLY, *, slot: str = "a", **more: Any) -> Run:
        plan = Plan("noop", self.argv, verbs=frozenset({Verb.PREPARE, Verb.APPLY}), params={"slot": slot})
        return Run(Record(IDENTITY, Phase.CLAIMING, "c0ffee", 1, plan, {}), verb, 1, **more)

    @property
    def work(self) -> Path:
        return self.state / "jobs" / IDENTITY.key / "work"

    def finished(self) -> Finished:
        while True:
            event = self.events.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, Finished):
                return event


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def bench(eventually: Callable[..., Any]) -> Iterator[Bench]:
    before = fds()
    with tempfile.TemporaryDirectory(prefix="thingjobs-ready-") as name:
        made = Bench(Path(name))
        yield made
        made.runner.clean(IDENTITY)
        made.runner.let_go()
    eventually(lambda: fds() == before)


def taken(bench: Bench) -> Started:
    """Take the process away from its agent, as if that had died."""
    found = bench.runner.waiting.take(IDENTITY)
    assert found is not None
    return found[1]


def made(bench: Bench, run: Run) -> Process:
    bench.runner.get_ready(run)
    return bench.runner.waiting._held[IDENTITY].started.process


def test_what_was_made_ready_is_what_runs(bench: Bench) -> None:
    process = made(bench, bench.run())

    assert bench.runner.spawn(bench.run()) == process
    bench.runner.go(IDENTITY)

    assert bench.finished().ending.code == 0
    assert (bench.work / "read").read_text() == ""


def test_nothing_of_the_handler_is_imported_before_its_go(bench: Bench, eventually: Callable[..., Any]) -> None:
    process = made(bench, bench.run())
    waiting = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: _waits_for_go(waiting))

    assert not (bench.work / "imported").exists()
    bench.runner.spawn(bench.run())
    bench.runner.go(IDENTITY)
    bench.finished()
    assert (bench.work / "imported").exists()


def test_a_job_that_comes_in_parts_is_waited_for(bench: Bench, eventually: Callable[..., Any]) -> None:
    bench.runner.spawn(bench.run(slot="b"))
    job = bench.runner._papers.read(IDENTITY)
    (bench.work / "job.json").unlink()
    started = taken(bench)
    for part in (b"go\n", *batched(marshal.dumps(job, 4))):
        os.write(started.gate, part)
        eventually(lambda: fcntl.ioctl(started.gate, termios.FIONREAD, bytes(4)) == bytes(4))
    os.close(started.gate)
    eventually(lambda: exits.stored(started.exit_file).complete)

    assert exits.stored(started.exit_file).code == 0
    started.family.kill()
    started.child.wait(PATIENCE_SECONDS)
    for fd in (started.family.pidfd, started.exit_fd, *started.pipes):
        os.close(fd)


def batched(data: bytes) -> list[bytes]:
    return [data[at : at + 100] for at in range(0, len(data), 100)]


def test_one_that_does_not_listen_yet_keeps_its_agent_waiting_for_nothing(bench: Bench) -> None:
    bench.runner.spawn(bench.run())
    started = taken(bench)
    nobody, gate = os.pipe()
    replace(started, gate=gate).go({"much": "b" * 100_000})

    assert os.read(nobody, 3) == b"go\n"
    os.close(nobody)
    started.abandon()


def _waits_for_go(children: Path) -> bool:
    """Tell whether the interpreter under the shim has started and reads from a pipe."""
    return any("pipe" in Path(f"/proc/{pid}/wchan").read_text() for pid in children.read_text().split())


def test_a_claim_that_is_tried_again_finds_it_there(bench: Bench) -> None:
    process = made(bench, bench.run())

    assert made(bench, bench.run()) == process


def test_parameters_that_came_anew_meanwhile_are_what_it_reads(bench: Bench) -> None:
    process = made(bench, bench.run(slot="a"))

    assert bench.runner.spawn(bench.run(slot="b")) == process
    bench.runner.go(IDENTITY)

    assert bench.finished().ending.code == 0
    assert json.loads((bench.work / "job.json").read_text())["params"] == {"slot": "b"}


@pytest.mark.parametrize("ready", [False, True])
def test_an_interpreter_that_cannot_start_is_told_as_that(
    bench: Bench, eventually: Callable[..., Any], *, ready: bool
) -> None:
    bench.argv = ("/nonexistent/python", *bench.argv[1:])
    if ready:
        made(bench, bench.run())
        exit_file = bench.state / "jobs" / IDENTITY.key / "exit-apply-1"
        eventually(lambda: exits.stored(exit_file).complete)
    bench.runner.spawn(bench.run())
    bench.runner.go(IDENTITY)

    assert bench.finished().ending.code == 127


def test_an_interpreter_that_is_killed_while_it_waits_is_told_as_that(
    bench: Bench, eventually: Callable[..., Any]
) -> None:
    process = made(bench, bench.run())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: _waits_for_go(children))
    os.kill(int(children.read_text()), signal.SIGKILL)
    eventually(lambda: not children.read_text())
    bench.runner.spawn(bench.run())
    bench.runner.go(IDENTITY)

    assert bench.finished().ending.signal == "SIGKILL"


def test_one_that_was_made_for_something_else_is_ended(bench: Bench) -> None:
    first = made(bench, bench.run(Verb.PREPARE))

    second = bench.runner.spawn(bench.run(Verb.APPLY))
    assert boot.start_time(first.pid) is None
    assert second.pid != first.pid
    bench.runner.go(IDENTITY)
    assert bench.finished().verb is Verb.APPLY


@pytest.mark.parametrize("end", ["clean", "kill"])
def test_one_that_nobody_asks_for_leaves_nothing(bench: Bench, end: str) -> None:
    process = made(bench, bench.run())

    getattr(bench.runner, end)(IDENTITY)

    assert boot.start_time(process.pid) is None
    assert not (bench.work / "imported").exists()
    assert bench.events.empty()


def test_one_that_nobody_asks_for_in_time_is_ended(bench: Bench) -> None:
    process = made(bench, bench.run())
    due = bench.runner.waiting.next_due()
    assert due is not None

    bench.runner.waiting.end_overdue(due - 0.001)
    assert boot.start_time(process.pid) is not None
    bench.runner.waiting.end_overdue(due)

    assert boot.start_time(process.pid) is None
    assert bench.runner.waiting.next_due() is None
    assert bench.runner.spawn(bench.run()) != process
    assert bench.runner.waiting.next_due() is None


def test_when_the_agent_dies_before_all_that_nothing_is_left(bench: Bench, eventually: Callable[..., Any]) -> None:
    process = made(bench, bench.run())
    waiting = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: _waits_for_go(waiting))
    started = taken(bench)
    os.close(started.gate)  # what the kernel does for an agent that is gone

    assert started.child.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert exits.stored(started.exit_file).never
    for fd in (started.family.pidfd, started.exit_fd, *started.pipes):
        os.close(fd)
    bench.next()


def journalled(bench: Bench) -> Record:
    """Return what the journal holds between the save of the process and its go."""
    run = bench.run()
    process = bench.runner.spawn(run)
    return replace(run.record, phase=Phase.APPLYING, verb=Verb.APPLY, attempts={Verb.APPLY: 1}, process=process)


def test_when_the_agent_dies_before_go_its_interpreter_says_that_nothing_ran(bench: Bench) -> None:
    record = journalled(bench)
    started = taken(bench)
    os.close(started.gate)  # what the kernel does for an agent that is gone
    assert started.child.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    for fd in (started.family.pidfd, started.exit_fd, *started.pipes):
        os.close(fd)
    bench.next()

    assert bench.runner.adopt(record) is Evidence.NOT_STARTED
    assert not (bench.work / "imported").exists()
    assert bench.events.empty()


def test_an_agent_that_comes_back_while_its_interpreter_still_starts_runs_it_again(bench: Bench) -> None:
    record = journalled(bench)
    started = taken(bench)
    bench.next()

    assert bench.runner.adopt(record) is Evidence.ADOPTED
    os.close(started.gate)
    ending = bench.finished().ending

    assert (ending.code, ending.after) == (Exit.LATER, 0.0)
    assert not (bench.work / "imported").exists()
    for fd in (started.family.pidfd, started.exit_fd, *started.pipes):
        os.close(fd)
    started.child.wait()
