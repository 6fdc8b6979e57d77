"""What the core does without a journal, beyond what `test_machine` says: it asks nobody in vain, and is in no hurry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thingjobs.jobs import Connected, Described, DescribeNext
from thingjobs.machine import Now, State, step
from thingjobs.machine.effects import AskGates, Go, Kill, Note, Run, Save, Send
from thingjobs.machine.events import Due, Gated, NotSaved, NotSpawned, Resumed, Spawned
from thingjobs.machine.events import Evidence as Found
from thingjobs.machine.state import Timer
from thingjobs.model import Identity, JobId, Phase, Plan, Process, Record, Status, Verb
from thingjobs.policy import SAVE_RETRY_CAP, Settings

JOB = Identity(JobId("fw-1"), 1, 1_790_000_000)
PLAN = Plan("h", ("/h",), frozenset({Verb.PREPARE, Verb.APPLY}))
RECORD = Record(JOB, Phase.APPLYING, "claim", 2, PLAN, {}, again=Verb.APPLY)


class Driver:
    """Feeds events to the core; the journal fails until the test says otherwise."""

    def __init__(self, record: Record = RECORD) -> None:
        self.state = State(settings=Settings(agent="thingjobs/test"), nonce="n")
        self.clock = 1000.0
        self.done: list[Any] = []
        self.broken = True
        self.give(Connected())
        token = next(one.request.token for one in self.done if isinstance(one, Send))
        assert isinstance(self.done[-1].request, DescribeNext)
        self.give(Described(token, None))
        self.give(Resumed(record, Found.NOT_STARTED))

    def give(self, event: Any) -> None:
        """Feed an event, and carry out what follows as the daemon does."""
        self.state, effects = step(self.state, event, Now(self.clock, "boot", 0.0))
        for index, effect in enumerate(effects):
            if isinstance(effect, Save) and self.broken:
                rest = effects[index + 1 :]
                self.done += [one for one in rest if isinstance(one, Note)]
                self.give(NotSaved(effect.record, "full", tuple(one for one in rest if not isinstance(one, Note))))
                return
            self.done.append(effect)
            if isinstance(effect, AskGates):
                self.give(Gated(JOB))
            if isinstance(effect, Run):
                self.give(Spawned(JOB, effect.verb, Process(7, 7, "boot")))

    def due(self) -> float:
        """Let time pass until the journal is tried again; return how long that took."""
        before, self.clock = self.clock, self.state.jobs[JOB].timers[Timer.SAVE]
        self.done = []
        self.give(Due(Timer.SAVE, JOB))
        return self.clock - before

    def did(self, kind: type) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, kind)]


def test_while_nothing_can_be_written_no_gate_is_asked_and_no_process_made_for_what_may_not_begin() -> None:
    driver = Driver()
    assert (len(driver.did(Kill)), driver.did(Go)) == (1, [])

    waits = [driver.due() for _ in range(7)]
    assert waits == [2, 4, 8, 16, 32, SAVE_RETRY_CAP, SAVE_RETRY_CAP]
    assert not driver.did(AskGates) + driver.did(Run) + driver.did(Note)
    driver.broken = False
    driver.due()

    assert [type(one) for one in driver.done if not isinstance(one, Send)] == [Save, AskGates, Run, Save, Go]


def test_that_nothing_can_be_written_is_noted_once() -> None:
    driver = Driver()

    assert [note.text for note in driver.did(Note)] == ["not written down yet: full"]
    for _ in range(5):
        driver.due()
        assert not driver.did(Note)


def test_a_job_that_was_cancelled_while_its_process_could_not_be_made_ends_as_cancelled() -> None:
    driver = Driver(replace(RECORD, phase=Phase.PREPARING, again=Verb.PREPARE))
    driver.broken = False
    job = driver.state.jobs[JOB].with_(phase=Phase.CANCELLING, cancelled=True, ended=Status.CANCELED)
    driver.state = replace(driver.state, jobs={JOB: job.with_(running=Verb.PREPARE)})
    driver.done = []

    driver.give(NotSpawned(JOB, Verb.PREPARE, "it was stopped before"))

    (save,) = driver.did(Save)
    assert save.record.phase is Phase.DONE
    assert save.record.late == "the service ended this execution; nothing was changed"
