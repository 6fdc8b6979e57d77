"""Why a connection of the transport awsiot ended or came to nothing, in one line, and what is done about it.

The test is the broker, packet by packet (`Puppet`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thingjobs.jobs import Connected, GetPending, Update
from thingjobs.model import JobId, Status, ThingName

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.mqtt.conftest import Puppet

    from thingjobs.transport.awsiot import AwsIotTransport

    Connect = Callable[..., Device[AwsIotTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


def test_a_broker_that_says_why_it_disconnects_is_quoted(awsiot: Connect, puppet: Puppet) -> None:
    why = b"\x1f\x00\x09too often"
    device = awsiot(puppet.link)
    for packet, words in [
        (b"\xe0\x02\x8b\x00", "Server shutting down"),
        (b"\xe0\x02\x8e\x00", "another client uses the id pump-7; give each its own (connection.client_id)"),
        (b"\xe0\x0e\x97" + bytes([len(why)]) + why, "Quota exceeded (too often)"),
        (b"\xe0\x02\x87\x00", "Not authorized; is there another client pump-7?"),
    ]:
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        peer.send(packet)
        reason = device.reason()
        assert reason.startswith(f"{puppet.link.address} ended the connection: ")
        assert words in reason


def test_a_rival_with_our_client_id_makes_us_wait_longer_each_time(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    waits = []
    for _ in range(5):
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        peer.send(b"\xe0\x02\x8e\x00")
        device.reason()
        waits.append(device.transport._history.wait)
    assert waits == sorted(waits)
    assert waits[-1] > 8 * waits[0]
    assert device.transport._history.rivalries == 5


def test_a_connection_that_the_broker_refuses_is_told_with_its_reason(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    for packet, words in [
        (b"\x20\x03\x00\x87\x00", "Not authorized"),
        (b"\x20\x0c\x00\x87\x09\x1f\x00\x06denied", "Not authorized (denied)"),
        (b"\x20\x03\x00\x9f\x00", "Connection rate exceeded"),
    ]:
        peer = puppet.answer()
        peer.packet(peer.CONNECT)
        peer.send(packet)
        refused = f"{puppet.link.address} refused the connection of client pump-7: {words}"
        assert device.reason() == f"{refused}; is iot:Connect allowed?"


def test_a_filter_that_the_broker_denies_is_named(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    packet_id, filters = peer.greet()
    peer.grant(packet_id, bytes([1, 0x87] + [1] * 6))
    names = f"the broker refused to let us subscribe to {filters[1]}: check the policy (iot:Subscribe)"
    assert device.reason() == names


def test_a_broker_that_closes_at_a_filter_is_found_out(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    for _ in range(2):
        peer = puppet.answer()
        peer.greet()
        peer.close()
        assert "does the policy allow iot:Subscribe on" in device.reason()
    peer = puppet.answer()
    packet_id, first = peer.greet()
    assert len(first) == 1
    peer.grant(packet_id, b"\x01")
    _, second = peer.subscribed()
    peer.close()
    assert device.reason().endswith(f"does the policy allow iot:Subscribe on {second[0]}?")


def test_a_request_that_the_broker_refuses_is_logged_and_the_connection_lives(
    awsiot: Connect, puppet: Puppet, caplog: pytest.LogCaptureFixture, eventually: Callable[..., Any]
) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    for token in ("first", "second"):
        device.send(GetPending(token))
        peer.send(b"\x40\x04" + peer.request() + b"\x87\x00")
    hint = "Not authorized; does the policy allow iot:Publish on $aws/things/pump-7/jobs/get?"
    eventually(lambda: caplog.text.count(f"the broker refused a request: {hint}") == 2)


def test_a_kind_of_request_after_which_the_broker_closes_is_held_back(
    awsiot: Connect, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    device = awsiot(puppet.link)
    for _ in range(3):
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.send(GetPending("denied"))
        peer.request()
        peer.close()
        hint = "does the policy allow iot:Publish on $aws/things/pump-7/jobs/get?"
        assert device.reason().endswith(hint)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(GetPending("held"))
    device.send(Update("other", JobId("greet"), 1, 1, Status.IN_PROGRESS, {}))
    assert b"other" in peer.packet(peer.PUBLISH)
    assert "held back for" in caplog.text


def test_a_kind_of_request_that_the_broker_took_is_not_suspected_any_more(
    awsiot: Connect, puppet: Puppet, eventually: Callable[..., Any]
) -> None:
    device = awsiot(puppet.link)
    for _ in range(2):
        peer = puppet.answer()
        peer.accept()
        device.next(Connected)
        device.send(GetPending("denied"))
        peer.request()
        peer.close()
        device.reason()
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(GetPending("taken"))
    assert device.transport._history.denials["get"].ends == 2
    peer.send(b"\x40\x02" + peer.request())
    eventually(lambda: not device.transport._history.denials)


def test_requests_that_nobody_answers_are_told_when_a_new_connection_is_asked_for(
    awsiot: Connect,
    puppet: Puppet,
) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    device.send(GetPending("silence"))
    peer.send(b"\x40\x02" + peer.request())
    device.transport.renew()
    assert device.reason() == (
        f"{puppet.link.address} took 1 requests and answered none; "
        "does the policy allow iot:Receive on $aws/things/pump-7/jobs/*?"
    )


def test_a_broker_that_stops_answering_is_given_up(awsiot: Connect, puppet: Puppet) -> None:
    impatient = awsiot(replace(puppet.link, patience=0.3))
    peer = puppet.answer()
    peer.packet(peer.CONNECT)
    assert impatient.reason() == f"{puppet.link.address} did not answer CONNECT"
    impatient.stop()
    device = awsiot(replace(puppet.link, patience=0.6))
    puppet.answer().greet()
    assert device.reason() == f"{puppet.link.address} did not answer SUBSCRIBE"


def test_a_broker_that_answers_no_ping_is_left(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(replace(puppet.link, keep_alive=1))
    puppet.answer().accept()
    device.next(Connected)
    assert device.reason() == f"{puppet.link.address} did not answer a ping"


def test_a_port_that_does_not_speak_mqtt_is_told(awsiot: Connect, puppet: Puppet) -> None:
    device = awsiot(puppet.link)
    peer = puppet.answer()
    peer.accept()
    device.next(Connected)
    peer.send(b"\x00\x00\x00\x00")
    assert device.reason().startswith(f"{puppet.link.address} does not speak MQTT as we do")
