"""Timers of the service, gaps in the connection, and reports that are owed: the real agent over a real broker.

Minutes are the service's smallest unit, so its clock is moved on by the test, and the agent's own waits are shortened.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from thingjobs.testing import Lost, Refuse

if TYPE_CHECKING:
    from tests.integration.lifecycle.conftest import Machine

    from thingjobs.testing import Request

HOLDS = "trap 'say ended; exit 143' TERM; hold $JOB_VERB; say done"


# --- the step timer -----------------------------------------------------------------------------------------------


def test_the_step_timer_of_a_silent_handler_is_renewed_over_and_over_and_across_restarts(machine: Machine) -> None:
    machine.handler("job", HOLDS)
    machine.start(renew_after=0.2)
    machine.queue("job", "job")
    machine.at("apply")
    for number in range(5):
        renewals = len(machine.updates("job"))
        machine.service.ahead += 1000 * 60  # Of 1440 minutes; renewed, it starts anew.
        if number == 3:
            machine.restart()
        machine.eventually(lambda renewals=renewals: len(machine.updates("job")) > renewals + 1)
    machine.go()

    assert machine.over("job").status == "SUCCEEDED"
    assert all(body["stepTimeoutInMinutes"] == 1440 for body in machine.updates("job")[:-1])


def test_a_handler_that_stalls_is_ended_and_not_kept_alive(machine: Machine) -> None:
    machine.handler("job", "trap 'say told' TERM; while [ ! -e \"$AT/go\" ]; do sleep 0.1; done", stall=1)
    machine.start(renew_after=0.2)
    machine.queue("job", "job")
    machine.eventually(lambda: "told" in machine.ran)
    assert len(machine.updates("job")) > 2, "it was renewed before"

    assert not renewed_in(machine, 1.0)
    machine.go()
    assert machine.over("job").details["code"] == "handler.stalled"


def renewed_in(machine: Machine, seconds: float) -> bool:
    """Return whether an update came within that time; waiting for nothing has no event."""
    before = len(machine.updates("job"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(machine.updates("job")) > before:
            return True
        time.sleep(0.02)
    return False


# --- the job's in-progress timer ----------------------------------------------------------------------------------


def test_the_jobs_timer_stops_prepare_on_a_device_that_is_cut_off(machine: Machine) -> None:
    machine.handler("job", HOLDS, verbs=["prepare", "apply"])

    def nearly_over(request: Request) -> None:
        if request.suffix == "job/get":  # Asked for what is left, the service says 3 seconds.
            machine.service.ahead = 57

    machine.service.interpose(nearly_over)
    machine.start(LEARN_AFTER=0.3)
    machine.queue("job", "job", in_progress_timeout_minutes=1)
    machine.at("prepare")
    machine.eventually(lambda: machine.heard("jobs/job/get/accepted"))
    machine.broker.pause()

    machine.eventually(lambda: "ended" in machine.ran)
    machine.broker.resume()

    assert machine.over("job").status in ("FAILED", "TIMED_OUT")
    assert machine.ran == ["prepare", "ended"]


# --- TIMED_OUT ----------------------------------------------------------------------------------------------------


def test_a_time_out_stops_prepare(machine: Machine) -> None:
    machine.handler("job", HOLDS, verbs=["prepare", "apply"])
    machine.start()
    machine.queue("job", "job", in_progress_timeout_minutes=5)
    machine.at("prepare")

    machine.service.ahead += 301

    assert "nothing was changed" in machine.late("job")
    assert machine.ran == ["prepare", "ended"]


def test_a_time_out_lets_apply_end_and_the_retry_comes_after_it_and_asks_check_first(machine: Machine) -> None:
    script = """
        case $JOB_VERB in
            check) [ -e "$AT/at-apply" ] && exit 10;;
            apply) hold apply;;
        esac
        exit 0
    """
    machine.handler("job", script, verbs=["check", "apply", "verify", "commit", "rollback"])
    machine.start(LEARN_AFTER=0.3)
    machine.queue("job", "job", in_progress_timeout_minutes=1, retries={"TIMED_OUT": 1})
    machine.at("apply")
    machine.eventually(lambda: [request for request in machine.service.requests if request.suffix == "job/get"])
    machine.service.ahead += 61
    machine.eventually(lambda: "the service ended this execution: TIMED_OUT" in machine.agent.log_text())
    before = len(machine.updates("job"))
    assert machine.status("job", 2) == "QUEUED"

    machine.go("apply")

    assert machine.over("job").number == 2
    assert machine.status("job", 2) == "SUCCEEDED"
    assert machine.ran == ["check", "apply", "verify", "commit", "check"]
    late = machine.late("job")
    assert "TIMED_OUT" in late
    assert "SUCCEEDED" in late
    assert {body["executionNumber"] for body in machine.updates("job")[before:]} == {2}


# --- offline, and what is owed ------------------------------------------------------------------------------------


def test_a_job_that_ends_while_the_service_is_away_is_reported_when_it_is_back(machine: Machine) -> None:
    machine.handler("job", HOLDS)
    machine.start(REPLY_TIMEOUT=0.3)
    machine.queue("job", "job")
    machine.at("apply")
    machine.broker.pause()
    machine.go()
    machine.eventually(lambda: machine.agent.status()["owed"] and not machine.agent.status()["connected"])
    machine.broker.resume()

    assert machine.over("job").status == "SUCCEEDED"
    machine.eventually(lambda: not machine.agent.status()["owed"])
    assert machine.agent.status()["late"] == []
    assert machine.ran == ["apply", "done"]


def test_a_report_is_sent_again_with_fresh_tokens_until_the_service_takes_it(machine: Machine) -> None:
    faults: list[Any] = [Refuse("RequestThrottled"), Refuse("InternalError"), Refuse("Novel"), Lost.REQUEST]
    reports = refused_by(machine, faults)

    assert machine.over("job").status == "SUCCEEDED"
    assert len(reports) == 5
    assert len({body["clientToken"] for body in reports}) == 5
    assert {body["expectedVersion"] for body in reports} == {2}
    machine.eventually(lambda: not machine.agent.status()["owed"])
    assert machine.agent.status()["late"] == []


def test_a_report_that_was_taken_although_its_reply_was_lost_is_recognised(machine: Machine) -> None:
    reports = refused_by(machine, [Lost.REPLY])
    machine.over("job")

    machine.eventually(lambda: not machine.agent.status()["owed"])
    assert machine.agent.status()["late"] == []
    assert len(reports) == 2
    assert [change.status for change in machine.service.execution("pump-7", "job").history].count("SUCCEEDED") == 1


def test_a_report_that_meets_another_version_takes_it_over(machine: Machine) -> None:
    machine.handler("job", HOLDS)
    machine.start()
    machine.queue("job", "job")
    machine.at("apply")
    claim = machine.updates("job")[0]
    machine.service.ask("pump-7", "job/update", {"status": "IN_PROGRESS", "statusDetails": claim["statusDetails"]})
    machine.go()

    assert machine.over("job").status == "SUCCEEDED"
    assert [body["expectedVersion"] for body in machine.updates("job") if body["status"] == "SUCCEEDED"] == [2, 3]


def test_details_that_the_service_refuses_cost_the_details_and_not_the_result(machine: Machine) -> None:
    reports = refused_by(machine, [Refuse("InvalidRequest")])

    assert machine.over("job").status == "SUCCEEDED"
    assert ["statusDetails" in body for body in reports] == [True, False]


def test_what_is_owed_survives_the_agent_and_is_told_before_anything_new_begins(machine: Machine) -> None:
    machine.handler("next", "say next")
    reports = refused_by(machine, [Refuse("RequestThrottled")] * 1000)
    machine.queue("next", "next")
    machine.eventually(lambda: len(reports) > 1)
    machine.agent.kill()
    sofar = len(reports)
    machine.start()
    machine.eventually(lambda: len(reports) > sofar)
    assert machine.status("next") == "QUEUED"
    stop_refusing(machine)

    assert machine.over("next").status == "SUCCEEDED"
    assert machine.status("job") == "SUCCEEDED"
    assert machine.ran == ["apply", "done", "apply", "next"]
    assert len({body["clientToken"] for body in reports}) == len(reports)


def refused_by(machine: Machine, faults: list[Any]) -> list[Any]:
    """Run a job whose reports meet these faults one by one; return the list that its reports are put into."""
    left, reports = iter(faults), list[Any]()

    def harm(request: Request) -> Any:
        if request.suffix != "job/update" or (request.body or {}).get("status") != "SUCCEEDED":
            return None
        reports.append(request.body)
        return None if getattr(machine, "kind", False) else next(left, None)

    machine.service.interpose(harm)
    machine.handler("job", HOLDS)
    machine.start(REPLY_TIMEOUT=0.5)
    machine.queue("job", "job")
    machine.go()
    return reports


def stop_refusing(machine: Machine) -> None:
    """Let the service take everything from now on."""
    machine.kind = True  # type: ignore[attr-defined]
