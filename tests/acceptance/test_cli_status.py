"""`thingjobs status`: what it shows of an agent that runs, one that ended, and none."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.conftest import Cli, Local, Running

#: Says how far it is, and goes on until the file is there.
SLOW = """
echo '{"progress": 40, "message": "writing slot b"}' >> "$JOB_EVENTS"
while [ ! -e "$OUT/go" ]; do sleep 0.05; done
"""
TOP = {"thing", "running", "connected", "connectedSeconds", "unconnected", "jobs", "owed", "late", "last"}
TOP |= {"agent", "foreign", "queued", "stopping"}


@pytest.fixture
def busy(local: Local, eventually: Callable[..., Any]) -> Running:
    """An agent with one job done, one that runs, and one that is queued."""
    local.handler("slow", SLOW)
    local.job("a-mistake", {"handler": "slo"})
    local.job("b-slow", {"handler": "slow"})
    local.job("c-slow", {"handler": "slow"})
    agent = local.start("--once")
    eventually(lambda: any(job["message"] for job in local.status()["jobs"]) if local.state.exists() else False)
    return agent


def test_before_any_run_there_is_nothing_to_show(local: Local, cli: Cli) -> None:
    told = cli("status", *local.words)

    assert (told.code, told.out) == (3, "")
    assert told.err == (
        f"thingjobs: cannot show the status: there is no state folder {local.state}; no agent has run with it yet\n"
    )
    assert not local.state.exists()


def test_a_running_agent_is_asked_and_tells_progress_queue_and_outcomes(local: Local, cli: Cli, busy: Running) -> None:
    shown = cli("status", *local.words).out
    found = local.status()
    (local.out / "go").touch()
    assert busy.end().code == 1

    assert set(found) == TOP | {"executions"}
    assert (found["running"], found["connected"]) == (True, True)
    assert [job["jobId"] for job in found["queued"]] == ["c-slow"]
    assert [(job["jobId"], job["status"]) for job in found["last"]] == [("a-mistake", "REJECTED")]
    assert [(job["jobId"], job["phase"], job["progress"], job["message"]) for job in found["jobs"]] == [
        ("b-slow", "applying", 40, "writing slot b")
    ]
    assert [(it["jobId"], it["status"]) for it in found["executions"]] == [
        ("a-mistake", "REJECTED"),
        ("b-slow", "IN_PROGRESS"),
        ("c-slow", "QUEUED"),
    ]
    first, *lines = shown.splitlines()
    assert ": the agent runs, connected for " in first
    assert lines[0] == "  now   b-slow#1  applying (slow)  ██████░░░░░░░░░░ 40%  writing slot b"
    assert lines[1] == "  next  c-slow#1"
    assert lines[3].startswith("  last  ✗ a-mistake#1  REJECTED   20")
    said = "          handler.unknown: there is no handler slo on this device; there are: aws-steps, "
    assert lines[4].startswith(said)
    assert lines[4].endswith(", slow, upgrade-agent")


def test_after_a_run_every_execution_is_told_with_code_and_reason(local: Local, cli: Cli) -> None:
    local.handler("fails", "echo the disk is on fire >&2; exit 9")
    local.handler("works", "exit 0")
    local.job("one", {"handler": "fails"})
    local.job("two", {"handler": "works"})
    began = time.time()
    local.run()

    found = local.status()

    finished = [execution.pop("finishedAt") for execution in found["executions"]]
    assert found["executions"] == [
        {
            "jobId": "one",
            "executionNumber": 1,
            "status": "FAILED",
            "code": "handler.exit",
            "reason": "apply exited with status 9: the disk is on fire",
        },
        {"jobId": "two", "executionNumber": 1, "status": "SUCCEEDED", "code": None, "reason": ""},
    ]
    assert all(began - 1 <= at <= time.time() + 1 for at in finished)
    assert (found["running"], found["connected"], found["connectedSeconds"]) == (False, False, None)
    assert (found["jobs"], found["owed"], found["late"]) == ([], [], [])
    assert [job["jobId"] for job in found["last"]] == ["two", "one"]
    shown = cli("status", *local.words).out
    assert ": no agent runs\n  now   nothing\n  owed  nothing\n  last  ✓ two#1  SUCCEEDED  " in shown
    assert "handler.exit: apply exited with status 9: the disk is on fire\n" in shown


def test_watching_for_programs_prints_an_object_each_second_and_ctrl_c_is_its_good_end(
    local: Local, cli: Cli, eventually: Callable[..., Any]
) -> None:
    local.run()
    watching = cli.start("status", "--watch", "--json", *local.words)

    eventually(lambda: watching.told.count("\n") >= 2)
    watching.signal(signal.SIGINT)

    told = watching.end()
    assert told.code == 0
    assert all(set(json.loads(line)) >= TOP for line in told.out.splitlines())


def test_watching_on_a_terminal_begins_at_the_top_each_time(local: Local, cli: Cli) -> None:
    local.run()
    terminal = cli.on_terminal("status", "--watch", *local.words)

    terminal.until("nothing yet")
    terminal.press("\x03")

    assert terminal.end() == 0
    assert terminal.shown.startswith("\x1b[H\x1b[2J")
