"""Nothing that must stay secret is written where somebody reads: all that a full run wrote is searched for it.

The real agent over each transport, through a proxy that wants a password: presigned URLs in documents, fetched and
printed by handlers; credentials from a role alias, or a key with a password; jobs that wait, fail and are refused; a
death of the agent; what it logs, tells its service, its shadow and Prometheus, and what `collect` gathers.
"""

from __future__ import annotations

import datetime as dt
import http.server
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives import serialization
from paho.mqtt.enums import CallbackAPIVersion
from tests.integration.web import Quiet, serving

from thingjobs.testing.web import Answer, WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent
    from tests.integration.connection.conftest import HttpProxy

    from thingjobs.testing import JobsService
    from thingjobs.testing.web import Call

THING = "pump-7"
#: What must not be found anywhere; each is one word that nothing else contains.
SIGNATURE, PASSWORD, KEY, TOKEN = "5e1f51gned", "pr0xypa55w0rd", "53cr3tacc355k3y", "5e5510nt0k3n"
BEARER, KEY_PASSWORD = "b3ar3rt0k3n", "k3ypa55w0rd"
QUERY = f"?X-Amz-Credential=AKIDEXAMPLE%2F{SIGNATURE}1&X-Amz-Security-Token={SIGNATURE}2&X-Amz-Signature={SIGNATURE}3"

LEAKY = """#!/bin/sh
url=$(sed -n 's/.*"url": *"\\([^"]*\\)".*/\\1/p' job.json)
echo "fetching $url"
printf '{"progress": 40, "message": "from %s", "details": {"from": "%s", "stdout": "%s"}}\\n' "$url" "$url" "$url" \\
    >>"$JOB_EVENTS"
printf '{"details": {"curl": "> Authorization: Bearer BEARER", "https://h/?X-Amz-Signature=SIGNATURE": "a name"}}\\n' \\
    >>"$JOB_EVENTS"
if NEEDS_CLOUD; then
    echo '{"refresh":"cloud"}' >>"$JOB_EVENTS"
    while ! grep -q accessKeyId job.json; do sleep 0.02; done
fi
cat job.json
echo "> Proxy-Authorization: Basic BEARER" >&2
touch FOLDER/there
while [ ! -e FOLDER/go ]; do sleep 0.02; done
printf 'half a line: %s' "https://bucket/fw.bin?X-Amz-Sig"
sleep 0.1
printf 'nature=%s\\n' SIGNATURE
echo "curl: (22) $url failed" >&2
exit 3
"""

#: Holds back the first job as long as the test wants.
GATE = """#!/bin/sh
[ -e FOLDER/open ] || { echo "waits for https://u:SIGNATURE@h/state?X-Amz-Signature=SIGNATURE"; exit 75; }
"""


@dataclass(frozen=True)
class Way:
    """How the agent is to run.

    Attributes:
        cloud: handlers get credentials; else the key has a password, which does not go together.
        waits: a job waits for a gate, and the shadow tells of it.
    """

    transport: str
    log_format: str
    verbose: bool
    cloud: bool
    waits: bool = False


WAYS = (
    Way("paho", "text", verbose=True, cloud=True, waits=True),
    Way("awsiot", "json", verbose=True, cloud=True),
    Way("https", "json", verbose=False, cloud=False),
)


@dataclass
class Files:
    """A server with a file at every address but those below /no/; it keeps what is put there."""

    address: str = ""
    taken: list[bytes] = field(default_factory=list)


@contextmanager
def files() -> Iterator[Files]:
    """Run such a server."""
    files = Files()

    class Handler(Quiet, http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(b"firmware", 403 if self.path.startswith("/no/") else 200)

        def do_PUT(self) -> None:
            files.taken.append(self.body())
            self.answer()

    with serving(Handler) as files.address:
        yield files


def credentials(call: Call) -> Answer | None:
    """Answer as the credentials provider of AWS IoT does."""
    if not call.path.startswith("/role-aliases/"):
        return None
    expires = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    names = {"accessKeyId": "ASIA1", "secretAccessKey": KEY, "sessionToken": TOKEN, "expiration": expires}
    return Answer(200, json.dumps({"credentials": names}).encode())


def route(proxy: HttpProxy) -> None:
    """Have a proxy connect to where it is asked to, as others do."""
    tunnel = proxy.tunnel

    def routed(sock: Any, _port: int) -> None:
        asked = re.match(r"CONNECT \S+:(\d+) ", proxy.heads[-1])
        assert asked
        tunnel(sock, int(asked[1]))

    vars(proxy)["tunnel"] = routed


def download(url: str, target: Path) -> dict[str, Any]:
    """Return the managed document that downloads a file."""
    handler = {"handler": "download-file.sh", "args": [url, str(target)], "path": "default"}
    action = {"name": "Download-File", "type": "runHandler", "input": handler, "runAsUser": ""}
    return {"version": "1.0", "steps": [{"action": action}]}


class Run:
    """A full run: the agent, and all that can be read of it, by where it was found."""

    def __init__(self, way: Way, agent: Agent, service: JobsService, eventually: Callable[..., Any]) -> None:
        self.way = way
        self.agent = agent
        self.service = service
        self.eventually = eventually
        self.read: dict[str, bytes] = {}
        #: The files that held a secret while a job ran, and whether nobody else could read them.
        self.kept: dict[str, bool] = {}
        self.metrics = agent.folder / "thingjobs.prom"
        needs = ["cloud"] if way.cloud else []
        leaky = LEAKY.replace("NEEDS_CLOUD", "true" if way.cloud else "false")
        self._program("handlers/leaky/run", leaky)
        manifest = {"contract": 1, "name": "leaky", "exec": "run", "verbs": ["apply"], "needs": needs}
        (agent.folder / "handlers" / "leaky" / "manifest.json").write_text(json.dumps(manifest))
        self._program("gates/state", GATE)

    def _program(self, name: str, text: str) -> None:
        path = self.agent.folder / name
        path.parent.mkdir()
        text = text.replace("FOLDER", str(self.agent.folder)).replace("SIGNATURE", f"{SIGNATURE}4")
        path.write_text(text.replace("BEARER", BEARER))
        path.chmod(0o755)

    def start(self) -> None:
        self.agent.start(verbose=self.way.verbose)

    def queue(self, job_id: str, document: object) -> None:
        self.service.create_job(job_id, document, [THING])

    def over(self, job_id: str) -> str:
        """Wait for the end of a job; return how it ended."""
        self.eventually(lambda: not self.service.execution(THING, job_id).pending, 60)
        return str(self.service.execution(THING, job_id).status)

    def look(self, when: str) -> None:
        """Read what the agent and its programs show while they run."""
        for words in (["status"], ["status", "--json"]) if self.way.waits else ():  # Once is enough: each is a start.
            argv = [sys.executable, "-m", "thingjobs", *words, "--config", str(self.agent.config)]
            done = subprocess.run(argv, capture_output=True, check=True)
            self.read[f"{' '.join(words)}, {when}"] = done.stdout + done.stderr
        self.read[f"the socket, {when}"] = json.dumps(self.agent.status()).encode()
        self.eventually(self.metrics.exists)
        self.read[f"the metrics, {when}"] = self.metrics.read_bytes()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words_of_it, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:  # it ended, or is another's
                continue
            if words_of_it and str(self.agent.folder).encode() in words_of_it + environment:
                self.read[f"arguments of {words_of_it[:60]!r}, {when}"] = words_of_it

    def look_at_what_is_kept(self) -> None:
        """See in which files the agent keeps what it was told while a job runs."""
        for path in self.agent.state.rglob("*"):
            if path.is_file() and not path.is_symlink() and SIGNATURE.encode() in path.read_bytes():
                self.kept[str(path.relative_to(self.agent.state))] = is_private(path, self.agent.state)

    def look_back(self, bundle: bytes) -> None:
        """Read what is left on disk, what the service was told, and what was collected."""
        for number, request in enumerate(self.service.requests):
            self.read[f"request {number}: {request.suffix}"] = json.dumps(request.body).encode()
        for path in self.agent.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.read[str(path.relative_to(self.agent.folder))] = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                self.read[f"collected {member.name}"] = content.read() if content else b""


def lock(key: Path, target: Path) -> None:
    """Write a private key with a password."""
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
    locked = secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    for path, data in ((target, locked), (target.with_name("key.password"), KEY_PASSWORD.encode())):
        path.touch(mode=0o600)
        path.write_bytes(data)


def configure(run: Run, connection: str, web_port: int, key: Path) -> None:
    """Have the agent connect the way that is wanted, and tell all that it can tell."""
    agent, way = run.agent, run.way
    if not way.cloud:
        locked = agent.folder / "device.key"
        lock(key, locked)
        text = agent.config.read_text().replace(f'"{key}"', f'"{locked}"')
        agent.config.write_text(text)
        connection += f'private_key_password_file = "{agent.folder}/key.password"\n'
    cloud = f"""
[cloud]
role_alias = "device-role"
credentials_endpoint = "localhost:{web_port}"
handlers = ["leaky"]
"""
    agent.config.write_text(
        agent.config.read_text().replace("[connection]\n", f"[connection]\n{connection}")
        + f'''
[report]
textfile = "{run.metrics}"
log_format = "{way.log_format}"
{'shadow = "thingjobs"' * way.waits}
[gates]
directory = "{agent.folder}/gates"
{cloud * way.cloud}
'''
    )


@pytest.fixture
def told(mosquitto: Mosquitto, pki: Pki) -> Iterator[Callable[[], bytes]]:
    """Gives what the shadow was told so far."""
    came: list[bytes] = []
    ready = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="shadow-service")
    client.tls_set_context(pki.client_tls("shadow-service"))
    client.on_message = lambda _client, _data, got: came.append(bytes(got.payload))
    client.on_subscribe = lambda *_: ready.set()
    client.connect("localhost", mosquitto.port)
    client.subscribe("$aws/things/pump-7/shadow/#", 1)
    client.loop_start()
    assert ready.wait(30)
    yield lambda: b"\n".join(came)
    client.disconnect()
    client.loop_stop()


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.transport}-{way.log_format}")
def full_run(
    request: pytest.FixtureRequest,
    mosquitto: Mosquitto,
    pki: Pki,
    served: JobsService,
    new_agent: Callable[..., Agent],
    http_proxy: Callable[..., HttpProxy],
    eventually: Callable[..., Any],
) -> Iterator[Run]:
    way: Way = request.param
    told: Callable[[], bytes] = request.getfixturevalue("told")
    proxy = http_proxy(login=f"agent:{PASSWORD}")
    route(proxy)
    with WebJobsService(served, tls=pki.server_tls()) as web, files() as shop:
        web.interpose(credentials)
        port = web.port if way.transport == "https" else mosquitto.port
        certificate, key = pki.device(THING)
        run = Run(way, new_agent(THING, port=port, pair=(certificate, key), ca=pki.ca), served, eventually)
        proxied = f'transport = "{way.transport}"\nproxy = "http://agent:{PASSWORD}@127.0.0.1:{proxy.port}"\n'
        configure(run, proxied, web.port, key)
        run.read["keys"] = key.read_bytes()
        everything_happens(run, shop, told)
        run.read["the shadow"] = told()
        yield run


def everything_happens(run: Run, shop: Files, told: Callable[[], bytes]) -> None:
    """Have the agent work through jobs that know secrets, and look at all that it writes meanwhile."""
    agent = run.agent
    run.queue("fetched", download(f"{shop.address}/fw.bin{QUERY}", agent.folder / "fw.bin"))
    run.queue("forbidden", download(f"{shop.address}/no/fw.bin{QUERY}", agent.folder / "fw2.bin"))
    run.queue("unreadable", {"handler": "leaky", "params": {}, f"https://bucket/{QUERY}": f"https://b/{QUERY}"})
    run.queue("leaks", {"handler": "leaky", "params": {"url": f"{shop.address}/fw.bin{QUERY}"}})
    if run.way.waits:
        run.start()
        # If it was told before the gate had answered, it is told again when a minute is over, and not earlier.
        run.eventually(lambda: b"gate state: waits for https:" in told(), 90)
        run.look("while a job waits")
        assert agent.stop() == 0
    (agent.folder / "open").touch()
    run.start()
    run.eventually((agent.folder / "there").exists, 60)
    run.look("while it runs")
    run.look_at_what_is_kept()
    agent.kill()
    run.start()
    run.look("after a death")
    (agent.folder / "go").touch()
    assert list(map(run.over, ("fetched", "forbidden", "unreadable", "leaks"))) == [
        *("SUCCEEDED", "FAILED", "REJECTED", "FAILED")
    ]
    run.look("afterwards")
    run.queue("collected", {"handler": "collect", "params": {"url": f"{shop.address}/logs{QUERY}"}})
    if run.way.transport == "https":  # It would be a quarter of an hour before it asks again.
        assert agent.stop() == 0
        run.start()
    assert run.over("collected") == "SUCCEEDED"
    assert agent.stop() == 0
    run.look_back(shop.taken[-1])


#: Where the agent must keep what it was told while a job runs; and what it was given to begin with.
KEPT = re.compile(r"journal/leaks|jobs/leaks.*(job\.json|said-[a-z]+-\d+)$")
GIVEN = re.compile(r"config\.toml$|handlers/|gates/|state/pinned/|key\.password$|device\.key$|keys$")


def is_private(path: Path, state: Path) -> bool:
    """Return whether nobody but its owner gets to a file in the state folder."""
    above = [one for one in (path, *path.parents) if one.is_relative_to(state)]
    return any(one.stat().st_mode & 0o077 == 0 for one in above)


def test_no_secret_is_found_in_anything_that_a_full_run_wrote_but_in_what_is_the_agents_alone(full_run: Run) -> None:
    key_lines = full_run.read["keys"].decode().splitlines()[1:-1]
    words = (SIGNATURE, PASSWORD, KEY, TOKEN, BEARER, KEY_PASSWORD, *key_lines)
    read = {where: data for where, data in full_run.read.items() if not GIVEN.match(where)}
    found = {where: word for where, data in read.items() for word in words if word.encode() in data}
    assert found == {}

    # All of it was there to be found.
    whens = ("while it runs", "after a death", "afterwards")
    assert {f"{what}, {when}" for what in ("the socket", "the metrics") for when in whens} <= read.keys()
    assert ("status, while a job waits" in read) is full_run.way.waits
    logs = {where: data for where, data in read.items() if re.search(r"logs/", where)}
    for words_of_it in (b"fetching http://127.0.0.1:", b"Authorization: \xe2\x80\xa6", b'"url"'):
        assert len([where for where, data in logs.items() if words_of_it in data]) == 2, "on the disk and collected"
    assert any("run" in where and "leaky" not in where for where in read if where.startswith("arguments of "))
    updates = [json.loads(data) for where, data in read.items() if where.startswith("request ")]
    assert any("/fw.bin?…" in str(update.get("statusDetails")) for update in updates)
    assert read["agent.log"]
    assert json.loads(read["collected agent/status.json"])["thing"], "it asked this agent, and not another one"
    assert bool(read["the shadow"]) is full_run.way.waits
    kept = {where: private for where, private in full_run.kept.items() if not where.startswith("pinned/")}
    assert kept
    assert [where for where, private in kept.items() if not private or not KEPT.match(where)] == []
