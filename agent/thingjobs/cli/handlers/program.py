"""What the kernel will say to a handler's program, found out before a job does."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Linux reads no more of a file than this to find out how to run it (BINPRM_BUF_SIZE).
HEAD_BYTES = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ELF = b"\x7fELF"


def problems_of(program: Path, path: str) -> list[str]:
    """Return why a program could not be started, each as a sentence with what to do.

    Args:
        program: the file.
        path: the PATH that it will have.
    """
    shown = shlex.quote(str(program))
    try:
        with program.open("rb") as file:
            wrong = _wrong_head(file.read(HEAD_BYTES), shown, path)
    except OSError as error:
        return [f"{program} cannot be read: {error.strerror}"]
    return [f"{program} {wrong}"] if wrong else []


def is_program(path: Path) -> bool:
    """Return whether a file is meant to be run: it begins as a script or a binary does."""
    try:
        with path.open("rb") as file:
            return file.read(len(ELF)).startswith((b"#!", ELF))
    except OSError:
        return False


def _wrong_head(head: bytes, shown: str, path: str) -> str:
    """Return what is wrong with the beginning of a program, "" if nothing is."""
    if head.startswith(BYTE_ORDER_MARK):
        return f"begins with a byte order mark, so #! is not seen; run sed -i '1s/^\\xEF\\xBB\\xBF//' {shown}"
    if head.startswith(ELF):
        return ""
    if not head.startswith(b"#!"):
        return "does not begin with #! and is no binary; write the program that runs it first, such as #!/bin/sh"
    line, newline, _ = head[2:].partition(b"\n")
    if line.endswith(b"\r"):
        return f"ends its lines with CR LF, so no program is found for it; run sed -i 's/\\r$//' {shown}"
    words = line.decode(errors="replace").split()
    if not words or (not newline and len(head) == HEAD_BYTES):
        return "has a first line that names no program, or is too long; write such as #!/bin/sh"
    return _missing(words, path)


def _missing(words: list[str], path: str) -> str:
    """Return that a first line's program, or the one that env is to find, is not there."""
    if not os.access(words[0], os.X_OK) or not os.path.isfile(words[0]):  # noqa: PTH113 - what the kernel looks at
        return f"is to be run by {words[0]}, which is not on this device; install it, or name another program"
    if os.path.basename(words[0]) != "env":  # noqa: PTH119
        return ""
    wanted = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
    if wanted and shutil.which(wanted, path=path) is None:
        return f"is to be run by {wanted}, which is not in {path}; install it, or name another program"
    return ""
