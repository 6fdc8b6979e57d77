"""Who signed a certificate, by a short walk through its DER; nothing is verified. Pure.

Layout: RFC 5280 section 4.1: version, serial, signature, issuer, validity, subject.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSION = 0xA0
#: commonName, organizationalUnitName, organizationName: 2.5.4.3, .11 and .10. What AWS IoT signs with has no CN.
_TELLING = (b"\x55\x04\x03", b"\x55\x04\x0b", b"\x55\x04\x0a")
SELF = "itself"


def issuer_of(pem: str) -> str:
    """Return the name of who signed the first certificate of a PEM file; "" if it has none that says something.

    Raises:
        ValueError: there is no certificate, or it is damaged.
    """
    block = _BLOCK.search(pem)
    if block is None:
        raise ValueError("holds no PEM certificate")
    try:
        _, certificate = next(_elements(ssl.PEM_cert_to_DER_cert(block[0])))
        _, body = next(_elements(certificate))
        fields = [content for tag, content in _elements(body) if tag != _VERSION]
        issuer, subject = fields[2], fields[4]
        return SELF if issuer == subject else _name(issuer)
    except (IndexError, StopIteration, ValueError):
        raise ValueError("holds a damaged certificate") from None


def _name(names: bytes) -> str:
    found = {}
    for _, several in _elements(names):
        for _, pair in _elements(several):
            (_, kind), (_, text) = [*_elements(pair)][:2]
            found[kind] = text.decode("utf-8", "replace")
    return next((found[kind] for kind in _TELLING if kind in found), "")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element in turn."""
    at = 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[at + 2 : start], "big")
        at = start + size
        yield tag, data[start:at]
