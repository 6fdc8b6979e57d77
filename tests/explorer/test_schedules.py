"""No schedule of faults breaks a promise: tried are all that a scenario has, up to so many faults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.explorer.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.explorer.conftest import Explorer

#: THINGJOBS_FAULTS=3 tries three in every scenario: `make explore` does that. Else it is what a scenario says.
FAULTS = int(os.environ.get("THINGJOBS_FAULTS", "0"))


@pytest.mark.timeout(4 * 3600)
# Those that take longest stand last, and are begun first.
@pytest.mark.parametrize("scenario", list(reversed(SCENARIOS)))
def test_no_schedule_of_faults_breaks_a_promise(
    explore: Explorer, record_property: Callable[[str, object], None], scenario: str
) -> None:
    explored = explore(scenario, [""] * (FAULTS or SCENARIOS[scenario].faults))

    record_property("explored", f"{scenario:26} {explored}")
    record_property("schedules", explored.schedules)


@pytest.mark.parametrize("scenario", ["firmware", "two jobs", "reboots again"])
def test_what_follows_from_worlds_that_are_the_same_is_the_same(explore: Explorer, scenario: str) -> None:
    once, each = explore(scenario, [""]), explore(scenario, [""], remember=False)

    assert once.schedules == each.schedules
    assert once.ticks < each.ticks
