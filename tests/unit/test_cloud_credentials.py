"""When credentials are renewed, and how long old ones are used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.cloud.caller import Patience, may_repeat
from thingjobs.cloud.calls import Call
from thingjobs.cloud.credentials import Credentials, Issued, after_failure, hold
from thingjobs.cloud.errors import CloudError, Fate, Trouble

KEYS = Credentials("AKID", "hush", "hush-hush")
ROLLS = st.floats(0, 1, exclude_max=True)


@given(life=st.floats(1, 43200), roll=ROLLS, now=st.floats(0, 1e9))
def test_fresh_ones_are_asked_for_well_before_the_end(life: float, roll: float, now: float) -> None:
    held = hold(Issued(KEYS, life), now, roll)

    assert now < held.refresh_at <= held.dead_at <= now + life
    assert now + life - held.refresh_at <= min(600, life / 5) + 1e-6
    assert now + life - held.refresh_at >= min(300, life / 10) - 1e-6


def test_an_hour_is_renewed_five_to_ten_minutes_before_its_end() -> None:
    times = [hold(Issued(KEYS, 3600), 0, roll).refresh_at for roll in (0, 0.5, 0.999)]

    assert [round(time / 60) for time in times] == [55, 52, 50]


def test_lasting_ones_are_never_renewed() -> None:
    held = hold(Issued(KEYS), 0, 0.5)

    assert held.refresh_at == held.dead_at == float("inf")


@given(rolls=st.lists(ROLLS, min_size=1, max_size=200))
def test_failures_are_spaced_out_and_never_outlive_the_credentials(rolls: list[float]) -> None:
    held, now = hold(Issued(KEYS, 3600), 0, 0), 3300.0
    for number, roll in enumerate(rolls):
        following = after_failure(held, now, roll)
        assert now <= following.refresh_at <= min(now + min(60, 2**number), held.dead_at)
        held, now = following, following.refresh_at
    assert held.credentials == KEYS


def test_no_text_of_credentials_shows_what_is_secret() -> None:
    for shown in (KEYS, Issued(KEYS, 5), hold(Issued(KEYS, 5), 0, 0)):
        assert "hush" not in f"{shown} {shown!r}"


@pytest.mark.parametrize(
    "texts", [("", "s", ""), ("A", "", ""), ("A", "hush\n", ""), ("A", "s", "hush hush"), ("ä", "s", "")]
)
def test_what_cannot_go_into_a_header_is_no_credentials(texts: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="characters that none can have") as e:
        Credentials(*texts)

    assert "hush" not in str(e.value)


@given(attempt=st.integers(1, 10_000), roll=ROLLS)
def test_pauses_double_up_to_a_bound(attempt: int, roll: float) -> None:
    assert 0 <= Patience().pause(attempt, None, roll) <= min(20, 0.5 * 2 ** min(attempt - 1, 30))
    assert Patience().pause(attempt, 7, roll) == 7


def test_only_what_certainly_did_nothing_is_sent_again_if_it_changes_something() -> None:
    reads = Call("Read", "read", "x:Read", "GET", "/")
    changes = Call("Change", "change", "x:Change", "POST", "/", changes=True)

    for trouble in Trouble:
        for fate in Fate:
            error = CloudError("", trouble, fate)
            passing = trouble in {Trouble.THROTTLED, Trouble.UNAVAILABLE, Trouble.UNREACHABLE}
            assert may_repeat(reads, error) == passing
            assert may_repeat(changes, error) == (passing and fate is not Fate.UNKNOWN)
