"""MQTT in a WebSocket: how it is opened (RFC 6455 section 4), and its frames around what paho reads and writes.

paho has one of its own, which cannot be used here: it opens the WebSocket by reading a socket that blocks, so that
nobody can stop it or see the answer of a server that refuses; it sends pongs without a mask, at which a server has to
close (section 5.1); and what it holds in its buffers nobody who polls the socket can know of.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import ssl
from typing import TYPE_CHECKING

from thingjobs.errors import TransportError
from thingjobs.transport.dialogue import MAX_ANSWER_BYTES, Ask, head_of, missing_of_head, printable, told

if TYPE_CHECKING:
    import socket

    from thingjobs.transport.dialogue import Dialogue, Head

#: RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MORE, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _RESERVED, _CONTROL, _MASKED = 0x80, 0x70, 0x8, 0x80
_CHUNK = 16 * 1024


# --- opening ------------------------------------------------------------------------------------------------------


def upgrade(host: str, path: str, where: str, *, signed: bool) -> Dialogue[None]:
    """Open a WebSocket for MQTT.

    Args:
        host: for the header Host.
        path: with its query.
        where: for people.
        signed: whether the path is.

    Raises:
        TransportError: the other end does not want that; the message says why and what to do.
    """
    key = base64.b64encode(os.urandom(16))
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",  # MQTT 5, section 6
    ]
    head = head_of((yield Ask("\r\n".join([*lines, "", ""]).encode(), _missing)))
    if head is None:
        raise TransportError(f"{where} does not answer as a web server does: check connection.endpoint and port")
    if head.status != 101:
        raise TransportError(f"{where} does not open a WebSocket ({told(head)}){_remedy(head, signed=signed)}")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    spoken = head.headers.get("sec-websocket-protocol", "mqtt")
    if head.headers.get("sec-websocket-accept") != accept or spoken != "mqtt":
        raise TransportError(f"{where} opens a WebSocket, but not ours for MQTT: check connection.endpoint and port")


def _missing(came: bytes) -> int:
    """Return how many bytes of the answer are missing at least; a refusal is read with its body, which says why."""
    head = head_of(came)
    if head is None:
        return missing_of_head(came)
    length = head.headers.get("content-length", "")
    if head.status == 101 or not length.isdecimal():
        return 0
    # Cut first: Python reads no number of thousands of digits.
    return max(0, min(int(length[:9]), MAX_ANSWER_BYTES // 2) - len(head.body))


def _remedy(head: Head, *, signed: bool) -> str:
    if head.status in (401, 403) and signed:
        return "; do the AWS credentials allow iot:Connect as this client, for this region, and is the clock right?"
    if head.status in (401, 403):
        return "; it wants to know who we are, and connection.region, for which we would sign, is not there"
    return "; check connection.endpoint and port"


# --- frames -------------------------------------------------------------------------------------------------------


def frame(kind: int, data: bytes, mask: bytes) -> bytes:
    """Return a frame, whole and masked as a client has to: RFC 6455 section 5.2.

    Args:
        kind: the opcode.
        data: what is in it.
        mask: 4 random bytes.
    """
    size = len(data)
    head = bytes([_FINAL | kind])
    if size < 126:
        head += bytes([_MASKED | size])
    elif size < 1 << 16:
        head += bytes([_MASKED | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([_MASKED | 127]) + size.to_bytes(8, "big")
    stretched = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


class Frames:
    """Takes frames of a server apart, however they are cut. Pure.

    Attributes:
        data: what came in binary frames, and was not taken yet; MQTT does not care where one ends.
        pings: what came in pings, to be sent back.
        farewell: why the other end closes, None as long as it does not.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.pings: list[bytes] = []
        self.farewell: str | None = None
        self._raw = bytearray()
        #: Of the binary frame that is being received.
        self._left = 0
        self._unfinished = False

    def feed(self, came: bytes) -> None:
        """Take what came.

        Raises:
            ValueError: it is no frame that a server may send.
        """
        self._raw += came
        while self._raw and self.farewell is None and self._step():
            pass

    def _step(self) -> bool:
        """Take one piece; return whether there was a whole one."""
        if self._left:
            piece = self._raw[: self._left]
            del self._raw[: len(piece)]
            self.data += piece
            self._left -= len(piece)
            return True
        head = self._head()
        if head is None:
            return False
        kind, size, length = head
        if not kind & _CONTROL:
            self._left = length
            del self._raw[:size]
        elif len(self._raw) < size + length:
            return False
        else:
            self._control(kind, bytes(self._raw[size : size + length]))
            del self._raw[: size + length]
        return True

    def _head(self) -> tuple[int, int, int] | None:
        """Return opcode, size of the header and length of what follows; None while the header is not there."""
        if len(self._raw) < 2:
            return None
        first, second = self._raw[:2]
        size = 2 + {126: 2, 127: 8}.get(second, 0)
        if len(self._raw) < size:
            return None
        kind, final = first & 0x0F, bool(first & _FINAL)
        if first & _RESERVED or second & _MASKED or not self._fits(kind, second, final=final):
            raise ValueError(f"a frame {first:02x}{second:02x} is not allowed here")
        if not kind & _CONTROL:
            self._unfinished = not final
        return kind, size, int.from_bytes(self._raw[2:size], "big") if size > 2 else second

    def _fits(self, kind: int, length: int, *, final: bool) -> bool:
        """Return whether such a frame may come now: RFC 6455, sections 5.4 and 5.5; MQTT 5, section 6."""
        if kind in (_CLOSE, _PING, _PONG):
            return final and length < 126
        return kind == (_MORE if self._unfinished else _BINARY)

    def _control(self, kind: int, data: bytes) -> None:
        if kind == _PING:
            self.pings.append(data)
        elif kind == _CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            self.farewell = printable(f"{code} {data[2:].decode('utf-8', 'replace')}")


class WebSocket:
    """What paho takes for its socket. One thread only.

    Args:
        sock: connected, TLS included, and through the handshake; it does not block.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self._out = bytearray()

    @property
    def unsent(self) -> bool:
        """Whether something waits until the socket can be written to."""
        return bool(self._out)

    def fileno(self) -> int:
        """Return the number of the socket, to poll it."""
        return self._sock.fileno()

    def setblocking(self, _flag: bool) -> None:  # noqa: FBT001 - the signature is that of a socket
        """It never blocks."""

    def pending(self) -> int:
        """Return how many bytes came already and were not read."""
        inside = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._frames.data) + inside

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes of MQTT; none: the other end closed the socket.

        Raises:
            OSError: nothing came for now, the connection broke, or it was closed with a reason.
        """
        frames = self._frames
        while not frames.data:
            if frames.farewell is not None:
                raise ConnectionResetError(errno.ECONNRESET, f"the WebSocket was closed ({frames.farewell})")
            came = self._sock.recv(_CHUNK)
            if not came:
                return b""
            self._take(came)
        taken = bytes(frames.data[:size])
        del frames.data[:size]
        return taken

    def send(self, data: bytes) -> int:
        """Send bytes of MQTT as one frame. They are taken whole; what does not go out now waits for `flush`.

        Raises:
            OSError: the connection broke.
        """
        self._out += frame(_BINARY, bytes(data), os.urandom(4))
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what waits, as far as that goes.

        Raises:
            OSError: the connection broke.
        """
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._out:
                del self._out[: self._sock.send(self._out)]

    def close(self) -> None:
        """Say goodbye, and close the socket."""
        with contextlib.suppress(OSError):  # it may be closed already
            self._out += frame(_CLOSE, (1000).to_bytes(2, "big"), os.urandom(4))
            self.flush()
        self._sock.close()

    def _take(self, came: bytes) -> None:
        try:
            self._frames.feed(came)
        except ValueError as error:
            raise OSError(errno.EPROTO, f"what comes is no WebSocket for MQTT: {error}") from None
        for ping in self._frames.pings:
            self._out += frame(_PONG, ping, os.urandom(4))
        self._frames.pings.clear()
        self.flush()
