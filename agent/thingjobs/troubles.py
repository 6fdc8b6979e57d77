"""What this machine lacks, in one line each, and what has to be tried again because of it.

Room, descriptors, memory and processes come back, and so does a disk that was mounted read-only. A line is logged when
the trouble comes and when it is over, however often something is tried in between.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.machine.effects import Run
from thingjobs.policy import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.machine.effects import AskGates, Judge

log = logging.getLogger("thingjobs")

#: Seconds to the first and to any later try; so long a verb is tried to be started before it is called failed.
FIRST, CAP, PATIENCE = 1.0, 30.0, 600.0


class Troubles:
    """The lines that hold now, by what they are about.

    Args:
        changed: is called when they are others than before.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._lines: dict[str, str] = {}
        self._changed = changed

    def came(self, subject: str, line: str) -> None:
        """Something does not work; say so, unless that was said."""
        if self._lines.get(subject) != line:
            log.error("%s", line)
            self._lines[subject] = line
            self._changed()

    def went(self, subject: str) -> None:
        """It works; say so, if it did not before."""
        if self._lines.pop(subject, None) is not None:
            log.info("%s: works again", subject)
            self._changed()

    def lines(self) -> list[str]:
        """Return all of them, for people."""
        return list(self._lines.values())


@dataclass(frozen=True, slots=True)
class _Try:
    effect: Judge | AskGates | Run
    tries: int
    due: float
    until: float


class Postponed:
    """Effects that are tried again later; of each execution the newest. Times are seconds since boot."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Try] = {}

    def add(self, key: str, effect: Judge | AskGates | Run, now: float) -> bool:
        """Have an effect tried again; False when a verb was tried to be started for too long: it is dropped.

        Args:
            key: of the execution.
            effect: failed just now.
            now: the time.
        """
        before = self._waiting.get(key)
        if before is None or type(before.effect) is not type(effect):
            before = _Try(effect, 0, now, now + PATIENCE)
        if now >= before.until and isinstance(effect, Run):
            del self._waiting[key]
            return False
        tries = before.tries + 1
        self._waiting[key] = _Try(effect, tries, now + backoff(tries, 1.0, first=FIRST / 2, cap=CAP), before.until)
        return True

    def take(self, now: float) -> list[Judge | AskGates | Run]:
        """Return what is to be tried now; until it is added or dropped, how often it was tried is remembered."""
        found = [key for key, one in self._waiting.items() if one.due <= now]
        for key in found:
            one = self._waiting[key]
            self._waiting[key] = _Try(one.effect, one.tries, float("inf"), one.until)
        return [self._waiting[key].effect for key in found]

    def drop(self, key: str) -> Judge | AskGates | Run | None:
        """Return and forget what waits for an execution."""
        found = self._waiting.pop(key, None)
        return found.effect if found else None

    def next_due(self) -> float | None:
        """Return when something is to be tried, None when nothing waits."""
        return min((one.due for one in self._waiting.values() if one.due < float("inf")), default=None)
