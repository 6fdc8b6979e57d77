"""What a handler in Python costs: a no-op job beside the bare loop, counted in bare starts of the interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.benchmarks.conftest import THING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.conftest import Bench

#: Short turns: what else the machine is doing changes within a second, and slows all three.
TURNS = 60
JOBS = 10
STARTS = 10
WARM_UP = 3
#: Both clients are connected all the time, and only one of them has jobs.
OTHER_THING = "bench-bare"
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
    agent, bare = bench.agent(), bench.bare(thing=OTHER_THING)
    turns: dict[str, Callable[[str], float]] = {
        "agent": lambda turn: jobs(bench, turn, "bench-noop", THING),
        "bare": lambda turn: jobs(bench, turn, "noop", OTHER_THING),
        "start": lambda turn: start(python),
    }
    figures: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(-WARM_UP, TURNS):
        for name in list(turns)[number % 3 :] + list(turns)[: number % 3]:
            figures[name].append(turns[name](f"{name}-{number}"))
    for process in (agent, bare):
        finish(process)
    agents, bares, starts = (figures[name][WARM_UP:] for name in turns)
    ratios = [(a - b) / s for a, b, s in zip(agents, bares, starts, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"one Python no-op job, within each turn: median {middle:.2f} x, half of them {low:.2f} to {high:.2f} x")
    for what, of in (("minimum", min), ("median", statistics.median)):
        a, b, s = of(agents), of(bares), of(starts)
        print(f"one Python no-op job, {what}: agent {a:.2f} ms, bare loop {b:.2f} ms, start {s:.2f} ms")
        say(f"Python no-op job less the bare loop, {what}", a - b, s, "ms", "<= 1.5 x")


def jobs(bench: Bench, turn: str, handler: str, thing: str) -> float:
    """Return how many milliseconds there are between the ends of jobs that wait in line."""
    names = [f"{turn}-{job}" for job in range(JOBS + 1)]
    for name in names:
        bench.service.create_job(name, {"handler": handler}, [thing])
    bench.wait_for_jobs(names, thing)
    first, last = (bench.service.execution(thing, names[end]).updated_at for end in (0, -1))
    return (last - first) / JOBS * 1000


def start(python: str) -> float:
    """Return how many milliseconds a bare start of the interpreter takes, in the middle of some."""
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        os.waitpid(os.posix_spawn(python, [python, "-I", "-c", "pass"], os.environ), 0)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)
