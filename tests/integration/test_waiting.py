"""What waits and what overtakes, with the real agent, real programs and a real broker."""

from __future__ import annotations

import json
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"
PATIENCE_SECONDS = 30


class Cloud:
    """The simulated service behind the broker, and the agent on the other side of it."""

    def __init__(self, service: JobsService, agent: Agent, eventually: Callable[..., Any]) -> None:
        self.service = service
        self.agent = agent
        self._eventually = eventually

    def queue(self, job_id: str, handler: str, **more: Any) -> None:
        """Queue a job for a handler."""
        self.service.create_job(job_id, {"handler": handler, **more}, [THING])

    def status(self, job_id: str) -> str:
        """Return the status that the service holds."""
        return str(self.service.execution(THING, job_id).status)

    def over(self, job_id: str) -> Any:
        """Wait for the end of an execution and return it."""
        self._eventually(lambda: self.status(job_id) not in ("QUEUED", "IN_PROGRESS"))
        return self.service.execution(THING, job_id)

    def waits(self, job_id: str) -> str:
        """Return why the agent says that a job waits, "" if it does not say so."""
        return next((str(job["waits"]) for job in self.agent.status()["jobs"] if job["jobId"] == job_id), "")

    def handler(self, name: str, script: str, **manifest: Any) -> Path:
        """Install a handler in shell."""
        folder = self.agent.folder / "handlers" / name
        folder.mkdir(mode=0o755)
        text = {"contract": 1, "verbs": ["apply"], "exec": "run.sh", **manifest}
        (folder / "manifest.json").write_text(json.dumps(text))
        (folder / "run.sh").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "run.sh").chmod(0o755)
        return folder


@pytest.fixture
def cloud(
    mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent], tmp_path: Path, eventually: Callable[..., Any]
) -> Iterator[Cloud]:
    """A running agent with gates of its own, connected to the simulated service through Mosquitto."""
    service = JobsService(presign=lambda url: f"{url}?signature={time.monotonic_ns()}")
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    (tmp_path / "gates").mkdir()
    (tmp_path / "inhibit").mkdir()
    gates = f'[gates]\ndirectory = "{tmp_path}/gates"\ninhibit = "{tmp_path}/inhibit"\n'
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca, more=gates)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        agent.start()
        yield Cloud(service, agent, eventually)
        assert agent.stop() == 0


def test_a_closed_gate_keeps_a_job_queued_and_the_status_says_why(
    cloud: Cloud, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    gate = tmp_path / "gates" / "battery"
    gate.write_text('#!/bin/sh\necho "12 % left"\nexit 75\n')
    gate.chmod(0o755)
    cloud.handler("plain", "exit 0")

    cloud.queue("job", "plain")

    assert "12 % left" in eventually(lambda: cloud.waits("job"))
    assert cloud.status("job") == "QUEUED"


def test_an_inhibited_device_goes_on_when_the_time_has_come(cloud: Cloud, tmp_path: Path) -> None:
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    (tmp_path / "inhibit" / "deploy").write_text(f"{until}\nsomebody works on the pump\n")
    cloud.handler("plain", "exit 0")

    cloud.queue("job", "plain")

    assert cloud.over("job").status == "SUCCEEDED"
    assert "waits: " in cloud.agent.log_text()


def test_an_observer_overtakes_what_waits(cloud: Cloud, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    (tmp_path / "inhibit" / "deploy").write_text("until 2100-01-01T00:00Z somebody works on the pump\n")
    cloud.handler("plain", "exit 0")
    cloud.handler("look", 'echo \'{"details": {"seen": "all"}}\' >>"$JOB_EVENTS"', observe=True)
    cloud.queue("waits", "plain")
    assert "somebody works on the pump" in eventually(lambda: cloud.waits("waits"))

    cloud.queue("look", "look")
    found = cloud.over("look")

    assert (found.status, found.details["seen"]) == ("SUCCEEDED", "all")
    assert cloud.status("waits") == "QUEUED"
    assert cloud.waits("waits"), "it keeps its place"


def test_an_expired_url_is_replaced_while_the_handler_runs(cloud: Cloud) -> None:
    script = """
        first=$(grep -o 'signature=[0-9]*' "$JOB_DIR/job.json")
        echo '{"refresh": "params"}' >>"$JOB_EVENTS"
        while grep -q '"revision": 1' "$JOB_DIR/job.json"; do sleep 0.05; done
        second=$(grep -o 'signature=[0-9]*' "$JOB_DIR/job.json")
        echo "{\\"details\\": {\\"changed\\": \\"$([ "$first" != "$second" ] && echo yes)\\"}}" >>"$JOB_EVENTS"
    """
    cloud.handler("fetch", script)
    url = "${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/bucket/key}"

    cloud.queue("job", "fetch", params={"url": url})
    found = cloud.over("job")

    assert (found.status, found.details["changed"]) == ("SUCCEEDED", "yes")


def test_a_handler_that_is_replaced_while_its_job_runs_is_finished_with_the_code_that_began(
    cloud: Cloud, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    script = f"""
        [ "$JOB_VERB" = prepare ] || {{ echo "first $JOB_VERB" >>{tmp_path}/ran; exit 0; }}
        touch {tmp_path}/prepared
        while [ ! -e {tmp_path}/go ]; do sleep 0.05; done
    """
    folder = cloud.handler("two", script, verbs=["prepare", "apply"])
    cloud.queue("job", "two")
    eventually((tmp_path / "prepared").exists)

    (folder / "run.sh").write_text(f"#!/bin/sh\necho second >>{tmp_path}/ran\n")
    os.utime(folder / "run.sh")
    (tmp_path / "go").touch()

    assert cloud.over("job").status == "SUCCEEDED"
    assert (tmp_path / "ran").read_text() == "first apply\n"
    cloud.queue("next", "two")
    assert cloud.over("next").status == "SUCCEEDED"
    assert (tmp_path / "ran").read_text() == "first apply\nsecond\nsecond\n"


def test_a_fleet_can_be_asked_before_it_is_changed(cloud: Cloud, tmp_path: Path) -> None:
    script = f'[ "$JOB_VERB" = check ] && exit 10; touch {tmp_path}/applied'
    cloud.handler("ask", script, verbs=["check", "apply"])

    cloud.queue("job", "ask", mode="check")
    found = cloud.over("job")

    assert (found.status, found.details["would"]) == ("SUCCEEDED", "nothing")
    assert not (tmp_path / "applied").exists()
