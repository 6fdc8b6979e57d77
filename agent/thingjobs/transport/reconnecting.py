"""One connection after another, for ever, with the waits of `patience`: what the transports over a network share.

It knows no library and no protocol, and imports neither: what carries requests is a `Session`, and how one is come by
is for the subclass. One thread opens, holds and ends connections; other threads only leave a wish.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from thingjobs.errors import ThingjobsError
from thingjobs.jobs import Disconnected
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.patience import Cause, Ended, History, after, kind_of, topic_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.jobs import Incoming, Request
    from thingjobs.ports import Shadow
    from thingjobs.transport.link import Link
    from thingjobs.transport.patience import Limits

log = logging.getLogger("thingjobs.connection")

#: Only the lookup of a name cannot be interrupted; a thread that is in one is left behind, to end by itself.
STOP_SECONDS = 2.0


class Session(Protocol):
    """One connection; these are called from any thread."""

    def send(self, request: Request) -> None:
        """Send a request, if the connection is there."""

    def withhold(self) -> None:
        """A request was held back: it will not be answered either."""

    def tell(self, shadow: Shadow) -> None:
        """Have a shadow say something, if the connection is there and nothing else is under way."""

    def renew(self) -> None:
        """End it, because somebody wants a new one."""


S = TypeVar("S", bound=Session)


class Reconnecting(ABC, Generic[S]):
    """`ports.ShadowTransport`, but for holding one connection.

    Args:
        link: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        read_clock: gives the clocks.
        limits: how patient to be.
    """

    #: What the thread is called.
    THREAD: ClassVar[str] = "mqtt"
    #: What is said when a kind of request begins to be held back, and when it is not any more.
    HELD: ClassVar[str] = (
        "{times} right after a message to {topic}: probably the policy of this certificate does not "
        "allow iot:Publish on it; held back for {hold:.0f} s, all else goes on"
    )
    FREED: ClassVar[str] = "messages to {topic} are accepted again"

    def __init__(
        self,
        link: Link,
        roll: Callable[[], float],
        delay: float,
        read_clock: Callable[[], Reading],
        limits: Limits,
    ) -> None:
        self._link = link
        self._roll = roll
        self._read_clock = read_clock
        self._put: Callable[[Incoming], None] = _nowhere
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.THREAD, daemon=True)
        self._certificates = Certificates(link, time.time)
        #: Set by `_hold_one` as soon as it can take wishes.
        self._session: S | None = None
        #: Replaced by the thread only, so that others may read it at any time.
        self._history = History(limits, wait=delay)
        #: What to call when the shadow that was told last is taken, and its kind.
        self._taken: tuple[str, Callable[[], None]] = ("", _never)

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin to connect; everything that happens is given to `put`."""
        self._put = put
        self._thread.start()

    def send(self, request: Request) -> None:
        """Send a request; without a connection, or while its kind is held back, it gets no reply."""
        session = self._session
        if session is None:
            return
        session.withhold() if self._is_held(kind_of(request)) else session.send(request)

    def tell(self, shadow: Shadow, taken: Callable[[], None]) -> None:
        """Have a shadow say something, if it does not get in the way of requests; call `taken` when that was taken."""
        session, kind = self._session, kind_of(shadow)
        if session is not None and not self._is_held(kind):
            self._taken = (kind, taken)
            session.tell(shadow)

    def renew(self) -> None:
        """Drop the connection and open a new one; where there is none, one is being opened anyway."""
        session = self._session
        if session is not None:
            session.renew()

    def stop(self) -> None:
        """Disconnect, end the thread, put nothing more."""
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        else:
            self._release()

    # --- what a subclass writes -----------------------------------------------------------------------------------

    @abstractmethod
    def _hold_one(self) -> tuple[str, Ended]:
        """Hold one connection until it ends; return why it did, for people and for `patience`.

        Whatever it raises is told, and the next one is tried.
        """

    @abstractmethod
    def _wake(self) -> None:
        """Have `_hold_one` return: we are stopping. From any thread."""

    def _release(self) -> None:
        """Give back what is kept from one connection to the next: there will be no more."""

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        before: Reading | None = None
        while not self._stopped_within(self._history.wait, before):
            reason, ended = self._held_one()
            self._history = after(self._history, ended, time.monotonic(), self._roll())
            self._tell(Disconnected(reason))
            self._say_what_is_held(ended)
            log.debug("next connection in %.1f s", self._history.wait)
            before = self._read_clock() if ended.cause is Cause.UNDATED else None
        self._release()

    def _stopped_within(self, seconds: float, before: Reading | None) -> bool:
        """Wait, and return whether to stop; with a reading of the clock, no longer than until the clock is set."""
        if before is None:
            return self._stopping.wait(seconds)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopping.wait(min(left, self._history.limits.clock_look)):
                return True
            if self._read_clock().was_set_since(before):
                log.info("the clock was set: trying to connect again")
                break
        return self._stopping.is_set()

    def _held_one(self) -> tuple[str, Ended]:
        """Hold one connection, and let no exception out."""
        try:
            return self._hold_one()
        except (OSError, ValueError, ThingjobsError) as error:
            from thingjobs.transport.dial import why  # noqa: PLC0415 - it brings ssl, which awscrt does not need

            reason, cause = why(error, self._link, self._read_clock)
            return reason, Ended(cause)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next connection may do without it
            return f"{self._link.address}: {_fault(error)}", Ended(Cause.UNREACHED)
        finally:
            self._session = None

    def _tell(self, incoming: Incoming) -> None:
        if not self._stopping.is_set():
            self._put(incoming)

    # --- what is held back ----------------------------------------------------------------------------------------

    def _is_held(self, kind: str) -> bool:
        """Return whether requests of a kind are held back; from any thread."""
        return self._history.holds(kind, time.monotonic())

    def _say_what_is_held(self, ended: Ended) -> None:
        denial = self._history.denials.get(ended.suspect)
        if denial is not None and denial.hold:
            topic = topic_of(self._link.thing, ended.suspect)
            times = f"{denial.ends} connections ended" if denial.ends > 1 else "a connection ended"
            held = {"times": times, "ends": denial.ends, "topic": topic, "kind": ended.suspect, "hold": denial.hold}
            log.warning("%s", self.HELD.format(**held))

    def _accepted(self, kind: str) -> None:
        """The other end took a request of that kind."""
        denial = self._history.denials.get(kind)
        if denial is not None and denial.hold:
            log.info("%s", self.FREED.format(topic=topic_of(self._link.thing, kind), kind=kind))
        self._history = self._history.accepted(kind)
        expected, taken = self._taken
        if kind == expected and not self._stopping.is_set():
            taken()


def _fault(error: Exception) -> str:
    """Return what a mistake of ours is, in one line: what it says, and where whoever repairs it has to look."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else "?"
    said = " ".join(str(error).split())
    return f"a fault in thingjobs ended the connection, please report it ({type(error).__name__}: {said}, {where})"


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start."""


def _never() -> None:
    """Stands where nothing was told yet."""
