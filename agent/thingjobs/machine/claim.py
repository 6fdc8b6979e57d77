"""From an offer to a claim that is ours: judging, checking, deferring, refusing, claiming."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thingjobs.exits import Exit
from thingjobs.jobs import Refusal
from thingjobs.machine import gating
from thingjobs.machine.effects import Clean, Forget, GetReady, Judge, Run, Save
from thingjobs.machine.gating import Before
from thingjobs.machine.report import (
    TELLING,
    Match,
    adopted,
    ask,
    can_send,
    close,
    compare,
    owe,
    retry,
    save_later,
    update,
)
from thingjobs.machine.resume import on_rechecked
from thingjobs.machine.state import NO_PLAN, Deferral, Job, Kind, LookTimer, Stopping, Timer
from thingjobs.machine.verbs import begin, failure, first_verb, on_not_spawned, start
from thingjobs.machine.watch import on_doubted, on_link_up
from thingjobs.model import Code, Execution, Phase, Plan, Record, Result, Status, Verb
from thingjobs.policy import ASIDE_SOON, SAVE_RETRY_CAP, defer

if TYPE_CHECKING:
    from thingjobs.jobs import Described, Refused, Updated
    from thingjobs.machine.events import (
        Doubted,
        Due,
        Ending,
        Finished,
        Gated,
        Judged,
        LinkUp,
        NotSaved,
        NotSpawned,
        Resumed,
        Unanswered,
    )
    from thingjobs.machine.turn import Turn

#: Why a job succeeded whose `check` found nothing to do: else it would look as if the work had been done.
AS_WANTED = "already as wanted; nothing was changed"


def offered(turn: Turn, execution: Execution, *, probe: bool = False) -> Job:
    """Take a queued execution under consideration; nothing is told to the service yet.

    Args:
        turn: the step.
        execution: as the service showed it.
        probe: only an observer is welcome now; anything else keeps its place.
    """
    record = Record(
        identity=execution.identity,
        phase=Phase.OFFERED,
        claim="",
        version=execution.version,
        plan=NO_PLAN,
        document=execution.document or {},
    )
    turn.do(Judge(execution))
    return Job(record=record, execution=execution, probe=probe)


def leave(turn: Turn, job: Job) -> None:
    """Let go of an execution that is not claimed: its `check` may have left a folder, and nobody comes back to that."""
    if job.record.attempts:
        turn.do(Clean(job.identity))


# --- OFFERED ------------------------------------------------------------------------------------------------------


def on_judged(turn: Turn, job: Job, event: Judged) -> Job | None:
    """The document is understood, or this device must refuse it."""
    verdict = event.verdict
    if job.probe and not (isinstance(verdict, Plan) and verdict.observe):
        turn.change(waiting_in_line=turn.state.waiting_in_line | {job.identity})
        return None
    if isinstance(verdict, Result):
        return refuse(turn, job, verdict)
    if verdict.observe and not job.probe and turn.state.observing:
        return put_off(turn, job.with_(plan=verdict), "another observer is at work")
    job = job.with_(plan=verdict, probe=False)
    if verdict.observe or verdict.check_only:  # What changes nothing passes every gate.
        return _proceed(turn, job)
    return gating.ask(turn, job, Before.CLAIM)


def _proceed(turn: Turn, job: Job) -> Job:
    plan = job.record.plan
    if Verb.CHECK in plan.verbs:
        return begin(turn, job, Verb.CHECK)
    return claim(turn, _would(job, "run") if plan.check_only else job)


def on_gated(turn: Turn, job: Job, event: Gated) -> Job:
    """The gates before the claim were asked."""
    if job.gate != Before.CLAIM:
        return job
    if not event.reason:
        return _proceed(turn, gating.passed(job))
    job, at = gating.wait(turn, job, event)
    return _put_off_until(turn, job, at)


# --- CHECKING before the claim, DEFERRED --------------------------------------------------------------------------


def on_checked(turn: Turn, job: Job, event: Finished) -> Job | None:
    """`check` answered before the claim."""
    if job.running is None:
        return job
    job = job.with_(running=None, verb=None).without(Timer.VERB, Timer.STALL)
    details = {**job.record.details, **job.heard.details, **event.ending.details}
    return _after_check(turn, job.with_(details=details), event.ending)


def _after_check(turn: Turn, job: Job, ending: Ending) -> Job | None:
    only = job.record.plan.check_only
    if job.stop_why or ending.code is None:
        code, reason = failure(job, Verb.CHECK, ending)
        return claim(turn, job.with_(result=Result(Status.FAILED, code, reason)))
    match ending.code:
        case Exit.DONE:
            return claim(turn, _would(job, "run", ending.reason) if only else job)
        case Exit.ALREADY:
            if only:
                return claim(turn, _would(job, "nothing", ending.reason))
            return claim(turn, job.with_(result=Result(Status.SUCCEEDED, reason=ending.reason or AS_WANTED)))
        case Exit.LATER if only:
            return claim(turn, _would(job, "wait", ending.reason))
        case Exit.LATER:
            return put_off(turn, job, ending.reason or "the handler's check says: not now")
        case status:
            reason = ending.reason or f"check exited with status {status}"
            return refuse(turn, job, Result(Status.REJECTED, Code.CHECK_REJECTED, reason))


def _would(job: Job, what: str, reason: str = "") -> Job:
    return job.with_(result=Result(Status.SUCCEEDED, reason=reason), details={**job.record.details, "would": what})


def put_off(turn: Turn, job: Job, why: str) -> Job:
    """Leave the execution QUEUED and look at it again later; it keeps its place."""
    known = turn.state.deferrals.get(job.identity)
    turn.note(f"waits: {why}", job.identity)
    return _put_off_until(turn, job.with_(note=why), turn.now.clock + defer(known.tries + 1 if known else 1))


def _put_off_until(turn: Turn, job: Job, at: float) -> Job:
    clock = turn.now.clock
    known = turn.state.deferrals.get(job.identity, Deferral(0, clock))
    turn.change(deferrals={**turn.state.deferrals, job.identity: Deferral(known.tries + 1, known.since)})
    if not known.tries:  # Observers behind it need not wait as well.
        turn.change(timers={**turn.state.timers, LookTimer.ASIDE: clock + ASIDE_SOON})
    limit = math.inf if job.record.plan.max_defer is None else job.record.plan.max_defer
    if clock - known.since >= limit:
        minutes = f"{limit / 60:g} minutes"
        reason = f"it was put off for {minutes}, and may not wait longer; in the end: {job.record.note}"
        return claim(turn, job.with_(result=Result(Status.FAILED, Code.GATE_EXPIRED, reason)))
    return job.with_(phase=Phase.DEFERRED, verb=None).at(Timer.DEFER, min(at, known.since + limit))


def on_deferred_due(turn: Turn, job: Job, event: Due) -> Job | None:  # noqa: ARG001
    """Before a closed gate, ask the gates again, which costs the service nothing.

    Else ask the service: the head may be another one by now. Dropping the job makes the core look.
    """
    return gating.ask(turn, job, Before.CLAIM) if job.gate else None


def on_deferred_gated(turn: Turn, job: Job, event: Gated) -> Job | None:
    """The gates were asked again; when they are open, the service is asked for the head of the queue."""
    if not job.gate:
        return job
    return on_gated(turn, job, event) if event.reason else None


def on_deferred_doubted(turn: Turn, job: Job, event: object) -> None:
    """What waits is not the head any more: drop it."""


# --- REFUSING -----------------------------------------------------------------------------------------------------


def refuse(turn: Turn, job: Job, result: Result) -> Job:
    """Send REJECTED from QUEUED; it never becomes IN_PROGRESS and is not journalled."""
    turn.note(f"refused: {result.reason}", job.identity)
    return send_refusal(turn, job.with_(phase=Phase.REFUSING, result=result, verb=None))


def send_refusal(turn: Turn, job: Job, event: object = None) -> Job:  # noqa: ARG001 - a row for several events
    """Send the refusal when it can be sent."""
    result = job.record.result
    job = job.with_(claim=job.record.claim or turn.mint())
    if result is None or not can_send(turn, job):
        return job
    return update(turn, job, Kind.REFUSE, result.status, {"code": result.code or "", "reason": result.reason})


def on_refusal_updated(turn: Turn, job: Job, event: Updated) -> Job:  # noqa: ARG001
    """The service took the refusal."""
    return job.with_(phase=Phase.DONE, finished_at=turn.now.wall)


def on_refusal_refused(turn: Turn, job: Job, event: Refused) -> Job | None:
    """The service did not take it: somebody was faster, or it wants less, or later."""
    job = adopted(job, event)
    match event.code:
        case Refusal.INVALID_REQUEST if not job.minimal:
            return send_refusal(turn, job.with_(minimal=True))
        case Refusal.INVALID_REQUEST:
            _look_past(turn, job, f"the service will not take the refusal: {event.message}")
            return None
        case code if code in TELLING:
            return None
        case _:
            return retry(turn, job)


# --- CLAIMING -----------------------------------------------------------------------------------------------------


def claim(turn: Turn, job: Job) -> Job:
    """Write down what is claimed and with which mark, then claim it; an agent that ends leaves that to the next."""
    if turn.state.stopping is not Stopping.NO:
        return job
    job = job.with_(phase=Phase.CLAIMING, claim=turn.mint(), verb=None, process=None, tries=0, gate="")
    return _save_claim(turn, job)


def _save_claim(turn: Turn, job: Job) -> Job:
    if turn.state.unsaved and not job.aside:
        # A restart would go on with what the journal believes unfinished, beside this one.
        return job.at(Timer.SAVE, turn.now.clock + SAVE_RETRY_CAP)
    if job.record.result is None:
        # It starts while the claim is written and on its way: the start of an interpreter takes longer than both.
        turn.do(GetReady(Run(job.record, first_verb(job.record.plan), 1)))
    turn.do(Save(job.record))
    return send_claim(turn, job)


def send_claim(turn: Turn, job: Job, event: object = None) -> Job:  # noqa: ARG001 - a row for several events
    """Send IN_PROGRESS: exclusive by its version, and asking for the document with fresh URLs."""
    unsaved = Timer.SAVE in job.timers
    if unsaved or not can_send(turn, job):
        return job
    return update(turn, job, Kind.CLAIM, Status.IN_PROGRESS, {}, with_document=True)


def on_claimed(turn: Turn, job: Job, event: Updated) -> Job:
    """The claim is ours. A document that came anew is judged anew: its URLs are fresh."""
    return _claimed(turn, adopted(job, event).with_(tries=0), event.document)


def _claimed(turn: Turn, job: Job, document: dict[str, object] | None) -> Job:
    record = job.record
    if document is None or document == record.document or record.result is not None:
        return start(turn, job)
    turn.do(Judge(Execution(record.identity, Status.IN_PROGRESS, record.version, document=document)))
    return job


def on_judged_again(turn: Turn, job: Job, event: Judged) -> Job:
    """The document that came with the claim is understood, or is one that this device cannot carry out."""
    if isinstance(event.verdict, Plan):
        return start(turn, job.with_(plan=event.verdict))
    return owe(turn, job, event.verdict)


def on_claim_refused(turn: Turn, job: Job, event: Refused) -> Job | None:
    """The claim was refused: ours already, somebody else's, gone, or later."""
    asked = job.open is not None and job.open.kind is Kind.ASK
    job = adopted(job, event)
    if event.state is not None and event.code in TELLING:
        return _on_stored_claim(turn, job, event)
    match event.code:
        case Refusal.INVALID_REQUEST | Refusal.VERSION_MISMATCH if asked:
            return retry(turn, job)
        case Refusal.INVALID_REQUEST if not job.minimal:
            return send_claim(turn, job.with_(minimal=True, unmarked=True))
        case Refusal.INVALID_REQUEST:
            turn.do(Forget(job.identity), Clean(job.identity))
            _look_past(turn, job, f"the service will not take the claim: {event.message}")
            return None
        case Refusal.VERSION_MISMATCH:  # Ours already, or another version: over HTTPS the service does not tell.
            return ask(turn, job, with_document=True)
        case code if code in TELLING:
            return over(turn, job, f"{event.text} {event.message}")
        case _:
            return retry(turn, job)


def _look_past(turn: Turn, job: Job, why: str) -> None:
    """Leave an execution alone that the service keeps, and takes nothing about: what waits behind it must not wait."""
    turn.note(why, job.identity, warning=True)
    turn.look_past(job.identity)


def _on_stored_claim(turn: Turn, job: Job, event: Refused) -> Job | None:
    assert event.state is not None
    match compare(job, event.state, Status.IN_PROGRESS):
        case Match.OURS:
            return ask(turn, job, with_document=True)
        case Match.ENDED:
            return over(turn, job, f"it is {event.state.status}")
        case _:
            drop(turn, job, f"it is {event.state.status} now")
            return None


def on_claim_described(turn: Turn, job: Job, event: Described) -> Job | None:
    """After a lost reply or a restart: is the claim ours?"""
    job = job.with_(open=None).without(Timer.REPLY)
    found = event.execution
    if found is None or found.identity != job.identity or found.status.terminal:
        return over(turn, job, f"it is {found.status}" if found else "it is gone")
    job = job.with_(version=found.version)
    if found.status is Status.QUEUED:
        return send_claim(turn, job)
    if found.details.get("claim") != job.record.claim and not job.unmarked:
        drop(turn, job, "another agent was faster")
        return None
    return _claimed(turn, job, found.document)


def drop(turn: Turn, job: Job, why: str) -> None:
    """Forget an execution that is not ours; dropping it makes the core look again."""
    turn.note(f"not claimed: {why}", job.identity)
    turn.do(Forget(job.identity), Clean(job.identity))


def over(turn: Turn, job: Job, why: str) -> Job | None:
    """The execution is over. One that was claimed before, without an answer, may have been ours: that is kept."""
    if job.execution is not None and not job.tries:
        drop(turn, job, why)
        # A late notification may offer it once more.
        turn.remember(job.identity)
        return None
    return close(turn, job, late=f"it was over before the answer to its claim came, and nothing was changed: {why}")


def on_claim_unanswered(turn: Turn, job: Job, event: Unanswered) -> Job:  # noqa: ARG001
    """The claim may have been applied or not: send it again; the version check tells."""
    job = job.with_(open=None).without(Timer.REPLY)
    return retry(turn, job) if turn.connected else job.with_(tries=job.tries + 1)


def on_claim_due(turn: Turn, job: Job, event: Due) -> Job:
    """Try again: to write the journal, or to claim."""
    return _save_claim(turn, job) if event.timer is Timer.SAVE else send_claim(turn, job)


def on_claim_not_saved(turn: Turn, job: Job, event: NotSaved) -> Job:
    """No journal, no claim: the execution stays QUEUED in the cloud until the state can be written."""
    if job.aside:  # An observer changes nothing: it needs no journal.
        turn.do(*event.withheld)
        return job
    job = job.with_(open=None, note=event.reason).without(Timer.REPLY, Timer.RENEW)
    return save_later(turn, job, event.reason)


def on_claim_resumed(turn: Turn, job: Job, event: Resumed) -> Job:  # noqa: ARG001
    """The agent ended between the claim and its reply: ask whether it is ours."""
    return ask(turn, job, with_document=True)


def on_claim_link_up(turn: Turn, job: Job, event: LinkUp) -> Job:  # noqa: ARG001
    """The service is back. A claim that came out of the journal is asked for, a new one is sent (again)."""
    return send_claim(turn, job) if job.execution else ask(turn, job, with_document=True)


# --- an execution that runs although the journal does not know it -------------------------------------------------


def unknown_of_ours(turn: Turn, execution: Execution) -> Job:
    """An execution carries our mark, but the journal is gone: what happened to it cannot be known."""
    record = Record(
        identity=execution.identity,
        phase=Phase.CLAIMING,
        claim=execution.details.get("claim") or turn.mint(),
        version=execution.version,
        plan=NO_PLAN,
        document=execution.document or {},
    )
    reason = "the agent's journal of this execution is gone; whether the job ran is unknown"
    return owe(turn, Job(record=record), Result(Status.FAILED, Code.INTERRUPTED, reason))


def on_check_finished(turn: Turn, job: Job, event: Finished) -> Job | None:
    """`check` ended: before the claim, or after an interrupted `apply` of a claimed execution."""
    return on_rechecked(turn, job, event) if job.record.claim else on_checked(turn, job, event)


def on_check_not_spawned(turn: Turn, job: Job, event: NotSpawned) -> Job:
    """`check` could not be started: that is a failure to report, so the execution is claimed for it."""
    if job.record.claim:
        return on_not_spawned(turn, job, event)
    result = Result(Status.FAILED, event.code, f"check could not be started: {event.reason}")
    return claim(turn, job.with_(running=None, result=result))


def on_check_doubted(turn: Turn, job: Job, event: Doubted) -> Job:
    """The head is another one: of a claim that is not made yet, the version check will tell."""
    return on_doubted(turn, job, event) if job.record.claim else job


def on_check_link_up(turn: Turn, job: Job, event: LinkUp) -> Job:
    """The service is back."""
    return on_link_up(turn, job, event) if job.record.claim else job
