"""Every schedule of a few faults, tried on the real core: the search, over the world of `world.py`.

A `World` does one small thing at a time: one effect, one message, one write of a handler. Between any two of them
`faults` says what could go wrong now. The search does each of that to a copy of the world, goes on with the faults that
are left, and then lets the world itself go on without. Nothing is drawn at random. Worlds that differ only in tokens
and in the hour are the same, so what follows from one is worked out once, and counted as often as it is reached.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.explorer.faults import faults
from tests.explorer.promises import BrokenPromise, at_the_end
from tests.explorer.sameness import sameness
from tests.explorer.scenarios import SCENARIOS
from tests.explorer.world import World

from thingjobs.machine.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.explorer.faults import Fault
    from tests.explorer.scenarios import Scenario


@dataclass(frozen=True)
class Explored:
    """What a search came to.

    Attributes:
        schedules: every one of them was followed to its end, where it differs from others.
        worlds: different ones in which something could go wrong.
        ticks: small things done.
    """

    schedules: int
    worlds: int
    ticks: int

    def __str__(self) -> str:
        return f"{self.schedules:>12,} schedules {self.worlds:>11,} worlds {self.ticks:>12,} steps"


class Search:
    """Tries every schedule of at most so many faults of one scenario.

    Args:
        scenario: which.
        kinds: for each fault, in their order, what its name must hold; "" is any.
        remember: what follows from worlds that are the same is worked out once.
    """

    def __init__(self, scenario: Scenario, kinds: Sequence[str], *, remember: bool = True) -> None:
        self._scenario = scenario
        self._kinds = kinds
        self._remember = remember
        self._known: dict[tuple[bytes, int], int] = {}
        self._path: list[str] = []
        self._ticks = 0

    def run(self) -> Explored:
        """Try all of them.

        Raises:
            BrokenPromise: one of them breaks a promise; the message says which, and after what.
        """
        try:
            schedules = self._follow(World(self._scenario), len(self._kinds))
        except BrokenPromise as broken:
            raise BrokenPromise(f"{broken}, after: {', '.join(self._path) or 'nothing'}") from broken
        return Explored(schedules, len(self._known), self._ticks)

    def _follow(self, world: World, left: int) -> int:
        """Return how many schedules of at most `left` faults begin at `world`."""
        passed: list[tuple[tuple[bytes, int], int]] = []
        while not world.at_rest():
            could = list(faults(world))
            if could:
                key = (sameness(world), left)
                known = self._known.get(key) if self._remember else None
                if known is not None:
                    break
                passed.append((key, self._branches(world, could, left) if left else 0))
            world.tick()
            self._ticks += 1
        else:
            at_the_end(world)
            known = 1
        for key, branches in reversed(passed):
            known += branches
            self._known[key] = known
        return known

    def _branches(self, world: World, could: list[Fault], left: int) -> int:
        found = 0
        for name, harm in could:
            if self._kinds[-left] in name:
                self._path.append(f"[{world.ticks}] {name}")
                other = world.twin()
                harm(other)
                found += self._follow(other, left - 1)
                self._path.pop()
        return found


class Explorer(Protocol):
    """What the fixture `explore` gives."""

    def __call__(self, scenario: str, kinds: Sequence[str], *, remember: bool = True) -> Explored:
        """Try every schedule of at most so many faults, each of its kind; "" is any.

        Raises:
            BrokenPromise: one of them breaks a promise; the message says which, and after what.
        """


@pytest.fixture
def explore(monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """Search a scenario, by its name, for a schedule of faults that breaks a promise."""
    # Jitter is the one thing that is random in the core.
    monkeypatch.setattr(Turn, "roll", lambda self: 0.5)
    return lambda scenario, kinds, *, remember=True: Search(SCENARIOS[scenario], kinds, remember=remember).run()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how much was tried, when more than usual was asked for."""
    shown = [dict(report.user_properties) for report in terminalreporter.stats.get("passed", ())]
    found = [properties for properties in shown if "schedules" in properties]
    if found and "THINGJOBS_FAULTS" in os.environ:
        terminalreporter.section("explored")
        for properties in found:
            terminalreporter.write_line(str(properties["explored"]))
        terminalreporter.write_line(f"{sum(int(properties['schedules']) for properties in found):,} schedules in all")
