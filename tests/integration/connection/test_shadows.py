"""A named shadow is told something over each way to the service, and never in the way of a job."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.jobs import Connected, Disconnected, GetPending, Pending
from thingjobs.model import ThingName
from thingjobs.ports import Shadow
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.testing.web import Answer, WebJobsService
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Polls, Site
from thingjobs.transport.paho import PahoTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import PolicyBroker
    from tests.integration.connection.conftest import Device

    from thingjobs.ports import ShadowTransport
    from thingjobs.testing import JobsService
    from thingjobs.transport.reconnecting import Reconnecting

    NewDevice = Callable[[ShadowTransport], Device[Any]]

THING = ThingName("pump-7")
TOPIC = "$aws/things/pump-7/shadow/name/thingjobs/update"
PATIENCE_SECONDS = 20.0


def shadow(text: str = "first") -> Shadow:
    return Shadow("thingjobs", json.dumps({"state": {"reported": {"agent": text}}}).encode())


class Taken:
    """Counts how often a shadow was taken."""

    def __init__(self) -> None:
        self._times = threading.Semaphore(0)

    def __call__(self) -> None:
        self._times.release()

    def once(self) -> bool:
        """Whether it was, by now or soon."""
        return self._times.acquire(timeout=PATIENCE_SECONDS)

    def never(self) -> bool:
        """Whether it was not."""
        return not self._times.acquire(blocking=False)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def cloud(mosquitto: Mosquitto, pki: Pki) -> Iterator[queue.SimpleQueue[mqtt.MQTTMessage]]:
    """What is published for shadows, as the Device Shadow service gets it."""
    came: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
    ready = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="shadow-service")
    client.tls_set_context(pki.client_tls())
    client.on_message = lambda _client, _data, message: came.put(message)
    client.on_subscribe = lambda *_: ready.set()
    client.connect("localhost", mosquitto.port)
    client.subscribe("$aws/things/+/shadow/#", 1)
    client.loop_start()
    assert ready.wait(PATIENCE_SECONDS)
    yield came
    client.disconnect()
    client.loop_stop()


@pytest.fixture(params=["paho", "paho-311", "awsiot"])
def over_mqtt(request: pytest.FixtureRequest, mosquitto: Mosquitto, pki: Pki, require: Any) -> Reconnecting[Any]:
    """A transport that reaches Mosquitto."""
    certificate, key = pki.device(THING)
    version = 4 if request.param == "paho-311" else 5
    link = Link("localhost", mosquitto.port, THING, THING, 300, certificate, key, pki.ca, version=version)
    if request.param == "awsiot":
        require("awscrt")
        return AwsIotTransport(link, lambda: 0.02)
    return PahoTransport(link, lambda: 0.02)


@pytest.mark.usefixtures("served")
def test_what_a_shadow_says_is_published_once_at_qos_1_and_its_taking_is_told(
    over_mqtt: Reconnecting[Any], new_device: NewDevice, cloud: queue.SimpleQueue[mqtt.MQTTMessage], taken: Taken
) -> None:
    device = new_device(over_mqtt).start()
    device.works()
    over_mqtt.tell(shadow(), taken)
    message = cloud.get(timeout=PATIENCE_SECONDS)
    assert (message.topic, message.payload, message.qos) == (TOPIC, shadow().document, 1)
    assert taken.once()
    device.asks()
    assert cloud.empty()
    assert taken.never()


@pytest.mark.usefixtures("served")
def test_it_waits_for_nobody_and_is_left_out_while_a_request_is_under_way(
    over_mqtt: Reconnecting[Any],
    new_device: NewDevice,
    cloud: queue.SimpleQueue[mqtt.MQTTMessage],
    taken: Taken,
    mosquitto: Mosquitto,
) -> None:
    over_mqtt.tell(shadow("before the start"), taken)
    device = new_device(over_mqtt).start()
    device.works()
    mosquitto.pause()
    device.send(GetPending("under way"))
    over_mqtt.tell(shadow("in the way"), taken)
    mosquitto.resume()
    assert device.next(Pending).token == "under way"
    device.asks()
    over_mqtt.tell(shadow("quiet"), taken)
    assert b"quiet" in cloud.get(timeout=PATIENCE_SECONDS).payload
    assert taken.once()
    assert taken.never()


@pytest.mark.parametrize("over_mqtt", ["paho", "awsiot"], indirect=True)  # MQTT 3.1.1 has no reason codes
def test_one_that_the_broker_refuses_with_a_reason_code_leaves_the_connection_alone(
    over_mqtt: Reconnecting[Any],
    new_device: NewDevice,
    taken: Taken,
    mosquitto: Mosquitto,
    service: JobsService,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mosquitto.permit("user pump-7", "topic readwrite $aws/things/pump-7/jobs/#", "user cloud", "topic readwrite $aws/#")
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=pki.client_tls()):
        device = new_device(over_mqtt).start()
        device.works()
        over_mqtt.tell(shadow(), taken)
        device.asks()
        assert taken.never()
        assert not any(isinstance(came, Disconnected) for came in device.history)
    assert f"does the policy allow iot:Publish on {TOPIC}?" in caplog.text


@pytest.mark.parametrize("version", [5, 4])
def test_one_that_costs_the_connection_is_held_back_at_once_and_jobs_go_on(
    version: int,
    policy_broker: Callable[..., PolicyBroker],
    service: JobsService,
    new_device: NewDevice,
    taken: Taken,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "thingjobs")
    with policy_broker(service, version) as broker:
        broker.publish = "get|.*/get|[^/]+/update"
        transport = PahoTransport(broker.link, lambda: 0.02)
        device = new_device(transport).start()
        device.works()
        transport.tell(shadow(), taken)
        assert f"does the policy allow iot:Publish on {TOPIC}?" in device.reason()
        device.works()
        assert f"a connection ended right after a message to {TOPIC}: probably" in caplog.text
        denial = transport._history.denials["shadow/name/thingjobs/update"]
        assert 2400 <= denial.hold <= 4800
        for _ in range(3):
            transport.tell(shadow("again"), taken)
            device.asks()
        transport.renew()
        device.skip_to(Connected)
        transport.tell(shadow("again"), taken)
        device.asks()
        assert broker.log == ["connect", "publish name/thingjobs/update", "connect", "connect"]
        assert taken.never()
        device.stop()


# --- https --------------------------------------------------------------------------------------------------------


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    with WebJobsService(service, tls=pki.server_tls()) as serving:
        yield serving


@pytest.fixture
def over_https(web: WebJobsService, pki: Pki) -> HttpsTransport:
    certificate, key = pki.device(THING)
    link = Link("localhost", web.port, "unused", THING, 300, certificate, key, pki.ca, patience=PATIENCE_SECONDS)
    return HttpsTransport(Site(link), lambda: 0.02, polls=Polls(3600.0, 3600.0))


def test_over_https_it_is_one_post_to_the_same_host(
    web: WebJobsService, over_https: HttpsTransport, new_device: NewDevice, taken: Taken
) -> None:
    device = new_device(over_https).start()
    device.works()
    over_https.tell(shadow(), taken)
    assert taken.once()
    call = web.calls[-1]
    assert (call.method, call.path, call.query) == ("POST", "/things/pump-7/shadow", "name=thingjobs")
    assert web.shadows == {("pump-7", "thingjobs"): {"agent": "first"}}
    device.asks()


@pytest.mark.parametrize("answer", [Answer(403), Answer(0), Answer(429), Answer(500)], ids=lambda one: str(one.status))
def test_over_https_one_that_is_refused_or_lost_ends_nothing(
    web: WebJobsService,
    over_https: HttpsTransport,
    new_device: NewDevice,
    taken: Taken,
    answer: Answer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "thingjobs")
    device = new_device(over_https).start()
    device.works()
    with contextlib.ExitStack() as undo:
        undo.callback(web.interpose(lambda call: answer if call.path.endswith("/shadow") else None))
        over_https.tell(shadow(), taken)
        device.asks()
    assert taken.never()
    assert "shadow" in caplog.text
    assert not any(isinstance(came, Disconnected) for came in device.history)
    over_https.tell(shadow("again"), taken)
    assert taken.once()
