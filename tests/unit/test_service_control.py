"""The operator's side of the simulated service, its faults on order, and its state in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import ControlPlaneError, JobsService, Lost, ManualClock, Operation, Refuse

if TYPE_CHECKING:
    from thingjobs.testing import Fault, Message, Request

THING = "pump-7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    return JobsService(clock)


def statuses(service: JobsService, thing: str = THING) -> dict[str, str]:
    return {execution.job_id: execution.status for execution in service.executions(thing)}


def running_and_queued(service: JobsService) -> None:
    service.create_job("job", {}, ["running", "waiting"])
    service.ask("running", "start-next")


def test_cancelling_a_job_spares_what_is_running(service: JobsService) -> None:
    running_and_queued(service)
    service.cancel_job("job")
    assert statuses(service, "running") == {"job": "IN_PROGRESS"}
    assert statuses(service, "waiting") == {"job": "CANCELED"}
    answer = service.ask("running", "job/update", {"status": "SUCCEEDED", "expectedVersion": 2})
    assert answer is not None
    assert answer.accepted


def test_cancelling_a_job_with_force_ends_what_is_running_too(service: JobsService) -> None:
    running_and_queued(service)
    service.cancel_job("job", force=True)
    assert statuses(service, "running") == {"job": "CANCELED"}
    assert service.next_deadline() is None


def test_a_cancelled_job_is_not_retried(service: JobsService) -> None:
    service.create_job("job", {}, [THING], retries={"ALL": 5})
    service.ask(THING, "start-next")
    service.cancel_job("job")
    service.ask(THING, "job/update", {"status": "FAILED"})
    assert statuses(service) == {"job": "FAILED"}
    assert len(service.executions(THING)) == 1


def test_what_ended_stays_as_it_is_when_its_job_is_cancelled(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    service.ask(THING, "job/update", {"status": "SUCCEEDED"})
    service.cancel_job("job", force=True)
    assert statuses(service) == {"job": "SUCCEEDED"}


def test_cancelling_a_queued_execution_stores_the_operators_details(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    service.cancel_execution(THING, "job", expected_version=1, details={"why": "wrong device"})
    cancelled = service.execution(THING, "job")
    assert (cancelled.status, dict(cancelled.details)) == ("CANCELED", {"why": "wrong device"})


def test_cancelling_a_running_execution_takes_force(service: JobsService) -> None:
    running_and_queued(service)
    with pytest.raises(ControlPlaneError, match="cannot cancel job on running: it is IN_PROGRESS") as caught:
        service.cancel_execution("running", "job")
    assert caught.value.code == "InvalidStateTransitionException"
    service.cancel_execution("running", "job", force=True)
    assert statuses(service, "running") == {"job": "CANCELED"}
    assert statuses(service, "waiting") == {"job": "QUEUED"}


def test_cancelling_is_refused_for_a_wrong_version_an_end_or_nothing_there(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"expected_version": 2}, "VersionConflictException"),
        ({"details": {"a": "line\nline"}}, "InvalidRequestException"),
    ]
    for arguments, code in cases:
        with pytest.raises(ControlPlaneError) as caught:
            service.cancel_execution(THING, "job", **arguments)
        assert caught.value.code == code
    service.cancel_execution(THING, "job")
    with pytest.raises(ControlPlaneError, match="it is CANCELED"):
        service.cancel_execution(THING, "job", force=True)
    with pytest.raises(ControlPlaneError) as caught:
        service.cancel_execution(THING, "other")
    assert caught.value.code == "ResourceNotFoundException"


def test_a_job_that_is_not_done_is_deleted_with_force_only(service: JobsService) -> None:
    running_and_queued(service)
    with pytest.raises(ControlPlaneError, match="cannot delete job job: it is not done"):
        service.delete_job("job")
    service.delete_job("job", force=True)
    assert service.executions("running") == service.executions("waiting") == ()
    answer = service.ask("running", "job/update", {"status": "SUCCEEDED"})
    assert answer is not None
    assert answer.body["code"] == "ResourceNotFound"


def test_a_cancelled_job_can_be_deleted_even_while_it_runs_on(service: JobsService) -> None:
    running_and_queued(service)
    service.cancel_job("job")
    service.delete_job("job")
    assert service.executions("running") == ()


@pytest.mark.parametrize("end", ["done", "cancelled"])
def test_a_job_that_is_done_or_cancelled_can_be_deleted_and_made_again(service: JobsService, end: str) -> None:
    service.create_job("job", {"x": 1}, [THING])
    if end == "done":
        service.ask(THING, "job/update", {"status": "SUCCEEDED"})
    else:
        service.cancel_job("job")
    service.delete_job("job")
    service.create_job("job", {"x": 2}, [THING])
    answer = service.ask(THING, "$next/get")
    assert answer is not None
    assert answer.body["execution"]["jobDocument"] == {"x": 2}
    assert answer.body["execution"]["executionNumber"] == 1


def test_one_execution_can_be_deleted_a_running_one_with_force_only(service: JobsService) -> None:
    running_and_queued(service)
    service.delete_execution("waiting", "job", 1)
    with pytest.raises(ControlPlaneError, match="cannot delete job#1 on running: it is IN_PROGRESS"):
        service.delete_execution("running", "job", 1)
    service.delete_execution("running", "job", 1, force=True)
    assert service.executions("running") == service.executions("waiting") == ()
    with pytest.raises(ControlPlaneError, match="there is no such execution"):
        service.delete_execution("running", "job", 1, force=True)


def test_a_thing_that_is_removed_loses_what_was_pending_and_keeps_what_ended(service: JobsService) -> None:
    for job_id in ("ended", "running", "queued"):
        service.create_job(job_id, {}, [THING, "other"])
    service.ask(THING, "ended/update", {"status": "SUCCEEDED"})
    service.ask(THING, "start-next")
    service.remove_thing(THING)
    assert statuses(service) == {"ended": "SUCCEEDED", "running": "REMOVED", "queued": "REMOVED"}
    assert set(statuses(service, "other").values()) == {"QUEUED"}


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_a_job_that_is_not_there_is_not_found(service: JobsService, verb: str) -> None:
    with pytest.raises(ControlPlaneError, match=f"cannot {verb} job job: there is no such job"):
        getattr(service, f"{verb}_job")("job", force=True)


@pytest.mark.parametrize(
    ("job_id", "things", "settings", "why"),
    [
        ("no spaces", [THING], {}, "its id does not match"),
        ("j" * 65, [THING], {}, "its id does not match"),
        ("job", [], {}, "it has 0 targets"),
        ("job", ["no spaces"], {}, "'no spaces' is not a thing name"),
        ("job", [THING], {"in_progress_timeout_minutes": 0}, "its in-progress timeout is 0 minutes"),
        ("job", [THING], {"in_progress_timeout_minutes": 10081}, "its in-progress timeout is 10081 minutes"),
        ("job", [THING], {"retries": {"REJECTED": 1}}, "REJECTED: only ALL, FAILED, TIMED_OUT"),
        ("job", [THING], {"retries": {"FAILED": 6, "TIMED_OUT": 5}}, "more than 10 retries"),
        ("job", [THING], {"retries": {"ALL": -1}}, "fewer than none"),
    ],
)
def test_a_job_out_of_range_is_not_made(
    service: JobsService, job_id: str, things: list[str], settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(ControlPlaneError, match=why) as caught:
        service.create_job(job_id, {}, things, **settings)
    assert caught.value.code == "InvalidRequestException"
    assert service.executions(THING) == ()


@pytest.mark.parametrize("document", [float("nan"), {1, 2}, "\ud800", {"x": "y" * 32768}])
def test_a_document_that_is_no_json_or_too_long_is_refused(service: JobsService, document: object) -> None:
    with pytest.raises(ControlPlaneError, match="cannot create job 'job': its document"):
        service.create_job("job", document, [THING])


@pytest.mark.parametrize("document", ["text", 7, None, [1, 2], {"ü": {"nested": [True]}}])
def test_any_other_json_is_delivered_as_it_is(service: JobsService, document: object) -> None:
    service.create_job("job", document, [THING])
    answer = service.ask(THING, "job/get")
    assert answer is not None
    assert answer.body["execution"]["jobDocument"] == document


def test_members_of_a_document_that_are_null_do_not_reach_the_device(service: JobsService) -> None:
    service.create_job("job", {"params": {"a": None, "b": [None, {"c": None}]}}, [THING])
    answer = service.ask(THING, "job/get")
    assert answer is not None
    assert answer.body["execution"]["jobDocument"] == {"params": {"b": [None, {}]}}


def test_a_document_is_copied_when_the_job_is_made(service: JobsService) -> None:
    document = {"x": [1]}
    service.create_job("job", document, [THING])
    document["x"].append(2)
    answer = service.ask(THING, "job/get")
    assert answer is not None
    assert answer.body["execution"]["jobDocument"] == {"x": [1]}


def test_a_thing_that_is_named_twice_gets_the_job_once(service: JobsService) -> None:
    heard: list[Message] = []
    service.listen(THING, heard.append)
    service.create_job("job", {}, iter([THING, THING]))
    assert [message.suffix for message in heard] == ["notify", "notify-next"]


def test_a_job_id_is_used_once(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    with pytest.raises(ControlPlaneError, match="it exists") as caught:
        service.create_job("job", {}, ["other"])
    assert caught.value.code == "ResourceAlreadyExistsException"


def test_a_refused_request_changes_nothing_and_echoes_its_token(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    remove = service.interpose(lambda _: Refuse("RequestThrottled"))
    answer = service.ask(THING, "job/update", {"status": "SUCCEEDED", "clientToken": "t"})
    assert answer is not None
    assert answer.suffix == "job/update/rejected"
    assert (answer.body["code"], answer.body["clientToken"]) == ("RequestThrottled", "t")
    assert statuses(service) == {"job": "QUEUED"}
    remove()
    remove()
    answer = service.ask(THING, "job/update", {"status": "SUCCEEDED"})
    assert answer is not None
    assert answer.accepted


def test_a_lost_request_is_remembered_and_does_nothing(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    service.interpose(lambda _: Lost.REQUEST)
    assert service.ask(THING, "job/update", {"status": "SUCCEEDED"}) is None
    assert statuses(service) == {"job": "QUEUED"}
    assert len(service.requests) == 1


def test_a_request_whose_reply_is_lost_is_carried_out_and_notified(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    heard: list[Message] = []
    service.listen(THING, heard.append)
    service.interpose(lambda _: Lost.REPLY)
    assert service.ask(THING, "job/update", {"status": "SUCCEEDED"}) is None
    assert statuses(service) == {"job": "SUCCEEDED"}
    assert [message.suffix for message in heard] == ["notify", "notify-next"]


def test_a_hook_may_choose_by_request_and_the_first_that_does_harm_decides(service: JobsService) -> None:
    service.create_job("job", {}, [THING])

    def throttle_updates(request: Request) -> Fault | None:
        return Refuse("RequestThrottled", "slow down") if request.operation is Operation.UPDATE else None

    service.interpose(throttle_updates)
    service.interpose(lambda _: Refuse("InternalError"))
    codes = [service.ask(THING, suffix, {"status": "FAILED"}) for suffix in ("job/update", "get")]
    assert [answer.body["code"] for answer in codes if answer] == ["RequestThrottled", "InternalError"]


def test_a_hook_may_change_the_service_before_the_request(service: JobsService) -> None:
    service.create_job("job", {}, [THING])

    def cancel_first(_: Request) -> Fault | None:
        service.cancel_job("job")
        return None

    service.interpose(cancel_first)
    answer = service.ask(THING, "job/update", {"status": "IN_PROGRESS", "expectedVersion": 1})
    assert answer is not None
    assert answer.body["executionState"]["status"] == "CANCELED"


def test_a_dump_can_be_kept_as_json_and_loaded_into_another_service(clock: ManualClock) -> None:
    service = JobsService(clock)
    service.create_job("one", {"x": 1}, [THING, "other"], in_progress_timeout_minutes=5, retries={"FAILED": 1})
    service.create_job("two", {}, [THING])
    service.ask(THING, "one/update", {"status": "FAILED", "statusDetails": {"a": "b"}})
    service.ask("other", "start-next", {"stepTimeoutInMinutes": 2})
    service.create_job("three", {}, ["hidden"])
    service.hide_queued("hidden", hidden=True)
    another = JobsService(clock)
    another.create_job("one", {"of": "another"}, [THING, "third"])
    another.load(json.loads(json.dumps(service.dump())))
    assert another.dump() == service.dump()
    assert another.executions("third") == ()
    head = another.ask("hidden", "$next/get")
    assert head is not None
    assert "execution" not in head.body
    for thing in (THING, "other"):
        assert another.executions(thing) == service.executions(thing)
    another.ask(THING, "one/update", {"status": "FAILED"})
    assert [execution.number for execution in another.executions(THING)] == [1, 1, 2]
    assert another.next_deadline() == clock() + 120


def test_a_dump_is_a_copy(service: JobsService) -> None:
    service.create_job("job", {"x": [1]}, [THING])
    dump = service.dump()
    dump["jobs"][0]["document"]["x"].append(2)
    other = JobsService(ManualClock())
    other.load(service.dump())
    dump["jobs"][0]["document"]["x"].append(3)
    answer = other.ask(THING, "job/get")
    assert answer is not None
    assert answer.body["execution"]["jobDocument"] == {"x": [1]}


@pytest.mark.parametrize("dump", [{}, {"format": 2}, {"format": 1}, {"format": 1, "jobs": [{"who": 1}]}])
def test_what_is_no_dump_is_refused_and_changes_nothing(service: JobsService, dump: dict[str, Any]) -> None:
    service.create_job("job", {}, [THING])
    with pytest.raises(ValueError, match="cannot load the jobs"):
        service.load(dump)
    assert statuses(service) == {"job": "QUEUED"}


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(100)
    assert clock() == clock() == 100
    clock.advance(2.5)
    assert clock() == 102.5
