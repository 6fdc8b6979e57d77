"""The Jobs service over HTTPS with requests: where MQTT is blocked. It is polled, as nobody notifies over HTTP.

The service is `iot-jobs-data`, over mutual TLS on port 8443 (or 443, with ALPN) or signed with Signature Version 4.
Every call blocks, so one thread makes them all, one after the other; others only leave a wish.

`https_session` is one stretch of time in which the service was reached, `https_line` how bytes get there, `https_wire`
what they mean; how long to wait before the next try, and which requests to leave out of it, is in `patience`, as for
MQTT: a request that is denied ends the connection there, and does here.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.errors import ThingjobsError
from thingjobs.jobs import Disconnected
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import explain, is_about_dates
from thingjobs.transport.https_line import Line, Signer, Site
from thingjobs.transport.https_session import Polls, Session
from thingjobs.transport.patience import LIMITS, Cause, Ended, History, Limits, after, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.jobs import Incoming, Request

__all__ = ["HttpsTransport", "Polls", "Signer", "Site"]

log = logging.getLogger("thingjobs.connection")

#: Only the lookup of a name, and a SOCKS proxy that says nothing, cannot be interrupted; a thread that waits for one
#: is left behind, to end by itself.
STOP_SECONDS = 2.0


class HttpsTransport:
    """HTTPS with requests.

    Args:
        site: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        polls: how often to ask for news.
        read_clock: gives the clocks.
        limits: how patient to be.
    """

    def __init__(
        self,
        site: Site,
        roll: Callable[[], float],
        delay: float = 0.0,
        *,
        polls: Polls | None = None,
        read_clock: Callable[[], Reading] = clock.read,
        limits: Limits = LIMITS,
    ) -> None:
        self._site = site
        self._roll = roll
        self._polls = polls or Polls()
        self._read_clock = read_clock
        self._put: Callable[[Incoming], None] = _nowhere
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="https", daemon=True)
        self._session: Session | None = None
        self._certificates = Certificates(site.link, time.time)
        #: Replaced by the thread only, so that others may read it at any time.
        self._history = History(limits, wait=delay)

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin to connect; everything that happens is given to `put`."""
        self._put = put
        self._thread.start()

    def send(self, request: Request) -> None:
        """Have a request sent; while the service is not reached, or its kind is held back, it gets no reply."""
        session = self._session
        if session is not None and not self._is_held(kind_of(request)):
            session.send(request)

    def renew(self) -> None:
        """Drop the connection and open a new one; where there is none, one is being opened anyway."""
        session = self._session
        if session is not None:
            session.end("a new connection was asked for")

    def stop(self) -> None:
        """Disconnect, end the thread, put nothing more."""
        self._stopping.set()
        session = self._session
        if session is not None:
            session.end("stopped")
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

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

    def _hold_one(self) -> tuple[str, Ended]:
        """Reach the service until a request brings no answer; return why, for people and for `patience`."""
        line = session = None
        try:
            line = Line(self._site, self._certificates)
            session = Session(self._site, line, self._polls, self._tell, self._accepted, self._is_held, self._roll)
            self._session = session
            if self._stopping.is_set():  # before it could be told
                return "stopped", Ended(Cause.RENEWED)
            return session.serve(), session.ended()
        except (OSError, ThingjobsError) as error:
            return self._why(error, line), Ended(self._cause(error))
        except Exception as error:
            log.warning("the connection ended in an error", exc_info=True)
            return explain(error, self._site.link), Ended(Cause.UNREACHED)
        finally:
            self._session = None
            if line is not None:
                line.rest()

    def _why(self, error: OSError | ThingjobsError, line: Line | None) -> str:
        if is_about_dates(error):
            return explain(error, self._site.link, self._read_clock())
        return str(error) if line is None or isinstance(error, ThingjobsError) else line.why(error)

    def _cause(self, error: Exception) -> Cause:
        return Cause.UNDATED if is_about_dates(error) and not self._read_clock().synchronised else Cause.UNREACHED

    # --- what is denied -------------------------------------------------------------------------------------------

    def _is_held(self, kind: str) -> bool:
        return self._history.holds(kind, time.monotonic())

    def _accepted(self, kind: str) -> None:
        """The service carried out, or could have, a request of that kind."""
        denial = self._history.denials.get(kind)
        if denial is not None and denial.hold:
            log.info("the service does not deny requests of the kind %s any more", kind)
        self._history = self._history.accepted(kind)

    def _say_what_is_held(self, ended: Ended) -> None:
        denial = self._history.denials.get(ended.suspect)
        if denial is not None and denial.hold:
            log.warning(
                "the service denied requests of the kind %s %d times: they are held back for %.0f s, all else goes on",
                *(ended.suspect, denial.ends, denial.hold),
            )


def _nowhere(incoming: Incoming) -> None:
    """Takes events before the start."""
