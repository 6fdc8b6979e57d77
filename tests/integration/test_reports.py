"""What the real agent tells of itself: its log, its metrics and its shadow; and what that costs where nobody asks."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"
PATIENCE_SECONDS = 30


@pytest.fixture
def service(mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    service = JobsService()
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=pki.client_tls()):
        yield service


@pytest.fixture
def told(mosquitto: Mosquitto, pki: Pki) -> Iterator[queue.SimpleQueue[dict[str, Any]]]:
    """What shadows are told to report, one after the other."""
    came: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    ready = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="shadow-service")
    client.tls_set_context(pki.client_tls())
    client.on_message = lambda _client, _data, got: came.put(json.loads(got.payload)["state"]["reported"])
    client.on_subscribe = lambda *_: ready.set()
    client.connect("localhost", mosquitto.port)
    client.subscribe("$aws/things/pump-7/shadow/name/thingjobs/update", 1)
    client.loop_start()
    assert ready.wait(PATIENCE_SECONDS)
    yield came
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def configured(mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent]) -> Callable[[str], Agent]:
    """Makes an agent with a section [report]."""

    def make(report: str) -> Agent:
        more = f"[report]\n{report}"
        return new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca, more=more)

    return make


def handler(agent: Agent, name: str, script: str, version: str) -> None:
    folder = agent.folder / "handlers" / name
    folder.mkdir()
    (folder / "run").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "run").chmod(0o755)
    manifest = {"contract": 1, "name": name, "version": version, "exec": "run", "verbs": ["apply"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_shadow_is_told_at_the_start_and_when_a_job_waits_for_a_gate(
    configured: Callable[[str], Agent],
    service: JobsService,
    told: queue.SimpleQueue[dict[str, Any]],
    eventually: Callable[..., Any],
) -> None:
    agent = configured('shadow = "thingjobs"')
    gates = agent.folder / "gates"
    gates.mkdir()
    (gates / "battery").write_text("#!/bin/sh\necho 44 % left\nexit 75\n")
    (gates / "battery").chmod(0o755)
    with agent.config.open("a") as config:
        config.write(f'\n[gates]\ndirectory = "{gates}"\n')
    handler(agent, "lamp", "exit 0", "2.1")
    (agent.folder / "handlers" / "broken").mkdir()
    (agent.folder / "handlers" / "broken" / "manifest.json").write_text("{")
    service.create_job("switch", {"handler": "lamp"}, [THING])
    agent.start()

    found = told.get(timeout=PATIENCE_SECONDS)
    assert "lamp-2.1" in found["handlers"].split(" ")
    assert any(word.startswith("collect-") for word in found["handlers"].split(" "))
    assert found["broken"] == "broken"
    assert found["waiting"] == {
        "count": 1,
        "job": "switch",
        "before": "claim",
        "gate": "battery",
        "reason": "gate battery: 44 % left",
    }
    assert 50 * 86_400 < found["certificate"]["expires"] - agent.config.stat().st_mtime < 70 * 86_400
    assert found["disk"]["freeMiB"] > 0
    assert (found["jobs"], found["owed"]["count"], found["trouble"]["count"]) == (1, 0, 0)
    status = agent.status()
    assert (status["jobs"][0]["before"], status["jobs"][0]["waits"]) == ("claim", "gate battery: 44 % left")
    assert service.execution(THING, "switch").status == "QUEUED"
    assert agent.stop() == 0


def test_the_metrics_follow_what_the_agent_does_and_end_with_it(
    configured: Callable[[str], Agent], service: JobsService, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    path = tmp_path / "thingjobs.prom"
    agent = configured(f'textfile = "{path}"')
    # In the place of a file that somebody else put there, for the agent to follow.
    elsewhere = tmp_path / "elsewhere"
    path.with_name(".thingjobs.prom.new").symlink_to(elsewhere)
    handler(agent, "lamp", "exit 3", "2.1")
    agent.start()
    eventually(lambda: path.exists() and 'thingjobs_connected{thing="pump-7"} 1' in path.read_text())
    assert path.stat().st_mode & 0o777 == 0o644
    first = path.stat()
    service.create_job("switch", {"handler": "lamp"}, [THING])
    eventually(lambda: 'thingjobs_jobs_ended_total{thing="pump-7",status="FAILED"} 1' in path.read_text())
    assert path.stat().st_ino != first.st_ino
    assert sorted(one.name for one in tmp_path.iterdir() if "prom" in one.name) == ["thingjobs.prom"]
    assert not elsewhere.exists()
    assert agent.stop() == 0
    assert not path.exists()


def test_metrics_that_cannot_be_written_are_told_of_once_and_keep_no_job_from_its_end(
    configured: Callable[[str], Agent], service: JobsService, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    agent = configured(f'textfile = "{tmp_path}/no/such/folder/thingjobs.prom"')
    handler(agent, "lamp", "exit 0", "2.1")
    service.create_job("switch", {"handler": "lamp"}, [THING])
    agent.start()
    eventually(lambda: service.execution(THING, "switch").status == "SUCCEEDED")
    eventually(lambda: "cannot write" in agent.log_text())
    assert agent.stop() == 0
    line = f"WARNING cannot write {tmp_path}/no/such/folder/thingjobs.prom (report.textfile): No such file or directory"
    assert agent.log_text().count(line) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_under_systemd_each_line_of_the_log_has_its_priority(
    form: str, configured: Callable[[str], Agent], service: JobsService, eventually: Callable[..., Any]
) -> None:
    agent = configured(f'log_format = "{form}"')
    handler(agent, "lamp", "exit 3", "2.1")
    service.create_job("switch", {"handler": "lamp"}, [THING])
    agent.log.touch()
    found = agent.log.stat()
    agent.start(environment={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    eventually(lambda: service.execution(THING, "switch").status == "FAILED")
    assert agent.stop() == 0
    lines = agent.log_text().splitlines()
    assert all(re.match(r"<[2-7]>", line) for line in lines), lines
    assert service.requests
    if form == "json":
        facts = [json.loads(line[3:]) for line in lines]
        assert "switch#1: reporting (lamp): FAILED, handler.exit: apply exited with status 3" in [
            fact["message"] for fact in facts
        ]
        assert {"info", "warning"} >= {fact["level"] for fact in facts} - {"debug"}
    else:
        assert "<6>INFO switch#1: reporting (lamp): FAILED, handler.exit: apply exited with status 3" in lines


def test_an_agent_that_nobody_asked_to_report_imports_nothing_for_it() -> None:
    program = "import sys, thingjobs.cli.run; print(*[name for name in sys.modules if 'thingjobs.seeing' in name])"
    argv = [sys.executable, "-c", program]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert sorted(told.stdout.split()) == ["thingjobs.seeing", "thingjobs.seeing.logs"]


#: What can happen that no line of ours tells: a library warns, a destructor fails, a thread and then the program do.
WRONG = """
import logging, sys, threading, warnings
from thingjobs.seeing import logs
logs.set_up(logging.INFO, sys.argv[1], journal=True)
URL = "https://bucket/fw.bin?X-Amz-Signature=c0ffee"
class Odd:
    def __del__(self):
        raise ValueError(f"del {URL}")
warnings.warn(f"warn {URL}")
Odd()
def fails():
    raise ValueError(f"thread {URL}")
thread = threading.Thread(target=fails)
thread.start()
thread.join()
raise ValueError(f"main {URL}")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_nobody_catches_is_one_line_each_with_its_priority_and_no_secret(form: str) -> None:
    told = subprocess.run([sys.executable, "-c", WRONG, form], capture_output=True, text=True, check=False)
    lines = told.stderr.splitlines()
    assert [(line[:3], word in line) for line, word in zip(lines, ("warn", "del", "thread", "main"), strict=True)] == [
        ("<4>", True),
        ("<3>", True),
        ("<2>", True),
        ("<2>", True),
    ]
    assert "c0ffee" not in told.stderr
    if form == "json":
        assert all(json.loads(line[3:])["message"] for line in lines)
