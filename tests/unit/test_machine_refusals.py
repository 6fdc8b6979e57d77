"""Every refusal of the service in every phase in which a request can be open: the whole table, cell by cell.

ErrorResponse of the AWS IoT Jobs MQTT API has nine codes; a tenth stands for those that nobody knows. The documentation
promises `executionState` with two of them only, so each is tried with it and without.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.plans import ALL, PLAN

from thingjobs.jobs import Describe, Refusal, Refused, Update
from thingjobs.jobs import State as Stored
from thingjobs.machine import effects as do
from thingjobs.machine.events import Progressed
from thingjobs.machine.state import Timer
from thingjobs.model import Code, Phase, Result, Status, Verb
from thingjobs.testing import Lost, Refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import World

    from thingjobs.machine.state import Job

WITH_CHECK = replace(PLAN, verbs=frozenset({Verb.CHECK, Verb.APPLY, Verb.ROLLBACK}))


# --- the situations: a request is open, and nothing that is sent later arrives --------------------------------------


def deaf(world: World) -> World:
    """Let nothing reach the service any more."""
    world.service.interpose(lambda _: Lost.REQUEST)
    return world


def speaks(world: World) -> World:
    """Have the handler say something that is told to the service."""
    assert world.running is not None
    world.give(Progressed(world.running.record.identity, 50, "half"))
    deaf(world).let(15.5)
    return world


def asks(world: World) -> World:
    """Wait until the agent asks for the job's own timer."""
    deaf(world).let(20.5)
    return world


def refusing(new: type[World]) -> World:
    return deaf(new(Result(Status.REJECTED, Code.HANDLER_UNKNOWN, "there is none"))).begun()


def claiming(new: type[World]) -> World:
    return deaf(new()).begun()


def claiming_after_a_restart(new: type[World]) -> World:
    world = claiming(new)
    world.start()
    return world.online()


def preparing(new: type[World]) -> World:
    return speaks(new(ALL).begun())


def preparing_and_asking(new: type[World]) -> World:
    return asks(new(ALL).begun())


def applying(new: type[World]) -> World:
    return speaks(new(ALL).begun(Verb.PREPARE))


def applying_and_asking(new: type[World]) -> World:
    return asks(new(ALL).begun(Verb.PREPARE))


def checking_after_a_power_cut(new: type[World]) -> World:
    world = new(WITH_CHECK).begun(Verb.CHECK)
    world.power_cut()
    return deaf(world).online()


def verifying(new: type[World]) -> World:
    return speaks(new(ALL).begun(Verb.PREPARE, Verb.APPLY))


def waiting_to_commit(new: type[World]) -> World:
    world = deaf(new(ALL).begun(Verb.PREPARE, Verb.APPLY))
    world.ends(Verb.VERIFY)
    return world


def committing(new: type[World]) -> World:
    world = new(ALL).begun(Verb.PREPARE, Verb.APPLY)
    world.let(1)
    world.ends(Verb.VERIFY)
    return speaks(world)


def rolling_back(new: type[World]) -> World:
    world = new(ALL).begun(Verb.PREPARE)
    world.ends(Verb.APPLY, 1)
    return speaks(world)


def rebooting(new: type[World]) -> World:
    world = deaf(new(replace(PLAN, verbs=frozenset({Verb.APPLY, Verb.ROLLBACK}))).begun())
    world.ends(Verb.APPLY, 194)
    return world


def reporting(new: type[World]) -> World:
    world = deaf(new().begun())
    world.ends(Verb.APPLY)
    return world


def reporting_behind_progress(new: type[World]) -> World:
    world = speaks(new().begun())
    world.ends(Verb.APPLY)
    return world


def reporting_behind_a_question(new: type[World]) -> World:
    world = asks(new().begun())
    world.ends(Verb.APPLY)
    return world


# --- what comes of it ---------------------------------------------------------------------------------------------


def outcome(world: World, before: Job) -> str:
    """Return in a word what the core made of a refusal."""
    job = world.state.jobs.get(before.identity)
    if job is None:
        saved = [effect.record for effect in world.effects if isinstance(effect, do.Save)]
        unclaimed = "looks past it" if before.identity in world.state.foreign else "lets go"
        return ("late truth" if saved[-1].late else "delivered") if saved else unclaimed
    done = {type(effect) for effect in world.effects}
    sent = [effect.request for effect in world.effects if isinstance(effect, do.Send)]
    words = {
        "stops": do.Kill in done,
        "reboots": do.Reboot in done,
        "undoes": do.Run in done and job.phase is Phase.ROLLING_BACK,
        "begins": do.Run in done,
        "asks": isinstance(sent[-1], Describe) if sent else False,
        "sends less": isinstance(sent[-1], Update) and not sent[-1].details if sent else False,
        "sends": bool(sent),
        "is latched": job.record.ended is not None,
        "asks later": job.phase is Phase.REPORTING and Timer.LEARN in job.timers,
        "sends later": Timer.RETRY in job.timers,
        "goes on": True,
    }
    return next(word for word, true in words.items() if true)


STATES: dict[str, Callable[[Job], Stored | None]] = {
    "nothing": lambda _: None,
    "ours": lambda job: Stored(Status.IN_PROGRESS, 7, {"claim": job.record.claim}),
    "theirs": lambda _: Stored(Status.IN_PROGRESS, 7, {"claim": "somebody else's"}),
    "cancelled": lambda _: Stored(Status.CANCELED, 7, {}),
}
CODES = [code.value for code in Refusal]
#: What is left open for a while by the service: the codes that a retry may cure, and those that are defects of ours.
PASSING = "InvalidTopic InvalidJson InternalError RequestThrottled Unknown"
#: Those that tell of an execution which is over.
ENDING = "InvalidStateTransition TerminalStateReached"


def same(word: str) -> tuple[str, ...]:
    """Return the same outcome whatever is stored."""
    return (word,) * len(STATES)


def runs(over: str, *, question: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the rows of a phase in which a verb runs: `over` is what the end of the execution means there."""
    return {
        f"{PASSING} InvalidRequest": same("goes on"),
        ENDING: (over, "goes on", over, over),
        "ResourceNotFound": same(over),
        "VersionMismatch": same("goes on") if question else ("asks", "goes on", over, over),
    }


#: For each situation, for each code: what comes of it with nothing told of what is stored, with our claim stored at
#: another version, with somebody else's claim, and with CANCELED.
TABLE: dict[Callable[[type[World]], World], dict[str, tuple[str, ...]]] = {
    refusing: {
        PASSING: same("sends later"),
        "InvalidRequest": same("sends less"),
        f"{ENDING} ResourceNotFound VersionMismatch": same("lets go"),
    },
    claiming: {
        PASSING: same("sends later"),
        "InvalidRequest": same("sends less"),
        f"{ENDING} ResourceNotFound": ("lets go", "asks", "lets go", "lets go"),
        "VersionMismatch": ("asks", "asks", "lets go", "lets go"),
    },
    claiming_after_a_restart: {
        f"{PASSING} InvalidRequest": same("sends later"),
        f"{ENDING} ResourceNotFound": ("late truth", "asks", "lets go", "late truth"),
        "VersionMismatch": ("sends later", "asks", "lets go", "late truth"),
    },
    preparing: runs("stops"),
    preparing_and_asking: runs("stops", question=True),
    applying: runs("is latched"),
    applying_and_asking: runs("is latched", question=True),
    checking_after_a_power_cut: runs("is latched"),
    verifying: runs("stops"),
    waiting_to_commit: {
        # Any answer at all is the proof that `commit` waits for.
        f"{PASSING} InvalidRequest VersionMismatch": same("begins"),
        ENDING: ("undoes", "begins", "undoes", "undoes"),
        "ResourceNotFound": same("undoes"),
    },
    committing: runs("is latched"),
    rolling_back: runs("is latched"),
    rebooting: {
        f"{PASSING} InvalidRequest": same("reboots"),
        ENDING: ("undoes", "reboots", "undoes", "undoes"),
        "ResourceNotFound": same("undoes"),
        "VersionMismatch": ("asks", "reboots", "undoes", "undoes"),
    },
    reporting: {
        PASSING: same("sends later"),
        "InvalidRequest": same("sends less"),
        f"{ENDING} ResourceNotFound": ("late truth", "sends", "late truth", "late truth"),
        "VersionMismatch": ("asks later", "sends", "late truth", "late truth"),
    },
    reporting_behind_progress: {
        PASSING: same("sends later"),
        "InvalidRequest": same("sends"),
        f"{ENDING} ResourceNotFound": ("late truth", "sends", "late truth", "late truth"),
        "VersionMismatch": ("asks later", "sends", "late truth", "late truth"),
    },
    reporting_behind_a_question: {
        f"{PASSING} InvalidRequest": same("sends later"),
        f"{ENDING} ResourceNotFound": ("late truth", "sends", "late truth", "late truth"),
        "VersionMismatch": ("sends later", "sends", "late truth", "late truth"),
    },
}
CELLS = [
    pytest.param(situation, code, stored, expected, id=f"{situation.__name__}-{code}-{stored}")
    for situation, rows in TABLE.items()
    for codes, row in rows.items()
    for code in codes.split()
    for stored, expected in zip(STATES, row, strict=True)
]


def test_no_code_is_forgotten_in_any_situation() -> None:
    for situation, rows in TABLE.items():
        assert sorted(" ".join(rows).split()) == sorted(CODES), situation.__name__


def test_no_phase_is_forgotten_in_which_a_request_can_be_open(new_world: type[World]) -> None:
    open_in = {next(iter(situation(new_world).state.jobs.values())).phase for situation in TABLE}

    # Before the claim nothing is told to the service, and of what it ended nothing is either.
    assert set(Phase) - open_in == {Phase.OFFERED, Phase.DEFERRED, Phase.CANCELLING, Phase.DONE}


@pytest.mark.parametrize(("situation", "code", "stored", "expected"), CELLS)
def test_each_refusal_in_each_situation(
    new_world: type[World], situation: Callable[[type[World]], World], code: str, stored: str, expected: str
) -> None:
    world = situation(new_world)
    before = next(iter(world.state.jobs.values()))
    assert before.open is not None
    ran, token = world.verbs, before.open.token

    world.give(Refused(token, Refusal(code), "because", STATES[stored](before), code))

    assert outcome(world, before) == expected
    assert set(world.verbs[len(ran) :]) <= {Verb.COMMIT, Verb.ROLLBACK}, "a refusal never starts anything else"
    after = world.state.jobs.get(before.identity)
    if after is not None and after.open is not None:
        assert after.open.token != token
    if expected in ("goes on", "sends", "asks") and stored == "ours":
        assert after is not None
        assert after.record.version == 7, "the version that was told is the one to use"


# --- the second time, and what only a report can meet -------------------------------------------------------------


def refuse(world: World, code: Refusal, stored: Stored | None = None) -> Any:
    """Refuse the open request; return the last request that was sent because of it."""
    job = next(iter(world.state.jobs.values()))
    assert job.open is not None
    world.give(Refused(job.open.token, code, "because", stored, code.value))
    sent = [effect.request for effect in world.effects if isinstance(effect, do.Send)]
    return sent[-1] if sent else None


@pytest.mark.parametrize("code", [Refusal.INVALID_STATE_TRANSITION, Refusal.TERMINAL_STATE_REACHED])
def test_a_result_that_is_stored_already_with_our_mark_is_delivered(new_world: type[World], code: Refusal) -> None:
    world = reporting(new_world)
    job = next(iter(world.state.jobs.values()))

    refuse(world, code, Stored(Status.SUCCEEDED, 3, {"claim": job.record.claim}))

    assert (world.record.owed, world.record.late) == (False, "")


def test_a_result_that_is_stored_with_another_mark_is_late_truth(new_world: type[World]) -> None:
    world = reporting(new_world)

    refuse(world, Refusal.INVALID_STATE_TRANSITION, Stored(Status.SUCCEEDED, 3, {"claim": "somebody else's"}))

    assert world.record.late


def test_a_terminal_refusal_without_a_state_after_an_attempt_without_an_answer_is_called_unconfirmed(
    new_world: type[World],
) -> None:
    world = reporting(new_world)
    world.let(12)
    assert world.record.unanswered

    refuse(world, Refusal.TERMINAL_STATE_REACHED)

    assert world.record.late.startswith("unconfirmed: SUCCEEDED")


def test_a_result_that_is_refused_even_without_details_is_given_up_and_what_is_behind_it_runs(
    new_world: type[World],
) -> None:
    world = new_world().begun()
    world.queue("behind")
    refusals = iter([True, True])

    world.service.interpose(
        lambda request: Refuse("InvalidRequest") if request.suffix == "job/update" and next(refusals, False) else None
    )
    world.ends(Verb.APPLY)
    world.let(10)

    assert "refused the result SUCCEEDED as invalid" in world.record.late
    assert world.verb is Verb.APPLY
    assert world.service.execution("pump-7", "behind").status == "IN_PROGRESS"


@pytest.mark.parametrize("situation", [refusing, claiming])
def test_what_the_service_takes_nothing_about_is_looked_past(
    new_world: type[World], situation: Callable[[type[World]], World]
) -> None:
    world = situation(new_world)
    before = next(iter(world.state.jobs.values()))
    refuse(world, Refusal.INVALID_REQUEST)

    refuse(world, Refusal.INVALID_REQUEST)

    assert outcome(world, before) == "looks past it"


def test_a_job_behind_one_that_cannot_be_claimed_runs_without_a_storm_of_requests(new_world: type[World]) -> None:

    world = new_world()
    world.service.interpose(lambda request: Refuse("InvalidRequest") if request.suffix == "job/update" else None)
    world.service.create_job("job", {}, ["pump-7"])
    world.begun(job_id="behind")
    world.let(600)

    assert world.service.execution("pump-7", "behind").status == "IN_PROGRESS"
    assert len(world.sent()) == 2


@pytest.mark.parametrize("code", ["InvalidTopic", "InvalidJson", "InternalError", "RequestThrottled", "Novel"])
def test_what_is_refused_for_hours_is_tried_ever_less_often_and_with_fresh_tokens(
    new_world: type[World], code: str
) -> None:

    world = new_world().begun().offline()
    world.ends(Verb.APPLY)
    remove = world.service.interpose(lambda request: Refuse(code) if request.suffix == "job/update" else None)
    world.online().let(6 * 3600)
    reports = [request for request in world.sent("job/update") if (request.body or {})["status"] == "SUCCEEDED"]
    remove()
    world.let(600)

    tokens = [(request.body or {})["clientToken"] for request in reports]
    assert len(set(tokens)) == len(tokens)
    assert 40 < len(tokens) < 400
    assert world.status == "SUCCEEDED"


def test_a_version_that_is_never_told_is_asked_for_and_the_result_arrives(new_world: type[World]) -> None:

    world = new_world().begun().offline()
    world.ends(Verb.APPLY)
    world.service.ask("pump-7", "job/update", {"status": "IN_PROGRESS"})  # Somebody else's heartbeat.
    world.service.interpose(
        lambda request: Refuse("VersionMismatch") if (request.body or {}).get("expectedVersion") == 2 else None
    )

    world.online().let(30)

    assert world.status == "SUCCEEDED"


def test_details_that_are_refused_in_a_progress_report_are_tried_again_with_the_result(
    new_world: type[World],
) -> None:
    world = speaks(new_world().begun())
    refuse(world, Refusal.INVALID_REQUEST)
    world.ends(Verb.APPLY, 3, reason="the valve is stuck")

    report = [effect.request for effect in world.effects if isinstance(effect, do.Send)][-1]
    assert isinstance(report, Update)
    assert report.details["code"] == "handler.exit"
