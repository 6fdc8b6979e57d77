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
#: The first line: what runs the script, and all behind it, which the kernel hands over as one argument.
FIRST_LINE = re.compile(rb"#![ \t]*([^ \t\0\n]*)([ \t]*)([^\0\n]*)")
#: How `env` is told to take its argument apart, and a word of it without anything that `env` has rules for.
SPLIT = ("-S", "--split-string=", "-vS")
PLAIN_WORD = re.compile(r"[ \t]*([\w./+][\w./+-]*)(?=[ \t\r]|$)")


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
    """Return what is wrong with the beginning of a program, "" if nothing is, or nobody can say."""
    if head.startswith(BYTE_ORDER_MARK):
        return "begins with a byte order mark, so #! is not seen; save it as UTF-8 without one"
    first = FIRST_LINE.match(head)
    if first is None:
        # Formats besides ELF can be registered with the kernel (binfmt_misc); no text has a NUL.
        binary = head.startswith(ELF) or b"\0" in head
        return "" if binary else "does not begin with #!, and is no binary; write what runs it first, such as #!/bin/sh"
    interpreter, blank, argument = map(os.fsdecode, first.groups())
    whole = first.end() < HEAD_BYTES
    if not interpreter or not (whole or blank):
        return "has a first line that names no program, or is too long; write such as #!/bin/sh"
    if whole and _takes_no_cr(interpreter, argument):
        return f"ends its lines with CR LF, so no program is found for it; run sed -i 's/\\r$//' {_quoted(name)}"
    if wrong := _missing(interpreter):
        return wrong
    by_env = whole and os.path.basename(interpreter) == "env"  # noqa: PTH119
    return _wrong_for_env(argument.rstrip(" \t"), path) if by_env else ""


def _takes_no_cr(interpreter: str, argument: str) -> bool:
    """Return whether a first line ends with a CR that becomes a part of a name, or of a shell's option."""
    if not (argument or interpreter).endswith("\r"):
        return False
    if os.path.basename(interpreter) == "env":  # noqa: PTH119
        return not argument.startswith(SPLIT)
    return not argument or interpreter.endswith("sh")


def _missing(program: str, path: str = "") -> str:
    """Return that what is to run a script is not there, if so.

    Args:
        program: as the first line has it.
        path: the PATH on which a mere name is looked for; "": it is none.
    """
    name = bool(path) and "/" not in program
    ways = [os.path.join(one, program) for one in path.split(os.pathsep)] if name else [program]  # noqa: PTH118
    if any(os.access(way, os.X_OK) and os.path.isfile(way) for way in ways):  # noqa: PTH113 - what the kernel looks at
        return ""
    what = "is not on this device" if not name else "is not on the PATH of handlers"
    if any(map(os.path.exists, ways)):
        what = "cannot be run here"
    return f"is to be run by {shown(program)}, which {what}; install it, or name another program"


def _wrong_for_env(argument: str, path: str) -> str:
    split = next((option for option in SPLIT if argument.startswith(option)), "")
    if split:
        word = PLAIN_WORD.match(argument, len(split))
        return _missing(word[1], path) if word else ""
    if argument.startswith("-"):
        return ""  # What else it is told is its own business.
    if len(argument.split()) > 1:
        return f"has {shown(argument)} behind env, which takes it for one name; name the program itself, or use env -S"
    if not argument or "=" in argument:
        return "names env and no program behind it, so it would start itself for ever; write such as #!/usr/bin/env sh"
    return _missing(argument, path)


def _quoted(name: str) -> str:
    import shlex  # noqa: PLC0415 - needed only when something is wrong

    return shlex.quote(name)
