"""The floor of the benchmarks: what a job client costs that promises nothing.

A bare paho loop: no journal, no checks, no retries, one child for each job. Run as a program by the benchmarks:
`bare.py PORT CA CERTIFICATE KEY THING KEEP_ALIVE PROGRAM`.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions


def main() -> None:  # noqa: C901, PLR0915 - a script, kept in one piece so that it can be read as the floor
    """Take jobs for ever."""
    port, ca, certificate, key, thing, keep_alive, program = sys.argv[1:]
    base = f"$aws/things/{thing}/jobs/"
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=thing, protocol=mqtt.MQTTv5)
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    client.tls_set_context(context)

    def publish(suffix: str, body: dict[str, Any]) -> None:
        client.publish(base + suffix, json.dumps(body), qos=1)

    def on_socket_open(_client: Any, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_connect(*_: Any) -> None:
        suffixes = ("notify-next", "+/get/accepted", "+/update/accepted", "+/update/rejected")
        client.subscribe([(base + suffix, SubscribeOptions(qos=1)) for suffix in suffixes])

    def on_subscribe(*_: Any) -> None:
        publish("$next/get", {"clientToken": "1"})

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        body = json.loads(message.payload)
        if message.topic.endswith("/update/accepted"):
            if body["executionState"]["status"] == "IN_PROGRESS":
                status = "SUCCEEDED" if subprocess.run([program], check=False).returncode == 0 else "FAILED"
                version = body["executionState"]["versionNumber"]
                publish(message.topic[len(base) : -len("/accepted")], update(status, version))
        elif execution := body.get("execution"):
            publish(f"{execution['jobId']}/update", update("IN_PROGRESS", execution["versionNumber"]))

    client.on_socket_open = on_socket_open
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.connect("localhost", int(port), keepalive=int(keep_alive))
    client.loop_forever()


def update(status: str, version: int) -> dict[str, Any]:
    """Return an update with an expected version."""
    return {"status": status, "expectedVersion": version, "includeJobExecutionState": True, "clientToken": "1"}


if __name__ == "__main__":
    main()
