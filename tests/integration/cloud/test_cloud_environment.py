"""The standard AWS environment as we read it and as botocore reads it; what is not supported is named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thingjobs.cloud.environment import find, region, source
from thingjobs.cloud.errors import CloudError, Fate, Trouble

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "output")
PROFILE = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["one", "two=2", "three/+%20"]), max_size=4)
SECTIONS = ["default", "work", "my work"]
FILE = st.dictionaries(st.sampled_from(SECTIONS), PROFILE)
VARIABLES = st.dictionaries(
    st.sampled_from(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"]),
    st.sampled_from(["env-1", "env-2"]),
)


def written(profiles: dict[str, dict[str, str]], *, config: bool) -> str:
    lines = []
    for name, values in profiles.items():
        quoted = f'"{name}"' if " " in name else name
        section = name if not config or name == "default" else f"profile {quoted}"
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items()), ""]
    return "\n".join(lines)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shared=FILE, config=FILE, variables=VARIABLES, profile=st.sampled_from(["", "default", "work", "my work"]))
def test_credentials_and_region_are_those_that_botocore_finds(
    tmp_path: Path,
    shared: dict[str, dict[str, str]],
    config: dict[str, dict[str, str]],
    variables: dict[str, str],
    profile: str,
) -> None:
    environment = files(tmp_path, written(shared, config=False), written(config, config=True)) | variables
    environment |= {"AWS_PROFILE": profile} if profile else {}

    assert ours(environment) == by_botocore(environment)


def ours(environment: dict[str, str]) -> tuple[object, str | None]:
    try:
        found = find(environment, 0.0).credentials
    except CloudError:
        return None, None
    values = (found.access_key_id, found.secret_access_key, found.session_token or None)
    return values, region(environment) or None


def by_botocore(environment: dict[str, str]) -> tuple[object, str | None]:
    import botocore.session
    from botocore.exceptions import PartialCredentialsError, ProfileNotFound

    session: Any = botocore.session.Session()
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment, AWS_EC2_METADATA_DISABLED="true")
    try:
        found = session.get_credentials()
        if found is None:
            return None, None
        frozen = found.get_frozen_credentials()
        return (frozen.access_key, frozen.secret_key, frozen.token), session.get_config_variable("region")
    except (PartialCredentialsError, ProfileNotFound):
        return None, None
    finally:
        os.environ.clear()
        os.environ.update(kept)


def files(folder: Path, shared: str = "", config: str = "") -> dict[str, str]:
    (folder / "credentials").write_text(shared, encoding="utf-8")
    (folder / "config").write_text(config, encoding="utf-8")
    return {
        "HOME": str(folder),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": "~/config",
    }


@pytest.mark.parametrize(
    ("shared", "config", "variables", "why"),
    [
        ("", "", {}, "there are none; set cloud.role_alias"),
        ("", "", {"AWS_ACCESS_KEY_ID": "a"}, "AWS_ACCESS_KEY_ID and no AWS_SECRET"),
        ("", "", {"AWS_SECRET_ACCESS_KEY": "hush"}, "AWS_SECRET_ACCESS_KEY and no AWS_ACCESS"),
        ("", "", {"AWS_PROFILE": "gone"}, "AWS_PROFILE names gone, and neither"),
        ("[default]\naws_access_key_id = a", "", {}, "the profile default has aws_access_key_id and no aws_secret"),
        ("", "[profile w]\nsso_session = x", {"AWS_PROFILE": "w"}, "the profile w has sso_session, which is not supp"),
        ("", "[default]\ncredential_process = x", {}, "credential_process, which is not supported"),
        ("", "[default]\nrole_arn = x\nsource_profile = y", {}, "role_arn, which is not supported"),
        (
            "",
            "",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x"},
            "AWS_CONTAINER_CREDENTIALS_FULL_URI, which is not",
        ),
        ("", "", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/x"}, "AWS_WEB_IDENTITY_TOKEN_FILE, which is not"),
        (
            "",
            "",
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush\n"},
            "those of the environment cannot be used",
        ),
        ("[default]\naws_access_key_id=ä\naws_secret_access_key=hush", "", {}, "those of the profile default cannot"),
        ("nonsense", "", {}, "/credentials cannot be read: it is not what `aws configure` writes"),
    ],
)
def test_what_is_missing_or_not_supported_is_named(
    tmp_path: Path, shared: str, config: str, variables: dict[str, str], why: str
) -> None:
    with pytest.raises(CloudError, match=f"cannot find AWS credentials: .*{why}") as e:
        find(files(tmp_path, shared, config) | variables, 0.0)

    assert (e.value.trouble, e.value.fate) == (Trouble.CREDENTIALS, Fate.NOT_SENT)
    assert "hush" not in str(e.value)


def test_variables_that_say_when_they_expire_are_held_to_it(tmp_path: Path) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    variables["AWS_CREDENTIAL_EXPIRATION"] = "1970-01-01T00:01:40Z"

    assert find(variables, 99.0).credentials.expires
    with pytest.raises(CloudError, match="expired at 1970-01-01T00:01:40") as e:
        find(variables, 100.0)
    assert e.value.trouble is Trouble.EXPIRED


def test_files_that_others_renew_are_read_anew(tmp_path: Path) -> None:
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    environment = files(tmp_path, text.format("old"))
    again = source(environment, now=lambda: 0.0)
    assert again().credentials.access_key_id == "old"

    (tmp_path / "credentials").write_text(text.format("new"), encoding="utf-8")

    assert again().credentials.access_key_id == "new"


def test_without_a_home_there_are_no_files() -> None:
    assert region({}) == ""
    assert region({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}) == "eu-west-1"
    with pytest.raises(CloudError, match="there are none"):
        find({}, 0.0)
