"""A device whose agent is started by the guard: versions of the agent as trees, and a service manager of four lines."""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import io
import json
import os
import py_compile
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.web import Quiet

import thingjobs
import thingjobs_handlers
from thingjobs import statusbox
from thingjobs.errors import StateError
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

    #: By file of a version, what stands there and what is to stand.
    Changes: TypeAlias = Mapping[str, tuple[tuple[str, str], ...]]

THING = "pump-7"
OLD, NEW = "1.0.0", "2.0.0"
REPOSITORY = Path(__file__).parents[3]
GUARD = REPOSITORY / "packaging" / "guard"
#: Each of these takes seconds, and most of them are much alike: `THINGJOBS_UPGRADES=all` runs all.
ALL = os.environ.get("THINGJOBS_UPGRADES") == "all"
SELDOM = pytest.mark.skipif(not ALL, reason="one of its kind is enough each time; THINGJOBS_UPGRADES=all runs it too")
#: Starts what it is given again and again until there is a file `enough`, as `Restart=always` does.
MANAGER = """
cd "$1" || exit; shift
until [ -e enough ]; do
    "$@" & echo $! >pid.new; mv pid.new pid; wait $!; echo "$?" >>ended; sleep 0.1
done
"""
#: What each Python of a tree finds its libraries by; the real one is packaging/debian/thingjobs_tree.py.
TREE = "'''Says that the agent runs from a tree.'''\n"
ENTRY_POINTS = """[thingjobs.handlers.v1]
install-handler = thingjobs_handlers.install_handler:InstallHandler
upgrade-agent = thingjobs_handlers.upgrade_agent:UpgradeAgent
"""
#: What makes of the journal's format one that comes later: the note is told in another place.
LATER_FORMAT = {
    "thingjobs/records.py": (
        ("FORMAT = 1\n", "FORMAT = 2\n"),
        (
            "STEP: Step | None = None\n",
            """STEP: Step | None = Step(
    up=lambda old: {**{name: value for name, value in old.items() if name != "note"}, "remarks": [old["note"]]},
    down=lambda new: {**{name: value for name, value in new.items() if name != "remarks"}, "note": new["remarks"][0]},
)
""",
        ),
        ('"note": record.note,', '"remarks": [record.note],'),
        ('note=raw["note"],', 'note=raw["remarks"][0],'),
    )
}


class Trees:
    """Versions of the agent as folders.

    Args:
        folder: where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plain = folder / "plain"
        for package in (thingjobs, thingjobs_handlers):
            source = Path(str(package.__file__)).parent
            ignored = shutil.ignore_patterns("__pycache__", "kit")
            shutil.copytree(source, self._plain / source.name, ignore=ignored)
        (self._plain / "thingjobs_tree.py").write_text(TREE)
        (self._plain / "bin").mkdir()
        launcher = (GUARD / "thingjobs").read_text()
        program = self._plain / "bin" / "thingjobs"
        program.write_text(launcher.replace("#!/usr/bin/python3 -I\n", f"#!{sys.executable} -I\n"))
        program.chmod(0o755)
        # Whatever copies it later, no version is compiled a second time.
        compileall.compile_dir(self._plain, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)

    def make(self, version: str, changes: Changes | None = None, name: str = "") -> Path:
        """Make a version with other texts in some of its files: by file, what stands there and what is to stand."""
        tree = self._folder / (name or version)
        shutil.copytree(self._plain, tree)
        own = {"thingjobs/__init__.py": ((thingjobs.__version__, version),)}
        for file, texts in {**own, **(changes or {})}.items():
            path = tree / file
            text = path.read_text()
            for before, after in texts:
                assert before in text, (file, before)
                text = text.replace(before, after)
            path.write_text(text)
            py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        info = tree / f"thingjobs-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thingjobs\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(ENTRY_POINTS)
        (info / "RECORD").write_text("".join(sorted(str(one.relative_to(tree)) + "\n" for one in tree.rglob("*"))))
        return tree


def packed(tree: Path) -> bytes:
    """Return a version as the archive that a job brings."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, path.name)
    return out.getvalue()


class Unit:
    """The service `thingjobs` of a device: guard, agent, and who starts them again.

    Args:
        agent: its configuration, and where its state and its log are.
        original: the tree that the guard comes with.
    """

    def __init__(self, agent: Agent, original: Path, service: JobsService, eventually: Callable[..., Any]) -> None:
        self.agent = agent
        self.folder = agent.folder
        self.service = service
        self.eventually = eventually
        self.original = original
        self.guarded = self.folder / "versions of it"
        self.guarded.mkdir()
        (self.folder / "run").mkdir()
        self._manager: subprocess.Popen[bytes] | None = None
        if not (original / "guard").exists():
            shutil.copy(GUARD / "guard", original / "guard")

    # --- the service ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until the agent answers."""
        self.start_with(str(self.original / "guard"), str(self.guarded))

    def start_with(self, *program: str) -> None:
        """Start the agent by a program."""
        run = self.folder / "run"
        (run / "enough").unlink(missing_ok=True)
        argv = ["/bin/sh", "-c", MANAGER, "manager", str(run), *program, "run", "--config", str(self.agent.config)]
        with self.agent.log.open("ab") as log:
            self._manager = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.eventually(self.answer)

    def answer(self) -> object:
        """Return what the agent says of itself, None if nothing."""
        with contextlib.suppress(StateError, OSError):
            return statusbox.ask(self.agent.state)
        return None

    @property
    def pid(self) -> int:
        """The agent's, or the guard's, which becomes the agent."""
        return int((self.folder / "run" / "pid").read_text())

    def stop(self) -> None:
        """End it as a service manager does: a handler that runs is left to the next agent."""
        manager = self._manager
        if manager is None:
            return
        (self.folder / "run" / "enough").touch()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self.pid, signal.SIGTERM)
        manager.wait(60)
        self._manager = None

    def power_cut(self, boot: str = "") -> None:
        """Take the power from all of it at once; `boot`: the machine boots after that, and is not only started."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if self._manager is not None:
            self._manager.wait(30)
            self._manager = None
        self.eventually(lambda: not self.processes())
        if boot:
            (self.folder / "boot_id").write_text(f"{boot}\n")

    def processes(self) -> list[int]:
        """Return all processes of this device."""
        mark, found = str(self.folder).encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if mark in said and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found

    @property
    def ended(self) -> list[int]:
        """The exit statuses of the agents that ended so far; one that was started again in place did not."""
        file = self.folder / "run" / "ended"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    # --- versions -------------------------------------------------------------------------------------------------

    def turn(self, tree: Path) -> None:
        """Make a version the one that counts, with no job and no trial, as a package or a bootloader does."""
        place = self.guarded / ".versions" / "current" / tree.name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(tree, place)
        fresh = self.guarded / ".link"
        fresh.symlink_to(f".versions/current/{tree.name}")
        fresh.replace(self.guarded / "current")

    def notes(self) -> set[str]:
        """Return what the guard's folder holds beside the versions."""
        return {path.name for path in self.guarded.iterdir()} - {".versions", "current"}

    # --- jobs -----------------------------------------------------------------------------------------------------

    def handler(self, name: str, script: str, *verbs: str, **more: Any) -> None:
        """Install a handler in shell; `say` writes into what `ran` returns, `hold NAME` waits for `go(NAME)`."""
        folder = self.folder / "handlers" / name
        folder.mkdir(mode=0o755)
        manifest = {"contract": 1, "verbs": list(verbs), "exec": "run.sh", **more}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        at = f'"{self.folder}"/at-'
        (folder / "run.sh").write_text(
            f'#!/bin/sh\nsay() {{ echo "$*" >>"{self.folder}/ran"; }}\n'
            f"hold() {{ touch {at}$1; while [ ! -e {at}$1-go ]; do sleep 0.02; done; }}\n"
            f"say $JOB_VERB\n{script}\n"
        )
        (folder / "run.sh").chmod(0o755)

    def at(self, name: str) -> None:
        """Wait until a handler holds at `name`."""
        self.eventually((self.folder / f"at-{name}").exists)

    def go(self, name: str) -> None:
        """Let it go on."""
        (self.folder / f"at-{name}-go").touch()

    @property
    def ran(self) -> list[str]:
        """What handlers said so far."""
        file = self.folder / "ran"
        return file.read_text().splitlines() if file.exists() else []

    def queue(self, job_id: str, handler: str, params: Mapping[str, Any] | None = None) -> None:
        """Queue a job."""
        self.service.create_job(job_id, {"handler": handler, "params": dict(params or {})}, [THING])

    def over(self, job_id: str, seconds: float = 90) -> Any:
        """Wait for the end of an execution and return it."""
        self.eventually(lambda: not self.service.execution(THING, job_id).pending, seconds)
        return self.service.execution(THING, job_id)

    def updates(self, job_id: str) -> list[Any]:
        """Return the bodies of the updates that the service got about a job."""
        return [request.body for request in self.service.requests if request.suffix == f"{job_id}/update"]

    def record(self, job_id: str) -> tuple[int, dict[str, Any]]:
        """Return the format of a job's record, and the record."""
        (path,) = (self.agent.state / "journal").glob(f"{job_id}.*.json")
        header, body = path.read_bytes().splitlines()
        return json.loads(header)["format"], json.loads(body)

    def works(self, job_id: str = "after") -> str:
        """Run one more job, and return which version ran it."""
        if not (self.folder / "handlers" / "plain").exists():
            self.handler("plain", "exit 0", "apply")
        self.queue(job_id, "plain")
        found = self.over(job_id)
        assert found.status == "SUCCEEDED", found
        return str(found.details["agent"])


class _Answer(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.answer(found or b"", 404 if found is None else 200)


class Shop:
    """Where archives are fetched from."""

    def __init__(self, url: str, files: dict[str, bytes]) -> None:
        self._url = url
        self._files = files

    def params(self, archive: bytes, **more: Any) -> dict[str, Any]:
        """Return the parameters of a job that fetches an archive."""
        digest = hashlib.sha256(archive).hexdigest()
        self._files[f"/{digest}"] = archive
        return {"url": f"{self._url}/{digest}", "digest": f"sha256:{digest}", **more}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """A server with archives."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.files = {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Shop(f"http://127.0.0.1:{server.server_port}", server.files)  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Makes versions of the agent."""
    return Trees(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="session")
def old(trees: Trees) -> Path:
    """The version that a device has."""
    return trees.make(OLD)


@pytest.fixture(scope="session")
def new(trees: Trees) -> Path:
    """A version that is as good, and writes another format."""
    return trees.make(NEW, LATER_FORMAT)


@pytest.fixture
def unit(
    mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent], old: Path, eventually: Callable[..., Any]
) -> Iterator[Unit]:
    """A device with the old version, whose service is not started yet."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        made = Unit(agent, old, service, eventually)
        yield made
        made.stop()
        made.power_cut()
