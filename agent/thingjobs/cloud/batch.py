"""AWS Batch: CancelJob, TerminateJob and DescribeJobs.

Source of everything here: the operations and types of these names in the AWS Batch API, version 2016-08-10. Its times
are milliseconds since the epoch; here they are aware and in UTC. What an answer leaves out is None or "".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.cloud.calls import Call
from thingjobs.cloud.errors import unusable
from thingjobs.cloud.replies import json_result
from thingjobs.cloud.words import NO_TEXT, is_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.calls import Endpoint, Reply

#: A UUID; a child of an array has `:INDEX` behind it, a node of a multi-node job `#INDEX`.
_JOB_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}([:#][0-9]{1,10})?")
_LONGEST_REASON = 1024
_MOST_JOBS = 100


class Status(StrEnum):
    """JobStatus, as far as it is known today; fields have text, which may be something else tomorrow."""

    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    RUNNABLE = "RUNNABLE"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


#: Nothing follows these. A job that was cancelled or terminated is FAILED, too.
FINAL = frozenset({Status.SUCCEEDED, Status.FAILED})
#: CancelJob does nothing to a job in one of these, and says 200 (API reference of CancelJob).
UNDER_WAY = frozenset({Status.STARTING, Status.RUNNING})


@dataclass(frozen=True, slots=True)
class Attempt:
    """AttemptDetail: one of the job's runs, with what its container said; `exit_code` is None before its end."""

    started: datetime | None = None
    stopped: datetime | None = None
    reason: str = ""
    exit_code: int | None = None
    container_reason: str = ""
    log_stream: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """JobDetail: what DescribeJobs tells.

    Attributes:
        status: one of Status, or one that this release does not know.
        reason: statusReason; after a cancel or a terminate it is the reason that came with that.
        started: None as long as it never ran.
        cancelled: isCancelled: a cancel was asked for. It takes effect only before the job starts.
        terminated: isTerminated: a terminate was asked for.
        exit_code: of its container.
        container_reason: more about a container that runs or has ended.
        array_size: how many children an array job has; None: it is none.
        children: how many of them are in which status.
    """

    job_id: str
    status: str
    name: str = ""
    queue: str = ""
    arn: str = ""
    reason: str = ""
    created: datetime | None = None
    started: datetime | None = None
    stopped: datetime | None = None
    cancelled: bool | None = None
    terminated: bool | None = None
    exit_code: int | None = None
    container_reason: str = ""
    log_stream: str = ""
    attempts: tuple[Attempt, ...] = ()
    array_size: int | None = None
    children: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Batch:
    """The jobs of one region, in the account that the credentials are of.

    Args:
        caller: makes the calls.
        endpoint: see `endpoints.batch`.
    """

    def __init__(self, caller: Caller, endpoint: Endpoint) -> None:
        self._caller = caller
        self._endpoint = endpoint

    def describe(self, *job_ids: str) -> tuple[Job, ...]:
        """Ask DescribeJobs about up to 100 jobs; those that it does not know are simply missing.

        Raises:
            CloudError: these are no ids or too many, or there is no answer that describes them.
        """
        return self._caller.make(describe_call(*job_ids), self._endpoint, read_jobs)

    def cancel(self, job_id: str, reason: str) -> None:
        """Ask CancelJob. That it raises nothing says only that the service took note, so describe the job and see.

        It ends a job that is SUBMITTED, PENDING (once its dependencies are done) or RUNNABLE; it does nothing to one
        that is STARTING or RUNNING, and nothing to one that is over.

        Args:
            job_id: which.
            reason: 1..1024 characters; becomes the job's statusReason.

        Raises:
            CloudError: it was not sent, was refused, or nobody knows (fate unknown).
        """
        self._caller.make(cancel_call(job_id, reason), self._endpoint, json_result)

    def terminate(self, job_id: str, reason: str) -> None:
        """Ask TerminateJob: SIGTERM to a job that runs, later SIGKILL; one that does not run yet is cancelled.

        Args:
            job_id: which.
            reason: 1..1024 characters; becomes the job's statusReason.

        Raises:
            CloudError: it was not sent, was refused, or nobody knows (fate unknown).
        """
        self._caller.make(terminate_call(job_id, reason), self._endpoint, json_result)


def describe_call(*job_ids: str) -> Call:
    """Return the call that asks about jobs. Raises CloudError: these are no ids, none, or too many."""
    some = ", ".join(job_ids[:3]) + ", …" * (len(job_ids) > 3)
    purpose = f"look at the AWS Batch {'job' if len(job_ids) == 1 else 'jobs'} {some}"
    if not 1 <= len(job_ids) <= _MOST_JOBS:
        raise unusable("look at AWS Batch jobs", f"give 1 to {_MOST_JOBS} ids, not {len(job_ids)}")
    for job_id in job_ids:
        _check_id(job_id, "look at an AWS Batch job")
    return _call("DescribeJobs", purpose, {"jobs": list(job_ids)})


def cancel_call(job_id: str, reason: str) -> Call:
    """Return the call that cancels a job. Raises CloudError: that is no id, or no reason that can be sent."""
    return _ending("CancelJob", "cancel", job_id, reason)


def terminate_call(job_id: str, reason: str) -> Call:
    """Return the call that terminates a job. Raises CloudError: that is no id, or no reason that can be sent."""
    return _ending("TerminateJob", "terminate", job_id, reason)


def _ending(operation: str, verb: str, job_id: str, reason: str) -> Call:
    purpose = f"{verb} the AWS Batch job {job_id}"
    _check_id(job_id, f"{verb} an AWS Batch job")
    if not 1 <= len(reason) <= _LONGEST_REASON:
        wrong = f"a reason has 1 to {_LONGEST_REASON} characters, not {len(reason)}"
        raise unusable(purpose, wrong)
    if not is_whole(reason):
        raise unusable(purpose, NO_TEXT)
    return _call(operation, purpose, {"jobId": job_id, "reason": reason}, changes=True)


def _call(operation: str, purpose: str, body: Mapping[str, Any], *, changes: bool = False) -> Call:
    return Call(
        operation,
        purpose,
        f"batch:{operation}",
        "POST",
        f"/v1/{operation.lower()}",
        headers=(("Content-Type", "application/json"),),
        body=json.dumps(body).encode(),
        changes=changes,
    )


def _check_id(job_id: str, purpose: str) -> None:
    if not _JOB_ID.fullmatch(job_id):
        raise unusable(purpose, f"{job_id[:60]!r} is no job id; it is a UUID, with :N or #N behind it for a child")


def read_jobs(call: Call, reply: Reply) -> tuple[Job, ...]:
    """Read the answer of DescribeJobs. Raises CloudError: it is none."""
    found = json_result(call, reply)
    return tuple(_job(one) for one in _list(found, "jobs") if _text(one, "jobId"))


def _job(found: Mapping[str, Any]) -> Job:
    container, array = _inside(found, "container"), _inside(found, "arrayProperties")
    children = {name: count for name, count in _inside(array, "statusSummary").items() if type(count) is int}
    return Job(
        job_id=_text(found, "jobId"),
        status=_text(found, "status"),
        name=_text(found, "jobName"),
        queue=_text(found, "jobQueue"),
        arn=_text(found, "jobArn"),
        reason=_text(found, "statusReason"),
        created=_moment(found, "createdAt"),
        started=_moment(found, "startedAt"),
        stopped=_moment(found, "stoppedAt"),
        cancelled=_flag(found, "isCancelled"),
        terminated=_flag(found, "isTerminated"),
        exit_code=_number(container, "exitCode"),
        container_reason=_text(container, "reason"),
        log_stream=_text(container, "logStreamName"),
        attempts=tuple(_attempt(one) for one in _list(found, "attempts")),
        array_size=_number(array, "size"),
        children=MappingProxyType(children),
    )


def _attempt(found: Mapping[str, Any]) -> Attempt:
    container = _inside(found, "container")
    return Attempt(
        started=_moment(found, "startedAt"),
        stopped=_moment(found, "stoppedAt"),
        reason=_text(found, "statusReason"),
        exit_code=_number(container, "exitCode"),
        container_reason=_text(container, "reason"),
        log_stream=_text(container, "logStreamName"),
    )


def _inside(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = found.get(name)
    return inner if isinstance(inner, dict) else {}


def _list(found: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    inner = found.get(name)
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []


def _text(found: Mapping[str, Any], name: str) -> str:
    inner = found.get(name)
    return inner if isinstance(inner, str) else ""


def _number(found: Mapping[str, Any], name: str) -> int | None:
    inner = found.get(name)
    return inner if type(inner) is int else None


def _flag(found: Mapping[str, Any], name: str) -> bool | None:
    inner = found.get(name)
    return inner if isinstance(inner, bool) else None


def _moment(found: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time of AWS Batch: milliseconds since the epoch; 0 stands for a time that never came."""
    milliseconds = _number(found, name)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None
