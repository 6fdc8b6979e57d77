"""The device side of the AWS IoT Jobs API as values: requests, replies and notifications.

Transports carry them, `wire` turns them into JSON and back, the machine decides on them. The names follow the
operations of the API: GetPendingJobExecutions, DescribeJobExecution, UpdateJobExecution, JobExecutionsChanged and
NextJobExecutionChanged. StartNextPendingJobExecution is not used: it is not exclusive, an update with
expectedVersion is.

`token` is the clientToken: fresh for each attempt, so that a late reply never answers a later request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.model import Execution, Identity, JobId, Json, Status


@dataclass(frozen=True, slots=True)
class GetPending:
    """GetPendingJobExecutions: the list of what waits, without documents."""

    token: str


@dataclass(frozen=True, slots=True)
class DescribeNext:
    """DescribeJobExecution of `$next`: the head of the queue with its document; changes nothing."""

    token: str


@dataclass(frozen=True, slots=True)
class Describe:
    """DescribeJobExecution of one execution."""

    token: str
    job_id: JobId
    number: int
    with_document: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """UpdateJobExecution, always with expectedVersion, executionNumber and includeJobExecutionState.

    Attributes:
        details: the complete set to store; an empty one leaves the stored ones as they are.
        step_timeout_minutes: 1..10080 to (re)start the step timer; None leaves it alone.
    """

    token: str
    job_id: JobId
    number: int
    expected_version: int
    status: Status
    details: Mapping[str, str]
    step_timeout_minutes: int | None = None
    with_document: bool = False


Request = GetPending | DescribeNext | Describe | Update


class Refusal(StrEnum):
    """The error codes of the Jobs MQTT API (ErrorResponse), and one for all that is not among them."""

    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_STATE_TRANSITION = "InvalidStateTransition"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    VERSION_MISMATCH = "VersionMismatch"
    INTERNAL_ERROR = "InternalError"
    REQUEST_THROTTLED = "RequestThrottled"
    TERMINAL_STATE_REACHED = "TerminalStateReached"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class State:
    """What the service stores of an execution (JobExecutionState)."""

    status: Status
    version: int
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a list of pending executions (JobExecutionSummary)."""

    identity: Identity
    version: int


@dataclass(frozen=True, slots=True)
class Pending:
    """Reply to GetPending: at most 10 (15) entries, in the service's order."""

    token: str
    in_progress: tuple[Summary, ...]
    queued: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """Reply to DescribeNext and Describe; `execution` is None when nothing is pending."""

    token: str
    execution: Execution | None


@dataclass(frozen=True, slots=True)
class Updated:
    """Reply to Update: it was applied."""

    token: str
    state: State | None
    document: Json | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused a request.

    Attributes:
        state: what is stored, told with VersionMismatch and InvalidStateTransition only, and not always then.
        text: the code as it stood on the wire, also when it is one that we do not know.
    """

    token: str
    code: Refusal
    message: str = ""
    state: State | None = None
    text: str = ""


Reply = Pending | Described | Updated | Refused


@dataclass(frozen=True, slots=True)
class NextChanged:
    """Notification `notify-next`: the head of the queue is another one, or the queue is empty."""

    execution: Execution | None


@dataclass(frozen=True, slots=True)
class ListChanged:
    """Notification `notify`: an execution came to or left the list of pending ones."""

    in_progress: tuple[Summary, ...]
    queued: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Connected:
    """The transport is up: connected, subscribed and ready for requests. Sent after every (re)connect."""


#: The reason of an end that the core wanted, by Reconnect: nothing is wrong.
RENEWED = "a new connection was asked for"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The transport is down; requests without a reply will get none. `reason` is for people."""

    reason: str


Notification = NextChanged | ListChanged
Incoming = Reply | Notification | Connected | Disconnected
