"""The public keys on this device that vouch for signed job documents: read once, when the agent starts.

Whoever can put a key there can have the agent run what he likes, so folder and files are looked at as programs are.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from thingjobs.config import Signed, check_files
from thingjobs.envelope import keys
from thingjobs.errors import ConfigError
from thingjobs.registry.trust import program_problem

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.config import Config
    from thingjobs.envelope.keys import Verify

_SUFFIX = ".pem"
#: What a key may be called; its name stands in documents and in reasons.
NAME = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9._@-]{0,63}")
#: A PEM of a key has some 200 bytes.
_MOST_BYTES = 65_536


def problems(config: Config) -> list[str]:
    """Return what is wrong with all the files that a configuration names, keys included: one sentence each."""
    return [*check_files(config), *trusted_keys(config.signed)[1]]


def trusted_keys(signed: Signed) -> tuple[dict[str, Verify], list[str]]:
    """Return the keys by name, and what is wrong with them: one sentence each, with what to do."""
    found: dict[str, Verify] = {}
    try:
        files = _files(signed.keys)
        problems: list[str] = []
        for path in files:
            try:
                found[path.name.removesuffix(_SUFFIX)] = _key(path)
            except ValueError as error:
                problems.append(f"signed.keys: {path} cannot be used: {error}")
    except FileNotFoundError:
        files = []
        missing = f"signed.keys: there is no folder {signed.keys}; make it, or set signed.keys to where it is"
        problems = [missing] if signed.keys != Signed().keys else []
    except OSError as error:
        return {}, [f"signed.keys: {signed.keys} cannot be read ({error.strerror}); let the agent's account read it"]
    except ImportError as error:
        return {}, [f"signed.keys: to verify signatures the agent needs cryptography ({error}); {keys.INSTALL}"]
    if signed.require and not files:
        how = f"put a public key there as NAME{_SUFFIX}, or set signed.require to false"
        problems.append(
            f"signed.require = true: there is no key in {signed.keys}, so every job would be REJECTED; {how}"
        )
    return found, problems


def keys_of(signed: Signed) -> dict[str, Verify]:
    """Return the keys by name.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    found, problems = trusted_keys(signed)
    if problems:
        raise ConfigError(problems)
    return found


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return [folder / name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]


def _key(path: Path) -> Verify:
    """Return what verifies by the key in a file.

    Raises:
        ValueError: it cannot be used, or not be trusted.
        ImportError: `cryptography` is not installed, or broken.
    """
    name = path.name.removesuffix(_SUFFIX)
    if not NAME.fullmatch(name):
        raise ValueError("its name is that of the key; use up to 64 letters, digits and . _ @ -")
    try:
        if problem := program_problem(path):
            raise ValueError(problem)
        if not path.is_file():
            raise ValueError("it is no file; remove it")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise ValueError("it is a link that leads nowhere; remove it") from None
    except OSError as error:
        raise ValueError(f"{error.strerror}; let the agent's account read it") from None
    try:
        return keys.verifier(data)
    except ValueError as error:
        raise ValueError(f"{error}; put the public key there that `thingjobs sign --new-key` made") from None
