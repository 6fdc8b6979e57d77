"""`thingjobs job cloud` and `thingjobs job refresh --cloud`: how a handler script comes by AWS credentials."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.conftest import Cli, Told

CLOUD = {
    "region": "eu-west-1",
    "account": "123456789012",
    "s3ControlUrl": "",
    "batchUrl": "http://127.0.0.1:5000",
    "caBundle": "",
    "proxy": "",
    "answers": 0,
}
CREDENTIALS = {"accessKeyId": "ASIA1", "secretAccessKey": "it's$(hush)", "sessionToken": "t", "expiration": "2099"}
JOB = {
    "contract": 1,
    "jobId": "one",
    "execution": 1,
    "thing": "pump-7",
    "params": {},
    "verb": "apply",
    "attempt": 1,
    "resumed": False,
    "rebooted": False,
    "dryRun": False,
    "deadline": None,
    "revision": 1,
}


class Inside:
    """The program as a handler calls it; what it says goes to a file, and a test is its agent."""

    def __init__(self, cli: Cli, eventually: Callable[..., Any]) -> None:
        self._cli = cli
        self._eventually = eventually
        self.folder = cli.folder / "job"
        self.folder.mkdir()
        (self.folder / "events").touch()
        cli.environment.update(JOB_DIR=str(self.folder), JOB_EVENTS=str(self.folder / "events"))

    def __call__(self, *words: str, **more: Any) -> Told:
        """Call `thingjobs job` with `more` in job.json."""
        self.give(**more)
        return self._cli("job", *words)

    def answered(self, *words: str, **answer: Any) -> Told:
        """Call it, and answer its question as the agent does."""

        def answer_it() -> None:
            self._eventually(lambda: b"refresh" in (self.folder / "events").read_bytes())
            self.give(revision=2, cloud={**CLOUD, "answers": 1, **answer})

        agent = threading.Thread(target=answer_it)
        agent.start()
        try:
            return self(*words, cloud=CLOUD)
        finally:
            agent.join()

    def give(self, **more: Any) -> None:
        """Replace job.json."""
        new = self.folder / "new"
        new.write_text(json.dumps({**JOB, **more}))
        new.replace(self.folder / "job.json")

    def events(self) -> list[Any]:
        """Return what was said."""
        return [json.loads(line) for line in (self.folder / "events").read_text().splitlines()]


@pytest.fixture
def inside(cli: Cli, eventually: Callable[..., Any]) -> Inside:
    return Inside(cli, eventually)


def test_a_script_gets_credentials_as_a_shell_wants_them(inside: Inside) -> None:
    told = inside.answered("cloud", "--env", credentials={**CREDENTIALS, "lifeSeconds": 60})

    assert (told.code, told.err) == (0, "")
    script = f"{told.out}\nenv | grep ^AWS_ | sort"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/bin"})
    assert done.stdout.splitlines() == [
        "AWS_ACCESS_KEY_ID=ASIA1",
        "AWS_CREDENTIAL_EXPIRATION=2099",
        "AWS_DEFAULT_REGION=eu-west-1",
        "AWS_ENDPOINT_URL_BATCH=http://127.0.0.1:5000",
        "AWS_REGION=eu-west-1",
        "AWS_SECRET_ACCESS_KEY=it's$(hush)",
        "AWS_SESSION_TOKEN=t",
    ]
    assert inside.events() == [{"refresh": "cloud"}]


def test_a_script_is_told_which_endpoints_this_device_is_to_use(inside: Inside) -> None:
    told = inside.answered("cloud", credentials=CREDENTIALS, fips=True, dualstack=True)

    assert "export AWS_USE_FIPS_ENDPOINT=true\nexport AWS_USE_DUALSTACK_ENDPOINT=true\n" in told.out


def test_a_script_gives_credentials_to_the_aws_cli_as_a_credential_process(inside: Inside) -> None:
    found = {**CREDENTIALS, "sessionToken": "", "expiration": "", "lifeSeconds": None}

    told = inside.answered("cloud", "--process", credentials=found)

    assert json.loads(told.out) == {"Version": 1, "AccessKeyId": "ASIA1", "SecretAccessKey": "it's$(hush)"}


def test_a_script_without_credentials_ends_with_the_reason_that_the_agent_gave(inside: Inside) -> None:
    problem = "cannot get credentials for the role alias x: AWS IoT answers 403"

    told = inside.answered("refresh", "--cloud", problem=problem, trouble="denied")

    assert (told.code, told.out, told.err) == (1, "", f"thingjobs: {problem}\n")
    assert inside.events()[-1] == {"reason": problem, "code": "cloud.credentials"}


def test_an_agent_that_gives_no_credentials_ends_a_script_too(inside: Inside) -> None:
    told = inside("refresh", "--cloud", "--timeout", "0.1", cloud=CLOUD)

    assert told.code == 1
    assert "the agent gave none within 0.1 s; does it run, and what does it log?" in told.err


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({}, 'in manifest.json "needs": ["cloud"]'),
        ({"cloud": CLOUD, "dryRun": True}, "a dry run has no AWS credentials"),
    ],
)
def test_a_script_that_can_have_no_credentials_is_told_why(inside: Inside, job: dict[str, Any], why: str) -> None:
    told = inside("cloud", **job)

    assert (told.code, told.out) == (1, "")
    assert why in told.err
