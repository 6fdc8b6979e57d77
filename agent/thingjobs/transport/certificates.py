"""The certificate files of a link over time: whether they were replaced, and how long the device's is valid.

Whether a certificate can be trusted is for TLS to say; here its two dates are read, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

from thingjobs.certificate import dates_of
from thingjobs.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.transport.link import Link

log = logging.getLogger("thingjobs.connection")

DAY_SECONDS = 86_400
#: Days before its end at which a certificate is spoken of: first at 30, then at 7, and then every day.
FIRST_DAYS, THEN_DAYS = 30, 7


def due_warning(until: float, now: float) -> int | None:
    """Return the number of the warning that is due for a certificate, None before the first.

    A warning that has the number of the last one given is not given again: so 30 days before the end there is one, 7
    days before the next, and from then on one a day, also when the end is over.

    Args:
        until: the end, seconds since the epoch.
        now: the same.
    """
    days = math.floor((until - now) / DAY_SECONDS)
    if days >= FIRST_DAYS:
        return None
    return FIRST_DAYS if days >= THEN_DAYS else days


class Certificates:
    """Looks at the files of a link; one thread only.

    Args:
        link: which files.
        wall: the time of day, seconds since the epoch.
    """

    def __init__(self, link: Link, wall: Callable[[], float]) -> None:
        self._link = link
        self._wall = wall
        self._used = self._told = _state_of(link)
        self._warned: int | None = None

    def opened(self) -> None:
        """Remember the files as they are now: a connection is being opened with them."""
        self._used = self._told = _state_of(self._link)
        self._warn()

    def replaced(self, usable: Callable[[Link], object]) -> bool:
        """Return whether there are others now, which can be used.

        Args:
            usable: raises OSError or TransportError for files that cannot be used. Half of a new pair is left alone.
        """
        self._warn()
        state = _state_of(self._link)
        if state == self._used:
            return False
        try:
            usable(self._link)
        except (OSError, TransportError) as error:
            if state != self._told:
                log.warning("the certificate files have changed, and the old ones stay in use: %s", error)
            self._told = state
            return False
        return True

    def _warn(self) -> None:
        """Say when the device's certificate ends soon; once a day at most."""
        path = self._link.certificate
        if path is None:
            return
        with contextlib.suppress(OSError, ValueError):  # opening the connection says what is wrong with it
            _, until = dates_of(path.read_bytes())
            now = self._wall()
            number = due_warning(until.timestamp(), now)
            if number is not None and number != self._warned:
                ends = "expired on" if now >= until.timestamp() else "expires on"
                log.warning("%s %s %s: replace it; no restart is needed", path, ends, f"{until:%Y-%m-%d %H:%M} UTC")
            self._warned = number


def _state_of(link: Link) -> tuple[object, ...]:
    return tuple(_stamp(path) for path in (link.certificate, link.private_key, link.ca))


def _stamp(path: Path | None) -> object:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_size
