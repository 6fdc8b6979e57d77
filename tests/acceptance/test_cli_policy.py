"""`thingjobs policy`: what AWS must allow, ready for the AWS CLI, and told plainly where something is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli

CLOUD = """
[cloud]
account = "123456789012"
role_alias = "device-role"
credentials_endpoint = "c.credentials.iot.eu-west-1.amazonaws.com"
allow_batch_jobs = ["night-*"]
"""


@pytest.fixture
def config(cli: Cli) -> Path:
    """Write a configuration that says the region, in its endpoint, and no account."""
    path = cli.folder / "config.toml"
    path.write_text('[thing]\nname = "pump-7"\n[connection]\nendpoint = "abc-ats.iot.eu-west-1.amazonaws.com"\n')
    return path


def resources(document: Any) -> list[str]:
    """Return all ARNs of a document."""
    found = [statement["Resource"] for statement in document["Statement"]]
    return [arn for one in found for arn in (one if isinstance(one, list) else [one])]


def test_one_policy_is_plain_json_for_a_file(cli: Cli, config: Path) -> None:
    told = cli("policy", "iot", "--config", config, "--account", "123456789012")
    assert (told.code, told.err) == (0, "")
    document = json.loads(told.out)
    assert document["Version"] == "2012-10-17"
    assert all(arn.startswith("arn:aws:iot:eu-west-1:123456789012:") for arn in resources(document))
    assert len(told.out.splitlines()) > 10, "people read it too"


def test_what_nobody_said_is_a_placeholder_that_is_named_and_no_success(cli: Cli, config: Path) -> None:
    told = cli("policy", "iot", "--config", config)
    assert told.code == 1
    assert all(":eu-west-1:ACCOUNT:" in arn for arn in resources(json.loads(told.out)))
    assert told.err.splitlines() == [
        (
            "thingjobs: replace ACCOUNT before you use this, or give it: --account, or cloud.account "
            "(aws sts get-caller-identity --query Account --output text says it)"
        )
    ]


def test_all_that_a_configuration_needs_comes_with_the_commands_that_make_it(cli: Cli, config: Path) -> None:
    config.write_text(config.read_text() + CLOUD)
    told = cli("policy", "--config", config)
    assert told.code == 0
    order = [
        "AWS IoT policy, for the certificate of pump-7 (",
        f"thingjobs policy iot --config {config} > iot.json",
        "aws iot create-policy --policy-name thingjobs --policy-document file://iot.json",
        "IAM trust policy, for the role of the role alias device-role (",
        "aws iam create-role --role-name thingjobs",
        "aws iot create-role-alias --role-alias device-role --role-arn ROLE_ARN",
        "IAM policy, for the same role (",
        "aws iam put-role-policy --role-name thingjobs",
        "- one AWS IoT policy does for all things",
    ]
    places = [told.err.index(line) for line in order]
    assert places == sorted(places)


def test_what_goes_into_a_pipe_is_documents_and_nothing_else(cli: Cli, config: Path) -> None:
    assert json.loads(cli("policy", "--config", config).out)["Version"] == "2012-10-17"
    config.write_text(config.read_text() + CLOUD)
    text, found = cli("policy", "--config", config).out, []
    while text.strip():
        document, end = json.JSONDecoder().raw_decode(text.lstrip())
        found.append(document)
        text = text.lstrip()[end:]
    assert found == [json.loads(cli("policy", name, "--config", config).out) for name in ("iot", "trust", "role")]


def test_a_name_that_is_none_is_told_with_those_that_are(cli: Cli, config: Path) -> None:
    told = cli("policy", "foo", "--config", config)
    assert told.code == 2
    said = told.err.replace("'", "")  # which Python 3.14 leaves out itself
    assert "invalid choice: foo (choose from iot, trust, role)" in said


def test_everything_for_scripts_is_one_line(cli: Cli, config: Path) -> None:
    config.write_text(config.read_text() + CLOUD)
    told = cli("policy", "--json", "--config", config)
    assert told.code == 0
    assert len(told.out.splitlines()) == 1
    found = told.json()
    assert list(found) == ["iot", "trust", "role", "missing", "remarks"]
    assert found["missing"] == []
    for name in ("iot", "role", "trust"):
        alone = cli("policy", name, "--config", config)
        assert json.loads(alone.out) == found[name]
        assert json.loads(cli("policy", name, "--json", "--config", config).out) == found[name]


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("trust", "", "there is no role to take; set cloud.role_alias and cloud.credentials_endpoint"),
        ("role", "[cloud]\nallow_s3_jobs = []\n", "nothing is signed with AWS credentials: cloud.allow_s3_jobs and "),
        ("iot", "websocket = true\n", "AWS credentials sign all requests, so that no certificate needs one; see "),
    ],
)
def test_a_policy_that_would_allow_nothing_is_refused_with_the_reason(
    cli: Cli, config: Path, name: str, more: str, why: str
) -> None:
    config.write_text(config.read_text() + more)
    told = cli("policy", name, "--config", config)
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith(f"thingjobs: cannot print the policy {name}: {why}")


@pytest.mark.parametrize(
    ("more", "title"),
    [
        ("websocket = true\n", "IAM policy, for the AWS credentials in the agent's environment"),
        (
            'transport = "awsiot"\n[connection.authorizer]\n',
            "AWS IoT policy, for the answer of the custom authorizer (",
        ),
    ],
)
def test_it_is_said_whose_policy_it_is(cli: Cli, config: Path, more: str, title: str) -> None:
    config.write_text(config.read_text() + more)
    assert cli("policy", "--config", config).err.startswith(title)


def test_a_wrong_account_or_configuration_is_told(cli: Cli, config: Path) -> None:
    told = cli("policy", "iot", "--config", config, "--account", "1234-5678-9012")
    assert told.code == 2
    assert "'1234-5678-9012' has not the 12 digits of an account" in told.err
    config.write_text(config.read_text() + 'websocket = true\ntransport = "https"\n')
    told = cli("policy", "--config", config)
    assert (told.code, told.out) == (2, "")
    assert 'transport "https" has no WebSocket' in told.err


def test_the_help_shows_how_to_use_it(cli: Cli) -> None:
    told = cli("policy", "--help")
    assert told.code == 0
    assert "  thingjobs policy iot > iot.json\n  aws iot create-policy --policy-name thingjobs" in told.out
