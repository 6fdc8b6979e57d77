"""`thingjobs validate`: would this device understand these documents? Runs nothing, changes nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, documents, options
from thingjobs.cli.paint import Paint
from thingjobs.errors import DocumentError
from thingjobs.judging import Judge
from thingjobs.model import Plan, Result, Status
from thingjobs.registry import Registry

if TYPE_CHECKING:
    import argparse


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = commands.add_parser("validate", help="check job documents without running anything", description=__doc__)
    parser.add_argument("documents", metavar="DOCUMENT", nargs="+", help="a JSON file, - for stdin")
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Judge each document; exit 1 if any would be rejected.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    judge = Judge(config, Registry(config.handlers.directory))
    paint = Paint(sys.stdout)
    results = [(name, verdict(judge, name)) for name in chosen.documents]
    for name, found in results:
        if chosen.json:
            paint.line(json.dumps(as_json(name, found)))
        elif isinstance(found, Plan):
            paint.line(f"{paint.mark('SUCCEEDED')} {name}: good, handler {found.handler}")
        else:
            paint.line(f"{paint.mark('REJECTED')} {name}: {found.code}: {found.reason}")
    return FAILED if any(isinstance(found, Result) for _, found in results) else 0


def verdict(judge: Judge, name: str) -> Plan | Result:
    """Return the plan for the document in file `name`, or the result that it would be refused with."""
    try:
        return judge.judge(documents.read(name))
    except DocumentError as error:
        return Result(Status.REJECTED, error.code, error.reason)


def as_json(name: str, found: Plan | Result) -> dict[str, Any]:
    """Return a verdict for programs."""
    if isinstance(found, Plan):
        return {"document": name, "valid": True, "handler": found.handler}
    return {"document": name, "valid": False, "code": found.code, "reason": found.reason}
