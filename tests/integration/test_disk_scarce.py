"""Open files, memory and processes are short for a while: nothing ends, nothing is made up, and it is tried again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import resource
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot, status, statusbox
from thingjobs.errors import ScarceError, StateError
from thingjobs.machine.effects import AskGates, Judge, Run
from thingjobs.machine.events import Evidence, Finished, Spawned
from thingjobs.model import Execution, Identity, JobId, Limits, Phase, Plan, Process, Record, Status, Verb
from thingjobs.runner import Runner, Settings, exits
from thingjobs.starter import Starter
from thingjobs.statusbox import StatusBox
from thingjobs.troubles import CAP, PATIENCE, Postponed, Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.daemon import Asked

IDENTITY = Identity(JobId("fw-1"), 1, 1_790_000_000)
RECORD = Record(IDENTITY, Phase.APPLYING, "c0ffee", 1, Plan("firmware", ("/bin/true",), limits=Limits()), {})
RUN = Run(RECORD, Verb.APPLY, 1)
STATUS = status.of_journal((), thing="pump-7")


@contextlib.contextmanager
def no_files(left: int = 0) -> Iterator[None]:
    """Let this process open no file more than it has open, but for those that are `left`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Hand:
    """A runner with a folder of its own, and one handler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runner = self.another()

    def another(self) -> Runner:
        """Return the runner of the next agent."""
        settings = Settings(self.folder / "state", "pump-7", "boot-1", {"PATH": os.environ["PATH"]})
        return Runner(replace(settings, cgroup=self.folder / "none"), self.inbox.put)

    def order(self, script: str, **more: Any) -> Run:
        program = self.folder / "handler"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        plan = replace(RECORD.plan, argv=(str(program),))
        return replace(RUN, record=replace(RECORD, plan=plan), **more)

    def ended(self) -> Finished:
        while not isinstance(event := self.inbox.get(timeout=30), Finished):
            pass
        return event


@pytest.fixture
def hand(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Hand]:
    before = fds()
    yield Hand(tmp_path)
    eventually(lambda: fds() == before)


# --- a verb ---------------------------------------------------------------------------------------------------------


def test_a_verb_that_cannot_be_started_for_want_of_files_is_not_called_failed(hand: Hand) -> None:
    run = hand.order("true")

    with no_files(), pytest.raises(ScarceError) as caught:
        hand.runner.spawn(run)

    assert not caught.value.full
    hand.runner.spawn(run)
    hand.runner.go(IDENTITY)
    assert hand.ended().ending.code == 0


def test_the_end_of_a_verb_is_heard_although_nothing_can_be_opened(hand: Hand) -> None:
    hand.runner.spawn(hand.order('echo \'{"message": "on"}\' >>"$JOB_EVENTS"; read line <gate; exit 7'))
    work = hand.folder / "state" / "jobs" / IDENTITY.key / "work"
    os.mkfifo(work / "gate")
    hand.runner.go(IDENTITY)
    assert hand.inbox.get(timeout=30).message == "on"
    gate = os.open(work / "gate", os.O_RDWR)

    with no_files():
        os.write(gate, b"go\n")
        time.sleep(0.3)  # So that the end comes meanwhile; sooner or later, the test holds.
    os.close(gate)

    assert hand.ended().ending.code == 7


def test_the_exit_status_is_the_handlers_although_its_folder_was_deleted(hand: Hand) -> None:
    hand.runner.spawn(hand.order("read line <gate; exit 7"))
    work = hand.folder / "state" / "jobs" / IDENTITY.key / "work"
    os.mkfifo(work / "gate")
    hand.runner.go(IDENTITY)
    gate = os.open(work / "gate", os.O_WRONLY)  # Waits until the handler has opened it.

    shutil.rmtree(hand.folder / "state")
    os.write(gate, b"go\n")

    assert hand.ended().ending.code == 7
    os.close(gate)


def test_a_process_that_was_not_let_go_says_that_nothing_ran(hand: Hand) -> None:
    hand.runner.spawn(hand.order("true"))
    (exit_file,) = (hand.folder / "state" / "jobs" / IDENTITY.key).glob("exit-*")

    hand.runner.kill(IDENTITY)

    assert exits.stored(exit_file) == exits.Stored(complete=True, never=True)


# --- after a restart of the agent -----------------------------------------------------------------------------------


def test_a_verb_that_cannot_be_looked_after_for_want_of_files_is_neither_lost_nor_started_again(hand: Hand) -> None:
    run = hand.order("read line <gate; exit 7")
    process = hand.runner.spawn(run)
    child = hand.runner.waiting._held[IDENTITY].started.child
    work = hand.folder / "state" / "jobs" / IDENTITY.key / "work"
    os.mkfifo(work / "gate")
    hand.runner.go(IDENTITY)
    record = replace(run.record, verb=Verb.APPLY, process=process, attempts={Verb.APPLY: 1})
    hand.runner.let_go()
    opened = fds()

    again = hand.another()
    for _ in range(3):
        with no_files(), pytest.raises(StateError, match="Too many open files"):
            again.adopt(record)
        assert fds() == opened
    assert again.adopt(record) is Evidence.ADOPTED

    (work / "gate").write_text("go\n")
    assert hand.ended().ending.code == 7
    child.wait(30)


@pytest.mark.parametrize("left", range(4))
def test_a_verb_that_ended_is_not_taken_for_lost_because_files_are_short(hand: Hand, left: int) -> None:
    run = hand.order("exit 7")
    process = hand.runner.spawn(run)
    hand.runner.go(IDENTITY)
    assert hand.ended().ending.code == 7
    record = replace(run.record, verb=Verb.APPLY, process=process, attempts={Verb.APPLY: 1})

    again = hand.another()
    with no_files(left), pytest.raises(StateError, match="Too many open files"):
        again.adopt(record)

    assert again.adopt(record) is Evidence.ADOPTED
    assert hand.ended().ending.code == 7


def test_there_is_a_look_at_how_many_files_can_be_opened() -> None:
    opened = fds()

    boot.spare_files()
    with no_files(), pytest.raises(OSError, match="Too many") as caught:
        boot.spare_files()

    assert caught.value.errno == errno.EMFILE
    assert fds() == opened


class Short:
    """Stands for a runner that finds the disk full, and for a journal with a reserve."""

    def __init__(self, *, reserve: bool) -> None:
        self.reserve = reserve
        self.full = True

    def spawn(self, run: Run) -> Process:
        if self.full:
            raise ScarceError(f"{run.verb}: No space left on device", full=True)
        return Process(7, 7, "boot")

    def give_up_reserve(self) -> bool:
        self.full, given = not self.reserve, self.reserve
        return given

    def changed(self, plan: Plan) -> str:
        return "" if plan.argv else "it was changed"

    def program(self, plan: Plan) -> tuple[str, ...]:
        return plan.argv


def test_the_reserve_is_given_up_for_a_verb_that_finds_no_room() -> None:
    rich, poor = Short(reserve=True), Short(reserve=False)

    started = Starter(rich, rich, rich, ()).spawn(RUN)  # type: ignore[arg-type]
    with pytest.raises(ScarceError):
        Starter(poor, poor, poor, ()).spawn(RUN)  # type: ignore[arg-type]

    assert started == Spawned(IDENTITY, Verb.APPLY, Process(7, 7, "boot"))


# --- what is tried again --------------------------------------------------------------------------------------------


def test_what_waits_for_a_day_is_still_tried() -> None:
    asked = AskGates(RECORD, "claim")
    postponed, now = Postponed(), 0.0
    for _ in range(2 * 60 * 24):
        assert postponed.add("fw-1", asked, now)
        due = postponed.next_due()
        assert due is not None
        assert 0 < due - now <= CAP
        assert postponed.take(due) == [asked]
        now = due


def test_what_is_postponed_is_tried_at_growing_distances_and_a_verb_not_for_ever() -> None:
    postponed = Postponed()
    now, times = 100.0, []
    while postponed.add("fw-1", RUN, now):
        due = postponed.next_due()
        assert due is not None
        times.append(due - now)
        now = due
        assert postponed.take(now - 0.1) == []
        assert postponed.take(now) == [RUN]
        assert postponed.next_due() is None

    assert times[:6] == [1, 2, 4, 8, 16, CAP]
    assert set(times[6:]) == {CAP}
    assert PATIENCE <= now - 100 <= PATIENCE + CAP
    assert postponed.drop("fw-1") is None


@pytest.mark.parametrize("effect", [Judge(Execution(IDENTITY, Status.QUEUED, 1)), AskGates(RECORD, "claim")])
def test_what_was_not_begun_is_postponed_for_as_long_as_it_takes(effect: Judge | AskGates) -> None:
    postponed = Postponed()
    now = 0.0
    for _ in range(100):
        assert postponed.add("fw-1", effect, now)
        now = postponed.next_due() or 0.0
        assert postponed.take(now) == [effect]

    assert postponed.drop("fw-1") == effect
    assert postponed.next_due() is None


def test_a_trouble_is_said_when_it_comes_and_when_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "thingjobs")
    troubles = Troubles()
    troubles.went("the journal")
    for _ in range(5):
        troubles.came("the journal", "cannot write it: full")
    assert troubles.lines() == ["cannot write it: full"]
    troubles.came("the journal", "cannot write it: broken")
    for _ in range(5):
        troubles.went("the journal")

    assert troubles.lines() == []
    assert [one.getMessage() for one in caplog.records] == [
        "cannot write it: full",
        "cannot write it: broken",
        "the journal: works again",
    ]


# --- the status -----------------------------------------------------------------------------------------------------


@pytest.fixture
def box(tmp_path: Path) -> Iterator[StatusBox]:
    """A box whose questions are answered at once."""

    def answer(asked: Asked) -> None:
        asked.answer(STATUS)

    made = StatusBox(tmp_path, answer)
    made.start()
    yield made
    made.stop()


def test_the_status_can_be_asked_for_again_after_files_were_short(box: StatusBox, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        # The kernel keeps a number, before ours, for the one that is waited for; that is answered, then there is none.
        with no_files(-2):
            link.connect(str(tmp_path / statusbox.NAME))
            used = time.process_time()
            time.sleep(0.5)
            assert time.process_time() - used < 0.05, "it tries in a hurry"
        assert json.loads(b"".join(iter(lambda: link.recv(65536), b""))) == STATUS

    assert statusbox.ask(tmp_path) == STATUS


def test_the_status_can_be_asked_for_in_a_folder_that_was_made_anew(box: StatusBox, tmp_path: Path) -> None:
    opened = fds()
    (tmp_path / statusbox.NAME).unlink()
    assert statusbox.ask(tmp_path) is None

    box.renew()

    assert statusbox.ask(tmp_path) == STATUS
    assert fds() == opened
