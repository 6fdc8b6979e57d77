"""Process 1 of the container: the agent's death ends no handler, and the end of the container waits for the step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Require

INIT = Path(__file__).resolve().parents[2] / "packaging/container/init"
PATIENCE_SECONDS = 30.0
#: Says that it runs, and goes on until it may end.
HANDLER = "#!/bin/sh\necho ran >>'{0}/ran'\nuntil [ -e '{0}/go' ]; do sleep 0.1; done\necho ended >>'{0}/ran'\n"


class Container:
    """Processes with a process 1 of their own, and an agent that takes jobs from a folder."""

    def __init__(self, unshare: str, folder: Path) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self.jobs.mkdir()
        handlers = folder / "handlers"
        handlers.mkdir()
        (handlers / "slow").write_text(HANDLER.format(folder))
        (handlers / "slow").chmod(0o755)
        config = folder / "config.toml"
        config.write_text(f'[handlers]\ndirectory = "{handlers}"\nallow_root = ["slow"]\nuser = "root"\n')
        (self.jobs / "one.json").write_text(json.dumps({"handler": "slow", "params": {}}))
        agent = [sys.executable, "-I", "-m", "thingjobs", "run", "--patient", "--local", str(self.jobs)]
        agent += ["--config", str(config)]
        alone = [unshare, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process = subprocess.Popen(
            [*alone, INIT, *agent],
            env={**os.environ, "RESTART_SECONDS": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def agents(self) -> list[int]:
        """Return the agents that run, as they are called outside."""
        return [
            pid
            for pid, words in processes()
            if str(self.jobs) in words and "--local" in words and str(INIT) not in words
        ]

    def init(self) -> int:
        """Return process 1, as it is called outside."""
        (pid,) = [
            pid
            for pid, words in processes()
            if str(INIT) in words and str(self.jobs) in words and "--fork" not in words
        ]
        return pid

    def ran(self) -> list[str]:
        """Return what the handler said."""
        file = self.folder / "ran"
        return file.read_text().split() if file.exists() else []

    def status(self) -> str:
        """Return how the job stands, as the agent's state tells it."""
        done = subprocess.run(
            [sys.executable, "-I", "-m", "thingjobs", "status", "--local", str(self.jobs), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


def processes() -> Iterator[tuple[int, list[str]]]:
    """Yield each process and its words."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(entry.name), (entry / "cmdline").read_text().split("\0")


@pytest.fixture
def container(require: Require, tmp_path: Path) -> Iterator[Container]:
    """Run one; root alone may make one without more ado."""
    unshare = require("unshare")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: process 1 of the container: only root makes a pid namespace")
    found = Container(unshare, tmp_path)
    yield found
    found.process.kill()
    found.process.wait()


def wait_for(what: Callable[[], object]) -> None:
    """Wait until it is true."""
    from tests.conftest import wait_until

    assert wait_until(what, PATIENCE_SECONDS)


def test_a_handler_outlives_the_agent_and_the_next_agent_adopts_it(container: Container) -> None:
    wait_for(container.ran)
    (first,) = container.agents()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: container.agents() not in ([], [first]))
    (container.folder / "go").touch()
    wait_for(lambda: "SUCCEEDED" in container.status())

    assert container.ran() == ["ran", "ended"]
    wait_for(lambda: not zombies(container.init()))


def zombies(parent: int) -> list[int]:
    """Return what ended below a process and is not buried."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, of = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            found += [int(entry.name)] if state == "Z" and int(of) == parent else []
    return found


def test_the_end_of_the_container_waits_for_the_step_that_runs(container: Container) -> None:
    wait_for(container.ran)
    os.kill(container.init(), signal.SIGTERM)
    (container.folder / "go").touch()

    assert container.process.wait(PATIENCE_SECONDS) == 0
    assert "SUCCEEDED" in container.status()
    assert container.ran() == ["ran", "ended"]
