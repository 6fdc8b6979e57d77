"""The servers that other tests rely on do what those tests assume of them."""

from __future__ import annotations

import json
import queue
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Ministack, Mosquitto, Pki, Require

    Inbox = queue.SimpleQueue[tuple[str, Any]]


@contextmanager
def device(name: str, port: int, ca: Path, cert: Path, key: Path) -> Iterator[tuple[paho.Client, Inbox]]:
    """Connect as an ordinary device does; what happens comes through the inbox."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    inbox: Inbox = queue.SimpleQueue()
    client.on_connect = lambda *args: inbox.put(("connected", str(args[3])))
    client.on_disconnect = lambda *_: inbox.put(("disconnected", ""))
    client.on_subscribe = lambda *_: inbox.put(("subscribed", ""))
    client.on_message = lambda *args: inbox.put((args[2].topic, json.loads(args[2].payload)))
    client.tls_set(str(ca), str(cert), str(key))
    client.connect("localhost", port)
    client.loop_start()
    try:
        assert inbox.get(timeout=5) == ("connected", "Success")
        yield client, inbox
    finally:
        client.disconnect()
        client.loop_stop()


def test_mosquitto_carries_the_messages_of_a_device_with_a_certificate(mosquitto: Mosquitto, pki: Pki) -> None:
    with device("pump", mosquitto.port, pki.ca, *pki.device("pump")) as (client, inbox):
        client.subscribe("here/+", qos=1)
        assert inbox.get(timeout=5) == ("subscribed", "")
        client.publish("here/there", json.dumps({"a": 1}), qos=1)
        assert inbox.get(timeout=5) == ("here/there", {"a": 1})
    assert "u'pump'" in mosquitto.log.read_text()


def test_mosquitto_turns_away_a_device_without_a_certificate(mosquitto: Mosquitto, pki: Pki) -> None:
    context = ssl.create_default_context(cafile=str(pki.ca))
    plain = socket.create_connection(("localhost", mosquitto.port), 5)
    with pytest.raises(ssl.SSLError), context.wrap_socket(plain, server_hostname="localhost") as secured:
        secured.recv(1)  # TLS 1.3: the refusal comes after the handshake


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_mosquitto_comes_back_on_the_port_it_had(mosquitto: Mosquitto, pki: Pki, end: str) -> None:
    with device("pump", mosquitto.port, pki.ca, *pki.device("pump")) as (client, inbox):
        client.reconnect_delay_set(1, 1)
        getattr(mosquitto, end)()
        assert inbox.get(timeout=5) == ("disconnected", "")
        mosquitto.start()
        assert inbox.get(timeout=5) == ("connected", "Success")


def test_a_paused_mosquitto_answers_when_it_goes_on(mosquitto: Mosquitto, pki: Pki) -> None:
    with device("pump", mosquitto.port, pki.ca, *pki.device("pump")) as (client, inbox):
        mosquitto.pause()
        client.subscribe("here", qos=1)
        with pytest.raises(queue.Empty):
            inbox.get(timeout=0.2)
        mosquitto.resume()
        assert inbox.get(timeout=5) == ("subscribed", "")


def test_ministack_answers_get_next_with_the_job_that_was_created(ministack: Ministack) -> None:
    cert, key = ministack.new_thing("smoke-thing")
    iot = ministack.boto("iot")
    arn = iot.describe_thing(thingName="smoke-thing")["thingArn"]
    iot.create_job(jobId="smoke-job", targets=[arn], document='{"handler": "hello"}')

    topic = "$aws/things/smoke-thing/jobs/$next/get"
    with device("smoke-thing", ministack.mqtt_port, ministack.ca_path, cert, key) as (client, inbox):
        client.subscribe(f"{topic}/+", qos=1)
        assert inbox.get(timeout=5) == ("subscribed", "")
        client.publish(topic, json.dumps({"clientToken": "one"}), qos=1)
        answered, reply = inbox.get(timeout=5)

    assert answered == f"{topic}/accepted"
    assert reply["clientToken"] == "one"
    assert reply["execution"]["jobId"] == "smoke-job"
    assert reply["execution"]["status"] == "QUEUED"
    assert reply["execution"]["jobDocument"] == {"handler": "hello"}


def test_a_file_of_ours_is_for_nobody_else(pki: Pki) -> None:
    assert {path.stat().st_mode & 0o777 for path in pki.device("pump")} == {0o600}


def test_what_is_missing_skips_on_a_laptop(require: Require, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT TESTED: no-such-server"):
        require("no-such-server")


def test_what_is_missing_fails_in_ci(require: Require, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server"):
        require("no-such-server")


def test_a_program_is_found_outside_the_path_of_ordinary_users(require: Require) -> None:
    assert require("sh").endswith("/sh")
    assert require("json") == "json"
