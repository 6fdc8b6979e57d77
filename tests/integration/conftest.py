"""The real agent as a process, for tests that put it between real servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import statusbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_SECONDS = 30


class Agent:
    """`thingjobs run` with a configuration of its own; started and ended by the test."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(config, encoding="utf-8")
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, environment: dict[str, str] | None = None) -> None:
        """Start it, and wait until it answers."""
        argv = [sys.executable, "-m", "thingjobs", "run", "--verbose", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        eventually(lambda: self.state.exists() and statusbox.ask(self.state))

    def stop(self) -> int:
        """End it as a service manager does, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        found = statusbox.ask(self.state)
        assert found is not None, "the agent does not answer"
        return found

    def log_text(self) -> str:
        """All that it logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def new_agent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Agent]]:
    """Makes agents for a broker; ends them, and shows their log when the test failed."""
    made: list[Agent] = []

    def make(
        thing: str, *, port: int, pair: tuple[Path, Path], ca: Path, host: str = "localhost", more: str = ""
    ) -> Agent:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir()
        boot_id = folder / "boot_id"
        boot_id.write_text("first-boot\n")
        reboot = folder / "reboot"
        reboot.write_text(f"#!/bin/sh\necho asked >> {folder}/rebooted\n")
        reboot.chmod(0o755)
        (folder / "handlers").mkdir()
        (folder / "scripts").mkdir()
        agent = Agent(
            folder,
            f"""
[thing]
name = {json.dumps(thing)}
[connection]
endpoint = "{host}"
port = {port}
certificate = "{pair[0]}"
private_key = "{pair[1]}"
ca = "{ca}"
[handlers]
directory = "{folder}/handlers"
scripts = "{folder}/scripts"
allow_root = ["*"]
run_as = ["nobody"]
environment = {{ PATH = "{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin" }}
[system]
reboot = ["{reboot}"]
boot_id_file = "{boot_id}"
[state]
directory = "{folder}/state"
[facts]
site = "dock-7"
{more}
""",
        )
        made.append(agent)
        return agent

    yield make
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()
        print(f"--- {agent.log}\n{agent.log_text() if agent.log.exists() else ''}")


class Disk:
    """A real file system of its own, as small as a test wants it; filled, made read-only and back by the test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Use up every byte, into a file of its own each time."""
        filler = self.path / f"filler-{time.monotonic_ns()}"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def drain(self) -> None:
        """Give back what was used up."""
        for path in self.path.glob("filler-*"):
            path.unlink()

    def read_only(self) -> None:
        """Mount it read-only, as an operator would; a file that is open for writing forbids it."""
        self._remount("ro")

    def writable(self) -> None:
        """Mount it for writing again."""
        self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Makes small file systems in memory; that takes root, which CI is."""
    made: list[Disk] = []

    def make(size: str = "4m", **options: str) -> Disk:
        path = tmp_path / f"disk-{len(made)}"
        path.mkdir()
        more = "".join(f",{name}={value}" for name, value in options.items())
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755{more}", "tmpfs", str(path)]
        mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            reason = f"a small file system cannot be mounted here: {mounted.stderr.strip()}"
            if os.environ.get("CI", "").lower() in ("true", "1"):
                pytest.fail(f"{reason}; in CI nothing may be missing", pytrace=False)
            pytest.skip(f"NOT TESTED: {reason}")
        made.append(Disk(path))
        return made[-1]

    yield make
    for disk in made:
        subprocess.run(["umount", "-l", str(disk.path)], check=True)


def eventually(true: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    """Waits for something to become true."""
    return eventually
