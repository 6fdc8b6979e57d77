"""One MQTT connection with paho, from CONNECT to its end, and why it ended.

It does not connect again: that is for `paho`, with the numbers of `patience`.
"""

from __future__ import annotations

import errno
import logging
import select
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from thingjobs.errors import WireError
from thingjobs.jobs import RENEWED, Connected
from thingjobs.transport.dial import explain, tls_context
from thingjobs.transport.link import ALPN_443
from thingjobs.transport.patience import Cause, Ended, kind_of
from thingjobs.transport.topics import Topics
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request
    from thingjobs.transport.certificates import Certificates
    from thingjobs.transport.dial import Bell
    from thingjobs.transport.link import Link
    from thingjobs.transport.websocket import WebSocket

log = logging.getLogger("thingjobs.connection")

#: MQTT 5, reason codes of DISCONNECT: another connection came with our client id.
TAKEN_OVER = 0x8E
#: Unspecified error, implementation specific error, not authorized: AWS IoT Core, "MQTT 5 reason codes".
DENYING = frozenset({0x80, 0x83, 0x87})
#: What a connection that the other end closed looks like, beside its plain end.
CLOSED = frozenset({errno.ECONNRESET, errno.EPIPE})


class _Client(mqtt.Client):
    """paho over a socket that we opened, and keeping why it failed: it has no public way to either."""

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
        try:
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
        self._asked: list[str] = []
        self._lock = threading.Lock()
        #: Why the connection is to end, or ended; the first reason is the true one.
        self._reason = ""
        self._cause = Cause.LOST
        self._suspect = ""
        self._let_in = False
        self._ready_at: float | None = None
        #: Requests that the broker has not acknowledged yet, the oldest first.
        self._sent: deque[tuple[mqtt.MQTTMessageInfo, str]] = deque()
        self._asks = self._answers = 0
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
        # With this set, paho never writes from the caller's thread. It calls it only now and then, so it cannot ring.
        client.on_socket_register_write = _nothing
        clean: dict[str, Any] = {"clean_start": True} if link.version == mqtt.MQTTv5 else {}
        client.connect(link.host, link.port, keepalive=link.keep_alive, **clean)

    def part(self) -> None:
        """Part with paho's client: they hold each other and a TLS session until some far collection."""
        client = self._client
        client.on_connect = client.on_subscribe = client.on_message = client.on_publish = client.on_disconnect = None
        client.failure = None

    def ended(self) -> Ended:
        """Return how it ended."""
        if self._ready_at is None:
            unready = self._cause in (Cause.TAKEN, Cause.UNSUBSCRIBED)
            return Ended(self._cause if unready else Cause.UNREACHED)
        return Ended(self._cause, max(time.monotonic() - self._ready_at, 1e-3), self._suspect)

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        """Publish a request, if the connection is there."""
        if self._ready_at is None or self._reason:
            return
        with self._lock:
            topic, payload = self._topics.outgoing(request)
        if len(payload) > MAX_PAYLOAD_BYTES:
            log.error("cannot send %d bytes to %s: the service would close the connection", len(payload), topic)
            return
        self._asks += 1
        info = self._client.publish(topic, payload, qos=1)
        if info.rc == mqtt.MQTT_ERR_SUCCESS:
            self._sent.append((info, kind_of(request)))
        self._bell.ring()

    def withhold(self) -> None:
        """A request was held back: it will not be answered either."""
        self._asks += 1

    def renew(self) -> None:
        """End it, because somebody wants a new one."""
        if self._asks and not self._answers:
            where = f"{self._link.address} took {self._asks} requests and answered none"
            self._end(f"{where}; does the policy allow iot:Receive on {self._base}*?", Cause.DEAF)
        else:
            self._end(RENEWED, Cause.RENEWED)
        self._bell.ring()

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self, stopping: threading.Event, certificates: Certificates) -> str:
        """Do the socket work until the connection ends; return why it ended."""
        while (sock := self._client.socket()) is not None:
            if stopping.is_set():
                self._end("stopped", Cause.RENEWED)
            elif self._ready_at is None and time.monotonic() >= self._give_up:
                self._end(f"{self._link.address} did not answer {'SUBSCRIBE' if self._let_in else 'CONNECT'}")
            if self._reason:
                self._client.disconnect()
                self._client.loop_write()
                break
            self._turn(sock, certificates)
        return self._reason or "the connection was closed"

    @property
    def _base(self) -> str:
        return f"$aws/things/{self._link.thing}/jobs/"

    def _end(self, reason: str, cause: Cause = Cause.LOST) -> None:
        if not self._reason:
            self._cause = cause
            self._reason = reason

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
            self._settle()
        if found & select.POLLOUT or client.want_write():
            self._write()
            self._told = time.monotonic()
        if self._ready_at is not None and time.monotonic() >= self._due():
            client.loop_misc()
            self._heard = self._told = time.monotonic()
            if certificates.replaced(tls_context):
                self._end("the certificate files were replaced: connecting anew with them", Cause.RENEWED)

    def _write(self) -> None:
        try:
            if self._web is not None:
                self._web.flush()
            self._client.loop_write()
        except OSError as error:
            self._end(explain(error, self._link))

    def _settle(self) -> None:
        """Forget the requests that the broker has acknowledged. It does so in the order in which they were sent."""
        while self._sent and self._sent[0][0].is_published():
            self._accept(self._sent.popleft()[1])

    def _due(self) -> float:
        """Return when to look up though nothing happened: paho pings when nothing was sent or heard for so long."""
        if self._ready_at is None:
            return self._give_up
        return min(self._heard, self._told) + max(1, self._client.keepalive)

    # --- what paho calls, in the thread ---------------------------------------------------------------------------

    def _on_connect(self, _client: object, _data: object, _flags: object, reason: Any, _props: object) -> None:
        if reason.is_failure:
            us = self._link.client_id
            self._end(f"{self._link.address} refused the connection of client {us}: {reason}; is iot:Connect allowed?")
            return
        self._let_in = True
        self._subscribe()

    def _subscribe(self) -> None:
        """Ask for all filters in one packet, or for the next one."""
        count = 1 if self._one_by_one else len(self._filters)
        self._asked = [self._filters.popleft() for _ in range(count)]
        filters: list[tuple[str, Any]] = [(name, 1) for name in self._asked]
        if self._link.version == mqtt.MQTTv5:
            filters = [(name, SubscribeOptions(qos=1)) for name in self._asked]
        self._client.subscribe(filters)

    def _on_subscribe(self, _client: object, _data: object, _mid: int, reasons: list[Any], _props: object) -> None:
        refused = [name for name, code in zip(self._asked, reasons, strict=False) if code.is_failure]
        if refused:
            names = ", ".join(refused)
            self._end(f"the broker refused to let us subscribe to {names}: check the policy (iot:Subscribe)")
        elif self._filters:
            self._subscribe()
        else:
            self._ready_at = time.monotonic()
            self._tell(Connected())

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._answers += 1
        try:
            with self._lock:
                incoming = self._topics.incoming(message.topic, bytes(message.payload))
        except (WireError, ValueError) as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._tell(incoming)

    def _on_publish(self, _client: object, _data: object, mid: int, reason: Any, _props: object) -> None:
        if reason.is_failure:
            kind = next((kind for info, kind in tuple(self._sent) if info.mid == mid), "*")
            hint = f"does the policy allow iot:Publish on {self._base}{kind}?"
            log.warning("the broker refused a request: %s; %s", reason, hint)

    def _on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, _props: object) -> None:
        if self._reason:
            return  # it was us
        self._settle()
        if flags.is_disconnect_packet_from_server:
            self._told_why(reason)
        else:
            self._guess_why(str(reason))

    def _told_why(self, reason: Any) -> None:
        said = f"{self._link.address} ended the connection: {reason}"
        if reason.value == TAKEN_OVER:
            us = self._link.client_id
            self._end(f"{said}: another client uses the id {us}; give each its own (connection.client_id)", Cause.TAKEN)
        elif reason.value in DENYING:
            self._closed_on_us(said)
        else:
            self._end(said)

    def _guess_why(self, name: str) -> None:
        where, us, failure = self._link.address, self._link.client_id, self._client.failure
        if isinstance(failure, ssl.SSLError):
            self._end(explain(failure, self._link))
        elif name == "Keep alive timeout":
            self._end(f"{where} did not answer a ping")
        elif name == "Protocol error":
            self._end(f"{where} does not speak MQTT as we do{self._about_protocol()}")
        elif failure is not None and failure.errno not in CLOSED:
            self._end(f"{where}: {failure.strerror or failure}")
        else:
            how = failure.strerror if failure else "the connection was closed without a word"
            if self._let_in:
                self._closed_on_us(f"{where}: {how}")
            else:
                hint = self._about_protocol() or f"; may this certificate connect as {us}?"
                self._end(f"{where}: {how}, CONNECT was not answered{hint}")

    def _about_protocol(self) -> str:
        """Return what may be wrong with the protocol that TLS agreed on."""
        asked = self._link.protocol
        if asked and self._spoken != asked:
            return f"; it did not agree to {asked} (ALPN): is it AWS IoT, and does nothing on the way open TLS?"
        if not asked and self._link.port == 443 and not self._link.websocket:
            return f"; on port 443 AWS IoT wants a certificate, and {ALPN_443} (ALPN) with it"
        return ""

    def _closed_on_us(self, said: str) -> None:
        """The broker closed the connection: perhaps because of what we did last."""
        if self._ready_at is None:
            names = ", ".join(self._asked)
            self._end(f"{said}; does the policy allow iot:Subscribe on {names}?", Cause.UNSUBSCRIBED)
        elif self._sent:
            self._suspect = self._sent[0][1]
            self._end(f"{said}; does the policy allow iot:Publish on {self._base}{self._suspect}?")
        else:
            self._end(f"{said}; is there another client {self._link.client_id}?")


def _nothing(*_: object) -> None:
    """Stands where paho wants to be told something."""
