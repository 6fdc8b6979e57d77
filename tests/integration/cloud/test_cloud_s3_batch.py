"""S3 Batch Operations by our client, against a state machine that boto3 talks to as well."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.s3_jobs import FINAL, Failure, Progress, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.conftest import FakeCloud

    from thingjobs.cloud.s3_batch import S3Batch

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"


def test_boto3_is_content_with_the_fake_service(cloud: FakeCloud, boto: Callable[[str], Any]) -> None:
    client = boto("s3control")
    cloud.new_job(JOB, "Suspended")
    cloud.new_job("another-job", "Active")
    account = {"AccountId": cloud.account}

    suspended = client.list_jobs(**account, JobStatuses=["Suspended"])["Jobs"]
    ready = client.update_job_status(**account, JobId=JOB, RequestedJobStatus="Ready", StatusUpdateReason="go")
    with pytest.raises(client.exceptions.JobStatusException):
        client.update_job_status(**account, JobId=JOB, RequestedJobStatus="Ready")
    cloud.advance(JOB)
    cancelling = client.update_job_status(**account, JobId=JOB, RequestedJobStatus="Cancelled", StatusUpdateReason="no")
    cloud.advance(JOB)
    job = client.describe_job(**account, JobId=JOB)["Job"]

    assert [(one["JobId"], one["Operation"]) for one in suspended] == [(JOB, "LambdaInvoke")]
    assert (ready["Status"], cancelling["Status"], job["Status"]) == ("Ready", "Cancelling", "Cancelled")
    assert (ready["StatusUpdateReason"], job["StatusUpdateReason"]) == ("go", "no")
    assert job["ProgressSummary"]["Timers"]["ElapsedTimeInActiveSeconds"] == 77


def test_a_job_that_waits_is_confirmed_and_runs_to_its_end(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB, "Suspended", ConfirmationRequired=True, SuspendedCause="Awaiting confirmation")

    waiting = s3.describe(JOB)
    updated = s3.confirm(JOB, "manifest is up")
    seen = [updated.status]
    while seen[-1] not in FINAL:
        cloud.advance(JOB)
        seen.append(s3.describe(JOB).status)

    assert (waiting.confirmation_required, waiting.suspended_cause) == (True, "Awaiting confirmation")
    assert seen == ["Ready", "Active", "Completing", "Complete"]
    assert s3.describe(JOB).update_reason == "manifest is up"


def test_a_cancelled_job_is_cancelling_first(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB, "Active")

    assert s3.cancel(JOB, "not wanted").status == Status.CANCELLING
    cloud.advance(JOB)
    assert s3.describe(JOB).status == Status.CANCELLED


def test_what_cannot_be_cancelled_any_more_is_a_conflict(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB, "Complete")

    with pytest.raises(
        CloudError, match=r"cannot cancel the S3 batch job 00e1.*JobStatusException.*look at the job"
    ) as e:
        s3.cancel(JOB)

    assert (e.value.trouble, e.value.fate, e.value.code) == (Trouble.CONFLICT, Fate.REFUSED, "JobStatusException")
    assert len(cloud.seen) == 1


@pytest.mark.parametrize("envelope", [False, True])
def test_a_job_that_is_not_there_is_not_found(cloud: FakeCloud, s3: S3Batch, *, envelope: bool) -> None:
    cloud.envelope = envelope

    with pytest.raises(CloudError, match=r"NoSuchJob.*\[404, request 4442587FB7D0A2F9\].*90 days") as e:
        s3.describe(JOB)

    assert e.value.trouble is Trouble.NOT_FOUND


def test_everything_that_is_told_of_a_job_arrives(cloud: FakeCloud, s3: S3Batch) -> None:
    reasons = [("member", {"FailureCode": "ManifestNotFound", "FailureReason": "no <manifest> & no key"})]
    cloud.new_job(JOB, "Failed", FailureReasons=reasons, Report={"Enabled": True, "Bucket": "arn:aws:s3:::b"})

    job = s3.describe(JOB)

    assert job.failures == (Failure("ManifestNotFound", "no <manifest> & no key"),)
    assert job.progress == Progress(total=10, succeeded=4, failed=1, active_seconds=77)
    assert job.created == dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)
    assert (job.description, job.operation, job.priority) == ("by <the> test & co", "LambdaInvoke", 10)
    assert job.report
    assert (job.report.enabled, job.report.bucket) == (True, "arn:aws:s3:::b")


@pytest.mark.parametrize("namespace", [False, True])
def test_every_status_is_taken_even_one_that_does_not_exist_yet(
    cloud: FakeCloud, s3: S3Batch, *, namespace: bool
) -> None:
    cloud.namespace = namespace

    for status in [*Status, "Hibernating"]:
        cloud.new_job(JOB, status)
        assert s3.describe(JOB).status == status
        assert [job.status for job in s3.jobs(status)] == [status]


def test_pages_are_fetched_as_they_are_wanted(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.page_size = 2
    for number in range(7):
        cloud.new_job(f"job-{number}", "Active" if number % 2 else "Ready")

    assert [job.job_id for job in s3.jobs()] == [f"job-{number}" for number in range(7)]
    assert len(cloud.seen) == 4
    assert [job.job_id for job in s3.jobs("Active", "Suspended")] == ["job-1", "job-3", "job-5"]
    cloud.seen.clear()
    assert [job.job_id for job in s3.jobs(limit=3)] == ["job-0", "job-1", "job-2"]
    assert [dict(seen.pairs).get("maxResults") for seen in cloud.seen] == ["3", "1"]
    assert list(s3.jobs(limit=0)) == []


def test_a_page_may_be_empty_and_yet_not_the_last(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB)

    empty = s3.page(max_results=0)

    assert empty.jobs == ()
    assert empty.next_token


def test_a_service_that_gives_the_same_page_without_end_is_noticed(cloud: FakeCloud, s3: S3Batch) -> None:
    body = b"<ListJobsResult><NextToken>again</NextToken><Jobs/></ListJobsResult>"
    for _ in range(3):
        cloud.fail(200, body)

    with pytest.raises(CloudError, match="the same page without end"):
        list(s3.jobs())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda s3: s3.describe("../../x"), "cannot look at an S3 batch job: '../../x' is no job id; one has 5 to 36"),
        (lambda s3: s3.describe("a" * 37), "5 to 36"),
        (lambda s3: s3.confirm(""), "cannot confirm an S3 batch job: '' is no job id"),
        (lambda s3: s3.cancel(JOB, "x" * 257), "the reason has 257 characters, the service takes 256"),
        (lambda s3: s3.page("No Status"), "known are Active, "),
        (lambda s3: s3.page(max_results=1001), "0 to 1000 jobs, not 1001"),
        (lambda s3: s3.page(max_results=-1), "0 to 1000 jobs, not -1"),
        (lambda s3: s3.page(token="not a token"), "the token"),
    ],
)
def test_what_the_api_would_not_take_is_not_sent(
    cloud: FakeCloud, s3: S3Batch, wrong: Callable[[S3Batch], object], why: str
) -> None:
    with pytest.raises(CloudError, match=why) as e:
        wrong(s3)

    assert (e.value.trouble, e.value.fate) == (Trouble.INPUT, Fate.NOT_SENT)
    assert cloud.seen == []


def test_the_longest_reason_arrives(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB)

    assert s3.cancel(JOB, "ü" * 256).update_reason == "ü" * 256
