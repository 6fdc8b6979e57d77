"""The transport awsiot on port 443 and through an HTTP proxy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.errors import ConfigError
from thingjobs.jobs import Connected
from thingjobs.model import ThingName
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy
    from tests.integration.connection.mqtt.conftest import Opening

    from thingjobs.testing import JobsService
    from thingjobs.transport.link import Link

    Connect = Callable[..., Device[AwsIotTransport]]
    Overhear = Callable[..., tuple[Endpoint, queue.SimpleQueue[Opening]]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


NAMES = ("x-amzn-mqtt-ca", "mqtt", "http/1.1")


def test_on_port_443_mutual_tls_asks_for_its_own_protocol(
    awsiot: Connect, anywhere: Link, overhear: Overhear, http_proxy: Callable[..., HttpProxy]
) -> None:
    endpoint, seen = overhear(*NAMES)
    proxy = http_proxy(endpoint.port)
    awsiot(replace(anywhere, proxy=proxy.proxy())).next(Connected)
    opening = seen.get(timeout=PATIENCE_SECONDS)
    assert (opening.protocol, opening.shown) == ("x-amzn-mqtt-ca", True)
    assert [head.splitlines()[0] for head in proxy.heads] == ["CONNECT localhost:443 HTTP/1.1"]


def test_on_another_port_no_protocol_is_asked_for(awsiot: Connect, anywhere: Link, overhear: Overhear) -> None:
    endpoint, seen = overhear(*NAMES)
    awsiot(replace(anywhere, port=endpoint.port)).next(Connected)
    assert seen.get(timeout=PATIENCE_SECONDS).protocol is None


def test_through_a_proxy_that_wants_a_password_requests_are_answered(
    awsiot: Connect, link: Link, served: JobsService, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(link.port, login="jane:s3cret/@")
    awsiot(replace(link, proxy=proxy.proxy("jane", "s3cret/@"))).works()
    assert [head.splitlines()[0] for head in proxy.heads] == [f"CONNECT localhost:{link.port} HTTP/1.1"]


def test_a_proxy_that_refuses_is_told_without_its_password(
    awsiot: Connect, anywhere: Link, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(login="jane:right")
    reason = awsiot(replace(anywhere, proxy=proxy.proxy("jane", "wrong"))).reason()
    assert f"the proxy 127.0.0.1:{proxy.port}" in reason
    assert "407" in reason
    assert "wrong" not in reason


def test_a_proxy_that_is_not_there_is_told_as_the_proxy(
    awsiot: Connect, anywhere: Link, free_port: Callable[[], int]
) -> None:
    proxy = Proxy("http", "localhost", free_port())
    assert awsiot(replace(anywhere, proxy=proxy)).reason() == f"the proxy {proxy.address}: Connection refused"
    reason = awsiot(replace(anywhere, proxy=Proxy("http", "nowhere.invalid", 3128))).reason()
    assert reason == "the name nowhere.invalid cannot be resolved; check connection.proxy and the DNS"


def test_a_proxy_that_it_cannot_use_is_refused_at_the_start(anywhere: Link) -> None:
    with pytest.raises(ConfigError, match=r"connection\.proxy"):
        AwsIotTransport(replace(anywhere, proxy=Proxy("socks5", "localhost", 1080)), lambda: 0.0)
