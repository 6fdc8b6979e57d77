"""The agent dies, and what it had written last is damaged when the next one comes: nothing runs a second time."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from thingjobs import boot
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent
    from tests.integration.kills.conftest import Bench

THING = "pump-7"
ALL = os.environ.get("THINGJOBS_KILLS") == "all"


def cut(path: Path) -> None:
    """Lose the last byte of a file."""
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip] if ALL else [flip])
def test_when_the_last_generation_is_damaged_apply_runs_once_at_most_and_is_undone(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    points = [point for point in bench.rehearsed("whole")[0].points if point.startswith("after Save ")]

    bench.killed("whole", [(point,) for point in points if "claiming" not in point and "done" not in point], damage)

    for status, code, happened in bench.outcomes():
        assert (status, code) == ("FAILED", "interrupted")
        assert happened.count("apply begins") <= 1
        assert happened[-2:] == ["rollback begins", "rollback ends"]


@pytest.mark.parametrize(("point", "damage"), [("after Save claiming.1", flip), ("before put away.1", cut)])
def test_a_damaged_generation_before_or_after_all_steps_costs_nothing(
    bench: Bench, point: str, damage: Callable[[Path], None]
) -> None:
    bench.killed("whole", [(point,)], damage)

    ((status, _, happened),) = bench.outcomes()
    assert status == "SUCCEEDED"
    assert happened[-8:] == [
        f"{verb} {what}" for verb in ("prepare", "apply", "verify", "commit") for what in ("begins", "ends")
    ]


def test_an_apply_that_runs_and_of_which_the_journal_lost_the_trace_is_ended_before_it_is_called_interrupted(
    mosquitto: Mosquitto,
    pki: Pki,
    new_agent: Callable[..., Agent],
    eventually: Callable[..., object],
) -> None:
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    began = agent.folder / "began"
    handler = agent.folder / "handlers" / "endless"
    handler.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 1000\n")
    handler.chmod(0o755)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        agent.start()
        service.create_job("endless", {"handler": "endless"}, [THING])
        eventually(began.exists)
        agent.kill()
        (path,) = (agent.state / "journal").glob("*.json")
        flip(path)

        agent.start()
        eventually(lambda: not service.execution(THING, "endless").pending)

        # At once: whoever is told so may send the job again.
        assert running_in(agent.state) == []
        assert service.execution(THING, "endless").details["code"] == "interrupted"
        assert agent.stop() == 0


def running_in(state: Path) -> list[bytes]:
    """Return the command lines of processes that have a job's folder in their environment."""
    mark = b"JOB_DIR=" + os.fsencode(state)
    return [
        b" ".join(boot.command(pid))
        for pid in boot.processes()
        if any(said.startswith(mark) for said in boot.environment(pid))
    ]
