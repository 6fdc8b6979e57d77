"""No schedule of faults breaks a promise: tried are all that a scenario has, up to so many faults."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

import pytest
from tests.explorer.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.explorer.conftest import Explored, Explorer

#: THINGJOBS_FAULTS=3 tries three in every scenario: `make explore` does that. Else it is what a scenario says.
FAULTS = int(os.environ.get("THINGJOBS_FAULTS", "0"))


@pytest.mark.timeout(4 * 3600)
def test_no_schedule_of_faults_breaks_a_promise(explore: Explorer, capsys: pytest.CaptureFixture[str]) -> None:
    global _explore  # noqa: PLW0603 - what the processes inherit, because a closure cannot be sent to them
    _explore = explore
    # A process a scenario: what a search remembers is of no use to another. Those that take longest stand last.
    with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
        found = dict(pool.imap_unordered(_explored, reversed(SCENARIOS)))
    if FAULTS:
        with capsys.disabled():
            print("\n" + table(found))

    broken = [f"{name}: {what}" for name, what in found.items() if isinstance(what, str)]
    assert not broken, "\n".join(broken)


_explore: Explorer


def _explored(name: str) -> tuple[str, Explored | str]:
    """Return what came of one scenario: figures, or how a promise was broken."""
    try:
        return name, _explore(name, [""] * (FAULTS or SCENARIOS[name].faults))
    except AssertionError as broken:
        return name, str(broken)


def table(found: dict[str, Explored | str]) -> str:
    """Return the figures as text, a line a scenario, in their order."""
    lines = [f"{name:26} {found[name]}" for name in SCENARIOS]
    done = [what for what in found.values() if not isinstance(what, str)]
    return "\n".join([*lines, f"{sum(what.schedules for what in done):,} schedules in all"])


@pytest.mark.parametrize("scenario", ["firmware", "two jobs", "reboots again"])
def test_what_follows_from_worlds_that_are_the_same_is_the_same(explore: Explorer, scenario: str) -> None:
    once, each = explore(scenario, [""]), explore(scenario, [""], remember=False)

    assert once.schedules == each.schedules
    assert once.ticks < each.ticks
