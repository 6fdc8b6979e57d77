"""The ways of the transport paho to a broker: port 443, proxies, WebSockets, keys with a password, versions of TLS.

The broker is a real Mosquitto with mutual TLS, and between it and the transport stand real, small proxies, which are
also what makes a broker on some port one on port 443. Where a server has to misbehave, it is the test itself.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import queue
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from thingjobs.jobs import Connected, Disconnected, GetPending, Incoming, NextChanged, Pending
from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.dial import Link
from thingjobs.transport.paho import PahoTransport
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
ALPN = "x-amzn-mqtt-ca"


class Device:
    """A transport that runs, and what it put."""

    def __init__(self, link: Link) -> None:
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self.transport = PahoTransport(link, lambda: 0.02)
        self.transport.start(self._put.put)

    def next(self) -> Incoming:
        return self._put.get(timeout=PATIENCE_SECONDS)

    def works(self) -> None:
        assert self.next() == Connected()
        self.asks("t1")

    def asks(self, token: str) -> None:
        self.transport.send(GetPending(token))
        assert self.next() == Pending(token, (), ())

    def reason(self) -> str:
        """Return why the next connection came to nothing."""
        came = self.next()
        assert isinstance(came, Disconnected), came
        assert len(came.reason.splitlines()) == 1
        return came.reason


@pytest.fixture
def connect() -> Iterator[Callable[[Link], Device]]:
    """Start transports; at the end of the test they stop."""
    started: list[Device] = []

    def start(link: Link) -> Device:
        started.append(Device(link))
        return started[-1]

    yield start
    for device in started:
        device.transport.stop()


@pytest.fixture
def link(mosquitto: Mosquitto, pki: Pki) -> Link:
    certificate, key = pki.device(THING)
    return Link("localhost", mosquitto.port, THING, THING, 300, certificate, key, pki.ca, patience=5.0)


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    with BrokerJobsService(served := JobsService(), "localhost", mosquitto.port, tls=cloud(pki)):
        yield served


def cloud(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    return context


def spare_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def configure(mosquitto: Mosquitto, *lines: str) -> None:
    """Start the broker anew, with these lines more in its configuration."""
    mosquitto.kill()
    with (mosquitto.log.parent / "mosquitto.conf").open("a") as config:
        config.write("\n".join([*lines, ""]))
    mosquitto.start()


# --- servers ------------------------------------------------------------------------------------------------------


class Listener:
    """A server on a loopback port; one thread for each connection, in `serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._socks: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for sock in (self._listener, *self._socks):
            sock.close()

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def to(self, port: int) -> socket.socket:
        """Return a connection to another server, which ends with this one."""
        sock = socket.create_connection(("127.0.0.1", port))
        self._socks.append(sock)
        return sock

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.serve(sock)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until an end closes."""
    while True:
        ready, _, _ = select.select([one, other], [], [], PATIENCE_SECONDS)
        for sock in ready:
            data = sock.recv(65_536)
            if not data:
                return
            (other if sock is one else one).sendall(data)
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                (other if sock is one else one).sendall(sock.recv(65_536))


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_head(sock: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(sock, 1)
    return head.decode()


class HttpProxy(Listener):
    """An HTTP proxy: whatever it is asked for, it connects to `target`.

    Attributes:
        heads: what it was asked.
    """

    def __init__(self, target: int = 0, *, login: str = "", answer: bytes = b"") -> None:
        super().__init__()
        self._target = target
        self._login = login
        self._answer = answer
        self.heads: list[str] = []

    def proxy(self, user: str = "", password: str = "") -> Proxy:
        return Proxy("http", "127.0.0.1", self.port, user, password)

    def serve(self, sock: socket.socket) -> None:
        head = read_head(sock)
        self.heads.append(head)
        expected = base64.b64encode(self._login.encode()).decode()
        if self._login and f"\r\nProxy-Authorization: Basic {expected}\r\n" not in head:
            sock.sendall(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n')
        elif self._answer:
            sock.sendall(self._answer)
        else:
            other = self.to(self._target)
            # In pieces, as it may come.
            for piece in (b"HTTP/1.0 200 Connection established\r", b"\nVia: 1.1 test\r\n\r", b"\n"):
                sock.sendall(piece)
            pump(sock, other)


class SocksProxy(Listener):
    """A SOCKS5 proxy: whatever it is asked for, it connects to `target`.

    Attributes:
        asked: kind of address, address and port, as they came.
    """

    def __init__(self, target: int = 0, *, login: tuple[str, str] | None = None, code: int = 0, kind: int = 1) -> None:
        super().__init__()
        self._target = target
        self._login = login
        self._code = code
        self._bound = {1: b"\x01\x7f\0\0\1", 3: b"\x03\x05proxy", 4: b"\x04" + bytes(16)}[kind] + b"\0\1"
        self.asked: list[tuple[int, bytes, int]] = []

    def proxy(self, user: str = "", password: str = "") -> Proxy:
        return Proxy("socks5", "127.0.0.1", self.port, user, password)

    def serve(self, sock: socket.socket) -> None:
        version, count = exactly(sock, 2)
        assert version == 5
        methods = exactly(sock, count)
        method = 2 if self._login else 0
        sock.sendall(bytes([5, method if method in methods else 0xFF]))
        if method not in methods or not self._lets_in(sock):
            return
        _, command, _, kind = exactly(sock, 4)
        assert command == 1
        address = exactly(sock, {1: 4, 4: 16}.get(kind) or exactly(sock, 1)[0])
        (port,) = struct.unpack("!H", exactly(sock, 2))
        self.asked.append((kind, address, port))
        if self._code:
            sock.sendall(bytes([5, self._code, 0]) + self._bound)
            return
        other = self.to(self._target)
        for byte in bytes([5, 0, 0]) + self._bound:
            sock.sendall(bytes([byte]))
        pump(sock, other)

    def _lets_in(self, sock: socket.socket) -> bool:
        if self._login is None:
            return True
        assert exactly(sock, 1) == b"\x01"
        shown = tuple(exactly(sock, exactly(sock, 1)[0]).decode() for _ in range(2))
        sock.sendall(bytes([1, 0 if shown == self._login else 1]))
        return shown == self._login


class Endpoint(Listener):
    """A TLS server with our certificate, which tells protocols apart by ALPN as AWS IoT does, before a plain `target`.

    Attributes:
        protocols: what each connection agreed on.
    """

    def __init__(
        self, pki: Pki, target: int = 0, *, alpn: str = ALPN, mutual: bool = True, newest: ssl.TLSVersion | None = None
    ) -> None:
        super().__init__()
        self._target = target
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
        self._context.load_cert_chain(pki.server_cert, pki.server_key)
        self._context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        if alpn:
            self._context.set_alpn_protocols([alpn])
        if newest is not None:
            self._context.maximum_version = newest
        self.protocols: list[str | None] = []

    def serve(self, sock: socket.socket) -> None:
        with self._context.wrap_socket(sock, server_side=True) as tls:
            self._socks.append(tls)  # what it wraps is none any more
            self.protocols.append(tls.selected_alpn_protocol())
            self.answer(tls)

    def answer(self, tls: ssl.SSLSocket) -> None:
        pump(tls, self.to(self._target))


class Web(Endpoint):
    """A web server over TLS that gives each request the same answer, `behind` the handshake if there is one.

    Attributes:
        heads: what it was asked.
    """

    def __init__(self, pki: Pki, answer: bytes = b"", behind: Callable[[ssl.SSLSocket], None] | None = None) -> None:
        super().__init__(pki, alpn="", mutual=False)
        self._fixed = answer
        self._behind = behind
        self.heads: list[str] = []

    def answer(self, tls: ssl.SSLSocket) -> None:
        head = read_head(tls)
        self.heads.append(head)
        if self._behind is None:
            tls.sendall(self._fixed)
            return
        key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        tls.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-protocol: mqtt\r\nsec-websocket-accept: " + accept + b"\r\n\r\n"
        )
        self._behind(tls)


# --- port 443 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(mosquitto: Mosquitto) -> int:
    """Open a port of the broker without TLS."""
    port = spare_port()
    configure(mosquitto, f"listener {port} 127.0.0.1", "allow_anonymous true")
    return port


@pytest.fixture
def behind_443(plain: int, mosquitto: Mosquitto, pki: Pki) -> Iterator[Endpoint]:
    """An endpoint as that of AWS IoT on port 443, and the Jobs service behind it."""
    with (
        BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=cloud(pki)),
        Endpoint(pki, plain) as endpoint,
    ):
        yield endpoint


def test_on_port_443_the_protocol_of_aws_is_asked_for(
    connect: Callable[[Link], Device], link: Link, behind_443: Endpoint
) -> None:
    with HttpProxy(behind_443.port) as proxy:
        connect(replace(link, port=443, proxy=proxy.proxy())).works()
    assert behind_443.protocols == [ALPN]
    assert proxy.heads == ["CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"]


def test_on_another_port_no_protocol_is_asked_for(
    connect: Callable[[Link], Device], link: Link, behind_443: Endpoint
) -> None:
    connect(replace(link, port=behind_443.port)).works()
    assert behind_443.protocols == [None]


def test_a_port_443_that_knows_another_protocol_only_is_told_with_what_to_check(
    connect: Callable[[Link], Device], link: Link, pki: Pki
) -> None:
    with Endpoint(pki, alpn="h2") as endpoint, HttpProxy(endpoint.port) as proxy:
        reason = connect(replace(link, port=443, proxy=proxy.proxy())).reason()
    # OpenSSL's server lets such a client in without a protocol, or says so, depending on its program.
    assert f"{ALPN} (ALPN)" in reason
    assert "AWS IoT" in reason


def test_a_port_443_that_is_asked_for_no_protocol_and_speaks_http_is_told_with_what_to_set(
    connect: Callable[[Link], Device], link: Link, pki: Pki
) -> None:
    with Endpoint(pki) as endpoint, HttpProxy(endpoint.port) as proxy:
        endpoint.answer = lambda tls: tls.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[method-assign]
        reason = connect(replace(link, port=443, alpn="", proxy=proxy.proxy())).reason()
    assert reason.endswith(f"on port 443 AWS IoT wants a certificate, and {ALPN} (ALPN) with it")


# --- proxies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [5, 4])
def test_through_an_http_proxy_that_wants_a_password_requests_are_answered(
    connect: Callable[[Link], Device], link: Link, service: JobsService, version: int
) -> None:
    with HttpProxy(link.port, login="me:pass word:ü") as proxy:
        device = connect(replace(link, version=version, proxy=proxy.proxy("me", "pass word:ü")))
        device.works()
        service.create_job("greet", {"handler": "greet"}, [THING])
        device.next()
        assert isinstance(device.next(), NextChanged)


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_through_a_socks_proxy_requests_are_answered_and_the_proxy_looks_up_the_name(
    connect: Callable[[Link], Device], link: Link, service: JobsService, kind: int
) -> None:
    with SocksProxy(link.port, login=("me", "pass:wörd"), kind=kind) as proxy:
        connect(replace(link, proxy=proxy.proxy("me", "pass:wörd"))).works()
    assert proxy.asked == [(3, b"localhost", link.port)]


def test_addresses_are_given_to_a_socks_proxy_as_addresses(
    connect: Callable[[Link], Device], link: Link, service: JobsService
) -> None:
    with SocksProxy(link.port) as proxy:
        connect(replace(link, host="127.0.0.1", proxy=proxy.proxy())).works()
        connect(replace(link, host="::1", client_id="pump-8", proxy=proxy.proxy())).works()
    assert proxy.asked == [(1, b"\x7f\0\0\1", link.port), (4, bytes(15) + b"\1", link.port)]


def test_a_proxy_that_closes_the_tunnel_is_gone_through_again(
    connect: Callable[[Link], Device], link: Link, service: JobsService
) -> None:
    with HttpProxy(link.port) as proxy:
        device = connect(replace(link, proxy=proxy.proxy()))
        device.works()
        for sock in list(proxy._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        device.reason()
        device.works()
    assert len(proxy.heads) == 2


HTTP_REFUSALS = [
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", "does not let us through to localhost:PORT (403 Forbidden): whoever runs it"),
    (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach localhost:PORT (502 Bad Gateway): check connection.endpoint"),
    (b"HTTP/1.1 302\r\nLocation: x\r\n\r\n", "does not let us through to localhost:PORT (302): whoever runs it"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as an HTTP proxy does: check connection.proxy"),
    (b"x" * 100_000, "does not answer as an HTTP proxy does: check connection.proxy"),
    (b"HTTP/1.1 200", "does not answer as an HTTP proxy does: check connection.proxy"),
]


@pytest.mark.parametrize(("answer", "words"), HTTP_REFUSALS, ids=[str(answer[:16]) for answer, _ in HTTP_REFUSALS])
def test_an_http_proxy_that_refuses_is_told_with_what_to_do(
    connect: Callable[[Link], Device], link: Link, answer: bytes, words: str
) -> None:
    with HttpProxy(answer=answer) as proxy:
        device = connect(replace(link, proxy=proxy.proxy("me", "s3cret")))
        for reason in (device.reason(), device.reason()):
            assert words.replace("PORT", str(link.port)) in reason
            assert f"127.0.0.1:{proxy.port}" in reason
            assert "s3cret" not in reason


def test_a_proxy_that_wants_to_know_who_we_are_is_told_with_what_to_write(
    connect: Callable[[Link], Device], link: Link
) -> None:
    with HttpProxy(login="me:s3cret") as proxy:
        unknown = connect(replace(link, proxy=proxy.proxy())).reason()
        mistaken = connect(replace(link, proxy=proxy.proxy("me", "wr0ng"))).reason()
    said = f"the proxy 127.0.0.1:{proxy.port}"
    assert unknown.startswith(f"{said} wants a user and a password (407 ")
    assert "http://user:password@host:port" in unknown
    assert mistaken.startswith(f"{said} does not take the user me with that password (407 ")
    assert "wr0ng" not in mistaken


def test_a_socks_proxy_that_wants_to_know_who_we_are_is_told_with_what_to_write(
    connect: Callable[[Link], Device], link: Link
) -> None:
    with SocksProxy(login=("me", "s3cret")) as proxy:
        unknown = connect(replace(link, proxy=proxy.proxy())).reason()
        mistaken = connect(replace(link, proxy=proxy.proxy("me", "wr0ng"))).reason()
    said = f"the proxy 127.0.0.1:{proxy.port}"
    assert unknown.startswith(f"{said} wants a user and a password: write socks5://user:password@host:port")
    assert mistaken.startswith(f"{said} does not take the user me with that password")
    assert "wr0ng" not in mistaken


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "it failed, and does not say why"),
        (2, "its rules do not allow it"),
        (3, "it cannot reach that network"),
        (4, "it cannot reach that host, or find its name"),
        (5, "the connection was refused there"),
        (6, "that host is too far away"),
        (7, "it does not open connections for others"),
        (8, "it does not know that kind of address"),
        (99, "it says 99, which nobody knows"),
    ],
)
def test_what_a_socks_proxy_refuses_is_told_in_words(
    connect: Callable[[Link], Device], link: Link, code: int, words: str
) -> None:
    with SocksProxy(code=code) as proxy:
        reason = connect(replace(link, proxy=proxy.proxy())).reason()
    assert reason.startswith(f"the proxy 127.0.0.1:{proxy.port} does not let us through to localhost:{link.port}: ")
    assert words in reason


def test_an_http_proxy_that_is_taken_for_a_socks_proxy_is_told(connect: Callable[[Link], Device], link: Link) -> None:
    class Impatient(HttpProxy):
        def serve(self, sock: socket.socket) -> None:
            exactly(sock, 3)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Impatient() as proxy:
        reason = connect(replace(link, proxy=Proxy("socks5", "127.0.0.1", proxy.port))).reason()
    assert reason == f"127.0.0.1:{proxy.port} does not answer as a SOCKS5 proxy does: check connection.proxy"


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_is_not_there_is_told_as_the_proxy(
    connect: Callable[[Link], Device], link: Link, kind: str
) -> None:
    proxy = Proxy(kind, "127.0.0.1", spare_port(), "me", "s3cret")
    reason = connect(replace(link, proxy=proxy)).reason()
    assert reason == f"cannot reach the proxy {proxy.address}: Connection refused; check connection.proxy"
    nowhere = replace(proxy, host="no-such-proxy.invalid")
    assert connect(replace(link, proxy=nowhere)).reason().startswith("cannot reach the proxy no-such-proxy.invalid:")


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_says_nothing_is_given_up_and_holds_up_no_stop(
    connect: Callable[[Link], Device], link: Link, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        proxy = Proxy(kind, "127.0.0.1", listener.getsockname()[1])
        reason = connect(replace(link, proxy=proxy, patience=0.2)).reason()
        assert reason.startswith(f"the proxy {proxy.address} takes the connection and does not answer within")
        device = connect(replace(link, proxy=proxy))
        sock, _ = listener.accept()
        began = time.monotonic()
        device.transport.stop()
        assert time.monotonic() - began < 1
        sock.close()


def test_a_broker_that_is_not_trusted_is_told_with_the_proxy_on_the_way(
    connect: Callable[[Link], Device], link: Link, pki: Pki, tmp_path: Path
) -> None:
    with HttpProxy(link.port) as proxy:
        other = type(pki)(tmp_path)
        reason = connect(replace(link, ca=other.ca, proxy=proxy.proxy())).reason()
    assert f"localhost:{link.port} (through the proxy 127.0.0.1:{proxy.port}) is not trusted" in reason


# --- WebSockets ---------------------------------------------------------------------------------------------------

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A standard AWS environment with credentials, and none of this machine's."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def signed(pki: Pki, environment: pytest.MonkeyPatch) -> Link:
    """A link that is signed, to whatever port."""
    return Link(
        "localhost", 443, THING, THING, ca=pki.ca, patience=5.0, websocket=True, region="eu-west-1", keep_alive=30
    )


@pytest.fixture
def web_port(mosquitto: Mosquitto, pki: Pki) -> int:
    """Open a port of the broker for WebSockets over TLS."""
    port = spare_port()
    files = [f"cafile {pki.ca}", f"certfile {pki.server_cert}", f"keyfile {pki.server_key}"]
    configure(mosquitto, f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true", *files)
    return port


@pytest.mark.parametrize("version", [5, 4])
def test_over_a_signed_websocket_through_a_proxy_requests_are_answered(
    connect: Callable[[Link], Device], signed: Link, web_port: int, service: JobsService, version: int
) -> None:
    with SocksProxy(web_port) as proxy:
        connect(replace(signed, version=version, proxy=proxy.proxy())).works()
    assert proxy.asked == [(3, b"localhost", 443)]


def test_the_websocket_is_opened_as_the_standard_and_aws_want_it(
    connect: Callable[[Link], Device], signed: Link, pki: Pki, environment: pytest.MonkeyPatch, require: Require
) -> None:
    environment.setenv("AWS_SESSION_TOKEN", "IQoJb3JpZ2lu//+==")
    with Web(pki, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as web, HttpProxy(web.port) as proxy:
        connect(replace(signed, proxy=proxy.proxy())).reason()
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
    assert query["X-Amz-Signature"] == [judged(query)]


def judged(query: dict[str, list[str]]) -> str:
    """Return the signature that botocore gives such a request; the session token has no part in it."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", "https://localhost/mqtt")
    request.context["timestamp"] = query["X-Amz-Date"][0]
    judge = SigV4QueryAuth(Credentials(*KEYS.values()), "iotdevicegateway", "eu-west-1", expires=86_400)
    judge._modify_request_before_signing(request)
    return str(judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request))


def test_a_websocket_that_is_refused_is_told_with_the_words_of_aws(
    connect: Callable[[Link], Device], signed: Link, pki: Pki
) -> None:
    body = b'{"message":"Forbidden","traceId":"1d0cd2f9"}'
    head = f"HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: ForbiddenException\r\nContent-Length: {len(body)}\r\n\r\n"
    with Web(pki, head.encode() + body) as web:
        device = connect(replace(signed, port=web.port))
        for reason in (device.reason(), device.reason()):
            assert f"does not open a WebSocket (403 Forbidden: {body.decode()}); do the AWS credentials allow" in reason
            assert "is the clock right?" in reason
            assert KEYS["AWS_SECRET_ACCESS_KEY"] not in reason


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
    connect: Callable[[Link], Device], signed: Link, pki: Pki, answer: bytes, words: str
) -> None:
    with Web(pki, answer) as web:
        assert words in connect(replace(signed, port=web.port)).reason()


def test_without_credentials_nothing_is_opened_and_what_to_set_is_told(
    connect: Callable[[Link], Device], signed: Link, pki: Pki, environment: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        environment.delenv(name)
    with Web(pki) as web:
        reason = connect(replace(signed, port=web.port)).reason()
    assert reason.startswith("cannot find AWS credentials: there are none")
    assert web.protocols == []


CONNACK, SUBACK = b"\x20\x03\x00\x00\x00", b"\x90\x0b\x00\x01\x00" + b"\x01" * 8


def framed(kind: int, data: bytes, *, final: bool = True) -> bytes:
    """Return a frame as a server sends it."""
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
    return bytes([0x80 * final | kind]) + length + data


def unmasked(tls: ssl.SSLSocket) -> tuple[int, bytes]:
    """Read a frame; return its opcode and what is in it. It has to be masked."""
    first, second = exactly(tls, 2)
    assert second & 0x80, "a client has to mask what it sends"
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(exactly(tls, 2 if size == 126 else 8), "big")
    mask, data = exactly(tls, 4), exactly(tls, size)
    return first & 0x0F, bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))


def test_pings_of_the_websocket_are_answered_and_messages_may_come_in_any_pieces(
    connect: Callable[[Link], Device], signed: Link, pki: Pki
) -> None:
    topic = b"$aws/things/pump-7/jobs/notify-next"
    body = struct.pack("!H", len(topic)) + topic + b"\0" + b'{"timestamp":1}'
    message = bytes([0x30, len(body)]) + body
    heard: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()

    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(framed(0x9, b"early"))  # before CONNECT was read, and perhaps with the handshake
        for answer in (CONNACK, SUBACK):
            while (frame := unmasked(tls))[0] != 2:
                heard.put(frame)
            tls.sendall(framed(2, answer))
        whole = message * 3
        pieces = framed(2, whole[:20], final=False) + framed(0x9, b"midway") + framed(0, whole[20:])
        for cut in range(0, len(pieces), 7):
            tls.sendall(pieces[cut : cut + 7])
        tls.sendall(framed(2, message + message))
        while (frame := unmasked(tls))[0] != 8:
            heard.put(frame)
        heard.put(frame)

    with Web(pki, behind=talk) as web:
        device = connect(replace(signed, port=web.port))
        assert device.next() == Connected()
        assert [device.next() for _ in range(5)] == [NextChanged(None)] * 5
        device.transport.stop()
        frames = [heard.get(timeout=PATIENCE_SECONDS) for _ in range(4)]
    assert frames[:2] == [(0xA, b"early"), (0xA, b"midway")]
    assert frames[2] == (2, b"\xe0\x00"), "MQTT's goodbye"
    assert frames[3] == (8, struct.pack("!H", 1000)), "and the WebSocket's"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (framed(8, struct.pack("!H", 1008) + b"policy\nviolated"), "the WebSocket was closed (1008 policy violated)"),
        (framed(1, b"text"), "what comes is no WebSocket for MQTT"),
    ],
)
def test_a_websocket_that_ends_is_told_with_its_reason(
    connect: Callable[[Link], Device], signed: Link, pki: Pki, sent: bytes, words: str
) -> None:
    def talk(tls: ssl.SSLSocket) -> None:
        for answer in (CONNACK, SUBACK):
            unmasked(tls)
            tls.sendall(framed(2, answer))
        tls.sendall(sent)
        read_until_closed(tls)

    with Web(pki, behind=talk) as web:
        device = connect(replace(signed, port=web.port))
        for _ in range(2):
            assert device.next() == Connected()
            assert words in device.reason()


def read_until_closed(tls: ssl.SSLSocket) -> None:
    while tls.recv(65_536):
        pass


def test_what_a_slow_reader_does_not_take_at_once_goes_out_later(
    connect: Callable[[Link], Device], signed: Link, pki: Pki, eventually: Callable[..., object]
) -> None:
    go_on = threading.Event()
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def talk(tls: ssl.SSLSocket) -> None:
        for answer in (CONNACK, SUBACK):
            unmasked(tls)
            tls.sendall(framed(2, answer))
        assert go_on.wait(PATIENCE_SECONDS)
        while True:
            received.put(unmasked(tls)[1])

    with Web(pki, behind=talk) as web:
        device = connect(replace(signed, port=web.port))
        assert device.next() == Connected()
        session = device.transport._session
        assert session is not None
        session._web._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        # As many as paho sends before one is acknowledged.
        tokens = [f"{number:05}" + "x" * 120_000 for number in range(20)]
        for token in tokens:
            device.transport.send(GetPending(token))
        eventually(lambda: session._web.unsent)
        go_on.set()
        came = [received.get(timeout=PATIENCE_SECONDS) for _ in tokens]
    assert all(token.encode() in message for token, message in zip(tokens, came, strict=True))


def test_an_idle_websocket_wakes_nobody(
    connect: Callable[[Link], Device], signed: Link, web_port: int, service: JobsService
) -> None:
    device = connect(replace(signed, port=web_port))
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


# --- TLS ----------------------------------------------------------------------------------------------------------


def test_tls_13_can_be_demanded(connect: Callable[[Link], Device], link: Link, service: JobsService, pki: Pki) -> None:
    connect(replace(link, tls_min="1.3")).works()
    with Endpoint(pki, newest=ssl.TLSVersion.TLSv1_2) as old:
        reason = connect(replace(link, port=old.port, tls_min="1.3")).reason()
    assert reason == f"localhost:{old.port} does not speak TLS 1.3 (connection.tls_min)"


def test_tls_12_is_enough_where_nothing_else_is_demanded(
    connect: Callable[[Link], Device], link: Link, plain: int, mosquitto: Mosquitto, pki: Pki
) -> None:
    jobs = BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=cloud(pki))
    with jobs, Endpoint(pki, plain, newest=ssl.TLSVersion.TLSv1_2) as old:
        connect(replace(link, port=old.port)).works()


@pytest.fixture(params=["pkcs8", "traditional"])
def locked(link: Link, tmp_path: Path, request: pytest.FixtureRequest) -> Link:
    """The link with its key behind a password."""
    from cryptography.hazmat.primitives import serialization as how

    assert link.private_key is not None
    key = how.load_pem_private_key(link.private_key.read_bytes(), None)
    form = how.PrivateFormat.PKCS8 if request.param == "pkcs8" else how.PrivateFormat.TraditionalOpenSSL
    path, secret = tmp_path / "locked.key", tmp_path / "password"
    path.write_bytes(key.private_bytes(how.Encoding.PEM, form, how.BestAvailableEncryption("pässword ".encode())))
    secret.write_bytes("pässword \n".encode())
    return replace(link, private_key=path, private_key_password_file=secret)


def test_a_key_with_a_password_is_used(connect: Callable[[Link], Device], locked: Link, service: JobsService) -> None:
    connect(locked).works()


def test_a_password_that_is_not_the_keys_is_told_and_one_that_comes_later_is_used(
    connect: Callable[[Link], Device], locked: Link, service: JobsService
) -> None:
    secret = locked.private_key_password_file
    assert secret is not None
    right = secret.read_bytes()
    secret.write_bytes(b"wr0ng\n")
    device = connect(locked)
    reason = device.reason()
    assert f"{secret} does not hold the key's password (connection.private_key_password_file)" in reason
    assert "wr0ng" not in reason
    secret.write_bytes(right)
    while not isinstance(came := device.next(), Connected):
        assert isinstance(came, Disconnected)
    device.asks("t1")


def test_a_password_that_is_missing_is_told(connect: Callable[[Link], Device], locked: Link, tmp_path: Path) -> None:
    reason = connect(replace(locked, private_key_password_file=None)).reason()
    assert "the key has a password; name the file that holds it in connection.private_key_password_file" in reason
    gone = connect(replace(locked, private_key_password_file=tmp_path / "gone")).reason()
    assert gone == f"cannot read {tmp_path / 'gone'}: No such file or directory"
