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
#: "Authenticating requests: using query parameters"; AWS IoT Core, "Custom authentication"; and credentials, as the AWS
#: SDKs read them from variables, and as the credentials provider and job.json spell them.
_IS = r"(\\?[\"']?\s?[=:]\s?\\?[\"']?)"
_NAMED = re.compile(
    r"(x-amz-[a-z-]{0,40}(?:signature|credential|token)|awsaccesskeyid|secret_?access_?key|session_?token)"
    rf"{_IS}[^\s&\\\"',}}]+",
    re.IGNORECASE,
)
#: RFC 9110, 11.6.2 and 11.7.2: a scheme, and all that follows on the line.
_HEADER = re.compile(
    rf"(authorization){_IS}(?:basic|bearer|digest|negotiate|aws4-hmac-sha256)\s[^\r\n\\\"']*", re.IGNORECASE
)
#: Without one of them, in lower case, there is nothing to leave out.
SIGNS = ("://", "x-amz-", "awsaccesskeyid", "secret", "session", "authorization", "private key-----")
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
    if any(sign in lower for sign in SIGNS):
        text = _HEADER.sub(r"\1\2…", _NAMED.sub(r"\1\2…", text))
    return _KEY.sub("(a private key was here)", text) if _END_OF_MARK in text else text


def _discreet_word(word: str) -> str:
    if "://" not in word:
        return word
    return redacted(word) if len(word) <= _LONGEST_WORD else "(a long URL was here)"


def redacted_json(value: Any) -> Any:
    """Return a JSON value with all its strings redacted, names of members included."""
    match value:
        case str():
            return discreet(value)
        case list():
            return [redacted_json(entry) for entry in value]
        case dict():
            return {redacted_json(key): redacted_json(entry) for key, entry in value.items()}
        case _:
            return value
