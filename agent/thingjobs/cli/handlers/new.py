"""Makes a new handler that works, with its tests and a job to try it: a Python package, or a folder for a script.

It makes a file hold a text; change what it does. Nothing that exists is overwritten.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs.cli import USAGE, complain, options
from thingjobs.cli.paint import Paint
from thingjobs.registry import Registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
MAX_NAME = 64
#: Where each template goes; what is between two @ is replaced there and inside.
PYTHON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "init.py": "src/@PACKAGE@/__init__.py",
    "handler.py": "src/@PACKAGE@/handler.py",
    "test.py": "tests/test_@MODULE@.py",
}
SHELL = {
    "README.md": "README.md",
    "local.toml": "local.toml",
    "manifest.json": "handlers/@NAME@/manifest.json",
    "run.sh": "handlers/@NAME@/run.sh",
    "test.py": "test_@MODULE@.py",
}
JOB = "jobs/try-it.json"
#: What to type, in the new folder.
NEXT = {
    "python": ("pip install -e '.[test]' && pytest", "thingjobs run --local jobs --once"),
    "shell": ("pytest", "thingjobs run --local jobs --once --config local.toml"),
}


def add_to(actions: Any) -> None:
    """Add this action."""
    parser = options.new_parser(actions, "new", "make a handler that works, with its tests", __doc__)
    parser.add_argument("name", metavar="NAME", help="how job documents will call it: small letters, digits, - and _")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--python", action="store_true", help="a Python package with one class (this is the default)")
    kind.add_argument("--shell", action="store_true", help="a folder with a manifest and a shell script")
    parser.add_argument(
        "--into", metavar="FOLDER", type=Path, default=Path(), help="make the folder NAME in here, not where you are"
    )
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Make the handler, and say what to type next."""
    wrong = wrong_name(chosen.name) or _taken(chosen.name)
    folder = chosen.into / chosen.name
    if not wrong and os.path.lexists(folder):
        wrong = f"{folder} exists; choose another name, or another place with --into"
    if not wrong and chosen.into.exists() and not chosen.into.is_dir():
        wrong = f"{chosen.into} is not a folder; name one with --into"
    if wrong:
        complain(f"cannot make a handler: {wrong}")
        return USAGE
    contents = scaffold(chosen.name, folder.absolute(), kind="shell" if chosen.shell else "python")
    try:
        write(folder, contents)
    except OSError as error:
        complain(f"cannot make {error.filename or folder}: {error.strerror}")
        return USAGE
    _tell(chosen, folder, contents)
    return 0


def wrong_name(name: str) -> str:
    """Return why a handler cannot be called `name`, "" if it can."""
    if len(name) > MAX_NAME:
        return f"the name has {len(name)} characters, and {MAX_NAME} is the most"
    if not NAME.fullmatch(name):
        form = "small letters, digits and - or _ between them, a letter first"
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("-0123456789")
        hint = f"; {near} would do" if NAME.fullmatch(near) else ""
        return f"{name!r} is no name for one: write {form}{hint}"
    return ""


def _taken(name: str) -> str:
    """Return that a package installed here has a handler of that name, "" if none has."""
    taken = Registry((), read_only=True).has(name)
    return f"there is a handler {name} already; thingjobs handlers show {name} says where it is from" if taken else ""


def scaffold(name: str, folder: Path, *, kind: str) -> dict[str, str]:
    """Return the files of a new handler, by their path below `folder`.

    Args:
        name: the handler's.
        folder: where they will be, absolute.
        kind: "python" or "shell".
    """
    module = name.replace("-", "_")
    words = {
        "NAME": name,
        "MODULE": module,
        # Not the bare name: a package `json` or `test` would hide the one of Python.
        "PACKAGE": f"{module}_handler",
        "DISTRIBUTION": f"{name}-handler",
        "CLASS": _class_name(name),
    }
    templates = files("thingjobs.cli") / "scaffolds" / kind
    places = SHELL if kind == "shell" else PYTHON
    contents = {
        _filled(place, words): _filled((templates / f"{template}.in").read_text(encoding="utf-8"), words)
        for template, place in places.items()
    }
    # A script adds the line break by itself.
    text = f"Hello from {name}." if kind == "shell" else f"Hello from {name}.\n"
    params = {"path": str(folder / "try-it.txt"), "text": text}
    contents[JOB] = json.dumps({"handler": name, "params": params}, indent=2, ensure_ascii=False) + "\n"
    return contents


def _class_name(name: str) -> str:
    found = "".join(word.capitalize() for word in re.split("[-_]", name))
    return f"{found}Handler" if keyword.iskeyword(found) or found in ("Params", "Path") else found


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files; the folder must not exist.

    The modes are set, whatever the umask: the agent refuses a handler that others may write.

    Raises:
        OSError: something cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    for place, text in contents.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def _tell(chosen: argparse.Namespace, folder: Path, contents: Mapping[str, str]) -> None:
    paint = Paint(sys.stdout)
    paint.line(f"{paint.mark('SUCCEEDED')} the handler {paint.style(chosen.name, 'bold')} is in {folder}:")
    for place in sorted(contents):
        paint.line(f"    {place}")
    paint.line()
    paint.line("Test it, then run a job with it:")
    paint.line(f"    cd {shlex.quote(str(folder))}")
    for line in NEXT["shell" if chosen.shell else "python"]:
        paint.line(f"    {line}")
