"""Signed job documents: what a document looks like that a device trusts because of a key, not of who sent it.

    {"signed": {"payloadType": …, "payload": BASE64, "signatures": [{"keyid": NAME, "sig": BASE64}]},
     "urls": {"image": "${aws:iot:s3-presigned-url:https://…}"}}

    dsse       the envelope (DSSE, github.com/secure-systems-lab/dsse, version 1.0): what is signed, byte for byte
    claims     the payload: an ordinary job document, for which things or which job, and until when
    urls       what cannot be signed, because AWS makes it anew for each device: held to a digest that is
    keys       ECDSA P-256 with SHA-256, and Ed25519; the only module that needs the library `cryptography`
    opening    all of it in order

Pure: keys and the time are arguments. What the document inside asks for is not judged here.
"""

from thingjobs.envelope.claims import Claims
from thingjobs.envelope.dsse import PAYLOAD_TYPE, Envelope, Signature, pae
from thingjobs.envelope.opening import SIGNED, Here, Opened, opened, sealed

__all__ = ["PAYLOAD_TYPE", "SIGNED", "Claims", "Envelope", "Here", "Opened", "Signature", "opened", "pae", "sealed"]
