"""What is particular to the transport awsiot: its packets, its one-line reasons, its threads and its end.

What it shares with every transport is in test_transports.py, the ways through proxies and WebSockets in
test_transport_awsiot_ways.py. Where a test needs to choose each packet, it is the broker itself (`Puppet`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

from thingjobs.clock import Reading
from thingjobs.errors import ConfigError
from thingjobs.jobs import Connected, Disconnected, GetPending, Incoming, Pending, Update
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.link import Link
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0

Kind = TypeVar("Kind", bound=Incoming)


class Device:
    """A transport that runs, what it put, and the clock that it believes in."""

    def __init__(self, link: Link, reading: Reading, roll: float) -> None:
        self.reading = reading
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        limits = Limits(clock_look=0.05, clock_cap=0.5, hold_first=600)
        self.transport = AwsIotTransport(link, lambda: roll, read_clock=lambda: self.reading, limits=limits)
        self.transport.start(self._put.put)

    def next(self, kind: type[Kind]) -> Kind:
        """Return what came next; it has to be of that kind."""
        came = self._put.get(timeout=PATIENCE_SECONDS)
        assert isinstance(came, kind), f"{came} came instead of a {kind.__name__}"
        return came

    def skip_to(self, kind: type[Kind]) -> Kind:
        while not isinstance(came := self._put.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def reason(self) -> str:
        """Return why the connection that ends next ended."""
        reason = self.next(Disconnected).reason
        assert len(reason.splitlines()) == 1
        return reason

    def works(self, token: str) -> None:
        self.transport.send(GetPending(token))
        assert self.next(Pending).token == token


@pytest.fixture
def connect(require: Require) -> Iterator[Callable[..., Device]]:
    """Start transports; at the end of the test they stop."""
    require("awscrt")
    started: list[Device] = []

    def start(link: Link, reading: Reading | None = None, roll: float = 0.02) -> Device:
        started.append(Device(link, reading or Reading(time.time(), 1000.0, synchronised=True), roll))
        return started[-1]

    yield start
    for device in started:
        device.transport.stop()


@pytest.fixture
def link(mosquitto: Mosquitto, pki: Pki) -> Link:
    """Mosquitto, with a good certificate."""
    certificate, key = pki.device(THING)
    return Link("localhost", mosquitto.port, THING, THING, certificate=certificate, private_key=key, ca=pki.ca)


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    """The Jobs service behind the broker."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    service = JobsService()
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield service


# --- a broker that is the test itself -----------------------------------------------------------------------------

CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 0x10, 0x30, 0x80, 0xE0
CONNACK = b"\x20\x03\x00\x00\x00"


class Peer:
    """The broker's end of one connection, packet by packet (MQTT 5)."""

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
        body, found = self.packet(SUBSCRIBE), []
        rest = body[3:]
        while rest:
            (size,) = struct.unpack("!H", rest[:2])
            found.append(rest[2 : 2 + size].decode())
            rest = rest[3 + size :]
        return body[:2], found

    def grant(self, packet_id: bytes, codes: bytes) -> None:
        self.send(bytes([0x90, 3 + len(codes)]) + packet_id + b"\0" + codes)

    def accept(self) -> list[str]:
        """Say yes to CONNECT and SUBSCRIBE; return the filters."""
        self.packet(CONNECT)
        self.send(CONNACK)
        packet_id, filters = self.subscribed()
        self.grant(packet_id, bytes([1] * len(filters)))
        return filters

    def request(self) -> bytes:
        """Return the packet id of the request that comes now."""
        body = self.packet(PUBLISH)
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


# --- packets ------------------------------------------------------------------------------------------------------


def test_one_subscribe_with_8_filters_serves_every_request(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, service: JobsService
) -> None:
    device = connect(link)
    device.next(Connected)
    for number in range(5):
        device.works(f"t{number}")
    log = mosquitto.log.read_text()
    assert log.count("Received SUBSCRIBE from pump-7") == 1
    assert log.count("\t$aws/things/pump-7/jobs/") == 8
    assert "Received UNSUBSCRIBE from pump-7" not in log
    assert [(request.body or {})["clientToken"] for request in service.requests] == [f"t{n}" for n in range(5)]


def test_nobody_is_connected_before_the_subscriptions_are_granted(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        hello = peer.packet(CONNECT)
        assert hello.endswith(b"\x00\x06pump-7"), "no user name, no metrics"
        assert hello[7] & 0b10, "clean start"
        peer.send(CONNACK)
        packet_id, filters = peer.subscribed()
        device.transport.send(GetPending("too-early"))
        peer.grant(packet_id, bytes([1] * len(filters)))
        device.next(Connected)
        device.transport.send(GetPending("now"))
        assert b"now" in peer.packet(PUBLISH)


def test_small_packets_go_out_at_once_and_a_dead_peer_is_noticed(connect: Callable[..., Device], link: Link) -> None:
    def ours() -> Iterator[socket.socket]:
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername()[1] == link.port:
                    yield sock

    connect(link).next(Connected)
    assert [
        (sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), sock.getsockopt(socket.IPPROTO_TCP, 18))
        for sock in ours()
    ] == [(1, 30_000)]


def test_no_request_of_an_earlier_connection_is_sent_again(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(Update("in-flight", JobId("greet"), 1, 1, Status.IN_PROGRESS, {}))
        peer.request()
        peer.close()
        device.next(Disconnected)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(GetPending("afterwards"))
        assert b"afterwards" in peer.packet(PUBLISH)


# --- why a connection ended ---------------------------------------------------------------------------------------


def test_a_broker_that_says_why_it_disconnects_is_quoted(connect: Callable[..., Device]) -> None:
    why = b"\x1f\x00\x09too often"
    with Puppet() as puppet:
        device = connect(puppet.link)
        for packet, words in [
            (b"\xe0\x02\x8b\x00", "Server shutting down"),
            (b"\xe0\x02\x8e\x00", "another client uses the id pump-7; give each its own (connection.client_id)"),
            (b"\xe0\x0e\x97" + bytes([len(why)]) + why, "Quota exceeded (too often)"),
            (b"\xe0\x02\x87\x00", "Not authorized; is there another client pump-7?"),
        ]:
            peer = puppet.answer()
            peer.accept()
            device.next(Connected)
            peer.send(packet)
            reason = device.reason()
            assert reason.startswith(f"{puppet.link.address} ended the connection: ")
            assert words in reason


def test_a_rival_with_our_client_id_makes_us_wait_longer_each_time(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        waits = []
        for _ in range(5):
            peer = puppet.answer()
            peer.accept()
            device.next(Connected)
            peer.send(b"\xe0\x02\x8e\x00")
            device.reason()
            waits.append(device.transport._history.wait)
    assert waits == sorted(waits)
    assert waits[-1] > 8 * waits[0]
    assert device.transport._history.rivalries == 5


def test_a_connection_that_the_broker_refuses_is_told_with_its_reason(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        for packet, words in [
            (b"\x20\x03\x00\x87\x00", "Not authorized"),
            (b"\x20\x0c\x00\x87\x09\x1f\x00\x06denied", "Not authorized (denied)"),
            (b"\x20\x03\x00\x9f\x00", "Connection rate exceeded"),
        ]:
            peer = puppet.answer()
            peer.packet(CONNECT)
            peer.send(packet)
            refused = f"{puppet.link.address} refused the connection of client pump-7: {words}"
            assert device.reason() == f"{refused}; is iot:Connect allowed?"


def test_a_filter_that_the_broker_denies_is_named(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.packet(CONNECT)
        peer.send(CONNACK)
        packet_id, filters = peer.subscribed()
        peer.grant(packet_id, bytes([1, 0x87] + [1] * 6))
        names = f"the broker refused to let us subscribe to {filters[1]}: check the policy (iot:Subscribe)"
        assert device.reason() == names


def test_a_broker_that_closes_at_a_filter_is_found_out(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        for _ in range(2):
            peer = puppet.answer()
            peer.packet(CONNECT)
            peer.send(CONNACK)
            peer.subscribed()
            peer.close()
            assert "does the policy allow iot:Subscribe on" in device.reason()
        peer = puppet.answer()
        peer.packet(CONNECT)
        peer.send(CONNACK)
        packet_id, first = peer.subscribed()
        assert len(first) == 1
        peer.grant(packet_id, b"\x01")
        _, second = peer.subscribed()
        peer.close()
        assert device.reason().endswith(f"does the policy allow iot:Subscribe on {second[0]}?")


def test_a_request_that_the_broker_refuses_is_logged_and_the_connection_lives(
    connect: Callable[..., Device], caplog: pytest.LogCaptureFixture, eventually: Callable[..., Any]
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        for token in ("first", "second"):
            device.transport.send(GetPending(token))
            peer.send(b"\x40\x04" + peer.request() + b"\x87\x00")
        hint = "Not authorized; does the policy allow iot:Publish on $aws/things/pump-7/jobs/get?"
        eventually(lambda: caplog.text.count(f"the broker refused a request: {hint}") == 2)


def test_a_kind_of_request_after_which_the_broker_closes_is_held_back(
    connect: Callable[..., Device], caplog: pytest.LogCaptureFixture
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        for _ in range(3):
            peer = puppet.answer()
            peer.accept()
            device.next(Connected)
            device.transport.send(GetPending("denied"))
            peer.request()
            peer.close()
            hint = "does the policy allow iot:Publish on $aws/things/pump-7/jobs/get?"
            assert device.reason().endswith(hint)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(GetPending("held"))
        device.transport.send(Update("other", JobId("greet"), 1, 1, Status.IN_PROGRESS, {}))
        assert b"other" in peer.packet(PUBLISH)
        assert "held back for" in caplog.text


def test_a_kind_of_request_that_the_broker_took_is_not_suspected_any_more(
    connect: Callable[..., Device], eventually: Callable[..., Any]
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        for _ in range(2):
            peer = puppet.answer()
            peer.accept()
            device.next(Connected)
            device.transport.send(GetPending("denied"))
            peer.request()
            peer.close()
            device.reason()
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(GetPending("taken"))
        assert device.transport._history.denials["get"].ends == 2
        peer.send(b"\x40\x02" + peer.request())
        eventually(lambda: not device.transport._history.denials)


def test_a_request_beyond_128_kilobytes_is_not_published(
    connect: Callable[..., Device], caplog: pytest.LogCaptureFixture
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(Update("large", JobId("greet"), 1, 1, Status.IN_PROGRESS, {"stdout": "x" * 128 * 1024}))
        device.transport.send(GetPending("next"))
        assert b"next" in peer.packet(PUBLISH)
    assert "the service would close the connection" in caplog.text


def test_requests_that_nobody_answers_are_told_when_a_new_connection_is_asked_for(
    connect: Callable[..., Device],
) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.transport.send(GetPending("silence"))
        peer.send(b"\x40\x02" + peer.request())
        device.transport.renew()
        assert device.reason() == (
            f"{puppet.link.address} took 1 requests and answered none; "
            "does the policy allow iot:Receive on $aws/things/pump-7/jobs/*?"
        )


def test_a_broker_that_stops_answering_is_given_up(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(replace(puppet.link, patience=0.3))
        puppet.answer().packet(CONNECT)
        assert device.reason() == f"{puppet.link.address} did not answer CONNECT"
        peer = puppet.answer()
        peer.packet(CONNECT)
        peer.send(CONNACK)
        assert device.reason() == f"{puppet.link.address} did not answer SUBSCRIBE"


def test_a_broker_that_answers_no_ping_is_left(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(replace(puppet.link, keep_alive=1))
        puppet.answer().accept()
        device.next(Connected)
        assert device.reason() == f"{puppet.link.address} did not answer a ping"


def test_a_port_that_does_not_speak_mqtt_is_told(connect: Callable[..., Device]) -> None:
    with Puppet() as puppet:
        device = connect(puppet.link)
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        peer.send(b"\x00\x00\x00\x00")
        assert device.reason().startswith(f"{puppet.link.address} does not speak MQTT as we do")


# --- certificates -------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_the_files_is_said_in_one_line(
    connect: Callable[..., Device], link: Link, pki: Pki, tmp_path: Path
) -> None:
    _, other = pki.device("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing that TLS knows")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for wrong, words in [
        (replace(link, private_key=other), f"cannot use {link.certificate}: {other} is not its key"),
        (replace(link, private_key=tmp_path / "gone"), f"cannot read {tmp_path}/gone: No such file or directory"),
        (replace(link, certificate=garbage), f"cannot use {garbage} with"),
        (replace(link, ca=garbage), f"cannot use {garbage}: it holds no certificate in PEM form"),
        (replace(link, private_key=locked), f"cannot use {locked}: it is protected by a password"),
        (replace(link, host="nowhere.invalid"), "the name nowhere.invalid cannot be resolved"),
    ]:
        assert connect(wrong).reason().startswith(words)


def test_an_authority_that_is_another_is_told_although_the_library_keeps_it_to_itself(
    connect: Callable[..., Device], link: Link, pki: Pki
) -> None:
    stranger, _ = pki.device("stranger")
    device = connect(replace(link, ca=stranger, patience=0.3), Reading(time.time(), 1000.0, synchronised=True))
    assert device.reason().startswith(f"{link.address} is not trusted: ")


def test_a_broker_that_does_not_accept_our_certificate_is_quoted_and_asked_only_once(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, tmp_path: Path, pki: Pki
) -> None:
    strangers = type(pki)(tmp_path)
    certificate, key = strangers.device(THING)
    device = connect(replace(link, certificate=certificate, private_key=key))
    words = f"{link.address} does not accept us: unknown ca; is {certificate} registered, active and in date"
    for _ in range(4):
        assert device.reason().startswith(words)
    attempts = mosquitto.log.read_text().count("New connection from 127.0.0.1")
    assert attempts <= 4 + 1 + 1, "four of awscrt's and one of Python's; the next may have begun"


def test_an_expired_broker_is_tried_again_as_soon_as_the_clock_is_set(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki
) -> None:
    folder = mosquitto.log.parent
    good = (folder / "mosquitto.conf").read_text()
    (folder / "old.pem").write_bytes(expired(pki))
    mosquitto.stop()
    lines = [line for line in good.splitlines() if not line.startswith("certfile")]
    (folder / "mosquitto.conf").write_text("\n".join([*lines, f"certfile {folder}/old.pem", ""]))
    mosquitto.start()
    device = connect(replace(link, patience=0.3), Reading(time.time(), 1000.0, synchronised=False), roll=1.0)
    assert "no time service has set it yet" in device.reason()
    assert device.transport._history.wait == 0.5, "and not a second, which grows"
    mosquitto.stop()
    (folder / "mosquitto.conf").write_text(good)
    mosquitto.start()
    device.reading = Reading(time.time(), 1000.0, synchronised=True)
    device.skip_to(Connected)


def expired(pki: Pki) -> bytes:
    """Return a certificate for the key of the test's server that was valid long ago."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    server = x509.load_pem_x509_certificate(pki.server_cert.read_bytes())
    builder = x509.CertificateBuilder(
        server.issuer,
        server.subject,
        server.public_key(),
        x509.random_serial_number(),
        extensions=list(server.extensions),
    )
    now = dt.datetime.now(dt.UTC)
    dated = builder.not_valid_before(now - dt.timedelta(days=9)).not_valid_after(now - dt.timedelta(days=2))
    return dated.sign(pki._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_certificates_that_were_replaced_on_disk_are_used_without_being_asked(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, pki: Pki, tmp_path: Path
) -> None:
    def install(name: str) -> None:
        for path, source in zip((tmp_path / "device.pem", tmp_path / "device.key"), pki.device(name), strict=True):
            path.with_suffix(".new").write_bytes(source.read_bytes())
            path.with_suffix(".new").rename(path)

    install("year-1")
    device = connect(
        replace(link, keep_alive=1, certificate=tmp_path / "device.pem", private_key=tmp_path / "device.key")
    )
    device.next(Connected)
    install("year-2")
    assert device.reason() == "the certificate files were replaced: connecting anew with them"
    device.next(Connected)
    assert "u'year-2'" in mosquitto.log.read_text()


# --- threads and the end ------------------------------------------------------------------------------------------


def held() -> tuple[int, set[str]]:
    """Return the number of native threads, and the open descriptors; awscrt opens /dev/urandom once for ever."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    found.discard("/dev/urandom")
    return len(list(Path("/proc/self/task").iterdir())), found


def test_20_starts_and_stops_leave_no_thread_and_no_descriptor(
    connect: Callable[..., Device], link: Link, eventually: Callable[..., Any]
) -> None:
    before = held()
    for _ in range(20):
        device = connect(link)
        device.skip_to(Connected)
        device.transport.stop()
    eventually(lambda: held() == before)


def test_a_failure_of_tls_leaves_no_thread_and_no_descriptor(
    connect: Callable[..., Device], link: Link, eventually: Callable[..., Any], tmp_path: Path, pki: Pki
) -> None:
    certificate, key = type(pki)(tmp_path).device(THING)
    before = held()
    device = connect(replace(link, certificate=certificate, private_key=key))
    for _ in range(5):
        device.reason()
    device.transport.stop()
    eventually(lambda: held() == before, 3)


RUN = """
import sys, time
from pathlib import Path
from thingjobs.transport.link import Link
from thingjobs.transport.awsiot import AwsIotTransport
host, port, certificate, key, ca = sys.argv[1:]
transport = AwsIotTransport(Link(host, int(port), "t", "t", 30, Path(certificate), Path(key), Path(ca)), lambda: 0.0)
transport.start(lambda incoming: print(type(incoming).__name__, flush=True))
sys.stdin.readline()
"""


def test_a_process_that_forgets_to_stop_it_ends_all_the_same(link: Link, require: Require) -> None:
    require("awscrt")
    where = [link.host, str(link.port), str(link.certificate), str(link.private_key), str(link.ca)]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "Connected\n"
        began = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert time.monotonic() - began < 5


WITHOUT = """
import sys
sys.modules["awscrt"] = None
from thingjobs.errors import ConfigError
from thingjobs.transport.link import Link
from thingjobs.transport.awsiot import AwsIotTransport
try:
    AwsIotTransport(Link("localhost", 8883, "t", "t"), lambda: 0.0)
except ConfigError as error:
    print(error)
"""
LOADED = """
import sys
import thingjobs.cli.run, thingjobs.transport.awsiot, thingjobs.transport.awsiot_settings
print([name for name in ("awscrt", "_awscrt", "awsiot", "paho", "requests", "tenacity") if name in sys.modules])
"""


def printed(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_without_the_extra_it_is_said_what_to_install() -> None:
    said = printed(WITHOUT)
    assert said.startswith('connection.transport = "awsiot" needs thingjobs[awsiot], which is not installed: pip inst')
    assert "32-bit Arm" in said
    assert len(said.splitlines()) == 1


def test_the_library_is_loaded_only_when_a_transport_is_made() -> None:
    assert printed(LOADED) == "[]"


def test_an_exception_of_whoever_is_told_passes_no_seam(connect: Callable[..., Device], link: Link) -> None:
    transport = AwsIotTransport(link, lambda: 0.0)
    came: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def put(incoming: Incoming) -> None:
        came.put(incoming)
        if isinstance(incoming, Connected) and came.qsize() == 1:
            raise RuntimeError("a bug of ours")

    transport.start(put)
    try:
        kinds = [type(came.get(timeout=PATIENCE_SECONDS)) for _ in range(3)]
        assert kinds == [Connected, Disconnected, Connected]
    finally:
        transport.stop()


def test_mqtt_311_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="speaks MQTT 5 only"):
        AwsIotTransport(Link("localhost", 8883, THING, THING, version=4), lambda: 0.0)


def test_threads_that_send_at_once_each_get_an_answer(
    connect: Callable[..., Device], link: Link, service: JobsService
) -> None:
    device = connect(link)
    device.next(Connected)
    threads = [threading.Thread(target=device.transport.send, args=(GetPending(f"t{n}"),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {device.next(Pending).token for _ in threads} == {f"t{n}" for n in range(16)}
    bodies = [json.dumps(request.body) for request in service.requests]
    assert len(set(bodies)) == 16
