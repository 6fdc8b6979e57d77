"""Questions to the Jobs service as a device asks them, with nothing of the agent in between: it is seen as it is."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from thingjobs.transport.https_wire import Answer, Call
from thingjobs.transport.topics import FILTERS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from botocore.auth import SigV4Auth
    from tests.aws.transcript import Transcript

#: How long an answer may take.
PATIENCE_SECONDS = 20.0
_CHECK_SECONDS = 0.5
#: At most 8 filters go into one SUBSCRIBE.
_SUBSCRIPTIONS = (FILTERS, ("start-next/accepted", "start-next/rejected"))


class NoAnswerError(Exception):
    """Nothing came that could be taken for an answer; the message says what happened instead."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message from the service.

    Attributes:
        suffix: its topic below `$aws/things/THING/jobs/`.
        accepted: whether it grants a request.
    """

    suffix: str
    body: dict[str, Any]
    qos: int
    retained: bool

    @property
    def accepted(self) -> bool:
        return self.suffix.endswith("/accepted")

    @property
    def verdict(self) -> str:
        """`accepted`, or the code of the refusal."""
        return "accepted" if self.accepted else str(self.body.get("code", "rejected without a code"))

    @property
    def execution(self) -> dict[str, Any]:
        found = self.body.get("execution")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where MQTT is, and who we are there.

    Attributes:
        tls: makes a context that shows the certificate.
        check: is called while waiting; raises when it is time to end.
    """

    host: str
    port: int
    thing: str
    tls: Callable[[], ssl.SSLContext]
    transcript: Transcript
    check: Callable[[], None]


class Device:
    """One connection with MQTT, opened on entry.

    Args:
        broker: where to.
        version: 5 or 4, which is MQTT 3.1.1.

    Raises:
        NoAnswerError: on entry: it cannot connect, or not subscribe.
    """

    def __init__(self, broker: Broker, version: int = 5) -> None:
        self._broker = broker
        self._base = f"$aws/things/{broker.thing}/jobs/"
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._messages: list[Heard] = []
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=broker.thing, protocol=MQTTProtocolVersion(version)
        )
        client.tls_set_context(broker.tls())
        client.on_connect = lambda *args: self._events.put(("connected", args[3]))
        client.on_disconnect = lambda *args: self._events.put(("disconnected", args[3]))
        client.on_subscribe = lambda *args: self._events.put(("subscribed", args[3]))
        client.on_message = lambda *args: self._events.put(("message", args[2]))

    def __enter__(self) -> Self:
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=60)
        except (OSError, ValueError) as error:
            raise NoAnswerError(f"cannot connect: {error}") from None
        self._client.loop_start()
        try:
            if (code := self._wait("connected")).is_failure:
                raise NoAnswerError(f"cannot connect: {code}")
            for names in _SUBSCRIPTIONS:
                if any(code.is_failure for code in self.subscribe(*(self._base + name for name in names))):
                    raise NoAnswerError("a subscription was refused")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, *filters: str) -> Sequence[Any]:
        """Subscribe with QoS 1; return the reason codes.

        Raises:
            NoAnswerError: the connection ended instead.
        """
        self._client.subscribe([(name, 1) for name in filters])
        codes: Sequence[Any] = self._wait("subscribed")
        self._broker.transcript.note(f"  mqtt SUBSCRIBE {', '.join(filters)}: {', '.join(map(str, codes))}")
        return codes

    def ask(self, suffix: str, body: dict[str, Any], token: str = "") -> Heard:
        """Publish a request with QoS 1 and return its answer, known by its token.

        Raises:
            NoAnswerError: none came, or the connection ended.
        """
        token = token or uuid.uuid4().hex
        payload = json.dumps({**body, "clientToken": token})
        self._broker.transcript.note(f"  mqtt -> {suffix} {payload}")
        self._client.publish(self._base + suffix, payload, qos=1)
        answers = (f"{suffix}/accepted", f"{suffix}/rejected")
        return self.hear(lambda heard: heard.suffix in answers and heard.body.get("clientToken", token) == token)

    def hear(self, wanted: Callable[[Heard], bool], seconds: float = PATIENCE_SECONDS) -> Heard:
        """Wait for a message, and return it; others are kept for later.

        Raises:
            NoAnswerError: none came, or the connection ended.
        """
        until = time.monotonic() + seconds
        while True:
            for heard in self._messages:
                if wanted(heard):
                    self._messages.remove(heard)
                    return heard
            self._messages.append(self._heard(self._wait("message", until - time.monotonic())))

    def _wait(self, kind: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait for an event of a kind; messages that come before it are kept."""
        until = time.monotonic() + seconds
        while True:
            came, value = self._event(until)
            if came == kind:
                return value
            if came == "message":
                self._messages.append(self._heard(value))
            if came == "disconnected":
                raise NoAnswerError(f"the connection was closed ({value})")

    def _event(self, until: float) -> tuple[str, Any]:
        while (left := until - time.monotonic()) > 0:
            self._broker.check()
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=min(left, _CHECK_SECONDS))
        raise NoAnswerError("no answer came in time")

    def _heard(self, message: mqtt.MQTTMessage) -> Heard:
        suffix, text = message.topic.removeprefix(self._base), message.payload.decode("utf-8", "replace")
        self._broker.transcript.note(f"  mqtt <- {suffix} (QoS {message.qos}) {text}")
        body = json.loads(text)
        return Heard(suffix, body if isinstance(body, dict) else {}, message.qos, message.retain)


class Web:
    """The Jobs service over HTTP, one connection for each question.

    Args:
        base: scheme, host and port.
        tls: with the device's certificate, for https.
        signer: signs instead of showing a certificate.
        transcript: is told what goes over the wire.
    """

    def __init__(
        self, base: str, transcript: Transcript, *, tls: ssl.SSLContext | None = None, signer: SigV4Auth | None = None
    ) -> None:
        self._base = base
        self._tls = tls
        self._signer = signer
        self._transcript = transcript

    def ask(self, call: Call) -> Answer:
        """Ask once; any answer is one, whatever its status.

        Raises:
            NoAnswerError: none came.
        """
        request = AWSRequest(call.method, self._base + call.path, data=call.body)
        if call.body:
            request.headers["Content-Type"] = "application/json"
        if self._signer is not None:
            self._signer.add_auth(request)
        self._transcript.note(f"  http -> {call.method} {call.path} {call.body.decode()}")
        try:
            answer = self._sent(call, dict(request.headers.items()))
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(f"no answer over HTTP: {error}") from None
        code = answer.headers.get("x-amzn-errortype", "")
        self._transcript.note(f"  http <- {answer.status} {code} {answer.body.decode('utf-8', 'replace')}")
        return answer

    def _sent(self, call: Call, headers: dict[str, str]) -> Answer:
        parts = urlsplit(self._base)
        host, port = parts.hostname or "", parts.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=PATIENCE_SECONDS, context=self._tls)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        )
        with contextlib.closing(connection):
            connection.request(call.method, call.path, call.body or None, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
