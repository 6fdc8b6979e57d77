"""The files that a configuration names: are they there, readable, what they should be, and safe from others.

Looks only; the network, the clock and what a certificate says are not looked at.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from thingjobs.config.settings import Gates, Handlers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from thingjobs.config.settings import Config, Connection

#: Certificates and keys are a few KiB, a bundle of a whole system some hundred.
_MOST_BYTES = 4 * 1024 * 1024
_LABEL = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)


def check_files(config: Config) -> list[str]:
    """Return what is wrong with the files that a configuration names: one sentence each, with what to do."""
    return [
        *(_connection(config.connection) if config.connection.endpoint else ()),
        *_bundle("AWS_CA_BUNDLE", config.cloud.ca_bundle),
        *_handler_folders(config.handlers),
        *_scripts(config.handlers.scripts),
        *_gates(config.gates.directory),
        *_boot_id(config.system.boot_id_file),
        *_state(config.state.directory),
    ]


def check_sources(paths: Sequence[Path]) -> list[str]:
    """Return which of the configuration's own files and folders others may write: they could have anything run.

    Args:
        paths: files, and folders whose `*.toml` are read.
    """
    inside = [entry for path in paths if path.is_dir() for entry in sorted(path.glob("*.toml"))]
    return [
        f"{path}: others may change it, and what it says is run; run chmod go-w {_sh(path)}"
        for path in (*paths, *inside)
        if _others_may_write(path)
    ]


def _connection(connection: Connection) -> Iterator[str]:
    key, password = connection.private_key, connection.private_key_password_file
    problems = []
    if connection.certificate is not None:
        problems += _pem("connection.certificate", connection.certificate, "CERTIFICATE")
        problems += _kept("connection.certificate", connection.certificate)
    if key is not None:
        problems += _pem("connection.private_key", key, "PRIVATE KEY", locked=password is not None)
        problems += _private("connection.private_key", key)
    if password is not None:
        problems += _secret("connection.private_key_password_file", password)
    yield from problems
    if not problems and connection.certificate and key:
        yield from _pair(connection.certificate, key, password)
    yield from _bundle("connection.ca", connection.ca)
    for name, path in _secrets(connection):
        yield from _secret(name, path)
    if connection.pkcs11 is not None:
        yield from _there("connection.pkcs11.module", connection.pkcs11.module)
        yield from _kept("connection.pkcs11.module", connection.pkcs11.module)


def _secrets(connection: Connection) -> Iterator[tuple[str, Path]]:
    """Yield the files beside the private key that nobody else may know."""
    authorizer, pkcs11 = connection.authorizer, connection.pkcs11
    found = {
        "authorizer.password_file": authorizer and authorizer.password_file,
        "authorizer.token_file": authorizer and authorizer.token_file,
        "authorizer.signature_file": authorizer and authorizer.signature_file,
        "pkcs11.pin_file": pkcs11 and pkcs11.pin_file,
    }
    return ((f"connection.{name}", path) for name, path in found.items() if path)


def _secret(name: str, path: Path) -> list[str]:
    """Return what is wrong with a file that holds one line which nobody else may know."""
    try:
        text = _content(path, 64 * 1024).decode()
    except OSError as error:
        return [_unreadable(name, path, error)]
    except UnicodeDecodeError:
        return [f"{name}: {path} is not UTF-8 text; write the secret alone into it, on one line"]
    problems = _private(name, path)
    if len(text.strip().splitlines()) != 1:
        problems.append(f"{name}: {path} does not hold one line of text; write the secret alone into it, on one line")
    return problems


def _private(name: str, path: Path) -> list[str]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return []  # said already
    if mode & 0o077 and stat.S_ISREG(mode):
        return [f"{name}: others may use {path} (mode {stat.S_IMODE(mode):04o}); run chmod 600 {_sh(path)}"]
    return []


def _kept(name: str, path: Path) -> list[str]:
    """Return that others may write a file which says whom to believe, or which is run in the agent."""
    if not _others_may_write(path):
        return []
    return [f"{name}: others may change {path}, and it is trusted; run chmod go-w {_sh(path)}"]


def _there(name: str, path: Path) -> list[str]:
    try:
        _content(path, 1)
    except OSError as error:
        return [_unreadable(name, path, error)]
    return []


def _pem(name: str, path: Path, wanted: str, *, locked: bool = False) -> list[str]:
    """Return what is wrong with a PEM file; `locked`: there is a password for it."""
    try:
        data = _content(path)
    except OSError as error:
        return [_unreadable(name, path, error)]
    labels = [label.decode() for label in _LABEL.findall(data)]
    if not labels:
        return [f"{name}: {path} is not a PEM file; convert it with openssl"]
    if not locked and ("ENCRYPTED PRIVATE KEY" in labels or b"Proc-Type: 4,ENCRYPTED" in data):
        how = "put it into a file and set connection.private_key_password_file, or write the key without one"
        return [f"{name}: {path} has a password, which nobody can type in here; {how}"]
    if not any(label.endswith(wanted) for label in labels):
        return [f"{name}: {path} holds a {labels[0]}, not a {wanted}; set {name} to the right file"]
    return []


def _content(path: Path, most: int = _MOST_BYTES) -> bytes:
    """Return what a regular file holds; anything else, a pipe for instance, could block for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise IsADirectoryError
    with path.open("rb") as file:
        return file.read(most)


def _unreadable(name: str, path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"{name}: there is no file {path}; put it there, or set {name} to where it is"
        case IsADirectoryError():
            return f"{name}: {path} is not a file; set {name} to one"
        case PermissionError():
            return f"{name}: {path} cannot be read by this account; give it to the account that runs the agent"
        case _:
            return f"{name}: {path} cannot be read ({error.strerror}); put it there anew"


def _pair(certificate: Path, key: Path, password: Path | None) -> Iterator[str]:
    import ssl  # noqa: PLC0415 - large, and not needed to read the configuration

    secret = password.read_text(encoding="utf-8").strip() if password else ""
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=secret)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield (
                f"connection.private_key: {key} is not the key of the certificate {certificate}; "
                "set both to files that were made together"
            )
        elif password and error.reason in (None, "BAD_DECRYPT", "BAD_PASSWORD_READ"):
            yield f"connection.private_key_password_file: what {password} holds does not open {key}; correct it"
        else:
            why = (error.reason or "damaged").replace("_", " ").lower()
            yield f"connection.certificate: {certificate} and {key} cannot be used ({why}); make them anew"


def _bundle(name: str, path: Path | None) -> list[str]:
    if path is None:
        return []
    problems = [*_pem(name, path, "CERTIFICATE"), *_kept(name, path)]
    if problems:
        return problems
    import ssl  # noqa: PLC0415 - large, and not needed to read the configuration

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return [f"{name}: the certificates in {path} are damaged; put the file there anew"]
    return []


def _handler_folders(handlers: Handlers) -> Iterator[str]:
    # One handler that cannot be trusted is refused by itself, with its reason: it does not stop the agent.
    for folder in handlers.directory:
        missing = folder in Handlers().directory
        yield from _folder("handlers.directory", folder, may_be_missing=missing, entries=False)


def _scripts(folder: Path) -> list[str]:
    return list(_folder("handlers.scripts", folder, may_be_missing=folder == Handlers().scripts))


def _gates(folder: Path) -> list[str]:
    return list(_folder("gates.directory", folder, may_be_missing=folder == Gates().directory))


def _folder(name: str, folder: Path, *, may_be_missing: bool, entries: bool = True) -> Iterator[str]:
    """Look at a folder of programs and, with `entries`, at what lies in it; the usual folders need not be there."""
    try:
        inside = sorted(folder.iterdir())
    except FileNotFoundError:
        if not may_be_missing:
            yield f"{name}: there is no folder {folder}; make it, or set {name} to where it is"
    except NotADirectoryError:
        yield f"{name}: {folder} is not a folder; set {name} to one"
    except OSError as error:
        yield f"{name}: {folder} cannot be listed ({error.strerror}); let the agent's account read it"
    else:
        yield from (
            f"{name}: others may change {entry}, and it is run here; run chmod go-w {_sh(entry)}"
            for entry in (folder, *(inside if entries else ()))
            if _others_may_write(entry)
        )


def _others_may_write(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError:
        return False  # a link that leads nowhere runs nothing


def _boot_id(path: Path) -> list[str]:
    name = "system.boot_id_file"
    try:
        content = _content(path, 4096).strip()  # Linux refuses to read megabytes of a file in /proc/sys
    except OSError as error:
        return [_unreadable(name, path, error)]
    return [] if content else [f"{name}: {path} is empty; set {name} to a file that differs after every boot"]


def _state(folder: Path) -> list[str]:
    name = "state.directory"
    place = next(place for place in (folder, *folder.parents) if _exists(place))
    if not place.is_dir():
        return [f"{name}: {place} is not a folder; move it away, or set {name} to another place"]
    # A disk that is read-only for now is no mistake of the configuration.
    forbidden = not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    if forbidden and not os.statvfs(place).f_flag & os.ST_RDONLY:
        return [f"{name}: this account may not write in {place}; make {folder} and give it to the agent's account"]
    return []


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False  # so it is a folder above it that stands in the way


def _sh(path: Path) -> str:
    import shlex  # noqa: PLC0415 - needed only when something is wrong

    return shlex.quote(str(path))
