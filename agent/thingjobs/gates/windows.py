"""When a maintenance window is open. A window is a span of the clock on the wall, whatever that clock does.

So a span that daylight saving leaves out does not come that day, one that it repeats comes twice, and one that a
change falls into is open for as long as the clock shows a time within it. Pure, but for the rules of the zone.
"""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING

from thingjobs.config.windows import DAYS, WEEK
from thingjobs.config.zones import zone
from thingjobs.gates.closed import Closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo

    from thingjobs.config.windows import Window

_MINUTE = 60
_DAY_SECONDS = 24 * 60 * _MINUTE
_WEEK_SECONDS = WEEK * _MINUTE
#: The first Monday, 1970-01-05.
_MONDAY = 4 * _DAY_SECONDS
#: Every window comes once a week, unless a change of the clock swallows it; none is swallowed twice in a row.
_HORIZON_DAYS = 15


def closed(windows: Sequence[Window], time_zone: str, now: float) -> Closed | None:
    """Return that none of the windows is open at `now`, seconds since the epoch, and when one will be."""
    try:
        where = zone(time_zone)
    except ValueError as error:
        return Closed(f"gate maintenance: {error}")
    pause = wait(windows, where, now)
    return Closed(f"gate maintenance: closed until {_shown(where, now + pause)}", pause) if pause else None


def wait(windows: Sequence[Window], where: tzinfo, now: float) -> float:
    """Return the seconds until one of the windows opens, 0 while one is open."""
    at = int(now)
    for begin, end, offset in _stretches(where, at, at + _HORIZON_DAYS * _DAY_SECONDS):
        opening = begin + _until_open(windows, begin + offset - _MONDAY)
        if opening < end:
            return max(0.0, opening - now)
    return float(_HORIZON_DAYS * _DAY_SECONDS)


def _until_open(windows: Sequence[Window], wall: int) -> int:
    """Return the seconds until one of the windows opens, on a clock on which every day is as long as the next."""
    pauses = []
    for window in windows:
        for start in window.starts:
            since = (wall - start * _MINUTE) % _WEEK_SECONDS
            pauses.append(0 if since < window.minutes * _MINUTE else _WEEK_SECONDS - since)
    return min(pauses)


def _stretches(where: tzinfo, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the time from `begin` to `end` in pieces, in each of which the clock on the wall goes evenly.

    Each is a beginning, an end, and the offset from UTC, all in seconds. The clocks of no place change twice in a day.
    """
    while begin < end:
        offset = _offset(where, begin)
        stop = min(begin + _DAY_SECONDS, end)
        if _offset(where, stop) != offset:
            changed = range(begin, stop)
            stop = begin + bisect(changed, False, key=lambda second: _offset(where, second) != offset)  # noqa: FBT003
        yield begin, stop, offset
        begin = stop


def _offset(where: tzinfo, second: int) -> int:
    from datetime import datetime, timedelta  # noqa: PLC0415 - not wanted in an agent without maintenance windows

    return (datetime.fromtimestamp(second, where).utcoffset() or timedelta()) // timedelta(seconds=1)


def _shown(where: tzinfo, at: float) -> str:
    from datetime import datetime  # noqa: PLC0415 - as above

    moment = datetime.fromtimestamp(at, where)
    return f"{DAYS[moment.weekday()]} {moment:%H:%M} ({getattr(where, 'key', None) or moment.tzname()})"
