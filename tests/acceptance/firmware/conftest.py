"""Machines of files for the firmware example: real agent and handler, a power switch, and a cloud that loses things."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import py_compile
import re
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki

    from thingjobs.testing import Lost, Request

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ab-firmware"
PATIENCE_SECONDS = 60
#: So many machines at a time: a run is mostly the start of processes, one after the other.
MACHINES = 3
BOARD = "pump-2"

CONFIG = """
[thing]
name = "{thing}"
[connection]
endpoint = "localhost"
port = {port}
certificate = "{certificate}"
private_key = "{key}"
ca = "{ca}"
[handlers]
directory = []
allow_root = ["ab-firmware"]
environment = {{ AB_DEVICE = "{folder}/device", AB_LEDGER = "{folder}/device" }}
[gates]
directory = "{folder}/gates"
[system]
reboot = ["{example}/fake-reboot", "{folder}/device"]
boot_id_file = "{folder}/device/boot_id"
[state]
directory = "{folder}/state"
"""

#: Keeps the ledger as src/ab_firmware/ledger.py does.
GATE = """#!/bin/sh
cd "{folder}/device" || exit 1
echo "gate before the $GATE_BEFORE" >>ledger
[ "$(cat cut-at 2>/dev/null)" != "$(sed -n '$=' ledger)" ] || read -r _ <hold
exit 0
"""


def image_of(version: str, *, healthy: bool = True, boots: bool = True) -> bytes:
    """Return firmware, as src/ab_firmware/image.py says."""
    body = hashlib.sha256(version.encode()).digest() * 6000
    header = {"board": BOARD, "version": version, "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps({**header, "boots": boots, "healthy": healthy}).encode() + b"\n" + body


# --- the cloud ----------------------------------------------------------------------------------------------------


class Cloud:
    """The Jobs service behind a broker, and a server of images.

    Attributes:
        machines: by the name of the thing; each says what is lost, and where its downloads wait.
    """

    def __init__(self, broker: Mosquitto, pki: Pki) -> None:
        self.broker = broker
        self.pki = pki
        self.machines: dict[str, Machine] = {}
        self.service = JobsService()
        self.service.interpose(lambda request: self.machines[request.thing].asks(request))
        self.url = ""

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Serve jobs and images as long as the block runs."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(*self.pki.device("cloud"))
        cloud = self

        class Images(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cloud.machines[self.path.strip("/")].downloads(self)

            def log_message(self, *_: object) -> None: ...

        with (
            BrokerJobsService(self.service, "localhost", self.broker.port, tls=context),
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), Images) as server,
        ):
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


# --- a machine ----------------------------------------------------------------------------------------------------


class Machine:
    """A device with two slots: its bootloader, its power switch, and the agent on it.

    Attributes:
        service: the Jobs service that it is a thing of.
        image: what it downloads, half of it before an entry in the ledger.
        requests: what it asked of the service during this update.
        boots: how often it booted during this update.
        lose: says of a request, by its name, what is lost of it; called by the thread of the service.
    """

    def __init__(self, cloud: Cloud, python: Path, folder: Path) -> None:
        self.thing = folder.name
        self.service = cloud.service
        self.url = f"{cloud.url}/{self.thing}"
        self.image = b""
        self.requests: list[str] = []
        self.boots = 0
        self.lose: Callable[[str], Lost | None] = lambda name: None
        self._folder = folder
        self._device = folder / "device"
        self._python = python
        self._agent: subprocess.Popen[bytes] | None = None
        self._download_goes_on = threading.Event()
        for made in (self._device, folder / "gates"):
            made.mkdir(parents=True)
            made.chmod(0o755)
        certificate, key = cloud.pki.device(self.thing)
        names = {"thing": self.thing, "certificate": certificate, "key": key, "ca": cloud.pki.ca, "folder": folder}
        (folder / "config.toml").write_text(CONFIG.format(port=cloud.broker.port, example=EXAMPLE, **names))
        gate = folder / "gates" / "ledger"
        gate.write_text(GATE.format(folder=folder))
        gate.chmod(0o755)
        os.mkfifo(self._device / "hold")
        files = {"board": BOARD, "battery": "80", "env": json.dumps({"active": "a", "trial": "", "boots": 0})}
        for name, content in files.items():
            (self._device / name).write_text(content)
        (self._device / "a.img").write_bytes(image_of("1.0"))
        cloud.machines[self.thing] = self

    # --- as it is -------------------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, Any]:
        """What the bootloader goes by."""
        found: dict[str, Any] = json.loads((self._device / "env").read_text())
        return found

    @property
    def booted(self) -> str:
        """The slot that runs."""
        return (self._device / "booted").read_text().strip()

    @property
    def on_trial(self) -> bool:
        """Whether what runs is not confirmed."""
        return bool(self.booted != self.env["active"])

    @property
    def ledger(self) -> list[str]:
        """The steps of this update so far."""
        return (self._device / "ledger").read_text().splitlines()

    @property
    def went_down(self) -> bool:
        """Whether the agent had it rebooted, and has ended."""
        return (self._device / "off").exists() and self._agent is not None and self._agent.poll() is not None

    @property
    def log(self) -> str:
        """What the agent said."""
        return (self._folder / "agent.log").read_text(errors="replace")

    def version(self, slot: str) -> str:
        """The version of the firmware in a slot, which must be whole."""
        line, _, body = (self._device / f"{slot}.img").read_bytes().partition(b"\n")
        header = json.loads(line)
        assert hashlib.sha256(body).hexdigest() == header["sha256"], f"the firmware in slot {slot} is not whole"
        return str(header["version"])

    # --- the power switch -----------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Turn it on: the bootloader chooses a slot, and the agent is started."""
        self.boots += 1
        self.choose_slot()
        self.start_agent()

    def choose_slot(self) -> None:
        """Let the bootloader do its work."""
        (self._device / "off").unlink(missing_ok=True)
        argv = [sys.executable, str(EXAMPLE / "fake-bootloader"), str(self._device)]
        told = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert told.returncode == 0, f"the device is a brick: {told.stdout}{told.stderr}"

    def start_agent(self) -> None:
        """Start the agent."""
        argv = [str(self._python), "-m", "thingjobs", "run", "--config", str(self._folder / "config.toml")]
        with (self._folder / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_agent(self) -> None:
        """Let the agent die, and nothing else."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait(PATIENCE_SECONDS)

    def cut_power(self) -> None:
        """End all that runs on it. The agent goes first: it must not see the others die."""
        self.kill_agent()
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        self._download_goes_on.set()
        (self._device / "cut-at").unlink(missing_ok=True)
        assert self.version(self.env["active"]), "there is no confirmed slot that boots"

    def _processes(self) -> list[int]:
        """Return what runs on it besides the agent: handlers, their shims, gates."""
        mark = f"{self._folder}/".encode()
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    told = [Path(entry.path, name).read_bytes() for name in ("cmdline", "environ")]
                    found += [int(entry.name)] * any(mark in text for text in told)
        return found

    # --- moments --------------------------------------------------------------------------------------------------

    def begin(self, image: bytes, hold_at: int | None) -> None:
        """Forget the update before, and wait at one step of this one."""
        self.image = image
        self.requests.clear()
        self.boots = 0
        self._download_goes_on.clear()
        (self._device / "ledger").write_text("")
        if hold_at is not None:
            (self._device / "cut-at").write_text(str(hold_at))

    def go_on(self) -> None:
        """Let go on what waits: a handler or a gate at the pipe, or the download."""
        if not self._download_goes_on.is_set() and self.ledger[-1].startswith("download"):
            self._download_goes_on.set()
        else:
            wait_for(self._somebody_waited)
        (self._device / "cut-at").unlink(missing_ok=True)

    def _somebody_waited(self) -> bool:
        try:
            os.close(os.open(self._device / "hold", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # ENXIO: not yet.
            return False
        return True

    def asks_again(self, seen: int) -> bool:
        """Wait until there are more requests than were seen; return False if it goes down before."""
        wait_for(lambda: len(self.requests) > seen or self.went_down)
        return not self.went_down

    def let_the_verb_end_unheard(self) -> None:
        """Let the verb that waits go on to its end, of which the agent does not hear."""
        assert self._agent is not None
        self._agent.send_signal(signal.SIGSTOP)
        exits = {path: path.stat().st_size for path in self._folder.glob("state/jobs/*/exit-*")}
        self.go_on()
        wait_for(lambda: any(path.stat().st_size > size for path, size in exits.items()))

    def asks(self, request: Request) -> Lost | None:
        """Take note of a request."""
        about = request.job_id if request.job_id == "$next" else "the job"
        name = f"{request.operation} of {about} {(request.body or {}).get('status', '')}".strip()
        self.requests.append(name)
        return self.lose(name)

    def downloads(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Send the image, and wait in the middle if that is the step."""
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin, size = int(asked[1]) if asked else 0, len(self.image)
        request.send_response(206 if asked else 200)
        request.send_header("Content-Length", str(size - begin))
        if asked:
            request.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        request.end_headers()
        half = max(begin, size // 2)
        with contextlib.suppress(OSError):
            request.wfile.write(self.image[begin:half])
            request.wfile.flush()
            wait_for(lambda: self._arrived() >= half)
            with (self._device / "ledger").open("a") as file:
                file.write(f"download from {begin}\n")
            cut_at = self._device / "cut-at"
            if cut_at.exists() and cut_at.read_text() == str(len(self.ledger)):
                self._download_goes_on.wait(PATIENCE_SECONDS)
            request.wfile.write(self.image[half:])

    def _arrived(self) -> int:
        parts = (self._folder / "state" / "jobs").rglob(".*.part")
        return max((path.stat().st_size for path in parts), default=0)


def wait_for(true: Callable[[], Any]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


# --- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture(name="image_of")
def image_of_fixture() -> Callable[..., bytes]:
    """Makes firmware."""
    return image_of


@pytest.fixture(scope="session")
def python_with_handler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an interpreter that has all that ours has, and the handler of the example."""
    folder = tmp_path_factory.mktemp("ab")
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    shutil.copytree(EXAMPLE / "src", packages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (packages / "ab_firmware", *(packages / "ab_firmware").glob("*.py")):
        path.chmod(path.stat().st_mode & ~0o022)
        if path.suffix == ".py":
            py_compile.compile(str(path))
    info = packages / "ab_firmware_handler-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ab-firmware-handler\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text("[thingjobs.handlers.v1]\nab-firmware = ab_firmware.handler:AbFirmware\n")
    (info / "RECORD").write_text("ab_firmware/handler.py,,\n")
    return folder / "bin" / "python"


@pytest.fixture
def machines(mosquitto: Mosquitto, pki: Pki, python_with_handler: Path, tmp_path: Path) -> Iterator[list[Machine]]:
    """Machines with firmware 1.0, turned on."""
    cloud = Cloud(mosquitto, pki)
    with cloud.open():
        made = [Machine(cloud, python_with_handler, tmp_path / f"pump-{number}") for number in range(MACHINES)]
        try:
            for machine in made:
                machine.boot()
            yield made
        finally:
            for machine in made:
                machine.cut_power()
        for machine in made:
            print(f"--- {machine.thing}\n{machine.log[-20_000:]}")
            assert "Traceback" not in machine.log
