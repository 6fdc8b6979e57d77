"""When a shadow is told again: soon after a change, never in a burst, daily, ever more seldom if it is not taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thingjobs.seeing import pace
from thingjobs.seeing.pace import AGAIN_CAP, APART, DAY, FIRST, SETTLE, Pace

ROLLS = st.floats(0, 1, exclude_max=True)


def settled(now: float = 1000.0) -> Pace:
    """Return the pace of a shadow that was told at `now`, and taken."""
    return pace.taken(pace.tried(pace.connected(Pace(), now - 10, 0.0), now, 0.5), now, 0.5)


def test_nothing_is_told_before_there_is_a_connection() -> None:
    assert Pace().due is None
    assert pace.changed(Pace(), 5.0).due is None


@given(ROLLS)
def test_the_first_waits_until_jobs_had_their_turn(roll: float) -> None:
    assert FIRST <= (pace.connected(Pace(), 0.0, roll).due or 0) <= 10


def test_a_new_connection_is_no_reason_to_tell_what_was_taken() -> None:
    told = settled()
    assert pace.connected(told, 2000.0, 0.0).due == told.due


@given(ROLLS)
def test_without_a_change_it_is_told_once_a_day(roll: float) -> None:
    told = pace.taken(pace.tried(pace.connected(Pace(), 0.0, roll), 10.0, roll), 10.0, roll)
    assert 0.9 * DAY <= told.due - 10.0 <= 1.1 * DAY  # type: ignore[operator]
    assert pace.unchanged(pace.changed(told, 500.0)).due == told.renew_at


def test_a_change_is_told_soon_but_not_in_a_burst() -> None:
    told = settled(1000.0)
    assert pace.changed(told, 5000.0).due == 5000.0 + SETTLE
    assert pace.changed(told, 1001.0).due == 1000.0 + APART


def test_a_change_while_it_is_told_is_told_after_that() -> None:
    trying = pace.changed(pace.tried(settled(), 5000.0, 0.5), 5000.1)
    assert pace.taken(trying, 5000.2, 0.5).due == 5000.0 + APART


@given(st.integers(1, 40), ROLLS)
def test_what_is_not_taken_is_told_ever_more_seldom_whatever_changes(tries: int, roll: float) -> None:
    now, trying = 1000.0, settled()
    for _ in range(tries):
        trying = pace.changed(pace.tried(trying, now, roll), now)
    wait = (trying.due or 0) - now
    usual = min(AGAIN_CAP, APART * 2 ** (tries - 1))
    assert usual * 2 / 3 - 1e-6 <= wait <= usual * 4 / 3 + 1e-6
    assert pace.connected(trying, now, roll).due == max(trying.due or 0, now + FIRST + 8 * roll)
