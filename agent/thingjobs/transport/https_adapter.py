"""What requests and urllib3 are given in the place of their own: connections that can be cut, TLS, and plain errors.

requests would trust the authorities that it brings along beside those that were configured, cannot read a key that has
a password, and offers another ALPN than port 443 of AWS IoT wants: all of that is settled by one SSLContext of ours,
which its adapter is given. Connections are opened by `dial`, as those for MQTT are: through the same proxies, with the
same words for what goes wrong, and so that another thread can end them at any time.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import ssl
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ReadTimeoutError

from thingjobs.errors import made_of
from thingjobs.transport.dial import Bell, Dial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.transport.link import Link

BROKE_OFF = "its answer broke off in the middle"


class Held:
    """The socket of the connection, to be shut from another thread, whatever its own is waiting for.

    What is held is a duplicate: its owner may close the socket at any time, and its number be that of another then.

    Args:
        link: where to.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._bell: Bell | None = None
        self._cut = threading.Event()

    @property
    def idle(self) -> bool:
        """Whether there is no connection."""
        return self._socket is None

    def dial(self) -> socket.socket:
        """Open a connection, through the proxy if there is one; it is cut by the bell until TLS begins.

        Raises:
            OSError: it cannot be, or it was cut.
            TransportError: the proxy does not let us through.
        """
        self.drop()
        with contextlib.closing(Bell()) as bell:
            self._bell = bell
            return Dial(self._link, bell, self._cut).reach()

    def hold(self, sock: socket.socket) -> None:
        """Hold a connection that is about to shake hands.

        Raises:
            OSError: it was cut, or there is no descriptor left.
        """
        with self._lock:
            if self._cut.is_set():
                raise ConnectionAbortedError("stopped")
            self._socket = socket.socket(fileno=os.dup(sock.fileno()))

    def drop(self) -> None:
        """Forget what is held: its owner has closed it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """Shut it, and let no other one begin."""
        self._cut.set()
        bell = self._bell
        if bell is not None:
            bell.ring()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class Adapter(HTTPAdapter):
    """One connection at a time, with our settings of TLS and no others."""

    def __init__(self, context: ssl.SSLContext, held: Held) -> None:
        self._context = context
        self._context.sslsocket_class = _shaking_hands(held)
        self._held = held
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have every connection use our context."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: object, cert: object) -> None:  # noqa: ARG002 - theirs
        """Leave trust to the context: requests would add what it brings along."""
        if conn.ConnectionCls is HTTPSConnection:
            conn.ConnectionCls = _holding(self._held)


def _shaking_hands(held: Held) -> type[ssl.SSLSocket]:
    """Return a kind of TLS socket that is held from its handshake on.

    Not before: a socket that was shut, or reset by the other end, is refused when TLS takes it over, and Python up to
    3.12 does not close it then. It asks for the name of the other end first, so that is where it is noticed.
    """

    class Socket(ssl.SSLSocket):
        def getpeername(self) -> Any:
            try:
                return super().getpeername()
            except OSError:
                problem = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
                self.close()
                raise OSError(problem, os.strerror(problem)) from None

        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is Python's
            held.hold(self)
            super().do_handshake(block)

    return Socket


def _holding(held: Held) -> type[HTTPSConnection]:
    """Return a kind of connection that is opened as those of MQTT are, and forgotten when it is closed.

    So a proxy is spoken to by `proxy`, which urllib3 need not know of, and nor is PySocks needed.
    """

    class Connection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            try:
                sock = held.dial()
            except TimeoutError as error:  # to urllib3 it would be an answer that did not come
                raise ConnectTimeoutError(self, str(error)) from error
            sock.settimeout(self.timeout)
            return sock

        def send(self, data: Any) -> None:
            try:
                super().send(data)
            except OSError:
                # A server that does not take our certificate says so after the handshake, and closes: with TLS 1.3
                # we may be writing by then, and what it said has to be read first.
                with contextlib.suppress(BlockingIOError):
                    self.sock.settimeout(0.0)
                    self.sock.recv(1)
                raise

        def close(self) -> None:
            super().close()
            held.drop()

    return Connection


# --- what went wrong ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Let no exception of a library through: what the operating system, TLS or a proxy said is at the bottom of it."""
    try:
        yield
    except (requests.RequestException, HTTPError, UnicodeError) as error:
        raise _root(error) from None


def _root(error: Exception) -> OSError:
    below = made_of(error)
    for cause in below:
        if isinstance(cause, ssl.SSLCertVerificationError | socket.gaierror):
            return cause
        for kind, meaning in _MEANINGS:
            if isinstance(cause, kind):
                return meaning()
    found = next((cause for cause in reversed(below) if isinstance(cause, OSError) and cause.args), None)
    return found or ConnectionError(f"the connection broke ({type(error).__name__})")


#: What the libraries raise, and what it means.
_MEANINGS: tuple[tuple[type[BaseException], Callable[[], OSError]], ...] = (
    (ReadTimeoutError, partial(ConnectionError, "no answer came in time")),
    (ConnectTimeoutError, TimeoutError),
    (http.client.RemoteDisconnected, partial(ConnectionError, "the connection was closed without an answer")),
    (http.client.IncompleteRead, partial(ConnectionError, BROKE_OFF)),
    (http.client.HTTPException, partial(ConnectionError, "what answers does not speak HTTP as we do")),
)
