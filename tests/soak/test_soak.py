"""Thousands of jobs and hundreds of lost connections on one agent: nothing that it holds of the system may grow.

`make soak` runs 10,000 jobs and 1,000 reconnects, and prints a table. The same test is part of `make test` with a few
hundred jobs; what the agent keeps of finished jobs is then bounded tighter, so that those bounds are reached as well.
THINGJOBS_SOAK_JOBS says how many jobs.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Mosquitto
    from tests.soak.conftest import Agent, Relay

    from thingjobs.testing import JobsService

    Wait = Callable[[Callable[[], Any], str], None]

THING = "pump-7"
JOBS = int(os.environ.get("THINGJOBS_SOAK_JOBS", "300"))
#: Queued together; the connection is lost somewhere between the first and the last of them.
PORTION = 10
#: One connection in so many is lost because the broker is killed.
BROKER_LOST = 100
#: Jobs until then do not count: the agent imports what it has not needed before, and fills what it keeps of them.
WARM_UP = max(80, JOBS // 10)
#: A quarter of an hour for 10,000 is several times what it takes.
LIMIT_SECONDS = 90 + JOBS * 0.09
#: What the agent keeps of finished jobs is bounded by the hundred; a short run does not get there.
SHARE = min(1.0, JOBS / 4000)


@pytest.fixture
def share() -> float:
    """How much of what the agent would keep of finished jobs this one keeps."""
    return SHARE


# --- what is measured ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agent holds of the system at one moment.

    Attributes:
        pss: its share of memory, KiB. It depends on who else maps the same libraries.
        anonymous: its share of memory that no file stands behind, KiB: what grows when something leaks.
        descriptors: open files.
        threads: all of them.
        disk: the blocks of the state folder, KiB.
        files: names in the state folder.
        children: processes that belong to jobs.
    """

    pss: float
    anonymous: float
    descriptors: float
    threads: float
    disk: float
    files: float
    children: float


#: By how much the mean of the second half may be above that of the first quarter after warming up. Memory: Python takes
#: it by the MiB, and gives it back only when all of that is free, so it settles in steps; in 10,000 jobs, a leak of 300
#: bytes a job is more than this. The others: what a job holds while it runs, because samples are taken at any moment.
TOLERANCE = Sample(
    pss=float("inf"),
    anonymous=600 + 900 * SHARE,
    descriptors=2,
    threads=1,
    disk=200 * SHARE + 40,
    files=30 * SHARE + 5,
    children=1,
)


def sample(pid: int, state: Path) -> Sample:
    """Look at the agent."""
    proc = Path(f"/proc/{pid}")
    memory = dict(line.split(":") for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
    disk, files = usage(state)
    return Sample(
        pss=kib(memory["Pss"]),
        anonymous=kib(memory["Pss_Anon"]),
        descriptors=len(list((proc / "fd").iterdir())),
        threads=len(list((proc / "task").iterdir())),
        disk=disk,
        files=files,
        children=len(of_jobs(state)),
    )


def kib(text: str) -> int:
    return int(text.split(maxsplit=1)[0])


def usage(folder: Path) -> tuple[int, int]:
    """Return KiB and number of files below a folder; a file with two names takes room once."""
    sizes: dict[int, int] = {}
    names = 0
    for place, below, inside in os.walk(folder):
        for name in (*below, *inside):
            with suppress(FileNotFoundError):  # the agent tidies up while we look
                found = Path(place, name).lstat()
                names += 1
                sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values()) // 1024, names


def of_jobs(state: Path) -> list[int]:
    """Return the processes that have a job's folder in their environment."""
    mark = b"JOB_DIR=" + os.fsencode(state)
    return [pid for pid in boot.processes() if any(entry.startswith(mark) for entry in boot.environment(pid))]


def averages(samples: list[Sample]) -> Sample:
    return Sample(*(mean(getattr(one, field.name) for one in samples) for field in fields(Sample)))


def cpu_seconds(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


# --- the soak -----------------------------------------------------------------------------------------------------


def named(number: int) -> tuple[str, str]:
    """Return the id of a job and the handler it wants: most succeed, one in twenty fails, one in twenty is refused."""
    if number % 20 == 7:
        return f"job-{number:05}-fails", "work"
    if number % 20 == 13:
        return f"job-{number:05}-refused", "levitate"
    return f"job-{number:05}", "work"


class Soak:
    """Jobs in portions, and a lost connection in each of them."""

    def __init__(self, service: JobsService, mosquitto: Mosquitto, relay: Relay, agent: Agent, wait: Wait) -> None:
        self._service = service
        self._wait = wait
        self._mosquitto = mosquitto
        self._relay = relay
        self._agent = agent
        self._dice = random.Random(JOBS)

    def run(self) -> list[Sample]:
        """Run all jobs; return what was seen after each portion of them."""
        return [self._portion(number) for number in range(JOBS // PORTION)]

    def _portion(self, number: int) -> Sample:
        jobs = [named(number * PORTION + place) for place in range(PORTION)]
        for name, handler in jobs:
            self._service.create_job(name, {"handler": handler}, [THING])
        self._wait_for(self._dice.choice(jobs)[0])
        if number % BROKER_LOST == BROKER_LOST - 1:
            self._mosquitto.kill()
            self._mosquitto.start()
        else:
            reset = self._dice.random() < 0.5
            self._wait(lambda: self._relay.cut(reset=reset), "there is a connection to cut")
        self._wait_for(jobs[-1][0])
        return sample(self._agent.pid, self._agent.state)

    def _wait_for(self, name: str) -> None:
        self._wait(lambda: not self._service.execution(THING, name).pending, f"{name} is over")


@pytest.mark.timeout(LIMIT_SECONDS)
def test_memory_descriptors_threads_and_disk_stay_flat_over_jobs_and_lost_connections(
    service: JobsService, mosquitto: Mosquitto, relay: Relay, agent: Agent, wait: Wait
) -> None:
    looks = [sample(agent.pid, agent.state)]

    def at_rest() -> bool:
        looks.append(sample(agent.pid, agent.state))
        return not held(looks[-2], looks[-1]) and not held(looks[-1], looks[-2])

    wait(at_rest, "the agent comes to rest")
    idle = looks[-1]
    began = time.monotonic()

    samples = Soak(service, mosquitto, relay, agent, wait).run()

    seconds = time.monotonic() - began
    # What watched the last verb tells of its end first, and gives back what it held then.
    wait(lambda: not held(idle, sample(agent.pid, agent.state)), "the agent holds no more than before the first job")
    end = sample(agent.pid, agent.state)
    settled = samples[WARM_UP // PORTION :]
    early, late = averages(settled[: len(settled) // 4]), averages(settled[len(settled) // 2 :])
    rates = f"{JOBS / seconds:.0f} jobs/s, {cpu_seconds(agent.pid) / JOBS * 1000:.1f} ms of processor a job"
    print(f"{JOBS} jobs, {relay.connections - 1} reconnects, {rates}")
    print(table({"idle": idle, "first quarter": early, "second half": late, "end": end}))
    assert_all_came_right(service, agent)
    assert relay.connections >= JOBS // PORTION  # The last one may be lost with nothing left to reconnect for.
    assert not grown(early, late), "it grew from the first quarter to the second half"


def held(before: Sample, after: Sample) -> bool:
    """Return whether more is held than before, of what no job leaves behind."""
    return after.descriptors > before.descriptors or after.threads > before.threads or after.children > before.children


def grown(early: Sample, late: Sample) -> dict[str, tuple[float, float]]:
    """Return what is more than it may be, early and late."""
    both = {field.name: (getattr(early, field.name), getattr(late, field.name)) for field in fields(Sample)}
    return {name: (a, b) for name, (a, b) in both.items() if b > a + getattr(TOLERANCE, name)}


def assert_all_came_right(service: JobsService, agent: Agent) -> None:
    """Each job is over with the status it should have, and ran once, in turn."""
    everything = [named(number)[0] for number in range(JOBS)]
    ends = {"fails": "FAILED", "refused": "REJECTED"}
    for name in everything:
        view = service.execution(THING, name)
        assert view.status == ends.get(name[10:], "SUCCEEDED"), view
    ran = [line.split(".")[0] for line in agent.ledger.read_text().split()]
    assert ran == [name for name in everything if not name[10:]]
    assert not (agent.state / "quarantine").exists()
    assert "Traceback" not in agent.log.read_text()


def table(columns: dict[str, Sample]) -> str:
    """Return the samples as lines of text."""
    lines = [" " * 14 + "".join(f"{name:>16}" for name in columns)]
    for field in fields(Sample):
        figures = "".join(f"{getattr(one, field.name):16.1f}" for one in columns.values())
        lines.append(f"{field.name:14}{figures}")
    return "\n".join(lines)
