"""Questions and answers that come before MQTT: with a proxy, and to open a WebSocket. Pure.

A dialogue is a generator: it yields what to send and how to know that the answer is whole, is sent the answer, and
returns what came of it. `dial` carries the bytes and keeps the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: The longest answer that is listened to.
MAX_ANSWER_BYTES = 16 * 1024
_END = b"\r\n\r\n"
_STATUS = re.compile(r"HTTP/1\.[01] (\d{3})(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Ask:
    """What to send, and when the answer is whole.

    Attributes:
        missing: how many bytes are missing at least, given those that came; 0: none. What comes after the answer is
            left unread, as it is for somebody else.
    """

    data: bytes
    missing: Callable[[bytes], int]


#: The answer ends early when the other end closes.
Dialogue = Generator[Ask, bytes, T]


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an HTTP answer.

    Attributes:
        headers: by names in lower case.
        body: as much as came of it.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = b""


def missing_of_head(came: bytes) -> int:
    """Return how many bytes of an HTTP head are missing at least."""
    if _END in came:
        return 0
    # The end may have begun.
    return 4 - next((size for size in (3, 2, 1) if came.endswith(_END[:size])), 0)


def head_of(came: bytes) -> Head | None:
    """Read an HTTP answer; None if it is none."""
    text, end, body = came.partition(_END)
    status, *lines = text.decode("latin-1").split("\r\n")
    found = _STATUS.fullmatch(status)
    if not end or found is None:
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Head(int(found[1]), printable(found[2] or ""), headers, body)


def told(head: Head) -> str:
    """Return status and body of a refusal, in one line for people."""
    body = printable(head.body.decode("utf-8", "replace"))[:200]
    return f"{head.status} {head.reason}".strip() + (f": {body}" if body else "")


def printable(text: str) -> str:
    """Return what another machine said, in one line for people."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
