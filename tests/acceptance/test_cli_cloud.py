"""`thingjobs cloud` as its user sees it: on terminals of 80 and 200 columns, while it waits, and at Ctrl-C."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.integration.cloud.conftest import cloud

if TYPE_CHECKING:
    from tests.acceptance.conftest import Cli
    from tests.integration.cloud.conftest import FakeCloud

__all__ = ["cloud"]

JOBS = [f"00e123a4-c0d8-41f4-a0eb-b46f9ba5b{number:03}" for number in range(4)]


@pytest.fixture
def known(cloud: FakeCloud, cli: Cli) -> FakeCloud:
    """Give the fake, whose address and credentials the commands get."""
    cli.environment |= {
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": "secret/+=",
        "AWS_REGION": cloud.region,
        "AWS_ACCOUNT_ID": cloud.account,
    }
    return cloud


@pytest.mark.parametrize("columns", [80, 200])
def test_a_table_fits_the_terminal_and_nothing_in_it_steers_it(cli: Cli, known: FakeCloud, columns: int) -> None:
    # XML lets these through, of what a terminal might obey.
    evil = "\x9b2J\u202e\x85{0} grün 写真 " + 20 * "and on "
    for job_id, status in zip(JOBS, ("Active", "Suspended", "Complete", "Hiber\x9bnating"), strict=True):
        known.new_job(job_id, status, Description=evil)

    terminal = cli.on_terminal("cloud", "s3-jobs", "list", columns=columns)

    assert terminal.end() == 0
    head, *jobs, count = [line for line in terminal.lines() if line]
    assert [line.split()[1] for line in jobs] == JOBS
    assert count == "4 jobs"
    assert head.split()[:4] == ["id", "status", "tasks", "failed"]
    assert ("created" in head) is (columns == 200)
    if columns == 200:
        assert all(re.search(r"LambdaInvoke  10        2J \{0\} grün 写真 and on .*…$", line) for line in jobs)
    assert terminal.widest + 2 * ("写" in terminal.shown) < columns
    rest = re.sub(r"\x1b\[(2K|[0-9;]*m)", "", terminal.shown)
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", rest)


@pytest.mark.parametrize("columns", [80, 200])
def test_progress_is_drawn_in_place_and_ctrl_c_says_that_the_cloud_goes_on(
    cli: Cli, known: FakeCloud, columns: int
) -> None:
    known.new_job(JOBS[0], "Suspended", ConfirmationRequired=True)
    terminal = cli.on_terminal("cloud", "s3-jobs", "confirm", JOBS[0], "--wait", columns=columns)
    terminal.until("  50%  Ready; of 10 tasks 4 succeeded and 1 failed")

    known.jobs[JOBS[0]]["ProgressSummary"] = {"TotalNumberOfTasks": 4, "NumberOfTasksSucceeded": 3}
    known.jobs[JOBS[0]]["Status"] = "Active"
    terminal.until("  75%  Active; of 4 tasks 3 succeeded")
    terminal.press("\x03")

    assert terminal.end() == 130
    drawn = [re.sub(r"\x1b\[[0-9;]*[mK]", "", text) for text in re.findall(r"\r\x1b\[2K([^\r]*)(?=\r)", terminal.shown)]
    assert max(len(line) for line in drawn if line.startswith("●")) < columns
    left = "\n".join(terminal.lines())
    assert "%" not in left
    look = f"look at it with: thingjobs cloud s3-jobs show {JOBS[0]}"
    assert f"thingjobs: not waiting any longer, the job in the cloud goes on; {look}\n" in left
    assert known.jobs[JOBS[0]]["Status"] == "Active"


def test_json_is_all_that_stands_on_standard_output(cli: Cli, known: FakeCloud) -> None:
    known.new_job(JOBS[0], "Active")

    told = cli("cloud", "s3-jobs", "cancel", JOBS[0], "--reason", "why", "--wait", "--timeout", "0.1", "--json")

    assert told.code == 1
    assert (told.out.count("\n"), told.json()["outcome"]) == (1, "pending")
    assert told.json()["job"]["status"] == "Cancelling"
    begun, ended = told.err.splitlines()
    assert begun.startswith("● the S3 batch job")
    assert ended.startswith("thingjobs: after 0.1 s the S3 batch job")
