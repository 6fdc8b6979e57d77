"""The way of credentials to a handler: the real agent, a credentials provider over mutual TLS, handlers as processes.

What they ask is a fake S3 Control and AWS Batch that checks each signature. A job on the simulated service, behind
Mosquitto, starts it all.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.runner.place import Place
from thingjobs.testing import CloudAccess, JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.cloud.conftest import FakeCloud
    from tests.integration.conftest import Agent

    from thingjobs.handler import Context
    from thingjobs.testing import Kit

THING = "pump-7"
SECRET, TOKEN = "hush-hush-secret/+=", "hush-hush-token/+="
JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
DENIED = "cannot get credentials for the role alias device-role: AWS IoT answers 403: Access Denied; attach a policy"


class Provider(ThreadingHTTPServer):
    """The credentials provider of AWS IoT; what it gave, the fake cloud takes.

    Attributes:
        given: the ids of the access keys, one a request.
        denies: whether it answers 403.
        life: seconds that its credentials live.
        gate: it answers while this is set.
    """

    daemon_threads = True

    def __init__(self, pki: Pki, cloud: FakeCloud) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.socket = pki.server_tls().wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = f"localhost:{self.server_address[1]}"
        self.cloud = cloud
        self.given: list[str] = []
        self.denies = False
        self.life = 3600
        self.gate = threading.Event()
        self.gate.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: an agent that is killed hangs up."""


class _Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        provider = self.server
        key = f"ASIA{len(provider.given) + 1}"
        provider.given.append(key)
        assert provider.gate.wait(30)
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=provider.life)
        names = {"accessKeyId": key, "secretAccessKey": SECRET, "sessionToken": TOKEN, "expiration": end.isoformat()}
        said: dict[str, Any] = {"message": "Access Denied"} if provider.denies else {"credentials": names}
        provider.cloud.secrets[key] = (SECRET, TOKEN)
        body = json.dumps(said).encode()
        self.send_response(403 if provider.denies else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def provider(pki: Pki, cloud: FakeCloud) -> Iterator[Provider]:
    server = Provider(pki, cloud)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Device:
    """An agent with a role alias, and the service that gives it jobs."""

    def __init__(self, agent: Agent, service: JobsService, cloud: FakeCloud, eventually: Callable[..., Any]) -> None:
        self.agent = agent
        self.service = service
        self._cloud = cloud
        self._eventually = eventually

    def start(self) -> None:
        """Start the agent."""
        self.agent.start(environment={"AWS_ENDPOINT_URL": self._cloud.url, "AWS_CA_BUNDLE": ""})

    def python(self, name: str, body: str, **manifest: Any) -> None:
        """Install a handler class whose `apply` is `body`, run by the program that runs all of them."""
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        head = "import json, time\nfrom pathlib import Path\nfrom thingjobs.cloud.errors import CloudError\n"
        code = f"{head}class Handler:\n    def apply(self, ctx, params):\n{lines}\n"
        start = "import sys; sys.path.insert(0, sys.argv[1]); from thingjobs.child import main"
        start += "; sys.exit(main(['team:Handler']))"
        self.shell(name, f'exec {sys.executable} -I -c "{start}" "${{0%/*}}"', **manifest)
        (self.agent.folder / "handlers" / name / "team.py").write_text(code)

    def shell(self, name: str, script: str, **manifest: Any) -> None:
        """Install a handler in shell."""
        folder = self.agent.folder / "handlers" / name
        folder.mkdir(mode=0o755)
        said = {"contract": 1, "verbs": ["apply"], "exec": "run.sh", "needs": ["cloud"], **manifest}
        (folder / "manifest.json").write_text(json.dumps(said))
        (folder / "run.sh").write_text(f"#!/bin/sh\nset -eu\nPATH=$PATH:{Path(sys.executable).parent}\n{script}\n")
        (folder / "run.sh").chmod(0o755)

    def queue(self, handler: str, **params: Any) -> None:
        """Queue a job that has the name of its handler."""
        self.service.create_job(handler, {"handler": handler, "params": params}, [THING])

    def over(self, job_id: str) -> Any:
        """Wait for the end of a job and return its execution."""
        self._eventually(lambda: self.service.execution(THING, job_id).status not in ("QUEUED", "IN_PROGRESS"))
        return self.service.execution(THING, job_id)

    def run(self, handler: str, **params: Any) -> Any:
        """Run a job and return its execution."""
        self.queue(handler, **params)
        return self.over(handler)


@pytest.fixture
def stopped(
    mosquitto: Mosquitto,
    pki: Pki,
    new_agent: Callable[..., Agent],
    provider: Provider,
    cloud: FakeCloud,
    eventually: Callable[..., Any],
) -> Iterator[Device]:
    """A device whose agent was not started yet."""
    service = JobsService()
    more = f"""
[cloud]
region = "eu-west-1"
account = "{cloud.account}"
role_alias = "device-role"
credentials_endpoint = "{provider.endpoint}"
allow_batch_jobs = ["job-*"]
handlers = ["lamp", "lamp-*"]
"""
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca, more=more)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=pki.client_tls()):
        yield Device(agent, service, cloud, eventually)
        provider.gate.set()
        assert agent.stop() == 0


@pytest.fixture
def device(stopped: Device) -> Device:
    """A device whose agent runs."""
    stopped.start()
    return stopped


def secrets_in(*texts: str) -> list[str]:
    """Return the texts that hold a secret, or the beginning of one as a terminal would cut it."""
    return [text for text in texts if SECRET[:12] in text or TOKEN[:12] in text]


def files_of(folder: Path) -> dict[str, str]:
    """Return what all files below a folder hold."""
    found = {str(path): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text(errors="replace") for name, path in found.items()}


def test_handlers_in_python_and_in_shell_use_credentials_that_leave_no_trace(
    device: Device, cloud: FakeCloud, provider: Provider, eventually: Callable[..., Any]
) -> None:
    cloud.new_job(JOB, "Suspended")
    cloud.batch_jobs["job-1"] = {"jobId": "job-1", "status": "RUNNABLE"}
    device.python(
        "lamp",
        """
path = Path("job.json")
ctx.details(before=str("credentials" in json.loads(path.read_text())["cloud"]))
ctx.cloud.s3_batch.confirm(params["id"], "it is there")
found = json.loads(path.read_text())
ctx.details(mode=oct(path.stat().st_mode & 0o777), revision=str(found["revision"]))
ctx.details(told=json.dumps({k: v for k, v in sorted(found["cloud"].items()) if k != "credentials"}))
""",
    )
    boto = "import boto3; boto3.client('batch').cancel_job(jobId='job-1', reason='no more')"
    device.shell(
        "lamp-sh",
        f"""
keys=$(thingjobs job cloud --env)
eval "$keys"
{sys.executable} -c "{boto}"
thingjobs job refresh --cloud
thingjobs job detail "id=$(thingjobs job get cloud.credentials.accessKeyId)" "region=$AWS_REGION"
thingjobs job cloud --process | grep -q '"Version": 1, "AccessKeyId": "{"ASIA1"}", "SecretAccessKey"'
""",
    )

    python, shell = device.run("lamp", id=JOB), device.run("lamp-sh")

    assert (python.status, shell.status) == ("SUCCEEDED", "SUCCEEDED"), (python.details, shell.details)
    assert (cloud.jobs[JOB]["Status"], cloud.batch_jobs["job-1"]["status"]) == ("Ready", "FAILED")
    assert (python.details["before"], python.details["mode"], python.details["revision"]) == ("False", "0o600", "2")
    told = json.loads(python.details["told"])
    where = {"s3ControlUrl": cloud.url, "batchUrl": cloud.url, "region": "eu-west-1", "account": cloud.account}
    lists = {"allowS3Jobs": ["*"], "allowBatchJobs": ["job-*"]}
    assert told == {**where, **lists, "caBundle": "", "proxy": "", "fips": False, "dualstack": False, "answers": 1}
    assert (shell.details["id"], shell.details["region"]) == ("ASIA1", "eu-west-1")
    assert provider.given == ["ASIA1"]
    eventually(lambda: not list(device.agent.folder.rglob("job.json")))  # The service hears of the end before that.
    files = files_of(device.agent.folder)
    assert [name for name, text in files.items() if secrets_in(text)] == []
    status, jobs = json.dumps(device.agent.status()), [repr(python), repr(shell)]
    assert secrets_in(status, *jobs, device.agent.log_text()) == []


def test_credentials_that_expire_are_renewed_while_a_job_runs(
    device: Device, cloud: FakeCloud, provider: Provider
) -> None:
    cloud.new_job(JOB, "Suspended")
    provider.life = 3
    device.python(
        "lamp",
        """
first = ctx.cloud.credentials().access_key_id
ctx.cloud.s3_batch.describe(params["id"])
while ctx.cloud.credentials().access_key_id == first:
    time.sleep(0.05)
ctx.cloud.s3_batch.confirm(params["id"])
""",
    )
    device.queue("lamp", id=JOB)

    assert device.over("lamp").status == "SUCCEEDED"
    used = [seen.headers["authorization"].partition("Credential=")[2].partition("/")[0] for seen in cloud.seen]
    assert used[0] == "ASIA1"
    assert used[-1] != "ASIA1"
    assert len(provider.given) <= 4


def test_an_agent_that_ends_or_is_killed_between_question_and_answer_is_asked_again(
    device: Device, cloud: FakeCloud, provider: Provider, eventually: Callable[..., Any]
) -> None:
    cloud.new_job(JOB, "Suspended")
    device.python("lamp", 'ctx.cloud.s3_batch.confirm(params["id"])')
    provider.gate.clear()
    device.queue("lamp", id=JOB)
    eventually(lambda: len(provider.given) == 1)

    device.agent.kill()
    device.start()
    eventually(lambda: len(provider.given) == 2)
    assert device.agent.stop() == 0
    device.start()
    eventually(lambda: len(provider.given) == 3)
    provider.gate.set()

    assert device.over("lamp").status == "SUCCEEDED"
    assert cloud.jobs[JOB]["Status"] == "Ready"
    assert device.service.execution(THING, "lamp").details.get("code", "") == ""


def test_a_device_that_may_not_have_credentials_fails_the_job_with_the_sentence_at_once(
    device: Device, provider: Provider
) -> None:
    provider.denies = True
    device.python("lamp", "ctx.cloud.s3_batch.jobs().__next__()")
    device.shell("lamp-sh", 'keys=$(thingjobs job cloud)\necho "$keys" >&2')
    device.python(
        "lamp-loop",
        """
end = time.monotonic() + 3
while time.monotonic() < end:
    try:
        ctx.cloud.credentials()
    except CloudError as error:
        ctx.details(said=str(error))
""",
    )

    found = [device.run(name) for name in ("lamp", "lamp-sh")]
    loop = device.run("lamp-loop")

    for one in found:
        assert one.status == "FAILED"
        assert one.details["reason"].startswith(DENIED)
    assert loop.details["said"].startswith(DENIED)
    assert len(provider.given) <= 4


def test_a_handler_that_does_not_need_the_cloud_gets_nothing_of_it(device: Device, provider: Provider) -> None:
    device.python(
        "lamp",
        """
ctx.emit({"refresh": "cloud"})
ctx.details(said=str("cloud" in json.loads(Path("job.json").read_text())))
try:
    ctx.cloud
except CloudError as error:
    ctx.details(why=str(error))
""",
        needs=[],
    )
    device.shell("lamp-sh", "thingjobs job cloud", needs=[])

    python, shell = device.run("lamp"), device.run("lamp-sh")

    assert (python.status, python.details["said"]) == ("SUCCEEDED", "False")
    assert 'declare needs = ("cloud",), in manifest.json "needs": ["cloud"]' in python.details["why"]
    assert (shell.status, shell.details["reason"]) == ("FAILED", python.details["why"])
    assert provider.given == []


def test_a_foreign_handler_without_leave_is_rejected_before_the_claim(device: Device, provider: Provider) -> None:
    device.shell("kettle", "exit 0")

    found = device.run("kettle")

    assert [change.status for change in found.history] == ["QUEUED", "REJECTED"]
    assert found.details["code"] == "handler.forbidden"
    assert found.details["reason"] == (
        "handler kettle needs AWS credentials, and is not listed in [cloud] handlers on this device"
    )
    assert provider.given == []


class Lamp:
    """Confirms a job; for the test kit."""

    needs = ("cloud",)

    def apply(self, ctx: Context, params: dict[str, Any]) -> None:
        ctx.cloud.s3_batch.confirm(params["id"])


def test_the_test_kit_gives_handlers_a_server_of_the_test(thingjobs: Kit, cloud: FakeCloud, tmp_path: Path) -> None:
    access = CloudAccess(cloud.url, access_key_id="AKIDTEST", secret_access_key="secret/+=")
    cloud.new_job(JOB, "Suspended")
    (tmp_path / "manifest.json").write_text('{"contract": 1, "verbs": ["apply"], "exec": "run", "needs": ["cloud"]}')
    (tmp_path / "run").write_text("#!/bin/sh\nthingjobs job cloud >keys\n")
    (tmp_path / "run").chmod(0o755)
    thingjobs.environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"

    python, shell = thingjobs.run(Lamp, {"id": JOB}, cloud=access), thingjobs.run(tmp_path, cloud=access)

    assert (python.status, cloud.jobs[JOB]["Status"]) == ("SUCCEEDED", "Ready")
    assert shell.status == "SUCCEEDED"
    assert f"export AWS_ENDPOINT_URL_BATCH={cloud.url}\n" in (shell.dir / "keys").read_text()


def test_on_a_full_disk_an_answer_is_written_over_the_file_if_it_has_the_room(
    new_disk: Callable[..., Any], tmp_path: Path
) -> None:
    disk = new_disk()
    place = Place(disk.path / "job")
    place.prepare(disk.path / "exit", None)
    place.write_first_job({"revision": 1}, None)
    disk.fill()

    place.renew_job({"revision": 2, "text": "x" * 3000}, None)
    with pytest.raises(OSError, match="No space left"):
        place.renew_job({"revision": 3, "text": "x" * 9000}, None)

    assert place.read_job() == {"revision": 2, "text": "x" * 3000}
    disk.drain()
    place.renew_job({"revision": 4}, None)
    assert place.read_job() == {"revision": 4}
