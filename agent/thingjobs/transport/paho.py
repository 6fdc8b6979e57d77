"""MQTT over mutual TLS with paho-mqtt: the default way to reach AWS IoT, and any other broker.

Each connection is a client object of its own, with certificates read anew: nothing is left over from the one before,
so paho never resends an old request after a reconnect, and a certificate that was replaced on disk is used. One
thread does all socket work, opening included; other threads only leave a wish and ring its bell. It sleeps until
there is traffic, a ring, or a ping is due, and never wakes once a second.

One connection is in `session`; how long to wait for the next, and what to leave out of it, in `patience`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.errors import ThingjobsError
from thingjobs.jobs import Disconnected
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import Bell, Dial, Link, explain, is_about_dates
from thingjobs.transport.patience import LIMITS, Cause, Ended, History, Limits, after, kind_of
from thingjobs.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.jobs import Incoming, Request

log = logging.getLogger("thingjobs.connection")

#: Only the lookup of a name cannot be interrupted; a thread that is in one is left behind, to end by itself.
STOP_SECONDS = 2.0


class PahoTransport:
    """MQTT with paho.

    Args:
        link: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        read_clock: gives the clocks.
        limits: how patient to be.
    """

    def __init__(
        self,
        link: Link,
        roll: Callable[[], float],
        delay: float = 0.0,
        read_clock: Callable[[], Reading] = clock.read,
        limits: Limits = LIMITS,
    ) -> None:
        self._link = link
        self._roll = roll
        self._read_clock = read_clock
        self._put: Callable[[Incoming], None] = _nowhere
        self._bell = Bell()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._session: Session | None = None
        self._certificates = Certificates(link, time.time)
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
        self._bell.ring()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        else:
            self._bell.close()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        before: Reading | None = None
        while not self._stopped_within(self._history.wait, before):
            reason, ended = self._hold_one()
            self._history = after(self._history, ended, time.monotonic(), self._roll())
            self._tell(Disconnected(reason))
            self._say_what_is_held(ended)
            log.debug("next connection in %.1f s", self._history.wait)
            before = self._read_clock() if ended.cause is Cause.UNDATED else None
        self._bell.close()

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
                *(denial.ends, self._link.thing, ended.suspect, denial.hold),
            )

    def _accepted(self, kind: str) -> None:
        """The broker took a request of that kind."""
        denial = self._history.denials.get(kind)
        if denial is not None and denial.hold:
            log.info("messages to $aws/things/%s/jobs/%s are accepted again", self._link.thing, kind)
        self._history = self._history.accepted(kind)

    def _hold_one(self) -> tuple[str, Ended]:
        """Hold one connection until it ends; return why it did, for people and for `patience`."""
        cause = Cause.UNREACHED
        try:
            self._certificates.opened()
            with contextlib.closing(Dial(self._link, self._bell, self._stopping).open()) as sock:
                self._session = session = Session(
                    self._link, sock, self._tell, self._bell, self._accepted, one_by_one=self._history.one_by_one
                )
                try:
                    return session.serve(self._stopping, self._certificates), session.ended()
                finally:
                    session.part()
        except (OSError, ValueError, ThingjobsError) as error:
            reason, cause = self._why(error)
        except Exception as error:
            log.warning("the connection ended in an error", exc_info=True)
            reason = explain(error, self._link)
        finally:
            self._session = None
        return reason, Ended(cause)

    def _why(self, error: OSError | ValueError | ThingjobsError) -> tuple[str, Cause]:
        if not is_about_dates(error):
            return explain(error, self._link), Cause.UNREACHED
        reading = self._read_clock()
        return explain(error, self._link, reading), Cause.UNREACHED if reading.synchronised else Cause.UNDATED


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start."""
