"""The cloud of the benchmarks, and the two clients that are compared: the agent and the bare loop."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.web import WebJobsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Mosquitto, Pki

PATIENCE_SECONDS = 120
THING = "bench"
#: The floor of each transport: a program that promises nothing, with the same library.
BARE = {"paho": "bare.py", "awsiot": "bare_awsiot.py", "https": "bare_https.py"}


class Relay:
    """Passes connections on to a port of this machine, and counts what goes over them.

    Attributes:
        port: where it listens.
        passed: bytes of TCP in both directions; TLS is counted, the headers of TCP and IP are not.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        self.passed = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pass, args=pair, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passed += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End every connection and every thread."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()


class Bench:
    """A simulated service behind Mosquitto and HTTPS, and processes that take jobs from it one at a time."""

    def __init__(self, service: JobsService, mosquitto: Mosquitto, web: WebJobsService, pki: Pki, folder: Path) -> None:
        self.service = service
        self._ports = {"paho": mosquitto.port, "awsiot": mosquitto.port, "https": web.port}
        self._pki = pki
        self._folder = folder
        self._runs = 0
        handlers = folder / "handlers"
        handlers.mkdir(mode=0o755)
        self.program = handlers / "noop"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(0o755)

    @contextlib.contextmanager
    def relay(self, transport: str) -> Iterator[Relay]:
        """Have a relay on the way to the service."""
        relay = Relay(self._ports[transport])
        yield relay
        relay.close()

    def agent(
        self, transport: str = "paho", port: int = 0, every: int = 0, thing: str = THING
    ) -> subprocess.Popen[bytes]:
        """Start the agent on a state folder of its own.

        Args:
            transport: which one.
            port: of a relay; 0: none.
            every: seconds between keep-alives, or polls of HTTPS; 0: the agent's default.
            thing: whose jobs it takes.
        """
        self._runs += 1
        key_of = {"https": "[jobs]\npoll_interval_seconds"}.get(transport, "keep_alive_seconds")
        idle = f"{key_of} = {every}" if every else ""
        certificate, key = self._pki.device(thing)
        config = self._folder / f"config-{self._runs}.toml"
        config.write_text(
            f"""
[thing]
name = "{thing}"
[connection]
endpoint = "localhost"
transport = "{transport}"
port = {port or self._ports[transport]}
certificate = "{certificate}"
private_key = "{key}"
ca = "{self._pki.ca}"
{idle}
[handlers]
directory = {json.dumps(str(self.program.parent))}
allow_root = ["*"]
[state]
directory = "{self._folder}/state-{self._runs}"
""",
            encoding="utf-8",
        )
        return self._start("-m", "thingjobs", "run", "--config", str(config))

    def bare(
        self, transport: str = "paho", port: int = 0, every: int = 300, thing: str = THING
    ) -> subprocess.Popen[bytes]:
        """Start the bare loop; the arguments are those of `agent`."""
        certificate, key = self._pki.device(thing)
        where = (str(port or self._ports[transport]), str(self._pki.ca), str(certificate), str(key))
        program = (str(self.program),) if transport == "paho" else ()
        return self._start(str(Path(__file__).with_name(BARE[transport])), *where, thing, str(every), *program)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_for_requests(self, count: int) -> float:
        """Wait until the service has had `count` requests; return when the last of them came."""
        end = time.monotonic() + PATIENCE_SECONDS
        while len(self.service.requests) < count:
            assert time.monotonic() < end, "the client does not ask"
            time.sleep(0.001)
        return self.service.requests[count - 1].at

    def wait_for_jobs(self, names: list[str], thing: str = THING) -> tuple[float, float]:
        """Wait until all are over; return when the first was claimed and when the last was over."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.service.execution(thing, names[-1]).status in ("QUEUED", "IN_PROGRESS"):
            assert time.monotonic() < end, "the jobs do not end"
            time.sleep(0.01)
        views = [self.service.execution(thing, name) for name in names]
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
    web = WebJobsService(service, tls=pki.server_tls())
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context), web:
        yield Bench(service, mosquitto, web, pki, tmp_path)


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
