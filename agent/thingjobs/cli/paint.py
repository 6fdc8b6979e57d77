"""Colour, width and marks: how things look on a terminal, and plain everywhere else."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_STATUS = {
    "SUCCEEDED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "REJECTED": ("✗", "yellow"),
    "IN_PROGRESS": ("●", "cyan"),
    "QUEUED": ("○", "dim"),
}


class Paint:
    """Writes to one stream, with colour if it is a terminal that wants some.

    Attributes:
        live: whether a line can be drawn again in place.
        width: of the terminal, in columns.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.live and "NO_COLOR" not in os.environ
        utf8 = (getattr(out, "encoding", "") or "").lower().replace("-", "") == "utf8"
        self._plain = not utf8

    @property
    def width(self) -> int:
        """The columns that there are."""
        return shutil.get_terminal_size((100, 24)).columns

    def style(self, text: str, *styles: str) -> str:
        """Return `text` in these styles."""
        if not self._colour or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def mark(self, status: str) -> str:
        """Return the mark of a status, in its colour."""
        mark, colour = _STATUS.get(status, ("✗", "yellow"))
        if self._plain:
            mark = {"✓": "+", "✗": "x", "●": "*", "○": "o"}[mark]
        return self.style(mark, colour)

    def status(self, status: str) -> str:
        """Return a status in its colour."""
        return self.style(status, _STATUS.get(status, ("", "yellow"))[1])

    def bar(self, percent: float, columns: int = 16) -> str:
        """Return a bar for a share of a hundred."""
        full = round(columns * percent / 100)
        on, off = ("#", ".") if self._plain else ("█", "░")
        return self.style(on * full, "cyan") + self.style(off * (columns - full), "dim")

    def arrow(self) -> str:
        """Return what stands between two statuses."""
        return " -> " if self._plain else self.style(" → ", "dim")

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        self.erase()
        self._out.write(self._fit(text) + "\n")
        self._out.flush()

    def draw(self, text: str) -> None:
        """Write a line that the next one replaces; nothing at all where that is not possible."""
        if self.live:
            self._out.write("\r\x1b[2K" + text)
            self._out.flush()

    def erase(self) -> None:
        """Remove the line that was drawn."""
        if self.live:
            self._out.write("\r\x1b[2K")

    def _fit(self, text: str) -> str:
        return text.encode("ascii", "replace").decode() if self._plain else text
