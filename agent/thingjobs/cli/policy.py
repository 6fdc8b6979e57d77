"""Prints the least-privilege policies that AWS needs for this very configuration.

The documents go to standard output, what they are for and what to do with them to standard error. Give a name to get
one of them alone, and give that to the AWS CLI:

  thingjobs policy iot > iot.json
  aws iot create-policy --policy-name thingjobs --policy-document file://iot.json

iot: what the device certificate (or the custom authorizer) allows. trust: who may take the role of the role alias.
role: what the AWS credentials allow: those of that role, or those that requests are signed with.

Exit code: 0, or 1 if something is to be filled in by hand (REGION, ACCOUNT) or there is no such policy.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs import iam
from thingjobs.cli import FAILED, complain, options
from thingjobs.cli.paint import Paint
from thingjobs.config.key import ACCOUNT, REGION
from thingjobs.iam import Name

if TYPE_CHECKING:
    from thingjobs.config import Config
    from thingjobs.iam import Place
    from thingjobs.model import Json

_WAYS = {
    iam.REGION: "--region, or cloud.region in the configuration",
    iam.ACCOUNT: "--account, or cloud.account (aws sts get-caller-identity --query Account --output text says it)",
}
_MAKE = {
    Name.IOT: """\
  thingjobs policy iot{given} > iot.json
  aws iot create-policy --policy-name thingjobs --policy-document file://iot.json
  aws iot attach-policy --policy-name thingjobs --target CERTIFICATE_ARN""",
    Name.TRUST: """\
  thingjobs policy trust{given} > trust.json
  aws iam create-role --role-name thingjobs --assume-role-policy-document file://trust.json
  aws iot create-role-alias --role-alias {alias} --role-arn ROLE_ARN""",
    Name.ROLE: """\
  thingjobs policy role{given} > role.json
  aws iam put-role-policy --role-name {role} --policy-name thingjobs --policy-document file://role.json""",
}


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "policy", "print what AWS must allow for this configuration", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "name", nargs="?", choices=[str(name) for name in Name], metavar="iot|trust|role", help="only this one"
    )
    parser.add_argument("--json", action="store_true", help="everything as one line of JSON, for scripts")
    parser.add_argument("--region", default="", type=_region, help="the AWS region, where the configuration has none")
    parser.add_argument("--account", default="", type=_account, help="the 12 digits of the AWS account, likewise")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the configuration; otherwise that of the system")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Print policies; exit 1 if they are not complete.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load(chosen)
    place = iam.place_of(config, chosen.region, chosen.account)
    names = (Name(chosen.name),) if chosen.name else iam.needed(config)
    made = {name: found for name in names if (found := iam.document(name, config, place))}
    if chosen.name and not made:
        complain(f"cannot print the policy {chosen.name}: {_why_none(Name(chosen.name))}")
        return FAILED
    if chosen.name:
        print(json.dumps(made[Name(chosen.name)], indent=None if chosen.json else 2))
    elif chosen.json:
        print(json.dumps({**made, "missing": place.missing(), "remarks": iam.remarks(config, *made)}))
    else:
        _show(config, made, _options(chosen))
    return _say_what_is_missing(place, made)


def _show(config: Config, made: dict[Name, Json], given: str) -> None:
    about, alias = Paint(sys.stderr), config.cloud.role_alias
    words = {"given": given, "alias": alias, "role": "thingjobs" if alias else "ROLE"}
    for name, found in made.items():
        about.line(about.style(f"{_title(name, config)} ({iam.size(found)} characters):", "bold"))
        print(json.dumps(found, indent=2), flush=True)
        for line in _MAKE[name].format(**words).splitlines():
            about.line(line)
        about.line()
    for remark in iam.remarks(config, *made):
        about.line(f"- {remark}")


def _options(chosen: argparse.Namespace) -> str:
    """Return the options that the same documents need again, each with a blank before it."""
    given = {"config": chosen.config, "region": chosen.region, "account": chosen.account}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value)


def _title(name: Name, config: Config) -> str:
    connection = config.connection
    match name:
        case Name.IOT if connection.authorizer is not None and not connection.signs:
            return "AWS IoT policy, for the answer of the custom authorizer"
        case Name.IOT:
            return f"AWS IoT policy, for the certificate of {config.thing.name}"
        case Name.TRUST:
            return f"IAM trust policy, for the role of the role alias {config.cloud.role_alias}"
        case Name.ROLE if config.cloud.role_alias:
            return "IAM policy, for the same role"
        case _:
            return "IAM policy, for the AWS credentials in the agent's environment"


def _why_none(name: Name) -> str:
    match name:
        case Name.IOT:
            return "AWS credentials sign all requests, so that no certificate needs one; see `thingjobs policy role`"
        case Name.ROLE:
            return "nothing is signed with AWS credentials: cloud.allow_s3_jobs and cloud.allow_batch_jobs are empty"
        case _:
            return "there is no role to take; set cloud.role_alias and cloud.credentials_endpoint"


def _say_what_is_missing(place: Place, made: dict[Name, Json]) -> int:
    text = json.dumps(made)
    missing = [name for name in place.missing() if f":{name}:" in text or f'"{name}"' in text]
    if missing:
        complain(*(f"replace {name} before you use this, or give it: {_WAYS[name]}" for name in missing))
    return FAILED if missing else 0


def _region(text: str) -> str:
    return _checked(text, not REGION.wrong(text), "is no AWS region, as eu-west-1 is one")


def _account(text: str) -> str:
    return _checked(text, not ACCOUNT.wrong(text), "has not the 12 digits of an account")


def _checked(text: str, is_right: bool, wrong: str) -> str:  # noqa: FBT001 - two callers, above
    if not is_right:
        raise argparse.ArgumentTypeError(f"{text!r} {wrong}")
    return text
