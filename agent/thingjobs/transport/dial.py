"""Opening a connection: TCP, a proxy, TLS with the device certificate, a WebSocket; and saying why that failed.

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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from thingjobs.certificate import dates_of
from thingjobs.errors import ThingjobsError, TransportError
from thingjobs.transport.dialogue import MAX_ANSWER_BYTES
from thingjobs.transport.link import UNACKED_MILLISECONDS, Link
from thingjobs.transport.patience import Cause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.clock import Reading
    from thingjobs.transport.dialogue import Ask, Dialogue
    from thingjobs.transport.websocket import WebSocket

__all__ = ["UNACKED_MILLISECONDS", "Bell", "Dial", "Link", "explain", "is_about_dates", "tls_context", "why"]

T = TypeVar("T")

#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
DATE_ERRORS = (9, 10)


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
    """Opens a connection. Blocks on nothing but the lookup of a name, and ends when it is told to stop."""

    def __init__(self, link: Link, bell: Bell, stopping: threading.Event) -> None:
        self._link = link
        self._bell = bell
        self._stopping = stopping

    def open(self) -> socket.socket | WebSocket:
        """Return what carries MQTT from now on: a socket, TLS included, or a WebSocket over one.

        Raises:
            OSError: it cannot be.
            ThingjobsError: the certificates cannot be used, there are no credentials, or who answers does not want us.
        """
        link = self._link
        context = tls_context(link) if link.tls else None
        path = _path_of(link) if link.websocket else ""
        with contextlib.ExitStack() as undo:
            sock = self.reach()
            undo.callback(sock.close)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=link.host, do_handshake_on_connect=False)
                undo.callback(sock.close)
                until = time.monotonic() + link.patience
                self._ready(sock, until, select.POLLIN, sock.do_handshake)
            carrier = self._web(sock, path) if link.websocket else sock
            undo.pop_all()
        return carrier

    def reach(self) -> socket.socket:
        """Return a socket to the other end, through the proxy if there is one; it does not block.

        Raises:
            OSError: it cannot be reached, or we are to stop.
            TransportError: the proxy cannot be reached, or does not let us through.
        """
        return self._reach_any(self._link.host, self._link.port) if self._link.proxy is None else self._tunnelled()

    def _tunnelled(self) -> socket.socket:
        """Connect to the proxy, and have it connect to the other end."""
        proxy = self._link.proxy
        assert proxy is not None  # noqa: S101 - the caller looked
        try:
            sock = self._reach_any(proxy.host, proxy.port)
        except ConnectionAbortedError:
            raise
        except OSError as error:
            why = f"it does not answer within {self._link.patience:.0f} s" if isinstance(error, TimeoutError) else error
            said = f"cannot reach the proxy {proxy.address}: {getattr(error, 'strerror', None) or why}"
            raise TransportError(f"{said}; check connection.proxy") from None
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            self._talk(sock, proxy.tunnel(self._link.host, self._link.port), f"the proxy {proxy.address}")
            undo.pop_all()
        return sock

    def _web(self, sock: socket.socket, path: str) -> WebSocket:
        from thingjobs.transport.websocket import WebSocket, upgrade  # noqa: PLC0415 - most links need none

        link = self._link
        question = upgrade(host_header(link), path, link.route, signed=bool(link.signed_for))
        self._talk(sock, question, link.route)
        return WebSocket(sock)

    # --- questions and answers ------------------------------------------------------------------------------------

    def _talk(self, sock: socket.socket, dialogue: Dialogue[None], where: str) -> None:
        """Carry a dialogue to its end.

        Raises:
            OSError: TLS broke, or we are to stop.
            TransportError: the other end does not answer, or not as it should.
        """
        until = time.monotonic() + self._link.patience
        with contextlib.suppress(StopIteration):
            ask = next(dialogue)
            while True:
                try:
                    answer = self._answer(sock, ask, until)
                except TimeoutError:
                    said = f"{where} takes the connection and does not answer within {self._link.patience:.0f} s"
                    raise TransportError(f"{said}: are address and port right?") from None
                except (ConnectionResetError, BrokenPipeError) as error:
                    raise TransportError(f"{where} broke off: {error.strerror}; are address and port right?") from None
                ask = dialogue.send(answer)

    def _answer(self, sock: socket.socket, ask: Ask, until: float) -> bytes:
        """Send a question, and return the answer, or what came of it until the other end closed."""
        data, came = ask.data, b""
        while data:
            data = data[self._ready(sock, until, select.POLLOUT, sock.send, data) :]
        while (missing := ask.missing(came)) > 0 and len(came) < MAX_ANSWER_BYTES:
            more = self._ready(sock, until, select.POLLIN, sock.recv, missing)
            if not more:
                break
            came += more
        return came

    # --- sockets --------------------------------------------------------------------------------------------------

    def _reach_any(self, host: str, port: int) -> socket.socket:
        """Connect to the first address that answers; one that does not may use up only its share of the time."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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

    def _ready(self, sock: socket.socket, until: float, event: int, attempt: Callable[..., T], *args: object) -> T:
        """Attempt something until the socket is ready for it.

        Args:
            sock: which does not block.
            until: when to give up.
            event: what a socket without TLS has to be ready for.
            attempt: raises an error where it would block.
            args: for the attempt.
        """
        while True:
            try:
                return attempt(*args)
            except BlockingIOError:
                self._wait(sock, event, until)
            except ssl.SSLWantReadError:
                self._wait(sock, select.POLLIN, until)
            except ssl.SSLWantWriteError:
                self._wait(sock, select.POLLOUT, until)

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
    # Python 3.13 and later ask for more of RFC 5280 than many tools put into a certificate. A device that was connected
    # stays so when its system gets another Python.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if link.tls_min == "1.3" else ssl.TLSVersion.TLSv1_2
    if link.protocol:
        context.set_alpn_protocols([link.protocol])
    if link.certificate is not None:
        _show_certificate(context, link.certificate, link.private_key, link.private_key_password_file)
    return context


def _show_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None, secret: Path | None) -> None:
    # Without a password, a key that needs one would be asked for at the terminal.
    password = secret.read_bytes().removesuffix(b"\n").removesuffix(b"\r") if secret is not None else b""
    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TransportError(f"cannot use {certificate}: {key} is not its key") from None
        pair = f"{certificate} with {key}" if key else f"{certificate}"
        why = _about_password(key or certificate, secret) or _about_files(certificate, key, error)
        raise TransportError(f"cannot use {pair}: {why}") from None


def _about_password(key: Path, secret: Path | None) -> str:
    """Return what is wrong with the password of a key; "" if it has none, or its file cannot be understood."""
    if b"ENCRYPTED" not in key.read_bytes():
        return ""
    if secret is None:
        return "the key has a password; name the file that holds it in connection.private_key_password_file"
    return f"{secret} does not hold the key's password (connection.private_key_password_file)"


def _about_files(certificate: Path, key: Path | None, error: ssl.SSLError) -> str:
    """Return which of two files it is that TLS could not use, and what to do; ssl calls either "PEM lib"."""
    try:
        dates_of(certificate.read_bytes())
    except ValueError as problem:
        return f"{certificate} {problem}; write it anew, whole and as PEM (connection.certificate)"
    if error.reason is None:
        return f"{key or certificate} holds no whole private key; write it anew, as PEM (connection.private_key)"
    return f"TLS does not take them ({error.reason}); write both anew"


def host_header(link: Link) -> str:
    """Return what a request over a link has in its header Host, which is also what is signed."""
    host = f"[{link.host}]" if ":" in link.host else link.host
    return host if link.port == (443 if link.tls else 80) else f"{host}:{link.port}"


def _path_of(link: Link) -> str:
    if not link.signed_for:
        return "/mqtt"
    from thingjobs.transport import signing  # noqa: PLC0415 - most links are not signed

    return signing.from_environment(host_header(link), link.signed_for, time.time())


def is_about_dates(error: Exception) -> bool:
    """Return whether a certificate of the other end is not valid yet, or not any more, by our clock."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in DATE_ERRORS


def why(error: Exception, link: Link, read_clock: Callable[[], Reading]) -> tuple[str, Cause]:
    """Return why there was no connection, for people and for `patience`.

    Args:
        error: what happened.
        link: where to.
        read_clock: gives the clocks.
    """
    if not is_about_dates(error):
        return explain(error, link), Cause.UNREACHED
    reading = read_clock()
    return explain(error, link, reading), Cause.UNREACHED if reading.synchronised else Cause.UNDATED


def explain(error: Exception, link: Link, reading: Reading | None = None) -> str:
    """Return one line for a person about why a connection could not be made, or ended.

    Args:
        error: what happened.
        link: where to.
        reading: of the clocks, where that has to do with it.
    """
    where = link.route
    match error:
        case ThingjobsError():
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
    said = said.replace("_", " ").lower()
    ours = f"{link.certificate} registered, active and in date{_dates(link)}"
    if said == "no application protocol":
        why = f"it does not know {link.protocol} (ALPN): is connection.endpoint a data endpoint of AWS IoT?"
        return f"{link.route} does not accept us: {said}; {why}"
    if said == "protocol version" or before == "UNSUPPORTED_PROTOCOL":
        return f"{link.route} does not speak TLS {link.tls_min} (connection.tls_min)"
    if not alert:
        return f"TLS with {link.route} failed ({before or error}); is it a TLS port, and the certificate active?"
    return f"{link.route} does not accept us: {said}; is {ours}?"


def _dates(link: Link) -> str:
    """Return until when our certificate is valid, in brackets; nothing if that cannot be known."""
    with contextlib.suppress(OSError, ValueError):
        if link.certificate is not None:
            since, until = dates_of(link.certificate.read_bytes())
            return f" ({since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC)"
    return ""
