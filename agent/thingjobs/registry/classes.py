"""Handlers that are Python classes: which ones installed packages name, and what each declares.

Team code is never imported into the agent, and the metadata of packages is not read in it either, which would cost an
idle agent a megabyte: children do both. What they said is kept until something is installed or removed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thingjobs import manifest
from thingjobs.child import START
from thingjobs.interpreter import isolated
from thingjobs.manifest import ManifestError
from thingjobs.registry.asking import AskError, ask
from thingjobs.registry.handler import Handler, handler_of, unusable
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.errors import HandlerError
    from thingjobs.registry.remembered import Remembered

#: Runs `thingjobs.child`; `-m` would cost the start of each verb some milliseconds more.
PYTHON = isolated(START)
DESCRIBE_SECONDS = 10.0
#: A class that could not be described is not tried again sooner: each try may take all of DESCRIBE_SECONDS.
AGAIN_SECONDS = 60.0
LISTED = "listed"
DESCRIBED = "described "
_VERSION = ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True, slots=True)
class Point:
    """An entry point: a name, the class behind it, and the distribution that it is from.

    Attributes:
        target: MODULE:CLASS.
        digest: of the distribution's name, version and RECORD.
        editable: what is installed is a link to a source tree, so the digest tells little.
    """

    name: str
    target: str
    distribution: str
    version: str
    digest: str
    editable: bool

    @property
    def source(self) -> str:
        """The distribution and its version, for people."""
        return f"{self.distribution} {self.version}"


def question(*words: str) -> list[str]:
    """Return how to ask the child something: without leaving compiled files beside somebody's modules."""
    return [PYTHON[0], "-B", *PYTHON[1:], *words]


def quiet(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the program of a handler as it leaves no compiled files behind; a dry run may change nothing."""
    return (argv[0], "-B", *argv[1:]) if runs_class(argv) else tuple(argv)


def runs_class(argv: Sequence[str]) -> bool:
    """Return whether a program is `thingjobs.child`, in whatever way this release or an earlier one starts it."""
    return any("thingjobs.child" in word for word in argv)


class Classes:
    """The handlers that installed packages name.

    Args:
        remembered: what earlier children said.
        account: the user to run a child as that imports the class of a handler, by the handler's name.
    """

    def __init__(self, remembered: Remembered, account: Callable[[str], str | None]) -> None:
        self._remembered = remembered
        self._account = account
        self._signature: object = None
        self._points: tuple[Point, ...] = ()
        self._problem = ""
        self._listed_at = 0.0
        #: By name: what the answer was for, when it came, and what it was.
        self._described: dict[str, tuple[str, float, Handler | list[str]]] = {}

    @property
    def problem(self) -> str:
        """Why it is not known what is installed; "" if it is."""
        self.points()
        return self._problem

    def points(self) -> tuple[Point, ...]:
        """Return all entry points, in the order of their names."""
        signature = _signature()
        if signature != self._signature or (self._problem and _long_ago(self._listed_at)):
            self._points, self._problem = self._list(signature)
            self._signature, self._listed_at = signature, time.monotonic()
        return self._points

    def handler(self, point: Point) -> Handler:
        """Return the handler behind an entry point.

        Raises:
            HandlerError: it cannot be used.
        """
        found = self._found(point)
        if isinstance(found, Handler):
            return found
        raise self.refusal(point, found)

    def refusal(self, point: Point, problems: list[str]) -> HandlerError:
        """Return why a class cannot be used."""
        return unusable(point.name, point.source, problems)

    def problems(self, point: Point) -> list[str]:
        """Return all that is wrong with a class; none: it can be used."""
        found = self._found(point)
        return [] if isinstance(found, Handler) else found

    # --- finding --------------------------------------------------------------------------------------------------

    def _list(self, signature: list[Any]) -> tuple[tuple[Point, ...], str]:
        kept = self._remembered.get(LISTED)
        if isinstance(kept, dict) and kept.get("signature") == signature:
            points = _points(kept.get("points"))
            if points is not None:
                return points, ""
        try:
            answer = ask(question("--list"), seconds=DESCRIBE_SECONDS)
            content = json.loads(answer)
        except (AskError, ValueError, RecursionError) as error:
            return (), f"what is installed cannot be listed: {shown(str(error))}"
        points = _points(content)
        if points is None:
            return (), "what is installed cannot be listed: the child gave no list"
        current = {_key(point) for point in points}
        gone = {key: None for key in self._remembered.all_keys() if key.startswith(DESCRIBED) and key not in current}
        self._remembered.keep({LISTED: {"signature": signature, "points": content}, **gone})
        return points, ""

    # --- describing -----------------------------------------------------------------------------------------------

    def _found(self, point: Point) -> Handler | list[str]:
        key = _key(point)
        source = _source_signature(point.target) if point.editable else ""
        known, at, found = self._described.get(point.name, ("", 0.0, []))
        if known == f"{key} {source}" and source is not None and (isinstance(found, Handler) or not _long_ago(at)):
            return found
        found = self._recall(point, key) or self._describe(point, key)
        self._described[point.name] = (f"{key} {source}", time.monotonic(), found)
        return found

    def _recall(self, point: Point, key: str) -> Handler | None:
        kept = None if point.editable else self._remembered.get(key)
        found = _judge(point, kept)
        return found if isinstance(found, Handler) else None

    def _describe(self, point: Point, key: str) -> Handler | list[str]:
        """Let a child import the class and print what it declares."""
        argv = question("--describe", point.target)
        try:
            declared = json.loads(ask(argv, seconds=DESCRIBE_SECONDS, user=self._account(point.name)))
        except AskError as error:
            return [f"{shown(point.target)} cannot be described: {shown(str(error))}"]
        except (ValueError, RecursionError):
            return [f"{shown(point.target)} cannot be described: what its child printed is not JSON"]
        found = _judge(point, declared)
        if isinstance(found, Handler) and not point.editable:
            self._remembered.keep({key: declared})
        return found


def _long_ago(at: float) -> bool:
    return time.monotonic() >= at + AGAIN_SECONDS


def _judge(point: Point, declared: object) -> Handler | list[str]:
    """Return the handler that a class declares, or all that is wrong with it."""
    if not re.fullmatch(manifest.NAME, point.name):
        return [f"its name {shown(point.name)!r} is none; use letters, digits, dots, dashes and underscores"]
    try:
        found = manifest.parse(declared, program=False, name=point.name)
    except ManifestError as error:
        return list(error.problems)
    handler = handler_of(found, point.name, point.source, (*PYTHON, point.target), point.digest)
    return handler if handler.version else replace(handler, version=point.version)


def _key(point: Point) -> str:
    return f"{DESCRIBED}{point.name} {point.target} {point.digest} {_VERSION}"


def _points(content: object) -> tuple[Point, ...] | None:
    """Return the entry points that a child listed, None if that is no list of them."""
    if not isinstance(content, list):
        return None
    found = []
    for one in content:
        match one:
            case {
                "name": str(name),
                "target": str(target),
                "distribution": str(distribution),
                "version": str(version),
                "digest": str(digest),
                "editable": bool(editable),
            }:
                found.append(Point(name, target, distribution, version, digest, editable))
            case _:
                return None
    return tuple(sorted(found, key=lambda point: (point.name, point.distribution)))


# --- by stat alone ------------------------------------------------------------------------------------------------


def _signature() -> list[Any]:
    """Return what changes when a package is installed or removed: the folders in which packages are."""
    # Without -I or -P the first is the script's folder, or the current one: no place for packages, and often changed.
    folders = sys.path if sys.flags.safe_path else sys.path[1:]
    return [_VERSION, sys.executable, *(_of_folder(folder) for folder in folders if folder)]


def _of_folder(folder: str) -> list[Any]:
    try:
        status = os.stat(folder)  # noqa: PTH116 - twice as fast, and asked for every job
    except OSError:
        return [folder]
    return [folder, status.st_ino, status.st_mtime_ns]


def _source_signature(target: str) -> str | None:
    """Return what changes with the source file of a module, None if it is not found where modules commonly are."""
    module = target.partition(":")[0].replace(".", "/")
    for folder in sys.path:
        for path in (f"{folder}/{module}.py", f"{folder}/{module}/__init__.py"):
            try:
                status = os.stat(path)  # noqa: PTH116 - as above
            except OSError:
                continue
            return f"{path} {status.st_ino} {status.st_mtime_ns} {status.st_size}"
    return None
