"""Where and as whom to connect, and through which proxy: what follows from it, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thingjobs.model import ThingName
from thingjobs.transport.link import Link
from thingjobs.transport.proxy import Proxy

AWS = "abc-ats.iot.eu-west-1.amazonaws.com"
PEM, KEY = Path("/etc/device.pem"), Path("/etc/device.key")


def link(host: str = AWS, port: int = 8883, **more: Any) -> Link:
    return Link(host, port, "pump-7", ThingName("pump-7"), **more)


def test_on_port_443_a_certificate_asks_for_mqtt_and_elsewhere_nothing_is_asked_for() -> None:
    assert link(port=443, certificate=PEM).protocol == "x-amzn-mqtt-ca"
    assert link(port=8883, certificate=PEM).protocol == ""
    assert link(port=443, certificate=PEM, alpn="").protocol == ""
    assert link(port=8883, certificate=PEM, alpn="mqtt").protocol == "mqtt"
    assert link(port=443, websocket=True).protocol == ""


def test_a_websocket_is_signed_only_if_a_region_is_named() -> None:
    assert link(websocket=True, region="us-east-1").signed_for == "us-east-1"
    assert link(websocket=True).signed_for == ""
    assert link().signed_for == ""


def test_what_is_signed_never_goes_without_tls() -> None:
    assert link("broker.example.com", websocket=True, region="us-east-1").tls
    assert link(ca=PEM).tls
    assert link(certificate=PEM).tls
    assert not link("broker.example.com").tls


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"host": ""}, "connection.endpoint"),
        ({"host": "a b"}, "connection.endpoint"),
        ({"host": "a\r\nX-Header: 1"}, "connection.endpoint"),
        ({"port": 0}, "connection.port"),
        ({"port": 65536}, "connection.port"),
        ({"version": 3}, 'connection.mqtt_version is none: write 5 or "3.1.1"'),
        ({"tls_min": "1.1"}, "connection.tls_min"),
        ({"private_key": KEY}, "connection.certificate, which is missing"),
        ({"private_key_password_file": KEY}, "connection.certificate, which is missing"),
        ({"region": "eu-west-1"}, "connection.websocket"),
        ({"websocket": True, "region": "eu-west-1", "certificate": PEM}, "leave connection.certificate empty"),
    ],
)
def test_what_does_not_go_together_cannot_be_made(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        link(**more)


def test_the_route_names_the_proxy_and_nothing_shows_its_password() -> None:
    through = link(proxy=Proxy.parse("socks5://me:s3cret@10.0.0.1:1080"))
    assert through.route == f"{AWS}:8883 (through the proxy 10.0.0.1:1080)"
    assert "s3cret" not in repr(through)
    assert link().route == link().address == f"{AWS}:8883"


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example.com:3128", Proxy("http", "proxy.example.com", 3128)),
        ("http://me:a%40b%3A@proxy:3128", Proxy("http", "proxy", 3128, "me", "a@b:")),
        ("socks5://me:pass@[::1]:1080", Proxy("socks5", "::1", 1080, "me", "pass")),
    ],
)
def test_a_proxy_is_read_as_it_is_written(text: str, proxy: Proxy) -> None:
    assert Proxy.parse(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "https://me:s3cret@proxy:3128",
        "socks4://proxy:1080",
        "http://proxy",
        "http://:3128",
        "http://proxy:0",
        "http://proxy:99999",
        "http://me:s3cret@proxy:x",
        "http://a%3Ab:s3cret@proxy:3128",
        "socks5://me:" + "s3cret" * 50 + "@proxy:1080",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match="prox") as refused:
        Proxy.parse(text)
    assert "s3cret" not in str(refused.value)
