"""Opening a connection: TCP and TLS with the device certificate, and saying in one line why that failed.

Nothing here knows MQTT. It blocks on nothing but the lookup of a name, and ends when it is told to stop.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thingjobs.certificate import dates_of
from thingjobs.errors import TransportError

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.clock import Reading
    from thingjobs.model import ThingName

PATIENCE_SECONDS = 30.0
#: Data that the peer does not acknowledge for this long means that the connection is dead, whatever TCP hopes for.
UNACKED_MILLISECONDS = 30_000
#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
DATE_ERRORS = (9, 10)


@dataclass(frozen=True, slots=True)
class Link:
    """Where and as whom to connect.

    Attributes:
        keep_alive: seconds between pings when nothing else is sent; a broker may ask for less.
        certificate: the device certificate; None connects without TLS client authentication.
        ca: what to trust; None: the system's store.
        version: 5 for MQTT 5, 4 for MQTT 3.1.1.
        patience: seconds that each step of connecting may take: TCP, TLS, and CONNECT with SUBSCRIBE.
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
    patience: float = PATIENCE_SECONDS

    @property
    def address(self) -> str:
        """Where, for people."""
        return f"{self.host}:{self.port}"


class Bell:
    """Wakes the thread that sleeps beside it. Any thread may ring, also when nobody is left to hear."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Wake the sleeper, now or when it goes to sleep next."""
        with self._lock:
            # A number that was closed may by now be that of any other file.
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def sleep(self, sock: Any, events: int, seconds: float) -> int:
        """Sleep until the socket is ready, somebody rings or the time is up; return what the socket is ready for."""
        poller = select.poll()
        poller.register(sock, events)
        poller.register(self._fd, select.POLLIN)
        found = dict(poller.poll(int(max(0.0, seconds) * 1000) + 1))
        if self._fd in found:
            os.eventfd_read(self._fd)
        return found.get(sock.fileno(), 0)

    def close(self) -> None:
        """Take the bell down; ringing is allowed all the same."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1


class Dial:
    """Opens TCP and TLS. Blocks on nothing but the lookup of the name, and ends when it is told to stop."""

    def __init__(self, link: Link, bell: Bell, stopping: threading.Event) -> None:
        self._link = link
        self._bell = bell
        self._stopping = stopping

    def open(self) -> socket.socket:
        """Return a socket that is connected, TLS included.

        Raises:
            OSError: it cannot be.
            TransportError: the certificates cannot be used.
        """
        link = self._link
        context = tls_context(link) if link.certificate is not None or link.ca is not None else None
        sock = self._reach_any()
        if context is None:
            return sock
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            tls = context.wrap_socket(sock, server_hostname=link.host, do_handshake_on_connect=False)
            undo.callback(tls.close)
            self._shake_hands(tls)
            undo.pop_all()
        return tls

    def _reach_any(self) -> socket.socket:
        """Connect to the first address that answers; one that does not may use up only its share of the time."""
        found = socket.getaddrinfo(self._link.host, self._link.port, type=socket.SOCK_STREAM)
        until = time.monotonic() + self._link.patience
        for left, (family, _, _, _, address) in zip(range(len(found), 1, -1), found, strict=False):
            with contextlib.suppress(OSError):
                return self._reach(family, address, (until - time.monotonic()) / left)
        family, _, _, _, address = found[-1]
        return self._reach(family, address, until - time.monotonic())

    def _reach(self, family: int, address: Any, seconds: float) -> socket.socket:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)  # noqa: FBT003 - the signature is Python's
            # Small packets go out at once, and a dead peer is noticed within half a minute instead of half an hour.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MILLISECONDS)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
            self._wait(sock, select.POLLOUT, time.monotonic() + seconds)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, os.strerror(problem))
            undo.pop_all()
        return sock

    def _shake_hands(self, tls: ssl.SSLSocket) -> None:
        until = time.monotonic() + self._link.patience
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._wait(tls, select.POLLIN, until)
            except ssl.SSLWantWriteError:
                self._wait(tls, select.POLLOUT, until)
            else:
                return

    def _wait(self, sock: socket.socket, event: int, until: float) -> None:
        while not self._stopping.is_set():
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if self._bell.sleep(sock, event, left):
                return
        raise ConnectionAbortedError("stopped")


def tls_context(link: Link) -> ssl.SSLContext:
    """Return the TLS settings of a link: at least TLS 1.2, the server's name checked, our certificate shown.

    Raises:
        OSError: a file cannot be read.
        TransportError: a file does not hold what it should.
    """
    for path in (link.ca, link.certificate, link.private_key):
        if path is not None:
            path.open("rb").close()  # ssl does not say which file it is that cannot be read
    try:
        context = ssl.create_default_context(cafile=str(link.ca) if link.ca else None)
    except ssl.SSLError as error:
        raise TransportError(f"cannot use {link.ca}: it holds no certificate in PEM form ({error.reason})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if link.certificate is not None:
        _show_certificate(context, link.certificate, link.private_key)
    return context


def _show_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        # Without a password, a key that needs one would be asked for at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TransportError(f"cannot use {certificate}: {key} is not its key") from None
        raise TransportError(f"cannot use {certificate} with {key}: {error.reason or error}") from None


def is_about_dates(error: Exception) -> bool:
    """Return whether a certificate of the other end is not valid yet, or not any more, by our clock."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in DATE_ERRORS


def explain(error: Exception, link: Link, reading: Reading | None = None) -> str:
    """Return one line for a person about why a connection could not be made, or ended.

    Args:
        error: what happened.
        link: where to.
        reading: of the clocks, where that has to do with it.
    """
    where = link.address
    match error:
        case TransportError():
            why = str(error)
        case ssl.SSLCertVerificationError():
            clock = _about_clock(reading) if is_about_dates(error) else ""
            why = f"{where} is not trusted: {error.verify_message} (connection.ca = {link.ca}){clock}"
        case ssl.SSLError():
            why = _explain_tls(error, link)
        case socket.gaierror():
            why = f"the name {link.host} cannot be resolved: {error.strerror}; check connection.endpoint and the DNS"
        case TimeoutError():
            why = f"{where} does not answer within {link.patience:.0f} s; is the port blocked?"
        case OSError() if error.filename:
            why = f"cannot read {error.filename}: {error.strerror}"
        case OSError():
            why = f"{where}: {error.strerror or error}"
        case _:
            why = f"{where}: {error}"
    return why


def _about_clock(reading: Reading | None) -> str:
    if reading is None:
        return "; clock: is that of this device right?"
    now = f"{datetime.fromtimestamp(reading.wall, UTC):%Y-%m-%d %H:%M} UTC"
    if reading.synchronised:
        return f"; clock: this device says {now} and was set by a time service, so that certificate is the problem"
    return f"; clock: this device says {now}, and no time service has set it yet; trying again as soon as it is set"


def _explain_tls(error: ssl.SSLError, link: Link) -> str:
    before, alert, said = (error.reason or "").partition("ALERT_")
    if not alert:
        return f"TLS with {link.address} failed ({before or error}); is it a TLS port, and the certificate active?"
    said = said.replace("_", " ").lower()
    ours = f"{link.certificate} registered, active and in date{_dates(link)}"
    return f"{link.address} does not accept us: {said}; is {ours}?"


def _dates(link: Link) -> str:
    """Return until when our certificate is valid, in brackets; nothing if that cannot be known."""
    with contextlib.suppress(OSError, ValueError):
        if link.certificate is not None:
            since, until = dates_of(link.certificate.read_bytes())
            return f" ({since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC)"
    return ""
