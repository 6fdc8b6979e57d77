"""The main job against ministack: an independent service, with jobs made by boto3 and mutual TLS on MQTT."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Ministack
    from tests.integration.conftest import Agent


class Fleet:
    """One thing of ministack's, its running agent, and the control plane."""

    def __init__(self, ministack: Ministack, thing: str, agent: Agent) -> None:
        self.thing = thing
        self.agent = agent
        self.iot = ministack.boto("iot")
        self.data = ministack.boto("iot-jobs-data")

    def create(self, document: object) -> str:
        """Create a job for the thing; return its id."""
        arn = self.iot.describe_thing(thingName=self.thing)["thingArn"]
        job_id = f"job-{uuid.uuid4().hex[:12]}"
        self.iot.create_job(jobId=job_id, targets=[arn], document=json.dumps(document))
        return job_id

    def execution(self, job_id: str) -> dict[str, Any]:
        """Return the execution as the control plane shows it."""
        found: dict[str, Any] = self.iot.describe_job_execution(jobId=job_id, thingName=self.thing)["execution"]
        return found

    def over(self, job_id: str) -> dict[str, Any] | None:
        """Return the execution once it is over."""
        found = self.execution(job_id)
        return found if found["status"] not in ("QUEUED", "IN_PROGRESS") else None


@pytest.fixture
def fleet(ministack: Ministack, new_agent: Callable[..., Agent]) -> Iterator[Fleet]:
    """A running agent, connected to ministack."""
    thing = f"pump-{uuid.uuid4().hex[:8]}"
    pair = ministack.new_thing(thing)
    agent = new_agent(thing, port=ministack.mqtt_port, pair=pair, ca=ministack.ca_path)
    agent.start()
    yield Fleet(ministack, thing, agent)
    assert agent.stop() == 0


def run_command(command: str, **more: Any) -> dict[str, Any]:
    """Return a managed Run-Command document."""
    action = {"name": "Run-Command", "type": "runCommand", "input": {"command": command}, "runAsUser": ""}
    return {"version": "1.0", "steps": [{"action": action}], **more}


def test_a_job_made_with_boto3_succeeds(fleet: Fleet, eventually: Callable[..., Any]) -> None:
    job_id = fleet.create(run_command("echo,Grüße aus 東京", includeStdOut="true"))

    found = eventually(lambda: fleet.over(job_id))

    assert found["status"] == "SUCCEEDED"
    assert found["statusDetails"]["detailsMap"]["stdout"] == "Grüße aus 東京"
    assert found["versionNumber"] == 3
    job = fleet.iot.describe_job(jobId=job_id)["job"]
    assert job["status"] == "COMPLETED"


def test_failures_and_refusals_are_told_apart(fleet: Fleet, eventually: Callable[..., Any]) -> None:
    failing = fleet.create(run_command("sh,-c,exit 3"))
    unknown = fleet.create({"handler": "levitate"})
    mistaken = fleet.create({"version": "1.0", "steps": [{"action": {"name": "x", "type": "runCommand"}}]})
    good = fleet.create(run_command("true"))

    assert eventually(lambda: fleet.over(good))["status"] == "SUCCEEDED"
    assert fleet.execution(failing)["status"] == "FAILED"
    assert "status 3" in fleet.execution(failing)["statusDetails"]["detailsMap"]["reason"]
    assert fleet.execution(unknown)["status"] == "REJECTED"
    assert fleet.execution(unknown)["statusDetails"]["detailsMap"]["code"] == "handler.unknown"
    assert fleet.execution(mistaken)["status"] == "REJECTED"


def test_jobs_that_were_queued_while_the_agent_was_away_run_when_it_comes(
    fleet: Fleet, eventually: Callable[..., Any]
) -> None:
    assert fleet.agent.stop() == 0
    jobs = [fleet.create(run_command(f"echo,{number}", includeStdOut=True)) for number in range(3)]
    fleet.agent.start()

    for number, job_id in enumerate(jobs):
        found = eventually(lambda job_id=job_id: fleet.over(job_id))
        assert found["status"] == "SUCCEEDED"
        assert found["statusDetails"]["detailsMap"]["stdout"] == str(number)


def test_the_reboot_document_ends_after_the_boot_id_changed(fleet: Fleet, eventually: Callable[..., Any]) -> None:
    action = {"name": "Reboot", "type": "runHandler", "input": {"handler": "reboot.sh", "path": ""}, "runAsUser": ""}
    job_id = fleet.create({"version": "1.0", "steps": [{"action": action}]})
    agent = fleet.agent
    eventually((agent.folder / "rebooted").exists)

    agent.kill()
    (agent.folder / "boot_id").write_text("second-boot\n")
    agent.start()

    assert eventually(lambda: fleet.over(job_id))["status"] == "SUCCEEDED"


def test_a_cancelled_job_is_left_and_the_next_one_runs(fleet: Fleet, eventually: Callable[..., Any]) -> None:
    first = fleet.create(run_command("sleep,3"))
    eventually(lambda: fleet.execution(first)["status"] == "IN_PROGRESS")
    fleet.iot.cancel_job(jobId=first, force=True)
    second = fleet.create(run_command("echo,next"))

    assert eventually(lambda: fleet.over(second))["status"] == "SUCCEEDED"
    assert fleet.execution(first)["status"] == "CANCELED"
    assert "the service ended this execution" in fleet.agent.log_text()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """Serve one file on loopback; give its URL, with a query as presigned ones have, and its content."""
    content = b"firmware" * 20_000
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "firmware.bin").write_bytes(content)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/firmware.bin?X-Amz-Signature=0a1b2c3d&X-Amz-Expires=60", content
        server.shutdown()
        thread.join()


def runs_handler(name: str, handler: str, *args: str) -> dict[str, Any]:
    """Return a managed document that runs a handler."""
    inputs = {"handler": handler, "args": list(args), "path": "default"}
    return {"version": "1.0", "steps": [{"action": {"name": name, "type": "runHandler", "input": inputs}}]}


def test_the_managed_documents_go_through_the_independent_service(
    fleet: Fleet, served: tuple[str, bytes], eventually: Callable[..., Any]
) -> None:
    (url, content), folder = served, fleet.agent.folder
    (folder / "bin").mkdir()
    for program in ("apt-get", "systemctl"):
        (folder / "bin" / program).write_text(f'#!/bin/sh\necho "{program} $*" >> {folder}/calls\n')
        (folder / "bin" / program).chmod(0o755)
    jobs = [
        fleet.create(document)
        for document in (
            run_command("true"),
            runs_handler("Download-File", "download-file.sh", url, f"{folder}/firmware.bin"),
            runs_handler("Install-Application", "install-packages.sh", "nginx curl"),
            runs_handler("Remove-Application", "remove-packages.sh", "telnetd"),
            runs_handler("Start-Application", "start-services.sh", "pump valve"),
            runs_handler("Stop-Application", "stop-services.sh", "pump"),
            runs_handler("Restart-Application", "restart-services.sh", "valve"),
        )
    ]

    for job_id in jobs:
        found = eventually(lambda job_id=job_id: fleet.over(job_id))
        assert found["status"] == "SUCCEEDED", found

    assert (folder / "firmware.bin").read_bytes() == content
    calls = (folder / "calls").read_text()
    for words in ("install", "nginx", "remove", "telnetd", "start", "pump", "stop", "restart", "valve"):
        assert words in calls
    assert "0a1b2c3d" not in fleet.agent.log_text()


def test_a_document_of_32_kilobytes_and_names_beyond_ascii_come_whole_from_the_independent_service(
    fleet: Fleet, eventually: Callable[..., Any]
) -> None:
    handler = fleet.agent.folder / "handlers" / "measure"
    handler.write_text(f'#!/bin/sh\ncp "$JOB_DIR/job.json" {fleet.agent.folder}/seen.json\n')
    handler.chmod(0o755)
    params = {"name": "Grüße aus 東京 🚀", "blob": "x" * 32_000}

    job_id = fleet.create({"handler": "measure", "params": params})

    assert eventually(lambda: fleet.over(job_id))["status"] == "SUCCEEDED"
    assert json.loads((fleet.agent.folder / "seen.json").read_text(encoding="utf-8"))["params"] == params
