"""One connection after another, for ever, with the waits of `patience`; it knows no library and no protocol."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from thingjobs.jobs import Disconnected
from thingjobs.transport.patience import Cause, History, after, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import ThingName
    from thingjobs.transport.patience import Ended, Limits

log = logging.getLogger("thingjobs.connection")

#: Only the lookup of a name cannot be interrupted; a thread that is in one is left behind, to end by itself.
STOP_SECONDS = 2.0


class Session(Protocol):
    """One connection; these are called from any thread."""

    def send(self, request: Request) -> None:
        """Publish a request, if the connection is there."""

    def withhold(self) -> None:
        """A request was held back."""

    def renew(self) -> None:
        """End it, because somebody wants a new one."""


class Reconnecting:
    """What transports over MQTT share: `ports.Transport`, but for holding one connection.

    A subclass writes `_hold_one`, which sets `_session` while requests can be sent.

    Args:
        thing: as whom.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        read_clock: gives the clocks.
        limits: how patient to be.
    """

    def __init__(
        self,
        thing: ThingName,
        roll: Callable[[], float],
        delay: float,
        read_clock: Callable[[], Reading],
        limits: Limits,
    ) -> None:
        self._thing = thing
        self._roll = roll
        self._read_clock = read_clock
        self._put: Callable[[Incoming], None] = _nowhere
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._session: Session | None = None
        #: Replaced by the thread only, so that others may read it at any time.
        self._history = History(limits, wait=delay)

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin to connect; everything that happens is given to `put`."""
        self._put = put
        self._thread.start()

    def send(self, request: Request) -> None:
        """Publish a request with QoS 1; without a connection, or while its kind is held back, it gets no reply."""
        session = self._session
        if session is None:
            return
        held = self._history.holds(kind_of(request), time.monotonic())
        session.withhold() if held else session.send(request)

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

    def _wake(self) -> None:
        """Have `_hold_one` return: we are stopping. From any thread."""
        raise NotImplementedError

    # --- the thread -----------------------------------------------------------------------------------------------

    def _hold_one(self) -> tuple[str, Ended]:
        """Hold one connection until it ends; return why it did, for people and for `patience`."""
        raise NotImplementedError

    def _run(self) -> None:
        before: Reading | None = None
        while not self._stopped_within(self._history.wait, before):
            reason, ended = self._hold_one()
            self._history = after(self._history, ended, time.monotonic(), self._roll())
            self._tell(Disconnected(reason))
            self._say_what_is_held(ended)
            log.debug("next connection in %.1f s", self._history.wait)
            before = self._read_clock() if ended.cause is Cause.UNDATED else None

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

    def _tell(self, incoming: Incoming) -> None:
        if not self._stopping.is_set():
            self._put(incoming)

    def _say_what_is_held(self, ended: Ended) -> None:
        denial = self._history.denials.get(ended.suspect)
        if denial is not None and denial.hold:
            log.warning(
                "%d connections ended right after a message to $aws/things/%s/jobs/%s: probably the policy of this "
                "certificate does not allow iot:Publish on it; held back for %.0f s, all else goes on",
                *(denial.ends, self._thing, ended.suspect, denial.hold),
            )

    def _accepted(self, kind: str) -> None:
        """The broker took a request of that kind."""
        denial = self._history.denials.get(kind)
        if denial is not None and denial.hold:
            log.info("messages to $aws/things/%s/jobs/%s are accepted again", self._thing, kind)
        self._history = self._history.accepted(kind)


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start."""
