"""Images of the fake device: a line of JSON about it, then the firmware. Yours are RAUC bundles, .swu or .mender files.

    {"board": "pump-2", "version": "2.0", "sha256": "of what follows", "boots": true, "healthy": true}

The last two are what only a fake can say of itself: whether this firmware boots, and whether it works then.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 4096


@dataclass(frozen=True)
class Image:
    """What an image says of itself."""

    board: str
    version: str
    sha256: str
    boots: bool = True
    healthy: bool = True


def look_at(path: Path) -> Image:
    """Return what the image in a file says of itself.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no image.
    """
    with path.open("rb") as file:
        line = file.readline(_MOST_BYTES)
    try:
        return Image(**json.loads(line))
    except (ValueError, TypeError):
        raise ValueError("it does not begin as an image does") from None


def make(board: str, version: str, *, boots: bool = True, healthy: bool = True, size: int = 1_000_000) -> bytes:
    """Make an image for the fake device, of some `size` bytes."""
    body = hashlib.sha256(version.encode()).digest() * (size // 32)
    header = Image(board, version, hashlib.sha256(body).hexdigest(), boots, healthy)
    return json.dumps(asdict(header)).encode() + b"\n" + body
