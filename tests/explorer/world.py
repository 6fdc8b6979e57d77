"""Device, disk and service around the real core, as one small thing after another."""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tests.explorer.device import Device
from tests.explorer.promises import Seen, learn, let_go, promise
from tests.explorer.scenarios import IN_PROGRESS_MINUTES, SETTINGS, THING, identity_of

from thingjobs import records
from thingjobs.doer import about
from thingjobs.jobs import Connected, Disconnected, Update
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Due, Ending, Evidence, Finished, Gated, Judged, NotSaved, Resumed, Spawned
from thingjobs.machine.verbs import RESTART_NOTE
from thingjobs.model import Phase, Process, Status, Verb
from thingjobs.policy import MAX_REBOOT_REQUESTS, MAX_REBOOTS
from thingjobs.testing import JobsService, Lost, ManualClock
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.explorer.device import Kind
    from tests.explorer.scenarios import Scenario

    from thingjobs.model import Identity, Record
    from thingjobs.testing import ExecutionView

#: No run takes so many small things; one that does turns in a circle.
MOST_TICKS = 3000


@dataclass(frozen=True)
class Run:
    """A verb's process; it outlives the agent, not the power.

    Attributes:
        boot: the boot in which it was made.
        writes: what it has still to write.
    """

    identity: Identity
    verb: Verb
    attempt: int
    boot: int
    going: bool = False
    killed: bool = False
    writes: tuple[str, ...] = ()


class World:
    """Device, disk and service around the core, and the judge who watches them.

    What comes first when several things could: the effects that are decided, then messages, then timers that are due,
    the reboot that was asked for, the handler, the connection; when there is nothing, time passes.

    Attributes:
        MAY_STAND: what may stand on the disk a little longer than until the end of its execution is saved.
    """

    MAY_STAND: ClassVar = frozenset({Phase.REPORTING})

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = ManualClock()
        self.service = self._new_service()
        self.boot, self.starts, self.pid = 1, 0, 100
        self.device = self.synced = Device()
        self.disk: dict[Identity, Record] = {}
        #: What a power cut takes back: records of finished executions are not synced.
        self.unsynced: dict[Identity, Record] = {}
        #: What stands on the disk until time passes, in the place of records of finished executions.
        self.waiting: dict[Identity, Record] = {}
        self.runs: dict[Identity, Run] = {}
        self.exits: dict[tuple[Identity, Verb, int], int] = {}
        self.seen: dict[Identity, Seen] = {}
        self.told: list[str] = []
        self.echo: list[Any] = []
        self.until: float | None = None
        self.reboot_for: Identity | None = None
        self.full = self.just_saved = self.connected = False
        self.ticks = 0
        for number, _ in enumerate(scenario.kinds, 1):
            self.service.create_job(
                f"job-{number}", {"kind": number}, [THING], in_progress_timeout_minutes=IN_PROGRESS_MINUTES
            )
        self.start()

    def _new_service(self) -> JobsService:
        service = JobsService(self.clock, **dict(self.scenario.service))
        service.listen(THING, self._hear)
        return service

    def twin(self) -> World:
        """Return a copy that goes its own way."""
        other = copy(self)
        other.clock = ManualClock(self.clock())
        other.service = other._new_service()
        other.service.load(self.service.dump())
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set | deque):
                setattr(other, name, value.copy())
        return other

    def kind(self, identity: Identity) -> Kind:
        """Return the handler of a job."""
        return self.scenario.kinds[int(identity.job_id[4:]) - 1]

    # --- the agent ------------------------------------------------------------------------------------------------

    def start(self, *, settled: bool = True) -> None:
        """Start the agent: what it had in memory is gone, and so is a process that was never let go.

        Args:
            settled: the ends that waited took their place before.
        """
        if not settled:
            self._lose(self.waiting)
        self.waiting = {}
        self.starts += 1
        self.todo: deque[do.Effect] = deque()
        self.inbox: deque[Any] = deque()
        #: Executions whose process was made before it was asked for; it ends with the agent.
        self.connected = self.just_saved = self.full = False
        self.until = None
        self.awake_since = self.clock()
        # So is, swept away, one that is in no journal.
        self.runs = {identity: run for identity, run in self.runs.items() if run.going and identity in self.disk}
        self.seen = {
            identity: replace(seen, over=seen.over if seen.over == 2 else 0, proved=0, timers=frozenset())
            for identity, seen in self.seen.items()
        }
        loaded = list(self.disk.values())
        done = tuple(record.identity for record in loaded if record.phase is Phase.DONE)
        self.state = State(settings=SETTINGS, nonce=f"n{self.starts}", remembered=done)
        unfinished = [record for record in loaded if record.phase is not Phase.DONE]
        self.soon: deque[Any] = deque(Resumed(record, self._evidence(record)) for record in unfinished)

    def _evidence(self, record: Record) -> Evidence:
        if record.verb is None or record.process is None:
            return Evidence.NOT_STARTED
        run = (record.identity, record.verb, record.attempts[record.verb])
        if run in self.exits:
            self.inbox.append(Finished(*run, Ending(self.exits[run])))
            return Evidence.ADOPTED
        found = self.runs.get(record.identity)
        alive = found is not None and (found.identity, found.verb, found.attempt) == run
        return Evidence.ADOPTED if alive else Evidence.LOST

    def _step(self, event: Any) -> None:
        learn(self, event)
        now = Now(self.clock(), f"boot-{self.boot}", self.clock())
        self.state, effects = step(self.state, event, now)
        self.todo.extend(effects)

    def tick(self) -> None:
        """Do the next small thing."""
        self.ticks += 1
        promise(self.ticks < MOST_TICKS, "this never ends")
        self.just_saved = False
        if self.todo:
            self._carry_out(self.todo.popleft())
        elif (event := self._next_event()) is not None:
            self._step(event)
        else:
            self._let_happen()

    def _next_event(self) -> Any:
        due = self.state.next_due()
        for waiting in (self.soon, self.inbox):
            if waiting:
                return waiting.popleft()
        return self._earliest(due) if due is not None and due <= self.clock() else None

    def _let_happen(self) -> None:
        if self.reboot_for is not None:
            self.see(self.reboot_for, reboots=self.seen[self.reboot_for].reboots + 1)
            promise(self.seen[self.reboot_for].reboots <= MAX_REBOOTS, "rebooted too often")
            self.reboot()
        elif not self.connected:
            self._connect()
        elif self.until is not None:
            self._pass_until(self.until)
        elif self.runs:
            self._go_on()
        else:
            self._wait()

    def _earliest(self, due: float) -> Due:
        search = [Due(timer) for timer, at in self.state.timers.items() if at == due]
        jobs = [
            Due(timer, job.identity)
            for job in self.state.jobs.values()
            for timer, at in job.timers.items()
            if at == due
        ]
        return (search + jobs)[0]

    def _connect(self) -> None:
        self._pass(0.1)
        self.connected = True
        self.seen = {identity: replace(seen, proved=max(seen.proved, 1)) for identity, seen in self.seen.items()}
        self.inbox.append(Connected())

    def _wait(self) -> None:
        if self.echo:
            self.inbox.extend(self.echo)
            self.echo = []
        elif any(job.record.note == RESTART_NOTE for job in self.state.jobs.values()):
            self.start()
        else:
            times = [at for at in (self.state.next_due(), self.service.next_deadline()) if at is not None]
            promise(bool(times), "nothing more happens, and not all is over")
            self.advance(min(times))

    def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if seconds > 0:
            for identity, before in self.waiting.items():  # They took their place, and nothing has synced that.
                self.unsynced.setdefault(identity, before)
            self.waiting = {}

    def advance(self, at: float) -> None:
        self._pass(max(0.0, at - self.clock()))
        for view in self.executions():
            if view.due is not None and view.due <= self.clock():
                self.see(identity_of(view), fired="job" if view.due == view.deadline else "step")
        self.service.tick()

    def _pass_until(self, until: float) -> None:
        """Let time pass with the agent awake: its timers come on the way."""
        times = [at for at in (self.state.next_due(), self.service.next_deadline(), until) if at is not None]
        self.advance(min(times))
        if self.clock() >= until:
            self.until = None

    def at_rest(self) -> bool:
        """Whether all is over."""
        busy = self.todo or self.soon or self.inbox or self.echo or self.runs or self.state.jobs or self.state.unsaved
        return not busy and not self.reboot_for and all(not view.pending for view in self.executions())

    # --- effects --------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: do.Effect) -> None:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        match effect:
            case do.Save(record):
                self._save(record)
            case do.Forget(identity):
                self.disk.pop(identity, None)
            case do.Send(request, identity):
                self.send(request, identity)
            case do.Judge(execution):
                self.soon.append(Judged(execution.identity, self.kind(execution.identity).plan))
            case do.AskGates(record):
                self.soon.append(Gated(record.identity))
            case do.Run(record, verb, attempt):
                self._spawn(record.identity, verb, attempt)
            case do.GetReady(run):
                self._make_ready(run.record)
            case do.Go(identity):
                self._go(identity)
            case do.Kill(identity):
                self._kill(identity)
            case do.Reboot(identity):
                self.see(identity, asked=self.seen[identity].asked + 1)
                promise(self.seen[identity].asked <= MAX_REBOOTS * MAX_REBOOT_REQUESTS, "told to reboot for ever")
                self.reboot_for = identity if self.scenario.reboots else None
            case do.Reconnect():
                self.connected = False
                self.inbox.append(Disconnected("renewed"))
            case do.Clean(identity):
                promise(identity not in self.runs, "the folder of a running verb is removed")
                self.exits = {run: code for run, code in self.exits.items() if run[0] != identity}
            case do.Note(text):
                promise("does not know what" not in text, text)
            case _:
                raise AssertionError(effect)

    def _make_ready(self, record: Record) -> None:
        """A process before its go does nothing, so it is no part of this world; but in vain it should not be made."""
        begun = set(record.attempts) - {Verb.CHECK}
        first = record.phase is Phase.CLAIMING and record.result is None and not begun
        promise(first and record.identity not in self.runs, "a process is made ready for what does not run next")

    def _save(self, record: Record) -> None:
        if self.full:
            self.full = False
            mine = [effect for effect in self.todo if about(effect) == record.identity]
            self.todo = deque(effect for effect in self.todo if effect not in mine)
            newest = [record, *(effect.record for effect in mine if isinstance(effect, do.Save))][-1]
            withheld = tuple(effect for effect in mine if not isinstance(effect, do.Save))
            self.soon.appendleft(NotSaved(newest, "full", withheld))
            return
        identity = record.identity
        if record.phase is not Phase.DONE:
            self.unsynced = {}
        elif identity in self.disk:
            self.unsynced.setdefault(identity, self.disk[identity])
            if self.disk[identity].phase in self.MAY_STAND:
                self.waiting[identity] = self.disk[identity]
        self.disk[identity] = records.load(records.dump(record))
        self.just_saved = True
        unheard = identity in self.runs or any(isinstance(event, Finished) for event in self.inbox)
        self.synced = self.synced if unheard or record.phase is Phase.DONE else self.device
        if self.seen.get(identity, Seen()).over:
            self.see(identity, over=2)
        if record.phase is Phase.DONE:
            found = self.find(identity)
            ours = found is not None and found.details.get("claim") == record.claim
            promise(found is None or not found.pending or not ours, "finished here, and the service was not told")

    def fail_to_settle(self) -> None:
        """An end that waited could not be written: the disk was full by then."""
        for identity in self.waiting:
            self.soon.append(NotSaved(self.disk[identity], "full"))
            self.unsynced.pop(identity, None)
        self._lose(self.waiting)
        self.waiting = {}

    def send(self, request: Any, identity: Identity | None, fault: Lost | None = None) -> None:
        if not self.connected:
            return
        if identity is not None:
            promise(not self.seen.get(identity, Seen()).over, "something is sent for an execution that is over")
        if isinstance(request, Update) and identity is not None and request.status is Status.IN_PROGRESS:
            promise(all(other == identity for other in self.runs), "claimed beside a verb that runs")
        topics = Topics(THING)
        topic, payload = topics.outgoing(request)
        answers: list[Any] = []
        remove = self.service.interpose(lambda _: fault)
        before, self.inbox = self.inbox, deque()
        self.service.handle(THING, topic.split("/jobs/")[1], payload, answers.append)
        remove()
        heard = [topics.incoming(message.topic, message.payload) for message in answers]
        self.inbox = deque([*before, *self.echo, *(one for one in heard if one is not None), *self.inbox])
        self.echo = []
        for view in self.executions():
            claimed = view.status == "IN_PROGRESS" and view.details.get("agent") == SETTINGS.agent
            promise(not claimed or identity_of(view) in self.disk, "an accepted job is not in the journal")

    def _hear(self, message: Any) -> None:
        if self.connected:
            self.inbox.append(Topics(THING).incoming(message.topic, message.payload))

    def _spawn(self, identity: Identity, verb: Verb, attempt: int) -> None:
        promise(not self.runs, f"{verb} beside another verb")
        self.runs[identity] = Run(identity, verb, attempt, self.boot)
        self.exits.pop((identity, verb, attempt), None)
        self.pid += 1
        self.soon.append(Spawned(identity, verb, Process(self.pid, self.pid, f"boot-{self.boot}")))

    def _go(self, identity: Identity) -> None:
        run = self.runs[identity]
        let_go(self, run)
        self.runs[identity] = replace(run, going=True, writes=self.kind(identity).writes(run.verb, self.device))

    def _kill(self, identity: Identity) -> None:
        run = self.runs.get(identity)
        if run is not None and run.going:
            self.runs[identity] = replace(run, killed=True)
        elif run is not None:
            del self.runs[identity]

    # --- the device -----------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """The handler that runs writes once more, or ends."""
        (run,) = self.runs.values()
        self.clock.advance(1)
        if run.killed:
            del self.runs[run.identity]
            ending = Ending(None, signal="SIGTERM")
        elif run.writes:
            self.device = self.kind(run.identity).write(self.device, run.identity.job_id, run.writes[0])
            self.runs[run.identity] = replace(run, writes=run.writes[1:])
            return
        else:
            del self.runs[run.identity]
            ending = Ending(self._exit(run))
        self.inbox.append(Finished(run.identity, run.verb, run.attempt, ending))

    def _exit(self, run: Run) -> int:
        code = self.kind(run.identity).exit_of(run.verb, self.device, run.identity.job_id)
        self.exits[run.identity, run.verb, run.attempt] = code
        seen = self.seen[run.identity]
        changes: dict[str, Any] = {"proved": 0} if run.verb in (Verb.APPLY, Verb.VERIFY) else {}
        if run.verb is Verb.VERIFY and code == 0:
            changes["verified"] = self.boot
        if run.verb is Verb.APPLY and code in (75, 194, 196):
            changes["leaves"] = seen.leaves + 1
        self.see(run.identity, **changes)
        return code

    def reboot(self, *, lost: bool = False, settled: bool = True) -> None:
        self.boot += 1
        self.reboot_for = None
        if lost:
            self.device = self.synced
            self._lose(self.unsynced)
        for run in self.runs.values():
            cuts = dict(self.seen[run.identity].cuts)
            if run.going and run.identity in self.disk:
                self.see(run.identity, cuts=tuple({**cuts, run.verb: cuts.get(run.verb, 0) + 1}.items()))
        self.runs, self.unsynced = {}, {}
        self.device = self.synced = self.device.start()
        self.start(settled=settled)

    def _lose(self, before: Mapping[Identity, Record]) -> None:
        """Bring back what records of finished executions were to replace; what those said is forgotten."""
        self.disk.update(before)
        for identity in before:
            self.see(identity, over=0)

    # --- what is known ---------------------------------------------------------------------------------------------

    def executions(self) -> tuple[ExecutionView, ...]:
        """Return what the service holds."""
        return self.service.executions(THING)

    def see(self, identity: Identity, **changes: Any) -> None:
        """Remember something of an execution."""
        self.seen[identity] = replace(self.seen.get(identity, Seen()), **changes)

    def find(self, identity: Identity) -> ExecutionView | None:
        """Return the execution as the service holds it."""
        try:
            return self.service.execution(THING, identity.job_id)
        except KeyError:
            return None
