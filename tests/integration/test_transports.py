"""One contract, every transport: what `thingjobs.ports.Transport` promises, tested over each way to the service.

A transport joins by a `Harness` of its own and a line in `WAYS`. What the nature of a way rules out, its harness says
in `lacks`, with the reason: a test that needs that is not run over it, and a test of its own keeps the list.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
import time
from enum import Enum, auto
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import pytest

from thingjobs.jobs import (
    RENEWED,
    Connected,
    Describe,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    Incoming,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    State,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import JobsService, Lost, Message, Refuse
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.memory import MemoryTransport
from thingjobs.testing.web import Answer, WebJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site
from thingjobs.transport.local import LocalTransport
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki

    from thingjobs.ports import Transport
    from thingjobs.testing import Request

THING = ThingName("pump-7")
DOCUMENT = {"handler": "greet"}
PATIENCE_SECONDS = 20.0
#: A call that does not wait for anything takes less.
AT_ONCE_SECONDS = 1.0

Kind = TypeVar("Kind", bound=Incoming)


# --- the two ends -------------------------------------------------------------------------------------------------


class Inbox:
    """What a transport put, in the order in which it did."""

    def __init__(self) -> None:
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self.history: list[Incoming] = []

    def put(self, incoming: Incoming) -> None:
        self.history.append(incoming)
        self._put.put(incoming)

    def next(self, kind: type[Kind]) -> Kind:
        """Return what came next; it has to be of that kind."""
        came = self._put.get(timeout=PATIENCE_SECONDS)
        assert isinstance(came, kind), f"{came} came instead of a {kind.__name__}"
        return came

    def skip_to(self, kind: type[Kind]) -> Kind:
        """Return the next that is of that kind."""
        while not isinstance(came := self._put.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def empty(self) -> bool:
        return self._put.empty()


class Trait(Enum):
    """What a test may need of a way to the service."""

    SERVER = auto()  # a server that can go away, hang, and come back
    PUSH = auto()  # the service says things that nobody asked for
    TOKENS = auto()  # replies are messages of their own, which may be late, doubled, untokened or on a wrong topic
    NOTICE = auto()  # a lost connection is noticed though nothing is sent


class Harness:
    """A service, and transports to it."""

    lacks: ClassVar[dict[Trait, str]] = {}
    #: Codes that are told as others, because this API has no word of its own for them.
    told_as: ClassVar[dict[Refusal, Refusal]] = {}
    service: JobsService

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

    def close(self) -> None:
        pass


class Remote(Harness):
    """A service on a server that can go away, hang, and come back."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._pki: Pki = request.getfixturevalue("pki")
        self._pair = self._pki.device(THING)
        self.service = JobsService()

    def new_transport(self) -> Transport:
        return self.new_transport_to(self.port)

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


class InMemory(Harness):
    """The simulated service, in the same process."""

    lacks: ClassVar = {
        Trait.SERVER: "the service is an object of the same process",
        Trait.NOTICE: "there is no connection to lose",
    }

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.service = JobsService()

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
        self._tls = ssl.create_default_context(cafile=str(self._pki.ca))
        self._tls.load_cert_chain(*self._pki.device("cloud"))
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
        self._mosquitto.kill()  # an orderly end takes it a fifth of a second, each time

    def _serve(self) -> None:
        self._served = BrokerJobsService(self.service, "localhost", self._mosquitto.port, tls=self._tls)
        self._served.start()


class PahoMqtt5(Brokered):
    """paho, MQTT 5."""

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port), lambda: 0.02)


class PahoMqtt311(Brokered):
    """paho, MQTT 3.1.1."""

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port, version=4), lambda: 0.02)


class PahoWebSocket(Brokered):
    """paho in a WebSocket: another listener of the same Mosquitto; the certificate is shown there, too."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        broker: Mosquitto = request.getfixturevalue("mosquitto")
        broker.kill()
        config = broker.log.parent / "mosquitto.conf"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = int(listener.getsockname()[1])
        # The files and rules of the other listener.
        rules = [line for line in config.read_text().splitlines() if line.split()[0] in LISTENING]
        with config.open("a") as file:
            file.write("\n".join([f"listener {self._port} 127.0.0.1", "protocol websockets", *rules, ""]))
        broker.start()
        super().__init__(request)

    @property
    def port(self) -> int:
        return self._port

    def new_transport_to(self, port: int) -> Transport:
        return PahoTransport(self.link_to(port, websocket=True), lambda: 0.02)


LISTENING = ("cafile", "certfile", "keyfile", "require_certificate", "use_identity_as_username")


class AwsIot(Brokered):
    """awsiotsdk, MQTT 5."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("require")("awscrt")
        super().__init__(request)

    def new_transport_to(self, port: int) -> Transport:
        return AwsIotTransport(self.link_to(port), lambda: 0.02)


class Https(Remote):
    """requests, and the service as a web server."""

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
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._pki.ca))
        tls.load_cert_chain(self._pki.server_cert, self._pki.server_key)
        tls.verify_mode = ssl.CERT_REQUIRED
        self._web = WebJobsService(self.service, tls=tls)
        self._web.start()
        self._going = threading.Event()
        self._going.set()
        self._web.interpose(self._wait)

    @property
    def port(self) -> int:
        return self._web.port

    def new_transport_to(self, port: int) -> Transport:
        return HttpsTransport(Site(self.link_to(port)), lambda: 0.02, polls=Polls(3600.0, 3600.0))

    def go_away(self) -> None:
        self._web.stop()

    def come_back(self) -> None:
        self._web.start()

    def hang(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def close(self) -> None:
        self._going.set()
        self._web.stop()

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


def over(*traits: Trait) -> list[Any]:
    """Return the ways that have all of these."""
    return [
        pytest.param(way, id=name, marks=[pytest.mark.server] if issubclass(way, Brokered) else [])
        for name, way in WAYS.items()
        if all(way.has(trait) for trait in traits)
    ]


remote = pytest.mark.parametrize("harness", over(Trait.SERVER), indirect=True)
pushed = pytest.mark.parametrize("harness", over(Trait.PUSH), indirect=True)
tokened = pytest.mark.parametrize("harness", over(Trait.TOKENS), indirect=True)


@pytest.fixture(params=over())
def harness(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Harness = request.param(request)
    yield made
    made.close()


def test_each_way_says_what_it_lacks() -> None:
    missing = {name: {trait.name for trait in way.lacks} for name, way in WAYS.items() if way.lacks}
    assert missing == {
        "memory": {"SERVER", "NOTICE"},
        "local": {"SERVER", "NOTICE"},
        "https": {"PUSH", "TOKENS", "NOTICE"},
    }
    assert all(reason for way in WAYS.values() for reason in way.lacks.values())


class Line:
    """A transport that is connected, and what it put since."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.inbox = Inbox()
        self._tokens = 0

    def __enter__(self) -> Self:
        self.transport.start(self.inbox.put)
        self.inbox.skip_to(Connected)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.transport.stop()

    def works(self) -> None:
        """Ask something: nothing but its answer comes."""
        self._tokens += 1
        token = f"works-{self._tokens}"
        self.transport.send(GetPending(token))
        assert self.inbox.next(Pending).token == token


@pytest.fixture
def line(harness: Harness) -> Iterator[Line]:
    with Line(harness.new_transport()) as connected:
        yield connected


def update(token: str, job_id: str, version: int = 1, status: Status = Status.IN_PROGRESS, **more: Any) -> Update:
    """Return an update of the first execution of a job."""
    return Update(token, JobId(job_id), 1, version, status, **{"details": {}, **more})


def queue_quietly(harness: Harness, line: Line, *job_ids: str, document: object = None) -> None:
    """Queue jobs, and take out of the inbox what is said about them."""
    for number, job_id in enumerate(job_ids):
        harness.service.create_job(job_id, DOCUMENT if document is None else document, [THING])
        if harness.has(Trait.PUSH):
            line.inbox.next(ListChanged)
            if number == 0:
                line.inbox.next(NextChanged)


def lose(harness: Remote, line: Line) -> str:
    """Have the server go away; return how that was told."""
    harness.go_away()
    if not harness.has(Trait.NOTICE):
        line.transport.send(GetPending("is-anybody-there"))
    return line.inbox.next(Disconnected).reason


def refuse(code: str, message: str, _request: Request) -> Refuse:
    return Refuse(code, message)


@contextlib.contextmanager
def unanswered(harness: Harness, line: Line) -> Iterator[Callable[..., None]]:
    """Have the service answer nothing, so that the test can; give what sends requests and waits until they came."""
    came: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def lose(request: Request) -> Lost:
        came.put(request)
        return Lost.REPLY

    def ask(*requests: Any) -> None:
        for request in requests:
            line.transport.send(request)
        for _ in requests:
            came.get(timeout=PATIENCE_SECONDS)

    remove = harness.service.interpose(lose)
    yield ask
    remove()


@contextlib.contextmanager
def silent_server() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        yield listener


def held() -> set[object]:
    """Return the threads of this process and its open descriptors."""
    found: set[object] = set(threading.enumerate())
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found.add((entry.name, str(entry.readlink())))
    return found


def left(harness: Harness, before: set[object]) -> set[object]:
    """Return what is held more than before. A server in this very process may notice only soon that it is over."""
    end = time.monotonic() + (PATIENCE_SECONDS if isinstance(harness, Https) else 0)
    while (more := held() - before) and time.monotonic() < end:
        time.sleep(0.01)
    return more


# --- requests and replies -----------------------------------------------------------------------------------------


def test_each_kind_of_request_gets_its_typed_reply_with_its_own_token(harness: Harness, line: Line) -> None:
    send, inbox = line.transport.send, line.inbox
    queue_quietly(harness, line, "greet")

    send(GetPending("t1"))
    pending = inbox.next(Pending)
    assert pending.token == "t1"
    assert [summary.identity.job_id for summary in pending.queued] == ["greet"]
    assert pending.in_progress == ()

    send(DescribeNext("t2"))
    described = inbox.next(Described)
    assert described.token == "t2"
    assert described.execution is not None
    assert described.execution.document == DOCUMENT

    send(Describe("t3", JobId("greet"), 1))
    described = inbox.next(Described)
    assert described.token == "t3"
    assert described.execution is not None
    assert described.execution.document is None

    send(update("t4", "greet", step_timeout_minutes=15, with_document=True, details={"claim": "c"}))
    assert inbox.next(Updated) == Updated("t4", State(Status.IN_PROGRESS, 2, {"claim": "c"}), DOCUMENT)


def test_with_nothing_pending_the_next_is_none_and_the_list_is_empty(line: Line) -> None:
    line.transport.send(DescribeNext("t1"))
    assert line.inbox.next(Described) == Described("t1", None)
    line.transport.send(GetPending("t2"))
    assert line.inbox.next(Pending) == Pending("t2", (), ())


@tokened
def test_two_open_requests_on_one_topic_are_told_apart_by_token(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(GetPending("first"), GetPending("second"))
        for token in ("second", "first"):
            harness.say("get/accepted", {"clientToken": token, "inProgressJobs": [], "queuedJobs": []})
        assert [line.inbox.next(Pending).token, line.inbox.next(Pending).token] == ["second", "first"]
    line.works()


@tokened
def test_late_and_duplicate_replies_are_dropped(harness: Harness, line: Line) -> None:
    line.transport.send(GetPending("once"))
    line.inbox.next(Pending)
    harness.say("get/accepted", {"clientToken": "once", "queuedJobs": []})
    harness.say("get/accepted", {"clientToken": "of-long-ago", "queuedJobs": []})
    harness.say("get/rejected", {"clientToken": "once", "code": "InternalError"})
    line.works()


@tokened
def test_a_reply_on_the_topic_of_another_request_answers_nothing(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(DescribeNext("mine"))
        harness.say("get/accepted", {"clientToken": "mine", "queuedJobs": []})
        harness.say("greet/get/accepted", {"clientToken": "mine"})
        harness.say("$next/get/accepted", {"clientToken": "mine"})
        assert line.inbox.next(Described) == Described("mine", None)
    line.works()


@tokened
def test_a_reply_without_a_token_is_for_the_one_request_that_is_open(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(update("only", "greet"))
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "unexpected end"})
        refused = line.inbox.next(Refused)
        assert (refused.token, refused.code, refused.message) == ("only", Refusal.INVALID_JSON, "unexpected end")
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "again"})
    line.works()


@tokened
def test_a_reply_without_a_token_is_dropped_when_it_could_be_for_two(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(update("one", "greet"), update("two", "greet"))
        harness.say("greet/update/rejected", {"code": "InvalidJson"})
        harness.say("greet/update/accepted", {"clientToken": "one"})
        assert line.inbox.next(Updated).token == "one"
    line.works()


def test_a_refusal_carries_code_message_and_what_is_stored(harness: Harness, line: Line) -> None:
    queue_quietly(harness, line, "greet")
    line.transport.send(update("t1", "greet", version=7))
    refused = line.inbox.next(Refused)
    assert (refused.token, refused.code) == ("t1", Refusal.VERSION_MISMATCH)
    assert "7" in refused.message
    assert refused.state == State(Status.QUEUED, 1, {})

    line.transport.send(Describe("t2", JobId("no-such-job"), 1))
    refused = line.inbox.next(Refused)
    assert (refused.token, refused.code, refused.state) == ("t2", Refusal.RESOURCE_NOT_FOUND, None)


def test_each_code_of_the_api_is_told_by_its_name(harness: Harness, line: Line) -> None:
    for code in set(Refusal) - {Refusal.UNKNOWN}:
        remove = harness.service.interpose(partial(refuse, code.value, "because"))
        line.transport.send(GetPending(code.value))
        refused = line.inbox.next(Refused)
        assert (refused.token, refused.code) == (code.value, harness.told_as.get(code, code))
        assert (refused.message, refused.state) == ("because", None)
        remove()


def test_a_throttled_request_is_told_and_the_connection_goes_on(harness: Harness, line: Line) -> None:
    remove = harness.service.interpose(partial(refuse, "RequestThrottled", "slow down"))
    for number in range(5):
        line.transport.send(GetPending(f"t{number}"))
    refused = [line.inbox.next(Refused) for _ in range(5)]
    assert {(one.token, one.code) for one in refused} == {(f"t{n}", Refusal.REQUEST_THROTTLED) for n in range(5)}
    remove()
    line.works()


def test_a_code_that_nobody_knows_is_unknown_and_kept_as_it_stood(harness: Harness, line: Line) -> None:
    remove = harness.service.interpose(partial(refuse, "SomethingNew", "not today"))
    line.transport.send(GetPending("t1"))
    assert line.inbox.next(Refused) == Refused("t1", Refusal.UNKNOWN, "not today", None, "SomethingNew")
    remove()
    line.works()


def test_requests_of_many_threads_each_get_their_own_reply(line: Line) -> None:
    def ask(thread: int) -> None:
        for number in range(6):
            line.transport.send(Describe(f"{thread}-{number}", JobId(f"job-{thread % 3}"), 1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = {line.inbox.next(Refused).token for _ in range(48)}
    assert tokens == {f"{thread}-{number}" for thread in range(8) for number in range(6)}
    line.works()


# --- notifications ------------------------------------------------------------------------------------------------


@pushed
def test_notifications_are_typed_and_come_in_order(harness: Harness, line: Line) -> None:
    inbox = line.inbox
    harness.service.create_job("a", DOCUMENT, [THING])
    assert [summary.identity.job_id for summary in inbox.next(ListChanged).queued] == ["a"]
    head = inbox.next(NextChanged).execution
    assert head is not None
    assert (head.identity.job_id, head.status, head.version) == ("a", Status.QUEUED, 1)
    assert head.document == DOCUMENT

    harness.service.create_job("b", {}, [THING])
    assert [summary.identity.job_id for summary in inbox.next(ListChanged).queued] == ["a", "b"]

    line.transport.send(update("t1", "a"))
    inbox.next(Updated)
    line.transport.send(update("t2", "a", 2, Status.SUCCEEDED))
    inbox.next(Updated)
    assert [summary.identity.job_id for summary in inbox.next(ListChanged).queued] == ["b"]
    head = inbox.next(NextChanged).execution
    assert head is not None
    assert head.identity.job_id == "b"


@pushed
def test_an_empty_queue_is_told_as_a_next_that_is_none(harness: Harness, line: Line) -> None:
    queue_quietly(harness, line, "greet")
    harness.service.cancel_job("greet")
    assert line.inbox.next(ListChanged) == ListChanged((), ())
    assert line.inbox.next(NextChanged) == NextChanged(None)


@pushed
def test_what_another_thing_is_told_is_not_put(harness: Harness, line: Line) -> None:
    harness.service.create_job("theirs", {}, ["pump-8"])
    harness.deliver(Message("pump-8", "notify-next", b'{"timestamp":1}'))
    line.works()


# --- sizes and nonsense -------------------------------------------------------------------------------------------


def test_a_document_of_32_kilobytes_arrives_whole(harness: Harness, line: Line) -> None:
    document: dict[str, Any] = {"handler": "measure", "name": "Grüße aus 東京 🚀", "blob": ""}
    document["blob"] = "x" * (32_768 - len(json.dumps(document, ensure_ascii=False)))
    queue_quietly(harness, line, "large", document=document)
    line.transport.send(DescribeNext("t1"))
    execution = line.inbox.next(Described).execution
    assert execution is not None
    assert execution.document == document
    line.transport.send(update("t2", "large", with_document=True))
    assert line.inbox.next(Updated).document == document


@pushed
def test_a_notification_with_a_document_of_32_kilobytes_arrives_whole(harness: Harness, line: Line) -> None:
    document = {"handler": "measure", "blob": "x" * 32_000}
    harness.service.create_job("large", document, [THING])
    line.inbox.next(ListChanged)
    head = line.inbox.next(NextChanged).execution
    assert head is not None
    assert head.document == document


@tokened
def test_a_message_beyond_128_kilobytes_is_left_out_and_the_connection_lives(harness: Harness, line: Line) -> None:
    harness.say("notify-next", {"timestamp": 1, "padding": "x" * 128 * 1024})
    with unanswered(harness, line) as ask:
        ask(GetPending("t1"))
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": [], "padding": "x" * 128 * 1024})
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": []})
        assert line.inbox.next(Pending).token == "t1"
    line.works()


@pytest.mark.parametrize("harness", [pytest.param(Https, id="https")], indirect=True)
def test_over_https_an_answer_that_is_far_too_large_is_no_reply_and_the_next_one_is(harness: Https, line: Line) -> None:
    remove = harness._web.interpose(lambda _call: Answer(200, b'{"queuedJobs":[]}' + b" " * 1024 * 1024))
    line.transport.send(GetPending("t1"))
    reason = line.inbox.next(Disconnected).reason  # what was not read yet stands in the way of the next answer
    assert "larger than 512 KiB" in reason
    remove()
    line.inbox.skip_to(Connected)
    line.works()


def test_a_request_beyond_128_kilobytes_gets_no_reply_and_the_connection_lives(harness: Harness, line: Line) -> None:
    queue_quietly(harness, line, "greet")
    before = len(harness.service.requests)
    line.transport.send(update("t1", "greet", details={"stdout": "x" * 128 * 1024}))
    line.works()
    assert harness.service.execution(THING, "greet").version == 1
    assert [request.suffix for request in harness.service.requests[before:]] == ["get"]


EXECUTION = {"jobId": "a", "status": "QUEUED", "queuedAt": 1, "versionNumber": 1, "executionNumber": 1}
MALFORMED = [
    ("notify-next", b""),
    ("notify-next", b"\xff\xfe\x00"),
    ("notify-next", b'{"execution":'),
    ("notify-next", b"[1, 2]"),
    ("notify-next", b"null"),
    ("notify-next", b'{"execution": 7}'),
    ("notify-next", b'{"execution": {"jobId": "a"}}'),
    ("notify-next", b'{"timestamp": NaN}'),
    ("notify-next", b"[" * 100_000),
    *(
        ("notify-next", json.dumps({"execution": {**EXECUTION, **wrong}}).encode())
        for wrong in (
            {"status": "PENDING"},
            {"jobId": "../../etc"},
            {"versionNumber": None},
            {"versionNumber": "--5"},
            {"versionNumber": 1e300},
            {"executionNumber": True},
            {"queuedAt": "²"},
        )
    ),
    ("notify", b'{"jobs": [1]}'),
    ("notify", b'{"jobs": {"QUEUED": [7]}}'),
    ("notify", b"{}"),
    ("$next/get/accepted", b"of nobody"),
]


@pushed
def test_messages_that_make_no_sense_are_left_out_and_the_connection_lives(harness: Harness, line: Line) -> None:
    for suffix, payload in MALFORMED:
        harness.say(suffix, payload)
    line.works()


@tokened
def test_a_reply_that_makes_no_sense_leaves_the_request_open(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(DescribeNext("t1"))
        harness.say("$next/get/accepted", b"not json")
        harness.say("$next/get/accepted", {"clientToken": "t1"})
        assert line.inbox.next(Described) == Described("t1", None)
    line.works()


# --- connecting ---------------------------------------------------------------------------------------------------


def test_requests_are_answered_from_the_moment_it_is_connected(harness: Harness) -> None:
    transport, inbox = harness.new_transport(), Inbox()

    def put(incoming: Incoming) -> None:
        inbox.put(incoming)
        if isinstance(incoming, Connected):
            transport.send(DescribeNext("at-once"))

    transport.start(put)
    inbox.next(Connected)
    assert inbox.next(Described).token == "at-once"
    transport.stop()


@pushed
def test_notifications_arrive_from_the_moment_it_is_connected(harness: Harness) -> None:
    transport, inbox = harness.new_transport(), Inbox()

    def put(incoming: Incoming) -> None:
        inbox.put(incoming)
        if isinstance(incoming, Connected):
            harness.service.create_job("greet", DOCUMENT, [THING])

    transport.start(put)
    inbox.next(Connected)
    inbox.next(ListChanged)
    inbox.next(NextChanged)
    transport.stop()


@remote
def test_start_returns_at_once_and_nothing_is_connected_before_the_service_answers(harness: Remote) -> None:
    transport, inbox = harness.new_transport(), Inbox()
    harness.hang()
    began = time.monotonic()
    transport.start(inbox.put)
    transport.send(GetPending("too-early"))
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert inbox.empty()
    harness.go_on()
    inbox.next(Connected)
    transport.send(GetPending("now"))
    assert inbox.next(Pending).token == "now"
    transport.stop()


def test_what_is_sent_before_the_start_gets_no_reply(harness: Harness) -> None:
    transport = harness.new_transport()
    transport.send(GetPending("too-early"))
    with Line(transport) as line:
        line.works()


@remote
def test_it_connects_by_itself_once_there_is_a_server(harness: Remote) -> None:
    harness.go_away()
    transport, inbox = harness.new_transport(), Inbox()
    transport.start(inbox.put)
    for _ in range(3):
        reason = inbox.next(Disconnected).reason
        assert reason
        assert len(reason.splitlines()) == 1
    harness.come_back()
    inbox.skip_to(Connected)
    transport.send(GetPending("t1"))
    assert inbox.next(Pending).token == "t1"
    transport.stop()


@remote
def test_after_the_server_went_away_it_connects_again_and_works(harness: Remote, line: Line) -> None:
    line.works()
    reason = lose(harness, line)
    assert len(reason.splitlines()) == 1
    harness.come_back()
    line.inbox.skip_to(Connected)
    line.works()
    queue_quietly(harness, line, "greet")


@remote
def test_what_is_sent_while_disconnected_gets_no_reply_then_or_later(harness: Remote, line: Line) -> None:
    lose(harness, line)
    line.transport.send(GetPending("nobody-hears"))
    harness.come_back()
    line.inbox.skip_to(Connected)
    line.works()
    tokens = [(request.body or {}).get("clientToken") for request in harness.service.requests]
    assert "nobody-hears" not in tokens


@remote
def test_a_server_that_hangs_for_a_while_loses_nothing(harness: Remote, line: Line) -> None:
    harness.hang()
    line.transport.send(GetPending("patient"))
    harness.go_on()
    assert line.inbox.next(Pending).token == "patient"


def test_renew_drops_the_connection_and_opens_a_new_one(harness: Harness, line: Line) -> None:
    for _ in range(3):
        line.transport.renew()
        assert line.inbox.next(Disconnected).reason == RENEWED
        line.inbox.next(Connected)
        line.works()


@tokened
def test_a_reply_to_a_request_of_an_earlier_connection_is_dropped(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(GetPending("earlier"))
        line.transport.renew()
        line.inbox.next(Disconnected)
        line.inbox.next(Connected)
        harness.say("get/accepted", {"clientToken": "earlier", "queuedJobs": []})
    line.works()


def test_renewing_from_many_threads_at_once_ends_in_one_working_connection(harness: Harness, line: Line) -> None:
    gate = threading.Barrier(8)

    def renew(number: int) -> None:
        gate.wait()
        for _ in range(5):
            line.transport.send(GetPending(f"lost-perhaps-{number}"))
            line.transport.renew()

    threads = [threading.Thread(target=renew, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # However many connections there were: the last word is Connected, and that one works.
    answered = False
    while not answered:
        line.transport.send(DescribeNext("at-last"))
        answered = "at-last" in tokens_within(line.inbox, 0.2)
    line.transport.stop()
    states = [came for came in line.inbox.history if isinstance(came, (Connected, Disconnected))]
    assert states[-1] == Connected()
    assert all(isinstance(one, Disconnected) or other != Connected() for one, other in pairwise(states))


def tokens_within(inbox: Inbox, seconds: float) -> Iterator[str]:
    """Yield the tokens of the descriptions that come, until none came for so long."""
    with contextlib.suppress(queue.Empty):
        while True:
            came = inbox._put.get(timeout=seconds)
            if isinstance(came, Described):
                yield came.token


# --- the end ------------------------------------------------------------------------------------------------------


def test_stop_ends_all_threads_and_descriptors(harness: Harness) -> None:
    before = held()
    with Line(harness.new_transport()) as line:
        line.works()
        assert held() - before or isinstance(harness, InMemory)
    assert not left(harness, before)


def test_many_connections_leave_no_descriptor_behind(harness: Harness) -> None:
    before = held()
    with Line(harness.new_transport()) as line:
        for _ in range(10):
            line.transport.renew()
            line.inbox.skip_to(Connected)
        line.works()
    assert not left(harness, before)


def test_after_stop_nothing_is_put_and_nothing_is_sent(harness: Harness) -> None:
    transport, inbox = harness.new_transport(), Inbox()
    transport.start(inbox.put)
    inbox.next(Connected)
    transport.stop()
    transport.send(GetPending("too-late"))
    transport.renew()
    harness.service.create_job("greet", {}, [THING])
    witness(harness)
    assert inbox.empty()


def witness(harness: Harness) -> None:
    """Return once all that the service said so far has arrived, wherever it was going."""
    if isinstance(harness, Remote):
        with Line(harness.new_transport()) as line:
            line.works()


def test_stop_may_come_before_the_start_and_twice(harness: Harness) -> None:
    before = held()
    never_started = harness.new_transport()
    never_started.stop()
    never_started.stop()
    with Line(harness.new_transport()) as line:
        line.transport.stop()
    assert not left(harness, before)


def test_stop_at_any_moment_of_connecting_is_quick_and_clean(harness: Harness) -> None:
    before = held()
    for moment in range(12):
        transport, inbox = harness.new_transport(), Inbox()
        transport.start(inbox.put)
        threading.Event().wait(moment * 0.003)
        began = time.monotonic()
        transport.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS
        while not inbox.empty():
            inbox.next(Connected)
    assert not left(harness, before)


@remote
def test_stop_while_the_server_says_nothing_is_quick_and_clean(harness: Remote) -> None:
    with silent_server() as listener:
        before = held()
        transport, inbox = harness.new_transport_to(listener.getsockname()[1]), Inbox()
        transport.start(inbox.put)
        connection, _ = listener.accept()
        began = time.monotonic()
        transport.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS
        connection.close()
        assert not left(harness, before)
    assert inbox.empty()


@remote
def test_stop_while_it_waits_to_try_again_is_quick_and_clean(harness: Remote) -> None:
    harness.go_away()
    before = held()
    transport, inbox = harness.new_transport(), Inbox()
    transport.start(inbox.put)
    for _ in range(4):
        inbox.next(Disconnected)
    began = time.monotonic()
    transport.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert not left(harness, before)


@remote
def test_stop_while_the_server_hangs_is_quick(harness: Remote, line: Line) -> None:
    harness.hang()
    line.transport.send(GetPending("unanswered"))
    began = time.monotonic()
    line.transport.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    harness.go_on()
    assert line.inbox.empty()
