"""The guard alone, with versions that are a few lines of shell: what it starts, and what it notes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.upgrade.conftest import GUARD, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Require
    from tests.integration.upgrade.conftest import Shop

#: A version: tells its name and its pid, and does what the test has put into its file `do`.
VERSION = """#!/bin/sh
echo "$THINGJOBS_GUARD_VERSION $$ $*"
cd "${0%/*}" && [ ! -e do ] || . ./do
"""
SHELLS = ["sh", *(["busybox"] if shutil.which("busybox") else [])]


class Guarded:
    """A guard, its folder, and versions."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.own = root / "its own place"
        self.folder = root / "folder of it"
        self._shell = shell
        self.folder.mkdir()
        self.own.mkdir()
        shutil.copy(GUARD / "guard", self.own / "guard")
        self.version(self.own)

    def version(self, tree: Path, do: str = "") -> None:
        """Make a version."""
        (tree / "bin").mkdir(parents=True)
        (tree / "bin" / "thingjobs").write_text(VERSION)
        (tree / "bin" / "thingjobs").chmod(0o755)
        if do:
            (tree / "bin" / "do").write_text(do)

    def at(self, key: str) -> Path:
        """Return where a version is."""
        return self.folder / ".versions" / "current" / key

    def counts(self, key: str, do: str = "") -> None:
        """Make a version the one that counts."""
        if not self.at(key).exists():
            self.version(self.at(key), do)
        (self.folder / "current").unlink(missing_ok=True)
        (self.folder / "current").symlink_to(f".versions/current/{key}")

    def note(self, name: str, text: str) -> None:
        """Write a file of the guard's folder."""
        (self.folder / name).write_text(text)

    def text(self, name: str) -> str | None:
        """Return what is in such a file, None if it is not there."""
        file = self.folder / name
        return file.read_text() if file.exists() else None

    def popen(self, path: str = "", **more: Any) -> subprocess.Popen[str]:
        """Start the guard."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        argv = [*self._shell, str(self.own / "guard"), str(self.folder), "run", "--config", "a file"]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, **more)

    def start(self, path: str = "") -> str:
        """Start the guard, and return which version it became; "" if none."""
        process = self.popen(path)
        said, _ = process.communicate(timeout=60)
        if not said:
            return ""
        key, pid, *arguments = said.split(maxsplit=2)
        assert int(pid) == process.pid
        assert arguments == ["run --config a file\n"]
        return key


@pytest.fixture(params=SHELLS)
def guarded(request: pytest.FixtureRequest, require: Require, tmp_path: Path) -> Guarded:
    """A guard for each kind of shell that is here."""
    shell = [require(request.param), *(["ash"] if request.param == "busybox" else [])]
    return Guarded(tmp_path, shell)


def test_without_versions_it_becomes_the_one_that_it_came_with(guarded: Guarded) -> None:
    shutil.rmtree(guarded.folder)

    assert guarded.start() == "-"


def test_it_becomes_the_version_that_counts_and_notes_nothing(guarded: Guarded) -> None:
    guarded.counts("aa")

    assert [guarded.start() for _ in range(5)] == ["aa"] * 5
    assert {path.name for path in guarded.folder.iterdir()} == {"current", ".versions"}


def test_a_version_that_is_gone_is_none(guarded: Guarded) -> None:
    guarded.counts("aa")
    shutil.rmtree(guarded.at("aa"))

    assert guarded.start() == "-"


def test_a_version_on_trial_may_end_three_times(guarded: Guarded) -> None:
    guarded.counts("old")
    guarded.counts("new")
    guarded.note("trial", "new old 600\n")

    assert [guarded.start() for _ in range(5)] == ["new"] * 3 + ["old"] * 2
    assert guarded.text("failed") == "new it ended 3 times before the upgrade was finished\n"


def test_a_trial_of_a_version_that_does_not_count_yet_is_none(guarded: Guarded) -> None:
    guarded.counts("old")
    guarded.note("trial", "new old 600\n")

    assert guarded.start() == "old"
    assert guarded.text("starts") is None


def test_a_trial_that_was_passed_is_forgotten(guarded: Guarded) -> None:
    guarded.counts("new")
    guarded.note("failed", "new it came too late\n")
    guarded.note("starts", "xxx")

    assert guarded.start() == "new"


def test_going_back_may_lead_to_the_one_that_it_came_with(guarded: Guarded) -> None:
    guarded.counts("new")
    guarded.note("trial", "new - 600\n")
    guarded.note("failed", "new whatever\n")

    assert guarded.start() == "-"


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
    assert reason in (guarded.text("failed") or "")


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


# --- `apply` and `rollback`, killed at each of their steps --------------------------------------------------------

TARGET = "thingjobs_handlers.upgrade_agent:UpgradeAgent"
#: Kills itself just before the Nth time that it changes something below a folder.
KILLED = """
import os, runpy, signal, sys
last, folder = int(sys.argv.pop(1)), sys.argv.pop(1)
steps = {"os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"}
count = 0
def hook(event, args):
    global count
    written = event == "open" and isinstance(args[2], int) and args[2] & os.O_WRONLY
    if (event in steps or written) and folder in os.fsdecode(args[1 if event in ("os.rename", "os.symlink") else 0]):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
runpy.run_module("thingjobs.child", run_name="__main__", alter_sys=True)
"""


class Job:
    """A job of `upgrade-agent`, whose verbs the test runs itself."""

    def __init__(self, guarded: Guarded, work: Path, params: dict[str, Any]) -> None:
        self._guarded = guarded
        self._work = work
        self._params = params
        work.mkdir()

    def run(self, verb: str, version: str, kill_at: int = 0) -> tuple[int, str]:
        """Run a verb in an agent of a version; return its exit status and what it says of a failure."""
        told = {"jobId": "j", "execution": 1, "thing": "t", "attempt": 1, "resumed": False, "rebooted": False}
        more = {"contract": 1, "dryRun": False, "deadline": None, "revision": 1, "verb": verb}
        guard = {"folder": str(self._guarded.folder), "version": version}
        job = {**told, **more, "params": self._params, "settings": {"guard": guard}}
        (self._work / "job.json").write_text(json.dumps(job))
        events = self._work / "events"
        events.write_bytes(b"")
        argv = ["-I", "-m", "thingjobs.child", TARGET]
        if kill_at:
            argv = ["-c", KILLED, str(kill_at), str(self._guarded.folder), TARGET]
        environment = {"JOB_VERB": verb, "JOB_DIR": str(self._work), "JOB_EVENTS": str(events)}
        done = subprocess.run([sys.executable, *argv], env=environment, cwd=self._work, check=False)
        said = [json.loads(line) for line in events.read_text().splitlines()]
        return done.returncode, "".join(one.get("reason", "") for one in said)


@pytest.fixture
def job(tmp_path: Path, shop: Shop, require: Require) -> tuple[Guarded, Job, str]:
    """A job that has fetched a version of a few lines, on a device with another."""
    guarded = Guarded(tmp_path, [require("sh")])
    guarded.counts("old")
    tree = tmp_path / "tree"
    guarded.version(tree)
    text = '#!/bin/sh\n[ "$1" != --version ] || { echo thingjobs 2; exit; }\n'
    (tree / "bin" / "thingjobs").write_text(VERSION.replace("#!/bin/sh\n", text))
    params = shop.params(packed(tree), version="2")
    made = Job(guarded, tmp_path / "work", params)
    assert made.run("prepare", "old") == (0, "")
    return guarded, made, params["digest"].removeprefix("sha256:")[:32]


def test_apply_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    started = []
    for step in range(1, 100):
        code, _ = made.run("apply", "old", kill_at=step)
        started.append(guarded.start())
        if code == 0:
            break
        assert code == -9

    assert set(started[:-1]) == {"old"}
    assert started[-1] == key
    assert guarded.text("trial") == f"{key} old 900\n"


def test_rollback_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    guarded.note("failed", f"{key} whatever\n")
    for step in range(1, 100):
        code, _ = made.run("rollback", "old", kill_at=step)
        assert guarded.start() == "old"
        if code == 0:
            break
        assert code == -9

    assert not guarded.at(key).exists()
    assert {path.name for path in guarded.folder.iterdir()} == {"current", ".versions"}


def test_commit_may_be_killed_anywhere_and_done_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    for step in range(1, 100):
        code, _ = made.run("commit", key, kill_at=step)
        assert guarded.start() == key
        if code == 0:
            break
        assert code == -9

    assert {path.name for path in guarded.folder.iterdir()} == {"current", ".versions"}


def test_a_trial_that_failed_while_apply_was_interrupted_is_not_begun_again(job: tuple[Guarded, Job, str]) -> None:
    guarded, made, key = job
    assert made.run("apply", "old") == (0, "")
    guarded.note("failed", f"{key} it ended 3 times\n")

    code, reason = made.run("apply", "old")

    assert code == 1
    assert "it ended 3 times" in reason


@pytest.mark.parametrize("verb", ["verify", "commit"])
def test_a_note_of_the_guard_without_a_reason_is_a_failure_all_the_same(
    job: tuple[Guarded, Job, str], verb: str
) -> None:
    guarded, made, _ = job
    assert made.run("apply", "old") == (0, "")
    guarded.note("failed", "")

    assert made.run(verb, "old")[0] == 1
