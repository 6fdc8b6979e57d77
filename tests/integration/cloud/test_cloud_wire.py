"""The same call by boto3 and by us, as it goes over the wire, and what each makes of the same answer."""

from __future__ import annotations

import datetime as dt
import functools
import json
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs.cloud import batch as aws_batch
from thingjobs.cloud import s3_batch, s3_jobs
from thingjobs.cloud.calls import Call, Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.conftest import Calling, FakeCloud, Seen

ACCOUNT = "123456789012"
JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
REASON = "iot-job:J#1 ü 'a' \"b\" & c=d + e/f ~%20 😀"
TOKEN = "a+b/c=?#:_-Z/0"

#: Our call, the service and the method of boto3, its arguments.
CALLS: list[tuple[Callable[[], Call], str, str, dict[str, Any]]] = [
    (lambda: s3_batch.list_call(ACCOUNT), "s3control", "list_jobs", {}),
    (
        lambda: s3_batch.list_call(ACCOUNT, "Suspended", "Active", "New", max_results=7, token=TOKEN),
        "s3control",
        "list_jobs",
        {"JobStatuses": ["Suspended", "Active", "New"], "MaxResults": 7, "NextToken": TOKEN},
    ),
    (lambda: s3_batch.list_call(ACCOUNT, max_results=0), "s3control", "list_jobs", {"MaxResults": 0}),
    (lambda: s3_batch.describe_call(ACCOUNT, JOB), "s3control", "describe_job", {"JobId": JOB}),
    (
        lambda: s3_batch.update_call(ACCOUNT, JOB, "Ready"),
        "s3control",
        "update_job_status",
        {"JobId": JOB, "RequestedJobStatus": "Ready"},
    ),
    (
        lambda: s3_batch.update_call(ACCOUNT, JOB, "Cancelled", REASON),
        "s3control",
        "update_job_status",
        {"JobId": JOB, "RequestedJobStatus": "Cancelled", "StatusUpdateReason": REASON},
    ),
    (lambda: aws_batch.cancel_call(JOB, REASON), "batch", "cancel_job", {"jobId": JOB, "reason": REASON}),
    (lambda: aws_batch.terminate_call(JOB, REASON), "batch", "terminate_job", {"jobId": JOB, "reason": REASON}),
    (
        lambda: aws_batch.describe_call(f"{JOB}:3", f"{JOB}#0"),
        "batch",
        "describe_jobs",
        {"jobs": [f"{JOB}:3", f"{JOB}#0"]},
    ),
]


@pytest.mark.parametrize("token", ["", "session/token+=="])
@pytest.mark.parametrize("number", range(len(CALLS)))
def test_our_request_is_the_one_that_boto3_sends(
    cloud: FakeCloud, boto: Callable[..., Any], calling: Calling, number: int, token: str
) -> None:
    ours, service, method, arguments = CALLS[number]
    account = {"AccountId": ACCOUNT} if service == "s3control" else {}
    cloud.secrets["AKIDTEST"] = ("secret/+=", token)
    cloud.new_job(JOB, "Suspended")

    getattr(boto(service, token or None), method)(**account, **arguments)
    cloud.jobs[JOB]["Status"] = "Suspended"
    call = ours()
    host, name = (cloud.s3_host, "s3") if service == "s3control" else (cloud.batch_host, "batch")
    calling(keeper=keeper_of(token)).make(call, Endpoint(f"http://{host}", "eu-west-1", name), lambda _, reply: reply)

    theirs, mine = cloud.seen
    assert what_matters(mine) == what_matters(theirs)


def what_matters(seen: Seen) -> dict[str, Any]:
    """Return all of a request but what is of its moment: time, signature, who sent it, hop-by-hop headers."""
    passing = {"authorization", "x-amz-date", "user-agent", "amz-sdk-invocation-id", "amz-sdk-request", "connection"}
    headers = {name: value for name, value in seen.headers.items() if name not in passing | {"accept-encoding"}}
    headers["content-length"] = headers.get("content-length", "0")
    credential = seen.headers["authorization"].partition("Signature=")[0].split("/", 2)[2]
    return {
        "line": (seen.method, seen.host, seen.path),
        "query": (seen.query, seen.pairs),
        "headers": headers,
        "signed": credential,
        "body": seen.body,
    }


def keeper_of(token: str) -> Any:
    from thingjobs.cloud.credentials import Credentials, Issued, Keeper

    return Keeper(lambda: Issued(Credentials("AKIDTEST", "secret/+=", token)))


# --- The same, for any arguments, as botocore writes and reads them ------------------------------------------------


@settings(max_examples=150)
@given(
    reason=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256),
    status=st.sampled_from(["Ready", "Cancelled"]),
)
def test_any_reason_is_written_as_botocore_writes_it(reason: str, status: Any) -> None:
    asked = {"AccountId": ACCOUNT, "JobId": JOB, "RequestedJobStatus": status, "StatusUpdateReason": reason}
    theirs = written_by_botocore("UpdateJobStatus", asked)

    assert s3_batch.update_call(ACCOUNT, JOB, status, reason).url(Endpoint(f"https://{ACCOUNT}.h", "r", "s3")) == theirs

    body = aws_batch.cancel_call(JOB, reason).body
    assert json.loads(body) == {"jobId": JOB, "reason": reason}


def written_by_botocore(operation: str, asked: dict[str, Any]) -> str:
    from botocore.awsrequest import prepare_request_dict
    from botocore.serialize import create_serializer

    request = create_serializer("rest-xml").serialize_to_request(asked, s3_model().operation_model(operation))
    prepare_request_dict(request, f"https://{request.pop('host_prefix')}h")
    return str(request["url"])


@functools.cache
def s3_model() -> Any:
    import botocore.session
    from botocore.model import ServiceModel

    return ServiceModel(botocore.session.get_session().get_service_data("s3control"))


TEXT = st.text(string.ascii_letters + string.digits + " &<>'\"ü/:-", max_size=20).map(str.strip)
TIME = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2100, 1, 1)).map(  # noqa: DTZ001 - Z is added
    lambda time: f"{time.replace(microsecond=0).isoformat()}.123Z"
)
COUNT = st.integers(0, 2**40).map(str)
PROGRESS = st.fixed_dictionaries(
    {},
    optional={
        "TotalNumberOfTasks": COUNT,
        "NumberOfTasksSucceeded": COUNT,
        "NumberOfTasksFailed": COUNT,
        "Timers": st.fixed_dictionaries({}, optional={"ElapsedTimeInActiveSeconds": COUNT}),
    },
)
FAILURES = st.lists(st.fixed_dictionaries({"FailureCode": TEXT, "FailureReason": TEXT}), max_size=3)
LOCATION = st.fixed_dictionaries({"ObjectArn": TEXT, "ETag": TEXT}, optional={"ObjectVersionId": TEXT})
STATUS = st.sampled_from([*s3_jobs.Status, "Hibernating"])
LISTED = st.fixed_dictionaries(
    {"JobId": st.just(JOB), "Status": STATUS},
    optional={
        "Description": TEXT,
        "Operation": st.sampled_from(["LambdaInvoke", "S3PutObjectCopy", "S3Teleport"]),
        "Priority": st.integers(0, 2**31 - 1).map(str),
        "CreationTime": TIME,
        "TerminationDate": TIME,
        "ProgressSummary": PROGRESS,
    },
)
DESCRIBED = st.fixed_dictionaries(
    {"JobId": st.just(JOB), "Status": STATUS},
    optional={
        "JobArn": TEXT,
        "Description": TEXT,
        "ConfirmationRequired": st.sampled_from(["true", "false"]),
        "Priority": st.integers(0, 2**31 - 1).map(str),
        "StatusUpdateReason": TEXT,
        "CreationTime": TIME,
        "TerminationDate": TIME,
        "SuspendedDate": TIME,
        "SuspendedCause": TEXT,
        "RoleArn": TEXT,
        "ProgressSummary": PROGRESS,
        "FailureReasons": FAILURES.map(lambda found: [("member", one) for one in found]),
        "Manifest": st.fixed_dictionaries(
            {"Spec": st.just({"Format": "S3BatchOperations_CSV_20180820"}), "Location": LOCATION}
        ),
        "Report": st.fixed_dictionaries(
            {"Enabled": st.sampled_from(["true", "false"])},
            optional={"Bucket": TEXT, "Prefix": TEXT, "Format": TEXT, "ReportScope": TEXT},
        ),
        "Operation": st.sampled_from([{"LambdaInvoke": {"FunctionArn": "x"}}, {"S3DeleteObjectTagging": {}}]),
    },
)


@settings(max_examples=100)
@given(jobs=st.lists(LISTED, max_size=4), token=st.sampled_from(["", "t=="]), namespace=st.booleans())
def test_a_list_of_jobs_is_read_as_botocore_reads_it(
    as_xml: Callable[[object], str], jobs: list[dict[str, Any]], token: str, *, namespace: bool
) -> None:
    content = {**({"NextToken": token} if token else {}), "Jobs": [("member", job) for job in jobs]}
    reply, theirs = read_by_both("ListJobs", "ListJobsResult", as_xml(content), namespace=namespace)

    page = s3_jobs.read_page(s3_batch.list_call(ACCOUNT), reply)

    assert page.next_token == theirs.get("NextToken", "")
    assert [listed(job) for job in page.jobs] == without_nothing(theirs["Jobs"])


@settings(max_examples=100)
@given(job=DESCRIBED, namespace=st.booleans())
def test_a_job_is_read_as_botocore_reads_it(
    as_xml: Callable[[object], str], job: dict[str, Any], *, namespace: bool
) -> None:
    reply, theirs = read_by_both("DescribeJob", "DescribeJobResult", as_xml({"Job": job}), namespace=namespace)

    assert described(s3_jobs.read_job(s3_batch.describe_call(ACCOUNT, JOB), reply)) == without_nothing(theirs["Job"])


def read_by_both(operation: str, name: str, content: str, *, namespace: bool) -> tuple[Reply, dict[str, Any]]:
    from botocore.parsers import create_parser

    attribute = ' xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/"' * namespace
    body = f"<{name}{attribute}>{content}</{name}>".encode()
    answer = {"status_code": 200, "headers": {}, "body": body}
    shape = s3_model().operation_model(operation).output_shape
    return Reply(200, {}, body), create_parser("rest-xml").parse(answer, shape)


def without_nothing(found: Any) -> Any:
    """Leave out what is empty: we do not tell it from what is missing."""
    if isinstance(found, dict):
        inner = {name: without_nothing(value) for name, value in found.items()}
        return {name: value for name, value in inner.items() if value not in ("", None, [], {})}
    return [without_nothing(one) for one in found] if isinstance(found, list) else found


def progress(found: s3_jobs.Progress) -> dict[str, Any]:
    return {
        "TotalNumberOfTasks": found.total,
        "NumberOfTasksSucceeded": found.succeeded,
        "NumberOfTasksFailed": found.failed,
        "Timers": {"ElapsedTimeInActiveSeconds": found.active_seconds},
    }


def listed(job: s3_jobs.Listed) -> dict[str, Any]:
    return dict(
        without_nothing(
            {
                "JobId": job.job_id,
                "Description": job.description,
                "Operation": job.operation,
                "Priority": job.priority,
                "Status": job.status,
                "CreationTime": job.created,
                "TerminationDate": job.terminated,
                "ProgressSummary": progress(job.progress),
            }
        )
    )


def described(job: s3_jobs.Job) -> dict[str, Any]:
    manifest, report = job.manifest, job.report
    spec = {"Format": manifest.format} if manifest else {}
    where = (
        {"ObjectArn": manifest.arn, "ETag": manifest.etag, "ObjectVersionId": manifest.version_id} if manifest else {}
    )
    reported = (
        {
            "Enabled": report.enabled,
            "Bucket": report.bucket,
            "Prefix": report.prefix,
            "Format": report.format,
            "ReportScope": report.scope,
        }
        if report
        else {}
    )
    return dict(
        without_nothing(
            {
                **listed(s3_jobs.Listed(job.job_id, job.status, job.description, "", job.priority)),
                "JobArn": job.arn,
                "ConfirmationRequired": job.confirmation_required,
                "StatusUpdateReason": job.update_reason,
                "CreationTime": job.created,
                "TerminationDate": job.terminated,
                "SuspendedDate": job.suspended,
                "SuspendedCause": job.suspended_cause,
                "RoleArn": job.role_arn,
                "ProgressSummary": progress(job.progress),
                "FailureReasons": [{"FailureCode": one.code, "FailureReason": one.reason} for one in job.failures],
                "Manifest": {"Spec": spec, "Location": where},
                "Report": reported,
                "Operation": {"LambdaInvoke": {"FunctionArn": "x"}} if job.operation == "LambdaInvoke" else {},
            }
        )
    )
