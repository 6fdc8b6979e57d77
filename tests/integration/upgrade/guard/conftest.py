"""The guard alone, with versions that are a few lines of shell, and the verbs of `upgrade-agent` without an agent."""

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
        self.root = root
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

    def give_up(self, why: str = "") -> None:
        """Do what the guard does when a version has failed its trial."""
        self.note("reason", why)
        (self.folder / "trial").rename(self.folder / "failed")

    def notes(self) -> set[str]:
        """Return what the folder holds beside the versions."""
        return {path.name for path in self.folder.iterdir()} - {"current", ".versions"}

    def argv(self) -> list[str]:
        """Return how the guard is started."""
        return [*self._shell, str(self.own / "guard"), str(self.folder), "run", "--config", "a file"]

    def popen(self, path: str = "", **more: Any) -> subprocess.Popen[str]:
        """Start the guard."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        return subprocess.Popen(self.argv(), stdout=subprocess.PIPE, text=True, env=environment, **more)

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


# --- the handler ---------------------------------------------------------------------------------------------------

TARGET = "thingjobs_handlers.upgrade_agent:UpgradeAgent"
#: Does something just before the Nth time that it changes something below a folder, and tells in the end of which
#: changes there nobody knows that they are on the disk.
WATCHED = """
import atexit, json, os, runpy, sys
last, act, told, folder = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
steps = {"os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"}
count, loose, sync = 0, [], os.fsync
def hook(event, args):
    global count
    written = event == "open" and isinstance(args[2], int) and args[2] & os.O_WRONLY
    if not (event in steps or written):
        return
    path = args[1 if event in ("os.rename", "os.symlink") else 0]
    path = "" if isinstance(path, int) else os.fsdecode(path)
    if path.startswith(folder + "/"):
        count += 1
        if not path.endswith("/.link"):  # It is none before it has its other name, and is removed one day.
            loose.extend([os.path.dirname(path), *([path] if written else [])])
        if count == last or not last:
            exec(act)
def synced(fd):
    sync(fd)
    path = os.readlink(f"/proc/self/fd/{fd}")
    loose[:] = [one for one in loose if one != path]
def tell():
    with open(told, "w") as file:
        json.dump(loose, file)
sys.addaudithook(hook)
os.fsync = synced
atexit.register(tell)
runpy.run_module("thingjobs.child", run_name="__main__", alter_sys=True)
"""
KILL = "os.kill(os.getpid(), 9)"


class Job:
    """A job of `upgrade-agent`, whose verbs the test runs itself."""

    def __init__(self, guarded: Guarded, work: Path, params: dict[str, Any]) -> None:
        self._guarded = guarded
        self._work = work
        self._params = params
        work.mkdir()

    def run(self, verb: str, version: str, *, at: int = 0, act: str = "") -> tuple[int, str]:
        """Run a verb in an agent of a version; return its exit status and what it says of a failure.

        Just before its change number `at` of the guard's folder it does `act`; with 0, before each.
        """
        told = {"jobId": "j", "execution": 1, "thing": "t", "attempt": 1, "resumed": False, "rebooted": False}
        more = {"contract": 1, "dryRun": False, "deadline": None, "revision": 1, "verb": verb}
        guard = {"folder": str(self._guarded.folder), "version": version}
        job = {**told, **more, "params": self._params, "settings": {"guard": guard}}
        (self._work / "job.json").write_text(json.dumps(job))
        events = self._work / "events"
        events.write_bytes(b"")
        argv = [
            "-c",
            WATCHED,
            str(at),
            act or (KILL if at else ""),
            str(self._work / "loose"),
            str(self._guarded.folder),
            TARGET,
        ]
        environment = {"JOB_VERB": verb, "JOB_DIR": str(self._work), "JOB_EVENTS": str(events)}
        done = subprocess.run([sys.executable, *argv], env=environment, cwd=self._work, check=False)
        said = [json.loads(line) for line in events.read_text().splitlines()]
        return done.returncode, "".join(one.get("reason", "") for one in said)

    def loose(self) -> set[str]:
        """Return the files and folders that the last verb changed, and that a power cut may make what they were."""
        return {
            str(Path(one).relative_to(self._guarded.folder)) for one in json.loads((self._work / "loose").read_text())
        }


@pytest.fixture
def new_job(tmp_path: Path, shop: Shop, require: Require) -> Callable[[Path], tuple[Guarded, Job, str]]:
    """Makes a device with a version, and a job that has fetched another."""

    def make(root: Path) -> tuple[Guarded, Job, str]:
        guarded = Guarded(root, [require("sh")])
        guarded.counts("old")
        tree = tmp_path / "tree"
        guarded.version(tree)
        text = '#!/bin/sh\n[ "$1" != --version ] || { echo thingjobs 2; exit; }\n'
        (tree / "bin" / "thingjobs").write_text(VERSION.replace("#!/bin/sh\n", text))
        (tree / "large").write_bytes(os.urandom(64 << 10))
        params = shop.params(packed(tree), version="2")
        made = Job(guarded, tmp_path / "work", params)
        assert made.run("prepare", "old") == (0, "")
        return guarded, made, params["digest"].removeprefix("sha256:")[:32]

    return make


@pytest.fixture
def job(tmp_path: Path, new_job: Callable[[Path], tuple[Guarded, Job, str]]) -> tuple[Guarded, Job, str]:
    """A job that has fetched a version of a few lines, on a device with another."""
    return new_job(tmp_path)
