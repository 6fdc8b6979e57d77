"""One way to an HTTPS server with requests: connections that other threads can cut, and what went wrong in a line.

requests is used below its sessions: so no cookie is kept, no redirect followed, and neither the environment nor
`.netrc` has a say. It would also trust the authorities that it brings along beside those that were configured, cannot
read a key that has a password, and offers another ALPN than port 443 of AWS IoT wants: all of that is settled by one
SSLContext of ours, which its adapter is given.

Connections stay open for the next request until `rest`, so that a job needs one handshake and a day of waiting none.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError, SystemTimeWarning

from thingjobs.errors import TransportError
from thingjobs.transport.dial import UNACKED_MILLISECONDS, Link, explain, tls_context
from thingjobs.transport.https_wire import MAX_ANSWER_BYTES, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest

    from thingjobs.transport.certificates import Certificates
    from thingjobs.transport.https_wire import Call

#: AWS IoT Core developer guide, "Device communication protocols": HTTPS with a certificate on port 443.
ALPN_443 = "x-amzn-http-ca"
_CHUNK = 16 * 1024
BROKE_OFF = "its answer broke off in the middle"


class Signer(Protocol):
    """Signs requests with Signature Version 4 for `iot-jobs-data`, where no certificate says who we are."""

    def sign(self, request: PreparedRequest) -> None:
        """Add the headers that sign a request.

        Raises:
            ThingjobsError: there are no credentials; the message says why.
        """

    def refused(self) -> None:
        """The service did not take the credentials: fetch others for the next request."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the service is and how to get there.

    Attributes:
        link: the host, who we are and whom to trust; its `keep_alive` and `version` mean nothing here.
        proxy: `http://` or `socks5://` with `[user:password@]host:port`; "": none, whatever the environment says.
        signer: None: the certificate of the link says who we are.
        agent: the User-Agent.
    """

    link: Link
    proxy: str = ""
    signer: Signer | None = None
    agent: str = "thingjobs"

    @property
    def alpn(self) -> str:
        """The protocol to ask for in TLS; "": what the library asks for."""
        return ALPN_443 if self.link.port == 443 and self.link.certificate is not None else ""

    @property
    def base(self) -> str:
        """The URL before the path."""
        host = self.link.host.strip("[]")
        return f"https://{f'[{host}]' if ':' in host else host}:{self.link.port}"


class Line:
    """Sends one request after the other. Only `cut` is for other threads.

    Args:
        site: where to.
        certificates: looks at the certificate files of the link.
    """

    def __init__(self, site: Site, certificates: Certificates) -> None:
        self._site = site
        self._certificates = certificates
        self._held = _Held()
        self._adapter: HTTPAdapter | None = None
        self._proxy = _usable(site.proxy)
        # "System time is way off": whoever uses this says so with the error that comes of it, and better.
        urllib3.disable_warnings(SystemTimeWarning)

    def ask(self, call: Call) -> Answer:
        """Send a request and return the answer, whatever its status; it takes at most twice the patience of the link.

        Raises:
            OSError: there is no whole answer, or a file cannot be read.
            ThingjobsError: the certificates cannot be used, or there are no credentials to sign with.
        """
        patience = self._site.link.patience
        until = time.monotonic() + 2 * patience
        adapter = self._ready()
        request = self._prepared(call)
        with _as_os_errors():
            response = adapter.send(
                request,
                stream=True,
                timeout=(patience, patience),
                proxies={"https": self._proxy} if self._proxy else {},
            )
            with response:
                body = _body(response, until)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, body)

    def rest(self) -> None:
        """Close what is open: nothing will be asked for a while."""
        if self._adapter is not None:
            self._adapter.close()

    def cut(self) -> None:
        """End what is under way, from any thread, and all that would come after it."""
        self._held.cut()

    def why(self, error: Exception) -> str:
        """Return one line for a person about an error that `ask` raised."""
        why = explain(error, self._site.link)
        if not self._proxy:
            return why
        parts = urlsplit(self._proxy)
        proxy = f"the proxy {parts.hostname}:{parts.port}"
        return f"{proxy} does not let us through: {error}" if isinstance(error, _ProxyError) else f"{why}, by {proxy}"

    def _ready(self) -> HTTPAdapter:
        link = self._site.link
        if self._adapter is not None and self._held.idle and self._certificates.replaced(tls_context):
            self._adapter.close()
            self._adapter = None
        if self._adapter is None:
            self._certificates.opened()
            context = tls_context(link)
            if self._site.alpn:
                context.set_alpn_protocols([self._site.alpn])
                # urllib3 would put its own in the place of it.
                vars(context)["set_alpn_protocols"] = _nothing
            self._adapter = _Adapter(context, self._held)
        return self._adapter

    def _prepared(self, call: Call) -> PreparedRequest:
        headers = {"User-Agent": self._site.agent}
        if call.body:
            headers["Content-Type"] = "application/json"
        request = requests.Request(call.method, self._site.base + call.path, headers, data=call.body).prepare()
        if self._site.signer is not None:
            self._site.signer.sign(request)
        return request


def _usable(proxy: str) -> str:
    """Return the proxy as urllib3 wants it, which is to look up the name of the service, as proxies for HTTP do.

    Raises:
        TransportError: it needs a library that is not there.
    """
    if not proxy.startswith("socks"):
        return proxy
    if importlib.util.find_spec("socks") is None:
        raise TransportError("connection.proxy is a SOCKS proxy, which needs PySocks: install it (pip install PySocks)")
    return "socks5h" + proxy[proxy.index(":") :]


def _body(response: requests.Response, until: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ConnectionAbortedError(f"its answer is larger than {MAX_ANSWER_BYTES // 1024} KiB")
        if time.monotonic() > until:
            raise ConnectionAbortedError("its answer takes too long")
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) != len(body):  # urllib3 1.26 does not look
        raise ConnectionAbortedError(BROKE_OFF)
    return bytes(body)


# --- connections that can be cut ----------------------------------------------------------------------------------


class _Held:
    """The socket of the connection, to be shut from another thread, whatever its own is waiting for.

    TLS takes a socket over, and until it has shaken hands there is no object to be had: so a duplicate is held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    @property
    def idle(self) -> bool:
        """Whether there is no connection."""
        return self._socket is None

    def take(self, sock: socket.socket) -> None:
        """Hold this one from now on.

        Raises:
            ConnectionAbortedError: it was cut.
        """
        self.drop()
        with self._lock:
            if self._cut:
                raise ConnectionAbortedError("stopped")
            self._socket = sock.dup()

    def drop(self) -> None:
        """Forget what is held: its owner has closed it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def cut(self) -> None:
        """Shut it, and let no other one begin."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """One connection at a time, with our settings of TLS and no others."""

    def __init__(self, context: ssl.SSLContext, held: _Held) -> None:
        self._context = context
        self._held = held
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: object, cert: object) -> None:  # noqa: ARG002 - theirs
        """Leave trust to the context: requests would add what it brings along."""
        if not getattr(conn.ConnectionCls, "held", None):
            conn.ConnectionCls = _holding(conn.ConnectionCls, self._held)


def _holding(kind: type[HTTPSConnection], hold: _Held) -> type[HTTPSConnection]:
    """Return a kind of connection that is held from its first packet on, or as soon as a SOCKS proxy has opened it."""

    class Connection(kind):  # type: ignore[valid-type, misc]
        held = hold

        def _new_conn(self) -> socket.socket:
            if kind is HTTPSConnection:
                return _reached(self._dns_host, self.port, self.timeout, hold)
            sock: socket.socket = super()._new_conn()
            with contextlib.ExitStack() as undo:
                undo.callback(sock.close)
                hold.take(sock)
                undo.pop_all()
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
            hold.drop()

    return Connection


def _reached(host: str, port: int, seconds: float, held: _Held) -> socket.socket:
    """Connect to the first address that answers; one that does not may use up only its share of the time."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    error: OSError = TimeoutError()
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            held.take(sock)
            # Small packets go out at once, and a dead peer is noticed within half a minute instead of half an hour.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MILLISECONDS)
            sock.settimeout(seconds / len(found))
            sock.connect(address)
            sock.settimeout(seconds)
        except OSError as reason:
            sock.close()
            held.drop()
            error = reason
        else:
            return sock
    raise error


# --- what went wrong ----------------------------------------------------------------------------------------------


class _ProxyError(OSError):
    """The proxy is the reason."""


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Let no exception of a library through: what the operating system, TLS or a proxy said is at the bottom of it."""
    try:
        yield
    except (requests.RequestException, HTTPError, UnicodeError) as error:
        raise _root(error) from None


def _root(error: Exception) -> OSError:
    below = _below(error)
    for cause in below:
        if isinstance(cause, requests.exceptions.ProxyError):
            return _ProxyError(_said_by_proxy(below))
        if isinstance(cause, ssl.SSLCertVerificationError | socket.gaierror):
            return cause
        for kind, meaning in _MEANINGS:
            if isinstance(cause, kind):
                return meaning(str(cause).rpartition(": ")[2])
    found = next((cause for cause in reversed(below) if isinstance(cause, OSError) and cause.args), None)
    return found or ConnectionError(f"the connection broke ({type(error).__name__})")


#: What the libraries raise, and what it means; they are given what it says.
_MEANINGS: tuple[tuple[type[BaseException], Callable[[str], OSError]], ...] = (
    (ReadTimeoutError, lambda _: ConnectionError("no answer came in time")),
    (NewConnectionError, _ProxyError),  # it is a ConnectTimeoutError, too; only SOCKS raises it here
    (ConnectTimeoutError, lambda _: TimeoutError()),
    (http.client.RemoteDisconnected, lambda _: ConnectionError("the connection was closed without an answer")),
    (http.client.IncompleteRead, lambda _: ConnectionError(BROKE_OFF)),
    (http.client.HTTPException, lambda _: ConnectionError("what answers does not speak HTTP as we do")),
)


def _said_by_proxy(below: list[BaseException]) -> str:
    said = next((str(cause) for cause in reversed(below) if isinstance(cause, OSError)), "")
    said = said.removeprefix("Tunnel connection failed: ")
    if said.startswith("407"):
        return f"{said}; has connection.proxy the right user and password?"
    return f"{said}; is it right, and may it reach the endpoint?"


def _below(error: BaseException) -> list[BaseException]:
    """Return an error and all that it was made of.

    Not `__context__`: that may lead to what a caller of ours is just handling.
    """
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is other for other in found):
            found.append(one)
            waiting += [one.__cause__, getattr(one, "reason", None), *one.args]
    return found


def _nothing(*_: object) -> None:
    """Stands where a library would change what is settled."""
