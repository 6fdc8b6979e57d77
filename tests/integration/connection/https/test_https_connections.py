"""The connections of the transport https: how many, how long, what is lost with them, and how they stop."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.jobs import (
    Connected,
    Disconnected,
    GetPending,
    NextChanged,
    Pending,
    Update,
)
from thingjobs.model import Status, ThingName
from thingjobs.testing import JobsService, Lost
from thingjobs.transport.https_adapter import Held

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device, Swallowing
    from tests.integration.connection.https.conftest import Asker, Hang

    from thingjobs.testing.web import WebJobsService
    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
#: One that waits takes a transport's patience, or the server's.
AT_ONCE_SECONDS = 5.0


def test_a_job_uses_one_connection_and_waiting_uses_none(
    web: WebJobsService,
    service: JobsService,
    connect: Connect,
    eventually: Callable[..., Any],
    update: Callable[..., Update],
) -> None:
    taken: list[int] = []
    assert web._server is not None
    take = web._server.get_request

    def counted() -> Any:
        taken.append(1)
        return take()

    web._server.get_request = counted  # type: ignore[method-assign]
    service.create_job("greet", DOCUMENT, [THING])
    device = connect()
    device.next(Connected)
    device.send(update("t1", "greet"))
    device.send(update("t2", "greet", 2, Status.SUCCEEDED))
    assert device.skip_to(NextChanged).execution is None
    assert len(taken) == 1
    eventually(lambda: web.connections == 0)
    device.send(GetPending("t3"))
    device.next(Pending)
    assert len(taken) == 2


def test_a_connection_that_is_not_used_for_a_while_is_closed(
    web: WebJobsService,
    connect: Connect,
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = connect()
    device.works()
    assert web.connections == 1
    monkeypatch.setattr("thingjobs.transport.https_session.KEEP_SECONDS", 0.3)
    device.asks()
    eventually(lambda: web.connections == 0)
    assert device.empty()


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(
    web: WebJobsService, connect: Connect, eventually: Callable[..., Any]
) -> None:
    device = connect()
    device.next(Connected)
    assert web._server is not None
    web._server.hang_up()
    eventually(lambda: web.connections == 0)
    device.send(GetPending("t1"))
    assert device.next(Pending).token == "t1"
    assert device.empty()


def test_what_nobody_waits_for_any_more_is_not_sent(
    web: WebJobsService,
    service: JobsService,
    connect: Connect,
    hang: Callable[[], Hang],
    update: Callable[..., Update],
    eventually: Callable[..., object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "thingjobs.connection")
    service.create_job("greet", DOCUMENT, [THING])
    device = connect()
    device.next(Connected)
    hanging = hang()
    device.send(GetPending("slow"))
    eventually(lambda: len(web.calls) == 2)
    with pytest.MonkeyPatch.context() as hurried:
        hurried.setattr("thingjobs.transport.https_session.REPLY_TIMEOUT", 0.2)
        device.send(update("stale", "greet"))
        time.sleep(0.3)  # that is the time that nobody waits for it any more
        hanging.end()
        assert device.next(Pending).token == "slow"
        eventually(lambda: "left out a request that nobody waits for any more" in caplog.text)
    device.asks()
    assert service.execution(THING, "greet").version == 1


def test_an_update_whose_answer_is_lost_ends_the_connection_and_is_not_sent_twice(
    web: WebJobsService, service: JobsService, connect: Connect, update: Callable[..., Update]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    device = connect()
    device.next(Connected)
    remove = service.interpose(lambda request: Lost.REPLY if request.suffix == "greet/update" else None)
    device.send(update("t1", "greet"))
    assert "closed without an answer" in device.next(Disconnected).reason
    remove()
    device.skip_to(Connected)
    assert service.execution(THING, "greet").version == 2
    assert [call.method for call in web.calls].count("POST") == 1


def test_stop_during_a_slow_request_is_quick_and_leaves_nothing_behind(
    web: WebJobsService, connect: Connect, hang: Callable[[], Hang], eventually: Callable[..., object]
) -> None:
    device = connect()
    device.next(Connected)
    hang()
    device.send(GetPending("slow"))
    eventually(lambda: len(web.calls) == 2)
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert device.empty()


def test_stop_while_nobody_takes_the_connection_is_quick_and_leaves_nothing_behind(
    new_site: Callable[[int], Site], connect: Connect, swallowing: Swallowing, eventually: Callable[..., object]
) -> None:
    site = new_site(swallowing.port)
    device = connect(replace(site, link=replace(site.link, host="127.0.0.1")))
    eventually(swallowing.is_tried)
    began = time.monotonic()
    device.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert device.empty()


@pytest.mark.parametrize("by", ["us", "the other end"])
def test_an_end_between_tcp_and_tls_leaves_no_descriptor_behind(
    by: str,
    new_asker: Callable[[Site], Asker],
    new_site: Callable[[int], Site],
    held: Callable[[], set[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dial = Held.dial
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as peers:

        def then_end(held_one: Held) -> socket.socket:
            mine = dial(held_one)
            peer = peers.enter_context(listener.accept()[0])
            if by == "us":
                held_one.cut()
                peer.sendall(b"x")  # to a socket that was shut Linux answers with a reset
            else:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()  # which is a reset, too
            return mine

        monkeypatch.setattr(Held, "dial", then_end)
        asker = new_asker(new_site(listener.getsockname()[1]))
        before = held()
        with pytest.raises(OSError, match="stopped" if by == "us" else "reset by peer") as caught:
            asker.ask(GetPending("t1"))
        peers.close()
        assert not held() - before, f"while {caught.value} is looked at"
