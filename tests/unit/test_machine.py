"""The core, one behaviour at a time: a small driver feeds `step`, and the tests look at what it decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thingjobs.jobs import (
    Connected,
    Describe,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Summary,
    Update,
    Updated,
)
from thingjobs.jobs import State as Stored
from thingjobs.machine import Now, State, Stopping, diagram, step
from thingjobs.machine.effects import (
    AskGates,
    Clean,
    Effect,
    Forget,
    GetReady,
    Go,
    Judge,
    Kill,
    Note,
    Reboot,
    Reconnect,
    Run,
    Save,
    Send,
)
from thingjobs.machine.events import (
    Due,
    Ending,
    Evidence,
    Finished,
    Gated,
    Judged,
    NotSaved,
    Progressed,
    Resumed,
    Spawned,
    Stop,
)
from thingjobs.machine.state import PHASE_OF, Timer
from thingjobs.machine.table import TABLE
from thingjobs.model import (
    Code,
    Execution,
    Identity,
    JobId,
    Limits,
    Phase,
    Plan,
    Process,
    Record,
    Result,
    Status,
    Verb,
)
from thingjobs.policy import Settings

JOB = Identity(JobId("job"), 1, 1_790_000_000)
PLAN = Plan(handler="h", argv=("/h",))
EVERYTHING = replace(PLAN, verbs=frozenset(Verb))
PROCESS = Process(4711, 99, "boot-1")


def offer(identity: Identity = JOB, **changes: Any) -> Execution:
    """Return a queued execution."""
    return replace(Execution(identity, Status.QUEUED, 1, document={"handler": "h"}), **changes)


class Driver:
    """Feeds events to the core and keeps what it decided."""

    def __init__(self, **settings: Any) -> None:
        self.state = State(settings=Settings(agent="thingjobs/test", **settings), nonce="n")
        self.clock = 1000.0
        self.boot = "boot-1"
        self.effects: tuple[Effect, ...] = ()
        self.gates_answer = True

    def give(self, event: Any) -> tuple[Effect, ...]:
        """Feed one event; return the effects. Gates that are asked are open, unless a test answers for them."""
        self.state, effects = step(self.state, event, Now(self.clock, self.boot, 0.0))
        asked = [effect for effect in effects if isinstance(effect, AskGates)] if self.gates_answer else []
        self.effects = tuple(effect for effect in effects if effect not in asked)
        for effect in asked:
            before = self.effects
            self.effects = (*before, *self.give(Gated(effect.record.identity)))
        return self.effects

    def sent(self, kind: type) -> Any:
        """Return the last request of a kind among the last effects."""
        found = [effect.request for effect in self.effects if isinstance(effect, Send)]
        return next(request for request in reversed(found) if isinstance(request, kind))

    def did(self, kind: type) -> list[Any]:
        """Return the effects of a kind among the last ones."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def due(self, timer: Timer, identity: Identity = JOB) -> tuple[Effect, ...]:
        """Let time pass until a timer is due, and feed it."""
        self.clock = max(self.clock, self.state.jobs[identity].timers[timer])
        return self.give(Due(timer, identity))

    @property
    def job(self) -> Any:
        """Return the one execution."""
        return self.state.jobs[JOB]

    # --- shortcuts along the usual way ----------------------------------------------------------------------------

    def connected(self) -> Driver:
        self.give(Connected())
        token = self.sent(DescribeNext).token
        self.give(Described(token, None))
        return self

    def claiming(self, plan: Plan = PLAN) -> Update:
        self.give(NextChanged(offer()))
        assert self.did(Judge)
        self.give(Judged(JOB, plan))
        request: Update = self.sent(Update)
        return request

    def stored(self, status: Status, version: int, **details: str) -> Stored:
        return Stored(status, version, {"claim": self.job.record.claim, **details})

    def claimed(self, plan: Plan = PLAN) -> tuple[Effect, ...]:
        request = self.claiming(plan)
        return self.give(Updated(request.token, self.stored(Status.IN_PROGRESS, 2), {"handler": "h"}))

    def running(self, verb: Verb = Verb.APPLY) -> tuple[Effect, ...]:
        return self.give(Spawned(JOB, verb, PROCESS))

    def end(self, verb: Verb, code: int | None = 0, **more: Any) -> tuple[Effect, ...]:
        attempt = self.job.record.attempts[verb]
        return self.give(Finished(JOB, verb, attempt, Ending(code, **more)))

    def applied(self, plan: Plan = PLAN) -> Driver:
        self.connected().claimed(plan)
        self.running()
        return self

    def reporting(self) -> Update:
        self.applied()
        self.end(Verb.APPLY)
        request: Update = self.sent(Update)
        return request


# --- the usual way ------------------------------------------------------------------------------------------------


def test_a_job_takes_two_requests_and_four_saves() -> None:
    driver = Driver().connected()
    claim = driver.claiming()
    saves = len(driver.did(Save))
    driver.give(Updated(claim.token, driver.stored(Status.IN_PROGRESS, 2), {"handler": "h"}))
    driver.running()
    saves += len(driver.did(Save))
    driver.end(Verb.APPLY)
    saves += len(driver.did(Save))
    report = driver.sent(Update)
    driver.give(Updated(report.token, driver.stored(Status.SUCCEEDED, 3), None))
    saves += len(driver.did(Save))

    assert saves == 4
    assert not driver.state.jobs
    assert (claim.status, claim.expected_version, claim.with_document) == (Status.IN_PROGRESS, 1, True)
    assert (report.status, report.expected_version, report.with_document) == (Status.SUCCEEDED, 2, False)
    assert claim.step_timeout_minutes == 1440
    assert report.step_timeout_minutes is None
    assert claim.details["claim"] == report.details["claim"]
    assert claim.token != report.token


def test_the_claim_is_saved_before_it_is_sent() -> None:
    driver = Driver().connected()
    driver.claiming()

    kinds = [type(effect) for effect in driver.effects if isinstance(effect, (Save, Send))]

    assert kinds == [Save, Send]


def test_a_process_is_let_go_only_after_its_pid_is_saved() -> None:
    driver = Driver().connected()
    driver.claimed()

    effects = driver.running()

    assert [type(effect) for effect in effects] == [Save, Go]
    assert driver.did(Save)[0].record.process == PROCESS


def test_the_result_and_that_it_is_owed_are_one_save_before_the_report() -> None:
    driver = Driver().applied()

    effects = driver.end(Verb.APPLY)

    assert [type(effect) for effect in effects] == [Save, Send]
    record = driver.did(Save)[0].record
    assert record.owed
    assert record.result == Result(Status.SUCCEEDED)


def test_the_verbs_run_in_order_and_only_those_that_are_declared() -> None:
    plan = replace(PLAN, verbs=frozenset({Verb.PREPARE, Verb.APPLY, Verb.VERIFY}))
    driver = Driver().connected()
    ran = []
    driver.claimed(plan)
    for verb in (Verb.PREPARE, Verb.APPLY, Verb.VERIFY):
        ran += [run.verb for run in driver.did(Run)]
        driver.running(verb)
        driver.end(verb)

    assert ran == [Verb.PREPARE, Verb.APPLY, Verb.VERIFY]
    assert driver.sent(Update).status is Status.SUCCEEDED


def test_a_document_that_came_anew_with_the_claim_is_judged_anew() -> None:
    driver = Driver().connected()
    claim = driver.claiming()

    driver.give(Updated(claim.token, driver.stored(Status.IN_PROGRESS, 2), {"handler": "h", "url": "fresh"}))
    assert [judge.execution.document for judge in driver.did(Judge)] == [{"handler": "h", "url": "fresh"}]
    driver.give(Judged(JOB, replace(PLAN, params={"url": "fresh"})))

    assert driver.did(Run)[0].record.plan.params == {"url": "fresh"}


# --- refusing, checking, deferring --------------------------------------------------------------------------------


def test_a_refused_document_is_rejected_from_queued_and_never_saved() -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, Result(Status.REJECTED, Code.HANDLER_UNKNOWN, "there is none")))

    request = driver.sent(Update)
    assert request.status is Status.REJECTED
    assert request.details["code"] == "handler.unknown"
    assert not driver.did(Save)
    driver.give(Updated(request.token, None, None))
    assert JOB in driver.state.remembered


@pytest.mark.parametrize(
    ("code", "status", "details"),
    [(0, "IN_PROGRESS", {}), (10, "IN_PROGRESS", {}), (3, "REJECTED", {"code": "check.rejected"})],
)
def test_check_decides_before_the_claim(code: int, status: str, details: dict[str, str]) -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)
    assert not driver.did(Save)

    driver.end(Verb.CHECK, code)

    assert driver.sent(Update).status == status
    assert details.items() <= driver.sent(Update).details.items()


def test_a_check_that_says_later_leaves_the_execution_queued_and_asks_again() -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)

    driver.end(Verb.CHECK, 75, reason="the pump runs")

    assert not driver.did(Send)
    assert driver.job.record.note == "the pump runs"
    driver.due(Timer.DEFER)
    assert driver.sent(DescribeNext)


def test_nothing_is_told_to_the_service_while_check_runs() -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)

    driver.give(Progressed(JOB, 50, "half"))

    assert not driver.did(Send)


# --- other consumers ----------------------------------------------------------------------------------------------


def test_jobs_of_others_are_looked_past_with_the_list() -> None:
    other = Identity(JobId("greengrass-1"), 1, 1_790_000_000)
    driver = Driver(only=("pump-*",)).connected()
    driver.give(NextChanged(offer(other)))

    ours = Identity(JobId("pump-1"), 1, 1_790_000_001)
    driver.give(Pending(driver.sent(GetPending).token, (), (Summary(other, 1), Summary(ours, 1))))

    assert driver.sent(Describe).job_id == "pump-1"
    driver.give(Described(driver.sent(Describe).token, offer(ours)))
    assert driver.did(Judge)[0].execution.identity == ours


def test_a_job_that_cannot_be_asked_for_over_mqtt_holds_up_nothing() -> None:
    reserved = Identity(JobId("get"), 1, 1_790_000_000)
    driver = Driver().connected()
    driver.give(NextChanged(offer(reserved)))

    driver.give(Pending(driver.sent(GetPending).token, (), (Summary(reserved, 1), Summary(JOB, 1))))

    assert driver.sent(Describe).job_id == JOB.job_id


def test_an_execution_in_progress_without_our_mark_is_left_alone() -> None:
    driver = Driver().connected()

    driver.give(NextChanged(offer(status=Status.IN_PROGRESS, details={"agent": "somebody"})))

    assert not driver.state.jobs
    assert driver.sent(GetPending)


def test_an_execution_with_our_mark_that_the_journal_does_not_know_is_reported_as_interrupted() -> None:
    driver = Driver().connected()

    driver.give(NextChanged(offer(status=Status.IN_PROGRESS, details={"agent": "thingjobs/0.1", "claim": "c"})))

    assert driver.sent(Update).status is Status.FAILED
    assert driver.sent(Update).details["code"] == "interrupted"


def test_a_finished_execution_never_starts_again() -> None:
    driver = Driver()
    report = driver.reporting()
    driver.give(Updated(report.token, driver.stored(Status.SUCCEEDED, 3), None))

    driver.give(NextChanged(offer()))

    assert not driver.did(Judge)


# --- lost replies and refusals ------------------------------------------------------------------------------------


def test_a_late_reply_with_an_old_token_changes_nothing() -> None:
    driver = Driver()
    report = driver.reporting()
    driver.due(Timer.REPLY)
    driver.due(Timer.RETRY)
    before = driver.state.jobs

    driver.give(Refused(report.token, Refusal.RESOURCE_NOT_FOUND))

    assert driver.state.jobs == before
    assert not driver.effects


def test_a_claim_whose_reply_was_lost_is_found_by_its_mark() -> None:
    driver = Driver().connected()
    driver.claiming()
    driver.due(Timer.REPLY)
    driver.due(Timer.RETRY)
    again = driver.sent(Update)

    driver.give(Refused(again.token, Refusal.VERSION_MISMATCH, state=driver.stored(Status.IN_PROGRESS, 2)))
    described = offer(status=Status.IN_PROGRESS, version=2, details={"claim": driver.job.record.claim})
    driver.give(Described(driver.sent(Describe).token, described))

    assert driver.did(Run)
    assert driver.job.record.version == 2


def test_a_claim_that_somebody_else_made_first_is_dropped() -> None:
    driver = Driver().connected()
    claim = driver.claiming()

    stored = Stored(Status.IN_PROGRESS, 2, {"claim": "another"})
    driver.give(Refused(claim.token, Refusal.VERSION_MISMATCH, state=stored))

    assert driver.did(Forget)
    assert not driver.state.jobs


def test_a_report_that_was_applied_although_its_reply_was_lost_counts_as_delivered() -> None:
    driver = Driver()
    driver.reporting()
    driver.due(Timer.REPLY)
    driver.due(Timer.RETRY)
    again = driver.sent(Update)

    driver.give(Refused(again.token, Refusal.INVALID_STATE_TRANSITION, state=driver.stored(Status.SUCCEEDED, 3)))

    assert driver.did(Save)[0].record.phase is Phase.DONE
    assert not driver.did(Save)[0].record.late


def test_a_report_after_the_service_ended_the_execution_is_kept_as_late_truth() -> None:
    driver = Driver()
    report = driver.reporting()

    driver.give(Refused(report.token, Refusal.INVALID_STATE_TRANSITION, state=driver.stored(Status.TIMED_OUT, 3)))

    assert "TIMED_OUT" in driver.did(Save)[0].record.late


def test_a_report_at_another_version_with_our_mark_adopts_the_version() -> None:
    driver = Driver()
    report = driver.reporting()

    driver.give(Refused(report.token, Refusal.VERSION_MISMATCH, state=driver.stored(Status.IN_PROGRESS, 7)))

    assert driver.sent(Update).expected_version == 7


def test_details_that_the_service_refuses_are_left_out_the_second_time() -> None:
    driver = Driver()
    report = driver.reporting()

    driver.give(Refused(report.token, Refusal.INVALID_REQUEST))

    assert driver.sent(Update).details == {}
    assert driver.sent(Update).status is Status.SUCCEEDED


@pytest.mark.parametrize("code", [Refusal.REQUEST_THROTTLED, Refusal.INTERNAL_ERROR, Refusal.UNKNOWN])
def test_an_owed_report_is_sent_again_for_ever_with_fresh_tokens(code: Refusal) -> None:
    driver = Driver()
    report = driver.reporting()
    tokens = {report.token}
    for _ in range(50):
        driver.give(Refused(report.token, code))
        driver.due(Timer.RETRY)
        report = driver.sent(Update)
        tokens.add(report.token)

    assert len(tokens) == 51


def test_an_owed_report_goes_out_first_after_a_reconnect() -> None:
    driver = Driver().applied()
    driver.give(Disconnected("a fault"))
    driver.end(Verb.APPLY)
    assert not driver.did(Send)

    driver.give(Connected())

    requests = [type(effect.request) for effect in driver.did(Send)]
    assert requests == [Update, DescribeNext]


def test_three_requests_in_a_row_without_a_reply_make_the_agent_connect_anew() -> None:
    driver = Driver()
    driver.reporting()
    reconnects = []
    for _ in range(3):
        driver.due(Timer.REPLY)
        reconnects.append(len(driver.did(Reconnect)))
        driver.due(Timer.RETRY)

    assert reconnects == [0, 0, 1]


# --- cancel and time-out ------------------------------------------------------------------------------------------


def test_a_cancel_while_preparing_stops_it_and_changes_nothing() -> None:
    driver = Driver().connected()
    driver.claimed(EVERYTHING_UNCHECKED)
    driver.running(Verb.PREPARE)
    driver.give(NextChanged(None))

    driver.give(Refused(driver.sent(Describe).token, Refusal.TERMINAL_STATE_REACHED))
    assert driver.did(Kill)
    driver.end(Verb.PREPARE, None, signal="SIGTERM")

    assert not driver.did(Run)
    assert driver.did(Save)[0].record.phase is Phase.DONE


EVERYTHING_UNCHECKED = replace(PLAN, verbs=frozenset(Verb) - {Verb.CHECK})


def test_a_cancel_while_applying_waits_for_its_end_and_rolls_back_without_a_word() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.ROLLBACK})))
    driver.running()
    driver.give(NextChanged(None))
    driver.give(Refused(driver.sent(Describe).token, Refusal.TERMINAL_STATE_REACHED))
    assert not driver.did(Kill)

    driver.end(Verb.APPLY)
    assert [run.verb for run in driver.did(Run)] == [Verb.ROLLBACK]
    driver.running(Verb.ROLLBACK)
    driver.end(Verb.ROLLBACK)

    assert not driver.did(Send)
    assert not driver.state.jobs


def test_a_time_out_does_not_stop_what_was_begun_and_is_kept_as_late_truth() -> None:
    driver = Driver(step_timeout_minutes=1).applied()
    driver.clock += 3600
    driver.give(NextChanged(None))
    driver.give(Refused(driver.sent(Describe).token, Refusal.TERMINAL_STATE_REACHED))
    assert not driver.did(Kill)

    driver.end(Verb.APPLY)

    assert not driver.did(Send)
    record = driver.did(Save)[0].record
    assert record.result == Result(Status.SUCCEEDED)
    assert "TIMED_OUT" in record.late


# --- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ({"code": 3, "reason": "stuck"}, "handler.exit", "status 3: stuck"),
        ({"code": None, "signal": "SIGSEGV"}, "handler.signal", "SIGSEGV"),
        ({"code": None}, "interrupted", "without an exit status"),
        ({"code": 1, "fault": "step.failed", "reason": "step 2"}, "step.failed", "step 2"),
        ({"code": 1, "fault": "made.up", "reason": "x"}, "handler.failed", "x"),
    ],
)
def test_a_failure_carries_a_code_of_the_list_and_a_reason(ending: dict[str, Any], code: str, words: str) -> None:
    driver = Driver().applied()

    driver.end(Verb.APPLY, ending.pop("code"), **ending)

    assert driver.sent(Update).status is Status.FAILED
    assert driver.sent(Update).details["code"] == code
    assert words in driver.sent(Update).details["reason"]


def test_a_verb_that_takes_too_long_is_ended_and_reported_as_that() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, limits=Limits(apply=5)))
    driver.running()

    driver.due(Timer.VERB)
    assert driver.did(Kill)
    driver.end(Verb.APPLY, None, signal="SIGTERM")

    assert driver.sent(Update).details["code"] == "handler.timeout"


def test_a_handler_that_shows_no_sign_of_life_is_ended() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, limits=Limits(stall=30)))
    driver.running()
    driver.clock += 20
    driver.give(Progressed(JOB))
    assert driver.job.timers[Timer.STALL] == driver.clock + 30

    driver.due(Timer.STALL)

    assert driver.did(Kill)


def test_a_failed_verify_is_rolled_back_and_the_report_says_so() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY, Verb.ROLLBACK})))
    driver.running()
    driver.end(Verb.APPLY)
    driver.running(Verb.VERIFY)
    driver.end(Verb.VERIFY, 1, reason="no water")
    driver.running(Verb.ROLLBACK)
    driver.end(Verb.ROLLBACK)

    assert driver.sent(Update).details["code"] == "verify.failed"
    assert driver.sent(Update).details["reason"].endswith("no water; rolled back")


# --- reboots ------------------------------------------------------------------------------------------------------


def test_a_reboot_is_saved_and_told_before_it_is_done() -> None:
    driver = Driver(step_timeout_minutes=10).applied()
    driver.end(Verb.APPLY, 194)
    assert driver.did(Save)[0].record.phase is Phase.REBOOTING
    told = driver.sent(Update)
    assert told.step_timeout_minutes == 60
    assert not driver.did(Reboot)

    driver.give(Updated(told.token, driver.stored(Status.IN_PROGRESS, 3), None))

    assert [type(effect) for effect in driver.effects] == [Save, Reboot]


def test_an_agent_restart_is_not_a_reboot_and_another_boot_id_is() -> None:
    driver = Driver().applied()
    driver.end(Verb.APPLY, 194)
    driver.due(Timer.REPLY)
    record = driver.job.record

    same = Driver()
    same.give(Resumed(record, Evidence.NOT_STARTED))
    assert same.did(Reboot)
    assert not same.did(Run)

    other = Driver()
    other.boot = "boot-2"
    other.give(Resumed(record, Evidence.NOT_STARTED))
    assert [(run.verb, run.rebooted) for run in other.did(Run)] == [(Verb.APPLY, True)]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_rollback_that_ends_with_a_reboot_is_over_after_it_and_is_no_success(cancelled: bool) -> None:
    driver = Driver().applied(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY, Verb.ROLLBACK})))
    if cancelled:
        driver.due(Timer.LEARN)
        driver.give(Described(driver.sent(Describe).token, Execution(JOB, Status.CANCELED, 3)))
        driver.end(Verb.APPLY)
    else:
        driver.end(Verb.APPLY)
        driver.running(Verb.VERIFY)
        driver.end(Verb.VERIFY, 1)
    driver.running(Verb.ROLLBACK)
    driver.end(Verb.ROLLBACK, 195)
    saved = driver.did(Save)[-1].record

    after = Driver().connected()
    after.boot = "boot-2"
    after.give(Resumed(saved, Evidence.NOT_STARTED))

    assert not after.did(Run)
    end = after.did(Save)[-1].record
    assert "rolled back" in (end.late if cancelled else end.result.reason)
    assert end.result is None if cancelled else end.result.status is Status.FAILED


def test_a_rollback_whose_reboot_does_not_come_keeps_the_reason_why_it_ran() -> None:
    driver = Driver().applied(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.ROLLBACK})))
    driver.end(Verb.APPLY, 1, reason="no valve")
    driver.running(Verb.ROLLBACK)
    driver.end(Verb.ROLLBACK, 195)
    driver.give(Updated(driver.sent(Update).token, None, None))
    for _ in range(3):
        driver.due(Timer.REBOOT)

    reason = driver.sent(Update).details["reason"]
    assert "no valve" in reason
    assert "the rollback failed: the machine did not reboot" in reason


@pytest.mark.parametrize("code", [75, 196])
def test_a_verb_runs_five_times_at_most(code: int) -> None:
    driver = Driver().applied()
    for _ in range(4):
        driver.end(Verb.APPLY, code)
        record = driver.job.record
        driver.state = replace(driver.state, jobs={})
        driver.give(Resumed(record, Evidence.NOT_STARTED))
        driver.running()

    driver.end(Verb.APPLY, code)

    report = driver.sent(Update)
    assert (report.status, report.details["code"]) == (Status.FAILED, "handler.attempts")


def test_a_reboot_is_refused_where_the_configuration_has_none() -> None:
    driver = Driver(may_reboot=False).applied()

    driver.end(Verb.APPLY, 194)

    assert driver.sent(Update).details["code"] == "reboot.failed"


# --- the journal cannot be written --------------------------------------------------------------------------------


def test_without_a_journal_nothing_is_claimed_until_it_can_be_written() -> None:
    driver = Driver().connected()
    driver.claiming()
    withheld = tuple(driver.did(Send))

    driver.give(NotSaved(driver.job.record, "full", withheld))
    assert not driver.did(Send)
    driver.give(Connected())
    assert not [send for send in driver.did(Send) if isinstance(send.request, Update)]
    driver.due(Timer.SAVE)

    assert [type(effect) for effect in driver.effects] == [GetReady, Save, Send]


def test_the_process_of_the_first_verb_is_made_while_its_claim_is_on_its_way() -> None:
    driver = Driver().connected()
    driver.claiming()

    assert [(effect.run.verb, effect.run.attempt) for effect in driver.did(GetReady)] == [(Verb.APPLY, 1)]


def test_none_is_made_for_a_claim_whose_result_is_known() -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)
    driver.end(Verb.CHECK, 10)

    assert [type(effect) for effect in driver.effects] == [Save, Send]


@pytest.mark.parametrize(
    ("said", "reason"),
    [("", "already as wanted; nothing was changed"), ("the level is high", "the level is high")],
)
def test_who_asks_why_a_job_did_nothing_is_told(said: str, reason: str) -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)
    driver.end(Verb.CHECK, 10, reason=said)

    assert driver.job.record.result == Result(Status.SUCCEEDED, reason=reason)


@pytest.mark.parametrize(("code", "would"), [(0, "run"), (10, "nothing"), (75, "wait")])
def test_what_check_says_is_a_part_of_the_answer_to_a_question(code: int, would: str) -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, replace(EVERYTHING, check_only=True)))
    driver.running(Verb.CHECK)
    driver.end(Verb.CHECK, code, reason="the level is low")

    assert driver.job.record.result == Result(Status.SUCCEEDED, reason="the level is low")
    assert driver.job.record.details["would"] == would


def test_without_a_journal_apply_does_not_begin_but_verify_does() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY})))
    driver.running()
    driver.give(NotSaved(driver.job.record, "full", (Go(JOB),)))
    assert driver.did(Kill)
    assert not driver.did(Go)
    driver.due(Timer.SAVE)
    driver.running()
    driver.end(Verb.APPLY)
    driver.running(Verb.VERIFY)

    driver.give(NotSaved(driver.job.record, "full", (Go(JOB),)))

    assert driver.did(Go)


@pytest.mark.parametrize("status", [Status.CANCELED, Status.TIMED_OUT])
def test_an_apply_that_never_began_for_want_of_a_journal_is_neither_undone_nor_begun_later(status: Status) -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.ROLLBACK})))
    driver.running()
    driver.give(NotSaved(driver.job.record, "disk full", driver.effects[1:]))

    driver.due(Timer.LEARN)
    driver.give(Described(driver.sent(Describe).token, Execution(JOB, status, 3)))

    assert JOB not in driver.state.jobs
    assert not driver.did(Run)


def test_without_a_journal_a_result_is_reported_all_the_same() -> None:
    driver = Driver()
    report = driver.reporting()

    driver.give(NotSaved(driver.job.record, "full", (Send(report, JOB),)))

    assert driver.sent(Update) == report


def test_a_claim_without_an_answer_that_is_over_meanwhile_is_kept_as_late_truth() -> None:
    driver = Driver().connected()
    driver.claiming()
    driver.due(Timer.REPLY)
    driver.due(Timer.RETRY)

    again = driver.sent(Update)
    driver.give(Refused(again.token, Refusal.TERMINAL_STATE_REACHED))

    (saved,) = driver.did(Save)
    assert saved.record.phase is Phase.DONE
    assert "nothing was changed" in saved.record.late


def test_a_claim_refused_because_all_is_over_is_not_made_again_for_a_late_notification() -> None:
    driver = Driver().connected()
    claim = driver.claiming()
    driver.give(Refused(claim.token, Refusal.TERMINAL_STATE_REACHED))

    driver.give(NextChanged(offer()))

    assert not driver.did(Judge)


def test_a_later_in_progress_timer_is_asked_for_again_after_each_renewal() -> None:
    driver = Driver(step_timeout_minutes=20).applied()
    driver.due(Timer.LEARN)
    asked = driver.sent(Describe)
    running = offer(status=Status.IN_PROGRESS, version=2, seconds_left=1180)

    driver.give(Described(asked.token, running))

    assert driver.job.timers[Timer.LEARN] > driver.job.timers[Timer.RENEW]


# --- starting again, and ending -----------------------------------------------------------------------------------


def record_of(phase: Phase, **changes: Any) -> Record:
    """Return a record as the journal would hold it."""
    base = Record(JOB, phase, "claim", 2, PLAN, {}, verb=Verb.APPLY, process=PROCESS, applied=True)
    return replace(base, attempts={Verb.APPLY: 1}, **changes)


def test_a_process_that_is_found_again_is_not_started_again() -> None:
    driver = Driver()

    driver.give(Resumed(record_of(Phase.APPLYING), Evidence.ADOPTED))

    assert not driver.did(Run)
    driver.end(Verb.APPLY)
    assert driver.job.phase is Phase.REPORTING


def test_a_process_that_is_found_again_may_be_silent_for_no_longer_than_before() -> None:
    driver = Driver()
    record = record_of(Phase.APPLYING, plan=replace(PLAN, limits=Limits(stall=60.0)))
    driver.give(Resumed(record, Evidence.ADOPTED))

    assert Kill(JOB) in driver.due(Timer.STALL)


def test_an_interrupted_apply_is_not_repeated_without_leave() -> None:
    driver = Driver()

    driver.give(Resumed(record_of(Phase.APPLYING), Evidence.LOST))

    assert not driver.did(Run)
    assert driver.job.record.result.code is Code.INTERRUPTED


def test_an_interrupted_apply_is_repeated_with_leave() -> None:
    driver = Driver()

    driver.give(Resumed(record_of(Phase.APPLYING, plan=replace(PLAN, apply_rerun=True)), Evidence.LOST))

    assert [(run.verb, run.resumed) for run in driver.did(Run)] == [(Verb.APPLY, True)]


def test_a_verb_that_does_not_survive_three_agents_is_given_up() -> None:
    driver = Driver()
    plan = replace(PLAN, apply_rerun=True)

    driver.give(Resumed(record_of(Phase.APPLYING, plan=plan, deaths=2), Evidence.LOST))

    assert not driver.did(Run)
    assert driver.job.record.result.code is Code.INTERRUPTED


@pytest.mark.parametrize("verb", [Verb.APPLY, Verb.CHECK])
def test_an_apply_that_works_elsewhere_may_be_interrupted_any_number_of_times(verb: Verb) -> None:
    driver = Driver()
    plan = replace(PLAN, apply_rerun=True, elsewhere=True, verbs=PLAN.verbs | {Verb.CHECK})

    driver.give(Resumed(record_of(Phase.APPLYING, plan=plan, verb=verb, deaths=20), Evidence.LOST))

    assert [run.verb for run in driver.did(Run)] == [Verb.CHECK]


@pytest.mark.parametrize("verb", [Verb.VERIFY, Verb.COMMIT, Verb.ROLLBACK])
def test_its_other_verbs_may_not(verb: Verb) -> None:
    driver = Driver()
    phase = {Verb.VERIFY: Phase.VERIFYING, Verb.COMMIT: Phase.COMMITTING, Verb.ROLLBACK: Phase.ROLLING_BACK}[verb]
    plan = replace(EVERYTHING, apply_rerun=True, elsewhere=True)

    driver.give(Resumed(record_of(phase, plan=plan, verb=verb, deaths=2), Evidence.LOST))

    assert verb not in [run.verb for run in driver.did(Run)]


@pytest.mark.parametrize("code", [0, 195])
def test_a_success_of_apply_from_before_a_power_cut_is_an_interrupted_apply(code: int) -> None:
    driver = Driver()
    driver.boot = "boot-2"
    driver.give(Resumed(record_of(Phase.APPLYING), Evidence.ADOPTED))

    driver.end(Verb.APPLY, code)

    assert not driver.did(Run)
    assert driver.job.record.result.code is Code.INTERRUPTED


def test_a_success_of_apply_from_before_a_power_cut_is_left_to_verify() -> None:
    driver = Driver()
    driver.boot = "boot-2"
    driver.give(Resumed(record_of(Phase.APPLYING, plan=EVERYTHING), Evidence.ADOPTED))

    driver.end(Verb.APPLY)

    assert [run.verb for run in driver.did(Run)] == [Verb.VERIFY]


def test_a_failure_of_apply_from_before_a_power_cut_is_believed() -> None:
    driver = Driver()
    driver.boot = "boot-2"
    driver.give(Resumed(record_of(Phase.APPLYING), Evidence.ADOPTED))

    driver.end(Verb.APPLY, 3)

    assert driver.job.record.result.code is Code.HANDLER_EXIT


@pytest.mark.parametrize("verb", [Verb.PREPARE, Verb.VERIFY, Verb.ROLLBACK])
def test_a_verb_that_ended_before_a_power_cut_runs_again(verb: Verb) -> None:
    driver = Driver()
    driver.boot = "boot-2"
    record = replace(record_of(PHASE_OF[verb], plan=EVERYTHING), verb=verb, attempts={verb: 1})

    driver.give(Resumed(record, Evidence.ADOPTED))

    assert [(run.verb, run.attempt) for run in driver.did(Run)] == [(verb, 2)]


def test_the_ending_of_a_verb_that_was_given_up_with_its_boot_is_not_heeded() -> None:
    driver = Driver()
    driver.boot = "boot-2"
    record = record_of(Phase.PREPARING, plan=EVERYTHING, deaths=2)
    driver.give(
        Resumed(replace(record, verb=Verb.PREPARE, attempts={Verb.PREPARE: 3}, applied=False), Evidence.ADOPTED)
    )
    assert driver.job.phase is Phase.REPORTING

    driver.give(Finished(JOB, Verb.PREPARE, 3, Ending(0)))

    assert not driver.effects


def test_a_commit_that_takes_the_machine_down_is_given_up_although_verify_comes_in_between() -> None:
    driver = Driver()
    driver.boot = "boot-2"
    record = replace(record_of(Phase.COMMITTING, plan=EVERYTHING, deaths=1), verb=Verb.COMMIT)
    driver.give(Resumed(replace(record, attempts={Verb.VERIFY: 1, Verb.COMMIT: 1}), Evidence.LOST))
    driver.running(Verb.VERIFY)

    driver.end(Verb.VERIFY)

    assert driver.job.phase is Phase.COMMITTING
    assert driver.job.record.deaths == 2


def test_a_verb_whose_reboots_are_power_cuts_runs_five_times_and_no_more() -> None:
    driver = Driver()
    driver.boot = "boot-2"
    driver.give(Resumed(replace(record_of(Phase.APPLYING), attempts={Verb.APPLY: 5}), Evidence.ADOPTED))

    driver.end(Verb.APPLY, 194)

    assert driver.job.record.result.code is Code.HANDLER_ATTEMPTS


def test_a_stopping_agent_takes_nothing_and_starts_no_verb() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.VERIFY})))
    driver.running()
    driver.give(Stop(Stopping.LEAVE))
    assert not driver.did(Kill)

    driver.end(Verb.APPLY)

    assert not driver.did(Run)


def test_the_second_signal_stops_the_running_verb() -> None:
    driver = Driver().applied()

    driver.give(Stop(Stopping.CANCEL))
    assert driver.did(Kill)
    driver.end(Verb.APPLY, None, signal="SIGTERM")

    assert driver.sent(Update).details["code"] == "cancelled"


# --- progress -----------------------------------------------------------------------------------------------------


def test_progress_goes_out_after_fifteen_seconds_and_then_at_doubling_distances() -> None:
    driver = Driver().applied()
    began = driver.clock
    driver.give(Progressed(JOB, 1, "a"))
    assert not driver.did(Send)
    gaps = []
    for percent in range(2, 7):
        driver.due(Timer.PROGRESS)
        request = driver.sent(Update)
        gaps.append(driver.clock - began)
        began = driver.clock
        driver.give(Updated(request.token, driver.stored(Status.IN_PROGRESS, percent), None))
        driver.give(Progressed(JOB, percent, "b"))

    assert gaps == [15, 15, 30, 60, 120]
    assert request.details["progress"] == "5% b"
    assert request.step_timeout_minutes == 1440


def test_a_throttled_progress_report_is_not_resent_and_doubles_the_distance() -> None:
    driver = Driver().applied()
    driver.give(Progressed(JOB, 1, "a"))
    driver.due(Timer.PROGRESS)
    request = driver.sent(Update)
    gap = driver.job.gap

    driver.give(Refused(request.token, Refusal.REQUEST_THROTTLED))

    assert not driver.did(Send)
    assert driver.job.gap == 2 * gap


def test_a_result_waits_for_the_reply_to_a_progress_report_that_is_on_its_way() -> None:
    driver = Driver().applied()
    driver.give(Progressed(JOB, 1, "a"))
    driver.due(Timer.PROGRESS)
    progress = driver.sent(Update)
    driver.end(Verb.APPLY)
    assert not driver.did(Send)

    driver.give(Updated(progress.token, driver.stored(Status.IN_PROGRESS, 3), None))

    assert (driver.sent(Update).status, driver.sent(Update).expected_version) == (Status.SUCCEEDED, 3)


def test_the_jobs_own_timer_is_learned_and_stops_what_may_be_stopped() -> None:
    driver = Driver().connected()
    driver.claimed(replace(PLAN, cancel_apply=True))
    driver.running()
    driver.due(Timer.LEARN)
    found = offer(status=Status.IN_PROGRESS, version=2, seconds_left=300)
    driver.give(Described(driver.sent(Describe).token, found))

    driver.due(Timer.DEADLINE)
    assert driver.did(Kill)
    driver.end(Verb.APPLY, None, signal="SIGTERM")

    assert driver.sent(Update).details["code"] == "deadline"


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_phase_but_the_last_has_rows() -> None:
    assert set(TABLE) == set(Phase) - {Phase.DONE}


def test_a_pair_without_a_row_quarantines_the_execution_and_the_agent_goes_on() -> None:
    driver = Driver().connected()
    claim = driver.claiming()

    driver.give(Progressed(JOB))

    assert any("please report" in note.text for note in driver.did(Note))
    driver.give(Updated(claim.token, driver.stored(Status.IN_PROGRESS, 2), None))
    assert driver.sent(Update).details["code"] == "agent.defect"


def test_the_drawing_in_the_readme_is_the_table() -> None:
    readme = Path(__file__).parents[2] / "agent" / "README.md"
    if not readme.exists():
        pytest.skip("the page is not part of this installation")

    assert diagram.drawn() in readme.read_text(encoding="utf-8")


def test_commit_does_not_fail_because_one_question_after_the_change_got_no_answer() -> None:
    driver = Driver().applied(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.COMMIT})))
    driver.due(Timer.LEARN)
    driver.give(Described(driver.sent(Describe).token, Execution(JOB, Status.IN_PROGRESS, 2)))
    driver.end(Verb.APPLY)
    assert driver.did(Reconnect)
    driver.clock += 1
    driver.give(Disconnected("as it was told"))
    driver.give(Connected())
    assert driver.sent(Describe)
    driver.due(Timer.REPLY)

    driver.due(Timer.LEARN)
    driver.give(Described(driver.sent(Describe).token, Execution(JOB, Status.IN_PROGRESS, 2)))

    assert driver.did(Run)[0].verb is Verb.COMMIT


@pytest.mark.parametrize("claimed", [False, True])
def test_a_check_leaves_nothing_behind_when_its_job_is_refused_or_somebody_elses(claimed: bool) -> None:
    driver = Driver().connected()
    driver.give(NextChanged(offer()))
    driver.give(Judged(JOB, EVERYTHING))
    driver.running(Verb.CHECK)
    driver.end(Verb.CHECK, 0 if claimed else 1)
    token = driver.sent(Update).token

    if claimed:
        theirs = Stored(Status.IN_PROGRESS, 2, {"claim": "theirs"})
        driver.give(Refused(token, Refusal.VERSION_MISMATCH, "", theirs))
    else:
        driver.give(Updated(token, driver.stored(Status.REJECTED, 2), None))

    assert JOB not in driver.state.jobs
    assert Clean(JOB) in driver.effects


def test_a_finished_execution_is_cleaned_up() -> None:
    driver = Driver()
    report = driver.reporting()

    driver.give(Updated(report.token, driver.stored(Status.SUCCEEDED, 3), None))

    assert driver.did(Clean)
