"""A file replaced as a whole: after a power cut there is the old one or the new one, and never half of either."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ab_firmware import ledger

if TYPE_CHECKING:
    from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file; when this returns, the new content is on the disk, and so is its name."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    ledger.entry(f"{path.name}.new written")
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    ledger.entry(f"{path.name} replaced")
