"""Every wait has bounds, whatever was counted and rolled."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thingjobs import policy
from thingjobs.model import JobId

ROLLS = st.floats(0, 1, exclude_max=True)
TRIES = st.integers(1, 10**9)
FEW = settings(max_examples=settings().max_examples // 3, deadline=None)


@given(TRIES, ROLLS, st.floats(0.001, 1000), st.floats(0.001, 10_000))
@example(10**9, 0.999, 1.0, 300.0)
@FEW
def test_a_wait_before_the_next_try_is_never_longer_than_its_cap(
    tries: int, roll: float, first: float, cap: float
) -> None:
    assert 0 <= policy.backoff(tries, roll, first=first, cap=cap) <= cap


@given(st.integers(1, 40), ROLLS)
@FEW
def test_each_further_failure_makes_the_wait_longer_or_leaves_it_at_the_cap(tries: int, roll: float) -> None:
    assert policy.backoff(tries, roll) <= policy.backoff(tries + 1, roll)


@given(TRIES)
@FEW
def test_the_whole_range_from_nothing_to_the_bound_is_used(tries: int) -> None:
    # Full jitter: devices that failed together do not come back together.
    assert policy.backoff(tries, 0.0) == 0
    assert policy.backoff(tries, 0.5) == policy.backoff(tries, 1.0) / 2


def test_the_bound_doubles_from_two_seconds_to_five_minutes() -> None:
    assert [policy.backoff(tries, 1.0) for tries in range(1, 11)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.floats(0, 1e9), ROLLS, st.floats(0, 1))
@FEW
def test_spreading_stays_within_its_share(seconds: float, roll: float, share: float) -> None:
    slack = 1e-9 * seconds
    spread = policy.spread(seconds, roll, share)
    assert seconds * (1 - share) - slack <= spread <= seconds * (1 + share) + slack


@given(st.integers(-5, 10**9))
@FEW
def test_a_deferred_job_is_looked_at_again_within_a_quarter_of_an_hour_but_not_at_once(tries: int) -> None:
    assert 60 <= policy.defer(tries) <= policy.defer(tries + 1) <= 900


def test_a_deferred_job_waits_a_minute_first_and_then_twice_as_long() -> None:
    assert [policy.defer(tries) for tries in range(1, 7)] == [60, 120, 240, 480, 900, 900]


@given(st.floats(0, 1e9), ROLLS)
@FEW
def test_the_first_connection_waits_only_after_a_fresh_boot(uptime: float, roll: float) -> None:
    delay = policy.first_connect_delay(uptime, roll)

    assert 0 <= delay <= 30
    assert uptime < 120 or delay == 0


@pytest.mark.parametrize("roll", [0.1, 0.9])
def test_a_fleet_that_boots_together_does_not_connect_together(roll: float) -> None:
    assert policy.first_connect_delay(5.0, roll) == pytest.approx(30 * roll)


@given(st.integers(1, 10080))
@FEW
def test_the_step_timer_is_renewed_while_half_of_it_is_left(minutes: int) -> None:
    assert policy.renew_after(minutes) == minutes * 30


@pytest.mark.parametrize(
    ("only", "job_id", "ours"),
    [
        (("*",), "anything", True),
        ((), "anything", False),
        (("fw-*",), "fw-1", True),
        (("fw-*",), "FW-1", False),
        (("fw-*",), "my-fw-1", False),
        (("fw",), "fw-1", False),
        (("a", "b?"), "bc", True),
        (("a", "b?"), "b", False),
        (("[ab]*",), "b7", True),
    ],
)
def test_a_job_is_ours_when_its_id_fits_a_pattern(only: tuple[str, ...], job_id: str, ours: bool) -> None:
    assert policy.Settings("a", only=only).ours(JobId(job_id)) is ours
