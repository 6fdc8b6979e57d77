"""The service's answers and notifications as JSON objects, from records. Pure; decides nothing.

Timestamps are whole seconds, `jobDocument` is the JSON value itself (over HTTP it would be a string), and what
has no value is left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from thingjobs.testing.records import IN_PROGRESS, QUEUED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from thingjobs.testing.records import ExecutionView

Shape = dict[str, Any]

#: AWS IoT Jobs quotas: how many pending executions a device is shown.
MAX_LISTED = 10

_S3_PLACEHOLDER = re.compile(r"\$\{aws:iot:s3-presigned-url(?:-v2|-upload)?:([^}]+)\}")


def summary(execution: ExecutionView) -> Shape:
    """Return a JobExecutionSummary: the status is told by the list that it stands in."""
    shape: Shape = {
        "jobId": execution.job_id,
        "queuedAt": int(execution.queued_at),
        "lastUpdatedAt": int(execution.updated_at),
        "executionNumber": execution.number,
        "versionNumber": execution.version,
    }
    if execution.started_at is not None:
        shape["startedAt"] = int(execution.started_at)
    return shape


def state(execution: ExecutionView) -> Shape:
    """Return a JobExecutionState."""
    shape: Shape = {"status": execution.status, "versionNumber": execution.version}
    if execution.details:
        shape["statusDetails"] = dict(execution.details)
    return shape


def full(execution: ExecutionView, now: float) -> Shape:
    """Return a JobExecution without document and thing name: not every message has them."""
    shape = {**summary(execution), **state(execution)}
    if execution.due is not None:
        shape["approximateSecondsBeforeTimedOut"] = max(0, int(execution.due - now))
    return shape


def lists(pending: Sequence[ExecutionView]) -> Shape:
    """Return the answer to GetPendingJobExecutions; `pending` is in the service's order."""
    shown = pending[:MAX_LISTED]
    return {
        "inProgressJobs": _summaries(shown, IN_PROGRESS),
        "queuedJobs": _summaries(shown, QUEUED),
    }


def by_status(pending: Sequence[ExecutionView]) -> Shape:
    """Return the `jobs` of a JobExecutionsChanged notification: a status without entries is left out."""
    shown = pending[:MAX_LISTED]
    both = {status: _summaries(shown, status) for status in (IN_PROGRESS, QUEUED)}
    return {status: listed for status, listed in both.items() if listed}


def _summaries(executions: Iterable[ExecutionView], status: str) -> list[Shape]:
    return [summary(execution) for execution in executions if execution.status == status]


def encoded(shape: Mapping[str, Any]) -> bytes:
    """Return a message's payload."""
    return json.dumps(shape, separators=(",", ":"), ensure_ascii=False).encode()


def delivered(document: Any, presign: Callable[[str], str] | None) -> Any:
    """Return a job document as one delivery carries it.

    The service writes it anew, and leaves out members of objects that are null (so says an emulator whose authors
    compared it with the live service; the documentation is silent). Each S3 placeholder becomes a new URL.
    """
    if isinstance(document, dict):
        return {key: delivered(value, presign) for key, value in document.items() if value is not None}
    if isinstance(document, list):
        return [delivered(value, presign) for value in document]
    if isinstance(document, str) and presign is not None:
        return _S3_PLACEHOLDER.sub(lambda found: presign(found[1]), document)
    return document
