"""Running the verbs of a claimed execution: which comes next, what its ending means, what a restart changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.exits import Exit
from thingjobs.machine import gating
from thingjobs.machine.effects import Go, Reconnect, Refresh, Run, Save
from thingjobs.machine.gating import Before
from thingjobs.machine.report import can_send, close, owe, send_progress, update
from thingjobs.machine.state import PHASE_OF, Job, Kind, Stopping, Timer
from thingjobs.model import NOTHING, Code, Phase, Plan, Result, Status, Verb
from thingjobs.policy import (
    FIRST_PROGRESS_AFTER,
    LEARN_AFTER,
    MAX_REBOOTS,
    MAX_RUNS_PER_VERB,
    RENEW_AGAIN,
    defer,
)

if TYPE_CHECKING:
    from thingjobs.machine.events import (
        Ending,
        Finished,
        Gated,
        Judged,
        NotSpawned,
        Progressed,
        Spawned,
    )
    from thingjobs.machine.turn import Turn

#: What a verb that exited with 196 waits for.
RESTART_NOTE = "waits for a restart of the agent"
#: The order of the verbs after the claim; `check` and `rollback` stand beside it.
ORDER = (Verb.PREPARE, Verb.APPLY, Verb.VERIFY, Verb.COMMIT)


# --- starting -----------------------------------------------------------------------------------------------------


def start(turn: Turn, job: Job) -> Job:
    """The claim is ours: run the first verb, or report what is known already."""
    if job.record.result is not None:
        return owe(turn, job, job.record.result)
    clock = turn.now.clock
    job = job.at(Timer.LEARN, clock + LEARN_AFTER).at(Timer.PROGRESS, clock + FIRST_PROGRESS_AFTER)
    if Timer.RENEW not in job.timers:  # The reply to the claim was lost: when its step timer began is not known.
        job = job.at(Timer.RENEW, clock + RENEW_AGAIN)
    return begin(turn, job, first_verb(job.record.plan))


def first_verb(plan: Plan) -> Verb:
    """Return what runs first after the claim."""
    return Verb.PREPARE if Verb.PREPARE in plan.verbs else Verb.APPLY


def begin(turn: Turn, job: Job, verb: Verb, *, rebooted: bool = False) -> Job:
    """Enter the phase of `verb` and run it; `apply` waits for the gates, `commit` for proof of reach.

    Nothing begins of what the service ended before `apply` did.
    """
    if job.record.ended and verb in (Verb.PREPARE, Verb.APPLY) and not job.record.applied:
        return undo(turn, job)
    job = job.with_(phase=PHASE_OF[verb], verb=None, process=None, stop_why="", again=verb, until=None)
    if verb is not Verb.APPLY or job.gate != Before.APPLY:  # Else it still stands before the same gate.
        job = job.with_(gate="", gate_tries=0, note="", rebooted=rebooted)
    job = job.without(Timer.VERB, Timer.STALL, Timer.AGAIN, Timer.REACH, Timer.REBOOT)
    if verb is Verb.COMMIT:
        return _prove_reach(turn, job)
    if verb is Verb.APPLY and not job.aside and turn.state.stopping is Stopping.NO:
        return gating.ask(turn, job, Before.APPLY)
    return begin_run(turn, job, verb)


def on_gated(turn: Turn, job: Job, event: Gated) -> Job:
    """The gates before `apply` were asked."""
    if job.gate != Before.APPLY or job.running is not None:
        return job
    if not event.reason:
        return begin_run(turn, gating.passed(job), Verb.APPLY)
    waited = job.gate_tries
    job, at = gating.wait(turn, job, event)
    if not waited:
        turn.do(Save(job.record))
    return job.at(Timer.AGAIN, at)


def begin_run(turn: Turn, job: Job, verb: Verb) -> Job:
    """Have the process of `verb` made, unless the agent is ending: then the next one does it."""
    if turn.state.stopping is not Stopping.NO:
        return job
    record = job.record
    attempt = record.attempts.get(verb, 0) + 1
    dry = verb is Verb.CHECK and record.plan.check_only
    turn.do(Run(record, verb, attempt, resumed=attempt > 1, rebooted=job.rebooted, dry_run=dry))
    return job.with_(running=verb, rebooted=False)


def _prove_reach(turn: Turn, job: Job) -> Job:
    clock = turn.now.clock
    if job.proof_after is None:
        job = job.with_(proof_after=clock)
    job = job.at(Timer.REACH, clock + job.record.plan.limits.reach)
    opened = turn.state.connected_at
    if opened is not None and opened > (job.proof_after or 0.0):
        return job.at(Timer.LEARN, clock)
    if turn.connected:  # Of what the service ended nothing is asked, but each new connection asks for the head.
        turn.do(Reconnect())
    return job


def on_reached(turn: Turn, job: Job) -> Job:
    """Any reply over a connection younger than the change is the proof that `commit` waits for."""
    opened = turn.state.connected_at
    waiting = job.phase is Phase.COMMITTING and job.running is None and job.record.verb is None
    if not waiting or opened is None or job.proof_after is None or opened <= job.proof_after:
        return job
    return begin_run(turn, job.without(Timer.REACH).with_(proof_after=None), Verb.COMMIT)


# --- the process --------------------------------------------------------------------------------------------------


def on_spawned(turn: Turn, job: Job, event: Spawned) -> Job:
    """The process exists and waits: write down which it is, then let it go."""
    record = job.record
    attempts = {**record.attempts, event.verb: record.attempts.get(event.verb, 0) + 1}
    applied = record.applied or event.verb is Verb.APPLY
    limits = record.plan.limits
    until = turn.until(limits.of(event.verb))
    job = job.with_(verb=event.verb, process=event.process, attempts=attempts, applied=applied, again=None, until=until)
    if job.record.claim:
        turn.do(Save(job.record))
    turn.do(Go(job.identity))
    job = job.with_(running=event.verb).at(Timer.VERB, until.at)
    return job.at(Timer.STALL, turn.now.clock + limits.stall) if limits.stall else job


def on_not_spawned(turn: Turn, job: Job, event: NotSpawned) -> Job:
    """The process could not be made: the same as a verb that failed."""
    job = job.with_(running=None, again=None)
    return fail(turn, job, event.code, f"{event.verb} could not be started: {event.reason}")


def on_judged_anew(turn: Turn, job: Job, event: Judged) -> Job:
    """The document came anew because the handler asked for it: it gets the parameters, with fresh presigned URLs."""
    plan, fresh = job.record.plan, event.verdict
    if isinstance(fresh, Plan) and (fresh.handler, fresh.check_only) == (plan.handler, plan.check_only):
        job = job.with_(plan=replace(plan, params=fresh.params))
    else:
        why = "another handler or mode" if isinstance(fresh, Plan) else fresh.reason
        turn.note(f"the document that came anew is of no use: {why}", job.identity, warning=True)
    if job.running is not None:
        turn.do(Refresh(job.record))
    return job


def on_progressed(turn: Turn, job: Job, event: Progressed) -> Job:
    """The handler lives; what it says goes out when its time has come."""
    heard = job.heard
    news = bool(event.message or event.details or event.percent is not None)
    heard = replace(
        heard,
        percent=heard.percent if event.percent is None else event.percent,
        message=event.message or heard.message,
        details={**heard.details, **event.details},
        news=heard.news or news,
    )
    job = job.with_(heard=heard)
    if event.refresh:
        job = job.with_(wants_fresh=True).at(Timer.LEARN, max(turn.now.clock, job.fresh_after))
    if Timer.STALL in job.timers:
        job = job.at(Timer.STALL, turn.now.clock + (job.record.plan.limits.stall or 0.0))
    if heard.news and Timer.PROGRESS not in job.timers and can_send(turn, job):
        return send_progress(turn, job)
    return job


def on_finished(turn: Turn, job: Job, event: Finished) -> Job:
    """A verb ended: what comes next depends on which it was and how it ended."""
    job, fresh = ended(job, event)
    if not fresh:
        return job
    if job.phase is Phase.CANCELLING:
        return close(turn, job, late="the service ended this execution; nothing was changed")
    if job.record.cancelled and event.verb in (Verb.APPLY, Verb.VERIFY) and not too_late(job):
        return undo(turn, job)
    return _after(turn, job, event.verb, event.ending)


def ended(job: Job, event: Finished) -> tuple[Job, bool]:
    """Return the job without its running verb, and whether the ending is of that verb and not of an earlier run."""
    # The record names no verb while a new run of it is about to be made: an ending is then of an earlier one.
    expected = job.running if job.running is job.record.verb else None
    if event.verb is not expected or event.attempt != job.record.attempts.get(event.verb):
        return job, False
    details = {**job.record.details, **job.heard.details, **event.ending.details}
    job = job.with_(running=None, wants_fresh=False, details=details, heard=replace(job.heard, details=NOTHING))
    if event.verb in (Verb.PREPARE, Verb.APPLY):  # These are let go only when that was written down.
        job = job.with_(save_tries=0)
    return job.without(Timer.VERB, Timer.STALL), True


def _after(turn: Turn, job: Job, verb: Verb, ending: Ending) -> Job:
    if job.stop_why or ending.code is None:
        return _failed(turn, job, verb, ending)
    match ending.code:
        case Exit.DONE:
            return advance(turn, job, verb)
        case Exit.LATER:
            return later(turn, job, verb, ending)
        case Exit.REBOOT_AND_AGAIN:
            return reboot(turn, job, verb)
        case Exit.DONE_AND_REBOOT:
            # After a reboot that `verify` wanted comes `verify`: what it found before says nothing of the new boot.
            return reboot(turn, job, verb if verb is Verb.VERIFY else _next(job, verb))
        case Exit.AGAIN_AFTER_RESTART:
            return _again(turn, job, verb, ending, RESTART_NOTE)
        case _:
            return _failed(turn, job, verb, ending)


def _failed(turn: Turn, job: Job, verb: Verb, ending: Ending) -> Job:
    code, reason = failure(job, verb, ending)
    status = Status.REJECTED if ending.reject and verb is not Verb.ROLLBACK else Status.FAILED
    return fail(turn, job, code, reason, status)


def failure(job: Job, verb: Verb, ending: Ending) -> tuple[Code, str]:
    """Return the code and the sentence for a verb that did not end well."""
    said = f": {ending.reason}" if ending.reason else ""
    if job.stop_why:
        return Code(job.stop_why), f"{verb} was stopped, {_STOPPED[Code(job.stop_why)]}{said}"
    if ending.signal:
        return Code.HANDLER_SIGNAL, f"{verb} was killed by signal {ending.signal}{said}"
    if ending.code is None:
        return Code.INTERRUPTED, f"{verb} ended without an exit status"
    if ending.fault:
        code = Code(ending.fault) if ending.fault in set(Code) else Code.HANDLER_FAILED
        return code, ending.reason or f"{verb} failed"
    return Code.HANDLER_EXIT, f"{verb} exited with status {ending.code}{said}"


_STOPPED = {
    Code.HANDLER_TIMEOUT: "it took longer than it may",
    Code.HANDLER_STALLED: "it showed no sign of life",
    Code.DEADLINE: "the job's in-progress timer ran out",
    Code.CANCELLED: "somebody at the device stopped it",
}


# --- what comes next ----------------------------------------------------------------------------------------------


def _next(job: Job, verb: Verb) -> Verb | None:
    later = ORDER[ORDER.index(verb) + 1 :] if verb in ORDER else ()
    return next((candidate for candidate in later if candidate in job.record.plan.verbs), None)


def advance(turn: Turn, job: Job, verb: Verb | None) -> Job:
    """`verb` is done: run the next one that the handler declares, or report success; None: a reboot ended the last."""
    if verb is Verb.ROLLBACK or (verb is None and Verb.ROLLBACK in job.record.attempts):
        return _rolled_back(turn, job, "; rolled back")
    if verb is Verb.VERIFY:
        job = job.with_(boot=turn.now.boot)
    if verb in (Verb.APPLY, Verb.VERIFY):
        job = job.with_(proof_after=turn.now.clock)
    following = _next(job, verb) if verb else None
    if following is None:
        return owe(turn, job, Result(Status.SUCCEEDED))
    # One that runs again, as `commit` does after a new `verify`, still counts the deaths that it did not survive.
    deaths = job.record.deaths if following in job.record.attempts else 0
    return begin(turn, job.with_(deaths=deaths), following)


def fail(turn: Turn, job: Job, code: Code, reason: str, status: Status = Status.FAILED) -> Job:
    """A verb failed: undo what was applied where the handler can, then report."""
    if job.phase is Phase.ROLLING_BACK or Verb.ROLLBACK in job.record.attempts:  # The latter: its reboot failed.
        return _rolled_back(turn, job, f"; the rollback failed: {reason}")
    if job.record.cancelled:
        return undo(turn, job)
    result = Result(status, _code_of(job, code), reason)
    if job.record.applied and Verb.ROLLBACK in job.record.plan.verbs:
        return begin(turn, job.with_(result=result, deaths=0), Verb.ROLLBACK)
    return owe(turn, job, result)


def _code_of(job: Job, code: Code) -> Code:
    """A plain failure is named after the phase in which it happened."""
    if code is not Code.HANDLER_EXIT:
        return code
    return {Phase.VERIFYING: Code.VERIFY_FAILED, Phase.COMMITTING: Code.COMMIT_FAILED}.get(job.phase, code)


def _rolled_back(turn: Turn, job: Job, how: str) -> Job:
    result = job.record.result
    if result is None or job.record.cancelled:
        return close(turn, job, late=f"the service ended this execution{how}")
    return owe(turn, job, replace(result, reason=result.reason + how))


def too_late(job: Job) -> bool:
    """Whether a cancel comes too late to undo anything: `commit` has begun, in an earlier boot perhaps."""
    return Verb.COMMIT in job.record.attempts


def undo(turn: Turn, job: Job) -> Job:
    """The execution was cancelled: undo what was applied, where the handler can; nothing is sent any more."""
    if job.record.applied and Verb.ROLLBACK in job.record.plan.verbs:
        return begin(turn, job.with_(deaths=0), Verb.ROLLBACK)
    what = "what was applied stays, the handler has no rollback" if job.record.applied else "nothing was changed"
    return close(turn, job, late=f"the service ended this execution; {what}")


def later(turn: Turn, job: Job, verb: Verb, ending: Ending) -> Job:
    """`verb` asked to be run again after a while: as long as it says, else 1, 2, 4 … minutes."""
    wait = ending.after if ending.after is not None else defer(job.record.attempts.get(verb, 0))
    return _again(turn, job, verb, ending, ending.reason or f"{verb} asked to be run again later", wait)


def _again(turn: Turn, job: Job, verb: Verb, ending: Ending, why: str, wait: float | None = None) -> Job:
    """Write down that `verb` is to run once more and what for it waits, unless it ran too often."""
    runs = job.record.attempts.get(verb, 0)
    if runs >= MAX_RUNS_PER_VERB:
        reason = f"{verb} asked for another run after {runs} runs: {ending.reason}"
        return fail(turn, job, Code.HANDLER_ATTEMPTS, reason)
    until = None if wait is None else turn.until(wait)
    job = job.with_(verb=None, process=None, again=verb, note=why, until=until)
    turn.do(Save(job.record))
    if wait is None:
        return job
    turn.note(f"waits: {why}", job.identity)
    return job.at(Timer.AGAIN, turn.now.clock + wait)


def reboot(turn: Turn, job: Job, again: Verb | None) -> Job:
    """The handler wants a reboot: write down what follows it, tell the service, then do it."""
    if job.record.plan.observe:
        return fail(turn, job, Code.REBOOT_FAILED, "a handler that only observes may not have the machine rebooted")
    if again and (runs := job.record.attempts.get(again, 0)) >= MAX_RUNS_PER_VERB:
        return fail(turn, job, Code.HANDLER_ATTEMPTS, f"{again} asked for a reboot and another run after {runs} runs")
    if job.record.process is not None and job.record.process.boot != turn.now.boot:
        # A power cut came before anybody heard of the wish, and fulfilled it. One boot more may be one too many: a
        # bootloader tries new firmware so many times, and no more.
        return begin(turn, job, again, rebooted=True) if again else advance(turn, job, None)
    if not turn.settings.may_reboot:
        reason = "the job wants a reboot, and this agent may not reboot the machine ([system] reboot is empty)"
        return fail(turn, job, Code.REBOOT_FAILED, reason)
    if job.record.reboots >= MAX_REBOOTS:
        return fail(turn, job, Code.REBOOT_FAILED, f"the job asked for more than {MAX_REBOOTS} reboots")
    job = job.with_(
        phase=Phase.REBOOTING,
        verb=None,
        process=None,
        again=again,
        boot=turn.now.boot,
        reboots=job.record.reboots + 1,
        reboot_asked=0,
        until=None,
        note="waits for the reboot",
    )
    turn.do(Save(job.record))
    if can_send(turn, job):
        return update(turn, job, Kind.PROGRESS, Status.IN_PROGRESS, {"progress": "rebooting"})
    return job.at(Timer.REBOOT, turn.now.clock)
