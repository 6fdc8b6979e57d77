"""The envelope of DSSE 1.0: `payloadType`, `payload` and `signatures`, and the bytes that a signature is over.

Bytes are signed, so nothing has to be put into a canonical form first.
Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.documents.shape import kind_of, shown
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from thingjobs.model import Json

#: The number is that of the form of the payload: an agent refuses one that it does not know.
PAYLOAD_TYPE = "application/vnd.thingjobs.job.v1+json"
#: A document of AWS IoT Jobs has 32 KB; these bound the work that a file or another service can make.
MAX_PAYLOAD_BYTES = 65_536
MAX_SIGNATURES = 8

#: Either alphabet is allowed, and a reader must take both (protocol.md).
_STANDARD = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature.

    Attributes:
        key: which key made it: a hint, for nobody vouches for it; "": not said.
        value: ECDSA: ASN.1 DER, as OpenSSL and AWS KMS make it; Ed25519: its 64 bytes.
    """

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was signed, and the signatures; not verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def refused(reason: str) -> DocumentError:
    """Return the refusal of a document whose signature proves nothing."""
    return DocumentError(Code.DOCUMENT_SIGNATURE, reason)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (PAE, the Pre-Authentication Encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def read(raw: object) -> Envelope:
    """Read an envelope; fields that are not of DSSE are passed over, as it demands.

    Raises:
        DocumentError: document.signature; it is not one.
    """
    if not isinstance(raw, dict):
        raise refused(f"signed must be a DSSE envelope, not {kind_of(raw)}")
    signatures = raw.get("signatures")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= MAX_SIGNATURES:
        raise refused(f"signed.signatures must be a list of 1 to {MAX_SIGNATURES} signatures")
    payload_type = raw.get("payloadType")
    if payload_type != PAYLOAD_TYPE:
        said = shown(payload_type) if isinstance(payload_type, str) else kind_of(payload_type)
        raise refused(f'signed.payloadType must be "{PAYLOAD_TYPE}", which this agent understands, not {said}')
    payload = _decoded(raw.get("payload"), "signed.payload")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise refused(f"signed.payload must not have more than {MAX_PAYLOAD_BYTES} bytes; it has {len(payload)}")
    return Envelope(payload_type, payload, tuple(_signature(*one) for one in enumerate(signatures)))


def as_json(envelope: Envelope) -> Json:
    """Return an envelope as a document holds it."""
    return {
        "payloadType": envelope.payload_type,
        "payload": base64.b64encode(envelope.payload).decode(),
        "signatures": [{"keyid": one.key, "sig": base64.b64encode(one.value).decode()} for one in envelope.signatures],
    }


def _signature(index: int, raw: object) -> Signature:
    place = f"signed.signatures[{index}]"
    if not isinstance(raw, dict):
        raise refused(f"{place} must be a JSON object, not {kind_of(raw)}")
    key = raw.get("keyid", "")
    if not isinstance(key, str):
        raise refused(f"{place}.keyid must be a string, not {kind_of(key)}")
    return Signature(key, _decoded(raw.get("sig"), f"{place}.sig"))


def _decoded(text: object, place: str) -> bytes:
    """Return what base64 says; each value can be written in one way only, but for the alphabet."""
    if not isinstance(text, str):
        raise refused(f"{place} must be base64, not {kind_of(text)}")
    standard = text.translate(_STANDARD)
    try:
        data = base64.b64decode(standard, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != standard:
        raise refused(f"{place} is not base64, or is empty")
    return data
