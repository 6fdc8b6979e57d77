"""Jobs of AWS Batch for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.cli.cloud.tables import card, when
from thingjobs.cloud.batch import FINAL, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from thingjobs.cli.paint import Paint
    from thingjobs.cloud.batch import Attempt, Job

_LOOKS: Mapping[str, str] = {
    Status.STARTING: "IN_PROGRESS",
    Status.RUNNING: "IN_PROGRESS",
    Status.SUCCEEDED: "SUCCEEDED",
    Status.FAILED: "FAILED",
}


def shown(paint: Paint, job: Job) -> Iterator[str]:
    """Return all that people want to know of a job."""
    rows = [
        ("name", job.name),
        ("queue", job.queue),
        ("created", when(job.created)),
        ("started", when(job.started)),
        ("stopped", when(job.stopped)),
        ("asked for", _asked(job)),
        ("reason", job.reason),
        ("exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("container", job.container_reason),
        ("children", _children(job)),
        *((f"attempt {number}", _attempt(one)) for number, one in enumerate(job.attempts, 1)),
        ("log stream", job.log_stream),
        ("arn", job.arn),
    ]
    return card(paint, _LOOKS.get(job.status, "QUEUED"), job.job_id, job.status, rows)


def _asked(job: Job) -> str:
    asked = " and ".join(word for word, was in (("a cancel", job.cancelled), ("a termination", job.terminated)) if was)
    return f"{asked}, not over yet" if asked and job.status not in FINAL else asked


def _children(job: Job) -> str:
    if job.array_size is None:
        return ""
    counts = ", ".join(f"{count} {status}" for status, count in job.children.items() if count)
    return f"{job.array_size}{f': {counts}' * bool(counts)}"


def _attempt(attempt: Attempt) -> str:
    code = "" if attempt.exit_code is None else f"exit code {attempt.exit_code}"
    said = (when(attempt.started), code, attempt.container_reason, attempt.reason)
    return ", ".join(text for text in said if text)
