"""The one loop: an event comes off the queue, the core decides, the effects are carried out in order.

Threads of libraries and of the runner only put events on the queue. Nothing here decides anything about a job.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from thingjobs import boot, status
from thingjobs.beginning import Beginning
from thingjobs.cloud_desk import Answered, Desk
from thingjobs.errors import StateBusyError, StateError
from thingjobs.jobs import Connected, Described, Disconnected, Pending, Refused, Updated
from thingjobs.keeper import Keeper
from thingjobs.machine import State, Stopping, step
from thingjobs.machine.effects import (
    AskGates,
    Clean,
    Effect,
    Forget,
    Go,
    Judge,
    Kill,
    Note,
    Reboot,
    Reconnect,
    Refresh,
    Run,
    Save,
    Send,
)
from thingjobs.machine.events import (
    Due,
    Event,
    Judged,
    NotSaved,
    NotSpawned,
    Stop,
)
from thingjobs.machine.state import Timer
from thingjobs.machine.verbs import RESTART_NOTE
from thingjobs.model import Phase
from thingjobs.notify import Notifier, Pulse
from thingjobs.policy import backoff
from thingjobs.runner.events import Wanted
from thingjobs.starter import Starter
from thingjobs.troubles import Postponed, Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.gates import Gates
    from thingjobs.journal import Journal
    from thingjobs.judging import Judge as DocumentJudge
    from thingjobs.machine import Now
    from thingjobs.machine.state import Job
    from thingjobs.model import Identity, Json, Record
    from thingjobs.policy import Settings
    from thingjobs.ports import Transport
    from thingjobs.registry import Registry
    from thingjobs.runner import Runner
    from thingjobs.seeing.reporter import Reporter

log = logging.getLogger("thingjobs")

#: After a stop, reports that are on their way get this long.
STOP_SECONDS = 5.0
MAX_SHOWN_FINISHED = 50
#: What the journal holds is tried to be taken up again after 2, 4, 8 … seconds.
TAKE_UP_CAP = 30.0
START = "taking up what the journal holds"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to know how the agent is; `answer` takes the status."""

    answer: Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with.

    Attributes:
        desk: gives credentials to handlers that ask.
        boot: the id of this boot.
        reboot: the program that reboots the machine, and its arguments.
        nonce: random, fresh for each start of the agent.
        thing: the thing's name, for people.
        reporter: tells how the agent is; None: nobody is told.
    """

    settings: Settings
    transport: Transport
    journal: Journal
    runner: Runner
    judge: DocumentJudge
    handlers: Registry
    gates: Gates
    desk: Desk
    boot: str
    reboot: Sequence[str]
    nonce: str
    thing: str
    reporter: Reporter | None = None


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
        self._soon: deque[Event] = deque()
        self._finished: deque[Record] = deque(maxlen=MAX_SHOWN_FINISHED)
        self._stop_at: float | None = None
        self._troubles = Troubles()
        #: Why the last connection ended or was not made.
        self._lost = ""
        self._postponed = Postponed()
        self._beginning = Beginning(parts.journal, parts.runner, parts.handlers)
        self._pulse = Pulse(Notifier(), 0)
        self._take_up_at: float | None = None
        self._take_up_tries = 0
        self._keeper = Keeper(parts.journal, self._troubles, self._known)
        self._starter = Starter(parts.runner, parts.handlers, parts.journal, parts.reboot)
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
        self._keeper.renewed = renewed
        self._pulse = pulse or self._pulse
        self._take_up()
        started()
        with contextlib.ExitStack() as end:  # One that fails to end keeps no other from it.
            end.callback(self._parts.runner.let_go)
            end.callback(self._parts.desk.stop)
            end.callback(self._parts.gates.stop)
            end.callback(self._parts.transport.stop)
            if self._parts.reporter is not None:
                end.callback(self._parts.reporter.stop)
            while not self._over():
                with contextlib.suppress(queue.Empty):
                    self._take(self._inbox.get(timeout=self._wait()))
                self._fire_timers()
                self._end_for_another()

    def _wait(self) -> float | None:
        reporter = self._parts.reporter
        told = reporter.next_due() if reporter else None
        own = (self._stop_at, self._take_up_at, self._postponed.next_due(), self._pulse.due, told)
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
        if isinstance(event, Connected):
            log.info("connected")
        elif isinstance(event, Disconnected):
            self._lost = event.reason
        elif isinstance(event, (Updated, Described, Pending, Refused)):
            self._reached()
        self._step(event)

    def _fire_timers(self) -> None:
        """Tell the core of each timer that is due; a step may change the others, so they are looked up anew."""
        now = boot.clock()
        self._pulse.beat(now)
        while (due := self.state.next_due()) is not None and due <= now:
            self._step(self._earliest(due))
        if self._take_up_at is not None and self._take_up_at <= now:
            self._take_up()
        for effect in self._postponed.take(now):
            self._try_again(effect)
            self._settle()
        if self._parts.reporter is not None:
            self._parts.reporter.act(now, self.status)

    def _try_again(self, effect: Judge | AskGates | Run) -> None:
        """Try to carry out what was postponed; nothing begins of what the service ended meanwhile."""
        job = self.state.jobs.get(effect.record.identity) if isinstance(effect, Run) else None
        if isinstance(effect, Run) and job is not None and job.record.ended and not job.record.applied:
            self._begun(job.identity)
            self._soon.append(NotSpawned(job.identity, effect.verb, "the service ended this execution"))
        else:
            self._carry_out([effect])

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
        self._soon.append(event)
        self._settle()

    def _settle(self) -> None:
        while self._soon:
            before = self.state
            self.state, effects = step(before, self._soon.popleft(), self._now())
            self._show(before, [effect for effect in effects if isinstance(effect, Note)])
            self._carry_out(effects)

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
        self._parts.transport.start(self._inbox.put)

    def _remember(self, finished: Sequence[Record], others: Sequence[Identity]) -> None:
        self._finished.extend(finished)
        self.state = replace(self.state, remembered=(*others, *(record.identity for record in finished)))

    # --- effects --------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        unsaved: dict[Identity, tuple[Record, str]] = {}
        withheld: dict[Identity, list[Effect]] = {}
        for effect in effects:
            subject = about(effect)
            if subject is not None and subject in unsaved:
                if isinstance(effect, Save):  # What is to be written in the end is the newest.
                    unsaved[subject] = (effect.record, unsaved[subject][1])
                else:
                    withheld[subject].append(effect)
                continue
            try:
                self._do(effect)
            except StateBusyError:
                raise
            except (StateError, OSError) as error:
                if isinstance(effect, Save):
                    identity = effect.record.identity
                    unsaved[identity], withheld[identity] = (effect.record, str(error)), []
                else:
                    self._failed(effect, error)
        for identity, (record, reason) in unsaved.items():
            # Before all else that these effects caused: what comes next depends on it.
            self._soon.appendleft(NotSaved(record, reason, tuple(withheld[identity])))

    def _failed(self, effect: Effect, error: Exception) -> None:
        """An effect could not be carried out. One that the core waits for is tried again."""
        identity = about(effect)
        line = f"{identity}: {error}" if identity else str(error)
        if identity is None or not isinstance(effect, (Judge, AskGates, Run)):
            log.error("%s", line)
        elif self._postponed.add(identity.key, effect, boot.clock()):
            self._troubles.came(str(identity), f"{line}; this is tried again")
        elif isinstance(effect, Run):
            self._begun(identity)
            self._soon.append(NotSpawned(identity, effect.verb, str(error)))

    def _begun(self, identity: Identity) -> Effect | None:
        """What was postponed for an execution works, or is not wanted any more."""
        self._troubles.went(str(identity))
        return self._postponed.drop(identity.key)

    def _do(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        parts = self._parts
        match effect:
            case Save(record):
                self._soon.extend(self._keeper.save(record))
                if record.phase is Phase.DONE:
                    self._finished.append(record)
            case Forget(identity):
                parts.journal.forget(identity)
            case Send(request, identity):
                if identity is not None:  # What the service is told of an execution, the journal should hold.
                    self._soon.extend(self._keeper.look())
                parts.transport.send(request)
            case Judge(execution):
                boot.spare_files()
                verdict = parts.judge.judge(execution.document, execution.identity.job_id)
                self._soon.append(Judged(execution.identity, verdict))
                self._begun(execution.identity)
            case AskGates(record, before):
                boot.spare_files()
                self._begun(record.identity)
                answer = parts.gates.ask(record.identity, before, record.plan.handler)
                if answer is not None:
                    self._soon.append(answer)
            case Refresh(record):
                parts.runner.refresh(record)
            case Run(record):
                self._soon.append(self._starter.spawn(effect))
                self._begun(record.identity)
            case Go(identity):
                parts.runner.go(identity)
            case Kill(identity):
                self._kill(identity)
            case Reboot():
                self._starter.reboot()
            case Reconnect():
                parts.transport.renew()
            case Clean(identity):
                self._begun(identity)
                parts.runner.clean(identity)
                parts.handlers.prune({job.record.plan.digest for job in self.state.jobs.values()})
            case Note():
                pass
            case _:
                assert_never(effect)

    def _kill(self, identity: Identity) -> None:
        waiting = self._begun(identity)
        if isinstance(waiting, Run):
            self._soon.append(NotSpawned(identity, waiting.verb, "it was stopped before"))
        else:
            self._parts.runner.kill(identity)

    def _known(self) -> list[Record]:
        """Return all records that the journal should hold."""
        jobs = self.state.jobs.values()
        open_ = (job.record for job in jobs if job.record.claim and job.phase is not Phase.REFUSING)
        return [*self._finished, *open_]

    # --- seeing ---------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """Return what the agent is doing."""
        clock = boot.clock()
        found = status.of_agent(self.state, self._finished, thing=self._parts.thing, clock=clock, lost=self._lost)
        lines = self._troubles.lines()
        return {**found, "trouble": lines} if lines else found

    def _show(self, before: State, notes: Sequence[Note]) -> None:
        for note in notes:
            subject = f"{note.identity}: " if note.identity else ""
            log.log(logging.WARNING if note.warning else logging.INFO, "%s%s", subject, note.text)
        for identity, job in self.state.jobs.items():
            earlier = before.jobs.get(identity)
            if earlier is None or earlier.phase is not job.phase:
                handler = f" ({job.record.plan.handler})" if job.record.plan.handler else ""
                log.info("%s: %s%s%s", identity, job.phase, handler, _how_it_ends(job.record))
        if self._observe is not None:
            self._observe(before, self.state, notes)
        if self._parts.reporter is not None:
            self._parts.reporter.observe(before, self.state, boot.clock())


def _how_it_ends(record: Record) -> str:
    """Return the result that is about to be told, for people who search the log; "" before there is one."""
    result = record.result
    if result is None or record.phase not in (Phase.REPORTING, Phase.REFUSING):
        return ""
    return f": {result.status}" + (f", {result.code}: {result.reason}" if result.code else "")


def _wants_another(job: Job) -> bool:
    return job.record.note == RESTART_NOTE and job.running is None and Timer.SAVE not in job.timers


def about(effect: Effect) -> Identity | None:
    """Return which execution an effect belongs to, so that one that cannot be saved holds up no other."""
    match effect:
        case Save(record) | Run(record) | AskGates(record) | Refresh(record):
            return record.identity
        case Judge(execution):
            return execution.identity
        case Send(_, identity):
            return identity
        case Forget(identity) | Go(identity) | Kill(identity) | Reboot(identity) | Clean(identity):
            return identity
        case _:
            return None
