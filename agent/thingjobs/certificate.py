"""The common name and the dates of a certificate, by a minimal walk through the DER; nothing is verified.

Python's ssl module tells them of a peer's certificate only, and the agent has no library for others.
Layout: RFC 5280 section 4.1, and X.690 for the encoding.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEQUENCE = 0x30
_SET = 0x31
_VERSION = 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_COMMON_NAME = bytes((0x55, 0x04, 0x03))  # 2.5.4.3
#: The string types of a DirectoryString, and IA5String, which some authorities use all the same.
_CHARSETS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
#: Where a field stands in tbsCertificate, not counting the version, which may be left out.
_VALIDITY, _SUBJECT = 3, 4
_NAMES = {_VALIDITY: "dates", _SUBJECT: "subject"}
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def cn_of(pem: bytes) -> str:
    """Return the common name of the first certificate in a PEM file, the device's own where a chain follows.

    Raises:
        ValueError: there is no certificate, it is damaged, or its subject has not exactly one common name.
    """
    names = list(_common_names(_field(pem, _SUBJECT)))
    if len(names) != 1:
        raise ValueError(f"has {len(names) or 'no'} common name{'s' * bool(names)} (CN) in its subject")
    return names[0]


def dates_of(pem: bytes) -> tuple[dt.datetime, dt.datetime]:
    """Return from when and until when the first certificate in a PEM file is valid.

    Raises:
        ValueError: there is no certificate, it is damaged, or it has no dates.
    """
    match list(_elements(_field(pem, _VALIDITY))):
        case [since, until]:
            return _time(*since), _time(*until)
        case _:
            raise ValueError("holds a damaged certificate (it is not valid from one date to another)")


def _time(tag: int, value: bytes) -> dt.datetime:
    """Read a UTCTime, whose years are 1950 to 2049, or a GeneralizedTime (RFC 5280 section 4.1.2.5)."""
    if tag == _UTC_TIME:
        value = (b"19" if value >= b"50" else b"20") + value
    elif tag != _GENERALIZED_TIME:
        raise ValueError("holds a damaged certificate (a date is none)")
    if value[-1:] != b"Z":  # RFC 5280 wants it, and without it a date is a moment in no place in particular.
        raise ValueError("holds a damaged certificate (a date is none)")
    try:
        return dt.datetime.fromisoformat(f"{value[:8].decode('ascii')}T{value[8:].decode('ascii')}")
    except ValueError:
        raise ValueError("holds a damaged certificate (a date is none)") from None


def _decoded(text: bytes) -> bytes:
    import binascii  # noqa: PLC0415 - needed only where the name comes from the certificate

    try:
        return binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error as error:
        raise ValueError("holds a damaged PEM certificate (it is not base64)") from error


def _field(pem: bytes, index: int) -> bytes:
    """Return the content of a field of tbsCertificate, which is a sequence."""
    block, end, _ = pem.partition(_BEGIN)[2].partition(_END)
    if not end:
        raise ValueError("holds no PEM certificate")
    certificate = _only(_decoded(block), _SEQUENCE)
    _, body = next(_elements(certificate), (0, b""))
    fields = [element for element in _elements(body) if element[0] != _VERSION]
    if len(fields) <= index or fields[index][0] != _SEQUENCE:
        raise ValueError(f"holds a damaged certificate (it has no {_NAMES[index]})")
    return fields[index][1]


def _common_names(subject: bytes) -> Iterator[str]:
    for tag, names in _elements(subject):
        if tag != _SET:
            raise ValueError("holds a damaged certificate (its subject is not a list of names)")
        for _, attribute in _elements(names):
            match list(_elements(attribute)):
                case [(0x06, oid), (charset, value)] if oid == _COMMON_NAME:
                    yield _text(charset, value)


def _text(charset: int, value: bytes) -> str:
    try:
        return value.decode(_CHARSETS[charset])
    except (KeyError, UnicodeDecodeError) as error:
        raise ValueError("has a common name (CN) that cannot be read as text") from error


def _only(data: bytes, tag: int) -> bytes:
    match list(_elements(data)):
        case [(found, content)] if found == tag:
            return content
        case _:
            raise ValueError("holds a damaged certificate (it is not one DER sequence)")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element in turn; lengths are checked before anything is cut."""
    at = 0
    while at < len(data):
        start, length = _length(data, at + 1)
        if start + length > len(data):
            raise ValueError("holds a damaged certificate (it ends too early)")
        yield data[at], data[start : start + length]
        at = start + length


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content starts and how long it is."""
    first = data[at] if at < len(data) else 0x80
    if first < 0x80:
        return at + 1, first
    size = first & 0x7F
    if not 1 <= size <= 4 or at + 1 + size > len(data):  # 0x80, the indefinite length, is not DER
        raise ValueError("holds a damaged certificate (a length is wrong)")
    return at + 1 + size, int.from_bytes(data[at + 1 : at + 1 + size], "big")
