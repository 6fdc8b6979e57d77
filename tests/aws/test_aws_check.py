"""The program against ministack, an emulator of AWS: as far as that goes. Whether AWS is so, only AWS can say."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.aws import aws_check
from tests.aws.account import Account
from tests.aws.made import Heap, Made, commands
from tests.aws.points import POINTS, _is_settled, judge_details, judge_template
from tests.aws.resources import Resources
from tests.aws.setting_up import credentials_by_role_alias
from tests.aws.stop import Stop
from tests.aws.transcript import Transcript, hidden
from tests.aws.world import Finding, World, asked

from thingjobs.cloud.credentials import Credentials
from thingjobs.jobs import Refusal, Refused, Update
from thingjobs.model import JobId, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ministack, Require

    from thingjobs.model import Json

PROGRAM = Path(__file__).with_name("aws_check.py")
KEY_ID, SECRET, TOKEN = "AKIDNOTREALATALL", "s3cr3t/k3y+that=nobody", "t0k3n/of+a=session" * 8
ACCOUNT = "000000000000"
#: Deleting is tried for so long, where it cannot work.
IMPATIENT = ("--delete-minutes", "0.03")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which the only credentials are those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "AWS_EC2_METADATA_DISABLED": "true", **more}


def keys() -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


@dataclass
class Check:
    """The program, with ministack for AWS."""

    ministack: Ministack
    home: Path
    foreign: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.files = (self.home / f"transcript-{number}.txt" for number in itertools.count(1))

    @property
    def transcript(self) -> Path:
        """The first one that is written."""
        return self.home / "transcript-1.txt"

    @property
    def argv(self) -> list[str]:
        server = self.ministack
        where = ["--region", "us-east-1", "--endpoint-url", server.url, "--mqtt", f"localhost:{server.mqtt_port}"]
        return [
            sys.executable,
            str(PROGRAM),
            *where,
            "--ca",
            str(server.ca_path),
            "--transcript",
            str(next(self.files)),
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *words],
            env=environment(self.home, **keys()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.argv, "--yes", *IMPATIENT],
            env=environment(self.home, **keys()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until_an_agent_runs(self) -> None:
        assert wait_until(lambda: any(self.home.glob("thingjobs-check-*/*/state/*")), 30)

    def until(self, process: subprocess.Popen[str], words: str) -> str:
        """Read what it says until a line begins with these words; return that line."""
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        return next(line for line in lines if line.startswith(words))

    def left(self) -> list[str]:
        """Return the names of all that is left in the account."""
        iot, iam = self.ministack.boto("iot"), self.ministack.boto("iam")
        names = [
            *(thing["thingName"] for thing in iot.list_things()["things"]),
            *(policy["policyName"] for policy in iot.list_policies()["policies"]),
            *(job["jobId"] for job in iot.list_jobs()["jobs"]),
            *(role["RoleName"] for role in iam.list_roles()["Roles"]),
        ]
        certificates = [certificate["certificateId"] for certificate in iot.list_certificates()["certificates"]]
        ours = [name for name in names if name.startswith("thingjobs-check-")]
        return [name for name in ours + certificates if name not in self.foreign]


@pytest.fixture
def check(ministack: Ministack, tmp_path: Path) -> Check:
    made = Check(ministack, tmp_path)
    made.foreign = set(made.left())
    return made


def test_against_the_emulator_every_point_has_a_line_the_main_job_runs_and_nothing_is_left(check: Check) -> None:
    ended = check.run("--yes", "--role-alias")

    lines = dict(line.split(": ", 1) for line in ended.stdout.splitlines() if line.startswith(("POINT", "WAY", "ROLE")))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [title.split()[1] for title in lines if title.startswith("POINT")] == list("abcdefghijklmnop")
    assert lines["WAY paho 8883"] == lines["WAY awsiot 8883"] == "SUCCEEDED; SUCCEEDED"
    assert lines["POINT a status details of two updates"] == "replaced; kept when an update has none"
    assert "TerminalStateReached" in lines["POINT c an update of what is over"]
    for title in ("WAY https 8443", "POINT f SigV4 for Jobs on Data-ATS", "ROLE ALIAS"):
        assert lines[title].startswith("not answered here: ")
    assert check.left() == []
    assert not list(check.home.glob("thingjobs-check-*"))
    tell_no_secrets(check.transcript.read_text(), ended.stdout)


def tell_no_secrets(*texts: str) -> None:
    for text in texts:
        for secret in (KEY_ID, SECRET, TOKEN, ACCOUNT, "BEGIN", "-ats.", "X-Amz-Signature"):
            assert secret not in text
        assert not re.search(r"[0-9a-f]{64}", text)


def test_sigterm_in_the_middle_deletes_everything(check: Check) -> None:
    process = check.start()
    check.until_an_agent_runs()
    assert len(check.left()) >= 6

    process.send_signal(signal.SIGTERM)

    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted by a signal; deleting what was made" in rest
    assert "nothing of this run is left" in rest
    assert check.left() == []


def test_what_a_killed_run_left_is_deleted_by_clean_which_asks_before(check: Check, require: Require) -> None:
    require("setpriv")
    process = check.start()
    check.until_an_agent_runs()
    process.kill()
    process.communicate(timeout=60)
    left = check.left()

    refused = check.run("--clean")
    assert (refused.returncode, check.left()) == (2, left)
    assert "nobody said yes" in refused.stderr

    cleaned = check.run("--clean", "--yes")
    assert cleaned.returncode == 0, cleaned.stdout
    assert (check.left(), list(check.home.glob("thingjobs-check-*"))) == ([], [])


def test_what_cannot_be_deleted_is_named_with_the_command_that_deletes_it(check: Check) -> None:
    process = check.start()
    check.until_an_agent_runs()
    iot = check.ministack.boto("iot")
    thing = next(name for name in check.left() if name.startswith("thingjobs-check-"))
    foreign = iot.create_keys_and_certificate(setAsActive=False)
    iot.attach_thing_principal(thingName=thing, principal=foreign["certificateArn"])

    process.send_signal(signal.SIGINT)

    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"aws iot delete-thing --thing-name {thing}" in rest
    assert sorted(check.left()) == sorted([thing, foreign["certificateId"]])
    iot.detach_thing_principal(thingName=thing, principal=foreign["certificateArn"])
    iot.delete_thing(thingName=thing)


def breaks(world: World) -> Finding:
    raise KeyError("a member that AWS left out")


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "an answer that this program cannot read: KeyError"), (("--minutes", "0"), "the time for all of it is over")],
    ids=["a point fails", "the time is over"],
)
def test_a_failure_in_the_middle_deletes_everything(
    check: Check,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "environ", environment(check.home, **keys()))
    monkeypatch.setattr(aws_check, "WAYS", ())
    monkeypatch.setattr(aws_check, "POINTS", (("a", "something", breaks),))

    assert aws_check.main([*check.argv[2:], "--yes", *words]) == 1

    assert check.left() == []
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "cannot find AWS credentials: set AWS_ACCESS_KEY_ID"), (keys(), "no region is known: give --region")],
    ids=["no credentials", "no region"],
)
def test_without_credentials_or_region_it_cannot_begin(
    tmp_path: Path,
    given: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "environ", environment(tmp_path, **given))
    assert aws_check.main(["--yes", "--transcript", str(tmp_path / "t")]) == 2
    assert capsys.readouterr().err.startswith(f"aws-check: {said}")


def test_nothing_is_made_before_somebody_says_yes(
    check: Check, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", environment(check.home, **keys()))
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    assert aws_check.main(check.argv[2:]) == 2
    assert check.left() == []
    assert "well below one US dollar" in capsys.readouterr().out


# --- deleting -------------------------------------------------------------------------------------------------------


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Delete")


def made(name: str, deleted: list[str], *refusals: ClientError) -> Made:
    """Return something whose deletion is refused a few times."""
    waiting = list(refusals)

    def delete() -> None:
        if waiting:
            raise waiting.pop(0)
        deleted.append(name)

    return Made(name, delete, f"delete {name}")


def test_what_was_made_last_goes_first_and_conflicts_are_waited_for() -> None:
    deleted: list[str] = []
    heap = Heap(made("thing", deleted), made("policy", deleted, refusal("DeleteConflictException")))
    with heap.making(made("job", deleted, refusal("ResourceNotFoundException"))):
        pass

    assert heap.delete_all(seconds=60.0, sleep=lambda _: deleted.append("wait")) == ()
    assert deleted == ["wait", "policy", "thing"]


@pytest.mark.parametrize(
    ("code", "status", "there"),
    [("AccessDenied", 403, False), ("ResourceAlreadyExistsException", 409, True), ("InternalFailure", 500, True)],
)
def test_only_what_was_plainly_refused_need_not_be_deleted(code: str, status: int, there: bool) -> None:
    deleted: list[str] = []
    heap = Heap()

    with pytest.raises(ClientError), heap.making(made("role", deleted)):
        raise refusal(code, status)

    heap.delete_all(seconds=60.0)
    assert deleted == ["role"] * there


def test_what_may_not_be_deleted_does_not_keep_the_rest_from_being_deleted() -> None:
    deleted: list[str] = []
    heap = Heap(made("thing", deleted), made("policy", deleted, refusal("AccessDeniedException")))

    (left,) = heap.delete_all(seconds=60.0)

    assert deleted == ["thing"]
    assert "delete policy" in commands([left])


def test_what_is_deleted_early_is_deleted_once_and_what_resists_stays_for_the_end() -> None:
    deleted: list[str] = []
    easy, hard = made("easy", deleted), made("hard", deleted, refusal("LimitExceededException"))
    heap = Heap(easy, hard)

    heap.delete(easy)
    heap.delete(hard)

    assert heap.delete_all(seconds=60.0) == ()
    assert deleted == ["easy", "hard"]


# --- what is written and judged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:iot:eu-west-1:123456789012:thing/x",
        "connecting to a1b2c3-ats.iot.eu-west-1.amazonaws.com:8883",
        '{"sessionToken": "SECRET", "x": 1}',
        "-----BEGIN EC PRIVATE KEY-----\nSECRET\n-----END EC PRIVATE KEY-----",
        '"-----BEGIN CERTIFICATE-----\\nSECRET',
        "GET /mqtt?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
        "https://bucket.s3.amazonaws.com/firmware?SECRET",
        "AKIAABCDEFGHIJKLMNOP",
        f"cert/{'0a' * 32}",
    ],
)
def test_what_is_secret_is_known_by_its_form(text: str) -> None:
    shown = hidden(text, {})
    for secret in ("SECRET", "123456789012", "a1b2c3", "AKIAABCD", "0a0a"):
        assert secret not in shown


def test_a_secret_is_hidden_however_it_is_written(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "t", lambda _: None)
    transcript.hide('pass"w/ord', "<secret>")
    transcript.say('pass"w/ord, "pass\\"w/ord", ?a=pass%22w%2Ford')
    assert transcript.path.read_text() == '<secret>, "<secret>", ?a=<secret>\n'
    assert transcript.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("after", "kept", "seen", "fits"),
    [
        ({"second": "2"}, True, "replaced; kept when an update has none", True),
        ({"first": "1", "second": "2"}, True, "merged; kept when an update has none", True),
        ({"second": "2"}, False, "replaced; lost when an update has none", False),
        ({}, True, "neither: []; kept when an update has none", False),
    ],
)
def test_status_details_are_judged(after: dict[str, str], kept: bool, seen: str, fits: bool) -> None:
    found = judge_details(after, kept=kept)
    assert (found.seen, found.fits) == (seen, fits)


@pytest.mark.parametrize(
    ("action", "fits"),
    [
        ({}, True),
        ({"runAsUser": ""}, True),
        ({"runAsUser": "${aws:iot:parameter:runAsUser}"}, True),
        ({"runAsUser": None}, False),
    ],
)
def test_managed_templates_are_judged_by_the_agents_own_reading(action: dict[str, Any], fits: bool) -> None:
    run = {"name": "Run-Command", "type": "runCommand", "input": {"command": "true"}}
    assert judge_template({"version": "1.0", "steps": [{"action": {**run, **action}}]}).fits is fits


def test_what_is_not_as_assumed_is_named_and_makes_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transcript = Transcript(tmp_path / "t", print)
    good, open_ = Finding("fine"), Finding("not answered here: because", None)

    assert aws_check._tell(transcript, {"POINT a": good, "POINT b": open_}) == 0
    assert aws_check._tell(transcript, {"POINT a": good, "POINT b": Finding("odd", fits=False)}) == 1
    assert "not as assumed: POINT b" in capsys.readouterr().out


def test_a_transcript_never_replaces_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text("mine")
    assert aws_check.main(["--yes", "--transcript", str(tmp_path / "t")]) == 2
    assert (tmp_path / "t").read_text() == "mine"


@pytest.mark.parametrize(
    ("code", "settled"),
    [
        (Refusal.VERSION_MISMATCH, True),
        (Refusal.INVALID_REQUEST, True),
        (Refusal.TERMINAL_STATE_REACHED, True),
        (Refusal.UNKNOWN, False),
        (Refusal.REQUEST_THROTTLED, False),
    ],
)
def test_a_conflict_is_as_assumed_if_the_agent_looks_or_knows(code: Refusal, settled: bool) -> None:
    request = Update("t", JobId("j"), 1, 99, Status.IN_PROGRESS, {})
    assert _is_settled(request, Refused("t", code)) is settled


def test_who_may_make_no_roles_is_told_so_and_nothing_of_it_has_to_be_deleted(tmp_path: Path) -> None:
    class Denied(Resources):
        def make_role(self, name: str, trust: Json) -> str:
            raise refusal("AccessDenied", 403)

    account = Account(None, Credentials("a", "b"), "eu-west-1", "1" * 12, "x.invalid", ("x.invalid", 8883), "", None)
    transcript, heap = Transcript(tmp_path / "t", print), Heap()
    world = World(account, Denied(None, None, "r"), heap, Stop(60.0), transcript, tmp_path, "thingjobs-check-r", True)

    found = asked(credentials_by_role_alias, world)

    assert (found.fits, len(heap)) == (None, 0)
    assert found.seen.startswith("not answered here: the caller may not make IAM roles")


def test_each_point_says_in_a_word_what_it_asks() -> None:
    assert all(about and ask.__doc__ for _, about, ask in POINTS)
