"""The real agent on a modelled machine: it can be rebooted, lose its power, and be told to hurry."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

    from thingjobs.testing import Message

THING = "pump-7"
#: Waits in `thingjobs.policy` that no test can sit out; read by the agent's process before its first import of them.
HURRY = """
import json, os
from thingjobs import policy
for name, value in json.loads(os.environ["TEST_POLICY"]).items():
    assert hasattr(policy, name), name
    setattr(policy, name, (lambda *_, value=value, **__: value) if callable(getattr(policy, name)) else value)
"""
#: What a handler in shell needs to be watched and held by a test.
PRELUDE = """
say() { echo "$*" >>"$RUN"; }
hold() { touch "$AT/at-$1"; while [ ! -e "$AT/go-$1" ] && [ ! -e "$AT/go" ]; do sleep 0.02; done; }
again=; grep -q '"rebooted": true' "$JOB_DIR/job.json" && again=rebooted
say $JOB_VERB $again
"""


class Service(JobsService):
    """A service whose notifications can be lost, and whose clock can be moved on.

    Attributes:
        quiet: notifications are lost.
        ahead: seconds by which its clock is ahead of ours.
    """

    def __init__(self) -> None:
        self.quiet = False
        self.ahead = 0.0
        super().__init__(lambda: time.time() + self.ahead)

    def listen(self, thing: str | None, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Have notifications handed on, unless they are to be lost."""
        return super().listen(thing, lambda message: None if self.quiet else listener(message))


class Machine:
    """A device with the agent, between a real broker and the simulated service."""

    def __init__(self, service: Service, broker: Mosquitto, agent: Agent, eventually: Callable[..., Any]) -> None:
        self.service = service
        self.broker = broker
        self.agent = agent
        self.eventually = eventually
        self.folder = agent.folder
        self.log = self.folder / "ran"
        self._boot = 1
        #: Brokers that come back are met at once.
        self._policy: dict[str, float] = {"backoff": 0.2}
        (self.folder / "hurry").mkdir()
        (self.folder / "hurry" / "sitecustomize.py").write_text(HURRY)

    # --- the agent and the machine --------------------------------------------------------------------------------

    def start(self, **policy: float) -> None:
        """Start the agent; it keeps to these numbers instead of those of `thingjobs.policy` from now on."""
        self._policy |= policy
        path = os.pathsep.join([str(self.folder / "hurry"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        told = {"PYTHONPATH": path, "TEST_POLICY": json.dumps(self._policy)}
        self.agent.start(environment=told)

    def restart(self) -> None:
        """Stop the agent as a service manager does, and start it again."""
        assert self.agent.stop() == 0
        self.start()

    def power_cut(self) -> None:
        """Take the power away from the agent and all that it runs, and boot."""
        self.agent.kill()
        mark = f"{self.agent.state}/jobs/".encode()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # All at once: nobody hears of the end of another.
            for pid in processes_of(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.eventually(lambda: not processes_of(mark))
        self.boot()

    def boot(self) -> None:
        """Start the agent in another boot."""
        self._boot += 1
        (self.folder / "boot_id").write_text(f"boot-{self._boot}\n")
        self.start()

    def reboots_for_real(self) -> None:
        """Have the program that reboots take the agent down from now on, as a shutdown does."""
        (self.folder / "reboot").write_text(f'#!/bin/sh\necho asked >>{self.folder}/rebooted\nkill -KILL "$PPID"\n')

    def goes_down(self) -> None:
        """Wait for the machine to go down because it was told to, and boot it."""
        process = self.agent.process
        assert process is not None
        self.eventually(lambda: process.poll() is not None)
        self.boot()

    @property
    def asked(self) -> int:
        """How often the machine was told to reboot."""
        file = self.folder / "rebooted"
        return file.read_text().count("asked") if file.exists() else 0

    # --- handlers -------------------------------------------------------------------------------------------------

    def handler(self, name: str, script: str, **manifest: Any) -> None:
        """Install a handler in shell: `say` writes into what `ran` returns, `hold NAME` waits for `go(NAME)`."""
        folder = self.folder / "handlers" / name
        folder.mkdir(mode=0o755)
        text = {"contract": 1, "verbs": ["apply"], "exec": "run.sh", **manifest}
        (folder / "manifest.json").write_text(json.dumps(text))
        head = f"#!/bin/sh\nRUN={self.log}; AT={self.folder}\n{PRELUDE}"
        (folder / "run.sh").write_text(f"{head}\n{script}\n")
        (folder / "run.sh").chmod(0o755)

    def at(self, name: str) -> None:
        """Wait until a handler holds at `name`."""
        self.eventually((self.folder / f"at-{name}").exists)

    def go(self, name: str = "") -> None:
        """Let a handler go on that holds, or all."""
        (self.folder / (f"go-{name}" if name else "go")).touch()

    @property
    def ran(self) -> list[str]:
        """What was run and said so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    # --- jobs -----------------------------------------------------------------------------------------------------

    def queue(self, job_id: str, handler: str, **options: Any) -> None:
        """Queue a job for a handler."""
        self.service.create_job(job_id, {"handler": handler}, [THING], **options)

    def status(self, job_id: str, number: int | None = None) -> str:
        """Return the status that the service holds."""
        return str(self.service.execution(THING, job_id, number).status)

    def over(self, job_id: str) -> Any:
        """Wait for the end of an execution and return it."""
        self.eventually(lambda: self.status(job_id) not in ("QUEUED", "IN_PROGRESS"))
        return self.service.execution(THING, job_id)

    def updates(self, job_id: str) -> list[Any]:
        """Return the bodies of the updates that the service got about a job."""
        return [request.body for request in self.service.requests if request.suffix == f"{job_id}/update"]

    def heard(self, topic: str) -> bool:
        """Return whether the agent has what was last published to it on a topic: the broker has its acknowledgement."""
        log = self.broker.log.read_text()
        last = log.rpartition(f"/{topic}'")
        sent = re.search(r" PUBLISH to \S+ \(d0, q1, r0, m(\d+), \S+$", last[0])
        return sent is not None and f"Received PUBACK from {THING} (Mid: {sent[1]}," in last[2]

    def late(self, job_id: str) -> str:
        """Wait for the late truth about a job, and return it as the agent shows it."""

        def found() -> str:
            return next((str(one["late"]) for one in self.agent.status()["late"] if one["jobId"] == job_id), "")

        return str(self.eventually(found))

    def phase(self, job_id: str) -> str:
        """Return where a job stands, "" when the agent is not busy with it."""
        jobs = self.agent.status()["jobs"]
        return next((str(job["phase"]) for job in jobs if job["jobId"] == job_id), "")


def processes_of(mark: bytes) -> list[int]:
    """Return the processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.fixture
def machine(
    mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent], eventually: Callable[..., Any]
) -> Iterator[Machine]:
    """A machine whose agent is not started yet; at the end it must end in peace."""
    service = Service()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        made = Machine(service, mosquitto, agent, eventually)
        yield made
        made.go()
        if agent.process is not None:
            assert agent.stop() == 0
        eventually(lambda: not processes_of(f"{agent.state}/jobs/".encode()))
