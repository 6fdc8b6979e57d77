"""The doctor on a device that works, and on one with a single thing wrong: what it says is wrong is that, and no more.

Real certificates, a Mosquitto with mutual TLS, and `PolicyBroker` where Mosquitto is too kind. The configuration is a
file; the clock and the table of mounts are given, as no test may set the one, and others do not have our disks.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import itertools
import json
import select
import socket
import socketserver
import ssl
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import doctor
from thingjobs.clock import Reading
from thingjobs.config import load
from thingjobs.doctor import Finding, Mark, Patience, Surroundings
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.web import Answer, Call, WebJobsService
from thingjobs.transport.dial import Link
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent, Disk, PolicyBroker

THING = "pump-7"
DAY = 86_400
YEAR = 365 * DAY
ALWAYS = (
    "config",
    "agent",
    "files",
    "certificate",
    "clock",
    "name",
    "port",
    "tls",
    "connect",
    "subscribe",
    "jobs",
    "client id",
)
REST = ("handlers", "space", "state")
SERVICE = {"connect", "subscribe", "jobs", "client id"}
AFTER_CONNECT = SERVICE - {"connect"}
BEHIND_TLS = {"tls", *SERVICE}
#: Enough for servers on loopback.
BRISK = Patience(name=5, reach=3, handshake=3, alert=1, session=3, reply=3, rival=0.3)
MOUNTS = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


class Report:
    """What the doctor found."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        print("\n".join(f"{one.mark:9}{one.check:13}{one.text} | {one.todo}" for one in findings))
        for one in findings:
            assert one.text, one
            assert "\n" not in one.text + one.todo, one
            assert one.mark is not Mark.FAILED or one.todo, "a failure says what to do"

    def marked(self, *marks: Mark) -> set[str]:
        """Return the names of the checks that have one of these marks."""
        return {one.check for one in self.findings if one.mark in marks}

    def of(self, check: str) -> Finding:
        """Return what the check found; it must be one thing."""
        (found,) = [one for one in self.findings if one.check == check]
        return found

    def only(self, check: str, words: str, *, skipped: set[str] | None = None) -> Finding:
        """Return the first failure: it is of that check, has those words, and is the only one."""
        assert self.marked(Mark.FAILED) == {check}
        assert self.marked(Mark.SKIPPED) == (skipped or set())
        assert self.marked(Mark.WARNING) == set()
        found = next(one for one in self.findings if one.mark is Mark.FAILED)
        assert words in found.text
        return found


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., Report]:
    """Carries out all checks."""

    def run(
        agent: Agent,
        *,
        offset: float = 0.0,
        synchronised: bool = True,
        mounts: str | None = MOUNTS,
        patience: Patience = BRISK,
        whole: bool = False,
    ) -> Report:
        """Examine a device; but for `whole`, only up to what the service says, as handlers take a second."""
        config = load([agent.config], environment={})
        reading = Reading(time.time() + offset, 1000.0, synchronised=synchronised)
        around = Surroundings(patience, lambda: reading)
        if mounts is not None:
            (tmp_path / "mounts").write_text(mounts)
            around = replace(around, mounts=tmp_path / "mounts")
        found = doctor.examine(config, [agent.config], around)
        return Report(list(found if whole else itertools.takewhile(lambda one: one.check != "handlers", found)))

    return run


@pytest.fixture
def service() -> JobsService:
    return JobsService()


@pytest.fixture
def device(new_agent: Callable[..., Agent], mosquitto: Mosquitto, pki: Pki) -> Agent:
    """The files of a good device; the agent does not run."""
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    rewrite(agent, 'run_as = ["nobody"]', 'run_as = ["nobody"]\nuser = "nobody"')
    return agent


def rewrite(agent: Agent, old: str, new: str) -> None:
    """Change the configuration."""
    text = agent.config.read_text()
    assert old in text
    agent.config.write_text(text.replace(old, new))


@pytest.fixture
def served(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[None]:
    """Put the Jobs service behind Mosquitto."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield


def dated(pki: Pki, name: str, days: tuple[float, float], *, host: bool = False) -> tuple[bytes, bytes]:
    """Make a certificate of our authority that is valid between two days, counted from now, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = pki._new_key()
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.load_pem_x509_certificate(pki.ca.read_bytes()).subject)
        .public_key(key.public_key())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(pki._ca_key.public_key()), critical=False)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate = builder.sign(pki._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def install(agent: Agent, pki: Pki, days: tuple[float, float]) -> None:
    """Give a device a certificate with these dates."""
    certificate, key = dated(pki, THING, days)
    for suffix, data in (("pem", certificate), ("key", key)):
        path = agent.folder / f"own.{suffix}"
        path.touch(mode=0o600)
        path.write_bytes(data)
    for key_, suffix in (("certificate", "pem"), ("private_key", "key")):
        line = next(line for line in agent.config.read_text().splitlines() if line.startswith(f"{key_} ="))
        rewrite(agent, line, f'{key_} = "{agent.folder}/own.{suffix}"')


def serve_with(mosquitto: Mosquitto, certificate: bytes, key: bytes) -> None:
    """Start the broker anew with another certificate."""
    folder = mosquitto.log.parent
    (folder / "server.pem").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    configure(mosquitto, certfile=f"{folder}/server.pem", keyfile=f"{folder}/server.key")


def configure(mosquitto: Mosquitto, **settings: str) -> None:
    """Start the broker anew with other settings."""
    config = mosquitto.log.parent / "mosquitto.conf"
    kept = [line for line in config.read_text().splitlines() if not line.startswith(tuple(settings))]
    mosquitto.stop()
    config.write_text("\n".join([*kept, *(f"{name} {value}" for name, value in settings.items()), ""]))
    mosquitto.start()


# --- a device that works --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("served")
def test_where_all_is_well_nothing_else_is_said_no_job_is_taken_and_nothing_is_changed(
    examine: Callable[..., Report], device: Agent, service: JobsService
) -> None:
    service.create_job("job-1", {"handler": "x"}, [THING])
    device.state.mkdir()
    before = tree(device.folder)
    report = examine(device, whole=True)
    assert [one.check for one in report.findings] == [*ALWAYS, *REST]
    assert report.marked(Mark.OK) == {*ALWAYS, *REST}
    assert report.of("jobs").text == "the Jobs service answers: job-1#1 waits for pump-7, and was left alone"
    assert service.execution(THING, "job-1").status == "QUEUED"
    assert tree(device.folder) == before


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.usefixtures("served")
def test_a_name_in_the_certificate_that_is_not_the_things_is_a_hint_and_no_more(
    examine: Callable[..., Report], device: Agent
) -> None:
    rewrite(device, 'name = "pump-7"', 'name = "pump-8"')
    report = examine(device)
    assert report.marked(Mark.OK) == set(ALWAYS)
    said = report.of("certificate").text
    assert "signed by thingjobs test CA, valid until 2" in said
    assert said.endswith("; its name is pump-7 and the thing's is pump-8, which can be meant")


# --- certificates -----------------------------------------------------------------------------------------------------


def test_an_authority_that_is_not_the_servers_is_named(
    examine: Callable[..., Report], device: Agent, pki: Pki, tmp_path: Path
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    other = type(pki)(folder)
    rewrite(device, f'ca = "{pki.ca}"', f'ca = "{other.ca}"')
    found = examine(device).only("tls", f"(connection.ca = {other.ca})", skipped=SERVICE)
    assert "is not trusted" in found.text
    assert found.todo.startswith("put the certificate of the authority that signed the server's there")


@pytest.mark.parametrize("tls", ["tlsv1.2", "tlsv1.3"])
def test_a_certificate_of_ours_that_the_broker_does_not_know_fails_in_tls(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, pki: Pki, tmp_path: Path, tls: str
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    configure(mosquitto, cafile=str(type(pki)(folder).ca), tls_version=tls)
    found = examine(device).only("tls", "does not accept us", skipped=SERVICE)
    assert "is registered and ACTIVE in the account and region of localhost" in found.todo


def test_an_expired_certificate_of_ours_is_named_with_its_date(
    examine: Callable[..., Report], device: Agent, pki: Pki
) -> None:
    install(device, pki, (-9, -2))
    found = examine(device).only("certificate", f"{device.folder}/own.pem expired on 2", skipped=BEHIND_TLS)
    assert found.todo.startswith("put a new one and its key in its place")


@pytest.mark.usefixtures("served")
def test_a_certificate_that_expires_soon_is_a_warning(examine: Callable[..., Report], device: Agent, pki: Pki) -> None:
    install(device, pki, (-9, 8))
    found = examine(device).of("certificate")
    assert (found.mark, "expires on 2" in found.text) == (Mark.WARNING, True)


def test_an_expired_certificate_of_the_server_is_the_servers_fault(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, pki: Pki
) -> None:
    serve_with(mosquitto, *dated(pki, "localhost", (-9, -1), host=True))
    found = examine(device).only("tls", "is not trusted: certificate has expired", skipped=SERVICE)
    assert found.todo == "that is for whoever runs the server"


def test_a_key_of_another_certificate_is_named(examine: Callable[..., Report], device: Agent, pki: Pki) -> None:
    _, key = pki.device("pump-9")
    line = next(line for line in device.config.read_text().splitlines() if line.startswith("private_key ="))
    rewrite(device, line, f'private_key = "{key}"')
    found = examine(device).only("certificate", f"{key} is not the key of the certificate", skipped=BEHIND_TLS)
    assert found.todo == "set both to files that were made together"


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [-1, 1], ids=["behind", "ahead"])
def test_a_clock_that_is_off_by_a_year_is_to_blame_and_no_certificate(
    examine: Callable[..., Report], device: Agent, years: int
) -> None:
    report = examine(device, offset=years * YEAR, synchronised=False)
    found = report.only(
        "clock", "no time service has set it, and the server's certificate is valid", skipped=BEHIND_TLS
    )
    assert "and our certificate is valid" in found.text
    assert found.todo.startswith("set the clock")
    assert report.of("certificate").text.endswith("; by which clock, see there")


def test_a_server_whose_certificate_begins_in_a_year_shows_that_nobody_has_set_our_clock(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, pki: Pki
) -> None:
    serve_with(mosquitto, *dated(pki, "localhost", (364, 700), host=True))
    report = examine(device, synchronised=False)
    found = report.only("clock", "the server's certificate is valid from", skipped=BEHIND_TLS)
    assert "our certificate" not in found.text


@pytest.mark.usefixtures("served")
def test_a_clock_that_nobody_has_set_and_that_fits_is_a_warning(examine: Callable[..., Report], device: Agent) -> None:
    report = examine(device, synchronised=False)
    assert report.marked(Mark.WARNING) == {"clock"}
    assert not report.marked(Mark.FAILED, Mark.SKIPPED)


# --- the way there ----------------------------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve_is_named(examine: Callable[..., Report], device: Agent) -> None:
    rewrite(device, 'endpoint = "localhost"', 'endpoint = "no-such-host.invalid"')
    found = examine(device).only("name", "the name no-such-host.invalid cannot be", skipped={"port", *BEHIND_TLS})
    assert "whether connection.endpoint is written right" in found.todo


def test_a_port_where_nobody_listens_is_named(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto
) -> None:
    mosquitto.stop()
    found = examine(device).only("port", f"localhost:{mosquitto.port} refuses the connection", skipped=BEHIND_TLS)
    assert "connection.port = 443" in found.todo


def test_a_port_that_swallows_what_is_sent_is_told_from_one_that_refuses(
    examine: Callable[..., Report], device: Agent
) -> None:
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        rewrite(device, 'endpoint = "localhost"', 'endpoint = "127.0.0.1"')
        rewrite(device, "port = ", f"port = {address[1]} # ")
        for _ in range(8):  # No more fit into its queue; what comes then is dropped.
            sock = open_.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        report = examine(device, patience=replace(BRISK, reach=1.0))
    found = report.only("port", "does not answer within 1 s: what we send there is dropped", skipped=BEHIND_TLS)
    assert f"have the firewall let TCP to port {address[1]} out" in found.todo


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    """An HTTPS server that wants a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    with WebJobsService(service, tls=context) as web:
        yield web


def point_at(agent: Agent, port: int, more: str = "") -> None:
    line = next(line for line in agent.config.read_text().splitlines() if line.startswith("port = "))
    rewrite(agent, line, f"port = {port}\n{more}")


@contextlib.contextmanager
def terse(pki: Pki) -> Iterator[int]:
    """Run a web server that answers whatever it gets; yield its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
                        if sock.recv(4096):
                            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("answers", [True, False])
def test_a_web_server_that_we_trust_is_told_from_a_broker(
    examine: Callable[..., Report], device: Agent, web: WebJobsService, pki: Pki, answers: bool
) -> None:
    with terse(pki) as port:
        point_at(device, port if answers else web.port)
        words = "is a web server, and no broker"
        found = examine(device, patience=replace(BRISK, session=1)).only("connect", words, skipped=AFTER_CONNECT)
    assert "connection.endpoint and connection.port" in found.todo


def test_a_port_without_tls_is_named(examine: Callable[..., Report], device: Agent, service: JobsService) -> None:
    with WebJobsService(service) as plain:
        point_at(device, plain.port)
        found = examine(device).only("tls", f"TLS with localhost:{plain.port} failed", skipped=SERVICE)
    assert "connection.endpoint and connection.port" in found.todo


def test_a_broker_that_hangs_is_named_within_its_time(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto
) -> None:
    mosquitto.pause()
    began = time.monotonic()
    report = examine(device, patience=replace(BRISK, handshake=0.5))
    mosquitto.resume()
    assert time.monotonic() - began < 10
    report.only("tls", f"localhost:{mosquitto.port} does not answer within", skipped=SERVICE)


# --- the policy -------------------------------------------------------------------------------------------------------

BROKERS = pytest.mark.parametrize(
    ("version", "says"),
    [
        pytest.param(5, True, id="mqtt5"),
        pytest.param(5, False, id="mqtt5-silent"),
        pytest.param(4, False, id="mqtt311"),
    ],
)


@pytest.fixture
def denied(
    examine: Callable[..., Report],
    new_agent: Callable[..., Agent],
    pki: Pki,
    policy_broker: Callable[..., PolicyBroker],
) -> Callable[..., Report]:
    """Examines a device whose policy denies something; the broker has no TLS, which is the one warning."""

    def run(service: JobsService, version: int, says: bool, **denies: Any) -> Report:
        agent = new_agent(THING, port=1, pair=pki.device(THING), ca=pki.ca, host="127.0.0.1")
        lines = [line for line in agent.config.read_text().splitlines() if not line.startswith(("cert", "priv", "ca "))]
        agent.config.write_text("\n".join(lines))
        with policy_broker(service, version, says=says) as broker:
            for name, value in denies.items():
                setattr(broker, name, value)
            none = 'certificate = ""\nprivate_key = ""\nca = ""\n'
            point_at(agent, broker.link.port, none + ('mqtt_version = "3.1.1"' if version == 4 else ""))
            report = examine(agent, patience=replace(BRISK, reply=1.0))
        assert report.marked(Mark.WARNING) == {"tls"}
        report.findings = [replace(one, mark=Mark.OK) if one.check == "tls" else one for one in report.findings]
        return report

    return run


@BROKERS
def test_a_policy_that_denies_connect_is_named(
    denied: Callable[..., Report], service: JobsService, version: int, says: bool
) -> None:
    report = denied(service, version, says, connect="someone else")
    found = report.only("connect", "pump-7", skipped=AFTER_CONNECT)
    assert "allows iot:Connect on client/pump-7" in found.todo


@BROKERS
def test_a_policy_that_denies_subscribe_is_named_with_the_filter(
    denied: Callable[..., Report], service: JobsService, version: int, says: bool
) -> None:
    report = denied(service, version, says, subscribe="(?!notify-next).*")
    found = report.only("subscribe", "$aws/things/pump-7/jobs/notify-next", skipped={"jobs", "client id"})
    assert "notify," not in found.text
    assert "iot:Subscribe on topicfilter/$aws/things/pump-7/jobs/*" in found.todo


@BROKERS
def test_a_policy_that_denies_publish_is_named_with_the_topic(
    denied: Callable[..., Report], service: JobsService, version: int, says: bool
) -> None:
    report = denied(service, version, says, publish=r"(?!\$next).*")
    found = report.only("jobs", "$next/get", skipped={"client id"})
    assert "allow iot:Publish on topic/$aws/things/pump-7/jobs/$next/get" in found.todo


@BROKERS
def test_silence_says_both_reasons_and_how_to_tell_them_apart(
    denied: Callable[..., Report], service: JobsService, version: int, says: bool
) -> None:
    report = denied(service, version, says, receive=False)
    found = report.only("jobs", "$next/get was taken, and nothing came back", skipped={"client id"})
    assert "iot:Receive on topic/$aws/things/pump-7/jobs/*" in found.todo
    assert "aws iot describe-thing --thing-name pump-7" in found.todo


@pytest.mark.usefixtures("served")
def test_a_broker_that_answers_a_denied_publish_is_heard(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto
) -> None:
    rules = mosquitto.log.parent / "acl"
    rules.write_text("user cloud\ntopic readwrite #\nuser pump-7\ntopic read #\n")
    rules.chmod(0o600)
    configure(mosquitto, acl_file=str(rules))
    found = examine(device).only("jobs", "$next/get: Not authorized", skipped={"client id"})
    assert "allow iot:Publish on topic/$aws/things/pump-7/jobs/$next/get" in found.todo


# --- who else has our client id ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("served")
def test_another_client_with_our_id_is_named(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, pki: Pki
) -> None:
    config = load([device.config], environment={})
    connection = config.connection
    link = Link("localhost", mosquitto.port, THING, config.thing.name, ca=pki.ca)
    link = replace(link, certificate=connection.certificate, private_key=connection.private_key)
    rival = PahoTransport(link, lambda: 0.02)
    rival.start(lambda _: None)
    try:
        report = examine(device, patience=replace(BRISK, rival=5.0))
    finally:
        rival.stop()
    assert report.marked(Mark.FAILED) == {"client id"}
    assert "another client came as pump-7" in report.of("client id").text  # Mosquitto does not always say so itself.
    assert "give each device its own connection.client_id" in report.of("client id").todo
    assert report.of("connect").mark is Mark.OK


@pytest.mark.usefixtures("served")
def test_the_agent_that_runs_here_is_left_alone_and_the_jobs_service_asked_as_somebody_beside_it(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, eventually: Callable[..., Any]
) -> None:
    device.start()
    eventually(lambda: device.status()["connected"])
    report = examine(device)
    assert not report.marked(Mark.FAILED, Mark.WARNING)
    assert report.of("agent").text.startswith(f"one runs on {device.state}, connected for ")
    assert report.of("connect").text.startswith("the agent that runs here has been connected as pump-7 for 0:00:")
    assert report.of("jobs").text == "the Jobs service answers: nothing waits for pump-7"
    assert report.marked(Mark.SKIPPED) == {"client id"}, "it has not been connected for long"
    assert "as pump-7-check " in mosquitto.log.read_text()
    assert mosquitto.log.read_text().count("as pump-7 ") == 1
    assert device.stop() == 0


@pytest.mark.usefixtures("served")
def test_what_only_the_agents_own_id_is_allowed_is_not_called_wrong_while_it_runs(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, eventually: Callable[..., Any]
) -> None:
    rules = mosquitto.log.parent / "acl"
    rules.write_text("user cloud\ntopic readwrite #\npattern readwrite $aws/things/%c/jobs/#\n")
    rules.chmod(0o600)
    configure(mosquitto, acl_file=str(rules))
    device.start()
    eventually(lambda: device.status()["connected"])
    report = examine(device)
    assert not report.marked(Mark.FAILED, Mark.WARNING)
    assert report.marked(Mark.SKIPPED) == {"jobs", "client id"}
    assert "pump-7-check, tried in its place, may be allowed less (Not authorized)" in report.of("jobs").text
    assert "stop the agent and check again" in report.of("jobs").todo
    device.stop()


# --- the device -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("who", "words"),
    [("key", "others may use"), ("config", "may be written by others"), ("handlers", "others may change")],
)
def test_files_that_others_can_read_or_change_are_named(
    examine: Callable[..., Report], device: Agent, pki: Pki, who: str, words: str
) -> None:
    install(device, pki, (-1, 90))
    path = {"key": device.folder / "own.key", "config": device.config, "handlers": device.folder / "handlers"}[who]
    path.chmod(path.stat().st_mode | (0o044 if who == "key" else 0o022))
    found = examine(device).only("files", words)
    assert str(path) in found.text
    assert found.todo.startswith("run chmod ")


@pytest.mark.usefixtures("served")
def test_a_handler_that_is_broken_is_named_with_its_reason(examine: Callable[..., Report], device: Agent) -> None:
    folder = device.folder / "handlers" / "firmware"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"contract": 1')
    found = examine(device, whole=True).only("handlers", "handler firmware")
    assert "manifest.json" in found.text
    assert "thingjobs handlers check firmware" in found.todo


@pytest.mark.usefixtures("served")
def test_a_state_folder_in_memory_is_named(
    examine: Callable[..., Report], device: Agent, new_disk: Callable[..., Disk]
) -> None:
    disk = new_disk("100m")
    rewrite(device, f'directory = "{device.folder}/state"', f'directory = "{disk.path}/state"')
    found = examine(device, mounts=None, whole=True).only("state", f"is on {disk.path}, which is in memory (tmpfs)")
    assert found.todo.startswith("set state.directory to a folder on a disk")


@pytest.mark.usefixtures("served")
def test_a_full_disk_and_one_that_is_read_only_are_named(
    examine: Callable[..., Report], device: Agent, new_disk: Callable[..., Disk]
) -> None:
    disk = new_disk("100m")
    rewrite(device, f'directory = "{device.folder}/state"', f'directory = "{disk.path}/state"')
    quick = replace(BRISK, rival=0.0)
    disk.read_only()
    found = examine(device, patience=quick, whole=True).only("state", "is on a disk that is mounted read-only")
    assert "mount -o remount,rw" in found.todo
    disk.writable()
    disk.fill()
    found = examine(device, patience=quick, whole=True).only("space", "0.0 MiB free for ")
    assert found.todo.startswith("free some space there")


# --- proxies ----------------------------------------------------------------------------------------------------------


class _Proxy(socketserver.BaseRequestHandler):
    """An HTTP proxy that wants a password, and connects whoever knows it to its server's `target`."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (more := self.request.recv(1)):
                return
            head += more
        if b"Basic " + base64.b64encode(b"jobs:hush") not in head:
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.server.target)) as far:  # type: ignore[attr-defined]
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {self.request: far, far: self.request}
            with contextlib.suppress(OSError):
                while True:
                    for sock in select.select(list(ends), [], [])[0]:
                        if not (data := sock.recv(65536)):
                            return
                        ends[sock].sendall(data)


@pytest.fixture
def proxy(mosquitto: Mosquitto) -> Iterator[int]:
    """A proxy behind which every name and port is the broker."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Proxy) as server:
        server.target = mosquitto.port  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("served")
def test_a_proxy_that_refuses_is_told_from_the_service_behind_it_and_no_password_is_shown(
    examine: Callable[..., Report], device: Agent, proxy: int
) -> None:
    point_at(device, 443, f'proxy = "http://jobs:wrong-word@localhost:{proxy}"')
    report = examine(device)
    found = report.only("proxy", f"the proxy localhost:{proxy} does not take the user jobs", skipped=BEHIND_TLS)
    assert "connection.proxy" in found.todo
    assert "wrong-word" not in str(report.findings)
    rewrite(device, "wrong-word", "hush")
    report = examine(device)
    assert report.of("name").text == "localhost is 127.0.0.1"
    assert report.of("proxy").text == f"localhost:{proxy} lets us through to localhost:443"
    assert report.of("tls").text.startswith("localhost:443 does not know the protocol x-amzn-mqtt-ca (ALPN)")
    assert report.marked(Mark.WARNING) == {"tls"}, "Mosquitto knows no ALPN, and works all the same"
    assert not report.marked(Mark.FAILED, Mark.SKIPPED)


# --- other ways -------------------------------------------------------------------------------------------------------


def test_https_is_examined_by_its_own_transport(
    examine: Callable[..., Report], device: Agent, web: WebJobsService, service: JobsService
) -> None:
    point_at(device, web.port, 'transport = "https"')
    report = examine(device)
    assert report.marked(Mark.OK) == set(ALWAYS)
    assert report.of("jobs").text == "the Jobs service answers: nothing waits for pump-7"


def test_https_that_is_denied_is_named(examine: Callable[..., Report], device: Agent, web: WebJobsService) -> None:
    point_at(device, web.port, 'transport = "https"')
    web.interpose(lambda _: Answer(403, b'{"message": "Forbidden"}'))
    examine(device).only("connect", "denies GetPendingJobExecutions", skipped=AFTER_CONNECT)


@pytest.mark.parametrize("synchronised", [True, False])
def test_what_the_service_says_that_the_time_is_counts_more_than_anything(
    examine: Callable[..., Report], device: Agent, web: WebJobsService, synchronised: bool
) -> None:
    """Half a year off: the certificate of this server is out of date by our clock, and ours is not there."""
    point_at(device, web.port, 'transport = "https"')
    report = examine(device, offset=-YEAR / 2, synchronised=synchronised)
    found = report.only("clock", "the service says ", skipped=BEHIND_TLS)
    assert dt.datetime.now(dt.UTC).strftime("the service says %Y-%m-%d") in found.text


@pytest.mark.usefixtures("served")
def test_awsiot_is_examined_by_its_own_transport(
    examine: Callable[..., Report], device: Agent, mosquitto: Mosquitto, require: Callable[[str], str]
) -> None:
    require("awscrt")
    point_at(device, mosquitto.port, 'transport = "awsiot"')
    report = examine(device, patience=replace(BRISK, session=10))
    assert report.marked(Mark.OK) == set(ALWAYS)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(("status", "words"), [(200, ""), (403, "AWS IoT answers 403: Access Denied")])
def test_the_credentials_provider_is_asked_where_it_is_configured(
    examine: Callable[..., Report], device: Agent, web: WebJobsService, status: int, words: str
) -> None:
    expires = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    names = {"accessKeyId": "AKIA1", "secretAccessKey": "hush", "sessionToken": "hushhush", "expiration": expires}
    good, bad = {"credentials": names}, {"message": "Access Denied"}

    def answer(call: Call) -> Answer:
        assert call.path == "/role-aliases/device-role/credentials"
        return Answer(status, json.dumps(good if status == 200 else bad).encode())

    web.interpose(answer)
    with device.config.open("a") as config:
        config.write(f'[cloud]\nrole_alias = "device-role"\ncredentials_endpoint = "localhost:{web.port}"\n')
    report = examine(device)
    if words:
        report.only("credentials", words)
    else:
        assert report.of("credentials").text.startswith(f"localhost:{web.port} gives credentials for device-role")
        assert not report.marked(Mark.FAILED, Mark.SKIPPED)
    assert "hush" not in str(report.findings)


# --- time -------------------------------------------------------------------------------------------------------------


def test_no_check_begins_after_its_time(examine: Callable[..., Report], device: Agent) -> None:
    report = examine(device, patience=replace(BRISK, whole=0.0), whole=True)
    assert report.marked(Mark.SKIPPED) == {*ALWAYS, *REST}


def test_in_the_worst_case_a_minute_is_enough() -> None:
    usual = Patience()
    assert 2 * usual.session + usual.reply + usual.rival + 2 < usual.talk, "a transport's conversation"
    assert (
        usual.whole + max(usual.talk, usual.cloud, usual.handlers, usual.name + usual.reach + 2 * usual.handshake) < 60
    )
