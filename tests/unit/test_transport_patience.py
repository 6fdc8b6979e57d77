"""How long to wait for the next connection, and what to leave out of it: explored with histories of every kind."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.jobs import Describe, DescribeNext, GetPending, Request, Update
from thingjobs.model import JobId, Status
from thingjobs.ports import Shadow
from thingjobs.transport.patience import LIMITS, Cause, Ended, History, Limits, after, kind_of, topic_of

KINDS = ["get", "$next/get", "+/get", "+/update"]
ROLLS = st.floats(0, 1, exclude_max=True)
#: As good as 1: the bound of a wait.
MOST = 1 - 1e-9
#: Ends of connections that never were good.
BAD = [Cause.UNREACHED, Cause.UNDATED, Cause.UNSUBSCRIBED, Cause.TAKEN, Cause.DEAF]


@st.composite
def ends(draw: st.DrawFn) -> Ended:
    """Draw how a connection may end."""
    cause = draw(st.sampled_from(Cause))
    if cause in (Cause.UNREACHED, Cause.UNDATED, Cause.UNSUBSCRIBED):
        return Ended(cause)
    suspect = draw(st.sampled_from(["", *KINDS])) if cause is Cause.LOST else ""
    return Ended(cause, draw(st.floats(1e-3, 1e6)), suspect)


def many(ended: Ended, times: int, roll: float = MOST, history: History | None = None) -> History:
    """Return the history after the same end again and again."""
    history = history or History()
    for _ in range(times):
        history = after(history, ended, 0.0, roll)
    return history


@given(st.lists(st.tuples(ends(), ROLLS), max_size=60))
def test_no_wait_is_negative_or_longer_than_its_cap(story: list[tuple[Ended, float]]) -> None:
    history = History()
    for ended, roll in story:
        history = after(history, ended, 0.0, roll)
        cap = {Cause.TAKEN: LIMITS.rival_cap, Cause.UNDATED: LIMITS.clock_cap}.get(ended.cause, LIMITS.cap)
        assert 0 <= history.wait <= cap


@given(ends(), st.lists(st.tuples(ends(), ROLLS), max_size=30))
def test_the_jitter_is_full(ended: Ended, story: list[tuple[Ended, float]]) -> None:
    history = History()
    for before, roll in story:
        history = after(history, before, 0.0, roll)
    assert after(history, ended, 0.0, 0.0).wait == 0
    half, most = after(history, ended, 0.0, 0.5).wait, after(history, ended, 0.0, MOST).wait
    assert half == pytest.approx(most / 2)
    assert most >= 2 * MOST


@pytest.mark.parametrize("cause", BAD)
def test_the_bound_doubles_with_every_connection_that_was_no_good(cause: Cause) -> None:
    waits = [many(Ended(cause, 1.0), times).wait for times in range(1, 40)]
    assert waits[:4] == pytest.approx([2, 4, 8, 16])
    assert all(next_one >= one for one, next_one in pairwise(waits))
    assert waits[-1] == pytest.approx(waits[-2]), "until its cap"


def test_one_good_connection_is_enough_to_be_tried_soon() -> None:
    history = many(Ended(Cause.UNREACHED), 9)
    assert after(history, Ended(Cause.LOST, LIMITS.good - 1), 0.0, MOST).wait > 100
    assert after(history, Ended(Cause.LOST, LIMITS.good + 1), 0.0, MOST).wait <= 2


def test_whoever_wants_a_new_connection_gets_it_soon_unless_the_old_one_was_deaf() -> None:
    assert many(Ended(Cause.RENEWED, 1.0), 50).wait <= 2
    assert many(Ended(Cause.DEAF, 3600.0), 9).wait > 200


def test_a_wrong_clock_is_no_reason_to_wait_long() -> None:
    assert many(Ended(Cause.UNDATED), 50).wait <= LIMITS.clock_cap


# --- rivals -------------------------------------------------------------------------------------------------------


def test_two_with_one_client_id_do_not_fight_at_full_speed_although_connections_last_in_between() -> None:
    """Both are ours, and each connects as soon as its patience lets it, which ends the other's connection."""
    sides = [History(), History()]
    now, since, holder, fights = 0.0, 0.0, 0, 0
    while now < 24 * 3600:
        loser, holder = holder, 1 - holder
        sides[loser] = after(sides[loser], Ended(Cause.TAKEN, max(now - since, 1e-3)), now, 0.5)
        since, now = now, now + sides[loser].wait
        fights += 1
    assert fights < 250, "once in a quarter of an hour from either side, and a few at the beginning"


def test_peace_makes_rivals_forgotten() -> None:
    history = many(Ended(Cause.TAKEN, 5.0), 20)
    assert after(history, Ended(Cause.TAKEN, LIMITS.peace - 1), 0.0, MOST).wait > 800
    history = after(history, Ended(Cause.TAKEN, LIMITS.peace), 0.0, MOST)
    assert history.wait <= 2


# --- requests after which the broker closes -----------------------------------------------------------------------


class Service:
    """A broker that closes on one kind of request, and an agent that sends all kinds whenever it connects."""

    def __init__(self, denied: str) -> None:
        self.denied = denied
        self.history = History()
        self.now = 0.0
        self.closed = 0
        self.answered = 0

    def connect(self) -> None:
        """Hold one connection until it ends: by the denied kind, or after an hour by itself."""
        sent = [kind for kind in KINDS if not self.history.holds(kind, self.now)]
        for kind in sent:
            if kind == self.denied:
                self.closed += 1
                self._ended(Ended(Cause.LOST, 0.1, kind))
                return
            self.history = self.history.accepted(kind)
        self.answered += 1
        self.now += 3600
        self._ended(Ended(Cause.LOST, 3600))

    def _ended(self, ended: Ended) -> None:
        self.history = after(self.history, ended, self.now, 0.5)
        self.now += self.history.wait


@pytest.mark.parametrize("denied", KINDS)
def test_what_the_policy_denies_is_left_out_so_that_all_else_goes_on(denied: str) -> None:
    service = Service(denied)
    while service.now < 7 * 24 * 3600:
        service.connect()
    assert service.closed < 2 * 7 * 24, "at most once an hour on average, each followed by one that works"
    assert service.answered >= service.closed - LIMITS.loop


@given(st.sampled_from(KINDS), st.integers(0, 20), ROLLS)
def test_holding_back_grows_to_a_cap_and_ends(kind: str, more: int, roll: float) -> None:
    ended = Ended(Cause.LOST, 1.0, kind)
    history = many(ended, LIMITS.loop + more, roll)
    hold = history.denials[kind].hold
    assert LIMITS.hold_first * 2 / 3 <= hold <= LIMITS.hold_cap * 4 / 3
    assert history.holds(kind, hold - 1)
    assert not history.holds(kind, hold)
    assert many(ended, LIMITS.loop + more + 1, roll).denials[kind].hold >= hold


@pytest.mark.parametrize("times", range(LIMITS.loop))
def test_a_broker_that_happened_to_die_holds_nothing_back(times: int) -> None:
    history = many(Ended(Cause.LOST, 1.0, "+/update"), times)
    assert not history.holds("+/update", 0.0)


def test_only_the_suspect_is_held_back_and_the_next_connection_comes_soon() -> None:
    history = many(Ended(Cause.LOST, 1.0, "+/update"), LIMITS.loop)
    assert [kind for kind in KINDS if history.holds(kind, 0.0)] == ["+/update"]
    assert history.wait <= 2


def test_a_request_that_is_accepted_clears_its_kind_and_no_other() -> None:
    history = many(Ended(Cause.LOST, 1.0, "+/update"), LIMITS.loop)
    assert history.accepted("get") is history
    assert not history.accepted("+/update").denials


def test_filters_are_tried_one_by_one_after_two_closes_and_no_longer_than_needed() -> None:
    closed = Ended(Cause.UNSUBSCRIBED)
    assert not many(closed, 1).one_by_one
    history = many(closed, 2)
    assert history.one_by_one
    assert after(history, Ended(Cause.UNREACHED), 0.0, 0.5).one_by_one, "that says nothing about the filters"
    assert not after(history, Ended(Cause.LOST, 1.0), 0.0, 0.5).one_by_one


def test_the_numbers_can_be_chosen() -> None:
    history = History(Limits(loop=1, hold_first=0.5, cap=3.0))
    history = after(history, Ended(Cause.LOST, 1.0, "get"), 0.0, 0.5)
    assert history.denials["get"].hold == 0.5
    assert many(Ended(Cause.UNREACHED), 9, history=history).wait == pytest.approx(3.0)


def test_kinds_are_topics_with_a_plus_for_the_job() -> None:
    job = JobId("greet")
    requests: list[Request] = [
        GetPending("t"),
        DescribeNext("t"),
        Describe("t", job, 1),
        Update("t", job, 1, 1, Status.FAILED, {}),
    ]
    assert [kind_of(request) for request in requests] == KINDS


SHADOW = kind_of(Shadow("thingjobs", b"{}"))


@given(ROLLS)
def test_a_shadow_after_which_a_connection_ended_is_held_back_at_once_and_for_long(roll: float) -> None:
    ended = Ended(Cause.LOST, 5.0, SHADOW)
    history = after(History(), ended, 100.0, roll)
    assert history.denials[SHADOW].hold >= LIMITS.aside_first * 2 / 3
    assert history.holds(SHADOW, 100.0 + 1800)
    assert not any(history.holds(kind, 100.0) for kind in KINDS)
    # What ended the connection is known, so the next one is tried soon: jobs lose a moment.
    assert history.tries == 1
    for _ in range(9):
        history = after(history, ended, 100.0, roll)
    assert LIMITS.aside_cap * 2 / 3 <= history.denials[SHADOW].hold <= LIMITS.aside_cap * 4 / 3
    assert not history.accepted(SHADOW).holds(SHADOW, 100.0)


def test_topics_are_those_of_jobs_and_of_named_shadows() -> None:
    assert topic_of("pump-7", "+/update") == "$aws/things/pump-7/jobs/+/update"
    assert topic_of("pump-7", SHADOW) == "$aws/things/pump-7/shadow/name/thingjobs/update"
