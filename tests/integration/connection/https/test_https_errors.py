"""What errors mean to the transport https: a refusal of the service, a denial, or somebody else who answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from thingjobs.errors import TransportError
from thingjobs.jobs import (
    Connected,
    Describe,
    Disconnected,
    GetPending,
    Pending,
    Refusal,
    Refused,
    Update,
    Updated,
)
from thingjobs.model import JobId, ThingName
from thingjobs.testing.web import HANG_UP, Answer, Call, WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device
    from tests.integration.connection.https.conftest import Asker

    from thingjobs.testing import JobsService
    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


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
    web: WebJobsService, asker: Asker, answer: Answer, update: Callable[..., Update]
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
    connect: Connect,
    eventually: Callable[..., object],
    answer: Answer,
    words: str,
) -> None:
    came: list[float] = []

    def deny(_call: Call) -> Answer:
        came.append(time.monotonic())
        return answer

    web.interpose(deny)
    device = connect(roll=0.25)
    reason = device.next(Disconnected).reason
    assert f"localhost:{web.port} denies GetPendingJobExecutions ({words})" in reason
    assert f"is {site.link.certificate} active, and does its policy allow" in reason
    assert "iotjobsdata:GetPendingJobExecutions on thing/plant:a_7-b" in reason
    assert len(reason.splitlines()) == 1
    eventually(lambda: len(came) == 2)
    assert came[1] - came[0] > 0.45, "with this roll the first wait is of half a second"


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
    web: WebJobsService, connect: Connect, eventually: Callable[..., object], answer: Answer
) -> None:
    device = connect()
    device.next(Connected)
    remove = web.interpose(lambda _call: answer)
    device.send(GetPending("t1"))
    eventually(lambda: len(web.calls) == 2)
    remove()
    device.send(GetPending("t2"))
    assert device.next(Pending).token == "t2"


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
    web: WebJobsService, connect: Connect, answer: Answer, words: str
) -> None:
    device = connect()
    device.next(Connected)
    remove = web.interpose(lambda _call: answer)
    device.send(GetPending("t1"))
    reason = device.next(Disconnected).reason
    assert words in reason
    assert len(reason.splitlines()) == 1
    remove()
    device.skip_to(Connected)
    device.send(GetPending("t2"))
    assert device.next(Pending).token == "t2"


def test_an_operation_that_stays_denied_is_held_back_and_all_else_goes_on(
    web: WebJobsService,
    service: JobsService,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    update: Callable[..., Update],
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    denial = Answer(403, b"{}", named("ForbiddenException"))
    web.interpose(lambda call: denial if call.method == "POST" else None)
    device = connect()
    for _ in range(3):
        device.skip_to(Connected)
        device.send(update("t", "greet"))
        assert "iotjobsdata:UpdateJobExecution on thing/" in device.next(Disconnected).reason
    device.skip_to(Connected)
    device.send(update("held", "greet"))
    device.send(GetPending("goes"))
    assert device.next(Pending).token == "goes"
    assert [call.method for call in web.calls].count("POST") == 3
    lines = [record.getMessage() for record in caplog.records]
    assert sum("they are held back" in line for line in lines) == 1


def test_denials_between_which_it_was_allowed_hold_nothing_back(
    web: WebJobsService, service: JobsService, connect: Connect, update: Callable[..., Update]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    denial = Answer(403, b"{}", named("ForbiddenException"))
    device = connect()
    device.next(Connected)
    for version in (1, 2):
        remove = web.interpose(lambda call: denial if call.method == "POST" else None)
        for _ in range(2):
            device.send(update("t", "greet", version))
            device.next(Disconnected)
            device.next(Connected)
        remove()
        device.send(update("t", "greet", version))
        device.next(Updated)
