"""S3 Control and AWS Batch as one small server, for what no emulator does: real HTTP, state machines, and faults.

It is an HTTP proxy, too, so that boto3 and our clients talk to the hosts that AWS has, and it sees their names. Every
signature is checked with botocore's signers, every client of it is judged by what boto3 does and gets. Beside it: the
credentials provider of AWS IoT, and moto, where AWS Batch comes from others.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Pki, Require

    from thingjobs.cloud.batch import Batch
    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.s3_batch import S3Batch

ACCOUNT = "123456789012"
REGION = "eu-west-1"
S3_HOST = f"{ACCOUNT}.s3-control.{REGION}.amazonaws.com"
BATCH_HOST = f"batch.{REGION}.amazonaws.com"
NAMESPACE = "http://awss3control.amazonaws.com/doc/2018-08-20/"

#: Where cancelling leads from each state; from the others it is refused. S3 user guide, "Job status responses".
S3_CANCEL = {
    **dict.fromkeys(("New", "Preparing", "Suspended", "Ready"), "Cancelled"),
    **dict.fromkeys(("Active", "Pausing", "Paused"), "Cancelling"),
}
S3_NEXT = {
    "New": "Preparing",
    "Preparing": "Suspended",
    "Ready": "Active",
    "Active": "Completing",
    "Completing": "Complete",
    "Pausing": "Paused",
    "Paused": "Active",
    "Cancelling": "Cancelled",
    "Failing": "Failed",
}
#: How many seconds a signature may be off, and what is said of one that is.
TOLERANCE = {"s3": 900, "batch": 300}
SKEWED = {
    "s3": (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    "batch": (403, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 20260102"),
}


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    host: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The query's keys and values, not quoted."""
        return parse_qsl(self.query, keep_blank_values=True)

    @property
    def signed(self) -> set[str]:
        """The names of the headers that were signed."""
        return set(self.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";"))

    @property
    def change(self) -> str:
        """What it asks to change, "" if it only looks."""
        if self.path.startswith("/v20180820"):
            return dict(self.pairs).get("requestedJobStatus", "")
        return self.path.removeprefix("/v1/") if json.loads(self.body).get("reason") else ""


@dataclass
class Answer:
    """What goes back; None for a body: the connection is closed without a word."""

    status: int = 200
    body: bytes | None = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: The connection ends after so many bytes of the body, while its length said otherwise.
    cut: int | None = None


@dataclass
class Fault:
    """What the next request meets; `after`: only when it has been carried out."""

    answer: Answer
    after: bool = False


class FakeCloud(ThreadingHTTPServer):
    """Both services, for one account in one region.

    Attributes:
        jobs: S3 batch jobs by id, with the elements of a JobDescriptor.
        batch_jobs: AWS Batch jobs by id, as JobDetail.
        secrets: the secret access key and the session token of each access key id that is known.
        seen: the requests.
        faults: what the next requests meet, one each; None: nothing.
        ahead: seconds by which its clock is ahead of this machine's.
        namespace: whether answers of S3 Control have theirs.
        envelope: whether its errors come inside an ErrorResponse.
    """

    daemon_threads = True
    account = ACCOUNT
    region = REGION
    s3_host = S3_HOST
    batch_host = BATCH_HOST

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.jobs: dict[str, dict[str, Any]] = {}
        self.batch_jobs: dict[str, dict[str, Any]] = {}
        self.secrets = {"AKIDTEST": ("secret/+=", "")}
        self.expired: set[str] = set()
        self.seen: list[Seen] = []
        self.broken: list[BaseException | None] = []
        self.faults: deque[Fault | None] = deque()
        self.ahead = 0.0
        self.namespace = True
        self.envelope = False
        self.page_size = 1000

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Remember what broke in here; clients that went away are no news."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.broken.append(error)

    def fail(
        self,
        status: int,
        body: bytes | None = b"",
        *,
        cut: int | None = None,
        after: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next request with this; see Answer and Fault."""
        self.faults.append(Fault(Answer(status, body, dict(headers or {}), cut), after))

    def refuse(self, status: int, code: str, message: str = "so it is", *, s3: bool = True) -> None:
        """Answer the next request with an error of S3 Control or AWS Batch."""
        self.faults.append(Fault(self._error(s3, status, code, message)))

    def hang_up(self, *, after: bool = False) -> None:
        """Close the connection of the next request without an answer, after or before it was carried out."""
        self.fail(0, None, after=after)

    def new_job(self, job_id: str, status: str = "Active", **more: Any) -> str:
        """Add an S3 batch job."""
        job: dict[str, Any] = {
            "Description": "by <the> test & co",
            "Operation": {"LambdaInvoke": {"FunctionArn": "arn:aws:lambda:x"}},
        }
        job |= {"Priority": 10, "CreationTime": "2026-01-02T03:04:05.678Z", "ConfirmationRequired": False}
        progress = {"TotalNumberOfTasks": 10, "NumberOfTasksSucceeded": 4, "NumberOfTasksFailed": 1}
        job["ProgressSummary"] = {**progress, "Timers": {"ElapsedTimeInActiveSeconds": 77}}
        self.jobs[job_id] = {"JobId": job_id, "Status": status, **job, **more}
        return job_id

    def advance(self, job_id: str) -> str:
        """Let time pass for an S3 batch job."""
        job = self.jobs[job_id]
        job["Status"] = S3_NEXT.get(job["Status"], job["Status"])
        return str(job["Status"])

    def answer(self, seen: Seen) -> Answer:
        """Carry out a request, unless it meets a fault."""
        self.seen.append(seen)
        fault = self.faults.popleft() if self.faults else None
        if fault and not fault.after:
            return fault.answer
        s3 = seen.host == S3_HOST or seen.path.startswith("/v20180820")
        refused = self._refused(seen, "s3" if s3 else "batch")
        done = (self._error(s3, *refused)) if refused else self._s3(seen) if s3 else self._batch(seen)
        return fault.answer if fault else done

    def _refused(self, seen: Seen, service: str) -> tuple[int, str, str] | None:
        words = seen.headers.get("authorization", "").removeprefix("AWS4-HMAC-SHA256 ").split(", ")
        said = dict(word.partition("=")[::2] for word in words)
        key, day, *scope, _ = said["Credential"].split("/")
        assert day == seen.headers["x-amz-date"][:8]
        if key not in self.secrets:
            return 403, {"s3": "InvalidAccessKeyId", "batch": "UnrecognizedClientException"}[service], "unknown key"
        if key in self.expired:
            return 400, {"s3": "ExpiredToken", "batch": "ExpiredTokenException"}[service], "it has expired"
        if scope != [REGION, service] or said["Signature"] != self._signature(seen, key, service):
            code = {"s3": "SignatureDoesNotMatch", "batch": "InvalidSignatureException"}[service]
            return 403, code, "The request signature we calculated does not match"
        sent = dt.datetime.strptime(seen.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        return SKEWED[service] if abs((self.now() - sent).total_seconds()) > TOLERANCE[service] else None

    def _signature(self, seen: Seen, key: str, service: str) -> str:
        """Sign what came in with botocore's signer of that service."""
        from botocore.auth import S3SigV4Auth, SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        secret, token = self.secrets[key]
        assert seen.headers.get("x-amz-security-token", "") == token
        signed = {name: value for name, value in seen.headers.items() if name in seen.signed}
        request = AWSRequest(seen.method, f"http://{seen.host}{seen.path}?{seen.query}", signed, seen.body)
        request.context["timestamp"] = seen.headers["x-amz-date"]
        assert service != "s3" or seen.headers["x-amz-content-sha256"] == hashlib.sha256(seen.body).hexdigest()
        signer: Any = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(key, secret, token), service, REGION)
        return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))

    def now(self) -> dt.datetime:
        """Its clock."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)

    def _error(self, s3: bool, status: int, code: str, message: str) -> Answer:
        return s3_error(status, code, message, envelope=self.envelope) if s3 else batch_error(status, code, message)

    def _s3(self, seen: Seen) -> Answer:
        assert seen.headers["x-amz-account-id"] == ACCOUNT
        query = seen.pairs
        match seen.method, seen.path.removeprefix("/v20180820/jobs").split("/")[1:]:
            case "GET", []:
                return self._listed(query)
            case _, [job_id, *_] if job_id not in self.jobs:
                return self._error(True, 404, "NoSuchJob", "The specified job does not exist.")
            case "GET", [job_id]:
                return self._xml("DescribeJobResult", {"Job": self.jobs[job_id]})
            case "POST", [job_id, "status"]:
                assert not seen.body
                return self._updated(self.jobs[job_id], dict(query))
        return self._error(True, 405, "MethodNotAllowed", "no")

    def _listed(self, query: list[tuple[str, str]]) -> Answer:
        statuses = [value for key, value in query if key == "jobStatuses"]
        said = dict(query)
        jobs = [job for job in self.jobs.values() if not statuses or job["Status"] in statuses]
        size = min(int(said.get("maxResults", 1000)), self.page_size)
        start = int(said.get("nextToken", "/0").rpartition("/")[2])
        names = ("JobId", "Description", "Priority", "Status", "CreationTime", "TerminationDate", "ProgressSummary")
        chosen = [{name: job[name] for name in names if name in job} for job in jobs[start : start + size]]
        for job in chosen:
            job["Operation"] = next(iter(self.jobs[job["JobId"]]["Operation"]))
        token = {"NextToken": f"a+b/c=?#:_/{start + size}"} if start + size < len(jobs) else {}
        return self._xml("ListJobsResult", {**token, "Jobs": [("member", job) for job in chosen]})

    def _updated(self, job: dict[str, Any], asked: dict[str, str]) -> Answer:
        allowed = S3_CANCEL if asked["requestedJobStatus"] == "Cancelled" else {"Suspended": "Ready"}
        if job["Status"] not in allowed:
            return self._error(True, 400, "JobStatusException", f"Job is {job['Status']}")
        job |= {"Status": allowed[job["Status"]], "StatusUpdateReason": asked.get("statusUpdateReason", "")}
        return self._xml(
            "UpdateJobStatusResult", {name: job[name] for name in ("JobId", "Status", "StatusUpdateReason")}
        )

    def _xml(self, name: str, content: object) -> Answer:
        attribute = f' xmlns="{NAMESPACE}"' if self.namespace else ""
        body = f"<?xml version='1.0' encoding='UTF-8'?>\n<{name}{attribute}>{written(content)}</{name}>"
        return Answer(200, body.encode(), {"Content-Type": "application/xml"})

    def _batch(self, seen: Seen) -> Answer:
        said = json.loads(seen.body)
        match seen.path:
            case "/v1/describejobs":
                found = [self.batch_jobs[job_id] for job_id in said["jobs"] if job_id in self.batch_jobs]
                return Answer(200, json.dumps({"jobs": found}).encode(), {"Content-Type": "application/json"})
            case "/v1/canceljob":
                self._end(said, "isCancelled", ("SUBMITTED", "PENDING", "RUNNABLE"))
            case "/v1/terminatejob":
                self._end(said, "isTerminated", ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"))
            case _:
                return batch_error(404, "UnknownOperationException", "no")
        return Answer(200, b"{}", {"Content-Type": "application/json"})

    def _end(self, said: Mapping[str, str], flag: str, states: tuple[str, ...]) -> None:
        job = self.batch_jobs.get(said["jobId"])
        if job and job["status"] in states:
            job |= {"status": "FAILED", "statusReason": said["reason"], flag: True}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeCloud

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        host = parts.netloc or headers["host"]
        assert host == headers["host"]
        answer = self.server.answer(Seen(self.command, host, parts.path, parts.query, headers, body))
        if answer.body is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        date = formatdate(self.server.now().timestamp(), usegmt=True)
        lengths = {} if answer.cut == -1 else {"Content-Length": str(len(answer.body))}
        for name, value in {"Date": date, **lengths, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body if answer.cut in (None, -1) else answer.body[: answer.cut])
        self.close_connection = answer.cut is not None

    do_POST = do_GET  # noqa: N815 - http.server wants it so

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def written(content: object) -> str:
    """Write dictionaries, and lists of names and contents, as elements."""
    match content:
        case dict():
            return written(list(content.items()))
        case list():
            return "".join(f"<{name}>{written(inner)}</{name}>" for name, inner in content)
        case bool():
            return str(content).lower()
        case _:
            return escape(str(content))


def s3_error(status: int, code: str, message: str = "so it is", *, envelope: bool = False) -> Answer:
    """Make an error of S3 Control, in one of its two envelopes."""
    inner = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    text = f"<ErrorResponse>{inner}<RequestId>4442587FB7D0A2F9</RequestId></ErrorResponse>" if envelope else inner
    return Answer(status, text.encode(), {"Content-Type": "application/xml", "x-amz-request-id": "4442587FB7D0A2F9"})


def batch_error(status: int, code: str, message: str = "so it is") -> Answer:
    """Make an error of AWS Batch."""
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": f"{code}:http://internal.amazon.com/"}
    return Answer(status, json.dumps({"message": message}).encode(), headers)


@pytest.fixture(scope="session")
def as_xml() -> Callable[[object], str]:
    """Write dictionaries, and lists of names and contents, as elements."""
    return written


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    """Give both services, empty."""
    server = FakeCloud()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    assert not server.broken


@pytest.fixture
def boto(cloud: FakeCloud) -> Iterator[Callable[[str], Any]]:
    """Make boto3 clients that reach the fake by way of it as their proxy; they try nothing twice."""
    import boto3
    from botocore.config import Config

    config = Config(proxies={"http": cloud.url}, retries={"total_max_attempts": 1})
    made: list[Any] = []

    def make(service: str, token: str | None = None) -> Any:
        client = boto3.client(
            service,
            region_name=REGION,
            use_ssl=False,
            config=config,
            aws_access_key_id="AKIDTEST",
            aws_secret_access_key="secret/+=",
            aws_session_token=token,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


class Calling(Protocol):
    """What the fixture `calling` gives."""

    def __call__(self, **arguments: Any) -> Caller:
        """Make a caller; what is not among the arguments of Caller replaces fields of the credentials."""


@pytest.fixture
def pauses() -> list[float]:
    """Collect the pauses that callers make, which take no time here."""
    return []


@pytest.fixture
def calling(cloud: FakeCloud, pauses: list[float]) -> Calling:
    """Make callers that reach the fake by way of it as their proxy, as boto3 does."""
    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.credentials import Credentials, Issued, Keeper
    from thingjobs.cloud.web import Line

    credentials = Credentials("AKIDTEST", "secret/+=")

    def make(**arguments: Any) -> Caller:
        keeper = arguments.pop("keeper", None) or Keeper(lambda: Issued(credentials))
        line = Line(proxy=cloud.url, read_s=arguments.pop("read_s", 20.0))
        return Caller(keeper, line, **{"sleep": pauses.append, **arguments})

    return make


@pytest.fixture
def s3(calling: Calling) -> S3Batch:
    """Our client of S3 Batch Operations."""
    from thingjobs.cloud.calls import Endpoint
    from thingjobs.cloud.s3_batch import S3Batch

    return S3Batch(calling(), Endpoint(f"http://{S3_HOST}", REGION, "s3"), ACCOUNT)


@pytest.fixture
def batch(calling: Calling) -> Batch:
    """Our client of AWS Batch."""
    from thingjobs.cloud.batch import Batch
    from thingjobs.cloud.calls import Endpoint

    return Batch(calling(), Endpoint(f"http://{BATCH_HOST}", REGION, "batch"))


# --- credentials --------------------------------------------------------------------------------------------------


class Provider(ThreadingHTTPServer):
    """Gives credentials to whoever shows a certificate that the authority signed.

    Attributes:
        seen: path, thing's name and common name of each request.
        says: status and body of the next answers; then it gives credentials.
        ahead: seconds by which its clock is ahead of this machine's; None: it sends no Date.
    """

    daemon_threads = True

    def __init__(self, pki: Pki) -> None:
        super().__init__(("127.0.0.1", 0), _ProviderHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server_cert, pki.server_key)
        context.load_verify_locations(pki.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = f"localhost:{self.server_address[1]}"
        self.seen: list[tuple[str, str | None, str]] = []
        self.says: list[tuple[int, bytes]] = []
        self.ahead: float | None = 0.0
        self.life = 3600.0
        self.gate = threading.Event()
        self.gate.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients without a certificate are a part of this."""

    def credentials(self) -> bytes:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.life + (self.ahead or 0))
        return json.dumps(
            {
                "credentials": {
                    "accessKeyId": f"ASIA{len(self.seen)}",
                    "secretAccessKey": "hush",
                    "sessionToken": "hush/token",
                    "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            }
        ).encode()


class _ProviderHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def do_GET(self) -> None:
        shown: Any = self.connection.getpeercert()
        names = dict(pair[0] for pair in shown["subject"])
        self.server.seen.append((self.path, self.headers["x-amzn-iot-thingname"], names["commonName"]))
        self.server.gate.wait(10)
        status, body = self.server.says.pop(0) if self.server.says else (200, self.server.credentials())
        self.send_response_only(status)
        if self.server.ahead is not None:
            now = dt.datetime.now(dt.UTC).timestamp() + self.server.ahead
            self.send_header("Date", formatdate(now, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def provider(pki: Pki) -> Iterator[Provider]:
    """Give the credentials provider of AWS IoT, over mutual TLS."""
    server = Provider(pki)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


# --- moto ---------------------------------------------------------------------------------------------------------


class Moto:
    """moto's server, with a queue; there is no Docker for it, so a job that comes to run fails."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = process.pid
        self._port = port
        self._log = log
        self._queue = ""
        self._definition = ""

    def log_since_last_time(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def set_up(self) -> None:
        role = self.boto("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        client = self.boto("batch")
        made = client.create_compute_environment(
            computeEnvironmentName="compute", type="UNMANAGED", state="ENABLED", serviceRole=role
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        self._queue = client.create_job_queue(
            jobQueueName="queue", state="ENABLED", priority=1, computeEnvironmentOrder=order
        )["jobQueueArn"]
        container = {"image": "busybox", "vcpus": 1, "memory": 4, "command": ["true"]}
        self._definition = client.register_job_definition(
            jobDefinitionName="definition", type="container", containerProperties=container
        )["jobDefinitionArn"]

    def submit(self, *depends_on: str) -> str:
        dependencies = [{"jobId": job_id} for job_id in depends_on]
        made = self.boto("batch").submit_job(
            jobName="process", jobQueue=self._queue, jobDefinition=self._definition, dependsOn=dependencies
        )
        return str(made["jobId"])

    def transition(self, **how: object) -> None:
        """Say how jobs go from one state to the next."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        body = json.dumps({"model_name": "batch::job", "transition": how})
        connection.request("POST", "/moto-api/state-manager/set-transition", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 201
        connection.close()

    def boto(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@pytest.fixture(scope="session")
def moto(require: Require, lasting: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """Run one moto for all tests: what `transition` says holds until another says otherwise."""
    require("moto")
    require("flask")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "moto.log"
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=output, env={**os.environ, "DOCKER_HOST": f"unix://{log}.no-docker-here"}
        )
    server = Moto(port, process, log)
    lasting.append(server)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            assert time.monotonic() < deadline, server.log_since_last_time()
            time.sleep(0.05)
        server.set_up()
        yield server
    finally:
        lasting.remove(server)
        process.kill()
        process.wait(10)


def listens(port: int) -> bool:
    """Return whether somebody does, on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
