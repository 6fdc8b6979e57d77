"""The payload of a signed document: what is asked for, of whom, and until when.

    {"document": {"handler": …}, "things": ["pump-*"], "job": "firmware-42",
     "notBefore": "2027-01-01T00:00:00Z", "notAfter": "2027-02-01T00:00:00Z"}

`things` or `job` must be there, and both hold if both are; `notAfter` must be there. Nothing else may be: an agent
that passed over what it does not know might pass over a restriction.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from thingjobs.documents.shape import kind_of, shown
from thingjobs.errors import DocumentError
from thingjobs.model import JOB_ID_PATTERN, Code
from thingjobs.wire import MAX_DOCUMENT_DEPTH, document_of, loads

if TYPE_CHECKING:
    from thingjobs.model import Json

#: A time service keeps clocks closer than this; `notBefore` is not held against a device whose clock is behind.
SKEW_SECONDS = 300.0

#: A thing's name in which * stands for anything and ? for one character.
THINGS_PATTERN = re.compile(r"[a-zA-Z0-9:_*?-]{1,128}")
MAX_THINGS = 1000
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_KEYS = ("document", "things", "job", "notBefore", "notAfter")


@dataclass(frozen=True, slots=True)
class Claims:
    """What the signer vouches for.

    Attributes:
        document: an ordinary job document, in which `urls` are not filled in.
        things: patterns of the things that it is for; empty: any.
        job: the job that it is for; "": any.
        not_before: seconds since the epoch; None: from ever.
        not_after: seconds since the epoch; then it is good no more.

    Raises:
        ValueError: it is bound to nothing, or is good at no time.
    """

    document: Json
    not_after: float
    things: tuple[str, ...] = ()
    job: str = ""
    not_before: float | None = None

    def __post_init__(self) -> None:
        if not self.things and not self.job:
            raise ValueError('it must say for which things or for which job it is: "things": ["*"] are all')
        if wrong := next((one for one in self.things if not THINGS_PATTERN.fullmatch(one)), None):
            raise ValueError(f"{shown(wrong)} is no name of a thing, nor a pattern of names with * and ?")
        if self.job and not JOB_ID_PATTERN.fullmatch(self.job):
            raise ValueError(f"{shown(self.job)} is not a job id")
        if self.not_before is not None and self.not_before >= self.not_after:
            raise ValueError("notBefore must lie before notAfter")

    def check_addressee(self, thing: str, job: str | None) -> None:
        """Refuse what is for another thing, or another job; a job of None is not known, and not judged.

        Raises:
            DocumentError: document.misdirected.
        """
        if self.things and not any(fnmatchcase(thing, pattern) for pattern in self.things):
            raise _misdirected(f"the document was signed for {_listed(self.things)}, and this thing is {thing}")
        if self.job and job is not None and job != self.job:
            raise _misdirected(f"the document was signed for job {self.job}, and this job is {job}")

    def check_time(self, now: float) -> None:
        """Refuse what is good no more, or not yet.

        Raises:
            DocumentError: document.expired, or document.early.
        """
        if now >= self.not_after:
            said = f"the signature was good until {moment(self.not_after)}; sign the document anew"
            raise DocumentError(Code.DOCUMENT_EXPIRED, said)
        if self.not_before is not None and now + SKEW_SECONDS < self.not_before:
            said = f"the signature is good from {moment(self.not_before)} on; create the job then"
            raise DocumentError(Code.DOCUMENT_EARLY, said)


def read(payload: bytes) -> Claims:
    """Read a payload whose signature was found right.

    Raises:
        DocumentError: document.invalid; it does not say what it must, or says more.
    """
    try:
        return _claims(parsed(payload))
    except ValueError as error:
        raise DocumentError(Code.DOCUMENT_INVALID, f"the signed payload cannot be used: {error}") from None


def written(claims: Claims) -> bytes:
    """Return the payload to sign."""
    raw = {
        "document": claims.document,
        "things": list(claims.things),
        "job": claims.job,
        "notBefore": None if claims.not_before is None else moment(claims.not_before),
        "notAfter": moment(claims.not_after),
    }
    said = {key: value for key, value in raw.items() if value or key == "document"}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def moment(seconds: float) -> str:
    """Return a time as a payload says it, whole seconds of UTC; what lies beyond the year 9999 is its end."""
    last = datetime.max.replace(tzinfo=UTC)
    at = datetime.fromtimestamp(seconds, UTC) if seconds < last.timestamp() else last
    return f"{at.replace(tzinfo=None, microsecond=0).isoformat()}Z"


def seconds_of(text: object) -> float:
    """Return the seconds since the epoch of a time like 2027-01-01T00:00:00Z.

    Raises:
        ValueError: it is not written like that, or there is no such time.
    """
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        raise ValueError(f"a time is written as 2027-01-01T00:00:00Z, and not as {_said(text)}")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"there is no time {text}") from None


def parsed(payload: bytes) -> Any:
    """Return the JSON value; what two readers could read differently is refused.

    Raises:
        ValueError: it is not JSON, says a key twice, or is nested beyond reason.
    """
    try:
        text = payload.decode()
        return loads(text, _once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _claims(raw: object) -> Claims:
    if not isinstance(raw, dict):
        raise ValueError(f"it must be a JSON object, not {kind_of(raw)}")
    if strange := next((key for key in raw if key not in _KEYS), None):
        raise ValueError(f"{shown(strange)} is not a key of it: there are {', '.join(_KEYS)}")
    document = raw.get("document")
    if not isinstance(document, dict):
        raise ValueError(f"document must be a JSON object, not {kind_of(document)}")
    if document_of(document) is None:  # Base64 hid its depth from whoever looked at the message.
        raise ValueError(f"document is nested more than {MAX_DOCUMENT_DEPTH} levels deep")
    return Claims(
        document=document,
        not_after=_time(raw, "notAfter"),
        things=_things(raw["things"]) if "things" in raw else (),
        job=_job(raw["job"]) if "job" in raw else "",
        not_before=_time(raw, "notBefore") if "notBefore" in raw else None,
    )


def _things(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and 0 < len(value) <= MAX_THINGS and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError(f"things must be a list of 1 to {MAX_THINGS} patterns of names")


def _job(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("job must be a job id")


def _time(raw: Json, key: str) -> float:
    try:
        return seconds_of(raw.get(key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it says {shown(twice)} twice in one object")
    return found


def _misdirected(reason: str) -> DocumentError:
    return DocumentError(Code.DOCUMENT_MISDIRECTED, reason)


def _listed(things: tuple[str, ...]) -> str:
    first = ", ".join(things[:3])
    return f"{first} and {len(things) - 3} more" if len(things) > 3 else first


def _said(value: object) -> str:
    return shown(value) if isinstance(value, str) else kind_of(value)
