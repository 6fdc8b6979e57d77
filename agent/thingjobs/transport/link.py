"""Where and as whom to connect: a value, and what follows from it. Nothing is opened or read here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thingjobs.model import ThingName
    from thingjobs.transport.proxy import Proxy

PATIENCE_SECONDS = 30.0
#: Data that the peer does not acknowledge for this long means that the connection is dead, whatever TCP hopes for.
UNACKED_MILLISECONDS = 30_000
#: The largest packet that is read: AWS IoT Core's own CONNACK says this of itself.
MAX_PACKET_BYTES = 146 * 1024
#: The largest that is announced with MQTT 5: "MQTT 5 supported features" calls that the most, and whether a client that
#: says more is refused, nobody tells. A document has 32 KiB at most, so no answer about one comes near it.
ANNOUNCED_PACKET_BYTES = 128 * 1024
#: On port 443 AWS IoT tells MQTT with a certificate from HTTPS by this: AWS IoT Core, "Device communication protocols".
ALPN_443 = "x-amzn-mqtt-ca"
#: By what `connection.mqtt_version` says: the number that the protocol has in CONNECT.
VERSIONS: Mapping[int | str, int] = MappingProxyType({5: 5, "3.1.1": 4})
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Link:
    """Where and as whom to connect.

    Attributes:
        keep_alive: seconds between pings when nothing else is sent; a broker may ask for less.
        certificate: the device certificate; None connects without TLS client authentication.
        private_key: its key; None: it is in the same file, or somewhere else altogether.
        ca: what to trust; None: the system's store. With neither it nor a certificate there is no TLS, unless the
            link is signed.
        version: one of `VERSIONS`.
        patience: seconds that each step of connecting may take: TCP, proxy, TLS, WebSocket, and CONNECT with SUBSCRIBE.
        websocket: MQTT in a WebSocket.
        region: what to sign the WebSocket for; "": it is not signed.
        proxy: what to go through.
        alpn: the protocol to ask for in TLS; None: what the port wants, "": none.
        tls_min: "1.2" or "1.3".
        private_key_password_file: holds the password of the private key.

    Raises:
        ValueError: these do not go together; the message says which.
    """

    host: str
    port: int
    client_id: str
    thing: ThingName
    keep_alive: int = 300
    certificate: Path | None = None
    private_key: Path | None = None
    ca: Path | None = None
    version: int = 5
    patience: float = PATIENCE_SECONDS
    websocket: bool = False
    region: str = ""
    proxy: Proxy | None = None
    alpn: str | None = None
    tls_min: str = "1.2"
    private_key_password_file: Path | None = None

    def __post_init__(self) -> None:
        for wrong, problem in self._problems():
            if wrong:
                raise ValueError(problem)

    def _problems(self) -> tuple[tuple[object, str], ...]:
        key = self.private_key_password_file or self.private_key
        return (
            (not self.host or _UNFIT.search(self.host), f"connection.endpoint {self.host!r} is no name of a host"),
            (not 0 < self.port < 1 << 16, f"connection.port is {self.port}: write 1 to 65535"),
            (self.version not in VERSIONS.values(), 'connection.mqtt_version is none: write 5 or "3.1.1"'),
            (self.tls_min not in ("1.2", "1.3"), f"connection.tls_min is {self.tls_min!r}: write 1.2 or 1.3"),
            (key and not self.certificate, f"{key} is for connection.certificate, which is missing"),
            (self.region and not self.websocket, "connection.region is for signing, which needs connection.websocket"),
            (
                self.signed_for and self.certificate,
                "over a WebSocket, AWS IoT wants a signature and no certificate: leave connection.certificate empty",
            ),
        )

    @property
    def address(self) -> str:
        """Where, for people."""
        return f"{self.host}:{self.port}"

    @property
    def route(self) -> str:
        """Where and through what, for people."""
        return f"{self.address} (through the proxy {self.proxy.address})" if self.proxy else self.address

    @property
    def signed_for(self) -> str:
        """The region for which the WebSocket is signed; "": it is not."""
        return self.region if self.websocket else ""

    @property
    def tls(self) -> bool:
        """Whether there is TLS."""
        return self.certificate is not None or self.ca is not None or bool(self.signed_for)

    @property
    def protocol(self) -> str:
        """The protocol to ask for in TLS (ALPN); "": none."""
        if self.alpn is not None:
            return self.alpn
        return ALPN_443 if self.port == 443 and self.certificate is not None and not self.websocket else ""
