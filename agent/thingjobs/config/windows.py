"""Maintenance windows as an operator writes them: "Mon-Fri 22:00-04:00", "Sat,Sun", "03:00-05:00".

Only what is written; when one is open is worked out by `thingjobs.gates.windows`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from thingjobs.config.kinds import Kind, shown

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = 24 * 60
WEEK = 7 * DAY

_NAME = "(?:" + "|".join(f"[{day[0]}{day[0].lower()}]{day[1:]}" for day in DAYS) + ")"
_NAMES = f"{_NAME}(?:-{_NAME})?(?: ?, ?{_NAME}(?:-{_NAME})?)*"
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_SPAN = f"{_TIME}-(?:{_TIME}|24:00)"
#: The first part refuses one that begins and ends at the same time: nobody could tell an empty one from a whole day.
_PATTERN = f"(?!.*([0-9]{{2}}:[0-9]{{2}})-\\1)(?:{_NAMES}(?: {_SPAN})?|{_SPAN})"
_SAYS = "a list of maintenance windows"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time that comes every week, on one day or on several.

    Attributes:
        text: as it was written.
        starts: when it begins, in minutes of the clock on the wall since Monday 00:00.
        minutes: how long it lasts on that clock, 1 to 1440.
    """

    text: str
    starts: tuple[int, ...]
    minutes: int


def window(text: str) -> Window:
    """Return the window that is meant; one that ends earlier than it begins goes on over midnight.

    Raises:
        ValueError: none is; the text is the rest of a sentence that says why not.
    """
    if not re.fullmatch(_PATTERN, text):
        raise ValueError(_why_not(text))
    names, _, span = text.rpartition(" ") if ":" in text else (text, "", "00:00-24:00")
    start, end = map(_minutes, span.split("-"))
    days = _days(names) if names else range(7)
    return Window(text, tuple(sorted({day * DAY + start for day in days})), (end - start) % DAY or DAY)


def windows() -> Kind:
    """The kind of a setting that is a list of windows."""

    def wrong(value: object) -> str:
        if not isinstance(value, list):
            return f"must be {_SAYS}"
        return next((f"must be {_SAYS}, and {why}" for entry in value if (why := _wrong(entry))), "")

    schema = {"type": "array", "items": {"type": "string", "pattern": f"^(?:{_PATTERN})$"}}
    return Kind(_SAYS, wrong, schema, lambda value, _: tuple(map(window, value)))


def _wrong(entry: object) -> str:
    if not isinstance(entry, str):
        return f"{shown(entry)} is none: it must be a string in quotes"
    try:
        window(entry)
    except ValueError as error:
        return f"{shown(entry)} is none: {error}"
    return ""


def _minutes(time: str) -> int:
    hour, _, minute = time.partition(":")
    return int(hour) * 60 + int(minute)


def _days(names: str) -> list[int]:
    """Return the numbers of the days named; "Sat-Mon" goes on over the end of the week."""
    days: list[int] = []
    for name in names.replace(" ", "").split(","):
        first, _, last = (day.capitalize() for day in name.partition("-"))
        start, end = DAYS.index(first), DAYS.index(last or first)
        days += [day % 7 for day in range(start, end + 7 * (end < start) + 1)]
    return days


def _why_not(text: str) -> str:
    """Return what of a text keeps it from being a window."""
    for name in re.findall(r"[^\W\d_]+", text):
        if not re.fullmatch(_NAME, name):
            return f"{shown(name)} is no day; the days are {' '.join(DAYS)}"
    for time in re.findall(r"[0-9][0-9:.]*", text):
        if not re.fullmatch(f"{_TIME}|24:00", time):
            return f"{shown(time)} is no time of day; write 00:00 to 23:59, or 24:00 as the end"
    if re.search(r"([0-9]{2}:[0-9]{2}) *- *\1", text):
        return "it ends when it begins; leave the times out where the whole day is meant"
    return "write days, times or both, with one blank between"
