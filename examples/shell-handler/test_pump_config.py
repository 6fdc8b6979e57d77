"""The handler pump-config on the kit: real processes of run.sh, the agent's own decisions, and no cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from thingjobs.testing import Kit, cancel, crash

HANDLER = Path(__file__).parent / "handlers" / "pump-config"
HIGH = {"option": "level", "value": "high"}


@pytest.fixture
def config(thingjobs: Kit, tmp_path: Path) -> Path:
    """The configuration of a pump."""
    path = tmp_path / "pump.conf"
    path.write_text("unit=bar\nlevel=low\n")
    thingjobs.environment["PUMP_CONFIG"] = str(path)
    return path


def test_the_option_is_set_and_the_others_stay(thingjobs: Kit, config: Path) -> None:
    job = thingjobs.run(HANDLER, HIGH)

    assert job.succeeded
    assert job.verbs == ["check", "apply", "verify"]
    assert job.details == {"level": "high"}
    assert config.read_text() == "unit=bar\nlevel=high\n"


def test_an_option_that_is_as_wanted_is_left_alone(thingjobs: Kit, config: Path) -> None:
    job = thingjobs.run(HANDLER, {"option": "unit", "value": "bar"})

    assert job.succeeded
    assert job.verbs == ["check"]


def test_the_job_waits_in_its_queue_while_somebody_edits_the_file(thingjobs: Kit, config: Path) -> None:
    Path(f"{config}.lock").touch()

    call = thingjobs.call(HANDLER, "check", HIGH)

    assert (call.exit, call.after) == (75, 60)
    assert call.reason == f"somebody is editing {config}"


def test_a_device_without_a_pump_rejects_the_job(thingjobs: Kit, config: Path) -> None:
    config.unlink()

    job = thingjobs.run(HANDLER, HIGH)

    assert job.rejected
    assert "has no pump" in job.reason


@pytest.mark.parametrize("params", [{"option": "level", "value": "high; reboot"}, {"option": "speed", "value": "1"}])
def test_what_makes_no_sense_is_rejected_before_anything_runs(
    thingjobs: Kit, config: Path, params: dict[str, str]
) -> None:
    job = thingjobs.run(HANDLER, params)

    assert job.rejected
    assert job.code == "params.invalid"
    assert job.verbs == []


@pytest.mark.parametrize("event", [1, 2])
def test_a_power_cut_during_apply_leaves_a_whole_file_and_then_the_new_one(
    thingjobs: Kit, config: Path, event: int
) -> None:
    job = thingjobs.run(HANDLER, HIGH, faults=[crash("apply", event=event)])

    assert job.succeeded
    assert config.read_text() == "unit=bar\nlevel=high\n"


def test_a_job_that_is_cancelled_after_apply_began_is_undone(thingjobs: Kit, config: Path) -> None:
    job = thingjobs.run(HANDLER, HIGH, faults=[cancel("apply")])

    assert job.verbs[-1] == "rollback"
    assert config.read_text() == "unit=bar\nlevel=low\n"


def test_the_way_back_is_the_same_after_a_second_apply(thingjobs: Kit, config: Path) -> None:
    thingjobs.call(HANDLER, "apply", HIGH)
    thingjobs.call(HANDLER, "apply", HIGH, attempt=2)

    thingjobs.call(HANDLER, "rollback", HIGH)

    assert config.read_text() == "unit=bar\nlevel=low\n"


def test_verify_finds_out_that_something_else_writes_to_the_file(thingjobs: Kit, config: Path) -> None:
    call = thingjobs.call(HANDLER, "verify", HIGH)

    assert not call.succeeded
    assert "something else writes to it" in call.reason
