"""What a dry run shows: the calls that would be made, as `ctx.cloud` shows them to handlers, or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.cli.paint import Paint
from thingjobs.cloud.session import WOULD_SEND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thingjobs.cloud.calls import Call, Endpoint


@dataclass(frozen=True, slots=True)
class Planned:
    """A call, and in which case it would come; "": in any."""

    call: Call
    case: str = ""


def show(endpoint: Endpoint, calls: Sequence[Planned], *, as_json: bool) -> int:
    """Print calls, and send nothing; return the exit code."""
    paint = Paint(sys.stdout)
    if as_json:
        paint.line(json.dumps({"calls": [_as_json(one, endpoint) for one in calls]}))
        return 0
    for one in calls:
        for line in _lines(one, endpoint):
            paint.line(line)
    return 0


def _lines(planned: Planned, endpoint: Endpoint) -> Iterator[str]:
    call = planned.call
    yield f"{WOULD_SEND}{call.method} {call.url(endpoint)}{f'  ({planned.case})' * bool(planned.case)}"
    yield from (f"    {line}" for line in call.body.decode().splitlines())


def _as_json(planned: Planned, endpoint: Endpoint) -> dict[str, Any]:
    call = planned.call
    return {
        "operation": call.operation,
        "method": call.method,
        "url": call.url(endpoint),
        "headers": dict(call.headers),
        "body": call.body.decode(),
        "action": call.action,
        "case": planned.case,
    }
