"""Maintenance windows against a clock that is looked at minute by minute, through both changes of the year."""

from __future__ import annotations

import io
import re
import struct
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs.config.windows import DAYS, Window, window
from thingjobs.gates.windows import wait


def zone(rules: str) -> ZoneInfo:
    """Return a zone by its POSIX rules, in a file (RFC 8536) that is nowhere on the disk."""
    block = struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbB", 0, 0, 0) + b"LMT\0"
    head = b"TZif2" + bytes(15)
    return ZoneInfo.from_file(io.BytesIO(head + block + head + block + f"\n{rules}\n".encode()), key=rules)


BERLIN = zone("CET-1CEST,M3.5.0,M10.5.0/3")
ZONES = [
    zone("UTC0"),
    BERLIN,
    zone("EST5EDT,M3.2.0,M11.1.0"),
    zone("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"),  # Lord Howe: half an hour
    zone("<+0545>-5:45"),
]
#: Sundays of 2026: 02:00 to 03:00 is left out, and comes twice.
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)

Span = tuple[frozenset[int], int, int]


def written(span: Span) -> Window:
    """Return the window of some days from one minute of the day to another."""
    days, start, end = span
    names = ",".join(DAYS[day] for day in sorted(days))
    return window(f"{names} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")


def shows(spans: list[Span], moment: datetime) -> bool:
    """Return whether the clock on the wall shows a time within one of the spans."""
    day, minute = moment.weekday(), moment.hour * 60 + moment.minute
    for days, start, end in spans:
        if start < end:
            hit = day in days and start <= minute < end
        else:
            hit = (day in days and minute >= start) or ((day - 1) % 7 in days and minute < end)
        if hit:
            return True
    return False


def first_open_minute(spans: list[Span], where: ZoneInfo, at: int) -> int:
    """Look at the clock minute by minute."""
    second = at
    while not shows(spans, datetime.fromtimestamp(second, where)):
        second += 60 - second % 60
    return second


def at(text: str) -> float:
    """Return a moment that is given in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


DAY_SETS = st.frozensets(st.integers(0, 6), min_size=1)
MINUTES = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda span: span[0] != span[1] % 1440)
SPANS = st.tuples(DAY_SETS, MINUTES).map(lambda drawn: (drawn[0], *drawn[1]))
#: Two weeks around each change of 2026, and any time of the next thirty years.
CHANGES = [
    datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1))
]
MOMENTS = st.one_of(
    st.tuples(st.sampled_from(CHANGES), st.integers(-8 * 86400, 2 * 86400)).map(
        lambda drawn: int((drawn[0] + timedelta(seconds=drawn[1])).timestamp())
    ),
    st.integers(1_790_000_000, 2_700_000_000),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=3), st.sampled_from(ZONES), MOMENTS)
def test_a_window_opens_in_the_first_minute_in_which_the_clock_on_the_wall_is_within_it(
    spans: list[Span], where: ZoneInfo, moment: int
) -> None:
    found = moment + wait([written(span) for span in spans], where, moment)
    assert found == first_open_minute(spans, where, moment)


@pytest.mark.parametrize("midnight", [SPRING, AUTUMN], ids=["spring", "autumn"])
@pytest.mark.parametrize(
    "span", [(150, 210), (90, 150), (120, 180), (150, 165), (1410, 160), (0, 1440)], ids=lambda span: f"{span}"
)
def test_every_minute_of_the_days_on_which_the_clock_is_changed(midnight: datetime, span: tuple[int, int]) -> None:
    spans = [(frozenset({6}), *span)]
    windows = [written(spans[0])]
    first = int(midnight.timestamp())
    for moment in range(first, first + 5 * 3600, 60):
        assert (wait(windows, BERLIN, moment) == 0) == shows(spans, datetime.fromtimestamp(moment, BERLIN))


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        # The clock goes from 02:00 to 03:00 at 01:00 UTC.
        ("Sun 02:30-05:00", "2026-03-29T00:10", "2026-03-29T01:00"),
        ("Sun 02:00-03:00", "2026-03-29T00:10", "2026-04-05T00:00"),
        ("Sun 03:00-04:00", "2026-03-29T00:10", "2026-03-29T01:00"),
        # The clock goes from 03:00 back to 02:00 at 01:00 UTC.
        ("Sun 02:00-02:30", "2026-10-25T00:40", "2026-10-25T01:00"),
        ("Sun 01:30-02:30", "2026-10-25T00:45", "2026-10-25T01:00"),
        ("Sun 03:00-04:00", "2026-10-25T00:00", "2026-10-25T02:00"),
    ],
)
def test_a_window_follows_the_clock_on_the_wall_through_its_changes(text: str, now: str, opens: str) -> None:
    assert at(now) + wait([window(text)], BERLIN, at(now)) == at(opens)


def test_the_days_of_a_window_over_midnight_are_those_on_which_it_begins() -> None:
    friday_night = [window("Fri 22:00-04:00")]
    assert wait(friday_night, BERLIN, at("2026-01-31T02:59")) == 0  # Saturday 03:59
    assert wait(friday_night, BERLIN, at("2026-01-30T02:59")) > 0  # Friday 03:59


def test_a_window_is_open_from_its_first_second_and_closed_from_its_end_on() -> None:
    hour = [window("Mon 03:00-04:00")]
    opening = at("2026-01-05T02:00")
    assert wait(hour, BERLIN, opening - 0.25) == 0.25
    assert wait(hour, BERLIN, opening) == 0
    assert wait(hour, BERLIN, opening + 3599.9) == 0
    assert wait(hour, BERLIN, opening + 3600) == 7 * 86400 - 3600


def test_a_window_is_understood_as_it_is_written() -> None:
    day = 24 * 60
    assert window("Sat,Sun") == Window("Sat,Sun", (5 * day, 6 * day), day)
    assert window("03:00-05:00") == Window("03:00-05:00", tuple(range(180, 7 * day, day)), 120)
    assert window("Fri-Mon 22:00-04:00").starts == tuple(day * number + 22 * 60 for number in (0, 4, 5, 6))
    assert window("mon, Wed-Thu,mon 00:00-24:00") == Window("mon, Wed-Thu,mon 00:00-24:00", (0, 2 * day, 3 * day), day)
    assert window("Tue 23:59-00:00").minutes == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Mo-Fr 22:00-04:00", '"Mo" is no day; the days are Mon Tue Wed Thu Fri Sat Sun'),
        ("Sat 3:00-05:00", '"3:00" is no time of day; write 00:00 to 23:59, or 24:00 as the end'),
        ("Sat 22:00-25:00", '"25:00" is no time of day; write 00:00 to 23:59, or 24:00 as the end'),
        ("Sat 22:00-22:00", "it ends when it begins; leave the times out where the whole day is meant"),
        ("Sat 24:00-03:00", "write days, times or both, with one blank between"),
        ("", "write days, times or both, with one blank between"),
    ],
)
def test_what_is_no_window_is_told_with_the_word_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        window(text)
