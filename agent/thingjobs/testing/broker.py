"""The simulated service behind a real MQTT broker, so that any MQTT client can be tested against it.

It is an ordinary client of the broker, one that may read and write every thing's Jobs topics. The real service
hands answers straight to the connection that asked; this one publishes them, so a device must have subscribed.
"""

from __future__ import annotations

import queue
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from paho.mqtt.reasoncodes import ReasonCode

    from thingjobs.testing.messages import Message
    from thingjobs.testing.service import JobsService

REQUEST_TOPICS = (
    "$aws/things/+/jobs/get",
    "$aws/things/+/jobs/start-next",
    "$aws/things/+/jobs/+/get",
    "$aws/things/+/jobs/+/update",
)
#: How often timers are looked at; the live service takes up to a minute.
TICK_SECONDS = 0.2


class BrokerJobsService:
    """Serves a `JobsService` on a broker from `start` to `stop`, or in a `with` block; reconnects by itself.

    Args:
        service: what answers.
        host: the broker.
        port: the broker's.
        tls: when given, TLS with this context.
        username: for the broker; None: it asks for none.
        password: for the broker.
    """

    def __init__(
        self,
        service: JobsService,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._service = service
        self._address = (host, port)
        self._unlisten: Callable[[], None] = _nothing
        #: What came of connecting: "" once the subscriptions are granted, else why not.
        self._outcome: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="jobs-service-timers", daemon=True)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if tls is not None:
            self._client.tls_set_context(tls)
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_socket_open = _send_at_once
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._received

    def start(self, timeout_s: float = 5.0) -> None:
        """Connect and subscribe; requests are answered from the moment this returns. An instance starts once.

        Raises:
            ConnectionError: that did not happen within `timeout_s`.
        """
        problem = self._connect(timeout_s)
        if problem:
            self._end_client()
            raise ConnectionError(f"cannot serve jobs on {self._address[0]}:{self._address[1]}: {problem}")
        self._unlisten = self._service.listen(None, self._publish)
        self._ticker.start()

    def stop(self) -> None:
        """Disconnect and end every thread; the service itself stays as it is."""
        self._unlisten()
        self._stopping.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._end_client()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _connect(self, timeout_s: float) -> str:
        try:
            self._client.connect(*self._address)
        except OSError as error:
            return str(error)
        self._client.loop_start()
        try:
            return self._outcome.get(timeout=timeout_s)
        except queue.Empty:
            return f"no answer within {timeout_s} s"

    def _end_client(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # As its own finaliser does, which may come after that of its sockets: then they are found unclosed.
        self._client._reset_sockets()  # noqa: SLF001

    def _connected(
        self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._outcome.put(str(reason))
        else:
            client.subscribe([(topic, 1) for topic in REQUEST_TOPICS])

    def _subscribed(self, _client: mqtt.Client, _userdata: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self._outcome.put(", ".join(refused))

    def _received(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        _, _, thing, _, suffix = message.topic.split("/", 4)
        self._service.handle(thing, suffix, bytes(message.payload), self._publish)

    def _publish(self, message: Message) -> None:
        self._client.publish(message.topic, message.payload, qos=1)

    def _tick(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            self._service.tick()


def _nothing() -> None:
    """Stand in for what there is not yet to undo."""


def _send_at_once(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    # Without this an answer waits for the acknowledgement of the one before: tens of milliseconds.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
