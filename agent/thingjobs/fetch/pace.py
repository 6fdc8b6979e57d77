"""Keeping to a rate: a token bucket that is never more than a moment full."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Event

_KIB = 1024
#: How many seconds one piece may take; and how many that were lost may be made up for: more would be a burst.
_PIECE_S, _BURST_S = 0.05, 0.15


class Pace:
    """Holds a reader to so many KiB a second; 0: does not."""

    def __init__(self, max_kib_s: int) -> None:
        self._bytes_s = max_kib_s * _KIB
        self._due: float | None = None

    def piece(self, most: int) -> int:
        """Return how many bytes to read at a time, `most` at most."""
        return max(1, min(most, int(self._bytes_s * _PIECE_S))) if self._bytes_s else most

    def spend(self, count: int, stopped: Event) -> None:
        """Wait as long as `count` bytes take, or until it is stopped."""
        if not self._bytes_s:
            return
        now = time.monotonic()
        begun = now if self._due is None else max(self._due, now - _BURST_S)
        self._due = begun + count / self._bytes_s
        if self._due > now:
            stopped.wait(self._due - now)
