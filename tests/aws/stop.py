"""When to end early: a signal, or no time left. Asked between steps, so no answer of AWS is ever lost halfway."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: How often something is asked for again.
EVERY_SECONDS = 0.5


class StoppedError(Exception):
    """This run ends now; the message says why."""


class Stop:
    """Knows whether to go on.

    Args:
        seconds: for everything but the deletion.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._limit = seconds
        self._signalled = threading.Event()

    def heard(self, count: int) -> None:
        """Take note of a signal, in any thread."""
        del count
        self._signalled.set()

    def check(self) -> None:
        """Do nothing while we may go on.

        Raises:
            StoppedError: a signal came, or the time is over.
        """
        if self._signalled.is_set():
            raise StoppedError("interrupted by a signal")
        if time.monotonic() > self._until:
            raise StoppedError(f"the time for all of it is over ({self._limit:.0f} s)")

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: as `check`, as soon as it is so.
        """
        self._signalled.wait(min(seconds, max(0.0, self._until - time.monotonic()) + 0.01))
        self.check()

    def until(self, found: Callable[[], T | None], seconds: float) -> T | None:
        """Ask until there is something, and return it; None: there was nothing in time.

        Raises:
            StoppedError: as `check`.
        """
        end = time.monotonic() + seconds
        while True:
            self.check()
            if (it := found()) or time.monotonic() > end:
                return it or None
            self.pause(EVERY_SECONDS)
