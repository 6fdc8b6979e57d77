"""What the transport awsiot sends: its packets one by one, and no more of them than needed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.jobs import Connected, Disconnected, GetPending, Pending, Update
from thingjobs.model import JobId, Status, ThingName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest
    from tests.conftest import Mosquitto
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.mqtt.conftest import Puppet

    from thingjobs.testing import JobsService
    from thingjobs.transport.awsiot import AwsIotTransport
    from thingjobs.transport.link import Link

    Connect = Callable[..., Device[AwsIotTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


def test_one_subscribe_with_8_filters_serves_every_request(
    awsiot: Connect, mosquitto: Mosquitto, link: Link, served: JobsService
) -> None:
    device = awsiot(link)
    device.next(Connected)
    for number in range(5):
        device.asks(f"t{number}")
    log = mosquitto.log.read_text()
    assert log.count("Received SUBSCRIBE from pump-7") == 1
    assert log.count("\t$aws/things/pump-7/jobs/") == 8
    assert "Received UNSUBSCRIBE from pump-7" not in log
    assert [(request.body or {})["clientToken"] for request in served.requests] == [f"t{n}" for n in range(5)]


def test_nobody_is_connected_before_the_subscriptions_are_granted(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    hello = peer.packet(peer.CONNECT)
    assert hello.endswith(b"\x00\x06pump-7"), "no user name, no metrics"
    assert hello[7] & 0b10, "clean start"
    peer.send(peer.CONNACK)
    packet_id, filters = peer.subscribed()
    device.send(GetPending("too-early"))
    peer.grant(packet_id, bytes([1] * len(filters)))
    device.next(Connected)
    device.send(GetPending("now"))
    assert b"now" in peer.packet(peer.PUBLISH)


def test_small_packets_go_out_at_once_and_a_dead_peer_is_noticed(awsiot: Connect, link: Link) -> None:
    def ours() -> Iterator[socket.socket]:
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername()[1] == link.port:
                    yield sock

    awsiot(link).next(Connected)
    assert [
        (sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), sock.getsockopt(socket.IPPROTO_TCP, 18))
        for sock in ours()
    ] == [(1, 30_000)]


def test_no_request_of_an_earlier_connection_is_sent_again(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(Update("in-flight", JobId("greet"), 1, 1, Status.IN_PROGRESS, {}))
    peer.request()
    peer.close()
    device.next(Disconnected)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(GetPending("afterwards"))
    assert b"afterwards" in peer.packet(peer.PUBLISH)


def test_a_request_beyond_128_kilobytes_is_not_published(
    awsiot: Connect, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(Update("large", JobId("greet"), 1, 1, Status.IN_PROGRESS, {"stdout": "x" * 128 * 1024}))
    device.send(GetPending("next"))
    assert b"next" in peer.packet(peer.PUBLISH)
    assert "the service would close the connection" in caplog.text


def test_threads_that_send_at_once_each_get_an_answer(awsiot: Connect, link: Link, served: JobsService) -> None:
    device = awsiot(link)
    device.next(Connected)
    threads = [threading.Thread(target=device.transport.send, args=(GetPending(f"t{n}"),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {device.next(Pending).token for _ in threads} == {f"t{n}" for n in range(16)}
    bodies = [json.dumps(request.body) for request in served.requests]
    assert len(set(bodies)) == 16
