"""Ending the agent: what SIGTERM and SIGINT do to a job that runs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.conftest import Local

#: Says that it began, goes on until it is told to, and says how often it did.
PATIENT = 'echo began >> "$OUT/began"; while [ ! -e "$OUT/go" ]; do sleep 0.05; done; echo ended >> "$OUT/ended"'
EITHER = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture
def out(local: Local) -> Path:
    """A folder with two jobs that last until the file `go` is there; that folder is given."""
    local.handler("patient", PATIENT)
    for name in ("one", "two"):
        local.job(name, {"handler": "patient"})
    return local.out


def lines(path: Path) -> int:
    """Return how often the handler said so."""
    return len(path.read_text().splitlines()) if path.exists() else 0


@EITHER
def test_the_first_signal_waits_for_the_running_step_and_says_so(
    local: Local, out: Path, eventually: Callable[..., Any], number: signal.Signals
) -> None:
    agent = local.start("--once")
    eventually((out / "began").exists)

    agent.signal(number)
    eventually(lambda: "ending as soon as the running step of one is done" in agent.told)
    (out / "go").touch()

    told = agent.end()
    assert told.code == 1
    assert told.out.endswith("\n2 jobs: 1 QUEUED, 1 SUCCEEDED\n")
    assert (lines(out / "began"), lines(out / "ended")) == (1, 1)
    assert local.run().code == 0
    assert (lines(out / "began"), lines(out / "ended")) == (2, 2)


@EITHER
def test_the_second_signal_stops_the_running_job(
    local: Local, out: Path, eventually: Callable[..., Any], number: signal.Signals
) -> None:
    agent = local.start("--once")
    eventually((out / "began").exists)

    agent.signal(number)
    eventually(lambda: "ending as soon as" in agent.told)
    agent.signal(number)

    told = agent.end()
    assert told.code == 1
    assert "stopping one" in told.out
    assert "cancelled: " in told.out
    assert local.outcomes() == {"one": "FAILED", "two": "QUEUED"}
    assert lines(out / "ended") == 0


def test_as_a_service_it_leaves_the_step_to_the_next_agent_and_the_handler_runs_once(
    local: Local, out: Path, eventually: Callable[..., Any]
) -> None:
    (local.folder / "two.json").unlink()
    agent = local.start()
    eventually((out / "began").exists)

    agent.signal(signal.SIGTERM)

    told = agent.end()
    assert told.code == 0
    assert "ending; one goes on, and the next agent takes it up again" in told.out
    assert local.outcomes() == {"one": "IN_PROGRESS"}
    assert local.status()["jobs"][0]["phase"] == "applying"
    following = local.start("--once")
    eventually((local.state / "status.sock").exists)
    (out / "go").touch()
    assert following.end().code == 0
    assert (lines(out / "began"), lines(out / "ended")) == (1, 1)
    assert local.outcomes() == {"one": "SUCCEEDED"}


def test_what_ended_while_no_agent_was_there_is_reported_by_the_next_one(
    local: Local, out: Path, eventually: Callable[..., Any]
) -> None:
    (local.folder / "two.json").unlink()
    agent = local.start()
    eventually((out / "began").exists)
    agent.signal(signal.SIGTERM)
    agent.end()

    (out / "go").touch()
    eventually((out / "ended").exists)
    told = local.run()

    assert told.code == 0
    assert lines(out / "began") == 1
    assert local.outcomes() == {"one": "SUCCEEDED"}


def test_a_patient_agent_ends_and_reports_the_running_step_and_begins_no_other(
    local: Local, out: Path, eventually: Callable[..., Any]
) -> None:
    agent = local.start("--patient")
    eventually((out / "began").exists)

    agent.signal(signal.SIGTERM)
    eventually(lambda: "ending as soon as the running step of one is done" in agent.told)
    (out / "go").touch()

    assert agent.end().code == 0
    assert (lines(out / "began"), lines(out / "ended")) == (1, 1)
    assert local.outcomes() == {"one": "SUCCEEDED", "two": "QUEUED"}


def test_a_patient_agent_that_is_told_twice_stops_the_running_step(
    local: Local, out: Path, eventually: Callable[..., Any]
) -> None:
    agent = local.start("--patient")
    eventually((out / "began").exists)

    agent.signal(signal.SIGTERM)
    eventually(lambda: "ending as soon as" in agent.told)
    agent.signal(signal.SIGTERM)

    assert agent.end().code == 0
    assert local.outcomes() == {"one": "FAILED", "two": "QUEUED"}
    assert lines(out / "ended") == 0


def test_after_a_kill_nothing_is_run_twice_and_nothing_is_lost(
    local: Local, out: Path, eventually: Callable[..., Any]
) -> None:
    local.handler("quick", 'echo ran >> "$OUT/ran"')
    local.job("a-quick", {"handler": "quick"})
    (local.folder / "two.json").unlink()
    agent = local.start("--once")
    eventually((out / "began").exists)

    agent.signal(signal.SIGKILL)

    assert agent.end().code == -signal.SIGKILL
    (out / "go").touch()
    told = local.run()
    assert told.code == 0
    assert "1 job is done already and will not run again: a-quick" in told.out
    assert (lines(out / "ran"), lines(out / "began"), lines(out / "ended")) == (1, 1, 1)


@EITHER
def test_an_idle_agent_ends_at_once(local: Local, eventually: Callable[..., Any], number: signal.Signals) -> None:
    agent = local.start()
    eventually((local.state / "status.sock").exists)

    agent.signal(number)

    assert agent.end().code == 0
