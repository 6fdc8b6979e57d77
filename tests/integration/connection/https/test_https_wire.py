"""What the transport https puts on the wire and makes of the answers, with boto3 as the judge of both.

Boto3's client for `iot-jobs-data` judges the server that the tests run, too.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.jobs import (
    Describe,
    Described,
    DescribeNext,
    GetPending,
    Pending,
    Refusal,
    Refused,
    Request,
    State,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing.web import HANG_UP, Answer, Call, WebJobsService
from thingjobs.transport.https_wire import call_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Pki, Require
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.https.conftest import Asker

    from thingjobs.testing import JobsService
    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


@pytest.fixture
def boto(web: WebJobsService, site: Site, pki: Pki, require: Require) -> Any:
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


def update(token: str, job_id: str, version: int = 1, status: Status = Status.IN_PROGRESS, **more: Any) -> Update:
    return Update(token, JobId(job_id), 1, version, status, **{"details": {}, **more})


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
    require: Require,
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
