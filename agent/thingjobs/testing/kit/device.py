"""A modelled device around the real core: one job goes through it, with the faults that a test asks for.

The core (`thingjobs.machine`) decides; this carries its effects out on a disk, a clock and a Jobs service in memory.
What is saved goes through the journal's own format, so that a crash loses what was not. The handler runs for real, its
time does not: while nothing is going on, the clock jumps to the next timer.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from signal import SIGTERM
from typing import TYPE_CHECKING, NoReturn, assert_never

from thingjobs import records
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Due, Event, Evidence, Finished, Gated, Judged, Progressed, Resumed, Spawned
from thingjobs.machine.state import Timer
from thingjobs.machine.verbs import RESTART_NOTE
from thingjobs.model import Phase, Process, Status
from thingjobs.policy import Settings
from thingjobs.testing.clock import ManualClock
from thingjobs.testing.kit.cloud import Cloud
from thingjobs.testing.kit.faults import Fault, Harm, Moment, NeverHappenedError, UpdateFault
from thingjobs.testing.kit.outcome import OURS, Call, Diary, JobRun, shown_event
from thingjobs.testing.kit.running import AgentEnded, Ended, PowerCut, Running, job_of
from thingjobs.testing.kit.subject import plan_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from thingjobs.machine.events import Ending
    from thingjobs.machine.state import Job
    from thingjobs.model import Identity, Record, Verb
    from thingjobs.runner.events import Said
    from thingjobs.testing.kit.access import CloudAccess
    from thingjobs.testing.kit.faults import AnyFault
    from thingjobs.testing.kit.outcome import Json
    from thingjobs.testing.kit.subject import Subject

#: A job that is put off is looked at again so often before the run ends, unless its handler says how long it may be.
MOST_LOOKS = 10
#: No job takes so many steps; what does turns in a circle.
MOST_STEPS = 10_000
SETTINGS = Settings(agent="thingjobs/test")


@dataclass(frozen=True, slots=True)
class Scene:
    """What a test asks for, besides the handler.

    Attributes:
        params: of the job.
        faults: what goes wrong.
        gates: what the gates say, one answer each time they are asked: "" is open, else why they are closed.
        refreshed: the parameters once the handler asked for them anew.
        check_only: the document says "mode": "check".
        access: the cloud that the handler reaches; None: none.
    """

    params: Json
    faults: Sequence[AnyFault] = ()
    gates: Iterable[str] = ()
    refreshed: Json | None = None
    check_only: bool = False
    access: CloudAccess | None = None


class Device:
    """Device, disk and service around the core, for one job.

    Args:
        handler: what is tested.
        scene: what happens to it.
        folder: the execution's folder.

    Raises:
        ControlPlaneError: no job document can hold those params.
    """

    def __init__(self, handler: Subject, scene: Scene, folder: Path) -> None:
        self._handler = handler
        self._scene = scene
        self._folder = folder
        self._gates = iter(scene.gates)
        self._faults = [fault for fault in scene.faults if isinstance(fault, Fault)]
        self._update_faults = [fault for fault in scene.faults if isinstance(fault, UpdateFault)]
        # Today: handlers hold their deadline against the real clock.
        self._clock = ManualClock(float(int(time.time())))
        self._diary = Diary(self._clock)
        self._inbox: deque[Event] = deque()
        self._cloud = Cloud(self._clock, self._inbox, self._update_faults, self._diary)
        self._state = State(settings=SETTINGS, nonce="")
        self._boot = self._starts = self._looks = self._reboots = 0
        self._reboot_pending = False
        self._disk: dict[Identity, bytes] = {}
        #: How verbs ended, by what was stored of it, whoever heard of that.
        self._exits: dict[tuple[Verb, int], Ending] = {}
        self._running: Running | None = None
        self._calls: list[Call] = []
        self._notes: list[str] = []
        document: Json = {"handler": handler.name, "params": scene.params}
        self._cloud.queue({**document, "mode": "check"} if scene.check_only else document)

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take the job through to its end.

        Raises:
            NeverHappenedError: a fault was asked for at a moment that did not come.
            AssertionError: the job comes to no end.
        """
        __tracebackhide__ = True
        self._power_on()
        for _ in range(MOST_STEPS):
            if self._at_rest():
                break
            self._survive(self._one_thing)
        else:
            raise AssertionError("the job comes to no end")
        left = [str(fault) for fault in (*self._faults, *self._update_faults)]
        if left:
            raise NeverHappenedError(f"the job never got there: {', '.join(left)}")

    def _at_rest(self) -> bool:
        if self._inbox or self._running or self._state.unsaved:
            return False
        if not self._state.jobs:
            return self._cloud.connected and not self._cloud.execution.pending
        job = self._job()
        return job.phase is Phase.DEFERRED and self._looks >= MOST_LOOKS and job.record.plan.max_defer is None

    def _survive(self, happen: Callable[[], None]) -> None:
        try:
            happen()
        except PowerCut:
            self._power_on()
        except AgentEnded:
            self._running = None
            self._start_agent()

    def _one_thing(self) -> None:
        if self._inbox:
            self._give(self._inbox.popleft())
        elif self._running is not None:
            self._run_verb(self._running)
        elif self._reboot_pending:
            self._power_on()
        elif not self._cloud.connected and self._clock() >= self._cloud.back_at:
            self._cloud.connect()
        elif any(job.record.note == RESTART_NOTE for job in self._state.jobs.values()):
            self._diary.write("agent", "starts again, as the handler asked")
            self._start_agent()
        else:
            self._advance()

    # --- the machine and the agent --------------------------------------------------------------------------------

    def _power_on(self) -> None:
        self._boot += 1
        self._reboot_pending = False
        self._running = None
        self._start_agent()

    def _start_agent(self) -> None:
        """Start the agent: all that it knows is on the disk."""
        self._starts += 1
        self._cloud.disconnect("")
        self._inbox.clear()
        loaded = [records.load(data) for data in self._disk.values()]
        done = tuple(record.identity for record in loaded if record.phase is Phase.DONE)
        self._state = State(settings=SETTINGS, nonce=f"n{self._starts}", remembered=done)
        for record in loaded:
            if record.phase is not Phase.DONE:
                self._give(Resumed(record, self._evidence(record)))

    def _evidence(self, record: Record) -> Evidence:
        if record.verb is None or record.process is None:
            return Evidence.NOT_STARTED
        attempt = record.attempts[record.verb]
        stored = self._exits.get((record.verb, attempt))
        if stored is not None:
            self._inbox.append(Finished(record.identity, record.verb, attempt, stored))
        return Evidence.ADOPTED if stored or self._running else Evidence.LOST

    # --- the core -------------------------------------------------------------------------------------------------

    def _give(self, event: Event) -> None:
        soon = deque([event])
        while soon:
            now = Now(self._clock(), f"boot-{self._boot}", self._clock())
            self._state, effects = step(self._state, soon.popleft(), now)
            for effect in effects:
                soon.extend(self._carry_out(effect))

    def _settle(self) -> None:
        """Work out all that is due by now."""
        self._fire()
        while self._inbox:
            self._give(self._inbox.popleft())
            self._fire()

    def _carry_out(self, effect: do.Effect) -> Iterator[Event]:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        match effect:
            case do.Save(record):
                self._disk[record.identity] = records.dump(record)
            case do.Forget(identity):
                self._disk.pop(identity, None)
            case do.Send(request):
                self._cloud.send(request)
            case do.Judge(execution):
                self._looks += execution.status is Status.QUEUED
                params = (execution.document or {})["params"]
                plan = plan_of(self._handler, params, check_only=self._scene.check_only)
                yield Judged(execution.identity, plan)
            case do.AskGates(record, before):
                yield self._ask_gates(record, before)
            case do.Refresh(record):
                if self._running is not None:
                    self._running.refresh(record.plan.params)
            case do.Run():
                yield self._spawn(effect)
            case do.GetReady() | do.Go() | do.Clean():
                pass
            case do.Kill():
                if self._running is not None:
                    self._running.told = True
            case do.Reboot():
                self._diary.write("machine", "reboots")
                self._reboots += 1
                self._reboot_pending = True
            case do.Reconnect():
                self._cloud.disconnect("it is opened anew")
            case do.Note(text):
                self._notes.append(text)
                self._diary.write("note", text)
            case _:
                assert_never(effect)

    def _ask_gates(self, record: Record, before: str) -> Gated:
        reason = next(self._gates, "")
        if reason:
            self._diary.write("gate", f"closed before the {before}: {reason}")
        return Gated(record.identity, reason)

    # --- the verb -------------------------------------------------------------------------------------------------

    def _spawn(self, run: do.Run) -> Spawned:
        self._hit(Moment.BEFORE, run)
        deadline = self._clock() + run.record.plan.limits.of(run.verb)
        self._running = Running(run, self._folder, job_of(run, deadline, self._scene.access), self)
        return Spawned(run.record.identity, run.verb, Process(1, 1, f"boot-{self._boot}"))

    def _run_verb(self, running: Running) -> None:
        run = running.run
        self._diary.write(run.verb.value, _how(run))
        if running.told:
            self._diary.write("", "stopped before it began")
            status = 128 + SIGTERM
        else:
            status = self._called(running)
        self._running = None
        ending = self._exits[run.verb, run.attempt] = running.ending(status)
        starts = self._starts
        self._hit(Moment.AFTER, run)
        if starts == self._starts:
            self._inbox.append(Finished(run.record.identity, run.verb, run.attempt, ending))

    def _called(self, running: Running) -> int:
        try:
            status = self._handler.run(running)
            if running.dead is not None:  # It caught what nobody may catch.
                raise running.dead
            self._hit(Moment.DURING, running.run)
        except Ended:
            self._over(running.call(None))
            raise
        self._over(running.call(status))
        return status

    def _over(self, call: Call) -> None:
        self._calls.append(call)
        for line in call.log.splitlines():
            self._diary.write("", f"| {line}")
        self._diary.write("", call.how)

    def heard(self, running: Running, event: Json, said: Said) -> None:
        """Take an event of the verb: the agent hears it at once, and then what the test asked for happens."""
        self._diary.write("", shown_event(event))
        if said.refresh and self._scene.refreshed is not None:
            self._cloud.change(self._scene.refreshed)
        if said.cloud is not None:
            running.give_cloud(self._scene.access)
        identity = running.run.record.identity
        self._inbox.append(Progressed(identity, said.percent, said.message, said.details, said.refresh))
        self._settle()
        if running.counts(event):
            self._hit(Moment.DURING, running.run, running.counted)

    def hangs(self, running: Running) -> None:
        """A program shows nothing: what was to happen at its end happens now."""
        self._hit(Moment.DURING, running.run)

    # --- harm -----------------------------------------------------------------------------------------------------

    def _hit(self, moment: Moment, run: do.Run, event: int | None = None) -> None:
        here = (moment, run.verb, run.attempt, event)
        for fault in [one for one in self._faults if (one.moment, one.verb, one.attempt, one.event) == here]:
            self._faults.remove(fault)
            self._diary.write("FAULT", str(fault))
            self._harm(fault)
            if moment is not Moment.BEFORE:  # Then the core is in the midst of a step.
                self._settle()

    def _harm(self, fault: Fault) -> None:
        match fault.harm:
            case Harm.CRASH:
                self._end_with(PowerCut())
            case Harm.RESTART:
                self._restart_agent(fault)
            case Harm.CANCEL:
                self._cloud.cancel()
            case Harm.OFFLINE:
                self._cloud.disconnect("a fault of the test", fault.seconds)
            case Harm.TIMEOUT | Harm.STALL:
                self._let_pass(fault)
            case _:
                assert_never(fault.harm)

    def _restart_agent(self, fault: Fault) -> None:
        running = self._running
        # What stands in no journal the next agent ends before all else.
        unknown = running is not None and running.run.record.identity not in self._disk
        if unknown or fault.moment is Moment.BEFORE:
            self._end_with(AgentEnded())
        self._start_agent()
        self._cloud.connect()

    def _end_with(self, how: Ended) -> NoReturn:
        if self._running is not None:
            self._running.dead = how
        raise how

    def _let_pass(self, fault: Fault) -> None:
        """Let time pass until the verb has had enough of it; one that is only slow shows signs of life meanwhile."""
        timer = Timer.STALL if fault.harm is Harm.STALL else Timer.VERB
        if timer not in self._job().timers:
            raise NeverHappenedError(f"{fault}: {self._handler.name} declares no stall, so it may be silent for ever")
        while timer in (job := self._job()).timers:
            stall = job.timers.get(Timer.STALL)
            if timer is Timer.VERB and stall is not None and stall <= job.timers[timer]:
                self._clock.advance(stall - self._clock() - 0.001)
                self._give(Progressed(job.identity))
                self._fire()
            else:
                self._advance()
            self._settle()

    def _job(self) -> Job:
        (job,) = self._state.jobs.values()
        return job

    # --- time -----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let time pass until something is due: a timer of the core or of the service, or the link."""
        link = None if self._cloud.connected else self._cloud.back_at
        times = [at for at in (self._state.next_due(), self._cloud.tick(), link) if at is not None]
        if not times:
            raise AssertionError("nothing more happens to the job")
        self._clock.advance(max(0.0, min(times) - self._clock()) + 0.001)
        self._cloud.tick()
        self._fire()

    def _fire(self) -> None:
        while (due := self._state.next_due()) is not None and due <= self._clock():
            found = [Due(timer) for timer, at in self._state.timers.items() if at == due]
            for job in self._state.jobs.values():
                found += [Due(timer, job.identity) for timer, at in job.timers.items() if at == due]
            self._give(found[0])

    # --- what came of it ------------------------------------------------------------------------------------------

    def outcome(self) -> JobRun:
        """Return what became of the job so far."""
        view = self._cloud.execution
        details = dict(view.details)
        states = [change.status for change in view.history]
        return JobRun(
            handler=self._handler.name,
            status=view.status,
            statuses=[after for before, after in pairwise(states) if after != before],
            code=details.get("code", ""),
            reason=details.get("reason", ""),
            details={key: value for key, value in details.items() if key not in OURS},
            would=details.get("would", ""),
            calls=tuple(self._calls),
            updates=tuple(self._cloud.updates),
            late="".join(records.load(data).late for data in self._disk.values()),
            notes=tuple(self._notes),
            reboots=self._reboots,
            dir=self._folder / "work",
            lines=tuple(self._diary.lines),
        )


def _how(run: do.Run) -> str:
    marks = {
        f"run {run.attempt}": run.attempt > 1,
        "resumed": run.resumed,
        "after a reboot": run.rebooted,
        "dry run": run.dry_run,
    }
    return ", ".join(mark for mark, true in marks.items() if true)
