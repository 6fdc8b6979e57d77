"""MQTT over mutual TLS with paho-mqtt: the default way to reach AWS IoT, and any other broker.

Each connection is a client object of its own, with certificates read anew: nothing is left over from the one before,
so paho never resends an old request after a reconnect, and a certificate that was replaced on disk is used. One
thread does all socket work, opening included; other threads only leave a wish and ring its bell. It sleeps until
there is traffic, a ring, or a ping is due, and never wakes once a second.
"""

from __future__ import annotations

import contextlib
import logging
import select
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from thingjobs.errors import TransportError, WireError
from thingjobs.jobs import Connected, Disconnected
from thingjobs.policy import backoff
from thingjobs.transport.dial import Bell, Dial, Link, explain
from thingjobs.transport.topics import Topics
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request

log = logging.getLogger("thingjobs.connection")

#: A connection that was up this long was a good one: the next one is tried soon.
GOOD_SECONDS = 60.0
#: Only the lookup of a name cannot be interrupted; a thread that is in one is left behind, to end by itself.
STOP_SECONDS = 2.0
#: MQTT 5, DISCONNECT: another connection came with our client id.
TAKEN_OVER = 0x8E


class PahoTransport:
    """MQTT with paho.

    Args:
        link: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
    """

    def __init__(self, link: Link, roll: Callable[[], float], delay: float = 0.0) -> None:
        self._link = link
        self._roll = roll
        self._delay = delay
        self._put: Callable[[Incoming], None] = _nowhere
        self._bell = Bell()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._session: _Session | None = None

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin to connect; everything that happens is given to `put`."""
        self._put = put
        self._thread.start()

    def send(self, request: Request) -> None:
        """Publish a request with QoS 1; without a connection it is dropped, and gets no reply."""
        session = self._session
        if session is not None:
            session.send(request)

    def renew(self) -> None:
        """Drop the connection and open a new one; where there is none, one is being opened anyway."""
        session = self._session
        if session is not None:
            session.renew()

    def stop(self) -> None:
        """Disconnect, end the thread, put nothing more."""
        self._stopping.set()
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        else:
            self._bell.close()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        tries, wait = 0, self._delay
        while not self._stopping.wait(wait):
            reason, good = self._hold_one()
            self._tell(Disconnected(reason))
            tries = 1 if good else tries + 1
            wait = backoff(tries, self._roll())
            log.debug("next connection in %.1f s", wait)
        self._bell.close()

    def _tell(self, incoming: Incoming) -> None:
        if not self._stopping.is_set():
            self._put(incoming)

    def _hold_one(self) -> tuple[str, bool]:
        """Hold one connection until it ends; return why it did, and whether the next may be tried soon."""
        try:
            with contextlib.closing(Dial(self._link, self._bell, self._stopping).open()) as sock:
                self._session = session = _Session(self._link, sock, self._tell, self._bell)
                return session.serve(self._stopping), session.good()
        except (OSError, ValueError, TransportError) as error:
            return explain(error, self._link), False
        except Exception as error:
            log.warning("the connection ended in an error", exc_info=True)
            return explain(error, self._link), False
        finally:
            self._session = None


class _Client(mqtt.Client):
    """paho over a socket that we opened, and keeping why it failed: it has no public way to either."""

    def __init__(self, link: Link, sock: socket.socket) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=link.client_id,
            clean_session=None if link.version == mqtt.MQTTv5 else True,
            protocol=MQTTProtocolVersion(link.version),
            reconnect_on_failure=False,
        )
        self._opened = sock
        self.failure: OSError | None = None

    def _create_socket_connection(self) -> socket.socket:
        return self._opened

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = error
            raise


class _Session:
    """MQTT over one connection, from CONNECT to its end."""

    def __init__(self, link: Link, sock: socket.socket, tell: Callable[[Incoming], None], bell: Bell) -> None:
        self._link = link
        self._tell = tell
        self._bell = bell
        self._topics = Topics(link.thing)
        self._lock = threading.Lock()
        #: Why the connection is to end, or ended; the first reason is the true one.
        self._reason = ""
        self._accepted = False
        self._ready_at: float | None = None
        self._renewed = False
        self._heard = self._told = time.monotonic()
        self._give_up = self._told + link.patience
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

    def good(self) -> bool:
        """Return whether it lasted, or ended only because we wanted a new one."""
        lasted = self._ready_at is not None and time.monotonic() - self._ready_at > GOOD_SECONDS
        return self._renewed or lasted

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        if self._ready_at is None or self._reason:
            return
        with self._lock:
            topic, payload = self._topics.outgoing(request)
        if len(payload) > MAX_PAYLOAD_BYTES:
            log.error("cannot send %d bytes to %s: the service would close the connection", len(payload), topic)
            return
        self._client.publish(topic, payload, qos=1)
        self._bell.ring()

    def renew(self) -> None:
        self._renewed = True
        self._reason = self._reason or "a new connection was asked for"
        self._bell.ring()

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self, stopping: threading.Event) -> str:
        """Do the socket work until the connection ends; return why it ended."""
        while (sock := self._client.socket()) is not None:
            if stopping.is_set():
                self._end("stopped")
            elif self._ready_at is None and time.monotonic() >= self._give_up:
                self._end(f"{self._link.address} did not answer {'SUBSCRIBE' if self._accepted else 'CONNECT'}")
            if self._reason:
                self._client.disconnect()
                self._client.loop_write()
                break
            self._turn(sock)
        return self._reason or "the connection was closed"

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason

    def _turn(self, sock: Any) -> None:
        """Sleep until there is something to do, and do it."""
        client = self._client
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            found = select.POLLIN
        else:
            events = select.POLLIN | (select.POLLOUT if client.want_write() else 0)
            found = self._bell.sleep(sock, events, self._due() - time.monotonic())
        # The times are taken after paho took its own: when a ping is due by ours, it is due by paho's too.
        if found & ~select.POLLOUT:
            client.loop_read()
            self._heard = time.monotonic()
        if found & select.POLLOUT or client.want_write():
            client.loop_write()
            self._told = time.monotonic()
        if self._ready_at is not None and time.monotonic() >= self._due():
            client.loop_misc()
            self._heard = self._told = time.monotonic()

    def _due(self) -> float:
        """Return when to look up though nothing happened: paho pings when nothing was sent or heard for so long."""
        if self._ready_at is None:
            return self._give_up
        return min(self._heard, self._told) + max(1, self._client.keepalive)

    # --- what paho calls, in the thread ---------------------------------------------------------------------------

    def _on_connect(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _props: object) -> None:
        if reason.is_failure:
            self._end(f"{self._link.address} refused the connection of client {self._link.client_id}: {reason}")
            return
        self._accepted = True
        filters: list[tuple[str, Any]] = [(name, 1) for name in self._topics.filters]
        if self._link.version == mqtt.MQTTv5:
            filters = [(name, SubscribeOptions(qos=1)) for name in self._topics.filters]
        client.subscribe(filters)

    def _on_subscribe(self, _client: object, _data: object, _mid: int, reasons: list[Any], _props: object) -> None:
        refused = [name for name, code in zip(self._topics.filters, reasons, strict=False) if code.is_failure]
        if refused:
            self._end(f"the broker refused to let us subscribe to {', '.join(refused)}: check the policy")
            return
        self._ready_at = time.monotonic()
        self._tell(Connected())

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            with self._lock:
                incoming = self._topics.incoming(message.topic, bytes(message.payload))
        except (WireError, ValueError) as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._tell(incoming)

    def _on_publish(self, _client: object, _data: object, _mid: int, reason: Any, _props: object) -> None:
        if reason.is_failure:
            log.warning("the broker refused a request: %s; check what the policy lets this device publish", reason)

    def _on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, _props: object) -> None:
        told = flags.is_disconnect_packet_from_server
        self._end(self._told_why(reason) if told else self._guess_why(str(reason)))

    def _told_why(self, reason: Any) -> str:
        rival = f": another client uses the id {self._link.client_id}" if reason.value == TAKEN_OVER else ""
        return f"{self._link.address} ended the connection: {reason}{rival}"

    def _guess_why(self, name: str) -> str:
        where, us, failure = self._link.address, self._link.client_id, self._client.failure
        if isinstance(failure, ssl.SSLError):
            return explain(failure, self._link)
        if name == "Keep alive timeout":
            return f"{where} did not answer a ping"
        if name == "Protocol error":
            return f"{where} does not speak MQTT as we do"
        how = f"{failure.strerror or failure}" if failure else "the connection was closed without a word"
        if not self._accepted:
            return f"{where}: {how}, CONNECT was not answered; may this certificate connect as {us}?"
        return f"{where}: {how}; is there another client {us}, or a policy that forbids something?"


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start."""


def _nothing(*_: object) -> None:
    """Stands where paho wants to be told something."""
