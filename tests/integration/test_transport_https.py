"""The transport `https` and a real HTTPS server with mutual TLS: what goes over the wire, what errors mean, polling.

boto3's client for `iot-jobs-data` is the judge of both ends: of the server that the tests run, and of the transport.
The contract of all transports is in test_transports.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from thingjobs.clock import Reading
from thingjobs.errors import TransportError
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
    Reply,
    Request,
    State,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import JobsService, Lost
from thingjobs.testing.web import HANG_UP, Answer, Call, WebJobsService
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site
from thingjobs.transport.https_line import Line
from thingjobs.transport.https_wire import call_for, doubt, read, settled
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from requests import PreparedRequest
    from tests.conftest import Ministack, Pki

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0
AT_ONCE_SECONDS = 1.0

Kind = TypeVar("Kind", bound=Incoming)


# --- the two ends -------------------------------------------------------------------------------------------------


def server_tls(pki: Pki) -> ssl.SSLContext:
    """Let in whoever has a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def service() -> JobsService:
    return JobsService()


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    with WebJobsService(service, tls=server_tls(pki)) as serving:
        yield serving


@pytest.fixture
def site(web: WebJobsService, pki: Pki) -> Site:
    certificate, key = pki.device("device")
    return Site(Link("localhost", web.port, "unused", THING, 300, certificate, key, pki.ca, patience=5.0))


class Asker:
    """One line, and what the service said over it; no threads."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.line = Line(site, Certificates(site.link, time.time))

    def ask(self, request: Request) -> Reply:
        reply = read(request, self.line.ask(call_for(request, self.site.link.thing)))
        question = doubt(request, reply)
        if question is not None and isinstance(request, Update) and isinstance(reply, Refused):
            found = read(question, self.line.ask(call_for(question, self.site.link.thing)))
            return settled(request, reply, found)
        return reply


@pytest.fixture
def new_asker() -> Iterator[Callable[[Site], Asker]]:
    made: list[Asker] = []

    def make(site: Site) -> Asker:
        made.append(Asker(site))
        return made[-1]

    yield make
    for asker in made:
        asker.line.rest()


@pytest.fixture
def asker(site: Site, new_asker: Callable[[Site], Asker]) -> Asker:
    return new_asker(site)


class Inbox:
    """What a transport put."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def put(self, incoming: Incoming) -> None:
        self._queue.put(incoming)

    def next(self, kind: type[Kind]) -> Kind:
        """Return what came next; it has to be of that kind."""
        came = self._queue.get(timeout=PATIENCE_SECONDS)
        assert isinstance(came, kind), f"{came} came instead of a {kind.__name__}"
        return came

    def skip_to(self, kind: type[Kind]) -> Kind:
        """Return the next that is of that kind."""
        while not isinstance(came := self._queue.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture
def new_transport(site: Site) -> Iterator[Callable[..., tuple[HttpsTransport, Inbox]]]:
    """Start transports; they stop at the end of the test."""
    made: list[HttpsTransport] = []

    def make(to: Site = site, roll: float = 0.02, **more: Any) -> tuple[HttpsTransport, Inbox]:
        transport, inbox = HttpsTransport(to, lambda: roll, **more), Inbox()
        made.append(transport)
        transport.start(inbox.put)
        return transport, inbox

    yield make
    for transport in made:
        transport.stop()


class Hang:
    """Has the server take its time, until it is told to go on."""

    def __init__(self, web: WebJobsService) -> None:
        self._going = threading.Event()
        self._remove = web.interpose(self._wait)

    def _wait(self, _call: Call) -> None:
        self._going.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        self._remove()
        self._going.set()


def update(token: str, job_id: str, version: int = 1, status: Status = Status.IN_PROGRESS, **more: Any) -> Update:
    return Update(token, JobId(job_id), 1, version, status, **{"details": {}, **more})


# --- boto3 as the judge of what goes over the wire ------------------------------------------------------------------


@pytest.fixture
def boto(web: WebJobsService, site: Site, pki: Pki, require: Callable[[str], str]) -> Any:
    """Boto3's client for the same server."""
    require("boto3")
    import boto3
    from botocore.config import Config

    link = site.link
    return boto3.client(
        "iot-jobs-data",
        endpoint_url=site.base,
        region_name="eu-west-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        verify=str(pki.ca),
        config=Config(proxies={}, retries={"total_max_attempts": 1}, client_cert=(link.certificate, link.private_key)),
    )


FULL = {
    "status": "IN_PROGRESS",
    "expectedVersion": 1,
    "executionNumber": 1,
    "includeJobExecutionState": True,
    "includeJobDocument": True,
    "statusDetails": {"claim": "abc", "progress": "Grüße"},
    "stepTimeoutInMinutes": 15,
}
SAME: list[tuple[Request, str, dict[str, Any]]] = [
    (GetPending("t"), "get_pending_job_executions", {}),
    (DescribeNext("t"), "describe_job_execution", {"jobId": "$next"}),
    (
        Describe("t", JobId("greet"), 1),
        "describe_job_execution",
        {"jobId": "greet", "executionNumber": 1, "includeJobDocument": False},
    ),
    (
        Describe("t", JobId("greet"), 12, with_document=True),
        "describe_job_execution",
        {"jobId": "greet", "executionNumber": 12, "includeJobDocument": True},
    ),
    (
        update("t", "greet", details=FULL["statusDetails"], step_timeout_minutes=15, with_document=True),
        "update_job_execution",
        {"jobId": "greet", **FULL},
    ),
    (
        update("t", "greet", 2, Status.SUCCEEDED),
        "update_job_execution",
        {
            "jobId": "greet",
            "status": "SUCCEEDED",
            "expectedVersion": 2,
            "executionNumber": 1,
            "includeJobExecutionState": True,
        },
    ),
]


def on_the_wire(call: Call) -> tuple[str, str, list[str], object, str]:
    """Return what of a request matters."""
    body = json.loads(call.body) if call.body else None
    kind = call.headers.get("content-type", "") if call.body else ""
    return call.method, call.path, sorted(call.query.split("&")), body, kind


@pytest.mark.parametrize(("request_", "operation", "arguments"), SAME, ids=lambda value: str(value)[:30])
def test_every_request_goes_over_the_wire_as_boto3_sends_it(
    web: WebJobsService, asker: Asker, boto: Any, request_: Request, operation: str, arguments: dict[str, Any]
) -> None:
    answered = Answer(200, b"{}", {"Content-Type": "application/json", "x-amzn-RequestId": "1"})
    web.interpose(lambda _call: answered)

    getattr(boto, operation)(thingName=THING, **arguments)
    asker.line.ask(call_for(request_, THING))

    theirs, ours = web.calls
    assert on_the_wire(ours) == on_the_wire(theirs)
    assert "plant%3Aa_7-b" in ours.path


def test_the_headers_are_few(web: WebJobsService, asker: Asker) -> None:
    web.interpose(lambda _call: HANG_UP)
    for request in (GetPending("t"), update("t", "greet")):
        with contextlib.suppress(OSError):
            asker.line.ask(call_for(request, THING))
    asked, told = web.calls
    assert set(asked.headers) == {"host", "user-agent", "accept-encoding"}
    assert set(told.headers) == set(asked.headers) | {"content-type", "content-length"}


def shown(found: dict[str, Any]) -> tuple[Any, ...]:
    """Return what matters of an execution as boto3 shows it."""
    document = json.loads(found["jobDocument"]) if "jobDocument" in found else None
    return found["jobId"], found["status"], found["versionNumber"], found.get("statusDetails", {}), document


def test_boto3_and_the_transport_get_the_same_answers(service: JobsService, asker: Asker, boto: Any) -> None:
    def of_boto3(**more: Any) -> tuple[Any, ...]:
        return shown(boto.describe_job_execution(thingName=THING, **more)["execution"])

    def of_ours(request: Request) -> tuple[Any, ...]:
        reply = asker.ask(request)
        assert isinstance(reply, Described)
        found = reply.execution
        assert found is not None
        return found.identity.job_id, found.status.value, found.version, dict(found.details), found.document

    assert "execution" not in boto.describe_job_execution(thingName=THING, jobId="$next")
    assert asker.ask(DescribeNext("t")) == Described("t", None)
    for job_id in ("a", "b"):
        service.create_job(job_id, DOCUMENT, [THING], in_progress_timeout_minutes=60)
    assert of_ours(DescribeNext("t")) == of_boto3(jobId="$next") == ("a", "QUEUED", 1, {}, DOCUMENT)

    updated = asker.ask(update("t", "a", details={"claim": "c"}, with_document=True))
    assert updated == Updated("t", State(Status.IN_PROGRESS, 2, {"claim": "c"}), DOCUMENT)
    theirs = boto.update_job_execution(
        thingName=THING,
        jobId="b",
        status="IN_PROGRESS",
        expectedVersion=1,
        includeJobExecutionState=True,
        includeJobDocument=True,
        statusDetails={"claim": "d"},
    )
    assert theirs["executionState"] == {"status": "IN_PROGRESS", "statusDetails": {"claim": "d"}, "versionNumber": 2}
    assert json.loads(theirs["jobDocument"]) == DOCUMENT

    assert of_ours(Describe("t", JobId("b"), 1, with_document=True)) == of_boto3(jobId="b")
    left = boto.describe_job_execution(thingName=THING, jobId="a")["execution"]["approximateSecondsBeforeTimedOut"]
    described = asker.ask(Describe("t", JobId("a"), 1))
    assert isinstance(described, Described)
    assert described.execution is not None
    assert abs((described.execution.seconds_left or 0) - left) <= 1

    pending = asker.ask(GetPending("t"))
    assert isinstance(pending, Pending)
    listed = boto.get_pending_job_executions(thingName=THING)
    assert [summary.identity.job_id for summary in pending.in_progress] == ["a", "b"]
    assert [summary["jobId"] for summary in listed["inProgressJobs"]] == ["a", "b"]
    assert listed["queuedJobs"] == []


def refused_by_boto(call: Callable[[], object]) -> tuple[str, int]:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as raised:
        call()
    told = raised.value.response
    return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]


def test_boto3_and_the_transport_are_refused_alike(service: JobsService, asker: Asker, boto: Any) -> None:
    service.create_job("a", DOCUMENT, [THING])
    service.create_job("over", DOCUMENT, [THING])
    service.cancel_job("over")
    cases: list[tuple[Describe | Update, str, int, Refusal]] = [
        (Describe("t", JobId("none"), 1), "ResourceNotFoundException", 404, Refusal.RESOURCE_NOT_FOUND),
        (Describe("t", JobId("over"), 1), "TerminalStateException", 410, Refusal.TERMINAL_STATE_REACHED),
        (update("t", "none"), "ResourceNotFoundException", 404, Refusal.RESOURCE_NOT_FOUND),
        (update("t", "a", details={"a b": "c"}), "InvalidRequestException", 400, Refusal.INVALID_REQUEST),
    ]
    for request, name, status, code in cases:
        of: dict[str, Any] = {"thingName": THING, "jobId": request.job_id}
        if isinstance(request, Update):
            of |= {"status": "IN_PROGRESS", "statusDetails": dict(request.details)}
        operation = boto.update_job_execution if isinstance(request, Update) else boto.describe_job_execution
        theirs = refused_by_boto(partial(operation, **of))
        assert theirs == (name, status)
        ours = asker.ask(request)
        assert isinstance(ours, Refused)
        assert (ours.code, ours.text) == (code, name)
        assert ours.message

    stale = {"thingName": THING, "jobId": "a", "status": "IN_PROGRESS", "expectedVersion": 9}
    assert refused_by_boto(partial(boto.update_job_execution, **stale)) == ("InvalidStateTransitionException", 409)
    ours = asker.ask(update("t", "a", 9))
    assert isinstance(ours, Refused)
    assert (ours.code, ours.state) == (Refusal.VERSION_MISMATCH, State(Status.QUEUED, 1, {}))


def always(answer: Answer, _call: Call) -> Answer:
    return answer


def test_throttling_is_throttling_whatever_its_status(web: WebJobsService, asker: Asker, boto: Any) -> None:
    for status in (429, 400):
        headers = {"x-amzn-ErrorType": "ThrottlingException", "Content-Type": "application/json"}
        answer = Answer(status, b'{"message":"Rate exceeded"}', headers)
        remove = web.interpose(partial(always, answer))
        asked = refused_by_boto(lambda: boto.get_pending_job_executions(thingName=THING))
        assert asked == ("ThrottlingException", status)
        refused = asker.ask(GetPending("t"))
        assert refused == Refused("t", Refusal.REQUEST_THROTTLED, "Rate exceeded", None, "ThrottlingException")
        remove()


# --- Signature Version 4 --------------------------------------------------------------------------------------------


@dataclass
class Signer:
    """Signs with the cloud bridge's own signing, as the command line will have it done."""

    region: str = "eu-west-1"
    refusals: int = 0
    error: Exception | None = None

    def sign(self, request: PreparedRequest) -> None:
        from thingjobs.cloud.credentials import Credentials
        from thingjobs.cloud.signing import sign

        if self.error is not None:
            raise self.error
        credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "a+session/token==")
        sign(request, credentials, region=self.region, service="iot-jobs-data", at=datetime.now(UTC))

    def refused(self) -> None:
        self.refusals += 1


@pytest.fixture
def signed(service: JobsService, pki: Pki) -> Iterator[tuple[WebJobsService, Site]]:
    """A server that asks for no certificate, and where it is."""
    tls = server_tls(pki)
    tls.verify_mode = ssl.CERT_NONE
    with WebJobsService(service, tls=tls) as serving:
        link = Link("localhost", serving.port, "unused", THING, ca=pki.ca, patience=5.0)
        yield serving, Site(link, signer=Signer())


def signed_by_botocore(call: Call, site: Site) -> str:
    """Return the Authorization that botocore makes for a request that came, at the time that it was signed with."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{site.base}{call.path}{'?' * bool(call.query)}{call.query}"
    names = ("host", "content-type")
    headers = {name: call.headers[name] for name in names if name in call.headers}
    again = AWSRequest(method=call.method, url=url, data=call.body, headers=headers)
    signer = SigV4Auth(
        Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "a+session/token=="), "iot-jobs-data", "eu-west-1"
    )
    again.context["timestamp"] = call.headers["x-amz-date"]
    again.headers["X-Amz-Date"] = call.headers["x-amz-date"]
    again.headers["X-Amz-Security-Token"] = "a+session/token=="
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    scope = signer.scope(again)
    signed_headers = signer.signed_headers(signer.headers_to_sign(again))
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed_headers}, Signature={signature}"


def test_requests_are_signed_as_botocore_signs_them(
    service: JobsService,
    signed: tuple[WebJobsService, Site],
    new_asker: Callable[[Site], Asker],
    require: Callable[[str], str],
) -> None:
    require("botocore")
    serving, site = signed
    service.create_job("greet", DOCUMENT, [THING])
    asker = new_asker(site)
    for request, _, _ in SAME:
        asker.line.ask(call_for(request, THING))
    assert len(serving.calls) == len(SAME)
    for call in serving.calls:
        ours = call.headers["authorization"].replace(", ", ",").replace(",", ", ")
        assert ours == signed_by_botocore(call, site)


def test_without_credentials_the_reason_is_theirs_and_it_goes_on_trying(
    signed: tuple[WebJobsService, Site], new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    signer = Signer(error=TransportError("cannot find AWS credentials: there are none"))
    _, inbox = new_transport(replace(signed[1], signer=signer))
    assert inbox.next(Disconnected).reason == "cannot find AWS credentials: there are none"
    signer.error = None
    inbox.skip_to(Connected)


def test_credentials_that_are_refused_are_fetched_anew(
    signed: tuple[WebJobsService, Site], new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    serving, site = signed
    headers = {"x-amzn-ErrorType": "ExpiredTokenException"}
    remove = serving.interpose(lambda _call: Answer(403, b'{"message":"expired"}', headers))
    _, inbox = new_transport(site)
    reason = inbox.next(Disconnected).reason
    assert "403 ExpiredTokenException: expired" in reason
    assert "do the credentials allow iotjobsdata:GetPendingJobExecutions on thing/plant:a_7-b" in reason
    remove()
    inbox.skip_to(Connected)
    assert isinstance(site.signer, Signer)
    assert site.signer.refusals


# --- what errors mean -----------------------------------------------------------------------------------------------

HTML = {"Content-Type": "text/html; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
AMAZON = {**JSON, "x-amzn-RequestId": "1"}


def named(name: str) -> dict[str, str]:
    return {**JSON, "x-amzn-ErrorType": name}


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (Answer(400, b"{}", named("InvalidRequestException")), Refusal.INVALID_REQUEST, "InvalidRequestException"),
        (Answer(404, b'{"code":"ResourceNotFoundException"}', JSON), Refusal.RESOURCE_NOT_FOUND, ""),
        (Answer(404, b'{"__type":"a.b#ResourceNotFoundException"}', JSON), Refusal.RESOURCE_NOT_FOUND, ""),
        (Answer(404, b"{}", named("ResourceNotFoundException:http://x/")), Refusal.RESOURCE_NOT_FOUND, ""),
        (Answer(429, b"{}", AMAZON), Refusal.REQUEST_THROTTLED, "HTTP 429"),
        (Answer(500, b"", AMAZON), Refusal.INTERNAL_ERROR, "HTTP 500"),
        (Answer(500, b"{}", named("InternalFailureException")), Refusal.INTERNAL_ERROR, ""),
        (Answer(503, b"{}", named("ServiceUnavailableException")), Refusal.INTERNAL_ERROR, ""),
        (Answer(400, b"{}", named("SomethingNew")), Refusal.UNKNOWN, "SomethingNew"),
        (Answer(200, b'{"__type":"ThrottlingException"}', AMAZON), Refusal.REQUEST_THROTTLED, ""),
    ],
)
def test_a_refusal_is_known_by_the_services_own_words(
    web: WebJobsService, asker: Asker, answer: Answer, code: Refusal, text: str
) -> None:
    web.interpose(lambda _call: answer)
    refused = asker.ask(GetPending("t"))
    assert isinstance(refused, Refused)
    assert refused.code is code
    assert text in refused.text
    assert refused.text


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>please log in</html>", HTML),
        Answer(302, b"", {"Location": "https://portal.example.com/"}),
        Answer(404, b"<h1>Not Found</h1>", HTML),
        Answer(404, b'{"message":"no Route matched with those values"}', JSON),
        Answer(409, b"conflict", {"Content-Type": "text/plain"}),
        Answer(410, b"", {}),
        Answer(429, b"slow down", HTML),
        Answer(502, b"<h1>Bad Gateway</h1>", HTML),
        Answer(200, b'{"Output":{"__type":"com.amazon#UnknownOperationException"},"Version":"1.0"}', JSON),
        Answer(404, b"{}", named("UnknownOperationException")),
    ],
)
def test_what_somebody_else_answers_is_no_answer_of_the_service(
    web: WebJobsService, asker: Asker, answer: Answer
) -> None:
    web.interpose(lambda _call: answer)
    for request in (Describe("t", JobId("greet"), 1), update("t", "greet")):
        with pytest.raises(TransportError, match="it is not the Jobs service that answers") as raised:
            asker.ask(request)
        assert str(answer.status) in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, b"", HTML), "401"),
        (Answer(403, b'{"message":"Forbidden"}', named("ForbiddenException")), "403 ForbiddenException: Forbidden"),
        (Answer(400, b"{}", named("CertificateValidationException")), "400 CertificateValidationException"),
    ],
)
def test_what_is_denied_is_said_once_with_what_to_check(
    web: WebJobsService,
    site: Site,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    answer: Answer,
    words: str,
) -> None:
    web.interpose(lambda _call: answer)
    _, inbox = new_transport(roll=1.0)
    reason = inbox.next(Disconnected).reason
    assert f"localhost:{web.port} denies GetPendingJobExecutions ({words})" in reason
    assert f"is {site.link.certificate} active, and does its policy allow" in reason
    assert "iotjobsdata:GetPendingJobExecutions on thing/plant:a_7-b" in reason
    assert len(reason.splitlines()) == 1
    time.sleep(0.5)  # with this roll the first wait is of 2 s, the second of 4
    assert len(web.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b'{"inProgressJobs":[],"queu', AMAZON),
        Answer(200, b"[]", JSON),
        Answer(200, b"{}", AMAZON),
        Answer(200, b'{"queuedJobs":[{"jobId":"a"}]}', AMAZON),
    ],
)
def test_an_answer_of_the_service_that_makes_no_sense_is_left_out_and_the_connection_lives(
    web: WebJobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]], answer: Answer
) -> None:
    transport, inbox = new_transport()
    inbox.next(Connected)
    remove = web.interpose(lambda _call: answer)
    transport.send(GetPending("t1"))
    while len(web.calls) < 2:
        time.sleep(0.01)
    remove()
    transport.send(GetPending("t2"))
    assert inbox.next(Pending).token == "t2"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HANG_UP, "the connection was closed without an answer"),
        (Answer(200, b'{"queuedJobs":[', AMAZON, announced=500), "its answer broke off in the middle"),
        (Answer(200, b'{"queuedJobs":[],"x":"' + b"x" * 600_000 + b'"}', AMAZON), "larger than 512 KiB"),
        (Answer(502, b"<h1>Bad Gateway</h1>", HTML), "it is not the Jobs service that answers (502 text/html)"),
        (Answer(403, b"{}", named("AccessDeniedException")), "denies GetPendingJobExecutions"),
    ],
)
def test_a_request_without_an_answer_ends_the_connection_and_the_next_one_works(
    web: WebJobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]], answer: Answer, words: str
) -> None:
    transport, inbox = new_transport()
    inbox.next(Connected)
    remove = web.interpose(lambda _call: answer)
    transport.send(GetPending("t1"))
    reason = inbox.next(Disconnected).reason
    assert words in reason
    assert len(reason.splitlines()) == 1
    remove()
    inbox.skip_to(Connected)
    transport.send(GetPending("t2"))
    assert inbox.next(Pending).token == "t2"


def test_an_operation_that_stays_denied_is_held_back_and_all_else_goes_on(
    web: WebJobsService,
    service: JobsService,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    denial = Answer(403, b"{}", named("ForbiddenException"))
    web.interpose(lambda call: denial if call.method == "POST" else None)
    transport, inbox = new_transport()
    for _ in range(3):
        inbox.skip_to(Connected)
        transport.send(update("t", "greet"))
        assert "iotjobsdata:UpdateJobExecution on thing/" in inbox.next(Disconnected).reason
    inbox.skip_to(Connected)
    transport.send(update("held", "greet"))
    transport.send(GetPending("goes"))
    assert inbox.next(Pending).token == "goes"
    assert [call.method for call in web.calls].count("POST") == 3
    lines = [record.getMessage() for record in caplog.records]
    assert sum("they are held back" in line for line in lines) == 1


def test_denials_between_which_it_was_allowed_hold_nothing_back(
    web: WebJobsService, service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    denial = Answer(403, b"{}", named("ForbiddenException"))
    transport, inbox = new_transport()
    inbox.next(Connected)
    for version in (1, 2):
        remove = web.interpose(lambda call: denial if call.method == "POST" else None)
        for _ in range(2):
            transport.send(update("t", "greet", version))
            inbox.next(Disconnected)
            inbox.next(Connected)
        remove()
        transport.send(update("t", "greet", version))
        inbox.next(Updated)


# --- conflicts ------------------------------------------------------------------------------------------------------


@pytest.fixture(
    params=[
        (400, "InvalidRequestException"),
        (409, "InvalidStateTransitionException"),
        (409, "VersionMismatchException"),
        (409, "ConflictException"),
        (409, "SomethingNew"),
    ]
)
def conflicting(request: pytest.FixtureRequest, service: JobsService, pki: Pki) -> Iterator[Site]:
    """A server that says of a stale version that it is this."""
    with WebJobsService(service, tls=server_tls(pki), conflict=request.param) as serving:
        certificate, key = pki.device("device")
        yield Site(Link("localhost", serving.port, "unused", THING, 300, certificate, key, pki.ca, patience=5.0))


def test_a_conflict_tells_what_is_stored_as_mqtt_would(
    service: JobsService, conflicting: Site, new_asker: Callable[[Site], Asker]
) -> None:
    asker = new_asker(conflicting)
    service.create_job("greet", DOCUMENT, [THING])
    asker.ask(update("t", "greet", details={"claim": "mine"}))

    stale = asker.ask(update("t", "greet", 1, details={"claim": "mine"}))
    assert isinstance(stale, Refused)
    assert (stale.code, stale.state) == (Refusal.VERSION_MISMATCH, State(Status.IN_PROGRESS, 2, {"claim": "mine"}))

    asker.ask(update("t", "greet", 2, Status.SUCCEEDED))
    over = asker.ask(update("t", "greet", 2, Status.SUCCEEDED))
    assert isinstance(over, Refused)
    assert (over.code, over.state) == (Refusal.TERMINAL_STATE_REACHED, None)

    service.create_job("other", DOCUMENT, [THING])
    asker.ask(update("t", "other"))
    service.delete_job("other", force=True)
    gone = asker.ask(update("t", "other", 2))
    assert isinstance(gone, Refused)
    assert gone.code is Refusal.RESOURCE_NOT_FOUND


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (503, "ServiceUnavailableException", Refusal.INTERNAL_ERROR),
        (429, "ThrottlingException", Refusal.REQUEST_THROTTLED),
    ],
)
def test_a_conflict_that_nobody_can_explain_now_is_to_be_tried_again(
    web: WebJobsService, asker: Asker, status: int, name: str, code: Refusal
) -> None:
    def answer(call: Call) -> Answer:
        if call.method == "POST":
            return Answer(409, b"{}", named("InvalidStateTransitionException"))
        return Answer(status, b"{}", named(name))

    web.interpose(answer)
    refused = asker.ask(update("t", "greet"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.state) == (code, None)


def test_an_update_that_is_wrong_in_itself_is_told_from_one_that_came_too_late(
    service: JobsService, asker: Asker
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    refused = asker.ask(update("t", "greet", details={"a b": "c"}))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.state) == (Refusal.INVALID_REQUEST, None)


# --- polling --------------------------------------------------------------------------------------------------------


def test_polls_come_early_rather_than_late_and_at_growing_distances_when_refused() -> None:
    polls = Polls(idle=900.0, busy=300.0)
    assert (polls.after(busy=False, refused=0, roll=0.0), polls.after(busy=False, refused=0, roll=1.0)) == (600, 900)
    assert (polls.after(busy=True, refused=0, roll=0.0), polls.after(busy=True, refused=0, roll=1.0)) == (200, 300)
    assert [polls.after(busy=False, refused=tries, roll=1.0) for tries in (1, 2, 3, 9)] == [30, 60, 120, 900]
    assert Polls(idle=60.0, busy=300.0).after(busy=True, refused=0, roll=1.0) == 60


def paths(web: WebJobsService) -> list[str]:
    """Return what was asked, without the beginning that all have in common."""
    return [f"{call.method} {call.path.partition('/jobs')[2]}" for call in web.calls]


SOON = Polls(idle=0.3, busy=0.3)


def test_a_new_job_is_found_by_a_poll_and_told_as_a_notification(
    service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    _, inbox = new_transport(polls=SOON)
    inbox.next(Connected)
    assert inbox.next(NextChanged).execution is None
    service.create_job("greet", DOCUMENT, [THING])
    while (execution := inbox.next(NextChanged).execution) is None:
        pass
    assert (execution.identity.job_id, execution.document) == ("greet", DOCUMENT)


def test_while_something_is_in_progress_the_list_is_polled_and_shows_that_it_was_cancelled(
    web: WebJobsService, service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    transport, inbox = new_transport(polls=Polls(idle=3600.0, busy=0.3))
    inbox.next(Connected)
    transport.send(update("t1", "greet"))
    inbox.skip_to(Updated)
    before = len(web.calls)
    changed = inbox.next(ListChanged)
    assert [summary.identity.job_id for summary in changed.in_progress] == ["greet"]
    assert paths(web)[before:] == ["GET "]
    service.cancel_job("greet", force=True)
    while inbox.next(ListChanged).in_progress:
        pass
    transport.send(Describe("t2", JobId("greet"), 1))
    assert inbox.skip_to(Refused).code is Refusal.TERMINAL_STATE_REACHED
    before = len(web.calls)
    time.sleep(0.5)
    assert len(web.calls) == before, "nothing is in progress any more"


def test_after_a_terminal_update_the_head_is_asked_for_at_once_and_requests_go_first(
    web: WebJobsService, service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    for job_id in ("a", "b"):
        service.create_job(job_id, DOCUMENT, [THING])
    transport, inbox = new_transport()
    inbox.next(Connected)
    transport.send(update("t1", "a"))
    transport.send(update("t2", "a", 2, Status.SUCCEEDED))
    transport.send(GetPending("t3"))
    assert [inbox.next(Updated).token, inbox.next(Updated).token, inbox.next(Pending).token] == ["t1", "t2", "t3"]
    head = inbox.next(NextChanged).execution
    assert head is not None
    assert head.identity.job_id == "b"
    assert paths(web) == ["GET ", "POST /a", "POST /a", "GET ", "GET /%24next"]


def test_a_poll_that_is_refused_is_tried_again_soon_and_then_later(
    web: WebJobsService, service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    transport, inbox = new_transport(polls=Polls(idle=3600.0, busy=3600.0), roll=0.01)
    inbox.next(Connected)
    throttled = Answer(429, b"{}", named("ThrottlingException"))
    remove = web.interpose(lambda call: throttled if call.path.endswith("next") else None)
    transport.send(update("t1", "greet", status=Status.SUCCEEDED))
    inbox.next(Updated)
    polls: list[float] = []
    while len(polls) < 3:
        while paths(web).count("GET /%24next") == len(polls):
            time.sleep(0.005)
        polls.append(time.monotonic())
    remove()
    inbox.next(NextChanged)
    # With this roll it waits 0.3 s, and then 0.6 s.
    assert 0.25 < polls[1] - polls[0] < 0.5 < polls[2] - polls[1]


def test_a_poll_that_is_denied_ends_the_connection(
    web: WebJobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    _, inbox = new_transport(polls=SOON)
    inbox.next(Connected)
    web.interpose(lambda _call: Answer(403, b"{}", named("ForbiddenException")))
    assert "denies DescribeJobExecution" in inbox.skip_to(Disconnected).reason


def test_a_job_uses_one_connection_and_waiting_uses_none(
    web: WebJobsService,
    service: JobsService,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    eventually: Callable[..., Any],
) -> None:
    taken: list[int] = []
    assert web._server is not None
    take = web._server.get_request

    def counted() -> Any:
        taken.append(1)
        return take()

    web._server.get_request = counted  # type: ignore[method-assign]
    service.create_job("greet", DOCUMENT, [THING])
    transport, inbox = new_transport()
    inbox.next(Connected)
    transport.send(update("t1", "greet"))
    transport.send(update("t2", "greet", 2, Status.SUCCEEDED))
    assert inbox.skip_to(NextChanged).execution is None
    assert len(taken) == 1
    eventually(lambda: web.connections == 0, seconds=2)
    transport.send(GetPending("t3"))
    inbox.next(Pending)
    assert len(taken) == 2


def test_a_connection_that_is_not_used_for_a_while_is_closed(
    web: WebJobsService,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thingjobs.transport.https_session.KEEP_SECONDS", 0.3)
    transport, inbox = new_transport()
    inbox.next(Connected)
    transport.send(GetPending("t1"))
    inbox.next(Pending)
    assert web.connections == 1
    eventually(lambda: web.connections == 0, seconds=2)
    assert inbox.empty()


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(
    web: WebJobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]], eventually: Callable[..., Any]
) -> None:
    transport, inbox = new_transport()
    inbox.next(Connected)
    assert web._server is not None
    web._server.hang_up()
    eventually(lambda: web.connections == 0)
    transport.send(GetPending("t1"))
    assert inbox.next(Pending).token == "t1"
    assert inbox.empty()


def test_what_nobody_waits_for_any_more_is_not_sent(
    web: WebJobsService,
    service: JobsService,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thingjobs.transport.https_session.REPLY_TIMEOUT", 0.2)
    service.create_job("greet", DOCUMENT, [THING])
    transport, inbox = new_transport()
    inbox.next(Connected)
    hang = Hang(web)
    transport.send(GetPending("slow"))
    transport.send(update("stale", "greet"))
    time.sleep(0.3)
    hang.end()
    assert inbox.next(Pending).token == "slow"
    transport.send(GetPending("t2"))
    assert inbox.next(Pending).token == "t2"
    assert service.execution(THING, "greet").version == 1


def test_an_update_whose_answer_is_lost_ends_the_connection_and_is_not_sent_twice(
    web: WebJobsService, service: JobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    transport, inbox = new_transport()
    inbox.next(Connected)
    remove = service.interpose(lambda request: Lost.REPLY if request.suffix == "greet/update" else None)
    transport.send(update("t1", "greet"))
    assert "closed without an answer" in inbox.next(Disconnected).reason
    remove()
    inbox.skip_to(Connected)
    assert service.execution(THING, "greet").version == 2
    assert paths(web).count("POST /greet") == 1


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_only_the_configured_authority_is_trusted(asker: Asker) -> None:
    asker.ask(GetPending("t"))
    assert asker.line._adapter is not None
    context = asker.line._adapter._context  # type: ignore[attr-defined]
    assert context.cert_store_stats()["x509_ca"] == 1
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_server_of_another_authority_or_name_is_refused_in_one_line(
    site: Site, tmp_path: Path, new_transport: Callable[..., tuple[HttpsTransport, Inbox]], pki: Pki
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = type(pki)(folder)
    _, inbox = new_transport(replace(site, link=replace(site.link, ca=other.ca)))
    reason = inbox.next(Disconnected).reason
    assert f"localhost:{site.link.port} is not trusted: " in reason
    assert f"(connection.ca = {other.ca})" in reason
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize("slow", [False, True])
def test_a_certificate_that_the_server_does_not_know_is_named(
    site: Site,
    tmp_path: Path,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    pki: Pki,
    monkeypatch: pytest.MonkeyPatch,
    slow: bool,
) -> None:
    if slow:  # the server has closed the connection before we begin to write
        begin = http.client.HTTPConnection.putrequest

        def later(*args: Any, **more: Any) -> None:
            time.sleep(0.2)
            begin(*args, **more)

        monkeypatch.setattr(http.client.HTTPConnection, "putrequest", later)
    folder = tmp_path / "other"
    folder.mkdir()
    certificate, key = type(pki)(folder).device("stranger")
    link = replace(site.link, certificate=certificate, private_key=key)
    _, inbox = new_transport(replace(site, link=link))
    reason = inbox.next(Disconnected).reason
    assert "does not accept us: unknown ca" in reason
    assert str(certificate) in reason


def test_a_certificate_that_was_replaced_is_used_for_the_next_connection(
    web: WebJobsService, site: Site, tmp_path: Path, new_asker: Callable[[Site], Asker], pki: Pki
) -> None:
    certificate, key = tmp_path / "device.pem", tmp_path / "device.key"

    def install(name: str) -> None:
        for path, source in zip((certificate, key), pki.device(name), strict=True):
            path.write_bytes(source.read_bytes())

    install("first")
    asker = new_asker(replace(site, link=replace(site.link, certificate=certificate, private_key=key)))
    asker.ask(GetPending("t"))
    install("second")
    asker.ask(GetPending("t"))  # over the connection that there is
    asker.line.rest()
    asker.ask(GetPending("t"))
    asker.line.rest()
    key.write_bytes(pki.device("third")[1].read_bytes())  # half of a new pair: the old one stays in use
    asker.ask(GetPending("t"))
    assert [call.peer for call in web.calls] == ["first", "first", "second", "second"]


def dated_tls(pki: Pki, days: tuple[float, float], folder: Path) -> ssl.SSLContext:
    """Show a certificate for localhost that is valid between two days, counted from now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    usual = x509.load_pem_x509_certificate(pki.server_cert.read_bytes())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(usual.issuer, usual.subject, usual.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )
    for extension in usual.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signed = builder.sign(pki._ca_key, hashes.SHA256())
    path = folder / "dated.pem"
    path.write_bytes(signed.public_bytes(Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(path, pki.server_key)
    return context


def test_dates_that_seem_wrong_are_named_clock_and_tried_again_as_soon_as_it_is_set(
    service: JobsService,
    site: Site,
    tmp_path: Path,
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    pki: Pki,
) -> None:
    reading = Reading(wall=5.0, boot=1000.0, synchronised=False)
    with WebJobsService(service, tls=dated_tls(pki, (1, 9), tmp_path)) as early:
        link = replace(site.link, port=early.port)
        _, inbox = new_transport(
            replace(site, link=link), roll=0.999, read_clock=lambda: reading, limits=Limits(clock_look=0.1)
        )
        reason = inbox.next(Disconnected).reason
        assert f"localhost:{link.port} is not trusted: certificate is not yet valid" in reason
        assert "; clock: this device says 1970-01-01 00:00 UTC, and no time service has set it yet" in reason
        port = early.port
    with WebJobsService(service, port=port, tls=server_tls(pki)):
        began = time.monotonic()
        reading = Reading(wall=1.8e9, boot=1005.0, synchronised=True)
        inbox.skip_to(Connected)
        assert time.monotonic() - began < 1.5, "the wait alone would be 2 s"


# --- proxies --------------------------------------------------------------------------------------------------------


@dataclass
class Proxy:
    """An HTTP proxy, or a SOCKS 5 one, that leads every connection to one port; `says` in the place of a tunnel."""

    target: int
    socks: bool = False
    says: bytes = b""
    asked: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._thread, *self._threads):
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(near,)))
                self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if not (self._greet_socks if self.socks else self._greet_http)(near):
                return
            with socket.create_connection(("127.0.0.1", self.target)) as far:
                back = threading.Thread(target=carry, args=(far, near))
                back.start()
                carry(near, far)
                back.join()

    def _greet_http(self, near: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        self.asked.append(head)
        near.sendall(self.says or b"HTTP/1.1 200 Connection established\r\n\r\n")
        return not self.says

    def _greet_socks(self, near: socket.socket) -> bool:
        near.recv(2 + near.recv(2)[1])
        near.sendall(b"\x05\x00")
        asked = near.recv(4096)
        self.asked.append(asked)
        near.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return True


def carry(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes one way until the end, and end the other way with it."""
    with contextlib.suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
    for sock in (near, far):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def new_proxy(web: WebJobsService) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(**more: Any) -> Proxy:
        made.append(Proxy(web.port, **more))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()


def test_a_proxy_is_gone_through_with_its_user_and_the_environment_has_no_say(
    site: Site,
    new_proxy: Callable[..., Proxy],
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    proxy = new_proxy()
    _, inbox = new_transport()
    inbox.next(Connected)
    assert not proxy.asked
    _, inbox = new_transport(replace(site, proxy=f"http://me:pass%40word@127.0.0.1:{proxy.port}"))
    inbox.next(Connected)
    assert f"CONNECT localhost:{site.link.port} ".encode() in proxy.asked[0]
    assert b"Proxy-Authorization: Basic bWU6cGFzc0B3b3Jk" in proxy.asked[0]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required; has connection"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden; is it right, and may it reach the endpoint?"),
        (b"garbage\r\n\r\n", "what answers does not speak HTTP as we do, by the proxy"),
    ],
)
def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
    site: Site,
    new_proxy: Callable[..., Proxy],
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    says: bytes,
    words: str,
) -> None:
    proxy = new_proxy(says=says)
    _, inbox = new_transport(replace(site, proxy=f"http://me:password@127.0.0.1:{proxy.port}"))
    reason = inbox.next(Disconnected).reason
    assert f"the proxy 127.0.0.1:{proxy.port}" in reason
    assert words in reason
    assert "password@" not in reason


def test_a_proxy_that_is_not_there_is_named(
    site: Site, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    _, inbox = new_transport(replace(site, proxy=f"http://127.0.0.1:{port}"))
    assert f"the proxy 127.0.0.1:{port} does not let us through: " in inbox.next(Disconnected).reason


def test_through_a_socks_proxy_the_proxy_looks_up_the_name(
    site: Site,
    new_proxy: Callable[..., Proxy],
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    require: Callable[[str], str],
) -> None:
    require("socks")
    proxy = new_proxy(socks=True)
    _, inbox = new_transport(replace(site, proxy=f"socks5://127.0.0.1:{proxy.port}"))
    inbox.next(Connected)
    assert b"\x03\x09localhost" in proxy.asked[0]


def test_a_socks_proxy_without_the_library_says_what_to_install(
    site: Site, new_transport: Callable[..., tuple[HttpsTransport, Inbox]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    _, inbox = new_transport(replace(site, proxy="socks5://127.0.0.1:1080"))
    assert "needs PySocks: install it (pip install PySocks)" in inbox.next(Disconnected).reason


def test_port_443_is_asked_for_the_protocol_that_aws_iot_wants_there(
    service: JobsService,
    site: Site,
    new_proxy: Callable[..., Proxy],
    new_transport: Callable[..., tuple[HttpsTransport, Inbox]],
    pki: Pki,
) -> None:
    offered: list[str | None] = []
    tls = server_tls(pki)
    tls.set_alpn_protocols(["x-amzn-http-ca", "http/1.1"])
    with WebJobsService(service, tls=tls) as serving:
        assert serving._server is not None
        close = serving._server.shutdown_request

        def note(request: Any) -> None:
            offered.append(request.selected_alpn_protocol())
            close(request)

        serving._server.shutdown_request = note  # type: ignore[method-assign]
        proxy = new_proxy()
        proxy.target = serving.port
        for port in (443, 8443):
            link = replace(site.link, port=port)
            transport, inbox = new_transport(replace(site, link=link, proxy=f"http://127.0.0.1:{proxy.port}"))
            inbox.next(Connected)
            transport.stop()
        while len(offered) < 2:
            time.sleep(0.01)
    assert offered == ["x-amzn-http-ca", "http/1.1"]


# --- an independent service -----------------------------------------------------------------------------------------


def forwarding(ministack: Ministack) -> Callable[[Call], Answer]:
    """Return what has ministack answer. It speaks plain HTTP, so the server before it is its TLS."""

    def forward(call: Call) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", ministack.port, timeout=10)
        with contextlib.closing(connection):
            path = f"{call.path}{'?' * bool(call.query)}{call.query}"
            connection.request(call.method, path, call.body or None, dict(call.headers))
            response = connection.getresponse()
            body = response.read()
            kept = ("content-type", "x-amzn-errortype", "x-amzn-requestid")
            headers = {name: value for name, value in response.getheaders() if name.lower() in kept}
            return Answer(response.status, body, headers)

    return forward


@pytest.fixture
def emulated(
    ministack: Ministack, signed: tuple[WebJobsService, Site], new_asker: Callable[[Site], Asker]
) -> tuple[Asker, Any]:
    """Two jobs for a thing of ministack's, which knows by the signature which of its services is meant."""
    serving, site = signed
    serving.interpose(forwarding(ministack))
    thing = ThingName("https-pump_1")
    ministack.new_thing(thing)
    iot = ministack.boto("iot")
    arn = iot.describe_thing(thingName=thing)["thingArn"]
    asker = new_asker(replace(site, link=replace(site.link, thing=thing), signer=Signer("us-east-1")))
    assert asker.ask(DescribeNext("t")) == Described("t", None)
    for job_id in ("https-1", "https-2"):
        iot.create_job(jobId=job_id, targets=[arn], document=json.dumps(DOCUMENT))
    return asker, iot


def test_ministack_and_the_transport_understand_each_other(emulated: tuple[Asker, Any]) -> None:
    asker, iot = emulated
    head = asker.ask(DescribeNext("t"))
    assert isinstance(head, Described)
    assert head.execution is not None
    assert (head.execution.identity.job_id, head.execution.document) == ("https-1", DOCUMENT)
    claimed = asker.ask(update("t", "https-1", details={"claim": "c"}, step_timeout_minutes=15, with_document=True))
    held = State(Status.IN_PROGRESS, 2, {"claim": "c"})
    assert claimed == Updated("t", held, DOCUMENT)

    pending = asker.ask(GetPending("t"))
    assert isinstance(pending, Pending)
    assert [summary.identity.job_id for summary in (*pending.in_progress, *pending.queued)] == ["https-1", "https-2"]

    requests: list[tuple[Request, Refusal, State | None]] = [
        (update("t", "https-1", 1, details={"claim": "c"}), Refusal.VERSION_MISMATCH, held),
        (Describe("t", JobId("never"), 1), Refusal.RESOURCE_NOT_FOUND, None),
        (update("t", "never"), Refusal.RESOURCE_NOT_FOUND, None),
    ]
    for request, code, state in requests:
        refused = asker.ask(request)
        assert isinstance(refused, Refused)
        assert (refused.code, refused.state) == (code, state)

    assert isinstance(asker.ask(update("t", "https-1", 2, Status.SUCCEEDED)), Updated)
    over = asker.ask(update("t", "https-1", 3, Status.SUCCEEDED))
    assert isinstance(over, Refused)
    assert over.code is Refusal.TERMINAL_STATE_REACHED
    thing = asker.site.link.thing
    assert iot.describe_job_execution(jobId="https-1", thingName=thing)["execution"]["status"] == "SUCCEEDED"


# --- stopping -------------------------------------------------------------------------------------------------------


def test_stop_during_a_slow_request_is_quick_and_leaves_nothing_behind(
    web: WebJobsService, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    transport, inbox = new_transport()
    inbox.next(Connected)
    hang = Hang(web)
    transport.send(GetPending("slow"))
    while len(web.calls) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    transport.stop()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert not transport._thread.is_alive()
    assert inbox.empty()
    hang.end()


def test_stop_while_nobody_takes_the_connection_is_quick_and_leaves_nothing_behind(
    site: Site, new_transport: Callable[..., tuple[HttpsTransport, Inbox]]
) -> None:
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # after these the kernel answers nobody
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        link = replace(site.link, host="127.0.0.1", port=listener.getsockname()[1])
        transport, inbox = new_transport(replace(site, link=link))
        time.sleep(0.2)
        began = time.monotonic()
        transport.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS
        assert not transport._thread.is_alive()
        assert inbox.empty()
