"""What `validate` and `dry-run` share: the documents that a command line names, and what this device makes of them.

All files are read before anything is said about one.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs import trusted
from thingjobs.cli import complain, options
from thingjobs.envelope.claims import moment
from thingjobs.errors import DocumentError
from thingjobs.judging import Judge, registry_for
from thingjobs.model import Code, Plan, Result, Status
from thingjobs.redact import redacted
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


@dataclass(frozen=True, slots=True)
class Judged:
    """What this device makes of a document.

    Attributes:
        name: as the command line has it.
        verdict: the plan, or the result to refuse it with.
        signed: the key that vouches for it, and until when, for people; "": it is not signed.
    """

    name: str
    verdict: Plan | Result
    signed: str = ""


def judged(names: Sequence[str], config: Config) -> list[Judged] | None:
    """Return what this device makes of each document; None if one cannot be read.

    Raises:
        ConfigError: the keys that vouch for documents cannot be used.
    """
    contents = read_all(names)
    if contents is None:
        return None
    registry = registry_for(config, config.state.directory, read_only=True)
    judge = Judge(config, registry, keys=trusted.keys_of(config.signed), now=time.time)
    return [_judged(judge, name, data) for name, data in contents]


def _judged(judge: Judge, name: str, data: bytes) -> Judged:
    signed = ""
    try:
        document = parse(data)
        if found := judge.opened(document):
            signed = f"{found.key}, good until {moment(found.not_after)}"
        return Judged(name, judge.judge(document), signed)
    except DocumentError as error:
        return Judged(name, Result(Status.REJECTED, error.code, redacted(error.reason)), signed)


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
