"""The simulated service behind a real HTTPS server, as the API `iot-jobs-data`: what MQTT does not reach, it serves.

What differs over HTTP is done here, and nothing else: the path and the query are the request, `jobDocument` is a
string of JSON, there are neither clientToken nor timestamp, nobody is notified, and refusals are exceptions with an
HTTP status. Source: the service model of iot-jobs-data 2017-09-29; a test has boto3 judge it.

Behind the same host named shadows are updated, as far as an agent does that: UpdateThingShadow of iot-data 2015-05-28.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import ssl
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from thingjobs.testing.messages import NEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.testing.messages import Message
    from thingjobs.testing.service import JobsService

#: How often timers are looked at; the live service takes up to a minute.
TICK_SECONDS = 0.2
#: Requests that are remembered.
CALLS_KEPT = 10_000
_SHADOW = re.compile(r"/things/([^/]+)/shadow")
_PATH = re.compile(r"/things/([^/]+)/jobs(?:/([^/]+))?")
#: ErrorResponse of the MQTT API to the exceptions of the HTTP API. What a stale version becomes is not documented.
_EXCEPTIONS = {
    "InvalidJson": (400, "InvalidRequestException"),
    "InvalidTopic": (400, "InvalidRequestException"),
    "InvalidRequest": (400, "InvalidRequestException"),
    "ResourceNotFound": (404, "ResourceNotFoundException"),
    "InvalidStateTransition": (409, "InvalidStateTransitionException"),
    "TerminalStateReached": (410, "TerminalStateException"),
    "RequestThrottled": (429, "ThrottlingException"),
    "InternalError": (503, "ServiceUnavailableException"),
}
_MEMBERS_OF_MQTT = ("clientToken", "timestamp")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came over the wire.

    Attributes:
        path: still percent-encoded, without the query.
        query: still percent-encoded.
        headers: by names in lower case.
        peer: the common name in the client's certificate; "" without one.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back.

    Attributes:
        status: 0 closes the connection without an answer.
        announced: the Content-Length, where it is to be another one than that of the body.
    """

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    announced: int | None = None


HANG_UP = Answer(0)


class WebJobsService:
    """Serves a `JobsService` from `start` to `stop`, or in a `with` block; it may be started again.

    A job that is called `get`, `start-next`, `notify` or `notify-next` is not found: the simulated service cannot
    be asked for it.

    Attributes:
        shadows: what named shadows report, by the names of thing and shadow.

    Args:
        service: what answers.
        host: where to listen.
        port: where to listen; 0: a free one, which it keeps.
        tls: whom to let in, and with which certificate to show; None: plain HTTP.
        conflict: status and exception for a stale expectedVersion. None is in the service model, though its text
            promises a refusal; so it is not known what the live service says.
    """

    def __init__(
        self,
        service: JobsService,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        conflict: tuple[int, str] = _EXCEPTIONS["InvalidStateTransition"],
    ) -> None:
        self._service = service
        self._host = host
        self._tls = tls
        self._exceptions = {**_EXCEPTIONS, "VersionMismatch": conflict}
        self._calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self._hooks: list[Callable[[Call], Answer | None]] = []
        self._server: _Server | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.port = port
        self.shadows: dict[tuple[str, str], dict[str, Any]] = {}

    @property
    def calls(self) -> tuple[Call, ...]:
        """The requests so far, oldest first (the last 10,000), answered or not."""
        return tuple(self._calls)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.open) if self._server else 0

    def interpose(self, hook: Callable[[Call], Answer | None]) -> Callable[[], None]:
        """Ask `hook` about each request first: it may answer in the service's place, and take its time.

        Returns:
            A function that takes the hook away.
        """
        self._hooks.append(hook)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                self._hooks.remove(hook)

        return remove

    def start(self) -> None:
        """Listen; requests are answered from the moment this returns.

        Raises:
            OSError: the port cannot be had.
        """
        self._stopping.clear()
        self._server = _Server((self._host, self.port), self._tls, self._answer)
        self.port = self._server.server_port
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.02,), name="jobs-web", daemon=True),
            threading.Thread(target=self._tick, name="jobs-web-timers", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close every connection and end every thread; the service itself stays as it is."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.hang_up()
            self._server.server_close()
        for thread in self._threads:
            thread.join()
        self._server, self._threads = None, []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    # --- answering ------------------------------------------------------------------------------------------------

    def _answer(self, call: Call) -> Answer:
        self._calls.append(call)
        for hook in list(self._hooks):
            if (answer := hook(call)) is not None:
                return answer
        found = _SHADOW.fullmatch(call.path)
        if found is not None:
            return self._update_shadow(call, unquote(found[1]))
        found = _PATH.fullmatch(call.path)
        if found is None:
            return _refusal(404, "UnknownOperationException", f"there is nothing at {call.path}")
        try:
            suffix, payload = _asked(call, unquote(found[2] or ""))
        except ValueError as error:
            return _refusal(400, "InvalidRequestException", str(error))
        return self._ask(unquote(found[1]), suffix, payload)

    def _update_shadow(self, call: Call, thing: str) -> Answer:
        name = dict(parse_qsl(call.query)).get("name", "")
        try:
            reported = json.loads(call.body)["state"]["reported"]
        except (ValueError, KeyError, TypeError):
            return _refusal(400, "InvalidRequestException", "state.reported is missing")
        if call.method != "POST" or not name or not isinstance(reported, dict):
            return _refusal(400, "InvalidRequestException", "only named shadows are served, and only updates of them")
        self.shadows[thing, name] = _merged(self.shadows.get((thing, name), {}), reported)
        return _answer(200, {"state": {"reported": reported}})

    def _ask(self, thing: str, suffix: str, payload: bytes) -> Answer:
        answers: list[Message] = []
        before = len(self._service.requests)
        self._service.handle(thing, suffix, payload, answers.append)
        if answers:
            return self._translated(answers[0], update=suffix.endswith("/update"))
        if len(self._service.requests) > before:
            return HANG_UP  # a fault lost the request or its answer
        return _refusal(404, "ResourceNotFoundException", f"there is no such execution on {thing}")

    def _translated(self, message: Message, *, update: bool) -> Answer:
        body = message.body
        if not message.accepted:
            code = str(body["code"])
            if code == "TerminalStateReached" and update:
                code = "InvalidStateTransition"  # UpdateJobExecution has no other exception for it
            status, name = self._exceptions.get(code, (400, code))
            return _refusal(status, name, str(body.get("message", "")))
        shown = {name: value for name, value in body.items() if name not in _MEMBERS_OF_MQTT}
        if "execution" in shown:
            shown["execution"] = _with_text(shown["execution"])
        return _answer(200, _with_text(shown))

    def _tick(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            self._service.tick()


def _asked(call: Call, job_id: str) -> tuple[str, bytes]:
    """Return the MQTT topic and payload that a request amounts to.

    Raises:
        ValueError: it is none of the operations.
    """
    match call.method:
        case "GET" if not job_id:
            return "get", b"{}"
        case "GET":
            return f"{job_id}/get", json.dumps(_from_query(call.query)).encode()
        case "PUT" if job_id == NEXT:
            return "start-next", call.body or b"{}"
        case "POST" if job_id and job_id != NEXT:
            return f"{job_id}/update", call.body
        case _:
            raise ValueError(f"there is no operation {call.method} on this")


def _merged(old: object, new: dict[str, Any]) -> dict[str, Any]:
    """Return an object after an update: members are added or replaced, those that are null removed."""
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in new.items():
        merged[name] = _merged(merged.get(name), value) if isinstance(value, dict) else value
    return {name: value for name, value in merged.items() if value is not None}


def _from_query(query: str) -> dict[str, object]:
    asked: dict[str, object] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        match name:
            case "executionNumber":
                asked[name] = value
            case "includeJobDocument" if value in ("true", "false"):
                asked[name] = value == "true"
            case "includeJobDocument":
                raise ValueError(f"value {value!a} at 'includeJobDocument' is neither true nor false")
    return asked


def _with_text(shape: dict[str, Any]) -> dict[str, Any]:
    """Return a shape with its document as a string of JSON."""
    if "jobDocument" not in shape:
        return shape
    return {**shape, "jobDocument": json.dumps(shape["jobDocument"], ensure_ascii=False)}


def _refusal(status: int, name: str, message: str) -> Answer:
    answer = _answer(status, {"message": message})
    # The service puts a namespace behind the name; what reads it has to cut that off.
    return Answer(status, answer.body, {**answer.headers, "x-amzn-ErrorType": f"{name}:http://iot.amazonaws.com/"})


def _answer(status: int, shape: Mapping[str, Any]) -> Answer:
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
    return Answer(status, json.dumps(shape, ensure_ascii=False).encode(), headers)


# --- the server ---------------------------------------------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
    """One thread a connection, TLS handshakes included, and all of them end with it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, answer: Callable[[Call], Answer]) -> None:
        self._tls = tls
        self.answer = answer
        self.open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; the handshake is left to its own thread."""
        sock, address = super().get_request()
        # Without this an answer waits for the acknowledgement of the one before: tens of milliseconds.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self.open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away in the middle are what tests are about."""

    def hang_up(self) -> None:
        """Close every connection, whatever it is doing."""
        with self._lock:
            for sock in self.open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body of an answer go out together
    server: _Server

    def setup(self) -> None:
        """Shake hands."""
        self._peer = ""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
            subject: Any = (self.request.getpeercert() or {}).get("subject", ())
            self._peer = next((value for ((name, value),) in subject if name == "commonName"), "")
        super().setup()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, parts.query, headers, body, self._peer)
        answer = self.server.answer(call)
        if not answer.status:
            self.close_connection = True
            return
        self.send_response_only(answer.status, HTTPStatus(answer.status).phrase)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        length = len(answer.body) if answer.announced is None else answer.announced
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = self.close_connection or length != len(answer.body)

    do_GET = do_PUT = do_POST = _handle  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""
