"""JSON of the AWS IoT Jobs MQTT API to values and back, with every limit of the service kept on our side.

Nothing here decides what to do with a message. What cannot be understood raises WireError; what we send is always
legal, because one illegal status detail would lose the whole update, the status included.

Sources: AWS IoT Jobs device MQTT API (operations, ErrorResponse, JobExecution data types) and the service quotas of
AWS IoT Device Management: 10 detail pairs, keys 1..128 of [a-zA-Z0-9:_-], values 1..1024 without any character of
the Unicode categories C*.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NoReturn

from thingjobs.errors import WireError
from thingjobs.jobs import (
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    State,
    Summary,
    Update,
    Updated,
)
from thingjobs.model import Execution, Identity, JobId, Status
from thingjobs.redact import discreet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.jobs import Notification, Reply, Request
    from thingjobs.model import Json

MAX_PAIRS = 10
#: The quota does not say of what: characters, UTF-16 units or bytes. Bytes are the strictest reading.
MAX_VALUE_BYTES = 1024
MAX_PAYLOAD_BYTES = 128 * 1024
#: A job document that is nested deeper is none: Python reads and writes JSON with its own stack, and ours is not empty.
MAX_DOCUMENT_DEPTH = 100
_KEY = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_BREAKS = str.maketrans({"\r": None, "\n": " ⏎ ", "\u2028": " ⏎ ", "\u2029": " ⏎ ", "\t": " "})
#: A timestamp above this is in milliseconds: some examples in the service's documentation are.
_MILLISECONDS_FROM = 1e11
_NUMBER_TEXT = re.compile(r"-?[0-9]{1,18}")
#: The start of a job document, a string, or a bracket.
_PART = re.compile(r'("jobDocument"\s*:\s*)(?=[\[{])|"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
_REFUSALS = {refusal.value: refusal for refusal in Refusal}
#: ErrorResponse: codes of requests that were never carried out, because they could not be read.
_OF_MESSAGE = frozenset({Refusal.INVALID_JSON, Refusal.INVALID_REQUEST, Refusal.INVALID_TOPIC})


# --- status details -----------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Return `text` with line breaks shown as ⏎ and without any character that a status detail may not hold."""
    text = unicodedata.normalize("NFC", text.strip("\r\n")).translate(_BREAKS)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c)[0] != "C")


def head(text: str, limit: int = MAX_VALUE_BYTES) -> str:
    """Return the first `limit` UTF-8 bytes of `text`, cut between two characters; for reasons."""
    return text.encode()[:limit].decode(errors="ignore")


def tail(text: str, limit: int = MAX_VALUE_BYTES) -> str:
    """Return the last `limit` UTF-8 bytes of `text`, cut between two characters; for output."""
    return text.encode()[-limit:].decode(errors="ignore")


#: What is kept of these is the end: the last line of an output says why.
TAILS = frozenset({"stdout", "stderr"})


def legal_details(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Return the pairs that the service will store: ours first, then the handler's while there is room.

    Values are cleaned, freed of credentials and cut; a pair whose value is empty after that, or whose key is illegal,
    is left out; the handler cannot replace a pair of ours, nor fill one that we leave empty.
    """
    legal: dict[str, str] = {}
    for key, raw in [*ours.items(), *((key, raw) for key, raw in theirs.items() if key not in ours)]:
        if len(legal) == MAX_PAIRS:
            break
        if key in legal or not _KEY.fullmatch(key):
            continue
        text = clean(discreet(raw))
        value = (tail(text) if key in TAILS else head(text)).strip()
        if value:
            legal[key] = value
    return legal


# --- requests -----------------------------------------------------------------------------------------------------


def encode(request: Request) -> bytes:
    """Return the payload of `request`."""
    body: Json
    match request:
        case GetPending() | DescribeNext():
            body = {}
        case Update():
            body = _update(request)
        case _:
            body = {"executionNumber": request.number, "includeJobDocument": request.with_document}
    return json.dumps({**body, "clientToken": request.token}, separators=(",", ":"), allow_nan=False).encode()


def _update(request: Update) -> Json:
    body: Json = {
        "status": request.status.value,
        "expectedVersion": request.expected_version,
        "executionNumber": request.number,
        "includeJobExecutionState": True,
    }
    if request.details:
        body["statusDetails"] = dict(request.details)
    if request.step_timeout_minutes is not None:
        body["stepTimeoutInMinutes"] = request.step_timeout_minutes
    if request.with_document:
        body["includeJobDocument"] = True
    return body


# --- replies and notifications ------------------------------------------------------------------------------------


def parse(payload: bytes) -> Json:
    """Return the JSON object in `payload`.

    A job document that JSON allows but Python does not read (nested beyond its stack, or with whole numbers beyond
    4300 digits) or could not write again (1e999) becomes null: it must not cost the message, or the job could never be
    refused and blocked the queue.

    Raises:
        WireError: it is not UTF-8, not JSON, not an object, or nested beyond reason.
    """
    try:
        text = payload.decode()
        try:
            body = loads(text)
        except (ValueError, RecursionError):
            body = loads(_without_document(text))
    except (ValueError, RecursionError) as error:
        raise WireError(f"cannot read a message: {error}") from None
    if not isinstance(body, dict):
        raise WireError("cannot read a message: it is not a JSON object")
    return body


def loads(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the JSON in `text`, and nothing that JSON does not have or that could not be written again.

    Args:
        text: what was received.
        pairs: makes an object of its names and values; None: a dict.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: it is nested beyond the stack.
    """
    return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant, parse_float=_finite)


def _without_document(text: str) -> str:
    """Return a message with null where its job document stands, found without reading it."""
    depth = start = level = 0
    for part in _PART.finditer(text):
        if part[1] and not start and depth <= 2:
            start, level = part.end(), depth
        elif part[2]:
            depth += 1
        elif part[3]:
            depth -= 1
            if start and depth == level:
                return f"{text[:start]}null{text[part.end() :]}"
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    """Refuse what Python reads as infinite: it would reach job.json as `Infinity`, which is not JSON."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is larger than any number that can be kept")
    return number


def token_of(body: Json) -> str | None:
    """Return the clientToken of a message, None when it has none."""
    token = body.get("clientToken")
    return token if isinstance(token, str) else None


def is_of_message(body: Json) -> bool:
    """Return whether a refusal is about how a request was written, and not about an execution."""
    return _text(body, "code") in _OF_MESSAGE


def decode_accepted(request: Request, body: Json) -> Reply:
    """Return the reply that `body` is to `request`.

    Raises:
        WireError: the body lacks what the operation must answer with.
    """
    match request:
        case GetPending(token):
            return Pending(token, _summaries(body.get("inProgressJobs")), _summaries(body.get("queuedJobs")))
        case Update(token):
            return Updated(token, _state(body.get("executionState")), document_of(body.get("jobDocument")))
        case _:
            return Described(request.token, _execution(body))


def decode_refused(request: Request, body: Json) -> Refused:
    """Return the refusal that `body` is to `request`; a code that we do not know becomes UNKNOWN.

    Raises:
        WireError: executionState is there but makes no sense.
    """
    text = _text(body, "code")
    code = _REFUSALS.get(text, Refusal.UNKNOWN)
    state = _state(body.get("executionState"))
    return Refused(request.token, code, _text(body, "message"), state, text)


def decode_next(body: Json) -> NextChanged:
    """Return the notification `notify-next`; without an `execution` nothing is pending.

    Raises:
        WireError: the execution makes no sense.
    """
    return NextChanged(_execution(body))


def decode_list(body: Json) -> Notification:
    """Return the notification `notify`; a status without entries is normally left out.

    Raises:
        WireError: an entry makes no sense.
    """
    jobs = body.get("jobs")
    if not isinstance(jobs, dict):
        raise WireError("cannot read a notify message: it has no jobs")
    return ListChanged(_summaries(jobs.get("IN_PROGRESS")), _summaries(jobs.get("QUEUED")))


def document_of(value: object) -> Json | None:
    """Return a job document: an object over MQTT, a string of JSON over HTTPS.

    None when it is neither, or nested deeper than anything that means something.
    """
    if isinstance(value, str):
        try:
            value = loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) and not _deep(value) else None


def _deep(value: object) -> bool:
    level, depth = [value], 0
    while level and depth < MAX_DOCUMENT_DEPTH:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level, depth = [part for parts in inner for part in parts], depth + 1
    return any(isinstance(one, (dict, list)) for one in level)


def _execution(body: Json) -> Execution | None:
    raw = body.get("execution")
    if raw is None or raw == {}:
        return None
    if not isinstance(raw, dict):
        raise WireError("cannot read an execution: it is not an object")
    seconds_left = raw.get("approximateSecondsBeforeTimedOut")
    return Execution(
        identity=_identity(raw),
        status=_status(raw),
        version=_whole(raw, "versionNumber"),
        details=_details(raw.get("statusDetails")),
        document=document_of(raw.get("jobDocument")),
        seconds_left=None if seconds_left is None else _whole(raw, "approximateSecondsBeforeTimedOut"),
    )


def _summaries(value: object) -> tuple[Summary, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise WireError("cannot read a list of executions: it is not a list of objects")
    return tuple(Summary(_identity(entry), _whole(entry, "versionNumber")) for entry in value)


def _state(value: object) -> State | None:
    if not isinstance(value, dict) or not value:
        return None
    return State(_status(value), _whole(value, "versionNumber"), _details(value.get("statusDetails")))


def _identity(raw: Json) -> Identity:
    seconds = _number(raw, "queuedAt")
    if seconds > _MILLISECONDS_FROM:
        seconds /= 1000
    try:
        return Identity(JobId(_text(raw, "jobId")), _whole(raw, "executionNumber"), int(seconds))
    except ValueError as error:
        raise WireError(f"cannot read an execution: {error!s:.200}") from None


def _status(raw: Json) -> Status:
    try:
        return Status(_text(raw, "status"))
    except ValueError as error:
        raise WireError(f"cannot read an execution: {error!s:.200}") from None


def _details(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _text(raw: Json, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _whole(raw: Json, key: str) -> int:
    return int(_number(raw, key))


def _number(raw: Json, key: str) -> float:
    value: Any = raw.get(key)
    # The documentation quotes numbers in some of its examples.
    if isinstance(value, str) and _NUMBER_TEXT.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= 2**63:
        raise WireError(f"cannot read an execution: {key} is no number that a service would send")
    return value
