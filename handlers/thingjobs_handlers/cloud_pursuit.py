"""Follows one cloud job: looks at it, asks of it what is wanted, waits for its end, and bears outages meanwhile.

What a described job amounts to `thingjobs.cloud.outcomes` decides. Here is when to look, when to ask, and what to bear.
The order never changes: look; ask, if what is wanted is not so and may still be brought about; look again. So whatever
ended the process or the line, nothing is asked twice without a look in between.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from thingjobs.cloud import outcomes
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.outcomes import Asked, Why
from thingjobs.handler import Failed
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingjobs.cloud.outcomes import Outcome
    from thingjobs.handler import Context
    from thingjobs_handlers.cloud_marks import CloudMarks

#: Seconds before the agent stops a verb at which it stops by itself, with a sentence.
TO_SPARE = 60.0
#: Seconds that is borne what hardly heals by itself, and any trouble while something is still to be asked.
BEARABLE_SECONDS = 3600.0
#: Seconds between two looks, at most, while the service says that it is asked too often: thousands may follow one job.
_THROTTLED_LONGEST = 3600.0
_LONG = 10 * 365 * 86400.0
#: Looks that brought nothing new, after which the pause is the longest.
_MANY = 20
#: Only a change of the document or of the configuration heals these.
_HOPELESS = frozenset({Trouble.INPUT, Trouble.NOT_FOUND, Trouble.REGION, Trouble.REJECTED})


@dataclass(frozen=True, slots=True)
class Request:
    """A change; `name` is the same whenever the same is asked, and `send` raises CloudError."""

    name: str
    send: Callable[[], object]


class Side(Protocol):
    """One cloud job, as its service wants to be spoken to."""

    #: What the cloud job is asked for.
    asked: Asked

    def check_allowed(self) -> None:
        """Let it pass only if there may be such a job, and this device lets documents touch it. Raises Reject."""

    def calls(self) -> Iterable[Callable[[], object]]:
        """Give the calls that may be made; each raises CloudError."""

    def look(self) -> Any:
        """Describe it. Raises CloudError."""

    def status(self, seen: Any) -> str:
        """Return its status; "": the service does not know the job."""

    def outcome(self, seen: Any) -> Outcome:
        """Judge it by what is asked."""

    def request(self, seen: Any) -> Request | None:
        """Return what may bring about what is asked; None: nothing, as it stands."""


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait between two looks, in seconds.

    Attributes:
        first: what the first pause is about; each one doubles that, until the job's status changes.
        nap: what passes at most until a pause hears of a cancelled device job; the agent waits half a minute.
        clock: only goes forward, also while the machine sleeps: the wall clock may jump by years.
        roll: gives a number in [0, 1).
    """

    first: float = 5.0
    nap: float = 5.0
    clock: Callable[[], float] = _since_boot
    sleep: Callable[[float], None] = time.sleep
    roll: Callable[[], float] = random.random

    def pause(self, count: int, longest: float) -> float:
        """Return how long to wait after so many looks that brought nothing new."""
        return min(longest, self.first * 2.0 ** min(count, _MANY)) * (0.5 + 0.5 * self.roll())


@dataclass(frozen=True, slots=True)
class Terms:
    """How long somebody wants to wait.

    Attributes:
        wait: until what is asked is so, or cannot be any more; else only until it was asked.
        longest: seconds between two looks, at most.
        enough: seconds after which it is enough that it was asked.
    """

    wait: bool = True
    longest: float = 60.0
    enough: float = float("inf")


def bearable(error: CloudError, *, following: bool) -> float:
    """Return for how many seconds in a row such a failure is waited through.

    Args:
        error: what a call brought.
        following: the cloud job is known, and nothing is to be asked of it (any more): outages of days are part of a
            device's life.
    """
    if error.trouble in _HOPELESS:
        return 0.0
    if error.passing or error.trouble is Trouble.NONSENSE:
        return float("inf") if following else BEARABLE_SECONDS
    return BEARABLE_SECONDS if following else 0.0


class Pursuit:
    """Follows one cloud job until what is asked is so, or cannot be so any more.

    Args:
        ctx: the device job.
        side: the cloud job.
        marks: what was asked of it before.
        terms: how long to wait.
        pace: how often to look.

    Attributes:
        status: the status that was described last, "" if none was.
    """

    def __init__(self, ctx: Context, side: Side, marks: CloudMarks, terms: Terms, pace: Pace) -> None:
        self._ctx = ctx
        self._side = side
        self._marks = marks
        self._terms = terms
        self._pace = pace
        self.status = ""
        left = _LONG if ctx.deadline is None else ctx.deadline - time.time() - TO_SPARE
        self._end = pace.clock() + left
        self._enough = pace.clock() + terms.enough
        self._known = ctx.resumed
        self._wants = side.asked is not Asked.WATCH and not marks.any_answered
        self._quiet = 0
        self._longest = terms.longest
        self._looks, self._asks = _Streak(), _Streak()
        self._refused = ("", "")
        self._told: tuple[float | None, str] = (None, "")

    def follow(self) -> Outcome:
        """Return what became of it. Pending: it was asked, and nobody waits any longer for what comes of it.

        Raises:
            Failed: the agent asked this verb to stop.
        """
        try:
            if self._marks.unsure:
                self._pause("the last request may still be on its way")
            return self._follow()
        except _OverError as over:
            return over.outcome

    def _follow(self) -> Outcome:
        while True:
            seen = self._look()
            outcome = self._side.outcome(seen)
            if not isinstance(outcome, outcomes.Pending):
                return outcome
            self._tell(outcome.percent, outcome.sentence)
            if self._ask(seen):
                continue
            if not self._terms.wait:
                return self._as_it_is(outcome)
            if not self._wants and self._pace.clock() >= self._enough:
                return outcome
            self._pause(outcome.sentence)

    def _look(self) -> Any:
        while True:
            self._stop_if_told()
            try:
                seen = self._side.look()
            except CloudError as error:
                self._bear(error, self._looks, following=self._known and not self._wants)
                continue
            self._looks.since = None
            self._longest = max(self._terms.longest, 0.9 * self._longest)
            self._known = True
            status = self._side.status(seen)
            if status != self.status:
                self.status, self._quiet, self._refused = status, 0, ("", "")
                self._asks.since = None
            return seen

    def _as_it_is(self, outcome: outcomes.Pending) -> Outcome:
        if self._side.asked is Asked.CONFIRM and not self._marks.any_answered:
            why = "it cannot be confirmed now, and the document does not want to wait"
            return outcomes.Failed(Why.NOT_READY, f"{outcome.sentence}: {why}")
        return outcome

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, seen: Any) -> bool:
        """Ask what is to be asked now; return whether to look what came of it."""
        request = self._side.request(seen)
        self._wants = request is not None and not self._marks.answered(request.name)
        if request is None or not self._wants:
            return False
        if self._refused[0]:
            self._bear_refusal()
            return False
        self._stop_if_told()
        self._marks.asking(request.name)
        try:
            request.send()
        except CloudError as error:
            self._not_asked(request, error)
            return True
        self._marks.taken(request.name)
        self._wants, self._asks.since = False, None
        self._ctx.log(f"the service took the request to {request.name}")
        return True

    def _not_asked(self, request: Request, error: CloudError) -> None:
        """Go by what is known of a request that failed. Of one that nobody knows of the next look tells, in a while."""
        if error.fate is not Fate.UNKNOWN:
            self._marks.refused(request.name)
        if error.trouble is Trouble.CONFLICT:
            # The status was another one when the request came: it is asked again when it is one more.
            self._refused = (self.status, str(error))
            return
        self._bear(error, self._asks, following=False)

    def _bear_refusal(self) -> None:
        lasted = self._asks.lasts(self._pace.clock())
        if not self._terms.wait or lasted >= BEARABLE_SECONDS:
            raise _OverError(outcomes.Failed(Why.REFUSED, self._refused[1]))

    # --- time -------------------------------------------------------------------------------------------------------

    def _bear(self, error: CloudError, streak: _Streak, *, following: bool) -> None:
        """Wait, as long as such a failure is to be borne."""
        lasted = streak.lasts(self._pace.clock())
        limit = bearable(error, following=following)
        if lasted >= limit:
            long = f" (for {lasted / 60:.0f} minutes now)" if limit else ""
            raise _OverError(outcomes.Failed(outcomes.why(error), f"{error}{long}"))
        if following and error.trouble is Trouble.THROTTLED:
            self._quiet, self._longest = _MANY, min(2 * self._longest, _THROTTLED_LONGEST)
        self._tell(None, f"{error}; trying again")
        self._pause(str(error))

    def _pause(self, why: str) -> None:
        """Wait until it is time for the next look.

        Raises:
            Failed: the agent asked this verb to stop.
        """
        left = self._pace.pause(self._quiet, self._longest)
        self._quiet += 1
        while left > 0:
            self._stop_if_told()
            remaining = self._end - self._pace.clock()
            if remaining <= 0:
                self._give_up(why)
            nap = min(left, self._pace.nap, remaining)
            self._pace.sleep(nap)
            left -= nap

    def _give_up(self, why: str) -> NoReturn:
        sentence = f"the time for it is up, and the cloud job is left as it is: {why}"
        raise _OverError(outcomes.Failed(Code.HANDLER_TIMEOUT, sentence))

    def _stop_if_told(self) -> None:
        if self._ctx.cancelled:
            was = f"was {self.status}" if self.status else "had not been looked at"
            raise Failed(f"it was stopped while the cloud job {was}", code=Code.CANCELLED)

    def _tell(self, percent: float | None, message: str) -> None:
        """Report what is new: the same once more would cost the device a message."""
        if (percent, message) != self._told:
            self._told = (percent, message)
            self._ctx.progress(percent, message)


@dataclass(slots=True)
class _Streak:
    """Since when calls of one kind have failed in a row; None: the last one did not."""

    since: float | None = None

    def lasts(self, now: float) -> float:
        """Return for how many seconds, and begin if this is the first failure."""
        self.since = now if self.since is None else self.since
        return now - self.since


class _OverError(Exception):
    """There is nothing more to wait for."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome
