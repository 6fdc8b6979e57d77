"""What the status says of the connection, and how people see it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs import status
from thingjobs.cli.paint import Paint
from thingjobs.cli.status import _print
from thingjobs.machine.state import State
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
