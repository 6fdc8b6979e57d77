"""When a shadow is to be told again. Pure; times are seconds since boot, `roll` is randomness in [0, 1).

It is told soon after a change, but never in a burst, and once a day without one, so that what is lost comes after all.
One that is not taken is told again at growing distances: it may be forbidden, and each try costs something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from thingjobs.policy import spread

#: After a connection was made: what jobs need comes first, and a fleet does not come at once.
FIRST, FIRST_SPREAD = 2.0, 8.0
#: After a change, because one seldom comes alone; and between two tries.
SETTLE, APART = 2.0, 60.0
DAY, DAY_SHARE = 86_400.0, 0.1
AGAIN_CAP = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Where the telling of a shadow stands.

    Attributes:
        due: when to look whether there is something to tell; None: not before there is a connection.
        renew_at: when it is told though nothing changed.
        tried_at: when it was told last, taken or not; None: never.
        tries: how often, since it was taken.
        changed: something changed since it was told.
    """

    due: float | None = None
    renew_at: float = 0.0
    tried_at: float | None = None
    tries: int = 0
    changed: bool = False


def connected(pace: Pace, now: float, roll: float) -> Pace:
    """There is a connection."""
    first = now + FIRST + FIRST_SPREAD * roll
    return replace(pace, due=first if pace.due is None else max(pace.due, first))


def changed(pace: Pace, now: float) -> Pace:
    """What is told may be another now."""
    pace = replace(pace, changed=True)
    if pace.due is None or pace.tries:
        return pace
    return replace(pace, due=min(pace.due, _soon(pace, now)))


def tried(pace: Pace, now: float, roll: float) -> Pace:
    """It is told; until that is taken, it is told again at growing distances."""
    wait = spread(min(AGAIN_CAP, APART * 2.0 ** min(pace.tries, 16)), roll)
    return replace(pace, due=now + wait, tried_at=now, tries=pace.tries + 1, changed=False)


def taken(pace: Pace, now: float, roll: float) -> Pace:
    """What was told is taken."""
    renew_at = now + spread(DAY, roll, DAY_SHARE)
    return replace(pace, due=_soon(pace, now) if pace.changed else renew_at, renew_at=renew_at, tries=0)


def unchanged(pace: Pace) -> Pace:
    """A look has shown that all is as it was told."""
    return replace(pace, due=pace.renew_at, changed=False)


def _soon(pace: Pace, now: float) -> float:
    return max(now + SETTLE, 0.0 if pace.tried_at is None else pace.tried_at + APART)
