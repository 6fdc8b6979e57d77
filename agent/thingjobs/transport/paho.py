"""MQTT over mutual TLS with paho-mqtt: the default way to reach AWS IoT, and any other broker.

Each connection is a client object of its own, with certificates read anew: nothing is left over from the one before,
so paho never resends an old request after a reconnect, and a certificate that was replaced on disk is used. One
thread does all socket work, opening included; other threads only leave a wish and ring its bell. It sleeps until
there is traffic, a ring, or a ping is due, and never wakes once a second.

One connection is in `session`; that there is one after another, in `reconnecting`; how long to wait for the next, and
what to leave out of it, in `patience`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.transport.dial import Bell, Dial
from thingjobs.transport.patience import LIMITS, Ended, Limits
from thingjobs.transport.reconnecting import Reconnecting
from thingjobs.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.transport.link import Link


class PahoTransport(Reconnecting[Session]):
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
        super().__init__(link, roll, delay, read_clock, limits)
        self._bell = Bell()

    def _wake(self) -> None:
        self._bell.ring()

    def _release(self) -> None:
        self._bell.close()

    def _hold_one(self) -> tuple[str, Ended]:
        self._certificates.opened()
        with contextlib.closing(Dial(self._link, self._bell, self._stopping).open()) as sock:
            self._session = session = Session(
                *(self._link, sock, self._tell, self._bell, self._accepted), one_by_one=self._history.one_by_one
            )
            try:
                return session.serve(self._stopping, self._certificates), session.ended()
            finally:
                session.part()
