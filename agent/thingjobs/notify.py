"""Telling systemd how the agent is (sd_notify); silent where nobody listens."""

from __future__ import annotations

import contextlib
import math
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A manager that does not read holds the agent up for so long, and no longer.
PATIENCE_SECONDS = 5.0


class Notifier:
    """Sends state to the service manager.

    Args:
        address: what NOTIFY_SOCKET says; "" means that nobody listens.
    """

    def __init__(self, address: str = "") -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def tell(self, state: str) -> None:
        """Send one message, for example READY=1; a manager that is gone is not our problem."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(PATIENCE_SECONDS)
            link.connect(self._address)
            link.send(state.encode())

    def ready(self) -> None:
        """The agent takes jobs."""
        self.tell("READY=1")

    def stopping(self) -> None:
        """The agent ends."""
        self.tell("STOPPING=1")

    def alive(self) -> None:
        """The loop turns."""
        self.tell("WATCHDOG=1")


class Pulse:
    """Says that the loop turns as often as the service manager wants to hear it (sd_watchdog_enabled(3)).

    Args:
        notifier: whom to tell.
        every: seconds between two signs of life; 0: nobody wants them.

    Attributes:
        due: when the next is due, on the clock of the loop.
    """

    def __init__(self, notifier: Notifier, every: float) -> None:
        self._notifier = notifier
        self._every = every
        self.due: float | None = -math.inf if every > 0 else None

    def beat(self, now: float) -> None:
        """Give a sign of life if one is due."""
        if self.due is not None and now >= self.due:
            self._notifier.alive()
            self.due = now + self._every


def every(environment: Mapping[str, str], pid: int) -> float:
    """Return how often the service manager wants a sign of life of this process, in seconds; 0: never.

    It restarts a service after WATCHDOG_USEC without one; half of that is what systemd advises.
    """
    wanted = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", f"{pid}") == f"{pid}"
    return int(wanted) / 2e6 if meant and wanted.isdecimal() and wanted.isascii() else 0.0
