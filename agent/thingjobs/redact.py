"""Keeping credentials out of what people read: the query string of a presigned URL is one. Pure."""

from __future__ import annotations

import re
from typing import Any

#: A URL's scheme; user and password; host and path; query string with all that follows. The scheme is bounded: an
#: endless word would else be tried from each of its letters.
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)([^/?#\s\"'@]*@)?([^?#\s\"']*)([?#][^\s\"']*)?", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return `text` in which no URL has its query string, user or password."""
    return _URL.sub(lambda found: f"{found[1]}{'…@' * bool(found[2])}{found[3]}{'?…' * bool(found[4])}", text)


def redacted_json(value: Any) -> Any:
    """Return a JSON value with all its strings redacted."""
    match value:
        case str():
            return redacted(value)
        case list():
            return [redacted_json(entry) for entry in value]
        case dict():
            return {key: redacted_json(entry) for key, entry in value.items()}
        case _:
            return value
