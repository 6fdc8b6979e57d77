"""What the tests share: certificates, real servers on loopback, and the rule that nothing stays behind.

The servers are a Mosquitto, fresh for each test, and one ministack (an independent emulator of AWS IoT Jobs:
control plane, HTTP and MQTT over mutual TLS) for the whole run. A server that is not installed here skips the
test, and fails it in CI. A test that names a type from here imports it under TYPE_CHECKING, as in `from
tests.conftest import Mosquitto`: the folder is no package, there is nothing to import while the tests run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import http.client
import importlib.util
import ipaddress
import itertools
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: Debian keeps brokers out of the PATH of ordinary users.
PROGRAM_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/local/sbin", "/usr/sbin"]
)

#: How long a test waits for what has to come: only a failure, or a machine that does much else, reaches it.
PATIENCE_SECONDS = 20.0

# Tests that run beside each other are told a width, which what is tested would take for that of a terminal.
os.environ.pop("COLUMNS", None)

#: For `--hypothesis-profile=long`, see README.md.
# No deadlines: how long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("usual", deadline=None)
hypothesis.settings.register_profile("long", max_examples=10_000, deadline=None)
hypothesis.settings.load_profile("usual")


class Require(Protocol):
    """What the fixture `require` gives."""

    def __call__(self, name: str) -> str:
        """Return the path of the program `name`, or `name` if it is a module; else the test ends here."""


@pytest.fixture(scope="session")
def require() -> Require:
    """Find a program or a module that a test cannot do without: skip here, fail where CI=true."""
    return find_or_end


def find_or_end(name: str) -> str:
    """Do what `Require` promises."""
    if program := shutil.which(name, path=PROGRAM_PATH):
        return program
    if importlib.util.find_spec(name):
        return name
    reason = f"{name} is not installed here, `make test` says how to get it"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{reason}; in CI nothing may be missing", pytrace=False)
    pytest.skip(f"NOT TESTED: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, so that `-m "not server"` leaves it out."""
    for item in items:
        if {"mosquitto", "ministack", "moto"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("server")


# --- Nothing stays behind ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lasting: list[Server]
) -> Iterator[None]:
    """Fail a test that leaves a thread or a process behind; kill the process, so that no other test meets it.

    Unit tests are spared the look at /proc: they start nothing. What a lasting server logged meanwhile is
    printed, so that pytest shows it when the test failed.
    """
    threads_before = set(threading.enumerate())
    yield
    for server in lasting:
        print(server.log_since_last_time())
    if "unit" in request.path.parts:
        return
    mark = f"{tmp_path_factory.getbasetemp()}/"
    spared = {server.pid for server in lasting}

    def left() -> dict[int, str]:
        return {pid: name for pid, name in running(mark).items() if pid not in spared}

    def left_threads() -> list[threading.Thread]:
        # A dummy stands for a native library's thread that once called into Python; it is not ours to end.
        new = set(threading.enumerate()) - threads_before
        return [thread for thread in new if not isinstance(thread, threading._DummyThread)]

    wait_until(lambda: not left() and not left_threads(), PATIENCE_SECONDS)
    processes, threads = left(), left_threads()
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not processes, "the test left processes behind"
    assert not threads, "the test left threads behind"


def running(mark: str) -> dict[int, str]:
    """Return pid and command line of our children, and of all that has `mark` in arguments or environment.

    The second half finds a handler whose agent was killed: it is nobody's child, but knows its job's folder.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = parent == os.getpid() or mark in argv or mark.encode() in (entry / "environ").read_bytes()
        except OSError:  # it ended while we looked, or it is another user's
            continue
        if ours and entry.name != str(os.getpid()):
            found[int(entry.name)] = argv or "(a zombie: nobody waited for it)"
    return found


def wait_until(true: Callable[[], object], seconds: float) -> bool:
    """Ask until it is true or the time is over; return whether it is."""
    deadline = time.monotonic() + seconds
    while not (answer := bool(true())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


# --- Certificates -----------------------------------------------------------------------------------------


#: Between which days a certificate is valid, counted from now. The agent warns from the thirtieth before the end on.
USUAL_DAYS = (-1 / 24, 60.0)


class Pki:
    """A certificate authority for one test run, with a certificate for servers on loopback.

    Attributes:
        ca: the authority's certificate, what devices and brokers trust.
        server_cert: for localhost, 127.0.0.1 and ::1.
        server_key: its key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca_name = "thingjobs test CA"
        self._ca_key = self._new_key()
        self._dated = itertools.count(1)
        self.ca = self._write("ca.pem", pem(self._signed(self._ca_name, self._ca_key, authority=True)))
        self.server_cert, self.server_key = self._pair("localhost", "localhost")

    def device(self, name: str) -> tuple[Path, Path]:
        """Make a device's certificate, its common name `name`; return the paths of certificate and key."""
        return self._pair(name, name)

    def dated(self, name: str, days: tuple[float, float]) -> tuple[Path, Path]:
        """Make a certificate that is valid between two days, counted from now; `localhost` is a server's."""
        return self._pair(name, f"{name}-dated-{next(self._dated)}", days)

    def bare(self, name: str) -> tuple[Path, Path]:
        """Make a certificate as many tools do: without the key identifiers that RFC 5280 wants in it."""
        return self._pair(name, f"{name}-bare", bare=True)

    def server_tls(self, pair: tuple[Path, Path] | None = None, *, mutual: bool = True) -> ssl.SSLContext:
        """Return the TLS of a server, by default with the certificate for loopback.

        Args:
            pair: another certificate to show, and its key.
            mutual: let in only who has a certificate of this authority.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(*(pair or (self.server_cert, self.server_key)))
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        return context

    def client_tls(self, name: str = "cloud") -> ssl.SSLContext:
        """Return the TLS of a client with a certificate of its own, by default that of the Jobs service."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(*self.device(name))
        return context

    def _pair(
        self, name: str, file: str, days: tuple[float, float] = USUAL_DAYS, *, bare: bool = False
    ) -> tuple[Path, Path]:
        key = self._new_key()
        certificate = self._write(f"{file}.pem", pem(self._signed(name, key, days, bare=bare)))
        return certificate, self._write(f"{file}.key", pem(key))

    def _write(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return path

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric import ec

        return ec.generate_private_key(ec.SECP256R1())

    def _signed(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        days: tuple[float, float] = USUAL_DAYS,
        *,
        authority: bool = False,
        bare: bool = False,
    ) -> x509.Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        issuer = self._ca_key.public_key()
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(serial_number=x509.random_serial_number())
            .subject_name(named(name))
            .issuer_name(named(self._ca_name))
            .public_key(key.public_key())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(key_usage(authority=authority), critical=True)
        )
        if not bare:
            own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
            authoritys = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
            builder = builder.add_extension(own, critical=False).add_extension(authoritys, critical=False)
        if name == "localhost":
            loopback = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1")]
            names = x509.SubjectAlternativeName([x509.DNSName(name), *loopback])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._ca_key, hashes.SHA256())


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what a key is for; Python 3.13 believes no authority that does not say."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    """Write a certificate or a key as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(Encoding.PEM)
    return thing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="session")
def pki(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Give a certificate authority and certificates for servers and devices."""
    require("cryptography")
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def other_pki(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Give an authority that has the same name, and that nobody trusts."""
    require("cryptography")
    return Pki(tmp_path_factory.mktemp("other-pki"))


# --- Servers ----------------------------------------------------------------------------------------------


class Server:
    """A real server, a process of its own, on a loopback port that it keeps from start to start.

    Attributes:
        port: where it listens.
        log: the file with all that it printed.
    """

    def __init__(self, argv: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.log = log
        self._argv = list(argv)
        self._env = dict(env or os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._shown = 0

    @property
    def pid(self) -> int | None:
        """The pid of the running server."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and return when it can be used."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        process = self._process
        if (
            not wait_until(lambda: process.poll() is not None or self.ready(), PATIENCE_SECONDS)
            or process.poll() is not None
        ):
            self.kill()
            raise RuntimeError(f"{self._argv[0]} does not come up:\n{self.log.read_text()}")

    def ready(self) -> bool:
        """Whether it listens."""
        return listens(self.port)

    def stop(self) -> None:
        """End it as an operator would."""
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it hang: connections stay, nothing is answered from now on."""
        self._signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        assert wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", PATIENCE_SECONDS)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def log_since_last_time(self) -> str:
        """Return what it printed since this was called last."""
        text = self.log.read_text(errors="replace")
        new, self._shown = text[self._shown :], len(text)
        return new

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if not self._process:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def listens(port: int) -> bool:
    """Return whether somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@functools.cache
def _ports() -> Iterator[int]:
    """Give the ports of this process, in turn: a thousand for each of those that run tests beside each other.

    They lie below those that the kernel gives to clients (ip_local_port_range): one of them might have a port before
    its server does.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, begin = 12_000 + 1_000 * (worker % 20), os.getpid()
    return itertools.cycle(first + (begin + at) % 1_000 for at in range(1_000))


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    for port in _ports():
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


@pytest.fixture(name="free_port", scope="session")
def free_port_fixture() -> Callable[[], int]:
    """Give what returns a loopback port that nobody listens on, another one each time."""
    return free_port


@pytest.fixture(scope="session")
def lasting() -> list[Server]:
    """Collect the servers that outlive a test on purpose."""
    return []


#: What has a listener of Mosquitto let in only who has a certificate, under the name that is in it.
MUTUAL = ("require_certificate true", "use_identity_as_username true")


class Mosquitto(Server):
    """A broker that, like AWS IoT, lets in nobody without a certificate; its common name is the user."""

    def __init__(self, program: str, pki: Pki, folder: Path) -> None:
        port = free_port()
        self._config = folder / "mosquitto.conf"
        self._tls = [
            f"cafile {pki.ca}",
            f"certfile {pki.server_cert}",
            f"keyfile {pki.server_key}",
        ]
        lines = [
            "per_listener_settings true",
            # Started by root it would change to its own user, who may not read our keys.
            *(["user root"] if os.geteuid() == 0 else []),
            "persistence false",
            "log_type all",
            "set_tcp_nodelay true",
            f"listener {port} 127.0.0.1",
            *self._tls,
            *MUTUAL,
        ]
        self._config.write_text("\n".join([*lines, ""]))
        super().__init__([program, "-c", str(self._config)], port, folder / "mosquitto.log")

    def configure(self, **settings: object) -> None:
        """Start it anew with other settings, in the place of those of the same name."""
        old = self._config.read_text().splitlines()
        kept = [line for line in old if line.partition(" ")[0] not in settings]
        self._restart(*kept, *(f"{name} {value}" for name, value in settings.items()))

    def serve_with(self, certificate: Path, key: Path) -> None:
        """Start it anew with another certificate."""
        self.configure(certfile=certificate, keyfile=key)

    def permit(self, *rules: str) -> None:
        """Start it anew, allowing no more than these lines of an access list do."""
        path = self._config.with_name("acl")
        path.write_text("\n".join([*rules, ""]))
        path.chmod(0o600)
        self.configure(acl_file=path)

    def listen_without_tls(self, *, anonymous: bool = True) -> int:
        """Start it anew with one more port, for whoever comes, or for nobody; return that."""
        return self._listen(f"allow_anonymous {str(anonymous).lower()}")

    def listen_for_websockets(self, *, mutual: bool = False) -> int:
        """Start it anew with one more port, for WebSockets over TLS; return that.

        Args:
            mutual: let in only who has a certificate, as on the first port.
        """
        rules = MUTUAL if mutual else ("allow_anonymous true",)
        return self._listen("protocol websockets", *self._tls, *rules)

    def _listen(self, *rules: str) -> int:
        port = free_port()
        self._restart(*self._config.read_text().splitlines(), f"listener {port} 127.0.0.1", *rules)
        # It counts as started when it listens on its first port.
        assert wait_until(lambda: listens(port), PATIENCE_SECONDS)
        return port

    def _restart(self, *lines: str) -> None:
        self.kill()
        self._config.write_text("\n".join([*lines, ""]))
        self.start()


@pytest.fixture
def mosquitto(require: Require, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Run a fresh Mosquitto for one test; its log is shown when the test fails."""
    broker = Mosquitto(require("mosquitto"), pki, tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.kill()  # an orderly end takes it a fifth of a second
    print(broker.log_since_last_time())


#: Python 3.11.2, which is Debian 12's, reads from a connection although `connection_made` paused it, and so takes
#: the beginning of the TLS handshake away from ministack, which waits for it for ever. Later versions look first.
RUN_MINISTACK = """
from asyncio.selector_events import _SelectorSocketTransport as Transport
from ministack.app import main

add_reader = Transport._add_reader
Transport._add_reader = lambda self, *args: None if self._paused else add_reader(self, *args)
main()
"""


class Ministack(Server):
    """AWS IoT as an emulator. Its MQTT port listens on every interface; there is no switch for that.

    Attributes:
        url: of all its services.
        mqtt_port: MQTT over mutual TLS.
        ca_path: what signed its server certificate.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.mqtt_port = free_port()
        self.ca_path = folder / "ca.pem"
        self._folder = folder
        env = {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "1",
            "IOT_MTLS_PORT": str(self.mqtt_port),
            "TMPDIR": str(folder),
            # It tidies up containers of its own making where it finds a Docker; not on this machine.
            "DOCKER_HOST": f"unix://{folder}/no-docker-here",
        }
        super().__init__([sys.executable, "-c", RUN_MINISTACK], port, folder / "ministack.log", env)
        self.boto = functools.cache(self._boto)

    def start(self) -> None:
        """Start it, and fetch the certificate that devices must trust."""
        super().start()
        self.ca_path.write_bytes(self._get("/_ministack/iot/ca.pem")[1])

    def ready(self) -> bool:
        """Whether HTTP and MQTT both listen."""
        try:
            return self._get("/_ministack/ready")[0] == http.HTTPStatus.OK
        except OSError:
            return False

    def new_thing(self, name: str) -> tuple[Path, Path]:
        """Create a thing with a certificate of its own; return the paths of certificate and key."""
        iot = self.boto("iot")
        iot.create_thing(thingName=name)
        made = iot.create_keys_and_certificate(setAsActive=True)
        iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        for path, text in ((certificate, made["certificatePem"]), (key, made["keyPair"]["PrivateKey"])):
            path.touch(mode=0o600)
            path.write_text(text)
        return certificate, key

    def _boto(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(proxies={}),
        )

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def ministack(require: Require, lasting: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """Run one ministack for all tests: give things and jobs names that no other test has."""
    for module in ("ministack", "boto3", "cryptography"):
        require(module)
    server = Ministack(tmp_path_factory.mktemp("ministack"))
    server.start()
    lasting.append(server)
    yield server
    lasting.remove(server)
    server.stop()
