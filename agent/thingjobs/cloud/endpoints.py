"""Where S3 Control and AWS Batch are: the hosts of each region and partition. Pure.

Source: the endpoint rule sets of `s3control` 2018-08-20 and `batch` 2016-08-10, and the list of partitions, as
botocore carries them; a test compares every combination.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from thingjobs.cloud.calls import Endpoint
from thingjobs.cloud.errors import unusable

_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z]{2,5}(-[a-z0-9]+)+-[0-9]+")


@dataclass(frozen=True, slots=True)
class _Partition:
    suffix: str
    dualstack_suffix: str
    batch_fips: str = "batch-fips"


#: By the beginning of the region's name, the longest first; what matches none is the commercial partition.
_PARTITIONS = (
    ("us-isob-", _Partition("sc2s.sgov.gov", "api.aws.scloud")),
    ("us-isof-", _Partition("csp.hci.ic.gov", "api.aws.hci.ic.gov")),
    ("eu-isoe-", _Partition("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk")),
    ("us-iso-", _Partition("c2s.ic.gov", "api.aws.ic.gov")),
    ("us-gov-", _Partition("amazonaws.com", "api.aws", batch_fips="batch")),
    ("eusc-", _Partition("amazonaws.eu", "api.amazonwebservices.eu")),
    ("cn-", _Partition("amazonaws.com.cn", "api.amazonwebservices.com.cn")),
    ("", _Partition("amazonaws.com", "api.aws", batch_fips="fips.batch")),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of a service's endpoints is meant.

    Attributes:
        region: such as `eu-west-1`.
        url: an endpoint that somebody gave, used as it is; "": AWS's own, and then:
        fips: the one with validated cryptography.
        dualstack: the one that answers over IPv6, too.
    """

    region: str
    url: str = ""
    fips: bool = False
    dualstack: bool = False


def s3_control(place: Place, account: str) -> Endpoint:
    """Return where the S3 Control API of an account is; the account is a label of the host's name.

    An endpoint that was given gets no such label: whoever gave it knows its whole name.

    Raises:
        CloudError: the region or the account is none, or there is no such endpoint.
    """
    if not _ACCOUNT.fullmatch(account):
        raise unusable("reach S3 Batch Operations", f"{account!r} is no account of 12 digits; set cloud.account")
    partition = _partition(place, "S3 Batch Operations")
    if place.url:
        return Endpoint(place.url.rstrip("/"), place.region, "s3")
    if place.fips and place.region.startswith("cn-"):
        raise unusable("reach S3 Batch Operations", f"there is no FIPS endpoint in {place.region}; do without")
    host = f"s3-control{'-fips' * place.fips}{'.dualstack' * place.dualstack}"
    return Endpoint(f"https://{account}.{host}.{place.region}.{partition.suffix}", place.region, "s3")


def batch(place: Place) -> Endpoint:
    """Return where the AWS Batch API of a region is.

    Raises:
        CloudError: the region is none.
    """
    partition = _partition(place, "AWS Batch")
    if place.url:
        return Endpoint(place.url.rstrip("/"), place.region, "batch")
    suffix = partition.dualstack_suffix if place.dualstack else partition.suffix
    return Endpoint(f"https://{_batch_host(place, partition)}.{suffix}", place.region, "batch")


def _batch_host(place: Place, partition: _Partition) -> str:
    if not place.fips:
        return f"batch.{place.region}"
    return f"{'batch-fips' if place.dualstack else partition.batch_fips}.{place.region}"


def _partition(place: Place, service: str) -> _Partition:
    if not _REGION.fullmatch(place.region):
        wrong = f"{place.region!r} is no region" if place.region else "no region is known"
        raise unusable(f"reach {service}", f"{wrong}; set cloud.region or AWS_REGION, for example to eu-west-1")
    return next(partition for prefix, partition in _PARTITIONS if place.region.startswith(prefix))
