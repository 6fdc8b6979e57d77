"""The doctor and the other ways to the service: HTTPS, the SDK, and the credentials provider."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest

from thingjobs.doctor import Mark
from thingjobs.testing.web import Answer, Call, WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Mosquitto
    from tests.integration.connection.doctor.conftest import Patient

    from thingjobs.testing import JobsService

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
SERVICE = {"connect", "subscribe", "jobs", "client id"}
AFTER_CONNECT = SERVICE - {"connect"}


def test_https_is_examined_by_its_own_transport(patient: Patient, web: WebJobsService, service: JobsService) -> None:
    patient.point_at(web.port, 'transport = "https"')
    report = patient.examine()
    assert report.marked(Mark.OK) == set(ALWAYS)
    assert report.of("jobs").text == "the Jobs service answers: nothing waits for pump-7"


def test_https_that_is_denied_is_named(patient: Patient, web: WebJobsService) -> None:
    patient.point_at(web.port, 'transport = "https"')
    web.interpose(lambda _: Answer(403, b'{"message": "Forbidden"}'))
    patient.examine().only("connect", "denies GetPendingJobExecutions", skipped=AFTER_CONNECT)


@pytest.mark.usefixtures("served")
def test_awsiot_is_examined_by_its_own_transport(
    patient: Patient, mosquitto: Mosquitto, require: Callable[[str], str]
) -> None:
    require("awscrt")
    patient.point_at(mosquitto.port, 'transport = "awsiot"')
    report = patient.examine()
    assert report.marked(Mark.OK) == set(ALWAYS)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(("status", "words"), [(200, ""), (403, "AWS IoT answers 403: Access Denied")])
def test_the_credentials_provider_is_asked_where_it_is_configured(
    patient: Patient, web: WebJobsService, status: int, words: str
) -> None:
    expires = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    names = {"accessKeyId": "AKIA1", "secretAccessKey": "hush", "sessionToken": "hushhush", "expiration": expires}
    good, bad = {"credentials": names}, {"message": "Access Denied"}

    def answer(call: Call) -> Answer:
        assert call.path == "/role-aliases/device-role/credentials"
        return Answer(status, json.dumps(good if status == 200 else bad).encode())

    web.interpose(answer)
    with patient.config.open("a") as config:
        config.write(f'[cloud]\nrole_alias = "device-role"\ncredentials_endpoint = "localhost:{web.port}"\n')
    report = patient.examine()
    if words:
        report.only("credentials", words)
    else:
        assert report.of("credentials").text.startswith(f"localhost:{web.port} gives credentials for device-role")
        assert not report.marked(Mark.FAILED, Mark.SKIPPED)
    assert "hush" not in str(report.findings)
