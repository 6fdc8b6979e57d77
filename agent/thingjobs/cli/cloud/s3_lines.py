"""Jobs of S3 Batch Operations for people. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from thingjobs.cli.cloud.tables import Column, Row, card, table, when
from thingjobs.cloud.s3_jobs import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from thingjobs.cli.paint import Paint
    from thingjobs.cloud.s3_jobs import Job, Listed, Manifest, Progress, Report

_COLUMNS = (
    Column("id"),
    Column("status"),
    Column("tasks", 6),
    Column("failed", 5),
    Column("created", 3),
    Column("operation", 2),
    Column("priority", 1),
    Column("description", 4),
)
_LOOKS: Mapping[str, str] = {
    Status.ACTIVE: "IN_PROGRESS",
    Status.COMPLETING: "IN_PROGRESS",
    Status.COMPLETE: "SUCCEEDED",
    Status.FAILING: "FAILED",
    Status.FAILED: "FAILED",
    Status.CANCELLING: "REJECTED",
    Status.CANCELLED: "REJECTED",
}


def listed(paint: Paint, jobs: Sequence[Listed]) -> Iterator[str]:
    """Return the lines of a table of jobs."""
    return table(paint, _COLUMNS, [Row(_looks(job), _cells(job)) for job in jobs])


def shown(paint: Paint, job: Job) -> Iterator[str]:
    """Return all that people want to know of a job."""
    rows = [
        ("description", job.description),
        ("operation", job.operation),
        ("tasks", _tasks(job.progress)),
        ("priority", "" if job.priority is None else str(job.priority)),
        ("created", when(job.created)),
        ("suspended", when(job.suspended)),
        ("because", job.suspended_cause),
        ("to confirm", "yes, it waits to be confirmed" if _waits(job) else ""),
        ("ended", when(job.terminated)),
        ("reason", job.update_reason),
        *(("failure", f"{one.code}: {one.reason}") for one in job.failures),
        *_manifest(job.manifest),
        *_report(job.report),
        ("role", job.role_arn),
        ("arn", job.arn),
    ]
    return card(paint, _looks(job), job.job_id, job.status, rows)


def _cells(job: Listed) -> tuple[str, ...]:
    progress = job.progress
    return (
        job.job_id,
        job.status,
        "" if progress.total is None else f"{_done(progress)}/{progress.total}",
        "" if progress.failed is None else str(progress.failed),
        when(job.created),
        job.operation,
        "" if job.priority is None else str(job.priority),
        job.description,
    )


def _looks(job: Job | Listed) -> str:
    """Return the status of a device job that it looks like; a job that is complete may have tasks that failed."""
    if job.status == Status.COMPLETE and job.progress.failed:
        return "REJECTED"
    return _LOOKS.get(job.status, "QUEUED")


def _tasks(progress: Progress) -> str:
    if progress.total is None:
        return ""
    failed = f", {progress.failed} of them failed" if progress.failed else ""
    time = "" if progress.active_seconds is None else f"; {timedelta(seconds=progress.active_seconds)} at work"
    return f"{_done(progress)} of {progress.total} done{failed}{time}"


def _done(progress: Progress) -> int:
    return (progress.succeeded or 0) + (progress.failed or 0)


def _waits(job: Job) -> bool:
    return bool(job.confirmation_required) and job.status == Status.SUSPENDED


def _manifest(manifest: Manifest | None) -> list[tuple[str, str]]:
    if manifest is None:
        return []
    return [("manifest", f"{manifest.arn}{f' ({manifest.format})' * bool(manifest.format)}")]


def _report(report: Report | None) -> list[tuple[str, str]]:
    if report is None:
        return []
    if not report.enabled:
        return [("report", "none")]
    return [("report", f"{report.bucket}{f'/{report.prefix}' * bool(report.prefix)} ({report.scope})")]
