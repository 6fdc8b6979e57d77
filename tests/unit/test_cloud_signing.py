"""Our signatures beside those of botocore's signers, for requests that no sane client would send."""

from __future__ import annotations

import datetime as dt
import random
import string
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.cloud.credentials import Credentials
from thingjobs.cloud.signing import sign

REQUESTS_A_SEED = 20
QUOTED = [f"%{byte:02X}" for byte in (0, 10, 32, 37, 38, 43, 47, 61, 63, 126, 195, 255)]
PIECES = [*"aZ09-_.~!$'()*,;:@+=/", "..", "//", "%7e", "%C3%BC", "%zz", *QUOTED]
WORDS = [piece for piece in PIECES if "=" not in piece]
HOSTS = ["123456789012.s3-control.eu-west-1.amazonaws.com", "LocalHost:4566", "h:80", "h:443", "[::1]:8443", "[::1]"]
NAMES = ["x-amz-account-id", "X-Amz-Meta-Thing", "Content-Type", "x-amz-client-context"]
SECRET = string.ascii_letters + string.digits + "+/="


@dataclass(frozen=True)
class Case:
    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    secret: str
    token: str


def case_of(roll: random.Random) -> Case:
    """Make up a request."""

    def some(pieces: list[str], most: int) -> str:
        return "".join(roll.choices(pieces, k=roll.randrange(most + 1)))

    pairs = [
        roll.choice([some(WORDS, 4), f"{some(WORDS, 3)}={some(WORDS, 3)}", "a=1", "a="])
        for _ in range(roll.randrange(6))
    ]
    query = "?" * bool(pairs) + "&".join(pairs)
    user = roll.choice(["", "", "", "u:p@"])
    return Case(
        roll.choice(["GET", "POST", "PUT", "DELETE", "post"]),
        f"{roll.choice(['https', 'http'])}://{user}{roll.choice(HOSTS)}{'/' + some(PIECES, 10)}{query}",
        {name: some(list("ab  \t\"'=;,/é"), 10).strip() for name in roll.sample(NAMES, roll.randrange(4))},
        roll.randbytes(roll.choice([0, 0, 30])),
        some(list(SECRET), 40) or "s",
        roll.choice(["", some(list(SECRET), 40)]),
    )


@pytest.mark.parametrize("service", ["s3", "batch"])
@given(seed=st.integers(0, 2**64))
def test_signatures_are_those_of_botocore(service: str, seed: int) -> None:
    roll = random.Random(seed)
    for _ in range(REQUESTS_A_SEED):
        case = case_of(roll)
        theirs = by_botocore(service, case)
        ours = by_us(service, case, moment(theirs))
        # botocore leaves this one to its HTTP client.
        assert ours.pop("host") == host_of(case.url)
        assert ours == theirs, case


def test_the_example_of_the_s3_documentation_has_its_signature() -> None:
    # "Authenticating Requests: Using the Authorization Header", GET Bucket (List Objects)
    case = Case(
        "GET",
        "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
        {},
        b"",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "",
    )

    signed = by_us("s3", case, dt.datetime(2013, 5, 24, tzinfo=dt.UTC), region="us-east-1")

    expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert signed["authorization"].endswith(f"Signature={expected}")


def test_signing_twice_is_signing_once() -> None:
    case = Case("POST", "https://h/p?b=1&a=2", {"Content-Type": "application/json"}, b"{}", "s", "t")
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    request = prepared(case)

    for _ in range(2):
        sign(request, Credentials("AKID", "s", "t"), region="eu-west-1", service="batch", at=at)

    assert {name.lower(): value for name, value in request.headers.items()} == by_us("batch", case, at)


def by_us(service: str, case: Case, at: dt.datetime, region: str = "eu-west-1") -> dict[str, str]:
    request = prepared(case)
    key = "AKIAIOSFODNN7EXAMPLE" if region == "us-east-1" else "AKID"
    sign(request, Credentials(key, case.secret, case.token), region=region, service=service, at=at)
    return {name.lower(): value for name, value in request.headers.items()}


def prepared(case: Case) -> requests.PreparedRequest:
    """Make the request, with a URL that requests had no chance to tidy up."""
    request = requests.PreparedRequest()
    request.method, request.url, request.body = case.method, case.url, case.body
    request.headers = requests.structures.CaseInsensitiveDict(case.headers)
    return request


def by_botocore(service: str, case: Case) -> dict[str, str]:
    """Sign as botocore does; the time is its own."""
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Theirs

    signer: Any = S3SigV4Auth if service == "s3" else SigV4Auth
    asked = AWSRequest(case.method, case.url, dict(case.headers), case.body)
    signer(Theirs("AKID", case.secret, case.token or None), service, "eu-west-1").add_auth(asked)
    return {name.lower(): value for name, value in asked.headers.items()}


def host_of(url: str) -> str:
    from botocore.auth import _host_from_url

    return str(_host_from_url(url))


def moment(headers: dict[str, str]) -> dt.datetime:
    return dt.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
