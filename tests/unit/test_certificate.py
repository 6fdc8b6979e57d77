"""The common name is found in real certificates and in no damaged one."""

from __future__ import annotations

import base64
import datetime as dt
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type as Charset  # the public API has no name for it
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.certificate import cn_of, dates_of

Names = tuple[tuple[x509.ObjectIdentifier, str], ...]


@cache
def key() -> ec.EllipticCurvePrivateKey:
    """Make one key for all certificates here: what is signed does not matter."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate(*subject: x509.NameAttribute[str], issuer: str = "the issuer") -> bytes:
    """Make a certificate and return its PEM."""
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder(serial_number=2**150 + 1)
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key().public_key())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
    )
    return builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def common_name(value: str, charset: Charset | None = None) -> x509.NameAttribute[str]:
    """Return an attribute for a subject."""
    return x509.NameAttribute(NameOID.COMMON_NAME, value, charset)


ORGANISATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc.")
PUMP = certificate(common_name("pump-7"))
PUMP_DER = base64.b64decode(b"".join(PUMP.split(b"\n")[1:-2]))


def as_pem(der: bytes) -> bytes:
    """Wrap bytes as a PEM certificate."""
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def element(tag: int, *contents: bytes) -> bytes:
    """Encode one DER element with a length of two bytes."""
    content = b"".join(contents)
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


def version_1(*subject: bytes) -> bytes:
    """Make what looks like a certificate of version 1, which has no version field, with a raw subject."""
    name = element(0x30, *subject)
    body = element(0x30, element(0x02, b"\1"), element(0x30), element(0x30), element(0x30), name)
    return as_pem(element(0x30, body, element(0x30), element(0x03)))


def raw_name(charset: int, value: bytes) -> bytes:
    """Encode one common name as it stands in a subject."""
    return element(0x31, element(0x30, element(0x06, b"\x55\x04\x03"), element(charset, value)))


def test_the_common_name_is_the_subjects_and_not_the_issuers() -> None:
    assert cn_of(certificate(common_name("pump-7"), issuer="somebody else")) == "pump-7"


def test_the_common_name_is_found_among_other_names() -> None:
    serial = x509.NameAttribute(NameOID.SERIAL_NUMBER, "12345")
    assert cn_of(certificate(ORGANISATION, common_name("pump-7"), serial)) == "pump-7"


def test_a_name_that_needs_a_long_length_is_read_whole() -> None:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 6
    assert cn_of(certificate(*units, common_name("y" * 64))) == "y" * 64


@pytest.mark.parametrize(
    ("charset", "value"),
    [
        (Charset.UTF8String, "pümpe"),
        (Charset.PrintableString, "pump"),
        (Charset.IA5String, "pump"),
        (Charset.BMPString, "pümpe"),
        (Charset.UniversalString, "pümpe"),
    ],
)
def test_every_kind_of_string_is_understood(charset: Charset, value: str) -> None:
    assert cn_of(certificate(common_name(value, charset))) == value


def test_an_old_latin_1_name_and_a_certificate_of_version_1_are_understood() -> None:
    assert cn_of(version_1(raw_name(0x14, b"p\xfcmpe"))) == "pümpe"


def test_of_a_chain_the_first_certificate_counts_whatever_text_stands_around_it() -> None:
    chain = b"Bag Attributes\r\n" + PUMP.replace(b"\n", b"\r\n") + certificate(common_name("authority"))
    assert cn_of(chain) == "pump-7"


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "holds no PEM certificate"),
        (PUMP_DER, "holds no PEM certificate"),
        (PUMP.replace(b"CERTIFICATE", b"PRIVATE KEY"), "holds no PEM certificate"),
        (PUMP[:200], "holds no PEM certificate"),
        (PUMP.replace(b"MII", b"MII~"), "not base64"),
        (as_pem(b""), "not one DER sequence"),
        (as_pem(PUMP_DER + PUMP_DER), "not one DER sequence"),
        (as_pem(PUMP_DER[:-1]), "ends too early"),
        (as_pem(b"\x30"), "a length is wrong"),
        (as_pem(b"\x30\x80\x00\x00"), "a length is wrong"),
        (as_pem(b"\x30\x85\x00\x00\x00\x00\x01\x00"), "a length is wrong"),
        (as_pem(b"\x30\x82\x01"), "a length is wrong"),
        (as_pem(element(0x30)), "no subject"),
        (as_pem(element(0x30, element(0x30, element(0x02)))), "no subject"),
        (version_1(element(0x30)), "its subject is not a list of names"),
        (version_1(raw_name(0x0C, b"\xff")), "cannot be read as text"),
        (version_1(raw_name(0x04, b"pump")), "cannot be read as text"),
        (version_1(), "has no common name"),
        (certificate(ORGANISATION), "has no common name"),
        (certificate(common_name("a"), common_name("b")), "has 2 common names"),
    ],
)
def test_what_has_no_single_name_is_refused_with_the_reason(pem: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cn_of(pem)


def name_or_reason(pem: bytes) -> str:
    """Return the common name, or why there is none; anything but a ValueError passes."""
    try:
        return f"has the name {cn_of(pem)}"
    except ValueError as error:
        return str(error)


def dates_or_reason(pem: bytes) -> str:
    """Return the dates, or why there are none; anything but a ValueError passes."""
    try:
        return "has the dates {}, {}".format(*dates_of(pem))
    except ValueError as error:
        return str(error)


@given(st.data())
def test_a_damaged_certificate_gives_what_it_holds_or_a_reason_and_nothing_else(data: st.DataObject) -> None:
    der = bytearray(PUMP_DER)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    assert name_or_reason(as_pem(bytes(der))).startswith(("holds", "has"))
    assert dates_or_reason(as_pem(bytes(der))).startswith(("holds a damaged", "has"))


@given(st.binary(max_size=60))
def test_any_bytes_give_a_reason(der: bytes) -> None:
    assert name_or_reason(as_pem(der)).startswith(("holds", "has"))
    assert dates_or_reason(as_pem(der)).startswith("holds a damaged")
