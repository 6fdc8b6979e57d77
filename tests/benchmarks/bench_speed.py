"""How fast: draining a queue, and the time from the start of the process to its first request."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.conftest import Bench

JOBS = 150
ROUNDS = 3


def test_drain(bench: Bench, say: Callable[..., None], finish: Callable[..., None]) -> None:
    figures: dict[str, list[float]] = {"agent": [], "bare": []}
    for number in range(ROUNDS):
        for name, start in (("bare", bench.bare), ("agent", bench.agent)):
            names = [f"{name}-{number}-{job}" for job in range(JOBS)]
            for job in names:
                bench.service.create_job(job, {"handler": "noop"}, ["bench"])
            process: Any = start()
            first, last = bench.wait_for_jobs(names)
            finish(process)
            figures[name].append((last - first) / JOBS * 1000)
    say("drain, one no-op job", *medians(figures), "ms", "<= 2.5 x")


def test_start_to_first_request(bench: Bench, say: Callable[..., None], finish: Callable[..., None]) -> None:
    figures: dict[str, list[float]] = {"agent": [], "bare": []}
    for _ in range(ROUNDS + 2):
        for name, start in (("bare", bench.bare), ("agent", bench.agent)):
            had = len(bench.service.requests)
            began = time.time()
            process: Any = start()
            figures[name].append((bench.wait_for_requests(had + 1) - began) * 1000)
            finish(process)
    say("start to first request", *medians(figures), "ms", "<= 3 x")


def medians(figures: dict[str, list[float]]) -> tuple[float, float]:
    """Return the medians of ours and of the floor."""
    return statistics.median(figures["agent"]), statistics.median(figures["bare"])
