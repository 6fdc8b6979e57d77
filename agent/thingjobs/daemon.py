"""The one loop: an event comes off the queue, the core decides, and `doer` carries out what it decided.

Threads of libraries and of the runner only put events on the queue. Nothing here decides anything about a job.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thingjobs import boot, status
from thingjobs.beginning import Beginning
from thingjobs.cloud_desk import Answered
from thingjobs.doer import MAX_SHOWN_FINISHED, Doer
from thingjobs.errors import StateBusyError, StateError
from thingjobs.jobs import Connected, Described, Disconnected, ListChanged, Pending, Refused, Updated
from thingjobs.machine import State, Stopping, step
from thingjobs.machine.effects import Clean, Forget, GetReady, Go, Note, Save, Send
from thingjobs.machine.events import Due, Event, Stop
from thingjobs.machine.state import Timer
from thingjobs.machine.verbs import RESTART_NOTE
from thingjobs.model import Phase
from thingjobs.notify import Notifier, Pulse
from thingjobs.policy import backoff
from thingjobs.runner.events import Wanted
from thingjobs.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.jobs import Summary
    from thingjobs.machine import Now
    from thingjobs.machine.state import Job
    from thingjobs.model import Identity, Json, Record
    from thingjobs.parts import Parts

log = logging.getLogger("thingjobs")

#: After a stop, reports that are on their way get this long.
STOP_SECONDS = 5.0
#: What the journal holds is tried to be taken up again after 2, 4, 8 … seconds.
TAKE_UP_CAP = 30.0
START = "taking up what the journal holds"
#: What is carried out before people are told of it.
SWIFT = (Save, Send, GetReady, Go, Clean, Forget, Note)


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to know how the agent is; `answer` takes the status."""

    answer: Callable[[Json], None]


class Daemon:
    """The agent, from its start to its end.

    Args:
        parts: what it works with.
        inbox: the queue that every thread puts events on.
        observe: is told each step: the state before and after, and the notes.
        enough: says when the agent may end by itself; None: never.
        reached: is called for each answer of the service.

    Attributes:
        restart: a verb waits for another agent, which is why this one ends.
    """

    def __init__(
        self,
        parts: Parts,
        inbox: queue.SimpleQueue[Any],
        *,
        observe: Callable[[State, State, Sequence[Note]], None] | None = None,
        enough: Callable[[State], bool] | None = None,
        reached: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = parts
        self._inbox = inbox
        self._observe = observe
        self._enough = enough
        self._reached = reached
        self.restart = False
        self._stop_at: float | None = None
        self._troubles = Troubles(self._troubled)
        self._doer = Doer(parts, self._troubles, lambda: self.state.jobs)
        self._beginning = Beginning(parts.journal, parts.runner, parts.handlers)
        self._pulse = Pulse(Notifier(), 0)
        self._take_up_at: float | None = None
        self._take_up_tries = 0
        #: For people: why the last connection ended or was not made, what waits as it was last told, what was refused.
        self._lost = ""
        self._queued: Sequence[Summary] = ()
        self._refused: deque[Record] = deque(maxlen=MAX_SHOWN_FINISHED)
        self.state = State(settings=parts.settings, nonce=parts.nonce)

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(
        self,
        started: Callable[[], None] = lambda: None,
        renewed: Callable[[], None] = lambda: None,
        pulse: Pulse | None = None,
    ) -> None:
        """Work until the agent is told to stop, or there is enough.

        Args:
            started: is called once the loop is about to begin.
            renewed: is called when the state folder had to be made anew.
            pulse: tells the service manager that the loop turns.

        Raises:
            StateBusyError: the state folder was deleted, and another agent has made it anew.
        """
        self._doer.keeper.renewed = renewed
        self._pulse = pulse or self._pulse
        self._take_up()
        started()
        with contextlib.ExitStack() as end:  # One that fails to end keeps no other from it.
            end.callback(lambda: self._doer.act(self._doer.lull.take_all()))
            end.callback(self._parts.runner.let_go)
            end.callback(self._parts.desk.stop)
            end.callback(self._parts.gates.stop)
            end.callback(self._parts.transport.stop)
            if self._parts.reporter is not None:
                end.callback(self._parts.reporter.stop)
            try:
                self._work()
            except StateBusyError:
                self._doer.lull.take_all()  # What it would put away is the other agent's by now.
                raise

    def _work(self) -> None:
        while not self._over():
            if self._inbox.empty():
                self._parts.journal.prepare()
            with contextlib.suppress(queue.Empty):
                self._take(self._inbox.get(timeout=self._wait()))
            self._fire_timers()
            self._end_for_another()

    def _wait(self) -> float | None:
        reporter = self._parts.reporter
        told = reporter.next_due() if reporter else None
        ready = self._parts.runner.waiting.next_due()
        doer = (self._doer.postponed.next_due(), self._doer.lull.next_due())
        own = (self._stop_at, self._take_up_at, *doer, self._pulse.due, ready, told)
        dues = [due for due in (self.state.next_due(), *own) if due is not None]
        return max(0.0, min(dues) - boot.clock()) if dues else None

    def _take(self, event: Any) -> None:
        if isinstance(event, Asked):
            event.answer(self.status())
            return
        if isinstance(event, (Wanted, Answered)):
            self._parts.desk.take(event, self.state.jobs, self._parts.runner.answer)
            return
        if isinstance(event, Stop):
            self._stop_at = boot.clock() + STOP_SECONDS
        if isinstance(event, (Updated, Described, Pending, Refused)):
            self._reached()
        self._overhear(event)
        self._step(event)

    def _fire_timers(self) -> None:
        """Tell the core of each timer that is due; a step may change the others, so they are looked up anew."""
        now = boot.clock()
        self._pulse.beat(now)
        self._parts.runner.waiting.end_overdue(now)
        self._doer.act(self._doer.lull.take(now))
        self._settle()
        while (due := self.state.next_due()) is not None and due <= now:
            self._step(self._earliest(due))
        if self._take_up_at is not None and self._take_up_at <= now:
            self._take_up()
        for effect in self._doer.postponed.take(now):
            self._doer.try_again(effect)
            self._settle()
        if self._parts.reporter is not None:
            self._parts.reporter.act(now, self.status)

    def _earliest(self, due: float) -> Due:
        for look_timer, at in self.state.timers.items():
            if at == due:
                return Due(look_timer)
        for job in self.state.jobs.values():
            for timer, at in job.timers.items():
                if at == due:
                    return Due(timer, job.identity)
        raise AssertionError("a timer that is due must be somewhere")

    def _end_for_another(self) -> None:
        """End where a verb waits for another agent, once that is in the journal."""
        if self.state.stopping is Stopping.NO and any(map(_wants_another, self.state.jobs.values())):
            self.restart = True
            self._take(Stop(Stopping.LEAVE))

    def _over(self) -> bool:
        state = self.state
        if state.stopping is Stopping.NO:
            return self._enough is not None and self._inbox.empty() and self._enough(state)
        reporting = any(job.phase in (Phase.REPORTING, Phase.REFUSING) and job.open for job in state.jobs.values())
        running = any(job.running for job in state.jobs.values())
        waits = running and state.stopping is not Stopping.LEAVE
        if waits:  # The report of what is waited for gets its time too.
            self._stop_at = boot.clock() + STOP_SECONDS
        return not waits and (not reporting or self._late())

    def _late(self) -> bool:
        return self._stop_at is not None and boot.clock() >= self._stop_at

    def _step(self, event: Event) -> None:
        self._doer.events.append(event)
        self._settle()

    def _settle(self) -> None:
        while self._doer.events:
            before = self.state
            self.state, effects = step(before, self._doer.events.popleft(), self._now())
            # A slow reader of the log shall keep no report waiting; what may take long is told of before it begins.
            swift = all(isinstance(effect, SWIFT) for effect in effects)
            if swift:
                self._doer.carry_out(effects)
            self._show(before, [effect for effect in effects if isinstance(effect, Note)])
            if not swift:
                self._doer.carry_out(effects)

    def _now(self) -> Now:
        return boot.now(self._parts.boot)

    # --- after a start --------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Go on with what the journal holds. Only then is the service asked for anything.

        An execution that the core does not know would be taken for one whose journal is lost. So when it cannot be
        looked after for now, for want of open files say, everything waits for that.
        """
        self._take_up_at = None
        try:
            self._beginning.take_up(self._remember, self._step)
        except (StateError, OSError) as error:
            self._take_up_tries += 1
            self._take_up_at = boot.clock() + backoff(self._take_up_tries, 1.0, cap=TAKE_UP_CAP)
            self._troubles.came(START, f"cannot begin, and tries again: {error}")
            return
        self._troubles.went(START)
        self._doer.keeper.look_at_reserve()
        self._parts.transport.start(self._inbox.put)

    def _remember(self, finished: Sequence[Record], others: Sequence[Identity]) -> None:
        self._doer.finished.extend(finished)
        self.state = replace(self.state, remembered=(*others, *(record.identity for record in finished)))

    # --- seeing ---------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """Return what the agent is doing."""
        self._doer.keeper.look_at_reserve()
        told = status.Told(
            lost=self._lost,
            queued=[one.identity for one in self._queued],
            refused=self._refused,
            trouble=self._troubles.lines(),
        )
        return status.of_agent(self.state, self._doer.finished, told, thing=self._parts.thing, clock=boot.clock())

    def _overhear(self, event: Event) -> None:
        """Keep what the core has no use for and people have."""
        match event:
            case Connected():
                log.info("connected")
                self._queued = ()  # Whatever it was, nobody has told of its end meanwhile.
            case Disconnected(reason):
                self._lost = reason
            case Pending() | ListChanged():
                self._queued = event.queued

    def _show(self, before: State, notes: Sequence[Note]) -> None:
        for note in notes:
            subject = f"{note.identity}: " if note.identity else ""
            log.log(logging.WARNING if note.warning else logging.INFO, "%s%s", subject, note.text)
        for identity, job in self.state.jobs.items():
            earlier = before.jobs.get(identity)
            if earlier is None or earlier.phase is not job.phase:
                handler = f" ({job.record.plan.handler})" if job.record.plan.handler else ""
                log.info("%s: %s%s%s", identity, job.phase, handler, _how_it_ends(job.record))
        for identity, job in before.jobs.items():
            if job.phase is Phase.REFUSING and identity not in self.state.jobs and identity in self.state.remembered:
                self._refused.append(replace(job.record, phase=Phase.DONE, finished_at=self._now().wall))
        if self._observe is not None:
            self._observe(before, self.state, notes)
        if self._parts.reporter is not None:
            self._parts.reporter.observe(before, self.state, boot.clock())

    def _troubled(self) -> None:
        """Something is short or broken that was not, or is not any more."""
        if self._parts.reporter is not None:
            self._parts.reporter.changed(boot.clock())


def _how_it_ends(record: Record) -> str:
    """Return the result that is about to be told, for people who search the log; "" before there is one."""
    result = record.result
    if result is None or record.phase not in (Phase.REPORTING, Phase.REFUSING):
        return ""
    why = ": ".join(filter(None, (result.code, result.reason)))
    return f": {result.status}" + (f", {why}" if why else "")


def _wants_another(job: Job) -> bool:
    return job.record.note == RESTART_NOTE and job.running is None and Timer.SAVE not in job.timers
