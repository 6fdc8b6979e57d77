"""The ways of the transport awsiot to AWS IoT: port 443, a proxy, WebSockets, custom authorizers, tokens.

Each server is the test itself, so that what was said on the wire can be looked at; the judges are botocore for
signatures and the AWS IoT Device SDK's own builders for custom authorizers.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes.util
import queue
import re
import select
import socket
import ssl
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from thingjobs.config.settings import Authorizer, Pkcs11
from thingjobs.errors import ConfigError
from thingjobs.jobs import Connected, Disconnected, GetPending, Incoming, Pending
from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.awsiot_settings import AwsIotSettings
from thingjobs.transport.link import Link
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}


class Device:
    """A transport that runs, and what it put."""

    def __init__(self, link: Link, settings: AwsIotSettings) -> None:
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self.transport = AwsIotTransport(link, lambda: 0.02, settings=settings)
        self.transport.start(self._put.put)

    def connects(self) -> None:
        came = self._put.get(timeout=PATIENCE_SECONDS)
        assert came == Connected()

    def works(self) -> None:
        self.connects()
        self.transport.send(GetPending("t1"))
        assert self._put.get(timeout=PATIENCE_SECONDS) == Pending("t1", (), ())

    def reason(self) -> str:
        came = self._put.get(timeout=PATIENCE_SECONDS)
        assert isinstance(came, Disconnected)
        assert len(came.reason.splitlines()) == 1
        return came.reason


@pytest.fixture
def connect(require: Require) -> Iterator[Callable[..., Device]]:
    """Start transports; at the end of the test they stop."""
    require("awscrt")
    started: list[Device] = []

    def start(link: Link, **settings: Any) -> Device:
        started.append(Device(link, AwsIotSettings(**settings)))
        return started[-1]

    yield start
    for device in started:
        device.transport.stop()


def through(server: Listener, user: str = "", password: str = "") -> Proxy:
    return Proxy("http", "localhost", server.port, user, password)


def signed(link: Link, **more: Any) -> Link:
    """Return the link as a WebSocket that is signed; AWS wants no certificate then."""
    return replace(link, certificate=None, private_key=None, websocket=True, region="eu-west-1", **more)


@pytest.fixture
def link(pki: Pki) -> Link:
    """Everything but the port of an endpoint."""
    certificate, key = pki.device(THING)
    return Link("localhost", 443, THING, THING, certificate=certificate, private_key=key, ca=pki.ca)


# --- servers ------------------------------------------------------------------------------------------------------


class Listener:
    """A server on a loopback port; a thread for each connection, which `serve` looks after."""

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
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # under TLS, which another thread uses
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._threads.append(threading.Thread(target=self._hold, args=(sock,)))
                self._threads[-1].start()

    def _hold(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(OSError), sock:
            self.serve(sock)


class ProxyServer(Listener):
    """An HTTP proxy that knows CONNECT, and leads every connection to one port."""

    def __init__(self, port: int, login: str = "") -> None:
        super().__init__()
        self._target = port
        self._login = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self.asked: list[str] = []

    def serve(self, sock: socket.socket) -> None:
        head = read_head(sock)
        self.asked.append(head.splitlines()[0])
        if self._login and f"Proxy-Authorization: {self._login}" not in head:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self._target)) as behind:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while True:
                for ready in select.select([sock, behind], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (behind if ready is sock else sock).sendall(data)


class Endpoint(Listener):
    """A TLS server as AWS IoT is on port 443; it keeps which protocol was asked for, and what was said first."""

    def __init__(self, pki: Pki, *protocols: str) -> None:
        super().__init__()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
        self._context.load_cert_chain(pki.server_cert, pki.server_key)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.set_alpn_protocols(list(protocols))
        self.seen: queue.SimpleQueue[tuple[str | None, bool, bytes]] = queue.SimpleQueue()

    def serve(self, sock: socket.socket) -> None:
        with self._wrapped(sock) as tls:
            if not (first := tls.recv(65536)):
                return
            self.seen.put((tls.selected_alpn_protocol(), bool(tls.getpeercert()), first))
            self.answer(tls)

    def _wrapped(self, sock: socket.socket) -> ssl.SSLSocket:
        tls = self._context.wrap_socket(sock, server_side=True)
        self._socks.append(tls)
        return tls

    def answer(self, tls: ssl.SSLSocket) -> None:
        tls.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK
        subscribe = tls.recv(65536)
        tls.sendall(b"\x90\x0b" + subscribe[3:5] + b"\0" + bytes([1] * 8))
        tls.recv(65536)


class WebEndpoint(Endpoint):
    """The same for WebSockets; it lets nobody in."""

    def answer(self, tls: ssl.SSLSocket) -> None:
        tls.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def read_head(sock: socket.socket) -> str:
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    return head.decode()


def login_of(connect_packet: bytes) -> tuple[bytes, bytes]:
    """Return user name and password of a CONNECT (MQTT 5) without a will."""
    body = connect_packet[connect_packet.index(b"\0\4MQTT") :]
    flags, rest = body[7], body[10:]
    rest = rest[1 + rest[0] :]  # properties
    fields = []
    while rest:
        (size,) = struct.unpack("!H", rest[:2])
        fields.append(rest[2 : 2 + size])
        rest = rest[2 + size :]
    assert fields[0] == b"pump-7"
    return (fields[1] if flags & 0x80 else b""), (fields[2] if flags & 0x40 else b"")


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    service = JobsService()
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield service


# --- port 443 and proxies -----------------------------------------------------------------------------------------

NAMES = ("x-amzn-mqtt-ca", "mqtt", "http/1.1")


def test_on_port_443_mutual_tls_asks_for_its_own_protocol(connect: Callable[..., Device], link: Link, pki: Pki) -> None:
    with Endpoint(pki, *NAMES) as endpoint, ProxyServer(endpoint.port) as proxy:
        connect(replace(link, proxy=through(proxy))).connects()
        protocol, shown, _ = endpoint.seen.get(timeout=PATIENCE_SECONDS)
        assert (protocol, shown) == ("x-amzn-mqtt-ca", True)
        assert proxy.asked == ["CONNECT localhost:443 HTTP/1.1"]


def test_on_another_port_no_protocol_is_asked_for(connect: Callable[..., Device], link: Link, pki: Pki) -> None:
    with Endpoint(pki, *NAMES) as endpoint:
        connect(replace(link, port=endpoint.port)).connects()
        assert endpoint.seen.get(timeout=PATIENCE_SECONDS)[0] is None


def test_through_a_proxy_that_wants_a_password_requests_are_answered(
    connect: Callable[..., Device], link: Link, mosquitto: Mosquitto, service: JobsService
) -> None:
    with ProxyServer(mosquitto.port, "jane:s3cret/@") as proxy:
        connect(replace(link, port=mosquitto.port, proxy=through(proxy, "jane", "s3cret/@"))).works()
        assert proxy.asked == [f"CONNECT localhost:{mosquitto.port} HTTP/1.1"]


def test_a_proxy_that_refuses_is_told_without_its_password(connect: Callable[..., Device], link: Link) -> None:
    with ProxyServer(1, "jane:right") as proxy:
        reason = connect(replace(link, proxy=through(proxy, "jane", "wrong"))).reason()
    assert f"the proxy localhost:{proxy.port}" in reason
    assert "407" in reason
    assert "wrong" not in reason


def test_a_proxy_that_is_not_there_is_told_as_the_proxy(connect: Callable[..., Device], link: Link) -> None:
    refused = connect(replace(link, proxy=Proxy("http", "localhost", 1))).reason()
    assert refused == "the proxy localhost:1: Connection refused"
    reason = connect(replace(link, proxy=Proxy("http", "nowhere.invalid", 3128))).reason()
    assert reason == "the name nowhere.invalid cannot be resolved; check connection.proxy and the DNS"


def test_a_proxy_that_it_cannot_use_is_refused_at_the_start(link: Link) -> None:
    with pytest.raises(ConfigError, match=r"connection\.proxy"):
        AwsIotTransport(replace(link, proxy=Proxy("socks5", "localhost", 1080)), lambda: 0.0)


def test_tls_13_can_be_demanded(connect: Callable[..., Device], link: Link, pki: Pki) -> None:
    with Endpoint(pki) as endpoint:
        endpoint._context.maximum_version = ssl.TLSVersion.TLSv1_2
        there = replace(link, port=endpoint.port, patience=0.3)
        connect(there).connects()
        assert "TLS" in connect(replace(there, tls_min="1.3")).reason()


# --- WebSockets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The standard environment of AWS; nobody looks for another."""
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return monkeypatch


@pytest.mark.parametrize("token", ["", "session/token+with=signs"])
def test_the_handshake_of_a_websocket_is_signed_as_botocore_signs_it(
    connect: Callable[..., Device], link: Link, pki: Pki, credentials: pytest.MonkeyPatch, token: str
) -> None:
    if token:
        credentials.setenv("AWS_SESSION_TOKEN", token)
    with WebEndpoint(pki, *NAMES) as endpoint, ProxyServer(endpoint.port) as proxy:
        device = connect(signed(link, proxy=through(proxy)))
        protocol, shown, head = endpoint.seen.get(timeout=PATIENCE_SECONDS)
        reason = device.reason()
    assert "localhost:443" in reason
    assert "403 Forbidden" in reason
    assert (protocol, shown) == ("http/1.1", False)
    method, target, _ = head.decode().split("\r\n")[0].split()
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    assert (method, urlsplit(target).path, headers["Sec-WebSocket-Protocol"]) == ("GET", "/mqtt", "mqtt")
    asked = dict(parse_qsl(urlsplit(target).query))
    assert asked.pop("X-Amz-Security-Token", "") == token
    assert asked["X-Amz-Credential"].endswith("/eu-west-1/iotdevicegateway/aws4_request")
    assert asked.pop("X-Amz-Signature") == judged(asked, headers)


def judged(query: dict[str, str], headers: dict[str, str]) -> str:
    """Return the signature that botocore gives to the same request at the same time."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    judge = SigV4QueryAuth(keys, "iotdevicegateway", "eu-west-1")
    signed_headers = {name: headers[name.title()] for name in query["X-Amz-SignedHeaders"].split(";")}
    request = AWSRequest("GET", f"https://{headers['Host']}/mqtt?{urlencode(query)}", headers=signed_headers)
    request.context["timestamp"] = query["X-Amz-Date"]
    request.context["payload_signing_enabled"] = True
    signed: str = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
    return signed


def test_over_a_websocket_requests_are_answered(
    connect: Callable[..., Device],
    link: Link,
    mosquitto: Mosquitto,
    service: JobsService,
    pki: Pki,
    credentials: pytest.MonkeyPatch,
) -> None:
    port = mosquitto_with_websockets(mosquitto, pki)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=cloud(pki)):
        connect(signed(link, port=port)).works()


def mosquitto_with_websockets(mosquitto: Mosquitto, pki: Pki) -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    mosquitto.stop()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", "allow_anonymous true"]
    files = [f"cafile {pki.ca}", f"certfile {pki.server_cert}", f"keyfile {pki.server_key}"]
    with (mosquitto.log.parent / "mosquitto.conf").open("a") as config:
        config.write("\n".join([*lines, *files, ""]))
    mosquitto.start()
    return port


def cloud(pki: Pki) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    return context


def test_without_credentials_a_websocket_is_not_opened(
    connect: Callable[..., Device], link: Link, credentials: pytest.MonkeyPatch, pki: Pki
) -> None:
    for name in KEYS:
        credentials.delenv(name)
    with WebEndpoint(pki) as endpoint:
        reason = connect(signed(link, port=endpoint.port)).reason()
    assert reason.startswith("no AWS credentials to sign the WebSocket with")
    assert "set AWS_ACCESS_KEY_ID" in reason


# --- custom authorizers -------------------------------------------------------------------------------------------


@pytest.fixture
def authorizer(tmp_path: Path) -> Authorizer:
    for name, text in {"password": "pass word\n", "token": "to-ken.1\n", "signature": "ab+/c==\n"}.items():
        (tmp_path / name).write_text(text)
    files = {f"{name}_file": tmp_path / name for name in ("password", "token", "signature")}
    return Authorizer(name="Doorman", username="jane", token_key="tokenKey", **files)


@pytest.mark.parametrize("websocket", [False, True])
def test_a_custom_authorizer_is_shown_what_the_vendors_sdk_shows_it(
    connect: Callable[..., Device], link: Link, pki: Pki, authorizer: Authorizer, websocket: bool
) -> None:
    endpoint: Endpoint = WebSocketBroker(pki, *NAMES) if websocket else Endpoint(pki, *NAMES)
    with endpoint, ProxyServer(endpoint.port) as proxy:
        device = connect(replace(link, websocket=websocket, proxy=through(proxy)), authorizer=authorizer)
        protocol, shown, ours = endpoint.seen.get(timeout=PATIENCE_SECONDS)
        device.transport.stop()
        theirs_protocol, _, theirs = shown_by_the_sdk(endpoint, proxy.port, pki, websocket=websocket)
    assert (protocol, shown) == ("http/1.1" if websocket else "mqtt", False)
    assert login_of(ours) == login_of(theirs)
    assert login_of(ours) == (
        b"jane?x-amz-customauthorizer-name=Doorman&x-amz-customauthorizer-signature=ab%2B/c%3D%3D&tokenKey=to-ken.1",
        b"pass word",
    )
    if not websocket:
        assert protocol == theirs_protocol


class WebSocketBroker(Endpoint):
    """An endpoint that opens a WebSocket and keeps the CONNECT that comes through it."""

    def serve(self, sock: socket.socket) -> None:
        import hashlib

        with self._wrapped(sock) as tls:
            found = re.search(r"Sec-WebSocket-Key: (\S+)", read_head(tls))
            assert found is not None
            proof = hashlib.sha1(f"{found[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            more = f"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: {base64.b64encode(proof).decode()}\r\n\r\n"
            tls.sendall((upgrade + more).encode())
            self.seen.put((tls.selected_alpn_protocol(), bool(tls.getpeercert()), unmasked(tls)))


def unmasked(tls: ssl.SSLSocket) -> bytes:
    """Return the payload of the WebSocket frame that comes now; it has more than 125 bytes."""
    frame = b""
    while len(frame) < 8:
        frame += tls.recv(65536)
    assert frame[1] == 0x80 | 126
    (size,) = struct.unpack("!H", frame[2:4])
    while len(frame) < 8 + size:
        frame += tls.recv(65536)
    return bytes(byte ^ frame[4 + index % 4] for index, byte in enumerate(frame[8 : 8 + size]))


def shown_by_the_sdk(endpoint: Endpoint, proxy: int, pki: Pki, *, websocket: bool) -> tuple[str | None, bool, bytes]:
    """Return what the vendor's SDK shows, configured with the same."""
    from awscrt.http import HttpProxyConnectionType, HttpProxyOptions
    from awsiot import mqtt5_client_builder as builder

    stopped = threading.Event()
    make = builder.websockets_with_custom_authorizer if websocket else builder.direct_with_custom_authorizer
    client = make(
        endpoint="localhost",
        port=443,
        client_id=THING,
        ca_filepath=str(pki.ca),
        enable_metrics_collection=False,
        http_proxy_options=HttpProxyOptions("localhost", proxy, connection_type=HttpProxyConnectionType.Tunneling),
        on_lifecycle_stopped=lambda _data: stopped.set(),
        auth_username="jane",
        auth_password="pass word",
        auth_authorizer_name="Doorman",
        auth_authorizer_signature="ab+/c==",
        auth_token_key_name="tokenKey",
        auth_token_value="to-ken.1",
    )
    client.start()
    seen = endpoint.seen.get(timeout=PATIENCE_SECONDS)
    client.stop()
    assert stopped.wait(PATIENCE_SECONDS)
    return seen


def test_an_authorizer_without_a_readable_password_is_told(
    connect: Callable[..., Device], link: Link, tmp_path: Path
) -> None:
    authorizer = Authorizer(name="Doorman", password_file=tmp_path / "gone")
    reason = connect(link, authorizer=authorizer).reason()
    assert reason == f"cannot read {tmp_path}/gone: No such file or directory"


# --- tokens -------------------------------------------------------------------------------------------------------


def test_a_module_that_is_none_is_told(connect: Callable[..., Device], link: Link, tmp_path: Path) -> None:
    (tmp_path / "none.so").write_text("no library")
    for module in (tmp_path / "gone.so", tmp_path / "none.so"):
        reason = connect(replace(link, private_key=None), pkcs11=Pkcs11(module)).reason()
        assert reason.startswith(f"cannot use {module} as a PKCS#11 module: ")
        assert reason.endswith("check connection.pkcs11.module")


def test_a_module_without_the_token_is_told_with_what_was_looked_for(
    connect: Callable[..., Device], link: Link, tmp_path: Path
) -> None:
    module = ctypes.util.find_library("p11-kit")
    if module is None:
        pytest.skip("NOT TESTED: no PKCS#11 module is here; p11-kit is one that has no tokens")
    (tmp_path / "pin").write_text("1234\n")
    token = Pkcs11(Path(module), tmp_path / "pin", token="tpm", key="device")
    reason = connect(replace(link, private_key=None), pkcs11=token).reason()
    assert reason.startswith(f"cannot use token tpm, key device of {module}: ")
    assert "AWS_ERROR_PKCS11_TOKEN_NOT_FOUND" in reason
    assert "1234" not in reason


def test_a_token_needs_its_certificate_and_no_key_file(link: Link) -> None:
    token = AwsIotSettings(pkcs11=Pkcs11(Path("/usr/lib/token.so")))
    for wrong, words in [
        (replace(link, certificate=None, private_key=None), "needs connection.certificate"),
        (link, "exclude each other"),
    ]:
        with pytest.raises(ConfigError, match=words):
            AwsIotTransport(wrong, lambda: 0.0, settings=token)
