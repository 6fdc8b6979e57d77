"""The floor of the benchmarks with awsiot: a client of the AWS SDK that is connected, subscribed, and waits.

Run as a program by the benchmarks: `bare_awsiot.py PORT CA CERTIFICATE KEY THING KEEP_ALIVE`.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from awscrt import mqtt5
from awsiot import mqtt5_client_builder


def main() -> None:
    """Wait for ever."""
    port, ca, certificate, key, thing, keep_alive = sys.argv[1:]
    base = f"$aws/things/{thing}/jobs/"
    connected = threading.Event()
    client: Any = mqtt5_client_builder.mtls_from_path(
        endpoint="localhost",
        port=int(port),
        cert_filepath=certificate,
        pri_key_filepath=key,
        ca_filepath=ca,
        client_id=thing,
        keep_alive_interval_sec=int(keep_alive),
        on_lifecycle_connection_success=lambda _data: connected.set(),
    )
    client.start()
    connected.wait()
    suffixes = ("notify-next", "+/get/accepted", "+/update/accepted", "+/update/rejected")
    topics = [mqtt5.Subscription(topic_filter=base + suffix, qos=mqtt5.QoS.AT_LEAST_ONCE) for suffix in suffixes]
    client.subscribe(mqtt5.SubscribePacket(subscriptions=topics)).result()
    question = mqtt5.PublishPacket(
        topic=base + "$next/get", payload=b'{"clientToken": "1"}', qos=mqtt5.QoS.AT_LEAST_ONCE
    )
    client.publish(question).result()
    threading.Event().wait()


if __name__ == "__main__":
    main()
