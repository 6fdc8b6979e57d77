"""What stands on the way to the service: transports that a test listens to, and proxies and servers that misbehave.

Sockets and TLS are real. A server here does one thing, and keeps what it was asked; what the tests of one transport
need beside that is in their own folder.
"""

from __future__ import annotations

import base64
import contextlib
import queue
import select
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pytest

from thingjobs.jobs import Connected, Disconnected, GetPending, Incoming, Pending, Update
from thingjobs.model import JobId, Status, ThingName
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki

    from thingjobs.jobs import Request
    from thingjobs.ports import Transport

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0

Kind = TypeVar("Kind", bound=Incoming)
AnyTransport = TypeVar("AnyTransport", bound="Transport")


# --- the two ends -------------------------------------------------------------------------------------------------


class Device(Generic[AnyTransport]):
    """A transport, and what it put, in the order in which it did.

    Attributes:
        history: all of it; `next` takes one after the other.
    """

    def __init__(self, transport: AnyTransport) -> None:
        self.transport = transport
        self.history: list[Incoming] = []
        self._asked = 0
        self._put: queue.SimpleQueue[Incoming] = queue.SimpleQueue()

    def put(self, incoming: Incoming) -> None:
        """Keep what the transport says."""
        self.history.append(incoming)
        self._put.put(incoming)

    def start(self) -> Self:
        self.transport.start(self.put)
        return self

    def stop(self) -> None:
        """Stop it; a transport gives up a thread that does not end by then, and none may have to."""
        self.transport.stop()
        thread = getattr(self.transport, "_thread", None)
        assert thread is None or not thread.is_alive()

    def send(self, request: Request) -> None:
        self.transport.send(request)

    def next(self, kind: type[Kind]) -> Kind:
        """Return what came next; it has to be of that kind."""
        came = self._put.get(timeout=PATIENCE_SECONDS)
        assert isinstance(came, kind), f"{came} came instead of a {kind.__name__}"
        return came

    def skip_to(self, kind: type[Kind]) -> Kind:
        """Return the next that is of that kind."""
        while not isinstance(came := self._put.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return came

    def within(self, seconds: float) -> Iterator[Incoming]:
        """Yield what comes, until nothing came for so long."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._put.get(timeout=seconds)

    def empty(self) -> bool:
        return self._put.empty()

    def reason(self) -> str:
        """Return why the connection that ends next ended, or came to nothing: one line."""
        reason = self.next(Disconnected).reason
        assert len(reason.splitlines()) == 1
        return reason

    def asks(self, token: str = "") -> None:
        """Ask what is pending: nothing but the answer comes."""
        self._asked += 1
        token = token or f"asks-{self._asked}"
        self.send(GetPending(token))
        assert self.next(Pending).token == token

    def works(self) -> None:
        """Connect, and ask."""
        self.next(Connected)
        self.asks()


@pytest.fixture
def new_device() -> Iterator[Callable[[Transport], Device[Any]]]:
    """Makes devices of transports that did not start yet; at the end of the test they stop."""
    made: list[Device[Any]] = []

    def make(transport: Transport) -> Device[Any]:
        made.append(Device(transport))
        return made[-1]

    yield make
    for device in made:
        device.transport.stop()


@pytest.fixture
def service() -> JobsService:
    return JobsService()


@pytest.fixture
def served(service: JobsService, mosquitto: Mosquitto, pki: Pki) -> Iterator[JobsService]:
    """The Jobs service, behind Mosquitto."""
    serving = BrokerJobsService(service, "localhost", mosquitto.port, tls=pki.client_tls())
    serving.start(PATIENCE_SECONDS)
    yield service
    serving.stop()


@pytest.fixture
def update() -> Callable[..., Update]:
    """Makes updates of the first execution of a job."""

    def make(token: str, job_id: str, version: int = 1, status: Status = Status.IN_PROGRESS, **more: Any) -> Update:
        return Update(token, JobId(job_id), 1, version, status, **{"details": {}, **more})

    return make


def held() -> set[object]:
    """Return the threads of this process and its open descriptors."""
    found: set[object] = set(threading.enumerate())
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found.add((entry.name, str(entry.readlink())))
    return {one for one in found if not (isinstance(one, tuple) and one[1] == "/dev/urandom")}  # awscrt's, for ever


@pytest.fixture(name="held")
def held_fixture() -> Callable[[], set[object]]:
    """Gives the threads of this process and its open descriptors."""
    return held


# --- ports where nobody answers -----------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        yield listener


class Swallowing:
    """A port that drops what is sent there, as a firewall does: its queue is full, so the kernel answers nobody."""

    def __init__(self, open_: contextlib.ExitStack) -> None:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        self.port = int(listener.getsockname()[1])
        for _ in range(8):
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
        self._fillers = self._knocking()

    def is_tried(self) -> bool:
        """Whether somebody waits for it to answer, since the test began."""
        return self._knocking() > self._fillers

    def _knocking(self) -> int:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(row[2] == f"0100007F:{self.port:04X}" and row[3] == "02" for row in rows)  # SYN_SENT


@pytest.fixture
def swallowing() -> Iterator[Swallowing]:
    """A port that drops what is sent there."""
    with contextlib.ExitStack() as open_:
        yield Swallowing(open_)


# --- servers ------------------------------------------------------------------------------------------------------


class Listener:
    """A server on a loopback port; one thread for each connection, in `serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._socks: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for sock in (self._listener, *self._socks):
            shut(sock)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for sock in (self._listener, *self._socks):
            sock.close()

    def hang_up(self) -> None:
        """Close the connections that there are."""
        for sock in list(self._socks):
            shut(sock)

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def tunnel(self, sock: socket.socket, port: int) -> None:
        """Carry bytes to another server and back, until an end closes."""
        other = socket.create_connection(("127.0.0.1", port))
        self._socks.append(other)
        while True:
            ready, _, _ = select.select([sock, other], [], [], PATIENCE_SECONDS)
            for one in ready:
                to = other if one is sock else sock
                data = one.recv(65_536)
                if not data:
                    return
                to.sendall(data)
                while isinstance(one, ssl.SSLSocket) and one.pending():
                    to.sendall(one.recv(65_536))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            self.serve(sock)
        shut(sock)


def shut(sock: socket.socket) -> None:
    """End a connection, whatever another thread does with it; under its TLS, which has manners."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_head(sock: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(sock, 1)
    return head.decode()


class HttpProxy(Listener):
    """An HTTP proxy: whatever it is asked for, it connects to `target`, or says `answer`.

    Attributes:
        heads: what it was asked.
    """

    def __init__(self, target: int = 0, *, login: str = "", answer: bytes = b"") -> None:
        super().__init__()
        self.target = target
        self._login = login
        self._answer = answer
        self.heads: list[str] = []

    def proxy(self, user: str = "", password: str = "") -> Proxy:
        return Proxy("http", "127.0.0.1", self.port, user, password)

    def serve(self, sock: socket.socket) -> None:
        head = read_head(sock)
        self.heads.append(head)
        expected = base64.b64encode(self._login.encode()).decode()
        if self._login and f"\r\nProxy-Authorization: Basic {expected}\r\n" not in head:
            asking = b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n" + asking)
        elif self._answer:
            sock.sendall(self._answer)
        else:
            # In pieces, as it may come.
            for piece in (b"HTTP/1.0 200 Connection established\r", b"\nVia: 1.1 test\r\n\r", b"\n"):
                sock.sendall(piece)
            self.tunnel(sock, self.target)


class SocksProxy(Listener):
    """A SOCKS5 proxy: whatever it is asked for, it connects to `target`, or fails with `code`.

    Attributes:
        asked: kind of address, address and port, as they came.
    """

    def __init__(self, target: int = 0, *, login: tuple[str, str] | None = None, code: int = 0, kind: int = 1) -> None:
        super().__init__()
        self._target = target
        self._login = login
        self._code = code
        self._bound = {1: b"\x01\x7f\0\0\1", 3: b"\x03\x05proxy", 4: b"\x04" + bytes(16)}[kind] + b"\0\1"
        self.asked: list[tuple[int, bytes, int]] = []

    def proxy(self, user: str = "", password: str = "") -> Proxy:
        return Proxy("socks5", "127.0.0.1", self.port, user, password)

    def serve(self, sock: socket.socket) -> None:
        version, count = exactly(sock, 2)
        assert version == 5
        methods = exactly(sock, count)
        method = 2 if self._login else 0
        sock.sendall(bytes([5, method if method in methods else 0xFF]))
        if method not in methods or not self._lets_in(sock):
            return
        _, command, _, kind = exactly(sock, 4)
        assert command == 1
        address = exactly(sock, {1: 4, 4: 16}.get(kind) or exactly(sock, 1)[0])
        (port,) = struct.unpack("!H", exactly(sock, 2))
        self.asked.append((kind, address, port))
        if self._code:
            sock.sendall(bytes([5, self._code, 0]) + self._bound)
            return
        for byte in bytes([5, 0, 0]) + self._bound:
            sock.sendall(bytes([byte]))
        self.tunnel(sock, self._target)

    def _lets_in(self, sock: socket.socket) -> bool:
        if self._login is None:
            return True
        assert exactly(sock, 1) == b"\x01"
        shown = tuple(exactly(sock, exactly(sock, 1)[0]).decode() for _ in range(2))
        sock.sendall(bytes([1, 0 if shown == self._login else 1]))
        return shown == self._login


class Endpoint(Listener):
    """A TLS server with our certificate, which tells protocols apart by ALPN as AWS IoT does.

    Args:
        tls: its certificate, and whom it lets in.
        talk: what it does with a connection, or the plain port to which it carries that.
        alpn: the protocols that it knows.

    Attributes:
        tls: its TLS.
        protocols: what each connection agreed on.
    """

    def __init__(self, tls: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], None] | int, *alpn: str) -> None:
        super().__init__()
        self.tls = tls
        self._talk = talk
        if alpn:
            tls.set_alpn_protocols(list(alpn))
        self.protocols: list[str | None] = []

    def serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_SECONDS)
        with self.tls.wrap_socket(sock, server_side=True) as tls:
            self._socks.append(tls)  # what it wraps is none any more
            self.protocols.append(tls.selected_alpn_protocol())
            if callable(self._talk):
                self._talk(tls)
            else:
                self.tunnel(tls, self._talk)


@pytest.fixture
def http_proxy() -> Iterator[Callable[..., HttpProxy]]:
    """Runs HTTP proxies."""
    with contextlib.ExitStack() as open_:
        yield lambda *args, **more: open_.enter_context(HttpProxy(*args, **more))


@pytest.fixture
def socks_proxy() -> Iterator[Callable[..., SocksProxy]]:
    """Runs SOCKS5 proxies."""
    with contextlib.ExitStack() as open_:
        yield lambda *args, **more: open_.enter_context(SocksProxy(*args, **more))


@pytest.fixture
def new_endpoint(pki: Pki) -> Iterator[Callable[..., Endpoint]]:
    """Runs TLS servers: from what they do with a connection, the protocols they know, and their TLS."""
    with contextlib.ExitStack() as open_:

        def run(talk: Callable[[ssl.SSLSocket], None] | int, *alpn: str, tls: ssl.SSLContext | None = None) -> Endpoint:
            return open_.enter_context(Endpoint(tls or pki.server_tls(), talk, *alpn))

        yield run
