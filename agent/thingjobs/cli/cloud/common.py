"""What the actions of `thingjobs cloud` have in common: their options, exit codes and JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, USAGE, complain, options
from thingjobs.cli.cloud import reach
from thingjobs.cli.cloud.values import as_json
from thingjobs.cli.paint import Paint
from thingjobs.cloud.errors import CloudError, Fate, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[argparse.Namespace], int]

#: What the operator can put right on this side, before anything was sent.
_WRONG_CALLS = (Trouble.INPUT, Trouble.CREDENTIALS)


def new_action(actions: Any, name: str, summary: str, command: Command) -> argparse.ArgumentParser:
    """Add an action with the options that all have."""
    parser = options.new_parser(actions, name, summary, f"{summary[:1].upper()}{summary[1:]}.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dry-run", action="store_true", help="print the calls, and send nothing")
    reach.add_to(parser)
    parser.set_defaults(command=_guarded(command))
    return parser


def add_waiting(parser: argparse.ArgumentParser, until: str) -> None:
    """Add --wait and --timeout."""
    parser.add_argument("--wait", action="store_true", help=f"wait until {until}")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="with --wait: how long; otherwise as long as it takes"
    )


def _guarded(command: Command) -> Command:
    """Return the command with the exit code that its errors stand for."""

    def run(chosen: argparse.Namespace) -> int:
        if getattr(chosen, "timeout", None) is not None and not chosen.wait:
            chosen.parser.error("--timeout goes with --wait")
        try:
            return command(chosen)
        except CloudError as error:
            complain(str(error))
            return USAGE if error.fate is Fate.NOT_SENT and error.trouble in _WRONG_CALLS else FAILED

    return run


def print_json(value: Any) -> None:
    """Print one JSON value; see `values.as_json`."""
    Paint(sys.stdout).line(json.dumps(as_json(value)))


def at_least_one(text: str) -> int:
    """Read a number of jobs. Raises ArgumentTypeError: it is none."""
    if not text.isascii() or not text.isdecimal() or not int(text[:10]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs, 1 or more")
    return int(text[:10])


def reason(text: str) -> str:
    """Read a reason. Raises ArgumentTypeError: it says nothing."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it says nothing; whoever looks at the job will want to know why")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
