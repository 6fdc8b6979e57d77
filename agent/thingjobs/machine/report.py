"""Telling the service: updates, owed results, and what its refusals mean."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from thingjobs.jobs import Describe, Refusal, Refused, Update, Updated
from thingjobs.jobs import State as Stored
from thingjobs.machine.effects import Clean, Save
from thingjobs.machine.state import Kind, Timer
from thingjobs.model import Phase, Result, Status
from thingjobs.policy import (
    FIRST_PROGRESS_AFTER,
    REBOOT_STEP_TIMEOUT_MINUTES,
    RENEW_AGAIN,
    SAVE_RETRY_CAP,
    TIMER_SLACK,
    backoff,
    renew_after,
)

if TYPE_CHECKING:
    from thingjobs.jobs import Described
    from thingjobs.machine.events import Due, LinkUp, NotSaved, Resumed, Unanswered
    from thingjobs.machine.state import Job, Open
    from thingjobs.machine.turn import Turn


# --- what is sent -------------------------------------------------------------------------------------------------


def update(
    turn: Turn, job: Job, kind: Kind, status: Status, ours: dict[str, str], *, with_document: bool = False
) -> Job:
    """Send UpdateJobExecution for `job` with the complete set of details and the step timer renewed.

    UpdateJobExecution: the step timer starts anew with each update that is taken and names stepTimeoutInMinutes.
    """
    record = job.record
    details = turn.details(job, ours)
    minutes = None if status.terminal else step_timeout(turn, job)
    request = Update(
        token=turn.mint(),
        job_id=record.identity.job_id,
        number=record.identity.number,
        expected_version=record.version,
        status=status,
        details=details,
        step_timeout_minutes=minutes,
        with_document=with_document,
    )
    job = turn.send(job, kind, request, details, minutes)
    if kind is not Kind.PROGRESS:
        return job
    # Until it is taken, the timer that runs is the old one.
    again = turn.now.clock + RENEW_AGAIN
    return job.at(Timer.RENEW, max(job.timers.get(Timer.RENEW, again), again))


def step_timeout(turn: Turn, job: Job) -> int:
    """Return the minutes to ask for: a reboot needs an hour at least."""
    minutes = turn.settings.step_timeout_minutes
    return max(minutes, REBOOT_STEP_TIMEOUT_MINUTES) if job.phase is Phase.REBOOTING else minutes


def _renewed(job: Job, update: Open | None) -> Job:
    """Remember that the step timer started anew with an update that was taken; half its time later it is renewed."""
    if update is None or update.minutes is None:
        return job
    job = job.with_(step_until=update.sent + update.minutes * 60)
    return job.at(Timer.RENEW, update.sent + renew_after(update.minutes))


def progress_text(job: Job) -> dict[str, str]:
    """Return the detail `progress`: percent and message as one text."""
    percent = "" if job.heard.percent is None else f"{job.heard.percent:g}%"
    text = f"{percent} {job.heard.message}".strip()
    return {"progress": text} if text else {}


def send_progress(turn: Turn, job: Job) -> Job:
    """Tell the service how far the handler is; a sign of life as well. Never resent."""
    gap = min(turn.settings.progress_interval, max(job.gap * 2, FIRST_PROGRESS_AFTER))
    job = update(turn, job, Kind.PROGRESS, Status.IN_PROGRESS, progress_text(job))
    return job.with_(gap=gap, heard=replace(job.heard, news=False)).at(Timer.PROGRESS, turn.now.clock + gap)


def ask(turn: Turn, job: Job, *, with_document: bool) -> Job:
    """Ask the service how the execution stands."""
    if not can_send(turn, job):
        return job
    identity = job.identity
    return turn.send(job, Kind.ASK, Describe(turn.mint(), identity.job_id, identity.number, with_document))


def can_send(turn: Turn, job: Job) -> bool:
    """Return whether a request about `job` can go out now; none does before the execution is claimed."""
    record = job.record
    over = record.ended is not None or record.cancelled
    return turn.connected and job.open is None and record.claim != "" and not over


# --- the result ---------------------------------------------------------------------------------------------------


def owe(turn: Turn, job: Job, result: Result) -> Job:
    """Write the result and that it is owed, in one write; then send it."""
    record = job.record
    if record.cancelled or record.ended:
        return close(turn, job.with_(result=result), late=_ended_first(job, result))
    job = job.with_(
        phase=Phase.REPORTING,
        result=result,
        owed=True,
        verb=None,
        process=None,
        again=None,
        running=None,
        tries=0,
        minimal=job.unmarked,
    ).without(*(timer for timer in job.timers if timer is not Timer.REPLY))
    turn.do(Save(job.record))
    return send_result(turn, job)


def send_result(turn: Turn, job: Job) -> Job:
    """Send the owed result, unless a request is open: its reply brings the version that this one needs."""
    result = job.record.result
    if result is None or not can_send(turn, job):
        return job
    ours = {"code": result.code or "", "reason": result.reason}
    return update(turn, job, Kind.REPORT, result.status, ours)


def close(turn: Turn, job: Job, late: str = "") -> Job:
    """Finish with an execution: nothing is owed any more, and it never starts again."""
    if late:
        turn.note(late, job.identity, warning=True)
    done = job.with_(
        phase=Phase.DONE,
        owed=False,
        verb=None,
        process=None,
        late=late,
        finished_at=turn.now.wall,
        running=None,
    )
    turn.do(Save(done.record), Clean(done.identity))
    return done


def _ended_first(job: Job, result: Result) -> str:
    status = job.record.ended
    return f"the service ended this execution first ({status or 'it is gone'}); here it is {result.status}"


# --- replies ------------------------------------------------------------------------------------------------------


#: The refusals that are about what is stored; what comes with another one only tells the version.
TELLING = frozenset(
    {
        Refusal.VERSION_MISMATCH,
        Refusal.INVALID_STATE_TRANSITION,
        Refusal.TERMINAL_STATE_REACHED,
        Refusal.RESOURCE_NOT_FOUND,
    }
)


class Match(Enum):
    """What the stored state says of a request that was refused or got no reply."""

    #: It holds what we sent: the reply was lost.
    SENT = 1
    #: It is in progress with our claim, at another version.
    OURS = 2
    #: Somebody else's claim is on it, or it is queued.
    FOREIGN = 3
    #: It is terminal, and not as we reported.
    ENDED = 4


def compare(job: Job, stored: Stored, sent: Status) -> Match:
    """Compare what is stored with what was sent: the status and our claim."""
    claim = stored.details.get("claim")
    ours = claim == job.record.claim or (claim is None and job.unmarked)
    if stored.status is sent and sent.terminal and ours:
        return Match.SENT
    if stored.status.terminal:
        return Match.ENDED
    return Match.OURS if stored.status is Status.IN_PROGRESS and ours else Match.FOREIGN


def adopted(job: Job, event: Updated | Refused) -> Job:
    """Return the job with its request closed and the version that the reply told."""
    closed = job.with_(open=None).without(Timer.REPLY)
    if isinstance(event, Updated):
        closed = _renewed(closed, job.open)
    if event.state is not None:
        return closed.with_(version=event.state.version)
    return closed.with_(version=job.record.version + 1) if isinstance(event, Updated) else closed


def retry(turn: Turn, job: Job) -> Job:
    """Try the present request again after a while; for ever."""
    tries = job.tries + 1
    return job.with_(tries=tries).at(Timer.RETRY, turn.now.clock + backoff(tries, turn.roll()))


def save_later(turn: Turn, job: Job, reason: str) -> Job:
    """Try the journal again after a while: 2, 4, 8 … seconds; say once why."""
    tries = job.save_tries + 1
    if tries == 1:
        turn.note(f"not written down yet: {reason}", job.identity, warning=True)
    return job.with_(save_tries=tries).at(Timer.SAVE, turn.now.clock + backoff(tries, 1.0, cap=SAVE_RETRY_CAP))


def timed_out(turn: Turn, job: Job) -> bool:
    """Return whether one of the service's timers may have fired, as far as we know them."""
    known = min(job.step_until, job.deadline if job.deadline is not None else job.step_until)
    return turn.now.clock >= known - TIMER_SLACK


# --- rows of the table: REPORTING ---------------------------------------------------------------------------------


def on_updated(turn: Turn, job: Job, event: Updated) -> Job:
    """The service accepted an update: the result is delivered, or its turn has come."""
    delivered = job.open is not None and job.open.kind is Kind.REPORT
    job = adopted(job, event)
    return close(turn, job) if delivered else send_result(turn, job)


def on_refused(turn: Turn, job: Job, event: Refused) -> Job:
    """The service refused an update, or a question, while a result is owed."""
    result = job.record.result
    assert result is not None
    kind = job.open.kind if job.open is not None else Kind.REPORT
    asked, job = kind is Kind.ASK, adopted(job, event)
    if event.state is not None and event.code in TELLING:
        return _on_stored(turn, job, event.state, result)
    match event.code:
        case Refusal.INVALID_REQUEST if kind is Kind.PROGRESS:
            return send_result(turn, job)  # What was wrong with that says nothing of the result.
        case Refusal.INVALID_STATE_TRANSITION | Refusal.TERMINAL_STATE_REACHED | Refusal.RESOURCE_NOT_FOUND:
            if job.record.unanswered and event.code is not Refusal.RESOURCE_NOT_FOUND:
                late = (
                    f"unconfirmed: {result.status} was sent before and got no answer; the service says only: it is over"
                )
                return close(turn, job, late=late)
            return close(turn, job, late=_ended_first(job, result))
        case Refusal.INVALID_REQUEST if not asked and not job.minimal:
            turn.note(f"the service refused our status details: {event.message}", job.identity, warning=True)
            return send_result(turn, job.with_(minimal=True))
        case Refusal.VERSION_MISMATCH if not asked:
            # Over HTTPS the service does not tell the version that it wants.
            waits = retry(turn, job)
            return waits.without(Timer.RETRY).at(Timer.LEARN, waits.timers[Timer.RETRY])
        case Refusal.INVALID_REQUEST if not asked:
            return close(turn, job, late=f"the service refused the result {result.status} as invalid: {event.message}")
        case _:
            return retry(turn, job)


def _on_stored(turn: Turn, job: Job, stored: Stored, result: Result) -> Job:
    match compare(job, stored, result.status):
        case Match.SENT:
            return close(turn, job)
        case Match.OURS:
            # At once the first time; a second mismatch in a row waits like any other failure.
            return retry(turn, job) if job.tries else send_result(turn, job.with_(tries=1))
        case Match.FOREIGN:
            late = f"another agent holds this execution ({stored.status}); here it is {result.status}"
            return close(turn, job, late=late)
        case Match.ENDED:
            return close(
                turn,
                job.with_(ended=stored.status),
                late=_ended_first(job.with_(ended=stored.status), result),
            )


def on_described(turn: Turn, job: Job, event: Described) -> Job:
    """A question is answered: what is stored decides whether the result is still to be sent."""
    job = job.with_(open=None).without(Timer.REPLY)
    found, result = event.execution, job.record.result
    assert result is not None
    if found is None or found.identity != job.identity:
        return close(turn, job, late=_ended_first(job, result))
    job, stored = job.with_(version=found.version), Stored(found.status, found.version, found.details)
    if compare(job, stored, result.status) is Match.OURS:
        return send_result(turn, job)
    return _on_stored(turn, job, stored, result)


def on_unanswered(turn: Turn, job: Job, event: Unanswered) -> Job:  # noqa: ARG001
    """The report may have been applied or not: remember that, and send it again."""
    sent = job.open is not None and job.open.kind is Kind.REPORT
    job = job.with_(open=None).without(Timer.REPLY)
    if sent and not job.record.unanswered:
        job = job.with_(unanswered=True)
        turn.do(Save(job.record))
    return retry(turn, job) if turn.connected else job


def on_due(turn: Turn, job: Job, event: Due) -> Job:
    """It is time to try again."""
    if event.timer is Timer.SAVE:
        turn.do(Save(job.record))
        return job
    return ask(turn, job, with_document=False) if event.timer is Timer.LEARN else send_result(turn, job)


def on_link_up(turn: Turn, job: Job, event: LinkUp) -> Job:  # noqa: ARG001
    """The service is back: what is owed goes first."""
    return send_result(turn, job)


def on_resumed(turn: Turn, job: Job, event: Resumed) -> Job:  # noqa: ARG001
    """The agent ended while a result was owed: an attempt may have been sent and applied."""
    return job.with_(unanswered=True)


def on_not_saved(turn: Turn, job: Job, event: NotSaved) -> Job:
    """The result cannot be written down: it is reported all the same, and the journal is tried again."""
    turn.do(*event.withheld)
    return save_later(turn, job, event.reason)
