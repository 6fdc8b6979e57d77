"""Trying again: with pauses that double, jittered in full, as often in a row as nothing is gained."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import tenacity

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.fetch.rules import Rules

_NAP_S = 0.2


class AgainError(Exception):
    """An attempt did not do it, but another may; `after`: seconds that the server wants us to wait."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Patience:
    """Tries something until it is done or hopeless.

    Args:
        rules: how often, and with what pauses.
        poll: is called several times a second in a pause; what it raises ends that.
    """

    def __init__(self, rules: Rules, poll: Callable[[], None]) -> None:
        self._rules = rules
        self._poll = poll
        self._fruitless = 0

    def exercise(self, attempt: Callable[[], None], gained: Callable[[], int] = lambda: 0) -> None:
        """Attempt it until it raises no AgainError.

        Args:
            attempt: what to do.
            gained: a count; whenever an attempt raised it, the next ones count from the beginning.

        Raises:
            AgainError: so many attempts in a row gained nothing; it says what the last one said, and their number.
        """
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(AgainError),
            stop=lambda _: self._fruitless >= self._rules.attempts and time.time() >= self._rules.until,
            wait=self._pause,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            trying(self._counted, attempt, gained)
        except AgainError as error:
            tries = f" ({self._fruitless} attempts)" if self._fruitless > 1 else ""
            raise AgainError(f"{error}{tries}") from None

    def _counted(self, attempt: Callable[[], None], gained: Callable[[], int]) -> None:
        before = gained()
        try:
            attempt()
        except AgainError:
            self._fruitless = 0 if gained() > before else self._fruitless + 1
            raise

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, AgainError) and error.after is not None:
            return error.after
        longest = self._rules.first_pause_s * 2 ** max(0, self._fruitless - 1)
        return random.uniform(0, min(self._rules.longest_pause_s, longest))  # noqa: S311 - no secret

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll()
            time.sleep(min(left, _NAP_S))
