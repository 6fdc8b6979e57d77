"""Nothing that must stay secret is written where somebody reads: all that a full run wrote is searched for it.

The real agent over a real broker, through a proxy that wants a password: presigned URLs in documents, fetched and
printed by handlers; credentials from a role alias; jobs that fail and that are refused; a death of the agent.
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

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
QUERY = f"?X-Amz-Credential=AKIDEXAMPLE%2F{SIGNATURE}1&X-Amz-Security-Token={SIGNATURE}2&X-Amz-Signature={SIGNATURE}3"

LEAKY = """#!/bin/sh
url=$(sed -n 's/.*"url": *"\\([^"]*\\)".*/\\1/p' job.json)
echo "fetching $url"
printf '{"progress": 40, "message": "from %s", "details": {"from": "%s", "stdout": "%s"}}\\n' "$url" "$url" "$url" \\
    >>"$JOB_EVENTS"
echo '{"refresh":"cloud"}' >>"$JOB_EVENTS"
while ! grep -q accessKeyId job.json; do sleep 0.02; done
touch FOLDER/there
while [ ! -e FOLDER/go ]; do sleep 0.02; done
printf 'half a line: %s' "https://bucket/fw.bin?X-Amz-Sig"
sleep 0.1
printf 'nature=%s\\n' SIGNATURE
echo "curl: (22) $url failed" >&2
exit 3
"""


@contextmanager
def files() -> Iterator[str]:
    """Serve a file at every address but those below /no/; give the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"firmware"
            self.send_response(403 if self.path.startswith("/no/") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


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

    def __init__(self, agent: Agent, service: JobsService, eventually: Callable[..., Any]) -> None:
        self.agent = agent
        self.service = service
        self.eventually = eventually
        self.read: dict[str, bytes] = {}
        folder = agent.folder / "handlers" / "leaky"
        folder.mkdir()
        program = folder / "run"
        program.write_text(LEAKY.replace("FOLDER", str(agent.folder)).replace("SIGNATURE", f"{SIGNATURE}4"))
        program.chmod(0o755)
        manifest = {"contract": 1, "name": "leaky", "exec": "run", "verbs": ["apply"], "needs": ["cloud"]}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def queue(self, job_id: str, document: object) -> None:
        self.service.create_job(job_id, document, [THING])

    def over(self, job_id: str) -> str:
        """Wait for the end of a job; return how it ended."""
        self.eventually(lambda: not self.service.execution(THING, job_id).pending, 60)
        return str(self.service.execution(THING, job_id).status)

    def look(self, when: str) -> None:
        """Read what the agent and its programs show while they run."""
        for words in (["status"], ["status", "--json"]):
            argv = [sys.executable, "-m", "thingjobs", *words, "--config", str(self.agent.config)]
            done = subprocess.run(argv, capture_output=True, check=True)
            self.read[f"{' '.join(words)}, {when}"] = done.stdout + done.stderr
        self.read[f"the socket, {when}"] = json.dumps(self.agent.status()).encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words_of_it, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:  # it ended, or is another's
                continue
            if words_of_it and str(self.agent.folder).encode() in words_of_it + environment:
                self.read[f"arguments of {words_of_it[:60]!r}, {when}"] = words_of_it

    def look_back(self) -> None:
        """Read what is left on disk, and what the service was told."""
        for number, request in enumerate(self.service.requests):
            self.read[f"request {number}: {request.suffix}"] = json.dumps(request.body).encode()
        for path in self.agent.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.read[str(path.relative_to(self.agent.folder))] = path.read_bytes()


@pytest.fixture
def full_run(
    mosquitto: Mosquitto,
    pki: Pki,
    served: JobsService,
    new_agent: Callable[..., Agent],
    http_proxy: Callable[..., HttpProxy],
    eventually: Callable[..., Any],
) -> Iterator[Run]:
    proxy = http_proxy(login=f"agent:{PASSWORD}")
    route(proxy)
    with WebJobsService(served, tls=pki.server_tls()) as web, files() as address:
        web.interpose(credentials)
        more = f"""
[cloud]
role_alias = "device-role"
credentials_endpoint = "localhost:{web.port}"
handlers = ["leaky"]
"""
        agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca, more=more)
        text = agent.config.read_text()
        proxied = f'[connection]\nproxy = "http://agent:{PASSWORD}@127.0.0.1:{proxy.port}"\n'
        agent.config.write_text(text.replace("[connection]\n", proxied))
        run = Run(agent, served, eventually)
        agent.start()
        run.queue("fetched", download(f"{address}/fw.bin{QUERY}", agent.folder / "fw.bin"))
        run.queue("forbidden", download(f"{address}/no/fw.bin{QUERY}", agent.folder / "fw2.bin"))
        run.queue("unreadable", {"handler": "leaky", "params": {}, f"https://bucket/{QUERY}": f"https://b/{QUERY}"})
        run.queue("leaks", {"handler": "leaky", "params": {"url": f"{address}/fw.bin{QUERY}"}})
        eventually((agent.folder / "there").exists, 60)
        run.look("while it runs")
        agent.kill()
        agent.start()
        eventually(lambda: agent.status()["connected"])
        run.look("after a death")
        (agent.folder / "go").touch()
        ends = [run.over(job_id) for job_id in ("fetched", "forbidden", "unreadable", "leaks")]
        assert ends == ["SUCCEEDED", "FAILED", "REJECTED", "FAILED"]
        run.look("afterwards")
        assert agent.stop() == 0
        run.look_back()
        yield run


#: Where the agent must keep what it was told, for itself alone; and what it was given to begin with.
KEPT = re.compile(r"state/(journal/|jobs/.*(job\.json|said-[a-z]+-\d+)$)")
GIVEN = re.compile(r"config\.toml$|handlers/|state/pinned/")


def is_private(path: Path, state: Path) -> bool:
    """Return whether nobody but its owner gets to a file in the state folder."""
    above = [one for one in (path, *path.parents) if one.is_relative_to(state)]
    return any(one.stat().st_mode & 0o077 == 0 for one in above)


def test_no_secret_is_found_in_anything_that_a_full_run_wrote_but_in_what_is_the_agents_alone(
    full_run: Run, pki: Pki
) -> None:
    key_lines = pki.device(THING)[1].read_text().splitlines()[1:-1]
    secrets = [word.encode() for word in (SIGNATURE, PASSWORD, KEY, TOKEN, *key_lines)]
    read = {where: data for where, data in full_run.read.items() if not KEPT.match(where) and not GIVEN.match(where)}
    assert {where: secret for where, data in read.items() for secret in secrets if secret in data} == {}

    # All of it was there to be found.
    assert {"agent.log", "status, while it runs", "the socket, afterwards"} <= read.keys()
    logs = {where: data for where, data in read.items() if re.match(r"state/logs/", where)}
    assert any("fetching http://127.0.0.1:" in data.decode() for data in logs.values())
    assert any("run" in where and "leaky" not in where for where in read if where.startswith("arguments of "))
    updates = [json.loads(data) for where, data in read.items() if where.startswith("request ")]
    assert any("/fw.bin?…" in str(update.get("statusDetails")) for update in updates)
    kept = [where for where in full_run.read if KEPT.match(where)]
    assert kept
    assert all(is_private(full_run.agent.folder / where, full_run.agent.state) for where in kept)
