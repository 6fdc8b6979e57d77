"""MQTT in a WebSocket by the transport awsiot, signed with AWS credentials; botocore judges the signature."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from thingjobs.model import ThingName

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy
    from tests.integration.connection.mqtt.conftest import Opening

    from thingjobs.testing import JobsService
    from thingjobs.transport.awsiot import AwsIotTransport
    from thingjobs.transport.link import Link

    Connect = Callable[..., Device[AwsIotTransport]]
    Overhear = Callable[..., tuple[Endpoint, queue.SimpleQueue[Opening]]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
NAMES = ("x-amzn-mqtt-ca", "mqtt", "http/1.1")


@pytest.mark.parametrize("token", ["", "session/token+with=signs"])
def test_the_handshake_of_a_websocket_is_signed_as_botocore_signs_it(
    awsiot: Connect,
    signed: Link,
    aws_keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    overhear: Overhear,
    http_proxy: Callable[..., HttpProxy],
    token: str,
) -> None:
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    endpoint, seen = overhear(*NAMES, then=lambda tls: tls.sendall(FORBIDDEN))
    device = awsiot(replace(signed, proxy=http_proxy(endpoint.port).proxy()))
    protocol, shown, head = seen.get(timeout=PATIENCE_SECONDS)
    reason = device.reason()
    assert "localhost:443" in reason
    assert "403 Forbidden" in reason
    assert (protocol, shown) == ("http/1.1", False)
    method, target, _ = head.decode().split("\r\n")[0].split()
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    assert (method, urlsplit(target).path, headers["Sec-WebSocket-Protocol"]) == ("GET", "/mqtt", "mqtt")
    asked = dict(parse_qsl(urlsplit(target).query))
    assert asked.pop("X-Amz-Security-Token", "") == token
    assert asked["X-Amz-Credential"].endswith("/eu-west-1/iotdevicegateway/aws4_request")
    assert asked.pop("X-Amz-Signature") == judged(asked, headers, aws_keys)


def judged(query: dict[str, str], headers: dict[str, str], keys: dict[str, str]) -> str:
    """Return the signature that botocore gives to the same request at the same time."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    judge = SigV4QueryAuth(Credentials(*keys.values()), "iotdevicegateway", "eu-west-1")
    signed_headers = {name: headers[name.title()] for name in query["X-Amz-SignedHeaders"].split(";")}
    request = AWSRequest("GET", f"https://{headers['Host']}/mqtt?{urlencode(query)}", headers=signed_headers)
    request.context["timestamp"] = query["X-Amz-Date"]
    request.context["payload_signing_enabled"] = True
    signature: str = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
    return signature


def test_over_a_websocket_requests_are_answered(
    awsiot: Connect, signed: Link, web_port: int, served: JobsService
) -> None:
    awsiot(replace(signed, port=web_port)).works()


def test_without_credentials_a_websocket_is_not_opened(
    awsiot: Connect,
    signed: Link,
    aws_keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    overhear: Overhear,
) -> None:
    for name in aws_keys:
        monkeypatch.delenv(name)
    endpoint, seen = overhear()
    reason = awsiot(replace(signed, port=endpoint.port)).reason()
    assert reason.startswith("no AWS credentials to sign the WebSocket with")
    assert "set AWS_ACCESS_KEY_ID" in reason
    assert seen.empty()
