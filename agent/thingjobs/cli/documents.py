"""What `validate` and `dry-run` share: the documents that a command line names, and what this device makes of them.

All files are read before anything is said about one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs.cli import complain, options
from thingjobs.errors import DocumentError
from thingjobs.judging import Judge, registry_for
from thingjobs.model import Code, Plan, Result, Status
from thingjobs.transport.local import parse_document

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from thingjobs.config import Config

STDIN = "-"


def add_to(
    commands: Any, name: str, summary: str, description: str | None, command: Callable[[argparse.Namespace], int]
) -> None:
    """Add a command that takes documents."""
    parser = options.new_parser(commands, name, summary, description)
    parser.add_argument("documents", metavar="DOCUMENT", nargs="+", help="a JSON file, - for standard input")
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def judged(names: Sequence[str], config: Config) -> list[tuple[str, Plan | Result]] | None:
    """Return each document's name and its plan, or the result to refuse it with; None if one cannot be read."""
    contents = read_all(names)
    if contents is None:
        return None
    judge = Judge(config, registry_for(config, config.state.directory, read_only=True))
    return [(name, verdict(judge, data)) for name, data in contents]


def verdict(judge: Judge, data: bytes) -> Plan | Result:
    """Return the plan for a document, or the result that it would be refused with."""
    try:
        return judge.judge(parse(data))
    except DocumentError as error:
        return Result(Status.REJECTED, error.code, error.reason)


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
