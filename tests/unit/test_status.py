"""What the status says of the connection, and how people see it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thingjobs import status
from thingjobs.cli.paint import Paint
from thingjobs.cli.status import _print
from thingjobs.machine.state import Heard, Job, State, Stopping, Timer
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.policy import Settings

if TYPE_CHECKING:
    from thingjobs.model import Json

WHY = "broker:8883 does not answer within 6 s; is the port blocked?"
ALONE = State(Settings(agent="thingjobs/test"), nonce="n")


def told(state: State, lost: str) -> Json:
    """Return the status of an agent that lost its connection before, if it had one."""
    return status.of_agent(state, [], thing="pump-7", clock=100.0, lost=lost)


def shown(found: Json) -> list[str]:
    """Return what people see."""
    out = io.StringIO()
    _print(Paint(out), found)
    return out.getvalue().splitlines()


def test_why_there_is_no_connection_is_said_with_where_to_go_on() -> None:
    assert told(ALONE, WHY)["unconnected"] == WHY
    assert shown(told(ALONE, WHY))[:3] == [
        "thing pump-7: the agent runs, without a connection",
        f"  why   {WHY}",
        "        `thingjobs check` looks for what is wrong",
    ]


def test_an_old_reason_is_not_shown_beside_a_connection() -> None:
    found = told(replace(ALONE, connected_at=90.0), WHY)
    assert (found["connected"], found["unconnected"]) == (True, "")
    assert shown(found)[:2] == ["thing pump-7: the agent runs, connected for 10 s", "  now   nothing"]


def test_where_nobody_knows_why_the_log_is_named() -> None:
    silent = told(ALONE, "")
    for found in (silent, {name: value for name, value in silent.items() if name != "unconnected"}):
        assert shown(found)[0] == "thing pump-7: the agent runs, without a connection; its log says why"


def test_without_an_agent_there_is_nothing_to_explain() -> None:
    found = status.of_journal([], thing="pump-7")
    assert found["unconnected"] == ""
    assert shown(found)[0] == "thing pump-7: no agent runs"


def job(**more: Any) -> Job:
    """Return a job that waits for a gate."""
    identity = Identity(JobId("fw-7"), 1, 1_700_000_000)
    record = Record(identity, Phase.DEFERRED, "", 1, Plan("firmware", ()), {}, note="gate battery: 44 % left")
    return Job(record=record).with_(**more)


def with_job(found: Job) -> State:
    """Return the state of an agent that is busy with one job."""
    return replace(ALONE, connected_at=90.0, jobs={found.identity: found})


def test_what_waits_is_shown_with_what_it_waits_before_and_when_it_is_asked_again() -> None:
    found = told(with_job(job(gate="apply").at(Timer.DEFER, 160.0)), "")
    assert (found["jobs"][0]["before"], found["jobs"][0]["waits"]) == ("apply", "gate battery: 44 % left")
    line = "  now   fw-7#1  deferred (firmware)  waits before apply: gate battery: 44 % left, again in 1 min"
    assert shown(found)[1] == line
    del found["jobs"][0]["before"]  # An agent of an earlier version does not tell.
    assert shown(found)[1] == line.replace(" before apply", "")


def test_what_is_not_ours_is_shown_and_that_the_agent_is_ending() -> None:
    other = Identity(JobId("theirs"), 3, 1_700_000_000)
    found = told(replace(ALONE, connected_at=90.0, foreign=frozenset({other}), stopping=Stopping.WAIT), "")
    assert (found["foreign"], found["stopping"]) == ([{"jobId": "theirs", "executionNumber": 3}], True)
    assert shown(found)[0] == "thing pump-7: the agent is ending, connected for 10 s"
    assert "  other theirs#3: not this agent's, left alone" in shown(found)


def test_what_handlers_and_gates_say_is_shown_without_credentials() -> None:
    secret = "https://u:hunter2@bucket/fw.bin?X-Amz-Signature=c0ffee"
    result = Result(Status.FAILED, Code.HANDLER_EXIT, f"cannot fetch {secret}")
    done = job(note=f"see {secret}", result=result, details={"from": secret}, heard=Heard(message=secret))
    record = replace(done.record, phase=Phase.DONE, late=f"late {secret}")
    for found in (
        status.of_agent(with_job(done), [record], thing="pump-7", clock=100.0, lost=secret),
        status.of_journal([done.record, record], thing="pump-7"),
    ):
        told_of = json.dumps(found)
        assert "https://" in told_of
        assert not re.search("hunter2|c0ffee", told_of)
