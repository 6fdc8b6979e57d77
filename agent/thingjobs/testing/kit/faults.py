"""What can go wrong while a handler runs, as values: who is hit, and when. Nothing here does any harm by itself.

Most take the same words for the moment:

    crash("apply")            during it: all is done, and only the answer is lost
    crash("apply", event=2)   during it, as it reports its second event
    crash(before="apply")     it is about to begin
    crash(after="apply")      it has ended, and the agent has not heard of it yet
    crash("apply", attempt=2) the same in its second run

An event is one call of `ctx.progress` or `ctx.details`, or one line in $JOB_EVENTS that holds either. In a Python class
the harm comes at that very event. A program goes on while its event is being noticed: let it wait there (`sleep 60`)
where that matters. One that shows no event for half a second counts as hanging: what was to come at its end comes then.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from thingjobs.model import Verb

VerbName = Literal["check", "prepare", "apply", "verify", "commit", "rollback"]
StatusName = Literal["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]


class NeverHappenedError(AssertionError):
    """A test asked for a fault at a moment that did not come: it did not test what it says."""


class Harm(StrEnum):
    """What happens to the device."""

    CRASH = "crash"
    RESTART = "restart"
    CANCEL = "cancel"
    TIMEOUT = "timeout"
    STALL = "stall"
    OFFLINE = "offline"


class Moment(StrEnum):
    """When, as seen from a verb."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens once, at one moment of one run of a verb; made by the functions below.

    Attributes:
        event: at which event of the verb, counted from 1; None: at its very end.
        attempt: in which run of the verb, counted from 1.
        seconds: how long the link is down.
    """

    harm: Harm
    moment: Moment
    verb: Verb
    event: int | None = None
    attempt: int = 1
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.event is not None and self.moment is not Moment.DURING:
            raise ValueError(f"{self.harm}: event= is for a moment during a verb, not {self.moment} it")
        if self.attempt < 1 or (self.event is not None and self.event < 1):
            raise ValueError(f"{self.harm}: events and attempts count from 1")

    def __str__(self) -> str:
        where = f" at event {self.event}" if self.event else ""
        run = f" in run {self.attempt}" if self.attempt > 1 else ""
        return f"{self.harm} {self.moment} {self.verb}{where}{run}"


@dataclass(frozen=True, slots=True)
class UpdateFault:
    """Something that happens to one status update; made by `lost_reply` and `refused`.

    Attributes:
        nth: which update of that status, counted from 1.
        code: the service refuses it with this; "": it takes it, and its answer is lost.
    """

    status: str
    nth: int = 1
    code: str = ""

    def __str__(self) -> str:
        what = f"{self.code} for" if self.code else "no answer to"
        return f"{what} update {self.nth} to {self.status}"


AnyFault = Fault | UpdateFault


def crash(
    during: VerbName | None = None,
    *,
    before: VerbName | None = None,
    after: VerbName | None = None,
    event: int | None = None,
    attempt: int = 1,
) -> Fault:
    """Cut the power: the verb, the agent and the machine die; then the machine boots, and the agent finds its journal.

    A Python class is left by an exception that `except Exception` does not catch. Its `finally` blocks and the exits of
    its `with` blocks do run, which no power cut would allow: what they must not be needed for, a program shows.

    Args:
        during: the verb that it hits.
        before: or the verb that is about to begin.
        after: or the verb that has just ended.
        event: at which event of the verb; left out: at its very end.
        attempt: in which run of the verb.

    Raises:
        ValueError: not exactly one moment is given.
    """
    return _fault(Harm.CRASH, (during, before, after), event, attempt)


def restart(
    during: VerbName | None = None,
    *,
    before: VerbName | None = None,
    after: VerbName | None = None,
    event: int | None = None,
    attempt: int = 1,
) -> Fault:
    """End the agent and start it again; the machine stays up, and a handler that runs goes on.

    Takes the moments of `crash`. What the handler reported before may be lost with the agent: only its exit status and
    what it keeps in its folder are sure to be found.

    Raises:
        ValueError: not exactly one moment is given.
    """
    return _fault(Harm.RESTART, (during, before, after), event, attempt)


def cancel(
    during: VerbName | None = None,
    *,
    before: VerbName | None = None,
    after: VerbName | None = None,
    event: int | None = None,
    attempt: int = 1,
) -> Fault:
    """Have the operator cancel the job, by force. Takes the moments of `crash`.

    Raises:
        ValueError: not exactly one moment is given.
    """
    return _fault(Harm.CANCEL, (during, before, after), event, attempt)


def offline(
    during: VerbName | None = None,
    *,
    before: VerbName | None = None,
    after: VerbName | None = None,
    event: int | None = None,
    seconds: float = 3600.0,
) -> Fault:
    """Cut the link to the service for `seconds`: with an hour, `commit` misses its proof that the service is reached.

    Args:
        during: the verb that runs then.
        before: or the verb that is about to begin.
        after: or the verb that has just ended.
        event: at which event of the verb; left out: at its very end.
        seconds: until the link is back.

    Raises:
        ValueError: not exactly one moment is given.
    """
    return _fault(Harm.OFFLINE, (during, before, after), event, 1, seconds)


def timeout(verb: VerbName, *, event: int | None = None, attempt: int = 1) -> Fault:
    """Let the time run out that `verb` may take, although it shows signs of life: it is told to stop.

    A Python class then finds `ctx.cancelled` true. If it reports another event without having looked, it is killed
    there, as it would be half a minute later. A program gets SIGTERM, and two seconds later SIGKILL.
    """
    return Fault(Harm.TIMEOUT, Moment.DURING, Verb(verb), event, attempt)


def stall(verb: VerbName, *, event: int | None = None, attempt: int = 1) -> Fault:
    """Let `verb` show no sign of life for as long as its handler's `stall` says: it is told to stop."""
    return Fault(Harm.STALL, Moment.DURING, Verb(verb), event, attempt)


def lost_reply(status: StatusName, *, nth: int = 1) -> UpdateFault:
    """Have the service take the `nth` update to `status`, and its answer get lost."""
    return UpdateFault(status, nth)


def refused(status: StatusName, code: str = "RequestThrottled", *, nth: int = 1) -> UpdateFault:
    """Have the service refuse the `nth` update to `status` with `code`, an error code of the Jobs API."""
    return UpdateFault(status, nth, code)


def _fault(
    harm: Harm, moments: tuple[VerbName | None, ...], event: int | None, attempt: int, seconds: float = 0.0
) -> Fault:
    order = (Moment.DURING, Moment.BEFORE, Moment.AFTER)
    given = [(moment, verb) for moment, verb in zip(order, moments, strict=True) if verb is not None]
    if len(given) != 1:
        raise ValueError(
            f'{harm}: name one moment, as in {harm}("apply"), {harm}(before="apply"), {harm}(after="apply")'
        )
    moment, verb = given[0]
    return Fault(harm, moment, Verb(verb), event, attempt, seconds)
