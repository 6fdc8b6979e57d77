"""What is particular to the paho transport: sockets, certificates, the packets themselves, and quiet.

What it shares with every transport is in connection/contract/. Where a test needs to see or choose each packet, it is
the broker itself (`Puppet`); otherwise there is a Mosquitto.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import queue
import socket
import ssl
import struct
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

from thingjobs.jobs import Connected, Disconnected, GetPending, Incoming, NextChanged, Pending, Update
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.dial import UNACKED_MILLISECONDS, Link
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
VERSIONS = pytest.mark.parametrize("version", [pytest.param(5, id="mqtt5"), pytest.param(4, id="mqtt311")])

Kind = TypeVar("Kind", bound=Incoming)


class Device:
    """A transport that runs, and what it put."""

    def __init__(self, link: Link, roll: float) -> None:
        self.transport = PahoTransport(link, lambda: roll)
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self.transport.start(self._put.put)

    def next(self, kind: type[Kind], seconds: float = PATIENCE_SECONDS) -> Kind:
        """Return what came next; it has to be of that kind."""
        came = self._put.get(timeout=seconds)
        assert isinstance(came, kind), f"{came} came instead of a {kind.__name__}"
        return came

    def skip_to(self, kind: type[Kind]) -> Kind:
        """Return the next that is of that kind."""
        while not isinstance(came := self._put.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def within(self, seconds: float) -> list[Incoming]:
        """Return all that comes in the next seconds."""
        end = time.monotonic() + seconds
        came: list[Incoming] = []
        with contextlib.suppress(queue.Empty):
            while True:
                came.append(self._put.get(timeout=max(0.0, end - time.monotonic())))
        return came

    def works(self, token: str) -> None:
        """Ask something: nothing but its answer comes."""
        self.transport.send(GetPending(token))
        assert self.next(Pending).token == token

    def silent(self) -> bool:
        return self._put.empty()

    @property
    def session(self) -> Any:
        """The connection that it has."""
        assert self.transport._session is not None
        return self.transport._session


@pytest.fixture
def connect() -> Iterator[Callable[..., Device]]:
    """Start transports; at the end of the test they stop."""
    started: list[Device] = []

    def start(link: Link, roll: float = 0.02) -> Device:
        started.append(Device(link, roll))
        return started[-1]

    yield start
    for device in started:
        device.transport.stop()


@pytest.fixture
def link(mosquitto: Mosquitto, pki: Pki) -> Link:
    """Mosquitto, with a good certificate."""
    certificate, key = pki.device(THING)
    return Link("localhost", mosquitto.port, THING, THING, certificate=certificate, private_key=key, ca=pki.ca)


@contextlib.contextmanager
def serving(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    """The Jobs service behind the broker."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    service = JobsService()
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield service


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    with serving(mosquitto, pki) as service:
        yield service


def configure(mosquitto: Mosquitto, *lines: str) -> None:
    """Start the broker anew, with these lines more in its configuration."""
    mosquitto.stop()
    with (mosquitto.log.parent / "mosquitto.conf").open("a") as config:
        config.write("\n".join([*lines, ""]))
    mosquitto.start()
    for line in lines:
        name, *words = line.split()
        if name == "listener":  # The broker counts as started when it listens on its first port.
            while True:
                with contextlib.suppress(OSError), socket.create_connection((words[1], int(words[0]))):
                    break


def spare_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


# --- a broker that is the test itself -----------------------------------------------------------------------------

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 0x10, 0x30, 0x40, 0x80, 0xC0, 0xE0
CONNACK = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}
PINGRESP = b"\xd0\x00"


class Peer:
    """The broker's end of one connection, packet by packet (MQTT 5 and 3.1.1)."""

    def __init__(self, sock: socket.socket, version: int) -> None:
        self._sock = sock
        self._version = version

    def packet(self, kind: int) -> bytes:
        """Return the body of the next packet, which has to be of that kind."""
        first = self._read(1)[0]
        size = shift = 0
        while True:
            byte = self._read(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        body = self._read(size)
        assert first & 0xF0 == kind, f"packet {first:#x} {body!r}"
        return body

    def filters(self) -> tuple[bytes, list[str]]:
        """Return the packet id and the filters of the SUBSCRIBE that comes now."""
        body = self.packet(SUBSCRIBE)
        mid, rest = body[:2], body[3 if self._version == 5 else 2 :]
        found = []
        while rest:
            (size,) = struct.unpack("!H", rest[:2])
            found.append(rest[2 : 2 + size].decode())
            rest = rest[3 + size :]
        return mid, found

    def request(self) -> dict[str, Any]:
        """Return the body of the request that is published now."""
        body = self.packet(PUBLISH)
        parsed: dict[str, Any] = json.loads(body[body.index(b"{") :])
        return parsed

    def accept(self) -> None:
        """Say yes to CONNECT and SUBSCRIBE."""
        self.packet(CONNECT)
        self.send(CONNACK[self._version])
        self.grant(self.filters()[0], bytes([1] * 8))

    def grant(self, mid: bytes, codes: bytes) -> None:
        """Answer a SUBSCRIBE."""
        body = mid + (b"\0" if self._version == 5 else b"") + codes
        self.send(bytes([0x90, len(body)]) + body)

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def closed(self) -> bool:
        """Whether the other end closes the connection, which is waited for."""
        try:
            return self._sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            assert more, "the connection was closed"
            data += more
        return data


class Puppet:
    """A port without TLS where the test is the broker."""

    def __init__(self, version: int = 5) -> None:
        self._version = version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self._peers: list[Peer] = []
        self.port = int(self._listener.getsockname()[1])
        self.link = Link("127.0.0.1", self.port, THING, THING, version=version)

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
        self._peers.append(Peer(sock, self._version))
        return self._peers[-1]


@VERSIONS
def test_it_subscribes_to_at_most_8_filters_in_a_packet_and_keeps_no_session(
    connect: Callable[..., Device], version: int
) -> None:
    with Puppet(version) as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        hello = peer.packet(CONNECT)
        flags, (keep_alive,) = hello[7], struct.unpack("!H", hello[8:10])
        assert hello[:7] == b"\0\4MQTT" + bytes([version])
        assert (flags, keep_alive) == (0x02, 300), "clean start and nothing else"
        peer.send(CONNACK[version])
        mid, filters = peer.filters()
        assert 1 <= len(filters) <= 8
        peer.grant(mid, bytes([1] * len(filters)))
        device.next(Connected)
        assert all(name.startswith("$aws/things/pump-7/jobs/") for name in filters)


@VERSIONS
def test_nothing_is_published_and_nobody_is_connected_before_the_subscriptions_are_granted(
    connect: Callable[..., Device], version: int
) -> None:
    with Puppet(version) as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.packet(CONNECT)
        peer.send(CONNACK[version])
        mid, _ = peer.filters()
        device.transport.send(GetPending("too-early"))
        assert device.silent()
        peer.grant(mid, bytes([1] * 8))
        device.next(Connected)
        device.transport.send(GetPending("in-time"))
        assert peer.request()["clientToken"] == "in-time"


@pytest.mark.parametrize(("silence", "what"), [("connect", "CONNECT"), ("subscribe", "SUBSCRIBE")])
def test_a_broker_that_stops_answering_while_connecting_is_given_up(
    connect: Callable[..., Device], silence: str, what: str
) -> None:
    with Puppet() as puppet:
        device = connect(replace(puppet.link, patience=0.3))
        for _ in range(2):
            peer = puppet.answer()
            peer.packet(CONNECT)
            if silence == "subscribe":
                peer.send(CONNACK[5])
                peer.filters()
            assert device.next(Disconnected).reason == f"127.0.0.1:{puppet.port} did not answer {what}"


def test_a_message_in_pieces_and_two_in_one_piece_arrive(connect: Callable[..., Device]) -> None:
    topic = b"$aws/things/pump-7/jobs/notify-next"
    body = struct.pack("!H", len(topic)) + topic + b"\0" + b'{"timestamp":1}'
    message = bytes([PUBLISH, len(body)]) + body
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        for byte in message:
            peer.send(bytes([byte]))
        assert device.next(NextChanged) == NextChanged(None)
        peer.send(message + message)
        assert [device.next(NextChanged), device.next(NextChanged)] == [NextChanged(None)] * 2


def test_packets_that_are_not_mqtt_end_the_connection_and_the_next_one_works(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        peer.send(b"\x30\xff\xff\xff\xff\xff\xff")
        assert "MQTT" in device.next(Disconnected).reason
        puppet.answer().accept()
        device.next(Connected)


def test_a_broker_that_says_why_it_disconnects_is_quoted(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        for code, words in [(0x8B, "Server shutting down"), (0x8E, "another client uses the id pump-7")]:
            peer = puppet.answer()
            peer.accept()
            device.next(Connected)
            peer.send(bytes([DISCONNECT, 2, code, 0]))
            assert words in device.next(Disconnected).reason


def test_a_request_that_the_broker_refuses_is_logged_and_the_connection_lives(
    connect: Callable[..., Device], caplog: pytest.LogCaptureFixture
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        for token in ("first", "second"):
            device.transport.send(GetPending(token))
            body = peer.packet(PUBLISH)
            (size,) = struct.unpack("!H", body[:2])
            peer.send(bytes([PUBACK, 4]) + body[2 + size : 4 + size] + b"\x87\x00")
        eventually(lambda: caplog.text.count("the broker refused a request: Not authorized") == 2)
        assert device.silent()


# --- refused ------------------------------------------------------------------------------------------------------


#: It comes with the broker. An ACL file denies what is sent and received, but never a subscription.
PLUGIN = "mosquitto_dynamic_security.so"
PLUGIN_FOLDERS = ("usr/lib/*", "usr/lib", "usr/local/lib")


@VERSIONS
def test_a_filter_that_the_broker_denies_is_named(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, require: Require, version: int
) -> None:
    plugins = [
        *Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"),
        *Path("/usr").glob("**/lib*/mosquitto_dynamic_security.so"),
    ]
    plugin = plugins[0] if plugins else require("mosquitto_dynamic_security.so")
    denied = "$aws/things/pump-7/jobs/notify-next"
    role = {"rolename": "device", "acls": [{"acltype": "subscribeLiteral", "topic": denied, "allow": False}]}
    allowed = dict.fromkeys(["publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"], True)
    rules = mosquitto.log.parent / "rules.json"
    clients = [{"username": THING, "roles": [{"rolename": "device"}]}]
    rules.write_text(json.dumps({"defaultACLAccess": allowed, "clients": clients, "roles": [role]}))
    configure(mosquitto, f"plugin {plugin}", f"plugin_opt_config_file {rules}")

    device = connect(replace(link, version=version))

    for _ in range(2):
        reason = device.next(Disconnected).reason
        assert reason == f"the broker refused to let us subscribe to {denied}: check the policy (iot:Subscribe)"


@VERSIONS
def test_a_connection_that_the_broker_refuses_is_told_with_its_reason(
    connect: Callable[..., Device], mosquitto: Mosquitto, version: int
) -> None:
    port = mosquitto.listen_without_tls(anonymous=False)

    device = connect(Link("127.0.0.1", port, THING, THING, version=version))

    for _ in range(2):
        reason = device.next(Disconnected).reason
        refused = f"127.0.0.1:{port} refused the connection of client pump-7: Not authorized"
        assert reason == f"{refused}; is iot:Connect allowed?"


def dated(pki: Pki, folder: Path, name: str, *, days: tuple[int, int]) -> tuple[Path, Path]:
    """Make a certificate of our authority that is valid between two days, counted from today."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = pki._new_key()
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, pki._ca_name)]))
        .public_key(key.public_key())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(pki._ca_key.public_key()), critical=False)
    )
    certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_path.write_bytes(builder.sign(pki._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_path, key_path


def other_pki(pki: Pki, folder: Path) -> Pki:
    """Return an authority that nobody here trusts."""
    return type(pki)(folder)


def untrusted(link: Link, pki: Pki, folder: Path) -> Link:
    certificate, key = other_pki(pki, folder).device(THING)
    return replace(link, certificate=certificate, private_key=key)


def expired(link: Link, pki: Pki, folder: Path) -> Link:
    certificate, key = dated(pki, folder, THING, days=(-9, -2))
    return replace(link, certificate=certificate, private_key=key)


def not_yet_valid(link: Link, pki: Pki, folder: Path) -> Link:
    certificate, key = dated(pki, folder, THING, days=(2, 9))
    return replace(link, certificate=certificate, private_key=key)


def none_shown(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, certificate=None, private_key=None)


def key_of_another(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, private_key=pki.device("pump-8")[1])


def key_with_a_password(link: Link, pki: Pki, folder: Path) -> Link:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    locked = folder / "locked.key"
    locked.write_bytes(
        pki._new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    return replace(link, private_key=locked)


def key_missing(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, private_key=folder / "gone.key")


def certificate_missing(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, certificate=folder / "gone.pem")


def certificate_is_no_certificate(link: Link, pki: Pki, folder: Path) -> Link:
    (folder / "empty.pem").write_text("nothing\n")
    return replace(link, certificate=folder / "empty.pem")


def authority_is_no_certificate(link: Link, pki: Pki, folder: Path) -> Link:
    (folder / "empty.pem").write_text("nothing\n")
    return replace(link, ca=folder / "empty.pem")


def authority_is_another(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, ca=other_pki(pki, folder).ca)


def authority_missing(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, ca=folder / "gone-ca.pem")


def name_unknown(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, host="no-such-host.invalid")


def name_impossible(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, host="pump..7")


def port_refuses(link: Link, pki: Pki, folder: Path) -> Link:
    return replace(link, port=spare_port())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (untrusted, ["localhost:PORT does not accept us: ", "unknown ca", "pump-7.pem"]),
        (expired, ["localhost:PORT does not accept us: ", "expired", "pump-7.pem"]),
        (not_yet_valid, ["localhost:PORT does not accept us: ", "certificate", "pump-7.pem"]),
        (none_shown, ["localhost:PORT does not accept us: ", "certificate"]),
        (key_of_another, ["pump-7.pem", "pump-8.key is not its key"]),
        (key_with_a_password, ["cannot use ", "locked.key"]),
        (key_missing, ["cannot read ", "gone.key: No such file"]),
        (certificate_missing, ["cannot read ", "gone.pem: No such file"]),
        (certificate_is_no_certificate, ["cannot use ", "empty.pem"]),
        (authority_is_no_certificate, ["cannot use ", "empty.pem", "PEM"]),
        (authority_is_another, ["localhost:PORT is not trusted: ", "connection.ca = ", "ca.pem"]),
        (authority_missing, ["cannot read ", "gone-ca.pem: No such file"]),
        (name_unknown, ["the name no-such-host.invalid cannot be resolved", "connection.endpoint"]),
        (name_impossible, ["pump..7:PORT: "]),
        (port_refuses, ["localhost:PORT: Connection refused"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_it_tries_again(
    connect: Callable[..., Device],
    link: Link,
    pki: Pki,
    tmp_path: Path,
    wrong: Callable[[Link, Pki, Path], Link],
    words: list[str],
) -> None:
    wrong_link = wrong(link, pki, tmp_path)
    device = connect(wrong_link)
    for _ in range(3):
        reason = device.next(Disconnected).reason
        assert len(reason.splitlines()) == 1
        for word in words:
            assert word.replace("PORT", str(wrong_link.port)) in reason


def test_a_broker_whose_certificate_has_expired_is_not_trusted_and_the_clock_is_doubted(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki, tmp_path: Path
) -> None:
    port = spare_port()
    certificate, key = dated(pki, tmp_path, "localhost", days=(-9, -2))
    configure(mosquitto, f"listener {port} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}")

    reason = connect(replace(link, port=port)).next(Disconnected).reason

    assert reason.startswith(f"localhost:{port} is not trusted: certificate has expired")
    assert "clock" in reason


def test_a_broker_with_a_certificate_for_another_name_is_not_trusted(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki
) -> None:
    port = spare_port("127.0.0.2")
    lines = [f"certfile {pki.server_cert}", f"keyfile {pki.server_key}"]
    configure(mosquitto, f"listener {port} 127.0.0.2", *lines)

    reason = connect(replace(link, host="127.0.0.2", port=port)).next(Disconnected).reason

    assert reason.startswith(f"127.0.0.2:{port} is not trusted: ")
    assert "127.0.0.2" in reason.partition(": ")[2]


def test_a_port_that_accepts_and_says_nothing_is_given_up(connect: Callable[..., Device], link: Link) -> None:
    with Puppet() as puppet:
        device = connect(replace(link, port=puppet.port, patience=0.2))
        for _ in range(2):
            peer = puppet.answer()
            reason = device.next(Disconnected).reason
            assert reason.startswith(f"localhost:{puppet.port} does not answer within")
            peer.close()


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_port_without_tls_is_named(connect: Callable[..., Device], link: Link, words: bytes) -> None:
    with Puppet() as puppet:
        device = connect(replace(link, port=puppet.port))
        for _ in range(2):
            peer = puppet.answer()
            peer._read(1)
            peer.send(words)
            peer.close()
            reason = device.next(Disconnected).reason
            assert f"localhost:{puppet.port}" in reason
            assert len(reason.splitlines()) == 1


def test_the_distance_between_tries_grows(connect: Callable[..., Device]) -> None:
    device = connect(Link("127.0.0.1", spare_port(), THING, THING), roll=0.01)
    times = []
    for _ in range(6):
        device.next(Disconnected)
        times.append(time.monotonic())
    waits = [after - before for before, after in pairwise(times)]
    assert waits[-1] > 3 * waits[1], "they are 20, 40, 80, 160 and 320 ms"


def test_a_rival_with_our_client_id_makes_us_back_off(connect: Callable[..., Device], link: Link) -> None:
    device = connect(link, roll=0.5)
    device.next(Connected)
    rival = connect(link, roll=0.0)
    assert "another client" in device.next(Disconnected).reason
    seen = device.within(4)
    # The waits are 1, 2, 4 … seconds although the rival is back in no time.
    assert 1 <= len([came for came in seen if isinstance(came, Connected)]) <= 2
    assert rival.next(Connected)


def test_renewing_often_is_no_reason_to_back_off(connect: Callable[..., Device], link: Link) -> None:
    device = connect(link, roll=0.01)
    device.next(Connected)
    began = time.monotonic()
    for _ in range(10):
        device.transport.renew()
        device.next(Disconnected)
        device.next(Connected)
    assert time.monotonic() - began < 5, "at the tenth failure the wait alone would be 3 s or more"


# --- stopping -----------------------------------------------------------------------------------------------------


def test_stop_says_goodbye_to_the_broker(connect: Callable[..., Device], mosquitto: Mosquitto, link: Link) -> None:
    device = connect(link)
    device.next(Connected)
    device.transport.stop()
    eventually(lambda: "Client pump-7 disconnected." in mosquitto.log.read_text())


def test_stop_does_not_wait_for_a_name_that_is_being_looked_up(
    connect: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def look_up(*_args: object, **_more: object) -> Any:
        asked.set()
        assert go_on.wait(PATIENCE_SECONDS)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    device = connect(Link("far-away", 8883, THING, THING))
    assert asked.wait(PATIENCE_SECONDS)
    began = time.monotonic()
    device.transport.stop()
    assert time.monotonic() - began < 4
    go_on.set()
    device.transport._thread.join(PATIENCE_SECONDS)
    assert not device.transport._thread.is_alive()
    assert device.silent()


# --- one connection after another ---------------------------------------------------------------------------------


def test_small_packets_go_out_at_once_and_a_dead_peer_is_noticed(connect: Callable[..., Device], link: Link) -> None:
    device = connect(link)
    device.next(Connected)
    sock = device.session._client.socket()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKED_MILLISECONDS == 30_000


def test_an_address_that_refuses_is_passed_over(
    connect: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def with_a_dead_one_first(host: str, port: int, **more: Any) -> Any:
        return [*real("127.0.0.1", spare_port(), **more), *real(host, port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", with_a_dead_one_first)
    with Puppet() as puppet:
        device = connect(puppet.link)
        puppet.answer().accept()
        device.next(Connected)


def test_a_certificate_that_was_replaced_on_disk_is_used_by_the_next_connection(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "device.pem", tmp_path / "device.key"

    def install(name: str) -> None:
        for path, source in zip((certificate, key), pki.device(name), strict=True):
            path.write_bytes(source.read_bytes())

    install("year-1")
    device = connect(replace(link, certificate=certificate, private_key=key))
    device.next(Connected)
    install("year-2")
    assert "u'year-2'" not in mosquitto.log.read_text()
    device.transport.renew()
    device.next(Disconnected)
    device.next(Connected)
    assert "u'year-2'" in mosquitto.log.read_text()


@VERSIONS
def test_no_request_of_an_earlier_connection_is_sent_again(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki, version: int
) -> None:
    device = connect(replace(link, version=version))
    device.next(Connected)
    client = device.session._client
    mosquitto.pause()
    device.transport.send(Update("in-flight", JobId("greet"), 1, 1, Status.IN_PROGRESS, {}))
    eventually(lambda: client._out_messages and not client.want_write())
    mosquitto.kill()
    device.next(Disconnected)
    mosquitto.start()
    device.skip_to(Connected)
    with serving(mosquitto, pki) as service:
        device.works("afterwards")
        assert [(request.body or {})["clientToken"] for request in service.requests] == ["afterwards"]


def test_a_broker_that_was_paused_is_used_again(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, service: JobsService
) -> None:
    device = connect(replace(link, keep_alive=1))
    device.next(Connected)
    device.works("before")
    mosquitto.pause()
    assert device.next(Disconnected).reason == f"localhost:{link.port} did not answer a ping"
    mosquitto.resume()
    device.skip_to(Connected)
    device.works("after")


# --- quiet --------------------------------------------------------------------------------------------------------


def test_an_idle_connection_wakes_nobody(connect: Callable[..., Device], link: Link, service: JobsService) -> None:
    device = connect(link)
    device.next(Connected)
    device.works("warm-up")
    status = Path(f"/proc/self/task/{device.transport._thread.native_id}/status")
    # PUBACKs are on their way for a moment still.
    asleep = eventually(lambda: (once := switches(status)) == (device.within(0.3), switches(status))[1] and once)
    assert device.within(3) == []
    assert switches(status) - asleep <= 1


def switches(status: Path) -> int:
    """Return how often a thread fell asleep."""
    lines = status.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("voluntary_ctxt_switches")).split()[1])


@VERSIONS
def test_pings_are_in_time_and_an_idle_connection_is_kept(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, service: JobsService, version: int
) -> None:
    device = connect(replace(link, keep_alive=1, version=version))
    device.next(Connected)
    device.works("before")
    # The broker drops who is silent for one and a half seconds: one ping forgotten and it is over.
    eventually(lambda: mosquitto.log.read_text().count("Received PINGREQ from pump-7") >= 3)
    device.works("after")
    session = device.session
    # What decides: no ping can fall due by our clock before it is due by paho's, who would leave it out.
    assert session._told >= session._client._last_msg_out
    assert session._heard >= session._client._last_bytes_received


def test_a_broker_may_ask_for_more_frequent_pings(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.packet(CONNECT)
        peer.send(b"\x20\x06\x00\x00\x03\x13\x00\x01")  # Server Keep Alive: 1 s
        peer.grant(peer.filters()[0], bytes([1] * 8))
        device.next(Connected)
        for _ in range(2):
            peer.packet(PINGREQ)
            peer.send(PINGRESP)
        assert device.silent()


def test_a_broker_that_answers_no_ping_is_left(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(replace(puppet.link, keep_alive=1))
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        peer.packet(PINGREQ)
        assert device.next(Disconnected).reason == f"127.0.0.1:{puppet.port} did not answer a ping"
        assert peer.closed()


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found
