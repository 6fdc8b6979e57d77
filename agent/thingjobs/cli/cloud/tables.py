"""How jobs of the cloud look on a terminal: tables and cards that fit its width. Pure.

What the service says is shown without what could steer a terminal, and a status that this release does not know as it
is. Times are those of the device's zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.cli.paint import cut
from thingjobs.cloud.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from thingjobs.cli.paint import Paint

#: What is as good as nothing to read: columns for text that is cut or wrapped.
_LEAST = 12
#: Columns that a cell which is no text takes at most.
_LONGEST = 24
_GAP = "  "
#: The colours of the statuses of device jobs, as `Paint.mark` has them; jobs of the cloud look like one of these.
_COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "REJECTED": "yellow", "IN_PROGRESS": "cyan", "QUEUED": "dim"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; where there is no room the lightest are left out first, those of weight 0 never."""

    head: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One job: the status of a device job that it looks like, and what stands in the columns."""

    looks: str
    cells: tuple[str, ...]


def table(paint: Paint, columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """Return the lines of a table.

    Args:
        paint: knows how wide the terminal is; without one nothing is left out or cut.
        columns: first the id, which is never cut, because it is to be copied; then the status. The last one is text,
            and gets what room there is.
        rows: with a cell for each column.
    """
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip([one.head for one in columns], *cells, strict=True)]
    room = paint.width - 1
    shown = _fitting(columns, widths, room - len(_GAP))
    heads = _GAP.join(columns[at].head.ljust(widths[at]) for at in shown)
    yield paint.style(_GAP + heads.rstrip(), "dim")
    for row, texts in zip(rows, cells, strict=True):
        padded = [texts[at].ljust(widths[at]) for at in shown]
        padded[1] = coloured(paint, row.looks, padded[1])
        line = f"{paint.mark(row.looks)} {_GAP.join(padded).rstrip()}"
        yield shortened(line, room) if len(columns) - 1 in shown else line


def card(paint: Paint, looks: str, title: str, status: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Return all lines about one job; what has no value is left out, what is too long goes on below."""
    yield f"{paint.mark(looks)} {paint.style(plain(title), 'bold')}  {coloured(paint, looks, plain(status))}"
    there = [(name, text) for name, value in rows if (text := plain(value))]
    indent = 4 + max((len(name) for name, _ in there), default=0) + len(_GAP)
    for name, text in there:
        before = f"    {paint.style(name.ljust(indent - 6), 'dim')}{_GAP}"
        for line in wrapped(text, max(_LEAST, paint.width - 1 - indent)):
            yield before + line
            before = " " * indent


def coloured(paint: Paint, looks: str, text: str) -> str:
    """Return text in the colour of a status."""
    return paint.style(text, _COLOURS[looks])


def shortened(text: str, room: int) -> str:
    """Return as much of a line, colours and all, as goes into so many columns."""
    return text if cut(text, room) == text else f"{cut(text, room - 2)}…"


def wrapped(text: str, room: int) -> list[str]:
    """Return text on lines of so many columns, broken at spaces where it has some."""
    lines = []
    while text:
        line = cut(text, room)
        at = line.rfind(" ") if len(line) < len(text) and not text[len(line)].isspace() else -1
        line = line[:at] if at > 0 else line
        lines.append(line)
        text = text[len(line) :].lstrip()
    return lines


def when(moment: datetime | None) -> str:
    """Return a time for people, in the zone of this device; "": there is none."""
    if moment is None:
        return ""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):  # in the year 1 or 9999, which no zone can shift
        return moment.strftime("%Y-%m-%d %H:%M UTC")


def counted(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number} {what}{'s' * (number != 1)}"


def _cells(row: Row) -> list[str]:
    """Return what is shown of a row; a number or a status that is very long is none that anybody knows."""
    job_id, *middle, last = (plain(cell) or "-" for cell in row.cells)
    return [job_id, *(shortened(cell, _LONGEST) for cell in middle), last]


def _fitting(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[int]:
    """Return which columns there is room for; of the last one, which is cut, for a beginning at least."""
    needed = [*widths[:-1], min(widths[-1], _LEAST)]
    shown = list(range(len(columns)))

    def too_wide() -> bool:
        return sum(needed[at] for at in shown) + len(_GAP) * (len(shown) - 1) > room

    by_weight = sorted((at for at in shown if columns[at].weight), key=lambda at: columns[at].weight)
    for at in by_weight:
        if too_wide():
            shown.remove(at)
    return shown
