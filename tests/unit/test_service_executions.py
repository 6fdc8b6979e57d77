"""How executions live in the simulated service: versions, transitions, timers and retries."""

from __future__ import annotations

from typing import Any

import pytest

from thingjobs.testing import JobsService, ManualClock

THING = "pump-7"
MINUTE = 60


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    return JobsService(clock)


def answered(service: JobsService, suffix: str, **members: Any) -> dict[str, Any]:
    answer = service.ask(THING, suffix, members)
    assert answer is not None
    return answer.body


def update(service: JobsService, status: str, job_id: str = "job", **members: Any) -> dict[str, Any]:
    return answered(service, f"{job_id}/update", status=status, **members)


def seconds_left(service: JobsService) -> object:
    return answered(service, "job/get")["execution"].get("approximateSecondsBeforeTimedOut")


def test_a_new_execution_is_queued_at_version_1_with_number_1(service: JobsService) -> None:
    service.create_job("job", {"x": 1}, [THING])
    body = answered(service, "job/get")
    now = body["timestamp"]
    assert body["execution"] == {
        "jobId": "job",
        "thingName": THING,
        "status": "QUEUED",
        "queuedAt": now,
        "lastUpdatedAt": now,
        "versionNumber": 1,
        "executionNumber": 1,
        "jobDocument": {"x": 1},
    }


def test_start_next_starts_the_head_and_says_when(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING])
    clock.advance(5)
    execution = answered(service, "start-next", statusDetails={"step": "accepted"})["execution"]
    assert (execution["status"], execution["versionNumber"]) == ("IN_PROGRESS", 2)
    assert execution["statusDetails"] == {"step": "accepted"}
    assert execution["startedAt"] == execution["lastUpdatedAt"] == execution["queuedAt"] + 5


def test_when_it_was_started_does_not_change_with_progress(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING])
    answered(service, "start-next")
    started = clock()
    clock.advance(5)
    update(service, "IN_PROGRESS")
    execution = answered(service, "job/get")["execution"]
    assert (execution["startedAt"], execution["lastUpdatedAt"]) == (started, started + 5)


def test_start_next_gives_an_execution_in_progress_again_unchanged(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING])
    answered(service, "start-next", statusDetails={"step": "one"})
    before = service.execution(THING, "job")
    clock.advance(5)
    again = answered(service, "start-next", statusDetails={"step": "two"}, stepTimeoutInMinutes=5)
    assert again["execution"]["statusDetails"] == {"step": "one"}
    assert service.execution(THING, "job") == before


@pytest.mark.parametrize("suffix", ["start-next", "$next/get"])
def test_with_nothing_pending_the_answer_is_accepted_and_has_no_execution(service: JobsService, suffix: str) -> None:
    answer = service.ask(THING, suffix)
    assert answer is not None
    assert answer.accepted
    assert set(answer.body) == {"timestamp"}


def test_looking_at_the_head_changes_nothing(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    before = service.execution(THING, "job")
    assert answered(service, "$next/get")["execution"]["status"] == "QUEUED"
    assert service.execution(THING, "job") == before


def test_each_accepted_update_raises_the_version_by_one(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    for expected in (2, 3, 4):
        body = update(service, "IN_PROGRESS", expectedVersion=expected - 1, includeJobExecutionState=True)
        assert body["executionState"]["versionNumber"] == expected
    update(service, "SUCCEEDED", expectedVersion=4)
    assert [change.version for change in service.execution(THING, "job").history] == [1, 2, 3, 4, 5]


def test_a_wrong_version_is_refused_with_what_is_stored(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    update(service, "IN_PROGRESS", statusDetails={"claim": "abc"})
    body = update(service, "SUCCEEDED", expectedVersion=1)
    assert body["code"] == "VersionMismatch"
    assert body["executionState"] == {
        "status": "IN_PROGRESS",
        "statusDetails": {"claim": "abc"},
        "versionNumber": 2,
    }


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "REJECTED"])
@pytest.mark.parametrize("started", [True, False])
def test_a_device_may_end_a_queued_or_a_running_execution(service: JobsService, status: str, *, started: bool) -> None:
    service.create_job("job", {}, [THING])
    if started:
        update(service, "IN_PROGRESS")
    assert "code" not in update(service, status)
    assert service.execution(THING, "job").status == status


@pytest.mark.parametrize("status", ["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"])
def test_a_terminal_execution_never_changes(service: JobsService, status: str) -> None:
    service.create_job("job", {}, [THING])
    update(service, "SUCCEEDED", statusDetails={"a": "b"})
    before = service.execution(THING, "job")
    body = update(service, status, statusDetails={"c": "d"})
    assert body["code"] == "InvalidStateTransition"
    assert body["executionState"] == {"status": "SUCCEEDED", "statusDetails": {"a": "b"}, "versionNumber": 2}
    assert service.execution(THING, "job") == before


def test_an_update_to_a_terminal_execution_can_be_refused_without_state(clock: ManualClock) -> None:
    service = JobsService(clock, terminal_update_code="TerminalStateReached")
    service.create_job("job", {}, [THING])
    update(service, "SUCCEEDED")
    body = update(service, "SUCCEEDED")
    assert body["code"] == "TerminalStateReached"
    assert "executionState" not in body


@pytest.mark.parametrize(("version_first", "code"), [(False, "InvalidStateTransition"), (True, "VersionMismatch")])
def test_which_of_two_refusals_comes_first_can_be_chosen(clock: ManualClock, code: str, *, version_first: bool) -> None:
    service = JobsService(clock, version_first=version_first)
    service.create_job("job", {}, [THING])
    update(service, "SUCCEEDED", expectedVersion=1)
    body = update(service, "SUCCEEDED", expectedVersion=1)
    assert body["code"] == code
    assert body["executionState"] == {"status": "SUCCEEDED", "versionNumber": 2}


def test_a_terminal_execution_cannot_be_described(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    update(service, "FAILED")
    assert answered(service, "job/get")["code"] == "TerminalStateReached"
    assert "executionState" not in answered(service, "job/get")


@pytest.mark.parametrize("suffix", ["other/get", "other/update"])
def test_what_is_unknown_is_not_found(service: JobsService, suffix: str) -> None:
    service.create_job("job", {}, [THING])
    service.create_job("other", {}, ["another-thing"])
    assert answered(service, suffix, status="IN_PROGRESS")["code"] == "ResourceNotFound"


@pytest.mark.parametrize("suffix", ["job/get", "job/update"])
def test_another_execution_number_is_not_found(service: JobsService, suffix: str) -> None:
    service.create_job("job", {}, [THING])
    assert answered(service, suffix, status="IN_PROGRESS", executionNumber=2)["code"] == "ResourceNotFound"
    assert "code" not in answered(service, suffix, status="IN_PROGRESS", executionNumber=1)


@pytest.mark.parametrize("nothing", [{}, {"statusDetails": None}, {"statusDetails": {}}])
def test_details_that_are_left_out_stay_as_they_are(service: JobsService, nothing: dict[str, Any]) -> None:
    service.create_job("job", {}, [THING])
    update(service, "IN_PROGRESS", statusDetails={"a": "1", "b": "2"})
    update(service, "IN_PROGRESS", **nothing)
    assert service.execution(THING, "job").details == {"a": "1", "b": "2"}


def test_details_that_are_given_replace_all_earlier_ones(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    update(service, "IN_PROGRESS", statusDetails={"a": "1", "b": "2"})
    update(service, "IN_PROGRESS", statusDetails={"b": "3"})
    assert service.execution(THING, "job").details == {"b": "3"}


def test_pending_executions_are_listed_running_first_then_by_queue_time(
    service: JobsService, clock: ManualClock
) -> None:
    for job_id in ("one", "two", "three", "four"):
        service.create_job(job_id, {}, [THING])
        clock.advance(1)
    update(service, "IN_PROGRESS", job_id="three")
    clock.advance(1)
    update(service, "IN_PROGRESS", job_id="two")
    body = answered(service, "get")
    assert [job["jobId"] for job in body["inProgressJobs"]] == ["two", "three"]
    assert [job["jobId"] for job in body["queuedJobs"]] == ["one", "four"]
    assert answered(service, "$next/get")["execution"]["jobId"] == "two"
    assert "status" not in body["queuedJobs"][0]
    assert "startedAt" in body["inProgressJobs"][0]
    assert "startedAt" not in body["queuedJobs"][0]


def test_jobs_queued_in_the_same_instant_keep_their_order(service: JobsService) -> None:
    for job_id in ("b", "a", "c"):
        service.create_job(job_id, {}, [THING])
    assert [job["jobId"] for job in answered(service, "get")["queuedJobs"]] == ["b", "a", "c"]


def test_what_runs_keeps_the_order_of_queueing_however_it_was_started(service: JobsService) -> None:
    for job_id in ("b", "a", "c"):
        service.create_job(job_id, {}, [THING])
    service.delete_job("b", force=True)
    service.create_job("b", {}, [THING])
    for job_id in ("b", "c", "a"):
        update(service, "IN_PROGRESS", job_id=job_id)
    assert [job["jobId"] for job in answered(service, "get")["inProgressJobs"]] == ["a", "c", "b"]


def test_no_more_than_ten_executions_are_listed(service: JobsService) -> None:
    for number in range(12):
        service.create_job(f"job-{number}", {}, [THING])
    update(service, "IN_PROGRESS", job_id="job-11")
    body = answered(service, "get")
    assert len(body["inProgressJobs"]) == 1
    assert [job["jobId"] for job in body["queuedJobs"]] == [f"job-{number}" for number in range(9)]


def test_a_queued_execution_has_no_timer(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=1)
    clock.advance(1000 * MINUTE)
    service.tick()
    assert seconds_left(service) is None
    assert service.next_deadline() is None
    assert service.execution(THING, "job").status == "QUEUED"


def test_the_in_progress_timer_runs_from_the_start_and_cannot_be_extended(
    service: JobsService, clock: ManualClock
) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=20)
    clock.advance(100 * MINUTE)
    update(service, "IN_PROGRESS")
    assert seconds_left(service) == 20 * MINUTE
    clock.advance(19 * MINUTE)
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=60)
    assert seconds_left(service) == MINUTE
    assert service.next_deadline() == clock() + MINUTE


def test_timers_fire_only_at_a_tick_and_updates_are_taken_until_then(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=20)
    update(service, "IN_PROGRESS")
    clock.advance(20 * MINUTE + 30)
    assert seconds_left(service) == 0
    assert "code" not in update(service, "SUCCEEDED")
    service.tick()
    assert service.execution(THING, "job").status == "SUCCEEDED"


def test_a_timer_that_is_due_times_the_execution_out(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=20)
    update(service, "IN_PROGRESS", statusDetails={"a": "b"})
    clock.advance(20 * MINUTE - 1)
    service.tick()
    assert service.execution(THING, "job").status == "IN_PROGRESS"
    clock.advance(1)
    service.tick()
    timed_out = service.execution(THING, "job")
    assert (timed_out.status, timed_out.version, timed_out.details) == ("TIMED_OUT", 2, {"a": "b"})
    assert update(service, "SUCCEEDED", expectedVersion=2)["executionState"]["status"] == "TIMED_OUT"
    assert service.next_deadline() is None


def test_changes_that_the_service_makes_can_be_counted_too(clock: ManualClock) -> None:
    service = JobsService(clock, count_service_changes=True)
    service.create_job("job", {}, [THING])
    service.cancel_job("job")
    assert service.execution(THING, "job").version == 2


def test_the_sooner_timer_counts_and_a_new_step_timeout_replaces_the_old_one(
    service: JobsService, clock: ManualClock
) -> None:
    # The worked example of the developer guide: in-progress 20 min from 12:00, step timers at 12:05, 12:10, 12:13.
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=20)
    update(service, "IN_PROGRESS")
    clock.advance(5 * MINUTE)
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=7)
    assert seconds_left(service) == 7 * MINUTE
    clock.advance(5 * MINUTE)
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=5)
    assert seconds_left(service) == 5 * MINUTE
    clock.advance(3 * MINUTE)
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=9)
    assert seconds_left(service) == 7 * MINUTE
    clock.advance(7 * MINUTE)
    service.tick()
    assert service.execution(THING, "job").status == "TIMED_OUT"


def test_an_update_without_step_timeout_leaves_the_step_timer_counting(
    service: JobsService, clock: ManualClock
) -> None:
    service.create_job("job", {}, [THING])
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=5)
    clock.advance(4 * MINUTE)
    update(service, "IN_PROGRESS", statusDetails={"progress": "80"})
    assert seconds_left(service) == MINUTE
    clock.advance(MINUTE)
    service.tick()
    assert service.execution(THING, "job").status == "TIMED_OUT"


def test_minus_one_stops_the_step_timer_and_only_that(service: JobsService) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=20)
    answered(service, "start-next", stepTimeoutInMinutes=5)
    assert seconds_left(service) == 5 * MINUTE
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=-1)
    assert seconds_left(service) == 20 * MINUTE


def test_a_terminal_status_stops_both_timers(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=5)
    update(service, "IN_PROGRESS", stepTimeoutInMinutes=5)
    update(service, "FAILED", stepTimeoutInMinutes=5)
    clock.advance(10 * MINUTE)
    service.tick()
    assert service.execution(THING, "job").status == "FAILED"
    assert service.execution(THING, "job").due is None


def test_a_failed_execution_is_retried_as_often_as_its_job_says(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], retries={"FAILED": 2})
    for number in (1, 2, 3):
        assert service.execution(THING, "job").number == number
        clock.advance(1)
        update(service, "FAILED", executionNumber=number, expectedVersion=1)
    assert [execution.status for execution in service.executions(THING)] == ["FAILED"] * 3
    assert answered(service, "get")["queuedJobs"] == []


def test_a_retry_is_a_new_execution_and_the_old_one_stays_as_it_ended(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], retries={"ALL": 1})
    update(service, "IN_PROGRESS", statusDetails={"a": "b"})
    clock.advance(3)
    update(service, "FAILED")
    head = answered(service, "$next/get")["execution"]
    assert (head["executionNumber"], head["versionNumber"], head["status"]) == (2, 1, "QUEUED")
    assert "statusDetails" not in head
    assert head["queuedAt"] == clock()
    assert service.execution(THING, "job", 1).status == "FAILED"
    assert answered(service, "job/get", executionNumber=1)["code"] == "TerminalStateReached"
    assert update(service, "SUCCEEDED", executionNumber=1)["executionState"]["status"] == "FAILED"


@pytest.mark.parametrize("status", ["SUCCEEDED", "REJECTED"])
def test_success_and_rejection_are_never_retried(service: JobsService, status: str) -> None:
    service.create_job("job", {}, [THING], retries={"ALL": 10})
    update(service, status)
    assert len(service.executions(THING)) == 1


def test_retries_are_counted_by_kind_of_failure(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=1, retries={"TIMED_OUT": 1})
    update(service, "IN_PROGRESS")
    clock.advance(MINUTE)
    service.tick()
    assert service.execution(THING, "job").number == 2
    update(service, "FAILED")
    assert [execution.status for execution in service.executions(THING)] == ["TIMED_OUT", "FAILED"]


def test_retries_of_all_kinds_are_counted_together(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING], in_progress_timeout_minutes=1, retries={"ALL": 1})
    update(service, "IN_PROGRESS")
    clock.advance(MINUTE)
    service.tick()
    update(service, "FAILED")
    assert [execution.status for execution in service.executions(THING)] == ["TIMED_OUT", "FAILED"]


def test_every_execution_that_times_out_at_once_is_retried(service: JobsService, clock: ManualClock) -> None:
    service.create_job("job", {}, [THING, "other"], in_progress_timeout_minutes=1, retries={"ALL": 1})
    for thing in (THING, "other"):
        service.ask(thing, "start-next")
    clock.advance(MINUTE)
    service.tick()
    assert [service.execution(thing, "job").number for thing in (THING, "other")] == [2, 2]


def test_things_do_not_see_each_other(service: JobsService) -> None:
    service.create_job("job", {}, [THING, "other"])
    update(service, "SUCCEEDED")
    assert service.execution("other", "job").status == "QUEUED"
    assert service.execution(THING, "job").status == "SUCCEEDED"


def test_a_snapshot_does_not_change_afterwards(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    before = service.execution(THING, "job")
    update(service, "SUCCEEDED", statusDetails={"a": "b"})
    assert (before.status, dict(before.details), len(before.history)) == ("QUEUED", {}, 1)


def test_an_execution_that_is_not_there_is_a_key_error(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    with pytest.raises(KeyError, match="pump-7/other"):
        service.execution(THING, "other")
    with pytest.raises(KeyError, match="pump-7/job#2"):
        service.execution(THING, "job", 2)
    assert service.executions("other") == ()


def test_an_s3_placeholder_becomes_another_url_with_each_delivery(clock: ManualClock) -> None:
    tickets = iter(range(100))
    service = JobsService(clock, presign=lambda url: f"{url}?signature={next(tickets)}")
    placeholder = "${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/bucket/key}"
    service.create_job("job", {"files": [{"url": placeholder}], "size": 1}, [THING])
    first, second = (answered(service, "job/get")["execution"]["jobDocument"] for _ in range(2))
    assert first["files"][0]["url"].startswith("https://s3.eu-west-1.amazonaws.com/bucket/key?signature=")
    assert first != second
    assert first["size"] == 1


def test_without_a_signer_a_placeholder_stays(service: JobsService) -> None:
    service.create_job("job", {"url": "${aws:iot:s3-presigned-url:https://x/y}"}, [THING])
    document = answered(service, "$next/get")["execution"]["jobDocument"]
    assert document == {"url": "${aws:iot:s3-presigned-url:https://x/y}"}
