"""A zoo of nasty handlers, each under the real agent and a real broker: what they do to themselves is theirs to answer.

After each of them the agent is alive and as large as before, with as many open files, none of their processes is left,
the service holds a legal status with a code and a reason, and the next job runs.
"""

from __future__ import annotations

import json
import os
import signal
import site
import socket
import ssl
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot, statusbox
from thingjobs.model import Code
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"
#: The agent of service, but for the time between SIGTERM and SIGKILL.
IMPATIENT = """
import functools, sys
from thingjobs.cli import main, options
options.Settings = functools.partial(options.Settings, grace=0.5)
sys.exit(main())
"""
GROWN_KIB = 4096


class Zoo:
    """The agent, the cloud on the other side, and places to put handlers in."""

    def __init__(self, service: JobsService, agent: Agent, python: Path, eventually: Callable[..., Any]) -> None:
        self.service = service
        self.agent = agent
        self.python = python
        self.handlers = agent.folder / "handlers"
        self.eventually = eventually
        self.jobs = 0

    def start(self, *, wait: bool = True) -> None:
        """Start the agent, and wait until it answers."""
        agent = self.agent
        argv = [str(self.python), "-c", IMPATIENT, "run", "--verbose", "--config", str(agent.config)]
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self.eventually(lambda: agent.state.exists() and statusbox.ask(agent.state))

    def program(self, name: str, script: str) -> None:
        """Put an executable there that has no manifest."""
        path = self.handlers / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def handler(self, name: str, script: str, **manifest: Any) -> Path:
        """Put a folder there with a program and its manifest; return it."""
        folder = self.handlers / name
        folder.mkdir()
        program = folder / "run.sh"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        said = {"contract": 1, "exec": "run.sh", "verbs": ["apply"], **manifest}
        (folder / "manifest.json").write_text(json.dumps(said), encoding="utf-8")
        return folder

    def package(self, name: str, code: str, points: str = "") -> None:
        """Install a distribution with one module and a handler, as pip would leave it."""
        (place,) = self.python.parent.parent.glob("lib/python*/site-packages")
        module = name.replace("-", "_")
        (place / f"{module}.py").write_text(code, encoding="utf-8")
        info = place / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{module}.py,sha256=abc,12\n")
        points = points or f"{name} = {module}:Animal"
        (info / "entry_points.txt").write_text(f"[thingjobs.handlers.v1]\n{points}\n")

    def ask(self, handler: str, **params: Any) -> str:
        """Queue a job for a handler; return its id."""
        self.jobs += 1
        job = f"{handler}-{self.jobs}"
        self.service.create_job(job, {"handler": handler, "params": params}, [THING])
        return job

    def over(self, job: str) -> Any:
        """Return the execution if it is over."""
        view = self.service.execution(THING, job)
        return view if view.status not in ("QUEUED", "IN_PROGRESS") else None

    def run(self, handler: str, **params: Any) -> Any:
        """Run a handler; return its execution once it is over."""
        job = self.ask(handler, **params)
        return self.eventually(lambda: self.over(job), 60)

    def work(self, job: str) -> Path:
        """Return the folder of the handler of a job that runs."""
        found: list[Path] = self.eventually(lambda: list((self.agent.state / "jobs").glob(f"{job}.*/work")))
        return found[0]

    def log_of(self, job: str) -> bytes:
        """Return the log that was kept of a job; that is put away once the service has the result."""
        self.eventually(lambda: not list((self.agent.state / "jobs").glob(f"{job}.*")))
        (path,) = (self.agent.state / "logs").glob(f"{job}.*.log")
        return path.read_bytes()

    # --- what is looked at after each ---

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.agent.pid}/fd").iterdir()))

    def memory_kib(self) -> int:
        text = Path(f"/proc/{self.agent.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])

    def left(self) -> list[bytes]:
        """Return the command lines of processes that have a job's folder in their environment."""
        mark = b"JOB_DIR=" + os.fsencode(self.agent.state)
        everyone = {pid: boot.environment(pid) for pid in boot.processes()}
        return [b" ".join(boot.command(pid)) for pid, said in everyone.items() if any(e.startswith(mark) for e in said)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, in which handlers can be installed, that sees all that this one does."""
    folder = tmp_path_factory.mktemp("zoo") / "venv"
    venv.create(folder, symlinks=True)
    (place,) = folder.glob("lib/python*/site-packages")
    ours = "; ".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
    (place / "all.pth").write_text(f"import site; {ours}\n")
    return folder / "bin" / "python"


@pytest.fixture
def zoo(
    mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent], python: Path, eventually: Callable[..., Any]
) -> Iterator[Zoo]:
    """A zoo without animals; at the end it is looked at whether it stands as it stood."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        made = Zoo(service, agent, python, eventually)
        # Checked and refused once, so that all is imported that may be.
        made.handler("plain", "echo plain", params={"properties": {"n": {"type": "integer"}}})
        made.program("simple", "echo simple >&2; exit 3")
        made.start()
        for handler in ("plain", "simple", "none", "plain"):
            made.run(handler, n=1)
        files, memory = made.files(), made.memory_kib()
        yield made
        assert made.run("plain", n=2).status == "SUCCEEDED"
        eventually(lambda: made.files() <= files)
        eventually(lambda: not made.left())
        assert made.memory_kib() - memory < GROWN_KIB
        for number in range(1, made.jobs + 1):
            (view,) = [view for view in service.executions(THING) if view.job_id.endswith(f"-{number}")]
            assert view.status in ("SUCCEEDED", "FAILED", "REJECTED"), view
            if view.status != "SUCCEEDED":
                assert view.details["code"] in set(Code), view
                assert view.details["reason"], view
        assert agent.stop() == 0
        assert "Traceback" not in agent.log_text()
        assert list((agent.state / "jobs").iterdir()) == []


#: A session of its own, nobody's child, no file of its parent's open.
DAEMON = """
(setsid sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 1000' </dev/null >/dev/null 2>&1 &)
while [ ! -e pid ]; do :; done
"""


# --- processes ----------------------------------------------------------------------------------------------------


def test_one_that_ignores_sigterm(zoo: Zoo) -> None:
    zoo.handler("stubborn", f"trap '' TERM; {DAEMON} while :; do sleep 1000; done", timeouts={"apply": 1})

    view = zoo.run("stubborn")

    assert (view.status, view.details["code"]) == ("FAILED", "handler.timeout")


def test_one_that_calls_setsid_and_daemonises(zoo: Zoo) -> None:
    zoo.program("demon", DAEMON)

    assert zoo.run("demon").status == "SUCCEEDED"
    assert zoo.left() == []


def test_one_whose_daemon_may_stay(zoo: Zoo) -> None:
    zoo.handler("keeper", f"{DAEMON} cp pid {zoo.agent.folder}/pid", daemons="keep")

    assert zoo.run("keeper").status == "SUCCEEDED"

    pid = int((zoo.agent.folder / "pid").read_text())
    assert boot.start_time(pid) is not None
    os.kill(pid, signal.SIGKILL)


def test_one_that_forks_within_its_limits(zoo: Zoo) -> None:
    forks = "for n in $(seq 30); do setsid sleep 1000 >/dev/null 2>&1 & done; sleep 1000 & exit 0"
    zoo.handler("rabbit", forks, limits={"processes": 32, "memory": "64M", "cpu": 0.5})

    assert zoo.run("rabbit").status == "SUCCEEDED"
    assert zoo.left() == []


# --- floods -------------------------------------------------------------------------------------------------------


def test_one_that_writes_a_gigabyte(zoo: Zoo) -> None:
    zoo.program("whale", "head -c 1000000000 /dev/zero; head -c 50000000 /dev/zero >blob; echo done")

    view = zoo.run("whale")

    assert view.status == "SUCCEEDED"
    assert len(zoo.log_of(view.job_id)) < 300_000
    assert zoo.log_of(view.job_id).endswith(b"done\n")


def test_one_that_tells_100_000_events_a_second(zoo: Zoo) -> None:
    event = json.dumps({"progress": 40, "message": "writing", "details": {"slot": "b"}})
    last = json.dumps({"details": {"last": "yes"}})
    zoo.program("parrot", f"yes '{event}' | head -n 100000 >>$JOB_EVENTS; echo '{last}' >>$JOB_EVENTS")
    job = zoo.ask("parrot")
    zoo.work(job)

    while zoo.over(job) is None:
        assert statusbox.ask(zoo.agent.state), "while it does, the agent answers everybody"

    assert zoo.over(job).status == "SUCCEEDED"
    assert zoo.over(job).details["last"] == "yes"


def test_one_that_writes_no_text(zoo: Zoo) -> None:
    zoo.program("fish", "head -c 100000 /dev/urandom >&2; head -c 1000 /dev/urandom >>$JOB_EVENTS; exit 3")

    view = zoo.run("fish")

    assert (view.status, view.details["code"]) == ("FAILED", "handler.exit")


def test_one_that_does_nothing(zoo: Zoo) -> None:
    zoo.program("sloth", "exit 0")

    assert zoo.run("sloth").status == "SUCCEEDED"


# --- the agent's death ----------------------------------------------------------------------------------------------

#: The shim's parent is the agent that started it.
AGENT = "agent=$(cut -d' ' -f4 /proc/$PPID/stat)"


def test_one_that_kills_the_agent_and_itself_three_times(zoo: Zoo) -> None:
    ran = zoo.agent.folder / "ran"
    zoo.handler("wasp", f"echo x >>{ran}; {AGENT}; kill -9 $agent; kill -9 0", apply_rerun=True)
    job = zoo.ask("wasp")

    for number in range(1, 4):
        assert zoo.agent.process is not None
        assert zoo.agent.process.wait(60) == -signal.SIGKILL
        zoo.start(wait=number == 3)

    view = zoo.eventually(lambda: zoo.over(job), 60)
    assert (view.status, view.details["code"]) == ("FAILED", "interrupted")
    assert "3 times" in view.details["reason"]
    assert len(ran.read_text().split()) == 3


def test_one_that_kills_the_agent_three_times_and_goes_on(zoo: Zoo) -> None:
    folder = zoo.agent.folder
    event = json.dumps({"details": {"slot": "b"}})
    script = f"""
echo x >>{folder}/ran; echo first; echo '{event}' >>$JOB_EVENTS
for n in 1 2 3; do
    while [ ! -e {folder}/agent-$n ]; do sleep 0.02; done
    kill -9 $(cat {folder}/agent-$n)
done
while kill -0 $(cat {folder}/agent-3) 2>/dev/null; do sleep 0.02; done
echo 'the valve is stuck' >&2; touch {folder}/ended; exit 3
"""
    zoo.program("cat", script)
    job = zoo.ask("cat")
    zoo.work(job)

    for number in range(1, 4):
        (folder / "pid").write_text(str(zoo.agent.pid))
        (folder / "pid").rename(folder / f"agent-{number}")
        assert zoo.agent.process is not None
        assert zoo.agent.process.wait(60) == -signal.SIGKILL
        if number == 3:  # It ends while there is no agent.
            zoo.eventually((folder / "ended").exists)
        zoo.start()

    view = zoo.eventually(lambda: zoo.over(job), 60)
    assert (view.status, view.details["code"]) == ("FAILED", "handler.exit")
    assert view.details["reason"] == "apply exited with status 3: the valve is stuck"
    assert view.details["slot"] == "b"
    assert (folder / "ran").read_text() == "x\n"
    assert zoo.log_of(job) == b"first\nthe valve is stuck\n"


# --- its own files --------------------------------------------------------------------------------------------------


def test_one_that_changes_its_own_files(zoo: Zoo) -> None:
    folder = zoo.handlers / "chameleon"
    script = f'[ "$JOB_VERB" = apply ] || {{ echo "exit 9" >{folder}/run.sh; echo "{{" >{folder}/manifest.json; }}'
    zoo.handler("chameleon", script, verbs=["prepare", "apply"])

    # It runs from a copy that was made when the job was judged.
    assert zoo.run("chameleon").status == "SUCCEEDED"

    view = zoo.run("chameleon")
    assert (view.status, view.details["code"]) == ("REJECTED", "handler.broken")


@pytest.mark.parametrize(("original", "ended"), [("same", "SUCCEEDED"), ("changed", "FAILED")])
def test_one_that_changes_the_copy_it_runs_from(zoo: Zoo, original: str, ended: str) -> None:
    forged = zoo.agent.folder / "forged"
    also = zoo.handlers / "snake" / "run.sh" if original == "changed" else zoo.agent.folder / "nothing"
    change = f"""chmod u+w "$0"; for file in "$0" {also}; do echo ': >>{forged}' >"$file"; done"""
    zoo.handler("snake", f'[ "$JOB_VERB" = apply ] || {{ {change}; exit 0; }}', verbs=["prepare", "apply"])

    view = zoo.run("snake")

    assert (view.status, view.details.get("code", "")) == (ended, "handler.changed" if ended == "FAILED" else "")
    assert not forged.exists()


@pytest.mark.parametrize("leads", ["/etc/passwd", "../simple", "nowhere"])
def test_one_with_links_in_its_folder(zoo: Zoo, leads: str) -> None:
    folder = zoo.handler("spider", "exit 0")
    (folder / "thread").symlink_to(leads)

    view = zoo.run("spider")

    # Whether it is run or refused, nothing is copied through a link.
    assert view.status in ("SUCCEEDED", "REJECTED")
    copies = (zoo.agent.state / "pinned").rglob("thread")
    assert [path for path in copies if not path.is_symlink()] == []


def test_one_that_lays_links_in_its_work_folder(zoo: Zoo) -> None:
    precious = zoo.agent.folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("untouched")
    lays = f"""
ln -sf {precious}/file job.json; ln -s {precious}/file .job.json.new; ln -sfn {precious} folder
ln -sf {precious}/file ../log; ln -sf {precious}/file ../said-prepare-1; ln -sf {precious}/file ../.said-prepare-1.new
echo words; echo '{{"details":{{"slot":"b"}}}}' >>$JOB_EVENTS; echo '{{"refresh":"params"}}' >>$JOB_EVENTS
exit 0"""
    zoo.handler("weaver", lays, verbs=["prepare", "apply"])

    assert zoo.run("weaver").status == "SUCCEEDED"

    assert (precious / "file").read_text() == "untouched"
    assert [path.name for path in precious.iterdir()] == ["file"]


# --- what cannot be a handler ---------------------------------------------------------------------------------------


def refused(zoo: Zoo, name: str, *words: str, **params: Any) -> None:
    """Check that a handler is refused with a reason that has all these words, also a second time."""
    for _ in range(2):
        view = zoo.run(name, **params)
        assert (view.status, view.details["code"]) == ("REJECTED", "handler.broken")
        assert [word for word in words if word not in view.details["reason"]] == [], view.details["reason"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '"x"', "", "\x00", '{"contract": 2, "verbs": ["apply"]}', "[" * 100_000, "{}" * 500_000]
)
def test_one_with_a_broken_manifest(zoo: Zoo, content: str) -> None:
    folder = zoo.handler("broken", "exit 0")
    (folder / "manifest.json").write_text(content)

    refused(zoo, "broken", "manifest")


def test_one_whose_manifest_is_a_link_or_a_pipe(zoo: Zoo) -> None:
    link = zoo.handler("linked", "exit 0") / "manifest.json"
    link.unlink()
    link.symlink_to("/dev/zero")
    pipe = zoo.handler("piped", "exit 0") / "manifest.json"
    pipe.unlink()
    os.mkfifo(pipe)

    refused(zoo, "linked", "manifest.json")
    refused(zoo, "piped", "manifest.json")


def test_one_whose_schema_is_elsewhere(zoo: Zoo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        zoo.handler("cuckoo", "exit 0", params={"properties": {"x": {"$ref": url}}})

        refused(zoo, "cuckoo", "refers elsewhere", x=1)

        with pytest.raises(BlockingIOError):
            server.accept()


def test_one_whose_schema_never_ends(zoo: Zoo) -> None:
    zoo.handler("snail", "exit 0", params={"properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}})

    assert zoo.run("snail", x="aaa").status == "SUCCEEDED"
    view = zoo.run("snail", x="a" * 40 + "!")

    assert view.status == "REJECTED"
    assert view.details["code"] in ("handler.broken", "params.invalid")


HANGS = "import time\nwhile True:\n    time.sleep(1000)\n"
ANIMAL = "class Animal:\n    def apply(self, ctx, params):\n        pass\n"


def test_one_that_raises_when_it_is_imported(zoo: Zoo) -> None:
    zoo.package("raiser", "raise RuntimeError('I will not be imported')\n")
    zoo.package("exiter", "import os\nos._exit(0)\n")

    refused(zoo, "raiser", "I will not be imported")
    refused(zoo, "exiter")


def test_one_that_hangs_when_it_is_imported(zoo: Zoo) -> None:
    zoo.package("hanger", f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{HANGS}")

    refused(zoo, "hanger", "longer than 10 s")


def test_two_of_one_name(zoo: Zoo) -> None:
    zoo.package("twin-a", ANIMAL, "twin = twin_a:Animal")
    zoo.package("twin-b", ANIMAL, "twin = twin_b:Animal")
    zoo.package("double", ANIMAL)
    zoo.program("double", "exit 0")

    refused(zoo, "twin", "twin-a", "twin-b")
    refused(zoo, "double", "double 1.0", str(zoo.handlers / "double"))
