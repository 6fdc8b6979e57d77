"""The search for work: asking for the head of the queue, looking past what is not ours, taking an offer.

The execution in a `notify-next` or in the answer to `$next/get` is an offer: it is judged and claimed as it stands;
the version check of the claim makes it true. Other consumers' executions are left alone and looked past.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.jobs import Describe, Described, DescribeNext, GetPending, Pending, Refused
from thingjobs.machine.claim import offered, unknown_of_ours
from thingjobs.machine.effects import Send
from thingjobs.machine.state import Look, LookTimer, Stopping
from thingjobs.model import Phase, Status
from thingjobs.policy import LOOK_EVERY, REPLY_TIMEOUT, RESERVED_IDS, backoff, spread

if TYPE_CHECKING:
    from thingjobs.jobs import Reply, Request
    from thingjobs.machine.turn import Turn
    from thingjobs.model import Execution

AGENT_MARK = "thingjobs/"


# --- asking -------------------------------------------------------------------------------------------------------


def ask(turn: Turn, look: Look | None = None) -> None:
    """Ask for the head of the queue, or for what lies behind executions that are not ours."""
    if not turn.connected or turn.state.stopping is not Stopping.NO:
        return
    look = look or Look()
    token = turn.mint()
    turn.change(look=replace(look, token=token))
    _timer(turn, LookTimer.REPLY, turn.now.clock + REPLY_TIMEOUT)
    turn.do(Send(_question(look, token)))


def _question(look: Look, token: str) -> Request:
    if look.wanted is not None:
        return Describe(token, look.wanted.job_id, look.wanted.number, with_document=True)
    return GetPending(token) if look.past else DescribeNext(token)


def ask_later(turn: Turn, phase: Phase) -> None:
    """An execution was dropped: look again, at once after a wait, else after a moment with jitter."""
    if not turn.connected:
        return
    if phase is Phase.DEFERRED:
        ask(turn)
    else:
        _timer(turn, LookTimer.RETRY, turn.now.clock + backoff(1, turn.roll()))


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
        case LookTimer.PERIODIC:
            _timer(turn, LookTimer.PERIODIC, turn.now.clock + spread(LOOK_EVERY, turn.roll()))
            if look is None:
                ask(turn)


def _again(turn: Turn, look: Look) -> None:
    """The question was refused or got no answer: ask again after a while, for ever."""
    tries = look.tries + 1
    turn.change(look=replace(look, token="", tries=tries))
    _timer(turn, LookTimer.RETRY, turn.now.clock + backoff(tries, turn.roll()))


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
        case Refused() if look.wanted is not None:
            turn.change(foreign=turn.state.foreign | {look.wanted})
            ask(turn, Look(past=True))
        case Refused():
            turn.note(f"the service refused to tell what is pending: {event.text} {event.message}", warning=True)
            _again(turn, look)
        case Pending():
            _choose(turn, event)
        case Described(_, execution) if execution is not None:
            turn.change(offer=execution)
        case _:
            turn.change(offer=None)


def _choose(turn: Turn, event: Pending) -> None:
    """Of the list, take the first queued execution that is ours."""
    state = turn.state
    for summary in event.queued:
        identity = summary.identity
        known = identity in state.remembered or identity in state.foreign or identity in state.jobs
        if not known and turn.settings.ours(identity.job_id):
            ask(turn, Look(past=True, wanted=identity))
            return


# --- taking -------------------------------------------------------------------------------------------------------


def take_offer(turn: Turn) -> None:
    """Consider the newest offer, if the agent is free and not ending."""
    state = turn.state
    execution = state.offer
    # While the end of an earlier execution is in no journal, a restart would go on with it: nothing new begins.
    busy = state.jobs or state.unsaved or state.stopping is not Stopping.NO
    if execution is None or busy or not turn.connected:
        return
    turn.change(offer=None)
    if execution.identity in state.remembered or execution.status.terminal:
        return
    if execution.status is Status.QUEUED and turn.settings.ours(execution.identity.job_id):
        _start(turn, execution)
    elif _lost_of_ours(turn, execution):
        job = unknown_of_ours(turn, execution)
        turn.change(jobs={job.identity: job})
    else:
        _look_past(turn, execution)


def _start(turn: Turn, execution: Execution) -> None:
    timers = {key: at for key, at in turn.state.timers.items() if key in (LookTimer.PERIODIC, LookTimer.SAVE)}
    job = offered(turn, execution)
    turn.change(jobs={execution.identity: job}, timers=timers, look=None)


def _lost_of_ours(turn: Turn, execution: Execution) -> bool:
    """An execution in progress that the journal does not know: ours only if it carries our mark."""
    ours = execution.details.get("agent", "").startswith(AGENT_MARK)
    return execution.status is Status.IN_PROGRESS and ours and turn.settings.ours(execution.identity.job_id)


def _look_past(turn: Turn, execution: Execution) -> None:
    if execution.identity not in turn.state.foreign:
        reserved = execution.identity.job_id in RESERVED_IDS
        why = "over MQTT, its id cannot be told from a topic of the service" if reserved else "it is another consumer's"
        turn.note(f"left alone: {why}", execution.identity, warning=reserved)
        turn.change(foreign=turn.state.foreign | {execution.identity})
    ask(turn, Look(past=True))
