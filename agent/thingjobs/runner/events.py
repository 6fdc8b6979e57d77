"""The JSON lines that a handler appends to $JOB_EVENTS, read and folded together. Pure.

`{"progress": 40, "message": "writing slot b", "details": {"slot": "b"}}`; a line may also hold `reason` and `code`
(why the verb fails, if it does), `reject` (never try this here) and `after` (seconds, with exit code 75). What is
not understood is counted and left out: a handler cannot break its own report.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A line longer than this is not kept; the rest of it is skipped.
MAX_LINE_BYTES = 64 * 1024
MAX_DETAILS = 32


@dataclass(frozen=True, slots=True)
class Said:
    """All that a verb said so far.

    Attributes:
        broken: lines that were no events.
    """

    percent: float | None = None
    message: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    code: str = ""
    reject: bool = False
    after: float | None = None
    broken: int = 0


def fold(said: Said, line: bytes) -> Said:
    """Return `said` with the event in `line` added; later words replace earlier ones."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return replace(said, broken=said.broken + 1)
    if not isinstance(event, dict):
        return replace(said, broken=said.broken + 1)
    return Said(
        percent=_number(event.get("progress"), said.percent, 100.0),
        message=_text(event.get("message"), said.message),
        details=_details(event.get("details"), said.details),
        reason=_text(event.get("reason"), said.reason),
        code=_text(event.get("code"), said.code),
        reject=event["reject"] is True if "reject" in event else said.reject,
        after=_number(event.get("after"), said.after, 30 * 86400.0),
        broken=said.broken,
    )


def _number(value: object, before: float | None, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return before
    return min(max(float(value), 0.0), most)


def _text(value: object, before: str) -> str:
    return value if isinstance(value, str) else before


def _details(value: object, before: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return before
    added = {str(key): text if isinstance(text, str) else json.dumps(text) for key, text in value.items()}
    merged = {**before, **added}
    return dict(list(merged.items())[-MAX_DETAILS:])


class Lines:
    """Cuts a stream of bytes into lines; an endless line costs no memory."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        if self._skipping and complete:
            complete.pop(0)
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return [line for line in complete if line.strip()]
