"""The example examples/cloud-jobs: its documents, dry and against a server that stands for both cloud services."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.integration.cloud.conftest import cloud

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli
    from tests.integration.cloud.conftest import FakeCloud

__all__ = ["cloud"]

#: Only AWS IoT can fill in its placeholder.
FIRST = "1-send-manifest.json"


@pytest.fixture
def example(examples: Path, tmp_path: Path) -> Path:
    return shutil.copytree(examples / "cloud-jobs", tmp_path / "cloud-jobs")


def test_a_dry_run_shows_the_calls_of_the_documents_without_credentials(cli: Cli, example: Path) -> None:
    documents = sorted((example / "jobs").iterdir())

    told = cli("dry-run", *documents, "--config", example / "local.toml")

    assert documents[0].name == FIRST
    assert told.code == 1
    assert f"{FIRST}: would be REJECTED\n    document.placeholder " in told.out
    assert told.out.count(": would run\n") == 3
    assert told.out.count("would send  ") == 4
    assert "would send  POST https://123456789012.s3-control.eu-west-1.amazonaws.com/v20180820/jobs/" in told.out
    assert "would send  POST https://batch.eu-west-1.amazonaws.com/v1/describejobs" in told.out


def test_the_device_confirms_the_s3_batch_job_and_ends_as_the_jobs_in_the_cloud_end(
    cli: Cli, cloud: FakeCloud, example: Path
) -> None:
    jobs = example / "jobs"
    (jobs / FIRST).unlink()
    ids = {path.name: json.loads(path.read_text())["params"]["jobId"] for path in jobs.iterdir()}
    s3_id, batch_id = ids["2-confirm.json"], ids["4-watch-batch.json"]
    assert ids["3-watch.json"] == s3_id
    done = {"TotalNumberOfTasks": 2, "NumberOfTasksSucceeded": 2, "NumberOfTasksFailed": 0}
    cloud.new_job(s3_id, "Suspended", ConfirmationRequired=True, ProgressSummary=done)
    cloud.batch_jobs[batch_id] = {"jobId": batch_id, "status": "SUCCEEDED"}
    keys = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret/+="}
    cli.environment |= {"AWS_ENDPOINT_URL": cloud.url, **keys}
    words = ("--local", jobs, "--once", "--config", example / "local.toml")

    (jobs / "3-watch.json").rename(example / "later.json")
    assert cli("run", *words).code == 0
    cloud.jobs[s3_id]["Status"] = "Complete"
    (example / "later.json").rename(jobs / "3-watch.json")
    told = cli("run", *words)

    assert told.code == 0, told.all
    assert f"outcome: the S3 batch job {s3_id} is Complete; of 2 tasks 2 succeeded and 0 failed\n" in told.out
    assert told.out.endswith("3 jobs: 3 SUCCEEDED\n")
    (confirmed,) = [seen for seen in cloud.seen if seen.path.endswith("/status")]
    reason = dict(confirmed.pairs)["statusUpdateReason"]
    assert reason.startswith("all pictures are uploaded (iot-job:2-confirm#1@")
