"""Reboots, restarts and proofs over virtual time: the real core between a modelled device and the simulated service."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.plans import ALL, BEFORE, PLAN, verbs

from thingjobs.machine import Now, State, step
from thingjobs.machine.effects import Note, Run
from thingjobs.machine.events import Ending, Evidence, Finished, Judged, Resumed
from thingjobs.model import Limits, Phase, Plan, Verb
from thingjobs.policy import MAX_REBOOT_REQUESTS, REBOOT_WAIT
from thingjobs.testing import Lost, Refuse

if TYPE_CHECKING:
    from tests.unit.conftest import World


# --- reboots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "code", "following"),
    [
        (Verb.PREPARE, 194, Verb.PREPARE),
        (Verb.PREPARE, 195, Verb.APPLY),
        (Verb.APPLY, 194, Verb.APPLY),
        (Verb.APPLY, 195, Verb.VERIFY),
        (Verb.VERIFY, 194, Verb.VERIFY),
        (Verb.VERIFY, 195, Verb.VERIFY),
        # What `verify` found before the reboot says nothing of this boot.
        (Verb.COMMIT, 194, Verb.VERIFY),
    ],
)
def test_a_verb_asks_for_a_reboot_and_what_follows_is_told_of_it(
    new_world: type[World], verb: Verb, code: int, following: Verb
) -> None:
    world = new_world(ALL).begun(*BEFORE[verb])
    world.ends(verb, code)
    assert (world.reboots, world.verb, world.status) == (1, None, "IN_PROGRESS")

    world.power_cut()

    assert world.runs[-1] == (following, True)


def test_a_commit_that_ends_with_a_reboot_has_succeeded_once_the_machine_is_up_again(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY, Verb.VERIFY)
    world.ends(Verb.COMMIT, 195)
    assert world.status == "IN_PROGRESS"

    world.power_cut()
    world.online()

    assert (world.status, world.verbs.count(Verb.COMMIT)) == ("SUCCEEDED", 1)


def test_after_a_reboot_that_commit_asked_for_comes_verify_and_then_commit_again(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY, Verb.VERIFY)
    world.ends(Verb.COMMIT, 194)
    world.power_cut()
    world.online()
    world.ends(Verb.VERIFY)
    world.ends(Verb.COMMIT)

    assert (world.status, world.verbs[-2:]) == ("SUCCEEDED", [Verb.VERIFY, Verb.COMMIT])


@pytest.mark.parametrize("code", [194, 195])
def test_a_rollback_may_ask_for_a_reboot_too_and_is_no_success(new_world: type[World], code: int) -> None:
    world = new_world(ALL).begun(Verb.PREPARE)
    world.ends(Verb.APPLY, 1)
    world.ends(Verb.ROLLBACK, code)
    world.power_cut()
    world.online()
    if code == 194:
        world.ends(Verb.ROLLBACK)

    assert (world.status, world.reboots) == ("FAILED", 1)
    assert world.details["reason"].endswith("rolled back")


def test_a_reboot_that_does_not_come_is_asked_for_three_times_ten_minutes_apart(new_world: type[World]) -> None:
    world = new_world().begun()
    world.ends(Verb.APPLY, 194)
    asked = []
    for _ in range(3):
        asked.append(world.reboots)
        world.let(REBOOT_WAIT)

    assert asked == [1, 2, 3]
    assert (world.status, world.details["code"]) == ("FAILED", "reboot.failed")
    assert world.verbs == [Verb.APPLY]


def test_an_agent_that_is_started_again_and_again_while_the_machine_goes_down_is_patient_in_the_end(
    new_world: type[World],
) -> None:
    world = new_world().begun()
    world.ends(Verb.APPLY, 194)
    for _ in range(10):
        world.let(1)
        world.start()
    world.online()
    assert (world.reboots, world.status, world.verbs) == (MAX_REBOOT_REQUESTS, "IN_PROGRESS", [Verb.APPLY])

    world.power_cut()

    assert world.runs[-1] == (Verb.APPLY, True)


def test_the_last_request_for_a_reboot_has_its_ten_minutes_and_no_more(new_world: type[World]) -> None:
    world = new_world().begun()
    world.ends(Verb.APPLY, 194)
    for _ in range(3):
        world.start()
    world.online()
    world.let(REBOOT_WAIT)

    assert (world.reboots, world.status, world.details["code"]) == (3, "FAILED", "reboot.failed")


def test_a_job_may_have_the_machine_rebooted_three_times(new_world: type[World]) -> None:
    world = new_world().begun()
    for _ in range(3):
        world.ends(Verb.APPLY, 194)
        world.power_cut()
        world.online()
    world.ends(Verb.APPLY, 194)

    assert (world.reboots, world.status, world.details["code"]) == (3, "FAILED", "reboot.failed")


def test_a_reboot_that_waits_for_its_gate_keeps_the_execution_alive_over_a_lost_connection(
    new_world: type[World],
) -> None:
    world = new_world(minutes=60).begun()
    world.closed = "somebody works on the pump"
    world.ends(Verb.APPLY, 194)
    world.let(29 * 60)
    world.offline()
    world.let(15 * 60)
    world.online()
    world.let(6 * 3600)
    world.closed = ""
    world.let(15 * 60)

    assert world.reboots
    assert world.status == "IN_PROGRESS"


def test_the_last_word_before_a_reboot_may_be_refused_without_a_version_and_the_reboot_comes(
    new_world: type[World],
) -> None:
    world = new_world().begun()
    refused = iter([Refuse("VersionMismatch")])
    world.service.interpose(lambda request: next(refused, None) if request.suffix == "job/update" else None)

    world.ends(Verb.APPLY, 194)

    assert world.reboots == 1


# --- proof of reach -----------------------------------------------------------------------------------------------


def test_commit_waits_for_a_connection_that_was_opened_after_the_change(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY)
    opened = world.state.connected_at
    world.let(1)
    world.ends(Verb.VERIFY)

    assert world.verb is Verb.COMMIT
    assert world.state.connected_at != opened


def test_a_device_that_never_reaches_the_service_again_rolls_back_and_tells_so_when_it_can(
    new_world: type[World],
) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY)
    world.offline()
    world.ends(Verb.VERIFY)
    world.let(ALL.limits.reach)
    world.ends(Verb.ROLLBACK)
    world.online()

    assert (world.status, world.details["code"]) == ("FAILED", "reach.failed")
    assert Verb.COMMIT not in world.verbs


@pytest.mark.parametrize("code", ["RequestThrottled", "InternalError", "InvalidRequest", "SomethingNew"])
def test_a_refusal_proves_that_the_service_is_reached(new_world: type[World], code: str) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY)
    world.service.interpose(lambda _: Refuse(code))
    world.let(1)

    world.ends(Verb.VERIFY)

    assert world.verb is Verb.COMMIT


def test_commit_is_preceded_by_a_verify_of_the_same_boot(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY)
    world.offline()
    world.ends(Verb.VERIFY)
    world.power_cut()
    world.online()
    world.ends(Verb.VERIFY)

    assert world.verb is Verb.COMMIT


# --- what a restart and a power cut leave -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "more", "follows"),
    [
        (10, {}, Verb.VERIFY),
        (0, {}, Verb.ROLLBACK),
        (0, {"apply_rerun": True}, Verb.APPLY),
        (1, {"apply_rerun": True}, Verb.APPLY),
        (None, {}, Verb.ROLLBACK),
        (194, {}, Verb.ROLLBACK),
    ],
)
def test_after_a_power_cut_in_apply_check_decides(
    new_world: type[World], answer: int | None, more: dict[str, Any], follows: Verb
) -> None:
    world = new_world(replace(PLAN, verbs=frozenset(Verb), **more)).begun(Verb.CHECK, Verb.PREPARE)
    world.power_cut()

    world.ends(Verb.CHECK, answer)

    assert world.verb is follows


def test_after_a_power_cut_in_apply_a_check_that_says_later_is_asked_again_later(new_world: type[World]) -> None:
    world = new_world(verbs(Verb.CHECK)).begun(Verb.CHECK)
    world.power_cut()

    world.ends(Verb.CHECK, 75)
    assert world.verb is None
    world.let(600)

    assert world.verb is Verb.CHECK


@pytest.mark.parametrize(
    ("plan", "follows"),
    [(PLAN, None), (verbs(apply_rerun=True), Verb.APPLY), (verbs(Verb.ROLLBACK), Verb.ROLLBACK)],
)
def test_without_a_check_an_interrupted_apply_runs_again_only_with_leave(
    new_world: type[World], plan: Plan, follows: Verb | None
) -> None:
    world = new_world(plan).begun()

    world.power_cut()

    assert world.verb is follows
    if follows is None:
        world.online()
        assert (world.status, world.details["code"]) == ("FAILED", "interrupted")


@pytest.mark.parametrize("verb", [Verb.PREPARE, Verb.APPLY, Verb.VERIFY, Verb.COMMIT])
def test_a_verb_that_takes_the_machine_down_with_it_is_given_up_the_third_time(
    new_world: type[World], verb: Verb
) -> None:
    world = new_world(replace(ALL, apply_rerun=True, verbs=ALL.verbs - {Verb.ROLLBACK})).begun(*BEFORE[verb])
    for _ in range(3):
        while world.verb is not verb:
            world.online()
            if world.verb is not verb:
                world.ends(Verb.VERIFY)
        world.power_cut()
    world.online()

    assert (world.status, world.details["code"]) == ("FAILED", "interrupted")
    assert world.verbs.count(verb) == 3


def test_a_verb_that_is_found_again_has_what_is_left_of_its_time(new_world: type[World]) -> None:
    world = new_world(replace(PLAN, limits=Limits(apply=3600))).begun()
    world.let(3000)
    world.start()
    world.let(599)
    assert not world.killed

    world.let(2)

    assert world.killed


def test_a_verb_that_ended_in_time_while_no_agent_lived_is_not_called_too_slow(new_world: type[World]) -> None:
    world = new_world(replace(PLAN, limits=Limits(apply=60))).begun()
    world.clock.advance(5000)
    world.start(ended=0)
    world.online()

    assert (world.status, world.killed) == ("SUCCEEDED", False)


def test_a_verb_that_still_runs_long_after_its_time_is_ended_soon(new_world: type[World]) -> None:
    world = new_world(replace(PLAN, limits=Limits(apply=60))).begun()
    world.clock.advance(5000)
    world.start()
    world.let(5)
    assert not world.killed, "it may have ended in time, and is heard of in a moment"

    world.let(10)

    assert world.killed


def test_what_was_to_run_again_in_a_while_waits_for_what_is_left_of_it_after_a_restart(new_world: type[World]) -> None:
    world = new_world().begun()
    world.ends(Verb.APPLY, 75, after=600.0)
    world.let(300)
    world.start()
    world.let(299)
    assert world.verbs == [Verb.APPLY]

    world.let(2)

    assert world.verbs == [Verb.APPLY, Verb.APPLY]


def test_a_wait_of_an_earlier_boot_is_over(new_world: type[World]) -> None:
    world = new_world().begun()
    world.ends(Verb.APPLY, 75, after=600.0)

    world.power_cut()

    assert world.verbs == [Verb.APPLY, Verb.APPLY]


def test_the_time_of_a_verb_is_written_together_with_its_process(new_world: type[World]) -> None:
    world = new_world().begun()
    assert world.record.until is not None
    assert world.record.until.boot == "boot-1"
    world.ends(Verb.APPLY)

    assert world.record.phase is Phase.DONE


# --- events that come out of order --------------------------------------------------------------------------------


def test_a_verify_of_an_earlier_boot_is_not_believed_while_its_new_run_cannot_be_made(new_world: type[World]) -> None:
    world = new_world(ALL).begun(Verb.PREPARE, Verb.APPLY)
    record = world.record
    assert record.verb is Verb.VERIFY
    # Its status was stored just before the power cut; the new run is postponed, for want of files.
    now = Now(world.clock(), "another boot", world.clock())
    state, effects = step(State(world.settings, nonce="x"), Resumed(record, Evidence.ADOPTED), now)
    assert any(isinstance(effect, Run) for effect in effects)
    state, _ = step(state, Finished(record.identity, Verb.VERIFY, 1, Ending(0)), now)

    (job,) = state.jobs.values()
    assert job.phase is Phase.VERIFYING


def test_a_judgement_that_was_postponed_until_the_report_is_no_defect_of_ours(new_world: type[World]) -> None:
    world = new_world(PLAN).begun()
    identity = world.record.identity
    world.service.interpose(lambda _: Lost.REQUEST)
    world.ends(Verb.APPLY)
    world.give(Judged(identity, PLAN))

    assert not [effect for effect in world.effects if isinstance(effect, Note) and "please report" in effect.text]
