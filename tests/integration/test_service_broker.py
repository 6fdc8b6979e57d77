"""The simulated service behind a real broker, and used by many threads at once."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.testing import JobsService, ManualClock
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki

    from thingjobs.testing import Message

THING = "pump-7"
PREFIX = f"$aws/things/{THING}/jobs/"


def context(pki: Pki, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(pki.ca))
    certificate, key = pki.device(name)
    made.load_cert_chain(certificate, key)
    return made


class Device:
    """An MQTT client that hears all that a thing is told."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=THING)
        self._client.tls_set_context(tls)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self._subscribe()
        self._client.on_subscribe = lambda *_: self._inbox.put(("subscribed", None))
        self._client.on_message = lambda *args: self._hear(args[2])
        self._client.connect("localhost", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, suffix: str, **body: Any) -> tuple[str, Any]:
        self._client.publish(PREFIX + suffix, json.dumps(body), qos=1)
        return self.next()

    def next(self) -> tuple[str, Any]:
        return self._inbox.get(timeout=10)

    def _subscribe(self) -> None:
        wanted = ("notify", "notify-next", "get/+", "start-next/+", "+/get/+", "+/update/+")
        self._client.subscribe([(PREFIX + suffix, 1) for suffix in wanted])

    def _hear(self, message: paho.MQTTMessage) -> None:
        self._inbox.put((message.topic.removeprefix(PREFIX), json.loads(message.payload)))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    return JobsService(clock)


@pytest.fixture
def served(mosquitto: Mosquitto, pki: Pki, service: JobsService) -> Iterator[BrokerJobsService]:
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context(pki, "cloud")) as broker:
        yield broker


@pytest.fixture
def device(mosquitto: Mosquitto, pki: Pki, served: BrokerJobsService) -> Iterator[Device]:
    connected = Device(mosquitto.port, context(pki, THING))
    assert connected.next() == ("subscribed", None)
    yield connected
    connected.close()


def test_a_device_finds_starts_and_ends_a_job_over_the_broker(service: JobsService, device: Device) -> None:
    service.create_job("greet", {"handler": "greet"}, [THING])
    assert device.next()[0] == "notify"
    assert device.next()[0] == "notify-next"
    assert device.ask("get", clientToken="1")[0] == "get/accepted"
    suffix, described = device.ask("$next/get", clientToken="2")
    assert (suffix, described["clientToken"]) == ("$next/get/accepted", "2")
    assert described["execution"]["jobDocument"] == {"handler": "greet"}
    assert device.ask("start-next")[0] == "start-next/accepted"
    assert device.ask("greet/get")[0] == "greet/get/accepted"
    assert device.ask("greet/update", status="SUCCEEDED", expectedVersion=1)[0] == "greet/update/rejected"
    assert device.ask("greet/update", status="SUCCEEDED", expectedVersion=2)[0] == "greet/update/accepted"
    assert [device.next()[0], device.next()[0]] == ["notify", "notify-next"]
    assert service.execution(THING, "greet").status == "SUCCEEDED"


def test_timers_fire_by_themselves(service: JobsService, device: Device, clock: ManualClock) -> None:
    service.create_job("greet", {}, [THING], in_progress_timeout_minutes=1)
    assert [device.next()[0], device.next()[0]] == ["notify", "notify-next"]
    device.ask("start-next")
    clock.advance(60)
    assert [device.next(), device.next()[0]] == [("notify", {"timestamp": clock(), "jobs": {}}), "notify-next"]
    assert service.execution(THING, "greet").status == "TIMED_OUT"


def test_a_broker_that_comes_back_is_served_again(mosquitto: Mosquitto, service: JobsService, device: Device) -> None:
    mosquitto.kill()
    mosquitto.start()
    assert device.next() == ("subscribed", None)
    # The service may be back later than the device: until then nobody hears the question.
    service.create_job("greet", {}, [THING])
    heard = [device.next()[0], device.next()[0]]
    assert heard == ["notify", "notify-next"]
    assert device.ask("start-next")[0] == "start-next/accepted"


def test_a_stopped_service_answers_nothing_and_keeps_its_state(
    mosquitto: Mosquitto, pki: Pki, service: JobsService, served: BrokerJobsService, device: Device
) -> None:
    service.create_job("greet", {}, [THING])
    assert [device.next()[0], device.next()[0]] == ["notify", "notify-next"]
    served.stop()
    service.cancel_job("greet")
    with pytest.raises(queue.Empty):
        device._inbox.get(timeout=0.2)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context(pki, "cloud")):
        assert "execution" not in device.ask("$next/get")[1]


def test_a_broker_that_is_not_there_is_named(service: JobsService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionError, match=rf"cannot serve jobs on 127\.0\.0\.1:{port}: .*refused"):
        BrokerJobsService(service, "127.0.0.1", port).start()


def test_a_broker_that_hangs_is_given_up(service: JobsService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConnectionError, match=r"no answer within 0\.1 s"):
            BrokerJobsService(service, "127.0.0.1", port).start(timeout_s=0.1)


def test_of_many_threads_that_claim_one_execution_one_wins(service: JobsService) -> None:
    service.create_job("job", {}, [THING])
    start = threading.Barrier(8)
    answers: list[Message] = []

    def claim() -> None:
        start.wait()
        service.handle(THING, "job/update", b'{"status":"IN_PROGRESS","expectedVersion":1}', answers.append)

    in_parallel(claim, 8)
    assert sorted(answer.accepted for answer in answers) == [False] * 7 + [True]


def test_many_threads_see_versions_and_notifications_in_one_order(service: JobsService) -> None:
    versions: list[int] = []
    heads: list[str | None] = []

    def note(message: Message) -> None:
        if message.suffix == "notify-next":
            heads.append((message.body.get("execution") or {}).get("jobId"))

    def report() -> None:
        for _ in range(50):
            service.handle(
                THING,
                "steady/update",
                b'{"status":"IN_PROGRESS","includeJobExecutionState":true}',
                lambda answer: versions.append(answer.body["executionState"]["versionNumber"]),
            )

    def drain() -> None:
        while (head := service.ask("other", "start-next")) and "execution" in head.body:
            service.ask("other", f"{head.body['execution']['jobId']}/update", {"status": "SUCCEEDED"})

    service.create_job("steady", {}, [THING])
    jobs = [f"job-{number}" for number in range(30)]
    for job_id in jobs:
        service.create_job(job_id, {}, ["other"])
    service.listen("other", note)
    in_parallel(report, 4, drain)
    assert versions == list(range(2, 202))
    assert heads == [*jobs[1:], None]


def in_parallel(work: Callable[[], None], times: int, *others: Callable[[], None]) -> None:
    threads = [threading.Thread(target=target) for target in (*[work] * times, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
