"""Whatever bytes a handler writes as events, they are understood, or counted and left out."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thingjobs.runner.events import MAX_CHARACTERS, MAX_DETAILS, MAX_LINE_BYTES, Lines, Said, fold, kept
from thingjobs.runner.exits import signal_name
from thingjobs.runner.joblog import TAIL_BYTES, Tail
from thingjobs.runner.pace import Pace

NAMES = ("progress", "message", "details", "reason", "code", "reject", "after", "refresh", "refused", "unheard-of")
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, -(10**400), 2**63]),
        st.floats(),
        st.text(st.characters(), max_size=8),
        st.just("x" * (MAX_CHARACTERS + 1)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
EVENTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)
FEW = settings(max_examples=settings().max_examples // 2, deadline=None)


def line(**event: Any) -> bytes:
    return json.dumps(event).encode()


def said(*events: dict[str, Any]) -> Said:
    everything = Said()
    for event in events:
        everything = fold(everything, line(**event))
    return everything


# --- one event ----------------------------------------------------------------------------------------------------


def test_an_event_says_how_far_the_verb_is() -> None:
    heard = said({"progress": 40, "message": "writing slot b", "details": {"slot": "b"}})

    assert heard == Said(percent=40.0, message="writing slot b", details={"slot": "b"})


def test_a_later_word_replaces_an_earlier_one_and_leaves_the_others() -> None:
    heard = said(
        {"progress": 1, "message": "a", "details": {"x": "1", "y": "1"}},
        {"message": "b", "details": {"y": "2"}},
        {"reason": "no room", "code": "fetch.space", "reject": True},
        {"reject": False, "after": 5},
    )

    assert heard == Said(1.0, "b", {"x": "1", "y": "2"}, "no room", "fetch.space", reject=False, after=5.0)


@given(st.lists(EVENTS, max_size=3))
@settings(max_examples=settings().max_examples // 4, deadline=None)
def test_what_is_kept_is_bounded_and_of_the_right_type_whatever_was_said(events: list[dict[str, Any]]) -> None:
    heard = said(*events)

    assert heard.percent is None or 0 <= heard.percent <= 100
    assert heard.after is None or 0 <= heard.after <= 30 * 86400
    assert heard.reject in (True, False)
    assert max(len(text) for text in (heard.message, heard.reason, heard.code)) <= MAX_CHARACTERS
    assert [text for text in heard.details.values() if not isinstance(text, str) or len(text) > MAX_CHARACTERS] == []


@given(st.binary() | EVENTS.map(lambda event: json.dumps(event).encode()), st.integers(0, 40), st.binary(max_size=2))
@example(b'{"progress":' + b"9" * 400 + b"}", 0, b"")
@example(b'{"progress":' + b"9" * 5000 + b"}", 0, b"")
@FEW
def test_any_line_is_an_event_or_counted_as_none(text: bytes, at: int, instead: bytes) -> None:
    before = Said(percent=1.0, message="m", broken=3)

    heard = fold(before, text[:at] + instead + text[at + len(instead) :])

    # One that asks for what cannot be asked for counts as well, and is heard for the rest.
    assert heard.broken in (3, 4)


@pytest.mark.parametrize("member", ["details", "progress", "x"])
def test_no_depth_of_nesting_is_too_much(member: str) -> None:
    # At some of these depths Python reads what it can no longer write.
    for depth in (100, *range(960, 1010), 30_000):
        text = b'{"%b":{"a":%b%b}}' % (member.encode(), b"[" * depth, b"]" * depth)
        assert fold(Said(), text).broken in (0, 1)


@pytest.mark.parametrize(
    "text", [b"", b"x", b"{", b"[]", b"5", b"null", b'"x"', b"[" * 100_000, b"\xff", b'{"a":1}{}', b"\0\0\0"]
)
def test_a_line_that_is_no_event_is_counted(text: bytes) -> None:
    assert fold(Said(message="m"), text) == Said(message="m", broken=1)


@pytest.mark.parametrize("junk", [None, True, "50", [], {}, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("member", ["progress", "after"])
def test_a_number_that_is_none_leaves_the_one_before(member: str, junk: object) -> None:
    assert said({"progress": 7, "after": 8}, {member: junk}) == Said(percent=7.0, after=8.0)


@pytest.mark.parametrize(("given_as", "percent"), [(-1, 0), (101, 100), (10**400, 100), (-(10**400), 0), (99.5, 99.5)])
def test_a_number_beyond_its_bounds_is_brought_back(given_as: float, percent: float) -> None:
    assert said({"progress": given_as}).percent == percent


@pytest.mark.parametrize("junk", [None, True, 5, [], {}])
@pytest.mark.parametrize("member", ["message", "reason", "code"])
def test_a_text_that_is_none_leaves_the_one_before(member: str, junk: object) -> None:
    before = {"message": "m", "reason": "r", "code": "c"}

    assert said(before, {member: junk}) == Said(message="m", reason="r", code="c")


@pytest.mark.parametrize("junk", [None, 1, "true", "", [1], {"a": 1}])
def test_only_true_rejects(junk: object) -> None:
    assert said({"reject": junk}).reject is False
    assert said({"reject": True}, {"message": "more"}).reject is True


@pytest.mark.parametrize(("content", "shown"), [(5, "5"), (True, "true"), (None, "null"), ([1], "[1]"), ({}, "{}")])
def test_a_detail_that_is_no_text_is_shown_as_json(content: object, shown: str) -> None:
    assert said({"details": {"a": content}}).details == {"a": shown}


def test_the_newest_details_are_kept() -> None:
    heard = said(*({"details": {f"k{n}": "x"}} for n in range(100)))

    assert list(heard.details) == [f"k{n}" for n in range(100 - MAX_DETAILS, 100)]


def test_long_output_keeps_its_end_and_other_text_its_beginning() -> None:
    text = "a" + "x" * MAX_CHARACTERS + "z"

    details = said({"details": {"stdout": text, "stderr": text, "slot": text}}).details

    assert [details[key][-1] for key in ("stdout", "stderr")] == ["z", "z"]
    assert details["slot"][0] == "a"


# --- lines --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=8),
    st.lists(st.integers(0, 60)),
)
@FEW
def test_lines_do_not_depend_on_how_the_bytes_arrived(texts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(text + b"\n" for text in texts)
    lines, found, start = Lines(), [], 0

    for cut in [*sorted(cuts), len(stream)]:
        found += lines.feed(stream[start:cut])
        start = max(start, min(cut, len(stream)))

    assert found == [text for text in texts if text.strip()]


def test_an_endless_line_takes_no_memory_and_is_counted_once() -> None:
    lines = Lines()

    for _ in range(100):
        assert lines.feed(b"x" * 65536) == []
        assert len(lines._rest) <= MAX_LINE_BYTES

    (skipped, good) = lines.feed(b'xxx\n{"progress": 1}\n')
    assert fold(fold(Said(), skipped), good) == Said(percent=1.0, broken=1)


def test_a_line_as_long_as_is_allowed_is_whole() -> None:
    lines, text = Lines(), b"x" * MAX_LINE_BYTES

    assert lines.feed(text) == []
    assert lines.feed(b"\n") == [text]


# --- the end ------------------------------------------------------------------------------------------------------


def test_the_last_line_of_output_is_the_last_that_says_something() -> None:
    tail = Tail()
    tail.append(b"first\nno such \xffile\r\n\n   \n")

    assert tail.last_line() == "no such \ufffdile"
    assert Tail().last_line() == ""


def test_a_tail_is_bounded_however_much_is_written() -> None:
    tail = Tail()
    for _ in range(100):
        tail.append(b"x" * 10_000)

    assert len(tail.last_line()) == TAIL_BYTES


def test_a_plain_exit_status_is_no_signal() -> None:
    assert {signal_name(code) for code in (None, *range(129), *range(193, 256))} == {""}


def test_a_shells_status_above_128_is_the_signal_that_it_stands_for() -> None:
    known = {one.value: one.name for one in signal.Signals}

    for number in range(1, 65):
        assert signal_name(128 + number) == known.get(number, f"signal {number}")


# --- asking for parameters anew -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "refresh", "broken"),
    [("params", True, 0), ("cloud", False, 0), ("moon", False, 0), ("", False, 0), (None, False, 1), (1, False, 1)],
)
def test_only_what_can_be_asked_for_is_asked_for(asked: object, refresh: bool, broken: int) -> None:
    heard = said({"refresh": asked, "message": "expired"})

    assert (heard.refresh, heard.broken, heard.message) == (refresh, broken, "expired")


@pytest.mark.parametrize(
    ("refused", "told"), [("ASIA1", "ASIA1"), (None, ""), (7, ""), (["ASIA1"], ""), ("A" * 4096, "A" * 128)]
)
def test_credentials_are_asked_for_with_the_key_that_is_refused(refused: object, told: str) -> None:
    heard = said({"refresh": "cloud", "refused": refused}, {"message": "m"})

    assert (heard.cloud, heard.refresh, heard.broken) == (told, False, 0)


def test_a_key_alone_asks_for_nothing() -> None:
    assert said({"refused": "ASIA1"}, {"refresh": "params", "refused": "ASIA1"}).cloud is None


def test_parameters_and_credentials_are_two_questions() -> None:
    heard = said({"refresh": "cloud"}, {"refresh": "params"})

    assert (heard.cloud, heard.refresh) == ("", True)


def test_having_asked_is_not_taken_back_by_other_words() -> None:
    assert said({"refresh": "params"}, {"refresh": "cloud"}, {"message": "m"}).refresh


# --- what an agent keeps for the next one ---------------------------------------------------------------------------


@given(st.lists(EVENTS, max_size=3))
@FEW
def test_what_is_kept_for_the_next_agent_says_all_that_the_result_needs(events: list[dict[str, Any]]) -> None:
    heard = said(*events)

    again = fold(Said(), kept(heard)) if kept(heard) else Said()

    for name in ("details", "reason", "code", "reject", "after"):
        assert getattr(again, name) == getattr(heard, name)
    assert again.broken == 0


def test_news_alone_is_not_kept() -> None:
    wishes = ({"refresh": "params"}, {"refresh": "cloud", "refused": "ASIA1"})
    assert kept(said({"progress": 40, "message": "m"}, *wishes)) == b""


# --- taking no more than a share ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5)), max_size=20))
@FEW
def test_who_waits_as_told_takes_no_more_than_its_share(work: list[tuple[float, float]]) -> None:
    pace, now, done = Pace(0.2, 0.5), 1000.0, 0.0
    for seconds, idle in work:
        now += idle
        now += pace.wait(now)
        pace.spent(seconds, now)
        done += seconds
        now += pace.wait(now)

    assert done <= 0.2 * (now - 1000.0) + 0.5 + 1e-6


def test_a_little_is_free() -> None:
    pace = Pace(0.2, 0.5)
    pace.spent(0.4, 10.0)

    assert pace.wait(10.0) == 0.0
    pace.spent(0.3, 10.0)
    assert pace.wait(10.0) == pytest.approx(1.0)
    assert pace.wait(10.4) == pytest.approx(0.6)
    assert pace.wait(11.5) == 0.0
