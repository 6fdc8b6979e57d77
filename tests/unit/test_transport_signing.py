"""The URL that opens a WebSocket to AWS IoT, beside what botocore makes of the same."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from thingjobs.cloud.credentials import Credentials
from thingjobs.transport import signing

if TYPE_CHECKING:
    from tests.conftest import Require

AT = dt.datetime(2026, 11, 22, 9, 35, 7, tzinfo=dt.UTC)
HOST = "abc-ats.iot.eu-west-1.amazonaws.com"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def judged(host: str, region: str) -> str:
    """Return path and query as botocore signs them: what its `add_auth` does, at our time."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Theirs

    request = AWSRequest("GET", f"https://{host}/mqtt")
    request.context["timestamp"] = AT.strftime("%Y%m%dT%H%M%SZ")
    judge = SigV4QueryAuth(Theirs("AKIDEXAMPLE", SECRET), "iotdevicegateway", region, expires=86_400)
    judge._modify_request_before_signing(request)
    signature = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
    judge._inject_signature_to_request(request, signature)
    return str(request.url).removeprefix(f"https://{host}")


@pytest.mark.parametrize(
    ("host", "region"), [(HOST, "eu-west-1"), ("localhost:8443", "us-gov-east-1"), ("abc.iot.x.amazonaws.com.cn", "cn")]
)
def test_it_is_signed_as_botocore_signs_it(require: Require, host: str, region: str) -> None:
    require("botocore")
    ours = signing.signed(Credentials("AKIDEXAMPLE", SECRET), host, region, AT)
    assert ours == judged(host, region)


def test_a_session_token_is_added_after_signing() -> None:
    token = "IQoJb3JpZ2lu//+=="
    without = signing.signed(Credentials("AKIDEXAMPLE", SECRET), HOST, "eu-west-1", AT)
    with_one = signing.signed(Credentials("AKIDEXAMPLE", SECRET, token), HOST, "eu-west-1", AT)
    assert with_one == f"{without}&X-Amz-Security-Token={quote(token, safe='')}"
