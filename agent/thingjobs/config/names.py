"""The thing's name where the configuration says only how to find it: the host, a file, the certificate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from thingjobs.certificate import cn_of
from thingjobs.model import THING_NAME_PATTERN, ThingName

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: A name has 128 characters at most; whatever is longer than this is not a file with a name in it.
_MOST_BYTES = 64 * 1024


def thing_name(how: str, *, folder: Path, certificate: Path | None, hostname: str) -> ThingName:
    """Find the thing's name.

    Args:
        how: `certificate-cn`, `hostname` or `file:PATH`.
        folder: where a relative PATH starts.
        certificate: the device certificate, if there is one.
        hostname: of this machine.

    Raises:
        ValueError: there is no name to be found there, or it is not fit for a thing; the text is a sentence.
    """
    name, where = _found(how, folder, certificate, hostname)
    if not THING_NAME_PATTERN.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "…"
        raise ValueError(f"{where} is {shown!r}, and a thing name has 1 to 128 of a-z A-Z 0-9 : _ -")
    return ThingName(name)


def local_name(hostname: str) -> ThingName:
    """Return a thing name for `run --local`: the host's first label, made legal, or `local`."""
    name = re.sub(r"[^a-zA-Z0-9:_-]+", "-", hostname.partition(".")[0])[:128].strip("-")
    return ThingName(name or "local")


def _found(how: str, folder: Path, certificate: Path | None, hostname: str) -> tuple[str, str]:
    if how == "hostname":
        return hostname, "the host's name"
    if how.startswith("file:"):
        path = folder / how.removeprefix("file:")
        return _read(path, lambda data: data.decode().strip()), f"the content of {path}"
    if certificate is None:
        raise ValueError("connection.certificate is empty")
    return _read(certificate, cn_of), f"the common name in {certificate}"


def _read(path: Path, parse: Callable[[bytes], str]) -> str:
    try:
        with path.open("rb") as file:
            return parse(file.read(_MOST_BYTES))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
