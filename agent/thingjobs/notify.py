"""Telling systemd how the agent is (sd_notify); silent where nobody listens."""

from __future__ import annotations

import contextlib
import socket

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
