"""What a server's reply means for a download that may have begun before: RFC 9110, sections 13, 14 and 15. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: No file has more bytes, and Python refuses to read numbers of thousands of digits.
_COUNT = "([0-9]{1,30})"
_CONTENT_RANGE = re.compile(rf"bytes {_COUNT}-{_COUNT}/{_COUNT}", re.IGNORECASE)
_UNSATISFIED_RANGE = re.compile(rf"bytes \*/{_COUNT}", re.IGNORECASE)
#: What S3 says, as 403 or as 400, of a URL whose time is over, or whose credentials' time is.
_EXPIRED = re.compile(rb"Request has expired|ExpiredToken|Token has expired", re.IGNORECASE)
#: Of those below 500.
_NOT_NOW = (408, 425, 429)
_REFUSALS = {
    401: "the server wants credentials that the URL does not bring (401)",
    404: "there is no such file (404)",
}
_LONGEST_RETRY_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one version of a file from another.

    Attributes:
        etag: the entity tag with its quotes; "" if the server gives none.
        modified: Last-Modified as the server wrote it, but only where it is as good as a tag.
        total: bytes of the whole file; None: not told.
    """

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range may name: a strong tag, or a date if there is no tag at all."""
        return self.etag if self.etag.startswith('"') else "" if self.etag else self.modified


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a reply.

    Attributes:
        headers: by names that do not mind their case.
        body: the first bytes of one that brings no file.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Body:
    """The file follows, from `offset` on."""

    offset: int
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Anew:
    """What is here already cannot be gone on with: ask for all of it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """There is no more to come."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The URL is not good any more; perhaps a fresh one is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """Not now; `after` is in seconds, None: the server does not say."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """No other try will do better."""

    reason: str


Verdict = Body | Anew | Whole | Expired | Later | Refused


def conditions(offset: int, stamp: Stamp) -> dict[str, str]:
    """Return the headers that ask for the rest of a file, of the same version if that can be said."""
    if not offset:
        return {}
    return {"Range": f"bytes={offset}-"} | ({"If-Range": stamp.validator} if stamp.validator else {})


def judge(head: Head, offset: int, stamp: Stamp, *, now: float) -> Verdict:
    """Say what a reply means.

    Args:
        head: the reply.
        offset: from where on the file was asked for.
        stamp: of which version what comes before `offset` is.
        now: seconds since the epoch, for a Retry-After that names a time.
    """
    match head.status:
        case 200:
            return Body(0, _stamp(head, _number(head.headers.get("Content-Length"))))
        case 206 if offset:
            return _rest(head, offset, stamp)
        case 416 if offset:
            found = _UNSATISFIED_RANGE.fullmatch(head.headers.get("Content-Range", "").strip())
            return Whole() if found and int(found[1]) == offset and _same(head, stamp) else Anew()
        case _:
            return refusal(head, now)


def refusal(head: Head, now: float) -> Expired | Later | Refused:
    """Say what a reply means that does not bring what was asked for."""
    status = head.status
    if status == 403:
        return Expired("the server refuses it (403); a presigned URL may have expired")
    if status == 400 and _EXPIRED.search(head.body):
        return Expired("the URL has expired (400)")
    if status >= 500 or status in _NOT_NOW:
        return Later(f"the server answered {status}", _retry_after(head, now))
    return Refused(_REFUSALS.get(status, f"the server answered {status}"))


def _rest(head: Head, offset: int, stamp: Stamp) -> Verdict:
    found = _CONTENT_RANGE.fullmatch(head.headers.get("Content-Range", "").strip())
    if found is None:
        return Anew()
    first, last, total = (int(part) for part in found.groups())
    fits = first == offset and first <= last < total and total == (stamp.total or total)
    return Body(offset, Stamp(stamp.etag, stamp.modified, total)) if fits and _same(head, stamp) else Anew()


def _same(head: Head, stamp: Stamp) -> bool:
    """Return whether a reply to a condition is of the version that was asked for; a missing tag says nothing."""
    etag = head.headers.get("ETag", "")
    return not etag or not stamp.etag or etag == stamp.etag


def _stamp(head: Head, total: int | None) -> Stamp:
    modified, date = head.headers.get("Last-Modified", ""), head.headers.get("Date", "")
    times = _seconds(modified), _seconds(date)
    strong = times[0] is not None and times[1] is not None and times[1] - times[0] >= 1  # RFC 9110, 8.8.2.2
    return Stamp(head.headers.get("ETag", ""), modified if strong else "", total)


def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_after(head: Head, now: float) -> float | None:
    said = head.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said), _LONGEST_RETRY_AFTER_S)
    at = _seconds(said)
    return None if at is None else min(max(at - now, 0.0), _LONGEST_RETRY_AFTER_S)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(_COUNT, text) else None
