"""`ctx.cloud` by itself: what the policy allows, what is missing, what a dry run prints, when the agent is asked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.session import Cloud, Rehearsed, issued_of

TOLD: dict[str, Any] = {
    "region": "eu-west-1",
    "account": "123456789012",
    "s3ControlUrl": "",
    "batchUrl": "",
    "caBundle": "",
    "allowS3Jobs": ["00e123a4-*"],
    "allowBatchJobs": [],
    "proxy": "",
    "answers": 0,
}
CREDENTIALS = {
    "accessKeyId": "ASIA1",
    "secretAccessKey": "hush",
    "sessionToken": "hush/token",
    "expiration": "2099-01-01T00:00:00Z",
    "lifeSeconds": 3600.0,
}


class Agent:
    """Answers what a test says, and keeps what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, refused: str) -> dict[str, Any]:
        self.asked.append(refused)
        return {**TOLD, **self.answers.pop(0)}


def test_a_handler_may_touch_what_the_patterns_of_this_device_allow() -> None:
    cloud = Cloud(TOLD, Agent())

    assert cloud.may_touch_s3("00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c")
    assert not cloud.may_touch_s3("11e123a4-c0d8-41f4-a0eb-b46f9ba5b07c")
    assert not cloud.may_touch_batch("00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c")
    assert (cloud.region, cloud.account) == ("eu-west-1", "123456789012")


def test_capitals_count_in_patterns() -> None:
    assert not Cloud({**TOLD, "allowBatchJobs": ["JOB-*"]}, Agent()).may_touch_batch("job-1")


@pytest.mark.parametrize(
    ("lacks", "service", "key"),
    [
        ("account", "s3_batch", "no account is known; set cloud.account"),
        ("region", "s3_batch", "set cloud.region or AWS_REGION"),
        ("region", "batch", "set cloud.region or AWS_REGION"),
    ],
)
def test_what_is_not_configured_is_said_with_the_key_to_set(lacks: str, service: str, key: str) -> None:
    with pytest.raises(CloudError, match=key) as e:
        getattr(Cloud({**TOLD, lacks: ""}, Agent()), service)

    assert e.value.fate is Fate.NOT_SENT


def test_nobody_is_asked_before_a_call_is_made() -> None:
    agent = Agent()
    cloud = Cloud(TOLD, agent)

    assert cloud.s3_batch is cloud.s3_batch
    assert cloud.batch is cloud.batch
    assert agent.asked == []


def test_credentials_are_asked_for_once_while_they_are_good() -> None:
    agent = Agent({"credentials": CREDENTIALS})
    cloud = Cloud(TOLD, agent)

    first, second = cloud.credentials(), cloud.credentials()

    assert first == second
    assert (first.access_key_id, first.secret_access_key, first.session_token) == ("ASIA1", "hush", "hush/token")
    assert agent.asked == [""]
    assert "hush" not in repr(first)


def test_the_agent_is_told_once_which_key_a_service_does_not_take() -> None:
    other = {**CREDENTIALS, "accessKeyId": "ASIA2"}
    agent = Agent({"credentials": CREDENTIALS}, {"credentials": other}, {"credentials": {**other, "lifeSeconds": 0.0}})
    cloud = Cloud(TOLD, agent)
    keeper = cloud._keeper

    keeper.forget(cloud.credentials())
    keeper.forget(cloud.credentials())
    cloud.credentials()

    assert agent.asked == ["", "ASIA1", "ASIA2"]


def test_a_problem_is_raised_as_the_agent_said_it() -> None:
    agent = Agent({"problem": "cannot get credentials for the role alias x: AWS IoT answers 403", "trouble": "denied"})

    with pytest.raises(CloudError, match=r"^cannot get credentials for the role alias x: AWS IoT answers 403$") as e:
        Cloud(TOLD, agent).credentials()

    assert (e.value.trouble, e.value.fate) == (Trouble.DENIED, Fate.NOT_SENT)


@pytest.mark.parametrize("trouble", [None, "of-tomorrow", 7])
def test_a_trouble_that_this_release_does_not_know_is_one_of_credentials(trouble: object) -> None:
    with pytest.raises(CloudError, match=r"^no$") as e:
        issued_of({"problem": "no", "trouble": trouble})

    assert e.value.trouble is Trouble.CREDENTIALS


@pytest.mark.parametrize(
    "found",
    [
        {},
        {**CREDENTIALS, "secretAccessKey": "hush\r\n"},
        {**CREDENTIALS, "accessKeyId": None},
        {**CREDENTIALS, "expiration": 7},
    ],
)
def test_what_the_agent_never_writes_is_refused_without_a_secret(found: dict[str, Any]) -> None:
    with pytest.raises(CloudError, match="cannot get credentials from the agent") as e:
        issued_of({"credentials": found})

    assert "hush" not in str(e.value)


def test_credentials_that_never_expire_are_kept_for_good() -> None:
    found = {**CREDENTIALS, "sessionToken": "", "expiration": "", "lifeSeconds": None}

    issued = issued_of({"credentials": found})

    assert (issued.life, issued.credentials.expires, issued.credentials.session_token) == (None, None, "")


# --- dry runs -----------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_what_it_would_send_and_asks_nobody() -> None:
    agent, said = Agent(), list[str]()
    cloud = Cloud(TOLD, agent, dry_run=True, say=said.append)

    for call in (
        lambda: cloud.s3_batch.describe("00e123a4-c0d8"),
        lambda: cloud.s3_batch.confirm("00e123a4-c0d8", "it is there"),
        lambda: cloud.batch.cancel("job-1", "no more"),
        cloud.credentials,
    ):
        with pytest.raises(Rehearsed, match="this is a dry run"):
            call()

    control = "https://123456789012.s3-control.eu-west-1.amazonaws.com/v20180820/jobs/00e123a4-c0d8"
    assert said == [
        f"would send: GET {control}",
        f"would send: POST {control}/status?requestedJobStatus=Ready&statusUpdateReason=it%20is%20there",
        "would send: POST https://batch.eu-west-1.amazonaws.com/v1/canceljob",
        '    {"jobId": "job-1", "reason": "no more"}',
    ]
    assert agent.asked == []


def test_the_endpoints_are_those_that_this_device_is_to_use() -> None:
    said = list[str]()
    cloud = Cloud({**TOLD, "fips": True, "dualstack": True}, Agent(), dry_run=True, say=said.append)

    for call in (lambda: cloud.s3_batch.describe("00e123a4-c0d8"), lambda: cloud.batch.describe("job-1")):
        with pytest.raises(Rehearsed):
            call()

    assert said[0].startswith("would send: GET https://123456789012.s3-control-fips.dualstack.eu-west-1.amazonaws.com/")
    assert said[1].startswith("would send: POST https://batch-fips.eu-west-1.api.aws/")


def test_a_dry_run_refuses_what_could_not_be_sent() -> None:
    with pytest.raises(CloudError, match="is no job id") as e:
        Cloud(TOLD, Agent(), dry_run=True).batch.cancel("a b", "no more")

    assert not isinstance(e.value, Rehearsed)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("thingjobs.cloud.session", {"requests", "tenacity", "urllib3"}),
        ("thingjobs.daemon", {"thingjobs.cloud", "requests"}),
        ("thingjobs.cloud_desk", {"thingjobs.cloud", "requests"}),
        ("thingjobs.child.wishes", {"thingjobs.cloud"}),
    ],
)
def test_what_an_idle_agent_or_a_dry_run_does_not_want_is_not_imported(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({absent!r} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "\n"
