"""Request bodies, judged as the service judges them: a `Body`, or `Rejected`. Looks at no state.

Where the documentation leaves room, the strictest reading is taken, so that what passes here passes live:
statusDetails values are limited to 1024 bytes of UTF-8 (the quota says "characters"), an empty payload is not JSON
and members of the wrong type are refused. Unknown members are ignored.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, cast

from thingjobs.testing.records import NO_DETAILS, SETTABLE, STATUSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.testing.records import ExecutionView

#: AWS IoT message broker quotas: the largest payload that a client may publish.
MAX_PAYLOAD_BYTES = 128 * 1024
#: AWS IoT Jobs quotas: pairs in statusDetails, and the length of a value.
MAX_DETAILS = 10
MAX_DETAIL_BYTES = 1024
#: UpdateJobExecution, stepTimeoutInMinutes: seven days; -1 stops the timer.
MAX_TIMEOUT_MINUTES = 10080

JOB_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_DETAIL_KEY = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_LONG = re.compile(r"-?[0-9]{1,18}")


class Rejected(Exception):  # noqa: N818 - named after the topic that the answer goes out on
    """A request is answered on `…/rejected`.

    Attributes:
        code: ErrorResponse code.
        execution: whose state the answer shows as executionState; None: it shows none.
    """

    def __init__(self, code: str, message: str, execution: ExecutionView | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.execution = execution


@dataclass(frozen=True, slots=True)
class Body:
    """The members of a request that mean something to its operation; the rest keep their defaults."""

    details: Mapping[str, str] = field(default_factory=lambda: NO_DETAILS)
    step_minutes: int | None = None
    number: int | None = None
    expected_version: int | None = None
    status: str = ""
    with_document: bool = False
    with_state: bool = False


def decoded(payload: bytes) -> dict[str, object] | None:
    """Return the JSON object in `payload`; None when it is not one."""
    try:
        value = json.loads(payload.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def client_token(body: Mapping[str, object] | None) -> str | None:
    """Return the token to echo; None when there is none that could be.

    A string with a lone surrogate cannot be sent back as UTF-8.
    """
    token = (body or {}).get("clientToken")
    return token if isinstance(token, str) and _encodable(token) else None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def judged_start(body: Mapping[str, object]) -> Body:
    """Judge the body of StartNextPendingJobExecution.

    Raises:
        Rejected: InvalidRequest.
    """
    _check_token(body)
    return Body(details=_details(body), step_minutes=_step_minutes(body))


def judged_get(body: Mapping[str, object]) -> Body:
    """Judge the body of DescribeJobExecution or GetPendingJobExecutions.

    Raises:
        Rejected: InvalidRequest.
    """
    _check_token(body)
    return Body(number=_long(body, "executionNumber"), with_document=_flag(body, "includeJobDocument", default=True))


def judged_update(body: Mapping[str, object]) -> Body:
    """Judge the body of UpdateJobExecution.

    Raises:
        Rejected: InvalidRequest, or InvalidStateTransition for a status that only the service may set.
    """
    _check_token(body)
    return Body(
        details=_details(body),
        step_minutes=_step_minutes(body),
        number=_long(body, "executionNumber"),
        expected_version=_long(body, "expectedVersion"),
        with_document=_flag(body, "includeJobDocument", default=False),
        with_state=_flag(body, "includeJobExecutionState", default=False),
        status=_status(body),
    )


def details_problem(details: object) -> str:
    """Say why `details` cannot be stored as statusDetails; "" when it can."""
    if not isinstance(details, dict):
        return "statusDetails is not a map"
    if len(details) > MAX_DETAILS:
        return f"statusDetails has {len(details)} pairs, more than {MAX_DETAILS}"
    return next(filter(None, (_pair_problem(key, value) for key, value in details.items())), "")


def _pair_problem(key: object, value: object) -> str:
    if not isinstance(key, str) or not _DETAIL_KEY.fullmatch(key):
        return f"statusDetails key {key!a} does not match {_DETAIL_KEY.pattern}"
    if not isinstance(value, str) or not value:
        return f"statusDetails value of {key!a} is not a string of at least 1 character"
    # The model says [^\p{C}]+: no control, format, surrogate, private-use or unassigned characters.
    if any(unicodedata.category(char).startswith("C") for char in value):
        return f"statusDetails value of {key!a} has a character of Unicode category C"
    if len(value.encode()) > MAX_DETAIL_BYTES:
        return f"statusDetails value of {key!a} is longer than {MAX_DETAIL_BYTES} bytes"
    return ""


def _details(body: Mapping[str, object]) -> Mapping[str, str]:
    details = body.get("statusDetails")
    if details is None:
        return NO_DETAILS
    if problem := details_problem(details):
        raise Rejected("InvalidRequest", problem)
    return cast("Mapping[str, str]", details)


def _status(body: Mapping[str, object]) -> str:
    status = body.get("status")
    if status is None:
        raise Rejected("InvalidRequest", "value null at 'status': every update must name one")
    if not isinstance(status, str) or status not in STATUSES:
        raise Rejected("InvalidRequest", f"value {status!a} at 'status' is no status of a job execution")
    if status not in SETTABLE:
        # Measured against the live service in 2026-09: this code, and no executionState with it.
        raise Rejected("InvalidStateTransition", f"a device cannot set the status {status}")
    return status


def _step_minutes(body: Mapping[str, object]) -> int | None:
    minutes = _long(body, "stepTimeoutInMinutes")
    if minutes is not None and minutes != -1 and not 1 <= minutes <= MAX_TIMEOUT_MINUTES:
        raise Rejected("InvalidRequest", f"stepTimeoutInMinutes {minutes} is not 1..{MAX_TIMEOUT_MINUTES} or -1")
    return minutes


def _long(body: Mapping[str, object], name: str) -> int | None:
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    # The documentation quotes expectedVersion in its examples, and so does the embedded C library.
    if isinstance(value, str) and _LONG.fullmatch(value):
        return int(value)
    raise Rejected("InvalidRequest", f"value {value!a} at '{name}' is not a whole number")


def _flag(body: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Rejected("InvalidRequest", f"value {value!a} at '{name}' is neither true nor false")
    return value


def _check_token(body: Mapping[str, object]) -> None:
    if body.get("clientToken") is not None and client_token(body) is None:
        raise Rejected("InvalidRequest", "clientToken is not a string")
