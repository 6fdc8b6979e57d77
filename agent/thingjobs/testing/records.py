"""What the simulated service stores: jobs, executions and the settings. Frozen values that decide nothing.

Statuses are plain strings here, and nothing of the agent is imported: the simulator and the agent must not be
able to agree on the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUEUED = "QUEUED"
IN_PROGRESS = "IN_PROGRESS"
FAILED = "FAILED"
TIMED_OUT = "TIMED_OUT"
CANCELED = "CANCELED"
REMOVED = "REMOVED"

#: JobExecutionStatus of the `iot-jobs-data` model; "SUCCESS" is not one.
STATUSES = frozenset({QUEUED, IN_PROGRESS, "SUCCEEDED", FAILED, "REJECTED", TIMED_OUT, CANCELED, REMOVED})
#: What a device may write (UpdateJobExecution, `status`).
SETTABLE = frozenset({IN_PROGRESS, "SUCCEEDED", FAILED, "REJECTED"})
#: What counts as pending; every other status is terminal.
PENDING = frozenset({QUEUED, IN_PROGRESS})
#: What a retry configuration may answer to, besides ALL.
RETRIABLE = frozenset({FAILED, TIMED_OUT})

NO_DETAILS: Mapping[str, str] = MappingProxyType({})

TerminalUpdateCode = Literal["InvalidStateTransition", "TerminalStateReached"]
#: (job id, execution number): what an execution is called within its thing.
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What nobody has seen the live service do for certain; a good agent passes its tests either way.

    Attributes:
        terminal_update_code: the refusal of an update to a terminal execution; InvalidStateTransition comes with
            the stored state, TerminalStateReached without.
        version_first: such an update is refused for its version, if that is wrong too, before its state.
        count_service_changes: TIMED_OUT, CANCELED and REMOVED raise versionNumber too.
        presign: makes the URL that an S3 placeholder in a document becomes, afresh for each delivery; None
            leaves placeholders as they are.
    """

    terminal_update_code: TerminalUpdateCode = "InvalidStateTransition"
    version_first: bool = False
    count_service_changes: bool = False
    presign: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its operator made it.

    Attributes:
        document: any JSON value.
        timeout_minutes: inProgressTimeoutInMinutes; None: executions run without that timer.
        retries: how many retries each of FAILED, TIMED_OUT and ALL gets.
        cancelled: nothing of it is retried any more.
    """

    job_id: str
    document: Any
    timeout_minutes: int | None
    retries: Mapping[str, int]
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of an execution's history: what was stored from `at` on."""

    status: str
    version: int
    details: Mapping[str, str]
    at: float


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution as the service holds it. Frozen: what was asked for earlier does not change afterwards.

    Times are what the clock said; the wire shows their whole seconds.

    Attributes:
        number: executionNumber, 1 for the first attempt.
        started_at: when it first became IN_PROGRESS.
        deadline: when the job's in-progress timer ends it; None when that timer does not run.
        step_deadline: the same for the step timer that the device asked for.
        history: every state it had, oldest first; the last one is the present.
    """

    thing: str
    job_id: str
    number: int
    status: str
    version: int
    details: Mapping[str, str]
    queued_at: float
    updated_at: float
    started_at: float | None
    deadline: float | None
    step_deadline: float | None
    history: tuple[Change, ...]

    @property
    def key(self) -> Key:
        """What the execution is called within its thing."""
        return self.job_id, self.number

    @property
    def pending(self) -> bool:
        """Whether it can still change."""
        return self.status in PENDING

    @property
    def due(self) -> float | None:
        """When it becomes TIMED_OUT: the sooner of its two timers."""
        return min((at for at in (self.deadline, self.step_deadline) if at is not None), default=None)
