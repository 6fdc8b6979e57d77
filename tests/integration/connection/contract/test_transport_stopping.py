"""The end of every transport: quick at any moment, and nothing stays behind."""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import (
    Connected,
    GetPending,
)
from thingjobs.model import ThingName

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device
    from tests.integration.connection.contract.conftest import Harness, Remote

    from thingjobs.ports import Transport

    Connect = Callable[[], Device[Transport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
#: One that waits takes a transport's patience, half a minute, or until it tries again, and longer.
AT_ONCE_SECONDS = 5.0


def test_stop_ends_all_threads_and_descriptors(
    harness: Harness, connect: Connect, held: Callable[[], set[object]], left: Callable[[set[object]], set[object]]
) -> None:
    before = held()
    line = connect()
    line.asks()
    assert held() - before or not harness.has_threads
    line.stop()
    assert not left(before)


def test_many_connections_leave_no_descriptor_behind(
    connect: Connect, held: Callable[[], set[object]], left: Callable[[set[object]], set[object]]
) -> None:
    before = held()
    line = connect()
    for _ in range(10):
        line.transport.renew()
        line.skip_to(Connected)
    line.asks()
    line.stop()
    assert not left(before)


def test_after_stop_nothing_is_put_and_nothing_is_sent(harness: Harness, connect: Connect) -> None:
    line = connect()
    line.stop()
    line.send(GetPending("too-late"))
    line.transport.renew()
    harness.service.create_job("greet", {}, [THING])
    if harness.has_threads:
        connect().asks()  # all that the service said so far has arrived, wherever it was going
    assert line.empty()
    assert "too-late" not in [(request.body or {}).get("clientToken") for request in harness.service.requests]


def test_stop_may_come_before_the_start_and_twice(
    harness: Harness, connect: Connect, held: Callable[[], set[object]], left: Callable[[set[object]], set[object]]
) -> None:
    before = held()
    never_started = harness.new_transport()
    never_started.stop()
    never_started.stop()
    line = connect()
    line.stop()
    line.stop()
    assert not left(before)


def test_stop_at_any_moment_of_connecting_is_quick_and_clean(
    harness: Harness,
    new_device: Callable[[Transport], Device[Transport]],
    held: Callable[[], set[object]],
    left: Callable[[set[object]], set[object]],
) -> None:
    before = held()
    for moment in range(36):
        device = new_device(harness.new_transport()).start()
        threading.Event().wait(moment * 0.001)  # which moment is what the test is about
        began = time.monotonic()
        device.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS
        while not device.empty():
            device.next(Connected)
    assert not left(before)
    gc.collect()  # what was never closed is told now, and fails this test instead of another


@pytest.mark.needs("SERVER")
def test_stop_while_the_server_says_nothing_is_quick_and_clean(
    harness: Remote,
    new_device: Callable[[Transport], Device[Transport]],
    silent: socket.socket,
    held: Callable[[], set[object]],
    left: Callable[[set[object]], set[object]],
) -> None:
    before = held()
    device = new_device(harness.new_transport_to(silent.getsockname()[1])).start()
    with silent.accept()[0]:
        began = time.monotonic()
        device.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS
    assert not left(before)
    assert device.empty()


@pytest.mark.needs("SERVER")
def test_stop_while_it_waits_to_try_again_is_quick_and_clean(
    harness: Remote,
    device: Device[Transport],
    held: Callable[[], set[object]],
    left: Callable[[set[object]], set[object]],
) -> None:
    waits = threading.Event()

    def roll() -> float:
        if len(device.history) < 3:
            return 0.02
        waits.set()
        return 1.0  # of 8 s or more

    harness.roll = roll
    harness.go_away()
    before = held()
    device.start()
    for _ in range(3):
        device.reason()
    assert waits.wait(PATIENCE_SECONDS)
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert not left(before)


@pytest.mark.needs("SERVER")
def test_stop_while_the_server_hangs_is_quick(harness: Remote, line: Device[Transport]) -> None:
    harness.hang()
    line.send(GetPending("unanswered"))
    began = time.monotonic()
    line.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    harness.go_on()
    assert line.empty()
