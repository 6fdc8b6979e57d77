"""The AWS IoT Jobs data plane over HTTP (`iot-jobs-data`) to values and back. Pure; any HTTP library can carry it.

The members are those of MQTT, so `wire` reads and writes them. Different are: the path and the query are a part of
the request, a job document is a string of JSON, nothing has a clientToken, refusals are exceptions with an HTTP
status, and a conflict does not show what is stored.

An answer counts only if the Jobs service gave it. Whatever sits in between (a portal, a proxy, the balancer of a
service that is down) also has status codes, and a 404 of theirs must not end a job: so without the service's own
words for it, no status means anything.

Sources: service model of iot-jobs-data 2017-09-29; AWS IoT Jobs device HTTPS API; authorization of HTTPS requests
(`iotjobsdata:` actions) in the AWS IoT developer guide.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, assert_never
from urllib.parse import quote

from thingjobs import wire
from thingjobs.errors import TransportError, WireError
from thingjobs.jobs import Describe, Described, DescribeNext, GetPending, Pending, Refusal, Refused, State, Update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.jobs import Reply, Request
    from thingjobs.model import Json, ThingName
    from thingjobs.ports import Shadow

#: A document of 32 KiB as a string in JSON, each byte of it escaped, and its presigned URLs.
MAX_ANSWER_BYTES = 512 * 1024

_REFUSALS = {
    "InvalidRequest": Refusal.INVALID_REQUEST,
    "InvalidStateTransition": Refusal.INVALID_STATE_TRANSITION,
    "ResourceNotFound": Refusal.RESOURCE_NOT_FOUND,
    "TerminalState": Refusal.TERMINAL_STATE_REACHED,
    "TerminalStateReached": Refusal.TERMINAL_STATE_REACHED,
    "VersionMismatch": Refusal.VERSION_MISMATCH,
    "VersionConflict": Refusal.VERSION_MISMATCH,
    "Conflict": Refusal.VERSION_MISMATCH,
    "Throttling": Refusal.REQUEST_THROTTLED,
    "RequestThrottled": Refusal.REQUEST_THROTTLED,
    "ServiceUnavailable": Refusal.INTERNAL_ERROR,
    "InternalError": Refusal.INTERNAL_ERROR,
    "InternalFailure": Refusal.INTERNAL_ERROR,
    "InternalServer": Refusal.INTERNAL_ERROR,
}
#: What the service says of a host or a path that is not its own.
_ELSEWHERE = frozenset({"UnknownOperation", "UnknownHost"})
#: Whose certificate this is, and what it may, is not for the Jobs service to repair: somebody has to.
_DENIED = frozenset({"CertificateValidation", "AccessDenied", "Forbidden", "Unauthorized"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request over HTTP.

    Attributes:
        path: percent-encoded; what follows the host, the query included.
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class DeniedError(TransportError):
    """The service will not do this for us: the certificate, its policy, the signature or the clock is wrong."""


def call_for(request: Request, thing: ThingName) -> Call:
    """Return the call for a request, percent-encoded as the AWS SDKs do it."""
    jobs = f"/things/{quote(thing, safe='-_.~')}/jobs"
    match request:
        case GetPending():
            return Call("GET", jobs)
        case DescribeNext():
            return Call("GET", f"{jobs}/%24next")
        case Describe(_, job_id, number, with_document):
            with_it = "true" if with_document else "false"
            return Call("GET", f"{jobs}/{job_id}?executionNumber={number}&includeJobDocument={with_it}")
        case Update():
            members = wire.parse(wire.encode(request))
            del members["clientToken"]
            return Call("POST", f"{jobs}/{request.job_id}", json.dumps(members, separators=(",", ":")).encode())
        case _:
            assert_never(request)


def shadow_call(shadow: Shadow, thing: ThingName) -> Call:
    """Return the call of UpdateThingShadow (API reference, AWS IoT Data Plane) for a named shadow."""
    path = f"/things/{quote(thing, safe='-_.~')}/shadow?name={quote(shadow.name, safe='-_.~')}"
    return Call("POST", path, shadow.document)


def operation_of(request: Request) -> str:
    """Return the name of the API's operation; policies allow it as `iotjobsdata:NAME`."""
    match request:
        case GetPending():
            return "GetPendingJobExecutions"
        case Update():
            return "UpdateJobExecution"
        case _:
            return "DescribeJobExecution"


# --- answers ------------------------------------------------------------------------------------------------------


def read(request: Request, answer: Answer) -> Reply:
    """Return the reply that an answer is to `request`.

    Raises:
        DeniedError: we may not do this.
        TransportError: it was not the Jobs service that answered.
        WireError: it was, and what it said makes no sense.
    """
    body = _body(answer)
    code = _code(answer, body)
    if answer.status == 200 and not code:
        return _accepted(request, answer, body)
    message = _message(body)
    if answer.status in (401, 403) or code.removesuffix("Exception") in _DENIED:
        raise DeniedError(f"{answer.status} {code}: {message}".rstrip(": "))
    if not (code or "x-amzn-requestid" in answer.headers) or code.removesuffix("Exception") in _ELSEWHERE:
        raise _strange(answer, code)
    return Refused(request.token, _refusal(code, answer.status), message, text=code or f"HTTP {answer.status}")


def _accepted(request: Request, answer: Answer, body: Json | None) -> Reply:
    if body is None:
        raise _senseless(answer)
    reply = wire.decode_accepted(request, body)
    # An empty object answers a request for the next execution; as the answer to anything else it is none.
    missing = (isinstance(reply, Pending) and "queuedJobs" not in body and "inProgressJobs" not in body) or (
        isinstance(request, Describe) and isinstance(reply, Described) and reply.execution is None
    )
    if missing:
        raise WireError(f"cannot read the answer to {operation_of(request)}: it lacks what was asked for")
    return reply


def _senseless(answer: Answer) -> WireError | TransportError:
    """Return whose fault it is that an answer is no JSON: the service's, or that of somebody in between."""
    if "json" in answer.headers.get("content-type", "") or "x-amzn-requestid" in answer.headers:
        return WireError("cannot read an answer: it is not a whole JSON object")
    return _strange(answer)


def _strange(answer: Answer, code: str = "") -> TransportError:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    said = " ".join(filter(None, (str(answer.status), code, kind)))
    return TransportError(
        f"it is not the Jobs service that answers ({said}); is connection.endpoint that of iot:Data-ATS, and is a "
        "proxy or a portal in between?"
    )


def _body(answer: Answer) -> Json | None:
    """Return the JSON object of an answer; None if it is none."""
    try:
        return wire.parse(answer.body)
    except WireError:
        return None


def _code(answer: Answer, body: Json | None) -> str:
    """Return the exception in an answer; "" if there is none.

    A host that is not the Jobs service's may say 200, and the exception only in the body, under `Output`.
    """
    found: object = answer.headers.get("x-amzn-errortype")
    if not found and body is not None:
        output = body.get("Output")
        found = body.get("code") or body.get("__type") or (output.get("__type") if isinstance(output, dict) else "")
    return found.partition(":")[0].rpartition("#")[2][:100] if isinstance(found, str) else ""


def _message(body: Json | None) -> str:
    said = (body or {}).get("message") or (body or {}).get("Message")
    return " ".join(said.split())[:500] if isinstance(said, str) else ""


def _refusal(code: str, status: int) -> Refusal:
    """Return which refusal it is: by its name, and by its status only if the name says nothing."""
    found = _REFUSALS.get(code.removesuffix("Exception"))
    if found is not None:
        return found
    if status == 409:
        return Refusal.VERSION_MISMATCH
    if status == 429:
        return Refusal.REQUEST_THROTTLED
    return Refusal.INTERNAL_ERROR if status >= 500 else Refusal.UNKNOWN


# --- conflicts ----------------------------------------------------------------------------------------------------

#: What an update that came too late may be refused with. The service model has no exception for a stale version, and
#: an emulator that was compared with the live service says InvalidRequestException.
_DOUBTFUL = frozenset({Refusal.INVALID_STATE_TRANSITION, Refusal.VERSION_MISMATCH, Refusal.INVALID_REQUEST})


def doubt(request: Request, reply: Reply) -> Describe | None:
    """Return what to ask before a refusal can be believed; None if it can.

    Whether the version was stale, the execution is over, or the update is wrong in itself, shows in what is stored.
    MQTT tells that with the refusal.
    """
    if not isinstance(request, Update) or not isinstance(reply, Refused) or reply.code not in _DOUBTFUL:
        return None
    return Describe(request.token, request.job_id, request.number)


def settled(request: Update, refused: Refused, found: Reply) -> Refused:
    """Return the refusal of an update as MQTT would have told it.

    Args:
        request: what was refused.
        refused: how.
        found: the answer to the question that `doubt` raised.
    """
    match found:
        case Described(_, execution) if execution is not None:
            state = State(execution.status, execution.version, execution.details)
            if not state.status.terminal and state.version != request.expected_version:
                return replace(refused, code=Refusal.VERSION_MISMATCH, state=state)
            if state.status.terminal or refused.code is not Refusal.INVALID_REQUEST:
                return replace(refused, code=Refusal.INVALID_STATE_TRANSITION, state=state)
            return refused
        case Refused():
            return found  # It is over, it is gone, or nobody can tell now: then the update is sent again later.
        case _:
            return refused
