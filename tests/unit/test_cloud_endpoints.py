"""Hosts of S3 Control and AWS Batch beside those that botocore's rule sets give."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest

from thingjobs.cloud.calls import Call
from thingjobs.cloud.endpoints import Place, batch, s3_control
from thingjobs.cloud.errors import CloudError, Fate, Trouble

ACCOUNT = "123456789012"
REGIONS = [
    *("us-east-1", "eu-west-1", "ap-southeast-5", "il-central-1", "mx-central-1", "us-gov-west-1", "us-gov-east-1"),
    *("cn-north-1", "cn-northwest-1", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1"),
    "eusc-de-east-1",
]
PLACES = list(itertools.product(REGIONS, [False, True], [False, True]))


@pytest.mark.parametrize(("region", "fips", "dualstack"), PLACES)
def test_hosts_are_those_of_botocore(region: str, *, fips: bool, dualstack: bool) -> None:
    place = Place(region, fips=fips, dualstack=dualstack)

    assert batch(place).url == by_botocore("batch", place)
    expected = by_botocore("s3control", place)
    if expected:
        assert s3_control(place, ACCOUNT).url == expected
    else:
        with pytest.raises(CloudError, match="there is no FIPS endpoint"):
            s3_control(place, ACCOUNT)


def by_botocore(service: str, place: Place) -> str:
    from botocore.endpoint_provider import EndpointResolutionError

    asked = {"Region": place.region, "UseFIPS": place.fips, "UseDualStack": place.dualstack}
    if service == "s3control":
        asked |= {"AccountId": ACCOUNT, "RequiresAccountId": True}
    try:
        return str(rules(service).resolve_endpoint(**asked).url)
    except EndpointResolutionError:
        return ""


@functools.cache
def rules(service: str) -> Any:
    import botocore.session
    from botocore.endpoint_provider import EndpointProvider

    loader = botocore.session.get_session().get_component("data_loader")
    found = loader.load_service_model(service, "endpoint-rule-set-1")
    return EndpointProvider(found, loader.load_data("partitions"))


def test_what_is_signed_for_is_the_service_s3() -> None:
    assert (s3_control(Place("eu-west-1"), ACCOUNT).service, batch(Place("eu-west-1")).service) == ("s3", "batch")


def test_an_endpoint_that_was_given_is_used_as_it_is() -> None:
    place = Place("eu-west-1", url="http://127.0.0.1:5000/base/", fips=True, dualstack=True)

    assert s3_control(place, ACCOUNT).url == batch(place).url == "http://127.0.0.1:5000/base"


@pytest.mark.parametrize(
    "region", ["", "EU-WEST-1", "eu-west", "eu west-1", "evil.example/eu-west-1", "eu-west-1.evil"]
)
def test_what_is_no_region_is_not_made_a_host(region: str) -> None:
    for make in (batch, lambda place: s3_control(place, ACCOUNT)):
        with pytest.raises(CloudError, match=r"set cloud.region or AWS_REGION") as e:
            make(Place(region))
        assert (e.value.trouble, e.value.fate) == (Trouble.INPUT, Fate.NOT_SENT)


@pytest.mark.parametrize("account", ["", "12345678901", "1234567890123", "12345678901x", "1234.evil.co"])
def test_what_is_no_account_is_not_made_a_host(account: str) -> None:
    with pytest.raises(CloudError, match=r"no account of 12 digits; set cloud.account"):
        s3_control(Place("eu-west-1"), account)


def test_a_url_has_its_query_quoted_as_signatures_want_it() -> None:
    call = Call("X", "do x", "s3:X", "GET", "/p", (("a", "b c+/=&~ü"), ("a", ""), ("k y", "v")))

    assert call.url(s3_control(Place("eu-west-1", url="http://h"), ACCOUNT)) == (
        "http://h/p?a=b%20c%2B%2F%3D%26~%C3%BC&a=&k%20y=v"
    )
