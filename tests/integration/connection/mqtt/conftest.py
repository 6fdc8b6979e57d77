"""Both ends of MQTT, for the transports that speak it: links to a Mosquitto, and brokers that are the test itself."""

from __future__ import annotations

import base64
import hashlib
import queue
import socket
import ssl
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from thingjobs import clock
from thingjobs.model import ThingName
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.awsiot_settings import AwsIotSettings
from thingjobs.transport.link import Link
from thingjobs.transport.paho import PahoTransport
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki, Require
    from tests.integration.connection.conftest import Device, Endpoint

    from thingjobs.clock import Reading

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


# --- transports ---------------------------------------------------------------------------------------------------


@pytest.fixture
def anywhere(pki: Pki) -> Link:
    """Everything but the port of an endpoint; it is said to be 443."""
    certificate, key = pki.device(THING)
    return Link("localhost", 443, THING, THING, 300, certificate, key, pki.ca, patience=PATIENCE_SECONDS)


@pytest.fixture
def link(anywhere: Link, mosquitto: Mosquitto) -> Link:
    """Mosquitto, with a good certificate."""
    return replace(anywhere, port=mosquitto.port)


@pytest.fixture
def paho(new_device: Callable[[PahoTransport], Device[PahoTransport]]) -> Callable[[Link], Device[PahoTransport]]:
    """Connects by the transport paho."""
    return lambda link: new_device(PahoTransport(link, lambda: 0.02)).start()


@pytest.fixture
def awsiot(
    new_device: Callable[[AwsIotTransport], Device[AwsIotTransport]], require: Require
) -> Callable[..., Device[AwsIotTransport]]:
    """Connects by the transport awsiot."""
    require("awscrt")
    limits = Limits(clock_look=0.05, clock_cap=0.5, hold_first=600)

    def connect(
        link: Link, *, roll: float = 0.02, read_clock: Callable[[], Reading] = clock.read, **settings: Any
    ) -> Device[AwsIotTransport]:
        transport = AwsIotTransport(
            link, lambda: roll, read_clock=read_clock, limits=limits, settings=AwsIotSettings(**settings)
        )
        return new_device(transport).start()

    return connect


@pytest.fixture
def aws_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A standard AWS environment with these credentials, and none of this machine's."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
    elsewhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    for name, value in {**keys, **elsewhere, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return keys


@pytest.fixture
def signed(anywhere: Link, aws_keys: dict[str, str]) -> Link:
    """A WebSocket that is signed; AWS wants no certificate then."""
    return replace(anywhere, certificate=None, private_key=None, websocket=True, region="eu-west-1")


@pytest.fixture
def web_port(mosquitto: Mosquitto) -> int:
    """A port of the broker for WebSockets over TLS."""
    return mosquitto.listen_for_websockets()


# --- a broker that is the test itself -----------------------------------------------------------------------------


class Peer:
    """The broker's end of one connection, packet by packet (MQTT 5)."""

    CONNECT, PUBLISH, SUBSCRIBE = 0x10, 0x30, 0x80
    CONNACK = b"\x20\x03\x00\x00\x00"

    def __init__(self, sock: socket.socket) -> None:
        self._stream = sock.makefile("rb")
        self._sock = sock
        self.send = sock.sendall

    def packet(self, kind: int) -> bytes:
        """Return the body of the next packet, which has to be of that kind."""
        first, size, shift = self._stream.read(1), 0, 0
        assert first, "the connection was closed"
        assert first[0] & 0xF0 == kind
        while True:
            byte = self._stream.read(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return self._stream.read(size)

    def subscribed(self) -> tuple[bytes, list[str]]:
        """Return the packet id and the filters of the SUBSCRIBE that comes now."""
        body, found = self.packet(self.SUBSCRIBE), []
        rest = body[3:]
        while rest:
            (size,) = struct.unpack("!H", rest[:2])
            found.append(rest[2 : 2 + size].decode())
            rest = rest[3 + size :]
        return body[:2], found

    def greet(self) -> tuple[bytes, list[str]]:
        """Say yes to CONNECT; return the packet id and the filters of the SUBSCRIBE that comes then."""
        self.packet(self.CONNECT)
        self.send(self.CONNACK)
        return self.subscribed()

    def grant(self, packet_id: bytes, codes: bytes) -> None:
        self.send(bytes([0x90, 3 + len(codes)]) + packet_id + b"\0" + codes)

    def accept(self) -> list[str]:
        """Say yes to CONNECT and SUBSCRIBE; return the filters."""
        packet_id, filters = self.greet()
        self.grant(packet_id, bytes([1] * len(filters)))
        return filters

    def request(self) -> bytes:
        """Return the packet id of the request that comes now."""
        body = self.packet(self.PUBLISH)
        (size,) = struct.unpack("!H", body[:2])
        return body[2 + size : 4 + size]

    def close(self) -> None:
        self._stream.close()
        self._sock.close()


class Puppet:
    """A port, without TLS, where the test is the broker."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self._peers: list[Peer] = []
        self.link = Link("127.0.0.1", int(self._listener.getsockname()[1]), THING, THING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for peer in self._peers:
            peer.close()
        self._listener.close()

    def answer(self) -> Peer:
        """Take the connection that comes now."""
        sock, _ = self._listener.accept()
        sock.settimeout(PATIENCE_SECONDS)
        self._peers.append(Peer(sock))
        return self._peers[-1]


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    """A port where the test is the broker."""
    with Puppet() as opened:
        yield opened


def take_in(tls: ssl.SSLSocket) -> None:
    """Say yes to the CONNECT that came, and to the SUBSCRIBE that comes."""
    tls.sendall(Peer.CONNACK)
    subscribe = tls.recv(65_536)
    tls.sendall(b"\x90\x0b" + subscribe[3:5] + b"\0" + bytes([1] * 8))
    tls.recv(65_536)


class Opening(NamedTuple):
    """How a connection began.

    Attributes:
        protocol: what was agreed on by ALPN.
        shown: whether a certificate was.
        first: what came first.
    """

    protocol: str | None
    shown: bool
    first: bytes


@pytest.fixture
def overhear(
    pki: Pki, new_endpoint: Callable[..., Endpoint]
) -> Callable[..., tuple[Endpoint, queue.SimpleQueue[Opening]]]:
    """Runs endpoints that ask for a certificate and do not insist; gives how connections begin there."""

    def run(
        *alpn: str, then: Callable[[ssl.SSLSocket], object] = take_in
    ) -> tuple[Endpoint, queue.SimpleQueue[Opening]]:
        seen: queue.SimpleQueue[Opening] = queue.SimpleQueue()

        def talk(tls: ssl.SSLSocket) -> None:
            if first := tls.recv(65_536):
                seen.put(Opening(tls.selected_alpn_protocol(), bool(tls.getpeercert()), first))
                then(tls)

        context = pki.server_tls()
        context.verify_mode = ssl.CERT_OPTIONAL
        return new_endpoint(talk, *alpn, tls=context), seen

    return run


# --- WebSockets ---------------------------------------------------------------------------------------------------


class Frames:
    """Frames of a WebSocket on the server's side (RFC 6455)."""

    @staticmethod
    def sent(kind: int, data: bytes, *, final: bool = True) -> bytes:
        """Return a frame as a server sends it."""
        length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
        return bytes([0x80 * final | kind]) + length + data

    @staticmethod
    def received(tls: ssl.SSLSocket) -> tuple[int, bytes]:
        """Read a frame; return its opcode and what is in it. It has to be masked."""
        first, second = exactly(tls, 2)
        assert second & 0x80, "a client has to mask what it sends"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(exactly(tls, 2 if size == 126 else 8), "big")
        mask, data = exactly(tls, 4), exactly(tls, size)
        return first & 0x0F, bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))


@pytest.fixture
def frames() -> type[Frames]:
    """Writes and reads the frames of a WebSocket."""
    return Frames


class Web:
    """What an endpoint says that is a web server: to each request the same, or `behind` a WebSocket what a test does.

    Attributes:
        heads: what it was asked.
    """

    def __init__(self, answer: bytes = b"", behind: Callable[[ssl.SSLSocket], None] | None = None) -> None:
        self._answer = answer
        self._behind = behind
        self.heads: list[str] = []

    def __call__(self, tls: ssl.SSLSocket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(tls, 1)
        self.heads.append(head.decode())
        if self._behind is None:
            tls.sendall(self._answer)
            return
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        tls.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._behind(tls)


@pytest.fixture
def new_web() -> type[Web]:
    """Makes what an endpoint says that is a web server."""
    return Web


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := sock.recv(size - len(data))):
            raise EOFError
        data += more
    return data
