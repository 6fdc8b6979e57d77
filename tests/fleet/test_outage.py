"""A fleet after an outage, with the quotas of one AWS account: how it comes back, and how long a result waits.

`make fleet` has 100,000 devices and the quotas as they are. Here are fewer, with quotas that are as much smaller: all
that is asserted is in multiples of a quota, or in seconds, which stay the same.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.fleet.outage import outage, part, power_cut
from tests.fleet.simulation import Account

from thingjobs.policy import RETRY_CAP

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = 100_000
DEVICES = int(os.environ.get("THINGJOBS_FLEET_DEVICES", "1500"))
ACCOUNT = Account().of(DEVICES / FULL)
SMALL_REGION = Account(connects=100.0).of(DEVICES / FULL)
#: With every request of use and none too early it would take this long: one look each.
FLOOR = FULL / Account().reads


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    """Nothing of a simulation is ever garbage before it is over: looking for some would take half of the time."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@dataclass(frozen=True)
class Bounds:
    """What an outage of so many seconds may come to.

    Attributes:
        reads: the worst second, as a multiple of the quota.
        writes: the same.
        requests: a device sends in the mean; the floor is one, and four for a busy one.
        waits: seconds, that all but one in a hundred final reports wait no longer than.
    """

    reads: float
    writes: float
    requests: float
    waits: float


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("seconds", "bounds"),
    [
        pytest.param(2.0, Bounds(reads=40, writes=8, requests=6.0, waits=150), id="2 s"),
        pytest.param(60.0, Bounds(reads=24, writes=5, requests=5.5, waits=230), id="1 min"),
        pytest.param(3600.0, Bounds(reads=12, writes=4, requests=4.0, waits=RETRY_CAP + 10), id="1 h"),
    ],
)
def test_after_an_outage_a_fleet_is_told_within_twice_the_floor_and_no_result_waits_for_long(
    seconds: float, bounds: Bounds
) -> None:
    seen = outage(DEVICES, ACCOUNT, seconds)

    print(f"\n{DEVICES} devices, outage of {seconds:.0f} s: {seen}")
    assert not seen.unsettled
    assert seen.drained <= 2 * FLOOR
    assert seen.peaks[0] <= bounds.reads
    assert seen.peaks[1] <= bounds.writes
    assert sum(seen.requests) / DEVICES <= bounds.requests
    assert part(seen.waited, 0.99) <= bounds.waits


@pytest.mark.timeout(0)
def test_a_fleet_that_boots_at_the_same_moment_is_told_within_twice_the_floor() -> None:
    seen = power_cut(DEVICES, ACCOUNT)

    print(f"\n{DEVICES} devices boot: {seen}")
    assert not seen.unsettled
    assert seen.drained <= 2 * FLOOR
    assert sum(seen.requests) / DEVICES <= 6


@pytest.mark.timeout(0)
@pytest.mark.skipif(DEVICES < FULL, reason="a part of `make fleet`")
def test_where_the_account_takes_few_connections_they_are_what_takes_long() -> None:
    seen = outage(DEVICES, SMALL_REGION, 3600.0)

    print(f"\n{DEVICES} devices, 100 connects a second, outage of 1 h: {seen}")
    assert not seen.unsettled
    assert seen.drained <= 2 * FULL / SMALL_REGION.connects
