"""The search for work: asking for the head of the queue, looking past what is not ours, taking an offer.

The execution in a `notify-next` or in the answer to `$next/get` is an offer: it is judged and claimed as it stands;
the version check of the claim makes it true. Other consumers' executions are left alone and looked past.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.jobs import Describe, Described, DescribeNext, GetPending, Pending, Refusal, Refused
from thingjobs.machine.claim import leave, offered, unknown_of_ours
from thingjobs.machine.effects import Send
from thingjobs.machine.state import Look, LookTimer, Stopping
from thingjobs.model import Phase, Status
from thingjobs.policy import (
    ASIDE_AFTER,
    ASIDE_SOON,
    CROWDED_FIRST,
    EXPECT_NEXT_WITHIN,
    LOOK_EVERY,
    REPLY_TIMEOUT,
    RESERVED_IDS,
    RETRY_CAP,
    RETRY_FIRST,
    backoff,
    look_delay,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.jobs import Reply, Request, Summary
    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn
    from thingjobs.model import Execution, Identity

AGENT_MARK = "thingjobs/"


# --- asking -------------------------------------------------------------------------------------------------------


def after_connect(turn: Turn) -> None:
    """The service is back: ask whether what is at work here was ended meanwhile; whoever is idle lets others go first.

    What is queued from now on is told by `notify-next`, and taken at once.
    """
    away = turn.now.clock - turn.state.lost_at if turn.state.lost_at is not None else 0.0
    delay = look_delay(away, turn.roll())
    if turn.state.jobs or not delay:
        ask(turn)
    else:
        _timer(turn, LookTimer.RETRY, turn.now.clock + delay)


def ask(turn: Turn, look: Look | None = None) -> None:
    """Ask for the head of the queue, or for what lies behind executions that are not ours."""
    if not turn.connected or turn.state.stopping is not Stopping.NO:
        return
    look = look or Look()
    token = turn.mint()
    timers = {key: at for key, at in turn.state.timers.items() if key is not LookTimer.RETRY}
    turn.change(look=replace(look, token=token), timers=timers)
    _timer(turn, LookTimer.REPLY, turn.now.clock + REPLY_TIMEOUT)
    turn.do(Send(_question(look, token)))


def _question(look: Look, token: str) -> Request:
    if look.wanted is not None:
        return Describe(token, look.wanted.job_id, look.wanted.number, with_document=True)
    return GetPending(token) if look.past or look.aside else DescribeNext(token)


def after(turn: Turn, job: Job, *, done: bool) -> None:
    """`job` is done: `notify-next` follows. Or it was dropped: look again, at once after a wait, else in a moment."""
    if not turn.connected:
        return
    if turn.state.busy:
        aside_later(turn, ASIDE_SOON)
    elif done:
        _timer(turn, LookTimer.EXPECT, turn.now.clock + EXPECT_NEXT_WITHIN)
    elif job.phase is Phase.DEFERRED:
        ask(turn)
    else:
        _timer(turn, LookTimer.RETRY, turn.now.clock + backoff(1, turn.roll()))


def aside_later(turn: Turn, seconds: float) -> None:
    """Look for observers that wait behind what keeps the agent busy."""
    at = turn.now.clock + seconds
    _timer(turn, LookTimer.ASIDE, min(at, turn.state.timers.get(LookTimer.ASIDE, at)))


def beside(turn: Turn, queued: Sequence[Summary]) -> None:
    """Of the queued executions, have one looked at that may be an observer; everything else keeps its place."""
    state = turn.state
    if not state.busy or state.observing or state.look is not None:
        return
    for summary in queued:
        if _unknown(turn, summary.identity) and summary.identity not in state.waiting_in_line:
            ask(turn, Look(aside=True, wanted=summary.identity))
            return


def on_due(turn: Turn, timer: LookTimer) -> None:
    """A timer of the search has come."""
    look = turn.state.look
    match timer:
        case LookTimer.REPLY:
            _again(turn, look or Look())
        case LookTimer.RETRY:
            ask(turn, look)
        case LookTimer.EXPECT:
            if look is None:
                ask(turn)
        case LookTimer.ASIDE:
            _look_beside(turn)
        case LookTimer.PERIODIC:
            _timer(turn, LookTimer.PERIODIC, turn.now.clock + spread(LOOK_EVERY, turn.roll()))
            if look is None:
                ask(turn)


def _look_beside(turn: Turn) -> None:
    """Behind what is busy only an observer is looked for; behind an observer that takes long, whatever waits."""
    state = turn.state
    if state.look is None and state.busy and not state.observing:
        ask(turn, Look(aside=True))
    elif state.look is None and state.jobs and not state.busy:
        ask(turn, Look(past=True))


def _again(turn: Turn, look: Look, *, first: float = RETRY_FIRST) -> None:
    """The question was refused or got no answer: ask again after a while, for ever."""
    tries = look.tries + 1
    turn.change(look=replace(look, token="", tries=tries))
    _timer(turn, LookTimer.RETRY, turn.now.clock + backoff(tries, turn.roll(), first=first))


def _timer(turn: Turn, timer: LookTimer, at: float) -> None:
    turn.change(timers={**turn.state.timers, timer: at})


# --- answers ------------------------------------------------------------------------------------------------------


def on_reply(turn: Turn, event: Reply) -> None:
    """The question was answered."""
    look = turn.state.look
    assert look is not None
    timers = {key: at for key, at in turn.state.timers.items() if key is not LookTimer.REPLY}
    turn.change(look=None, timers=timers)
    match event:
        case Refused():
            _refused(turn, look, event)
        case Pending() if look.aside:
            beside(turn, event.queued)
        case Pending():
            _choose(turn, event)
        case Described(_, execution) if look.aside:
            _observe(turn, execution)
        case Described(_, execution):
            if look.wanted is None:
                _displace(turn, execution)
            turn.change(offer=execution)
            _pass_finished(turn, execution)
        case _:
            turn.change(offer=None)


def _refused(turn: Turn, look: Look, event: Refused) -> None:
    """One execution that cannot be shown holds up no other, unless the service is only too busy for that."""
    busy = event.code in (Refusal.REQUEST_THROTTLED, Refusal.INTERNAL_ERROR)
    if look.wanted is not None and not busy:
        turn.look_past(look.wanted)
        ask(turn, Look(past=not look.aside, aside=look.aside))
    elif look.wanted is None and look.aside:
        # It is the least of what the account has to answer.
        aside_later(turn, spread(RETRY_CAP, turn.roll()) if busy else ASIDE_AFTER)
    else:
        turn.note(f"the service refused to tell what is pending: {event.text} {event.message}", warning=True)
        _again(turn, look, first=CROWDED_FIRST if event.code is Refusal.REQUEST_THROTTLED else RETRY_FIRST)


def _pass_finished(turn: Turn, head: Execution | None) -> None:
    """The service still holds what is finished here, because it did not take the result: look at what is behind it."""
    over = head is None or head.status.terminal or head.identity not in turn.state.remembered
    if not over and not turn.state.busy:
        turn.change(offer=None)
        ask(turn, Look(past=True))


def _displace(turn: Turn, head: Execution | None) -> None:
    """Give up what waits and is not the head any more: it was ended, or overtaken, while nobody heard of that.

    What waits before a gate asks the service for nothing, so it would not notice by itself.
    """
    if turn.state.is_aside(head):
        return
    for job in turn.state.jobs.values():
        if job.phase is Phase.DEFERRED and not job.aside and (head is None or head.identity != job.identity):
            leave(turn, job)
            turn.change(jobs={key: other for key, other in turn.state.jobs.items() if key != job.identity})


def _choose(turn: Turn, event: Pending) -> None:
    """Of the list, take the first queued execution that is ours."""
    for summary in event.queued:
        if _unknown(turn, summary.identity):
            ask(turn, Look(past=True, wanted=summary.identity))
            return


def _unknown(turn: Turn, identity: Identity) -> bool:
    """Return whether an execution is ours and not looked at yet."""
    state = turn.state
    known = identity in state.remembered or identity in state.foreign or identity in state.jobs
    return not known and turn.settings.ours(identity.job_id)


# --- taking -------------------------------------------------------------------------------------------------------


def take_offer(turn: Turn) -> None:
    """Consider the newest offer, if the agent is free and not ending."""
    state = turn.state
    execution = state.offer
    if execution is None or state.busy or state.stopping is not Stopping.NO or not turn.connected:
        return
    turn.change(offer=None)
    left_alone = execution.identity in state.foreign
    if execution.identity in state.remembered or execution.status.terminal:
        return
    if execution.identity in state.jobs:  # An observer of ours is the head; what waits is behind it.
        ask(turn, Look(past=True))
    elif execution.status is Status.QUEUED and turn.settings.ours(execution.identity.job_id) and not left_alone:
        _start(turn, execution)
    elif _lost_of_ours(turn, execution):
        job = unknown_of_ours(turn, execution)
        turn.change(jobs={**state.jobs, job.identity: job})
    else:
        _look_past(turn, execution)


def _start(turn: Turn, execution: Execution) -> None:
    timers = {key: at for key, at in turn.state.timers.items() if key in (LookTimer.PERIODIC, LookTimer.SAVE)}
    job = offered(turn, execution)
    turn.change(jobs={**turn.state.jobs, execution.identity: job}, timers=timers, look=None)
    aside_later(turn, ASIDE_AFTER)


def _observe(turn: Turn, execution: Execution | None) -> None:
    """Something that waits was described: see whether it is an observer, which need not wait."""
    state = turn.state
    gone = execution is None or execution.status is not Status.QUEUED or execution.identity in state.remembered
    if gone or execution is None or state.observing or execution.identity in state.jobs:
        return
    if not state.busy:
        ask(turn)  # The agent became free meanwhile: the head comes first.
        return
    turn.change(jobs={**state.jobs, execution.identity: offered(turn, execution, probe=True)})


def _lost_of_ours(turn: Turn, execution: Execution) -> bool:
    """An execution in progress that the journal does not know: ours only if it carries our mark."""
    ours = execution.details.get("agent", "").startswith(AGENT_MARK)
    return execution.status is Status.IN_PROGRESS and ours and turn.settings.ours(execution.identity.job_id)


def _look_past(turn: Turn, execution: Execution) -> None:
    if execution.identity not in turn.state.foreign:
        reserved = execution.identity.job_id in RESERVED_IDS
        why = "over MQTT, its id cannot be told from a topic of the service" if reserved else "it is another consumer's"
        turn.note(f"left alone: {why}", execution.identity, warning=reserved)
        turn.look_past(execution.identity)
    ask(turn, Look(past=True))
