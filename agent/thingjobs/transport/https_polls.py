"""When to ask for news over HTTPS, and for what: nobody notifies there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.jobs import Describe, Described, Refusal, Refused, Update, Updated
from thingjobs.model import Status
from thingjobs.policy import backoff

if TYPE_CHECKING:
    from thingjobs.jobs import Reply, Request
    from thingjobs.model import JobId

#: The bound of the wait after the first poll that was refused is twice this; it grows to the interval of polls.
RETRY_POLL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Polls:
    """How often to ask for news, seconds at most.

    Attributes:
        idle: while nothing of ours is in progress.
        busy: while something is; how long a cancel may go unnoticed.
    """

    idle: float = 900.0
    busy: float = 300.0

    def after(self, *, busy: bool, refused: int, roll: float) -> float:
        """Return how long to wait for the next poll: up to a third less than it may be, so that a fleet spreads.

        Args:
            busy: whether something of ours is in progress.
            refused: polls in a row that were refused.
            roll: randomness in [0, 1).
        """
        seconds = min(self.busy, self.idle) if busy else self.idle
        if refused:
            return backoff(refused, roll, first=RETRY_POLL_SECONDS, cap=seconds)
        return seconds * (2 + roll) / 3


class Running:
    """The executions of ours that are in progress, as far as the replies tell: it decides what a poll asks, no more."""

    def __init__(self) -> None:
        self._running: set[tuple[JobId, int]] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def note(self, request: Request, reply: Reply) -> None:
        """Learn from a reply to an update, or to a question about one execution."""
        if not isinstance(request, (Update, Describe)):
            return
        status = _status(request, reply)
        if status is Status.IN_PROGRESS:
            self._running.add((request.job_id, request.number))
        elif status is not None:
            self._running.discard((request.job_id, request.number))


def _status(request: Update | Describe, reply: Reply) -> Status | None:
    """Return the status of an execution; None if the reply does not tell, REMOVED for any that is over."""
    match reply:
        case Updated() if isinstance(request, Update):
            return request.status
        case Described(_, execution) if execution is not None:
            return execution.status
        case Refused(_, Refusal.RESOURCE_NOT_FOUND | Refusal.TERMINAL_STATE_REACHED):
            return Status.REMOVED
        case Refused(state=state) if state is not None and state.status.terminal:
            return state.status
        case _:
            return None
