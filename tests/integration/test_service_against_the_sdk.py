"""The AWS IoT Device SDK's own Jobs client, over MQTT 5 and mutual TLS, as the judge of the simulated service."""

from __future__ import annotations

import queue
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Mosquitto, Pki, Require

THING = "sdk-thing"
PATIENCE_SECONDS = 20


class Device:
    """A device that knows nothing of us: awsiotsdk's IotJobsClientV2."""

    def __init__(self, port: int, pki: Pki) -> None:
        from awscrt.mqtt_request_response import ClientOptions
        from awsiot import iotjobs, mqtt5_client_builder

        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        certificate, key = pki.device(THING)
        self._mqtt = mqtt5_client_builder.mtls_from_path(
            endpoint="localhost",
            port=port,
            cert_filepath=str(certificate),
            pri_key_filepath=str(key),
            ca_filepath=str(pki.ca),
            client_id=THING,
            on_lifecycle_connection_success=lambda _: self.events.put("connected"),
            on_lifecycle_stopped=lambda _: self.events.put("stopped"),
        )
        self._mqtt.start()
        assert self.events.get(timeout=PATIENCE_SECONDS) == "connected"
        self.jobs = iotjobs.IotJobsClientV2(self._mqtt, ClientOptions(4, 4, 10))

    def stop(self) -> None:
        """Disconnect; the Jobs client goes first, it stands on the other."""
        del self.jobs
        self._mqtt.stop()
        assert self.events.get(timeout=PATIENCE_SECONDS) == "stopped"


@pytest.fixture
def service(require: Require, mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    """The simulated service behind Mosquitto."""
    require("awsiot")
    simulated = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    with BrokerJobsService(simulated, "localhost", mosquitto.port, tls=context):
        yield simulated


@pytest.fixture
def device(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[Device]:
    """A connected SDK client."""
    made = Device(mosquitto.port, pki)
    yield made
    made.stop()


def test_the_sdk_takes_a_job_from_the_simulated_service_to_its_end(service: JobsService, device: Device) -> None:
    from awsiot import iotjobs

    service.create_job("job-1", {"handler": "hello"}, [THING])
    described = device.jobs.describe_job_execution(
        iotjobs.DescribeJobExecutionRequest(thing_name=THING, job_id="$next", include_job_document=True)
    ).result(PATIENCE_SECONDS)
    started = device.jobs.start_next_pending_job_execution(
        iotjobs.StartNextPendingJobExecutionRequest(thing_name=THING, step_timeout_in_minutes=5)
    ).result(PATIENCE_SECONDS)
    updated = device.jobs.update_job_execution(
        iotjobs.UpdateJobExecutionRequest(
            thing_name=THING,
            job_id="job-1",
            status=iotjobs.JobStatus.SUCCEEDED,
            expected_version=2,
            execution_number=1,
            include_job_execution_state=True,
        )
    ).result(PATIENCE_SECONDS)

    assert described.execution.status == iotjobs.JobStatus.QUEUED
    assert described.execution.job_document == {"handler": "hello"}
    assert (started.execution.status, started.execution.version_number) == (iotjobs.JobStatus.IN_PROGRESS, 2)
    assert updated.execution_state.status == iotjobs.JobStatus.SUCCEEDED
    assert service.execution(THING, "job-1").status == "SUCCEEDED"


def test_the_sdk_reads_the_list_and_a_refusal_of_the_simulated_service(service: JobsService, device: Device) -> None:
    from awsiot import V2ServiceException, iotjobs

    service.create_job("job-1", {"handler": "hello"}, [THING])
    pending = device.jobs.get_pending_job_executions(iotjobs.GetPendingJobExecutionsRequest(thing_name=THING)).result(
        PATIENCE_SECONDS
    )
    with pytest.raises(V2ServiceException) as refused:
        device.jobs.update_job_execution(
            iotjobs.UpdateJobExecutionRequest(
                thing_name=THING, job_id="job-1", status=iotjobs.JobStatus.IN_PROGRESS, expected_version=9
            )
        ).result(PATIENCE_SECONDS)

    assert [summary.job_id for summary in pending.queued_jobs] == ["job-1"]
    error = refused.value.modeled_error
    assert error.code == iotjobs.RejectedErrorCode.VERSION_MISMATCH
    assert error.execution_state.version_number == 1


def test_the_sdk_is_told_of_a_job_by_the_simulated_service(service: JobsService, device: Device) -> None:
    from awscrt.mqtt_request_response import SubscriptionStatusEventType
    from awsiot import ServiceStreamOptions, iotjobs

    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stream = device.jobs.create_next_job_execution_changed_stream(
        iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=THING),
        ServiceStreamOptions(incoming_event_listener=told.put, subscription_status_listener=ready.put),
    )
    stream.open()
    assert ready.get(timeout=PATIENCE_SECONDS).type == SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED.value

    service.create_job("job-1", {"handler": "hello"}, [THING])

    event = told.get(timeout=PATIENCE_SECONDS)
    assert event.execution.job_id == "job-1"
    assert event.execution.job_document == {"handler": "hello"}
    del stream
