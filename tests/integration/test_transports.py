"""One contract, every transport: what `thingjobs.ports.Transport` promises, tested over each way to the service.

A transport joins by a `Harness` of its own and its line in those of the four lists below that are true of it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest

from thingjobs.jobs import (
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
from thingjobs.transport.dial import Link
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


class Harness:
    """A service, and transports to it."""

    service: JobsService
    #: Whether what nobody asked for arrives too.
    notifies = True

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

    def new_transport_to(self, port: int) -> Transport:
        """Return a transport that will try another server."""
        raise NotImplementedError

    def go_away(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def hang(self) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        raise NotImplementedError


class LocalFolder(Harness):
    """`thingjobs run --local`: the embedded service; here its jobs do not come from files."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._folder: Path = request.getfixturevalue("tmp_path")
        self._transport = self._new()

    def new_transport(self) -> Transport:
        self._transport = self._new()
        self.service = self._transport.service
        return self._transport

    def deliver(self, message: Message) -> None:
        self._transport._hear(message)

    def _new(self) -> LocalTransport:
        return LocalTransport(self._folder, self._folder / "kept", THING)


class PahoMqtt5(Remote):
    """paho over a Mosquitto with mutual TLS, the service on the other side of it."""

    version = 5

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._mosquitto: Mosquitto = request.getfixturevalue("mosquitto")
        self._pki: Pki = request.getfixturevalue("pki")
        self._pair = self._pki.device(THING)
        self._tls = ssl.create_default_context(cafile=str(self._pki.ca))
        self._tls.load_cert_chain(*self._pki.device("cloud"))
        self.service = JobsService()
        self._serve()

    def new_transport(self) -> Transport:
        return self.new_transport_to(self._mosquitto.port)

    def new_transport_to(self, port: int) -> Transport:
        certificate, key = self._pair
        link = Link("localhost", port, THING, THING, 300, certificate, key, self._pki.ca, self.version)
        return PahoTransport(link, lambda: 0.02)

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

    def _serve(self) -> None:
        self._served = BrokerJobsService(self.service, "localhost", self._mosquitto.port, tls=self._tls)
        self._served.start()


class PahoMqtt311(PahoMqtt5):
    """The same with MQTT 3.1.1."""

    version = 4


#: What an MQTT broker carries.
BROKERED = [
    pytest.param(PahoMqtt5, id="paho-mqtt5", marks=pytest.mark.server),
    pytest.param(PahoMqtt311, id="paho-mqtt311", marks=pytest.mark.server),
]
#: What has a server that can go away.
REMOTE = [*BROKERED]
#: What hands over messages that nobody asked for, and matches replies to requests by token.
PUSHED = [pytest.param(LocalFolder, id="local"), *BROKERED]
EVERY = [pytest.param(LocalFolder, id="local"), *REMOTE]

brokered = pytest.mark.parametrize("harness", BROKERED, indirect=True)
remote = pytest.mark.parametrize("harness", REMOTE, indirect=True)
pushed = pytest.mark.parametrize("harness", PUSHED, indirect=True)


@pytest.fixture(params=EVERY)
def harness(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Harness = request.param(request)
    yield made
    made.close()


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
        if harness.notifies:
            line.inbox.next(ListChanged)
            if number == 0:
                line.inbox.next(NextChanged)


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


@pushed
def test_two_open_requests_on_one_topic_are_told_apart_by_token(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(GetPending("first"), GetPending("second"))
        for token in ("second", "first"):
            harness.say("get/accepted", {"clientToken": token, "inProgressJobs": [], "queuedJobs": []})
        assert [line.inbox.next(Pending).token, line.inbox.next(Pending).token] == ["second", "first"]
    line.works()


@pushed
def test_late_and_duplicate_replies_are_dropped(harness: Harness, line: Line) -> None:
    line.transport.send(GetPending("once"))
    line.inbox.next(Pending)
    harness.say("get/accepted", {"clientToken": "once", "queuedJobs": []})
    harness.say("get/accepted", {"clientToken": "of-long-ago", "queuedJobs": []})
    harness.say("get/rejected", {"clientToken": "once", "code": "InternalError"})
    line.works()


@pushed
def test_a_reply_on_the_topic_of_another_request_answers_nothing(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(DescribeNext("mine"))
        harness.say("get/accepted", {"clientToken": "mine", "queuedJobs": []})
        harness.say("greet/get/accepted", {"clientToken": "mine"})
        harness.say("$next/get/accepted", {"clientToken": "mine"})
        assert line.inbox.next(Described) == Described("mine", None)
    line.works()


@pushed
def test_a_reply_without_a_token_is_for_the_one_request_that_is_open(harness: Harness, line: Line) -> None:
    with unanswered(harness, line) as ask:
        ask(update("only", "greet"))
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "unexpected end"})
        refused = line.inbox.next(Refused)
        assert (refused.token, refused.code, refused.message) == ("only", Refusal.INVALID_JSON, "unexpected end")
        harness.say("greet/update/rejected", {"code": "InvalidJson", "message": "again"})
    line.works()


@pushed
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
        assert line.inbox.next(Refused) == Refused(code.value, code, "because", None, code.value)
        remove()


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


@pushed
def test_a_message_beyond_128_kilobytes_is_left_out_and_the_connection_lives(harness: Harness, line: Line) -> None:
    harness.say("notify-next", {"timestamp": 1, "padding": "x" * 128 * 1024})
    with unanswered(harness, line) as ask:
        ask(GetPending("t1"))
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": [], "padding": "x" * 128 * 1024})
        harness.say("get/accepted", {"clientToken": "t1", "queuedJobs": []})
        assert line.inbox.next(Pending).token == "t1"
    line.works()


def test_a_request_beyond_128_kilobytes_gets_no_reply_and_the_connection_lives(harness: Harness, line: Line) -> None:
    queue_quietly(harness, line, "greet")
    line.transport.send(update("t1", "greet", details={"stdout": "x" * 128 * 1024}))
    line.works()
    assert harness.service.execution(THING, "greet").version == 1
    assert [request.suffix for request in harness.service.requests] == ["get"]


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


@pushed
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
    harness.go_away()
    reason = line.inbox.next(Disconnected).reason
    assert len(reason.splitlines()) == 1
    harness.come_back()
    line.inbox.skip_to(Connected)
    line.works()
    queue_quietly(harness, line, "greet")


@remote
def test_what_is_sent_while_disconnected_gets_no_reply_then_or_later(harness: Remote, line: Line) -> None:
    harness.go_away()
    line.inbox.next(Disconnected)
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
        assert line.inbox.next(Disconnected).reason == "a new connection was asked for"
        line.inbox.next(Connected)
        line.works()


@brokered
def test_a_reply_to_a_request_of_an_earlier_connection_is_dropped(harness: Remote, line: Line) -> None:
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
        assert held() - before
    assert not held() - before


def test_many_connections_leave_no_descriptor_behind(harness: Harness) -> None:
    before = held()
    with Line(harness.new_transport()) as line:
        for _ in range(10):
            line.transport.renew()
            line.inbox.skip_to(Connected)
        line.works()
    assert not held() - before


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
    assert not held() - before


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
    assert not held() - before


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
        assert not held() - before
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
    assert not held() - before


@remote
def test_stop_while_the_server_hangs_is_quick(harness: Remote, line: Line) -> None:
    harness.hang()
    line.transport.send(GetPending("unanswered"))
    began = time.monotonic()
    line.transport.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    harness.go_on()
    assert line.inbox.empty()
