"""What is shown of executions, whatever became of them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from thingjobs.cli import status as shown
from thingjobs.cli.paint import Paint
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.status import of_journal

IDENTITY = Identity(JobId("fw-1"), 1, 1_790_000_000)


def lines(**more: Any) -> list[str]:
    record = Record(IDENTITY, Phase.DONE, "c0ffee", 1, Plan("h", ("/h",)), {}, finished_at=5.0, **more)
    found = of_journal([record], thing="pump-7")
    return list(shown._last_lines(Paint(io.StringIO()), found["last"]))


@pytest.mark.parametrize("ended", [Status.CANCELED, Status.REMOVED, Status.TIMED_OUT])
def test_what_the_service_ended_is_shown_as_that(ended: Status) -> None:
    (line,) = lines(ended=ended, late="nothing was changed")

    assert f"fw-1#1  {ended}" in line


def test_an_end_of_which_nothing_is_known_is_shown_too() -> None:
    (line,) = lines()

    assert "fw-1#1" in line


def test_a_failure_is_shown_with_its_code_and_reason() -> None:
    first, *reason = lines(result=Result(Status.FAILED, Code.HANDLER_EXIT, "it broke"))

    assert "FAILED" in first
    assert "it broke" in " ".join(reason)
