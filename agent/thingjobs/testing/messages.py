"""What goes into and out of the simulated service: messages, requests as received, faults. Values only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from thingjobs.testing.validation import JOB_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What stands where a job id would in a request for the head of the queue.
NEXT = "$next"
#: Legal job ids whose topics are taken by operations and notifications: nobody can ask for them over MQTT.
UNROUTABLE = frozenset({"get", "start-next", "notify", "notify-next"})


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message of the service: an answer or a notification.

    Attributes:
        suffix: the topic after `$aws/things/THING/jobs/`, for example `J/update/accepted` or `notify-next`.
        payload: a JSON object in UTF-8.
    """

    thing: str
    suffix: str
    payload: bytes

    @property
    def topic(self) -> str:
        """The whole topic."""
        return f"$aws/things/{self.thing}/jobs/{self.suffix}"

    @property
    def accepted(self) -> bool:
        """Whether this answers a request with yes."""
        return self.suffix.endswith("/accepted")

    @property
    def body(self) -> dict[str, Any]:
        """The payload, parsed afresh."""
        parsed: dict[str, Any] = json.loads(self.payload)
        return parsed


class Operation(StrEnum):
    """The operations of the device side, by their names in the API."""

    GET_PENDING = "GetPendingJobExecutions"
    START_NEXT = "StartNextPendingJobExecution"
    DESCRIBE = "DescribeJobExecution"
    UPDATE = "UpdateJobExecution"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it reached the service, whatever became of it.

    Attributes:
        job_id: as the topic has it, `$next` included; "" for an operation without one.
        body: the JSON object; None when the payload was not one.
        at: when, by the service's clock.
    """

    thing: str
    suffix: str
    operation: Operation
    job_id: str
    body: Mapping[str, Any] | None
    at: float


def routed(suffix: str) -> tuple[Operation, str] | None:
    """Return the operation and job id that `suffix` asks for; None when it is no request."""
    if suffix == "get":
        return Operation.GET_PENDING, ""
    if suffix == "start-next":
        return Operation.START_NEXT, ""
    job_id, slash, verb = suffix.partition("/")
    if not slash or job_id in UNROUTABLE:
        return None
    if verb == "get" and (job_id == NEXT or JOB_ID.fullmatch(job_id)):
        return Operation.DESCRIBE, job_id
    if verb == "update" and JOB_ID.fullmatch(job_id):
        return Operation.UPDATE, job_id
    return None


@dataclass(frozen=True, slots=True)
class Refuse:
    """A fault: the request is answered on `…/rejected` and changes nothing.

    Attributes:
        code: an ErrorResponse code such as RequestThrottled or InternalError, or one that nobody knows.
    """

    code: str
    message: str = "refused on purpose"


class Lost(Enum):
    """A fault: what got lost on the way. The device hears nothing either way."""

    #: Nothing happened.
    REQUEST = "request"
    #: The request was carried out; only its answer is lost, notifications are not.
    REPLY = "reply"


Fault = Refuse | Lost
