"""Going on after the agent was started again: what became of the verb in flight decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.exits import Exit
from thingjobs.machine.events import Evidence
from thingjobs.machine.state import Timer
from thingjobs.machine.verbs import advance, begin, ended, fail, later, on_finished, too_late, undo
from thingjobs.model import Code, Phase, Verb
from thingjobs.policy import ADOPTED_GRACE, FIRST_PROGRESS_AFTER, LEARN_AFTER, MAX_DEATHS_PER_VERB

if TYPE_CHECKING:
    from thingjobs.machine.events import Ending, Finished, Resumed
    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn
    from thingjobs.model import Record


def on_resumed(turn: Turn, job: Job, event: Resumed) -> Job:
    """A verb was in flight, or about to be, when the agent ended."""
    record = job.record
    clock = turn.now.clock
    job = job.at(Timer.PROGRESS, clock + FIRST_PROGRESS_AFTER).at(Timer.LEARN, clock + LEARN_AFTER)
    if event.evidence is Evidence.ADOPTED and record.verb is not None and not _stale(turn, record):
        return _adopted(turn, job, record.verb)
    if record.cancelled and job.phase is not Phase.ROLLING_BACK and not too_late(job):
        return undo(turn, job)  # It was latched: nothing is begun but what undoes it.
    if event.evidence is not Evidence.NOT_STARTED and record.verb is not None:
        return _lost(turn, job.with_(deaths=record.deaths + 1), record.verb)
    return _again(turn, job)


def _adopted(turn: Turn, job: Job, verb: Verb) -> Job:
    """The verb runs, or ended and is heard of in a moment: its time counts from its start, not from ours."""
    clock, limits = turn.now.clock, job.record.plan.limits
    until = turn.saved(job.record.until)
    until = clock + limits.of(verb) if until is None else max(until, clock + ADOPTED_GRACE)
    job = job.with_(running=verb).at(Timer.VERB, until)
    return job.at(Timer.STALL, clock + limits.stall) if limits.stall else job


def _stale(turn: Turn, record: Record) -> bool:
    """Return whether the verb in flight ended in another boot: then it is run again, whatever it said.

    What `verify` found says nothing about this boot, and the power cut may have taken what others wrote last; they may
    run again. Of `apply`, which may not, only a success is doubted: in `on_applied`.
    """
    return record.verb is not Verb.APPLY and _earlier(turn, record)


def _earlier(turn: Turn, record: Record) -> bool:
    return record.process is not None and record.process.boot != turn.now.boot


def _again(turn: Turn, job: Job) -> Job:
    """No verb was in flight: run the one that the record names, when its time has come."""
    until = turn.saved(job.record.until)
    if job.record.again and job.record.verb is None and until is not None:
        return job.at(Timer.AGAIN, until)
    verb = job.record.again or job.record.verb
    if verb is None:
        return fail(turn, job, Code.AGENT_DEFECT, "the journal does not say which verb comes next")
    return begin(turn, job, verified(turn, job, verb))


def verified(turn: Turn, job: Job, verb: Verb) -> Verb:
    """`commit` wants a `verify` of this very boot before it."""
    stale = verb is Verb.COMMIT and Verb.VERIFY in job.record.plan.verbs and job.record.boot != turn.now.boot
    return Verb.VERIFY if stale else verb


def _lost(turn: Turn, job: Job, verb: Verb) -> Job:
    record = job.record
    # What works on something elsewhere may last for days, with more power cuts than a poisonous verb is granted.
    counts = verb not in (Verb.CHECK, Verb.APPLY) or not record.plan.elsewhere
    if counts and record.deaths >= MAX_DEATHS_PER_VERB:
        reason = f"{verb} was interrupted {record.deaths} times together with the agent"
        return fail(turn, job, Code.INTERRUPTED, reason)
    if verb is Verb.APPLY:
        return _interrupted_apply(turn, job)
    return begin(turn, job, verified(turn, job, verb))


def _interrupted_apply(turn: Turn, job: Job) -> Job:
    """What an interrupted `apply` did is unknown: ask `check`, or run it again with leave, or give up."""
    if Verb.CHECK in job.record.plan.verbs:
        return begin(turn, job, Verb.CHECK)
    return _rerun_or_fail(turn, job)


def _rerun_or_fail(turn: Turn, job: Job) -> Job:
    if job.record.plan.apply_rerun:
        return begin(turn, job, Verb.APPLY)
    return fail(turn, job, Code.INTERRUPTED, "apply was interrupted, and how far it came is unknown")


def on_applied(turn: Turn, job: Job, event: Finished) -> Job:
    """`apply` ended. One that did so just before the power was cut may have lost what it wrote.

    A `verify` that follows tells. Without one, its success is no better than an interrupted `apply`.
    """
    succeeded = event.ending.code in (Exit.DONE, Exit.DONE_AND_REBOOT)
    if Verb.VERIFY in job.record.plan.verbs or not succeeded or not _earlier(turn, job.record):
        return on_finished(turn, job, event)
    job, fresh = ended(job, event)
    if not fresh:
        return job
    return undo(turn, job) if job.record.cancelled else _lost(turn, job.with_(deaths=job.record.deaths + 1), Verb.APPLY)


def on_rechecked(turn: Turn, job: Job, event: Finished) -> Job:
    """`check` answered after an interrupted `apply`."""
    job, fresh = ended(job, event)
    if not fresh:
        return job
    return undo(turn, job) if job.record.cancelled else _after_recheck(turn, job, event.ending)


def _after_recheck(turn: Turn, job: Job, ending: Ending) -> Job:
    match ending.code if not job.stop_why else None:
        case Exit.ALREADY:
            return advance(turn, job, Verb.APPLY)
        case Exit.LATER:
            return later(turn, job, Verb.CHECK, ending)
        case _:
            return _rerun_or_fail(turn, job)
