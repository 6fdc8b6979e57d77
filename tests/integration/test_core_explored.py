"""The core against a modelled device, disk and service, with faults at random moments.

Each run is one seed: jobs of several kinds are queued, and while they go through, the agent dies, the power is cut,
replies are lost or doubled, the link breaks, the operator cancels, the disk is full. Then the faults stop, and what
must hold is checked. A seed that fails is a test to keep.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from thingjobs import records
from thingjobs.jobs import Connected, Disconnected
from thingjobs.machine import Now, State, agent, step
from thingjobs.machine.effects import (
    AskGates,
    Clean,
    Forget,
    GetReady,
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
    Ending,
    Evidence,
    Finished,
    Gated,
    Judged,
    NotSaved,
    NotSpawned,
    Progressed,
    Resumed,
    Spawned,
)
from thingjobs.machine.table import TABLE, Row
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Process, Record, Result, Status, ThingName, Verb
from thingjobs.policy import Settings
from thingjobs.testing import JobsService, Lost, ManualClock
from thingjobs.transport.topics import Topics

THING = ThingName("thing")
ALL = frozenset(Verb)
#: What a document asks for: the verbs of its handler, and how each ends, one entry a run (the last one repeats).
KINDS: dict[str, tuple[frozenset[Verb], dict[Verb, list[int | None]], dict[str, Any]]] = {
    "plain": (frozenset({Verb.APPLY}), {}, {}),
    "fails": (frozenset({Verb.APPLY}), {Verb.APPLY: [3]}, {}),
    "dies": (frozenset({Verb.APPLY}), {Verb.APPLY: [None]}, {}),
    "all": (ALL, {}, {}),
    "already": (ALL, {Verb.CHECK: [10]}, {}),
    "unfit": (ALL, {Verb.CHECK: [1]}, {}),
    "later": (ALL, {Verb.CHECK: [75, 0]}, {}),
    "check-dies": (ALL, {Verb.CHECK: [None]}, {}),
    "bad-verify": (ALL, {Verb.VERIFY: [1]}, {}),
    "bad-rollback": (ALL, {Verb.VERIFY: [1], Verb.ROLLBACK: [1]}, {}),
    "bad-rollback-reboots": (ALL, {Verb.VERIFY: [1], Verb.ROLLBACK: [195]}, {}),
    "restarts-for-ever": (frozenset({Verb.APPLY}), {Verb.APPLY: [196]}, {}),
    "verify-reboots": (ALL, {Verb.VERIFY: [195, 0]}, {}),
    "bad-commit": (ALL, {Verb.COMMIT: [1]}, {}),
    "bad-prepare": (ALL, {Verb.PREPARE: [1]}, {}),
    "waits": (frozenset({Verb.APPLY}), {Verb.APPLY: [75, 75, 0]}, {}),
    "waits-for-ever": (frozenset({Verb.APPLY}), {Verb.APPLY: [75]}, {}),
    "reboots": (ALL, {Verb.APPLY: [195]}, {}),
    "reboots-again": (frozenset({Verb.APPLY}), {Verb.APPLY: [194, 0]}, {}),
    "reboots-for-ever": (frozenset({Verb.APPLY}), {Verb.APPLY: [194]}, {}),
    "restarts": (frozenset({Verb.APPLY}), {Verb.APPLY: [196, 0]}, {}),
    "rerun": (frozenset({Verb.APPLY, Verb.ROLLBACK}), {}, {"apply_rerun": True}),
    "stoppable": (ALL, {}, {"cancel_apply": True}),
    "ask": (ALL, {}, {"check_only": True}),
    "observes": (frozenset({Verb.APPLY}), {}, {"observe": True}),
    "checks-and-observes": (frozenset({Verb.CHECK, Verb.APPLY}), {Verb.CHECK: [75, 0]}, {"observe": True}),
    "impatient": (ALL, {Verb.CHECK: [75]}, {"max_defer": 300.0}),
}
OBSERVERS = {kind for kind, (_, _, more) in KINDS.items() if more.get("observe")}
MAY_RUN_AGAIN = {
    *("waits", "waits-for-ever", "reboots-again", "reboots-for-ever", "restarts", "restarts-for-ever", "rerun"),
}
#: A verb of these fails, whenever it runs to its end.
NEVER_SUCCEEDS = {"fails", "dies", "unfit", "check-dies", "restarts-for-ever", "waits-for-ever"} | {
    kind for kind in KINDS if kind.startswith("bad-")
}


@dataclass
class Verbing:
    """A verb's process on the modelled device; it outlives the agent, not the power."""

    identity: Identity
    verb: Verb
    attempt: int
    made_by: int
    going: bool = False
    killed: bool = False
    ended: int | None = None
    over: bool = False


@dataclass
class World:
    """Device, disk and service around the core."""

    rng: random.Random
    clock: ManualClock = field(default_factory=ManualClock)
    boot: int = 1
    starts: int = 0
    disk: dict[Identity, bytes] = field(default_factory=dict)
    #: What the disk may still hold in the place of ends, until time passes: the reports that were owed.
    unsettled: dict[Identity, bytes] = field(default_factory=dict)
    disk_full: bool = False
    processes: dict[Identity, Verbing] = field(default_factory=dict)
    exits: dict[tuple[Identity, Verb, int], int | None] = field(default_factory=dict)
    watched: set[Identity] = field(default_factory=set)
    applies: Counter[Identity] = field(default_factory=Counter)
    ran: list[tuple[Identity, Verb, int]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    inbox: deque[Any] = field(default_factory=deque)
    reboot_pending: bool = False
    closed: bool = False
    asked: deque[Identity] = field(default_factory=deque)
    refreshed: Counter[Identity] = field(default_factory=Counter)
    connected: bool = False
    faults: bool = True
    pid: int = 100

    def __post_init__(self) -> None:
        self.service = JobsService(
            self.clock,
            count_service_changes=self.rng.random() < 0.5,
            version_first=self.rng.random() < 0.5,
            terminal_update_code=self.rng.choice(["InvalidStateTransition", "TerminalStateReached"]),
            presign=lambda url: f"{url}?signature={self.rng.random()}",
        )
        self.service.listen(THING, self._hear)
        self.service.interpose(lambda _: self._fault())
        self.topics = Topics(THING)
        self.start()

    # --- the service ----------------------------------------------------------------------------------------------

    def _fault(self) -> Lost | None:
        if not self.faults:
            return None
        roll = self.rng.random()
        return Lost.REQUEST if roll < 0.05 else Lost.REPLY if roll < 0.12 else None

    def _hear(self, message: Any) -> None:
        if not self.connected:
            return
        incoming = self.topics.incoming(message.topic, message.payload)
        if incoming is not None:
            self.inbox.append(incoming)
            if self.faults and self.rng.random() < 0.1:
                self.inbox.append(incoming)

    # --- the agent ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent: what it had in memory is gone."""
        self.starts += 1
        if self.faults and self.rng.random() < 0.5:
            self.disk.update(self.unsettled)
        self.unsettled = {}
        self.inbox.clear()
        self.asked.clear()
        self.connected = False
        settings = Settings(agent="thingjobs/test", step_timeout_minutes=60)
        loaded = [records.load(data) for data in self.disk.values()]
        done = tuple(record.identity for record in loaded if record.phase is Phase.DONE)
        self.state = State(settings=settings, nonce=f"n{self.starts}", remembered=done)
        # A process that was never let go ends with the agent that made it; one that no record names is swept away.
        named = {record.identity for record in loaded if record.process is not None}
        self.processes = {key: one for key, one in self.processes.items() if one.going and key in named}
        self.watched = set()
        for record in loaded:
            if record.phase is not Phase.DONE:
                self.give(Resumed(record, self._evidence(record)))

    def _evidence(self, record: Record) -> Evidence:
        if record.verb is None or record.process is None:
            return Evidence.NOT_STARTED
        attempt = record.attempts[record.verb]
        if (record.identity, record.verb, attempt) in self.exits:
            ending = Ending(self.exits[record.identity, record.verb, attempt])
            self.inbox.append(Finished(record.identity, record.verb, attempt, ending))
            return Evidence.ADOPTED
        process = self.processes.get(record.identity)
        alive = process is not None and (process.verb, process.attempt) == (record.verb, attempt)
        self.watched.add(record.identity)
        return Evidence.ADOPTED if alive else Evidence.LOST

    def give(self, event: Any) -> None:
        """Let the core work out an event, and carry out what it decides."""
        soon = deque([event])
        while soon:
            self.state, effects = step(self.state, soon.popleft(), Now(self.clock(), f"boot-{self.boot}", self.clock()))
            unsaved: dict[Any, list[Any]] = {}
            for effect in effects:
                subject = getattr(effect, "identity", None) or getattr(
                    getattr(effect, "record", None), "identity", None
                )
                if subject in unsaved and isinstance(effect, Save):
                    unsaved[subject][0] = effect.record
                elif subject in unsaved and not isinstance(effect, Note):
                    unsaved[subject].append(effect)
                elif isinstance(effect, Save) and self.disk_full:
                    unsaved[subject] = [effect.record]
                else:
                    soon.extend(self._carry_out(effect))
            soon.extendleft(NotSaved(record, "full", tuple(rest)) for record, *rest in unsaved.values())

    def _carry_out(self, effect: Any) -> list[Any]:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        match effect:
            case Save(record):
                before = self.disk.get(record.identity)
                if record.phase is Phase.DONE and before and records.load(before).phase is Phase.REPORTING:
                    self.unsettled[record.identity] = before
                self.disk[record.identity] = records.dump(record)
            case Forget(identity):
                self.disk.pop(identity, None)
            case Send(request):
                if self.connected:
                    topic, payload = self.topics.outgoing(request)
                    self.service.handle(THING, topic.split("/jobs/")[1], payload, self._hear)
            case Judge(execution):
                return [Judged(execution.identity, self._judged(execution.document))]
            case AskGates(record):
                # A program may take a while to answer, and the gate may change meanwhile.
                self.asked.append(record.identity)
            case Refresh(record):
                assert self.processes[record.identity].going
                self.refreshed[record.identity] += 1
            case Run():
                return [self._spawn(effect)]
            case Go(identity):
                process = self.processes[identity]
                process.going = True
                self.applies[identity] += process.verb is Verb.APPLY
                self.ran.append((identity, process.verb, self.boot))
            case Kill(identity):
                self._kill(identity)
            case Reboot():
                self.reboot_pending = True
            case Reconnect():
                self.disconnect()
            case Clean(identity):
                assert identity not in self.processes or self.processes[identity].over
                self.processes.pop(identity, None)
            case GetReady(run):
                earlier = self.processes.get(run.record.identity)
                assert earlier is None or earlier.over, "it runs, and another is made ready"
            case Note(text):
                assert "does not know what" not in text, text
        return []

    def _kill(self, identity: Identity) -> None:
        process = self.processes.get(identity)
        if process is not None and not process.going:
            del self.processes[identity]
        elif process is not None:
            process.killed = True

    def _judged(self, document: Any) -> Plan | Result:
        kind = (document or {}).get("kind")
        if kind not in KINDS:
            return Result(Status.REJECTED, Code.DOCUMENT_INVALID, "no such kind")
        verbs, _, more = KINDS[kind]
        return Plan(handler=kind, argv=("x",), verbs=verbs, **more)

    def _spawn(self, run: Run) -> Spawned | NotSpawned:
        identity = run.record.identity
        before = self.processes.get(identity)
        # What an earlier agent left running, unknown to the journal because the disk was full, is ended first.
        assert before is None or before.over or before.made_by < self.starts, "two verbs of one execution at once"
        self._assert_alone(identity)
        self.processes.pop(identity, None)
        if self.faults and self.rng.random() < 0.02:
            return NotSpawned(run.record.identity, run.verb, "out of processes")
        self.watched.add(identity)
        self.exits.pop((identity, run.verb, run.attempt), None)
        self.processes[identity] = Verbing(identity, run.verb, run.attempt, self.starts)
        self.pid += 1
        return Spawned(identity, run.verb, Process(self.pid, self.pid, f"boot-{self.boot}"))

    def _assert_alone(self, identity: Identity) -> None:
        """Two verbs never run at once, but for one of an observer beside another."""
        busy = [other for other, one in self.processes.items() if other != identity and not one.over]
        observers = [other for other in (identity, *busy) if kind_of(other.job_id) in OBSERVERS]
        # One that the journal did not know, because the disk was full, may be left from an earlier agent.
        known = [other for other in observers if other in self.state.jobs]
        assert len(known) <= 1, "two observers at once"
        assert len(busy) + 1 - len(observers) <= 1, "two executions at once"

    # --- what happens ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.connected = True
        self.topics = Topics(THING)
        self.inbox.append(Connected())

    def answer(self) -> None:
        """The gates that were asked answer."""
        if self.asked:
            identity = self.asked.popleft()
            opens_in = self.rng.choice([None, 30.0, 5000.0])
            self.inbox.append(Gated(identity, "closed", opens_in) if self.closed else Gated(identity))

    def toggle_gate(self) -> None:
        self.closed = not self.closed

    def disconnect(self) -> None:
        if self.connected:
            self.connected = False
            self.inbox.append(Disconnected("a fault"))

    def power_cut(self) -> None:
        self.boot += 1
        self.processes = {}
        self.reboot_pending = False
        self.start()

    def finish(self) -> None:
        """The verb that runs ends."""
        for process in self.processes.values():
            if process.going and not process.over:
                process.over = True
                process.ended = self._exit_of(process)
                self.exits[process.identity, process.verb, process.attempt] = process.ended
                ending = Ending(process.ended, reason="because")
                if process.identity in self.watched:
                    self.inbox.append(Finished(process.identity, process.verb, process.attempt, ending))

    def _exit_of(self, process: Verbing) -> int | None:
        if process.killed:
            return None
        kind = kind_of(process.identity.job_id)
        ends = KINDS[kind][1].get(process.verb, [0])
        runs = sum(1 for identity, verb, _ in self.ran if (identity, verb) == (process.identity, process.verb))
        return ends[min(runs, len(ends)) - 1]

    def advance(self) -> None:
        """Let time pass until the next timer of the core or of the service."""
        times = [at for at in (self.state.next_due(), self.service.next_deadline()) if at is not None]
        if times:
            self.clock.advance(max(0.0, min(times) - self.clock()) + 0.001)
            self.unsettled = {}
        self.service.tick()
        self.fire()

    def fire(self) -> None:
        while (due := self.state.next_due()) is not None and due <= self.clock():
            found = [Due(timer) for timer, at in self.state.timers.items() if at == due]
            for job in self.state.jobs.values():
                found += [Due(timer, job.identity) for timer, at in job.timers.items() if at == due]
            self.give(found[0])

    def take(self) -> None:
        if self.inbox:
            self.give(self.inbox.popleft())

    def progress(self) -> None:
        for identity, process in self.processes.items():
            if process.going and not process.over and identity in self.watched:
                refresh = self.rng.random() < 0.2
                self.inbox.append(Progressed(process.identity, self.rng.random() * 100, "working", refresh=refresh))

    def cancel(self) -> None:
        pending = [view for view in self.service.executions(THING) if not Status(view.status).terminal]
        if pending:
            view = self.rng.choice(pending)
            self.cancelled.add(view.job_id)
            self.service.cancel_execution(THING, view.job_id, force=True)

    def one_thing(self) -> None:
        """Something happens."""
        weights = {
            self.take: 40,
            self.answer: 15,
            self.toggle_gate: 4 if self.closed else 0.5,
            self.finish: 8,
            self.progress: 4,
            self.advance: 10,
            self.connect if not self.connected else self.disconnect: 3 if self.connected else 20,
            self.start: 2,
            self.power_cut: 8 if self.reboot_pending else 1,
            self.cancel: 0.4,
            self.toggle_disk: 4 if self.disk_full else 0.7,
        }
        self.rng.choices(list(weights), list(weights.values()))[0]()

    def toggle_disk(self) -> None:
        self.disk_full = not self.disk_full

    def calm(self) -> None:
        """The faults stop: go on until nothing happens any more."""
        self.faults = self.disk_full = self.closed = False
        for _ in range(600):
            if not self.connected:
                self.connect()
            while self.inbox or self.asked:
                self.answer()
                self.take()
            if self.reboot_pending:
                self.power_cut()
            elif any(process.going and not process.over for process in self.processes.values()):
                self.finish()
            elif self._waits_for_restart():
                self.start()
            elif self._at_rest():
                return
            else:
                self.advance()
        raise AssertionError(f"not at rest: {self.state.jobs}\n{self.service.executions(THING)}")

    def _at_rest(self) -> bool:
        over = all(Status(view.status).terminal for view in self.service.executions(THING))
        return over and not self.state.jobs and not self.state.unsaved

    def _waits_for_restart(self) -> bool:
        return any("restart of the agent" in job.record.note for job in self.state.jobs.values())


def kind_of(job_id: str) -> str:
    """Return the kind that a job was made of."""
    return job_id.rsplit("-", 1)[0]


def held_rows() -> dict[Phase, dict[type, Row]]:
    """Return the table with each row held to the phases that it says it may lead to."""

    def held(phase: Phase, row: Row) -> Row:
        def rule(turn: Any, job: Any, event: Any) -> Any:
            after = row.rule(turn, job, event)
            if after is None:
                assert row.gone, f"{phase} {type(event).__name__} dropped the execution"
            else:
                allowed = row.to | {phase}
                assert after.phase in allowed, f"{phase} --{type(event).__name__}--> {after.phase}"
            return after

        return replace(row, rule=rule)

    return {phase: {event: held(phase, row) for event, row in rows.items()} for phase, rows in TABLE.items()}


def explored(seed: int) -> World:
    """Return the world after one run with faults, at rest."""
    rng = random.Random(seed)
    world = World(rng)
    for number in range(rng.randint(1, 3)):
        kind = rng.choice([*KINDS, "nonsense"])
        minutes = rng.choice([None, None, 30])
        document = {"kind": kind}
        if rng.random() < 0.3:
            document["url"] = "${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/bucket/key}"
        world.service.create_job(f"{kind}-{number}", document, [THING], in_progress_timeout_minutes=minutes)
    for _ in range(rng.randint(20, 120)):
        world.one_thing()
    world.calm()
    return world


def check(world: World) -> None:
    """What must hold after any schedule of faults."""
    journal = {identity: records.load(data) for identity, data in world.disk.items()}
    for view in world.service.executions(THING):
        identity = Identity(JobId(view.job_id), view.number, int(view.queued_at))
        kind = kind_of(view.job_id)
        record = journal.get(identity)
        if kind not in MAY_RUN_AGAIN | OBSERVERS:  # What changes nothing may run again.
            assert world.applies[identity] <= 1, "apply ran twice"
        assert Status(view.status).terminal
        assert view.status != "SUCCEEDED" or kind not in NEVER_SUCCEEDS, "a failure is told as a success"
        terminal = [change.status for change in view.history if Status(change.status).terminal]
        assert len(terminal) == 1
        if kind in OBSERVERS:
            continue  # They change nothing and need no journal.
        if record is not None and record.result is not None and not record.late:
            assert record.result.status == view.status, "the service does not hold what happened here"
        if view.status in ("SUCCEEDED", "FAILED"):
            assert record is not None, f"nothing in the journal of {view}"
            assert record.phase is Phase.DONE
        if world.applies[identity]:
            assert record is not None, "an execution that ran here is forgotten"
    assert not world.processes, "a verb's folder stays behind for ever"
    check_commits(world)


def check_commits(world: World) -> None:
    """`commit` never starts without `verify` in the same boot before it."""
    for index, (identity, verb, boot) in enumerate(world.ran):
        if verb is Verb.COMMIT:
            assert (identity, Verb.VERIFY, boot) in world.ran[:index], "commit without verify in the same boot"


def schedules() -> range:
    """Return the seeds to explore; THINGJOBS_SCHEDULES asks for more than the usual number."""
    return range(int(os.environ.get("THINGJOBS_SCHEDULES", "1000")))


@pytest.mark.timeout(3600)
def test_no_schedule_of_faults_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "TABLE", held_rows())
    for seed in schedules():
        try:
            check(explored(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
