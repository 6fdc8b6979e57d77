"""The certificate files of a link over time: whether they were replaced, and how long the device's is valid.

Whether a certificate can be trusted is for TLS to say; here its two dates are read, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from datetime import UTC, datetime
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
        self._used = self._told = state_of(link)
        self._looked = time.monotonic()
        self._until: tuple[object, float | None] = (None, None)
        self._warned: int | None = None

    @property
    def overdue(self) -> bool:
        """Whether nobody has looked for as long as a connection may be silent.

        It is for connections that never are: the others look when they ping.
        """
        return time.monotonic() - self._looked >= self._link.keep_alive

    def opened(self) -> None:
        """Remember the files as they are now: a connection is being opened with them."""
        self._looked = time.monotonic()
        self._used = self._told = state_of(self._link)
        self._warn()

    def replaced(self, usable: Callable[[Link], object]) -> bool:
        """Return whether there are others now, which can be used.

        Args:
            usable: raises OSError or TransportError for files that cannot be used. Half of a new pair is left alone.
        """
        self._looked = time.monotonic()
        self._warn()
        state = state_of(self._link)
        if state == self._used:
            return False
        try:
            usable(self._link)
        except (OSError, TransportError) as error:
            if state != self._told:
                log.warning("the certificate files have changed, and the old ones stay in use: %s", _said(error))
            self._told = state
            return False
        return True

    def _warn(self) -> None:
        """Say when the device's certificate ends soon; once a day at most."""
        until = self._end()
        if until is None:
            return
        now = self._wall()
        number = due_warning(until, now)
        if number is not None and number != self._warned:
            ends = "expired on" if now >= until else "expires on"
            at = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
            log.warning("%s %s %s: replace it; no restart is needed", self._link.certificate, ends, at)
        self._warned = number

    def _end(self) -> float | None:
        """Return until when the device's certificate is valid; it is read again only when it is another."""
        path = self._link.certificate
        if path is None:
            return None
        stamp = _stamp(path)
        if stamp != self._until[0]:
            until = None
            with contextlib.suppress(OSError, ValueError):  # opening the connection says what is wrong with it
                until = dates_of(path.read_bytes())[1].timestamp()
            self._until = (stamp, until)
        return self._until[1]


def _said(error: OSError | TransportError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot read {error.filename}: {error.strerror}; write it anew"
    return str(error)


def state_of(link: Link) -> tuple[object, ...]:
    """Return what is another when the files of a link are."""
    return tuple(_stamp(path) for path in (link.certificate, link.private_key, link.ca))


def _stamp(path: Path | None) -> object:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_size
