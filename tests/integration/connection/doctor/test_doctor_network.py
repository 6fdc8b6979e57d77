"""What the doctor says of the way to the service: names, ports, proxies, and servers that are not the service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from thingjobs.doctor import Mark
from thingjobs.testing.web import WebJobsService

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Endpoint, HttpProxy, Swallowing
    from tests.integration.connection.doctor.conftest import Patient

    from thingjobs.testing import JobsService

SERVICE = {"connect", "subscribe", "jobs", "client id"}
AFTER_CONNECT = SERVICE - {"connect"}
BEHIND_TLS = {"tls", *SERVICE}
#: Less than any patience that was not given.
BRISK_SECONDS = 15.0


def test_a_name_that_does_not_resolve_is_named(patient: Patient) -> None:
    patient.rewrite('endpoint = "localhost"', 'endpoint = "no-such-host.invalid"')
    found = patient.examine().only("name", "the name no-such-host.invalid cannot be", skipped={"port", *BEHIND_TLS})
    assert "whether connection.endpoint is written right" in found.todo


def test_a_port_where_nobody_listens_is_named(patient: Patient, mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    found = patient.examine().only("port", f"localhost:{mosquitto.port} refuses the connection", skipped=BEHIND_TLS)
    assert "connection.port = 443" in found.todo


def test_a_port_that_swallows_what_is_sent_is_told_from_one_that_refuses(
    patient: Patient, swallowing: Swallowing
) -> None:
    patient.rewrite('endpoint = "localhost"', 'endpoint = "127.0.0.1"')
    patient.point_at(swallowing.port)
    report = patient.examine(reach=1.0)
    found = report.only("port", "does not answer within 1 s: what we send there is dropped", skipped=BEHIND_TLS)
    assert f"have the firewall let TCP to port {swallowing.port} out" in found.todo


@pytest.mark.parametrize("answers", [True, False])
def test_a_web_server_that_we_trust_is_told_from_a_broker(
    patient: Patient, web: WebJobsService, new_endpoint: Callable[..., Endpoint], pki: Pki, answers: bool
) -> None:
    """One that answers whatever it gets, and one that waits for the rest of the request."""

    def answer(tls: ssl.SSLSocket) -> None:
        if tls.recv(4096):
            tls.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    terse = new_endpoint(answer, tls=pki.server_tls(mutual=False))
    patient.point_at(terse.port if answers else web.port)
    found = patient.examine(session=20 if answers else 1).only(
        "connect", "is a web server, and no broker", skipped=AFTER_CONNECT
    )
    assert "connection.endpoint and connection.port" in found.todo


def test_a_port_without_tls_is_named(patient: Patient, service: JobsService) -> None:
    with WebJobsService(service) as plain:
        patient.point_at(plain.port)
        found = patient.examine().only("tls", f"TLS with localhost:{plain.port} failed", skipped=SERVICE)
    assert "connection.endpoint and connection.port" in found.todo


def test_a_broker_that_hangs_is_named_within_its_time(patient: Patient, mosquitto: Mosquitto) -> None:
    mosquitto.pause()
    began = time.monotonic()
    report = patient.examine(handshake=0.5)
    mosquitto.resume()
    assert time.monotonic() - began < BRISK_SECONDS
    report.only("tls", f"localhost:{mosquitto.port} does not answer within", skipped=SERVICE)


@pytest.mark.usefixtures("served")
def test_a_proxy_that_refuses_is_told_from_the_service_behind_it_and_no_password_is_shown(
    patient: Patient, mosquitto: Mosquitto, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(mosquitto.port, login="jobs:hush").port
    patient.point_at(443, f'proxy = "http://jobs:wrong-word@localhost:{proxy}"')
    report = patient.examine()
    found = report.only("proxy", f"the proxy localhost:{proxy} does not take the user jobs", skipped=BEHIND_TLS)
    assert "connection.proxy" in found.todo
    assert "wrong-word" not in str(report.findings)
    patient.rewrite("wrong-word", "hush")
    report = patient.examine()
    assert report.of("name").text == "localhost is 127.0.0.1"
    assert report.of("proxy").text == f"localhost:{proxy} lets us through to localhost:443"
    assert report.of("tls").text.startswith("localhost:443 does not know the protocol x-amzn-mqtt-ca (ALPN)")
    assert report.marked(Mark.WARNING) == {"tls"}, "Mosquitto knows no ALPN, and works all the same"
    assert not report.marked(Mark.FAILED, Mark.SKIPPED)
