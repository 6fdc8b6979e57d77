"""What the service sends is read as it was meant, and what nobody should send raises WireError and nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs import wire
from thingjobs.errors import WireError
from thingjobs.jobs import (
    Describe,
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    Pending,
    Refusal,
    Refused,
    State,
    Summary,
    Update,
    Updated,
)
from thingjobs.model import Execution, Identity, JobId, Status
from thingjobs.testing import JobsService, ManualClock, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Request
    from thingjobs.testing import ExecutionView

THING = "pump-7"
JOB = JobId("greet")
ASKED: tuple[Request, ...] = (
    GetPending("t"),
    DescribeNext("t"),
    Describe("t", JOB, 1, with_document=True),
    Update("t", JOB, 1, 1, Status.SUCCEEDED, {}),
)
#: Every way to take a message apart.
READERS: tuple[Callable[[dict[str, Any]], object], ...] = (
    wire.decode_next,
    wire.decode_list,
    wire.token_of,
    *(lambda body, request=request: wire.decode_accepted(request, body) for request in ASKED),
    *(lambda body, request=request: wire.decode_refused(request, body) for request in ASKED),
)
HEAD = {"jobId": "greet", "executionNumber": 1, "queuedAt": 1_790_000_000, "versionNumber": 3, "status": "QUEUED"}
IDENTITY = Identity(JOB, 1, 1_790_000_000)


def nested(depth: int) -> Any:
    """Return a list in a list, `depth` times."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


#: What stands where something else should.
JUNK: list[Any] = [None, True, [], {}, [[]], [{}], {"x": 1}, [{"jobId": "a"}], nested(500)]
JUNK += [-1, 0, 1.5, 1e300, 2**63, -(2**63), 10**400, 1_790_000_000_000, "1", "-1", "--1", "1.0", "²", "٣"]
JUNK += ["", "x", "QUEUED", "\ud800", "9" * 400, "9" * 5000]
NAMES = ("execution", "jobs", "inProgressJobs", "queuedJobs", "executionState", "jobDocument", "clientToken", "code")
MEMBERS = ("jobId", "executionNumber", "queuedAt", "versionNumber", "status", "statusDetails", "jobDocument")
HEADS = st.builds(
    lambda changes: {**HEAD, **changes},
    st.dictionaries(st.sampled_from([*MEMBERS, "approximateSecondsBeforeTimedOut"]), st.sampled_from(JUNK), max_size=3),
)
PARTS = st.one_of(HEADS, st.sampled_from(JUNK), st.lists(HEADS, max_size=2))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8"), max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "message"]),
        st.one_of(PARTS, st.dictionaries(st.sampled_from(["QUEUED", "IN_PROGRESS"]), PARTS)),
        max_size=4,
    )
)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_a_message_with_anything_anywhere_is_read_or_raises_wire_error(body: dict[str, Any]) -> None:
    for read in READERS:
        with contextlib.suppress(WireError):
            read(body)


@pytest.mark.parametrize("junk", [5, "x", True, {}, {"a": 1}, [None], ["x"], [[]], [{}], "", 0, False])
def test_a_list_of_executions_that_is_none_raises_wire_error(junk: object) -> None:
    for body in ({"jobs": {"QUEUED": junk}}, {"jobs": {"IN_PROGRESS": junk}}):
        with pytest.raises(WireError):
            wire.decode_list(body)
    for name in ("queuedJobs", "inProgressJobs"):
        with pytest.raises(WireError):
            wire.decode_accepted(GetPending("t"), {name: junk})


@pytest.mark.parametrize("junk", [None, 5, "x", [], {}])
def test_a_state_that_is_none_is_none(junk: object) -> None:
    assert wire.decode_accepted(ASKED[-1], {"executionState": junk}) == Updated("t", None, None)


@pytest.mark.parametrize("name", [*MEMBERS, "approximateSecondsBeforeTimedOut"])
def test_a_member_of_an_execution_may_be_any_junk(name: str) -> None:
    for junk in JUNK:
        for read in READERS:
            with contextlib.suppress(WireError):
                read({"execution": {**HEAD, name: junk}})
                read({"jobs": {"QUEUED": [{**HEAD, name: junk}]}})
                read({"inProgressJobs": [{**HEAD, name: junk}], "executionState": {**HEAD, name: junk}})


@given(
    st.one_of(st.binary(), VALUES.map(lambda value: json.dumps(value).encode())),
    st.integers(0, 60),
    st.binary(max_size=2),
)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_any_bytes_are_an_object_or_raise_wire_error(data: bytes, at: int, instead: bytes) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(wire.parse(data[:at] + instead + data[at + len(instead) :]), dict)


@pytest.mark.parametrize("member", ["jobDocument", "statusDetails", "versionNumber", "jobId"])
def test_depth_never_gets_past_the_reader(member: str) -> None:
    # At some of these depths Python still reads what it no longer writes or shows.
    for depth in (400, *range(960, 1010), 60_000):
        text = json.dumps({"execution": {**HEAD, member: "HERE"}}).replace('"HERE"', "[" * depth + "]" * depth)
        try:
            body = wire.parse(text.encode())
        except WireError:
            continue
        for read in READERS:
            with contextlib.suppress(WireError):
                read(body)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1}x',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_in_utf_8_raises_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse(payload)


@pytest.mark.parametrize("levels", [500, 5000, 50_000])
def test_a_message_that_is_nested_deeper_than_anybody_needs_is_read_or_refused(levels: int) -> None:
    """Which, depends on Python."""
    payload = b'{"a":' * levels + b"1" + b"}" * levels
    with contextlib.suppress(WireError):
        assert list(wire.parse(payload)) == ["a"]


@pytest.mark.timeout(5)
def test_a_message_that_was_cut_off_in_the_middle_of_a_text_takes_no_time_to_refuse() -> None:
    with pytest.raises(WireError):
        wire.parse(b'{"jobDocument":{"a":"' + b'\\"' * 60_000)


@pytest.mark.parametrize(
    "absurd", ["[" * 5000 + "]" * 5000, '{"n":' + "1" * 5000 + "}", '{"a":' * 3000 + "1" + "}" * 3000]
)
@pytest.mark.parametrize(
    "between", ['"other":{},', '"x":"\\"jobDocument\\":{[",', '"x":{"y":[{}]},', '"x":{"y":{"jobDocument":{}}},', ""]
)
def test_an_absurd_document_costs_the_document_not_the_message(absurd: str, between: str) -> None:
    text = json.dumps({"execution": {**HEAD, "z": "HERE", "approximateSecondsBeforeTimedOut": 7}})
    text = text.replace('"z": "HERE"', f'{between} "jobDocument" : {absurd}')

    assert wire.decode_next(wire.parse(text.encode())).execution == Execution(
        IDENTITY, Status.QUEUED, 3, seconds_left=7
    )


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("depth", "kept"), [(1, True), (wire.MAX_DOCUMENT_DEPTH, True), (wire.MAX_DOCUMENT_DEPTH + 1, False)]
)
def test_a_document_may_be_as_deep_as_we_can_write_it_again(depth: int, as_text: bool, kept: bool) -> None:
    document = {"a": nested(depth - 1)} if depth > 1 else {"a": 1}
    sent: Any = json.dumps(document) if as_text else document

    assert wire.document_of(sent) == (document if kept else None)


@pytest.mark.parametrize("document", [None, 5, "5", "[]", "{", [], "[" * 5000, '{"a":NaN}', True])
def test_a_document_that_is_no_object_is_none(document: object) -> None:
    assert wire.document_of(document) is None


@pytest.mark.parametrize("member", ["jobId", "executionNumber", "queuedAt", "versionNumber", "status"])
@pytest.mark.parametrize("value", [None, True, [], {}, "", "²", 2**63])
def test_an_execution_without_what_identifies_it_raises_wire_error(member: str, value: object) -> None:
    with pytest.raises(WireError):
        wire.decode_next({"execution": {**HEAD, member: value}})


@pytest.mark.parametrize("given_as", [1_790_000_000, 1_790_000_000.7, 1_790_000_000_123, "1790000000", "1790000000123"])
def test_a_time_is_whole_seconds_however_it_was_written(given_as: object) -> None:
    found = wire.decode_next({"execution": {**HEAD, "queuedAt": given_as}}).execution

    assert found is not None
    assert found.identity == IDENTITY


def test_numbers_in_quotes_are_numbers() -> None:
    head = {**HEAD, "executionNumber": "1", "versionNumber": "3", "approximateSecondsBeforeTimedOut": "-5"}

    assert wire.decode_next({"execution": head}).execution == Execution(IDENTITY, Status.QUEUED, 3, seconds_left=-5)


def test_details_that_are_no_text_are_left_out() -> None:
    found = wire.decode_next({"execution": {**HEAD, "statusDetails": {"a": "x", "b": 1, "c": None, "d": nested(800)}}})

    assert found.execution is not None
    assert found.execution.details == {"a": "x"}


@pytest.mark.parametrize("body", [{}, {"execution": None}, {"execution": {}}, {"timestamp": 1}])
def test_no_execution_means_that_nothing_is_pending(body: dict[str, Any]) -> None:
    assert wire.decode_next(body).execution is None
    assert wire.decode_accepted(DescribeNext("t"), body) == Described("t", None)


def test_a_list_without_a_status_has_none_of_it() -> None:
    assert wire.decode_list({"jobs": {}}) == ListChanged((), ())
    assert wire.decode_list({"jobs": {"QUEUED": []}}) == ListChanged((), ())


@pytest.mark.parametrize("code", list(Refusal))
def test_each_refusal_is_told_apart(code: Refusal) -> None:
    refused = wire.decode_refused(GetPending("t"), {"code": code.value, "message": "m"})

    assert refused == Refused("t", code, "m", None, code.value)


@pytest.mark.parametrize("code", ["Surprise", "", None, 5, nested(900)])
def test_a_refusal_that_nobody_knows_is_unknown(code: object) -> None:
    assert wire.decode_refused(GetPending("t"), {"code": code}).code is Refusal.UNKNOWN


# --- with the simulated service -----------------------------------------------------------------------------------


class Device:
    """A thing at the simulated service, with one job whose document is `document`."""

    def __init__(self, document: object = None, *, count: int = 1) -> None:
        self.clock = ManualClock()
        self.service = JobsService(self.clock, presign=lambda url: f"https://signed/{url}")
        self.heard: list[Message] = []
        self.service.listen(THING, self.heard.append)
        for number in range(count):
            self.service.create_job(JOB if number == 0 else f"{JOB}-{number}", document or {}, [THING])

    def ask(self, request: Request, suffix: str) -> Message:
        answers: list[Message] = []
        self.service.handle(THING, suffix, wire.encode(request), answers.append)
        return answers[0]

    def accepted(self, request: Request, suffix: str) -> object:
        answer = self.ask(request, suffix)
        assert answer.accepted, answer.body
        return wire.decode_accepted(request, wire.parse(answer.payload))


def identity(view: ExecutionView) -> Identity:
    return Identity(JobId(view.job_id), view.number, int(view.queued_at))


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), VALUES, max_size=3))
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_a_document_arrives_as_the_service_delivers_it(document: dict[str, Any]) -> None:
    device = Device(document)

    described = device.accepted(DescribeNext("t"), "$next/get")

    assert isinstance(described, Described)
    assert described.execution is not None
    delivered = device.ask(DescribeNext("t"), "$next/get").body["execution"]["jobDocument"]
    assert described.execution.document == delivered


@given(
    st.sampled_from([Status.IN_PROGRESS, Status.SUCCEEDED, Status.FAILED, Status.REJECTED]),
    st.dictionaries(
        st.text("ab:_-9", min_size=1, max_size=4), st.text("xyz ⏎é𝄞", min_size=1).map(lambda t: f"x{t}"), max_size=10
    ),
    st.one_of(st.none(), st.integers(1, 10080)),
    st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=40),
)
@settings(max_examples=settings().max_examples // 3, deadline=None)
def test_every_update_is_taken_and_read_back_whole(
    status: Status, details: dict[str, str], minutes: int | None, with_document: bool, token: str
) -> None:
    device = Device({"handler": "greet"})
    update = Update(token, JOB, 1, 1, status, details, minutes, with_document)

    updated = device.accepted(update, f"{JOB}/update")

    document = {"handler": "greet"} if with_document else None
    assert updated == Updated(token, State(status, 2, details), document)


def test_what_the_service_lists_is_read_in_its_order() -> None:
    device = Device(count=3)
    device.accepted(Update("t", JOB, 1, 1, Status.IN_PROGRESS, {}), f"{JOB}/update")

    views = device.service.executions(THING)

    started, *waiting = (Summary(identity(view), view.version) for view in views)
    assert device.accepted(GetPending("g"), "get") == Pending("g", (started,), tuple(waiting))


def test_notifications_say_what_the_service_holds() -> None:
    device = Device({"handler": "greet", "params": {"n": 1}})
    (view,) = device.service.executions(THING)

    heard = {message.suffix: wire.parse(message.payload) for message in device.heard}

    head = Execution(identity(view), Status.QUEUED, 1, {}, {"handler": "greet", "params": {"n": 1}})
    assert wire.decode_next(heard["notify-next"]).execution == head
    assert wire.decode_list(heard["notify"]) == ListChanged((), (Summary(identity(view), 1),))


def test_an_emptied_queue_is_told_as_nothing() -> None:
    device = Device()
    device.accepted(Update("t", JOB, 1, 1, Status.SUCCEEDED, {}), f"{JOB}/update")

    last = {message.suffix: wire.parse(message.payload) for message in device.heard}

    assert wire.decode_next(last["notify-next"]).execution is None
    assert wire.decode_list(last["notify"]) == ListChanged((), ())


def test_one_execution_is_described_with_its_timer_and_details() -> None:
    device = Device({"handler": "greet"})
    device.accepted(Update("t", JOB, 1, 1, Status.IN_PROGRESS, {"progress": "4 %"}, 10), f"{JOB}/update")
    (view,) = device.service.executions(THING)
    device.clock.advance(60)

    described = device.accepted(Describe("d", JOB, 1, with_document=False), f"{JOB}/get")

    execution = Execution(identity(view), Status.IN_PROGRESS, 2, {"progress": "4 %"}, None, seconds_left=540)
    assert described == Described("d", execution)


@pytest.mark.parametrize(
    ("update", "code", "state"),
    [
        (Update("t", JOB, 1, 9, Status.SUCCEEDED, {}), Refusal.VERSION_MISMATCH, State(Status.QUEUED, 1, {})),
        (Update("t", JOB, 7, 1, Status.SUCCEEDED, {}), Refusal.RESOURCE_NOT_FOUND, None),
        (Update("t", JOB, 1, 1, Status.SUCCEEDED, {"a b": "x"}), Refusal.INVALID_REQUEST, None),
        (Update("t", JOB, 1, 1, Status.SUCCEEDED, {}, 10081), Refusal.INVALID_REQUEST, None),
    ],
)
def test_a_refusal_of_the_service_is_read_with_its_state(update: Update, code: Refusal, state: State | None) -> None:
    answer = Device().ask(update, f"{JOB}/update")

    refused = wire.decode_refused(update, wire.parse(answer.payload))

    assert not answer.accepted
    assert (refused.token, refused.code, refused.state) == ("t", code, state)


def test_an_update_without_details_leaves_those_that_are_stored() -> None:
    device = Device()
    device.accepted(Update("t", JOB, 1, 1, Status.IN_PROGRESS, {"slot": "b"}), f"{JOB}/update")

    device.accepted(Update("u", JOB, 1, 2, Status.SUCCEEDED, {}), f"{JOB}/update")

    assert device.service.execution(THING, JOB).details == {"slot": "b"}
    assert "statusDetails" not in (device.service.requests[-1].body or {})


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("where", ['{"params":{"x":NUMBER}}', '{"params":[[NUMBER]]}', '{"a":"}{","b":NUMBER,"c":{}}'])
def test_a_number_that_json_cannot_hold_costs_the_document_not_the_message(number: str, where: str) -> None:
    document = where.replace("NUMBER", number)
    rest = '"jobId":"a","executionNumber":1,"queuedAt":1,"status":"QUEUED","versionNumber":1'
    message = f'{{"timestamp":1,"execution":{{{rest},"jobDocument":{document}}}}}'

    found = wire.decode_next(wire.parse(message.encode())).execution

    assert found is not None
    assert found.document is None
    assert wire.document_of(document) is None


@pytest.mark.parametrize("number", ["1e308", "-1e308", "5e-324", "1.5"])
def test_a_number_that_json_can_hold_is_kept(number: str) -> None:
    assert wire.document_of(f'{{"x":{number}}}') == {"x": float(number)}


@pytest.mark.parametrize("number", ["1e999", "NaN"])
@pytest.mark.parametrize("member", ["timestamp", "versionNumber", "executionNumber", "queuedAt"])
def test_a_number_that_json_cannot_hold_anywhere_else_raises_wire_error(number: str, member: str) -> None:
    with pytest.raises(WireError):
        wire.decode_next(wire.parse(f'{{"execution":{{"jobId":"a","{member}":{number}}}}}'.encode()))
