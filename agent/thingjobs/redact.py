"""Keeping credentials out of what people read: the query string of a presigned URL is one. Pure."""

from __future__ import annotations

import re
from typing import Any

#: A URL's scheme; user and password; host and path; query string with all that follows. The scheme is bounded: an
#: endless word would else be tried from each of its letters.
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)([^/?#\s\"'@]*@)?([^?#\s\"']*)([?#][^\s\"']*)?", re.IGNORECASE)
_WORD = re.compile(r"\S+")
#: Longer ones are no URLs that somebody could use, and looking at them takes the square of their length.
_LONGEST_WORD = 16 * 1024
#: What signs a request, where the rest of its URL was cut off or stands elsewhere: Amazon S3 API reference,
#: "Authenticating requests: using query parameters"; and the variables that the AWS SDKs read.
_NAMED = re.compile(
    r"(x-amz-(?:signature|credential|security-token)|awsaccesskeyid|aws_(?:secret_access_key|session_token))"
    r"(\"?\s?[=:]\s?\"?)[^\s&\"',}]+",
    re.IGNORECASE,
)
_SIGNS = ("x-amz-", "awsaccesskeyid", "aws_se")
_END_OF_MARK = "PRIVATE KEY-----"
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redacted(text: str) -> str:
    """Return `text` in which no URL has its query string, user or password."""
    return _URL.sub(lambda found: f"{found[1]}{'…@' * bool(found[2])}{found[3]}{'?…' * bool(found[4])}", text)


def discreet(text: str) -> str:
    """Return what others wrote, of any length, without what `redacted` hides, private keys and signatures."""
    if "://" in text:
        # A word at a time: looking for a URL in all of a long text can take the square of its length.
        text = _WORD.sub(lambda word: _discreet_word(word[0]), text)
    lower = text.lower()
    if any(sign in lower for sign in _SIGNS):
        text = _NAMED.sub(r"\1\2…", text)
    return _KEY.sub("(a private key was here)", text) if _END_OF_MARK in text else text


def _discreet_word(word: str) -> str:
    if "://" not in word:
        return word
    return redacted(word) if len(word) <= _LONGEST_WORD else "(a long URL was here)"


def redacted_json(value: Any) -> Any:
    """Return a JSON value with all its strings redacted."""
    match value:
        case str():
            return discreet(value)
        case list():
            return [redacted_json(entry) for entry in value]
        case dict():
            return {key: redacted_json(entry) for key, entry in value.items()}
        case _:
            return value
