"""Real connections of many agents, whose broker is killed and comes back.

THINGJOBS_FLEET_AGENTS says how many; `make fleet` has 500 of them. What is real of an agent is said in `crowd.py`.
"""

from __future__ import annotations

import os
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from tests.fleet.crowd import Crowd, histogram, most_at_once

from thingjobs import policy
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Mosquitto, Pki

AGENTS = int(os.environ.get("THINGJOBS_FLEET_AGENTS", "50"))
#: The broker stays away until each has failed to connect so often, which three times takes up to 14 s.
FAILURES = (0,) if AGENTS <= 100 else (0, 3)
#: CreateJob takes this many targets.
TARGETS = 100


@pytest.fixture
def service() -> JobsService:
    """The simulated Jobs service."""
    return JobsService()


@pytest.fixture
def cloud(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[BrokerJobsService]:
    """What serves it on the broker."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    made = BrokerJobsService(service, "localhost", mosquitto.port, tls=context)
    made._client.reconnect_delay_set(max_delay=1)
    with made:
        yield made


@pytest.fixture
def crowd(mosquitto: Mosquitto, pki: Pki, cloud: BrokerJobsService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    """Agents that are about to connect."""
    made = Crowd(AGENTS, mosquitto, pki, monkeypatch)
    made.start()
    yield made
    made.stop()


@pytest.mark.timeout(60 + AGENTS)
@pytest.mark.parametrize("failures", FAILURES)
def test_after_a_lost_broker_all_agents_come_back_spread_out_and_none_is_deaf(
    crowd: Crowd, cloud: BrokerJobsService, service: JobsService, mosquitto: Mosquitto, failures: int
) -> None:
    agents = crowd.agents
    crowd.run(lambda: all(agent.back for agent in agents), "all are connected")
    crowd.run(lambda: all(agent.state.look is None for agent in agents), "all know that nothing is pending")

    mosquitto.kill()
    gone = "each has lost its connection, and failed to connect"
    crowd.run(lambda: all(agent.back is None and agent.failures >= failures for agent in agents), gone)
    for agent in agents:
        del agent.begun[: len(agent.ended)], agent.ended[:]
    bounds = [policy.backoff(agent.failures + 2, 1.0) for agent in agents]
    mosquitto.start()
    began = time.monotonic()
    crowd.run(lambda: all(agent.back for agent in agents), "all are back", 30 + 2 * max(bounds))
    assert cloud._outcome.get(timeout=30) == "", "the simulated service is not back"
    back = [agent.back - began for agent in agents if agent.back]
    at_once = most_at_once(span for agent in agents for span in zip(agent.begun, agent.ended, strict=False))

    works = time.monotonic()
    names = [agent.name for agent in agents]
    for first in range(0, AGENTS, TARGETS):
        service.create_job(f"job-{first}", {"handler": "h"}, names[first : first + TARGETS])
    ends = [(name, f"job-{number // TARGETS * TARGETS}") for number, name in enumerate(names)]
    crowd.run(
        lambda: all(service.execution(name, job).status == "SUCCEEDED" for name, job in ends), "each has done its job"
    )
    worked = time.monotonic() - works
    print(
        f"{AGENTS} agents are back {max(back):.1f} s after the broker, at most {at_once} handshakes at once; then each "
        f"did a job, all within {worked:.1f} s\n{histogram([max(0.0, at) for at in back], max(back) / 20)}"
    )
    assert at_once <= AGENTS * 3 / 4, "they came at once"
    assert max(back) <= max(bounds) + 10
