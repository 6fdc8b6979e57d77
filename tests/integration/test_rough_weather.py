"""Five hundred jobs in rough weather: none lost, none twice, none out of turn.

The real agent and Mosquitto with mutual TLS, and between them a proxy (weather.py) that drops, delays, doubles,
reorders and replays what they publish, resets connections and lets them hang; Mosquitto is killed and paused, the
agent is killed. Then it is calm, and everything must have come right by itself.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import statusbox
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"
JOBS = 500
PORTION = 25
#: What befalls them beside the weather, once after each of the first portions, in an order of the seed's.
BLOWS = ("kill the broker", "pause the broker", "kill the agent") * 3
PAUSE_SECONDS = 1.5
#: Probability for one PUBLISH; an undisturbed job takes five.
STORM = {
    "drop": 0.005,
    "swallow": 0.005,
    "delay": 0.02,
    "reorder": 0.03,
    "duplicate": 0.05,
    "replay": 0.05,
    "cut": 0.005,
    "stall": 0.001,
}
#: Less than this would be no weather: several times less than is to be expected.
AT_LEAST = {
    "drop": 5,
    "swallow": 5,
    "delay": 15,
    "reorder": 10,
    "duplicate": 40,
    "replay": 40,
    "cut": 4,
    "connections": 20,
}
#: Seconds for what is a matter of milliseconds without weather.
PATIENCE_SECONDS = 60
GROWN_KIB = 2048
#: The agent of service, but for its patience: what takes it half a minute there takes half a second here.
HURRIED = """
import functools, sys
from thingjobs import policy
policy.REPLY_TIMEOUT = policy.EXPECT_NEXT_WITHIN = 0.25
policy.LOOK_EVERY = 3.0
policy.FRESH_BOOT = 0.0
policy.backoff.__kwdefaults__.update(first=0.03, cap=0.3)
from thingjobs.transport import dial, patience
dial.Link = functools.partial(dial.Link, patience=1.5)
patience.LIMITS = patience.Limits(cap=0.3, rival_cap=0.3, hold_first=0.3, hold_cap=0.3)
from thingjobs.cli import main
sys.exit(main())
"""


class Proxy:
    """weather.py as a process.

    Attributes:
        port: where the agent connects.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process
        self._line()

    def weather(self, rates: dict[str, float]) -> dict[str, int]:
        """Change the weather; return how often what happened so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(rates).encode() + b"\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._line())
        return counts

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], 20)[0], "the proxy does not answer"
        return self._process.stdout.readline()


@contextmanager
def between(port: int, broker: int, pki: Pki, pair: tuple[Path, Path], seed: int, log: Path) -> Iterator[Proxy]:
    """Run the proxy on `port`, in front of a broker."""
    where = (port, broker, pki.ca, pki.server_cert, pki.server_key, *pair, seed)
    argv = [sys.executable, str(Path(__file__).with_name("weather.py")), *map(str, where)]
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    try:
        yield Proxy(process, port)
    finally:
        process.kill()
        process.communicate()
        print(f"--- {log}\n{log.read_text()}")


class Scene:
    """The agent in the weather, and what is known of it on both sides."""

    def __init__(
        self, service: JobsService, mosquitto: Mosquitto, agent: Agent, proxy: Proxy, eventually: Callable[..., Any]
    ) -> None:
        self.service = service
        self.mosquitto = mosquitto
        self.agent = agent
        self.proxy = proxy
        self.ran = agent.folder / "ran"
        self._eventually = eventually
        handler = agent.folder / "handlers" / "note"
        # One write of one short line to a file that is only appended to: whatever ran is in it, in order.
        note = f'basename "$(dirname "$JOB_DIR")" >>{self.ran}'
        handler.write_text(f"#!/bin/sh\n{note}\ncase $JOB_DIR in *-slow.*) sleep 0.15;; esac\n")
        handler.chmod(0o755)

    def start_agent(self) -> None:
        agent = self.agent
        argv = [sys.executable, "-c", HURRIED, "run", "--verbose", "--config", str(agent.config)]
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait(lambda: agent.state.exists() and statusbox.ask(agent.state))

    def wait(self, true: Callable[[], Any]) -> None:
        self._eventually(true, PATIENCE_SECONDS)

    def wait_for(self, name: str) -> None:
        """Wait until the service has the end of a job."""
        self.wait(lambda: not self.service.execution(THING, name).pending)

    def wait_until_idle(self) -> None:
        """Wait until the agent has put everything away."""
        self.wait(lambda: not any((self.agent.state / "jobs").iterdir()))

    def queue(self, names: list[str]) -> None:
        for name in names:
            self.service.create_job(name, {"handler": "note"}, [THING])

    def started(self) -> list[str]:
        """The jobs whose handler ran, in order."""
        return [line.split(".")[0] for line in self.ran.read_text().split()]

    def strike(self, blow: str, portion: list[str], dice: random.Random) -> None:
        """Do the agent or the broker harm, and let them come back."""
        match blow:
            case "kill the broker":
                self.mosquitto.kill()
                self.mosquitto.start()
            case "pause the broker":
                self.mosquitto.pause()
                # The pause is the harm: there is nothing to wait for.
                select.select([], [], [], dice.uniform(0.5, PAUSE_SECONDS))
                self.mosquitto.resume()
            case "kill the agent":  # while the handler of the first job runs
                self.wait(lambda: portion[0] in self.started())
                self.agent.kill()
                self.start_agent()

    def size(self) -> dict[str, int]:
        """What the agent holds of the system."""
        proc = Path(f"/proc/{self.agent.pid}")
        memory = next(line for line in (proc / "smaps_rollup").read_text().splitlines() if line.startswith("Pss_Anon"))
        return {
            "files": len(list((proc / "fd").iterdir())),
            "threads": len(list((proc / "task").iterdir())),
            "KiB": int(memory.split()[1]),
        }


@pytest.fixture
def seed() -> int:
    """The seed of the weather; given again in the environment, it rains the same, though not at the same moments."""
    chosen = int(os.environ.get("THINGJOBS_WEATHER_SEED", random.SystemRandom().getrandbits(32)))
    print(f"THINGJOBS_WEATHER_SEED={chosen}")
    return chosen


@pytest.fixture
def scene(
    mosquitto: Mosquitto,
    pki: Pki,
    new_agent: Callable[..., Agent],
    eventually: Callable[..., Any],
    free_port: Callable[[], int],
    seed: int,
    tmp_path: Path,
) -> Iterator[Scene]:
    """An agent behind the proxy, in calm weather."""
    service = JobsService()
    pair = pki.device(THING)
    cloud = BrokerJobsService(service, "localhost", mosquitto.port, tls=pki.client_tls())
    cloud._client.reconnect_delay_set(max_delay=1)
    with cloud, between(free_port(), mosquitto.port, pki, pair, seed, tmp_path / "weather.log") as proxy:
        agent = new_agent(THING, port=proxy.port, pair=pair, ca=pki.ca)
        made = Scene(service, mosquitto, agent, proxy, eventually)
        made.start_agent()
        yield made
        assert agent.stop() == 0


def test_of_500_jobs_in_rough_weather_none_is_lost_none_runs_twice_and_none_out_of_turn(
    scene: Scene, seed: int
) -> None:
    dice = random.Random(seed)
    names = [f"job-{number:03}{'' if number % PORTION else '-slow'}" for number in range(JOBS)]
    portions = [names[at : at + PORTION] for at in range(0, JOBS, PORTION)]
    # The first portion, before the storm, shows what the agent holds of the system when all is well.
    scene.queue(portions[0])
    scene.wait_for(portions[0][-1])
    scene.wait_until_idle()
    before = scene.size()

    blows = iter(dice.sample(BLOWS, len(BLOWS)))
    scene.proxy.weather(STORM)
    for portion in portions[1:]:
        scene.queue(portion)
        scene.strike(next(blows, ""), portion, dice)
        scene.wait_for(portion[PORTION // 2])
    scene.wait_for(names[-1])
    counts = scene.proxy.weather({})
    scene.wait_until_idle()
    print(counts)

    assert_each_ran_once_in_turn(scene, names)
    assert not [name for name, least in AT_LEAST.items() if counts.get(name, 0) < least], counts
    assert scene.size()["KiB"] <= before["KiB"] + GROWN_KIB
    scene.wait(lambda: scene.size()["files"] <= before["files"])
    scene.wait(lambda: scene.size()["threads"] <= before["threads"])
    assert not (scene.agent.state / "quarantine").exists()
    assert "Traceback" not in scene.agent.log_text()


def assert_each_ran_once_in_turn(scene: Scene, names: list[str]) -> None:
    """The handler's own list and the service's agree on that."""
    assert scene.started() == names
    views = scene.service.executions(THING)
    assert [view.job_id for view in views] == names
    for view in views:
        assert [change.status for change in view.history if change.status != "IN_PROGRESS"] == ["QUEUED", "SUCCEEDED"]
