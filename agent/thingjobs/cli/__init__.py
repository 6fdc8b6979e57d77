"""The command line: one module a command; this one finds the command and turns errors into exit codes.

Exit codes: 0 done; 1 the outcome is not the wished one (a job did not succeed, a document would be rejected); 2 the
call or the configuration is wrong; 3 the state folder cannot be used; 130 interrupted at the keyboard.
"""

from __future__ import annotations

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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; each command adds its own part."""
    import argparse  # noqa: PLC0415 - a running agent does not need it

    from thingjobs.cli import dry_run, run, status, validate  # noqa: PLC0415

    top = argparse.ArgumentParser(
        prog="thingjobs",
        description="The job agent for AWS IoT things: takes jobs, runs handlers, reports the truth.",
    )
    top.add_argument("--version", action="version", version=f"thingjobs {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, dry_run, validate, status):
        command.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback reaches a user."""
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.command(chosen))
    except ConfigError as error:
        complain("cannot use the configuration:" if len(error.problems) > 1 else "", *error.problems)
        return USAGE
    except StateError as error:
        complain(str(error))
        return NO_STATE
    except ThingjobsError as error:
        complain(str(error))
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def complain(*lines: str) -> None:
    """Print an error for a person; the first line carries the program's name."""
    said = [line for line in lines if line]
    if len(said) == 1:
        print(f"thingjobs: {said[0]}", file=sys.stderr)
        return
    print(f"thingjobs: {said[0]}", file=sys.stderr)
    for line in said[1:]:
        print(f"  - {line}", file=sys.stderr)
