"""The handler `batch-job`: cancels, terminates or watches a job of AWS Batch."""

# ruff: noqa: N815 - the names of the parameters are those that AWS has in its own documents

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from thingjobs.cloud import batch, outcomes
from thingjobs.cloud.outcomes import Asked
from thingjobs_handlers.cloud_jobs import CloudJob, check_allowed, check_calls
from thingjobs_handlers.cloud_pursuit import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.cloud.batch import Job
    from thingjobs.cloud.outcomes import Outcome
    from thingjobs.handler import Context
    from thingjobs_handlers.cloud_pursuit import Side


class BatchJob(CloudJob):
    """Ends as what is asked of an AWS Batch job has ended, which no answer of CancelJob says."""

    description = "cancels, terminates or watches a job of AWS Batch"

    @dataclass(frozen=True)
    class Params:
        """What a job for `batch-job` says."""

        jobId: Annotated[str, "the AWS Batch job; :INDEX behind it names a child of an array", {"minLength": 1}]
        action: Annotated[
            Literal["cancel", "terminate", "watch"],
            "cancel: if it has not started yet; terminate: if it runs, too; watch: end as it ends",
        ]
        reason: Annotated[str, "why it is ended, for whoever looks at it", {"maxLength": 1024}] = ""
        wait: Annotated[bool, "false: do not wait until it has ended"] = True
        terminateRunning: Annotated[bool, "where it is to be cancelled and runs: terminate it"] = False
        cancelWith: Annotated[bool, "of watch: cancel it when the device job is cancelled"] = True
        pollSeconds: Annotated[int, "the longest time between two looks at it", {"minimum": 1, "maximum": 3600}] = 60

    def side(self, ctx: Context, params: Params, asked: Asked) -> Side:
        """Return the cloud job that the document names."""
        return _Side(ctx, params, asked)


class _Side:
    """One job, as AWS Batch wants to be spoken to."""

    def __init__(self, ctx: Context, params: BatchJob.Params, asked: Asked) -> None:
        self._ctx = ctx
        self._job_id = params.jobId
        self._token = outcomes.token_of(ctx.thing, ctx.job_id, ctx.execution)
        self._reason = outcomes.reason_of(params.reason, self._token, outcomes.BATCH_REASON_CHARACTERS)
        self._terminate_running = params.terminateRunning
        self.asked = asked

    def check_allowed(self) -> None:
        """Let it pass only if there may be such a job, and this device lets documents touch it. Raises Reject."""
        check_calls(lambda: batch.describe_call(self._job_id))
        allowed = self._ctx.cloud.may_touch_batch(self._job_id)
        check_allowed(allowed, self._job_id, "cloud.allow_batch_jobs")

    def look(self) -> Job | None:
        """Describe it; None: AWS Batch does not know it. Raises CloudError."""
        found = self._ctx.cloud.batch.describe(self._job_id)
        return next((job for job in found if job.job_id == self._job_id), None)

    def status(self, seen: Job | None) -> str:
        """Return its status; "": AWS Batch does not know the job."""
        return seen.status if seen else ""

    def outcome(self, seen: Job | None) -> Outcome:
        """Judge it by what is asked."""
        return outcomes.of_batch(self._asked_of(seen), seen, self._token)

    def request(self, seen: Job | None) -> Request | None:
        """Return what may bring about what is asked; None: nothing, as it stands."""
        asked = self._asked_of(seen)
        if seen is None or not outcomes.batch_open(asked, seen):
            return None
        return Request(str(asked), partial(self._send, asked))

    def calls(self) -> Iterator[Callable[[], object]]:
        """Give the calls that may be made."""
        yield self.look
        if self.asked is not Asked.WATCH:
            yield partial(self._send, self.asked)
        if self.asked is Asked.CANCEL and self._terminate_running:
            yield partial(self._send, Asked.TERMINATE)

    def _asked_of(self, seen: Job | None) -> Asked:
        """Return what is asked of it as it stands: one that runs can only be terminated."""
        runs = seen is not None and seen.status in batch.UNDER_WAY
        return Asked.TERMINATE if self.asked is Asked.CANCEL and runs and self._terminate_running else self.asked

    def _send(self, asked: Asked) -> None:
        client = self._ctx.cloud.batch
        (client.terminate if asked is Asked.TERMINATE else client.cancel)(self._job_id, self._reason)
