"""Jobs of S3 Batch Operations as values, and how they are read from what the service answers. Pure.

Source: the types of these names in the Amazon S3 Control API, version 2018-08-20. Times are aware and in UTC,
durations are seconds. What the API makes optional, or an answer leaves out, is None or "".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.replies import xml_result
from thingjobs.cloud.words import moment, number

if TYPE_CHECKING:
    from datetime import datetime

    from thingjobs.cloud.calls import Call, Reply
    from thingjobs.cloud.markup import Node


class Status(StrEnum):
    """JobStatus, as far as it is known today; fields have text, which may be something else tomorrow."""

    ACTIVE = "Active"
    CANCELLED = "Cancelled"
    CANCELLING = "Cancelling"
    COMPLETE = "Complete"
    COMPLETING = "Completing"
    FAILED = "Failed"
    FAILING = "Failing"
    NEW = "New"
    PAUSED = "Paused"
    PAUSING = "Pausing"
    PREPARING = "Preparing"
    READY = "Ready"
    SUSPENDED = "Suspended"


#: Nothing follows these. A job that is `Complete` may have tasks that failed.
FINAL = frozenset({Status.COMPLETE, Status.CANCELLED, Status.FAILED})


@dataclass(frozen=True, slots=True)
class Progress:
    """JobProgressSummary and JobTimers; `active_seconds`: how long the job has been at work."""

    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    active_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """JobListDescriptor: what ListJobs tells of a job.

    Attributes:
        operation: such as `LambdaInvoke`.
        priority: the higher the sooner, 0..2147483647.
        status: one of Status, or one that this release does not know.
        terminated: when it came to its end.
    """

    job_id: str
    status: str
    description: str = ""
    operation: str = ""
    priority: int | None = None
    created: datetime | None = None
    terminated: datetime | None = None
    progress: Progress = Progress()


@dataclass(frozen=True, slots=True)
class Page:
    """ListJobsResult; `next_token` is "" on the last page."""

    jobs: tuple[Listed, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """JobFailure: why a job failed or could not be made ready."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """JobReport: where the completion report is written; `bucket` is an ARN, `scope` AllTasks or FailedTasksOnly."""

    enabled: bool
    bucket: str = ""
    prefix: str = ""
    format: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """JobManifest: which objects the job is about; `arn` and `etag` are those of the manifest object."""

    arn: str
    etag: str = ""
    version_id: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """JobDescriptor: what DescribeJob tells.

    Attributes:
        status: one of Status, or one that this release does not know.
        operation: the name of the operation's element, such as `LambdaInvoke`.
        confirmation_required: whether it waits in `Suspended` until somebody confirms it.
        update_reason: StatusUpdateReason, the reason that came with the last UpdateJobStatus.
        terminated: when it came to its end.
        suspended: since when it waits to be confirmed.
    """

    job_id: str
    status: str
    arn: str = ""
    description: str = ""
    operation: str = ""
    priority: int | None = None
    confirmation_required: bool | None = None
    update_reason: str = ""
    failures: tuple[Failure, ...] = ()
    progress: Progress = Progress()
    created: datetime | None = None
    terminated: datetime | None = None
    suspended: datetime | None = None
    suspended_cause: str = ""
    role_arn: str = ""
    manifest: Manifest | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Updated:
    """UpdateJobStatusResult: the status now, which is seldom the last one: `Cancelling` is not done."""

    job_id: str
    status: str
    update_reason: str = ""


def read_page(call: Call, reply: Reply) -> Page:
    """Read ListJobsResult. Raises CloudError: it is none."""
    root = xml_result(call, reply)
    return Page(tuple(_listed(node) for node in root.every("Jobs") if node.said("JobId")), root.said("NextToken"))


def read_job(call: Call, reply: Reply) -> Job:
    """Read DescribeJobResult. Raises CloudError: it is none."""
    job = xml_result(call, reply).at("Job")
    if job is None or not job.said("JobId") or not job.said("Status"):
        raise _incomplete(call)
    operation = next(iter(job.every("Operation")), None)
    return Job(
        job_id=job.said("JobId"),
        status=job.said("Status"),
        arn=job.said("JobArn"),
        description=job.said("Description"),
        operation=operation.name if operation else "",
        priority=number(job.said("Priority")),
        confirmation_required=_flag(job.said("ConfirmationRequired")),
        update_reason=job.said("StatusUpdateReason"),
        failures=tuple(
            Failure(one.said("FailureCode"), one.said("FailureReason")) for one in job.every("FailureReasons")
        ),
        progress=_progress(job),
        created=moment(job.said("CreationTime")),
        terminated=moment(job.said("TerminationDate")),
        suspended=moment(job.said("SuspendedDate")),
        suspended_cause=job.said("SuspendedCause"),
        role_arn=job.said("RoleArn"),
        manifest=_manifest(job),
        report=_report(job.at("Report")),
    )


def read_updated(call: Call, reply: Reply) -> Updated:
    """Read UpdateJobStatusResult. Raises CloudError: it is none."""
    root = xml_result(call, reply)
    if not root.said("JobId") or not root.said("Status"):
        raise _incomplete(call)
    return Updated(root.said("JobId"), root.said("Status"), root.said("StatusUpdateReason"))


def _incomplete(call: Call) -> CloudError:
    wrong = "the answer names no job and no status; look at the job before you try again"
    return CloudError(f"cannot {call.purpose}: {wrong}", Trouble.NONSENSE, Fate.UNKNOWN)


def _listed(node: Node) -> Listed:
    return Listed(
        job_id=node.said("JobId"),
        status=node.said("Status"),
        description=node.said("Description"),
        operation=node.said("Operation"),
        priority=number(node.said("Priority")),
        created=moment(node.said("CreationTime")),
        terminated=moment(node.said("TerminationDate")),
        progress=_progress(node),
    )


def _progress(node: Node) -> Progress:
    summary = "ProgressSummary"
    return Progress(
        total=number(node.said(summary, "TotalNumberOfTasks")),
        succeeded=number(node.said(summary, "NumberOfTasksSucceeded")),
        failed=number(node.said(summary, "NumberOfTasksFailed")),
        active_seconds=number(node.said(summary, "Timers", "ElapsedTimeInActiveSeconds")),
    )


def _manifest(job: Node) -> Manifest | None:
    """Return the manifest that the job has, or the one that S3 made for it (GeneratedManifestDescriptor)."""
    for found, form in (
        (job.at("Manifest", "Location"), job.said("Manifest", "Spec", "Format")),
        (job.at("GeneratedManifestDescriptor", "Location"), job.said("GeneratedManifestDescriptor", "Format")),
    ):
        if found:
            return Manifest(found.said("ObjectArn"), found.said("ETag"), found.said("ObjectVersionId"), form)
    return None


def _report(node: Node | None) -> Report | None:
    if node is None:
        return None
    return Report(
        enabled=_flag(node.said("Enabled")) is True,
        bucket=node.said("Bucket"),
        prefix=node.said("Prefix"),
        format=node.said("Format"),
        scope=node.said("ReportScope"),
    )


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.strip().lower())
