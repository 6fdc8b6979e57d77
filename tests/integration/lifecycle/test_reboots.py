"""Reboots, power cuts and ends of the agent, with the real agent and real handlers: what goes on, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.lifecycle.conftest import Machine

VERBS = ["prepare", "apply", "verify", "commit", "rollback"]


@pytest.mark.parametrize(
    ("verb", "code", "expected"),
    [
        ("prepare", 194, ["prepare", "prepare rebooted", "apply", "verify", "commit"]),
        ("apply", 195, ["prepare", "apply", "verify rebooted", "commit"]),
        ("verify", 195, ["prepare", "apply", "verify", "verify rebooted", "commit"]),
        ("commit", 194, ["prepare", "apply", "verify", "commit", "verify rebooted", "commit"]),
        ("commit", 195, ["prepare", "apply", "verify", "commit"]),
    ],
)
def test_a_reboot_that_a_verb_asks_for_is_carried_out_by_the_agent_and_the_job_goes_on(
    machine: Machine, verb: str, code: int, expected: list[str]
) -> None:
    once = f'[ "$JOB_VERB" = {verb} ] && [ ! -e "$AT/once" ] && {{ touch "$AT/once"; exit {code}; }}; exit 0'
    machine.handler("job", once, verbs=VERBS)
    machine.reboots_for_real()
    machine.start()
    machine.queue("job", "job")

    machine.goes_down()

    assert machine.over("job").status == "SUCCEEDED"
    assert machine.ran == expected
    assert machine.asked == 1


def test_a_rollback_may_reboot_and_the_next_job_waits_for_that(machine: Machine) -> None:
    machine.handler("job", "case $JOB_VERB in apply) exit 1;; rollback) exit 195;; esac", verbs=["apply", "rollback"])
    machine.handler("next", "say next")
    machine.reboots_for_real()
    machine.start()
    machine.queue("job", "job")
    machine.queue("next", "next")

    machine.goes_down()

    assert machine.over("job").details["reason"].endswith("rolled back")
    assert machine.over("next").status == "SUCCEEDED"
    assert machine.ran == ["apply", "rollback", "apply", "next"]


def test_the_aws_reboot_document_succeeds_only_after_the_machine_rebooted(machine: Machine) -> None:
    machine.reboots_for_real()
    machine.start()
    action = {"name": "Reboot", "type": "runHandler", "input": {"handler": "reboot.sh", "path": ""}}
    machine.service.create_job("aws", {"version": "1.0", "steps": [{"action": action}]}, ["pump-7"])
    machine.eventually(lambda: machine.asked)
    assert machine.status("aws") == "IN_PROGRESS"

    machine.goes_down()

    assert machine.over("aws").status == "SUCCEEDED"


def test_a_machine_that_does_not_reboot_is_told_three_times_and_then_the_job_has_failed(machine: Machine) -> None:
    machine.handler("job", "exit 194")
    machine.start(REBOOT_WAIT=0.5)
    machine.queue("job", "job")

    found = machine.over("job")

    assert (found.status, found.details["code"]) == ("FAILED", "reboot.failed")
    assert (machine.asked, machine.ran) == (3, ["apply"])


def test_starting_the_agent_again_is_no_reboot_however_often(machine: Machine) -> None:
    machine.handler("job", '[ "$again" ] || exit 194')
    machine.start()
    machine.queue("job", "job")
    for times in (1, 2, 3):
        machine.eventually(lambda times=times: machine.asked == times)
        machine.agent.kill()
        machine.start()
    machine.eventually(lambda: machine.agent.status()["connected"])
    assert (machine.asked, machine.status("job"), machine.ran) == (3, "IN_PROGRESS", ["apply"])

    machine.power_cut()

    assert machine.over("job").status == "SUCCEEDED"
    assert machine.ran == ["apply", "apply rebooted"]


def test_commit_waits_for_the_service_and_for_a_verify_of_the_same_boot(machine: Machine) -> None:
    machine.handler("job", "[ $JOB_VERB = verify ] && hold verify; exit 0", verbs=VERBS)
    machine.start()
    machine.queue("job", "job")
    machine.at("verify")
    machine.broker.pause()
    machine.go("verify")
    machine.eventually(lambda: machine.phase("job") == "committing")
    assert machine.ran == ["prepare", "apply", "verify"]

    machine.power_cut()
    machine.eventually(lambda: machine.phase("job") == "committing")
    assert machine.ran == ["prepare", "apply", "verify", "verify"]
    machine.broker.resume()

    assert machine.over("job").status == "SUCCEEDED"
    assert machine.ran == ["prepare", "apply", "verify", "verify", "commit"]


@pytest.mark.parametrize(
    ("verbs", "more", "answer", "expected", "status"),
    [
        (["check", "apply", "verify"], {}, 10, ["check", "verify"], "SUCCEEDED"),
        (["check", "apply", "rollback"], {}, 0, ["check", "rollback"], "FAILED"),
        (["check", "apply"], {"apply_rerun": True}, 3, ["check", "apply"], "SUCCEEDED"),
        (["apply"], {"apply_rerun": True}, 0, ["apply"], "SUCCEEDED"),
        (["apply", "verify"], {}, 0, [], "FAILED"),
    ],
)
def test_after_a_power_cut_in_apply_the_handler_says_how_to_go_on(
    machine: Machine, verbs: list[str], more: dict[str, bool], answer: int, expected: list[str], status: str
) -> None:
    script = f"""
        case $JOB_VERB in
            check) [ -e "$AT/at-apply" ] && exit {answer};;
            apply) [ -e "$AT/at-apply" ] || hold apply;;
        esac
        exit 0
    """
    machine.handler("job", script, verbs=verbs, **more)
    machine.start()
    machine.queue("job", "job")
    machine.at("apply")
    before = len(machine.ran)

    machine.power_cut()

    found = machine.over("job")
    assert machine.ran[before:] == expected
    assert found.status == status
    assert found.details.get("code", "") == ("interrupted" if status == "FAILED" else "")


def test_after_a_power_cut_a_check_that_says_later_is_asked_again(machine: Machine) -> None:
    script = """
        case $JOB_VERB in
            apply) hold apply;;
            check) [ -e "$AT/at-apply" ] || exit 0; [ -e "$AT/later" ] && exit 10; touch "$AT/later"; exit 75;;
        esac
    """
    machine.handler("job", script, verbs=["check", "apply"])
    machine.start(defer=0.3)
    machine.queue("job", "job")
    machine.at("apply")

    machine.power_cut()

    assert machine.over("job").status == "SUCCEEDED"
    assert machine.ran == ["check", "apply", "check", "check"]


def test_the_agent_may_be_stopped_and_started_in_every_verb(machine: Machine) -> None:
    script = "[ $JOB_VERB = check ] && exit 0; hold $JOB_VERB; [ $JOB_VERB != commit ]"
    machine.handler("job", script, verbs=["check", *VERBS])
    machine.start()
    machine.queue("job", "job")
    for verb in VERBS:
        machine.at(verb)
        machine.restart()
        machine.go(verb)

    found = machine.over("job")

    assert (found.status, found.details["code"]) == ("FAILED", "commit.failed")
    assert machine.ran == ["check", *VERBS]
    history = [change.status for change in machine.service.execution("pump-7", "job").history]
    assert history.count("FAILED") == 1


def test_the_agent_may_be_stopped_and_started_while_it_checks_waits_or_owes(machine: Machine) -> None:
    script = """
        case $JOB_VERB in
            check) hold check;;
            apply) [ -e "$AT/waited" ] || { touch "$AT/waited"; exit 75; }; hold apply;;
        esac
    """
    machine.handler("job", script, verbs=["check", "apply"])
    machine.start(defer=0.5)
    machine.queue("job", "job")
    machine.at("check")
    machine.restart()
    machine.go("check")
    machine.eventually(lambda: "apply" in machine.ran)
    machine.restart()
    machine.at("apply")
    machine.broker.pause()
    machine.go("apply")
    machine.eventually(lambda: machine.phase("job") == "reporting")
    machine.agent.kill()
    machine.start()
    assert machine.agent.status()["owed"][0]["jobId"] == "job"
    machine.broker.resume()

    assert machine.over("job").status == "SUCCEEDED"
    assert machine.ran == ["check", "check", "apply", "apply"]
