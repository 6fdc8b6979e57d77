"""What of the world the checks can be given in the place of the real one, and how patient they are."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from thingjobs import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each step may take, seconds.

    Attributes:
        name: looking up a name.
        reach: opening a TCP connection, all addresses together.
        handshake: TLS, and what a proxy answers.
        alert: how long after a TLS 1.3 handshake the other end may take to refuse our certificate.
        talk: a whole conversation with the service, all that is tried twice included.
        session: of it, CONNECT and SUBSCRIBE.
        reply: a request's reply.
        rival: how long to look whether another client comes with our id.
        return_: how long to look the second time, when one seems to have come: it waits before it comes again.
        cloud: credentials.
        handlers: asking all handlers what they are.
        whole: no check begins later; the longest one is the conversation.
    """

    name: float = 5.0
    reach: float = 6.0
    handshake: float = 6.0
    alert: float = 1.0
    talk: float = 24.0
    session: float = 6.0
    reply: float = 6.0
    rival: float = 3.0
    return_: float = 10.0
    cloud: float = 10.0
    handlers: float = 12.0
    whole: float = 32.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world as the checks see it.

    Attributes:
        read_clock: gives the clocks.
        mounts: the mounts of this process: proc_pid_mountinfo(5).
    """

    patience: Patience = field(default_factory=Patience)
    read_clock: Callable[[], Reading] = clock.read
    mounts: Path = Path("/proc/self/mountinfo")


def within(seconds: float, what: Callable[[], T]) -> T:
    """Return what a call returns that cannot be told to stop; when it takes too long it is left behind, to end alone.

    Raises:
        TimeoutError: it took too long.
        OSError: the call raised it, as any other exception of its own.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(what())
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=work, name="check", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def deadline(seconds: float) -> Callable[[], bool]:
    """Return what says whether fewer seconds than these have passed since now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until
