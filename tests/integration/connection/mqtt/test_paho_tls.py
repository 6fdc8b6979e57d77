"""What the transport paho asks of TLS: the version, and a key behind a password."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import Connected
from thingjobs.model import ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Device, Endpoint

    from thingjobs.transport.link import Link
    from thingjobs.transport.paho import PahoTransport

    Connect = Callable[[Link], Device[PahoTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


@pytest.fixture
def old(pki: Pki, new_endpoint: Callable[..., Endpoint]) -> Callable[[int], int]:
    """Gives ports that know nothing newer than TLS 1.2, before a plain one."""
    tls = pki.server_tls()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    return lambda port: new_endpoint(port, tls=tls).port


def test_tls_13_can_be_demanded(paho: Connect, link: Link, served: JobsService, old: Callable[[int], int]) -> None:
    paho(replace(link, tls_min="1.3")).works()
    port = old(link.port)
    reason = paho(replace(link, port=port, tls_min="1.3")).reason()
    assert reason == f"localhost:{port} does not speak TLS 1.3 (connection.tls_min)"


def test_tls_12_is_enough_where_nothing_else_is_demanded(
    paho: Connect, link: Link, mosquitto: Mosquitto, pki: Pki, old: Callable[[int], int]
) -> None:
    port = old(mosquitto.listen_without_tls())
    with BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=pki.client_tls()):
        paho(replace(link, port=port)).works()


def test_a_certificate_that_any_tool_makes_is_good_enough_for_every_python(
    paho: Connect, link: Link, mosquitto: Mosquitto, pki: Pki, new_endpoint: Callable[..., Endpoint]
) -> None:
    port = new_endpoint(mosquitto.listen_without_tls(), tls=pki.server_tls(pki.bare("localhost"))).port
    with BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=pki.client_tls()):
        paho(replace(link, port=port)).works()


@pytest.fixture(params=["pkcs8", "traditional"])
def locked(link: Link, tmp_path: Path, request: pytest.FixtureRequest) -> Link:
    """The link with its key behind a password."""
    from cryptography.hazmat.primitives import serialization as how

    assert link.private_key is not None
    key = how.load_pem_private_key(link.private_key.read_bytes(), None)
    form = how.PrivateFormat.PKCS8 if request.param == "pkcs8" else how.PrivateFormat.TraditionalOpenSSL
    path, secret = tmp_path / "locked.key", tmp_path / "password"
    path.write_bytes(key.private_bytes(how.Encoding.PEM, form, how.BestAvailableEncryption("pässword ".encode())))
    secret.write_bytes("pässword \n".encode())
    return replace(link, private_key=path, private_key_password_file=secret)


def test_a_key_with_a_password_is_used(paho: Connect, locked: Link, served: JobsService) -> None:
    paho(locked).works()


def test_a_password_that_is_not_the_keys_is_told_and_one_that_comes_later_is_used(
    paho: Connect, locked: Link, served: JobsService
) -> None:
    secret = locked.private_key_password_file
    assert secret is not None
    right = secret.read_bytes()
    secret.write_bytes(b"wr0ng\n")
    device = paho(locked)
    reason = device.reason()
    assert f"{secret} does not hold the key's password (connection.private_key_password_file)" in reason
    assert "wr0ng" not in reason
    secret.write_bytes(right)
    device.skip_to(Connected)
    device.asks()


def test_a_password_that_is_missing_is_told(paho: Connect, locked: Link, tmp_path: Path) -> None:
    reason = paho(replace(locked, private_key_password_file=None)).reason()
    assert "the key has a password; name the file that holds it in connection.private_key_password_file" in reason
    gone = paho(replace(locked, private_key_password_file=tmp_path / "gone")).reason()
    assert gone == f"cannot read {tmp_path / 'gone'}: No such file or directory"
