"""One MQTT connection with paho, from CONNECT to its end, and why it ended.

It does not connect again: that is for `paho`, with the numbers of `patience`.
"""

from __future__ import annotations

import errno
import logging
import select
import ssl
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from thingjobs.errors import WireError
from thingjobs.jobs import Connected
from thingjobs.transport.course import Course
from thingjobs.transport.dial import explain, tls_context
from thingjobs.transport.link import ALPN_443, ANNOUNCED_PACKET_BYTES, MAX_PACKET_BYTES
from thingjobs.transport.patience import kind_of, topic_of
from thingjobs.transport.topics import Topics
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request
    from thingjobs.ports import Shadow
    from thingjobs.transport.certificates import Certificates
    from thingjobs.transport.dial import Bell
    from thingjobs.transport.link import Link
    from thingjobs.transport.patience import Ended
    from thingjobs.transport.websocket import WebSocket

log = logging.getLogger("thingjobs.connection")

#: What a connection that the other end closed looks like, beside its plain end.
CLOSED = frozenset({errno.ECONNRESET, errno.EPIPE})


class _Client(mqtt.Client):
    """paho over a socket that we opened, with a bound on packets, and keeping why it failed: it has no public ways."""

    def __init__(self, link: Link, sock: socket.socket | WebSocket) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=link.client_id,
            clean_session=None if link.version == mqtt.MQTTv5 else True,
            protocol=MQTTProtocolVersion(link.version),
            reconnect_on_failure=False,
        )
        self._opened = sock
        self.failure: OSError | None = None

    def _create_socket_connection(self) -> Any:
        return self._opened

    def _sock_recv(self, bufsize: int) -> bytes:
        """Read what is missing of a packet: paho asks for all of it at once, and Python makes room for what is asked.

        Raises:
            OSError: there is nothing now, the connection broke, or the packet is larger than any that we wait for.
        """
        try:
            if bufsize > MAX_PACKET_BYTES:
                raise OSError(errno.EMSGSIZE, f"it sends a packet of {bufsize} bytes; AWS IoT sends none that large")
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = error
            raise

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = error
            raise


class Session:
    """MQTT over one connection.

    Args:
        link: where and as whom.
        sock: connected, TLS included; or a WebSocket over one, if the link says so.
        tell: takes what comes.
        bell: wakes the thread.
        accepted: is told each kind of request that the broker takes.
        one_by_one: whether to subscribe to one filter after another.
    """

    def __init__(
        self,
        link: Link,
        sock: socket.socket | WebSocket,
        tell: Callable[[Incoming], None],
        bell: Bell,
        accepted: Callable[[str], None],
        *,
        one_by_one: bool = False,
    ) -> None:
        self._link = link
        self._tell = tell
        self._bell = bell
        self._accept = accepted
        self._one_by_one = one_by_one
        self._topics = Topics(link.thing)
        self._filters = deque(self._topics.filters)
        self._course = Course(link)
        #: What other threads want done.
        self._wishes: deque[Callable[[], None]] = deque()
        self._heard = self._told = time.monotonic()
        self._give_up = self._told + link.patience
        #: How many bytes came that poll does not know of, because TLS or the WebSocket has taken them already.
        self._buffered: Callable[[], int] = getattr(sock, "pending", int)
        self._web: Any = sock if link.websocket else None
        self._spoken: str | None = getattr(sock, "selected_alpn_protocol", str)()
        self._client = client = _Client(link, sock)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        # With this set, paho leaves the writing to us.
        client.on_socket_register_write = _nothing
        client.connect(link.host, link.port, keepalive=link.keep_alive, **_of_version(link.version))

    def part(self) -> None:
        """Part with paho's client: they hold each other and a TLS session until some far collection."""
        client = self._client
        client.on_connect = client.on_subscribe = client.on_message = client.on_publish = client.on_disconnect = None
        client.failure = None

    def ended(self) -> Ended:
        """Return how it ended."""
        return self._course.ended(time.monotonic())

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        """Publish a request, if the connection is there: one that comes too early is not kept until it is."""
        if self._course.usable:
            self._later(partial(self._publish, request))

    def withhold(self) -> None:
        """A request was held back: it will not be answered either."""
        self._later(self._course.asks)

    def tell(self, shadow: Shadow) -> None:
        """Publish what a shadow is to say, if the connection is there and nothing else is under way."""
        # Asked here as well: what is under way may be acknowledged before the thread comes to this.
        if self._course.quiet and not self._wishes:
            self._later(partial(self._publish_shadow, shadow))

    def renew(self) -> None:
        """End it, because somebody wants a new one."""
        self._later(self._course.renewed)

    def _later(self, wish: Callable[[], None]) -> None:
        self._wishes.append(wish)
        self._bell.ring()

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self, stopping: threading.Event, certificates: Certificates) -> str:
        """Do the socket work until the connection ends; return why it ended."""
        course = self._course
        while (sock := self._client.socket()) is not None:
            while self._wishes:
                self._wishes.popleft()()
            if stopping.is_set():
                course.stopped()
            elif not course.ready and time.monotonic() >= self._give_up:
                course.gave_up()
            if course.reason:
                self._client.disconnect()
                self._client.loop_write()
                break
            self._turn(sock, certificates)
        return course.reason or "the connection was closed"

    def _turn(self, sock: Any, certificates: Certificates) -> None:
        """Sleep until there is something to do, and do it."""
        client = self._client
        if self._buffered():
            found = select.POLLIN
        else:
            unsent = client.want_write() or (self._web is not None and self._web.unsent)
            events = select.POLLIN | (select.POLLOUT if unsent else 0)
            found = self._bell.sleep(sock, events, self._due() - time.monotonic())
        # The times are taken after paho took its own: when a ping is due by ours, it is due by paho's too.
        if found & ~select.POLLOUT:
            client.loop_read()
            self._heard = time.monotonic()
        if found & select.POLLOUT or client.want_write():
            self._write()
            self._told = time.monotonic()
        pings = self._course.ready and time.monotonic() >= self._due()
        if pings:
            client.loop_misc()
            self._heard = self._told = time.monotonic()
        if self._course.usable and (pings or certificates.overdue) and certificates.replaced(tls_context):
            self._course.replaced()

    def _write(self) -> None:
        try:
            if self._web is not None:
                self._web.flush()
            self._client.loop_write()
        except OSError as error:
            self._course.end(explain(error, self._link))

    def _publish(self, request: Request) -> None:
        if not self._course.usable:
            return
        topic, payload = self._topics.outgoing(request)
        if len(payload) > MAX_PAYLOAD_BYTES:
            log.error("cannot send %d bytes to %s: the service would close the connection", len(payload), topic)
            return
        self._course.asks()
        info = self._client.publish(topic, payload, qos=1)
        if info.rc == mqtt.MQTT_ERR_SUCCESS:
            self._course.sent(info.mid, kind_of(request))

    def _publish_shadow(self, shadow: Shadow) -> None:
        if not self._course.quiet:
            return
        kind = kind_of(shadow)
        info = self._client.publish(topic_of(self._link.thing, kind), shadow.document, qos=1)
        if info.rc == mqtt.MQTT_ERR_SUCCESS:
            self._course.sent(info.mid, kind)

    def _due(self) -> float:
        """Return when to look up though nothing happened: paho pings when nothing was sent or heard for so long."""
        if not self._course.ready:
            return self._give_up
        return min(self._heard, self._told) + max(1, self._client.keepalive)

    # --- what paho calls, in the thread ---------------------------------------------------------------------------

    def _on_connect(self, _client: object, _data: object, _flags: object, reason: Any, _props: object) -> None:
        if reason.is_failure:
            self._course.refused(str(reason))
            return
        if self._course.let_in:
            self._course.not_understood(": it answered CONNECT twice")
            return
        self._course.let_in = True
        self._subscribe()

    def _subscribe(self) -> None:
        """Ask for all filters in one packet, or for the next one."""
        count = 1 if self._one_by_one else len(self._filters)
        asked = self._course.asked = [self._filters.popleft() for _ in range(count)]
        filters: list[tuple[str, Any]] = [(name, 1) for name in asked]
        if self._link.version == mqtt.MQTTv5:
            filters = [(name, SubscribeOptions(qos=1)) for name in asked]
        self._client.subscribe(filters)

    def _on_subscribe(self, _client: object, _data: object, _mid: int, reasons: list[Any], _props: object) -> None:
        if self._course.not_granted([code.value for code in reasons]):
            return
        if self._filters:
            self._subscribe()
        else:
            self._course.subscribed(time.monotonic())
            self._tell(Connected())

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._course.heard()
        try:
            incoming = self._topics.incoming(message.topic, bytes(message.payload))
        except (WireError, ValueError) as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._tell(incoming)

    def _on_publish(self, _client: object, _data: object, mid: int, reason: Any, _props: object) -> None:
        kind = self._course.acknowledged(mid, reason.value, str(reason))
        if kind:
            self._accept(kind)

    def _on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, _props: object) -> None:
        if self._course.reason:
            return  # it was us
        if flags.is_disconnect_packet_from_server:
            self._course.told_why(reason.value, str(reason))
        else:
            self._guess_why(str(reason))

    def _guess_why(self, name: str) -> None:
        course, failure = self._course, self._client.failure
        if isinstance(failure, ssl.SSLError):
            course.end(explain(failure, self._link))
        elif name == "Keep alive timeout":
            course.unanswered_ping()
        elif name == "Protocol error":
            hint = self._about_protocol()
            course.not_understood(f"; {hint}" if hint else "")
        elif failure is not None and failure.errno not in CLOSED:
            course.end(f"{self._link.address}: {failure.strerror or failure}")
        elif failure is not None:
            course.closed(str(failure.strerror), self._about_protocol())
        else:
            course.closed(hint=self._about_protocol())

    def _about_protocol(self) -> str:
        """Return what may be wrong with the protocol that TLS agreed on."""
        asked = self._link.protocol
        if asked and self._spoken != asked:
            return f"it did not agree to {asked} (ALPN): is it AWS IoT, and does nothing on the way open TLS?"
        if not asked and self._link.port == 443 and not self._link.websocket:
            return f"on port 443 AWS IoT wants a certificate, and {ALPN_443} (ALPN) with it"
        return ""


def _of_version(version: int) -> dict[str, Any]:
    """Return what else CONNECT says in a version of MQTT."""
    if version != mqtt.MQTTv5:
        return {}
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = ANNOUNCED_PACKET_BYTES
    return {"clean_start": True, "properties": properties}


def _nothing(*_: object) -> None:
    """Stands where paho wants to be told something."""
