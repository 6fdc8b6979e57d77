"""`thingjobs cloud batch-jobs`: against our fake, and against moto's server as the real other side."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.cloud.conftest import FakeCloud, Moto

JOB = "5a0f8b3e-6d3f-4d1c-9f0e-2f6f0f3c9b1a"
OTHER = "6b0f8b3e-6d3f-4d1c-9f0e-2f6f0f3c9b1b"
IS = f"the AWS Batch job {JOB} is"


class BatchJobs:
    """The command, with what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: str | Path) -> int:
        code = cli.main(["cloud", "batch-jobs", *map(str, words)])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def batch_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> BatchJobs:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    known = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret/+=", "AWS_REGION": "eu-west-1"}
    for name, value in {**known, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return BatchJobs(capsys)


@pytest.fixture
def fake(cloud: FakeCloud, batch_jobs: BatchJobs, monkeypatch: pytest.MonkeyPatch) -> FakeCloud:
    """Give our fake, for the command too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BATCH", cloud.url)
    return cloud


def add(fake: FakeCloud, status: str, job_id: str = JOB, **more: Any) -> None:
    fake.batch_jobs[job_id] = {"jobId": job_id, "jobName": "process", "status": status, **more}


def asked(fake: FakeCloud) -> list[str]:
    return [seen.path.removeprefix("/v1/") for seen in fake.seen]


def test_showing_jobs_says_all_about_each(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    attempt = {"container": {"exitCode": 1, "reason": "OutOfMemory"}, "statusReason": "Essential container exited"}
    add(fake, "FAILED", container={"exitCode": 137}, statusReason="no\x1b[2Jmore", attempts=[attempt])
    add(fake, "PENDING", OTHER, isCancelled=True, arrayProperties={"size": 3, "statusSummary": {"RUNNABLE": 3}})

    assert batch_jobs("show", OTHER, JOB, OTHER) == 0

    assert batch_jobs.out.splitlines() == [
        f"○ {OTHER}  PENDING",
        "    name       process",
        "    asked for  a cancel, not over yet",
        "    children   3: 3 RUNNABLE",
        "",
        f"✗ {JOB}  FAILED",
        "    name       process",
        "    reason     no [2Jmore",
        "    exit code  137",
        "    attempt 1  exit code 1, OutOfMemory, Essential container exited",
    ]


def test_a_job_that_nobody_knows_is_named_and_the_others_are_shown(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "HIBERNATING")

    assert batch_jobs("show", JOB, OTHER, "--json") == 1

    told = json.loads(batch_jobs.out)
    assert ([job["status"] for job in told["jobs"]], told["unknown"]) == (["HIBERNATING"], [OTHER])
    assert batch_jobs.err.startswith(f"thingjobs: cannot look at the AWS Batch job {OTHER} in eu-west-1: ")


def test_a_job_that_waits_is_cancelled(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "RUNNABLE")

    assert batch_jobs("cancel", JOB, "--reason", "wrong data") == 0

    assert batch_jobs.out == f"✓ {IS} FAILED: it was cancelled\n"
    assert json.loads(fake.seen[0].body) == {"jobId": JOB, "reason": "wrong data"}


@pytest.mark.parametrize("status", ["STARTING", "RUNNING"])
def test_a_cancel_that_did_nothing_fails_and_names_what_would_help(
    fake: FakeCloud, batch_jobs: BatchJobs, status: str
) -> None:
    add(fake, status)

    assert batch_jobs("cancel", JOB, "--reason", "why", "--json") == 1

    assert asked(fake) == ["canceljob", "describejobs"]
    assert batch_jobs.err.startswith(f"thingjobs: {IS} {status}: it goes on, because CancelJob does nothing to ")
    assert batch_jobs.err.endswith(": give --terminate-running\n")
    assert json.loads(batch_jobs.out)["code"] == "cloud.running"


def test_a_job_that_runs_is_terminated_where_that_is_allowed(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "RUNNING")

    assert batch_jobs("cancel", JOB, "--reason", "why", "--terminate-running") == 0

    assert asked(fake) == ["canceljob", "describejobs", "terminatejob", "describejobs"]
    assert batch_jobs.out == f"✓ {IS} FAILED: it was terminated\n"


def test_a_job_that_is_over_was_not_cancelled(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "SUCCEEDED")

    assert batch_jobs("cancel", JOB, "--reason", "why", "--terminate-running") == 1

    assert batch_jobs.err.startswith(f"thingjobs: {IS} SUCCEEDED: nothing is left to ")


def test_a_job_that_failed_by_itself_was_not_cancelled(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "FAILED", statusReason="Essential container exited", startedAt=1767323145678)

    assert batch_jobs("cancel", JOB, "--reason", "why") == 1


def test_a_job_that_starts_after_all_while_it_is_waited_for_is_terminated_once(
    fake: FakeCloud, batch_jobs: BatchJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(fake, "PENDING")
    job, answer = fake.batch_jobs[JOB], fake.answer
    later = iter(["PENDING", *3 * ["RUNNING"], "FAILED"])

    def answer_slowly(seen: Any) -> Any:
        if seen.path == "/v1/describejobs":
            job["status"] = next(later)
        return answer(seen)

    monkeypatch.setattr(fake, "answer", answer_slowly)
    monkeypatch.setattr(fake, "_end", lambda said, flag, states: job.update({flag: True}))

    assert batch_jobs("cancel", JOB, "--reason", "why", "--terminate-running", "--wait") == 0

    assert asked(fake) == ["canceljob", *2 * ["describejobs"], "terminatejob", *3 * ["describejobs"]]
    assert batch_jobs.out.splitlines() == [
        f"● {IS} PENDING, and cancelling is noted",
        f"● {IS} RUNNING, and termination is noted",
        f"✓ {IS} FAILED: it was terminated",
    ]


def test_an_unknown_job_was_not_cancelled_whatever_cancel_job_said(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    assert batch_jobs("cancel", JOB, "--reason", "why") == 1

    assert batch_jobs.err.startswith(f"thingjobs: cannot look at the AWS Batch job {JOB}: it knows no job of this id; ")


def test_a_lost_answer_is_made_up_for_by_looking(fake: FakeCloud, batch_jobs: BatchJobs) -> None:
    add(fake, "RUNNABLE")
    fake.hang_up(after=True)

    assert batch_jobs("cancel", JOB, "--reason", "why") == 0

    assert asked(fake) == ["canceljob", "describejobs"]


def test_a_dry_run_prints_what_would_be_sent_and_when(batch_jobs: BatchJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")

    assert batch_jobs("cancel", JOB, "--reason", "ü", "--terminate-running", "--wait", "--dry-run") == 0

    url = "https://fips.batch.eu-west-1.amazonaws.com/v1"
    assert batch_jobs.out.splitlines() == [
        f"would send: POST {url}/canceljob",
        f'    {{"jobId": "{JOB}", "reason": "\\u00fc"}}',
        f"would send: POST {url}/describejobs  (until it is over)",
        f'    {{"jobs": ["{JOB}"]}}',
        f"would send: POST {url}/terminatejob  (if it is STARTING or RUNNING)",
        f'    {{"jobId": "{JOB}", "reason": "\\u00fc"}}',
    ]


# --- moto --------------------------------------------------------------------------------------------------------


def test_moto_cancels_what_waits_and_goes_on_with_what_runs_until_it_is_terminated(
    moto: Moto, batch_jobs: BatchJobs, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)

    def status(job_id: str) -> str:
        return str(moto.boto("batch").describe_jobs(jobs=[job_id])["jobs"][0]["status"])

    moto.transition(progression="manual", times=1)
    waits = moto.submit("a-job-that-never-ends")
    eventually(lambda: status(waits) == "PENDING")
    assert batch_jobs("cancel", waits, "--reason", "wrong data ü", "--wait", "--timeout", "20") == 0
    assert f"the AWS Batch job {waits} is FAILED: it was cancelled" in batch_jobs.out

    moto.transition(progression="time", seconds=0.3)
    starts = moto.submit()
    eventually(lambda: status(starts) == "STARTING")
    moto.transition(progression="manual", times=1000)
    assert batch_jobs("cancel", starts, "--reason", "too late") == 1
    assert f"the AWS Batch job {starts} is STARTING: it goes on" in batch_jobs.err

    assert batch_jobs("cancel", starts, "--reason", "now", "--terminate-running") == 0
    moto.transition(progression="immediate")
    eventually(lambda: status(starts) == "FAILED")
    assert batch_jobs("show", starts) == 0
    assert "    reason     now\n" in batch_jobs.out
