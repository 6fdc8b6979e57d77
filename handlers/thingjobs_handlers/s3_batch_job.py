"""The handler `s3-batch-job`: confirms, cancels or watches a job of S3 Batch Operations."""

# ruff: noqa: N815 - the names of the parameters are those that AWS has in its own documents

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from thingjobs.cloud import outcomes, s3_batch
from thingjobs.cloud.outcomes import Asked
from thingjobs_handlers.cloud_jobs import CloudJob, check_allowed, check_calls
from thingjobs_handlers.cloud_pursuit import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.cloud.outcomes import Outcome
    from thingjobs.cloud.s3_jobs import Job
    from thingjobs.handler import Context
    from thingjobs_handlers.cloud_pursuit import Side


class S3BatchJob(CloudJob):
    """Ends as what is asked of an S3 batch job has ended, which no answer of UpdateJobStatus says."""

    description = "confirms, cancels or watches a job of S3 Batch Operations"

    @dataclass(frozen=True)
    class Params:
        """What a job for `s3-batch-job` says."""

        jobId: Annotated[str, "the S3 batch job", {"minLength": 5, "maxLength": 36}]
        action: Annotated[
            Literal["confirm", "cancel", "watch"],
            "confirm: let a job run that waits for that; watch: end as it ends",
        ]
        reason: Annotated[str, "why it is confirmed or cancelled, for whoever looks at it", {"maxLength": 256}] = ""
        wait: Annotated[bool, "false: do not wait until it is confirmed or cancelled"] = True
        cancelWith: Annotated[bool, "of watch: cancel it when the device job is cancelled"] = True
        pollSeconds: Annotated[int, "the longest time between two looks at it", {"minimum": 1, "maximum": 3600}] = 60

    def side(self, ctx: Context, params: Params, asked: Asked) -> Side:
        """Return the cloud job that the document names."""
        return _Side(ctx, params, asked)


class _Side:
    """One job, as S3 Control wants to be spoken to."""

    def __init__(self, ctx: Context, params: S3BatchJob.Params, asked: Asked) -> None:
        self._ctx = ctx
        self._job_id = params.jobId
        self._token = outcomes.token_of(ctx.thing, ctx.job_id, ctx.execution)
        self._reason = outcomes.reason_of(params.reason, self._token, outcomes.S3_REASON_CHARACTERS)
        self.asked = asked

    def check_allowed(self) -> None:
        """Let it pass only if there may be such a job, and this device lets documents touch it. Raises Reject."""
        check_calls(lambda: s3_batch.describe_call("", self._job_id))
        allowed = self._ctx.cloud.may_touch_s3(self._job_id)
        check_allowed(allowed, self._job_id, "cloud.allow_s3_jobs")

    def look(self) -> Job:
        """Describe it. Raises CloudError."""
        return self._ctx.cloud.s3_batch.describe(self._job_id)

    def status(self, seen: Job) -> str:
        """Return its status."""
        return seen.status

    def outcome(self, seen: Job) -> Outcome:
        """Judge it by what is asked."""
        return outcomes.of_s3(self.asked, seen, self._token)

    def request(self, seen: Job) -> Request | None:
        """Return what may bring about what is asked; None: nothing, as it stands."""
        return Request(str(self.asked), self.send) if outcomes.s3_open(self.asked, seen) else None

    def calls(self) -> Iterator[Callable[[], object]]:
        """Give the calls that may be made."""
        yield self.look
        if self.asked is not Asked.WATCH:
            yield self.send

    def send(self) -> object:
        """Confirm it or cancel it. Raises CloudError."""
        client = self._ctx.cloud.s3_batch
        change = client.confirm if self.asked is Asked.CONFIRM else client.cancel
        return change(self._job_id, self._reason)
