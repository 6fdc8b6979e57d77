"""The real agent, made to die: its devices, their handlers, lines of jobs, and what must be true whenever it died.

Each job of a line has its agent killed at another point. The agent that is started after that, as a service manager
does, finishes the job, takes the next one, and is killed in its turn. What may be found after a death, and what must
have come of the job, is exact: `Device.look` and `Device.judge`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs import boot, records, statusbox
from thingjobs.errors import StateError
from thingjobs.journal import NEXT, OLD
from thingjobs.model import Phase
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

MORTAL = Path(__file__).with_name("mortal.py")
PATIENCE_SECONDS = 30
GRACE_SECONDS = 10
#: Agents side by side, each with a thing of its own.
DEVICES = 3
#: The job of what the journal does for none: `mortal.py` calls it so.
NO_JOB = "-"
#: No point: this agent ends by itself, because the job wants a restart or a reboot.
BY_ITSELF = ""

SCRIPT = """#!/bin/sh
# Writes down each run of a verb, synced, before and after what it does.
key=${{JOB_DIR%/*}}
ledger={ledgers}/${{key##*/}}
say() {{ echo "$JOB_VERB $1" >>"$ledger"; sync "$ledger"; }}
say begins
status=0
{body}
say ends
exit $status
"""


@dataclass(frozen=True)
class Scenario:
    """A handler, and what must come of a job for it.

    Attributes:
        verbs: what its manifest declares.
        body: what it does, in sh; `status` is what it exits with.
        runs: the verbs that run after the claim, each exactly once for each time that it stands here.
        reboots: how often the machine is rebooted.
        endings: how many agents end by themselves, because the job wants it.
    """

    name: str
    verbs: tuple[str, ...]
    runs: tuple[str, ...]
    status: str = "SUCCEEDED"
    code: str | None = None
    body: str = ""
    reboots: int = 0
    endings: int = 0


SIX = ("check", "prepare", "apply", "verify", "commit", "rollback")
ONCE = Scenario("once", ("apply",), ("apply",))
WHOLE = Scenario("whole", SIX, ("prepare", "apply", "verify", "commit"))
UNDONE = Scenario(
    "undone",
    SIX,
    ("prepare", "apply", "verify", "rollback"),
    status="FAILED",
    code="verify.failed",
    body="[ $JOB_VERB = verify ] && status=1",
)
RESTARTED = Scenario(
    "restarted",
    ("apply", "verify"),
    ("apply", "apply", "verify"),
    body="[ $JOB_VERB = verify ] || [ -e tried ] || { : >tried; status=196; }",
    endings=1,
)
REBOOTED = Scenario(
    "rebooted",
    ("apply", "verify", "commit"),
    ("apply", "verify", "commit"),
    body="[ $JOB_VERB = apply ] && status=195",
    reboots=1,
    endings=1,
)
SCENARIOS = {one.name: one for one in (ONCE, WHOLE, UNDONE, RESTARTED, REBOOTED)}


@dataclass(frozen=True)
class Job:
    """A job, and where its agents die.

    Attributes:
        deaths: the point at which each agent that works on it is killed; those after them are left alone.
        damage: is done to the journal's file after the first death; then the outcome is not that of the scenario.
    """

    id: str
    scenario: Scenario
    deaths: tuple[str, ...] = ()
    damage: Callable[[Path], None] | None = None

    def death(self, life: int) -> str:
        """Return where the agent number `life` (from 0) is killed, "" when it is not."""
        return self.deaths[life] if life < len(self.deaths) else BY_ITSELF


@dataclass(frozen=True)
class Life:
    """What one agent passed of one job.

    Attributes:
        points: their names.
        files: open files at the first of them.
        threads: likewise.
    """

    points: tuple[str, ...] = ()
    files: int = 0
    threads: int = 0


class Device:
    """One thing with its agent, its handlers and a line of jobs."""

    def __init__(self, service: JobsService, thing: str, agent: Agent) -> None:
        self.service = service
        self.thing = thing
        self.agent = agent
        self.kills = 0
        self._lives = 0
        self.missed: list[Job] = []
        self.done: list[Job] = []
        self._changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._unlisten = service.listen(thing, lambda _: os.eventfd_write(self._changed, 1))
        self._ledgers = agent.folder / "ledgers"
        self._ledgers.mkdir()
        for scenario in SCENARIOS.values():
            self._install(scenario)
        self._rebooted = agent.folder / "rebooted"
        self._rebooted.touch()
        boots = f"echo asked >>{self._rebooted}\ncat /proc/sys/kernel/random/uuid >{agent.folder}/boot_id\n"
        (agent.folder / "reboot").write_text(f"#!/bin/sh\n{boots}")

    def _install(self, scenario: Scenario) -> None:
        folder = self.agent.folder / "handlers" / scenario.name
        folder.mkdir()
        program = folder / "run.sh"
        program.write_text(SCRIPT.format(ledgers=self._ledgers, body=scenario.body))
        program.chmod(0o755)
        manifest = {"contract": 1, "exec": "run.sh", "verbs": list(scenario.verbs)}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def close(self) -> None:
        """Give back what it holds."""
        self._unlisten()
        os.close(self._changed)

    # --- a line of jobs ---

    def work(self, jobs: Sequence[Job]) -> list[list[Life]]:
        """Run the jobs one after the other; return what each of their agents passed, job by job."""
        if not jobs:
            return []
        self._start(deaths(jobs[0], 0))
        lives = [self._run(job, following) for job, following in zip(jobs, [*jobs[1:], None], strict=True)]
        self._settle()
        assert self.agent.stop() == 0
        self._look(None)
        return [[self._life(number, job.id) for number in numbers] for job, numbers in zip(jobs, lives, strict=True)]

    def _run(self, job: Job, following: Job | None) -> list[int]:
        reboots = len(self._rebooted.read_text().split())
        self.service.create_job(job.id, {"handler": job.scenario.name}, [self.thing])
        lives = [self._lives]
        while (death := job.death(len(lives) - 1)) or not self._over(job):
            over = self._over(job)
            code = self._wait(job, over=over)
            if code is None and over:
                self.missed.append(job)
                break
            if code is None:
                continue
            assert code == (-signal.SIGKILL if death else 0), job
            self.kills += bool(death)
            self._look(job)
            if job.damage is not None and len(lives) == 1:
                (path,) = (self.agent.state / "journal").glob(f"{job.id}.*.json")
                job.damage(path)
            self._start({**deaths(job, len(lives)), **deaths(following, 0)})
            lives.append(self._lives)
        self._judge(job, len(self._rebooted.read_text().split()) - reboots)
        assert len(lives) - 1 <= len(job.deaths) + job.scenario.endings, job
        self.done.append(job)
        return lives

    def begin(self, death: str = "") -> Life:
        """Make the state folder anew, by an agent that is killed and the next one; return what the first one passed."""
        shutil.rmtree(self.agent.state, ignore_errors=True)
        self._start({NO_JOB: death} if death else {})
        first, process = self._lives, self.agent.process
        if death:
            assert process is not None
            assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
            self._start({})
        self._settle()
        assert self.agent.stop() == 0
        return self._life(first, NO_JOB)

    def _settle(self) -> None:
        """Wait until the agent knows nothing any more that is to be done."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._idle():
            assert time.monotonic() < end, "the agent still has something to do"
            time.sleep(0.02)

    def _idle(self) -> bool:
        said = None
        with contextlib.suppress(StateError):  # It does not answer yet.
            said = statusbox.ask(self.agent.state)
        return said is not None and said["connected"] and not said["jobs"]

    def _start(self, deaths: dict[str, str]) -> None:
        self._lives += 1
        agent = self.agent
        mortal = {"THINGJOBS_MORTAL": json.dumps(deaths), "THINGJOBS_MORTAL_TRACE": str(self._trace(self._lives))}
        argv = [sys.executable, str(MORTAL), "run", "--config", str(agent.config)]
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **mortal}
            )

    def _wait(self, job: Job, *, over: bool) -> int | None:
        """Wait until the agent ended, and return its exit code; None if something else happened, or nothing any more.

        Args:
            job: what it works on.
            over: the job is over, so there is little left at which the agent can die.
        """
        process = self.agent.process
        assert process is not None
        pidfd = os.pidfd_open(process.pid)
        try:
            waits = [pidfd] if over else [pidfd, self._changed]
            ready, _, _ = select.select(waits, [], [], GRACE_SECONDS if over else PATIENCE_SECONDS)
        finally:
            os.close(pidfd)
        assert ready or over, f"nothing happened any more: {job}, {self.service.execution(self.thing, job.id)}"
        if self._changed in ready:
            os.eventfd_read(self._changed)
        return process.wait() if pidfd in ready else None

    def _over(self, job: Job) -> bool:
        return not self.service.execution(self.thing, job.id).pending

    def _trace(self, life: int) -> Path:
        return self.agent.folder / f"life-{life}"

    def _life(self, life: int, job_id: str) -> Life:
        lines = [line.split("\t") for line in self._trace(life).read_text().splitlines()]
        mine = [line[1:] for line in lines if line[0] == job_id]
        return Life(tuple(point for point, _, _ in mine), int(mine[0][1]), int(mine[0][2])) if mine else Life()

    # --- what must be ---

    def _judge(self, job: Job, reboots: int) -> None:
        """What came of a job is what was to come of it, and what happened on the device."""
        if job.damage is not None:
            return
        view, happened = self.service.execution(self.thing, job.id), self.happened(job.id)
        assert view.status == job.scenario.status, view
        assert view.details.get("code") == job.scenario.code, view
        before = [line for line in happened if line.startswith("check ")]
        assert happened == before + [f"{verb} {what}" for verb in job.scenario.runs for what in ("begins", "ends")], job
        assert reboots == job.scenario.reboots, job

    def happened(self, job_id: str) -> list[str]:
        """Return what the handler of a job wrote down."""
        (ledger,) = self._ledgers.glob(f"{job_id}.*")
        return ledger.read_text().splitlines()

    def _look(self, job: Job | None) -> None:
        """While no agent lives, nothing is there but what belongs to the job that it worked on.

        What the job before left may wait to be put away.
        """
        ours = (f"{job.id}.",) if job else ()
        theirs = tuple(f"{one.id}." for one in self.done[-1:]) if job else ()
        state = self.agent.state
        kept = [path for path in (state / "journal").iterdir() if path.name not in (NEXT, OLD)]
        left = [path for path in kept if path.suffix != ".json"]
        left += (state / "jobs").iterdir() if (state / "jobs").exists() else []
        assert [path.name for path in left if not path.name.startswith((*ours, *theirs))] == [], job
        assert [folder for folder in self._folders_in_use() if not folder.startswith(ours)] == [], job
        for done in self.done[-1:] if job else self.done:
            self._look_back(done, unburied=job is not None)

    def _look_back(self, job: Job, *, unburied: bool) -> None:
        """The journal holds what came of a finished job, and the service has it without a but.

        Args:
            job: the finished one.
            unburied: that the service has it may not be written yet.
        """
        if job.damage is not None:
            return
        (path,) = (self.agent.state / "journal").glob(f"{job.id}.*.json")
        record = records.load(path.read_bytes())
        if not (unburied and record.phase is Phase.REPORTING):
            assert (record.phase, record.owed, record.late) == (Phase.DONE, False, ""), record
        assert record.result is not None
        assert record.result.status == self.service.execution(self.thing, job.id).status

    def _folders_in_use(self) -> list[str]:
        """Return the names of the jobs' folders that processes have in their environment."""
        mark = b"JOB_DIR=" + os.fsencode(self.agent.state / "jobs") + b"/"
        said = [one for pid in boot.processes() for one in boot.environment(pid)]
        return [os.fsdecode(one.removeprefix(mark)) for one in said if one.startswith(mark)]


def deaths(job: Job | None, life: int) -> dict[str, str]:
    """Return what to tell the agent number `life` of a job."""
    return {job.id: death} if job and (death := job.death(life)) else {}


class Bench:
    """Some devices, side by side on one broker and one service, and what is done with all of them."""

    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices
        self._numbers = itertools.count()

    def rehearsed(self, name: str) -> list[Life]:
        """Return what the agents of a job for the handler `name` pass when none is killed."""
        scenario = SCENARIOS[name]
        (lives,) = self._run([Job(f"{name}-rehearsed", scenario)])
        assert len(lives) == 1 + scenario.endings
        return lives

    def killed(
        self, name: str, deaths: Sequence[Sequence[str]], damage: Callable[[Path], None] | None = None
    ) -> list[list[Life]]:
        """Run a job for each of the `deaths`; return what its agents passed.

        Each agent must die where it was to, and none may have more files open than another when it takes a job.
        """
        scenario = SCENARIOS[name]
        jobs = [Job(f"{name}-{next(self._numbers)}", scenario, tuple(points), damage) for points in deaths]
        before = sum(device.kills for device in self.devices)
        found = self._run(jobs)
        missed = [job for device in self.devices for job in device.missed]
        # Whether there is a sign of life depends on what comes first: the connection, or the end of the verb.
        assert [job for job in missed if "IN_PROGRESS" not in job.deaths[-1]] == []
        planned = sum(bool(death) for points in deaths for death in points)
        assert sum(device.kills for device in self.devices) - before == planned - len(missed)
        held = {(first.files, first.threads): job for job, (first, *_) in zip(jobs, found, strict=True)}
        assert len(held) == 1, held
        return found

    def outcomes(self) -> list[tuple[str, str | None, list[str]]]:
        """Return the status, the code, and what its handler wrote down, of each job that was damaged."""
        return [
            (view.status, view.details.get("code"), device.happened(job.id))
            for device in self.devices
            for job in device.done
            for view in [device.service.execution(device.thing, job.id)]
            if job.damage is not None
        ]

    def _run(self, jobs: Sequence[Job]) -> list[list[Life]]:
        """Share the jobs out among the devices; return what the agents passed of each."""
        count = len(self.devices)
        with ThreadPoolExecutor(count) as pool:
            shares = list(pool.map(Device.work, self.devices, [jobs[number::count] for number in range(count)]))
        return [shares[number % count][number // count] for number in range(len(jobs))]


@pytest.fixture
def bench(mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent]) -> Iterator[Bench]:
    """Some devices, the broker and the service that all of them share."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    made = []
    for number in range(DEVICES):
        thing = f"pump-{number}"
        agent = new_agent(thing, port=mosquitto.port, pair=pki.device(thing), ca=pki.ca)
        made.append(Device(service, thing, agent))
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        yield Bench(made)
    for device in made:
        device.close()
