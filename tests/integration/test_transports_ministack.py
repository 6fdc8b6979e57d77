"""The contract of transports over ministack, an emulator of AWS IoT that shares no code with ours, as far as it serves.

Jobs are made, cancelled and looked at with boto3. MQTT goes to its own port with mutual TLS. Its HTTP has no TLS, which
a server of ours puts before it, and it tells its services apart by signatures.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import ssl
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from thingjobs.jobs import (
    Connected,
    Describe,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    Incoming,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    State,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.ports import Shadow
from thingjobs.testing import JobsService
from thingjobs.testing.web import Answer, Call, WebJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site
from thingjobs.transport.https_signer import JobsSigner
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Ministack, Pki

    from thingjobs.ports import ShadowTransport as Transport

DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0

Kind = TypeVar("Kind", bound=Incoming)


class Line:
    """A transport for a thing of ministack's, what it put, and the control plane."""

    def __init__(self, transport: Transport, thing: ThingName, ministack: Ministack) -> None:
        self.transport = transport
        self.thing = thing
        self.iot = ministack.boto("iot")
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        transport.start(self._put.put)

    def shadow(self, ministack: Ministack) -> Any:
        """Return what the shadow `thingjobs` reports."""
        found = ministack.boto("iot-data").get_thing_shadow(thingName=self.thing, shadowName="thingjobs")
        return json.loads(found["payload"].read())["state"]["reported"]

    def skip_to(self, kind: type[Kind]) -> Kind:
        while not isinstance(came := self._put.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def ask(self, request: Any) -> Incoming:
        """Return the reply; notifications may come before it."""
        self.transport.send(request)
        while getattr(came := self._put.get(timeout=PATIENCE_SECONDS), "token", None) is None:
            pass
        return came

    def create(self) -> JobId:
        """Create a job for the thing."""
        job_id = f"job-{uuid.uuid4().hex[:12]}"
        arn = self.iot.describe_thing(thingName=self.thing)["thingArn"]
        self.iot.create_job(jobId=job_id, targets=[arn], document=json.dumps(DOCUMENT))
        return JobId(job_id)

    def status(self, job_id: JobId) -> str:
        return str(self.iot.describe_job_execution(jobId=job_id, thingName=self.thing)["execution"]["status"])


def mqtt_link(ministack: Ministack, thing: ThingName, **more: Any) -> Link:
    certificate, key = ministack.new_thing(thing)
    return Link("localhost", ministack.mqtt_port, thing, thing, 300, certificate, key, ministack.ca_path, **more)


@contextlib.contextmanager
def paho_mqtt5(ministack: Ministack, thing: ThingName, request: pytest.FixtureRequest) -> Iterator[Transport]:
    yield PahoTransport(mqtt_link(ministack, thing), lambda: 0.02)


@contextlib.contextmanager
def paho_mqtt311(ministack: Ministack, thing: ThingName, request: pytest.FixtureRequest) -> Iterator[Transport]:
    yield PahoTransport(mqtt_link(ministack, thing, version=4), lambda: 0.02)


@contextlib.contextmanager
def awsiot(ministack: Ministack, thing: ThingName, request: pytest.FixtureRequest) -> Iterator[Transport]:
    request.getfixturevalue("require")("awscrt")
    yield AwsIotTransport(mqtt_link(ministack, thing), lambda: 0.02)


@contextlib.contextmanager
def https(ministack: Ministack, thing: ThingName, request: pytest.FixtureRequest) -> Iterator[Transport]:
    pki: Pki = request.getfixturevalue("pki")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pki.server_cert, pki.server_key)

    def forward(call: Call) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", ministack.port, timeout=10)
        with contextlib.closing(connection):
            path = f"{call.path}{'?' * bool(call.query)}{call.query}"
            connection.request(call.method, path, call.body or None, dict(call.headers))
            response = connection.getresponse()
            body = response.read()
            kept = {
                name: value for name, value in response.getheaders() if name.lower().startswith(("content-t", "x-"))
            }
            return Answer(response.status, body, kept)

    ministack.new_thing(thing)
    # Its control plane, which makes the jobs, has the same keys.
    environment: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    environment.setenv("AWS_ACCESS_KEY_ID", "test")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with WebJobsService(JobsService(), tls=tls) as web:
        web.interpose(forward)
        site = Site(Link("localhost", web.port, thing, thing, ca=pki.ca), signer=JobsSigner("us-east-1"))
        yield HttpsTransport(site, lambda: 0.02, polls=Polls(3600.0, 3600.0))


PUSHED = [paho_mqtt5, paho_mqtt311, awsiot]
WAYS = [*PUSHED, https]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def line(ministack: Ministack, request: pytest.FixtureRequest) -> Iterator[Line]:
    way: Callable[..., contextlib.AbstractContextManager[Transport]] = request.param
    thing = ThingName(f"contract-{uuid.uuid4().hex[:8]}")
    with way(ministack, thing, request) as transport:
        made = Line(transport, thing, ministack)
        try:
            made.skip_to(Connected)
            yield made
        finally:
            transport.stop()


def update(token: str, job_id: JobId, version: int = 1, status: Status = Status.IN_PROGRESS, **more: Any) -> Update:
    return Update(token, job_id, 1, version, status, **{"details": {}, **more})


def test_an_execution_is_found_claimed_and_finished_and_boto3_sees_it(line: Line) -> None:
    assert line.ask(DescribeNext("t1")) == Described("t1", None)
    job_id = line.create()
    described = line.ask(DescribeNext("t2"))
    assert isinstance(described, Described)
    assert described.execution is not None
    assert (described.execution.identity.job_id, described.execution.document) == (job_id, DOCUMENT)

    claimed = line.ask(update("t3", job_id, details={"claim": "c"}, step_timeout_minutes=15, with_document=True))
    assert claimed == Updated("t3", State(Status.IN_PROGRESS, 2, {"claim": "c"}), DOCUMENT)
    pending = line.ask(GetPending("t4"))
    assert isinstance(pending, Pending)
    assert [summary.identity.job_id for summary in pending.in_progress] == [job_id]
    described = line.ask(Describe("t5", job_id, 1))
    assert isinstance(described, Described)
    assert described.execution is not None
    assert (described.execution.status, described.execution.version) == (Status.IN_PROGRESS, 2)

    assert isinstance(line.ask(update("t6", job_id, 2, Status.SUCCEEDED)), Updated)
    assert line.status(job_id) == "SUCCEEDED"


def test_a_named_shadow_is_updated_and_boto3_sees_it(line: Line, ministack: Ministack) -> None:
    taken = threading.Event()
    for reported in ({"agent": "1.0", "waiting": {"job": "fw-7"}}, {"agent": "1.1", "waiting": {"job": None}}):
        taken.clear()
        line.transport.tell(Shadow("thingjobs", json.dumps({"state": {"reported": reported}}).encode()), taken.set)
        assert taken.wait(PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := line.shadow(ministack)) != {"agent": "1.1", "waiting": {}}:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_refusals_carry_their_code_and_what_is_stored(line: Line) -> None:
    job_id = line.create()
    held = State(Status.IN_PROGRESS, 2, {"claim": "c"})
    line.ask(update("t1", job_id, details={"claim": "c"}))
    stale = line.ask(update("t2", job_id, 1, details={"claim": "c"}))
    assert isinstance(stale, Refused)
    assert (stale.token, stale.code, stale.state) == ("t2", Refusal.VERSION_MISMATCH, held)
    for request in (Describe("t3", JobId("never"), 1), update("t3", JobId("never"))):
        unknown = line.ask(request)
        assert isinstance(unknown, Refused)
        assert (unknown.token, unknown.code, unknown.state) == ("t3", Refusal.RESOURCE_NOT_FOUND, None)


def test_requests_at_once_each_get_their_own_reply(line: Line) -> None:
    tokens = {f"t{number}" for number in range(20)}
    for token in tokens:
        line.transport.send(GetPending(token))
    assert {line.skip_to(Pending).token for _ in tokens} == tokens


def test_a_renewed_connection_works(line: Line) -> None:
    line.transport.renew()
    line.skip_to(Disconnected)
    line.skip_to(Connected)
    assert line.ask(DescribeNext("t1")) == Described("t1", None)


@pytest.mark.parametrize("line", PUSHED, ids=lambda way: way.__name__, indirect=True)
def test_notifications_tell_of_a_job_and_of_its_end(line: Line) -> None:
    job_id = line.create()
    head = line.skip_to(NextChanged).execution
    assert head is not None
    assert (head.identity.job_id, head.document) == (job_id, DOCUMENT)
    line.ask(update("t1", job_id))
    line.ask(update("t2", job_id, 2, Status.SUCCEEDED))
    while (head := line.skip_to(NextChanged).execution) is not None:
        assert head.identity.job_id == job_id
