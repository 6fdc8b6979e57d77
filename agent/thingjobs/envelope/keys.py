"""Keys: ECDSA on P-256 with SHA-256, and Ed25519. Reads no file; nobody needs `cryptography` without keys.

The key says by which algorithm it verifies, and an envelope cannot say otherwise. That two signatures of ECDSA may be
right for one message (r and s, r and -s) means nothing here: no signature is remembered or compared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    #: Tells whether a signature is right for a message: verify(signature, message).
    Verify = Callable[[bytes, bytes], bool]
    Sign = Callable[[bytes], bytes]
    Private = EllipticCurvePrivateKey | Ed25519PrivateKey
    Public = EllipticCurvePublicKey | Ed25519PublicKey

#: What to do where the library is missing.
INSTALL = "install it: pip install 'thingjobs[signed]', on Debian apt install python3-cryptography"
_KINDS = "a key must be ECDSA on P-256, or Ed25519"
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


def verifier(pem: bytes) -> Verify:
    """Return what verifies by a public key.

    Args:
        pem: a SubjectPublicKeyInfo, `BEGIN PUBLIC KEY`, and no other: which of two would count is not to be guessed.

    Raises:
        ValueError: it is not one, or of a kind that is not used here.
        ImportError: `cryptography` is not installed, or broken.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - of the extra `signed`
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if b"PRIVATE KEY" in pem:
        raise ValueError("it holds a private key, which belongs to whoever signs and to no device")
    labels = [label.decode() for label in _LABEL.findall(pem)]
    if labels and labels != ["PUBLIC KEY"]:
        raise ValueError(f"it holds {', '.join(labels)}, and must hold one PUBLIC KEY alone")
    try:
        found = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it holds no public key in PEM, BEGIN PUBLIC KEY") from None
    return _verifier(found)


def _verifier(found: object) -> Verify:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    def right(signature: bytes, message: bytes) -> bool:
        try:
            if isinstance(found, ed25519.Ed25519PublicKey):
                found.verify(signature, message)
            elif isinstance(found, ec.EllipticCurvePublicKey):
                found.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    _check_kind(found, public=True)
    return right


def signer(pem: bytes, password: bytes | None = None) -> tuple[Sign, Verify]:
    """Return what signs by a private key, and what verifies it.

    Raises:
        ValueError: it is no private key, is of a kind that is not used here, or the password is wrong.
        ImportError: `cryptography` is not installed, or broken.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    if b"PRIVATE KEY" not in pem:
        raise ValueError("it holds no private key in PEM, as NAME.key of --new-key does")
    try:
        found = load_pem_private_key(pem, password)
    except TypeError:
        said = "it has a password; say --password-file" if password is None else "it has no password"
        raise ValueError(said) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is damaged" if password is None else "the password does not open it") from None
    _check_kind(found, public=False)

    def sign(message: bytes) -> bytes:
        if isinstance(found, ed25519.Ed25519PrivateKey):
            return found.sign(message)
        assert isinstance(found, ec.EllipticCurvePrivateKey)  # noqa: S101 - it was judged
        return found.sign(message, ec.ECDSA(SHA256()))

    return sign, _verifier(found.public_key())


def new_pair(*, ed25519: bool = False, password: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the PEM of a new private key (PKCS #8, locked by the password if there is one) and of its public key.

    Raises:
        ImportError: `cryptography` is not installed, or broken.
    """
    from cryptography.hazmat.primitives import serialization as to  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    made: Private = Ed25519PrivateKey.generate() if ed25519 else ec.generate_private_key(ec.SECP256R1())
    lock = to.BestAvailableEncryption(password) if password else to.NoEncryption()
    private = made.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, lock)
    public = made.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def _check_kind(found: object, *, public: bool) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415

    edwards: type = ed25519.Ed25519PublicKey if public else ed25519.Ed25519PrivateKey
    elliptic = ec.EllipticCurvePublicKey if public else ec.EllipticCurvePrivateKey
    if not isinstance(found, edwards) and not (isinstance(found, elliptic) and isinstance(found.curve, ec.SECP256R1)):
        raise ValueError(_KINDS)
