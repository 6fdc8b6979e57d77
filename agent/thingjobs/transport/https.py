"""The Jobs service over HTTPS with requests: where MQTT is blocked. It is polled, as nobody notifies over HTTP.

The service is `iot-jobs-data`, over mutual TLS on port 8443 (or 443, with ALPN) or signed with Signature Version 4.
Every call blocks, so one thread makes them all, one after the other; others only leave a wish.

`https_session` is one stretch of time in which the service was reached, `https_line` how bytes get there, `https_wire`
what they mean; that there is one after another is in `reconnecting`, and how long to wait and what to leave out in
`patience`, as for MQTT: a request that is denied ends the connection there, and does here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.transport.https_line import Line, Signer, Site
from thingjobs.transport.https_polls import Polls
from thingjobs.transport.https_session import Session
from thingjobs.transport.patience import LIMITS, Cause, Ended, Limits
from thingjobs.transport.reconnecting import Reconnecting

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading

__all__ = ["HttpsTransport", "Polls", "Signer", "Site"]


class HttpsTransport(Reconnecting[Session]):
    """HTTPS with requests.

    Args:
        site: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        polls: how often to ask for news.
        read_clock: gives the clocks.
        limits: how patient to be.
    """

    THREAD = "https"
    HELD = (
        "the service denied requests of the kind {kind} {ends} times: they are held back for {hold:.0f} s, all else "
        "goes on"
    )
    FREED = "the service does not deny requests of the kind {kind} any more"

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
        super().__init__(site.link, roll, delay, read_clock, limits)
        self._site = site
        self._polls = polls or Polls()

    def _wake(self) -> None:
        session = self._session
        if session is not None:
            session.stop()

    def _hold_one(self) -> tuple[str, Ended]:
        line = Line(self._site, self._certificates)
        self._session = session = Session(
            *(self._site, line, self._polls, self._tell, self._accepted, self._is_held, self._roll)
        )
        try:
            if self._stopping.is_set():  # before it could be told
                return "stopped", Ended(Cause.RENEWED)
            return session.serve(), session.ended()
        finally:
            line.rest()
