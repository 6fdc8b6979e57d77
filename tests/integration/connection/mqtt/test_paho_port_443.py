"""Port 443, where AWS IoT tells protocols apart by ALPN: a real Mosquitto behind an endpoint that does the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy

    from thingjobs.transport.link import Link
    from thingjobs.transport.paho import PahoTransport

    Connect = Callable[[Link], Device[PahoTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
ALPN = "x-amzn-mqtt-ca"


@pytest.fixture
def behind_443(mosquitto: Mosquitto, pki: Pki, new_endpoint: Callable[..., Endpoint]) -> Iterator[Endpoint]:
    """An endpoint as that of AWS IoT on port 443, and the Jobs service behind it."""
    endpoint = new_endpoint(mosquitto.listen_without_tls(), ALPN)
    with BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=pki.client_tls()):
        yield endpoint


def test_on_port_443_the_protocol_of_aws_is_asked_for(
    paho: Connect, link: Link, behind_443: Endpoint, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(behind_443.port)
    paho(replace(link, port=443, proxy=proxy.proxy())).works()
    assert behind_443.protocols == [ALPN]
    assert proxy.heads == ["CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"]


def test_on_another_port_no_protocol_is_asked_for(paho: Connect, link: Link, behind_443: Endpoint) -> None:
    paho(replace(link, port=behind_443.port)).works()
    assert behind_443.protocols == [None]


def test_a_port_443_that_knows_another_protocol_only_is_told_with_what_to_check(
    paho: Connect, link: Link, new_endpoint: Callable[..., Endpoint], http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(new_endpoint(lambda _: None, "h2").port)
    reason = paho(replace(link, port=443, proxy=proxy.proxy())).reason()
    # OpenSSL's server lets such a client in without a protocol, or says so, depending on its program.
    assert f"{ALPN} (ALPN)" in reason
    assert "AWS IoT" in reason


def test_a_port_443_that_is_asked_for_no_protocol_and_speaks_http_is_told_with_what_to_set(
    paho: Connect, link: Link, new_endpoint: Callable[..., Endpoint], http_proxy: Callable[..., HttpProxy]
) -> None:
    endpoint = new_endpoint(lambda tls: tls.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ALPN)
    proxy = http_proxy(endpoint.port)
    reason = paho(replace(link, port=443, alpn="", proxy=proxy.proxy())).reason()
    assert reason.endswith(f"on port 443 AWS IoT wants a certificate, and {ALPN} (ALPN) with it")
