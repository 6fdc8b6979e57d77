"""The real agent, killed (SIGKILL) at every point of a job, over a real broker: nothing is lost, nothing runs twice.

Which points there are is learned from a job of which nobody kills the agent; every point that was learned must be
reached. In `make test` these are all changes that the journal makes on the disk in a job with all six verbs, all other
points of an apply-only job, and in other jobs the moment before each new generation takes its place.
THINGJOBS_KILLS=all is everything: all points of all jobs, and pairs of the journal's changes, of which the second is
one that the agent makes that goes on after the first death.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from thingjobs.journal import RESERVE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.kills.conftest import Bench, Life

ALL = os.environ.get("THINGJOBS_KILLS") == "all"
#: What the names of points begin with: what the journal changes on the disk, and all the others.
CHANGES = ("create ", "write ", "fsync ", "link ", "unlink ", "rename ")
OTHERS = ("before ", "after ", "event ", "end ")
#: A new generation takes its place.
RENAMES = ("rename ",)
EVERY = (*CHANGES, *OTHERS)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Tells the figures of a long run, whatever else is captured."""

    def say(text: str) -> None:
        with capsys.disabled() if ALL else contextlib.nullcontext():
            print(f"\n  {text}", end="", flush=True)

    return say


def each(lives: list[Life], points: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return where to kill agents that would pass `lives`: once at each of the points, the agents before it not."""
    return [
        (*[""] * number, point)
        for number, life in enumerate(lives)
        for point in life.points
        if point.startswith(points)
    ]


@pytest.mark.timeout(1800 if ALL else 300)
@pytest.mark.parametrize(
    ("handler", "points"),
    [("once", OTHERS), ("whole", CHANGES), ("undone", RENAMES), ("restarted", RENAMES), ("rebooted", RENAMES)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_agent_killed_at_any_point_of_a_job_neither_loses_nor_repeats_anything(
    bench: Bench, tell: Callable[[str], None], handler: str, points: tuple[str, ...]
) -> None:
    deaths = each(bench.rehearsed(handler), EVERY if ALL else points)

    bench.killed(handler, deaths)

    changes = sum(death[-1].startswith(CHANGES) for death in deaths)
    tell(f"{handler}: killed at {len(deaths)} points, {changes} of which are the journal's changes")


@pytest.mark.timeout(3600 if ALL else 300)
@pytest.mark.parametrize(
    ("handler", "phase", "points"),
    [("once", "", CHANGES), ("whole", " applying.", CHANGES)] if ALL else [("once", "", RENAMES)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_agent_killed_again_while_it_goes_on_neither_loses_nor_repeats_anything(
    bench: Bench, tell: Callable[[str], None], handler: str, phase: str, points: tuple[str, ...]
) -> None:
    firsts = [death for death in each(bench.rehearsed(handler), points) if phase in death[0]]
    found = bench.killed(handler, firsts)
    pairs = [
        (*first, point)
        for first, lives in zip(firsts, found, strict=True)
        for point in lives[-1].points
        if point.startswith(points)
    ]

    bench.killed(f"{handler}", pairs)

    tell(f"{handler}: killed twice at {len(pairs)} pairs of the journal's changes")


def test_an_agent_killed_while_it_makes_its_state_folder_makes_it_the_next_time(bench: Bench) -> None:
    device = bench.devices[0]

    for point in device.begin().points:
        device.begin(point)

        assert (device.agent.state / "reserve").stat().st_size == RESERVE_BYTES
    bench.rehearsed("once")
