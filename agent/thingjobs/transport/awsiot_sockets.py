"""The sockets of awscrt, which it does not show: they are found among the descriptors of this process.

awscrt leaves Nagle's delay on, with which a request waits for the peer's delayed acknowledgement of the one before: 44
ms instead of 0.5. And it cannot be stopped while it connects or shakes hands; when its socket is shut down, it can.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.transport.link import UNACKED_MILLISECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = Path("/proc/self/fd")


class Sockets:
    """The TCP sockets to a port that were opened since this was made.

    Another part of this process may open one meanwhile: what is done here to it does no harm that lasts.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._before = {name for _, name in _open()}

    def hasten(self) -> None:
        """Send small packets at once, and notice a dead peer."""
        for sock in self._found():
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MILLISECONDS)

    def cut(self) -> None:
        """End the connections, also those that are being made."""
        for sock in self._found():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _found(self) -> Iterator[socket.socket]:
        for fd, name in _open():
            if name not in self._before:
                with contextlib.suppress(OSError), _copy(fd) as sock:  # it was closed while we looked
                    if _peer_port(sock) in (self._port, None):
                        yield sock


def _open() -> list[tuple[int, str]]:
    """Return number and name of our sockets; the name is that of no other, ever."""
    found = []
    for entry in _OURS.iterdir():
        with contextlib.suppress(OSError):
            name = str(entry.readlink())
            if name.startswith("socket:"):
                found.append((int(entry.name), name))
    return found


def _copy(fd: int) -> socket.socket:
    """Return the socket under another number, so that closing it closes nothing.

    Raises:
        OSError: it is gone, or no socket.
    """
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _peer_port(sock: socket.socket) -> int | None:
    """Return the port at the other end, None while it is being connected.

    Raises:
        OSError: it is no TCP socket that connects.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise OSError
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError
    try:
        return int(sock.getpeername()[1])
    except OSError:
        return None
