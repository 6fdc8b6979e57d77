"""What the simulated service makes of requests: topics, JSON, members and status details."""

from __future__ import annotations

import json
import string
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs.testing import JobsService, ManualClock, Message, Operation

THING = "pump-7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    service = JobsService(clock)
    service.create_job("greet", {"handler": "greet"}, [THING])
    return service


def sent(service: JobsService, suffix: str, payload: bytes) -> list[Message]:
    answers: list[Message] = []
    service.handle(THING, suffix, payload, answers.append)
    return answers


def answered(service: JobsService, suffix: str, **members: Any) -> dict[str, Any]:
    answer = service.ask(THING, suffix, members)
    assert answer is not None
    return answer.body


def code_of(service: JobsService, suffix: str, **members: Any) -> str:
    code: str = answered(service, suffix, **members)["code"]
    return code


@pytest.mark.parametrize(
    "suffix",
    [
        "get/accepted",
        "notify",
        "notify-next",
        "greet/get/accepted",
        "greet/delete",
        "$next/update",
        "$next/start-next",
        "no spaces/get",
        "/get",
        "greet",
        "",
        "get/get",
        "start-next/update",
        "notify/update",
        "notify-next/get",
    ],
)
def test_a_topic_that_is_no_request_is_ignored(service: JobsService, suffix: str) -> None:
    assert sent(service, suffix, b"{}") == []
    assert service.requests == ()


def test_a_job_with_the_name_of_an_operation_shows_in_lists_only(clock: ManualClock) -> None:
    service = JobsService(clock)
    service.create_job("start-next", {}, [THING])
    assert answered(service, "get")["queuedJobs"][0]["jobId"] == "start-next"
    assert answered(service, "$next/get")["execution"]["jobId"] == "start-next"
    assert service.ask(THING, "start-next/get") is None


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b'"get"', b"null", b'{"a":"\xff"}', b'{"a":NaN}', b"[" * 100_000, '{"a":1}'.encode("utf-16")],
)
def test_what_is_not_a_json_object_in_utf8_is_invalid_json_and_no_token_comes_back(
    service: JobsService, payload: bytes
) -> None:
    (answer,) = sent(service, "greet/update", payload)
    assert answer.suffix == "greet/update/rejected"
    assert answer.body["code"] == "InvalidJson"
    assert "clientToken" not in answer.body


def test_a_payload_over_128_kib_is_dropped(service: JobsService) -> None:
    padding = " " * (128 * 1024 - 2)
    assert sent(service, "get", f"{{}}{padding}".encode()) != []
    assert sent(service, "get", f"{{}}{padding} ".encode()) == []


@pytest.mark.parametrize("suffix", ["get", "start-next", "$next/get", "greet/get", "greet/update", "other/get"])
def test_the_client_token_comes_back_as_it_was(service: JobsService, suffix: str) -> None:
    assert answered(service, suffix, clientToken="t 1 é")["clientToken"] == "t 1 é"
    assert "clientToken" not in answered(service, suffix)


@pytest.mark.parametrize("token", [1, ["t"], "\ud800"])
def test_a_client_token_that_is_no_string_is_refused(service: JobsService, token: object) -> None:
    (answer,) = sent(service, "get", json.dumps({"clientToken": token}).encode())
    assert answer.body["code"] == "InvalidRequest"
    assert "clientToken" not in answer.body


def test_an_answer_goes_to_the_topic_of_its_request(service: JobsService) -> None:
    answer = service.ask(THING, "$next/get")
    assert answer is not None
    assert answer.topic == "$aws/things/pump-7/jobs/$next/get/accepted"


def test_times_are_whole_seconds(service: JobsService, clock: ManualClock) -> None:
    clock.advance(1.9)
    service.create_job("second", {}, [THING])
    body = answered(service, "second/get")
    assert body["timestamp"] == int(clock()) == body["execution"]["queuedAt"]
    assert isinstance(body["timestamp"], int)


@pytest.mark.parametrize("status", [None, "SUCCESS", "succeeded", "", 1, ["FAILED"]])
def test_an_update_without_a_known_status_is_an_invalid_request(service: JobsService, status: object) -> None:
    assert code_of(service, "greet/update", status=status) == "InvalidRequest"
    assert code_of(service, "greet/update") == "InvalidRequest"


@pytest.mark.parametrize("status", ["QUEUED", "TIMED_OUT", "CANCELED", "REMOVED"])
def test_a_status_of_the_service_alone_is_an_invalid_transition_without_state(
    service: JobsService, status: str
) -> None:
    body = answered(service, "greet/update", status=status)
    assert body["code"] == "InvalidStateTransition"
    assert "executionState" not in body
    assert service.execution(THING, "greet").version == 1


@pytest.mark.parametrize("minutes", [1, 10080, -1, "15"])
def test_a_step_timeout_in_range_is_taken(service: JobsService, minutes: object) -> None:
    assert "code" not in answered(service, "greet/update", status="IN_PROGRESS", stepTimeoutInMinutes=minutes)


@pytest.mark.parametrize("minutes", [0, -2, 10081, 1.5, True, "soon", "", {}])
@pytest.mark.parametrize("suffix", ["greet/update", "start-next"])
def test_a_step_timeout_out_of_range_is_refused(service: JobsService, suffix: str, minutes: object) -> None:
    assert code_of(service, suffix, status="IN_PROGRESS", stepTimeoutInMinutes=minutes) == "InvalidRequest"
    assert service.execution(THING, "greet").version == 1


@pytest.mark.parametrize("version", [1, "1", None])
def test_the_expected_version_may_be_a_number_a_quoted_number_or_missing(service: JobsService, version: object) -> None:
    assert "code" not in answered(service, "greet/update", status="IN_PROGRESS", expectedVersion=version)


@pytest.mark.parametrize("member", ["expectedVersion", "executionNumber"])
@pytest.mark.parametrize("value", [True, 1.0, "one", "1 ", [], "9" * 30])
def test_a_number_that_is_none_is_refused(service: JobsService, member: str, value: object) -> None:
    assert code_of(service, "greet/update", status="IN_PROGRESS", **{member: value}) == "InvalidRequest"


@pytest.mark.parametrize("member", ["includeJobDocument", "includeJobExecutionState"])
def test_a_flag_that_is_none_is_refused(service: JobsService, member: str) -> None:
    assert code_of(service, "greet/update", status="IN_PROGRESS", **{member: "true"}) == "InvalidRequest"


def test_members_that_nobody_knows_are_ignored(service: JobsService) -> None:
    assert "code" not in answered(service, "greet/get", thingName="another", jobId="another", x=[1])


def test_the_document_comes_with_get_unless_declined_and_with_update_only_if_asked(service: JobsService) -> None:
    assert answered(service, "greet/get")["execution"]["jobDocument"] == {"handler": "greet"}
    assert "jobDocument" not in answered(service, "greet/get", includeJobDocument=False)["execution"]
    assert "jobDocument" not in answered(service, "greet/update", status="IN_PROGRESS")
    asked = answered(service, "greet/update", status="IN_PROGRESS", includeJobDocument=True)
    assert asked["jobDocument"] == {"handler": "greet"}


def test_the_version_comes_with_an_update_only_if_asked(service: JobsService) -> None:
    assert set(answered(service, "greet/update", status="IN_PROGRESS")) == {"timestamp"}
    asked = answered(service, "greet/update", status="IN_PROGRESS", includeJobExecutionState=True)
    assert asked["executionState"] == {"status": "IN_PROGRESS", "versionNumber": 3}


def test_status_details_are_kept_when_legal(service: JobsService) -> None:
    details = {f"key:{number}-_": "é" * 512 for number in range(10)}
    assert "code" not in answered(service, "greet/update", status="IN_PROGRESS", statusDetails=details)
    assert service.execution(THING, "greet").details == details


@pytest.mark.parametrize(
    "details",
    [
        {str(number): "x" for number in range(11)},
        {"": "x"},
        {"k" * 129: "x"},
        {"a.b": "x"},
        {"a b": "x"},
        {"é": "x"},
        {"a\n": "x"},
        {"a": ""},
        {"a": "x" * 1025},
        {"a": "é" * 513},
        {"a": "line\nline"},
        {"a": "tab\t"},
        {"a": "\x1b[31m"},
        {"a": "\ud800"},
        {"a": "zero\u200dwidth"},
        {"a": "\ue000"},
        {"a": "\u0378"},
        {"a": 1},
        {"a": True},
        {"a": None},
        {"a": {"b": "c"}},
        ["a"],
        "a",
        7,
    ],
)
def test_illegal_status_details_cost_the_whole_update(service: JobsService, details: object) -> None:
    payload = json.dumps({"status": "SUCCEEDED", "statusDetails": details}).encode()
    (answer,) = sent(service, "greet/update", payload)
    assert answer.body["code"] == "InvalidRequest"
    assert service.execution(THING, "greet").status == "QUEUED"


KEYS = st.text(string.ascii_letters + string.digits + ":_-", min_size=1, max_size=128)
VALUES = st.text(min_size=1, max_size=300)


@settings(max_examples=settings().max_examples // 3, deadline=None)
@given(details=st.dictionaries(KEYS, VALUES, min_size=1, max_size=12))
def test_details_are_stored_as_sent_or_refused_by_the_published_rules(details: dict[str, str]) -> None:
    service = JobsService(ManualClock())
    service.create_job("greet", {}, [THING])
    payload = json.dumps({"status": "IN_PROGRESS", "statusDetails": details}).encode()
    (answer,) = sent(service, "greet/update", payload)
    legal = len(details) <= 10 and all(
        not unicodedata.category(char).startswith("C") for value in details.values() for char in value
    )
    legal = legal and all(len(value.encode()) <= 1024 for value in details.values())
    assert answer.accepted is legal
    assert dict(service.execution(THING, "greet").details) == (details if legal else {})


@settings(max_examples=settings().max_examples // 3, deadline=None)
@given(payload=st.binary(max_size=200), suffix=st.sampled_from(["get", "start-next", "greet/get", "greet/update"]))
def test_no_payload_whatever_breaks_the_service(payload: bytes, suffix: str) -> None:
    service = JobsService(ManualClock())
    service.create_job("greet", {}, [THING])
    (answer,) = sent(service, suffix, payload)
    assert answer.suffix in (f"{suffix}/accepted", f"{suffix}/rejected")


def test_every_request_is_remembered_with_its_operation(service: JobsService) -> None:
    service.ask(THING, "get", {"clientToken": "a"})
    service.ask(THING, "start-next")
    service.ask(THING, "$next/get")
    service.ask("other", "greet/update", {"status": "IN_PROGRESS", "expectedVersion": 1})
    sent(service, "greet/get", b"no JSON")
    assert [(request.thing, request.operation, request.job_id) for request in service.requests] == [
        (THING, Operation.GET_PENDING, ""),
        (THING, Operation.START_NEXT, ""),
        (THING, Operation.DESCRIBE, "$next"),
        ("other", Operation.UPDATE, "greet"),
        (THING, Operation.DESCRIBE, "greet"),
    ]
    assert service.requests[3].body == {"status": "IN_PROGRESS", "expectedVersion": 1}
    assert service.requests[4].body is None
