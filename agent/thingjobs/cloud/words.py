"""Text of others, made fit to be shown or reckoned with. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from thingjobs.redact import redacted

_LONGEST = 300
#: What is wrong with a reason that is not whole.
NO_TEXT = "the reason has halves of characters, or bytes that are no UTF-8"
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


def plain(text: str, longest: int = _LONGEST) -> str:
    """Return what others said on one line, of bearable length, without what URLs may have of secrets."""
    flat = " ".join(_UNSEEN.sub(" ", redacted(text)).split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def is_whole(text: str) -> bool:
    """Return whether UTF-8 can say a text: JSON, and arguments that are no UTF-8, may hold halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def seconds_of(date: str) -> float | None:
    """Return the seconds since the epoch of an HTTP date (RFC 9110, section 5.6.7); None: it is none."""
    try:
        found = parsedate_to_datetime(date)
        return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def moment(text: str | None) -> datetime | None:
    """Return the time that an ISO 8601 text names; None: it names none."""
    try:
        found = datetime.fromisoformat(text or "")
        return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def number(text: str | None) -> int | None:
    """Return a whole number; None: it is none, or longer than any that these services know."""
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text) else None
