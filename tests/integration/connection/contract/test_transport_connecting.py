"""Connecting, losing the connection and connecting anew, over every transport."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import (
    RENEWED,
    Connected,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    Incoming,
    ListChanged,
    NextChanged,
    Pending,
)
from thingjobs.model import ThingName

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device
    from tests.integration.connection.contract.conftest import Harness, Remote

    from thingjobs.ports import Transport

    Connect = Callable[[], Device[Transport]]

THING = ThingName("pump-7")
DOCUMENT = {"handler": "greet"}
#: A call that does not wait for anything takes less; one that does takes a transport's patience, half a minute.
AT_ONCE_SECONDS = 5.0


def test_requests_are_answered_from_the_moment_it_is_connected(device: Device[Transport]) -> None:
    def put(incoming: Incoming) -> None:
        device.put(incoming)
        if isinstance(incoming, Connected):
            device.send(DescribeNext("at-once"))

    device.transport.start(put)
    device.next(Connected)
    assert device.next(Described).token == "at-once"


@pytest.mark.needs("PUSH")
def test_notifications_arrive_from_the_moment_it_is_connected(harness: Harness, device: Device[Transport]) -> None:
    def put(incoming: Incoming) -> None:
        device.put(incoming)
        if isinstance(incoming, Connected):
            harness.service.create_job("greet", DOCUMENT, [THING])

    device.transport.start(put)
    device.next(Connected)
    device.next(ListChanged)
    device.next(NextChanged)


@pytest.mark.needs("SERVER")
def test_start_returns_at_once_and_nothing_is_connected_before_the_service_answers(
    harness: Remote, device: Device[Transport]
) -> None:
    harness.hang()
    began = time.monotonic()
    device.start()
    device.send(GetPending("too-early"))
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert device.empty()
    harness.go_on()
    device.next(Connected)
    device.asks("now")


def test_what_is_sent_before_the_start_gets_no_reply(device: Device[Transport]) -> None:
    device.send(GetPending("too-early"))
    device.start()
    device.skip_to(Connected)
    device.asks()


@pytest.mark.needs("SERVER")
def test_it_connects_by_itself_once_there_is_a_server(harness: Remote, device: Device[Transport]) -> None:
    harness.go_away()
    device.start()
    for _ in range(3):
        assert device.reason()
    harness.come_back()
    device.skip_to(Connected)
    device.asks("t1")


@pytest.mark.needs("SERVER")
def test_after_the_server_went_away_it_connects_again_and_works(harness: Remote, line: Device[Transport]) -> None:
    line.asks()
    reason = harness.lose(line)
    assert len(reason.splitlines()) == 1
    harness.come_back()
    line.skip_to(Connected)
    line.asks()
    harness.queue(line, "greet")


@pytest.mark.needs("SERVER")
def test_what_is_sent_while_disconnected_gets_no_reply_then_or_later(harness: Remote, line: Device[Transport]) -> None:
    harness.lose(line)
    line.send(GetPending("nobody-hears"))
    harness.come_back()
    line.skip_to(Connected)
    line.asks()
    tokens = [(request.body or {}).get("clientToken") for request in harness.service.requests]
    assert "nobody-hears" not in tokens


@pytest.mark.needs("SERVER")
def test_a_server_that_hangs_for_a_while_loses_nothing(harness: Remote, line: Device[Transport]) -> None:
    harness.hang()
    line.send(GetPending("patient"))
    harness.go_on()
    assert line.next(Pending).token == "patient"


def test_renew_drops_the_connection_and_opens_a_new_one(harness: Harness, line: Device[Transport]) -> None:
    for _ in range(3):
        line.transport.renew()
        assert line.next(Disconnected).reason == RENEWED
        line.next(Connected)
        line.asks()


@pytest.mark.needs("TOKENS")
def test_a_reply_to_a_request_of_an_earlier_connection_is_dropped(harness: Harness, line: Device[Transport]) -> None:
    with harness.unanswered(line) as ask:
        ask(GetPending("earlier"))
        line.transport.renew()
        line.next(Disconnected)
        line.next(Connected)
        harness.say("get/accepted", {"clientToken": "earlier", "queuedJobs": []})
    line.asks()


def test_renewing_from_many_threads_at_once_ends_in_one_working_connection(
    harness: Harness, line: Device[Transport]
) -> None:
    gate = threading.Barrier(8)

    def renew(number: int) -> None:
        gate.wait()
        for _ in range(5):
            line.send(GetPending(f"lost-perhaps-{number}"))
            line.transport.renew()

    threads = [threading.Thread(target=renew, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # However many connections there were: the last word is Connected, and that one works.
    answered = False
    while not answered:
        line.send(DescribeNext("at-last"))
        answered = any(isinstance(came, Described) and came.token == "at-last" for came in line.within(0.2))
    line.stop()
    states = [came for came in line.history if isinstance(came, (Connected, Disconnected))]
    assert states[-1] == Connected()
    assert all(isinstance(one, Disconnected) or other != Connected() for one, other in pairwise(states))
