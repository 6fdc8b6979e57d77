"""Reading the job documents that a command line names, all of them before anything is said about one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.cli import complain
from thingjobs.errors import DocumentError
from thingjobs.model import Code
from thingjobs.transport.local import parse_document

if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN = "-"


def read_all(names: Sequence[str]) -> list[tuple[str, bytes]] | None:
    """Return names and contents of the files; None if one cannot be read, after saying so."""
    contents: list[tuple[str, bytes]] = []
    problems: list[str] = []
    for name in names:
        try:
            contents.append((name, sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()))
        except OSError as error:
            problems.append(f"cannot read {name}: {error.strerror}")
    if problems:
        complain("cannot read all documents:" if len(problems) > 1 else "", *problems)
        return None
    return contents


def shown(name: str) -> str:
    """Return what people call a document."""
    return "standard input" if name == STDIN else name


def parse(data: bytes) -> object:
    """Return the parsed document.

    Raises:
        DocumentError: it is not JSON; the reason says where.
    """
    try:
        return parse_document(data)
    except ValueError as error:
        raise DocumentError(Code.DOCUMENT_INVALID, str(error)) from None
