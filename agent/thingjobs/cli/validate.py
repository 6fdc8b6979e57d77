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
    for name, verdict in found:
        if chosen.json:
            paint.line(json.dumps(as_json(name, verdict)))
        elif isinstance(verdict, Plan):
            paint.line(f"{paint.mark('SUCCEEDED')} {documents.shown(name)}: good, for handler {verdict.handler}")
        else:
            paint.line(f"{paint.mark('REJECTED')} {documents.shown(name)}: {verdict.code}: {verdict.reason}")
    return FAILED if any(isinstance(verdict, Result) for _, verdict in found) else 0


def as_json(name: str, found: Plan | Result) -> dict[str, Any]:
    """Return a verdict for programs."""
    if isinstance(found, Plan):
        return {"document": name, "valid": True, "handler": found.handler}
    return {"document": name, "valid": False, "code": found.code, "reason": found.reason}
