"""The transport https through real, small proxies, HTTP and SOCKS5."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import (
    Connected,
)
from thingjobs.model import ThingName
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device, HttpProxy, SocksProxy

    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


@pytest.fixture
def through(site: Site) -> Callable[[Proxy], Site]:
    """Tells where the service is, behind a proxy."""
    return lambda proxy: replace(site, link=replace(site.link, proxy=proxy))


def test_a_proxy_is_gone_through_with_its_user_and_the_environment_has_no_say(
    site: Site,
    through: Callable[[Proxy], Site],
    http_proxy: Callable[..., HttpProxy],
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    proxy = http_proxy(site.link.port)
    connect().next(Connected)
    assert not proxy.heads
    connect(through(proxy.proxy("me", "pass@word"))).next(Connected)
    assert f"CONNECT localhost:{site.link.port} " in proxy.heads[0]
    assert "Proxy-Authorization: Basic bWU6cGFzc0B3b3Jk" in proxy.heads[0]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "does not take the user me with that password (407 "),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "(403 Forbidden): whoever runs it has to allow that (connection.proxy)"),
        (b"garbage\r\n\r\n", "does not answer as an HTTP proxy does: check connection.proxy"),
    ],
)
def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
    through: Callable[[Proxy], Site], http_proxy: Callable[..., HttpProxy], connect: Connect, says: bytes, words: str
) -> None:
    proxy = http_proxy(answer=says).proxy("me", "password")
    reason = connect(through(proxy)).reason()
    assert proxy.address in reason
    assert words in reason
    assert "password@" not in reason


def test_a_proxy_that_is_not_there_is_named(
    through: Callable[[Proxy], Site], connect: Connect, free_port: Callable[[], int]
) -> None:
    proxy = Proxy("http", "127.0.0.1", free_port())
    assert f"cannot reach the proxy {proxy.address}: Connection refused" in connect(through(proxy)).reason()


def test_through_a_socks_proxy_the_proxy_looks_up_the_name(
    site: Site, through: Callable[[Proxy], Site], socks_proxy: Callable[..., SocksProxy], connect: Connect
) -> None:
    proxy = socks_proxy(site.link.port)
    connect(through(proxy.proxy())).next(Connected)
    assert proxy.asked == [(3, b"localhost", site.link.port)]


def test_a_socks_proxy_needs_no_library(
    site: Site,
    through: Callable[[Proxy], Site],
    socks_proxy: Callable[..., SocksProxy],
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    connect(through(socks_proxy(site.link.port).proxy())).next(Connected)
