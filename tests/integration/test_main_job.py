"""The main job: a real AWS IoT job document in, a true result out, over a real broker with mutual TLS."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.web import one_file

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"


class Cloud:
    """The simulated service behind the broker, and the agent on the other side of it."""

    def __init__(self, service: JobsService, agent: Agent) -> None:
        self.service = service
        self.agent = agent

    def run(self, job_id: str, document: object, eventually: Callable[..., Any], seconds: float = 60) -> Any:
        """Queue a job and return its execution once it is over."""
        self.service.create_job(job_id, document, [THING])
        return eventually(lambda: self.over(job_id), seconds)

    def over(self, job_id: str) -> Any:
        """Return the execution if it is over, else None."""
        view = self.service.execution(THING, job_id)
        return view if view.status not in ("QUEUED", "IN_PROGRESS") else None

    def requests(self, job_id: str) -> list[Any]:
        """What the agent asked about a job."""
        return [request for request in self.service.requests if request.job_id == job_id]


@pytest.fixture
def cloud(mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent]) -> Iterator[Cloud]:
    """A running agent, connected to the simulated service through Mosquitto."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        agent.start()
        yield Cloud(service, agent)
        assert agent.stop() == 0


def steps(name: str, **action: Any) -> dict[str, Any]:
    """Return an AWS document with one action."""
    return {"version": "1.0", "steps": [{"action": {"name": name, "runAsUser": "", **action}}]}


def runs_handler(name: str, handler: str, *args: str) -> dict[str, Any]:
    """Return a managed document that runs a handler."""
    return steps(name, type="runHandler", input={"handler": handler, "args": list(args), "path": "default"})


def stub(agent: Agent, *names: str) -> Path:
    """Put programs on the handlers' PATH that write down how they were called."""
    folder = agent.folder / "bin"
    folder.mkdir(exist_ok=True)
    calls = agent.folder / "calls"
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n')
        (folder / name).chmod(0o755)
    return calls


def test_run_command_takes_two_requests_that_carry_version_and_number(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    document = steps("Run-Command", type="runCommand", input={"command": "echo,Hello\\, I am pump-7"})

    view = cloud.run("run-command", {**document, "includeStdOut": "true"}, eventually)

    assert view.status == "SUCCEEDED"
    assert view.details["stdout"] == "Hello, I am pump-7"
    requests = cloud.requests("run-command")
    assert [request.body["status"] for request in requests] == ["IN_PROGRESS", "SUCCEEDED"]
    assert [request.body["expectedVersion"] for request in requests] == [1, 2]
    assert {request.body["executionNumber"] for request in requests} == {1}
    assert requests[0].body["statusDetails"]["claim"] == requests[1].body["statusDetails"]["claim"]


def test_download_file_follows_a_presigned_looking_url_and_tells_nobody_its_query(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    target = cloud.agent.folder / "firmware.bin"
    with one_file(b"x" * 300_000) as (url, asked):
        secret = "X-Amz-Signature=0123456789abcdef&X-Amz-Security-Token=a%2Fb%3D%3D"
        document = runs_handler("Download-File", "download-file.sh", f"{url}/firmware.bin?{secret}", str(target))
        view = cloud.run("download", document, eventually)

    assert view.status == "SUCCEEDED", view.details
    assert target.read_bytes() == b"x" * 300_000
    assert asked == [f"/firmware.bin?{secret}"]
    assert "0123456789abcdef" not in cloud.agent.log_text()
    assert "0123456789abcdef" not in json.dumps([dict(change.details) for change in view.history])


@pytest.mark.parametrize(
    ("handler", "program", "expected"),
    [
        ("install-packages.sh", "apt-get", "install"),
        ("remove-packages.sh", "apt-get", "remove"),
        ("start-services.sh", "systemctl", "start"),
        ("stop-services.sh", "systemctl", "stop"),
        ("restart-services.sh", "systemctl", "restart"),
    ],
)
def test_the_managed_documents_for_packages_and_services_split_their_one_argument(
    cloud: Cloud, eventually: Callable[..., Any], handler: str, program: str, expected: str
) -> None:
    calls = stub(cloud.agent, program)

    view = cloud.run("managed", runs_handler("Managed", handler, "nginx curl"), eventually)

    assert view.status == "SUCCEEDED", view.details
    called = calls.read_text()
    assert expected in called
    assert "nginx" in called
    assert "curl" in called


def test_reboot_succeeds_only_after_the_boot_id_changed(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    agent = cloud.agent
    document = steps("Reboot", type="runHandler", input={"handler": "reboot.sh", "path": ""})
    cloud.service.create_job("reboot", document, [THING])
    eventually((agent.folder / "rebooted").exists)

    agent.kill()
    agent.start()
    eventually(lambda: (agent.folder / "rebooted").read_text().count("asked") == 2)
    assert cloud.over("reboot") is None, "an agent restart was taken for a reboot"

    agent.kill()
    (agent.folder / "boot_id").write_text("second-boot\n")
    agent.start()
    view = eventually(lambda: cloud.over("reboot"))

    assert view.status == "SUCCEEDED", view.details
    assert (agent.folder / "rebooted").read_text().count("asked") == 2


def test_a_document_of_32_kilobytes_and_names_beyond_ascii_arrive_whole(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    handler = cloud.agent.folder / "handlers" / "measure"
    handler.write_text('#!/bin/sh\ncp "$JOB_DIR/job.json" "$JOB_DIR/../../../job-seen.json"\n')
    handler.chmod(0o755)
    name = "Grüße aus 東京 🚀"
    params = {"name": name, "blob": "é" * 8000}
    document = {"handler": "measure", "params": params}
    assert 15_000 < len(json.dumps(document, ensure_ascii=False).encode()) < 32_768

    view = cloud.run("large", document, eventually)

    assert view.status == "SUCCEEDED", view.details
    seen = json.loads((cloud.agent.state / "job-seen.json").read_text(encoding="utf-8"))
    assert seen["params"] == params
    assert seen["jobId"] == "large"


def test_progress_with_characters_that_the_service_forbids_is_made_legal(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    handler = cloud.agent.folder / "handlers" / "noisy"
    lines = json.dumps({"details": {"a.b": "no", "ok": "tab\there\nzwj\u200dé\ud83d", "empty": "", "long": "x" * 5000}})
    handler.write_text(f"#!/bin/sh\ncat >> $JOB_EVENTS <<'EOF'\n{lines}\nEOF\n")
    handler.chmod(0o755)

    view = cloud.run("noisy", {"handler": "noisy"}, eventually)

    assert view.status == "SUCCEEDED", view.details
    assert view.details["ok"] == "tab here ⏎ zwjé"
    assert view.details["long"] == "x" * 1024
    assert "a.b" not in view.details
    assert "empty" not in view.details


def test_a_handler_killed_by_a_signal_is_failed(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    view = cloud.run("killed", steps("Kill", type="runCommand", input={"command": "sh,-c,kill -SEGV $$"}), eventually)

    assert view.status == "FAILED"
    assert view.details["code"] == "step.failed"
    assert "SIGSEGV" in view.details["reason"]


def test_an_executable_killed_by_a_signal_is_failed(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    handler = cloud.agent.folder / "handlers" / "dies"
    handler.write_text("#!/bin/sh\nkill -KILL $$\n")
    handler.chmod(0o755)

    view = cloud.run("dies", {"handler": "dies"}, eventually)

    assert view.status == "FAILED"
    assert view.details["code"] == "handler.signal"
    assert "SIGKILL" in view.details["reason"]


def test_exit_3_is_reported_as_exit_3(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    handler = cloud.agent.folder / "handlers" / "three"
    handler.write_text("#!/bin/sh\necho 'the valve is stuck' >&2\nexit 3\n")
    handler.chmod(0o755)

    view = cloud.run("three", {"handler": "three"}, eventually)

    assert view.status == "FAILED"
    assert view.details["code"] == "handler.exit"
    assert view.details["reason"] == "apply exited with status 3: the valve is stuck"


def test_ten_megabytes_on_both_streams_at_once_neither_hang_nor_grow_the_agent(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    handler = cloud.agent.folder / "handlers" / "loud"
    handler.write_text(
        "#!/bin/sh\nhead -c 10000000 /dev/zero | tr '\\0' o &\nhead -c 10000000 /dev/zero | tr '\\0' e >&2 &\nwait\n"
    )
    handler.chmod(0o755)
    cloud.run("warm-up", {"handler": "loud"}, eventually)
    before = resident_kib(cloud.agent.pid)

    for number in range(3):
        view = cloud.run(f"loud-{number}", {"handler": "loud"}, eventually)
        assert view.status == "SUCCEEDED", view.details

    assert resident_kib(cloud.agent.pid) - before < 4096
    logs = list((cloud.agent.state / "logs").iterdir())
    assert logs
    assert all(log.stat().st_size < 300_000 for log in logs)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


REFUSED = [
    ({"version": "1.0", "steps": [{"action": {"name": "x", "type": "runCommand"}}]}, "document.invalid"),
    (
        {**steps("x", type="runCommand", input={"command": "true"}), "conditions": [{"key": "site", "value": ["no"]}]},
        "condition.false",
    ),
    (
        {**steps("x", type="runCommand", input={"command": "true"}), "conditions": [{"key": "moon", "value": ["1"]}]},
        "condition.unknown",
    ),
    ({"operation": "levitate"}, "handler.unknown"),
    ({"handler": "levitate"}, "handler.unknown"),
    (steps("x", type="runCommand", input={"command": "true"}, runAsUser="no-such-user-here"), "user.unknown"),
    (steps("x", type="runCommand", input={"command": "true"}, ignoreStepFailure="perhaps"), "document.invalid"),
    (steps("x", type="runCommand", input={"command": "true"}, allowStdErr=True), "document.invalid"),
    (runs_handler("x", "install-packages.sh", "--assume-yes"), "name.forbidden"),
    ([1, 2, 3], "document.invalid"),
]


def test_what_must_be_refused_is_rejected_from_queued_and_the_queue_goes_on(
    cloud: Cloud, eventually: Callable[..., Any]
) -> None:
    for number, (document, _) in enumerate(REFUSED):
        cloud.service.create_job(f"refused-{number}", document, [THING])
    good = steps("x", type="runCommand", input={"command": "true"}, ignoreStepFailure=True)
    conditions = [{"key": "site", "value": ["dock-6", "dock-7"]}]
    view = cloud.run("good", {**good, "conditions": conditions, "includeStdOut": True}, eventually)

    assert view.status == "SUCCEEDED", view.details
    for number, (document, code) in enumerate(REFUSED):
        refused = cloud.service.execution(THING, f"refused-{number}")
        assert [change.status for change in refused.history] == ["QUEUED", "REJECTED"], document
        assert refused.details["code"] == code, document
        assert refused.details["reason"]


def test_each_of_many_queued_jobs_runs_once_in_order(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    handler = cloud.agent.folder / "handlers" / "count"
    handler.write_text(f'#!/bin/sh\nbasename "$(dirname "$JOB_DIR")" >> {cloud.agent.folder}/ran\n')
    handler.chmod(0o755)
    names = [f"job-{number:02}" for number in range(20)]
    for name in names:
        cloud.service.create_job(name, {"handler": "count"}, [THING])

    eventually(lambda: all(cloud.over(name) for name in names))

    ran = (cloud.agent.folder / "ran").read_text().split()
    assert [line.split(".")[0] for line in ran] == names
    assert {cloud.service.execution(THING, name).status for name in names} == {"SUCCEEDED"}
    assert [len(cloud.requests(name)) for name in names] == [2] * 20
