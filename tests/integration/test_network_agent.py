"""The whole agent behind networks and brokers that misbehave: what it says, how it tries again, that jobs go through.

It runs in this process, on its own thread, so that a test can choose how patient it is; its handlers are real
processes. The broker is a Mosquitto with mutual TLS behind a proxy, or, where Mosquitto is too kind, `PolicyBroker`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import select
import socket
import ssl
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest

from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.dial import Link
from thingjobs.transport.paho import PahoTransport
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki, Require
    from tests.integration.conftest import Agent, Inside, PolicyBroker


THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
VERSIONS = pytest.mark.parametrize("version", [pytest.param(5, id="mqtt5"), pytest.param(4, id="mqtt311")])


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


# --- the agent ----------------------------------------------------------------------------------------------------


def works(agent: Inside) -> None:
    """Queue a job: it goes through, claimed once and finished once."""
    agent.went_through(agent.queue({"version": "1.0", "steps": [run("echo,hello")]}))


def processor_seconds(agent: Inside) -> float:
    """Return how long the connection's thread has been running."""
    thread = agent.transport._thread.native_id
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def run(command: str) -> dict[str, Any]:
    """Return a step of an AWS document that runs a command."""
    return {"action": {"name": "run", "type": "runCommand", "input": {"command": command}, "runAsUser": ""}}


class Log:
    """What the agent logged, one line a record."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "thingjobs")
        self._caplog = caplog

    def lines(self, words: str) -> list[str]:
        found = [record.getMessage() for record in self._caplog.records]
        return [line for line in found if words in line]

    def has(self, words: str, times: int = 1) -> str:
        """Wait until some words were logged that often; return the last such line. All are single lines."""
        lines: list[str] = eventually(lambda: len(found := self.lines(words)) >= times and found)
        assert all("\n" not in line for line in lines)
        return lines[-1]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@pytest.fixture
def service() -> JobsService:
    return JobsService()


@pytest.fixture
def start(
    service: JobsService, new_agent: Callable[..., Agent], pki: Pki, inside: Callable[..., Inside]
) -> Callable[..., Inside]:
    """Start agents for a link; they stop at the end of the test."""

    def make(link: Link, roll: float = 0.02, limits: Limits | None = None) -> Inside:
        files = new_agent(THING, port=link.port, pair=pki.device(THING), ca=pki.ca)
        return inside(service, files, PahoTransport(link, lambda: roll, limits=limits or Limits()))

    return make


# --- the network --------------------------------------------------------------------------------------------------


class Proxy:
    """A port in front of another. What it does with a connection can be changed at any time.

    Attributes:
        mode: `forward`; `drop` carries nothing and closes nothing; for new connections also `garbage`, `http`,
            `silent`, `reset` and `close`, which answer in the place of the server.
        accepted: how many connections came.
    """

    SAYS: ClassVar = {"garbage": bytes(range(256)) * 2, "http": b"HTTP/1.1 400 Bad Request\r\n\r\n"}

    def __init__(self, target: int) -> None:
        self.mode = "forward"
        self.accepted = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        #: Each end to the other; None: there is none.
        self._ends: dict[socket.socket, socket.socket | None] = {}
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopped = True
        self._wake.send(b"!")
        self._thread.join()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def reset_all(self) -> None:
        """Reset every connection that there is."""
        self._order(self.reset)

    def change(self, mode: str) -> None:
        """Do something else from now on, with connections that there are, too."""

        def change() -> None:
            self.mode = mode

        self._order(change)

    def _order(self, what: Callable[[], None]) -> None:
        self._orders.put(what)
        self._wake.send(b"!")

    def reset(self) -> None:
        for sock in tuple(self._ends):
            self._close(sock, reset=True)

    def _work(self) -> None:
        while not self._stopped:
            watched = [self._listener, self._woken, *(() if self.mode == "drop" else self._ends)]
            ready, _, _ = select.select(watched, [], [])
            for sock in ready:
                if sock is self._woken:
                    sock.recv(1)
                    with contextlib.suppress(queue.Empty):
                        self._orders.get_nowait()()
                elif sock is self._listener:
                    self._take(sock.accept()[0])
                elif sock in self._ends:
                    self._carry(sock)
        self.reset()

    def _take(self, sock: socket.socket) -> None:
        self.accepted += 1
        if self.mode in self.SAYS or self.mode == "close":
            sock.recv(4096)  # What nobody read makes a reset of a close.
            sock.sendall(self.SAYS.get(self.mode, b""))
        self._ends[sock] = None
        if self.mode == "forward":
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except ConnectionError:
                self._close(sock)
            else:
                self._ends |= {sock: far, far: sock}
        elif self.mode in ("reset", "close"):
            self._close(sock, reset=self.mode == "reset")

    def _carry(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            other = self._ends[sock]
            if data and other is not None:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(sock)

    def _close(self, sock: socket.socket | None, *, reset: bool = False) -> None:
        while sock is not None and sock in self._ends:
            other = self._ends.pop(sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            sock = other


@pytest.fixture
def link(mosquitto: Mosquitto, pki: Pki) -> Link:
    certificate, key = pki.device(THING)
    return Link(
        "localhost",
        mosquitto.port,
        THING,
        THING,
        keep_alive=1,
        certificate=certificate,
        private_key=key,
        ca=pki.ca,
        patience=0.5,
    )


def serving(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> BrokerJobsService:
    """Put the Jobs service behind the broker."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    return BrokerJobsService(service, "localhost", mosquitto.port, tls=context)


@pytest.fixture
def served(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[None]:
    with serving(service, mosquitto, pki):
        yield


@pytest.fixture
def proxy(mosquitto: Mosquitto, served: None) -> Iterator[Proxy]:
    with Proxy(mosquitto.port) as proxy:
        yield proxy


# --- brokers that go away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True])
def test_a_broker_that_is_killed_and_started_again_neither_loses_nor_repeats_a_job(
    start: Callable[..., Inside],
    mosquitto: Mosquitto,
    service: JobsService,
    link: Link,
    log: Log,
    pki: Pki,
    persistent: bool,
) -> None:
    if persistent:
        mosquitto.stop()
        with (mosquitto.log.parent / "mosquitto.conf").open("a") as config:
            config.write(f"persistence_location {mosquitto.log.parent}/\nautosave_interval 1\n")
        text = (mosquitto.log.parent / "mosquitto.conf").read_text().replace("persistence false", "persistence true")
        (mosquitto.log.parent / "mosquitto.conf").write_text(text)
        mosquitto.start()
    with Proxy(mosquitto.port) as proxy:
        with serving(service, mosquitto, pki):
            agent = start(replace(link, port=proxy.port))
            job_id = agent.queue({"handler": "hold"})
            eventually((agent.folder / "ran").exists)
            mosquitto.kill()
            log.has("connection lost: ")
        (agent.folder / "go").touch()
        log.has("cannot connect: ", times=2)
        # The agent is let in again when the service is there: a request that nobody hears is repeated after 10 s.
        proxy.change("close")
        mosquitto.start()
        with serving(service, mosquitto, pki):
            proxy.change("forward")
            assert eventually(lambda: agent.over(job_id)).status == "SUCCEEDED"
            assert (agent.folder / "ran").read_text() == "ran\n"
            works(agent)


def test_a_broker_that_hangs_for_longer_than_keep_alive_is_left_and_used_again(
    start: Callable[..., Inside], mosquitto: Mosquitto, served: None, link: Link, log: Log
) -> None:
    agent = start(link)
    works(agent)
    mosquitto.pause()
    log.has(f"connection lost: localhost:{link.port} did not answer a ping")
    log.has(f"cannot connect: localhost:{link.port} does not answer within 0 s", times=2)
    used = processor_seconds(agent)
    mosquitto.resume()
    works(agent)
    assert used < 0.5


def test_a_network_that_drops_everything_silently_is_noticed_by_the_ping(
    start: Callable[..., Inside], proxy: Proxy, link: Link, log: Log
) -> None:
    agent = start(replace(link, port=proxy.port))
    works(agent)
    proxy.change("drop")
    job_id = agent.queue({"version": "1.0", "steps": [run("echo,hello")]})
    log.has(f"connection lost: localhost:{proxy.port} did not answer a ping")
    assert agent.over(job_id) is None
    proxy.change("forward")
    assert eventually(lambda: agent.over(job_id)).status == "SUCCEEDED"


def test_a_connection_that_is_reset_is_opened_again(
    start: Callable[..., Inside], proxy: Proxy, link: Link, log: Log
) -> None:
    agent = start(replace(link, port=proxy.port))
    works(agent)
    proxy.reset_all()
    log.has(f"connection lost: localhost:{proxy.port}: ")  # over TLS, Python calls a reset an end
    works(agent)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("garbage", "failed"),
        ("http", "is it a TLS port"),
        ("silent", "does not answer within"),
        ("reset", "Connection reset by peer"),
        ("close", "failed"),
    ],
)
def test_a_port_that_answers_nonsense_is_named_and_tried_at_growing_distances(
    start: Callable[..., Inside], proxy: Proxy, link: Link, log: Log, mode: str, words: str
) -> None:
    proxy.change(mode)
    began = time.monotonic()
    agent = start(replace(link, port=proxy.port, patience=0.1))
    for _ in range(4):
        line = log.has("cannot connect: ", times=4)
    took = time.monotonic() - began
    assert words in line
    assert f"localhost:{proxy.port}" in line
    assert took >= 0.04 + 0.08 + 0.16, "the waits before the second, third and fourth"
    assert processor_seconds(agent) < 0.5
    proxy.change("forward")
    works(agent)


def test_a_name_that_cannot_be_resolved_is_said_and_asked_for_again(
    start: Callable[..., Inside],
    mosquitto: Mosquitto,
    served: None,
    link: Link,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, down = socket.getaddrinfo, threading.Event()

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        if host == "localhost" and not down.is_set() and threading.current_thread().name == "mqtt":
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    agent = start(link)
    line = log.has("the name localhost cannot be resolved: Temporary failure", times=3)
    assert "check connection.endpoint and the DNS" in line
    down.set()
    works(agent)


def test_fifty_reconnects_leave_no_thread_and_no_descriptor_behind(
    start: Callable[..., Inside], proxy: Proxy, link: Link
) -> None:
    agent = start(replace(link, port=proxy.port), roll=0.0001)
    works(agent)
    before = held()
    used = processor_seconds(agent)
    for _ in range(50):
        accepted = proxy.accepted
        proxy.reset_all()
        eventually(lambda accepted=accepted: proxy.accepted > accepted and agent.connected)  # type: ignore[misc]
    assert processor_seconds(agent) - used < 3
    works(agent)
    eventually(lambda: held() <= before)


def held() -> tuple[int, int]:
    """Return how many threads and open descriptors there are."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


# --- a rival ------------------------------------------------------------------------------------------------------


def test_a_rival_with_our_client_id_is_suspected_and_neither_side_fights_at_full_speed(
    start: Callable[..., Inside], served: None, link: Link, log: Log
) -> None:
    """This Mosquitto does not say why it closes."""
    agent = start(link)
    works(agent)
    rival = PahoTransport(replace(link, thing=ThingName("pump-8")), lambda: 0.02)
    began = time.monotonic()
    rival.start(lambda _: None)
    try:
        line = log.has("connection lost: ", times=5)
        took = time.monotonic() - began
    finally:
        rival.stop()
    assert "is there another client pump-7?" in line
    assert took >= 0.04 + 0.08 + 0.16 + 0.32, "what lies between five fights"
    works(agent)


def test_a_rival_of_which_the_broker_tells_is_named_with_what_to_do(
    start: Callable[..., Inside], service: JobsService, log: Log, policy_broker: Callable[..., PolicyBroker]
) -> None:
    with policy_broker(service, 5) as broker:
        agent = start(broker.link)
        began = time.monotonic()
        for fights in range(1, 6):
            eventually(lambda fights=fights: broker.log.count("connect") == fights and agent.connected)  # type: ignore[misc]
            broker.end(0x8E)
            line = log.has("another client uses the id pump-7; give each its own (connection.client_id)", times=fights)
        assert time.monotonic() - began >= 0.04 + 0.08 + 0.16 + 0.32, "what lies between five fights"
        assert line.startswith(f"connection lost: {broker.link.address} ended the connection: Session taken over")
        works(agent)


# --- a broker with a policy, as AWS IoT enforces it ---------------------------------------------------------------


#: Numbers that a test can wait for.
HASTY = Limits(hold_first=1.0, hold_cap=1.0)
UPDATE = "$aws/things/pump-7/jobs/+/update"


@pytest.mark.parametrize(
    ("version", "says"),
    [
        pytest.param(5, True, id="mqtt5"),
        pytest.param(5, False, id="mqtt5-silent"),
        pytest.param(4, False, id="mqtt311"),
    ],
)
def test_a_publish_that_the_policy_denies_is_held_back_with_the_reason_until_it_is_allowed(
    start: Callable[..., Inside],
    service: JobsService,
    log: Log,
    version: int,
    says: bool,
    policy_broker: Callable[..., PolicyBroker],
) -> None:
    with policy_broker(service, version, says=says) as broker:
        broker.publish = "get|.*/get"
        agent = start(broker.link, limits=Limits())
        job_id = agent.queue({"version": "1.0", "steps": [run("echo,hello")]})
        line = log.has(f"3 connections ended right after a message to {UPDATE}")
        assert "does not allow iot:Publish on it; held back for " in line
        assert f"does the policy allow iot:Publish on {UPDATE}?" in log.has("connection lost: ", times=3)
        eventually(lambda: agent.connected)
        assert broker.denied(f"publish {job_id}/update") == 3

        # The head is still asked for, and answered, and the connection stays.
        agent.transport.renew()
        eventually(lambda: broker.log[-1] == "connect" and agent.connected)
        time_of_hold = agent.transport._history.denials["+/update"].hold
        assert time_of_hold > 30
        assert broker.denied(f"publish {job_id}/update") == 3
        assert agent.over(job_id) is None


@VERSIONS
def test_what_was_denied_goes_through_once_the_policy_allows_it(
    start: Callable[..., Inside],
    service: JobsService,
    log: Log,
    version: int,
    policy_broker: Callable[..., PolicyBroker],
) -> None:
    with policy_broker(service, version) as broker:
        broker.publish = "get|.*/get"
        agent = start(broker.link, limits=HASTY)
        job_id = agent.queue({"version": "1.0", "steps": [run("echo,hello")]})
        log.has(f"connections ended right after a message to {UPDATE}")
        broker.publish = ".*"
        eventually(lambda: not agent.transport._history.holds("+/update", time.monotonic()))
        agent.transport.renew()  # the daemon would claim again when its own wait is over; so it does at once
        assert eventually(lambda: agent.over(job_id)).status == "SUCCEEDED"
        log.has(f"messages to {UPDATE} are accepted again")
        works(agent)
        assert not agent.transport._history.denials


def test_without_leave_to_ask_for_the_head_of_the_queue_jobs_still_come_by_notification(
    start: Callable[..., Inside], service: JobsService, log: Log, policy_broker: Callable[..., PolicyBroker]
) -> None:
    with policy_broker(service, 5) as broker:
        broker.publish = "get|(?!\\$next).*"
        agent = start(broker.link)
        log.has("3 connections ended right after a message to $aws/things/pump-7/jobs/$next/get")
        log.has("connection lost: ", times=3)
        eventually(lambda: agent.connected)
        works(agent)
        assert broker.denied("publish $next/get") == 3


@VERSIONS
def test_a_subscription_on_which_the_broker_closes_is_found_and_named(
    start: Callable[..., Inside],
    service: JobsService,
    log: Log,
    version: int,
    policy_broker: Callable[..., PolicyBroker],
) -> None:
    with policy_broker(service, version) as broker:
        broker.subscribe = "(?!notify-next).*"
        agent = start(broker.link)
        named = "does the policy allow iot:Subscribe on $aws/things/pump-7/jobs/notify-next?"
        log.has(named)
        assert len(log.lines("cannot connect: ")) == 3, "it takes two to see that it is no accident"
        broker.subscribe = ".*"
        works(agent)


def test_a_publish_that_is_refused_by_a_reason_code_is_named_and_the_connection_stays(
    start: Callable[..., Inside], mosquitto: Mosquitto, served: None, link: Link, log: Log
) -> None:
    """So does Mosquitto with MQTT 5, and AWS IoT may."""
    acl = mosquitto.log.parent / "acl"
    rules = ["user cloud", "topic readwrite $aws/#", f"user {THING}", "topic read $aws/#", ""]
    acl.write_text("\n".join(rules))
    config = mosquitto.log.parent / "mosquitto.conf"
    before = config.read_text()
    config.write_text(f"{before}acl_file {acl}\n")
    mosquitto.stop()
    mosquitto.start()
    agent = start(link)
    line = log.has("the broker refused a request: Not authorized")
    assert "does the policy allow iot:Publish on $aws/things/pump-7/jobs/$next/get?" in line
    assert agent.connected, "a broker that says no is not left"
    mosquitto.stop()
    config.write_text(before)
    mosquitto.start()
    works(agent)


@pytest.fixture
def plugin(require: Require) -> Path:
    """Find the plugin for dynamic security: Mosquitto's ACL file never refuses a subscription, this does."""
    name = "mosquitto_dynamic_security.so"
    found = [path for folder in ("/usr/lib", "/usr/local/lib") for path in Path(folder).glob(f"**/{name}")]
    return found[0] if found else Path(require(name))


@VERSIONS
def test_a_subscription_that_is_refused_by_a_reason_code_is_named_and_asked_for_again(
    start: Callable[..., Inside], plugin: Path, mosquitto: Mosquitto, link: Link, pki: Pki, log: Log, version: int
) -> None:
    denied = "$aws/things/pump-7/jobs/notify-next"
    role = {"rolename": "device", "acls": [{"acltype": "subscribeLiteral", "topic": denied, "allow": False}]}
    allowed = dict.fromkeys(["publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"], True)
    clients = [{"username": THING, "roles": [{"rolename": "device"}]}, {"username": "cloud"}]
    rules = mosquitto.log.parent / "rules.json"
    rules.write_text(json.dumps({"defaultACLAccess": allowed, "clients": clients, "roles": [role]}))
    config = mosquitto.log.parent / "mosquitto.conf"
    before = config.read_text()
    mosquitto.stop()
    config.write_text(f"{before}plugin {plugin}\nplugin_opt_config_file {rules}\n")
    mosquitto.start()
    agent = start(replace(link, version=version))
    line = log.has("cannot connect: ", times=3)
    assert (
        line == f"cannot connect: the broker refused to let us subscribe to {denied}: check the policy (iot:Subscribe)"
    )
    mosquitto.stop()
    config.write_text(before)
    agent.transport.renew()
    log.has("Connection refused")
    mosquitto.start()
    with serving(agent.service, mosquitto, pki):
        works(agent)


def test_a_policy_without_receive_is_suspected_when_nothing_is_ever_answered(
    start: Callable[..., Inside], service: JobsService, log: Log, policy_broker: Callable[..., PolicyBroker]
) -> None:
    """The daemon asks for a new connection after three requests without an answer, half a minute; here we do."""
    with policy_broker(service, 5) as broker:
        broker.receive = False
        agent = start(broker.link)
        waits = []
        for number in range(1, 5):
            eventually(lambda: agent.connected)
            # Asked, and taken by the broker.
            eventually(lambda: (one := agent.transport._session) and one._course._asks and not one._course._sent)
            agent.transport.renew()
            line = log.has("does the policy allow iot:Receive on $aws/things/pump-7/jobs/*?", times=number)
            eventually(lambda number=number: agent.transport._history.tries == number)  # type: ignore[misc]
            waits.append(agent.transport._history.wait)
        assert "requests and answered none" in line
        assert waits == pytest.approx([0.04, 0.08, 0.16, 0.32])
        broker.receive = True
        works(agent)
