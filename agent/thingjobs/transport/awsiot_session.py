"""One MQTT 5 connection with awscrt, from CONNECT to its end, and why it ended.

awscrt calls from threads of its own. What it says goes into one queue, and one thread of ours takes it out: nothing
here needs a lock, and an exception of ours never meets a library that would swallow it.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from awscrt import mqtt5

from thingjobs.errors import WireError
from thingjobs.jobs import Connected
from thingjobs.transport.awsiot_library import Threads, client_of, code_of, name_of, reason_of, tls_context
from thingjobs.transport.awsiot_sockets import Sockets
from thingjobs.transport.course import Course
from thingjobs.transport.patience import Cause, kind_of, topic_of
from thingjobs.transport.topics import Topics
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request
    from thingjobs.ports import Shadow
    from thingjobs.transport.awsiot_settings import AwsIotSettings
    from thingjobs.transport.certificates import Certificates
    from thingjobs.transport.link import Link
    from thingjobs.transport.patience import Ended

log = logging.getLogger("thingjobs.connection")

#: How long awscrt may take to take leave of the broker; it is done in a millisecond, unless it is connecting.
PART_SECONDS = 0.2
#: Looking up the name, TCP and TLS, CONNECT: each has its own patience in awscrt, but the first.
STEPS = 3
#: awscrt's names for an end that has no words of its own because the other side said none.
CLOSED = frozenset({"AWS_ERROR_MQTT_UNEXPECTED_HANGUP", "AWS_IO_SOCKET_CLOSED", "AWS_IO_BROKEN_PIPE"})

Happened = tuple["Callable[[Any], None]", Any]


class Session:
    """MQTT over one connection.

    Args:
        link: where and as whom.
        settings: how.
        tell: takes what comes.
        accepted: is told each kind of request that the broker takes.
        explain: says why there was no connection, given what awscrt said.
        one_by_one: whether to subscribe to one filter after another.

    Raises:
        OSError: a file cannot be read.
        TransportError: a file does not hold what it should.
    """

    def __init__(
        self,
        link: Link,
        settings: AwsIotSettings,
        tell: Callable[[Incoming], None],
        accepted: Callable[[str], None],
        explain: Callable[[Exception | None], tuple[str, Cause]],
        *,
        one_by_one: bool = False,
    ) -> None:
        self._link = link
        self._settings = settings
        self._tell = tell
        self._accept = accepted
        self._explain = explain
        self._one_by_one = one_by_one
        self._topics = Topics(link.thing)
        self._filters = deque(self._topics.filters)
        self._course = Course(link)
        self._happened: queue.SimpleQueue[Happened] = queue.SimpleQueue()
        self._numbers = 0
        self._parted = False
        self._give_up = time.monotonic() + STEPS * link.patience
        self._sockets = Sockets(link.proxy.port if link.proxy else link.port)
        self._threads = Threads()
        callbacks = {
            "on_lifecycle_event_connection_success_fn": self._on_connect,
            "on_lifecycle_event_connection_failure_fn": self._on_no_connection,
            "on_lifecycle_event_disconnection_fn": self._on_disconnect,
            "on_lifecycle_event_stopped_fn": self._on_stopped,
            "on_publish_callback_fn": self._on_message,
        }
        try:
            later = {name: partial(self._later, callback) for name, callback in callbacks.items()}
            self._client: mqtt5.Client | None = client_of(link, settings, self._threads, later)
        except BaseException:
            self._threads.close()
            raise

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        """Publish a request, if the connection is there: one that comes too early is not kept until it is."""
        if self._course.usable:
            self._later(self._publish, request)

    def withhold(self) -> None:
        """A request was held back: it will not be answered either."""
        self._later(lambda _: self._course.asks(), None)

    def tell(self, shadow: Shadow) -> None:
        """Publish what a shadow is to say, if the connection is there and nothing else is under way."""
        self._later(self._publish_shadow, shadow)

    def renew(self) -> None:
        """End it, because somebody wants a new one."""
        self._later(lambda _: self._course.renewed(), None)

    def stop(self) -> None:
        """End it for good."""
        self._later(lambda _: self._course.stopped(), None)

    def _later(self, what: Callable[[Any], None], data: Any) -> None:
        self._happened.put((what, data))

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self, certificates: Certificates) -> tuple[str, Ended]:
        """Deal with what happens until the connection ends; return why it ended, for people and for `patience`."""
        assert self._client is not None  # noqa: S101 - it is served once
        self._client.start()
        try:
            while not self._course.reason:
                self._turn(certificates)
            return self._course.reason, self._course.ended(time.monotonic())
        finally:
            self._part()

    def _turn(self, certificates: Certificates) -> None:
        """Sleep until something happens, and deal with it."""
        course = self._course
        seconds = self._link.keep_alive if course.ready else self._give_up - time.monotonic()
        try:
            what, data = self._happened.get(timeout=max(0.0, seconds))
        except queue.Empty:
            if not course.ready:
                self._gave_up()
        else:
            what(data)
        if course.usable and certificates.overdue and certificates.replaced(self._can_use):
            course.replaced()

    def _can_use(self, link: Link) -> None:
        tls_context(link, self._settings)

    def _part(self) -> None:
        """Take leave of the broker; what is still connecting is cut off."""
        assert self._client is not None  # noqa: S101 - it is served once
        self._client.stop(mqtt5.DisconnectPacket(mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION))
        self._await_parting()
        if not self._parted:
            self._sockets.cut()
            self._await_parting()

    def _await_parting(self) -> None:
        until = time.monotonic() + PART_SECONDS
        while not self._parted and (left := until - time.monotonic()) > 0:
            try:
                what, data = self._happened.get(timeout=left)
            except queue.Empty:
                break
            if what == self._on_stopped:
                what(data)

    def close(self) -> None:
        """End awscrt's threads; one that is looking up a name is left behind, to end by itself."""
        # No frame holds it, or whoever keeps an exception of ours would keep awscrt's threads.
        self._client = None
        self._threads.close()

    # --- what awscrt says, in our thread --------------------------------------------------------------------------

    def _on_connect(self, _data: object) -> None:
        self._course.let_in = True
        self._sockets.hasten()
        self._subscribe()

    def _subscribe(self) -> None:
        """Ask for all filters in one packet, or for the next one."""
        assert self._client is not None  # noqa: S101 - this comes from its callbacks
        count = 1 if self._one_by_one else len(self._filters)
        asked = self._course.asked = [self._filters.popleft() for _ in range(count)]
        wanted = [mqtt5.Subscription(topic_filter=name, qos=mqtt5.QoS.AT_LEAST_ONCE) for name in asked]
        future = self._client.subscribe(mqtt5.SubscribePacket(subscriptions=wanted))
        future.add_done_callback(partial(self._later, self._on_subscribe))

    def _on_subscribe(self, done: Any) -> None:
        if done.exception() is not None or self._course.not_granted(
            [code_of(code) for code in done.result().reason_codes]
        ):
            return  # the end of the connection is told by itself
        if self._filters:
            self._subscribe()
        else:
            self._course.subscribed(time.monotonic())
            self._tell(Connected())

    def _publish(self, request: Request) -> None:
        if self._client is None or not self._course.usable:
            return
        topic, payload = self._topics.outgoing(request)
        if len(payload) > MAX_PAYLOAD_BYTES:
            log.error("cannot send %d bytes to %s: the service would close the connection", len(payload), topic)
            return
        self._course.asks()
        self._hand_over(self._client, kind_of(request), topic, payload)

    def _publish_shadow(self, shadow: Shadow) -> None:
        if self._client is not None and self._course.quiet:
            kind = kind_of(shadow)
            self._hand_over(self._client, kind, topic_of(self._link.thing, kind), shadow.document)

    def _hand_over(self, client: mqtt5.Client, kind: str, topic: str, payload: bytes) -> None:
        self._numbers += 1
        self._course.sent(self._numbers, kind)
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        future = client.publish(packet)
        future.add_done_callback(partial(self._later, partial(self._on_published, self._numbers)))

    def _on_published(self, number: int, done: Any) -> None:
        if done.exception() is not None:
            return  # the end of the connection is told by itself
        puback = done.result().puback
        name = reason_of(puback.reason_code, puback.reason_string)
        kind = self._course.acknowledged(number, code_of(puback.reason_code), name)
        if kind:
            self._accept(kind)

    def _on_message(self, data: Any) -> None:
        self._course.heard()
        packet = data.publish_packet
        try:
            incoming = self._topics.incoming(packet.topic, packet.payload or b"")
        except (WireError, ValueError) as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._tell(incoming)

    def _on_no_connection(self, data: Any) -> None:
        if data.connack_packet is not None:
            self._course.refused(reason_of(data.connack_packet.reason_code, data.connack_packet.reason_string))
        elif name_of(data.exception) == "AWS_ERROR_MQTT5_CONNACK_TIMEOUT":
            self._course.gave_up()
        else:
            reason, cause = self._explain(data.exception)
            self._course.end(reason, cause) if reason else self._course.closed()

    def _gave_up(self) -> None:
        """Nothing came of connecting in all this time."""
        reason, cause = ("", Cause.UNREACHED) if self._course.let_in else self._explain(None)
        self._course.end(reason, cause) if reason else self._course.gave_up()

    def _on_disconnect(self, data: Any) -> None:
        packet, name = data.disconnect_packet, name_of(data.exception)
        if packet is not None:
            self._course.told_why(code_of(packet.reason_code), reason_of(packet.reason_code, packet.reason_string))
        elif name in CLOSED:
            self._course.closed()
        elif name == "AWS_ERROR_MQTT5_PING_RESPONSE_TIMEOUT":
            self._course.unanswered_ping()
        elif name.startswith("AWS_ERROR_MQTT"):
            self._course.not_understood(f" ({name})")
        else:
            self._course.end(*self._explain(data.exception))

    def _on_stopped(self, _data: object) -> None:
        self._parted = True
