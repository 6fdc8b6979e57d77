"""A clock that only moves when a test says so. It knows nothing of the service or the agent."""

from __future__ import annotations


class ManualClock:
    """A stand-in for `time.time`: call it for the seconds since the epoch.

    Args:
        start: the first reading; a whole second, so that times read back from the wire compare equal.
    """

    def __init__(self, start: float = 1_790_000_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        """Return the seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`; a negative number is a wall clock that was set back."""
        self._now += seconds
