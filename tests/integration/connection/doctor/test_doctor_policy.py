"""What the doctor says of a policy that denies something, and of others with our client id.

`PolicyBroker` closes the connection as AWS IoT does, where Mosquitto is too kind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.doctor import Mark
from thingjobs.model import ThingName
from thingjobs.transport.link import Link
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import PolicyBroker
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.doctor.conftest import Patient, Report

    from thingjobs.testing import JobsService

THING = "pump-7"
SERVICE = {"connect", "subscribe", "jobs", "client id"}
AFTER_CONNECT = SERVICE - {"connect"}


BROKERS = pytest.mark.parametrize(
    ("version", "says"),
    [
        pytest.param(5, True, id="mqtt5"),
        pytest.param(5, False, id="mqtt5-silent"),
        pytest.param(4, False, id="mqtt311"),
    ],
)


@pytest.fixture
def denied(
    new_patient: Callable[..., Patient], service: JobsService, policy_broker: Callable[..., PolicyBroker]
) -> Callable[..., Report]:
    """Examines a device whose policy denies something; the broker has no TLS, which is the one warning."""

    def run(version: int, says: bool, **denies: Any) -> Report:
        with policy_broker(service, version, says=says) as broker:
            patient = new_patient(broker.link.port, host="127.0.0.1")
            for key in ("certificate", "private_key", "ca"):
                patient.set(key, '""')
            if version == 4:
                patient.point_at(broker.link.port, 'mqtt_version = "3.1.1"')
            for name, value in denies.items():
                setattr(broker, name, value)
            report = patient.examine(reply=0.5)
        assert report.marked(Mark.WARNING) == {"tls"}
        report.findings = [replace(one, mark=Mark.OK) if one.check == "tls" else one for one in report.findings]
        return report

    return run


@pytest.fixture
def link(mosquitto: Mosquitto, pki: Pki) -> Link:
    """As the device connects."""
    certificate, key = pki.device(THING)
    return Link("localhost", mosquitto.port, THING, ThingName(THING), 300, certificate, key, pki.ca)


@BROKERS
def test_a_policy_that_denies_connect_is_named(denied: Callable[..., Report], version: int, says: bool) -> None:
    report = denied(version, says, connect="someone else")
    found = report.only("connect", "pump-7", skipped=AFTER_CONNECT)
    assert "allows iot:Connect on client/pump-7" in found.todo


@BROKERS
def test_a_policy_that_denies_subscribe_is_named_with_the_filter(
    denied: Callable[..., Report], version: int, says: bool
) -> None:
    report = denied(version, says, subscribe="(?!notify-next).*")
    found = report.only("subscribe", "$aws/things/pump-7/jobs/notify-next", skipped={"jobs", "client id"})
    assert "notify," not in found.text
    assert "iot:Subscribe on topicfilter/$aws/things/pump-7/jobs/*" in found.todo


@BROKERS
def test_a_policy_that_denies_publish_is_named_with_the_topic(
    denied: Callable[..., Report], version: int, says: bool
) -> None:
    report = denied(version, says, publish=r"(?!\$next).*")
    found = report.only("jobs", "$next/get", skipped={"client id"})
    assert "allow iot:Publish on topic/$aws/things/pump-7/jobs/$next/get" in found.todo


@BROKERS
def test_silence_says_both_reasons_and_how_to_tell_them_apart(
    denied: Callable[..., Report], version: int, says: bool
) -> None:
    report = denied(version, says, receive=False)
    found = report.only("jobs", "$next/get was taken, and nothing came back", skipped={"client id"})
    assert "iot:Receive on topic/$aws/things/pump-7/jobs/*" in found.todo
    assert "aws iot describe-thing --thing-name pump-7" in found.todo


@pytest.mark.usefixtures("served")
def test_a_broker_that_answers_a_denied_publish_is_heard(patient: Patient, mosquitto: Mosquitto) -> None:
    mosquitto.permit("user cloud", "topic readwrite #", "user pump-7", "topic read #")
    found = patient.examine().only("jobs", "$next/get: Not authorized", skipped={"client id"})
    assert "allow iot:Publish on topic/$aws/things/pump-7/jobs/$next/get" in found.todo


@pytest.mark.usefixtures("served")
def test_another_client_with_our_id_is_named(
    patient: Patient, link: Link, new_device: Callable[[PahoTransport], Device[PahoTransport]]
) -> None:
    new_device(PahoTransport(link, lambda: 0.02)).start()
    report = patient.examine(rival=20.0)
    assert report.marked(Mark.FAILED) == {"client id"}
    assert "another client came as pump-7" in report.of("client id").text  # Mosquitto does not always say so itself.
    assert "give each device its own connection.client_id" in report.of("client id").todo
    assert report.of("connect").mark is Mark.OK


@pytest.mark.usefixtures("served")
def test_the_agent_that_runs_here_is_left_alone_and_the_jobs_service_asked_as_somebody_beside_it(
    patient: Patient, mosquitto: Mosquitto, eventually: Callable[..., Any]
) -> None:
    patient.agent.start()
    eventually(lambda: patient.agent.status()["connected"])
    report = patient.examine()
    assert not report.marked(Mark.FAILED, Mark.WARNING)
    assert report.of("agent").text.startswith(f"one runs on {patient.state}, connected for ")
    assert report.of("connect").text.startswith("the agent that runs here has been connected as pump-7 for 0:00:")
    assert report.of("jobs").text == "the Jobs service answers: nothing waits for pump-7"
    assert report.marked(Mark.SKIPPED) == {"client id"}, "it has not been connected for long"
    assert "as pump-7-check " in mosquitto.log.read_text()
    assert mosquitto.log.read_text().count("as pump-7 ") == 1
    assert patient.agent.stop() == 0


@pytest.mark.usefixtures("served")
def test_what_only_the_agents_own_id_is_allowed_is_not_called_wrong_while_it_runs(
    patient: Patient, mosquitto: Mosquitto, eventually: Callable[..., Any]
) -> None:
    mosquitto.permit("user cloud", "topic readwrite #", "pattern readwrite $aws/things/%c/jobs/#")
    patient.agent.start()
    eventually(lambda: patient.agent.status()["connected"])
    report = patient.examine()
    assert not report.marked(Mark.FAILED, Mark.WARNING)
    assert report.marked(Mark.SKIPPED) == {"jobs", "client id"}
    assert "pump-7-check, tried in its place, may be allowed less (Not authorized)" in report.of("jobs").text
    assert "stop the agent and check again" in report.of("jobs").todo
    patient.agent.stop()
