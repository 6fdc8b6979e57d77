"""Who takes part in a soak: the simulated service behind Mosquitto, the real agent, and a wire to cut."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import statusbox
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki

THING = "pump-7"
PATIENCE_SECONDS = 60
#: The agent of service, but for its patience after a lost connection, and for what it keeps of finished jobs.
HURRIED = """
import sys
from thingjobs import policy
share = float(sys.argv.pop(1))
policy.REPLY_TIMEOUT = 1.0
policy.FRESH_BOOT = 0.0
policy.backoff.__kwdefaults__.update(first=0.02, cap=0.1)
policy.MAX_REMEMBERED = int(policy.MAX_REMEMBERED * share)
from thingjobs.transport import patience
patience.LIMITS = patience.Limits(cap=0.1, rival_cap=0.1, hold_first=0.1, hold_cap=0.1)
from thingjobs import journal
journal.MAX_TOMBSTONES = int(journal.MAX_TOMBSTONES * share)
journal.PRUNE_AT = int(journal.PRUNE_AT * share)
from thingjobs.cli import main
sys.exit(main())
"""
HANDLER = """#!/bin/sh
case $JOB_DIR in *-fails.*) echo 'the valve is stuck' >&2; exit 3;; esac
basename "$(dirname "$JOB_DIR")" >>{ledger}
echo '{{"progress": 50, "message": "half way", "details": {{"slot": "b"}}}}' >>"$JOB_EVENTS"
echo done
"""


class Relay:
    """Carries bytes between one agent and the broker, TLS and all, and cuts them off when it is told to.

    Attributes:
        port: where the agent connects.
        connections: how many there were.
    """

    def __init__(self, broker: int) -> None:
        self._broker = broker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._pair: tuple[socket.socket, ...] = ()
        self._thread = threading.Thread(target=self._accept, name="relay")
        self._thread.start()

    def cut(self, *, reset: bool) -> bool:
        """End the connection: reset, or closed as if by the other side. Return whether there was one."""
        pair = self._pair
        for sock in pair:
            with suppress(OSError):  # it has just ended
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
            shut(sock)
        return bool(pair)

    def stop(self) -> None:
        """End everything."""
        shut(self._listener)
        self.cut(reset=False)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:  # shut down
                return
            with device:
                self._serve(device)

    def _serve(self, device: socket.socket) -> None:
        try:
            broker = socket.create_connection(("127.0.0.1", self._broker), 5)
        except OSError:
            return
        with broker:
            self.connections += 1
            self._pair = (device, broker)
            for sock in self._pair:
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=carry, args=(broker, device), name="relay-back")
            back.start()
            carry(device, broker)
            back.join()
            self._pair = ()


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes until one side ends, then end both."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    shut(source)
    shut(target)


def shut(sock: socket.socket) -> None:
    """Wake whoever waits on a socket: it has ended."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Agent:
    """The real agent behind the relay."""

    def __init__(self, folder: Path, port: int, pki: Pki, share: float) -> None:
        self.state = folder / "state"
        self.ledger = folder / "ran"
        self.log = folder / "agent.log"
        handlers = folder / "handlers"
        handlers.mkdir(mode=0o755)
        (handlers / "work").write_text(HANDLER.format(ledger=self.ledger))
        (handlers / "work").chmod(0o755)
        certificate, key = pki.device(THING)
        config = folder / "config.toml"
        config.write_text(
            f"""
[thing]
name = "{THING}"
[connection]
endpoint = "localhost"
port = {port}
certificate = "{certificate}"
private_key = "{key}"
ca = "{pki.ca}"
[handlers]
directory = "{handlers}"
allow_root = ["*"]
[state]
directory = "{self.state}"
""",
            encoding="utf-8",
        )
        argv = [sys.executable, "-c", HURRIED, str(share), "run", "--config", str(config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.process.pid

    def connected(self) -> bool:
        """Whether it says that it is connected."""
        assert self.process.poll() is None, "the agent ended"
        said = statusbox.ask(self.state) if self.state.exists() else None
        return said is not None and said["connected"]


def wait(true: Callable[[], Any], what: str) -> None:
    """Wait until it is true; fail when that takes too long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, f"it takes too long until {what}"
        time.sleep(0.002)


@pytest.fixture(name="wait")
def wait_fixture() -> Callable[[Callable[[], Any], str], None]:
    """Waits for something to become true."""
    return wait


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    """The simulated Jobs service behind Mosquitto."""
    made = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    cloud = BrokerJobsService(made, "localhost", mosquitto.port, tls=context)
    cloud._client.reconnect_delay_set(max_delay=1)
    with cloud:
        yield made


@pytest.fixture
def relay(mosquitto: Mosquitto) -> Iterator[Relay]:
    """Where the agent connects."""
    made = Relay(mosquitto.port)
    yield made
    made.stop()


@pytest.fixture
def agent(relay: Relay, service: JobsService, pki: Pki, tmp_path: Path, share: float) -> Iterator[Agent]:
    """An agent that runs and answers; it keeps that `share` of what it would keep of finished jobs."""
    made = Agent(tmp_path, relay.port, pki, share)
    try:
        wait(made.connected, "the agent connects")
        yield made
        made.process.terminate()
        assert made.process.wait(30) == 0
    finally:
        made.process.kill()
        made.process.wait()
        print(f"--- {made.log}\n{made.log.read_text()[-20_000:]}")
