"""The transport https with AWS credentials in the place of a certificate, and an independent service behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.errors import TransportError
from thingjobs.jobs import (
    Connected,
    Describe,
    Described,
    DescribeNext,
    Disconnected,
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
from thingjobs.testing.web import Answer, Call, WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ministack
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.https.conftest import Asker, Signer

    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


def test_without_credentials_the_reason_is_theirs_and_it_goes_on_trying(
    signed: tuple[WebJobsService, Site], new_signer: type[Signer], connect: Connect
) -> None:
    signer = new_signer(error=TransportError("cannot find AWS credentials: there are none"))
    device = connect(replace(signed[1], signer=signer))
    assert device.next(Disconnected).reason == "cannot find AWS credentials: there are none"
    signer.error = None
    device.skip_to(Connected)


def test_credentials_that_are_refused_are_fetched_anew(
    signed: tuple[WebJobsService, Site], new_signer: type[Signer], connect: Connect
) -> None:
    serving, site = signed
    headers = {"x-amzn-ErrorType": "ExpiredTokenException"}
    remove = serving.interpose(lambda _call: Answer(403, b'{"message":"expired"}', headers))
    device = connect(site)
    reason = device.next(Disconnected).reason
    assert "403 ExpiredTokenException: expired" in reason
    assert "do the credentials allow iotjobsdata:GetPendingJobExecutions on thing/plant:a_7-b" in reason
    remove()
    device.skip_to(Connected)
    assert isinstance(site.signer, new_signer)
    assert site.signer.refusals


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
    ministack: Ministack,
    signed: tuple[WebJobsService, Site],
    new_signer: type[Signer],
    new_asker: Callable[[Site], Asker],
) -> tuple[Asker, Any]:
    """Two jobs for a thing of ministack's, which knows by the signature which of its services is meant."""
    serving, site = signed
    serving.interpose(forwarding(ministack))
    thing = ThingName("https-pump_1")
    ministack.new_thing(thing)
    iot = ministack.boto("iot")
    arn = iot.describe_thing(thingName=thing)["thingArn"]
    asker = new_asker(replace(site, link=replace(site.link, thing=thing), signer=new_signer("us-east-1")))
    assert asker.ask(DescribeNext("t")) == Described("t", None)
    for job_id in ("https-1", "https-2"):
        iot.create_job(jobId=job_id, targets=[arn], document=json.dumps(DOCUMENT))
    return asker, iot


def test_ministack_and_the_transport_understand_each_other(
    emulated: tuple[Asker, Any], update: Callable[..., Update]
) -> None:
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
