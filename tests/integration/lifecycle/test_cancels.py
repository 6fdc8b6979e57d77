"""Cancels in all their forms against the real agent: what is stopped, what is undone, and that nothing more is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ministack
    from tests.integration.conftest import Agent
    from tests.integration.lifecycle.conftest import Machine

THING = "pump-7"
VERBS = ["prepare", "apply", "verify", "commit", "rollback"]
#: Each verb but the rollback holds until it is told to go on, and says so when it is told to end.
HOLDS = "[ $JOB_VERB = rollback ] && exit 0; trap 'say ended; exit 143' TERM; hold $JOB_VERB; say done"


def cancelled(machine: Machine) -> None:
    machine.service.cancel_job("job", force=True)


def execution_cancelled(machine: Machine) -> None:
    machine.service.cancel_execution(THING, "job", force=True)


def job_deleted(machine: Machine) -> None:
    machine.service.delete_job("job", force=True)


def execution_deleted(machine: Machine) -> None:
    machine.service.delete_execution(THING, "job", 1, force=True)


def thing_removed(machine: Machine) -> None:
    machine.service.remove_thing(THING)


def prepared(machine: Machine, *held: str, **policy: float) -> None:
    """Start the agent with two handlers, and queue a job that holds at the last of `held`."""
    machine.handler("job", HOLDS, verbs=VERBS)
    machine.handler("next", "say next")
    machine.start(**policy)
    machine.queue("job", "job")
    for verb in held[:-1]:
        machine.go(verb)
    machine.at(held[-1])


def sent_since(machine: Machine, before: int) -> list[Any]:
    """Return the statuses that were sent for the job since it had got `before` updates."""
    return [body["status"] for body in machine.updates("job")[before:]]


@pytest.mark.parametrize("end", [cancelled, job_deleted, thing_removed], ids=lambda form: form.__name__)
def test_before_apply_what_runs_is_stopped_and_the_next_job_begins_after_it(
    machine: Machine, end: Callable[[Machine], None]
) -> None:
    prepared(machine, "prepare")
    before = len(machine.updates("job"))

    end(machine)
    machine.queue("next", "next")

    assert machine.over("next").status == "SUCCEEDED"
    assert machine.ran == ["prepare", "ended", "apply", "next"]
    assert "nothing was changed" in machine.late("job")
    assert sent_since(machine, before) == []


@pytest.mark.parametrize("end", [execution_cancelled, execution_deleted, thing_removed], ids=lambda form: form.__name__)
def test_during_apply_it_is_waited_for_and_undone_and_the_next_job_never_runs_beside_it(
    machine: Machine, end: Callable[[Machine], None]
) -> None:
    prepared(machine, "prepare", "apply")
    before = len(machine.updates("job"))

    end(machine)
    machine.queue("next", "next")
    machine.eventually(lambda: "the service ended this execution" in machine.agent.log_text())
    assert machine.status("next") == "QUEUED"
    machine.go("apply")

    assert machine.over("next").status == "SUCCEEDED"
    assert machine.ran == ["prepare", "done", "apply", "done", "rollback", "apply", "next"]
    assert "rolled back" in machine.late("job")
    assert sent_since(machine, before) == []


def test_a_cancel_that_nobody_tells_of_is_noticed_by_the_next_progress_report(machine: Machine) -> None:
    machine.handler("job", 'hold apply & while :; do echo \'{"progress": 1}\' >>"$JOB_EVENTS"; sleep 0.1; done')
    machine.start(FIRST_PROGRESS_AFTER=0.2)
    machine.queue("job", "job")
    machine.at("apply")
    machine.service.quiet = True
    machine.service.cancel_job("job", force=True)

    machine.eventually(lambda: "the service ended this execution: CANCELED" in machine.agent.log_text())
    before = len(machine.updates("job"))
    machine.restart()
    machine.eventually(lambda: machine.agent.status()["connected"])

    assert sent_since(machine, before) == []
    machine.power_cut()
    assert "what was applied stays" in machine.late("job")


def test_a_cancel_that_nobody_tells_of_is_noticed_by_the_heartbeat_of_a_silent_job(machine: Machine) -> None:
    prepared(machine, "prepare", renew_after=0.3)
    machine.service.quiet = True

    machine.service.cancel_job("job", force=True)

    assert "nothing was changed" in machine.late("job")
    assert machine.ran == ["prepare", "ended"]


def test_a_cancel_while_the_device_was_away_is_noticed_when_it_is_back(machine: Machine) -> None:
    prepared(machine, "prepare")
    machine.broker.pause()
    machine.service.quiet = True
    machine.service.cancel_job("job", force=True)
    machine.restart()
    machine.broker.resume()

    assert "nothing was changed" in machine.late("job")
    assert machine.ran == ["prepare", "ended"]


def test_what_is_queued_is_dropped_without_a_word(machine: Machine) -> None:
    machine.handler("wait", "hold check", verbs=["check", "apply"])
    machine.handler("next", "say next")
    machine.start()
    machine.queue("job", "wait")
    machine.at("check")

    machine.service.cancel_job("job")
    machine.queue("next", "next")
    machine.go("check")

    assert machine.over("next").status == "SUCCEEDED"
    assert machine.ran == ["check", "apply", "next"]
    assert machine.status("job") == "CANCELED"
    assert machine.agent.status()["late"] == []


def test_an_apply_that_may_be_stopped_is_stopped_and_undone(machine: Machine) -> None:
    machine.handler("job", HOLDS, verbs=["apply", "rollback"], cancel_apply=True)
    machine.start()
    machine.queue("job", "job")
    machine.at("apply")

    machine.service.cancel_job("job", force=True)

    assert "rolled back" in machine.late("job")
    assert machine.ran == ["apply", "ended", "rollback"]


def test_once_commit_began_it_is_too_late_and_the_status_shows_both_truths(machine: Machine) -> None:
    prepared(machine, "prepare", "apply", "verify", "commit")
    before = len(machine.updates("job"))

    machine.service.cancel_job("job", force=True)
    machine.eventually(lambda: "the service ended this execution" in machine.agent.log_text())
    machine.go("commit")

    machine.late("job")
    shown = subprocess.run(
        [sys.executable, "-m", "thingjobs", "status", "--config", str(machine.agent.config)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    late = next(line for line in shown.splitlines() if line.split()[0] == "late")
    assert "job#1" in late
    assert "CANCELED" in late
    assert "SUCCEEDED" in late
    assert machine.ran[-2:] == ["commit", "done"]
    assert sent_since(machine, before) == []


@pytest.mark.parametrize("held", [("prepare",), ("prepare", "apply")])
def test_a_cancel_that_was_heard_of_survives_the_agent(machine: Machine, held: tuple[str, ...]) -> None:
    prepared(machine, *held)
    machine.service.cancel_job("job", force=True)
    machine.eventually(lambda: "the service ended this execution" in machine.agent.log_text())
    machine.agent.status()  # It answers when it has carried out what followed from that.
    before = len(machine.updates("job"))

    machine.agent.kill()
    machine.start()
    machine.go("apply")

    assert "nothing was changed" in machine.late("job") or machine.ran[-1] == "rollback"
    assert sent_since(machine, before) == []


# --- ministack judges ---------------------------------------------------------------------------------------------


def test_the_independent_service_cancels_what_is_applied_and_gets_nothing_more(
    ministack: Ministack, new_agent: Callable[..., Agent], eventually: Callable[..., Any]
) -> None:
    thing = f"pump-{uuid.uuid4().hex[:8]}"
    agent = new_agent(thing, port=ministack.mqtt_port, pair=ministack.new_thing(thing), ca=ministack.ca_path)
    folder = agent.folder / "handlers" / "job"
    folder.mkdir(mode=0o755)
    (folder / "manifest.json").write_text(
        json.dumps({"contract": 1, "verbs": ["apply", "rollback"], "exec": "run.sh", "cancel_apply": True})
    )
    run = f'#!/bin/sh\necho $JOB_VERB >>{agent.folder}/ran\n[ "$JOB_VERB" = rollback ] || exec sleep 60\n'
    (folder / "run.sh").write_text(run)
    (folder / "run.sh").chmod(0o755)
    agent.start()
    iot = ministack.boto("iot")
    arn, job_id = iot.describe_thing(thingName=thing)["thingArn"], f"job-{uuid.uuid4().hex[:12]}"

    def version() -> int:
        found = iot.describe_job_execution(jobId=job_id, thingName=thing)["execution"]
        return int(found["versionNumber"])

    iot.create_job(jobId=job_id, targets=[arn], document=json.dumps({"handler": "job"}))
    eventually((agent.folder / "ran").exists)
    iot.cancel_job_execution(jobId=job_id, thingName=thing, force=True)
    cancelled_at = version()
    late = eventually(lambda: agent.status()["late"])

    assert "rolled back" in late[0]["late"]
    assert (agent.folder / "ran").read_text().split() == ["apply", "rollback"]
    found = iot.describe_job_execution(jobId=job_id, thingName=thing)["execution"]
    assert (found["status"], version()) == ("CANCELED", cancelled_at)
    assert agent.stop() == 0
