"""What only the transport awsiot is told: protocols on port 443, what a custom authorizer sees, what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thingjobs.config.settings import Authorizer, Pkcs11
from thingjobs.model import ThingName
from thingjobs.transport.awsiot_settings import AwsIotSettings
from thingjobs.transport.link import Link
from thingjobs.transport.proxy import Proxy

ENDPOINT = "abc-ats.iot.eu-west-1.amazonaws.com"
PEM = Path("/etc/device.pem")
CERTIFICATE: dict[str, Any] = {"certificate": PEM}
SOCKET: dict[str, Any] = {"websocket": True, "region": "eu-west-1"}
ASKED = AwsIotSettings(authorizer=Authorizer())
TOKEN = AwsIotSettings(pkcs11=Pkcs11(Path("/lib/token.so")))


def link(port: int = 443, **more: Any) -> Link:
    return Link(ENDPOINT, port, "pump-7", ThingName("pump-7"), **more)


@pytest.mark.parametrize(
    ("there", "settings", "protocol"),
    [
        (link(443, **CERTIFICATE), AwsIotSettings(), "x-amzn-mqtt-ca"),
        (link(443, **CERTIFICATE), TOKEN, "x-amzn-mqtt-ca"),
        (link(8883, **CERTIFICATE), AwsIotSettings(), ""),
        (link(443, **SOCKET), AwsIotSettings(), "http/1.1"),
        (link(8443, **SOCKET), AwsIotSettings(), ""),
        (link(443), ASKED, "mqtt"),
        (link(8883), ASKED, "mqtt"),
        (link(443, **SOCKET), ASKED, "http/1.1"),
        (link(443, alpn="", **CERTIFICATE), AwsIotSettings(), ""),
        (link(443, alpn="other"), ASKED, "other"),
    ],
)
def test_on_port_443_the_protocol_says_how_we_log_in(there: Link, settings: AwsIotSettings, protocol: str) -> None:
    assert settings.protocol(there) == protocol


def test_with_an_authorizer_nothing_is_signed_and_no_certificate_shown() -> None:
    assert AwsIotSettings().signed_for(link(**SOCKET)) == "eu-west-1"
    assert ASKED.signed_for(link(**SOCKET)) == ""
    assert not ASKED.shows_certificate(link(**CERTIFICATE))
    assert ASKED.tls(link())


def test_an_authorizer_that_is_the_default_one_adds_nothing_to_the_user_name() -> None:
    assert AwsIotSettings().login() == (None, None)
    assert AwsIotSettings(Authorizer(username="jane?x=1")).login() == ("jane?x=1", None)
    name = AwsIotSettings(Authorizer(username="jane?x=1", name="A b")).login()[0]
    assert name == "jane?x=1&x-amz-customauthorizer-name=A%20b"


def test_everything_that_it_cannot_do_is_said_at_once_and_without_secrets() -> None:
    proxy = Proxy("socks5", "proxy.lan", 1080, "jane", "secret")
    found = TOKEN.problems(
        link(version=4, proxy=proxy, certificate=PEM, private_key=PEM, private_key_password_file=PEM)
    )
    assert [problem.split()[0].rstrip(":") for problem in found] == [
        "connection.mqtt_version",
        "connection.proxy",
        "connection.private_key_password_file",
        "connection.private_key",
    ]
    assert "secret" not in "".join(found)
    assert TOKEN.problems(link()) == [
        "connection.pkcs11 needs connection.certificate: the certificate of the key in the token, a file"
    ]
    assert AwsIotSettings().problems(link(**CERTIFICATE)) == []
