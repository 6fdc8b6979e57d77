"""What the service tells of a claimed execution: accepted progress, refusals, cancels and time-outs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thingjobs.jobs import Refusal, Updated
from thingjobs.machine import gating
from thingjobs.machine.effects import Judge, Kill, Reboot, Save
from thingjobs.machine.events import Evidence
from thingjobs.machine.gating import Before
from thingjobs.machine.report import Match, adopted, ask, can_send, close, compare, save_later, send_progress, timed_out
from thingjobs.machine.resume import verified
from thingjobs.machine.state import Kind, Stopping, Timer
from thingjobs.machine.timers import on_due
from thingjobs.machine.verbs import advance, begin, fail, on_reached, too_late, undo
from thingjobs.model import Code, Execution, Phase, Status, Verb
from thingjobs.policy import (
    FIRST_PROGRESS_AFTER,
    FRESH_PAUSE,
    LEARN_AFTER,
    MAX_REBOOT_REQUESTS,
    REBOOT_WAIT,
    RENEW_AGAIN,
    TIMER_SLACK,
)

if TYPE_CHECKING:
    from thingjobs.jobs import Described, Refused
    from thingjobs.machine.events import Doubted, Due, Gated, LinkUp, NotSaved, Resumed, Unanswered
    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn


# --- replies while a verb runs ------------------------------------------------------------------------------------


def on_updated(turn: Turn, job: Job, event: Updated) -> Job:
    """The service accepted a progress report."""
    return on_reached(turn, adopted(job, event))


def on_refused(turn: Turn, job: Job, event: Refused) -> Job:
    """The service refused a progress report or a question: that is how it tells that an execution is over."""
    asked = job.open is not None and job.open.kind is Kind.ASK
    job = adopted(job, event)
    match event.code:
        case Refusal.INVALID_STATE_TRANSITION | Refusal.TERMINAL_STATE_REACHED:
            return _on_conflict(turn, job, event)
        case Refusal.VERSION_MISMATCH if not asked:
            return _on_conflict(turn, job, event)
        case Refusal.RESOURCE_NOT_FOUND:
            return ended(turn, job, Status.REMOVED)
        case Refusal.INVALID_REQUEST if not asked and not job.minimal:
            turn.note(f"the service refused our status details: {event.message}", job.identity, warning=True)
            return on_reached(turn, job.with_(minimal=True))
        case _:
            gap = min(max(job.gap * 2, FIRST_PROGRESS_AFTER), turn.settings.progress_interval)
            if job.wants_fresh:
                job = job.at(Timer.LEARN, turn.now.clock + gap)
            if Timer.RENEW in job.timers:  # A sign of life that was not taken keeps its distance too.
                job = job.at(Timer.RENEW, max(job.timers[Timer.RENEW], turn.now.clock + gap))
            return on_reached(turn, job.with_(gap=gap).at(Timer.PROGRESS, turn.now.clock + gap))


def _on_conflict(turn: Turn, job: Job, event: Refused) -> Job:
    stored = event.state
    if stored is None:
        mismatch = event.code is Refusal.VERSION_MISMATCH
        return ask(turn, job, with_document=False) if mismatch else ended(turn, job, None)
    match compare(job, stored, Status.IN_PROGRESS):
        case Match.OURS:
            # The journal does not know the versions of progress reports: after a restart the first sign of life fails.
            if job.step_until == math.inf and Timer.RENEW in job.timers:
                job = job.at(Timer.RENEW, turn.now.clock + 1)
            return on_reached(turn, job)
        case Match.FOREIGN:
            turn.note("another agent holds this execution now", job.identity, warning=True)
            return ended(turn, job, Status.REMOVED)
        case _:
            return ended(turn, job, stored.status)


def on_described(turn: Turn, job: Job, event: Described) -> Job:
    """The service says how the execution stands; the first answer tells the job's in-progress timer."""
    job = job.with_(open=None).without(Timer.REPLY)
    found = event.execution
    if found is None or found.identity != job.identity:
        return ended(turn, job, Status.REMOVED)
    if found.status.terminal:
        return ended(turn, job, found.status)
    job = job.with_(version=found.version)
    if job.wants_fresh and found.document is not None:
        fresh = Execution(job.identity, Status.IN_PROGRESS, found.version, document=found.document)
        turn.do(Judge(fresh))
        job = job.with_(wants_fresh=False, fresh_after=turn.now.clock + FRESH_PAUSE)
    return on_reached(turn, _learned(turn, job, found.seconds_left))


def _learned(turn: Turn, job: Job, seconds_left: int | None) -> Job:
    """The estimate is of the sooner of two timers; ours is known, so an earlier one is the job's.

    One that is later than ours shows only when ours was renewed, so that is when it is asked for again.
    """
    if seconds_left is None:
        return job
    if job.step_until == math.inf:  # Until an update of ours was taken, the sooner one may be either.
        return job.at(Timer.LEARN, turn.now.clock + RENEW_AGAIN)
    fires = turn.now.clock + seconds_left
    if fires >= job.step_until - TIMER_SLACK:
        renewal = job.timers.get(Timer.RENEW)
        return job if renewal is None else job.at(Timer.LEARN, renewal + LEARN_AFTER)
    return job.with_(deadline=fires).at(Timer.DEADLINE, fires)


def on_unanswered(turn: Turn, job: Job, event: Unanswered) -> Job:  # noqa: ARG001, D103 - see below
    # A progress report is never resent: a newer one follows. A question is asked again.
    asked = job.open is not None and job.open.kind is Kind.ASK
    job = job.with_(open=None).without(Timer.REPLY)
    return job.at(Timer.LEARN, turn.now.clock + LEARN_AFTER) if asked or job.wants_fresh or _proves(job) else job


def _proves(job: Job) -> bool:
    return job.phase is Phase.COMMITTING and job.running is None


def on_doubted(turn: Turn, job: Job, event: Doubted) -> Job:  # noqa: ARG001
    """The head of the queue is not ours any more: ask what became of the execution."""
    if job.open is not None:
        return job.at(Timer.LEARN, turn.now.clock + 1)
    return ask(turn, job, with_document=False)


def on_link_up(turn: Turn, job: Job, event: LinkUp) -> Job:  # noqa: ARG001
    """The service is back: tell what was not told, prove what waits for proof, learn the timer."""
    if _proves(job) or job.wants_fresh:
        renewal = job.timers.get(Timer.RENEW, turn.now.clock + RENEW_AGAIN)
        return ask(turn, job.at(Timer.RENEW, renewal), with_document=job.wants_fresh)
    if job.deadline is None and Timer.LEARN not in job.timers:  # It was due while nobody could be asked.
        job = job.at(Timer.LEARN, turn.now.clock + LEARN_AFTER)
    if job.heard.news or Timer.RENEW not in job.timers:
        return send_progress(turn, job) if can_send(turn, job) else job
    return job


# --- the service ended it -----------------------------------------------------------------------------------------


def ended(turn: Turn, job: Job, status: Status | None) -> Job:
    """The execution is over for the service. A time-out is not a cancel: what began goes on to its end.

    Args:
        turn: the step.
        job: the execution.
        status: the terminal status if the service told it, else None: then our knowledge of its timers decides.
    """
    if job.record.ended or job.record.cancelled:
        return job
    if status is None:
        status = Status.TIMED_OUT if timed_out(turn, job) else Status.CANCELED
    turn.note(f"the service ended this execution: {status}", job.identity, warning=True)
    job = job.with_(ended=status, cancelled=status is not Status.TIMED_OUT)
    job = job.without(Timer.PROGRESS, Timer.RENEW, Timer.LEARN, Timer.DEADLINE)
    if job.phase is Phase.PREPARING:
        return _stop_prepare(turn, job)
    waits = job.phase is Phase.APPLYING or (job.phase is Phase.REBOOTING and job.record.reboot_asked == 0)
    if waits and job.running is None and not job.record.applied:
        return undo(turn, job)  # Nothing began; a time-out of what waits for a gate or the journal never begins it.
    turn.do(Save(job.record))
    return _cancel(turn, job) if job.record.cancelled else job


def _close_unchanged(turn: Turn, job: Job) -> Job:
    return close(turn, job, late=f"the service ended this execution ({job.record.ended}); nothing was changed")


def _stop_prepare(turn: Turn, job: Job) -> Job:
    if job.running is None:
        return _close_unchanged(turn, job)
    job = job.with_(phase=Phase.CANCELLING)
    turn.do(Kill(job.identity), Save(job.record))
    return job


def on_cancelling_resumed(turn: Turn, job: Job, event: Resumed) -> Job:
    """The agent ended before `prepare` did: it is told to end once more."""
    if event.evidence is not Evidence.ADOPTED:
        return _close_unchanged(turn, job)
    turn.do(Kill(job.identity))
    return job.with_(running=job.record.verb)


def _cancel(turn: Turn, job: Job) -> Job:
    """Before `commit` started, what was applied is undone; later it is too late, and recorded."""
    if too_late(job):
        return job
    match job.phase:
        case Phase.APPLYING if job.running is Verb.APPLY and job.record.plan.cancel_apply:
            turn.do(Kill(job.identity))
        case Phase.VERIFYING if job.running is not None:
            turn.do(Kill(job.identity))
        case Phase.APPLYING | Phase.VERIFYING | Phase.CHECKING | Phase.COMMITTING if job.running is None:
            return undo(turn, job)
        case Phase.REBOOTING if job.record.reboot_asked == 0 and Verb.ROLLBACK not in job.record.attempts:
            return undo(turn, job)
        case _:
            pass
    return job


# --- REBOOTING ----------------------------------------------------------------------------------------------------


def reboot_now(turn: Turn, job: Job) -> Job:
    """Ask the gates whether the machine may go down now; an agent that ends leaves that to the next."""
    if job.gate or turn.state.stopping is not Stopping.NO:
        return job
    return gating.ask(turn, job, Before.REBOOT)


def on_reboot_gated(turn: Turn, job: Job, event: Gated) -> Job:
    """The gates before a reboot were asked."""
    if job.gate != Before.REBOOT:
        return job
    if not event.reason:
        job = gating.passed(job)
        return job if turn.state.stopping is not Stopping.NO else _reboot(turn, job)
    job, at = gating.wait(turn, job, event)
    return job.with_(gate="").at(Timer.REBOOT, at)


def _reboot(turn: Turn, job: Job) -> Job:
    """Write down that the machine is told to reboot, then tell it."""
    asked = job.record.reboot_asked + 1
    if asked > MAX_REBOOT_REQUESTS:
        job = job.with_(again=None, note="")
        return fail(turn, job, Code.REBOOT_FAILED, f"the machine did not reboot when told {asked - 1} times")
    until = turn.until(REBOOT_WAIT)
    minutes = f"{REBOOT_WAIT / 60:g} minutes"
    note = "the machine was told to reboot"
    if asked > 1:
        note = f"{note} and did not within {minutes}: told again, {asked} of {MAX_REBOOT_REQUESTS} times"
        turn.note(note, job.identity, warning=True)
    job = job.with_(reboot_asked=asked, until=until, note=note)
    turn.do(Save(job.record), Reboot(job.identity))
    return job.at(Timer.REBOOT, until.at)


def on_reboot_told(turn: Turn, job: Job, event: Updated | Unanswered) -> Job:
    """The service knows that the device goes away, or cannot be told: reboot."""
    job = adopted(job, event) if isinstance(event, Updated) else on_unanswered(turn, job, event)
    return reboot_now(turn, job) if job.record.reboot_asked == 0 else job


def on_reboot_refused(turn: Turn, job: Job, event: Refused) -> Job:
    """The service refused the last word before the reboot: it may have ended the execution."""
    return _told(turn, on_refused(turn, job, event))


def on_reboot_described(turn: Turn, job: Job, event: Described) -> Job:
    """The service told how the execution stands, perhaps because it refused the last word before the reboot."""
    return _told(turn, on_described(turn, job, event))


def _told(turn: Turn, job: Job) -> Job:
    waits = job.phase is Phase.REBOOTING and job.record.reboot_asked == 0 and job.open is None
    return reboot_now(turn, job) if waits else job


def on_reboot_due(turn: Turn, job: Job, event: Due) -> Job:
    """The machine was told to reboot, and is still up."""
    if event.timer is Timer.SAVE:
        turn.do(Save(job.record), *job.withheld)
        held, job = job.withheld, job.with_(withheld=())
        return job.at(Timer.REBOOT, turn.now.clock + REBOOT_WAIT) if held else job
    if event.timer is Timer.DEADLINE and job.record.reboot_asked:
        return job
    if event.timer in (Timer.RENEW, Timer.LEARN, Timer.DEADLINE):
        return on_due(turn, job, event)
    return reboot_now(turn, job) if event.timer is Timer.REBOOT else job


def on_reboot_not_saved(turn: Turn, job: Job, event: NotSaved) -> Job:
    """No journal, no reboot; the status is still sent."""
    held = tuple(effect for effect in event.withheld if isinstance(effect, Reboot))
    turn.do(*(effect for effect in event.withheld if not isinstance(effect, Reboot)))
    job = save_later(turn, job.with_(withheld=held or job.withheld), event.reason)
    return job.without(Timer.REBOOT) if held else job


def on_rebooted(turn: Turn, job: Job, event: Resumed) -> Job:  # noqa: ARG001
    """The agent was started again: only another boot id proves a reboot."""
    record = job.record
    rebooted = record.boot != turn.now.boot
    undoes = record.cancelled and Verb.ROLLBACK not in record.attempts and not too_late(job)
    if undoes and (rebooted or not record.reboot_asked):
        return undo(turn, job.with_(note=""))
    if not rebooted:
        return _still_up(turn, job)
    clock, again = turn.now.clock, record.again
    job = job.at(Timer.RENEW, clock).at(Timer.LEARN, clock + LEARN_AFTER).with_(note="")
    return begin(turn, job, verified(turn, job, again), rebooted=True) if again else advance(turn, job, None)


def _still_up(turn: Turn, job: Job) -> Job:
    """What an agent asked for that ended may never have got through: ask again. But the last time it is waited for.

    Something may start the agent over and over while the machine goes down.
    """
    until = turn.saved(job.record.until)
    if job.record.reboot_asked < MAX_REBOOT_REQUESTS or until is None:
        return reboot_now(turn, job)
    return job.at(Timer.REBOOT, until)
