"""Parts of the way to the service, to be tried one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingjobs.config import Config
    from thingjobs.transport.link import Link

#: On port 443 AWS IoT tells HTTPS with a certificate from MQTT by this: AWS IoT Core, "Device communication protocols".
_ALPN_HTTPS = "x-amzn-http-ca"
_ALPN_AUTHORIZER = "mqtt"


def bare(link: Link) -> Link:
    """Return a link that ends where TLS would begin."""
    link = replace(link, websocket=False, region="", private_key_password_file=None)
    return replace(link, certificate=None, private_key=None, ca=None)


def tls_only(config: Config, link: Link) -> Link:
    """Return a link that ends when TLS is there; its key is not shown where only the transport's library has it."""
    connection = config.connection
    link = replace(link, websocket=False, region="")
    if connection.pkcs11 is not None or connection.authorizer is not None:
        link = replace(link, certificate=None, private_key=None, private_key_password_file=None)
    if connection.transport == "https":
        return replace(link, alpn=_ALPN_HTTPS if link.protocol else "")
    if connection.authorizer is not None and not connection.websocket:
        return replace(link, alpn=_ALPN_AUTHORIZER)
    return link
