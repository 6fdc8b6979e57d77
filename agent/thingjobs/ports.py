"""The seams of the agent: what the loop needs of a transport, and nothing of how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request

    #: What `ShadowTransport.tell` is.
    Tell: TypeAlias = "Callable[[Shadow, Callable[[], None]], None]"


class Transport(Protocol):
    """A way to reach the Jobs service.

    The contract, tested over every transport by tests/integration/connection/contract:

    - `start` returns at once; what happens comes through `put`, from any thread, in the order it happened.
    - `Connected` is put only when requests can be answered and notifications arrive (subscriptions acknowledged),
      again after every reconnect. The transport reconnects by itself, for ever, with full jitter.
    - `send` never blocks on the network and never raises for it: a request that could not be sent gets no reply.
    - Each reply carries the token of its request; a reply without a token is matched to the one request that is
      open on its topic, or dropped.
    - A message that cannot be understood, or is larger than the service's 128 KB, is left out in both directions,
      and the connection goes on.
    - `stop` returns soon, whatever the transport is doing.
    - No exception of a library passes.
    """

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin to connect; everything that happens is given to `put`."""

    def send(self, request: Request) -> None:
        """Send one request; its reply comes through `put`, or never."""

    def renew(self) -> None:
        """Drop the connection and open a new one: Disconnected and Connected follow."""

    def stop(self) -> None:
        """Disconnect, end every thread, put nothing more."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a named shadow of the thing is to say: UpdateThingShadow. Nothing hangs on it.

    Attributes:
        name: of the shadow.
        document: the request, JSON.
    """

    name: str
    document: bytes


class ShadowTransport(Transport, Protocol):
    """A transport that reaches the Device Shadow service as well."""

    def tell(self, shadow: Shadow, taken: Callable[[], None]) -> None:
        """Have a shadow say something; `taken` is called, from any thread, when the other end took it, else never.

        It never gets into the way of a request: it is left out without a connection, while a request is under way,
        and while it is held back because the service denied it.
        """
