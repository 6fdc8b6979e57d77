"""How executions come to be and change. Pure: a record and a time in, a record out; it refuses nothing."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from thingjobs.testing.records import IN_PROGRESS, NO_DETAILS, PENDING, QUEUED, Change, ExecutionView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from thingjobs.testing.records import Job


def queued(job: Job, thing: str, number: int, now: float) -> ExecutionView:
    """Return a new execution of `job`: QUEUED at version 1, with no timer before it is started."""
    return ExecutionView(
        thing=thing,
        job_id=job.job_id,
        number=number,
        status=QUEUED,
        version=1,
        details=NO_DETAILS,
        queued_at=now,
        updated_at=now,
        started_at=None,
        deadline=None,
        step_deadline=None,
        history=(Change(QUEUED, 1, NO_DETAILS, now),),
    )


def moved(
    execution: ExecutionView,
    status: str,
    now: float,
    *,
    details: Mapping[str, str] = NO_DETAILS,
    step_minutes: int | None = None,
    timeout_minutes: int | None = None,
    counts: bool = True,
) -> ExecutionView:
    """Return `execution` with another status (or the same one again).

    Args:
        execution: a pending one.
        status: what it becomes.
        now: seconds since the epoch.
        details: replace the stored ones as a whole; an empty map leaves those as they are.
        step_minutes: restarts the step timer, -1 stops it, None leaves it counting.
        timeout_minutes: of the in-progress timer, which begins with the first IN_PROGRESS.
        counts: whether versionNumber rises.
    """
    stored = MappingProxyType(dict(details)) if details else execution.details
    version = execution.version + counts
    starts = status == IN_PROGRESS and execution.status != IN_PROGRESS
    deadline = after(now, timeout_minutes) if starts else execution.deadline
    step_deadline = execution.step_deadline if step_minutes is None else after(now, step_minutes)
    runs = status in PENDING
    return replace(
        execution,
        status=status,
        version=version,
        details=stored,
        updated_at=now,
        started_at=now if starts else execution.started_at,
        deadline=deadline if runs else None,
        step_deadline=step_deadline if runs else None,
        history=(*execution.history, Change(status, version, stored, now)),
    )


def after(now: float, minutes: int | None) -> float | None:
    """Return the time `minutes` from now; None for no timer (None or -1)."""
    return None if minutes is None or minutes < 0 else now + minutes * 60


def retry_left(job: Job, attempts: Iterable[ExecutionView], status: str) -> bool:
    """Tell whether an execution that ended as `status` is tried again (jobExecutionsRetryConfig).

    Args:
        job: the job, with its retry configuration.
        attempts: every execution of the job on the thing, the one that ended included.
        status: FAILED or TIMED_OUT.
    """
    ends = [attempt.status for attempt in attempts]
    of_this_kind = ends.count(status)
    of_all_kinds = ends.count("FAILED") + ends.count("TIMED_OUT")
    return of_this_kind <= job.retries.get(status, 0) or of_all_kinds <= job.retries.get("ALL", 0)
