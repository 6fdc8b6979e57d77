"""Signs a job document, for devices that trust the key: prints what the job is created with. Needs thingjobs[signed].

The document names presigned URLs as {"$url": NAME, "digest": "sha256:…"}, and --url gives each its address.
--new-key NAME makes a key: NAME.key to sign with, which no device ever sees, and NAME.pem for the devices; with
--password-file the private key is locked by that password.
"""

from __future__ import annotations

import codecs
import json
import os
import shlex
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, USAGE, complain, documents, options
from thingjobs.documents.shape import invalid, kind_of, shown
from thingjobs.envelope import PAYLOAD_TYPE, SIGNED, Claims, keys, pae, sealed
from thingjobs.envelope.claims import moment, parsed, seconds_of
from thingjobs.errors import DocumentError
from thingjobs.trusted import NAME

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from thingjobs.envelope.keys import Sign
    from thingjobs.model import Json

#: AWS IoT Jobs, "Job limits": the length of a job document, in bytes.
MAX_DOCUMENT_BYTES = 32 * 1024
_DAY_SECONDS = 24 * 3600
#: cryptography takes no longer ones.
_MOST_PASSWORD_BYTES = 1023


class _UsageError(Exception):
    """The call is wrong, or a file cannot be read or written; a sentence."""


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "sign", "sign a job document, or make a key for that", __doc__)
    parser.add_argument("document", metavar="DOCUMENT", nargs="?", help="a JSON file, - for standard input")
    parser.add_argument("--key", metavar="FILE", type=Path, help="the private key, PEM: ECDSA P-256 or Ed25519")
    parser.add_argument("--password-file", metavar="FILE", type=Path, help="holds the private key's password")
    parser.add_argument("--keyid", metavar="NAME", help="what devices call the key; otherwise the name of its file")
    parser.add_argument(
        "--thing", metavar="PATTERN", action="append", default=[], help='for which things: a name, or "pump-*", or "*"'
    )
    parser.add_argument("--job", metavar="ID", default="", help="for this job only")
    parser.add_argument("--days", metavar="N", type=float, help="how long it is good")
    parser.add_argument("--not-before", metavar="TIME", help="from when on: 2027-01-01T00:00:00Z; otherwise from ever")
    parser.add_argument("--url", metavar="NAME=URL", action="append", default=[], help="the address of a $url")
    parser.add_argument("--new-key", metavar="NAME", help="make NAME.key and NAME.pem instead")
    parser.add_argument("--ed25519", action="store_true", help="with --new-key: an Ed25519 key, not ECDSA P-256")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Sign a document, or make a key."""
    try:
        if chosen.new_key is not None:
            return _make_key(chosen)
        return _sign(chosen)
    except ImportError as error:
        complain(f"cannot sign without cryptography ({error}): {keys.INSTALL}")
        return USAGE
    except _UsageError as error:
        complain(str(error))
        return USAGE
    except DocumentError as error:
        complain(f"cannot sign {documents.shown(chosen.document)}: {error.reason}")
        return FAILED


def _check_call(chosen: argparse.Namespace) -> None:
    if missing := [f"--{one}" for one in ("key", "days") if getattr(chosen, one) is None]:
        raise _UsageError(f"cannot sign without {' and '.join(missing)}; to make a key: thingjobs sign --new-key NAME")
    if chosen.document is None:
        raise _UsageError("cannot sign nothing: name a DOCUMENT, - for standard input")
    if chosen.ed25519:
        raise _UsageError("--ed25519 goes with --new-key: a document is signed by the key that --key names")


def _sign(chosen: argparse.Namespace) -> int:
    _check_call(chosen)
    contents = documents.read_all([chosen.document])
    if contents is None:
        return USAGE
    claims = _claims(chosen, _document(contents[0][1]))
    name, sign = _key(chosen)
    text = json.dumps(sealed(claims, _links(chosen.url), name, sign), separators=(",", ":"))
    left = MAX_DOCUMENT_BYTES - len(text)
    if left < 0:
        complain(f"AWS IoT takes documents of up to {MAX_DOCUMENT_BYTES} bytes, and this one would have {-left} more")
        return FAILED
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"cannot write the signed document: {error.strerror}")
        return FAILED
    if sys.stderr.isatty():
        until = f"good until {moment(claims.not_after)}"
        print(f"signed by {name}, {until}; {left} of {MAX_DOCUMENT_BYTES} bytes are left", file=sys.stderr)
    return 0


def _document(data: bytes) -> Json:
    """Return the document to sign.

    Raises:
        DocumentError: it is none, or a reader could take it for another.
    """
    document = documents.parse(data)
    if not isinstance(document, dict):
        raise invalid(f"it must be a JSON object, not {kind_of(document)}")
    if SIGNED in document:
        raise invalid("it is signed already; sign what it was made of")
    try:
        parsed(data.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise invalid(str(error)) from None
    return document


def _claims(chosen: argparse.Namespace, document: Json) -> Claims:
    if not 0 < chosen.days <= 36_525:
        raise _UsageError("--days: must be more than 0, and no more than a hundred years")
    try:
        now = time.time()
        begin = seconds_of(chosen.not_before) if chosen.not_before is not None else None
        # Whole seconds, as they are written.
        end = int((now if begin is None else begin) + chosen.days * _DAY_SECONDS)
        if end <= now:
            raise _UsageError(f"--not-before, --days: the signature would have ended at {moment(end)}; say more days")
        return Claims(document, end, tuple(chosen.thing), chosen.job, begin)
    except ValueError as error:
        how = 'say --thing "*" for all things' if not chosen.thing and not chosen.job else "correct it"
        raise _UsageError(f"cannot sign: {error}; {how}") from None


def _links(given: list[str]) -> Mapping[str, str]:
    if wrong := next((one for one in given if "=" not in one), None):
        raise _UsageError(f"--url {wrong}: write NAME=URL")
    return {name: url for name, _, url in (one.partition("=") for one in given)}


# --- keys ---------------------------------------------------------------------------------------------------------


def _key(chosen: argparse.Namespace) -> tuple[str, Sign]:
    name = chosen.keyid or chosen.key.stem
    if not NAME.fullmatch(name):
        raise _UsageError(f"--keyid: {shown(name)} is no name for a key; use up to 64 letters, digits and . _ @ -")
    try:
        sign, right = keys.signer(_content(chosen.key), _password(chosen))
    except ValueError as error:
        raise _UsageError(f"the key {chosen.key} cannot be used: {error}") from None
    _check_kept(chosen.key)
    probe = pae(PAYLOAD_TYPE, b"{}")
    assert right(sign(probe), probe)  # noqa: S101 - a library that signs wrongly is worth nothing
    return name, sign


def _password(chosen: argparse.Namespace) -> bytes | None:
    """Return the password of the private key, None if it has none."""
    path = chosen.password_file
    if path is None:
        return None
    password = _content(path).strip()
    _check_kept(path)
    if not 0 < len(password) <= _MOST_PASSWORD_BYTES:
        raise _UsageError(f"--password-file: {path} must hold a password of 1 to {_MOST_PASSWORD_BYTES} bytes")
    return password


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _UsageError(f"cannot read {path}: {error.strerror}") from None


def _check_kept(path: Path) -> None:
    """Refuse a file with a secret in it that others may use; a pipe, where one can be given, is nobody else's."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        how = f"(mode {stat.S_IMODE(mode):04o}), and it is a secret; chmod 600 {path}"
        raise _UsageError(f"others may use {path} {how}")


def _make_key(chosen: argparse.Namespace) -> int:
    if chosen.document is not None or chosen.key is not None:
        raise _UsageError("--new-key makes a key and signs nothing: leave DOCUMENT and --key out")
    folder, base = Path(chosen.new_key).parent, chosen.new_key.rpartition("/")[2]
    if not NAME.fullmatch(base):
        raise _UsageError(f"--new-key: {shown(base)} is no name for a key; use up to 64 letters, digits and . _ @ -")
    private, public = keys.new_pair(ed25519=chosen.ed25519, password=_password(chosen))
    secret, known = folder / f"{base}.key", folder / f"{base}.pem"
    _write(known, public, 0o644)
    try:
        _write(secret, private, 0o600)
    except _UsageError:
        known.unlink()
        raise
    print(f"{secret}  to sign with: keep it secret, and off every device")
    print(f"{known}  for the devices: install -D -m 644 {shlex.quote(str(known))} /etc/thingjobs/keys/{known.name}")
    return 0


def _write(path: Path, data: bytes, mode: int) -> None:
    """Make a file that was not there: all of it, or none."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise _UsageError(f"{path} is there already; choose another name, a key is never overwritten") from None
    except OSError as error:
        raise _UsageError(f"cannot write {path}: {error.strerror}") from None
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(data)
    except OSError as error:
        path.unlink()
        raise _UsageError(f"cannot write {path}: {error.strerror}") from None
