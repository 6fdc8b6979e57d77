"""Lists every handler of this device: what it can do, as whom it would run, and why one cannot be used.

Exit code: 0, also when some cannot be used: `thingjobs handlers check` is for that.
"""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from thingjobs.cli import options
from thingjobs.cli.handlers.known import Known, known, registry_of, verbs_of
from thingjobs.cli.paint import Paint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HEADS = ("name", "version", "kind", "runs as", "verbs")
#: Columns for the verbs, at least; where there are fewer they go on a line of their own, so far from the left.
_LEAST = 20
_BELOW = 4


def add_to(actions: Any) -> None:
    """Add this action."""
    parser = options.new_parser(actions, "list", "list the handlers of this device", __doc__)
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """List the handlers.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    found = [known(config, listed) for listed in registry_of(config).everything()]
    paint = Paint(sys.stdout)
    if chosen.json:
        for one in found:
            paint.line(json.dumps(one.as_json()))
    else:
        for line in table(paint, found):
            paint.line(line)
    return 0


def table(paint: Paint, found: list[Known]) -> Iterator[str]:
    """Return the lines of the table for people."""
    if not found:
        yield "there are no handlers on this device"
        return
    rows = [_cells(one) for one in found]
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)][:-1]
    indent = 2 + sum(widths) + 2 * len(widths)
    narrow = paint.width - indent < _LEAST
    yield "  " + paint.style(_row(HEADS[:-1] if narrow else HEADS, widths), "dim")
    for one, (*cells, verbs) in zip(found, rows, strict=True):
        below = narrow or bool(one.trouble)
        column = _BELOW if below else indent
        # That it is this handler, and that it cannot be used, is in the line above.
        trouble = one.trouble.rpartition(" cannot be used: ")[2]
        text = textwrap.wrap(trouble or verbs, max(_LEAST, paint.width - column - 1), break_on_hyphens=False)
        first = "" if below else text.pop(0)
        yield f"{paint.mark(_status(one))} {_row((*cells, first), widths)}"
        yield from (" " * column + line for line in text)


def _cells(one: Known) -> tuple[str, ...]:
    """Return what stands in the columns of `HEADS`."""
    version = one.handler.version if one.handler else ""
    verbs = ", ".join(verbs_of(one.handler)) if one.handler else ""
    return one.name, version or "-", one.kind, one.user, verbs


def _status(one: Known) -> str:
    """Return the job status whose mark stands for the state of a handler."""
    if one.reason:
        return "FAILED"
    return "QUEUED" if one.refused else "SUCCEEDED"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, [*widths, 0][: len(cells)], strict=True)]
    return "  ".join(padded).rstrip()
