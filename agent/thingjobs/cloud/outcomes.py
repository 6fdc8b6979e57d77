"""What became of a cloud job, judged by what was asked of it: done, failed, or not over yet. Pure.

    match outcomes.of_s3(Asked.CANCEL, client.describe(job_id), token):
        case Done(sentence): ...
        case Failed(code, sentence): ...
        case Pending(percent, sentence): ...

That a service answered 200 proves nothing here: only a described status does. `Cancelling` is not cancelled; CancelJob
of AWS Batch answers 200 where it does nothing; a status that this release does not know is no end. What nobody is sure
of is pending.

Sources: "Job status responses" of the Amazon S3 user guide; UpdateJobStatus and DescribeJob (S3 Control); "Job states",
CancelJob, TerminateJob and DescribeJobs (AWS Batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from thingjobs.cloud import batch, s3_jobs
from thingjobs.cloud.errors import Fate, Trouble
from thingjobs.cloud.words import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.cloud.errors import CloudError

S3_REASON_CHARACTERS = 256
BATCH_REASON_CHARACTERS = 1024


class Asked(StrEnum):
    """What is asked of a cloud job; only AWS Batch knows how to terminate, only S3 what is to be confirmed."""

    CONFIRM = "confirm"
    CANCEL = "cancel"
    TERMINATE = "terminate"
    WATCH = "watch"


class Why(StrEnum):
    """The codes of what fails, as they stand in status details; `thingjobs.model.Code` publishes all of them."""

    #: The policy of this device does not let documents touch that job.
    FORBIDDEN = "cloud.forbidden"
    #: What is configured of the cloud is not enough, or does not fit.
    CONFIG = "cloud.config"
    #: There are no credentials, or the service does not take them.
    CREDENTIALS = "cloud.credentials"
    #: They are good, and do not allow it.
    DENIED = "cloud.denied"
    #: The service knows no such job, or none any more.
    UNKNOWN = "cloud.unknown"
    #: The service does not do it, for a reason of its own.
    REFUSED = "cloud.refused"
    #: The service was not reached, or did not answer so that it can be understood.
    UNAVAILABLE = "cloud.unavailable"
    #: Nothing could be asked yet, and the document does not want to wait.
    NOT_READY = "cloud.not-ready"
    #: It was over before it could be cancelled.
    LOST_RACE = "cloud.lost-race"
    #: It runs, and cancelling does nothing to what runs.
    RUNNING = "cloud.running"
    #: It was cancelled or terminated.
    CANCELLED = "cloud.cancelled"
    #: It failed.
    FAILED = "cloud.failed"
    #: It is complete, and some of its tasks failed.
    TASKS_FAILED = "cloud.tasks-failed"


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked is so, and the described job proves it."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It is not so, and will never be; `code` is one of Why."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Pending:
    """It may still come to be; `percent`: how far the job is that is watched, None: nobody knows."""

    percent: float | None
    sentence: str


Outcome = Done | Failed | Pending

_WHY: Mapping[Trouble, Why] = {
    Trouble.INPUT: Why.CONFIG,
    Trouble.REGION: Why.CONFIG,
    Trouble.CREDENTIALS: Why.CREDENTIALS,
    Trouble.EXPIRED: Why.CREDENTIALS,
    Trouble.CLOCK: Why.CREDENTIALS,
    Trouble.SIGNATURE: Why.CREDENTIALS,
    Trouble.DENIED: Why.DENIED,
    Trouble.NOT_FOUND: Why.UNKNOWN,
    Trouble.CONFLICT: Why.REFUSED,
    Trouble.REJECTED: Why.REFUSED,
    Trouble.THROTTLED: Why.UNAVAILABLE,
    Trouble.UNAVAILABLE: Why.UNAVAILABLE,
    Trouble.UNREACHABLE: Why.UNAVAILABLE,
    Trouble.NONSENSE: Why.UNAVAILABLE,
}


def why(error: CloudError) -> Why:
    """Return the code for a call that brought nothing."""
    if error.fate is Fate.NOT_SENT and error.trouble in (Trouble.NOT_FOUND, Trouble.DENIED, Trouble.REJECTED):
        return Why.CREDENTIALS  # who said so was whoever gives the credentials
    return _WHY[error.trouble]


# --- whose request it was -----------------------------------------------------------------------------------------


def token_of(thing: str, job_id: str, execution: int) -> str:
    """Return what tells the requests of one execution on one device from all others, after a restart as before.

    The longest names that AWS IoT allows make it 223 characters: what is asked of S3 has 33 left for a text.
    """
    return f"(iot-job:{job_id}#{execution}@{thing})"


def reason_of(text: str, token: str, longest: int) -> str:
    """Return a text and a token as a reason of at most so many characters; the text is what is cut short."""
    said, room = plain(text, longest), longest - len(token) - 1
    return f"{said if len(said) <= room else f'{said[: room - 1]}…'} {token}" if said and room > 1 else token


def is_ours(reason: str, token: str) -> bool:
    """Return whether a described reason came with a request that had this token."""
    return bool(token) and reason.endswith(token)


def _by_whom(reason: str, token: str) -> str:
    return "" if not token else " by this device job" if is_ours(reason, token) else ", but not by this device job"


# --- S3 Batch Operations ------------------------------------------------------------------------------------------

_S3 = s3_jobs.Status
#: Confirming is behind these. From the first two a job comes to `Suspended` if it wants to be confirmed.
_UNCONFIRMED = frozenset({_S3.NEW, _S3.PREPARING, _S3.SUSPENDED})
_CONFIRMED = frozenset({_S3.READY, _S3.ACTIVE, _S3.PAUSING, _S3.PAUSED, _S3.COMPLETING, _S3.COMPLETE})


def of_s3(asked: Asked, job: s3_jobs.Job, token: str = "") -> Outcome:
    """Judge what DescribeJob tells.

    Args:
        asked: what the job was asked for, or is about to be.
        job: as described.
        token: see `token_of`; "": whose request it was is not spoken of.
    """
    match asked:
        case Asked.CONFIRM:
            return _s3_confirmed(job, token)
        case Asked.CANCEL | Asked.TERMINATE:
            return _s3_cancelled(job, token)
        case _:
            return _s3_watched(job)


def s3_open(asked: Asked, job: s3_jobs.Job) -> bool:
    """Return whether UpdateJobStatus may bring about what is asked of a job as it stands."""
    if asked is Asked.CONFIRM:
        return job.status == _S3.SUSPENDED
    return asked is not Asked.WATCH and job.status not in {*s3_jobs.FINAL, _S3.CANCELLING}


def _s3_confirmed(job: s3_jobs.Job, token: str) -> Outcome:
    if job.status in _CONFIRMED:
        if job.confirmation_required is False and not is_ours(job.update_reason, token):
            return Done(f"{_s3_is(job)}; it needs no confirmation")
        return Done(f"{_s3_is(job)}; it was confirmed{_by_whom(job.update_reason, token)}")
    if job.status in s3_jobs.FINAL:
        return _s3_ended_badly(job)
    return _s3_pending(job)


def _s3_cancelled(job: s3_jobs.Job, token: str) -> Outcome:
    if job.status == _S3.CANCELLED:
        return Done(f"{_s3_is(job)}: it was cancelled{_by_whom(job.update_reason, token)}{_s3_tasks(job, ', ')}")
    if job.status in s3_jobs.FINAL:
        return Failed(Why.LOST_RACE, f"{_s3_is(job)}{_s3_reasons(job)}: nothing is left to cancel{_s3_tasks(job)}")
    return _s3_pending(job)


def _s3_watched(job: s3_jobs.Job) -> Outcome:
    if job.status == _S3.COMPLETE:
        if job.progress.failed:
            named = "; its completion report names them" if job.report and job.report.enabled else ""
            return Failed(Why.TASKS_FAILED, f"{_s3_is(job)}{_s3_tasks(job)}{named}")
        return Done(f"{_s3_is(job)}{_s3_tasks(job)}")
    return _s3_ended_badly(job) if job.status in s3_jobs.FINAL else _s3_pending(job, _s3_percent(job))


def _s3_ended_badly(job: s3_jobs.Job) -> Failed:
    if job.status == _S3.CANCELLED:
        return Failed(Why.CANCELLED, f"{_s3_is(job)}{_said(job.update_reason)}{_s3_tasks(job)}")
    return Failed(Why.FAILED, f"{_s3_is(job)}{_s3_reasons(job)}{_s3_tasks(job)}")


def _s3_pending(job: s3_jobs.Job, percent: float | None = None) -> Pending:
    waits = " and waits to be confirmed" if job.status == _S3.SUSPENDED else ""
    return Pending(percent, f"{_s3_is(job)}{waits}{_unheard(job.status, _S3)}{_s3_tasks(job)}")


def _s3_percent(job: s3_jobs.Job) -> float | None:
    counts = job.progress
    return _share((counts.succeeded or 0) + (counts.failed or 0), counts.total)


def _s3_is(job: s3_jobs.Job) -> str:
    return f"the S3 batch job {job.job_id} is {plain(job.status)}"


def _s3_tasks(job: s3_jobs.Job, before: str = "; ") -> str:
    counts = job.progress
    if not counts.total:
        return ""
    return f"{before}of {counts.total} tasks {counts.succeeded or 0} succeeded and {counts.failed or 0} failed"


def _s3_reasons(job: s3_jobs.Job) -> str:
    return _said("; ".join(f"{one.code}: {one.reason}" for one in job.failures))


# --- AWS Batch ----------------------------------------------------------------------------------------------------

_BATCH = batch.Status


def of_batch(asked: Asked, job: batch.Job | None, token: str = "") -> Outcome:
    """Judge what DescribeJobs tells.

    Args:
        asked: what the job was asked for, or is about to be.
        job: as described; None: it was not among those that came.
        token: see `token_of`; "": whose request it was is not spoken of.
    """
    if job is None:
        where = "look at the id, the region and the account; jobs are forgotten 7 days or more after their end"
        return Failed(Why.UNKNOWN, f"AWS Batch knows no such job; {where}")
    if asked in (Asked.CANCEL, Asked.TERMINATE):
        return _batch_ended(asked, job, token)
    return _batch_watched(job)


def batch_open(asked: Asked, job: batch.Job) -> bool:
    """Return whether CancelJob, or TerminateJob, may bring about what is asked of a job as it stands."""
    if asked is Asked.TERMINATE:
        return job.status not in batch.FINAL and not job.terminated
    return asked is Asked.CANCEL and job.status not in batch.FINAL | batch.UNDER_WAY and not job.cancelled


def _batch_ended(asked: Asked, job: batch.Job, token: str) -> Outcome:
    if job.status == _BATCH.FAILED and (is_ours(job.reason, token) or _was_ended(job)):
        how = "terminated" if job.terminated or (job.started and not job.cancelled) else "cancelled"
        return Done(f"{_batch_is(job)}: it was {how}{_by_whom(job.reason, token)}{_batch_children(job)}")
    if job.status in batch.FINAL:
        return Failed(Why.LOST_RACE, f"{_batch_is(job)}: nothing is left to {asked}{_batch_why(job)}")
    if asked is Asked.CANCEL and job.status in batch.UNDER_WAY:
        what = "it goes on, because CancelJob does nothing to a job that runs; only terminating would end it"
        return Failed(Why.RUNNING, f"{_batch_is(job)}: {what}")
    return _batch_pending(job)


def _was_ended(job: batch.Job) -> bool:
    """Return whether somebody ended a job that is FAILED.

    A job that ran may have `isCancelled` from a CancelJob that did nothing to it, and have failed by itself later. The
    parent of an array never runs.
    """
    return bool(job.terminated or (job.cancelled and (job.started is None or job.array_size is not None)))


def _batch_watched(job: batch.Job) -> Outcome:
    if job.status == _BATCH.SUCCEEDED:
        return Done(f"{_batch_is(job)}{_batch_children(job)}")
    if job.status == _BATCH.FAILED:
        ended = _was_ended(job)
        how = (": it was terminated" if job.terminated else ": it was cancelled") if ended else ""
        return Failed(Why.CANCELLED if ended else Why.FAILED, f"{_batch_is(job)}{how}{_batch_why(job)}")
    return _batch_pending(job, _batch_percent(job))


def _batch_pending(job: batch.Job, percent: float | None = None) -> Pending:
    unheard = _unheard(job.status, _BATCH)
    noted = f", and {'termination' if job.terminated else 'cancelling'} is noted" if _noted(job) else ""
    return Pending(percent, f"{_batch_is(job)}{unheard}{noted}{_batch_children(job)}")


def _noted(job: batch.Job) -> bool:
    return bool(job.cancelled or job.terminated)


def _batch_percent(job: batch.Job) -> float | None:
    return _share(sum(job.children.get(status, 0) for status in batch.FINAL), job.array_size)


def _batch_is(job: batch.Job) -> str:
    return f"the AWS Batch job {job.job_id} is {plain(job.status) or 'in no status'}"


def _batch_children(job: batch.Job) -> str:
    if not job.array_size:
        return ""
    counts = ", ".join(f"{count} {plain(status)}" for status, count in sorted(job.children.items()) if count)
    return f"; of {job.array_size} in its array {counts}" if counts else ""


def _batch_why(job: batch.Job) -> str:
    code = f"exit code {job.exit_code}" if job.exit_code is not None else ""
    return _said("; ".join(part for part in (job.reason, code, job.container_reason) if part)) + _batch_children(job)


# --- words --------------------------------------------------------------------------------------------------------


def _said(text: str) -> str:
    return f" ({plain(text)})" if text.strip() else ""


def _unheard(status: str, known: type[StrEnum]) -> str:
    return "" if status in set(known) else ", a status that this release does not know"


def _share(part: int, whole: int | None) -> float | None:
    return min(100.0, max(0.0, 100 * part / whole)) if whole and whole > 0 else None
