"""MQTT in a WebSocket by the transport paho: the handshake, its signature and refusals, and frames of every kind."""

from __future__ import annotations

import base64
import queue
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from thingjobs.jobs import Connected, GetPending, NextChanged
from thingjobs.model import ThingName

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tests.conftest import Pki, Require
    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy, SocksProxy
    from tests.integration.connection.mqtt.conftest import Frames, Web

    from thingjobs.testing import JobsService
    from thingjobs.transport.link import Link
    from thingjobs.transport.paho import PahoTransport

    Connect = Callable[[Link], Device[PahoTransport]]
    OpenWeb = Callable[..., tuple[int, Web]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


@pytest.fixture
def open_web(pki: Pki, new_endpoint: Callable[..., Endpoint], new_web: type[Web]) -> OpenWeb:
    """Runs web servers over TLS that ask for no certificate; gives the port, and what was asked there."""

    def run(*args: Any, **more: Any) -> tuple[int, Web]:
        web = new_web(*args, **more)
        return new_endpoint(web, tls=pki.server_tls(mutual=False)).port, web

    return run


def read_until_closed(tls: ssl.SSLSocket) -> None:
    while tls.recv(65_536):
        pass


@pytest.mark.parametrize("version", [5, 4])
def test_over_a_signed_websocket_through_a_proxy_requests_are_answered(
    paho: Connect,
    signed: Link,
    web_port: int,
    served: JobsService,
    socks_proxy: Callable[..., SocksProxy],
    version: int,
) -> None:
    proxy = socks_proxy(web_port)
    paho(replace(signed, version=version, proxy=proxy.proxy())).works()
    assert proxy.asked == [(3, b"localhost", 443)]


def test_the_websocket_is_opened_as_the_standard_and_aws_want_it(
    paho: Connect,
    signed: Link,
    aws_keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    open_web: OpenWeb,
    http_proxy: Callable[..., HttpProxy],
    require: Require,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "IQoJb3JpZ2lu//+==")
    port, web = open_web(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    paho(replace(signed, proxy=http_proxy(port).proxy())).reason()
    request, *lines = web.heads[0].split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    assert len(base64.b64decode(headers.pop("Sec-WebSocket-Key"))) == 16
    assert headers == {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    }
    method, target, version = request.split(" ")
    assert (method, version, urlsplit(target).path) == ("GET", "HTTP/1.1", "/mqtt")
    query = parse_qs(urlsplit(target).query)
    assert query["X-Amz-Security-Token"] == ["IQoJb3JpZ2lu//+=="]
    require("botocore")
    assert query["X-Amz-Signature"] == [judged(query, aws_keys)]


def judged(query: dict[str, list[str]], keys: dict[str, str]) -> str:
    """Return the signature that botocore gives such a request; the session token has no part in it."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", "https://localhost/mqtt")
    request.context["timestamp"] = query["X-Amz-Date"][0]
    judge = SigV4QueryAuth(Credentials(*keys.values()), "iotdevicegateway", "eu-west-1", expires=86_400)
    judge._modify_request_before_signing(request)
    return str(judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request))


def test_a_websocket_that_is_refused_is_told_with_the_words_of_aws(
    paho: Connect, signed: Link, aws_keys: dict[str, str], open_web: OpenWeb
) -> None:
    body = b'{"message":"Forbidden","traceId":"1d0cd2f9"}'
    head = f"HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: ForbiddenException\r\nContent-Length: {len(body)}\r\n\r\n"
    port, _ = open_web(head.encode() + body)
    device = paho(replace(signed, port=port))
    for reason in (device.reason(), device.reason()):
        assert f"does not open a WebSocket (403 Forbidden: {body.decode()}); do the AWS credentials allow" in reason
        assert "is the clock right?" in reason
        assert aws_keys["AWS_SECRET_ACCESS_KEY"] not in reason


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nhello\r\nworld", "(200 OK: hello world); check connection."),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n", "opens a WebSocket, but not ours"),
        (b"\x20\x02\x00\x00", "does not answer as a web server does"),
        (b"", "does not answer as a web server does"),
    ],
)
def test_a_server_that_is_none_for_websockets_is_told(
    paho: Connect, signed: Link, open_web: OpenWeb, answer: bytes, words: str
) -> None:
    port, _ = open_web(answer)
    assert words in paho(replace(signed, port=port)).reason()


def test_without_credentials_nothing_is_opened_and_what_to_set_is_told(
    paho: Connect,
    signed: Link,
    aws_keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    new_endpoint: Callable[..., Endpoint],
    pki: Pki,
) -> None:
    for name in aws_keys:
        monkeypatch.delenv(name)
    endpoint = new_endpoint(read_until_closed, tls=pki.server_tls(mutual=False))
    reason = paho(replace(signed, port=endpoint.port)).reason()
    assert reason.startswith("cannot find AWS credentials: there are none")
    assert endpoint.protocols == []


CONNACK, SUBACK = b"\x20\x03\x00\x00\x00", b"\x90\x0b\x00\x01\x00" + b"\x01" * 8


def test_pings_of_the_websocket_are_answered_and_messages_may_come_in_any_pieces(
    paho: Connect, signed: Link, open_web: OpenWeb, frames: type[Frames]
) -> None:
    topic = b"$aws/things/pump-7/jobs/notify-next"
    body = struct.pack("!H", len(topic)) + topic + b"\0" + b'{"timestamp":1}'
    message = bytes([0x30, len(body)]) + body
    heard: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(frames.sent(0x9, b"early"))  # before CONNECT was read, and perhaps with the handshake
        for answer in (CONNACK, SUBACK):
            while (frame := frames.received(tls))[0] != 2:
                heard.put(frame)
            tls.sendall(frames.sent(2, answer))
        whole = message * 3
        pieces = frames.sent(2, whole[:20], final=False) + frames.sent(0x9, b"midway") + frames.sent(0, whole[20:])
        for cut in range(0, len(pieces), 7):
            tls.sendall(pieces[cut : cut + 7])
        tls.sendall(frames.sent(2, message + message))
        while (frame := frames.received(tls))[0] != 8:
            heard.put(frame)
        heard.put(frame)

    port, _ = open_web(behind=talk)
    device = paho(replace(signed, port=port))
    device.next(Connected)
    assert [device.next(NextChanged) for _ in range(5)] == [NextChanged(None)] * 5
    device.stop()
    came = [heard.get(timeout=PATIENCE_SECONDS) for _ in range(4)]
    assert came[:2] == [(0xA, b"early"), (0xA, b"midway")]
    assert came[2] == (2, b"\xe0\x00"), "MQTT's goodbye"
    assert came[3] == (8, struct.pack("!H", 1000)), "and the WebSocket's"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ((8, struct.pack("!H", 1008) + b"policy\nviolated"), "the WebSocket was closed (1008 policy violated)"),
        ((1, b"text"), "what comes is no WebSocket for MQTT"),
    ],
)
def test_a_websocket_that_ends_is_told_with_its_reason(
    paho: Connect, signed: Link, open_web: OpenWeb, frames: type[Frames], sent: tuple[int, bytes], words: str
) -> None:
    def talk(tls: ssl.SSLSocket) -> None:
        for answer in (CONNACK, SUBACK):
            frames.received(tls)
            tls.sendall(frames.sent(2, answer))
        tls.sendall(frames.sent(*sent))
        read_until_closed(tls)

    port, _ = open_web(behind=talk)
    device = paho(replace(signed, port=port))
    for _ in range(2):
        device.next(Connected)
        assert words in device.reason()


def test_what_a_slow_reader_does_not_take_at_once_goes_out_later(
    paho: Connect, signed: Link, open_web: OpenWeb, frames: type[Frames], eventually: Callable[..., object]
) -> None:
    go_on = threading.Event()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def talk(tls: ssl.SSLSocket) -> None:
        for answer in (CONNACK, SUBACK):
            frames.received(tls)
            tls.sendall(frames.sent(2, answer))
        assert go_on.wait(PATIENCE_SECONDS)
        while True:
            received.put(frames.received(tls)[1])

    port, _ = open_web(behind=talk)
    device = paho(replace(signed, port=port))
    device.next(Connected)
    session = device.transport._session
    assert session is not None
    session._web._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    # As many as paho sends before one is acknowledged.
    tokens = [f"{number:05}" + "x" * 120_000 for number in range(20)]
    for token in tokens:
        device.send(GetPending(token))
    eventually(lambda: session._web.unsent)
    go_on.set()
    came = [received.get(timeout=PATIENCE_SECONDS) for _ in tokens]
    assert all(token.encode() in message for token, message in zip(tokens, came, strict=True))


def test_an_idle_websocket_wakes_nobody(paho: Connect, signed: Link, web_port: int, served: JobsService) -> None:
    device = paho(replace(signed, port=web_port))
    device.works()
    status = Path(f"/proc/self/task/{device.transport._thread.native_id}/status")

    def switches() -> int:
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary_ctxt_switches")).split()[1])

    settled = -1
    while settled != (settled := switches()):
        time.sleep(0.3)  # PUBACKs are on their way for a moment still
    time.sleep(2)
    assert switches() - settled <= 1
