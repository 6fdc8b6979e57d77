"""`s3-batch-job` in processes of its own: killed between a request and its record, told to stop, left by its agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.outcomes import token_of
from thingjobs.runner.events import Said, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.cloud.conftest import FakeCloud

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
TARGET = "thingjobs_handlers.s3_batch_job:S3BatchJob"


class Child:
    """The verb in a process of its own, and an agent that does no more than give it credentials."""

    def __init__(self, folder: Path, cloud: FakeCloud, params: dict[str, Any]) -> None:
        self.folder = folder
        self.events = folder / "events"
        self.told: dict[str, Any] = {
            "region": "eu-west-1",
            "account": "123456789012",
            "s3ControlUrl": cloud.url,
            "batchUrl": cloud.url,
        }
        self.told |= {"allowS3Jobs": ["*"], "allowBatchJobs": ["*"]}
        self.params = params

    def start(self, attempt: int, verb: str = "apply") -> subprocess.Popen[bytes]:
        self.events.write_bytes(b"")
        job = {"contract": 1, "jobId": "job-1", "execution": 1, "thing": "pump-7", "verb": verb, "attempt": attempt}
        job |= {"resumed": attempt > 1, "rebooted": False, "dryRun": False, "deadline": None, "params": self.params}
        self._put(job | {"revision": 1, "cloud": self.told})
        argv = [sys.executable, "-I", "-m", "thingjobs.child", TARGET]
        environment = {"PATH": os.environ["PATH"], "JOB_DIR": str(self.folder), "JOB_EVENTS": str(self.events)}
        child = subprocess.Popen(argv, env=environment, cwd=self.folder, stdout=subprocess.DEVNULL)
        threading.Thread(target=self._serve, args=(child, job), daemon=True).start()
        return child

    def _serve(self, child: subprocess.Popen[bytes], job: dict[str, Any]) -> None:
        """Answer the question for credentials."""
        pause = threading.Event()
        while child.poll() is None and b'"refresh"' not in self.events.read_bytes():
            pause.wait(0.01)
        credentials = {"accessKeyId": "AKIDTEST", "secretAccessKey": "secret/+=", "sessionToken": "", "expiration": ""}
        self._put(job | {"revision": 2, "cloud": {**self.told, "answers": 1, "credentials": credentials}})

    def _put(self, job: dict[str, Any]) -> None:
        fresh = self.folder / "job.json.new"
        fresh.write_text(json.dumps(job))
        fresh.replace(self.folder / "job.json")

    def said(self) -> Said:
        said = Said()
        for line in self.events.read_bytes().splitlines():
            said = fold(said, line)
        return said


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_kill_between_the_request_and_its_record_is_followed_by_a_look(
    tmp_path: Path, cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool
) -> None:
    cloud.new_job(JOB, "Suspended")
    arrived, over = threading.Event(), threading.Event()
    answer = cloud.answer

    def hold(seen: Any) -> Any:
        if seen.method == "GET" or arrived.is_set():
            return answer(seen)
        if carried_out:
            answer(seen)
        else:
            cloud.seen.append(seen)
        arrived.set()
        over.wait(30)
        return None  # whom it would go to is dead

    monkeypatch.setattr(cloud, "answer", hold)
    monkeypatch.setattr(cloud, "handle_error", lambda *_: None)
    run = Child(tmp_path, cloud, {"jobId": JOB, "action": "confirm", "pollSeconds": 1})

    first = run.start(1)
    try:
        assert arrived.wait(30)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    over.set()
    second = run.start(2)

    assert second.wait(30) == 0
    methods = "".join("C" if seen.method == "POST" else "d" for seen in cloud.seen)
    assert methods == ("dCd" if carried_out else "dCdCd")
    reasons = {dict(seen.pairs)["statusUpdateReason"] for seen in cloud.seen if seen.method == "POST"}
    assert reasons == {token_of("pump-7", "job-1", 1)}
    assert run.said().details["outcome"].endswith("it was confirmed by this device job")


def test_a_handler_that_is_told_to_stop_stops_between_two_looks(tmp_path: Path, cloud: FakeCloud) -> None:
    cloud.new_job(JOB, "Active")
    run = Child(tmp_path, cloud, {"jobId": JOB, "action": "watch", "pollSeconds": 1})
    child = run.start(1)
    try:
        while not cloud.seen:
            assert child.poll() is None
            threading.Event().wait(0.02)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 1
    finally:
        child.kill()

    assert (run.said().code, run.said().reason.startswith("it was stopped")) == ("cancelled", True)
    assert not (tmp_path / "cloud.json").exists()


# --- with an agent ------------------------------------------------------------------------------------------------


class LocalAgent:
    """`thingjobs run --local` with the standard AWS environment."""

    def __init__(self, folder: Path, cloud: FakeCloud) -> None:
        self.jobs = folder / "jobs"
        self.jobs.mkdir()
        self.config = folder / "config.toml"
        self.config.write_text(
            '[cloud]\nregion = "eu-west-1"\naccount = "123456789012"\nallow_s3_jobs = ["00e1*"]\n'
            '[handlers]\nallow_root = ["s3-batch-job"]\n'
        )
        keys = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret/+="}
        self.environment = {**os.environ, "AWS_ENDPOINT_URL": cloud.url, **keys}
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def queue(self, **params: Any) -> None:
        """Queue a device job."""
        (self.jobs / "tie-1.json").write_text(json.dumps({"handler": "s3-batch-job", "params": params}))

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; it ends when no job is left."""
        argv = [sys.executable, "-m", "thingjobs", "run", "--once"]
        argv += ["--local", str(self.jobs), "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.process


@pytest.fixture
def agent(tmp_path: Path, cloud: FakeCloud) -> Iterator[LocalAgent]:
    agent = LocalAgent(tmp_path, cloud)
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.process.kill()
        agent.process.wait(10)
    print(agent.log.read_text())


def test_a_watch_goes_on_over_the_death_of_the_agent_and_ends_as_the_cloud_job_does(
    agent: LocalAgent, cloud: FakeCloud, eventually: Callable[..., Any]
) -> None:
    cloud.new_job(JOB, "Active")
    agent.queue(jobId=JOB, action="watch", pollSeconds=1)
    first = agent.start()
    eventually(lambda: cloud.seen)
    first.kill()
    first.wait(10)
    seen = len(cloud.seen)
    eventually(lambda: len(cloud.seen) > seen)

    second = agent.start()
    cloud.jobs[JOB] |= {"Status": "Complete", "ProgressSummary": {}}

    assert second.wait(30) == 0
    assert not any(seen.change for seen in cloud.seen)
    assert f"outcome: the S3 batch job {JOB} is Complete" in agent.log.read_text()
