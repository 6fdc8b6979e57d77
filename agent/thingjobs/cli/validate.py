"""Says whether this device would understand the documents. Runs nothing and changes nothing.

Exit code: 0 all are good, 1 at least one would be REJECTED, 2 a file cannot be read.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, USAGE, documents, options
from thingjobs.cli.paint import Paint
from thingjobs.model import Plan, Result

if TYPE_CHECKING:
    import argparse


def add_to(commands: Any) -> None:
    """Add this command."""
    documents.add_to(commands, "validate", "check job documents without running anything", __doc__, command)


def command(chosen: argparse.Namespace) -> int:
    """Judge each document; exit 1 if any would be rejected.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    found = documents.judged(chosen.documents, options.load_or_local(chosen))
    if found is None:
        return USAGE
    paint = Paint(sys.stdout)
    for one in found:
        name, verdict = documents.shown(one.name), one.verdict
        if chosen.json:
            paint.line(json.dumps(as_json(one)))
        elif isinstance(verdict, Plan):
            signed = f", signed by {one.signed}" if one.signed else ""
            paint.line(f"{paint.mark('SUCCEEDED')} {name}: good, for handler {verdict.handler}{signed}")
        else:
            paint.line(f"{paint.mark('REJECTED')} {name}: {verdict.code}: {verdict.reason}")
    return FAILED if any(isinstance(one.verdict, Result) for one in found) else 0


def as_json(one: documents.Judged) -> dict[str, Any]:
    """Return a verdict for programs."""
    found = one.verdict
    if isinstance(found, Plan):
        signed = {"signed": one.signed} if one.signed else {}
        return {"document": one.name, "valid": True, "handler": found.handler, **signed}
    return {"document": one.name, "valid": False, "code": found.code, "reason": found.reason}
