"""`batch-job`: real verbs against AWS Batch as a small server, and against moto's; 200 is what it never goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import cancel, crash
from thingjobs_handlers.batch_job import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.conftest import FakeCloud, Moto
    from tests.integration.cloud.handlers.conftest import World

JOB = "5a0f8b3e-6d3f-4d1c-9f0e-2f6f0f3c9b1a"


@pytest.fixture
def world(world_of: Callable[[type, str], World]) -> World:
    return world_of(BatchJob, JOB)


@pytest.fixture
def submit(cloud: FakeCloud) -> Callable[..., dict[str, Any]]:
    def submit(status: str, **more: Any) -> dict[str, Any]:
        cloud.batch_jobs[JOB] = {"jobId": JOB, "jobName": "process", "status": status, **more}
        return cloud.batch_jobs[JOB]

    return submit


# --- cancel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["SUBMITTED", "PENDING", "RUNNABLE"])
def test_a_job_that_has_not_started_is_cancelled(world: World, submit: Callable[..., Any], status: str) -> None:
    job = submit(status)

    run = world.run("cancel", reason="the pump was moved")

    assert (run.status, world.changes, world.sequence) == ("SUCCEEDED", ["canceljob"], "dCd")
    assert run.details["outcome"] == f"the AWS Batch job {JOB} is FAILED: it was cancelled by this device job"
    assert job["statusReason"].startswith("the pump was moved (iot-job:")


@pytest.mark.parametrize("status", ["STARTING", "RUNNING"])
def test_a_job_that_runs_is_not_asked_what_does_nothing_to_it(
    world: World, submit: Callable[..., Any], status: str
) -> None:
    submit(status)

    run = world.run("cancel")

    assert (run.status, run.calls[1].code, world.changes) == ("FAILED", "cloud.running", [])
    assert f"{JOB} is {status}: it goes on, because CancelJob does nothing to a job that runs" in run.reason


def test_a_job_that_runs_is_terminated_where_the_document_says_so(world: World, submit: Callable[..., Any]) -> None:
    submit("RUNNING", startedAt=1767323145678)

    call = world.call("apply", "cancel", terminateRunning=True)

    assert (call.succeeded, world.changes) == (True, ["terminatejob"])
    assert call.details["outcome"].endswith("is FAILED: it was terminated by this device job")


def test_a_job_that_starts_while_it_is_cancelled_goes_on_and_that_is_a_failure(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("RUNNABLE")
    monkeypatch.setattr(world.fake, "_end", lambda *_: job.update(status="STARTING"))

    call = world.call("apply", "cancel")

    assert (call.succeeded, call.code, world.changes) == (False, "cloud.running", ["canceljob"])


def test_a_job_that_starts_while_it_is_cancelled_is_terminated_where_the_document_says_so(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("RUNNABLE")
    ends = world.fake._end
    started = iter([True])

    def end(said: Any, flag: str, states: tuple[str, ...]) -> None:
        if next(started, False):
            job.update(status="RUNNING", startedAt=1767323145678)
        else:
            ends(said, flag, states)

    monkeypatch.setattr(world.fake, "_end", end)

    call = world.call("apply", "cancel", terminateRunning=True)

    assert (call.succeeded, world.changes, world.sequence) == (True, ["canceljob", "terminatejob"], "dCdCd")


def test_what_waits_for_others_is_waited_for_and_asked_once(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("PENDING")
    monkeypatch.setattr(world.fake, "_end", lambda said, *_: job.update(isCancelled=True, asked=said["reason"]))

    def dependencies_end() -> None:
        if world.hours.now > 2 * 86400:
            job.update(status="FAILED", statusReason=job["asked"])

    world.hours.happens = dependencies_end
    call = world.call("apply", "cancel", pollSeconds=3600)

    assert (call.succeeded, world.changes) == (True, ["canceljob"])
    assert any(event.get("message", "").endswith("PENDING, and cancelling is noted") for event in call.events)


def test_who_does_not_wait_hears_what_is_known(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("PENDING")
    monkeypatch.setattr(world.fake, "_end", lambda *_: job.update(isCancelled=True))

    call = world.call("apply", "cancel", wait=False)

    assert (call.succeeded, call.details["cloudStatus"], world.hours.now) == (True, "PENDING", 0)
    assert call.details["outcome"] == f"not over yet: the AWS Batch job {JOB} is PENDING, and cancelling is noted"


def test_a_job_that_was_over_first_is_a_lost_race(world: World, submit: Callable[..., Any]) -> None:
    submit("SUCCEEDED")

    run = world.run("terminate")

    assert (run.status, run.calls[1].code, world.changes) == ("FAILED", "cloud.lost-race", [])
    assert f"{JOB} is SUCCEEDED: nothing is left to terminate" in run.reason


def test_a_status_that_does_not_exist_yet_is_no_end(world: World, submit: Callable[..., Any]) -> None:
    job = submit("HIBERNATING")
    world.hours.happens = lambda: job.update(status="SUCCEEDED")

    call = world.call("apply", "watch")

    assert (call.succeeded, world.hours.now > 0) == (True, True)
    assert "is HIBERNATING, a status that this release does not know" in call.events[1]["message"]


# --- unknown, wrong, gone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["cancel", "terminate", "watch"])
def test_a_job_that_is_not_known_is_never_asked_anything(world: World, action: str) -> None:
    run = world.run(action)

    assert (run.status, run.calls[1].code, world.changes) == ("FAILED", "cloud.unknown", [])
    assert "AWS Batch knows no such job; look at the id, the region and the account" in run.reason


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (403, "AccessDeniedException", "cloud.denied"),
        (403, "UnrecognizedClientException", "cloud.credentials"),
        (400, "ClientException", "cloud.refused"),
    ],
)
def test_a_refusal_is_a_clear_end_at_once(
    world: World, submit: Callable[..., Any], status: int, error: str, code: str
) -> None:
    submit("RUNNABLE")
    world.fake.faults.append(None)
    world.fake.refuse(status, error, s3=False)

    call = world.call("apply", "cancel")

    assert (call.code, world.sequence, world.hours.now) == (code, "dC", 0)


@pytest.mark.parametrize("after", [True, False])
def test_after_a_lost_reply_it_looks_before_it_asks_again(
    world: World, submit: Callable[..., Any], *, after: bool
) -> None:
    submit("RUNNABLE")
    world.fake.faults.append(None)
    world.fake.hang_up(after=after)

    call = world.call("apply", "cancel")

    assert call.details["outcome"].endswith("it was cancelled by this device job")
    assert world.sequence == ("dCd" if after else "dCdCd")


def test_a_service_that_fails_is_asked_again_only_after_a_look(world: World, submit: Callable[..., Any]) -> None:
    submit("RUNNING", startedAt=1767323145678)
    for _ in range(3):
        world.fake.faults.append(None)
        world.fake.fail(
            500, b'{"message": "so it is"}', headers={"x-amzn-ErrorType": "ServerException", "Retry-After": "0"}
        )

    call = world.call("apply", "terminate")

    assert (call.succeeded, world.sequence) == (True, "dCdCdCdCd")
    assert len({seen.body for seen in world.fake.seen if b"reason" in seen.body}) == 1


def test_a_job_that_the_device_does_not_let_documents_touch_is_rejected_before_the_claim(world: World) -> None:
    world.access["allow_batch_jobs"] = []

    run = world.run("terminate")

    assert (run.status, run.verbs, world.fake.seen) == ("REJECTED", ["check"], [])
    assert "no pattern of cloud.allow_batch_jobs fits it" in run.reason


def test_a_job_that_the_device_does_not_allow_any_more_is_not_touched_to_undo_it_either(world: World) -> None:
    world.access["allow_batch_jobs"] = []

    call = world.call("rollback", "watch")

    assert (call.succeeded, call.code, world.fake.seen) == (False, "cloud.forbidden", [])


def test_a_dry_run_prints_the_calls_and_sends_none(world: World) -> None:
    call = world.call("check", "cancel", terminateRunning=True, dry_run=True)

    assert (call.succeeded, world.fake.seen) == (True, [])
    lines = [line for line in call.log.splitlines() if line.startswith("would send")]
    assert [line.rpartition("/")[2] for line in lines] == ["describejobs", "canceljob", "terminatejob"]


# --- the device job is cancelled, or the power goes ---------------------------------------------------------------


def test_a_cancelled_device_job_cancels_the_cloud_job_that_it_watched(world: World, submit: Callable[..., Any]) -> None:
    submit("RUNNABLE")

    run = world.run("watch", faults=(cancel("apply", event=1),))

    assert (run.verbs, world.changes) == (["check", "apply", "rollback"], ["canceljob"])
    assert run.calls[-1].details["rollback"].endswith("it was cancelled by this device job")


def test_a_rollback_says_that_what_runs_goes_on_or_terminates_it(world: World, submit: Callable[..., Any]) -> None:
    submit("RUNNING")

    goes_on = world.call("rollback", "watch")
    ends = world.call("rollback", "watch", terminateRunning=True)

    assert (goes_on.succeeded, goes_on.code) == (False, "cloud.running")
    assert (ends.succeeded, world.changes) == (True, ["terminatejob"])


def test_a_rollback_does_not_wait_for_ever_for_what_it_cancelled(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("PENDING")
    monkeypatch.setattr(world.fake, "_end", lambda *_: job.update(isCancelled=True))

    call = world.call("rollback", "watch")

    assert (call.succeeded, world.changes) == (True, ["canceljob"])
    assert 600 <= world.hours.now < 700
    assert call.details["rollback"].endswith("is PENDING, and cancelling is noted")


def test_a_power_cut_after_the_answer_asks_nothing_again(
    world: World, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("PENDING")
    # Until a job comes to the head of its queue, nothing need show that it is to be cancelled.
    monkeypatch.setattr(world.fake, "_end", lambda said, *_: job.update(asked=said["reason"]))

    def come_on() -> None:
        job["status"] = "RUNNABLE"
        if world.hours.now > 1000:
            job.update(status="FAILED", statusReason=job["asked"])

    world.hours.happens = come_on
    run = world.run("cancel", faults=(crash("apply", event=2),))

    assert (run.status, run.verbs) == ("SUCCEEDED", ["check", "apply", "check", "apply"])
    assert world.changes == ["canceljob"]


# --- moto ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_moto(world_of: Callable[[type, str], World], moto: Moto) -> World:
    world = world_of(BatchJob, "")
    world.access |= {"url": moto.url, "access_key_id": "test", "secret_access_key": "test"}
    return world


def status_at(moto: Moto, job_id: str) -> str:
    return str(moto.boto("batch").describe_jobs(jobs=[job_id])["jobs"][0]["status"])


def test_moto_cancels_a_job_that_waits(at_moto: World, moto: Moto, eventually: Callable[..., Any]) -> None:
    moto.transition(progression="manual", times=1)
    at_moto.job_id = moto.submit("a-job-that-never-ends")
    eventually(lambda: status_at(moto, at_moto.job_id) == "PENDING")

    run = at_moto.run("cancel", reason="ü")

    assert run.status == "SUCCEEDED"
    assert run.details["outcome"].endswith("is FAILED: it was cancelled by this device job")


def test_moto_terminates_what_runs_only_where_the_document_says_so(
    at_moto: World, moto: Moto, eventually: Callable[..., Any]
) -> None:
    moto.transition(progression="time", seconds=0.3)
    at_moto.job_id = moto.submit()
    eventually(lambda: status_at(moto, at_moto.job_id) == "STARTING")
    moto.transition(progression="manual", times=1000)

    assert at_moto.call("apply", "cancel").code == "cloud.running"
    assert status_at(moto, at_moto.job_id) == "STARTING"

    at_moto.hours.happens = lambda: moto.transition(progression="immediate")
    call = at_moto.call("apply", "cancel", terminateRunning=True)

    assert call.succeeded
    assert "by this device job" in call.details["outcome"]


def test_moto_knows_no_job_that_was_not_submitted(at_moto: World) -> None:
    at_moto.job_id = "5a0f8b3e-0000"

    assert at_moto.call("apply", "watch").code == "cloud.unknown"
