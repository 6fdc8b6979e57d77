"""What the kernel will say to a handler's program, found out before a job does."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from pathlib import Path

#: Linux reads no more of a file than this to find out how to run it (BINPRM_BUF_SIZE).
HEAD_BYTES = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ELF = b"\x7fELF"
#: How `env` is told to take its one argument apart.
SPLIT = ("-S", "--split-string=", "-vS")


def problems_of(program: Path, path: str, name: str = "") -> list[str]:
    """Return why a program could not be started, each as a sentence with what to do.

    Args:
        program: the file.
        path: the PATH that it will have.
        name: what to call it; by default where it is.
    """
    name = name or str(program)
    try:
        with program.open("rb") as file:
            wrong = _wrong_head(file.read(HEAD_BYTES), name, path)
    except OSError as error:
        wrong = f"cannot be read: {error.strerror}"
    return [f"{shown(name)} {wrong}"] if wrong else []


def is_program(path: Path) -> bool:
    """Return whether a file is meant to be run: it begins as a script or a binary does."""
    try:
        with path.open("rb") as file:
            return file.read(len(ELF)).startswith((b"#!", ELF))
    except OSError:
        return False


def _wrong_head(head: bytes, name: str, path: str) -> str:
    """Return what is wrong with the beginning of a program, "" if nothing is."""
    if head.startswith(BYTE_ORDER_MARK):
        return f"begins with a byte order mark, so #! is not seen; run sed -i '1s/^\\xEF\\xBB\\xBF//' {_quoted(name)}"
    if head.startswith(ELF):
        return ""
    if not head.startswith(b"#!"):
        return "does not begin with #! and is no binary; write the program that runs it first, such as #!/bin/sh"
    line, newline, _ = head[2:].partition(b"\0")[0].partition(b"\n")
    if line.endswith(b"\r"):
        return f"ends its lines with CR LF, so no program is found for it; run sed -i 's/\\r$//' {_quoted(name)}"
    interpreter, *argument = re.split("[ \t]+", os.fsdecode(line).strip(" \t"), maxsplit=1)
    if not interpreter or (not newline and len(head) == HEAD_BYTES):
        return "has a first line that names no program, or is too long; write such as #!/bin/sh"
    return _missing(interpreter, "".join(argument), path)


def _missing(interpreter: str, argument: str, path: str) -> str:
    """Return that a first line's program, or the one that `env` is to find, is not there.

    Args:
        interpreter: as the line has it.
        argument: all that stands behind it, which the kernel gives to it as one.
        path: where `env` looks.
    """
    if not _is_there(interpreter):
        return f"is to be run by {shown(interpreter)}, which is not on this device; install it, or name another program"
    return _wrong_for_env(argument, path) if os.path.basename(interpreter) == "env" else ""  # noqa: PTH119


def _wrong_for_env(argument: str, path: str) -> str:
    split = next((option for option in SPLIT if argument.startswith(option)), "")
    words = argument.removeprefix(split).split()
    wanted = next((word for word in words if "=" not in word), None)
    own = words[: words.index(wanted) + 1] if wanted else words
    if any(word.startswith(("-", "PATH=")) for word in own):
        return ""  # What else `env` is told is its own business.
    if not split and len(words) > 1:
        return f"has {shown(argument)} behind env, which takes that for one name; write env -S {shown(argument)}"
    if wanted is None:
        return "names env and no program behind it, so it would start itself for ever; write such as #!/usr/bin/env sh"
    if any(_is_there(os.path.join(folder, wanted)) for folder in path.split(os.pathsep)):  # noqa: PTH118
        return ""
    return f"is to be run by {shown(wanted)}, which is not in {path}; install it, or name another program"


def _quoted(name: str) -> str:
    import shlex  # noqa: PLC0415 - needed only when something is wrong

    return shlex.quote(name)


def _is_there(program: str) -> bool:
    return os.access(program, os.X_OK) and os.path.isfile(program)  # noqa: PTH113 - what the kernel looks at
