"""One line a fact, as text or JSON, with its priority for the journal, and nothing secret in it."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from thingjobs.seeing.logs import LineFormatter, read_by_journal

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://bucket/fw.bin?X-Amz-Signature=c0ffee"
FORMS = pytest.mark.parametrize("form", ["text", "json"])


def line(form: str, level: int, message: str, error: BaseException | None = None, *, journal: bool = False) -> str:
    """Return how a record is written."""
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("thingjobs.report", level, "f.py", 7, "%s", (message,), info)
    return LineFormatter(form, journal=journal).format(record)  # type: ignore[arg-type]


def test_text_begins_with_its_level() -> None:
    assert line("text", logging.WARNING, "fw-7#1: waits") == "WARNING fw-7#1: waits"


def test_json_has_the_same_and_when_and_where() -> None:
    found = json.loads(line("json", logging.WARNING, "fw-7#1: wartet auf die Tür"))
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "warning", "logger": "thingjobs.report", "message": "fw-7#1: wartet auf die Tür"}


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
@FORMS
def test_for_the_journal_each_line_begins_with_its_priority(form: str, level: int, priority: int) -> None:
    plain = line(form, level, "a")
    assert line(form, level, "a", journal=True)[:3] == f"<{priority}>"
    assert line(form, level, "a", journal=True)[3:][:5] == plain[:5]


#: What handlers and gates may say: ends of lines of all kinds, colours by 7 and 8 bits, text turned round, half a
#: character, and more of it than anybody reads.
HOSTILE = "one\ntwo\r\nthree\x0b\x1c\x85\u2028\x1b[31m\x9b31m\u202egnp.\ud800\x00" + "a" * 100_000 + "the end"


@FORMS
def test_whatever_is_logged_takes_one_line_that_steers_nothing_and_is_not_long(form: str) -> None:
    found = line(form, logging.INFO, HOSTILE)
    assert len(found.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", found)
    assert len(found.encode()) < 5000
    assert "one\\ntwo" in found
    assert "the end" in found


@FORMS
def test_no_query_of_a_url_is_logged(form: str) -> None:
    assert "c0ffee" not in line(form, logging.INFO, f"cannot fetch {URL}: 403")


@FORMS
def test_a_crash_is_one_line_that_says_where_and_no_secret(form: str) -> None:
    def fetch(url: str) -> None:
        raise ValueError(f"cannot fetch {url}\nat all")

    try:
        fetch(URL)
    except ValueError as error:
        found = line(form, logging.CRITICAL, "ended by a fault", error)
    assert len(found.splitlines()) == 1
    found = json.loads(found)["message"] if form == "json" else found
    assert "ended by a fault: ValueError: cannot fetch https://bucket/fw.bin?…" in found
    assert "test_seeing_logs.py" in found
    assert "fetch" in found
    assert "c0ffee" not in found


def test_the_journal_reads_only_the_stream_that_it_named(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert read_by_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not read_by_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not read_by_journal(stream, {})
    assert not read_by_journal(sys.stdin, {"JOURNAL_STREAM": "1:2"})
