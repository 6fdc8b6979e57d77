"""MQTT over mutual TLS with paho-mqtt: the default way to reach AWS IoT, and any other broker.

Each connection is a client object of its own, with certificates read anew: nothing is left over from the one before,
so paho never resends an old request after a reconnect, and a certificate that was replaced on disk is used. One
thread does all socket work; it sleeps until there is traffic or a ping is due, and never wakes once a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from thingjobs.errors import WireError
from thingjobs.jobs import Connected, Disconnected
from thingjobs.policy import backoff
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import ThingName

log = logging.getLogger("thingjobs.connection")

CONNECT_SECONDS = 30.0
SUBSCRIBE_SECONDS = 30.0
#: Data that the peer does not acknowledge for this long means that the connection is dead, whatever TCP hopes for.
UNACKED_MILLISECONDS = 30_000
#: A connection that lived this long was a good one: the next one is tried soon.
GOOD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Link:
    """Where and as whom to connect.

    Attributes:
        keep_alive: seconds between pings when nothing else is sent.
        certificate: the device certificate; None connects without TLS client authentication.
        ca: what to trust; None: the system's store.
        version: 5 for MQTT 5, 4 for MQTT 3.1.1.
    """

    host: str
    port: int
    client_id: str
    thing: ThingName
    keep_alive: int = 300
    certificate: Path | None = None
    private_key: Path | None = None
    ca: Path | None = None
    version: int = 5


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
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._session: _Session | None = None
        self._tries = 0

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
        """Drop the connection and open a new one."""
        session = self._session
        if session is not None:
            session.end("a new connection was asked for")

    def stop(self) -> None:
        """Disconnect, end the thread, put nothing more."""
        self._put = _nowhere
        self._stopping.set()
        self._poke()
        if self._thread.is_alive():
            self._thread.join(CONNECT_SECONDS + 5)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _poke(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait = self._delay
        while not self._stopping.wait(wait):
            began = time.monotonic()
            reason = self._connect_once()
            if self._stopping.is_set():
                return
            self._put(Disconnected(reason))
            self._tries = 1 if time.monotonic() - began > GOOD_SECONDS else self._tries + 1
            wait = backoff(self._tries, self._roll())
            log.debug("next connection in %.1f s", wait)

    def _connect_once(self) -> str:
        """Hold one connection until it ends; return why."""
        try:
            session = _Session(self._link, self._put, self._wake)
        except (OSError, ValueError) as error:
            return explain(error, self._link)
        self._session = session
        try:
            return session.serve(self._stopping)
        except Exception as error:
            log.warning("the connection ended in an error", exc_info=True)
            return explain(error, self._link)
        finally:
            self._session = None


class _Session:
    """One connection, from CONNECT to its end."""

    def __init__(self, link: Link, put: Callable[[Incoming], None], wake: int) -> None:
        self._link = link
        self._put = put
        self._wake = wake
        self._topics = Topics(link.thing)
        self._lock = threading.Lock()
        self._ready = False
        self._reason = ""
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=link.client_id,
            clean_session=None if link.version == mqtt.MQTTv5 else True,
            protocol=MQTTProtocolVersion(link.version),
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = _tune
        # With this set, paho never writes from the caller's thread: all socket work is done in ours.
        client.on_socket_register_write = self._on_wants_write
        if link.certificate is not None or link.ca is not None:
            client.tls_set_context(tls_context(link))
        clean: dict[str, Any] = {"clean_start": True} if link.version == mqtt.MQTTv5 else {}
        client.connect(link.host, link.port, keepalive=link.keep_alive, **clean)

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        with self._lock:
            topic, payload = self._topics.outgoing(request)
        self._client.publish(topic, payload, qos=1)
        # paho tells of a wish to write only once; a packet queued just as a write ends would wait for the next one.
        self._on_wants_write()

    def end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._client.disconnect()

    def _on_wants_write(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self, stopping: threading.Event) -> str:
        """Do the socket work until the connection ends; return why it ended."""
        give_up = time.monotonic() + SUBSCRIBE_SECONDS
        heard = told = time.monotonic()
        while True:
            sock = self._client.socket()
            if sock is None:
                return self._reason or "the connection was closed"
            if stopping.is_set():
                self._client.disconnect()
                self._client.loop_write()
                return "stopped"
            now = time.monotonic()
            if not self._ready and now >= give_up:
                self.end("the broker did not answer CONNECT or SUBSCRIBE")
            # paho pings when nothing was sent, or nothing heard, for keep_alive; until then there is nothing to do.
            due = min(heard, told) + self._link.keep_alive
            wait = max(0.0, (due if self._ready else min(due, give_up)) - now)
            readable, writable = self._wait(sock, wait)
            if readable:
                heard = time.monotonic()
                self._client.loop_read()
            if writable or self._client.want_write():
                told = time.monotonic()
                self._client.loop_write()
            if time.monotonic() >= due:
                self._client.loop_misc()
                heard = told = time.monotonic()

    def _wait(self, sock: Any, seconds: float) -> tuple[bool, bool]:
        """Sleep until the socket can be read or written, somebody wants to send, or the time is up."""
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True, False
        poller = select.poll()
        poller.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        poller.register(self._wake, select.POLLIN)
        found = dict(poller.poll(int(seconds * 1000) + 1))
        if self._wake in found:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        bits = found.get(sock.fileno(), 0)
        return bool(bits & ~select.POLLOUT), bool(bits & select.POLLOUT)

    # --- what paho calls, in the thread ---------------------------------------------------------------------------

    def _on_connect(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _props: object) -> None:
        if reason.is_failure:
            self.end(f"the broker refused the connection: {reason}")
            return
        filters: list[tuple[str, Any]] = [(name, 1) for name in self._topics.filters]
        if self._link.version == mqtt.MQTTv5:
            filters = [(name, SubscribeOptions(qos=1)) for name in self._topics.filters]
        client.subscribe(filters)

    def _on_subscribe(self, _client: object, _data: object, _mid: int, reasons: list[Any], _props: object) -> None:
        refused = [name for name, code in zip(self._topics.filters, reasons, strict=False) if code.is_failure]
        if refused:
            self.end(f"the broker refused to let us subscribe to {', '.join(refused)}: check the policy")
            return
        self._ready = True
        self._put(Connected())

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            with self._lock:
                incoming = self._topics.incoming(message.topic, bytes(message.payload))
        except (WireError, UnicodeDecodeError) as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._put(incoming)

    def _on_publish(self, _client: object, _data: object, _mid: int, reason: Any, _props: object) -> None:
        if reason.is_failure:
            log.warning("the broker refused a request: %s; check what the policy lets this device publish", reason)

    def _on_disconnect(self, _client: object, _data: object, flags: Any, reason: Any, _props: object) -> None:
        if flags.is_disconnect_packet_from_server:
            self._reason = self._reason or f"the broker closed it: {reason}"
        else:
            self._reason = self._reason or f"it broke: {reason}"


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start and after the end."""


def _tune(_client: object, _data: object, sock: Any) -> None:
    """Send small packets at once, and notice a dead peer within half a minute instead of half an hour."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MILLISECONDS)


def tls_context(link: Link) -> ssl.SSLContext:
    """Return the TLS settings of a link: at least TLS 1.2, the server's name checked, our certificate shown.

    Raises:
        OSError: a file cannot be read or does not hold what it should (ssl.SSLError is one).
    """
    context = ssl.create_default_context(cafile=str(link.ca) if link.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if link.certificate is not None:
        context.load_cert_chain(link.certificate, link.private_key)
    return context


def explain(error: Exception, link: Link) -> str:
    """Return one line for a person about why a connection could not be made."""
    where = f"{link.host}:{link.port}"
    match error:
        case ssl.SSLCertVerificationError():
            why = f"{where} is not trusted: {error.verify_message} (connection.ca = {link.ca})"
        case ssl.SSLError():
            why = f"TLS with {where} failed ({error.reason or error}); is the certificate active, and the key its own?"
        case socket.gaierror():
            why = f"the name {link.host} cannot be resolved: {error.strerror}; check connection.endpoint and the DNS"
        case TimeoutError():
            why = f"{where} does not answer within {CONNECT_SECONDS:.0f} s; is the port blocked?"
        case FileNotFoundError():
            why = f"{error.filename or link.certificate} is missing"
        case OSError():
            why = f"{where}: {error.strerror or error}"
        case _:
            why = f"{where}: {error}"
    return why
