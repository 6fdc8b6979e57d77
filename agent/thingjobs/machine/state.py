"""What the core knows: one immutable `State`, with one `Job` for each execution that is not finished here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from thingjobs.model import Phase, Plan, Record, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.machine.effects import Effect
    from thingjobs.model import Execution, Identity
    from thingjobs.policy import Settings

Value = TypeVar("Value")

#: The plan of an execution that is not judged yet, or was refused.
NO_PLAN = Plan(handler="", argv=())

#: The phase in which each verb runs.
PHASE_OF = MappingProxyType(
    {
        Verb.CHECK: Phase.CHECKING,
        Verb.PREPARE: Phase.PREPARING,
        Verb.APPLY: Phase.APPLYING,
        Verb.VERIFY: Phase.VERIFYING,
        Verb.COMMIT: Phase.COMMITTING,
        Verb.ROLLBACK: Phase.ROLLING_BACK,
    }
)
#: The phases before the service was told anything.
UNCLAIMED = frozenset({Phase.OFFERED, Phase.CHECKING, Phase.DEFERRED, Phase.REFUSING})


@dataclass(frozen=True, slots=True)
class Now:
    """What time it is.

    Attributes:
        clock: seconds of CLOCK_BOOTTIME: it counts while the machine sleeps, and never jumps.
        boot: the boot id; clocks of two boots cannot be compared.
        wall: seconds since the epoch, for people only.
    """

    clock: float
    boot: str
    wall: float


class Kind(StrEnum):
    """What an open request of an execution is for."""

    REFUSE = "refuse"
    CLAIM = "claim"
    PROGRESS = "progress"
    ASK = "ask"
    REPORT = "report"


def changed(value: Value, changes: Mapping[str, object]) -> Value:
    """Return a copy of a frozen value without slots that checks nothing when it is made, with some fields changed.

    It is `dataclasses.replace` in a seventh of its time: a job makes some seventy copies of twenty fields and more.

    Raises:
        AttributeError: there is no such field.
    """
    if not changes.keys() <= vars(value).keys():
        raise AttributeError(f"{type(value).__name__} has no {', '.join(changes.keys() - vars(value).keys())}")
    copy = object.__new__(type(value))
    vars(copy).update(vars(value))
    vars(copy).update(changes)
    return copy


class Timer(StrEnum):
    """The timers of an execution."""

    REPLY = "reply"
    RETRY = "retry"
    PROGRESS = "progress"
    RENEW = "renew"
    LEARN = "learn"
    DEFER = "defer"
    AGAIN = "again"
    VERB = "verb"
    STALL = "stall"
    DEADLINE = "deadline"
    REBOOT = "reboot"
    REACH = "reach"
    SAVE = "save"


class LookTimer(StrEnum):
    """The timers that belong to no execution: those of the search."""

    REPLY = "look-reply"
    RETRY = "look-retry"
    EXPECT = "look-expect"
    PERIODIC = "look-periodic"
    #: Looks for observers behind what keeps the agent busy.
    ASIDE = "look-aside"
    #: Not of the search: tombstones that could not be written are tried again.
    SAVE = "save"


class Stopping(Enum):
    """How the agent was asked to end."""

    NO = 0
    #: No new verb; a running one is left to the next agent.
    LEAVE = 1
    #: No new verb; a running one is waited for.
    WAIT = 2
    #: A running verb is stopped.
    CANCEL = 3


@dataclass(frozen=True, slots=True)
class Open:
    """A request that has no reply yet.

    Attributes:
        sent: when, in seconds of Now.clock.
        minutes: the step timer that it asks for, None if it leaves that alone.
    """

    token: str
    kind: Kind
    details: Mapping[str, str] = field(default_factory=dict)
    sent: float = 0.0
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What the handler said last, and whether the service knows it."""

    percent: float | None = None
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    news: bool = False


@dataclass(frozen=True)
class Job:
    """An execution while this agent is busy with it: its record, and what need not outlive the agent.

    Attributes:
        record: what the journal holds, or will hold once it is claimed.
        execution: as offered; None for one that came out of the journal.
        open: the request that has no reply yet; there is never more than one.
        tries: how often the present request failed.
        minimal: the service refused our details, so updates go without any; a result tries it with them once more.
        unmarked: that was so when it was claimed: what is stored does not carry our mark.
        running: the verb that has a process now.
        stop_why: why the running verb was told to stop.
        gap: the distance to the next progress report, seconds.
        step_until: when the service's step timer fires; infinite until it took an update of this agent.
        deadline: when the service's in-progress timer fires; None until it is learned.
        proof_after: a connection opened later than this proves that the service is still reached.
        timers: when each timer is due, in seconds of Now.clock.
        probe: only looked at to see whether it is an observer; else it keeps its place behind what is busy.
        gate: what it stands before: the gates were asked whether it may; "" when nothing is asked.
        gate_tries: how often they were closed.
        rebooted: the verb that is about to run follows a reboot that it asked for.
        wants_fresh: the handler asked for its parameters anew.
        fresh_after: Now.clock before which the service is not asked for them again.
        withheld: effects that wait until the journal can be written.
        save_tries: how often the journal could not be written.
    """

    record: Record
    execution: Execution | None = None
    open: Open | None = None
    tries: int = 0
    minimal: bool = False
    unmarked: bool = False
    running: Verb | None = None
    stop_why: str = ""
    heard: Heard = Heard()
    gap: float = 0.0
    step_until: float = float("inf")
    deadline: float | None = None
    proof_after: float | None = None
    probe: bool = False
    gate: str = ""
    gate_tries: int = 0
    rebooted: bool = False
    wants_fresh: bool = False
    fresh_after: float = 0.0
    timers: Mapping[Timer, float] = field(default_factory=dict)
    withheld: tuple[Effect, ...] = ()
    save_tries: int = 0

    @property
    def phase(self) -> Phase:
        """Where the execution stands."""
        return self.record.phase

    @property
    def identity(self) -> Identity:
        """Which execution this is."""
        return self.record.identity

    @property
    def aside(self) -> bool:
        """Whether it runs beside the others: an observer, which changes nothing."""
        return self.probe or self.record.plan.observe

    def with_(self, **changes: Any) -> Job:
        """Return a copy; names of Record's fields change the record, the others the job."""
        own = {name: changes.pop(name) for name in tuple(changes) if name in _JOB_FIELDS}
        if changes:
            own["record"] = changed(own.get("record", self.record), changes)
        return changed(self, own)

    def at(self, timer: Timer, when: float) -> Job:
        """Return a copy with `timer` due at `when`."""
        return changed(self, {"timers": {**self.timers, timer: when}})

    def without(self, *timers: Timer) -> Job:
        """Return a copy without `timers`."""
        return changed(self, {"timers": {key: due for key, due in self.timers.items() if key not in timers}})


_JOB_FIELDS = frozenset(Job.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Look:
    """The search for an execution to take: the open question and what it found so far.

    Attributes:
        token: of the open request, "" between tries.
        past: other consumers' executions lie ahead, so the list is asked for instead of the head.
        aside: it is for an observer that may run beside what keeps the agent busy.
        wanted: an execution found in the list, whose document is asked for.
    """

    token: str = ""
    tries: int = 0
    past: bool = False
    aside: bool = False
    wanted: Identity | None = None


@dataclass(frozen=True, slots=True)
class Deferral:
    """How often a waiting execution was put off, and since when (Now.clock)."""

    tries: int
    since: float


@dataclass(frozen=True)
class State:
    """Everything the core knows.

    Attributes:
        nonce: random, made once per process: the root of tokens, claims and jitter.
        minted: tokens and rolls drawn from it so far.
        connected_at: Now.clock of the present connection, None without one.
        lost_at: when the last connection ended, or the first could not be made; None before that.
        jobs: what is not finished here; at most one that is neither an observer nor just reporting.
        remembered: identities that are finished here, oldest first: they never start again.
        offer: the newest offer that came while the agent was busy.
        waiting_in_line: executions that were looked at and are no observers: they wait for their turn.
        deferrals: the executions that were put off.
        look: the search in progress.
        unsaved: finished executions whose end the journal does not know yet.
        silent: requests in a row that got no reply.
    """

    settings: Settings
    nonce: str
    minted: int = 0
    connected_at: float | None = None
    lost_at: float | None = None
    jobs: Mapping[Identity, Job] = field(default_factory=dict)
    remembered: tuple[Identity, ...] = ()
    foreign: frozenset[Identity] = frozenset()
    offer: Execution | None = None
    waiting_in_line: frozenset[Identity] = frozenset()
    deferrals: Mapping[Identity, Deferral] = field(default_factory=dict)
    look: Look | None = None
    unsaved: tuple[Record, ...] = ()
    silent: int = 0
    timers: Mapping[LookTimer, float] = field(default_factory=dict)
    stopping: Stopping = Stopping.NO

    @property
    def busy(self) -> bool:
        """Whether nothing but an observer may begin.

        While the end of an earlier execution is in no journal, a restart would go on with it: nothing new begins.
        """
        return bool(self.unsaved) or any(not job.aside for job in self.jobs.values())

    @property
    def observing(self) -> bool:
        """Whether an observer runs, or is about to."""
        return any(job.aside and job.phase is not Phase.DEFERRED for job in self.jobs.values())

    def is_aside(self, execution: Execution | None) -> bool:
        """Return whether an execution is an observer of ours: that it is the head says nothing of what it overtook."""
        job = self.jobs.get(execution.identity) if execution is not None else None
        return job is not None and job.aside

    def next_due(self) -> float | None:
        """Return Now.clock of the earliest timer, None when none runs."""
        due = [*self.timers.values(), *(at for job in self.jobs.values() for at in job.timers.values())]
        return min(due, default=None)
