"""What waiting costs: memory, wake-ups, writes; beside a bare client that is connected and idle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.conftest import Bench

IDLE_SECONDS = 20
JOBS = 20
#: Keep-alives, or polls of HTTPS, come this often while bytes are counted; the shortest that the configuration allows.
EVERY_SECONDS = 30
#: How often they come by default: a poll after 10 to 15 minutes.
DEFAULT_SECONDS = {"paho": 300, "awsiot": 300, "https": 750}
DAY_SECONDS = 86_400

transports = pytest.mark.parametrize("transport", list(DEFAULT_SECONDS))


@transports
@pytest.mark.timeout(300)
def test_idle(bench: Bench, say: Callable[..., None], finish: Callable[..., None], transport: str) -> None:
    had = len(bench.service.requests)
    bare = bench.bare(transport)
    bench.wait_for_requests(had + 1)
    time.sleep(1)
    floor = pss_mib(bare.pid)
    floor_wakes = wake_ups(bare.pid, IDLE_SECONDS)
    finish(bare)

    had = len(bench.service.requests)
    agent = bench.agent(transport)
    bench.wait_for_requests(had + 1)
    time.sleep(1)
    say(f"{transport}: idle memory, PSS, fresh", pss_mib(agent.pid), floor, "MiB", "<= bare + 4 MiB")
    names = [f"job-{number}" for number in range(JOBS)]
    for name in names:
        bench.service.create_job(name, {"handler": "noop"}, ["bench"])
    bench.wait_for_jobs(names)
    time.sleep(7)
    say(f"{transport}: idle memory, PSS, after {JOBS} jobs", pss_mib(agent.pid), floor, "MiB", "<= bare + 4 MiB")
    written = written_bytes(agent.pid)
    wakes = wake_ups(agent.pid, IDLE_SECONDS)
    say(f"{transport}: idle wake-ups", wakes, floor_wakes, "/s", "<= 0.2 /s")
    say(f"{transport}: idle bytes to disk", written_bytes(agent.pid) - written, 0, "bytes", "0")
    finish(agent)


@transports
@pytest.mark.timeout(600)
def test_bytes_of_an_idle_day(
    bench: Bench, say: Callable[..., None], finish: Callable[..., None], transport: str
) -> None:
    per_day = []
    for start in (bench.bare, bench.agent):
        had = len(bench.service.requests)
        with bench.relay(transport) as relay:
            client = start(transport, relay.port, EVERY_SECONDS)
            bench.wait_for_requests(had + 1)
            time.sleep(5)
            before, window = relay.passed, 4 * EVERY_SECONDS
            time.sleep(window)
            times = window / EVERY_SECONDS * (6 / 5 if start == bench.agent and transport == "https" else 1)
            per_day.append((relay.passed - before) / times * DAY_SECONDS / DEFAULT_SECONDS[transport] / 1000)
            finish(client)
    floor, ours = per_day
    say(f"{transport}: bytes of an idle day", ours, floor, "kB", "stated")


def pss_mib(pid: int) -> float:
    """Return the proportional memory of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024


def wake_ups(pid: int, seconds: float) -> float:
    """Return how often the threads of a process woke, per second."""
    before = switches(pid)
    time.sleep(seconds)
    return (switches(pid) - before) / seconds


def switches(pid: int) -> int:
    """Return the voluntary context switches of all threads."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        text = status.read_text()
        line = next(line for line in text.splitlines() if line.startswith("voluntary"))
        total += int(line.split()[1])
    return total


def written_bytes(pid: int) -> int:
    """Return what a process had written to storage."""
    text = Path(f"/proc/{pid}/io").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("write_bytes")).split()[1])
