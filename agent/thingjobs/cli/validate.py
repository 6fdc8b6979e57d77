"""Says whether this device would understand the documents. Runs nothing and changes nothing.

Exit code: 0 all are good, 1 at least one would be REJECTED, 2 a file cannot be read.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, USAGE, documents, options
from thingjobs.cli.paint import Paint
from thingjobs.errors import DocumentError
from thingjobs.judging import Judge
from thingjobs.model import Plan, Result, Status
from thingjobs.registry import Registry

if TYPE_CHECKING:
    import argparse


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "validate", "check job documents without running anything", __doc__)
    parser.add_argument("documents", metavar="DOCUMENT", nargs="+", help="a JSON file, - for standard input")
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Judge each document; exit 1 if any would be rejected.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    contents = documents.read_all(chosen.documents)
    if contents is None:
        return USAGE
    judge = Judge(config, Registry(config.handlers.directory))
    paint = Paint(sys.stdout)
    rejected = False
    for name, data in contents:
        found = verdict(judge, data)
        rejected = rejected or isinstance(found, Result)
        if chosen.json:
            paint.line(json.dumps(as_json(name, found)))
        elif isinstance(found, Plan):
            paint.line(f"{paint.mark('SUCCEEDED')} {documents.shown(name)}: good, for handler {found.handler}")
        else:
            paint.line(f"{paint.mark('REJECTED')} {documents.shown(name)}: {found.code}: {found.reason}")
    return FAILED if rejected else 0


def verdict(judge: Judge, data: bytes) -> Plan | Result:
    """Return the plan for a document, or the result that it would be refused with."""
    try:
        return judge.judge(documents.parse(data))
    except DocumentError as error:
        return Result(Status.REJECTED, error.code, error.reason)


def as_json(name: str, found: Plan | Result) -> dict[str, Any]:
    """Return a verdict for programs."""
    if isinstance(found, Plan):
        return {"document": name, "valid": True, "handler": found.handler}
    return {"document": name, "valid": False, "code": found.code, "reason": found.reason}
