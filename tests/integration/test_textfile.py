"""The file with the metrics on real folders: made anew, missing, full, and read while it is written."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from thingjobs.machine.state import State
from thingjobs.policy import Settings
from thingjobs.seeing.textfile import APART_SECONDS, CARE_SECONDS, SETTLE_SECONDS, TextFile, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Disk

BEGAN = 1_700_000_000
STATE = State(Settings("thingjobs/test"), "n")


class Told:
    """A file that is written by the clocks of the test.

    Attributes:
        status: what the agent would say.
        asked: how often it was asked for it.
        set_by: how much later the time of day is than it would be if nobody had set it.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.set_by = 1000.0, 0.0
        monkeypatch.setattr(time, "time", lambda: BEGAN + self.now - 1000.0 + self.set_by)
        self.path = path
        self.status: dict[str, Any] = {"thing": "pump-7", "connected": False, "jobs": [], "owed": [], "late": []}
        self.asked = 0
        self.file = TextFile(path, "1.0", lambda: None, self.now)

    def _ask(self) -> dict[str, Any]:
        self.asked += 1
        return self.status

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.file.act(self.now, self._ask)

    def steps(self) -> None:
        self.file.observe(STATE, STATE, self.now)

    def reads(self, name: str) -> float:
        families = text_string_to_metric_families(self.path.read_text())
        return next(family.samples[0].value for family in families if family.name == f"thingjobs_{name}")

    @property
    def connected(self) -> float:
        return self.reads("connected")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    folder = tmp_path / "metrics"
    folder.mkdir()
    return Told(folder / "thingjobs.prom", monkeypatch)


def test_many_changes_are_written_once_and_soon_but_not_again_at_once(told: Told) -> None:
    told.after(SETTLE_SECONDS)
    told.status["connected"] = True
    told.steps()
    told.steps()
    told.after(APART_SECONDS - 1)
    assert told.connected == 0
    told.after(1.0)
    assert told.connected == 1
    told.after(APART_SECONDS)
    told.steps()
    told.after(SETTLE_SECONDS - 1)
    assert told.asked == 2
    told.after(1.0)
    assert told.asked == 3


def test_one_that_was_taken_away_comes_back_within_a_minute_though_nothing_happens(told: Told) -> None:
    told.after(SETTLE_SECONDS)
    written = told.path.stat().st_mtime_ns
    told.after(CARE_SECONDS)
    assert told.path.stat().st_mtime_ns == written
    told.path.unlink()
    told.after(CARE_SECONDS)
    assert told.connected == 0


def test_a_folder_that_is_not_there_yet_is_said_once_and_tried_again(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.path.parent.rmdir()
    for _ in range(3):
        told.after(CARE_SECONDS)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [f"cannot write {told.path} (report.textfile): No such file or directory"]
    told.path.parent.mkdir()
    told.after(CARE_SECONDS)
    assert told.connected == 0


def test_on_a_full_disk_no_metrics_are_better_than_old_ones(
    new_disk: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = new_disk("64k")
    told = Told(disk.path / "thingjobs.prom", monkeypatch)
    told.after(SETTLE_SECONDS)
    disk.fill()
    told.status["connected"] = True
    told.steps()
    told.after(CARE_SECONDS)
    assert not [path.name for path in disk.path.iterdir() if "prom" in path.name]
    disk.drain()
    told.after(CARE_SECONDS)
    assert told.connected == 1


def test_the_start_is_told_by_the_clock_as_it_is_after_somebody_set_it(told: Told) -> None:
    told.after(SETTLE_SECONDS)
    assert told.reads("start_time_seconds") == BEGAN
    for set_by, expected in ((5.0, BEGAN), (1e7, BEGAN + 1e7), (-1e7, BEGAN - 1e7)):
        told.set_by = set_by
        told.after(CARE_SECONDS)
        assert told.reads("start_time_seconds") == expected


def test_whoever_reads_while_it_is_replaced_finds_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "thingjobs.prom"
    replace_file(path, "0" * 10_000)
    over = threading.Event()

    def write() -> None:
        for digit in "123456789" * 20:
            replace_file(path, digit * 10_000)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: set[str] = set()
    while not over.is_set():
        text = path.read_text()
        assert len(text) == 10_000
        assert len(set(text)) == 1
        seen.add(text[0])
    writer.join()
    assert len(seen) > 1
