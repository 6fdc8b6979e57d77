"""The guard alone, with versions that are a few lines of shell: what it starts, and what it notes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.upgrade.guard.conftest import Guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Require
    from tests.integration.conftest import Disk


def test_without_versions_it_becomes_the_one_that_it_came_with(guarded: Guarded) -> None:
    shutil.rmtree(guarded.folder)

    assert guarded.start() == "-"


def test_it_becomes_the_version_that_counts_and_notes_nothing(guarded: Guarded) -> None:
    guarded.counts("aa")

    assert [guarded.start() for _ in range(5)] == ["aa"] * 5
    assert guarded.notes() == set()


def test_a_version_that_is_gone_is_none(guarded: Guarded) -> None:
    guarded.counts("aa")
    shutil.rmtree(guarded.at("aa"))

    assert guarded.start() == "-"


def test_a_version_on_trial_may_end_three_times(guarded: Guarded) -> None:
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")

    assert [guarded.start() for _ in range(5)] == ["new"] * 3 + ["old"] * 2
    assert guarded.text("reason") == "it ended 3 times before the upgrade was finished\n"
    assert (guarded.text("trial"), guarded.text("failed")) == (None, "new old 600\n")


def test_a_trial_of_a_version_that_does_not_count_yet_is_none(guarded: Guarded) -> None:
    guarded.counts("old")
    guarded.note("trial", "new old 600\n")

    assert guarded.start() == "old"
    assert guarded.text("starts") is None


def test_a_trial_that_was_passed_is_forgotten(guarded: Guarded) -> None:
    guarded.counts("new")
    for name in ("reason", "reached"):
        guarded.note(name, "new\n")
    guarded.note("starts", "xxx")

    assert guarded.start() == "new"


def test_what_another_version_failed_in_is_not_this_ones(guarded: Guarded) -> None:
    guarded.counts("new")
    guarded.note("failed", "other old 600\n")

    assert guarded.start() == "new"


def test_going_back_may_lead_to_the_one_that_it_came_with(guarded: Guarded) -> None:
    guarded.counts("new")
    guarded.note("failed", "new - 600\n")

    assert guarded.start() == "-"


def test_a_version_that_is_deleted_on_trial_gives_way_to_the_one_before(guarded: Guarded) -> None:
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")
    shutil.rmtree(guarded.at("new"))

    assert [guarded.start() for _ in range(2)] == ["old"] * 2
    assert guarded.text("reason") == "it cannot be started any more\n"


def test_on_a_full_disk_no_trial_goes_on(new_disk: Callable[..., Disk], require: Require) -> None:
    """Without a count of its starts, a version that crashes would be started for ever."""
    disk = new_disk()
    guarded = Guarded(disk.path, [require("sh")])
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")
    disk.fill()

    assert [guarded.start() for _ in range(2)] == ["old"] * 2
    assert (guarded.text("trial"), guarded.text("failed")) == (None, "new old 600\n")


def test_on_a_disk_that_has_become_read_only_a_trial_waits(new_disk: Callable[..., Disk], require: Require) -> None:
    disk = new_disk()
    guarded = Guarded(disk.path, [require("sh")])
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")

    disk.read_only()
    assert [guarded.start() for _ in range(2)] == ["old"] * 2
    disk.writable()
    assert guarded.start() == "new"


def test_a_version_that_passes_just_as_it_is_given_up_has_passed(guarded: Guarded, tmp_path: Path) -> None:
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")
    guarded.note("starts", "xxx")
    path = tmp_path / "path"
    path.mkdir()
    (path / "mv").write_text(f'#!/bin/sh\nrm "{guarded.folder}/trial"; PATH=/usr/bin:/bin; exec mv "$@"\n')
    (path / "mv").chmod(0o755)

    assert guarded.start(str(path)) == "new"
    assert guarded.start() == "new"
    assert guarded.notes() == {"starts"}


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("exec sleep 600", "it did not reach the service in time"),
        (': >"$THINGJOBS_GUARD_FOLDER/reached"; exec sleep 600', "it reached the service, and did not get on"),
    ],
)
def test_a_version_that_does_nothing_is_ended_in_time(guarded: Guarded, do: str, reason: str) -> None:
    guarded.counts("new", do)
    guarded.note("trial", "new - 1\n")

    assert guarded.start() == "new"
    assert guarded.start() == "-"
    assert reason in (guarded.text("reason") or "")


def test_a_version_that_passed_its_trial_is_left_alone(
    guarded: Guarded, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    guarded.counts("new", "exec sleep 600")
    guarded.note("trial", "new - 2\n")
    agent = guarded.popen()
    eventually(lambda: len(running(tmp_path)) > 1)

    (guarded.folder / "trial").unlink()
    eventually(lambda: len(running(tmp_path)) <= 1)

    assert agent.poll() is None
    assert guarded.text("failed") is None
    agent.kill()
    agent.communicate()


def test_the_watch_of_a_trial_that_is_over_does_not_end_the_next(
    guarded: Guarded, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    guarded.counts("new", "exec sleep 600")
    guarded.note("trial", "new - 600\n")
    agent = guarded.popen()
    eventually(lambda: len(running(tmp_path)) > 1)

    guarded.note("other", "other new 600\n")
    (guarded.folder / "other").replace(guarded.folder / "trial")
    eventually(lambda: len(running(tmp_path)) <= 1)

    assert agent.poll() is None
    agent.kill()
    agent.communicate()


def test_its_watch_ends_with_the_agent(guarded: Guarded, eventually: Callable[..., Any], tmp_path: Path) -> None:
    guarded.counts("new")
    guarded.note("trial", "new - 600\n")

    assert guarded.start() == "new"

    eventually(lambda: not running(tmp_path))
    assert guarded.text("failed") is None


@pytest.mark.parametrize("when", ["kill -9 $PPID", 'kill -9 $PPID; exec /bin/mv "$@"', '/bin/mv "$@"; kill -9 $PPID'])
def test_the_power_may_be_cut_while_it_notes_a_failure(guarded: Guarded, tmp_path: Path, when: str) -> None:
    guarded.counts("new")
    guarded.note("trial", "new - 600\n")
    guarded.note("starts", "xxx")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "mv").write_text(f"#!/bin/sh\n{when}\n")
    (tmp_path / "path" / "mv").chmod(0o755)

    assert guarded.start(str(tmp_path / "path")) in ("", "-")
    assert guarded.start() == "-"


def running(root: Path) -> list[str]:
    """Return the processes that have to do with a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(root).encode() in said:
            found.append(entry.name)
    return found


#: In a pid namespace of its own: ends the agent, and gives its number to another process.
REUSED = """
"$@" >said &
agent=$!
until [ -s said ]; do sleep 0.02; done
kill -9 $agent; wait $agent 2>/dev/null
echo $((agent - 1)) >/proc/sys/kernel/ns_last_pid
sleep 600 &
[ $! -eq $agent ] || exit 3
other=$!
until set -- /proc/[0-9]* && [ $# -le 2 ]; do sleep 0.02; done # this one and the other are left
kill -9 $other
"""


def test_a_process_that_got_the_number_of_a_dead_agent_is_let_live(
    guarded: Guarded, require: Require, tmp_path: Path
) -> None:
    guarded.counts("new", "exec sleep 600")
    guarded.note("trial", "new - 1\n")
    argv = [require("unshare"), "--pid", "--fork", "--mount-proc", "sh", "-c", REUSED, "reused"]

    done = subprocess.run([*argv, *guarded.argv()], cwd=tmp_path, timeout=60, check=False)

    assert done.returncode == 0
    assert guarded.text("failed") is None
