"""How much of a processor one thing may take: a bucket of seconds that fills slowly. Pure."""

from __future__ import annotations


class Pace:
    """Says when to go on, so that what is done takes no more than its share in the long run.

    Args:
        share: of one processor.
        burst: seconds of work that may be done at once.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def spent(self, seconds: float, now: float) -> None:
        """Note that `seconds` of work were done by `now`."""
        self._left = min(self._burst, self._left + (now - self._at) * self._share) - seconds
        self._at = now

    def wait(self, now: float) -> float:
        """Return the seconds until it may go on; 0: at once."""
        return max(0.0, -(self._left / self._share) - (now - self._at))
