"""One contract, every transport: what `thingjobs.ports.Transport` promises, tested over each way to the service.

A transport joins by a `Harness` of its own and a line in `WAYS`. What the nature of a way rules out, its harness says
in `lacks`, with the reason: a test that needs that (`@pytest.mark.needs("PUSH")`) is not run over it, and a test of
its own keeps the list.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from thingjobs.jobs import Connected, Disconnected, GetPending, ListChanged, NextChanged, Refusal
from thingjobs.model import ThingName
from thingjobs.testing import JobsService, Lost, Message
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.memory import MemoryTransport
from thingjobs.testing.web import WebJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site
from thingjobs.transport.local import LocalTransport
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Device

    from thingjobs.ports import Transport
    from thingjobs.testing import Request

THING = ThingName("pump-7")
DOCUMENT = {"handler": "greet"}
PATIENCE_SECONDS = 20.0


class Trait(Enum):
    """What a test may need of a way to the service."""

    SERVER = auto()  # a server that can go away, hang, and come back
    PUSH = auto()  # the service says things that nobody asked for
    TOKENS = auto()  # replies are messages of their own, which may be late, doubled, untokened or on a wrong topic
    NOTICE = auto()  # a lost connection is noticed though nothing is sent


class Harness:
    """A service, and transports to it."""

    lacks: ClassVar[dict[Trait, str]] = {}
    #: Whether something of its server is in this very process, where it comes and goes.
    in_process: ClassVar = False
    #: Whether a transport holds threads and descriptors.
    has_threads: ClassVar = True
    #: Codes that are told as others, because this API has no word of its own for them.
    told_as: ClassVar[dict[Refusal, Refusal]] = {}
    service: JobsService

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.service = JobsService()

    @classmethod
    def has(cls, trait: Trait) -> bool:
        return trait not in cls.lacks

    def new_transport(self) -> Transport:
        """Return a transport that was not started yet."""
        raise NotImplementedError

    def say(self, suffix: str, payload: bytes | dict[str, Any]) -> None:
        """Have the service tell the thing something of itself, out of turn."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.deliver(Message(THING, suffix, raw))

    def deliver(self, message: Message) -> None:
        raise NotImplementedError

    def queue(self, line: Device[Transport], *job_ids: str, document: object = None) -> None:
        """Queue jobs, and have the line skip what is said about them."""
        for number, job_id in enumerate(job_ids):
            self.service.create_job(job_id, DOCUMENT if document is None else document, [THING])
            if self.has(Trait.PUSH):
                line.next(ListChanged)
                if number == 0:
                    line.next(NextChanged)

    @contextlib.contextmanager
    def unanswered(self, line: Device[Transport]) -> Iterator[Callable[..., None]]:
        """Have the service answer nothing, so that a test can; give what sends requests and waits until they came."""
        came: queue.SimpleQueue[Request] = queue.SimpleQueue()

        def lose(request: Request) -> Lost:
            came.put(request)
            return Lost.REPLY

        def ask(*requests: Any) -> None:
            for request in requests:
                line.send(request)
            for _ in requests:
                came.get(timeout=PATIENCE_SECONDS)

        remove = self.service.interpose(lose)
        yield ask
        remove()

    def close(self) -> None:
        pass


class Remote(Harness):
    """A service on a server that can go away, hang, and come back."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._pki: Pki = request.getfixturevalue("pki")
        self._pair = self._pki.device(THING)
        #: The dice of the transports: how much of a wait they wait.
        self.roll: Callable[[], float] = lambda: 0.02

    def new_transport(self) -> Transport:
        return self.new_transport_to(self.port)

    def _roll(self) -> float:
        return self.roll()

    @property
    def port(self) -> int:
        raise NotImplementedError

    def new_transport_to(self, port: int) -> Transport:
        """Return a transport that will try another server."""
        raise NotImplementedError

    def link_to(self, port: int, **more: Any) -> Link:
        certificate, key = self._pair
        return Link("localhost", port, THING, THING, 300, certificate, key, self._pki.ca, **more)

    def go_away(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def hang(self) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        raise NotImplementedError

    def lose(self, line: Device[Transport]) -> str:
        """Have the server go away; return how that was told."""
        self.go_away()
        if not self.has(Trait.NOTICE):
            line.send(GetPending("is-anybody-there"))
        return line.next(Disconnected).reason


class InMemory(Harness):
    """The simulated service, an object of the same process."""

    has_threads: ClassVar = False
    lacks: ClassVar = {
        Trait.SERVER: "the service is an object of the same process",
        Trait.NOTICE: "there is no connection to lose",
    }

    def new_transport(self) -> Transport:
        self._transport = MemoryTransport(self.service, THING)
        return self._transport

    def deliver(self, message: Message) -> None:
        self._transport._hear(message)


class LocalFolder(InMemory):
    """`thingjobs run --local`: the embedded service; here its jobs do not come from files."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._folder: Path = request.getfixturevalue("tmp_path")

    def new_transport(self) -> Transport:
        self._transport = LocalTransport(self._folder, self._folder / "kept", THING)
        self.service = self._transport.service
        return self._transport


class Brokered(Remote):
    """A Mosquitto with mutual TLS, the service on the other side of it."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
        self._tls = self._pki.client_tls()
        self._serve()

    @property
    def port(self) -> int:
        return self._mosquitto.port

    def deliver(self, message: Message) -> None:
        self._served._publish(message)

    def go_away(self) -> None:
        self._served.stop()
        self._mosquitto.kill()

    def come_back(self) -> None:
        self._mosquitto.start()
        self._serve()

    def hang(self) -> None:
        self._mosquitto.pause()

    def go_on(self) -> None:
        self._mosquitto.resume()

    def close(self) -> None:
        self._served.stop()
        self._mosquitto.kill()

    def _serve(self) -> None:
        self._served = BrokerJobsService(self.service, "localhost", self._mosquitto.port, tls=self._tls)
        self._served.start(PATIENCE_SECONDS)


class PahoMqtt5(Brokered):
    """paho, MQTT 5."""

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port), self._roll)


class PahoMqtt311(Brokered):
    """paho, MQTT 3.1.1."""

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port, version=4), self._roll)


class PahoWebSocket(Brokered):
    """paho in a WebSocket: another listener of the same Mosquitto; the certificate is shown there, too.

    Mosquitto 2.0 looks after its WebSockets only when something else happens, or ten times a second: 4 KiB each time.
    So something else happens all the time.
    """

    in_process: ClassVar = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        broker: Mosquitto = request.getfixturevalue("mosquitto")
        self._port = broker.listen_for_websockets(mutual=True)
        super().__init__(request)
        self._over = threading.Event()
        self._waker = threading.Thread(target=self._wake)
        self._waker.start()

    @property
    def port(self) -> int:
        return self._port

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port, websocket=True), self._roll)

    def close(self) -> None:
        self._over.set()
        self._waker.join()
        super().close()

    def _wake(self) -> None:
        while not self._over.wait(0.005):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._mosquitto.port), 0.1).close()


class AwsIot(Brokered):
    """awsiotsdk, MQTT 5."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("require")("awscrt")
        super().__init__(request)

    def new_transport_to(self, port: int) -> Transport:
        return AwsIotTransport(self.link_to(port), self._roll)


class Https(Remote):
    """requests, and the service as a web server."""

    in_process: ClassVar = True
    lacks: ClassVar = {
        Trait.PUSH: "nobody notifies over HTTPS: it is polled",
        Trait.TOKENS: "a reply comes on the connection of its request, so it needs no token and cannot be another's",
        Trait.NOTICE: "between two requests there is nothing to be lost: it shows at the next one",
    }
    told_as: ClassVar = {
        Refusal.INVALID_JSON: Refusal.INVALID_REQUEST,
        Refusal.INVALID_TOPIC: Refusal.INVALID_REQUEST,
        Refusal.VERSION_MISMATCH: Refusal.INVALID_STATE_TRANSITION,
    }

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.web = WebJobsService(self.service, tls=self._pki.server_tls())
        self.web.start()
        self._going = threading.Event()
        self._going.set()
        self.web.interpose(self._wait)

    @property
    def port(self) -> int:
        return self.web.port

    def new_transport_to(self, port: int) -> Transport:
        return HttpsTransport(Site(self.link_to(port)), self._roll, polls=Polls(3600.0, 3600.0))

    def go_away(self) -> None:
        self.web.stop()

    def come_back(self) -> None:
        self.web.start()

    def hang(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def close(self) -> None:
        self._going.set()
        self.web.stop()

    def _wait(self, _call: object) -> None:
        self._going.wait(PATIENCE_SECONDS)


WAYS: dict[str, type[Harness]] = {
    "memory": InMemory,
    "local": LocalFolder,
    "paho-mqtt5": PahoMqtt5,
    "paho-mqtt311": PahoMqtt311,
    "paho-websocket": PahoWebSocket,
    "awsiot": AwsIot,
    "https": Https,
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*traits): run over each way to the service that has all of these")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over the ways that have what it needs, unless it says itself over which."""
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "harness" not in metafunc.fixturenames or "harness" in given:
        return
    needs = [Trait[name] for mark in metafunc.definition.iter_markers("needs") for name in mark.args]
    ways = [
        pytest.param(name, marks=[pytest.mark.server] if issubclass(way, Brokered) else [])
        for name, way in WAYS.items()
        if all(way.has(trait) for trait in needs)
    ]
    metafunc.parametrize("harness", ways, indirect=True)


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """One way to the service."""
    made = WAYS[request.param](request)
    yield made
    made.close()


@pytest.fixture
def ways() -> dict[str, type[Harness]]:
    """All ways to the service."""
    return WAYS


@pytest.fixture
def device(harness: Harness, new_device: Callable[[Transport], Device[Transport]]) -> Device[Transport]:
    """A transport that was not started yet."""
    return new_device(harness.new_transport())


@pytest.fixture
def connect(harness: Harness, new_device: Callable[[Transport], Device[Transport]]) -> Callable[[], Device[Transport]]:
    """Makes transports that are connected."""

    def make() -> Device[Transport]:
        line = new_device(harness.new_transport()).start()
        line.skip_to(Connected)
        return line

    return make


@pytest.fixture
def line(connect: Callable[[], Device[Transport]]) -> Device[Transport]:
    """A transport that is connected."""
    return connect()


@pytest.fixture
def left(harness: Harness, held: Callable[[], set[object]]) -> Callable[[set[object]], set[object]]:
    """Gives what is held more than before; what a server in this very process holds is waited for, until it lets go."""

    def more_than(before: set[object]) -> set[object]:
        end = time.monotonic() + (PATIENCE_SECONDS if harness.in_process else 0)
        while (more := held() - before) and time.monotonic() < end:
            time.sleep(0.01)
        return more

    return more_than
