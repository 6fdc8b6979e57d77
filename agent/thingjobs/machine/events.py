"""What the core is told: replies and notifications of the service, and these."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from thingjobs.jobs import (
    Connected,
    Described,
    Disconnected,
    ListChanged,
    NextChanged,
    Pending,
    Refused,
    Updated,
)
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.machine.effects import Effect
    from thingjobs.machine.state import LookTimer, Stopping, Timer
    from thingjobs.model import Identity, Plan, Process, Record, Result, Verb


@dataclass(frozen=True, slots=True)
class Judged:
    """A document was read, routed and checked against this device: a plan, or the result to refuse it with."""

    identity: Identity
    verdict: Plan | Result


@dataclass(frozen=True, slots=True)
class Spawned:
    """A verb's process exists and waits for Go."""

    identity: Identity
    verb: Verb
    process: Process


@dataclass(frozen=True, slots=True)
class NotSpawned:
    """A verb's process could not be made, or may not be: `code` says which."""

    identity: Identity
    verb: Verb
    reason: str
    code: Code = Code.HANDLER_START


@dataclass(frozen=True, slots=True)
class Gated:
    """The gates were asked.

    Attributes:
        reason: why one is closed, "" when all are open.
        opens_in: seconds after which it is worth asking again, None if nobody knows.
    """

    identity: Identity
    reason: str = ""
    opens_in: float | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """A handler gave a sign of life: events folded together, or only output.

    Attributes:
        refresh: it asks for its parameters anew: a presigned URL has expired.
    """

    identity: Identity
    percent: float | None = None
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a verb's process ended.

    Attributes:
        code: its exit code, None if it has none.
        signal: the name of the signal that ended it, "" if none did.
        reason: what the handler gave as the reason; else, unless all is well, the last line it wrote to stderr.
        fault: the code that the handler gave, "" if none.
        reject: the handler said that this must never be tried here.
        after: seconds that the handler asked to be left alone for, with exit code 75.
    """

    code: int | None
    signal: str = ""
    reason: str = ""
    fault: str = ""
    reject: bool = False
    after: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A verb's process is gone, and so is everything it started; `attempt` tells which run of it."""

    identity: Identity
    verb: Verb
    attempt: int
    ending: Ending


class Evidence(Enum):
    """What is left, after the agent was started again, of the verb that was in flight."""

    #: It was never let go, or no verb was in flight.
    NOT_STARTED = 0
    #: It runs, or ended and left its exit code: Finished follows.
    ADOPTED = 1
    #: It is gone without a trace.
    LOST = 2


@dataclass(frozen=True, slots=True)
class Resumed:
    """The journal held this execution when the agent was started."""

    record: Record
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class NotSaved:
    """The journal could not be written; `withheld` was to be done after it and has not been done.

    Attributes:
        record: the newest that was to be written.
        withheld: holds no Save.
    """

    record: Record
    reason: str
    withheld: tuple[Effect, ...] = ()

    @property
    def identity(self) -> Identity:
        """Which execution this is about."""
        return self.record.identity


@dataclass(frozen=True, slots=True)
class Due:
    """A timer of an execution, or of the search when `identity` is None, has come."""

    timer: Timer | LookTimer
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The agent is to end."""

    how: Stopping


@dataclass(frozen=True, slots=True)
class LinkUp:
    """For one execution: the service can be reached again. Made by the core from Connected."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """For one execution: its open request will get no reply. Made by the core."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """For one execution: the service behaves as if it were not the head any more. Made by the core."""


JobEvent = (
    Judged
    | Gated
    | Spawned
    | NotSpawned
    | Progressed
    | Finished
    | Resumed
    | NotSaved
    | Due
    | LinkUp
    | Unanswered
    | Doubted
    | Updated
    | Described
    | Refused
    | Stop
)
Event = (
    Connected
    | Disconnected
    | NextChanged
    | ListChanged
    | Pending
    | Described
    | Updated
    | Refused
    | Judged
    | Gated
    | Spawned
    | NotSpawned
    | Progressed
    | Finished
    | Resumed
    | NotSaved
    | Due
    | Stop
)
