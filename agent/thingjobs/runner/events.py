"""The JSON lines that a handler appends to $JOB_EVENTS, read and folded together. Pure.

`{"progress": 40, "message": "writing slot b", "details": {"slot": "b"}}`; a line may also hold `reason` and `code`
(why the verb fails, if it does), `reject` (never try this here), `after` (seconds, with exit code 75) and `refresh`
(`"params"`: the handler asks for its parameters anew; `"cloud"`: for credentials, with the id of an access key that is
not taken any more as `refused`). What is not understood is counted and left out: a handler cannot break its own report.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from thingjobs.wire import TAILS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.model import Identity, Json

#: A line longer than this is not kept; the rest of it is skipped.
MAX_LINE_BYTES = 64 * 1024
MAX_DETAILS = 32
#: All that was said goes into the journal, which must fit on a full disk; the service takes a quarter of this.
MAX_CHARACTERS = 4096
#: Of an access key's id (STS API reference, Credentials: 16 to 128).
MAX_KEY_ID = 128
#: Stands for a line that was skipped: it is no event either.
_SKIPPED = b"too long"


@dataclass(frozen=True, slots=True)
class Said:
    """All that a verb said so far.

    Attributes:
        refresh: it asked for its parameters anew, and nobody was told yet.
        cloud: it asked for credentials, and nobody was told yet; the id of the access key that is refused, or "".
        broken: lines that were no events.
    """

    percent: float | None = None
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    code: str = ""
    reject: bool = False
    after: float | None = None
    refresh: bool = False
    cloud: str | None = None
    broken: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A verb asks for credentials; `refused` is the id of the access key that is not taken any more, or ""."""

    identity: Identity
    refused: str = ""


NOTHING_SAID = Said()
_KEPT = ("details", "reason", "code", "reject", "after")


def fold(said: Said, line: bytes) -> Said:
    """Return `said` with the event in `line` added; later words replace earlier ones."""
    try:
        # Most of what is none is told at a glance, which matters when there is a flood of it.
        event = json.loads(line) if line.lstrip().startswith(b"{") else None
        if isinstance(event, dict):
            return _folded(said, event)
    except (ValueError, RecursionError):  # Python writes no JSON as deep as it just read: there is our own stack too.
        pass
    return replace(said, broken=said.broken + 1)


def kept(said: Said) -> bytes:
    """Return what must not be lost if the agent dies, as an event that `fold` understands; b"" when there is nothing.

    Percent and message are not among it: they are news, and no part of the result.
    """
    words = {name: value for name in _KEPT if (value := getattr(said, name)) != getattr(NOTHING_SAID, name)}
    return json.dumps(words).encode() + b"\n" if words else b""


def _folded(said: Said, event: Json) -> Said:
    asked = event.get("refresh", "")
    return Said(
        percent=_number(event.get("progress"), said.percent, 100.0),
        message=_text(event.get("message"), said.message),
        details=_details(event.get("details"), said.details),
        reason=_text(event.get("reason"), said.reason),
        code=_text(event.get("code"), said.code),
        reject=event["reject"] is True if "reject" in event else said.reject,
        after=_number(event.get("after"), said.after, 30 * 86400.0),
        # What else can be asked for is another release's to understand.
        refresh=said.refresh or asked == "params",
        cloud=_text(event.get("refused"), "")[:MAX_KEY_ID] if asked == "cloud" else said.cloud,
        broken=said.broken + (not isinstance(asked, str)),
    )


def _number(value: object, before: float | None, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return before
    if isinstance(value, float) and not math.isfinite(value):
        return before
    # Bounded first: a whole number may be too large for a float.
    return float(min(max(value, 0), most))


def _text(value: object, before: str) -> str:
    return value[:MAX_CHARACTERS] if isinstance(value, str) else before


def _details(value: object, before: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return before
    added = {key: _detail(key, content) for key, content in value.items() if len(key) <= MAX_CHARACTERS}
    merged = {**before, **added}
    return dict(list(merged.items())[-MAX_DETAILS:])


def _detail(key: str, content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return text[-MAX_CHARACTERS:] if key in TAILS else text[:MAX_CHARACTERS]


class Lines:
    """Cuts a stream of bytes into lines; an endless line costs no memory."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and complete:
            complete[0] = _SKIPPED
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        # However the stream was cut: a line that came as one piece is not kept either.
        return [line if len(line) <= MAX_LINE_BYTES else _SKIPPED for line in complete if line.strip()]
