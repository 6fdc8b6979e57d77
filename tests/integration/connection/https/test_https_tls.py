"""TLS of the transport https: whom it trusts, what it shows, and what it says of dates that seem wrong."""

from __future__ import annotations

import http.client
import select
import ssl
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.clock import Reading
from thingjobs.jobs import (
    Connected,
    Disconnected,
    GetPending,
)
from thingjobs.model import ThingName
from thingjobs.testing.web import WebJobsService
from thingjobs.transport.patience import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Pki
    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy
    from tests.integration.connection.https.conftest import Asker

    from thingjobs.testing import JobsService
    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


def test_only_the_configured_authority_is_trusted(asker: Asker) -> None:
    asker.ask(GetPending("t"))
    assert asker.line._adapter is not None
    context = asker.line._adapter._context
    assert context.cert_store_stats()["x509_ca"] == 1
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_server_of_another_authority_or_name_is_refused_in_one_line(
    site: Site, connect: Connect, other_pki: Pki
) -> None:
    device = connect(replace(site, link=replace(site.link, ca=other_pki.ca)))
    reason = device.next(Disconnected).reason
    assert f"localhost:{site.link.port} is not trusted: " in reason
    assert f"(connection.ca = {other_pki.ca})" in reason
    assert len(reason.splitlines()) == 1


@pytest.mark.parametrize("slow", [False, True])
def test_a_certificate_that_the_server_does_not_know_is_named(
    site: Site,
    connect: Connect,
    other_pki: Pki,
    monkeypatch: pytest.MonkeyPatch,
    slow: bool,
) -> None:
    if slow:  # the server has closed the connection before we begin to write
        begin = http.client.HTTPConnection.putrequest

        def later(connection: http.client.HTTPConnection, *args: Any, **more: Any) -> None:
            closed = select.poll()
            closed.register(connection.sock, select.POLLRDHUP)
            assert closed.poll(PATIENCE_SECONDS * 1000)
            begin(connection, *args, **more)

        monkeypatch.setattr(http.client.HTTPConnection, "putrequest", later)
    certificate, key = other_pki.device("stranger")
    link = replace(site.link, certificate=certificate, private_key=key)
    device = connect(replace(site, link=link))
    reason = device.next(Disconnected).reason
    assert "does not accept us: unknown ca" in reason
    assert str(certificate) in reason


def test_a_certificate_that_was_replaced_is_used_for_the_next_connection(
    web: WebJobsService, site: Site, tmp_path: Path, new_asker: Callable[[Site], Asker], pki: Pki
) -> None:
    certificate, key = tmp_path / "device.pem", tmp_path / "device.key"

    def install(name: str) -> None:
        for path, source in zip((certificate, key), pki.device(name), strict=True):
            path.write_bytes(source.read_bytes())

    install("first")
    asker = new_asker(replace(site, link=replace(site.link, certificate=certificate, private_key=key)))
    asker.ask(GetPending("t"))
    install("second")
    asker.ask(GetPending("t"))  # over the connection that there is
    asker.line.rest()
    asker.ask(GetPending("t"))
    asker.line.rest()
    key.write_bytes(pki.device("third")[1].read_bytes())  # half of a new pair: the old one stays in use
    asker.ask(GetPending("t"))
    assert [call.peer for call in web.calls] == ["first", "first", "second", "second"]


def test_dates_that_seem_wrong_are_named_clock_and_tried_again_as_soon_as_it_is_set(
    service: JobsService, new_site: Callable[[int], Site], connect: Connect, pki: Pki
) -> None:
    reading = Reading(wall=5.0, boot=1000.0, synchronised=False)
    waits = threading.Event()

    def dice() -> float:
        if len(device.history) < 5:
            return 0.01
        waits.set()
        return 0.999  # of 32 s or more

    with WebJobsService(service, tls=pki.server_tls(pki.dated("localhost", (1, 9)))) as early:
        port = early.port
        device = connect(new_site(port), dice=dice, read_clock=lambda: reading, limits=Limits(clock_look=0.1))
        reason = device.reason()
        assert f"localhost:{port} is not trusted: certificate is not yet valid" in reason
        assert "; clock: this device says 1970-01-01 00:00 UTC, and no time service has set it yet" in reason
        assert waits.wait(PATIENCE_SECONDS)
    with WebJobsService(service, port=port, tls=pki.server_tls()):
        reading = Reading(wall=1.8e9, boot=1005.0, synchronised=True)
        device.skip_to(Connected)  # within less than that wait


def test_port_443_is_asked_for_the_protocol_that_aws_iot_wants_there(
    service: JobsService,
    new_site: Callable[[int], Site],
    new_endpoint: Callable[..., Endpoint],
    http_proxy: Callable[..., HttpProxy],
    connect: Connect,
) -> None:
    with WebJobsService(service) as behind:
        endpoint = new_endpoint(behind.port, "x-amzn-http-ca", "http/1.1")
        proxy = http_proxy(endpoint.port).proxy()
        for port in (443, 8443):
            site = new_site(port)
            device = connect(replace(site, link=replace(site.link, proxy=proxy)))
            device.next(Connected)
            device.stop()
    assert endpoint.protocols == ["x-amzn-http-ca", "http/1.1"]
