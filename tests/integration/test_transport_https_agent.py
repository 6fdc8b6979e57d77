"""The whole agent over HTTPS: a job costs three requests, a cancel is noticed by polling, and failures come and go.

It runs in this process, on its own thread, so that a test can choose how often it polls; its handlers are real
processes, and the Jobs service is behind a real HTTPS server with mutual TLS.
"""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.model import ThingName
from thingjobs.testing import JobsService, Lost
from thingjobs.testing.web import Answer, WebJobsService
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Pki
    from tests.integration.conftest import Agent, Inside

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
DENIED = Answer(403, b'{"message":"no"}', {"x-amzn-ErrorType": "ForbiddenException"})


def eventually(true: Callable[[], Any]) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


ECHO = {
    "version": "1.0",
    "steps": [{"action": {"name": "run", "type": "runCommand", "input": {"command": "echo,hello"}, "runAsUser": ""}}],
}
HOLD = {"handler": "hold"}


@pytest.fixture
def web(pki: Pki) -> Iterator[WebJobsService]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    tls.load_cert_chain(pki.server_cert, pki.server_key)
    tls.verify_mode = ssl.CERT_REQUIRED
    with WebJobsService(JobsService(), tls=tls) as serving:
        yield serving


@pytest.fixture
def start(
    web: WebJobsService, new_agent: Callable[..., Agent], pki: Pki, inside: Callable[..., Inside]
) -> Callable[..., Inside]:
    """Start agents; they stop at the end of the test."""

    def make(polls: Polls | None = None, patience: float = 5.0) -> Inside:
        certificate, key = pki.device(THING)
        files = new_agent(THING, port=web.port, pair=(certificate, key), ca=pki.ca)
        link = Link("localhost", web.port, THING, THING, 300, certificate, key, pki.ca, patience=patience)
        transport = HttpsTransport(Site(link), lambda: 0.02, polls=polls or Polls(idle=0.5, busy=0.5))
        return inside(web._service, files, transport)

    return make


def test_a_job_is_found_by_polling_and_goes_through(start: Callable[..., Inside]) -> None:
    agent = start()
    eventually(lambda: agent.connected)
    agent.went_through(agent.queue(ECHO))


def test_a_job_costs_three_requests_and_nothing_waits_for_the_next_poll(start: Callable[..., Inside]) -> None:
    agent = start(Polls(idle=3600.0, busy=3600.0))
    eventually(lambda: agent.asked() == ["get", "$next/get"])
    jobs = [agent.queue(ECHO) for _ in range(5)]
    agent.transport.renew()  # instead of the hour
    for job_id in jobs:
        agent.went_through(job_id)
    eventually(lambda: agent.asked()[-1] == "$next/get")
    each = [(f"{job_id}/update", f"{job_id}/update", "$next/get") for job_id in jobs]
    assert agent.asked()[4:] == [suffix for three in each for suffix in three]


def test_a_cancelled_job_is_noticed_by_polling_and_the_next_one_runs(
    start: Callable[..., Inside], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "thingjobs")
    agent = start()
    job_id = agent.queue(HOLD)
    eventually((agent.folder / "ran").exists)
    agent.service.cancel_job(job_id, force=True)
    eventually(lambda: "the service ended this execution: CANCELED" in caplog.text)
    following = agent.queue(ECHO)
    (agent.folder / "go").touch()
    agent.went_through(following)
    assert agent.service.execution(THING, job_id).status == "CANCELED"


def test_while_a_job_runs_the_polls_carry_no_document(start: Callable[..., Inside]) -> None:
    agent = start()
    job_id = agent.queue(HOLD)
    eventually((agent.folder / "ran").exists)
    before = len(agent.asked())
    eventually(lambda: len(agent.asked()) >= before + 3)
    assert set(agent.asked()[before:]) == {"get"}
    (agent.folder / "go").touch()
    agent.went_through(job_id)


def test_a_server_that_goes_away_and_comes_back_neither_loses_nor_repeats_a_job(
    start: Callable[..., Inside], web: WebJobsService
) -> None:
    agent = start()
    job_id = agent.queue(HOLD)
    eventually((agent.folder / "ran").exists)
    web.stop()
    eventually(lambda: not agent.connected)
    (agent.folder / "go").touch()
    time.sleep(0.5)  # the handler ends, and nobody can be told
    web.start()
    agent.went_through(job_id)
    assert (agent.folder / "ran").read_text() == "ran\n"
    agent.went_through(agent.queue(ECHO))


@pytest.mark.parametrize(
    ("lost", "conflict"),
    [
        (Lost.REQUEST, (409, "InvalidStateTransitionException")),
        (Lost.REPLY, (409, "InvalidStateTransitionException")),
        (Lost.REPLY, (400, "InvalidRequestException")),
    ],
)
def test_a_claim_or_a_result_without_an_answer_is_neither_lost_nor_carried_out_twice(
    start: Callable[..., Inside], web: WebJobsService, lost: Lost, conflict: tuple[int, str]
) -> None:
    web._exceptions["VersionMismatch"] = conflict
    agent = start()
    eventually(lambda: agent.connected)
    seen: list[str] = []

    def lose(request: Any) -> Lost | None:
        """Lose the first claim, and the first result."""
        status = (request.body or {}).get("status")
        if status is None or status in seen:
            return None
        seen.append(status)
        return lost

    web._service.interpose(lose)
    job_id = agent.queue(ECHO)
    view = eventually(lambda: agent.over(job_id))
    assert view.status == "SUCCEEDED"
    assert [change.status for change in view.history] == ["QUEUED", "IN_PROGRESS", "SUCCEEDED"]
    assert seen == ["IN_PROGRESS", "SUCCEEDED"]
    agent.went_through(agent.queue(ECHO))


def test_who_is_denied_says_so_in_one_line_and_works_as_soon_as_it_is_allowed(
    start: Callable[..., Inside], web: WebJobsService, caplog: pytest.LogCaptureFixture
) -> None:
    remove = web.interpose(lambda _call: DENIED)
    agent = start()
    eventually(lambda: "denies GetPendingJobExecutions" in caplog.text)
    line = next(record.getMessage() for record in caplog.records if "denies" in record.getMessage())
    assert line.startswith("cannot connect: localhost:")
    assert "iotjobsdata:GetPendingJobExecutions on thing/pump-7" in line
    assert len(line.splitlines()) == 1
    remove()
    agent.went_through(agent.queue(ECHO))


def test_a_slow_server_is_waited_for(start: Callable[..., Inside], web: WebJobsService) -> None:
    web.interpose(lambda _call: time.sleep(0.15))
    agent = start()
    agent.went_through(agent.queue(ECHO))


def test_a_server_that_hangs_is_left_and_tried_again(
    start: Callable[..., Inside], web: WebJobsService, caplog: pytest.LogCaptureFixture
) -> None:
    agent = start(patience=0.3)
    eventually(lambda: agent.connected)
    going = threading.Event()

    def hang(_call: object) -> None:
        going.wait(PATIENCE_SECONDS)

    remove = web.interpose(hang)
    eventually(lambda: "no answer came in time" in caplog.text)
    remove()
    going.set()
    agent.went_through(agent.queue(ECHO))


def test_commit_is_proven_over_a_connection_opened_after_apply(start: Callable[..., Inside]) -> None:
    agent = start()
    verbs = agent.folder / "handlers" / "careful"
    verbs.mkdir()
    (verbs / "manifest.json").write_text(
        '{"contract": 1, "name": "careful", "version": "1.0.0", "exec": "run", "verbs": ["apply", "commit"]}'
    )
    (verbs / "run").write_text(f'#!/bin/sh\necho "$JOB_VERB" >> {agent.folder}/verbs\n')
    (verbs / "run").chmod(0o755)
    agent.went_through(agent.queue({"handler": "careful"}))
    assert (agent.folder / "verbs").read_text().split() == ["apply", "commit"]
    assert agent.asked().count("get") >= 2, "a connection begins with this"


def test_many_jobs_and_connections_leave_no_thread_and_no_descriptor_behind(
    start: Callable[..., Inside], web: WebJobsService
) -> None:
    agent = start(Polls(idle=0.1, busy=0.1))
    agent.went_through(agent.queue(ECHO))

    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) + len(threading.enumerate())

    eventually(lambda: web.connections == 0)
    before = held()
    for _ in range(5):
        agent.transport.renew()
        agent.went_through(agent.queue(ECHO))
    eventually(lambda: web.connections == 0 and held() <= before)


OTHERS = """
import sys
import thingjobs.cli.run, thingjobs.transport.{}
loaded = {{name for name in sys.modules}}
foreign = [name for name in loaded if name.startswith({})]
assert not foreign, foreign
"""


@pytest.mark.parametrize(
    ("transport", "foreign"),
    [
        ("paho", ("requests", "urllib3", "tenacity", "awscrt", "thingjobs.cloud.")),
        ("https", ("paho", "tenacity", "requests_aws4auth", "awscrt", "thingjobs.cloud.")),
    ],
)
def test_each_transport_imports_its_own_library_and_no_other(transport: str, foreign: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-c", OTHERS.format(transport, foreign)], check=True)
