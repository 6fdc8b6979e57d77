"""What comes, over every transport: notifications, large messages, and those that make no sense."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.jobs import (
    Connected,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Updated,
)
from thingjobs.model import Status, ThingName
from thingjobs.testing import Message
from thingjobs.testing.web import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device
    from tests.integration.connection.contract.conftest import Harness, Https

    from thingjobs.jobs import Update
    from thingjobs.ports import Transport

    Connect = Callable[[], Device[Transport]]

THING = ThingName("pump-7")
DOCUMENT = {"handler": "greet"}


@pytest.mark.needs("PUSH")
def test_notifications_are_typed_and_come_in_order(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    harness.service.create_job("a", DOCUMENT, [THING])
    assert [summary.identity.job_id for summary in line.next(ListChanged).queued] == ["a"]
    head = line.next(NextChanged).execution
    assert head is not None
    assert (head.identity.job_id, head.status, head.version) == ("a", Status.QUEUED, 1)
    assert head.document == DOCUMENT

    harness.service.create_job("b", {}, [THING])
    assert [summary.identity.job_id for summary in line.next(ListChanged).queued] == ["a", "b"]

    line.send(update("t1", "a"))
    line.next(Updated)
    line.send(update("t2", "a", 2, Status.SUCCEEDED))
    line.next(Updated)
    assert [summary.identity.job_id for summary in line.next(ListChanged).queued] == ["b"]
    head = line.next(NextChanged).execution
    assert head is not None
    assert head.identity.job_id == "b"


@pytest.mark.needs("PUSH")
def test_an_empty_queue_is_told_as_a_next_that_is_none(harness: Harness, line: Device[Transport]) -> None:
    harness.queue(line, "greet")
    harness.service.cancel_job("greet")
    assert line.next(ListChanged) == ListChanged((), ())
    assert line.next(NextChanged) == NextChanged(None)


@pytest.mark.needs("PUSH")
def test_what_another_thing_is_told_is_not_put(harness: Harness, line: Device[Transport]) -> None:
    harness.service.create_job("theirs", {}, ["pump-8"])
    harness.deliver(Message("pump-8", "notify-next", b'{"timestamp":1}'))
    line.asks()


def test_a_document_of_32_kilobytes_arrives_whole(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    document: dict[str, Any] = {"handler": "measure", "name": "Grüße aus 東京 🚀", "blob": ""}
    document["blob"] = "x" * (32_768 - len(json.dumps(document, ensure_ascii=False)))
    harness.queue(line, "large", document=document)
    line.send(DescribeNext("t1"))
    execution = line.next(Described).execution
    assert execution is not None
    assert execution.document == document
    line.send(update("t2", "large", with_document=True))
    assert line.next(Updated).document == document


@pytest.mark.needs("PUSH")
def test_a_notification_with_a_document_of_32_kilobytes_arrives_whole(
    harness: Harness, line: Device[Transport]
) -> None:
    document = {"handler": "measure", "blob": "x" * 32_000}
    harness.service.create_job("large", document, [THING])
    line.next(ListChanged)
    head = line.next(NextChanged).execution
    assert head is not None
    assert head.document == document


@pytest.mark.needs("TOKENS")
def test_a_message_beyond_128_kilobytes_is_left_out_and_the_connection_lives(
    harness: Harness, line: Device[Transport]
) -> None:
    harness.say("notify-next", {"timestamp": 1, "padding": "x" * 128 * 1024})
    with harness.unanswered(line) as ask:
        ask(GetPending("t1"))
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": [], "padding": "x" * 128 * 1024})
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": []})
        assert line.next(Pending).token == "t1"
    line.asks()


@pytest.mark.parametrize("harness", ["https"], indirect=True)
def test_over_https_an_answer_that_is_far_too_large_is_no_reply_and_the_next_one_is(
    harness: Https, line: Device[Transport]
) -> None:
    remove = harness.web.interpose(lambda _call: Answer(200, b'{"queuedJobs":[]}' + b" " * 1024 * 1024))
    line.send(GetPending("t1"))
    reason = line.next(Disconnected).reason  # what was not read yet stands in the way of the next answer
    assert "larger than 512 KiB" in reason
    remove()
    line.skip_to(Connected)
    line.asks()


def test_a_request_beyond_128_kilobytes_gets_no_reply_and_the_connection_lives(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    harness.queue(line, "greet")
    before = len(harness.service.requests)
    line.send(update("t1", "greet", details={"stdout": "x" * 128 * 1024}))
    line.asks()
    assert harness.service.execution(THING, "greet").version == 1
    assert [request.suffix for request in harness.service.requests[before:]] == ["get"]


EXECUTION = {"jobId": "a", "status": "QUEUED", "queuedAt": 1, "versionNumber": 1, "executionNumber": 1}


MALFORMED = [
    ("notify-next", b""),
    ("notify-next", b"\xff\xfe\x00"),
    ("notify-next", b'{"execution":'),
    ("notify-next", b"[1, 2]"),
    ("notify-next", b"null"),
    ("notify-next", b'{"execution": 7}'),
    ("notify-next", b'{"execution": {"jobId": "a"}}'),
    ("notify-next", b'{"timestamp": NaN}'),
    ("notify-next", b"[" * 100_000),
    *(
        ("notify-next", json.dumps({"execution": {**EXECUTION, **wrong}}).encode())
        for wrong in (
            {"status": "PENDING"},
            {"jobId": "../../etc"},
            {"versionNumber": None},
            {"versionNumber": "--5"},
            {"versionNumber": 1e300},
            {"executionNumber": True},
            {"queuedAt": "²"},
        )
    ),
    ("notify", b'{"jobs": [1]}'),
    ("notify", b'{"jobs": {"QUEUED": [7]}}'),
    ("notify", b"{}"),
    ("$next/get/accepted", b"of nobody"),
]


@pytest.mark.needs("PUSH")
def test_messages_that_make_no_sense_are_left_out_and_the_connection_lives(
    harness: Harness, line: Device[Transport]
) -> None:
    for suffix, payload in MALFORMED:
        harness.say(suffix, payload)
    line.asks()


@pytest.mark.needs("TOKENS")
def test_a_reply_that_makes_no_sense_leaves_the_request_open(harness: Harness, line: Device[Transport]) -> None:
    with harness.unanswered(line) as ask:
        ask(DescribeNext("t1"))
        harness.say("$next/get/accepted", b"not json")
        harness.say("$next/get/accepted", {"clientToken": "t1"})
        assert line.next(Described) == Described("t1", None)
    line.asks()
