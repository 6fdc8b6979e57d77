"""Our envelopes are those of DSSE: held against its published vector and against another implementation."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from thingjobs.envelope import PAYLOAD_TYPE, Claims, Here, opened, pae, sealed
from thingjobs.envelope.claims import written
from thingjobs.envelope.keys import new_pair, signer, verifier

pytest.importorskip("cryptography")
pytest.importorskip("securesystemslib")

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

NOW = 1_800_000_000.0
CLAIMS = Claims({"handler": "x", "params": {"greeting": "grüß"}}, NOW + 60, ("*",))
HERE = Here("pump-7", None, NOW)
KINDS = pytest.mark.parametrize("ed25519", [False, True], ids=["P-256", "Ed25519"])


def test_the_vector_of_the_specification() -> None:
    """protocol.md, "Test Vectors"; its signature is r and s as they are, ours are DER as OpenSSL makes them."""
    kind, body = "http://example.com/HelloWorld", b"hello world"
    assert pae(kind, body) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    raw = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    x = 46950820868899156662930047687818585632848591499744589407958293238635476079160
    y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    verify = verifier(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert verify(der, pae(kind, body))
    assert not verify(der, pae(kind, b"hello World"))


@KINDS
def test_another_implementation_verifies_what_we_sign(*, ed25519: bool) -> None:
    private, public = new_pair(ed25519=ed25519)
    made = sealed(CLAIMS, {}, "release", signer(private)[0])["signed"]

    key = SSlibKey.from_crypto(_public(public), "release")
    # It changes what it is given.
    assert list(Envelope.from_dict(copy.deepcopy(made)).verify([key], 1)) == ["release"]

    altered = {**made, "payload": base64.b64encode(written(CLAIMS) + b" ").decode()}
    with pytest.raises(VerificationError):
        Envelope.from_dict(altered).verify([key], 1)


@KINDS
def test_we_verify_what_another_implementation_signs(*, ed25519: bool) -> None:
    private, public = new_pair(ed25519=ed25519)
    key = SSlibKey.from_crypto(_public(public), "release")
    theirs = Envelope(written(CLAIMS), PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(_private(private), key))

    found = opened({"signed": theirs.to_dict()}, {"release": verifier(public)}, HERE)
    assert found.document == CLAIMS.document


def _public(pem: bytes) -> Any:
    return load_pem_public_key(pem)


def _private(pem: bytes) -> Any:
    return load_pem_private_key(pem, None)
