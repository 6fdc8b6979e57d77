"""The service's two timers, TIMED_OUT, and gaps in the connection from seconds to months; in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.plans import ALL, BEFORE, PLAN, verbs

from thingjobs.jobs import NextChanged
from thingjobs.machine.events import Progressed
from thingjobs.model import Limits, Verb
from thingjobs.testing import Lost, Refuse

if TYPE_CHECKING:
    from tests.unit.conftest import World

DAY = 86400.0


# --- the step timer -----------------------------------------------------------------------------------------------

LONG = replace(PLAN, limits=Limits(prepare=40 * DAY, apply=40 * DAY, verify=40 * DAY, commit=40 * DAY))


def test_the_step_timer_is_renewed_at_half_time_in_a_silent_job(new_world: type[World]) -> None:
    world = new_world(LONG, minutes=60).begun()
    world.let(4 * 3600 - 60)

    renewals = [request.at for request in world.sent("job/update")][1:]
    assert [round(after - before, -1) for before, after in pairwise(renewals)] == [1800.0] * 6
    assert world.status == "IN_PROGRESS"


@pytest.mark.parametrize("fault", [Lost.REQUEST, Lost.REPLY, Refuse("RequestThrottled"), Refuse("InternalError")])
def test_a_renewal_that_was_lost_or_refused_is_made_again_in_time(new_world: type[World], fault: Any) -> None:
    world = new_world(LONG, minutes=60).begun()
    faults = iter([fault] * 3)
    world.let(1790)
    world.service.interpose(lambda request: next(faults, None) if request.suffix == "job/update" else None)

    world.let(3 * 3600)

    assert world.status == "IN_PROGRESS"


def test_a_renewal_that_was_due_offline_is_made_when_the_link_is_back(new_world: type[World]) -> None:
    world = new_world(LONG, minutes=60).begun()
    world.let(1750)
    world.offline().let(1750)
    world.online().let(3600)

    assert world.status == "IN_PROGRESS"


def test_an_agent_that_was_started_again_renews_at_once_although_its_journal_knows_no_later_version(
    new_world: type[World],
) -> None:
    world = new_world(LONG, minutes=60).begun()
    world.let(3500)
    world.start()
    world.online().let(10)

    assert world.service.execution("pump-7", "job").step_deadline == pytest.approx(world.clock() + 3600, abs=15)


def test_a_renewal_that_is_due_while_a_question_is_open_is_made_after_it(new_world: type[World]) -> None:
    world = new_world(LONG, minutes=2).begun()
    world.let(55)
    lost = iter([Lost.REQUEST])
    world.service.interpose(lambda request: next(lost, None) if request.suffix == "job/get" else None)
    world.give(NextChanged(None))

    world.let(600)

    assert world.status == "IN_PROGRESS"


def test_a_lost_progress_report_is_not_made_up_for_before_half_time(new_world: type[World]) -> None:
    world = new_world(LONG).begun()
    faults = iter([Lost.REQUEST])
    world.service.interpose(lambda request: next(faults, None) if request.suffix == "job/update" else None)
    assert world.running is not None
    world.give(Progressed(world.running.record.identity, 1, "begun"))

    world.let(11 * 3600)

    assert len(world.sent("job/update")) == 2


def test_a_handler_that_stalls_is_ended_and_its_timer_is_not_renewed(new_world: type[World]) -> None:
    world = new_world(replace(LONG, limits=replace(LONG.limits, stall=900)), minutes=60).begun()
    world.let(1000)
    assert world.killed
    sent = len(world.sent("job/update"))

    world.let(3000)

    assert len(world.sent("job/update")) == sent
    assert world.status == "TIMED_OUT"


def test_a_handler_that_stalls_is_reported_as_that(new_world: type[World]) -> None:
    world = new_world(replace(LONG, limits=replace(LONG.limits, stall=900))).begun()
    world.let(1000)
    world.ends(Verb.APPLY, None, signal="SIGTERM")

    assert (world.status, world.details["code"]) == ("FAILED", "handler.stalled")


# --- the job's in-progress timer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "more", "stops"),
    [
        (Verb.PREPARE, {}, True),
        (Verb.APPLY, {}, False),
        (Verb.APPLY, {"cancel_apply": True}, True),
        (Verb.VERIFY, {}, True),
        (Verb.COMMIT, {}, False),
    ],
)
def test_the_jobs_timer_is_the_local_deadline(
    new_world: type[World], verb: Verb, more: dict[str, Any], stops: bool
) -> None:
    plan = replace(LONG, verbs=ALL.verbs, **more)
    world = new_world(plan).begun(*BEFORE[verb], in_progress_timeout_minutes=30)
    world.let(1000)
    world.offline()

    world.let(1000)

    assert world.killed is stops


def test_a_verb_that_the_deadline_stopped_is_reported_as_that(new_world: type[World]) -> None:
    world = new_world(replace(LONG, verbs=ALL.verbs)).begun(in_progress_timeout_minutes=30)
    world.let(1000)
    world.service.tick = lambda: None  # type: ignore[method-assign]  # The live service is up to a minute late.
    world.let(810)
    world.ends(Verb.PREPARE, None, signal="SIGTERM")

    assert (world.status, world.details["code"]) == ("FAILED", "deadline")


def test_the_jobs_timer_is_learned_later_when_there_was_no_connection_at_first(new_world: type[World]) -> None:
    world = new_world(replace(LONG, verbs=ALL.verbs)).begun(in_progress_timeout_minutes=30)
    world.offline().let(100)
    world.online().let(100)

    world.offline().let(1700)

    assert world.killed


@pytest.mark.parametrize("minutes", [60, 7 * 1440])
def test_a_jobs_timer_that_is_longer_than_ours_is_learned_too(new_world: type[World], minutes: int) -> None:
    world = new_world(replace(LONG, verbs=ALL.verbs), minutes=30).begun(in_progress_timeout_minutes=minutes)
    world.let(minutes * 60 - 600)
    world.offline()

    world.let(900)

    assert world.killed


def test_the_step_timer_is_never_taken_for_the_jobs_when_the_reply_to_the_claim_was_lost(
    new_world: type[World],
) -> None:
    world = new_world(replace(LONG, verbs=ALL.verbs), minutes=10)
    lost = iter([Lost.REPLY])
    world.service.interpose(lambda request: next(lost, None) if request.suffix == "job/update" else None)
    world.begun().let(3600)

    assert world.verb is Verb.PREPARE
    assert not world.killed
    assert world.status == "IN_PROGRESS"


@pytest.mark.parametrize("verb", [Verb.PREPARE, Verb.VERIFY])
def test_what_waits_to_run_again_does_not_begin_after_the_deadline(new_world: type[World], verb: Verb) -> None:
    world = new_world(ALL).begun(*BEFORE[verb], in_progress_timeout_minutes=30)
    world.let(60)
    world.ends(verb, 75, after=3000.0)
    world.offline().let(4000)

    assert world.verbs.count(verb) == 1
    assert world.verb is (Verb.ROLLBACK if verb is Verb.VERIFY else None)


def test_an_apply_that_stands_before_a_gate_does_not_begin_after_the_deadline(new_world: type[World]) -> None:
    world = new_world(ALL).begun(in_progress_timeout_minutes=30)
    world.let(60)
    world.closed = "the pump runs"
    world.ends(Verb.PREPARE)
    world.offline().let(2000)
    world.closed = ""

    world.let(4000)

    assert Verb.APPLY not in world.verbs


# --- TIMED_OUT ----------------------------------------------------------------------------------------------------


def test_a_time_out_stops_prepare(new_world: type[World], refusal: Any) -> None:
    world = new_world(ALL, minutes=60, terminal_update_code=refusal).begun(in_progress_timeout_minutes=1)
    world.let(100)

    assert world.killed
    world.ends(Verb.PREPARE, None, signal="SIGTERM")
    assert (world.status, world.verbs) == ("TIMED_OUT", [Verb.PREPARE])


def test_a_time_out_leaves_apply_alone_and_the_retry_comes_after_it_and_begins_with_check(
    new_world: type[World], refusal: Any
) -> None:
    plan = replace(LONG, verbs=frozenset(Verb))
    world = new_world(plan, terminal_update_code=refusal)
    world.begun(Verb.CHECK, Verb.PREPARE, in_progress_timeout_minutes=10, retries={"TIMED_OUT": 1})
    world.let(3600)
    assert (world.status, world.killed) == ("TIMED_OUT", False)
    assert world.service.execution("pump-7", "job").status == "QUEUED", "the retry waits"
    sent = len([request for request in world.sent() if (request.body or {}).get("executionNumber") == 1])

    world.ends(Verb.APPLY)
    world.ends(Verb.VERIFY)
    world.let(1)
    world.ends(Verb.COMMIT)
    world.let(10)

    first = [request for request in world.sent() if (request.body or {}).get("executionNumber") == 1]
    assert len(first) == sent, "nothing is sent for what is over"
    assert "TIMED_OUT" in world.record.late
    assert "SUCCEEDED" in world.record.late
    assert world.verb is Verb.CHECK
    world.ends(Verb.CHECK, 10)
    assert world.service.execution("pump-7", "job").status == "SUCCEEDED"
    assert world.verbs.count(Verb.APPLY) == 1


def test_a_time_out_before_apply_began_means_that_it_never_does(new_world: type[World]) -> None:
    world = new_world(ALL, minutes=60).begun(in_progress_timeout_minutes=10)
    world.closed = "not now"
    world.ends(Verb.PREPARE, 195)
    world.let(3600)
    assert world.status == "TIMED_OUT"
    world.closed = ""
    world.let(3600)

    assert world.verbs == [Verb.PREPARE]
    assert not world.reboots


def test_without_a_connection_the_machine_is_not_rebooted_for_what_timed_out_before_apply(
    new_world: type[World],
) -> None:
    world = new_world(ALL).online().queue(in_progress_timeout_minutes=30)
    world.let(60)
    world.closed = "somebody works here"
    world.ends(Verb.PREPARE, 194)
    world.let(60)
    world.offline()
    world.let(40 * 60)
    world.closed = ""
    world.let(3600)

    assert not world.reboots


def test_a_renewal_that_is_due_while_a_verb_is_being_stopped_is_not_lost(new_world: type[World]) -> None:
    world = new_world(verbs(Verb.ROLLBACK, limits=Limits(apply=29)), minutes=1).begun()
    world.let(35)  # It was told to stop after 29 s, and the renewal was due after 30.
    assert world.killed
    world.ends(Verb.APPLY, None, signal="SIGTERM")
    assert world.verb is Verb.ROLLBACK
    world.let(120)

    assert world.status == "IN_PROGRESS"


# --- without a connection -----------------------------------------------------------------------------------------


def test_ten_minutes_without_a_connection_spoil_nothing(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE).offline()
    world.let(300)
    world.ends(Verb.APPLY)
    world.ends(Verb.VERIFY)
    world.let(300)
    world.online()
    world.ends(Verb.COMMIT)

    assert world.status == "SUCCEEDED"
    assert not world.record.late


def test_thirty_days_without_a_connection_spoil_nothing(new_world: type[World]) -> None:
    plan = replace(LONG, verbs=frozenset({Verb.CHECK, Verb.APPLY}))
    world = new_world(plan).begun(Verb.CHECK, retries={"TIMED_OUT": 1})
    world.queue("behind")
    world.offline().let(15 * DAY)
    world.ends(Verb.APPLY)
    world.let(15 * DAY)
    assert (world.status, world.verb) == ("TIMED_OUT", None)

    world.online()
    world.let(10)

    assert "TIMED_OUT" in world.record.late
    assert "SUCCEEDED" in world.record.late
    assert world.verb is Verb.CHECK, "of the job behind it or of the retry, whichever the service shows first"
    world.ends(Verb.CHECK, 10)
    world.let(10)
    world.ends(Verb.CHECK, 10)
    assert {one.status for one in world.service.executions("pump-7")} == {"TIMED_OUT", "SUCCEEDED"}


def test_a_result_of_a_month_ago_is_delivered_when_the_service_still_waits_for_it(new_world: type[World]) -> None:
    world = new_world().begun().offline()
    world.ends(Verb.APPLY)
    world.service.tick = lambda: None  # type: ignore[method-assign]  # Its timers do not fire: an agent that set none.
    for _ in range(3):
        world.let(10 * DAY)
        world.start()
    world.online()

    assert (world.status, world.verbs) == ("SUCCEEDED", [Verb.APPLY])
