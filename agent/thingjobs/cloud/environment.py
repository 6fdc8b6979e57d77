"""Credentials and region from the standard AWS environment: variables, and the files that `aws configure` writes.

What these say comes out as botocore has it, a test compares them. Left out is what needs another service or another
program (IAM Identity Center, assumed roles, web identities, containers, EC2, `credential_process`): such settings are
named as unsupported rather than passed over, because the next credentials in line may have other rights.

Source: "Configuration and credential file settings" and "Environment variables" in the AWS CLI user guide.
"""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.cloud.credentials import Credentials, Issued
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.words import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    Profiles = Mapping[str, Mapping[str, str]]

_ROLE_KEYS = ("role_arn", "web_identity_token_file", "sso_session", "sso_start_url", "login_session")
_ELSEWHERE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_WAYS = (
    "set cloud.role_alias and cloud.credentials_endpoint for the device's own, or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials"
)


def source(environment: Mapping[str, str], *, now: Callable[[], float]) -> Callable[[], Issued]:
    """Return what `credentials.Keeper` asks; the files are read anew each time, since others may renew them.

    Args:
        environment: of the process; HOME says where the files are.
        now: seconds since the epoch.
    """
    return lambda: find(environment, now())


def find(environment: Mapping[str, str], now: float) -> Issued:
    """Look for credentials: first the variables, then the profile that AWS_PROFILE names, else `default`.

    Raises:
        CloudError: there are none, only a part of some, or they can only be had in a way that is not supported.
    """
    has_variables = bool(environment.get("AWS_ACCESS_KEY_ID"))
    if has_variables and not _named(environment):
        return _from_variables(environment, now)
    name = _profile_name(environment)
    config, shared = _files(environment)
    if _named(environment) and name not in {**config, **shared}:
        raise _none(f"AWS_PROFILE names {name}, and neither ~/.aws/credentials nor ~/.aws/config has it")
    if has_variables:
        return _from_variables(environment, now)
    found = _from_files(name, shared.get(name, {}), config.get(name, {}))
    if found is None:
        raise _none(_missing(environment))
    return Issued(found)


def region(environment: Mapping[str, str]) -> str:
    """Return the region: AWS_REGION, else AWS_DEFAULT_REGION, else the profile's, else "".

    Raises:
        CloudError: a file cannot be read.
    """
    if found := environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
        return found
    config, shared = _files(environment)
    name = _profile_name(environment)
    return {**config.get(name, {}), **shared.get(name, {})}.get("region", "")


def _from_variables(environment: Mapping[str, str], now: float) -> Issued:
    key, secret = environment["AWS_ACCESS_KEY_ID"], environment.get("AWS_SECRET_ACCESS_KEY", "")
    if not secret:
        raise _none("there is AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY")
    token = environment.get("AWS_SESSION_TOKEN") or environment.get("AWS_SECURITY_TOKEN") or ""
    expires = moment(environment.get("AWS_CREDENTIAL_EXPIRATION"))
    if expires and expires.timestamp() <= now:
        wrong = f"those of the environment expired at {expires.isoformat()} (AWS_CREDENTIAL_EXPIRATION)"
        raise _none(wrong, Trouble.EXPIRED)
    return Issued(_made(key, secret, token, "the environment", expires))


def _from_files(name: str, shared: Mapping[str, str], config: Mapping[str, str]) -> Credentials | None:
    """Return what a profile has: first the credentials file counts, then `credential_process`, then the config file."""
    both = {**shared, **config}
    if unsupported := next((key for key in _ROLE_KEYS if key in both), ""):
        raise _none(f"the profile {name} has {unsupported}, which is not supported here")
    if found := _from_profile(shared, name):
        return found
    if "credential_process" in both:
        raise _none(f"the profile {name} has credential_process, which is not supported here")
    return _from_profile(config, name)


def _missing(environment: Mapping[str, str]) -> str:
    if unsupported := next((variable for variable in _ELSEWHERE if environment.get(variable)), ""):
        return f"there is {unsupported}, which is not supported here"
    if environment.get("AWS_SECRET_ACCESS_KEY"):
        return "there is AWS_SECRET_ACCESS_KEY and no AWS_ACCESS_KEY_ID"
    return "there are none"


def _from_profile(profile: Mapping[str, str], name: str) -> Credentials | None:
    key, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
    if not key:
        return None
    if not secret:
        raise _none(f"the profile {name} has aws_access_key_id and no aws_secret_access_key")
    token = profile.get("aws_session_token") or profile.get("aws_security_token") or ""
    return _made(key, secret, token, f"the profile {name}")


def _made(key: str, secret: str, token: str, where: str, expires: datetime | None = None) -> Credentials:
    try:
        return Credentials(key, secret, token, expires)
    except ValueError as error:
        raise _none(f"those of {where} cannot be used: {error}") from None


def _named(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or ""


def _profile_name(environment: Mapping[str, str]) -> str:
    return _named(environment) or "default"


def _files(environment: Mapping[str, str]) -> tuple[Profiles, Profiles]:
    """Return the profiles of the config file and those of the credentials file."""
    config = _read(_path(environment, "AWS_CONFIG_FILE", "config"))
    shared = _read(_path(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"))
    return {name: values for section, values in config.items() if (name := _config_profile(section))}, shared


def _path(environment: Mapping[str, str], variable: str, usual: str) -> Path | None:
    home = environment.get("HOME", "")
    said = environment.get(variable) or (home and f"~/.aws/{usual}")
    return Path(f"{home}{said[1:]}" if said.startswith("~/") else said) if said else None


def _read(path: Path | None) -> Profiles:
    parser = configparser.RawConfigParser(default_section="\0")
    try:
        parser.read_string(path.read_text(encoding="utf-8") if path else "")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError, configparser.Error) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what `aws configure` writes"
        raise _none(f"{path} cannot be read: {why}") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _config_profile(section: str) -> str:
    """Return which profile a section of the config file is: `[default]` or `[profile NAME]`; "": none."""
    try:
        words = shlex.split(section)
    except ValueError:
        return ""
    match words:
        case ["default"]:
            return "default"
        case ["profile", name]:
            return name
        case _:
            return ""


def _none(why: str, trouble: Trouble = Trouble.CREDENTIALS) -> CloudError:
    return CloudError(f"cannot find AWS credentials: {why}; {_WAYS}", trouble, Fate.NOT_SENT)
