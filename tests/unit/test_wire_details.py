"""Whatever a handler says, the status details that go out are ones that the service stores."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thingjobs import wire
from thingjobs.jobs import Update
from thingjobs.model import JobId, Status
from thingjobs.testing import JobsService, ManualClock, Message

THING = "pump-7"
JOB = JobId("greet")
NASTY = "\ud800\udfff\x00\x07\x1b\x7f\x85\u00ad\u200d\u202e\u2028\u2029\ufeff"
NASTY += "\ue000\U000e0001\U0010ffff\u0378\n\r\t ⏎é\u0301ß𝄞"
#: Any text at all, from nothing to far beyond the limits; surrogates and unassigned characters included.
TEXTS = st.builds(
    lambda text, times: text * times,
    st.text(st.one_of(st.sampled_from(NASTY), st.characters(), st.sampled_from("abc:_-")), max_size=12),
    st.sampled_from([1, 1, 1, 3, 400]),
)
KEYS = st.one_of(TEXTS, st.text("abcZ09:_-", min_size=1, max_size=3), st.sampled_from(["stdout", "stderr", "k" * 129]))
LEGAL_KEY = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
#: What the agent itself puts in; one of them is often empty.
OURS = st.fixed_dictionaries(
    {"agent": st.just("thingjobs/1.0"), "claim": st.sampled_from(["", "c-1"])},
    optional={"reason": TEXTS, "code": st.sampled_from(["", "handler.exit"]), "progress": TEXTS},
)
ANYTHING = st.dictionaries(KEYS, TEXTS, max_size=12)


def stored(details: dict[str, str]) -> dict[str, str]:
    """Send `details` to the service; return what it stored. It fails the test if the service refuses them."""
    service = JobsService(ManualClock())
    service.create_job(JOB, {}, [THING])
    answers: list[Message] = []
    update = Update("t-1", JOB, 1, 1, Status.IN_PROGRESS, details)
    service.handle(THING, f"{JOB}/update", wire.encode(update), answers.append)
    assert [answer.suffix for answer in answers] == [f"{JOB}/update/accepted"], answers[0].body
    return dict(service.execution(THING, JOB).details)


@given(OURS, ANYTHING)
@settings(max_examples=settings().max_examples // 3, deadline=None)
@example({"agent": "a"}, {"stdout": NASTY * 300, "": "x", "k": "", "ä": "x", "a b": "x", "a\n": "x"})
def test_the_service_takes_and_stores_whatever_becomes_of_any_text(
    ours: dict[str, str], theirs: dict[str, str]
) -> None:
    details = wire.legal_details(ours, theirs)

    assert stored(details) == details


@given(OURS, ANYTHING)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_details_keep_the_limits_of_the_quotas_page(ours: dict[str, str], theirs: dict[str, str]) -> None:
    details = wire.legal_details(ours, theirs)

    assert len(details) <= 10
    assert [key for key in details if not LEGAL_KEY.fullmatch(key)] == []
    assert [value for value in details.values() if not 1 <= len(value.encode()) <= 1024] == []
    assert {c for value in details.values() for c in value if unicodedata.category(c)[0] == "C"} == set()


@given(OURS, ANYTHING)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_our_pairs_stand_first_as_if_the_handler_had_said_nothing(ours: dict[str, str], theirs: dict[str, str]) -> None:
    alone = wire.legal_details(ours, {})

    assert list(wire.legal_details(ours, theirs).items())[: len(alone)] == list(alone.items())


@given(OURS, st.lists(st.tuples(st.sampled_from(["agent", "claim", "reason", "code", "progress"]), TEXTS), max_size=6))
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_a_handler_neither_replaces_nor_fills_a_pair_of_ours(ours: dict[str, str], said: list[tuple[str, str]]) -> None:
    theirs = {key: f"forged {text}" for key, text in said}

    details = wire.legal_details(ours, theirs)

    assert {key: value for key, value in details.items() if key in ours} == wire.legal_details(ours, {})


@given(TEXTS)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_output_keeps_its_end_and_everything_else_its_beginning(text: str) -> None:
    details = wire.legal_details({}, {"stderr": text, "slot": text})

    whole = wire.clean(text).strip()
    assert whole.endswith(details.get("stderr", ""))
    assert whole.startswith(details.get("slot", ""))


@given(st.text(min_size=1, max_size=300), st.integers(4, 40))
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_a_cut_loses_no_more_than_it_must(text: str, limit: int) -> None:
    for cut, kept in ((wire.head(text, limit), text.startswith), (wire.tail(text, limit), text.endswith)):
        assert kept(cut)
        size = len(cut.encode())
        assert size <= limit
        # A character has at most 4 bytes: 3 are lost where the next one would not fit.
        assert cut == text or size > limit - 4


@pytest.mark.parametrize("text", ["", " ", "\n", "\r\n\t ", "\u200d", "\ufeff", "\ud800", "\x1b", "\ue000", "\u2003"])
def test_a_value_with_nothing_to_show_is_left_out(text: str) -> None:
    assert wire.legal_details({"a": text}, {"b": text, "c": "x"}) == {"c": "x"}


@pytest.mark.parametrize("key", ["", "a b", "a.b", "a/b", "ä", "a\n", "\ud800", "k" * 129])
def test_a_pair_with_an_illegal_key_is_left_out(key: str) -> None:
    assert wire.legal_details({}, {key: "x", "k" * 128: "y", "a:b_C-9": "z"}) == {"k" * 128: "y", "a:b_C-9": "z"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("one\ntwo", "one ⏎ two"),
        ("one\r\ntwo\r\n", "one ⏎ two"),
        ("one\u2028two", "one ⏎ two"),
        ("a\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("👨\u200d👩\u200d👧", "👨👩👧"),
        ("e\u0301", "é"),
        ("\ufeffBOM", "BOM"),
        ("50\u00a0%", "50\u00a0%"),
        ("a\ud83d\ude00b", "ab"),
    ],
)
def test_text_stays_readable_when_what_is_illegal_is_taken_out(said: str, shown: str) -> None:
    assert wire.legal_details({}, {"text": said}) == {"text": shown}


def test_a_handler_gets_the_room_that_is_left_in_the_order_it_spoke() -> None:
    ours = {"agent": "a", "claim": "c"}

    details = wire.legal_details(ours, {f"k{n}": "x" for n in range(20)})

    assert list(details) == ["agent", "claim", *(f"k{n}" for n in range(8))]


def test_a_megabyte_of_output_becomes_its_last_line() -> None:
    details = wire.legal_details({}, {"stdout": "noise " * 200_000 + "the end"})

    assert len(details["stdout"].encode()) <= 1024
    assert details["stdout"].endswith("noise the end")
