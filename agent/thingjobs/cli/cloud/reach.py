"""From options, configuration and environment to the services: which region and account, whose credentials.

Nothing is read that says who you are before the first call is made, so a dry run needs no credentials.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import cloud_desk
from thingjobs.cli import options
from thingjobs.cloud import endpoints, environment
from thingjobs.config.key import ACCOUNT, REGION
from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    from thingjobs.cloud.batch import Batch
    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.calls import Endpoint
    from thingjobs.cloud.s3_batch import S3Batch
    from thingjobs.config import Config

_NO_ACCOUNT = (
    "no account is known: give --account, or set cloud.account in the configuration, or AWS_ACCOUNT_ID "
    "(aws sts get-caller-identity --query Account --output text says it)"
)
_NO_REGION = "no region is known: give --region, or set cloud.region in the configuration, or AWS_REGION"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which cloud is meant."""
    parser.add_argument("--region", default="", type=_region, help="the AWS region; otherwise the configured one")
    parser.add_argument("--account", default="", type=_account, help="the 12 digits of the AWS account, likewise")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the configuration; otherwise that of the system")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which cloud is meant.

    Attributes:
        account: 12 digits, or "".
        config: of the device; of this machine without one where there is none.
    """

    region: str
    account: str
    config: Config

    @property
    def s3_control(self) -> Endpoint:
        """Where S3 Control is. Raises ConfigError: no account is known."""
        if not self.account:
            raise ConfigError([_NO_ACCOUNT])
        return endpoints.s3_control(self._place(self.config.cloud.s3_control_url), self.account)

    @property
    def aws_batch(self) -> Endpoint:
        """Where AWS Batch is."""
        return endpoints.batch(self._place(self.config.cloud.batch_url))

    def s3_jobs(self) -> S3Batch:
        """Return the jobs of S3 Batch Operations."""
        from thingjobs.cloud.s3_batch import S3Batch  # noqa: PLC0415

        return S3Batch(self._caller(), self.s3_control, self.account)

    def batch_jobs(self) -> Batch:
        """Return the jobs of AWS Batch."""
        from thingjobs.cloud.batch import Batch  # noqa: PLC0415

        return Batch(self._caller(), self.aws_batch)

    def _place(self, url: str) -> endpoints.Place:
        return endpoints.Place(self.region, url, fips=self.config.cloud.fips, dualstack=self.config.cloud.dualstack)

    def _caller(self) -> Caller:
        from thingjobs.cloud.caller import Caller  # noqa: PLC0415 - it brings requests, and the help needs none
        from thingjobs.cloud.credentials import Keeper  # noqa: PLC0415
        from thingjobs.cloud.web import Line  # noqa: PLC0415

        line = Line(ca=self.config.cloud.ca_bundle, proxy=self.config.connection.proxy)
        return Caller(Keeper(cloud_desk.source_of(self.config, os.environ)), line)


def of(chosen: argparse.Namespace) -> Reach:
    """Return what the options, the configuration and the environment name, in this order.

    Raises:
        ConfigError: the configuration cannot be used, no region is known, or AWS_ACCOUNT_ID is none.
        CloudError: a file of the standard AWS environment cannot be read.
    """
    config = options.load_or_local(chosen)
    region = chosen.region or config.cloud.region or environment.region(os.environ)
    if not region:
        raise ConfigError([_NO_REGION])
    account = chosen.account or config.cloud.account or os.environ.get("AWS_ACCOUNT_ID", "")
    if wrong := ACCOUNT.wrong(account):
        raise ConfigError([f"AWS_ACCOUNT_ID is {account[:60]!r}: {wrong}"])
    return Reach(region, account, config)


def _region(text: str) -> str:
    if REGION.wrong(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no AWS region, as eu-west-1 is one")
    return text


def _account(text: str) -> str:
    if ACCOUNT.wrong(text):
        raise argparse.ArgumentTypeError(f"{text!r} has not the 12 digits of an account")
    return text
