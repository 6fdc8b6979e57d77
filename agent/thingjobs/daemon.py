"""The one loop: an event comes off the queue, the core decides, the effects are carried out in order.

Threads of libraries and of the runner only put events on the queue. Nothing here decides anything about a job.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

from thingjobs import boot, status
from thingjobs.errors import StateError
from thingjobs.jobs import Connected
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
    Evidence,
    Judged,
    NotSaved,
    NotSpawned,
    Resumed,
    Spawned,
    Stop,
)
from thingjobs.model import Code, Identity, JobId, Phase, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.gates import Gates
    from thingjobs.journal import Found, Journal, Loaded
    from thingjobs.judging import Judge as DocumentJudge
    from thingjobs.machine import Now
    from thingjobs.model import Json, Record
    from thingjobs.policy import Settings
    from thingjobs.ports import Transport
    from thingjobs.registry import Registry
    from thingjobs.runner import Runner

log = logging.getLogger("thingjobs")

#: After a stop, reports that are on their way get this long.
STOP_SECONDS = 5.0
MAX_SHOWN_FINISHED = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to know how the agent is; `answer` takes the status."""

    answer: Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with.

    Attributes:
        boot: the id of this boot.
        reboot: the program that reboots the machine, and its arguments.
        nonce: random, fresh for each start of the agent.
        thing: the thing's name, for people.
    """

    settings: Settings
    transport: Transport
    journal: Journal
    runner: Runner
    judge: DocumentJudge
    handlers: Registry
    gates: Gates
    boot: str
    reboot: Sequence[str]
    nonce: str
    thing: str


class Daemon:
    """The agent, from its start to its end.

    Args:
        parts: what it works with.
        inbox: the queue that every thread puts events on.
        observe: is told each step: the state before and after, and the notes.
        enough: says when the agent may end by itself; None: never.
    """

    def __init__(
        self,
        parts: Parts,
        inbox: queue.SimpleQueue[Any],
        *,
        observe: Callable[[State, State, Sequence[Note]], None] | None = None,
        enough: Callable[[State], bool] | None = None,
    ) -> None:
        self._parts = parts
        self._inbox = inbox
        self._observe = observe
        self._enough = enough
        self._soon: deque[Event] = deque()
        self._finished: deque[Record] = deque(maxlen=MAX_SHOWN_FINISHED)
        self._stop_at: float | None = None
        self.state = State(settings=parts.settings, nonce=parts.nonce)

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Work until the agent is told to stop, or there is enough.

        Args:
            started: is called once the loop is about to begin.

        Raises:
            StateError: the journal cannot be read, or a running verb cannot be looked after: to go on without knowing
                of it would not be safe, so the service manager tries again.
        """
        self._recover(self._parts.journal.load())
        self._parts.transport.start(self._inbox.put)
        started()
        try:
            while not self._over():
                with contextlib.suppress(queue.Empty):
                    self._take(self._inbox.get(timeout=self._wait()))
                self._fire_timers()
        finally:
            self._parts.transport.stop()
            self._parts.gates.stop()
            self._parts.runner.let_go()

    def _wait(self) -> float | None:
        dues = [due for due in (self.state.next_due(), self._stop_at) if due is not None]
        return max(0.0, min(dues) - boot.clock()) if dues else None

    def _take(self, event: Any) -> None:
        if isinstance(event, Asked):
            event.answer(self.status())
            return
        if isinstance(event, Stop):
            self._stop_at = boot.clock() + STOP_SECONDS
        if isinstance(event, Connected):
            log.info("connected")
        self._step(event)

    def _fire_timers(self) -> None:
        """Tell the core of each timer that is due; a step may change the others, so they are looked up anew."""
        now = boot.clock()
        while (due := self.state.next_due()) is not None and due <= now:
            self._step(self._earliest(due))

    def _earliest(self, due: float) -> Due:
        for look_timer, at in self.state.timers.items():
            if at == due:
                return Due(look_timer)
        for job in self.state.jobs.values():
            for timer, at in job.timers.items():
                if at == due:
                    return Due(timer, job.identity)
        raise AssertionError("a timer that is due must be somewhere")

    def _over(self) -> bool:
        state = self.state
        if state.stopping is Stopping.NO:
            return self._enough is not None and self._inbox.empty() and self._enough(state)
        reporting = any(job.phase in (Phase.REPORTING, Phase.REFUSING) and job.open for job in state.jobs.values())
        running = any(job.running for job in state.jobs.values())
        waits = running and state.stopping is not Stopping.LEAVE
        return not waits and (not reporting or self._late())

    def _late(self) -> bool:
        return self._stop_at is not None and boot.clock() >= self._stop_at

    def _step(self, event: Event) -> None:
        self._soon.append(event)
        while self._soon:
            before = self.state
            self.state, effects = step(before, self._soon.popleft(), self._now())
            self._show(before, [effect for effect in effects if isinstance(effect, Note)])
            self._carry_out(effects)

    def _now(self) -> Now:
        return boot.now(self._parts.boot)

    # --- after a start --------------------------------------------------------------------------------------------

    def _recover(self, found: Found) -> None:
        """Give the core what the journal holds: finished executions to remember, the others to go on with."""
        for key in found.quarantined:
            log.error("the journal of %s is damaged beyond reading; it was moved to quarantine/", key)
        for key in found.newer:
            log.error("the journal of %s was written by a later release; it is left alone", key)
        finished = [one.record for one in found.loaded if one.record.phase is Phase.DONE]
        self._finished.extend(finished)
        newer = [identity for key in found.newer if (identity := identity_of_key(key)) is not None]
        remembered = (*newer, *(record.identity for record in finished))
        self.state = replace(self.state, remembered=remembered)
        open_ = [one for one in found.loaded if one.record.phase is not Phase.DONE]
        self._parts.runner.sweep({one.record.identity.key for one in open_})
        self._parts.handlers.prune({one.record.plan.digest for one in open_})
        for one in open_:
            self._resume(one)

    def _resume(self, one: Loaded) -> None:
        record, evidence = one.record, self._parts.runner.adopt(one.record)
        if one.previous and not record.owed:
            # What the lost generation said is unknown; the worst that it can have said is that `apply` had begun.
            log.error("the journal of %s is damaged; going on from the generation before", record.identity)
            record = replace(record, phase=Phase.APPLYING, verb=Verb.APPLY, applied=True)
            evidence = Evidence.LOST
        log.info("%s: found %s in the journal, %s", record.identity, record.phase, evidence.name.lower())
        self._step(Resumed(record, evidence))

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
            except StateError as error:
                log.error("%s", error)  # noqa: TRY400 - the reason is the message; a traceback helps nobody here
                if isinstance(effect, Save):
                    identity = effect.record.identity
                    unsaved[identity], withheld[identity] = (effect.record, str(error)), []
        for identity, (record, reason) in unsaved.items():
            # Before all else that these effects caused: what comes next depends on it.
            self._soon.appendleft(NotSaved(record, reason, tuple(withheld[identity])))

    def _do(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        parts = self._parts
        match effect:
            case Save(record):
                parts.journal.save(record)
                if record.phase is Phase.DONE:
                    self._finished.append(record)
            case Forget(identity):
                parts.journal.forget(identity)
            case Send(request, _):
                parts.transport.send(request)
            case Judge(execution):
                self._soon.append(Judged(execution.identity, parts.judge.judge(execution.document)))
            case AskGates(record, before):
                answer = parts.gates.ask(record.identity, before, record.plan.handler)
                if answer is not None:
                    self._soon.append(answer)
            case Refresh(record):
                parts.runner.refresh(record)
            case Run():
                self._spawn(effect)
            case Go(identity):
                parts.runner.go(identity)
            case Kill(identity):
                parts.runner.kill(identity)
            case Reboot():
                self._reboot()
            case Reconnect():
                parts.transport.renew()
            case Clean(identity):
                parts.runner.clean(identity)
                parts.handlers.prune({job.record.plan.digest for job in self.state.jobs.values()})
            case Note():
                pass
            case _:
                assert_never(effect)

    def _spawn(self, run: Run) -> None:
        identity = run.record.identity
        # A rollback runs with what there is: better the code of another version than nothing undone.
        if run.verb is not Verb.ROLLBACK and (changed := self._parts.handlers.changed(run.record.plan)):
            self._soon.append(NotSpawned(identity, run.verb, changed, Code.HANDLER_CHANGED))
            return
        try:
            process = self._parts.runner.spawn(run)
        except StateError as error:
            self._soon.append(NotSpawned(identity, run.verb, str(error)))
        else:
            self._soon.append(Spawned(identity, run.verb, process))

    def _reboot(self) -> None:
        argv = list(self._parts.reboot)
        log.warning("rebooting: %s", " ".join(argv))
        try:
            program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            log.error("cannot reboot: %s: %s", argv[0], error.strerror)  # noqa: TRY400 - as above
            return
        threading.Thread(target=program.wait, name="reboot", daemon=True).start()

    # --- seeing ---------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        """Return what the agent is doing."""
        return status.of_agent(self.state, self._finished, thing=self._parts.thing, clock=boot.clock())

    def _show(self, before: State, notes: Sequence[Note]) -> None:
        for note in notes:
            subject = f"{note.identity}: " if note.identity else ""
            log.log(logging.WARNING if note.warning else logging.INFO, "%s%s", subject, note.text)
        for identity, job in self.state.jobs.items():
            earlier = before.jobs.get(identity)
            if earlier is None or earlier.phase is not job.phase:
                handler = f" ({job.record.plan.handler})" if job.record.plan.handler else ""
                log.info("%s: %s%s", identity, job.phase, handler)
        if self._observe is not None:
            self._observe(before, self.state, notes)


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


def identity_of_key(key: str) -> Identity | None:
    """Return the identity whose file name `key` is; None if it is that of no execution."""
    try:
        job_id, number, queued_at = key.split(".")
        return Identity(JobId(job_id), int(number), int(queued_at))
    except ValueError:
        return None
