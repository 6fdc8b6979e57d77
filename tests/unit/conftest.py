"""A small world for the real core: one handler, a disk, a link, a machine that reboots, and the simulated service."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
from tests.unit.plans import PLAN

from thingjobs import records
from thingjobs.jobs import Connected, Disconnected
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Due, Ending, Evidence, Finished, Gated, Judged, Resumed, Spawned
from thingjobs.model import Identity, Phase, Plan, Process, Record, Result, ThingName, Verb
from thingjobs.policy import Settings
from thingjobs.testing import JobsService, ManualClock
from thingjobs.transport.topics import Topics

THING = ThingName("pump-7")


class World:
    """A device with one handler whose verbs end when a test says so, and the service, on a clock moved by hand.

    What is sent goes through the agent's codec and the service's own.

    Args:
        plan: what every document asks for, or why it is refused.
        minutes: the step timer that the agent asks for.
        service: settings of the simulated service.
    """

    def __init__(self, plan: Plan | Result = PLAN, *, minutes: int = 1440, **service: Any) -> None:
        self.plan = plan
        self.clock = ManualClock()
        self.service = JobsService(self.clock, **service)
        self.settings = Settings(agent="thingjobs/test", step_timeout_minutes=minutes)
        self.disk: dict[Identity, bytes] = {}
        self.inbox: deque[Any] = deque()
        self.connected = False
        self.heard = True
        self.boot = 1
        self.starts = 0
        self.reboots = 0
        self.closed = ""
        #: How many more reach the disk: what comes later is lost with the agent that a test ends then.
        self.writes = math.inf
        self.running: do.Run | None = None
        self.killed = False
        self.runs: list[tuple[Verb, bool]] = []
        self.effects: list[do.Effect] = []
        self.service.listen(THING, self._notified)
        self.start()

    # --- the agent ------------------------------------------------------------------------------------------------

    def start(self, *, ended: int | None = None) -> None:
        """Start the agent: what it had in memory is gone. A verb that runs goes on, or has `ended` meanwhile."""
        self.starts += 1
        self.writes = math.inf
        self.connected = False
        self.inbox.clear()
        self.topics = Topics(THING)
        loaded = [records.load(data) for data in self.disk.values()]
        done = tuple(record.identity for record in loaded if record.phase is Phase.DONE)
        self.state = State(self.settings, nonce=f"n{self.starts}", remembered=done)
        for record in loaded:
            if record.phase is not Phase.DONE:
                self.give(Resumed(record, self._evidence(record, ended)))
        self.drain()

    def _evidence(self, record: Record, ended: int | None) -> Evidence:
        if record.verb is None or record.process is None:
            return Evidence.NOT_STARTED
        if self.running is None:
            return Evidence.LOST
        if ended is not None:
            self.inbox.append(Finished(record.identity, record.verb, self.running.attempt, Ending(ended)))
            self.running = None
        return Evidence.ADOPTED

    def power_cut(self) -> None:
        """Cut the power, or reboot: what ran is gone, and the agent is started in another boot."""
        self.boot += 1
        self.running = None
        self.start()

    def give(self, event: Any) -> None:
        """Let the core work out an event, carry out what it decides, and keep that."""
        self.effects = []
        soon = deque([event])
        while soon:
            now = Now(self.clock(), f"boot-{self.boot}", self.clock())
            self.state, effects = step(self.state, soon.popleft(), now)
            self.effects += effects
            for effect in effects:
                soon.extend(self._carry_out(effect))

    def _carry_out(self, effect: do.Effect) -> list[Any]:  # noqa: C901 - one case an effect
        match effect:
            case do.Save(record) if self.writes:
                self.writes -= 1
                self.disk[record.identity] = records.dump(record)
            case do.Forget(identity):
                self.disk.pop(identity, None)
            case do.Send(request) if self.connected:
                topic, payload = self.topics.outgoing(request)
                self.service.handle(THING, topic.split("/jobs/")[1], payload, self._answered)
            case do.Judge(execution):
                return [Judged(execution.identity, self.plan)]
            case do.AskGates(record):
                return [Gated(record.identity, self.closed)]
            case do.Run(record, verb):
                assert self.running is None, "two verbs at once"
                self.running, self.killed = effect, False
                self.runs.append((verb, effect.rebooted))
                return [Spawned(record.identity, verb, Process(7, 7, f"boot-{self.boot}"))]
            case do.Kill():
                self.killed = True
            case do.Reboot():
                self.reboots += 1
            case do.Reconnect():
                self.disconnect()
                self.connect()
            case _:
                pass
        return []

    def _answered(self, message: Any) -> None:
        if self.connected and (incoming := self.topics.incoming(message.topic, message.payload)):
            self.inbox.append(incoming)

    def _notified(self, message: Any) -> None:
        if self.heard:
            self._answered(message)

    def drain(self) -> None:
        """Take what has arrived."""
        while self.inbox:
            self.give(self.inbox.popleft())

    # --- what happens ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.clock.advance(0.1)
        self.connected, self.topics = True, Topics(THING)
        self.inbox.append(Connected())

    def disconnect(self) -> None:
        self.connected = False
        self.inbox.append(Disconnected("a fault"))

    def offline(self) -> World:
        """Break the connection; nothing comes or goes until `connect`."""
        self.disconnect()
        self.drain()
        return self

    def online(self) -> World:
        """Connect, and take what comes of it."""
        self.connect()
        self.drain()
        return self

    def let(self, seconds: float) -> None:
        """Let time pass: timers of the agent and of the service fire when they are due."""
        self.drain()
        end = self.clock() + seconds
        while True:
            fires = self.service.next_deadline() or end
            dues = [self.state.next_due() or end, fires if fires > self.clock() else end, end]
            self.clock.advance(max(0.0, min(dues) - self.clock()))
            self.service.tick()
            self.drain()
            while (due := self.state.next_due()) is not None and due <= self.clock():
                self.give(self._first(due))
                self.drain()
            if self.clock() >= end:
                return

    def _first(self, due: float) -> Due:
        found = [Due(timer) for timer, at in self.state.timers.items() if at == due]
        for job in self.state.jobs.values():
            found += [Due(timer, job.identity) for timer, at in job.timers.items() if at == due]
        return found[0]

    def queue(self, job_id: str = "job", **options: Any) -> World:
        """Queue a job; the agent takes it if it can."""
        self.service.create_job(job_id, {"handler": "h"}, [THING], **options)
        self.drain()
        return self

    def begun(self, *verbs: Verb, **options: Any) -> World:
        """Connect, queue a job, and end each of `verbs` well; the next one is left running."""
        self.online().queue(**options)
        for verb in verbs:
            self.ends(verb)
        return self

    def ends(self, verb: Verb, code: int | None = 0, **more: Any) -> None:
        """The verb that runs ends."""
        run, self.running = self.running, None
        assert run is not None, f"{verb} does not run"
        assert run.verb is verb
        self.give(Finished(run.record.identity, verb, run.attempt, Ending(code, **more)))
        self.drain()

    def cancel(self) -> None:
        """Cancel the job by force."""
        self.service.cancel_job("job", force=True)
        self.drain()

    # --- what can be seen -----------------------------------------------------------------------------------------

    @property
    def verb(self) -> Verb | None:
        """The verb that runs."""
        return self.running.verb if self.running else None

    @property
    def verbs(self) -> list[Verb]:
        """All that was run."""
        return [verb for verb, _ in self.runs]

    @property
    def status(self) -> str:
        """What the service holds of the first execution."""
        return self.service.execution(THING, "job", 1).status

    @property
    def details(self) -> Any:
        """Its status details there."""
        return self.service.execution(THING, "job", 1).details

    @property
    def record(self) -> Record:
        """What the journal holds of the first execution."""
        return next(one for one in map(records.load, self.disk.values()) if str(one.identity) == "job#1")

    def sent(self, suffix: str = "job/") -> list[Any]:
        """The requests about the job that reached the service."""
        return [request for request in self.service.requests if request.suffix.startswith(suffix)]


@pytest.fixture
def new_world() -> type[World]:
    """Makes worlds: the class itself, because test files import nothing from each other."""
    return World


@pytest.fixture(params=["InvalidStateTransition", "TerminalStateReached"])
def refusal(request: pytest.FixtureRequest) -> Any:
    """The two ways in which the service may refuse an update of what is over."""
    return request.param
