"""A record comes back from its bytes as it was, or not at all: never as something else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs import records
from thingjobs.model import Code, Deadline, Identity, JobId, Limits, Phase, Plan, Process, Record, Result, Status, Verb

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Lone surrogates too; two that are halves of one character become that character in JSON, so there are only low ones.
TEXTS = st.text(st.characters() | st.just("\udcff"), max_size=12).filter(
    lambda text: not re.search("[\ud800-\udbff]", text)
)
JUNK: list[Any] = [None, True, 5, 1.5, "x", [], {}, ["x"], {"x": "y"}, "²", [[]] * 3]
COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e10)
DETAILS = st.dictionaries(TEXTS, TEXTS, max_size=3)
VERBS = st.sampled_from(Verb)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=4,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=2)
IDENTITIES = st.builds(
    Identity, st.from_regex(r"\A[a-zA-Z0-9_-]{1,64}\Z").map(JobId), st.integers(-1, 2**62), st.integers(0, 2**40)
)
PLANS = st.builds(
    Plan,
    handler=TEXTS,
    argv=st.lists(TEXTS, max_size=3).map(tuple),
    verbs=st.frozensets(VERBS).map(lambda verbs: verbs | {Verb.APPLY}),
    digest=TEXTS,
    version=TEXTS,
    params=DOCUMENTS,
    user=st.none() | TEXTS,
    limits=st.builds(Limits, *[SECONDS] * 7, st.none() | SECONDS),
    apply_rerun=st.booleans(),
    elsewhere=st.booleans(),
    cancel_apply=st.booleans(),
    check_only=st.booleans(),
)
RESULTS = st.one_of(
    st.just(Result(Status.SUCCEEDED)),
    st.builds(Result, st.sampled_from([Status.FAILED, Status.REJECTED]), st.sampled_from(Code), TEXTS.map("x".__add__)),
)
#: One for each field: a field that is new has to come back too.
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "identity": IDENTITIES,
    "phase": st.sampled_from(Phase),
    "claim": TEXTS,
    "version": COUNTS,
    "plan": PLANS,
    "document": DOCUMENTS,
    "verb": st.none() | VERBS,
    "process": st.none() | st.builds(Process, COUNTS, COUNTS, TEXTS),
    "attempts": st.dictionaries(VERBS, COUNTS, max_size=3),
    "deaths": COUNTS,
    "reboots": COUNTS,
    "reboot_asked": COUNTS,
    "again": st.none() | VERBS,
    "boot": TEXTS,
    "until": st.none() | st.builds(Deadline, SECONDS, TEXTS),
    "applied": st.booleans(),
    "cancelled": st.booleans(),
    "ended": st.none() | st.sampled_from(Status),
    "result": st.none() | RESULTS,
    "owed": st.booleans(),
    "unanswered": st.booleans(),
    "late": TEXTS,
    "note": TEXTS,
    "details": DETAILS,
    "finished_at": st.none() | SECONDS,
    "order": COUNTS,
}
RECORDS = st.builds(Record, **MEMBERS)

SAMPLE = Record(
    Identity(JobId("fw-1"), 2, 1_790_000_000),
    Phase.APPLYING,
    "c0ffee",
    3,
    Plan("firmware", ("/h/firmware",), frozenset({Verb.APPLY, Verb.ROLLBACK}), params={"slot": "b"}),
    {"handler": "firmware", "params": {"slot": "b"}},
    Verb.APPLY,
    Process(4711, 99, "boot-1"),
    {Verb.APPLY: 1},
    applied=True,
    details={"step": "⏎"},
)
DATA = records.dump(SAMPLE)


def signed(body: bytes, number: int = 1) -> bytes:
    """Return the file that any release of format `number` would write for `body`."""
    digest = hashlib.sha256(f"{number}\n".encode() + body).hexdigest()
    return json.dumps({"format": number, "sha256": digest}).encode() + b"\n" + body + b"\n"


def test_every_field_of_a_record_is_tried_below() -> None:
    assert {field.name for field in fields(Record)} == set(MEMBERS)


@given(RECORDS)
@settings(max_examples=settings().max_examples // 5, deadline=None)
def test_any_record_of_a_running_execution_comes_back_whole(record: Record) -> None:
    if record.phase is Phase.DONE:
        record = replace(record, phase=Phase.REPORTING)

    assert records.load(records.dump(record)) == record


@given(RECORDS)
@settings(max_examples=settings().max_examples // 10, deadline=None)
def test_a_tombstone_keeps_everything_but_what_the_document_said(record: Record) -> None:
    record = replace(record, phase=Phase.DONE)

    kept = records.load(records.dump(record))

    assert kept == replace(record, document={}, plan=replace(record.plan, params={}))


@given(RECORDS)
@settings(max_examples=settings().max_examples // 10, deadline=None)
def test_a_record_is_two_lines_of_ascii(record: Record) -> None:
    data = records.dump(record)

    assert data.isascii()
    assert data.count(b"\n") == 2


# --- damage -------------------------------------------------------------------------------------------------------


def damaged(data: bytes) -> None:
    """Check that `data` is taken for what it is: damaged, or at best unchanged in meaning."""
    try:
        found = records.load(data)
    except records.CorruptError:
        return
    assert found == SAMPLE, data


def flipped(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_a_bit_that_flipped_anywhere_never_makes_another_record() -> None:
    for data in flipped(DATA):
        damaged(data)


def test_no_other_byte_in_the_first_line_makes_another_record_or_a_newer_one() -> None:
    for at in range(DATA.index(b"\n") + 1):
        for other in range(256):
            damaged(DATA[:at] + bytes([other]) + DATA[at + 1 :])


@given(st.integers(0, len(DATA)), st.integers(0, 8), st.binary(max_size=8))
@settings(max_examples=settings().max_examples, deadline=None)
def test_bytes_put_in_or_taken_out_anywhere_never_make_another_record(at: int, less: int, more: bytes) -> None:
    damaged(DATA[:at] + more + DATA[at + less :])


def test_a_record_that_was_cut_anywhere_is_corrupt() -> None:
    for size in range(len(DATA)):
        with pytest.raises(records.CorruptError):
            records.load(DATA[:size])


@pytest.mark.parametrize("block", [1, 16, 512])
def test_a_record_whose_end_is_zeros_is_corrupt(block: int) -> None:
    # What a file system shows of a file whose length was written before its content.
    for size in range(0, len(DATA) - 1, block):
        with pytest.raises(records.CorruptError):
            records.load(DATA[:size] + bytes(len(DATA) - size))


@pytest.mark.parametrize("more", [b"\n", b" ", b"\0", DATA])
def test_a_record_with_something_behind_it_is_corrupt(more: bytes) -> None:
    with pytest.raises(records.CorruptError):
        records.load(DATA + more)


def test_the_first_line_of_one_record_does_not_fit_the_second_of_another() -> None:
    other = records.dump(replace(SAMPLE, version=4))

    with pytest.raises(records.CorruptError):
        records.load(DATA.split(b"\n")[0] + b"\n" + other.split(b"\n")[1] + b"\n")


@given(st.binary() | st.binary().map(signed))
@settings(max_examples=settings().max_examples, deadline=None)
def test_any_other_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(records.CorruptError):
        records.load(data)


#: Members that came later: an older agent of the same format wrote none.
LATER = {"until", "order"}


@pytest.mark.parametrize("member", sorted(LATER))
def test_a_record_of_before_a_member_was_thought_of_is_read(member: str) -> None:
    raw = json.loads(DATA.split(b"\n")[1])
    del raw[member]

    assert records.load(signed(json.dumps(raw).encode())) == SAMPLE


@pytest.mark.parametrize("member", sorted(json.loads(DATA.split(b"\n")[1]).keys() - LATER))
def test_a_record_that_lacks_anything_is_corrupt(member: str) -> None:
    raw = json.loads(DATA.split(b"\n")[1])
    del raw[member]

    with pytest.raises(records.CorruptError):
        records.load(signed(json.dumps(raw).encode()))


@pytest.mark.parametrize("member", json.loads(DATA.split(b"\n")[1]))
def test_a_member_of_the_wrong_type_raises_nothing_but_corrupt(member: str) -> None:
    raw = json.loads(DATA.split(b"\n")[1])
    for junk in JUNK:
        with contextlib.suppress(records.CorruptError):
            records.load(signed(json.dumps({**raw, member: junk}).encode()))


# --- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{}", b"anything", DATA.split(b"\n")[1]])
@pytest.mark.parametrize("number", [0, 2, 3, 10**6])
def test_a_format_that_this_release_does_not_know_is_refused_as_such(number: int, body: bytes) -> None:
    with pytest.raises(records.NewerError, match=str(number)):
        records.load(signed(body, number))


def test_a_damaged_record_of_a_newer_format_is_corrupt() -> None:
    newer = signed(b'{"later": "release"}', 2)

    for size in range(len(newer)):
        with pytest.raises(records.CorruptError):
            records.load(newer[:size])


def test_what_this_release_writes_is_what_it_reads() -> None:
    assert records.FORMAT in records.readable()
    assert signed(DATA.split(b"\n")[1], records.FORMAT) == DATA


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this the release to come, which tells the note in another place."""
    step = records.Step(up=lambda old: {**old, "remark": 1}, down=lambda new: {**new, "note": new["note"] + "!"})
    monkeypatch.setattr(records, "FORMAT", records.FORMAT + 1)
    monkeypatch.setattr(records, "STEP", step)


@pytest.mark.usefixtures("later")
def test_a_later_release_reads_and_writes_what_this_one_does() -> None:
    record, born = records.load_born(DATA)
    head, body = records.dump(record, born).splitlines()

    assert (born, json.loads(head)["format"]) == (records.FORMAT - 1, records.FORMAT - 1)
    assert json.loads(body)["note"] == record.note + "!"
    assert records.load_born(records.dump(record)) == (record, records.FORMAT)


@pytest.mark.usefixtures("later")
def test_a_later_release_refuses_what_is_older_than_the_release_before() -> None:
    with pytest.raises(records.NewerError):
        records.load(signed(DATA.split(b"\n")[1], records.FORMAT - 2))


@pytest.mark.usefixtures("later")
def test_a_record_of_which_a_later_release_makes_nothing_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "note": old["plan"]["argv"][9]}

    monkeypatch.setattr(records, "STEP", records.Step(up=up, down=dict))

    with pytest.raises(records.CorruptError, match="IndexError"):
        records.load(DATA)


@pytest.mark.parametrize("path", [(), ("plan",), ("process",), ("plan", "limits"), ("plan", "resources")])
def test_a_key_that_a_later_release_added_is_left_out(path: tuple[str, ...]) -> None:
    raw = json.loads(DATA.split(b"\n")[1])
    place = raw
    for name in path:
        place = place[name]
    place["added"] = {"by": "a later release"}

    assert records.load(signed(json.dumps(raw).encode())) == SAMPLE


def test_a_code_that_a_later_release_added_is_still_told() -> None:
    raw = json.loads(DATA.split(b"\n")[1])
    raw["result"] = {"status": "FAILED", "code": "moon.full", "reason": "wait a week"}

    result = records.load(signed(json.dumps(raw).encode())).result

    assert result == Result(Status.FAILED, Code.HANDLER_FAILED, "moon.full: wait a week")
