"""Handlers that are executables: NAME/manifest.json and the program it names, or an executable file NAME."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import manifest
from thingjobs.manifest import Manifest, ManifestError
from thingjobs.registry import tree
from thingjobs.registry.handler import Handler, handler_of, unusable
from thingjobs.registry.trust import problem_of, way_problems
from thingjobs.schema.text import shown
from thingjobs.startable import problems_of as program_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thingjobs.registry.tree import Tree

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found when a tree was last read."""

    signature: bytes
    handler: Handler | None
    problems: tuple[str, ...]


class Executables:
    """The handlers in the folders of `[handlers] directory`.

    Args:
        directories: a folder that is missing holds none.
        path: the PATH that they will have.
    """

    def __init__(self, directories: Sequence[Path], path: str) -> None:
        self._directories = directories
        self._path = path
        self._known: dict[Path, _Known] = {}

    def named(self, name: str) -> list[Path]:
        """Return where there are handlers of that name, usable or not."""
        return [path for path in self._places(name) if _is_one(path)]

    def nearly(self, name: str) -> str:
        """Return why what has that name is no handler, a sentence; "" if nothing has it."""
        for path in self._places(name):
            if os.path.isdir(path):  # noqa: PTH112 - never raises
                return f"{shown(str(path))} has no {MANIFEST}"
            if os.path.isfile(path):  # noqa: PTH113
                return _why_not_run(path)
        return ""

    def _places(self, name: str) -> list[Path]:
        if "/" in name or name.startswith(".") or "\0" in name or not name:
            return []
        return [directory / name for directory in self._directories]

    def all(self) -> Iterator[Path]:
        """Yield all handlers, usable or not."""
        for directory in self._directories:
            try:
                paths = sorted(directory.iterdir())
            except OSError:
                continue
            yield from (path for path in paths if not path.name.startswith(".") and _is_one(path))

    def handler(self, path: Path) -> Handler:
        """Return the handler at `path`.

        Raises:
            HandlerError: it cannot be used.
        """
        handler, problems = self._found(path)
        if handler is None or problems:
            raise unusable(path.name, "", list(problems))
        return handler

    def declared(self, path: Path) -> Handler | None:
        """Return what the handler at `path` declares, usable or not; None: that cannot be known."""
        return self._found(path)[0]

    def problems(self, path: Path) -> list[str]:
        """Return all that is wrong with the handler at `path`; none: it can be used."""
        return list(self._found(path)[1])

    def _found(self, path: Path) -> tuple[Handler | None, tuple[str, ...]]:
        try:
            outside = _outside(path)
            found = tree.look(path)
            known = self._known.get(path)
            if known is None or known.signature != found.signature:
                known = _read(path, found)
                if found.settled:
                    self._known[path] = known
                else:
                    self._known.pop(path, None)
        except OSError as error:
            return None, (f"{shown(str(error.filename or path))} cannot be read: {error.strerror}",)
        # What runs a script may come and go without a trace in the handler's files: that is looked at each time.
        program = program_problems(Path(known.handler.argv[0]), self._path) if known.handler else []
        untrusted = (*outside, *known.problems)
        return (None if untrusted else known.handler), (*untrusted, *program)


def _is_one(path: Path) -> bool:
    """Return whether a handler is there: a folder with a manifest, or a file that can be run."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # The latter: a name that no file can have.
        return False
    if stat.S_ISDIR(mode):
        return os.path.lexists(path / MANIFEST)
    return stat.S_ISREG(mode) and os.access(path, os.X_OK)


def _outside(path: Path) -> list[str]:
    """Return what cannot be trusted of the folders that a handler is in; where anybody may add one, none can be."""
    directory = problem_of(str(path.parent), path.parent.stat())
    return list(dict.fromkeys([*([directory] if directory else []), *way_problems(os.path.abspath(path))]))  # noqa: PTH100


def _read(path: Path, found: Tree) -> _Known:
    """Read a handler's files: the handler, or all that is wrong with them.

    Raises:
        OSError: they cannot be read.
    """
    problems = [] if re.fullmatch(manifest.NAME, path.name) else [_NO_NAME]
    problems += tree.problems(found)
    declared = None
    try:
        declared = _manifest(path, found) if found.is_folder else Manifest(exec=(path.name,))
    except ManifestError as error:
        problems += [f"{MANIFEST}: {one}" for one in error.problems]
    else:
        problems += _exec_problems(found.root, declared.exec[0])
    if problems or declared is None:
        return _Known(found.signature, None, tuple(problems))
    argv = (str(found.root / declared.exec[0]), *declared.exec[1:])
    handler = handler_of(declared, path.name, str(path), argv, tree.digest(found))
    return _Known(found.signature, replace(handler, path=path), ())


_NO_NAME = "its name is none; use letters, digits, dots, dashes and underscores, the first a letter or a digit"


def _manifest(path: Path, found: Tree) -> Manifest:
    """Read a folder's manifest.

    Raises:
        ManifestError: it cannot be used.
        OSError: it cannot be read.
    """
    mode = next((one.status.st_mode for one in found.entries if one.name == MANIFEST), 0)
    if not stat.S_ISREG(mode):
        raise ManifestError(["it must be a plain file, not a link or anything else"])
    with open(path / MANIFEST, "rb", opener=_plainly) as file:
        data = file.read(manifest.MAX_BYTES + 1)
    if len(data) > manifest.MAX_BYTES:
        raise ManifestError([f"it has more than {manifest.MAX_BYTES >> 10} KiB"])
    return manifest.parse(_json(data), program=True, name=path.name)


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ManifestError([f"line {error.lineno}, column {error.colno}: this is not JSON: {error.msg}"]) from None
    except UnicodeDecodeError as error:
        raise ManifestError([f"byte {error.start}: this is not UTF-8"]) from None
    except ValueError:
        raise ManifestError(["it holds a number that is too long"]) from None
    except RecursionError:
        raise ManifestError(["it nests too deeply"]) from None


def _exec_problems(root: Path, program: str) -> list[str]:
    path = root / program
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return [f"{MANIFEST}: exec names {shown(program)}, which cannot be found: {error.strerror}"]
    if not stat.S_ISREG(mode):
        return [f"{MANIFEST}: exec names {shown(program)}, which is no file"]
    return [] if mode & 0o111 else [_why_not_run(path)]


def _why_not_run(path: Path) -> str:
    name = shown(str(path))
    try:
        if path.stat().st_mode & 0o111:
            return f"{name} cannot be run by this account, or not from this file system"
    except OSError as error:
        return f"{name} cannot be looked at: {error.strerror}"
    return f"{name} cannot be run; run chmod +x {name}"
