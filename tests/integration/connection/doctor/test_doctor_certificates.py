"""What the doctor says of certificates and of the clock by which they are judged: real ones, made on the spot."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from thingjobs.doctor import Mark

if TYPE_CHECKING:
    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.doctor.conftest import Patient

    from thingjobs.testing.web import WebJobsService

ALWAYS = (
    "config",
    "agent",
    "files",
    "certificate",
    "clock",
    "name",
    "port",
    "tls",
    "connect",
    "subscribe",
    "jobs",
    "client id",
)
DAY = 86_400
YEAR = 365 * DAY
SERVICE = {"connect", "subscribe", "jobs", "client id"}
BEHIND_TLS = {"tls", *SERVICE}


def test_an_authority_that_is_not_the_servers_is_named(patient: Patient, other_pki: Pki) -> None:
    patient.set("ca", f'"{other_pki.ca}"')
    found = patient.examine().only("tls", f"(connection.ca = {other_pki.ca})", skipped=SERVICE)
    assert "is not trusted" in found.text
    assert found.todo.startswith("put the certificate of the authority that signed the server's there")


@pytest.mark.parametrize("tls", ["tlsv1.2", "tlsv1.3"])
def test_a_certificate_of_ours_that_the_broker_does_not_know_fails_in_tls(
    patient: Patient, mosquitto: Mosquitto, other_pki: Pki, tls: str
) -> None:
    mosquitto.configure(cafile=other_pki.ca, tls_version=tls)
    found = patient.examine().only("tls", "does not accept us", skipped=SERVICE)
    assert "is registered and ACTIVE in the account and region of localhost" in found.todo


def test_an_expired_certificate_of_ours_is_named_with_its_date(patient: Patient, pki: Pki) -> None:
    patient.install((-9, -2))
    found = patient.examine().only("certificate", f"{patient.folder}/own.pem expired on 2", skipped=BEHIND_TLS)
    assert found.todo.startswith("put a new one and its key in its place")


@pytest.mark.usefixtures("served")
def test_a_certificate_that_expires_soon_is_a_warning(patient: Patient, pki: Pki) -> None:
    patient.install((-9, 8))
    found = patient.examine().of("certificate")
    assert (found.mark, "expires on 2" in found.text) == (Mark.WARNING, True)


def test_an_expired_certificate_of_the_server_is_the_servers_fault(
    patient: Patient, mosquitto: Mosquitto, pki: Pki
) -> None:
    mosquitto.serve_with(*pki.dated("localhost", (-9, -1)))
    found = patient.examine().only("tls", "is not trusted: certificate has expired", skipped=SERVICE)
    assert found.todo == "that is for whoever runs the server"


def test_a_key_of_another_certificate_is_named(patient: Patient, pki: Pki) -> None:
    _, key = pki.device("pump-9")
    patient.set("private_key", f'"{key}"')
    found = patient.examine().only("certificate", f"{key} is not the key of the certificate", skipped=BEHIND_TLS)
    assert found.todo == "set both to files that were made together"


@pytest.mark.usefixtures("served")
def test_a_name_in_the_certificate_that_is_not_the_things_is_a_hint_and_no_more(patient: Patient) -> None:
    patient.rewrite('name = "pump-7"', 'name = "pump-8"')
    report = patient.examine()
    assert report.marked(Mark.OK) == set(ALWAYS)
    said = report.of("certificate").text
    assert "signed by thingjobs test CA, valid until 2" in said
    assert said.endswith("; its name is pump-7 and the thing's is pump-8, which can be meant")


@pytest.mark.parametrize("years", [-1, 1], ids=["behind", "ahead"])
def test_a_clock_that_is_off_by_a_year_is_to_blame_and_no_certificate(patient: Patient, years: int) -> None:
    report = patient.examine(offset=years * YEAR, synchronised=False)
    found = report.only(
        "clock", "no time service has set it, and the server's certificate is valid", skipped=BEHIND_TLS
    )
    assert "and our certificate is valid" in found.text
    assert found.todo.startswith("set the clock")
    assert report.of("certificate").text.endswith("; by which clock, see there")


def test_a_server_whose_certificate_begins_in_a_year_shows_that_nobody_has_set_our_clock(
    patient: Patient, mosquitto: Mosquitto, pki: Pki
) -> None:
    mosquitto.serve_with(*pki.dated("localhost", (364, 700)))
    report = patient.examine(synchronised=False)
    found = report.only("clock", "the server's certificate is valid from", skipped=BEHIND_TLS)
    assert "our certificate" not in found.text


@pytest.mark.usefixtures("served")
def test_a_clock_that_nobody_has_set_and_that_fits_is_a_warning(patient: Patient) -> None:
    report = patient.examine(synchronised=False)
    assert report.marked(Mark.WARNING) == {"clock"}
    assert not report.marked(Mark.FAILED, Mark.SKIPPED)


@pytest.mark.parametrize("synchronised", [True, False])
def test_what_the_service_says_that_the_time_is_counts_more_than_anything(
    patient: Patient, web: WebJobsService, synchronised: bool
) -> None:
    """Half a year off: the certificate of this server is out of date by our clock, and ours is not there."""
    patient.point_at(web.port, 'transport = "https"')
    report = patient.examine(offset=-YEAR / 2, synchronised=synchronised)
    found = report.only("clock", "the service says ", skipped=BEHIND_TLS)
    assert dt.datetime.now(dt.UTC).strftime("the service says %Y-%m-%d") in found.text
