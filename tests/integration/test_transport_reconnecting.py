"""What the transports over a network share: one connection after another, for ever, and what is told of them.

Each test runs over every one of them, against a real Mosquitto or a real HTTPS server, both with mutual TLS.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import threading
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from thingjobs.jobs import RENEWED, Connected, Disconnected, GetPending, Incoming, Pending
from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.web import WebJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.https import HttpsTransport, Site
from thingjobs.transport.link import Link
from thingjobs.transport.paho import PahoTransport
from thingjobs.transport.patience import Cause, Denial, History
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require

    from thingjobs.transport.reconnecting import Reconnecting

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
ALL = ["paho", "awsiot", "https"]
#: The files of a connection are looked at this often.
KEEP_ALIVE_SECONDS = 1

Kind = TypeVar("Kind", bound=Incoming)


class Device:
    """A transport, and what it put; `put` may be told to fail once."""

    def __init__(self, transport: Reconnecting[Any]) -> None:
        self.transport = transport
        self.fault: Exception | None = None
        self._came: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def start(self) -> Device:
        self.transport.start(self._put)
        return self

    def _put(self, incoming: Incoming) -> None:
        self._came.put(incoming)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def skip_to(self, kind: type[Kind]) -> Kind:
        while not isinstance(came := self._came.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def reason(self) -> str:
        """Return why the connection that ends next ended: one line."""
        reason = self.skip_to(Disconnected).reason
        assert len(reason.splitlines()) == 1
        return reason

    def works(self, token: str = "t") -> None:
        self.transport.send(GetPending(token))
        while self.skip_to(Pending).token != token:
            pass


class Files:
    """The certificate files of one device, which are replaced as a tool does that knows how: by renaming."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self._pki = pki
        self.certificate, self.key = folder / "device.pem", folder / "device.key"

    def install(self, name: str) -> None:
        for path, source in zip((self.certificate, self.key), self._pki.device(name), strict=True):
            self.write(path, source.read_bytes())

    def write(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.rename(path)


@pytest.fixture
def files(tmp_path: Path, pki: Pki) -> Files:
    files = Files(tmp_path, pki)
    files.install("year-1")
    return files


@pytest.fixture
def service() -> JobsService:
    return JobsService()


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    with WebJobsService(service, tls=context) as web:
        yield web


@pytest.fixture
def behind_mosquitto(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[None]:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield


@pytest.fixture
def new_device(
    request: pytest.FixtureRequest, files: Files, pki: Pki, require: Require
) -> Iterator[Callable[..., Device]]:
    """Makes devices that did not start yet; at the end of the test they stop."""
    made: list[Device] = []

    def make(way: str, **more: Any) -> Device:
        https = way == "https"
        port = request.getfixturevalue("web" if https else "mosquitto").port
        if not https:
            request.getfixturevalue("behind_mosquitto")
        known = {"certificate": files.certificate, "private_key": files.key, "ca": pki.ca}
        link = Link(**{"host": "localhost", "port": port, "client_id": THING, "thing": THING, **known, **more})
        if way == "awsiot":
            require("awscrt")
        kinds: dict[str, Callable[[], Reconnecting[Any]]] = {
            "paho": lambda: PahoTransport(link, lambda: 0.02),
            "awsiot": lambda: AwsIotTransport(link, lambda: 0.02),
            "https": lambda: HttpsTransport(Site(link), lambda: 0.02),
        }
        made.append(Device(kinds[way]()))
        return made[-1]

    yield make
    for device in made:
        device.transport.stop()


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.01)
    return found


# --- the loop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ALL)
def test_a_fault_of_ours_is_told_in_one_line_with_its_place_and_the_next_connection_is_made(
    new_device: Callable[..., Device], way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    device = new_device(way)
    device.fault = RuntimeError("a bug\nof ours")
    device.start()
    reason = device.reason()
    assert f"localhost:{device.transport._link.port}: a fault in thingjobs ended the connection" in reason
    assert "(RuntimeError: a bug of ours, test_transport_reconnecting.py:" in reason
    device.skip_to(Connected)
    device.works()
    assert not any(record.exc_info for record in caplog.records), "no traceback reaches anybody"


@pytest.mark.parametrize("way", ALL)
def test_a_new_connection_that_was_asked_for_is_told_as_that(new_device: Callable[..., Device], way: str) -> None:
    device = new_device(way).start()
    device.skip_to(Connected)
    device.works()
    device.transport.renew()
    assert device.reason() == RENEWED
    device.skip_to(Connected)


@pytest.mark.parametrize("way", ALL)
def test_what_was_asked_for_just_before_it_stops_still_goes_out_or_is_left_and_nothing_stays(
    new_device: Callable[..., Device], way: str
) -> None:
    device = new_device(way).start()
    device.skip_to(Connected)
    device.transport.send(GetPending("last"))
    device.transport.stop()
    assert not device.transport._thread.is_alive()


def test_what_is_sent_just_before_the_stop_is_published(
    new_device: Callable[..., Device], service: JobsService
) -> None:
    device = new_device("paho").start()
    device.skip_to(Connected)
    device.works("first")
    device.transport.send(GetPending("last"))
    device.transport.stop()
    eventually(lambda: [(request.body or {}).get("clientToken") for request in service.requests] == ["first", "last"])


def test_one_that_never_started_leaves_no_descriptor(new_device: Callable[..., Device]) -> None:
    new_device("paho").transport.stop()
    before = len(list(Path("/proc/self/fd").iterdir()))
    new_device("paho").transport.stop()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_request_that_the_broker_refuses_does_not_free_its_kind(
    new_device: Callable[..., Device], mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was taken for one that is accepted again, as PUBACK came for it."""
    caplog.set_level(logging.INFO)
    rules = tmp_path / "acl"
    rules.write_text("pattern read #\nuser cloud\ntopic readwrite #\n")
    rules.chmod(0o600)
    config = mosquitto.log.parent / "mosquitto.conf"
    device = new_device("paho")
    mosquitto.stop()
    config.write_text(config.read_text() + f"\nacl_file {rules}\nuse_identity_as_username true\n")
    mosquitto.start()
    ended = time.monotonic() - 1
    device.transport._history = History(denials=MappingProxyType({"get": Denial(3, ended, 60.0)}))
    device.start().skip_to(Connected)
    device.transport.send(GetPending("t"))
    eventually(lambda: "the broker refused a request: Not authorized" in caplog.text)
    device.transport.renew()
    device.reason()
    assert "accepted again" not in caplog.text
    assert "get" in device.transport._history.denials


# --- certificates while it runs -----------------------------------------------------------------------------------


class Looks(Certificates):
    """Counts."""

    count = 0

    def replaced(self, usable: Callable[[Link], object]) -> bool:
        self.count += 1
        return super().replaced(usable)


@pytest.mark.parametrize("way", ALL)
def test_a_busy_connection_notices_new_certificates_and_looks_no_more_than_once_a_keep_alive(
    new_device: Callable[..., Device], way: str, files: Files, mosquitto: Mosquitto, request: pytest.FixtureRequest
) -> None:
    device = new_device(way, keep_alive=KEEP_ALIVE_SECONDS)
    looks = device.transport._certificates = Looks(device.transport._link, time.time)
    device.start().skip_to(Connected)
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * KEEP_ALIVE_SECONDS:
        device.works()
    assert 1 <= looks.count <= 2
    files.install("year-2")

    def users() -> str:
        if way == "https":
            return " ".join(str(call.peer) for call in request.getfixturevalue("web").calls)
        return mosquitto.log.read_text().replace("u'", "")

    replaced = time.monotonic()
    while "year-2" not in users():
        assert time.monotonic() - replaced < 4 * KEEP_ALIVE_SECONDS, "it goes on with the old ones"
        device.transport.send(GetPending("busy"))
        threading.Event().wait(0.02)


NO_CERTIFICATE = "{certificate} holds no PEM certificate; write it anew, whole and as PEM (connection.certificate)"
NO_KEY = "{key} holds no whole private key; write it anew, as PEM (connection.private_key)"


@pytest.mark.parametrize(
    ("way", "which", "data", "words"),
    [
        ("paho", "certificate", b"", NO_CERTIFICATE),
        ("paho", "certificate", b"\x30\x82\x01", NO_CERTIFICATE),
        ("paho", "key", b"", NO_KEY),
        ("paho", "key", b"-----BEGIN PRIVATE KEY-----\nMIGH", NO_KEY),
        ("paho", "key", None, "cannot read {key}: No such file or directory; write it anew"),
        ("awsiot", "certificate", b"", NO_CERTIFICATE),
        ("awsiot", "key", None, "cannot read {key}: No such file or directory; write it anew"),
    ],
)
def test_files_that_break_while_it_runs_are_named_with_what_to_do_and_the_connection_goes_on(
    new_device: Callable[..., Device],
    way: str,
    files: Files,
    caplog: pytest.LogCaptureFixture,
    which: str,
    data: bytes | None,
    words: str,
) -> None:
    device = new_device(way, keep_alive=KEEP_ALIVE_SECONDS).start()
    device.skip_to(Connected)
    path = getattr(files, which)
    path.unlink() if data is None else files.write(path, data)
    said = "the certificate files have changed, and the old ones stay in use: "
    eventually(lambda: said in caplog.text)
    assert words.format(certificate=files.certificate, key=files.key) in caplog.text
    assert "PEM lib" not in caplog.text
    assert "Errno" not in caplog.text
    device.works()


def test_a_certificate_without_a_key_beside_it_is_told_without_the_key_that_is_not_there(
    new_device: Callable[..., Device], files: Files
) -> None:
    reason = new_device("paho", private_key=None).start().reason()
    assert reason == (
        f"cannot use {files.certificate}: {files.certificate} holds no whole private key; write it anew, as PEM "
        "(connection.private_key)"
    )


def test_what_awscrt_does_not_explain_is_asked_again_when_the_files_are_others(
    mosquitto: Mosquitto, pki: Pki, files: Files, tmp_path: Path, require: Require
) -> None:
    require("awscrt")
    from thingjobs import clock
    from thingjobs.transport.awsiot_settings import AwsIotSettings
    from thingjobs.transport.awsiot_why import Why

    class TlsError(Exception):
        name, message = "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE", "TLS failed"

    ca = tmp_path / "ca.pem"
    (tmp_path / "other").mkdir()
    other = type(pki)(tmp_path / "other")
    ca.write_bytes(other.ca.read_bytes())
    link = Link(
        *("localhost", mosquitto.port, THING, THING), certificate=files.certificate, private_key=files.key, ca=ca
    )
    why = Why(link, AwsIotSettings(), clock.read)
    reason, cause = why.say(TlsError())
    assert "is not trusted: " in reason
    assert cause is Cause.UNREACHED
    ca.write_bytes(pki.ca.read_bytes())
    for path, source in zip((files.certificate, files.key), other.device("stranger"), strict=True):
        files.write(path, source.read_bytes())
    assert "does not accept us: unknown ca" in why.say(TlsError())[0]


# --- HTTPS opens its connections as MQTT does ---------------------------------------------------------------------


def test_https_says_of_an_address_that_does_not_answer_what_mqtt_says(new_device: Callable[..., Device]) -> None:
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # after these the kernel answers nobody
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        port = listener.getsockname()[1]
        reasons = {
            new_device(way, host="127.0.0.1", port=port, patience=0.3).start().reason() for way in ("paho", "https")
        }
    assert reasons == {f"127.0.0.1:{port} does not answer within 0 s; is the port blocked?"}


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_https_stops_at_once_while_a_proxy_says_nothing(new_device: Callable[..., Device], kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = new_device("https", proxy=Proxy(kind, "127.0.0.1", listener.getsockname()[1])).start()
        near, _ = listener.accept()
        with near:
            assert near.recv(1)
            began = time.monotonic()
            device.transport.stop()
            assert time.monotonic() - began < 1
    assert not device.transport._thread.is_alive()
