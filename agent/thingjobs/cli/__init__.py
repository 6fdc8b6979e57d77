"""The command line: one module a command; this one finds the command and turns errors into exit codes.

Exit codes: 0 done; 1 the outcome is not the wished one (a job did not succeed, a document would be rejected); 2 the
call or the configuration is wrong; 3 the state folder cannot be used; 130 interrupted at the keyboard.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from thingjobs import __version__
from thingjobs.errors import ConfigError, StateError, ThingjobsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

FAILED = 1
USAGE = 2
NO_STATE = 3
INTERRUPTED = 130


#: For the help; the first line is where everybody can begin.
TEXT = """\
to try it without a cloud, each *.json in FOLDER a job:
  thingjobs run --local FOLDER --once

exit codes: 0 done; 1 a job did not succeed, or a document would be rejected;
2 the call or the configuration is wrong; 3 the state folder cannot be used"""


#: The commands in the order of the help, and the module of each.
COMMANDS = {
    "run": "run",
    "dry-run": "dry_run",
    "validate": "validate",
    "sign": "sign",
    "status": "status",
    "check": "check",
    "policy": "policy",
    "handlers": "handlers",
    "cloud": "cloud",
    "job": "job",
}


def parser(wanted: str = "") -> argparse.ArgumentParser:
    """Return the parser of the command line; of one command only if `wanted` names it, because each costs a start."""
    import argparse  # noqa: PLC0415 - a running agent does not need it

    top = argparse.ArgumentParser(
        prog="thingjobs",
        description="The job agent for AWS IoT things: takes jobs, runs handlers, reports the truth.",
        epilog=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"thingjobs {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    modules = [COMMANDS[wanted]] if wanted in COMMANDS else COMMANDS.values()
    for name in modules:
        importlib.import_module(f"thingjobs.cli.{name}").add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback reaches a user."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed: `>&-`.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - it stays
    if arguments is None:
        sys.excepthook = _fault
    try:
        status = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
        return FAILED
    except OSError as error:
        complain(_why(error))
        _write_no_more()
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _fault(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """Tell of a defect in one line; an agent, from where on it has a log, tells it there."""
    from thingjobs.redact import discreet  # noqa: PLC0415 - seldom needed
    from thingjobs.seeing.logs import crash  # noqa: PLC0415

    complain(discreet(f"ended by a fault: {crash(error)}"))


def _write_no_more() -> None:
    """Keep the interpreter from trying once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _why(error: OSError) -> str:
    try:
        os.getcwd()  # noqa: PTH109 - what a Path says of it is the same
    except FileNotFoundError:
        return "the current folder is gone; cd to another one"
    return f"{error.filename or 'cannot write the output'}: {error.strerror or error}"


def _run(given: list[str]) -> int:
    top = parser(given[0] if given else "")
    chosen, unknown = top.parse_known_args(given)
    if "command" not in chosen:
        top.print_help(sys.stderr)
        return USAGE
    if unknown:
        chosen.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return _carry_out(chosen)


def _carry_out(chosen: argparse.Namespace) -> int:
    try:
        return int(chosen.command(chosen))
    except ConfigError as error:
        complain("the configuration cannot be used:" if len(error.problems) > 1 else "", *error.problems)
        return USAGE
    except StateError as error:
        complain(str(error))
        return NO_STATE
    except ThingjobsError as error:
        complain(str(error))
        return FAILED


def print_help(chosen: argparse.Namespace) -> int:
    """Show the help of a command that was called without saying what it is to do."""
    chosen.parser.print_help(sys.stderr)
    return USAGE


def complain(*lines: str) -> None:
    """Print an error for a person; the first line carries the program's name."""
    first, *rest = [line for line in lines if line]
    print(f"thingjobs: {first}", file=sys.stderr)
    for line in rest:
        print(f"  - {line}", file=sys.stderr)
