"""The cloud of the benchmarks, and the two clients that are compared: the agent and the bare loop."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Mosquitto, Pki

PATIENCE_SECONDS = 120
THING = "bench"


class Bench:
    """A simulated service behind Mosquitto, and processes that take jobs from it one at a time."""

    def __init__(self, service: JobsService, mosquitto: Mosquitto, pki: Pki, folder: Path) -> None:
        self.service = service
        self._mosquitto = mosquitto
        self._pki = pki
        self._folder = folder
        self._runs = 0
        handlers = folder / "handlers"
        handlers.mkdir(mode=0o755)
        self.program = handlers / "noop"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)

    def agent(self) -> subprocess.Popen[bytes]:
        """Start the agent on a state folder of its own."""
        self._runs += 1
        certificate, key = self._pki.device(THING)
        config = self._folder / f"config-{self._runs}.toml"
        config.write_text(
            f"""
[thing]
name = "{THING}"
[connection]
endpoint = "localhost"
port = {self._mosquitto.port}
certificate = "{certificate}"
private_key = "{key}"
ca = "{self._pki.ca}"
[handlers]
directory = {json.dumps(str(self.program.parent))}
allow_root = ["*"]
[state]
directory = "{self._folder}/state-{self._runs}"
""",
            encoding="utf-8",
        )
        return self._start("-m", "thingjobs", "run", "--config", str(config))

    def bare(self) -> subprocess.Popen[bytes]:
        """Start the bare loop."""
        certificate, key = self._pki.device(THING)
        where = (str(self._mosquitto.port), str(self._pki.ca), str(certificate), str(key))
        return self._start(str(Path(__file__).with_name("bare.py")), *where, THING, str(self.program))

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for_requests(self, count: int) -> float:
        """Wait until the service has had `count` requests; return when the last of them came."""
        end = time.monotonic() + PATIENCE_SECONDS
        while len(self.service.requests) < count:
            assert time.monotonic() < end, "the client does not ask"
            time.sleep(0.001)
        return self.service.requests[count - 1].at

    def wait_for_jobs(self, names: list[str]) -> tuple[float, float]:
        """Wait until all are over; return when the first was claimed and when the last was over."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.service.execution(THING, names[-1]).status in ("QUEUED", "IN_PROGRESS"):
            assert time.monotonic() < end, "the jobs do not end"
            time.sleep(0.01)
        views = [self.service.execution(THING, name) for name in names]
        assert {view.status for view in views} == {"SUCCEEDED"}
        return min(view.started_at or 0.0 for view in views), max(view.updated_at for view in views)


def finish(process: subprocess.Popen[bytes]) -> None:
    """End a client."""
    process.terminate()
    process.wait(30)


@pytest.fixture
def bench(mosquitto: Mosquitto, pki: Pki, tmp_path: Path) -> Iterator[Bench]:
    """Serve the simulated Jobs service on a real broker with mutual TLS."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield Bench(service, mosquitto, pki, tmp_path)


def say(what: str, ours: float, floor: float, unit: str, target: str) -> None:
    """Print a figure beside its floor."""
    ratio = f"{ours / floor:.2f} x" if floor else "-"
    line = f"{what:44} agent {ours:10.2f} {unit:7} bare {floor:10.2f} {unit:7} ratio {ratio:8} target {target}"
    print(line)
    if path := os.environ.get("THINGJOBS_BENCH_FILE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@pytest.fixture(name="say")
def say_fixture() -> object:
    """Prints a figure beside its floor."""
    return say


@pytest.fixture(name="finish")
def finish_fixture() -> object:
    """Ends a client."""
    return finish
