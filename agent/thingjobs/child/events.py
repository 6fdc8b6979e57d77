"""An event as lines for $JOB_EVENTS. Pure.

What is written to a pipe in one go and is no longer than PIPE_BUF stays whole, whoever else writes to it: the handler's
own children do. So an event that is longer is said in parts, which mean the same: the agent adds events up.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Linux: pipe(7), PIPE_BUF.
PIPE_BYTES = 4096
#: More of one text than this the agent does not keep.
MAX_CHARACTERS = 4096


def lines(event: Mapping[str, object]) -> Iterator[bytes]:
    """Return the lines that say what `event` says; none if it says nothing."""
    said = {key: value for key, value in map(_legal, event.items()) if value not in (None, {})}
    whole = _line(said)
    if len(whole) <= PIPE_BYTES:
        if said:
            yield whole
        return
    details = said.pop("details", {})
    yield from (_line({key: value}) for key, value in said.items())
    yield from (_line({"details": {key: value}}) for key, value in details.items())


def _line(event: Mapping[str, object]) -> bytes:
    # Half a surrogate pair has no UTF-8, but an escape.
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _legal(item: tuple[str, object]) -> tuple[str, Any]:
    key, value = item
    match key:
        case "details":
            pairs = value.items() if isinstance(value, dict) else ()
            return key, {str(name): _detail(str(name), content) for name, content in pairs}
        case "progress" | "after":
            return key, _number(value)
        case "reject":
            return key, bool(value)
        case _:
            return key, str(value)[:MAX_CHARACTERS]


def _number(value: object) -> float | None:
    """Return a number as JSON has it, None if it is none: numpy's, for one, are unknown there."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _detail(key: str, content: object) -> str:
    text = content if isinstance(content, str) else _text(content)
    if len(text) <= MAX_CHARACTERS:
        return text
    from thingjobs.wire import TAILS  # noqa: PLC0415 - heavy, and hardly ever wanted

    return text[-MAX_CHARACTERS:] if key in TAILS else text[:MAX_CHARACTERS]


def _text(content: object) -> str:
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(content)
