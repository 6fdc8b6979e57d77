"""How long to wait before the next connection, and which requests to leave out of it, given how the last ones ended.

Pure, and the same for every library that carries MQTT. A broker that is down, a rival with our client id and a
policy that forbids something all look like connections that end early. They want different answers:

- Whoever cannot be reached is tried at growing distances, with full jitter, so that a fleet does not come at once.
- A rival takes our connection each time we take its own. Connections that last in between prove nothing, or the two
  would fight at full speed for ever; only a long peace does.
- AWS IoT Core closes the connection on a publish that the policy does not allow (mqtt.md, "Connections"; with MQTT 5
  it may say so). Whoever connects again and publishes the same is in a loop. The request that the broker left
  unanswered is suspected; when it happens again and again, that kind is held back for a growing time, and all else
  goes on.
- Certificates that are out of date by a clock that nobody has set are tried again soon: it may be set any moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from thingjobs.jobs import Describe, DescribeNext, GetPending, Update
from thingjobs.policy import RETRY_CAP, backoff, spread
from thingjobs.ports import Shadow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.jobs import Request


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers; seconds unless they count connections.

    Attributes:
        good: a connection that was up this long was a good one: the next one is tried soon.
        peace: one that was up this long shows that no rival is about.
        cap: no wait is longer, but for
        rival_cap: those for a rival: each connection of ours ends one of its, which may be the right one.
        clock_cap: no wait for the clock is longer: it is mostly set within a minute of the network's coming up.
        clock_look: how often to look whether the clock was set, while that is what keeps us from connecting.
        loop: connections that ended with the same kind of request unanswered, until that kind is held back.
        hold_first: how long at first; it doubles each time.
        hold_cap: how long at most.
        aside_first: how long a kind that nothing hangs on is held back after one such connection; it doubles.
        aside_cap: how long at most.
        subscribe_loop: connections in a row that ended while we subscribed, until each filter is tried by itself.
    """

    good: float = 60.0
    peace: float = 3600.0
    cap: float = RETRY_CAP
    rival_cap: float = 900.0
    clock_cap: float = 60.0
    clock_look: float = 2.0
    loop: int = 3
    hold_first: float = 60.0
    hold_cap: float = 3600.0
    aside_first: float = 3600.0
    aside_cap: float = 86_400.0
    subscribe_loop: int = 2


#: What is used where nobody says otherwise.
LIMITS = Limits()
#: What the kind of a shadow begins with; no request is of such a kind.
_SHADOW = "shadow/name/"


class Cause(Enum):
    """How a connection ended, or why there was none."""

    UNREACHED = auto()  # no connection, or we were not let in
    UNDATED = auto()  # a certificate is out of date by a clock that nobody has set yet
    UNSUBSCRIBED = auto()  # the broker let us in, and closed while we subscribed
    LOST = auto()
    TAKEN = auto()  # a rival came with our client id
    RENEWED = auto()  # we wanted a new one
    DEAF = auto()  # we wanted a new one because nothing was heard on this


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection that ended, or was not made.

    Attributes:
        lasted: seconds that requests could be sent over it; 0: never.
        suspect: the kind of the oldest request that the broker left unanswered when it closed; "": none, or it did
            not close.
    """

    cause: Cause
    lasted: float = 0.0
    suspect: str = ""


@dataclass(frozen=True, slots=True)
class Denial:
    """A kind of request after which connections ended.

    Attributes:
        ends: how many, since one of that kind was accepted.
        until: when the next of that kind may be sent, seconds as in `now`.
        hold: how long that was when it was decided, seconds; 0: it is not held back.
    """

    ends: int = 0
    until: float = 0.0
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """What matters of the connections so far.

    Attributes:
        wait: seconds until the next one is opened.
        tries: those in a row that were no good.
        rivalries: those that were taken over, since there was peace.
        unsubscribed: those in a row that ended while we subscribed.
        denials: by kind of request.
    """

    limits: Limits = LIMITS
    wait: float = 0.0
    tries: int = 0
    rivalries: int = 0
    unsubscribed: int = 0
    denials: Mapping[str, Denial] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def one_by_one(self) -> bool:
        """Whether to subscribe to one filter after another: then it shows at which the broker closes."""
        return self.unsubscribed >= self.limits.subscribe_loop

    def holds(self, kind: str, now: float) -> bool:
        """Return whether requests of that kind are held back."""
        denial = self.denials.get(kind)
        return denial is not None and now < denial.until

    def accepted(self, kind: str) -> History:
        """Return the history after the broker took a request of that kind."""
        if kind not in self.denials:
            return self
        kept = {other: denial for other, denial in self.denials.items() if other != kind}
        return replace(self, denials=MappingProxyType(kept))


def after(history: History, ended: Ended, now: float, roll: float) -> History:
    """Return the history with one more connection that ended, and how long to wait for the next.

    Args:
        history: before.
        ended: how it ended.
        now: seconds, on any clock that nobody sets.
        roll: randomness in [0, 1).
    """
    history = _suspecting(history, ended, now, roll)
    rivalries = 0 if ended.lasted >= history.limits.peace else history.rivalries
    closed = ended.cause is Cause.UNSUBSCRIBED
    history = replace(
        history,
        tries=1 if _good(history, ended) else history.tries + 1,
        rivalries=rivalries + (ended.cause is Cause.TAKEN),
        unsubscribed=history.unsubscribed + 1 if closed else 0 if ended.lasted else history.unsubscribed,
    )
    return replace(history, wait=_wait(history, ended, roll))


def _good(history: History, ended: Ended) -> bool:
    """Return whether the next connection may be tried soon."""
    match ended.cause:
        case Cause.RENEWED:
            return True
        case Cause.LOST:
            # What ended it will be left out of the next one.
            known = ended.suspect in history.denials and history.denials[ended.suspect].hold > 0
            return known or ended.lasted > history.limits.good
        case Cause.UNREACHED | Cause.UNDATED | Cause.UNSUBSCRIBED | Cause.TAKEN | Cause.DEAF:
            return False
        case _:
            assert_never(ended.cause)


def _wait(history: History, ended: Ended, roll: float) -> float:
    match ended.cause:
        case Cause.TAKEN:
            return backoff(history.rivalries, roll, cap=history.limits.rival_cap)
        case Cause.UNDATED:
            return backoff(history.tries, roll, cap=history.limits.clock_cap)
        case _:
            return backoff(history.tries, roll, cap=history.limits.cap)


def _suspecting(history: History, ended: Ended, now: float, roll: float) -> History:
    if not ended.suspect:
        return history
    ends = history.denials.get(ended.suspect, Denial()).ends + 1
    limits, hold = history.limits, 0.0
    loop, first, cap = limits.loop, limits.hold_first, limits.hold_cap
    if ended.suspect.startswith(_SHADOW):
        # Each try may cost a connection, which jobs need, for what nobody waits for.
        loop, first, cap = 1, limits.aside_first, limits.aside_cap
    if ends >= loop:
        hold = spread(min(cap, first * 2.0 ** min(ends - loop, 16)), roll)
    denials = {**history.denials, ended.suspect: Denial(ends, now + hold, hold)}
    return replace(history, denials=MappingProxyType(denials))


def kind_of(request: Request | Shadow) -> str:
    """Return the topic of a request below $aws/things/THING/jobs/, with + for the job; of a shadow, below THING.

    Policies are written so, for all jobs at once: that of the AWS IoT Jobs guide has `jobs/*`.
    """
    match request:
        case Shadow(name):
            return f"{_SHADOW}{name}/update"
        case GetPending():
            return "get"
        case DescribeNext():
            return "$next/get"
        case Describe():
            return "+/get"
        case Update():
            return "+/update"
        case _:
            assert_never(request)


def topic_of(thing: str, kind: str) -> str:
    """Return the topic of a kind of request of a thing, with + for the job."""
    return f"$aws/things/{thing}/{'' if kind.startswith(_SHADOW) else 'jobs/'}{kind}"
