"""OpenSSL as a judge: it knows nothing of envelopes, only of bytes, keys and signatures."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.envelope import PAYLOAD_TYPE, Claims, Here, opened, pae, sealed
from thingjobs.envelope.claims import written
from thingjobs.envelope.keys import new_pair, signer, verifier
from thingjobs.errors import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Require

NOW = float(int(time.time()))
CLAIMS = Claims({"handler": "x", "params": {"greeting": "grüß"}}, NOW + 60, ("*",))
#: How it makes a key, how it signs a file, how it verifies.
KINDS = {
    "P-256": (
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key"],
        ["dgst", "-sha256", "-sign", "key", "-out", "signature", "message"],
        ["dgst", "-sha256", "-verify", "public", "-signature", "signature", "message"],
    ),
    "Ed25519": (
        ["genpkey", "-algorithm", "ED25519", "-out", "key"],
        ["pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "message", "-out", "signature"],
        ["pkeyutl", "-verify", "-pubin", "-inkey", "public", "-rawin", "-in", "message", "-sigfile", "signature"],
    ),
}


class OpenSsl:
    """The program, in a folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def __call__(self, *words: str) -> bool:
        done = subprocess.run([self._program, *words], cwd=self._folder, capture_output=True, check=False)
        return done.returncode == 0


@pytest.fixture
def openssl(require: Require, tmp_path: Path) -> OpenSsl:
    return OpenSsl(require("openssl"), tmp_path)


def document(payload: bytes, signature: bytes) -> dict[str, Any]:
    """Return an envelope that nothing of ours has made."""
    text, sig = (base64.b64encode(part).decode() for part in (payload, signature))
    return {"signed": {"payloadType": PAYLOAD_TYPE, "payload": text, "signatures": [{"sig": sig}]}}


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_what_we_sign_byte_for_byte(openssl: OpenSsl, tmp_path: Path, kind: str) -> None:
    private, public = new_pair(ed25519=kind == "Ed25519")
    made = sealed(CLAIMS, {}, "release", signer(private)[0])["signed"]
    payload = base64.b64decode(made["payload"])
    (tmp_path / "public").write_bytes(public)
    (tmp_path / "signature").write_bytes(base64.b64decode(made["signatures"][0]["sig"]))
    # Written out here, for `pae` is what is judged.
    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode()

    (tmp_path / "message").write_bytes(head + payload)
    assert openssl(*KINDS[kind][2])
    (tmp_path / "message").write_bytes(head + payload.replace(b"x", b"y", 1))
    assert not openssl(*KINDS[kind][2])


@pytest.mark.parametrize("kind", KINDS)
def test_we_open_what_openssl_signs_with_a_key_that_it_made(openssl: OpenSsl, tmp_path: Path, kind: str) -> None:
    make, sign, _ = KINDS[kind]
    payload = written(CLAIMS)
    (tmp_path / "message").write_bytes(pae(PAYLOAD_TYPE, payload))
    assert openssl(*make)
    assert openssl("pkey", "-in", "key", "-pubout", "-out", "public")
    assert openssl(*sign)
    trusted = {"theirs": verifier((tmp_path / "public").read_bytes())}
    signature = (tmp_path / "signature").read_bytes()

    assert opened(document(payload, signature), trusted, Here("pump-7", None, NOW)).document == CLAIMS.document
    with pytest.raises(DocumentError):
        opened(document(payload + b" ", signature), trusted, Here("pump-7", None, NOW))


def test_a_curve_that_is_written_out_by_its_numbers_is_p256_or_none(openssl: OpenSsl, tmp_path: Path) -> None:
    """Who may choose the base point of a curve can sign for anybody's public key (CVE-2020-0601)."""
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit")
    assert openssl("genpkey", *curve, "-out", "key")
    assert openssl("pkey", "-in", "key", "-pubout", "-out", "public")
    own = (tmp_path / "public").read_bytes()
    with contextlib.suppress(ValueError):  # Some versions of the library refuse even the right numbers.
        verifier(own)
    der = base64.b64decode(b"".join(own.splitlines()[1:-1]))
    base_point = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
    assert base_point in der

    forged = base64.encodebytes(der.replace(base_point, base_point[::-1]))
    with pytest.raises(ValueError, match="public key"):
        verifier(b"-----BEGIN PUBLIC KEY-----\n" + forged + b"-----END PUBLIC KEY-----\n")
