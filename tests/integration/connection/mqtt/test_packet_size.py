"""How large a packet may be: what is announced to the broker, and what becomes of one that does not care."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.jobs import Connected, ListChanged
from thingjobs.transport.link import ANNOUNCED_PACKET_BYTES, MAX_PACKET_BYTES
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.mqtt.conftest import Puppet

    from thingjobs.testing import JobsService
    from thingjobs.transport.link import Link

TOPIC = "$aws/things/pump-7/jobs/notify"
BOTH = pytest.mark.parametrize("library", ["paho", "awsiot"])
#: 200 MB in the length of a packet: 7 bits each, the lowest first.
HUGE = 200_000_000
ANNOUNCED = b"\x30" + bytes([HUGE & 127 | 128, HUGE >> 7 & 127 | 128, HUGE >> 14 & 127 | 128, HUGE >> 21])
CONNACKS = {5: b"\x20\x03\0\0\0", 4: b"\x20\x02\0\0"}


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Callable[[str, Link], Device[Any]]:
    """Connects by a library's name."""
    return lambda library, link: request.getfixturevalue(library)(link)


@pytest.fixture
def publisher(mosquitto: Mosquitto, pki: Pki) -> Iterator[mqtt.Client]:
    """Somebody who may publish anything."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.tls_set_context(pki.client_tls("other"))
    client.connect("localhost", mosquitto.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@BOTH
def test_mqtt_5_tells_the_broker_how_large_a_packet_may_be(
    connect: Callable[[str, Link], Device[Any]], puppet: Puppet, library: str
) -> None:
    connect(library, puppet.link)
    hello = puppet.answer().packet(0x10)

    assert hello[10:16] == b"\x05\x27" + ANNOUNCED_PACKET_BYTES.to_bytes(4, "big"), "one property, and no other"


def test_the_largest_message_of_the_service_would_be_read(puppet: Puppet) -> None:
    assert len(TOPIC) + MAX_PAYLOAD_BYTES < MAX_PACKET_BYTES
    assert puppet.link.version == 5


@BOTH
@pytest.mark.usefixtures("served")
def test_a_message_that_is_larger_stays_with_the_broker_and_nothing_else_happens(
    connect: Callable[[str, Link], Device[Any]], link: Link, publisher: mqtt.Client, service: JobsService, library: str
) -> None:
    device = connect(library, link)
    device.works()

    publisher.publish(TOPIC, b"x" * (ANNOUNCED_PACKET_BYTES + 1), qos=1).wait_for_publish(20)
    service.create_job("job-1", {"handler": "x"}, ["pump-7"])

    assert [str(one.identity.job_id) for one in device.skip_to(ListChanged).queued] == ["job-1"]
    device.transport.renew()  # all that came before is behind us
    assert device.history.count(Connected()) == 1


@pytest.mark.parametrize("version", [5, 4])
def test_a_packet_without_end_is_not_made_room_for_and_the_next_connection_is_good(
    paho: Callable[[Link], Device[Any]], puppet: Puppet, version: int
) -> None:
    tracemalloc.start()
    try:
        device = paho(replace(puppet.link, version=version))
        peer = puppet.answer()
        peer.packet(peer.CONNECT)
        peer.send(CONNACKS[version] + ANNOUNCED + b"x" * 1000)
        said = device.reason()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert said == f"{puppet.link.address}: it sends a packet of {HUGE} bytes; AWS IoT sends none that large"
    assert most < 8 << 20
    again = puppet.answer()
    again.packet(again.CONNECT)
