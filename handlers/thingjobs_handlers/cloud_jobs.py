"""What `s3-batch-job` and `batch-job` do alike: how a device job ends with a cloud job, and its undoing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thingjobs.cloud import outcomes
from thingjobs.cloud.errors import CloudError
from thingjobs.cloud.outcomes import Asked, Why
from thingjobs.cloud.session import Rehearsed
from thingjobs.handler import Failed, Reject
from thingjobs.model import Code
from thingjobs_handlers.cloud_marks import CloudMarks
from thingjobs_handlers.cloud_pursuit import Pace, Pursuit, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingjobs.handler import Context
    from thingjobs_handlers.cloud_pursuit import Side

#: Seconds. Cloud jobs take days: a watch must not end before they do.
_TIMEOUTS = {"apply": 7 * 86400.0, "rollback": 3600.0}
#: Seconds that a rollback waits for the end of what it cancelled, because AWS Batch lets a job start meanwhile.
_ENOUGH = 600.0


class CloudJob:
    """A handler for the jobs of one service; `Params` and `side` are what tells it from the other."""

    version = "1.0"
    needs = ("cloud",)
    apply_rerun = True
    cancel_apply = True
    elsewhere = True
    resumes_across_versions = True
    timeouts = _TIMEOUTS
    pace = Pace()

    def side(self, ctx: Context, params: Any, asked: Asked) -> Side:
        """Return the cloud job that the document names."""
        raise NotImplementedError

    def check(self, ctx: Context, params: Any) -> None:
        """See whether this device may do it; a dry run prints the calls.

        Raises:
            Reject: it may not, or the API would never take it.
        """
        side = self.side(ctx, params, Asked(params.action))
        side.check_allowed()
        if ctx.dry_run:
            rehearse(side.calls())

    def apply(self, ctx: Context, params: Any) -> None:
        """Bring it about, or follow the job to its end.

        Raises:
            Failed: it is not so.
            Reject: this device may not do it.
        """
        self.check(ctx, params)
        side = self.side(ctx, params, Asked(params.action))
        terms = Terms(wait=params.wait or side.asked is Asked.WATCH, longest=params.pollSeconds)
        carry_out(ctx, side, terms, self.pace)

    def rollback(self, ctx: Context, params: Any) -> None:
        """Cancel a job that was watched, if it is to be cancelled with the device job.

        Raises:
            Failed: it goes on; a job of AWS Batch that runs does, unless the document says `terminateRunning`.
            Reject: likewise, because this device does not let documents touch it any more.
        """
        tied = params.action == Asked.WATCH and params.cancelWith
        undo(ctx, self.side(ctx, params, Asked.CANCEL), params.pollSeconds, self.pace, tied=tied)


def check_allowed(allowed: bool, job_id: str, key: str) -> None:  # noqa: FBT001 - it is an answer
    """Let only jobs pass that this device lets documents touch.

    Raises:
        Reject: it is none of them.
    """
    if not allowed:
        reason = f"this device does not let job documents touch {job_id}: no pattern of {key} fits it"
        raise Reject(reason, code=Why.FORBIDDEN)


def check_calls(make: Callable[[], object]) -> None:
    """Make calls without sending them.

    Raises:
        Reject: the API would never take them.
    """
    try:
        make()
    except CloudError as error:
        raise Reject(str(error), code=Code.PARAMS_INVALID) from None


def rehearse(calls: Iterable[Callable[[], object]]) -> None:
    """Have calls printed, in a dry run.

    Raises:
        Reject: they could not be made; the message says which key of the configuration to set.
    """
    for call in calls:
        try:
            with suppress(Rehearsed):
                call()
        except CloudError as error:
            raise Reject(f"{error}", code=outcomes.why(error)) from None


def carry_out(ctx: Context, side: Side, terms: Terms, pace: Pace) -> None:
    """Bring about what is asked, or see how it ends, and report it.

    Raises:
        Failed: it is not so; the reason says what is.
    """
    marks = CloudMarks(ctx.dir, ctx.log)
    pursuit = Pursuit(ctx, side, marks, terms, pace)
    outcome = pursuit.follow()
    marks.close()
    if pursuit.status:
        ctx.details(cloudStatus=pursuit.status)
    match outcome:
        case outcomes.Failed(code, sentence):
            raise Failed(sentence, code=code)
        case outcomes.Pending(_, sentence):
            ctx.details(outcome=f"not over yet: {sentence}")
        case outcomes.Done(sentence):
            ctx.details(outcome=sentence)


def undo(ctx: Context, side: Side, longest: float, pace: Pace, *, tied: bool) -> None:
    """Cancel a cloud job because the device job that watched it was stopped.

    Args:
        ctx: the device job.
        side: the cloud job, to be cancelled.
        longest: seconds between two looks, at most.
        pace: how often to look.
        tied: it was watched, and is to be cancelled with the device job.

    Raises:
        Failed: it goes on; the reason says why.
        Reject: likewise, because this device does not let documents touch it any more.
    """
    marks = CloudMarks(ctx.dir, ctx.log)
    if not tied or marks.over:
        left = "the device job had ended, and the cloud job is left as it was"
        _say(ctx, f"nothing: {left}" if tied else "nothing: what was asked of the job stays")
        return
    side.check_allowed()
    outcome = Pursuit(ctx, side, marks, Terms(longest=longest, enough=_ENOUGH), pace).follow()
    if isinstance(outcome, outcomes.Failed) and outcome.code not in (Why.LOST_RACE, Why.UNKNOWN):
        raise Failed(f"the cloud job was not cancelled: {outcome.sentence}", code=outcome.code)
    _say(ctx, outcome.sentence)


def _say(ctx: Context, what: str) -> None:
    ctx.log(f"rollback: {what}")
    ctx.details(rollback=what)
