"""What only the transport awsiot has: custom authorizers, and keys in tokens (PKCS#11). It imports no library.

The names of the keys are those of `[connection]`, so that what is wrong can be said in the words of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from thingjobs.transport.link import VERSIONS

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.config.settings import Authorizer, Pkcs11
    from thingjobs.transport.link import Link

#: AWS IoT Core tells protocols on port 443 apart by ALPN: "Connecting to AWS IoT Core by using custom authentication".
ALPN_CUSTOM_AUTHORIZER = "mqtt"
#: As the builders of the AWS IoT Device SDK ask for.
ALPN_WEBSOCKET = "http/1.1"


@dataclass(frozen=True, slots=True)
class AwsIotSettings:
    """What a link of this transport may have besides.

    Attributes:
        authorizer: is shown a user name and a password; the certificate is not shown then.
        pkcs11: where the key of the certificate is.
    """

    authorizer: Authorizer | None = None
    pkcs11: Pkcs11 | None = None

    def problems(self, link: Link) -> list[str]:
        """Return what this transport cannot do as it is configured, one sentence each."""
        wrong = (
            (
                link.version != VERSIONS[5],
                'connection.mqtt_version: transport "awsiot" speaks MQTT 5 only; write 5, or use "paho"',
            ),
            (
                link.proxy is not None and link.proxy.kind != "http",
                'connection.proxy: transport "awsiot" goes through HTTP proxies only; write http://, or use "paho"',
            ),
            (
                link.private_key_password_file is not None,
                'connection.private_key_password_file: transport "awsiot" takes no key with a password; use "paho"',
            ),
            (
                self.pkcs11 is not None and link.certificate is None,
                "connection.pkcs11 needs connection.certificate: the certificate of the key in the token, a file",
            ),
            (
                self.pkcs11 is not None and link.private_key is not None,
                "connection.private_key and connection.pkcs11 exclude each other: remove one of them",
            ),
        )
        return [problem for is_wrong, problem in wrong if is_wrong]

    def shows_certificate(self, link: Link) -> bool:
        """Return whether the certificate says who we are."""
        return link.certificate is not None and self.authorizer is None

    def tls(self, link: Link) -> bool:
        """Return whether there is TLS; there is none only to a broker on this machine."""
        return link.tls or self.authorizer is not None

    def signed_for(self, link: Link) -> str:
        """Return the region for which the WebSocket is signed; "": it is not."""
        return link.signed_for if self.authorizer is None else ""

    def protocol(self, link: Link) -> str:
        """Return the protocol to ask for in TLS (ALPN); "": none."""
        if link.alpn is None and self.authorizer is not None and not link.websocket:
            return ALPN_CUSTOM_AUTHORIZER
        if link.alpn is None and link.websocket and link.port == 443:
            return ALPN_WEBSOCKET
        return link.protocol

    def login(self) -> tuple[str | None, bytes | None]:
        """Return user name and password of CONNECT; files are read anew each time.

        Raises:
            OSError: a file cannot be read.
        """
        given = self.authorizer
        if given is None:
            return None, None
        pairs = []
        if given.name:
            pairs.append(("x-amz-customauthorizer-name", quote(given.name)))
        if given.signature_file is not None:
            pairs.append(("x-amz-customauthorizer-signature", quote(line_of(given.signature_file))))
        if given.token_key and given.token_file is not None:
            pairs.append((quote(given.token_key), quote(line_of(given.token_file))))
        username = given.username
        if pairs:
            username += ("&" if "?" in username else "?") + "&".join(f"{key}={value}" for key, value in pairs)
        return username, line_of(given.password_file).encode() if given.password_file is not None else None


def line_of(path: Path) -> str:
    """Return the secret in a file, without the end of its line.

    Raises:
        OSError: it cannot be read.
    """
    return path.read_text(encoding="utf-8").strip()
