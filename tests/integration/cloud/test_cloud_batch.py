"""AWS Batch by our client: against our fake, which boto3 talks to as well, and against moto's server."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.batch import FINAL, UNDER_WAY, Attempt, Batch, Status
from thingjobs.cloud.caller import Caller
from thingjobs.cloud.calls import Endpoint
from thingjobs.cloud.credentials import Credentials, Issued, Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.conftest import FakeCloud, Moto

JOB = "5a0f8b3e-6d3f-4d1c-9f0e-2f6f0f3c9b1a"
DETAIL: dict[str, Any] = {
    "jobId": JOB,
    "jobName": "process",
    "jobQueue": "arn:aws:batch:eu-west-1:123456789012:job-queue/q",
    "jobArn": f"arn:aws:batch:eu-west-1:123456789012:job/{JOB}",
    "jobDefinition": "d",
    "status": "RUNNING",
    "createdAt": 1767323045678,
    "startedAt": 1767323145678,
    "isCancelled": False,
    "isTerminated": True,
    "container": {"exitCode": 137, "reason": "OutOfMemoryError", "logStreamName": "d/default/1"},
    "attempts": [
        {
            "startedAt": 1767323145678,
            "stoppedAt": 1767323146000,
            "statusReason": "Essential container in task exited",
            "container": {"exitCode": 1, "reason": "no", "logStreamName": "d/default/0"},
        }
    ],
    "arrayProperties": {"size": 3, "statusSummary": {"FAILED": 1, "RUNNING": 2}},
}


def test_a_job_is_read_as_boto3_reads_it(cloud: FakeCloud, batch: Batch, boto: Callable[[str], Any]) -> None:
    cloud.batch_jobs[JOB] = DETAIL

    theirs = boto("batch").describe_jobs(jobs=[JOB, "unknown"])["jobs"]
    (ours,) = batch.describe(JOB, "unknown")

    assert theirs == [DETAIL]
    assert (ours.job_id, ours.status, ours.name, ours.queue) == (JOB, "RUNNING", "process", DETAIL["jobQueue"])
    assert ours.created == dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)
    assert (ours.started, ours.stopped) == (ours.created + dt.timedelta(seconds=100), None)
    assert (ours.cancelled, ours.terminated) == (False, True)
    assert (ours.exit_code, ours.container_reason, ours.log_stream) == (137, "OutOfMemoryError", "d/default/1")
    assert (ours.array_size, dict(ours.children)) == (3, {"FAILED": 1, "RUNNING": 2})
    stopped = dt.datetime.fromtimestamp(1767323146, dt.UTC)
    reason = "Essential container in task exited"
    assert ours.attempts == (Attempt(ours.started, stopped, reason, 1, "no", "d/default/0"),)


def test_every_status_is_taken_even_one_that_does_not_exist_yet(cloud: FakeCloud, batch: Batch) -> None:
    for status in [*Status, "HIBERNATING"]:
        cloud.batch_jobs[JOB] = {"jobId": JOB, "status": status}

        (job,) = batch.describe(JOB)

        assert (job.status, job.started, job.cancelled) == (status, None, None)


@pytest.mark.parametrize("status", Status)
def test_what_cancelling_does_is_seen_only_by_looking(cloud: FakeCloud, batch: Batch, status: str) -> None:
    cloud.batch_jobs[JOB] = {"jobId": JOB, "status": status}

    batch.cancel(JOB, "iot-job:J#1")

    (job,) = batch.describe(JOB)
    if status in UNDER_WAY | FINAL:
        assert (job.status, job.reason) == (status, "")
    else:
        assert (job.status, job.reason, job.cancelled) == ("FAILED", "iot-job:J#1", True)


def test_a_job_that_nobody_knows_is_missing(batch: Batch) -> None:
    assert batch.describe(JOB) == ()
    batch.cancel(JOB, "whatever")


def test_odd_fields_are_left_out_and_do_no_harm(cloud: FakeCloud, batch: Batch) -> None:
    odd = {"jobId": JOB, "status": "RUNNING", "createdAt": 10**30, "startedAt": "now", "container": [], "attempts": {}}
    cloud.batch_jobs[JOB] = {**odd, "isCancelled": "yes", "arrayProperties": {"statusSummary": {"FAILED": "many"}}}

    (job,) = batch.describe(JOB)

    assert (job.created, job.started, job.exit_code, job.attempts, dict(job.children)) == (None, None, None, (), {})


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"{", b"[" * 100_000])
def test_nonsense_is_called_that(cloud: FakeCloud, batch: Batch, body: bytes) -> None:
    cloud.fail(200, body, headers={"Content-Type": "text/html"})

    with pytest.raises(CloudError, match=r"the answer is not the service's: it is no JSON.*text/html") as e:
        batch.describe(JOB)

    assert e.value.trouble is Trouble.NONSENSE


@pytest.mark.parametrize(
    ("code", "status", "trouble"),
    [
        ("ClientException", 400, Trouble.REJECTED),
        ("AccessDeniedException", 403, Trouble.DENIED),
        ("UnrecognizedClientException", 403, Trouble.CREDENTIALS),
        ("TooManyRequestsException", 429, Trouble.THROTTLED),
        ("ServerException", 500, Trouble.UNAVAILABLE),
    ],
)
def test_errors_are_told_apart(cloud: FakeCloud, batch: Batch, code: str, status: int, trouble: Trouble) -> None:
    for _ in range(5):
        cloud.refuse(status, code, "so it is", s3=False)

    with pytest.raises(CloudError, match=f"cannot look at the AWS Batch job {JOB}: .*{code}: so it is") as e:
        batch.describe(JOB)

    assert (e.value.code, e.value.trouble) == (code, trouble)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda batch: batch.describe(), "1 to 100 ids, not 0"),
        (lambda batch: batch.describe(*["a"] * 101), "1 to 100 ids, not 101"),
        (lambda batch: batch.describe("a b"), "'a b' is no job id"),
        (lambda batch: batch.cancel("", "why"), "is no job id"),
        (lambda batch: batch.cancel(JOB, ""), "1 to 1024 characters, not 0"),
        (lambda batch: batch.terminate(JOB, "x" * 1025), "1 to 1024 characters, not 1025"),
    ],
)
def test_what_the_api_would_not_take_is_not_sent(
    cloud: FakeCloud, batch: Batch, wrong: Callable[[Batch], object], why: str
) -> None:
    with pytest.raises(CloudError, match=why) as e:
        wrong(batch)

    assert (e.value.trouble, e.value.fate, cloud.seen) == (Trouble.INPUT, Fate.NOT_SENT, [])


# --- moto --------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch_of_moto(moto: Moto) -> Batch:
    keeper = Keeper(lambda: Issued(Credentials("test", "test")))
    return Batch(Caller(keeper), Endpoint(moto.url, "eu-west-1", "batch"))


def test_moto_cancels_a_job_that_waits(moto: Moto, batch_of_moto: Batch, eventually: Callable[..., Any]) -> None:
    moto.transition(progression="manual", times=1)
    job_id = moto.submit("a-job-that-never-ends")
    eventually(lambda: batch_of_moto.describe(job_id)[0].status == "PENDING")

    batch_of_moto.cancel(job_id, "iot-job:J#1 ü")

    eventually(lambda: batch_of_moto.describe(job_id)[0].status == "FAILED")
    (job,) = batch_of_moto.describe(job_id)
    assert (job.reason, job.started) == ("iot-job:J#1 ü", None)
    assert job.created


def test_moto_does_not_cancel_a_job_that_starts_but_terminates_it(
    moto: Moto, batch_of_moto: Batch, eventually: Callable[..., Any]
) -> None:
    moto.transition(progression="time", seconds=0.3)
    job_id = moto.submit()
    eventually(lambda: batch_of_moto.describe(job_id)[0].status == "STARTING")
    moto.transition(progression="manual", times=1000)

    batch_of_moto.cancel(job_id, "too late")
    (job,) = batch_of_moto.describe(job_id)
    assert (job.status, job.reason) == ("STARTING", "")

    batch_of_moto.terminate(job_id, "now")
    moto.transition(progression="immediate")
    eventually(lambda: batch_of_moto.describe(job_id)[0].status == "FAILED")
    assert batch_of_moto.describe(job_id)[0].reason == "now"


def test_moto_knows_no_job_that_was_not_submitted(batch_of_moto: Batch) -> None:
    batch_of_moto.cancel("5a0f8b3e-0000", "why")
    batch_of_moto.terminate("5a0f8b3e-0000", "why")

    assert batch_of_moto.describe("5a0f8b3e-0000") == ()
