"""What holds up a claimed execution or ends it from outside: its timers, a journal that cannot be written, a stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.machine.effects import AskGates, Go, Kill, Run, Save
from thingjobs.machine.report import ask, can_send, save_later, send_progress
from thingjobs.machine.state import Job, Stopping, Timer
from thingjobs.machine.verbs import RESTART_NOTE, begin, fail
from thingjobs.model import Code, Phase, Verb
from thingjobs.policy import RENEW_AGAIN

if TYPE_CHECKING:
    from thingjobs.machine.events import Due, NotSaved, Stop
    from thingjobs.machine.turn import Turn


def stop(turn: Turn, job: Job, why: Code) -> Job:
    """Tell the running verb to end, and remember why."""
    turn.do(Kill(job.identity))
    return job.with_(stop_why=why.value).without(Timer.VERB, Timer.STALL)


def on_due(turn: Turn, job: Job, event: Due) -> Job:  # noqa: C901 - one case a timer
    """A timer of a claimed execution has come."""
    match event.timer:
        case Timer.VERB | Timer.STALL if job.running and not job.stop_why:
            late = event.timer is Timer.VERB
            return stop(turn, job, Code.HANDLER_TIMEOUT if late else Code.HANDLER_STALLED)
        case Timer.DEADLINE:
            return _on_deadline(turn, job)
        case Timer.AGAIN if job.record.again and not job.running:
            return begin(turn, job, job.record.again)
        case Timer.REACH:
            reason = "the service was not reached again after the change"
            return fail(turn, job, Code.REACH_FAILED, reason)
        case Timer.SAVE:
            return _save_again(turn, job)
        case Timer.LEARN:
            return ask(turn, job, with_document=job.wants_fresh) if job.open is None else learn_later(turn, job)
        case Timer.PROGRESS if job.heard.news and can_send(turn, job):
            return send_progress(turn, job)
        case Timer.RENEW if not job.stop_why and can_send(turn, job):
            return send_progress(turn, job)
        case Timer.RENEW if job.open is not None or job.stop_why:
            return job.at(Timer.RENEW, turn.now.clock + RENEW_AGAIN)
        case _:
            return job


def learn_later(turn: Turn, job: Job) -> Job:
    """Something is to be asked, and another request is open: only one is at a time."""
    return job.at(Timer.LEARN, turn.now.clock + 1)


def _on_deadline(turn: Turn, job: Job) -> Job:
    may_stop = job.running in (Verb.PREPARE, Verb.VERIFY) or (
        job.running is Verb.APPLY and job.record.plan.cancel_apply
    )
    if may_stop and not job.stop_why:
        return stop(turn, job, Code.DEADLINE)
    if job.running is None and (job.phase in (Phase.PREPARING, Phase.VERIFYING) or not job.record.applied):
        return fail(turn, job, Code.DEADLINE, "the job's in-progress timer ran out while it waited to go on")
    turn.note("the job's in-progress timer ran out; what was begun goes on to its end", job.identity, warning=True)
    return job


def on_not_saved(turn: Turn, job: Job, event: NotSaved) -> Job:
    """No journal, no new step: `prepare` and `apply` wait; what runs, and `verify`, `commit`, `rollback`, go on."""
    if job.aside:  # An observer changes nothing: it needs no journal.
        turn.do(*event.withheld)
        return job
    job = save_later(turn, job, event.reason)
    begins = any(isinstance(effect, (Run, Go, AskGates)) for effect in event.withheld)
    verb = job.running or job.record.again
    if begins and verb in (Verb.PREPARE, Verb.APPLY):
        return _not_begun(turn, job.with_(note=event.reason, gate=""), verb)
    turn.do(*event.withheld)
    return job


def _not_begun(turn: Turn, job: Job, verb: Verb) -> Job:
    """A process that waits for its Go has done nothing: end it, and make a new one when the journal is back."""
    attempts, applied = dict(job.record.attempts), job.record.applied
    if job.record.process is not None:
        attempts[verb] -= 1
        applied = applied and attempts.get(Verb.APPLY, 0) > 0
        turn.do(Kill(job.identity))
    job = job.with_(running=None, verb=None, process=None, attempts=attempts, applied=applied, again=verb)
    return job.with_(wants_fresh=False).without(Timer.VERB, Timer.STALL)


def _save_again(turn: Turn, job: Job) -> Job:
    turn.do(Save(job.record))
    again = job.record.again
    waits = job.running is None and job.phase in (Phase.PREPARING, Phase.APPLYING) and Timer.AGAIN not in job.timers
    return begin(turn, job, again) if waits and again and not _wants_restart(job) else job


def _wants_restart(job: Job) -> bool:
    return job.record.note == RESTART_NOTE


def on_stop(turn: Turn, job: Job, event: Stop) -> Job:
    """The agent ends: a running verb is left, waited for, or stopped."""
    if event.how is Stopping.CANCEL and job.running and not job.stop_why:
        return stop(turn, job, Code.CANCELLED)
    return job
