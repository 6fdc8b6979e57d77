"""Certificates and the transport awsiot: wrong, not trusted, out of date, replaced while it runs."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thingjobs.clock import Reading
from thingjobs.jobs import Connected
from thingjobs.model import ThingName

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Device, Endpoint

    from thingjobs.transport.awsiot import AwsIotTransport
    from thingjobs.transport.link import Link

    Connect = Callable[..., Device[AwsIotTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


def test_what_is_wrong_with_the_files_is_said_in_one_line(
    awsiot: Connect, link: Link, pki: Pki, tmp_path: Path
) -> None:
    _, other = pki.device("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing that TLS knows")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    for wrong, words in [
        (replace(link, private_key=other), f"cannot use {link.certificate}: {other} is not its key"),
        (replace(link, private_key=tmp_path / "gone"), f"cannot read {tmp_path}/gone: No such file or directory"),
        (replace(link, certificate=garbage), f"cannot use {garbage} with"),
        (replace(link, ca=garbage), f"cannot use {garbage}: it holds no certificate in PEM form"),
        (replace(link, private_key=locked), f"cannot use {locked}: it is protected by a password"),
        (replace(link, host="nowhere.invalid"), "the name nowhere.invalid cannot be resolved"),
    ]:
        assert awsiot(wrong).reason().startswith(words)


def test_an_authority_that_is_another_is_told_although_the_library_keeps_it_to_itself(
    awsiot: Connect, link: Link, pki: Pki
) -> None:
    stranger, _ = pki.device("stranger")
    device = awsiot(replace(link, ca=stranger, patience=0.5))
    assert device.reason().startswith(f"{link.address} is not trusted: ")


def test_a_broker_that_does_not_accept_our_certificate_is_quoted_and_asked_only_once(
    awsiot: Connect, mosquitto: Mosquitto, link: Link, other_pki: Pki
) -> None:
    certificate, key = other_pki.device(THING)
    device = awsiot(replace(link, certificate=certificate, private_key=key))
    words = f"{link.address} does not accept us: unknown ca; is {certificate} registered, active and in date"
    for _ in range(4):
        assert device.reason().startswith(words)
    attempts = mosquitto.log.read_text().count("New connection from 127.0.0.1")
    assert attempts <= 4 + 1 + 1, "four of awscrt's and one of Python's; the next may have begun"


def test_an_expired_broker_is_tried_again_as_soon_as_the_clock_is_set(
    awsiot: Connect, mosquitto: Mosquitto, link: Link, pki: Pki
) -> None:
    reading = Reading(time.time(), 1000.0, synchronised=False)
    mosquitto.serve_with(*pki.dated("localhost", (-9, -2)))
    device = awsiot(replace(link, patience=0.5), read_clock=lambda: reading, roll=1.0)
    assert "no time service has set it yet" in device.reason()
    assert device.transport._history.wait == 0.5, "and not a second, which grows"
    mosquitto.serve_with(pki.server_cert, pki.server_key)
    reading = Reading(time.time(), 1000.0, synchronised=True)
    device.skip_to(Connected)


def test_certificates_that_were_replaced_on_disk_are_used_without_being_asked(
    awsiot: Connect, mosquitto: Mosquitto, link: Link, pki: Pki, tmp_path: Path
) -> None:
    def install(name: str) -> None:
        for path, source in zip((tmp_path / "device.pem", tmp_path / "device.key"), pki.device(name), strict=True):
            path.with_suffix(".new").write_bytes(source.read_bytes())
            path.with_suffix(".new").rename(path)

    install("year-1")
    device = awsiot(
        replace(link, keep_alive=1, certificate=tmp_path / "device.pem", private_key=tmp_path / "device.key")
    )
    device.next(Connected)
    install("year-2")
    assert device.reason() == "the certificate files were replaced: connecting anew with them"
    device.next(Connected)
    assert "u'year-2'" in mosquitto.log.read_text()


def test_tls_13_can_be_demanded(awsiot: Connect, anywhere: Link, overhear: Callable[..., tuple[Endpoint, Any]]) -> None:
    endpoint, _ = overhear()
    endpoint.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    there = replace(anywhere, port=endpoint.port)
    awsiot(there).next(Connected)
    assert "TLS" in awsiot(replace(there, tls_min="1.3", patience=0.5)).reason()
