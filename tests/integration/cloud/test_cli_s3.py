"""`thingjobs cloud s3-jobs` against our fake of S3 Control: what it sends, prints and exits with."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Pki
    from tests.integration.cloud.conftest import FakeCloud, Provider

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
IS = f"the S3 batch job {JOB} is"
TASKS = "of 10 tasks 4 succeeded and 1 failed"
AGAIN = {"Retry-After": "0"}


class S3Jobs:
    """The command, with what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: str | Path) -> int:
        try:
            code = cli.main(["cloud", "s3-jobs", *map(str, words)])
        except SystemExit as end:
            code = int(str(end.code))
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def s3_jobs(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[S3Jobs]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_S3_CONTROL": cloud.url,
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": "secret/+=",
        "AWS_REGION": cloud.region,
        "AWS_ACCOUNT_ID": cloud.account,
        "HOME": str(tmp_path),
        "TZ": "XXX-1",
    }.items():
        monkeypatch.setenv(name, value)
    time.tzset()
    yield S3Jobs(capsys)
    monkeypatch.undo()
    time.tzset()


def moving(cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch, move: Callable[[], object]) -> None:
    """Let time pass for the jobs of the fake whenever somebody has looked at one."""
    answer = cloud.answer

    def answer_and_move(seen: Any) -> Any:
        answered = answer(seen)
        if seen.method == "GET":
            move()
        return answered

    monkeypatch.setattr(cloud, "answer", answer_and_move)


def posts(cloud: FakeCloud) -> list[list[tuple[str, str]]]:
    return [seen.pairs for seen in cloud.seen if seen.method == "POST"]


# --- looking ------------------------------------------------------------------------------------------------------


def test_a_list_has_a_line_for_each_job_and_cuts_nothing_in_a_pipe(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Suspended", Description="stamp " + 20 * "every object " + "once")
    cloud.new_job("00e123a4", "Active", Description="")

    assert s3_jobs("list") == 0

    head, first, second, count = s3_jobs.out.splitlines()
    columns = ["id", "status", "tasks", "failed", "created", "operation", "priority", "description"]
    assert head.split() == columns
    more = ["2026-01-02", "04:04", "LambdaInvoke"]
    assert first.split()[:9] == ["○", JOB, "Suspended", "5/10", "1", *more, "10"]
    assert first.endswith("every object once")
    assert second.split() == ["●", "00e123a4", "Active", "5/10", "1", *more, "10", "-"]
    assert count == "2 jobs"


def test_a_list_asks_for_the_statuses_and_the_number_that_are_wanted(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    for number in range(4):
        cloud.new_job(f"job-{number}", "Suspended")
    cloud.new_job("other")

    assert s3_jobs("list", "--status", "suspended", "READY", "--status", "Hibernating", "--limit", "3") == 0

    asked = [("jobStatuses", "Suspended"), ("jobStatuses", "Ready"), ("jobStatuses", "Hibernating")]
    assert cloud.seen[0].pairs == [*asked, ("maxResults", "3")]
    assert s3_jobs.out.splitlines()[-1] == "3 jobs; there may be more, --limit asked for no more"
    assert s3_jobs("list", "--status", "Failed") == 0
    assert s3_jobs.out == "there is no job that is Failed in eu-west-1, account 123456789012\n"


def test_a_list_goes_on_to_the_last_page(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.page_size = 2
    for number in range(5):
        cloud.new_job(f"job-{number}")

    assert s3_jobs("list", "--json") == 0

    assert [job["jobId"] for job in json.loads(s3_jobs.out)["jobs"]] == [f"job-{number}" for number in range(5)]


def test_json_is_one_value_with_all_that_the_service_said(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Hibernating", Description="grün\n\x85")

    assert s3_jobs("show", JOB, "--json") == 0

    job = json.loads(s3_jobs.out)
    assert s3_jobs.out.isascii()
    assert (job["jobId"], job["status"], job["description"]) == (JOB, "Hibernating", "grün\n\x85")
    assert (job["created"], job["terminated"]) == ("2026-01-02T03:04:05.678Z", None)
    assert job["progress"] == {"total": 10, "succeeded": 4, "failed": 1, "activeSeconds": 77}


def test_showing_a_job_says_all_about_it_in_a_line_each(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    manifest = {"Spec": {"Format": "S3BatchOperations_CSV_20180820"}, "Location": {"ObjectArn": "arn:aws:s3:::b/m.csv"}}
    more = {"SuspendedCause": "awaits\x85you", "ConfirmationRequired": True, "Manifest": manifest}
    cloud.new_job(JOB, "Suspended", **more)

    assert s3_jobs("show", JOB) == 0

    assert s3_jobs.out.splitlines() == [
        f"○ {JOB}  Suspended",
        "    description  by <the> test & co",
        "    operation    LambdaInvoke",
        "    tasks        5 of 10 done, 1 of them failed; 0:01:17 at work",
        "    priority     10",
        "    created      2026-01-02 04:04",
        "    because      awaits you",
        "    to confirm   yes, it waits to be confirmed",
        "    manifest     arn:aws:s3:::b/m.csv (S3BatchOperations_CSV_20180820)",
    ]


def test_a_job_that_nobody_knows_is_said_to_be_unknown(s3_jobs: S3Jobs) -> None:
    assert s3_jobs("show", JOB) == 1

    assert s3_jobs.out == ""
    assert s3_jobs.err.startswith(f"thingjobs: cannot look at the S3 batch job {JOB}: the service answers NoSuchJob: ")


# --- confirming and cancelling ------------------------------------------------------------------------------------


def test_confirming_sends_the_reason_and_tells_the_status_that_came_of_it(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Suspended", ConfirmationRequired=True)

    assert s3_jobs("confirm", JOB, "--reason", "the manifest is there") == 0

    assert posts(cloud) == [[("requestedJobStatus", "Ready"), ("statusUpdateReason", "the manifest is there")]]
    assert s3_jobs.out == f"✓ {IS} Ready; it was confirmed\n"


def test_a_job_that_cannot_be_confirmed_yet_is_no_success(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Preparing", ConfirmationRequired=True)

    assert s3_jobs("confirm", JOB) == 1

    assert s3_jobs.out == ""
    assert "JobStatusException: Job is Preparing" in s3_jobs.err


def test_confirming_twice_is_no_failure(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active", ConfirmationRequired=True)

    assert s3_jobs("confirm", JOB) == 0

    assert s3_jobs.out == f"✓ {IS} Active; it was confirmed\n"


def test_cancelling_is_not_cancelled(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active")

    assert s3_jobs("cancel", JOB, "--reason", "wrong manifest") == 0

    assert s3_jobs.out == f"● {IS} Cancelling; {TASKS}; --wait waits for its end\n"


@pytest.mark.parametrize("status", ["Complete", "Failed"])
def test_cancelling_what_is_over_fails_and_says_what_it_is(cloud: FakeCloud, s3_jobs: S3Jobs, status: str) -> None:
    cloud.new_job(JOB, status)

    assert s3_jobs("cancel", JOB, "--reason", "why", "--json") == 1

    told = json.loads(s3_jobs.out)
    assert (told["outcome"], told["code"], told["job"]["status"]) == ("failed", "cloud.lost-race", status)
    assert s3_jobs.err == f"thingjobs: {IS} {status}: nothing is left to cancel; {TASKS}\n"


def test_waiting_prints_a_line_for_each_change_and_the_end(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.new_job(JOB, "Active")
    looks = iter([False, True])
    moving(cloud, monkeypatch, lambda: next(looks, False) and cloud.advance(JOB))

    assert s3_jobs("cancel", JOB, "--reason", "why", "--wait", "--timeout", "60") == 0

    assert s3_jobs.out == f"● {IS} Cancelling; {TASKS}\n✓ {IS} Cancelled: it was cancelled, {TASKS}\n"
    assert len(posts(cloud)) == 1


def test_waiting_for_a_confirmed_job_is_waiting_for_its_end_and_failed_tasks_are_no_success(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.new_job(JOB, "Suspended", ConfirmationRequired=True)
    moving(cloud, monkeypatch, lambda: cloud.jobs[JOB].update(Status="Complete"))

    assert s3_jobs("confirm", JOB, "--wait", "--json") == 1

    told = json.loads(s3_jobs.out)
    assert (told["outcome"], told["code"]) == ("failed", "cloud.tasks-failed")
    begun, ended = s3_jobs.err.splitlines()
    assert begun == f"●  50%  {IS} Ready; {TASKS}"
    assert ended.startswith(f"thingjobs: {IS} Complete; {TASKS}")


def test_a_cancel_that_loses_the_race_fails(cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.new_job(JOB, "Active")
    moving(cloud, monkeypatch, lambda: cloud.jobs[JOB].update(Status="Complete"))

    assert s3_jobs("cancel", JOB, "--reason", "why", "--wait") == 1

    assert s3_jobs.err == f"thingjobs: {IS} Complete: nothing is left to cancel; {TASKS}\n"


def test_waiting_ends_with_the_time_and_says_that_the_job_goes_on(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active")

    assert s3_jobs("cancel", JOB, "--reason", "why", "--wait", "--timeout", "0.1") == 1

    look = f"look again with: thingjobs cloud s3-jobs show {JOB}"
    assert s3_jobs.err == f"thingjobs: after 0.1 s {IS} Cancelling; {TASKS}; it goes on, {look}\n"


def test_waiting_outlasts_a_service_that_is_out_of_order(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.new_job(JOB, "Active")

    def break_down() -> None:
        if cloud.jobs[JOB]["Status"] == "Cancelling":
            cloud.jobs[JOB]["Status"] = "Cancelled"
            for _ in range(5):
                cloud.fail(503, headers=AGAIN)

    moving(cloud, monkeypatch, break_down)

    assert s3_jobs("cancel", JOB, "--reason", "why", "--wait") == 0

    assert "503" in s3_jobs.out
    assert "it is looked at again\n" in s3_jobs.out
    assert s3_jobs.out.endswith(f"✓ {IS} Cancelled: it was cancelled, {TASKS}\n")


def test_a_lost_answer_is_made_up_for_by_looking_and_nothing_is_sent_twice(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active")
    cloud.hang_up(after=True)

    assert s3_jobs("cancel", JOB, "--reason", "why") == 0

    assert s3_jobs.out.startswith(f"● {IS} Cancelling; ")
    assert len(posts(cloud)) == 1


def test_a_request_that_may_have_got_lost_is_no_success_and_not_repeated(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active")
    cloud.hang_up()

    assert s3_jobs("cancel", JOB, "--reason", "why") == 1

    assert s3_jobs.err.endswith("; it may have been carried out all the same\n")
    assert len(posts(cloud)) == 1


def test_what_cannot_be_looked_at_after_it_was_taken_is_said_to_be_taken(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    cloud.new_job(JOB, "Active")
    cloud.faults.append(None)
    cloud.refuse(403, "AccessDenied", "no")

    assert s3_jobs("cancel", JOB, "--reason", "why") == 1

    look = f"cannot look at the S3 batch job {JOB}: the service answers AccessDenied"
    assert s3_jobs.err.startswith(f"thingjobs: the service took the request, and nobody knows more: {look}")


# --- whose cloud, and what is not sent ----------------------------------------------------------------------------


def test_a_dry_run_prints_the_calls_and_needs_no_credentials(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3_CONTROL"):
        monkeypatch.delenv(name)
    url = f"https://{cloud.s3_host}/v20180820/jobs"

    assert s3_jobs("cancel", JOB, "--reason", "a b", "--wait", "--dry-run") == 0
    assert s3_jobs.out == (
        f"would send: POST {url}/{JOB}/status?requestedJobStatus=Cancelled&statusUpdateReason=a%20b\n"
        f"would send: GET {url}/{JOB}  (until it is over)\n"
    )
    assert s3_jobs("list", "--status", "Active", "--limit", "5000", "--dry-run", "--region", "us-east-1") == 0
    elsewhere = url.replace("eu-west-1", "us-east-1")
    assert s3_jobs.out == f"would send: GET {elsewhere}?jobStatuses=Active&maxResults=1000\n"
    assert s3_jobs("show", JOB, "--dry-run", "--json") == 0
    (call,) = json.loads(s3_jobs.out)["calls"]
    assert (call["operation"], call["method"], call["url"], call["body"]) == ("DescribeJob", "GET", f"{url}/{JOB}", "")
    assert cloud.seen == []


def test_what_documents_may_touch_does_not_bind_the_operator(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_REGION", "AWS_ACCOUNT_ID"):
        monkeypatch.delenv(name)
    config = tmp_path / "config.toml"
    config.write_text(f'[cloud]\nregion = "{cloud.region}"\naccount = "{cloud.account}"\nallow_s3_jobs = []\n')
    cloud.new_job(JOB, "Suspended")

    assert s3_jobs("confirm", JOB, "--config", config) == 0

    assert cloud.jobs[JOB]["Status"] == "Ready"


def test_the_role_alias_of_the_device_comes_before_the_aws_environment(
    cloud: FakeCloud, s3_jobs: S3Jobs, provider: Provider, pki: Pki, tmp_path: Path
) -> None:
    certificate, key = pki.device("pump-7")
    config = tmp_path / "config.toml"
    config.write_text(
        f'''[thing]
name = "pump-7"
[connection]
certificate = "{certificate}"
private_key = "{key}"
ca = "{pki.ca}"
[cloud]
role_alias = "device-role"
credentials_endpoint = "{provider.endpoint}"
'''
    )
    cloud.secrets = {"ASIA1": ("hush", "hush/token")}
    cloud.new_job(JOB)

    assert s3_jobs("list", "--config", config) == 0, s3_jobs.err

    assert provider.seen == [("/role-aliases/device-role/credentials", "pump-7", "pump-7")]
    assert "hush" not in s3_jobs.out + s3_jobs.err


@pytest.mark.parametrize(
    ("words", "missing", "says"),
    [
        (["list"], "AWS_REGION", "no region is known: give --region, or set cloud.region in the configuration, or "),
        (["list"], "AWS_ACCOUNT_ID", "no account is known: give --account, or set cloud.account in the configuration"),
        (["list"], "AWS_ACCESS_KEY_ID", "cannot find AWS credentials: there is AWS_SECRET_ACCESS_KEY and no AWS_ACC"),
        (["show", "a b c d"], "", "cannot look at an S3 batch job: 'a b c d' is no job id; one has 5 to 36 of "),
        (["cancel", JOB, "--reason", 257 * "x"], "", f"cannot cancel the S3 batch job {JOB}: the reason has 257 char"),
        (["list", "--status", "a-b"], "", "cannot list S3 batch jobs: 'a-b' is no job status; known are Active, "),
        (["list", "--config", "nowhere.toml"], "", "there is no such file; write it, or name another one with --con"),
    ],
)
def test_a_wrong_call_or_configuration_exits_2_and_sends_nothing(
    cloud: FakeCloud, s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch, words: list[str], missing: str, says: str
) -> None:
    monkeypatch.delenv(missing, raising=False)

    assert s3_jobs(*words) == 2

    assert says in s3_jobs.err
    assert (s3_jobs.out, s3_jobs.err.count("\n"), cloud.seen) == ("", 1, [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cancel", JOB, "--reason", " "], "argument --reason: it says nothing; whoever looks at the job will"),
        (["cancel", JOB], "the following arguments are required: --reason"),
        (["confirm", JOB, "--timeout", "3"], "--timeout goes with --wait"),
        (["confirm", JOB, "--wait", "--timeout", "nan"], "'nan' is no number of seconds above 0"),
        (["list", "--limit", "0"], "'0' is no number of jobs, 1 or more"),
        (["list", "--account", "12"], "'12' has not the 12 digits of an account"),
        (["list", "--region", "Europe"], "'Europe' is no AWS region, as eu-west-1 is one"),
    ],
)
def test_an_option_that_makes_no_sense_shows_the_usage(s3_jobs: S3Jobs, words: list[str], says: str) -> None:
    assert s3_jobs(*words) == 2

    assert s3_jobs.err.startswith(f"usage: thingjobs cloud s3-jobs {words[0]} [")
    assert says in s3_jobs.err


def test_a_reason_that_is_no_text_is_refused_before_anything_is_sent(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    for more in ([], ["--dry-run"]):
        assert s3_jobs("cancel", JOB, "--reason", "\udcff", *more) == 2
        assert s3_jobs.err.endswith("the reason has halves of characters, or bytes that are no UTF-8\n")

    assert cloud.seen == []


def test_a_wrong_variable_is_all_that_is_complained_of_where_nothing_is_configured(
    s3_jobs: S3Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3_CONTROL", "localhost")

    assert s3_jobs("list") == 2

    assert s3_jobs.err.startswith('thingjobs: AWS_ENDPOINT_URL_S3_CONTROL = "localhost" (in the environment): must be')


def test_a_status_that_nobody_knows_is_asked_for_and_said_to_be_unknown(cloud: FakeCloud, s3_jobs: S3Jobs) -> None:
    assert s3_jobs("list", "--status", "Actve", "ready") == 0

    assert cloud.seen[0].pairs == [("jobStatuses", "Actve"), ("jobStatuses", "Ready")]
    assert s3_jobs.err.startswith("thingjobs: this release knows no status Actve; known are Active, Cancelled, ")


@pytest.mark.parametrize("words", ["s3-jobs list", "s3-jobs confirm", "batch-jobs show", "batch-jobs cancel"])
def test_every_action_explains_itself_within_80_columns(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    with pytest.raises(SystemExit) as e:
        cli.main(["cloud", *words.split(), "--help"])

    told = capsys.readouterr().out
    assert e.value.code == 0
    assert told.startswith(f"usage: thingjobs cloud {words} ")
    assert all(option in told for option in ("--json", "--dry-run", "--region", "--account", "--config"))
    assert max(map(len, told.splitlines())) <= 80
