"""The MQTT topics of AWS IoT Jobs, and which reply belongs to which request. Pure; any MQTT library can carry it.

Topics are taken apart by their slashes, never searched: a job may be called `get` or `notify`. Source: AWS IoT Jobs
device MQTT API operations; reserved topics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs import wire
from thingjobs.errors import WireError
from thingjobs.jobs import DescribeNext, GetPending, Update

if TYPE_CHECKING:
    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import ThingName

#: A request that never got a reply is forgotten when this many newer ones are open.
MAX_OPEN = 64
#: The service accepts at most 8 filters in one SUBSCRIBE; these are 8.
FILTERS = (
    "notify",
    "notify-next",
    "get/accepted",
    "get/rejected",
    "+/get/accepted",
    "+/get/rejected",
    "+/update/accepted",
    "+/update/rejected",
)


class Topics:
    """Turns requests into messages and messages into what happened, for one thing and one connection."""

    def __init__(self, thing: ThingName) -> None:
        self._base = f"$aws/things/{thing}/jobs/"
        #: By token; the topic that the reply must come on, and the request. Oldest first.
        self._open: dict[str, tuple[str, Request]] = {}

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return tuple(self._base + suffix for suffix in FILTERS)

    def outgoing(self, request: Request) -> tuple[str, bytes]:
        """Return topic and payload of a request, and expect its reply."""
        suffix = _suffix(request)
        self._open[request.token] = (suffix, request)
        if len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
        return self._base + suffix, wire.encode(request)

    def incoming(self, topic: str, payload: bytes) -> Incoming | None:
        """Return what a message says; None when it is nothing for us, or answers nothing that is open.

        Raises:
            WireError: the message does not follow the protocol.
        """
        if not topic.startswith(self._base):
            return None
        if len(payload) > wire.MAX_PAYLOAD_BYTES:
            raise WireError(f"cannot read a message: {len(payload)} bytes is more than the service ever sends")
        parts = topic[len(self._base) :].split("/")
        match parts:
            case ["notify"]:
                return wire.decode_list(wire.parse(payload))
            case ["notify-next"]:
                return wire.decode_next(wire.parse(payload))
            case [*request, "accepted" | "rejected" as verdict] if request:
                return self._reply("/".join(request), verdict, payload)
            case _:
                return None

    def _reply(self, suffix: str, verdict: str, payload: bytes) -> Incoming | None:
        """Return the reply if it is to an open request: the token says so, which the service echoes.

        Without a token it is another client's, or late: taken for ours, it could start a job that somebody else
        claimed, or end one that runs. Only a refusal of a message that could not be read comes without one, and that
        can only be about the one request that is open on its topic.
        """
        waiting = [token for token, (expected, _) in self._open.items() if expected == suffix]
        if not waiting:
            return None
        body = wire.parse(payload)
        token = wire.token_of(body)
        if token is None and verdict == "rejected" and len(waiting) == 1 and wire.is_of_message(body):
            token = waiting[0]
        if token not in waiting:
            return None
        _, request = self._open.pop(token)
        if verdict == "accepted":
            return wire.decode_accepted(request, body)
        return wire.decode_refused(request, body)


def _suffix(request: Request) -> str:
    match request:
        case GetPending():
            return "get"
        case DescribeNext():
            return "$next/get"
        case Update():
            return f"{request.job_id}/update"
        case _:
            return f"{request.job_id}/get"
