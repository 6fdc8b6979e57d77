"""The real agent as a process, for tests that put it between real servers."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest

from thingjobs import statusbox
from thingjobs.cli.run import _parts
from thingjobs.config import load
from thingjobs.daemon import Daemon
from thingjobs.journal import Journal
from thingjobs.machine import Stopping
from thingjobs.machine.events import Stop
from thingjobs.model import ThingName
from thingjobs.transport.dial import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingjobs.testing import JobsService, Message

THING = ThingName("pump-7")

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

    def start(self, *, environment: dict[str, str] | None = None, verbose: bool = True) -> None:
        """Start it, and wait until it answers."""
        more = ["--verbose"] if verbose else []
        argv = [sys.executable, "-m", "thingjobs", "run", *more, "--config", str(self.config)]
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


class Inside:
    """The agent on a thread of this process, so that a test can choose how its transport behaves.

    Its handlers are real processes; the one called `hold` ends when there is a file `go`.

    Attributes:
        service: what gives it jobs.
        folder: all its files.
        transport: which it connects by.
    """

    def __init__(self, service: JobsService, files: Agent, transport: Any) -> None:
        config = load([files.config], environment={})
        self.service = service
        self.folder = files.folder
        self.transport = transport
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._journal = Journal(config.state.directory)
        self._journal.open()
        self._daemon = Daemon(_parts(config, transport, self._journal, self._inbox), self._inbox)
        self._thread = threading.Thread(target=self._daemon.run, name="agent")
        self._jobs = 0
        hold = self.folder / "handlers" / "hold"
        hold.write_text(
            f"#!/bin/sh\necho ran >> {self.folder}/ran\nwhile [ ! -e {self.folder}/go ]; do sleep 0.05; done\n"
        )
        hold.chmod(0o755)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._inbox.put(Stop(Stopping.LEAVE))
        self._thread.join(20.0)
        self._journal.close()

    @property
    def connected(self) -> bool:
        return self._daemon.state.connected_at is not None

    def queue(self, document: object) -> str:
        """Queue a job and return its id."""
        self._jobs += 1
        self.service.create_job(f"job-{self._jobs}", document, [THING])
        return f"job-{self._jobs}"

    def over(self, job_id: str) -> Any:
        """Return the execution if it is over, else None."""
        view = self.service.execution(THING, job_id)
        return view if view.status not in ("QUEUED", "IN_PROGRESS") else None

    def went_through(self, job_id: str) -> None:
        """Wait for a job: it was claimed once and finished once."""
        view = eventually(lambda: self.over(job_id), 20.0)
        assert view.status == "SUCCEEDED", view.details
        assert [change.status for change in view.history] == ["QUEUED", "IN_PROGRESS", "SUCCEEDED"]

    def asked(self) -> list[str]:
        """What the service was asked so far, in the words of its MQTT API."""
        return [request.suffix for request in self.service.requests]


@pytest.fixture
def inside() -> Iterator[Callable[[JobsService, Agent, Any], Inside]]:
    """Starts agents on threads of this process; they stop at the end of the test."""
    started: list[Inside] = []

    def make(service: JobsService, files: Agent, transport: Any) -> Inside:
        started.append(Inside(service, files, transport).start())
        return started[-1]

    yield make
    for agent in started:
        agent.stop()


class PolicyBroker:
    """An MQTT broker with the Jobs service inside that closes the connection on what its policy denies.

    That is what AWS IoT Core does; Mosquitto answers with a reason code instead, or drops the message.

    Attributes:
        publish: what may be published; a regular expression for the topic below $aws/things/THING/jobs/.
        subscribe: the same for filters.
        connect: which client ids are let in; a regular expression.
        receive: whether anything is delivered.
        says: whether a DISCONNECT with its reason is sent before the end (MQTT 5).
        log: connections (`connect`), and all that was denied, in order.
    """

    def __init__(self, thing: ThingName, service: JobsService, version: int, *, says: bool = True) -> None:
        self._thing = thing
        self.publish = self.subscribe = self.connect = ".*"
        self.receive = True
        self.says = says and version == 5
        self.log: list[str] = []
        self._service = service
        self._v5 = version == 5
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = int(self._listener.getsockname()[1])
        self.link = Link("127.0.0.1", port, thing, thing, keep_alive=5, version=version)
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="policy-broker")

    def __enter__(self) -> Self:
        self._unlisten = self._service.listen(None, self._deliver)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._unlisten()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def end(self, code: int) -> None:
        """End the connection with a reason."""
        self._send(bytes((0xE0, 2, code, 0)))
        if self._sock is not None:
            self._sock.shutdown(socket.SHUT_RDWR)

    def denied(self, what: str) -> int:
        return self.log.count(what)

    def _work(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sock = sock
            with sock, contextlib.suppress(OSError, EOFError):
                while self._packet(*self._read(sock)):
                    pass
            self._sock = None

    def _read(self, sock: socket.socket) -> tuple[int, bytes]:
        def exactly(size: int) -> bytes:
            data = b""
            while len(data) < size:
                more = sock.recv(size - len(data))
                if not more:
                    raise EOFError
                data += more
            return data

        kind, size, shift = exactly(1)[0], 0, 0
        while True:
            byte = exactly(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind & 0xF0, exactly(size)

    def _packet(self, kind: int, body: bytes) -> bool:
        match kind:
            case 0x10:
                return self._connected(body)
            case 0x80:
                return self._subscribed(body)
            case 0x30:
                return self._published(body)
            case 0xC0:
                self._send(b"\xd0\0")
            case 0xE0:
                return False
        return True

    def _connected(self, body: bytes) -> bool:
        self.log.append("connect")
        rest = body[10 + (1 + body[10] if self._v5 else 0) :]
        (size,) = struct.unpack("!H", rest[:2])
        if not re.fullmatch(self.connect, rest[2 : 2 + size].decode()):
            if self.says:
                self._send(b"\x20\x03\0\x87\0")
            return False
        self._send(b"\x20\x03\0\0\0" if self._v5 else b"\x20\x02\0\0")
        return True

    def _subscribed(self, body: bytes) -> bool:
        rest, count = body[3 if self._v5 else 2 :], 0
        while rest:
            (size,) = struct.unpack("!H", rest[:2])
            suffix = rest[2 : 2 + size].decode().split("/", 4)[4]
            if not re.fullmatch(self.subscribe, suffix):
                return self._deny(f"subscribe {suffix}")
            rest, count = rest[3 + size :], count + 1
        answer = body[:2] + (b"\0" if self._v5 else b"") + b"\1" * count
        self._send(bytes([0x90, len(answer)]) + answer)
        return True

    def _published(self, body: bytes) -> bool:
        (size,) = struct.unpack("!H", body[:2])
        suffix = body[2 : 2 + size].decode().split("/", 4)[4]
        mid = body[2 + size : 4 + size]
        if not re.fullmatch(self.publish, suffix):
            return self._deny(f"publish {suffix}")
        self._send(b"\x40\x02" + mid)
        self._service.handle(self._thing, suffix, body[4 + size + self._v5 :], self._deliver)
        return True

    def _deny(self, what: str) -> bool:
        self.log.append(what)
        if self.says:
            self._send(b"\xe0\x02\x87\0")
        return False

    def _deliver(self, message: Message) -> None:
        if not self.receive:
            return
        topic = message.topic.encode()
        body = struct.pack("!H", len(topic)) + topic + (b"\0" if self._v5 else b"") + message.payload
        size, length = len(body), b""
        while True:
            size, low = divmod(size, 128)
            length += bytes([low | (0x80 if size else 0)])
            if not size:
                break
        with contextlib.suppress(OSError):
            self._send(b"\x30" + length + body)

    def _send(self, data: bytes) -> None:
        sock = self._sock
        if sock is not None:
            with self._lock:
                sock.sendall(data)


@pytest.fixture
def policy_broker() -> Callable[..., PolicyBroker]:
    """Makes brokers with a policy, for one thing: from its Jobs service, the version of MQTT, and `says`."""
    return partial(PolicyBroker, THING)
