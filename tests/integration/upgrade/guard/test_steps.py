"""The verbs of `upgrade-agent`: done half, done again, and what of them is on the disk when the power fails."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from thingjobs.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Disk
    from tests.integration.upgrade.guard.conftest import Guarded, Job


def test_apply_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    for step in range(1, 100):
        code, _ = made.run("apply", "old", at=step)
        started = guarded.start()
        assert started == "old" or guarded.text("trial") == f"{key} old 900\n"
        if code == 0:
            break
        assert code == -9

    assert started == key


def test_rollback_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    guarded.give_up("whatever\n")
    for step in range(1, 100):
        code, _ = made.run("rollback", "old", at=step)
        assert guarded.start() == "old"
        if code == 0:
            break
        assert code == -9

    assert not guarded.at(key).exists()
    assert guarded.notes() == set()


def test_commit_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    for step in range(1, 100):
        code, _ = made.run("commit", key, at=step)
        assert guarded.start() == key
        if code == 0:
            break
        assert code == -9

    assert guarded.notes() == set()


def test_a_trial_that_failed_while_apply_was_interrupted_is_not_begun_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, _ = job
    assert made.run("apply", "old") == (0, "")
    guarded.give_up("it ended 3 times\n")

    code, reason = made.run("apply", "old")

    assert code == 1
    assert "it ended 3 times" in reason


@pytest.mark.parametrize("verb", ["verify", "commit"])
def test_a_note_of_the_guard_without_a_reason_is_a_failure_all_the_same(
    job: tuple[Guarded, Job, str], verb: str
) -> None:
    guarded, made, _ = job
    assert made.run("apply", "old") == (0, "")
    guarded.give_up()

    assert made.run(verb, "old")[0] == 1


def test_a_version_that_was_given_up_as_commit_began_is_not_passed(job: tuple[Guarded, Job, str]) -> None:
    """A slow disk, and the time is over: the report must say what the guard does."""
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")

    code, reason = made.run("commit", key, at=1, act="os.rename(folder + '/trial', folder + '/failed')")

    assert (code, "was given up" in reason) == (1, True)
    assert guarded.start() == "old"


# --- the disk -----------------------------------------------------------------------------------------------------


def test_what_was_put_on_trial_is_on_the_disk_when_apply_ended(job: tuple[Guarded, Job, str]) -> None:
    _, made, _ = job

    assert made.run("apply", "old") == (0, "")

    assert made.loose() == set()


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_no_power_cut_brings_a_trial_back_that_has_ended(job: tuple[Guarded, Job, str], verb: str) -> None:
    """It would end, some time later, a version that was reported as installed."""
    _, made, key = job
    assert made.run("apply", "old") == (0, "")

    assert made.run(verb, key if verb == "commit" else "old") == (0, "")

    assert {one for one in made.loose() if not one.startswith(".versions")} == set()


def test_what_did_not_fit_on_the_disk_is_removed_again(
    new_disk: Callable[..., Disk], new_job: Callable[[Path], tuple[Guarded, Job, str]]
) -> None:
    disk = new_disk("256k")
    guarded, made, key = new_job(disk.path)
    disk.fill()
    filler = next(disk.path.glob("filler-*"))
    os.truncate(filler, filler.stat().st_size - (40 << 10))

    code, reason = made.run("apply", "old")
    assert (code, "No space left" in reason) == (1, True)
    assert made.run("rollback", "old") == (0, "")

    assert [path.name for path in guarded.at(key).parent.iterdir()] == ["old"]


# --- somebody deletes versions ------------------------------------------------------------------------------------


def test_a_version_that_was_deleted_can_be_installed_again(job: tuple[Guarded, Job, str]) -> None:
    """The link still leads to it, and the guard starts the version that it came with."""
    guarded, made, key = job
    guarded.counts(key)
    shutil.rmtree(guarded.at(key))
    assert guarded.start() == "-"

    assert made.run("apply", "-") == (0, "")

    assert guarded.text("trial") == f"{key} - 900\n"
    assert guarded.start() == key


def test_where_the_version_before_was_deleted_the_guards_own_comes_back_and_that_is_told(
    job: tuple[Guarded, Job, str],
) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    shutil.rmtree(guarded.at("old"))

    assert made.run("rollback", key) == (196, "")
    assert guarded.start() == "-"
    code, reason = made.run("rollback", "-")

    assert (code, "old is gone" in reason) == (1, True)
    assert guarded.notes() == set()
    assert not guarded.at(key).exists()


def test_the_way_back_leads_to_the_version_that_ran_and_not_to_one_that_was_given_up(
    job: tuple[Guarded, Job, str],
) -> None:
    """What is told of the job that had tried that one was lost, and with it its rollback."""
    guarded, made, key = job
    guarded.counts("bad")
    guarded.note("failed", "bad old 900\n")
    assert guarded.start() == "old"

    assert made.run("apply", "old", act="path.endswith('/current') and os.kill(os.getpid(), 9)")[0] == -9
    assert guarded.start() == "old"
    assert made.run("apply", "old") == (0, "")
    assert guarded.start() == key
    guarded.give_up()
    assert guarded.start() == "old"


def test_a_package_that_is_installed_on_trial_ends_it_and_that_is_told(job: tuple[Guarded, Job, str]) -> None:
    """It removes the link, and starts the agent again."""
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    (guarded.folder / "current").unlink()
    assert guarded.start() == "-"

    code, reason = made.run("verify", "-")

    assert (code, "was turned to another version" in reason) == (1, True)
    assert made.run("rollback", "-") == (0, "")
    assert guarded.start() == "-"
    assert guarded.notes() == set()
    assert not guarded.at(key).exists()


# --- the agent ----------------------------------------------------------------------------------------------------


def test_only_the_version_on_trial_is_noted_to_have_reached_the_service(tmp_path: Path) -> None:
    """The old one still runs, and gets answers, when the trial of the new one is written down."""
    (tmp_path / "trial").write_text("new old 900\n")

    Guard("guard", tmp_path, "old").reached()
    assert not (tmp_path / "reached").exists()

    Guard("guard", tmp_path, "new").reached()
    assert (tmp_path / "reached").exists()
