"""Finds what is wrong with handlers before a job does: all of it at once, each with what to do.

Takes names of handlers, and paths of handlers that are not installed yet: a folder with manifest.json, or a program.
Without any, all handlers of this device.

Exit code: 0 all is well; 1 something is wrong; 2 the call is wrong.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, options
from thingjobs.cli.handlers.known import FORBIDDEN, allowed, lacking, no_user, registry_of
from thingjobs.cli.paint import Paint
from thingjobs.errors import HandlerError
from thingjobs.judging import handler_environment
from thingjobs.model import Code
from thingjobs.registry.executables import MANIFEST, Executables
from thingjobs.startable import is_program, problems_of

if TYPE_CHECKING:
    import argparse

    from thingjobs.config import Config
    from thingjobs.registry import Handler, Registry


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one handler.

    Attributes:
        name: as it was asked for.
        problems: one sentence each; none: all is well.
        note: what is on purpose, and worth a word.
    """

    name: str
    problems: tuple[str, ...]
    note: str = ""


def add_to(actions: Any) -> None:
    """Add this action."""
    parser = options.new_parser(actions, "check", "find what is wrong with handlers", __doc__)
    parser.add_argument("handlers", metavar="NAME|PATH", nargs="*", help="a handler, or where one is; none: all")
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Check handlers; exit 1 if there is a problem.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    registry = registry_of(config)
    paint = Paint(sys.stdout)
    checked = [_checked(config, registry, given) for given in chosen.handlers]
    if not chosen.handlers:
        checked = [_among_all(config, registry, name) for name in registry.names()]
    for one in checked:
        if chosen.json:
            paint.line(json.dumps({"name": one.name, "problems": one.problems, "note": one.note}))
        else:
            _print(paint, one)
    if not checked and not chosen.json:
        paint.line("there are no handlers on this device")
    return FAILED if any(one.problems for one in checked) else 0


def _print(paint: Paint, one: Checked) -> None:
    count = len(one.problems)
    words = "good" if not count else "1 problem" if count == 1 else f"{count} problems"
    mark = "FAILED" if count else "QUEUED" if one.note else "SUCCEEDED"
    paint.line(f"{paint.mark(mark)} {paint.style(one.name, 'bold')}: {words}")
    for problem in filter(None, [*one.problems, one.note]):
        first, *rest = textwrap.wrap(problem, max(30, paint.width - 5), break_on_hyphens=False, break_long_words=False)
        paint.line(f"  - {first}")
        for line in rest:
            paint.line(f"    {line}")


# --- finding ------------------------------------------------------------------------------------------------------


def _checked(config: Config, registry: Registry, given: str) -> Checked:
    """Check a handler of this device, or one that is somewhere else."""
    if registry.has(given) or (os.sep not in given and not os.path.lexists(given)):
        return Checked(given, tuple(_installed(config, registry, given)))
    return Checked(given, tuple(_elsewhere(config, registry, Path(os.path.abspath(given)))))  # noqa: PTH100 - no links


def _among_all(config: Config, registry: Registry, name: str) -> Checked:
    """Check one of all: where the operator does not let jobs use a handler, that is a choice and no fault."""
    found = _installed(config, registry, name)
    chosen = _not_allowed(config, name, _handler(registry, name))
    return Checked(name, tuple(problem for problem in found if problem not in chosen), "; ".join(chosen))


def _installed(config: Config, registry: Registry, name: str) -> list[str]:
    try:
        found = registry.problems(name)
    except HandlerError as error:
        return [error.reason]
    programs = [one for place in _places(config, name) for one in _of_program(config, place)]
    handler = _handler(registry, name)
    return _each([*found, *programs, *_not_allowed(config, name, handler), *_not_meant(config, handler)])


def _elsewhere(config: Config, registry: Registry, path: Path) -> list[str]:
    """Check what is at a path as if its folder were one of `[handlers] directory`."""
    if not os.path.lexists(path):
        return ["there is neither a handler of that name on this device nor such a file or folder"]
    if path.is_dir() and not os.path.lexists(path / MANIFEST):
        return [_no_handler(path)]
    if path.name == MANIFEST:
        return _elsewhere(config, registry, path.parent)
    if path.is_file() and not os.access(path, os.X_OK):
        return [_no_program(path)]
    there = Executables((path.parent,), handler_environment(config)["PATH"])
    found = there.problems(path) or _schema_problems(registry, there.handler(path))
    taken = registry.has(path.name) and not any(place.samefile(path) for place in _places(config, path.name))
    clash = [f"there is a handler {path.name} on this device already; this one needs another name"] if taken else []
    handler = None if found else there.handler(path)
    programs = _of_program(config, path)
    return _each([*found, *programs, *clash, *_not_allowed(config, path.name, handler), *_not_meant(config, handler)])


def _each(problems: list[str]) -> list[str]:
    """Return each problem once: the registry finds some of them too."""
    return list(dict.fromkeys(problems))


def _places(config: Config, name: str) -> list[Path]:
    """Return where programs of that name are on this device."""
    return [place for directory in config.handlers.directory if os.path.lexists(place := directory / name)]


def _no_handler(path: Path) -> str:
    if (path / "pyproject.toml").exists():
        return f"this is a Python package: pip install -e {path}, then check its handler by its name"
    inside = next((one for one in sorted(path.glob("handlers/*")) if (one / MANIFEST).exists()), None)
    if inside is not None:
        return f"there is no {MANIFEST} in it; did you mean {inside}?"
    return f"there is no {MANIFEST} in it; thingjobs handlers new --shell makes one to begin with"


def _no_program(path: Path) -> str:
    if is_program(path):
        return f"{path} cannot be run; run chmod +x {shlex.quote(str(path))}"
    return f"{path} is neither a folder with {MANIFEST} nor a program; a class is checked by the name of its handler"


def _handler(registry: Registry, name: str) -> Handler | None:
    """Return a handler of this device; None: it cannot be used, which was said."""
    try:
        return registry.get(name)
    except HandlerError:
        return None


def _not_allowed(config: Config, name: str, handler: Handler | None) -> list[str]:
    """Return why the operator's choices keep jobs from a handler."""
    found = [] if allowed(config, name) else [FORBIDDEN]
    error = no_user(config, handler)
    return [*found, error.reason] if error and error.code is Code.USER_FORBIDDEN else found


def _not_meant(config: Config, handler: Handler | None) -> list[str]:
    """Return what a handler declares that this device has not got, or that can't be meant."""
    if handler is None:
        return []
    error = no_user(config, handler)
    found = [error.reason] if error and error.code is not Code.USER_FORBIDDEN else []
    found += lacking(handler)
    stall, longest = handler.limits.stall, max(handler.limits.of(verb) for verb in handler.verbs)
    if stall is not None and stall >= longest:
        found.append(f"stall is {stall:g} s, and no verb may take longer than {longest:g} s: it never counts")
    return found


def _schema_problems(registry: Registry, handler: Handler) -> list[str]:
    """Return why params could not be held against its schema: what only trying tells."""
    try:
        registry.check(handler, {})
    except HandlerError as error:
        return [error.reason]
    return []


def _of_program(config: Config, place: Path) -> list[str]:
    """Return why the program of a handler could not be started, even where its manifest has other faults."""
    program = place / _exec(place / MANIFEST) if place.is_dir() else place
    if program == place and place.is_dir():
        return []  # It names none, which is said already.
    return problems_of(program, handler_environment(config)["PATH"]) if program.is_file() else []


def _exec(manifest: Path) -> str:
    """Return the program that a manifest names, "" if it names none that could be one."""
    try:
        named = json.loads(manifest.read_bytes())["exec"]
        named = named[0] if isinstance(named, list) else named
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ""
    # Nothing outside of the folder is looked at: what a manifest names there is refused, and said.
    return named if isinstance(named, str) and not os.path.isabs(named) and ".." not in named.split("/") else ""  # noqa: PTH117
