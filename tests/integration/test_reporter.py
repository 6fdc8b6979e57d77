"""When the shadow is looked at and told: the daemon's side of it, with a real look on a thread, and no transport."""

from __future__ import annotations

import json
import queue
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.machine.state import State
from thingjobs.policy import Settings
from thingjobs.registry import Handler, Listed
from thingjobs.seeing import device
from thingjobs.seeing.reporter import Reporter, ShadowDocument
from thingjobs.seeing.shadow import Device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.ports import Shadow

ALONE = State(Settings("thingjobs/test"), "n")


class Watched:
    """A reporter, and what it told the transport."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"thing": "pump-7", "connected": True, "jobs": [], "owed": [], "late": []}
        self.told: list[dict[str, Any]] = []
        self.broken = False
        self._taken: Callable[[], None] = lambda: None
        self._soon: queue.SimpleQueue[Callable[[dict[str, Any]], None]] = queue.SimpleQueue()
        document = ShadowDocument("thingjobs", self._look, self._tell, self._soon.put, lambda: 0.5)
        self.reporter = Reporter("1.0", None, document)
        self.connected = replace(ALONE, connected_at=boot.clock())
        self.reporter.observe(ALONE, self.connected, boot.clock())

    def _look(self) -> Device:
        if self.broken:
            raise OSError("the disk hangs")
        return Device(handlers=[("lamp", "1.0")])

    def _tell(self, shadow: Shadow, taken: Callable[[], None]) -> None:
        self.told.append(json.loads(shadow.document)["state"]["reported"])
        self._taken = taken

    def goes_on(self) -> float:
        """Let it do what is due next; return how long that was away."""
        due = self.reporter.next_due()
        assert due is not None
        away = due - boot.clock()
        self.reporter.act(due, lambda: self.status)
        assert self.reporter.next_due() is None, "it looks one after the other"
        self._soon.get(timeout=20)(self.status)
        return away

    def is_taken(self) -> None:
        self._taken()
        self._soon.get(timeout=20)(self.status)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_trouble_is_told_of_though_no_job_goes_on(watched: Watched) -> None:
    watched.goes_on()
    watched.is_taken()
    watched.status["trouble"] = ["the journal lives on its reserve"]
    watched.reporter.changed(boot.clock())
    assert watched.goes_on() < 61
    assert [told["trouble"]["count"] for told in watched.told] == [0, 1]


def test_what_is_told_already_is_not_told_again_before_the_day_is_over(watched: Watched) -> None:
    watched.goes_on()
    watched.is_taken()
    watched.reporter.changed(boot.clock())
    watched.goes_on()
    assert len(watched.told) == 1
    assert watched.goes_on() > 70_000


def test_one_that_was_not_taken_and_a_look_that_failed_are_tried_ever_more_seldom(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.goes_on()
    assert 30 < watched.goes_on() < 90
    watched.broken = True
    assert 60 < watched.goes_on() < 180
    assert caplog.messages == ["cannot look at the device for the shadow: the disk hangs"]
    watched.broken = False
    assert 120 < watched.goes_on() < 360
    assert len(watched.told) == 3


def test_without_a_connection_nothing_is_looked_at(watched: Watched) -> None:
    watched.reporter.observe(watched.connected, ALONE, boot.clock())
    assert watched.reporter.next_due() is None


def test_a_handler_that_nothing_can_run_is_told_as_broken_whatever_it_declares(tmp_path: Path) -> None:
    well = Handler("well", "/h/well", ("/h/well",), "sha256:abc", version="2")
    listed = (
        Listed("well", "/h/well", well),
        Listed("odd", "/h/odd", replace(well, name="odd"), "what runs it is gone"),
    )

    told = device.look(tmp_path, None, lambda: (*listed, Listed("torn", "/h/torn", None, "no JSON")))

    assert (told.handlers, told.broken) == ([("well", "2")], ["odd", "torn"])
