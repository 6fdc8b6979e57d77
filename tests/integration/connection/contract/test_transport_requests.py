"""Requests and replies, over every transport: each reply is its request's, whatever else comes."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import (
    Describe,
    Described,
    DescribeNext,
    GetPending,
    Pending,
    Refusal,
    Refused,
    State,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import Refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device
    from tests.integration.connection.contract.conftest import Harness

    from thingjobs.jobs import Update
    from thingjobs.ports import Transport
    from thingjobs.testing import Request

    Connect = Callable[[], Device[Transport]]

THING = ThingName("pump-7")
DOCUMENT = {"handler": "greet"}


def test_each_kind_of_request_gets_its_typed_reply_with_its_own_token(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    harness.queue(line, "greet")

    line.send(GetPending("t1"))
    pending = line.next(Pending)
    assert pending.token == "t1"
    assert [summary.identity.job_id for summary in pending.queued] == ["greet"]
    assert pending.in_progress == ()

    line.send(DescribeNext("t2"))
    described = line.next(Described)
    assert described.token == "t2"
    assert described.execution is not None
    assert described.execution.document == DOCUMENT

    line.send(Describe("t3", JobId("greet"), 1))
    described = line.next(Described)
    assert described.token == "t3"
    assert described.execution is not None
    assert described.execution.document is None

    line.send(update("t4", "greet", step_timeout_minutes=15, with_document=True, details={"claim": "c"}))
    assert line.next(Updated) == Updated("t4", State(Status.IN_PROGRESS, 2, {"claim": "c"}), DOCUMENT)


def test_with_nothing_pending_the_next_is_none_and_the_list_is_empty(line: Device[Transport]) -> None:
    line.send(DescribeNext("t1"))
    assert line.next(Described) == Described("t1", None)
    line.send(GetPending("t2"))
    assert line.next(Pending) == Pending("t2", (), ())


@pytest.mark.needs("TOKENS")
def test_two_open_requests_on_one_topic_are_told_apart_by_token(harness: Harness, line: Device[Transport]) -> None:
    with harness.unanswered(line) as ask:
        ask(GetPending("first"), GetPending("second"))
        for token in ("second", "first"):
            harness.say("get/accepted", {"clientToken": token, "inProgressJobs": [], "queuedJobs": []})
        assert [line.next(Pending).token, line.next(Pending).token] == ["second", "first"]
    line.asks()


@pytest.mark.needs("TOKENS")
def test_late_and_duplicate_replies_are_dropped(harness: Harness, line: Device[Transport]) -> None:
    line.send(GetPending("once"))
    line.next(Pending)
    harness.say("get/accepted", {"clientToken": "once", "queuedJobs": []})
    harness.say("get/accepted", {"clientToken": "of-long-ago", "queuedJobs": []})
    harness.say("get/rejected", {"clientToken": "once", "code": "InternalError"})
    line.asks()


@pytest.mark.needs("TOKENS")
def test_a_reply_on_the_topic_of_another_request_answers_nothing(harness: Harness, line: Device[Transport]) -> None:
    with harness.unanswered(line) as ask:
        ask(DescribeNext("mine"))
        harness.say("get/accepted", {"clientToken": "mine", "queuedJobs": []})
        harness.say("greet/get/accepted", {"clientToken": "mine"})
        harness.say("$next/get/accepted", {"clientToken": "mine"})
        assert line.next(Described) == Described("mine", None)
    line.asks()


@pytest.mark.needs("TOKENS")
def test_a_reply_without_a_token_is_for_the_one_request_that_is_open(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    with harness.unanswered(line) as ask:
        ask(update("only", "greet"))
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "unexpected end"})
        refused = line.next(Refused)
        assert (refused.token, refused.code, refused.message) == ("only", Refusal.INVALID_JSON, "unexpected end")
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "again"})
    line.asks()


@pytest.mark.needs("TOKENS")
def test_a_reply_without_a_token_is_dropped_when_it_could_be_for_two(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    with harness.unanswered(line) as ask:
        ask(update("one", "greet"), update("two", "greet"))
        harness.say("greet/update/rejected", {"code": "InvalidJson"})
        harness.say("greet/update/accepted", {"clientToken": "one"})
        assert line.next(Updated).token == "one"
    line.asks()


def test_a_refusal_carries_code_message_and_what_is_stored(
    harness: Harness, line: Device[Transport], update: Callable[..., Update]
) -> None:
    harness.queue(line, "greet")
    line.send(update("t1", "greet", version=7))
    refused = line.next(Refused)
    assert (refused.token, refused.code) == ("t1", Refusal.VERSION_MISMATCH)
    assert "7" in refused.message
    assert refused.state == State(Status.QUEUED, 1, {})

    line.send(Describe("t2", JobId("no-such-job"), 1))
    refused = line.next(Refused)
    assert (refused.token, refused.code, refused.state) == ("t2", Refusal.RESOURCE_NOT_FOUND, None)


def test_each_code_of_the_api_is_told_by_its_name(harness: Harness, line: Device[Transport]) -> None:
    for code in set(Refusal) - {Refusal.UNKNOWN}:
        remove = harness.service.interpose(partial(refuse, code.value, "because"))
        line.send(GetPending(code.value))
        refused = line.next(Refused)
        assert (refused.token, refused.code) == (code.value, harness.told_as.get(code, code))
        assert (refused.message, refused.state) == ("because", None)
        remove()


def test_a_throttled_request_is_told_and_the_connection_goes_on(harness: Harness, line: Device[Transport]) -> None:
    remove = harness.service.interpose(partial(refuse, "RequestThrottled", "slow down"))
    for number in range(5):
        line.send(GetPending(f"t{number}"))
    refused = [line.next(Refused) for _ in range(5)]
    assert {(one.token, one.code) for one in refused} == {(f"t{n}", Refusal.REQUEST_THROTTLED) for n in range(5)}
    remove()
    line.asks()


def test_a_code_that_nobody_knows_is_unknown_and_kept_as_it_stood(harness: Harness, line: Device[Transport]) -> None:
    remove = harness.service.interpose(partial(refuse, "SomethingNew", "not today"))
    line.send(GetPending("t1"))
    assert line.next(Refused) == Refused("t1", Refusal.UNKNOWN, "not today", None, "SomethingNew")
    remove()
    line.asks()


def test_requests_of_many_threads_each_get_their_own_reply(line: Device[Transport]) -> None:
    def ask(thread: int) -> None:
        for number in range(6):
            line.send(Describe(f"{thread}-{number}", JobId(f"job-{thread % 3}"), 1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = {line.next(Refused).token for _ in range(48)}
    assert tokens == {f"{thread}-{number}" for thread in range(8) for number in range(6)}
    line.asks()


def refuse(code: str, message: str, _request: Request) -> Refuse:
    return Refuse(code, message)
