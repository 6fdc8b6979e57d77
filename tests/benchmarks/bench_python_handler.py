"""What a handler in Python costs: a no-op job beside the bare loop, counted in bare starts of the interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.conftest import Bench

JOBS = 50
ROUNDS = 11
STARTS = 40
MODULE = """
from thingjobs.handler import Context


class Noop:
    version = "1.0"

    def apply(self, ctx: Context, params: dict[str, object]) -> None:
        pass
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The interpreter of an environment that has all that this one has, and a distribution with a handler."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if "site-packages" in path or Path(path, "thingjobs").exists()]
    (site / "all_that_this_one_has.pth").write_text("\n".join(paths))
    (site / "bench_noop.py").write_text(MODULE)
    information = site / "bench_noop-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-noop\nVersion: 1.0\n")
    (information / "RECORD").write_text("bench_noop.py,,\n")
    (information / "entry_points.txt").write_text("[thingjobs.handlers.v1]\nbench-noop = bench_noop:Noop\n")
    interpreter = str(folder / "bin" / "python")
    subprocess.run([interpreter, "-c", "import bench_noop"], check=True)  # as installed: compiled
    return interpreter


def test_python_handler(
    bench: Bench,
    say: Callable[..., None],
    finish: Callable[..., None],
    python: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both clients are started with this interpreter, and the agent's children with that of the agent.
    monkeypatch.setattr(sys, "executable", python)
    figures: dict[str, list[float]] = {"agent": [], "bare": [], "start": []}
    for number in range(ROUNDS):
        figures["start"].append(start(python))
        for name, client, handler in (("bare", bench.bare, "noop"), ("agent", bench.agent, "bench-noop")):
            names = [f"{name}-{number}-{job}" for job in range(JOBS)]
            for job in names:
                bench.service.create_job(job, {"handler": handler}, ["bench"])
            process: Any = client()
            first, last = bench.wait_for_jobs(names)
            finish(process)
            figures[name].append((last - first) / JOBS * 1000)
    # What else the machine is doing changes from minute to minute, and slows all three.
    ratios = [(a - b) / s for a, b, s in zip(figures["agent"], figures["bare"], figures["start"], strict=True)]
    spread = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    print(f"one Python no-op job, within each round: median {statistics.median(ratios):.2f} x, all: {spread}")
    for what, of in (("minimum", min), ("median", statistics.median)):
        agent, bare, bare_start = of(figures["agent"]), of(figures["bare"]), of(figures["start"])
        print(f"one Python no-op job, {what}: agent {agent:.2f} ms, bare loop {bare:.2f} ms, start {bare_start:.2f} ms")
        say(f"Python no-op job less the bare loop, {what}", agent - bare, bare_start, "ms", "<= 1.5 x")


def start(python: str) -> float:
    """Return how many milliseconds a bare start of the interpreter takes, in the middle of some."""
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        os.waitpid(os.posix_spawn(python, [python, "-I", "-c", "pass"], os.environ), 0)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)
