"""Cancels in all their forms, however the agent hears of them, in virtual time: what is undone, and what is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.plans import ALL, BEFORE, verbs

from thingjobs.machine.events import Progressed
from thingjobs.model import Limits, Status, Verb
from thingjobs.testing import Lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import World

DAY = 86400.0


# --- how a cancel is noticed --------------------------------------------------------------------------------------


def cancelled(world: World) -> None:
    world.cancel()


def cancelled_by_execution(world: World) -> None:
    world.service.cancel_execution("pump-7", "job", force=True)
    world.drain()


def job_deleted(world: World) -> None:
    world.service.delete_job("job", force=True)
    world.drain()


def execution_deleted(world: World) -> None:
    world.service.delete_execution("pump-7", "job", 1, force=True)
    world.drain()


def thing_removed(world: World) -> None:
    world.service.remove_thing("pump-7")
    world.drain()


FORMS = [cancelled, cancelled_by_execution, job_deleted, execution_deleted, thing_removed]


def by_notification(world: World, end: Callable[[World], None]) -> None:
    end(world)


def by_refused_update(world: World, end: Callable[[World], None]) -> None:
    """Nobody tells of it; the next progress report is refused."""
    world.heard = False
    end(world)
    world.heard = True
    assert world.running is not None
    world.give(Progressed(world.running.record.identity, 50, "half"))
    world.let(400)


def by_heartbeat(world: World, end: Callable[[World], None]) -> None:
    """Nobody tells of it and the handler is silent; the renewal of the step timer is refused."""
    world.heard = False
    end(world)
    world.heard = True
    world.let(31 * 60)


def by_looking_again(world: World, end: Callable[[World], None]) -> None:
    """It happened while there was no connection."""
    world.offline()
    end(world)
    world.online()


WAYS = [by_notification, by_refused_update, by_heartbeat, by_looking_again]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def ending(request: pytest.FixtureRequest) -> Callable[[World], None]:
    """Each way in which an operator ends an execution."""
    form: Callable[[World], None] = request.param
    return form


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def noticed(request: pytest.FixtureRequest) -> Callable[[World, Callable[[World], None]], None]:
    """Each way in which the agent hears of it."""
    way: Callable[[World, Callable[[World], None]], None] = request.param
    return way


def test_before_apply_it_is_stopped_and_nothing_has_changed(
    new_world: type[World],
    ending: Callable[[World], None],
    noticed: Callable[[World, Callable[[World], None]], None],
    refusal: Any,
) -> None:
    world = new_world(ALL, minutes=60, terminal_update_code=refusal).begun()

    noticed(world, ending)
    assert world.killed
    sent = len(world.sent())
    world.ends(Verb.PREPARE, None, signal="SIGTERM")
    world.queue("next")

    assert world.verbs == [Verb.PREPARE, Verb.PREPARE], "the next job begins, and nothing else of this one"
    assert "nothing was changed" in world.record.late
    assert len(world.sent()) == sent


def test_during_apply_it_is_latched_and_undone_at_its_end(
    new_world: type[World],
    ending: Callable[[World], None],
    noticed: Callable[[World, Callable[[World], None]], None],
    refusal: Any,
) -> None:
    plan = replace(ALL, limits=Limits(apply=4 * 3600))
    world = new_world(plan, minutes=60, terminal_update_code=refusal).begun(Verb.PREPARE)

    noticed(world, ending)
    assert not world.killed
    sent = len(world.sent())
    world.queue("next")
    assert world.service.execution("pump-7", "next").status == "QUEUED", "never beside it"
    world.ends(Verb.APPLY)
    world.ends(Verb.ROLLBACK)

    assert world.verbs == [Verb.PREPARE, Verb.APPLY, Verb.ROLLBACK, Verb.PREPARE]
    assert "rolled back" in world.record.late
    assert len(world.sent()) == sent


@pytest.mark.parametrize("verb", [Verb.APPLY, Verb.VERIFY])
def test_what_may_be_stopped_is_stopped_and_undone(new_world: type[World], verb: Verb) -> None:
    world = new_world(replace(ALL, cancel_apply=True)).begun(*BEFORE[verb])

    world.cancel()
    assert world.killed
    world.ends(verb, None, signal="SIGTERM")

    assert world.verb is Verb.ROLLBACK


def test_without_a_rollback_the_record_says_that_what_was_applied_stays(new_world: type[World]) -> None:
    world = new_world().begun()

    world.cancel()
    world.ends(Verb.APPLY)

    assert "what was applied stays" in world.record.late
    assert world.status == "CANCELED"


def test_while_it_waits_for_proof_before_commit_it_is_undone(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY).offline()
    world.ends(Verb.VERIFY)
    world.cancel()

    world.online()

    assert world.verb is Verb.ROLLBACK


def test_once_commit_began_it_is_too_late_and_the_record_says_both(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY, Verb.VERIFY)
    world.cancel()
    sent = len(world.sent())
    assert not world.killed

    world.ends(Verb.COMMIT)

    assert Verb.ROLLBACK not in world.verbs
    assert world.record.result is not None
    assert (world.record.result.status, world.record.ended) == (Status.SUCCEEDED, Status.CANCELED)
    assert "CANCELED" in world.record.late
    assert "SUCCEEDED" in world.record.late
    assert len(world.sent()) == sent


def test_a_commit_that_waits_to_run_again_is_finished_all_the_same(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY, Verb.VERIFY)
    world.ends(Verb.COMMIT, 75)
    world.cancel()

    world.let(300)
    world.ends(Verb.COMMIT)

    assert Verb.ROLLBACK not in world.verbs
    assert "SUCCEEDED" in world.record.late


def test_a_commit_that_asked_for_a_reboot_is_finished_after_it(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY, Verb.VERIFY)
    world.ends(Verb.COMMIT, 194)
    world.cancel()
    world.power_cut()
    world.online()
    world.ends(Verb.VERIFY)
    world.ends(Verb.COMMIT)

    assert Verb.ROLLBACK not in world.verbs
    assert "SUCCEEDED" in world.record.late


def test_once_the_result_is_written_it_is_too_late(new_world: type[World]) -> None:
    world = new_world(verbs(Verb.ROLLBACK)).begun().offline()
    world.ends(Verb.APPLY)
    world.cancel()

    world.online()

    assert world.verbs == [Verb.APPLY]
    assert "CANCELED" in world.record.late


@pytest.mark.parametrize("hidden", [False, True])
def test_a_cancel_while_queued_leaves_nothing(new_world: type[World], hidden: bool) -> None:
    world = new_world(verbs(Verb.CHECK)).begun()
    assert world.verb is Verb.CHECK
    world.heard = not hidden

    world.service.cancel_job("job")
    world.drain()
    world.heard = True
    world.ends(Verb.CHECK)
    world.queue("next")
    world.let(10)

    assert world.verbs == [Verb.CHECK, Verb.CHECK], "the check of the next one"
    assert world.status == "CANCELED"


def test_a_cancelled_job_that_waits_for_a_gate_is_dropped_when_it_is_heard_of(new_world: type[World]) -> None:
    world = new_world().online()
    world.closed = "not now"
    world.queue()

    world.service.cancel_job("job")
    world.drain()

    assert not world.state.jobs
    assert not world.sent()


# --- and then the agent is started again --------------------------------------------------------------------------


def test_a_prepare_that_was_told_to_end_is_told_again_by_the_next_agent(new_world: type[World]) -> None:
    world = new_world(ALL).begun()
    world.cancel()
    sent = len(world.sent())
    world.killed = False

    world.start()
    assert world.killed
    world.online()
    world.ends(Verb.PREPARE, None, signal="SIGTERM")

    assert len(world.sent()) == sent
    assert "nothing was changed" in world.record.late


def test_a_prepare_that_was_told_to_end_and_is_gone_with_the_power_is_over(new_world: type[World]) -> None:
    world = new_world(ALL).begun()
    world.cancel()

    world.power_cut()

    assert world.verbs == [Verb.PREPARE]
    assert "nothing was changed" in world.record.late


@pytest.mark.parametrize("how", ["restart", "power cut"])
@pytest.mark.parametrize("more", [{}, {"apply_rerun": True}])
def test_a_latched_cancel_survives_the_agent_and_begins_nothing_but_the_rollback(
    new_world: type[World], how: str, more: dict[str, Any]
) -> None:
    world = new_world(replace(ALL, **more)).begun(Verb.PREPARE)
    world.cancel()
    sent = len(world.sent())
    if how == "restart":
        world.start(ended=0)
    else:
        world.power_cut()
    world.online()

    world.ends(Verb.ROLLBACK)

    assert world.verbs == [Verb.PREPARE, Verb.APPLY, Verb.ROLLBACK]
    assert len(world.sent()) == sent


def test_a_rollback_has_its_own_three_lives(new_world: type[World]) -> None:
    world = new_world(replace(ALL, apply_rerun=True)).begun(Verb.PREPARE)
    for _ in range(2):
        world.power_cut()
    world.online()
    world.cancel()
    world.ends(Verb.APPLY)

    world.power_cut()

    assert world.verb is Verb.ROLLBACK


def test_a_doubt_whose_question_gets_no_answer_is_asked_again(new_world: type[World]) -> None:
    world = new_world(ALL).begun()
    lost = iter([Lost.REPLY, Lost.REQUEST])
    world.service.interpose(lambda request: next(lost, None) if request.suffix == "job/get" else None)

    world.cancel()
    world.let(90)

    assert world.killed


def test_a_cancelled_apply_that_waits_is_undone_by_the_next_agent(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE)
    world.ends(Verb.APPLY, 75)
    world.cancel()
    world.start()

    assert world.verbs[-1] is Verb.ROLLBACK
    assert world.verbs.count(Verb.APPLY) == 1
