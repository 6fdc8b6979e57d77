"""What the core does for the fleet that its device is one of: it asks later, and never in step with others."""

from __future__ import annotations

import itertools
import random
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.simulation import JOB, SETTINGS, a_running_job

from thingjobs import policy
from thingjobs.jobs import (
    Connected,
    Described,
    DescribeNext,
    Disconnected,
    ListChanged,
    NextChanged,
    Refusal,
    Refused,
    Summary,
)
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Due
from thingjobs.machine.state import Look, LookTimer
from thingjobs.machine.turn import Turn
from thingjobs.model import Execution, Status

OFFER = Execution(JOB, Status.QUEUED, 1, document={"handler": "h"})


class Driver:
    """A core, and the hour."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State(SETTINGS, nonce="n")
        self.clock = 10_000.0
        self.sent: list[Any] = []

    def give(self, event: Any) -> None:
        """Let the core work out an event; `sent` has the requests that come of it."""
        self.state, effects = step(self.state, event, Now(self.clock, "boot", self.clock))
        self.sent = [effect.request for effect in effects if isinstance(effect, do.Send)]

    def after_an_outage(self, seconds: float) -> Driver:
        """Lose the connection, fail to connect a few times, and be connected again."""
        for _ in range(4):
            self.give(Disconnected("the broker is away"))
            self.clock += seconds / 4
        self.give(Connected())
        return self

    @property
    def looks_in(self) -> float:
        """Seconds until the search goes on."""
        return self.state.timers[LookTimer.RETRY] - self.clock

    def refuse(self, code: Refusal) -> None:
        """The service refuses the question that is open."""
        assert self.state.look is not None
        self.give(Refused(self.state.look.token, code))


def idle() -> Driver:
    """Return a core that was connected and has nothing to do."""
    driver = Driver()
    driver.give(Connected())
    driver.give(Described(driver.sent[0].token, None))
    return driver


# --- after a connect ----------------------------------------------------------------------------------------------


def test_the_first_connection_is_followed_by_a_look_at_once() -> None:
    driver = Driver()

    driver.give(Connected())

    assert [type(request) for request in driver.sent] == [DescribeNext]


@pytest.mark.parametrize("seconds", [8.0, 60.0, 86_400.0])
def test_after_an_outage_an_idle_device_looks_at_any_moment_of_as_long_a_time_but_within_five_minutes(
    seconds: float,
) -> None:
    delays = []
    for number in range(200):
        driver = idle()
        driver.state = State(SETTINGS, nonce=f"n{number}", connected_at=1.0)
        driver.after_an_outage(seconds)
        assert driver.sent == []
        delays.append(driver.looks_in)

    longest = min(seconds, 300.0)
    assert 0 <= min(delays) <= longest / 10
    assert longest * 0.9 <= max(delays) <= longest
    assert mean(delays) == pytest.approx(longest / 2, rel=0.15)


def test_the_look_that_waited_is_asked_when_its_time_has_come() -> None:
    driver = idle().after_an_outage(60)

    driver.clock += driver.looks_in
    driver.give(Due(LookTimer.RETRY))

    assert [type(request) for request in driver.sent] == [DescribeNext]
    assert LookTimer.RETRY not in driver.state.timers


def test_what_waited_since_the_agent_began_counts_as_an_outage_too() -> None:
    driver = Driver().after_an_outage(60)

    assert driver.sent == []
    assert 0 <= driver.looks_in <= 60


def test_a_device_that_is_busy_looks_at_once_because_its_job_may_have_been_cancelled() -> None:
    driver = Driver(a_running_job()[0])
    driver.after_an_outage(3600)

    assert DescribeNext in map(type, driver.sent)


def test_an_offer_does_not_wait_for_the_look() -> None:
    driver = idle().after_an_outage(3600)

    driver.give(NextChanged(OFFER))

    assert JOB in driver.state.jobs
    assert LookTimer.RETRY not in driver.state.timers


def test_a_look_for_another_reason_makes_the_one_that_waits_needless() -> None:
    driver = idle().after_an_outage(3600)
    driver.give(ListChanged((), (Summary(JOB, 1),)))

    driver.give(Due(LookTimer.EXPECT))

    assert [type(request) for request in driver.sent] == [DescribeNext]
    assert LookTimer.RETRY not in driver.state.timers


def test_a_connection_that_is_lost_before_the_look_has_it_soon_after_the_next() -> None:
    driver = idle().after_an_outage(3600)
    driver.clock += 1

    driver.after_an_outage(8)

    assert driver.looks_in <= 8


def test_after_a_blip_a_device_looks_at_once() -> None:
    driver = idle().after_an_outage(4)

    assert [type(request) for request in driver.sent] == [DescribeNext]


@given(st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_no_look_waits_longer_than_the_outage_was(away: float, roll: float) -> None:
    assert 0 <= policy.look_delay(away, roll) <= min(away, policy.LOOK_SPREAD)


# --- when the account is throttled --------------------------------------------------------------------------------


def test_a_throttled_look_comes_again_within_half_a_minute_then_a_minute_up_to_five() -> None:
    longest = [0.0] * 6
    for number in range(200):
        driver = Driver(State(SETTINGS, nonce=f"n{number}"))
        driver.give(Connected())
        for turn in range(6):
            driver.refuse(Refusal.REQUEST_THROTTLED)
            longest[turn] = max(longest[turn], driver.looks_in)
            driver.clock += driver.looks_in
            driver.give(Due(LookTimer.RETRY))

    assert longest == pytest.approx([30, 60, 120, 240, 300, 300], rel=0.1)


def test_a_look_that_failed_otherwise_comes_again_sooner() -> None:
    driver = Driver()
    driver.give(Connected())

    driver.refuse(Refusal.INTERNAL_ERROR)

    assert driver.looks_in <= 2


def test_a_throttled_look_for_observers_leaves_the_account_alone_for_minutes() -> None:
    driver = Driver(a_running_job()[0])
    driver.give(Connected())
    driver.give(Described(driver.sent[-1].token, None))
    driver.state = State(
        SETTINGS, nonce="n", connected_at=1.0, jobs=driver.state.jobs, look=Look(token="aside", aside=True)
    )

    driver.refuse(Refusal.REQUEST_THROTTLED)

    assert 200 <= driver.state.timers[LookTimer.ASIDE] - driver.clock <= 400


# --- jitter -------------------------------------------------------------------------------------------------------


def test_devices_that_drew_nearly_the_same_once_do_not_again() -> None:
    dice = random.Random(7)
    fleet = sorted(rolls(dice.randbytes(8).hex()) for _ in range(5000))
    neighbours = list(itertools.pairwise(fleet))

    apart = [mean(abs(a[draw] - b[draw]) for a, b in neighbours) for draw in range(4)]

    assert apart[0] < 0.001
    assert apart[1:] == pytest.approx([1 / 3] * 3, rel=0.1)


def test_what_a_fleet_draws_is_spread_evenly() -> None:
    dice = random.Random(7)
    drawn = [draw for _ in range(1000) for draw in rolls(dice.randbytes(8).hex())]

    tenths = [sum(int(draw * 10) == tenth for draw in drawn) for tenth in range(10)]

    assert tenths == pytest.approx([400] * 10, rel=0.2)
    assert min(drawn) >= 0
    assert max(drawn) < 1


def rolls(nonce: str) -> list[float]:
    """Return what a device draws first."""
    turn = Turn(State(SETTINGS, nonce=nonce), Now(0.0, "boot", 0.0))
    return [turn.roll() for _ in range(4)]
