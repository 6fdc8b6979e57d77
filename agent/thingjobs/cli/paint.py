"""Colour, width and marks: how things look on a terminal, and plain everywhere else.

What is written may come from a job document or a handler: nothing of it but colours reaches the terminal as anything
else than text.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_STATUS = {
    "SUCCEEDED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "REJECTED": ("✗", "yellow"),
    "IN_PROGRESS": ("●", "cyan"),
    "QUEUED": ("○", "dim"),
}
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_RESET = "\x1b[0m"
_BREAKS = str.maketrans({"\r": None, "\n": " ⏎ ", "\t": " "})
_ASCII = str.maketrans(
    {"✓": "+", "✗": "x", "●": "*", "○": "o", "█": "#", "░": ".", "→": "->", "…": "..", "⏎": "|", "·": "-"}
)
#: Python sets LC_CTYPE to one of these by itself when LANG is C (PEP 538).
_COERCED = frozenset({"", "C.UTF-8", "C.utf8", "UTF-8"})


class Paint:
    """Writes to one stream, with colour if it is a terminal that wants some; any thread may.

    Attributes:
        live: whether a line can be drawn again in place.
        width: of the terminal, in columns.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.RLock()
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.live and not os.environ.get("NO_COLOR")
        self._encoding = _encoding(out)

    @property
    def width(self) -> int:
        """The columns that there are; without a terminal nothing is to be wrapped, so that lines can be searched."""
        return max(20, shutil.get_terminal_size((100 if self.live else 10_000, 24)).columns)

    def style(self, text: str, *styles: str) -> str:
        """Return `text` in these styles."""
        if not self._colour or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}{_RESET}"

    def mark(self, status: str) -> str:
        """Return the mark of a status, in its colour."""
        mark, colour = _STATUS.get(status, ("✗", "yellow"))
        return self.style(mark, colour)

    def status(self, status: str) -> str:
        """Return a status in its colour."""
        return self.style(status, _STATUS.get(status, ("", "yellow"))[1])

    def bar(self, percent: float, columns: int = 16) -> str:
        """Return a bar for a share of a hundred."""
        full = round(columns * percent / 100)
        return self.style("█" * full, "cyan") + self.style("░" * (columns - full), "dim")

    def arrow(self) -> str:
        """Return what stands between two statuses."""
        return self.style(" → ", "dim")

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        with self._lock:
            self.erase()
            self._out.write(self._fit(text) + "\n")
            self._out.flush()

    def draw(self, text: str) -> None:
        """Write a line that the next one replaces; nothing at all where that is not possible."""
        if not self.live:
            return
        fitting, room = self._fit(text), self.width - 1
        if cut(fitting, room) != fitting:
            fitting = cut(fitting, room - 2) + self._fit("…")
        with self._lock:
            self._out.write("\r\x1b[2K" + fitting)
            self._out.flush()

    def erase(self) -> None:
        """Remove the line that was drawn."""
        if self.live:
            with self._lock:
                self._out.write("\r\x1b[2K")
                self._out.flush()

    def lines(self, texts: Sequence[str]) -> None:
        """Write lines that stay."""
        for text in texts:
            self.line(text)

    def page(self, lines: Sequence[str]) -> None:
        """Show lines in the place of the page before: as many as the screen has room for, the first ones.

        Where a page cannot be replaced, one follows the other.
        """
        room = shutil.get_terminal_size((100, 24)).lines - 1
        if self.live and len(lines) > room:
            lines = [*lines[: room - 1], self.style("…", "dim")]
        text = "".join(f"{self._fit(line)}\n" for line in lines)
        with self._lock:
            self._out.write("\x1b[H\x1b[2J" * self.live + text)
            self._out.flush()

    def _fit(self, text: str) -> str:
        """Return `text` as this stream can show it: on one line, and with no more than colours."""
        text = text.translate(_BREAKS)
        if self._encoding == "ascii":
            text = text.translate(_ASCII)
        parts = _COLOUR.split(text)
        parts[::2] = [_CONTROL.sub("?", part) for part in parts[::2]]
        if not self._colour:
            parts[1::2] = [""] * len(parts[1::2])
        elif len(parts) > 1:
            parts.append(_RESET)
        return "".join(parts).encode(self._encoding, "replace").decode(self._encoding)


def cut(text: str, columns: int) -> str:
    """Return `text` with its colours and no more than `columns` columns of it."""
    kept: list[str] = []
    for part in _COLOUR.split(text):
        if _COLOUR.fullmatch(part):
            kept.append(part)
            continue
        for character in part:
            columns -= _columns(character)
            if columns >= 0:
                kept.append(character)
    return "".join(kept)


def fold(text: str, columns: int) -> list[str]:
    """Return `text` in lines of no more than `columns` columns, broken at blanks, or within a word that is longer."""
    lines: list[str] = []
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines else word
        if lines and cut(line, columns) == line:
            lines[-1] = line
            continue
        while (start := cut(word, columns)) != word and not _COLOUR.search(word):
            lines.append(start)
            word = word[len(start) :]  # noqa: PLW2901 - the rest of it
        lines.append(word)
    return lines


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _encoding(out: TextIO) -> str:
    """Return "utf-8" where marks and arrows can be shown, else "ascii"; who asks for the C locale gets ASCII."""
    if (getattr(out, "encoding", "") or "").lower().replace("-", "") != "utf8":
        return "ascii"
    chosen = [os.environ.get("LC_ALL", ""), os.environ.get("LC_CTYPE", ""), os.environ.get("LANG", "")]
    if chosen[1] in _COERCED:
        chosen[1] = ""
    return "ascii" if next((name for name in chosen if name), "") in ("C", "POSIX") else "utf-8"
