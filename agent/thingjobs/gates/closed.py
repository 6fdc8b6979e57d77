"""Why a gate is closed, and which files of a folder count: what the kinds of gates share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.wire import clean, head

if TYPE_CHECKING:
    from pathlib import Path

REASON_BYTES = 400
#: What editors and package managers leave beside the file that is meant.
_LEFT_BEHIND = ("~", ".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-tmp", ".rpmnew", ".rpmsave", ".rpmorig")


@dataclass(frozen=True, slots=True)
class Closed:
    """A gate is closed.

    Attributes:
        reason: a sentence that names the gate.
        opens_in: seconds until it opens, None if nobody knows.
    """

    reason: str
    opens_in: float | None = None


def entries(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of their names; folders in it, and what was left behind, don't count.

    Raises:
        OSError: it is there, and cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found if _counts(entry))
    except FileNotFoundError:
        return []
    return [folder / name for name in names]


def _counts(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.endswith(_LEFT_BEHIND):
        return False
    try:
        return not entry.is_dir()
    except OSError:
        return True  # what is wrong with it will be said when it is looked at


def first_line(data: bytes) -> str:
    """Return the first line of what a file or a program says, as a reason may hold it."""
    line, _, _ = data.lstrip(b"\r\n").partition(b"\n")
    return sentence(line.decode(errors="replace").strip())


def sentence(text: str) -> str:
    """Return a text that others wrote as a reason may hold it: printable, in one line, not too long."""
    return head(clean(text), REASON_BYTES)
