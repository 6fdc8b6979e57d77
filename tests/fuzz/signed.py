"""Signed documents: the envelope as it is delivered, and what stands in it, signed by a key that is trusted."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.fuzz.harness import depth_of, hold, of_json, sentence

from thingjobs.envelope import PAYLOAD_TYPE, Claims, Here, Opened, keys, opened, sealed
from thingjobs.envelope.claims import read, written
from thingjobs.errors import DocumentError
from thingjobs.model import Code
from thingjobs.wire import MAX_DOCUMENT_DEPTH, document_of

NOW = 1_800_000_000.0
HERE = Here("pump-7", "fw-42", NOW)
URLS = {"image": "https://bucket.s3.amazonaws.com/fw.bin?X-Amz-Signature=1"}
DIGEST = f"sha256:{'ab' * 32}"
DOCUMENT = {"handler": "firmware", "params": {"image": {"$url": "image", "digest": DIGEST}, "slot": "b"}}
GOOD = Claims(DOCUMENT, NOW + 60, ("pump-*", "lamp-?"))
CLAIMS = (
    GOOD,
    replace(GOOD, things=(), job="fw-42", not_before=NOW - 60),
    replace(GOOD, things=("lamp-1",)),
    replace(GOOD, job="fw-43"),
    replace(GOOD, not_after=NOW),
    replace(GOOD, not_after=NOW + 9999, not_before=NOW + 999),
)
#: Always the same, so that an input that was kept means the same tomorrow.
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
TRUSTED = {"release": keys.verifier(PUBLIC)}
PAYLOADS = {written(one) for one in CLAIMS}
_PINNED = re.compile(r"https?://[^#\s]+#sha(256=.{64}|384=.{96}|512=.{128})")


def _bare(claims: Claims) -> dict[str, Any]:
    """Return a signed document whose payload is not yet base64, so that it can be changed as what it is."""
    made = sealed(claims, URLS, "release", PRIVATE.sign)
    return {**made, "signed": {**made["signed"], "payload": json.loads(written(claims))}}


def check_signed(data: bytes) -> None:
    """Whatever is delivered, nothing comes out of it but what the key signed."""
    document = document_of(data.decode(errors="surrogatepass")) if _is_text(data) else None
    if document is None or "signed" not in document:
        return
    envelope = document["signed"]
    if isinstance(envelope, dict) and isinstance(envelope.get("payload"), dict):
        text = json.dumps(envelope["payload"], ensure_ascii=False, separators=(",", ":"))
        envelope["payload"] = base64.b64encode(text.encode(errors="surrogatepass")).decode()
    if _opened(document, TRUSTED) is not None:
        assert base64.b64decode(envelope["payload"].translate(str.maketrans("-_", "+/"))) in PAYLOADS


def check_payload(data: bytes) -> None:
    """Whatever a trusted key signed, it is for this thing and job, good now, and no more than a document may be."""
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"sig": "eA=="}],
    }
    found = _opened({"signed": envelope, "urls": URLS}, {"any": lambda _signature, _message: True})
    if found is None:
        return
    claims = read(data)
    assert (claims.not_before or 0.0) - 300 <= NOW < found.not_after == claims.not_after
    assert claims.things or claims.job
    assert claims.job in ("", HERE.job)
    ways = "|".join(pattern.replace("*", ".*").replace("?", ".") for pattern in claims.things or ("*",))
    assert re.fullmatch(ways, HERE.thing)
    assert depth_of(found.document) <= MAX_DOCUMENT_DEPTH
    assert _PINNED.search(json.dumps(found.document, allow_nan=False))
    assert read(written(claims)) == claims


def _opened(document: dict[str, Any], trusted: dict[str, keys.Verify]) -> Opened | None:
    try:
        return opened(document, trusted, HERE)
    except DocumentError as error:
        hold(isinstance(error.code, Code), error.code)
        sentence(error.reason)
        return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


HARNESSES = (
    of_json("signed", check_signed, *map(_bare, CLAIMS)),
    of_json("payloads", check_payload, *(json.loads(written(one)) for one in CLAIMS)),
)
