"""The whole core as one function: `step(state, event, now)` gives the new state and what to do.

It gives each event to the execution that it belongs to, keeps the connection's state, and searches for work: after
every (re)connect, when a notification is doubtful, when none follows a terminal update, and every few hours.
Replies whose token is not open, and notifications of executions that are finished here, are dropped before any row
of the table sees them: nothing late or doubled starts anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from thingjobs.jobs import (
    RENEWED,
    Connected,
    Described,
    Disconnected,
    ListChanged,
    NextChanged,
    Pending,
    Refused,
    Updated,
)
from thingjobs.machine import look
from thingjobs.machine.claim import leave
from thingjobs.machine.effects import Clean, Reconnect, Save
from thingjobs.machine.events import (
    Doubted,
    Due,
    Finished,
    Gated,
    Judged,
    LinkUp,
    NotSaved,
    NotSpawned,
    Progressed,
    Resumed,
    Spawned,
    Stop,
    Unanswered,
)
from thingjobs.machine.report import owe
from thingjobs.machine.state import Job, LookTimer, State, Timer
from thingjobs.machine.table import TABLE
from thingjobs.machine.turn import Turn
from thingjobs.machine.verbs import on_reached
from thingjobs.model import Code, Phase, Result, Status
from thingjobs.policy import (
    ASIDE_AFTER,
    EXPECT_NEXT_WITHIN,
    LOOK_EVERY,
    MAX_SILENT,
    SAVE_RETRY_CAP,
    spread,
)

if TYPE_CHECKING:
    from thingjobs.machine.effects import Effect
    from thingjobs.machine.events import Event, JobEvent
    from thingjobs.machine.state import Now
    from thingjobs.model import Execution, Identity, Record


def step(state: State, event: Event, now: Now) -> tuple[State, tuple[Effect, ...]]:  # noqa: C901 - one case an event
    """Return the state after `event`, and the effects to carry out in order. Pure.

    Args:
        state: as it is.
        event: what happened.
        now: one reading of the clocks.
    """
    turn = Turn(state, now)
    match event:
        case Connected() | Disconnected() | NextChanged() | ListChanged():
            _heard(turn, event)
        case Pending() | Described() | Updated() | Refused():
            _replied(turn, event)
        case Stop():
            turn.change(stopping=event.how)
            _tell_all(turn, event)
        case Due(timer, None):
            _look_due(turn, timer)
        case Due():
            _due(turn, event)
        case Resumed(record):
            _give(turn, Job(record=record), event)
        case NotSaved(record) if record.phase is Phase.DONE:
            _unsaved(turn, record)
        case Judged() | Gated() | Spawned() | NotSpawned() | Progressed() | Finished() | NotSaved():
            job = turn.state.jobs.get(event.identity)
            if job is not None:
                _give(turn, job, event)
        case _:
            assert_never(event)
    look.take_offer(turn)
    return turn.state, tuple(turn.effects)


# --- one execution ------------------------------------------------------------------------------------------------


def _give(turn: Turn, job: Job, event: JobEvent) -> None:
    """Let the table work out what `event` does to `job`."""
    row = TABLE[job.phase].get(type(event))
    if row is None:
        _quarantine(turn, job, event)
        return
    after = row.rule(turn, job, event)
    jobs = {identity: other for identity, other in turn.state.jobs.items() if identity != job.identity}
    if after is None or (job.phase is Phase.REFUSING and after.phase is Phase.DONE):
        leave(turn, job)
    if after is not None and after.phase is not Phase.DONE:
        turn.change(jobs={**jobs, job.identity: after})
        return
    turn.change(jobs=jobs)
    if after is not None:
        _remember(turn, job.identity)
    look.after(turn, job, done=after is not None)


def _quarantine(turn: Turn, job: Job, event: JobEvent) -> None:
    """A pair without a row is a defect of ours: this execution ends as FAILED, the agent goes on."""
    reason = f"the agent does not know what {type(event).__name__} means while {job.phase}"
    turn.note(f"{reason}; please report this", job.identity, warning=True)
    if job.phase in (Phase.DONE, Phase.REPORTING) or not job.record.claim:
        return
    after = owe(turn, job, Result(Status.FAILED, Code.AGENT_DEFECT, reason))
    turn.change(jobs={**turn.state.jobs, job.identity: after})


def _remember(turn: Turn, identity: Identity) -> None:
    turn.remember(identity)
    deferrals = {other: known for other, known in turn.state.deferrals.items() if other != identity}
    turn.change(deferrals=deferrals, waiting_in_line=turn.state.waiting_in_line - {identity})


def _unsaved(turn: Turn, record: Record) -> None:
    """The end of an execution could not be written down: nothing hangs on it here, but a restart would ask again.

    Of an observer it does not matter: it needs no journal.
    """
    if record.plan.observe:
        turn.do(Clean(record.identity))
        return
    turn.change(
        unsaved=(*turn.state.unsaved, record),
        timers={**turn.state.timers, LookTimer.SAVE: turn.now.clock + SAVE_RETRY_CAP},
    )


def _save_ends(turn: Turn) -> None:
    records = turn.state.unsaved
    # Whether this works is known only after this step; what waits is looked for again a moment later.
    again = {LookTimer.RETRY: turn.now.clock + 1} if turn.connected else {}
    turn.change(unsaved=(), offer=None, timers={**turn.state.timers, **again})
    for record in records:
        turn.do(Save(record), Clean(record.identity))


def _due(turn: Turn, event: Due) -> None:
    job = turn.state.jobs.get(event.identity) if event.identity else None
    timer = event.timer
    if job is None or not isinstance(timer, Timer) or timer not in job.timers:
        return
    job = job.without(timer)
    if timer is Timer.REPLY:
        _unheard(turn)
    _give(turn, job, Unanswered() if timer is Timer.REPLY else event)


def _unheard(turn: Turn) -> None:
    """A request got no reply: the broker may hang behind a connection that looks alive."""
    silent = turn.state.silent + 1
    turn.change(silent=silent % MAX_SILENT)
    if silent == MAX_SILENT and turn.connected:
        turn.note(f"{silent} requests in a row got no reply: connecting anew", warning=True)
        turn.do(Reconnect())


def _tell_all(turn: Turn, event: JobEvent) -> None:
    for job in tuple(turn.state.jobs.values()):
        _give(turn, job, event)


def _heard(turn: Turn, event: Connected | Disconnected | NextChanged | ListChanged) -> None:
    match event:
        case Connected():
            _connected(turn)
        case Disconnected():
            _disconnected(turn, event)
        case NextChanged():
            _next_changed(turn, event)
        case ListChanged():
            _list_changed(turn, event)


# --- the connection -----------------------------------------------------------------------------------------------


def _connected(turn: Turn) -> None:
    """Claims and results go first, then the search."""
    turn.change(connected_at=turn.now.clock)
    _tell_all(turn, LinkUp())
    look.after_connect(turn)
    turn.change(timers={**turn.state.timers, LookTimer.PERIODIC: turn.now.clock + spread(LOOK_EVERY, turn.roll())})
    if turn.state.busy:
        look.aside_later(turn, ASIDE_AFTER)


def _disconnected(turn: Turn, event: Disconnected) -> None:
    was_up = turn.connected
    kept = {key: at for key, at in turn.state.timers.items() if key is LookTimer.SAVE}
    lost_at = turn.now.clock if was_up or turn.state.lost_at is None else turn.state.lost_at
    turn.change(connected_at=None, lost_at=lost_at, look=None, timers=kept, offer=None)
    if was_up:
        turn.note(f"connection lost: {event.reason}", warning=event.reason != RENEWED)
    else:
        turn.note(f"cannot connect: {event.reason}", warning=True)
    for job in tuple(turn.state.jobs.values()):
        if job.open is not None:
            _give(turn, job, Unanswered())


def _look_due(turn: Turn, timer: object) -> None:
    if not isinstance(timer, LookTimer) or timer not in turn.state.timers:
        return
    turn.change(timers={key: at for key, at in turn.state.timers.items() if key is not timer})
    if timer is LookTimer.SAVE:
        _save_ends(turn)
        return
    if timer is LookTimer.REPLY:
        _unheard(turn)
    look.on_due(turn, timer)


# --- messages -----------------------------------------------------------------------------------------------------


def _forget_gone(turn: Turn, shown: set[Identity]) -> None:
    """Forget what was known of executions that wait no more. One behind the end of the list is looked at again."""
    state = turn.state
    turn.change(
        deferrals={identity: known for identity, known in state.deferrals.items() if identity in shown},
        waiting_in_line=state.waiting_in_line & shown,
        foreign=state.foreign & shown,
    )


def _replied(turn: Turn, event: Pending | Described | Updated | Refused) -> None:
    """Give a reply to whom it belongs by its token; one that nobody waits for is dropped."""
    turn.change(silent=0)
    asked = turn.state.look
    if asked is not None and event.token == asked.token:
        look.on_reply(turn, event)
        _looked(turn, event, of_head=asked.wanted is None)
        return
    for job in turn.state.jobs.values():
        if job.open is not None and job.open.token == event.token:
            if not isinstance(event, Pending):
                _give(turn, job, event)
            return


def _looked(turn: Turn, event: Pending | Described | Updated | Refused, *, of_head: bool) -> None:
    """Any reply proves that the service is reached; another head is a doubt about what we are busy with."""
    for job in tuple(turn.state.jobs.values()):
        turn.change(jobs={**turn.state.jobs, job.identity: on_reached(turn, job)})
    if of_head and isinstance(event, Described) and not turn.state.is_aside(event.execution):
        _doubt_all_but(turn, event.execution)


def _doubt_all_but(turn: Turn, head: Execution | None) -> None:
    for job in tuple(turn.state.jobs.values()):
        # An observer that overtook is not the head: only the list tells of it.
        if not job.aside and (head is None or head.identity != job.identity):
            _give(turn, job, Doubted())


def _next_changed(turn: Turn, event: NextChanged) -> None:
    """The head of the queue is another one: an offer, and a doubt about what we are busy with."""
    timers = {key: at for key, at in turn.state.timers.items() if key is not LookTimer.EXPECT}
    execution = event.execution
    known = execution is not None and execution.identity in turn.state.remembered
    if known or turn.state.is_aside(execution):
        return
    turn.change(timers=timers, offer=execution)
    _doubt_all_but(turn, execution)


def _list_changed(turn: Turn, event: ListChanged) -> None:
    """The list tells of queued executions, and by silence of ended ones."""
    shown = {summary.identity for summary in (*event.in_progress, *event.queued)}
    for job in tuple(turn.state.jobs.values()):
        if job.identity not in shown:
            _give(turn, job, Doubted())
    waiting = shown.difference(turn.state.remembered, turn.state.jobs, turn.state.foreign)
    _forget_gone(turn, shown)
    if turn.state.busy:
        if LookTimer.ASIDE not in turn.state.timers:
            look.beside(turn, event.queued)
    elif waiting and LookTimer.EXPECT not in turn.state.timers and turn.connected:
        # `notify-next` follows when the head changed; when it does not, it was lost.
        turn.change(timers={**turn.state.timers, LookTimer.EXPECT: turn.now.clock + EXPECT_NEXT_WITHIN})
