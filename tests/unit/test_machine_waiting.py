"""What waits, and what need not wait: gates, deferral and its limit, observers, parameters that come anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from thingjobs.jobs import (
    Connected,
    Describe,
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Summary,
    Update,
    Updated,
)
from thingjobs.jobs import State as Stored
from thingjobs.machine import Now, State, Stopping, step
from thingjobs.machine.effects import AskGates, Effect, Go, Judge, Note, Reboot, Refresh, Run, Save, Send
from thingjobs.machine.events import (
    Due,
    Ending,
    Finished,
    Gated,
    Judged,
    NotSaved,
    NotSpawned,
    Progressed,
    Spawned,
    Stop,
)
from thingjobs.machine.state import LookTimer, Timer
from thingjobs.model import Code, Execution, Identity, JobId, Phase, Plan, Process, Result, Status, Verb
from thingjobs.policy import ASIDE_AFTER, DEFER_CAP, DEFER_FIRST, Settings

MAIN = Identity(JobId("firmware"), 1, 1_790_000_000)
ASIDE = Identity(JobId("logs"), 1, 1_790_000_001)
PLAN = Plan(handler="firmware", argv=("/h",))
REVERSIBLE = replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.ROLLBACK}))
OBSERVER = Plan(handler="collect", argv=("/c",), observe=True)
EVIL = {"url": "nobody signed this for apply"}
REFUSAL = Result(Status.REJECTED, Code.DOCUMENT_INVALID, "nonsense")


class Driver:
    """Feeds events to the core; the service and the gates are played by the test."""

    def __init__(self) -> None:
        self.state = State(settings=Settings(agent="thingjobs/test"), nonce="n")
        self.clock = 1000.0
        self.effects: tuple[Effect, ...] = ()
        self.give(Connected())
        self.give(Described(self.sent(DescribeNext).token, None))

    def give(self, event: Any) -> tuple[Effect, ...]:
        """Feed one event."""
        self.state, self.effects = step(self.state, event, Now(self.clock, "boot", 0.0))
        return self.effects

    def did(self, kind: type) -> list[Any]:
        """Return the effects of a kind among the last ones."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def sent(self, kind: type) -> Any:
        """Return the last request of a kind among the last effects."""
        return [effect.request for effect in self.did(Send) if isinstance(effect.request, kind)][-1]

    def not_saved(self) -> tuple[Effect, ...]:
        """Let the last write of the journal fail, and what was to follow it be given back."""
        (save,) = self.did(Save)
        rest = self.effects[self.effects.index(save) + 1 :]
        return self.give(NotSaved(save.record, "read-only", rest))

    def due(self, timer: Timer, identity: Identity = MAIN) -> None:
        """Let time pass until a timer of an execution is due."""
        self.clock = max(self.clock, self.state.jobs[identity].timers[timer])
        self.give(Due(timer, identity))

    def look_due(self, timer: LookTimer) -> None:
        """Let time pass until a timer of the search is due."""
        self.clock = max(self.clock, self.state.timers[timer])
        self.give(Due(timer))

    def offered(self, plan: Plan = PLAN) -> Driver:
        self.give(NextChanged(Execution(MAIN, Status.QUEUED, 1, document={"handler": "x"})))
        self.give(Judged(MAIN, plan))
        return self

    def accept(self, request: Update, identity: Identity = MAIN) -> None:
        """Let the service take an update."""
        claim = self.state.jobs[identity].record.claim
        self.give(Updated(request.token, Stored(Status.IN_PROGRESS, 2, {"claim": claim}), None))

    def waiting_to_apply(self, plan: Plan = PLAN) -> Driver:
        """Bring the execution before the gates of `apply`."""
        self.offered(plan).give(Gated(MAIN))
        self.accept(self.sent(Update))
        return self

    def applying(self, plan: Plan = PLAN) -> Driver:
        self.waiting_to_apply(plan).give(Gated(MAIN))
        self.give(Spawned(MAIN, Verb.APPLY, Process(1, 1, "boot")))
        return self

    def end(self, code: int, verb: Verb = Verb.APPLY, identity: Identity = MAIN) -> None:
        attempt = self.state.jobs[identity].record.attempts[verb]
        self.give(Finished(identity, verb, attempt, Ending(code)))

    def phase(self, identity: Identity = MAIN) -> Phase:
        return self.state.jobs[identity].phase

    def queue(self, *identities: Identity) -> None:
        """Let the service say what waits, with those of ours that run in front and take long."""
        if LookTimer.ASIDE in self.state.timers:
            self.look_due(LookTimer.ASIDE)
            self.give(Pending(self.sent(GetPending).token, (), ()))
        running = [one for one, job in self.state.jobs.items() if job.record.claim]
        self.give(ListChanged(tuple(Summary(one, 2) for one in running), tuple(Summary(one, 1) for one in identities)))

    def described(self, identity: Identity = ASIDE) -> None:
        """Answer the question after what waits."""
        token = self.sent(Describe).token
        self.give(Described(token, Execution(identity, Status.QUEUED, 1, document={"handler": "y"})))


# --- gates --------------------------------------------------------------------------------------------------------


def test_the_gates_are_asked_before_the_claim_before_apply_and_before_a_reboot() -> None:
    driver = Driver().offered()
    asked = [driver.did(AskGates)[0].before]
    driver.give(Gated(MAIN))
    driver.accept(driver.sent(Update))
    asked.append(driver.did(AskGates)[0].before)
    driver.give(Gated(MAIN))
    driver.give(Spawned(MAIN, Verb.APPLY, Process(1, 1, "boot")))
    driver.end(195)
    driver.give(Updated(driver.sent(Update).token, None, None))
    asked.append(driver.did(AskGates)[0].before)

    assert asked == ["claim", "apply", "reboot"]
    assert not driver.did(Reboot)
    assert Reboot(MAIN) in driver.give(Gated(MAIN))


def test_a_closed_gate_leaves_the_execution_queued_and_says_why() -> None:
    driver = Driver().offered()

    driver.give(Gated(MAIN, "the battery is low"))

    assert driver.phase() is Phase.DEFERRED
    assert not driver.did(Send)
    assert driver.state.jobs[MAIN].record.note == "the battery is low"
    assert "the battery is low" in driver.did(Note)[0].text


def test_a_closed_gate_is_asked_again_without_asking_the_service() -> None:
    driver = Driver().offered()
    waits = []
    for _ in range(7):
        driver.give(Gated(MAIN, "closed"))
        before = driver.clock
        driver.due(Timer.DEFER)
        waits.append(driver.clock - before)
        assert driver.did(AskGates)
        assert not driver.did(Send)

    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (DEFER_FIRST, DEFER_CAP)


def test_a_gate_that_opened_makes_the_agent_ask_for_the_head_of_the_queue() -> None:
    driver = Driver().offered()
    driver.give(Gated(MAIN, "closed"))
    driver.due(Timer.DEFER)

    driver.give(Gated(MAIN))

    assert driver.sent(DescribeNext)
    assert MAIN not in driver.state.jobs


def test_a_gate_that_knows_when_it_opens_is_asked_then_and_not_by_a_whole_fleet_at_once() -> None:
    at = set()
    for roll in range(20):
        driver = Driver().offered()
        driver.state = replace(driver.state, nonce=f"device-{roll}")
        driver.give(Gated(MAIN, "closed", 300.0))
        at.add(driver.state.jobs[MAIN].timers[Timer.DEFER] - driver.clock)

    assert len(at) > 10
    assert all(300 <= seconds <= 360 for seconds in at)


def test_an_execution_that_was_put_off_too_long_is_claimed_and_fails() -> None:
    driver = Driver().offered(replace(PLAN, max_defer=100.0))
    driver.give(Gated(MAIN, "the battery is low"))
    driver.due(Timer.DEFER)
    driver.give(Gated(MAIN, "the battery is low"))
    driver.due(Timer.DEFER)
    driver.give(Gated(MAIN, "the battery is low"))

    assert driver.clock == 1100.0
    assert driver.sent(Update).status is Status.IN_PROGRESS
    driver.accept(driver.sent(Update))
    report = driver.sent(Update)
    assert (report.status, report.details["code"]) == (Status.FAILED, "gate.expired")
    assert "the battery is low" in report.details["reason"]


def test_a_late_answer_of_the_gates_starts_nothing() -> None:
    driver = Driver().applying()

    assert driver.give(Gated(MAIN)) == ()
    driver.give(Gated(MAIN, "closed"))

    assert driver.phase() is Phase.APPLYING
    assert Timer.AGAIN not in driver.state.jobs[MAIN].timers


def test_before_apply_a_closed_gate_is_written_down_once_and_waited_for() -> None:
    driver = Driver().waiting_to_apply()

    driver.give(Gated(MAIN, "the press runs"))
    assert driver.did(Save)
    driver.due(Timer.AGAIN)
    driver.give(Gated(MAIN, "the press runs"))
    assert not driver.did(Save)
    assert not driver.did(Note), "the same reason is told once"
    driver.due(Timer.AGAIN)

    assert driver.did(AskGates)
    assert driver.give(Gated(MAIN)) == (Run(driver.state.jobs[MAIN].record, Verb.APPLY, 1),)


@pytest.mark.parametrize("status", [Status.CANCELED, Status.TIMED_OUT])
def test_what_the_service_ended_before_the_gate_opened_never_begins(status: Status) -> None:
    driver = Driver().waiting_to_apply(REVERSIBLE)
    driver.give(Gated(MAIN, "closed"))
    driver.due(Timer.LEARN)
    driver.give(Described(driver.sent(Describe).token, Execution(MAIN, status, 3)))

    assert MAIN not in driver.state.jobs
    assert not driver.did(Run)
    driver.give(Gated(MAIN))
    assert not driver.did(Run)


def test_a_reboot_waits_for_its_gate_and_the_step_timer_is_renewed_meanwhile() -> None:
    driver = Driver().applying()
    driver.end(195)
    driver.give(Updated(driver.sent(Update).token, None, None))
    driver.give(Gated(MAIN, "somebody is in the lift"))
    for _ in range(80):
        timers = driver.state.jobs[MAIN].timers
        timer = min((Timer.REBOOT, Timer.RENEW), key=lambda one: timers.get(one, float("inf")))
        driver.due(timer)
        if timer is Timer.RENEW:
            break
        driver.give(Gated(MAIN, "somebody is in the lift"))

    assert driver.sent(Update).status is Status.IN_PROGRESS
    assert driver.state.jobs[MAIN].record.reboot_asked == 0


def test_a_job_that_was_cancelled_before_a_gate_while_nobody_heard_of_it_is_not_waited_for() -> None:
    driver = Driver().offered()
    driver.give(Gated(MAIN, "closed"))
    driver.give(Connected())
    token = driver.sent(DescribeNext).token

    driver.give(Described(token, Execution(ASIDE, Status.QUEUED, 1, document={"handler": "y"})))

    assert list(driver.state.jobs) == [ASIDE]
    assert driver.did(Judge)


def test_a_job_that_still_is_the_head_keeps_waiting_before_its_gate() -> None:
    driver = Driver().offered()
    driver.give(Gated(MAIN, "closed"))
    driver.give(Connected())

    driver.give(Described(driver.sent(DescribeNext).token, Execution(MAIN, Status.QUEUED, 1, document={})))

    assert driver.phase() is Phase.DEFERRED


def test_an_agent_that_ends_claims_nothing_and_reboots_nothing_when_a_gate_opens() -> None:
    driver = Driver().offered()
    driver.give(Stop(Stopping.LEAVE))
    driver.give(Gated(MAIN))
    assert not driver.did(Send)

    driver = Driver().applying()
    driver.end(195)
    driver.give(Updated(driver.sent(Update).token, None, None))
    driver.give(Stop(Stopping.LEAVE))
    driver.give(Gated(MAIN))
    assert not driver.did(Reboot)


def test_a_document_that_only_asks_passes_every_gate() -> None:
    driver = Driver().offered(replace(PLAN, check_only=True))

    assert not driver.did(AskGates)
    assert driver.sent(Update)


# --- observers ----------------------------------------------------------------------------------------------------


def test_an_observer_overtakes_a_job_that_waits() -> None:
    driver = Driver().offered()
    driver.give(Gated(MAIN, "closed"))
    driver.look_due(LookTimer.ASIDE)
    driver.give(Pending(driver.sent(GetPending).token, (), (Summary(MAIN, 1), Summary(ASIDE, 1))))
    driver.described()
    driver.give(Judged(ASIDE, OBSERVER))

    claim = driver.sent(Update)
    assert claim.job_id == "logs"
    driver.accept(claim, ASIDE)
    assert driver.did(Run)[0].record.identity == ASIDE
    assert driver.phase(MAIN) is Phase.DEFERRED, "the other keeps its place"


def test_an_observer_runs_beside_an_apply_and_only_one_at_a_time() -> None:
    third = Identity(JobId("logs-2"), 1, 1_790_000_002)
    driver = Driver().applying()
    driver.queue(ASIDE, third)
    driver.described()
    driver.give(Judged(ASIDE, OBSERVER))
    driver.accept(driver.sent(Update), ASIDE)
    driver.give(Spawned(ASIDE, Verb.APPLY, Process(2, 2, "boot")))

    driver.queue(third)

    assert not driver.did(Send)
    driver.end(0, identity=ASIDE)
    assert driver.sent(Update).status is Status.SUCCEEDED
    assert driver.phase(MAIN) is Phase.APPLYING


def test_what_is_no_observer_is_looked_at_once_and_keeps_its_place() -> None:
    driver = Driver().applying()
    driver.queue(ASIDE)
    driver.described()
    driver.give(Judged(ASIDE, PLAN))
    assert ASIDE not in driver.state.jobs
    assert not driver.did(Send)

    driver.queue(ASIDE)

    assert not driver.did(Send)


def test_a_document_that_must_be_refused_waits_for_its_turn_as_well() -> None:
    driver = Driver().applying()
    driver.queue(ASIDE)
    driver.described()

    driver.give(Judged(ASIDE, REFUSAL))

    assert not driver.did(Send)


def test_a_job_that_ends_soon_costs_no_request_for_observers() -> None:
    driver = Driver().applying()

    driver.give(ListChanged((Summary(MAIN, 2),), (Summary(ASIDE, 1),)))

    assert not driver.did(Send)
    assert driver.state.timers[LookTimer.ASIDE] == 1000.0 + ASIDE_AFTER


def test_an_observer_needs_no_journal() -> None:
    driver = Driver().offered(OBSERVER)
    driver.not_saved()
    driver.accept(driver.sent(Update))
    driver.give(Spawned(MAIN, Verb.APPLY, Process(2, 2, "boot")))
    assert driver.not_saved()[-1] == Go(MAIN)
    driver.end(0)
    driver.not_saved()
    driver.give(Updated(driver.sent(Update).token, None, None))
    driver.not_saved()

    assert not driver.state.unsaved, "the next one may begin"


def test_the_head_is_looked_past_when_it_is_an_observer_that_runs() -> None:
    driver = Driver().offered(OBSERVER)
    driver.accept(driver.sent(Update))
    running = Execution(MAIN, Status.IN_PROGRESS, 2)
    driver.give(Connected())
    driver.give(Described(driver.sent(DescribeNext).token, running))

    token = driver.sent(GetPending).token
    driver.give(Pending(token, (Summary(MAIN, 2),), (Summary(ASIDE, 1),)))
    driver.described()

    assert driver.did(Judge)
    assert set(driver.state.jobs) == {MAIN, ASIDE}


def test_an_observer_that_became_the_head_casts_no_doubt_on_what_waits() -> None:
    driver = Driver().offered()
    driver.give(Gated(MAIN, "closed"))
    driver.look_due(LookTimer.ASIDE)
    driver.give(Pending(driver.sent(GetPending).token, (), (Summary(ASIDE, 1),)))
    driver.described()
    driver.give(Judged(ASIDE, OBSERVER))
    driver.accept(driver.sent(Update), ASIDE)

    driver.give(NextChanged(Execution(ASIDE, Status.IN_PROGRESS, 2)))

    assert driver.phase(MAIN) is Phase.DEFERRED
    assert not driver.did(Send)


def test_an_observer_goes_on_while_an_execution_that_no_journal_knows_is_reported() -> None:
    driver = Driver().offered(OBSERVER)
    driver.accept(driver.sent(Update))
    lost = Execution(ASIDE, Status.IN_PROGRESS, 2, details={"agent": "thingjobs/0", "claim": "c"})

    driver.give(NextChanged(lost))

    assert set(driver.state.jobs) == {MAIN, ASIDE}


def test_what_waits_is_asked_for_again_when_the_service_was_too_busy_to_show_it() -> None:
    driver = Driver().applying()
    driver.queue(ASIDE)
    driver.give(Refused(driver.sent(Describe).token, Refusal.REQUEST_THROTTLED, "slow down"))

    driver.look_due(LookTimer.RETRY)

    assert driver.sent(Describe).job_id == "logs"


def test_an_observer_may_not_have_the_machine_rebooted() -> None:
    driver = Driver().offered(OBSERVER)
    driver.accept(driver.sent(Update))
    driver.give(Spawned(MAIN, Verb.APPLY, Process(2, 2, "boot")))

    driver.end(195)

    assert driver.sent(Update).details["code"] == "reboot.failed"


# --- parameters that come anew ------------------------------------------------------------------------------------


def test_a_handler_gets_its_parameters_anew_when_it_asks() -> None:
    driver = Driver().applying()
    driver.give(Progressed(MAIN, refresh=True))
    driver.due(Timer.LEARN)
    question = driver.sent(Describe)
    assert question.with_document

    driver.give(Described(question.token, Execution(MAIN, Status.IN_PROGRESS, 2, document={"handler": "firmware"})))
    assert driver.did(Judge)
    driver.give(Judged(MAIN, replace(PLAN, params={"url": "fresh"})))

    assert driver.did(Refresh)[0].record.plan.params == {"url": "fresh"}


@pytest.mark.parametrize(
    "fresh", [REFUSAL, replace(PLAN, handler="other", params=EVIL), replace(PLAN, check_only=True, params=EVIL)]
)
def test_a_handler_that_asked_is_answered_even_when_the_fresh_document_is_of_no_use(fresh: Plan | Result) -> None:
    driver = Driver().applying()
    driver.give(Progressed(MAIN, refresh=True))
    driver.due(Timer.LEARN)
    driver.give(Described(driver.sent(Describe).token, Execution(MAIN, Status.IN_PROGRESS, 2, document={})))

    driver.give(Judged(MAIN, fresh))

    assert driver.did(Refresh)[0].record.plan == PLAN


def test_a_service_that_is_busy_is_not_asked_for_fresh_parameters_without_a_pause() -> None:
    driver = Driver().applying()
    driver.give(Progressed(MAIN, refresh=True))
    driver.due(Timer.LEARN)

    driver.give(Refused(driver.sent(Describe).token, Refusal.REQUEST_THROTTLED, "slow down"))

    assert driver.state.jobs[MAIN].timers[Timer.LEARN] > driver.clock + 1


def test_what_a_verb_asked_for_is_not_given_to_the_next_one() -> None:
    driver = Driver().applying(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY})))
    driver.give(Progressed(MAIN, refresh=True))
    driver.due(Timer.LEARN)
    question = driver.sent(Describe)
    driver.end(0)

    driver.give(Described(question.token, Execution(MAIN, Status.IN_PROGRESS, 2, document={"handler": "firmware"})))

    assert not driver.did(Judge)


def test_a_handler_that_changed_since_the_claim_is_not_started_and_the_code_says_so() -> None:
    driver = Driver().waiting_to_apply()
    driver.give(Gated(MAIN))

    driver.give(NotSpawned(MAIN, Verb.APPLY, "firmware is 1.1 now", Code.HANDLER_CHANGED))

    report = driver.sent(Update)
    assert (report.status, report.details["code"]) == (Status.FAILED, "handler.changed")


def test_a_handler_that_asks_without_end_costs_the_service_a_question_now_and_then() -> None:
    driver = Driver().applying()
    questions = 0
    end = driver.clock + 60
    while driver.clock < end:
        driver.give(Progressed(MAIN, refresh=True))
        if driver.state.jobs[MAIN].timers.get(Timer.LEARN, end) <= driver.clock + 1:
            driver.due(Timer.LEARN)
            questions += 1
            driver.give(Described(driver.sent(Describe).token, Execution(MAIN, Status.IN_PROGRESS, 2, document={})))
            driver.give(Judged(MAIN, PLAN))
        driver.clock += 1

    assert questions <= 7


def test_behind_an_observer_that_takes_long_whatever_waits_is_looked_for() -> None:
    driver = Driver().offered(OBSERVER)
    driver.accept(driver.sent(Update))
    driver.give(Spawned(MAIN, Verb.APPLY, Process(2, 2, "boot")))

    driver.look_due(LookTimer.ASIDE)
    driver.give(Pending(driver.sent(GetPending).token, (Summary(MAIN, 2),), (Summary(ASIDE, 1),)))

    assert driver.sent(Describe).job_id == "logs"


def test_what_was_known_of_an_execution_that_is_gone_is_forgotten() -> None:
    driver = Driver().applying()
    driver.queue(ASIDE)
    driver.described()
    driver.give(Judged(ASIDE, PLAN))
    assert driver.state.waiting_in_line == {ASIDE}

    driver.give(ListChanged((Summary(MAIN, 2),), ()))

    assert not driver.state.waiting_in_line


def test_after_a_reboot_that_verify_wanted_it_is_asked_again_before_commit() -> None:
    plan = replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY, Verb.COMMIT}))
    driver = Driver().applying(plan)
    driver.end(0)
    driver.give(Spawned(MAIN, Verb.VERIFY, Process(2, 2, "boot")))

    driver.end(195, Verb.VERIFY)

    assert driver.state.jobs[MAIN].record.again is Verb.VERIFY
