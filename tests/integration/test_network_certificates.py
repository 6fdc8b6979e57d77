"""Certificates and the clock over time: wrong at boot, expired, replaced while the agent runs. Real TLS, real files."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import queue
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs import clock
from thingjobs.certificate import dates_of
from thingjobs.clock import Reading
from thingjobs.jobs import Connected, Disconnected, Incoming
from thingjobs.model import ThingName
from thingjobs.transport.certificates import FIRST_DAYS, THEN_DAYS, Certificates, due_warning
from thingjobs.transport.dial import Link
from thingjobs.transport.paho import PahoTransport
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
DAY = 86_400


class Device:
    """A transport that runs, what it put, and the clock that it believes in."""

    def __init__(self, link: Link, roll: float, reading: Reading) -> None:
        self.reading = reading
        self.roll = roll
        self.put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self.transport = PahoTransport(
            link, lambda: self.roll, read_clock=lambda: self.reading, limits=Limits(clock_look=0.1)
        )
        self.transport.start(self.put.put)

    def reason(self) -> str:
        """Return why the connection that ends next ended."""
        while not isinstance(came := self.put.get(timeout=PATIENCE_SECONDS), Disconnected):
            pass
        assert len(came.reason.splitlines()) == 1
        return came.reason

    def connects(self) -> None:
        while not isinstance(self.put.get(timeout=PATIENCE_SECONDS), Connected):
            pass


@pytest.fixture
def connect() -> Iterator[Callable[..., Device]]:
    """Start transports; at the end of the test they stop."""
    started: list[Device] = []

    def start(link: Link, roll: float = 0.02, reading: Reading | None = None) -> Device:
        started.append(Device(link, roll, reading or Reading(time.time(), 1000.0, synchronised=True)))
        return started[-1]

    yield start
    for device in started:
        device.transport.stop()


class Files:
    """The certificate files of one device, which can be replaced."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self._pki = pki
        self.certificate, self.key, self.ca = folder / "device.pem", folder / "device.key", folder / "ca.pem"
        self.ca.write_bytes(pki.ca.read_bytes())

    def install(self, name: str, *, days: tuple[float, float] = (-1, 90), half: bool = False) -> None:
        """Write a new pair of our authority as a tool does that replaces each file by a rename."""
        certificate, key = dated(self._pki, name, days)
        for path, data in ((self.certificate, certificate), *(() if half else ((self.key, key),))):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            new.rename(path)


def dated(pki: Pki, name: str, days: tuple[float, float], *, host: bool = False) -> tuple[bytes, bytes]:
    """Make a certificate of our authority that is valid between two days, counted from now, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = pki._new_key()
    now = dt.datetime.now(dt.UTC)
    authority = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    builder = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(pki._ca_key.public_key()), critical=False)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate = builder.sign(pki._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def files(tmp_path: Path, pki: Pki) -> Files:
    return Files(tmp_path, pki)


@pytest.fixture
def link(mosquitto: Mosquitto, files: Files) -> Link:
    """Mosquitto, with the files that can be replaced."""
    where = ("localhost", mosquitto.port, THING, THING)
    return Link(*where, keep_alive=1, certificate=files.certificate, private_key=files.key, ca=files.ca)


def serve_with(mosquitto: Mosquitto, certificate: bytes, key: bytes) -> None:
    """Start the broker anew with another certificate."""
    folder = mosquitto.log.parent
    (folder / "server.pem").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    config = folder / "mosquitto.conf"
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("certfile", "keyfile"))]
    mosquitto.stop()
    config.write_text("\n".join([*lines, f"certfile {folder}/server.pem", f"keyfile {folder}/server.key", ""]))
    mosquitto.start()


def users(mosquitto: Mosquitto) -> list[str]:
    """Return the common names that connected, in order."""
    lines = [line for line in mosquitto.log.read_text().splitlines() if "New client connected" in line]
    return [line.rpartition(", u'")[2].partition("'")[0] for line in lines]


# --- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [((1, 9), "not yet valid"), ((-9, -1), "has expired")], ids=["early", "late"])
def test_dates_that_seem_wrong_are_named_clock_and_tried_again_as_soon_as_it_is_set(
    connect: Callable[..., Device],
    mosquitto: Mosquitto,
    link: Link,
    files: Files,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    wrong: tuple[tuple[float, float], str],
) -> None:
    """No test may set the clock of this machine; so the server's certificate is wrong, and then right."""
    days, words = wrong
    caplog.set_level(logging.INFO)
    files.install("year-1")
    serve_with(mosquitto, *dated(pki, "localhost", days, host=True))
    asleep = Reading(wall=5.0, boot=1000.0, synchronised=False)
    device = connect(link, reading=asleep)
    reason = device.reason()
    assert reason.startswith(f"localhost:{link.port} is not trusted: certificate ")
    assert words in reason
    assert "; clock: this device says 1970-01-01 00:00 UTC, and no time service has set it yet" in reason
    for _ in range(4):
        device.reason()
    device.roll = 0.999
    eventually(lambda: device.transport._history.wait > 15)
    serve_with(mosquitto, *dated(pki, "localhost", (-1, 1), host=True))
    began = time.monotonic()
    device.reading = Reading(wall=1.8e9, boot=1005.0, synchronised=True)
    device.connects()
    assert time.monotonic() - began < 5, "the wait alone would be 15 s or more"
    assert "the clock was set" in caplog.text


def test_dates_that_are_wrong_by_a_clock_that_is_right_are_the_servers_fault(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, files: Files, pki: Pki
) -> None:
    files.install("year-1")
    serve_with(mosquitto, *dated(pki, "localhost", (-9, -1), host=True))
    device = connect(link, reading=Reading(1.8e9, 1000.0, synchronised=True))
    assert "2027-01-15 08:00 UTC and was set by a time service, so that certificate is the problem" in device.reason()


def test_a_certificate_that_becomes_valid_is_accepted_by_itself(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, files: Files, pki: Pki
) -> None:
    files.install("year-1")
    soon = 2.5 / DAY
    serve_with(mosquitto, *dated(pki, "localhost", (soon, 1), host=True))
    device = connect(link, reading=Reading(5.0, 1000.0, synchronised=False))
    assert "not yet valid" in device.reason()
    device.connects()


def test_a_reading_knows_a_clock_that_was_set_from_one_that_went_on() -> None:
    wrong = Reading(wall=5.0, boot=1000.0, synchronised=False)
    assert not Reading(65.5, 1060.0, synchronised=False).was_set_since(wrong), "half a second a minute is slewing"
    assert Reading(1.8e9, 1060.0, synchronised=False).was_set_since(wrong)
    assert Reading(65.0, 1060.0, synchronised=True).was_set_since(wrong)
    right = Reading(1.8e9, 1060.0, synchronised=True)
    assert Reading(1.7e9, 1061.0, synchronised=True).was_set_since(right), "set back"


def test_the_clocks_are_those_of_this_machine(tmp_path: Path) -> None:
    before, reading, after = time.time(), clock.read(), time.time()
    assert before <= reading.wall <= after
    assert reading.boot > 0
    assert clock.synchronised(tmp_path / "no-such-file") in (True, False)
    (tmp_path / "synchronized").touch()
    assert clock.synchronised(tmp_path / "synchronized")


# --- replaced on disk ---------------------------------------------------------------------------------------------


def test_an_expired_certificate_is_named_with_its_dates_and_its_successor_used_without_a_restart(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.install("year-1", days=(-9, -2))
    device = connect(link)
    _, until = dates_of(files.certificate.read_bytes())
    for _ in range(3):
        reason = device.reason()
    assert f"localhost:{link.port} does not accept us: " in reason
    assert f"{files.certificate} registered, active and in date (" in reason
    assert f" to {until:%Y-%m-%d %H:%M} UTC)" in reason
    assert caplog.text.count(f"{files.certificate} expired on {until:%Y-%m-%d %H:%M} UTC: replace it") == 1
    files.install("year-2")
    device.connects()
    assert users(mosquitto) == ["year-2"]


def test_a_certificate_that_is_replaced_while_connected_is_used_at_the_next_ping(
    connect: Callable[..., Device], mosquitto: Mosquitto, link: Link, files: Files
) -> None:
    files.install("year-1")
    device = connect(link)
    device.connects()
    files.install("year-2")
    assert device.reason() == "the certificate files were replaced: connecting anew with them"
    device.connects()
    assert users(mosquitto) == ["year-1", "year-2"]


def test_half_of_a_new_pair_is_left_alone_and_said_once(
    connect: Callable[..., Device],
    mosquitto: Mosquitto,
    link: Link,
    files: Files,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.install("year-1")
    device = connect(link)
    device.connects()
    files.install("year-2", half=True)
    pings = mosquitto.log.read_text().count("Received PINGREQ")
    eventually(lambda: mosquitto.log.read_text().count("Received PINGREQ") >= pings + 2)
    assert device.put.empty()
    said = "the certificate files have changed, and the old ones stay in use: "
    assert caplog.text.count(said) == 1
    assert "is not its key" in caplog.text
    files.install("year-3")
    assert "were replaced" in device.reason()
    device.connects()
    assert users(mosquitto)[-1] == "year-3"


def test_a_wrong_authority_is_named_and_the_right_one_used_without_a_restart(
    connect: Callable[..., Device], link: Link, files: Files, pki: Pki, tmp_path: Path
) -> None:
    files.install("year-1")
    (tmp_path / "other").mkdir()
    files.ca.write_bytes(type(pki)(tmp_path / "other").ca.read_bytes())
    device = connect(link)
    reason = device.reason()
    assert f"localhost:{link.port} is not trusted: " in reason
    assert f"(connection.ca = {files.ca})" in reason
    files.ca.write_bytes(pki.ca.read_bytes())
    device.connects()


def test_a_certificate_is_spoken_of_once_however_often_it_connects(
    connect: Callable[..., Device], link: Link, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.install("year-1", days=(-1, 6.5))
    device = connect(link)
    for _ in range(3):
        device.connects()
        device.transport.renew()
    device.connects()
    assert caplog.text.count("expires on") == 1


# --- dates, and when to speak of them -----------------------------------------------------------------------------


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.01)
    return found


def test_the_dates_of_a_certificate_are_those_that_openssl_reads(pki: Pki) -> None:
    from cryptography import x509

    for days in [(-1, 1), (-20_000, 3), (-1, 365 * 60)]:  # 1972, and a GeneralizedTime from 2050 on
        pem, _ = dated(pki, "pump-7", days)
        read = x509.load_pem_x509_certificate(pem)
        expected = read.not_valid_before_utc, read.not_valid_after_utc
        assert dates_of(b"some text before\n" + pem + pki.ca.read_bytes()) == expected


@given(st.binary() | st.binary(max_size=80).map(lambda der: ssl.DER_cert_to_PEM_cert(der).encode()))
def test_what_holds_no_dates_is_refused_with_a_reason(pem: bytes) -> None:
    with contextlib.suppress(ValueError):
        pytest.fail(f"{dates_of(pem)}")


def test_a_certificate_is_spoken_of_30_and_7_days_before_its_end_and_then_every_day() -> None:
    end = 100 * DAY
    spoken, last = [], None
    for hour in range(60 * 24, 103 * 24):
        number = due_warning(end, hour * 3600.0)
        if number is not None and number != last:
            spoken.append((end - hour * 3600) / DAY)
        last = number
    assert spoken[:2] == [FIRST_DAYS - 1 / 24, THEN_DAYS - 1 / 24]
    assert spoken[2:] == pytest.approx([days - 1 / 24 for days in range(6, -3, -1)])


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_it_is_spoken_of_at_most_once_a_day(until: float, now: float) -> None:
    numbers = {due_warning(until, now + hour * 3600) for hour in range(24)}
    assert len(numbers - {None}) <= 2, "one day has at most one change of the number"


@pytest.mark.parametrize(("now", "words"), [(2.5 * DAY, "expires on"), (3.5 * DAY, "expired on")])
def test_what_is_said_tells_an_end_to_come_from_one_that_was(
    pki: Pki, files: Files, caplog: pytest.LogCaptureFixture, now: float, words: str
) -> None:
    files.install("year-1", days=(-1, 3))
    link = Link("localhost", 1, THING, THING, certificate=files.certificate)
    Certificates(link, lambda: time.time() + now).opened()
    assert f"{files.certificate} {words}" in caplog.text


def test_a_device_without_a_certificate_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(Link("localhost", 1, THING, THING), time.time)
    certificates.opened()
    assert not certificates.replaced(lambda link: pytest.fail(link.address))
    assert not caplog.text
