"""How jobs of the cloud look: whatever a service says, lines fit the terminal, and ids can be copied."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.cli.cloud import s3_lines
from thingjobs.cli.cloud.tables import card, when, wrapped
from thingjobs.cli.cloud.values import as_json
from thingjobs.cli.paint import Paint, cut
from thingjobs.cloud.s3_jobs import Listed, Progress

ID = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
SHOWN = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


class Terminal(Paint):
    """A terminal of so many columns."""

    def __init__(self, columns: int) -> None:
        super().__init__(io.StringIO())
        self._columns = columns

    @property
    def width(self) -> int:
        return self._columns


def columns(text: str) -> int:
    """Return how many columns a line takes."""
    return next(room for room in range(2 * len(text) + 1) if cut(text, room) == text)


def job(status: str = "Active", description: str = "", total: int = 10) -> Listed:
    return Listed(ID, status, description, "LambdaInvoke", 10, progress=Progress(total, 4, 1))


@given(SHOWN, SHOWN, st.integers(80, 250), st.integers(0, 10**9))
def test_no_line_of_a_table_is_wider_than_the_terminal(status: str, description: str, width: int, total: int) -> None:
    lines = list(s3_lines.listed(Terminal(width), [job(status, description, total), job()]))

    assert len(lines) == 3
    assert all(ID in line for line in lines[1:])
    assert max(map(columns, lines)) < width


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_terminal_that_is_too_narrow_still_gets_ids_that_can_be_copied(width: int) -> None:
    head, line = s3_lines.listed(Terminal(width), [job()])

    assert line.startswith(f"● {ID}  Active")
    assert head.split() == (["id", "status", "tasks"] if width == 60 else ["id", "status"])


@given(SHOWN, st.integers(1, 100))
def test_what_is_wrapped_fits_and_loses_nothing_but_spaces(text: str, room: int) -> None:
    lines = wrapped(text, max(room, 2))

    assert all(columns(line) <= max(room, 2) for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(st.lists(st.tuples(st.text("abc ", max_size=10), SHOWN), max_size=5), SHOWN, st.integers(80, 200))
def test_no_line_of_a_card_is_wider_than_the_terminal(rows: list[tuple[str, str]], status: str, width: int) -> None:
    head, *lines = card(Terminal(width), "QUEUED", ID, status[:20], rows)

    assert ID in head
    assert not lines or max(map(columns, lines)) < width
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", "".join([head, *lines]))


def test_times_at_the_ends_of_the_calendar_can_be_shown() -> None:
    assert when(None) == ""
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert re.fullmatch(r"[0-9]{1,5}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}( UTC)?", when(moment))


def test_json_has_names_as_aws_has_them_and_times_in_utc() -> None:
    @dataclass
    class Inner:
        job_id: str
        exit_code: int | None

    told = as_json([Inner("a", None), (datetime(2026, 1, 2, 3, 4, 5, 678900, UTC),), MappingProxyType({"X_y": 1})])

    assert told == [{"jobId": "a", "exitCode": None}, ["2026-01-02T03:04:05.678Z"], {"X_y": 1}]
