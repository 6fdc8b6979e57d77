"""Proxies: which one, and what is said to it. Pure; the bytes are carried by `dial`.

SOCKS5 is spoken here, in a few lines, because the library that paho would use for it, PySocks, has had no release since
2019, can only block, and ends in exceptions of its own. Names are looked up by the proxy, as a device behind one often
has no DNS that knows the world.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from thingjobs.errors import TransportError
from thingjobs.transport.dialogue import Ask, head_of, missing_of_head

if TYPE_CHECKING:
    from thingjobs.transport.dialogue import Dialogue

_WRITTEN = "a proxy is written http://[user:password@]host:port or socks5://[user:password@]host:port"
#: RFC 1928: version 5; no authentication, user name and password (RFC 1929), none of those offered.
_SOCKS, _OPEN, _LOGIN, _NONE = 5, 0, 2, 0xFF
_ADDRESS_BYTES = {1: 4, 4: 16}
_NAME = 3
#: RFC 1928 section 6.
_REFUSALS = {
    1: "it failed, and does not say why",
    2: "its rules do not allow it",
    3: "it cannot reach that network",
    4: "it cannot reach that host, or find its name",
    5: "the connection was refused there",
    6: "that host is too far away (TTL expired)",
    7: "it does not open connections for others",
    8: "it does not know that kind of address",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to go through.

    Attributes:
        kind: "http" or "socks5".
        user: "": it is shown neither user nor password.

    Raises:
        ValueError: there can be no such proxy; the message does not show the password.
    """

    kind: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("http", "socks5"):
            raise ValueError("a proxy begins with http:// or socks5://")
        if not self.host or not 0 < self.port < 1 << 16:
            raise ValueError(_WRITTEN)
        if self.kind == "socks5" and max(len(self.user.encode()), len(self.password.encode())) > 255:
            raise ValueError("user and password of a SOCKS proxy have at most 255 bytes each")
        if self.kind == "http" and ":" in self.user:
            raise ValueError("the user of an HTTP proxy cannot have a colon")

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Return the proxy that is written `http://[user:password@]host:port` or `socks5://...`.

        Raises:
            ValueError: it is none; the message does not repeat it, as it may hold a password.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or 0
        except ValueError:  # Its message repeats what it does not like, the password too.
            raise ValueError(_WRITTEN) from None
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.scheme, parts.hostname or "", port, user, password)

    @property
    def address(self) -> str:
        """Where, for people: never with the password."""
        return f"{self.host}:{self.port}"

    def tunnel(self, host: str, port: int) -> Dialogue[None]:
        """Have the proxy open a connection to `host`.

        Raises:
            TransportError: it does not; the message says why and what to do.
        """
        return _connect(self, host, port) if self.kind == "http" else _socks(self, host, port)


# --- HTTP ---------------------------------------------------------------------------------------------------------


def _connect(proxy: Proxy, host: str, port: int) -> Dialogue[None]:
    """Say CONNECT: RFC 9110, section 9.3.6."""
    name = host if host.isascii() else host.encode("idna").decode()
    where = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.user:
        login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    head = head_of((yield Ask("\r\n".join([*lines, "", ""]).encode(), missing_of_head)))
    if head is None:
        raise TransportError(f"{proxy.address} does not answer as an HTTP proxy does: check connection.proxy")
    said = f"{head.status} {head.reason}".strip()
    match head.status:
        case 200 | 201 | 202 | 203 | 204:
            return
        case 407 if proxy.user:
            raise _refused(proxy, f"does not take the user {proxy.user} with that password ({said})", "check both")
        case 407:
            raise _refused(proxy, f"wants a user and a password ({said})", "write http://user:password@host:port")
        case 502 | 503 | 504:
            raise _refused(proxy, f"cannot reach {where} ({said})", "check connection.endpoint")
        case _:
            raise _refused(proxy, f"does not let us through to {where} ({said})", "whoever runs it has to allow that")


# --- SOCKS5 -------------------------------------------------------------------------------------------------------


def _socks(proxy: Proxy, host: str, port: int) -> Dialogue[None]:
    """Say CONNECT: RFC 1928; the login is RFC 1929."""
    methods = bytes([_OPEN, _LOGIN] if proxy.user else [_OPEN])
    answer = yield Ask(bytes([_SOCKS, len(methods)]) + methods, lambda came: 2 - len(came))
    if len(answer) != 2 or answer[0] != _SOCKS or answer[1] not in (*methods, _NONE):
        raise TransportError(f"{proxy.address} does not answer as a SOCKS5 proxy does: check connection.proxy")
    if answer[1] == _NONE and proxy.user:
        raise _refused(proxy, "knows another kind of login than user and password", "ask whoever runs it")
    if answer[1] == _NONE:
        raise _refused(proxy, "wants a user and a password", "write socks5://user:password@host:port")
    if answer[1] == _LOGIN:
        login = b"".join(bytes([len(part)]) + part for part in (proxy.user.encode(), proxy.password.encode()))
        answer = yield Ask(b"\x01" + login, lambda came: 2 - len(came))
        if len(answer) != 2 or answer[1] != 0:
            raise _refused(proxy, f"does not take the user {proxy.user} with that password", "check both")
    target = bytes([_SOCKS, 1, 0]) + _address(host) + port.to_bytes(2, "big")
    answer = yield Ask(target, _missing_of_socks)
    if len(answer) < 2:
        raise _refused(proxy, f"closed the connection instead of opening one to {host}:{port}", "ask whoever runs it")
    if answer[1] != 0:
        why = _REFUSALS.get(answer[1], f"it says {answer[1]}, which nobody knows")
        raise _refused(proxy, f"does not let us through to {host}:{port}: {why}", "check it and connection.endpoint")


def _address(host: str) -> bytes:
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("idna")
        return bytes([_NAME, len(name)]) + name
    return bytes([1 if len(packed) == 4 else 4]) + packed


def _missing_of_socks(came: bytes) -> int:
    """Return how many bytes of the answer are missing at least: its length depends on the kind of address."""
    if len(came) < 5:
        return 2 - len(came) if len(came) < 2 else 5 - len(came) if came[1] == 0 else 0
    size = 1 + came[4] if came[3] == _NAME else _ADDRESS_BYTES.get(came[3], 4)
    return 4 + size + 2 - len(came)


def _refused(proxy: Proxy, what: str, remedy: str) -> TransportError:
    return TransportError(f"the proxy {proxy.address} {what}: {remedy} (connection.proxy)")
