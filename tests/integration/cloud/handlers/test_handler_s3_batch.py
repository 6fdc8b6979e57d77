"""`s3-batch-job`: real verbs against S3 Control as a small server: how device jobs end, and what was sent for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import cancel, crash
from thingjobs_handlers.s3_batch_job import S3BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.handlers.conftest import World

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"


@pytest.fixture
def world(world_of: Callable[[type, str], World]) -> World:
    return world_of(S3BatchJob, JOB)


# --- confirm ------------------------------------------------------------------------------------------------------


def test_a_suspended_job_is_confirmed_and_the_device_job_says_by_whom(world: World) -> None:
    world.fake.new_job(JOB, "Suspended", ConfirmationRequired=True)

    job = world.run("confirm", reason="the manifest is there")

    assert (job.status, world.changes, world.sequence) == ("SUCCEEDED", ["Ready"], "dCd")
    assert job.details["outcome"] == f"the S3 batch job {JOB} is Ready; it was confirmed by this device job"
    assert job.details["cloudStatus"] == "Ready"
    assert world.fake.jobs[JOB]["StatusUpdateReason"].startswith("the manifest is there (iot-job:")


def test_a_job_that_another_confirmed_runs_as_was_wanted_and_is_not_asked_again(world: World) -> None:
    world.fake.new_job(JOB, "Active", ConfirmationRequired=True, StatusUpdateReason="by hand")

    job = world.run("confirm")

    assert (job.status, world.changes) == ("SUCCEEDED", [])
    assert job.details["outcome"].endswith("is Active; it was confirmed, but not by this device job")


def test_a_job_that_is_still_prepared_is_confirmed_when_it_waits_for_that(world: World) -> None:
    world.fake.new_job(JOB, "New")
    world.hours.happens = lambda: world.fake.advance(JOB)

    job = world.run("confirm")

    assert (job.status, world.changes, world.sequence) == ("SUCCEEDED", ["Ready"], "dddCd")


def test_a_job_that_cannot_be_confirmed_yet_fails_for_who_does_not_wait(world: World) -> None:
    world.fake.new_job(JOB, "Preparing")

    job = world.run("confirm", wait=False)

    assert (job.verbs, world.changes) == (["check", "apply", "rollback"], [])
    assert world.kit.runs[-1].details["rollback"] == "nothing: what was asked of the job stays"
    assert "is Preparing; of 10 tasks 4 succeeded and 1 failed: it cannot be confirmed now" in job.reason


def test_a_job_that_was_cancelled_is_not_confirmed(world: World) -> None:
    world.fake.new_job(JOB, "Cancelled", StatusUpdateReason="by hand")

    call = world.call("apply", "confirm")

    assert (call.succeeded, call.code, world.changes) == (False, "cloud.cancelled", [])
    assert f"{JOB} is Cancelled (by hand)" in call.reason


# --- cancel -------------------------------------------------------------------------------------------------------


def test_cancelling_is_not_cancelled_and_is_waited_for(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    world.hours.happens = lambda: world.fake.advance(JOB)

    call = world.call("apply", "cancel", reason="stop it")

    assert (call.succeeded, world.changes, world.sequence) == (True, ["Cancelled"], "dCdd")
    assert call.details["outcome"].startswith(f"the S3 batch job {JOB} is Cancelled: it was cancelled by this device")


def test_who_does_not_wait_hears_that_it_is_not_over(world: World) -> None:
    world.fake.new_job(JOB, "Active")

    call = world.call("apply", "cancel", wait=False)

    assert (call.succeeded, call.details["cloudStatus"]) == (True, "Cancelling")
    assert call.details["outcome"].startswith(f"not over yet: the S3 batch job {JOB} is Cancelling")


def test_a_cancel_that_loses_the_race_fails_with_what_is_true(world: World) -> None:
    world.fake.new_job(JOB, "Active")

    def complete() -> None:
        world.fake.jobs[JOB] |= {"Status": "Complete"}

    world.hours.happens = complete
    job = world.run("cancel")

    assert (job.status, world.changes) == ("FAILED", ["Cancelled"])
    assert f"{JOB} is Complete: nothing is left to cancel; of 10 tasks 4 succeeded and 1 failed" in job.reason
    assert job.calls[1].code == "cloud.lost-race"


def test_a_cancel_that_is_refused_because_it_is_too_late_is_not_sent_again(world: World) -> None:
    world.fake.new_job(JOB, "Completing")
    world.hours.happens = lambda: world.hours.now > 100 and world.fake.advance(JOB)

    call = world.call("apply", "cancel")

    assert (call.code, world.changes) == ("cloud.lost-race", ["Cancelled"])


def test_what_the_service_goes_on_refusing_fails_with_its_words(world: World) -> None:
    world.fake.new_job(JOB, "Completing")

    waits, does_not = world.call("apply", "cancel"), world.call("apply", "cancel", wait=False)

    assert (waits.code, does_not.code) == ("cloud.refused", "cloud.refused")
    assert "JobStatusException: Job is Completing" in does_not.reason
    assert 3600 < world.hours.now < 4000


# --- watch --------------------------------------------------------------------------------------------------------


def test_the_progress_of_the_cloud_job_is_that_of_the_device_job_and_its_end_its_end(world: World) -> None:
    world.fake.new_job(JOB, "Suspended")
    steps = iter(["Ready", "Active", "Active", "Hibernating", "Completing", "Complete"])

    def come_on() -> None:
        job = world.fake.jobs[JOB]
        job["Status"] = next(steps)
        counts = job["ProgressSummary"]
        counts |= {"NumberOfTasksFailed": 0, "NumberOfTasksSucceeded": min(10, counts["NumberOfTasksSucceeded"] + 2)}

    world.hours.happens = come_on
    call = world.call("apply", "watch")

    told = [(event["progress"], event["message"].partition(";")[0]) for event in call.events if "progress" in event]
    job = f"the S3 batch job {JOB} is"
    assert told == [
        (50, f"{job} Suspended and waits to be confirmed"),
        (60, f"{job} Ready"),
        (80, f"{job} Active"),
        (100, f"{job} Active"),
        (100, f"{job} Hibernating, a status that this release does not know"),
        (100, f"{job} Completing"),
    ]
    assert (call.succeeded, world.changes) == (True, [])
    assert call.details["outcome"] == f"{job} Complete; of 10 tasks 10 succeeded and 0 failed"


@pytest.mark.parametrize(
    ("end", "code"),
    [("Complete", "cloud.tasks-failed"), ("Failed", "cloud.failed"), ("Cancelled", "cloud.cancelled")],
)
def test_a_cloud_job_that_ends_badly_ends_the_device_job_so_and_nothing_is_undone(
    world: World, end: str, code: str
) -> None:
    world.fake.new_job(JOB, end)

    job = world.run("watch")

    assert (job.status, job.verbs, job.calls[1].code) == ("FAILED", ["check", "apply", "rollback"], code)
    left = "nothing: the device job had ended, and the cloud job is left as it was"
    assert (world.changes, job.calls[2].details) == ([], {"rollback": left})


def test_looks_become_rarer_until_something_happens_and_the_same_is_told_once(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    at: list[float] = []

    def note() -> None:
        at.append(world.hours.now)
        if len(at) in (6, 8):
            world.fake.jobs[JOB]["Status"] = "Pausing" if len(at) == 6 else "Cancelled"

    world.hours.happens = note
    call = world.call("apply", "watch")

    assert [b - a for a, b in zip([0.0, *at], at, strict=False)] == [3.75, 7.5, 15, 30, 45, 45, 3.75, 7.5]
    assert len([event for event in call.events if "progress" in event]) == 2


def test_a_watch_ends_before_its_time_does_and_leaves_the_cloud_job_alone(world: World) -> None:
    world.fake.new_job(JOB, "Paused")

    job = world.run("watch", pollSeconds=3600)

    assert (job.status, job.code, world.changes) == ("FAILED", "handler.timeout", [])
    assert "the cloud job is left as it is: the S3 batch job" in job.reason
    assert world.hours.now == pytest.approx(7 * 86400 - 60, abs=30)


# --- the device job is cancelled, or the power goes ---------------------------------------------------------------


def test_a_cancelled_device_job_cancels_the_cloud_job_that_it_watched(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    world.hours.happens = lambda: world.changes and world.fake.advance(JOB)

    job = world.run("watch", faults=(cancel("apply", event=1),))

    assert (job.verbs, world.changes) == (["check", "apply", "rollback"], ["Cancelled"])
    assert "is Cancelled: it was cancelled by this device job" in job.calls[-1].details["rollback"]


@pytest.mark.parametrize("params", [{"cancelWith": False}, {"action": "confirm"}])
def test_a_cancelled_device_job_leaves_it_where_the_document_says_so(world: World, params: dict[str, Any]) -> None:
    world.fake.new_job(JOB, "Preparing")

    job = world.run(**{"action": "watch", **params}, faults=(cancel("apply", event=1),))

    assert (job.verbs[-1], world.changes) == ("rollback", [])


def test_a_rollback_finds_a_job_that_is_over_and_says_so(world: World) -> None:
    world.fake.new_job(JOB, "Complete")

    call = world.call("rollback", "watch")

    assert (call.succeeded, world.changes) == (True, [])
    assert f"{JOB} is Complete: nothing is left to cancel" in call.details["rollback"]


def test_a_rollback_that_may_not_cancel_says_that_the_job_goes_on(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    world.fake.faults.append(None)
    world.fake.refuse(403, "AccessDenied")

    call = world.call("rollback", "watch")

    assert (call.succeeded, call.code) == (False, "cloud.denied")
    assert "the cloud job was not cancelled: " in call.reason


def test_a_power_cut_after_the_answer_and_before_the_end_asks_nothing_again(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    world.hours.happens = lambda: world.fake.advance(JOB)

    job = world.run("cancel", faults=(crash("apply", event=2),))

    assert (job.status, job.verbs) == ("SUCCEEDED", ["check", "apply", "check", "apply"])
    assert world.changes == ["Cancelled"]


# --- what may be asked --------------------------------------------------------------------------------------------


def test_a_job_that_the_device_does_not_let_documents_touch_is_rejected_before_the_claim(world: World) -> None:
    world.fake.new_job(JOB, "Suspended")
    world.access["allow_s3_jobs"] = ["11*", "00E*"]

    job = world.run("confirm")

    assert (job.status, job.verbs, world.fake.seen) == ("REJECTED", ["check"], [])
    assert job.reason == (
        f"this device does not let job documents touch {JOB}: no pattern of cloud.allow_s3_jobs fits it"
    )


@pytest.mark.parametrize("verb", ["apply", "rollback"])
def test_a_job_that_the_device_does_not_allow_any_more_is_not_touched_to_undo_it_either(
    world: World, verb: str
) -> None:
    world.fake.new_job(JOB, "Active")
    world.access["allow_s3_jobs"] = []

    call = world.call(verb, "watch")

    assert (call.succeeded, call.code, world.fake.seen) == (False, "cloud.forbidden", [])


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_reason_with_half_a_character_is_sent_without_it(world: World, dry_run: bool) -> None:
    world.fake.new_job(JOB, "Suspended", ConfirmationRequired=True)

    call = world.call("check" if dry_run else "apply", "confirm", reason="it\ud800 is there", dry_run=dry_run)

    assert call.succeeded
    assert dry_run or world.fake.jobs[JOB]["StatusUpdateReason"].startswith("it is there (iot-job:")


@pytest.mark.parametrize(
    ("params", "words"),
    [({"jobId": "a/../b"}, "is no job id"), ({"action": "pause"}, "action"), ({"pollSeconds": 0}, "pollSeconds")],
)
def test_what_the_api_would_never_take_is_rejected(world: World, params: dict[str, Any], words: str) -> None:
    job = world.run(**{"action": "watch", **params})

    assert (job.status, job.calls[0].code if job.calls else job.code) == ("REJECTED", "params.invalid")
    assert (words in job.reason, world.fake.seen) == (True, [])


def test_a_dry_run_prints_the_calls_and_sends_none(world: World) -> None:
    call = world.call("check", "confirm", reason="why not", dry_run=True)

    assert (call.succeeded, world.fake.seen) == (True, [])
    assert f"would send: GET {world.fake.url}/v20180820/jobs/{JOB}\n" in call.log
    assert f"would send: POST {world.fake.url}/v20180820/jobs/{JOB}/status?requestedJobStatus=Ready&" in call.log
    assert "statusUpdateReason=why%20not%20%28iot-job%3A" in call.log


def test_a_device_without_an_account_says_which_key_to_set(world: World) -> None:
    world.access["account"] = ""

    call = world.call("apply", "watch")

    assert (call.code, "set cloud.account" in call.reason) == ("cloud.config", True)
