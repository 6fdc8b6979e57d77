"""A real agent that demands signatures, over a real broker: what it runs, and what it tells the cloud of the rest."""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.web import one_file

from thingjobs.envelope import Claims, sealed
from thingjobs.envelope.keys import new_pair, signer
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

THING = "pump-7"
PRIVATE, PUBLIC = new_pair()
SIGN, _ = signer(PRIVATE)
STRANGER, _ = signer(new_pair()[0])
IMAGE = b"firmware" * 1000

#: No time service sets the clock of a test machine: this agent looks for a file of the test instead.
OWN_CLOCK = """
import pathlib, thingjobs.clock
thingjobs.clock.synchronised = lambda: pathlib.Path({flag!r}).exists()
"""


class Cloud:
    """The simulated service behind the broker, and the agent on the other side of it."""

    def __init__(self, service: JobsService, agent: Agent, eventually: Callable[..., Any]) -> None:
        self.service = service
        self.agent = agent
        self.eventually = eventually

    def run(self, job: str, document: object) -> Any:
        """Queue a job and return its execution once it is over."""
        self.service.create_job(job, document, [THING])
        return self.eventually(lambda: self.over(job), 60)

    def over(self, job: str) -> Any:
        """Return the execution if it is over, else None."""
        view = self.service.execution(THING, job)
        return view if view.status not in ("QUEUED", "IN_PROGRESS") else None

    def refused(self, job: str, document: object) -> str:
        """Return the code that a job was REJECTED with."""
        view = self.run(job, document)
        assert view.status == "REJECTED", view.details
        return str(view.details["code"])


@pytest.fixture
def cloud(
    mosquitto: Mosquitto, pki: Pki, new_agent: Callable[..., Agent], tmp_path: Path, eventually: Callable[..., Any]
) -> Iterator[Cloud]:
    """A running agent that demands signatures; its clock is right once there is a file `clock-is-set`."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o755)
    (keys / "release.pem").write_bytes(PUBLIC)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(OWN_CLOCK.format(flag=str(tmp_path / "clock-is-set")))
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(
        THING,
        port=mosquitto.port,
        pair=pki.device(THING),
        ca=pki.ca,
        more=f'[signed]\nkeys = "{keys}"\nrequire = true\n',
    )
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        agent.start(environment={"PYTHONPATH": str(tmp_path / "site")})
        yield Cloud(service, agent, eventually)
        assert agent.stop() == 0


def steps(**action: Any) -> dict[str, Any]:
    """Return an AWS document with one action."""
    return {"version": "1.0", "includeStdOut": "true", "steps": [{"action": {"name": "step", **action}}]}


ECHO = steps(type="runCommand", input={"command": "echo,hello"})


def signed(document: dict[str, Any], *, sign: Any = SIGN, days: float = 1.0, **more: Any) -> dict[str, Any]:
    urls = more.pop("urls", {})
    claims = Claims(**{"document": document, "not_after": int(time.time() + days * 86400), "things": (THING,), **more})
    return sealed(claims, urls, "release", sign)


def test_only_what_a_trusted_key_signed_for_this_thing_this_job_and_this_day_is_run(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "clock-is-set").touch()
    good = cloud.run("good", signed(ECHO))
    assert (good.status, good.details["stdout"]) == ("SUCCEEDED", "hello")
    assert "good: signed by release, good until" in cloud.agent.log_text()

    assert cloud.run("job-1", signed(ECHO, things=(), job="job-1")).status == "SUCCEEDED"
    altered = signed(ECHO)
    altered["signed"]["payload"] = altered["signed"]["payload"].swapcase()
    assert [
        cloud.refused("none", ECHO),
        cloud.refused("stranger", signed(ECHO, sign=STRANGER)),
        cloud.refused("altered", altered),
        cloud.refused("lamp", signed(ECHO, things=("lamp-*",))),
        cloud.refused("replayed", signed(ECHO, things=(), job="job-1")),
        cloud.refused("old", signed(ECHO, days=-1.0)),
        cloud.refused("young", signed(ECHO, days=3.0, not_before=int(time.time() + 86400))),
    ] == [
        "document.unsigned",
        "document.signature",
        "document.signature",
        "document.misdirected",
        "document.misdirected",
        "document.expired",
        "document.early",
    ]
    view = cloud.service.execution(THING, "none")
    assert view.details["reason"].startswith("the job document is not signed, as this device demands")


def test_a_file_is_fetched_from_whatever_url_stands_outside_and_kept_only_if_it_is_the_one_that_was_signed(
    cloud: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "clock-is-set").touch()
    target = tmp_path / "firmware.bin"
    reference = {"$url": "image", "digest": f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"}
    fetch = steps(
        type="runHandler", input={"handler": "download-file.sh", "args": [reference, str(target)], "path": "default"}
    )

    with one_file(b"malware!" * 1000) as (url, asked):
        evil = cloud.run("evil", signed(fetch, urls={"image": f"{url}/fw?X-Amz-Signature=0123456789"}))
    assert (evil.status, evil.details["code"]) == ("FAILED", "fetch.digest"), evil.details
    assert not target.exists()
    assert asked[0] == "/fw?X-Amz-Signature=0123456789", "the digest behind the URL is not sent"

    with one_file(IMAGE) as (url, _):
        good = cloud.run("good", signed(fetch, urls={"image": f"{url}/fw?X-Amz-Signature=0123456789"}))
    assert good.status == "SUCCEEDED", good.details
    assert target.read_bytes() == IMAGE
    assert "0123456789" not in cloud.agent.log_text()
    assert "0123456789" not in json.dumps([dict(change.details) for change in evil.history])


def test_until_the_clock_is_set_a_signed_job_stays_queued_and_then_it_is_judged(cloud: Cloud, tmp_path: Path) -> None:
    cloud.service.create_job("waits", signed(ECHO), [THING])
    said = "the document is signed for a time, and the clock is not synchronised yet"
    cloud.eventually(lambda: any(said in line for line in cloud.agent.status().get("trouble", [])))
    assert cloud.service.execution(THING, "waits").status == "QUEUED"

    (tmp_path / "clock-is-set").touch()
    assert cloud.eventually(lambda: cloud.over("waits"), 60).status == "SUCCEEDED"
    assert "trouble" not in cloud.agent.status()
