"""Which handlers there are on this device, and what each declares.

Two sources: classes that installed packages name in the entry point group `thingjobs.handlers.v1`, and executables
in the folders of `[handlers] directory`. Team code is never imported here: a child process reads what a class
declares, once for each version of its distribution. A handler that cannot be used is listed with its reason; two of
one name are refused, naming both.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thingjobs.errors import HandlerError
from thingjobs.handler import CONTRACT, ENTRY_POINT_GROUP
from thingjobs.model import Code, Limits, Verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.metadata import Distribution, EntryPoint
    from pathlib import Path

DESCRIBE_SECONDS = 10
PYTHON = (sys.executable, "-I", "-m", "thingjobs.child")


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler that can be used.

    Attributes:
        source: the distribution and its version, or the file; for people.
        argv: the program that runs one verb of it.
        digest: changes whenever the handler's code does.
    """

    name: str
    source: str
    argv: tuple[str, ...]
    digest: str
    version: str = ""
    verbs: frozenset[Verb] = frozenset({Verb.APPLY})
    limits: Limits = field(default_factory=Limits)
    apply_rerun: bool = False
    cancel_apply: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """A name and where it comes from; what it declares is read when it is wanted."""

    name: str
    source: str
    path: Path | None = None
    target: str = ""
    digest: str = ""
    version: str = ""


class Registry:
    """Finds handlers by name.

    Args:
        directories: folders with executables; one that is missing holds none.
        cache: a file that keeps what classes declare, so that an idle agent starts no interpreter; None: none.
    """

    def __init__(self, directories: Sequence[Path], cache: Path | None = None) -> None:
        self._directories = directories
        self._cache = cache
        self._entry_points: tuple[_Found, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of all handlers, usable or not, in order."""
        return tuple(sorted({found.name for found in self._all()}))

    def has(self, name: str) -> bool:
        """Return whether there is a handler of that name, usable or not."""
        return any(found.name == name for found in self._all())

    def get(self, name: str) -> Handler:
        """Return the handler `name`.

        Raises:
            HandlerError: there is none, there are two, or it cannot be used; the reason says which and why.
        """
        found = [one for one in self._all() if one.name == name]
        if not found:
            known = ", ".join(self.names()) or "none"
            raise HandlerError(Code.HANDLER_UNKNOWN, f"there is no handler {name} on this device; there are: {known}")
        if len(found) > 1:
            sources = " and ".join(one.source for one in found)
            raise HandlerError(Code.HANDLER_BROKEN, f"handler {name} exists more than once: {sources}; remove one")
        one = found[0]
        return self._python(one) if one.path is None else _executable(one, one.path)

    # --- finding --------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[_Found]:
        if self._entry_points is None:
            self._entry_points = tuple(_entry_points())
        yield from self._entry_points
        for directory in self._directories:
            yield from _executables(directory)

    # --- what a class declares ------------------------------------------------------------------------------------

    def _python(self, found: _Found) -> Handler:
        key = f"{found.target} {found.digest} {sys.version_info[:2]}"
        argv = (*PYTHON, found.target)
        kept = self._cached(key)
        if kept is not None:
            return _handler(found, argv, kept)
        declared = _describe(found)
        handler = _handler(found, argv, declared)
        self._keep(key, declared)
        return handler

    def _cached(self, key: str) -> dict[str, Any] | None:
        entry = self._cache_content().get(key)
        return entry if isinstance(entry, dict) else None

    def _cache_content(self) -> dict[str, Any]:
        if self._cache is None:
            return {}
        try:
            return _object(self._cache.read_bytes()) or {}
        except OSError:
            return {}

    def _keep(self, key: str, declared: dict[str, Any]) -> None:
        if self._cache is None:
            return
        content = {**self._cache_content(), key: declared}
        try:
            temporary = self._cache.with_suffix(".tmp")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self._cache)
        except OSError:
            return  # Without the cache the class is read anew each time; nothing is lost.


def _entry_points() -> Iterator[_Found]:
    # Imported late: an agent that waits for its first job does not need it, and it is a megabyte.
    from importlib.metadata import distributions  # noqa: PLC0415

    seen: set[str] = set()
    for distribution in distributions():
        try:
            # Most have none; reading their metadata to know their names would cost more than all the rest.
            points = [point for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP]
            name, found = _named_by(distribution, points) if points else ("", [])
        except Exception:  # noqa: BLE001, S112 - what an installation that was cut off left behind raises anything
            continue
        if found and name not in seen:  # The same distribution found twice along sys.path is not two.
            seen.add(name)
            yield from found


def _named_by(distribution: Distribution, points: list[EntryPoint]) -> tuple[str, list[_Found]]:
    name, version = distribution.metadata["Name"], distribution.version
    record = distribution.read_text("RECORD") or ""
    digest = "sha256:" + hashlib.sha256(f"{name} {version} {record}".encode()).hexdigest()
    return name, [_Found(point.name, f"{name} {version}", None, point.value, digest, version) for point in points]


def _executables(directory: Path) -> Iterator[_Found]:
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return
    for path in paths:
        if not path.name.startswith(".") and path.is_file() and os.access(path, os.X_OK):
            yield _Found(path.name, str(path), path)


def _executable(found: _Found, path: Path) -> Handler:
    try:
        open_to_others = written_by_others(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = f"handler {found.name} cannot be read: {path}: {error.strerror}"
        raise HandlerError(Code.HANDLER_BROKEN, reason) from None
    if open_to_others is not None:
        where = f"{open_to_others} may be written by others; run chmod go-w {open_to_others}"
        raise HandlerError(Code.HANDLER_BROKEN, f"handler {found.name} cannot be trusted: {where}")
    return Handler(found.name, found.source, (str(path),), f"sha256:{digest}")


def written_by_others(path: Path) -> Path | None:
    """Return what of a program others may write: the file, the folder it is named in, or the one it lies in.

    A folder like /tmp, where none can replace the files of others, is one where anybody can add a program.

    Raises:
        OSError: there is no such file.
    """
    target = path.resolve(strict=True)
    parts = (target, path.parent, target.parent)
    return next((part for part in parts if part.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)), None)


def _describe(found: _Found) -> dict[str, Any]:
    """Let a child import the class and print what it declares."""
    broken = f"handler {found.name} of {found.source} cannot be used"
    try:
        answer = subprocess.run(
            [*PYTHON, "--describe", found.target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DESCRIBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"{broken}: {found.target} was not imported within {DESCRIBE_SECONDS} s"
        raise HandlerError(Code.HANDLER_BROKEN, reason) from None
    except OSError as error:
        raise HandlerError(Code.HANDLER_BROKEN, f"{broken}: {error}") from None
    declared = _object(answer.stdout) if answer.returncode == 0 else None
    if declared is None:
        lines = answer.stderr.decode(errors="replace").strip().splitlines() or ["it printed no description"]
        raise HandlerError(Code.HANDLER_BROKEN, f"{broken}: {lines[-1]}")
    return declared


def _object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `data`, None if that is none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _handler(found: _Found, argv: tuple[str, ...], declared: dict[str, Any]) -> Handler:
    try:
        if declared["contract"] != CONTRACT:
            raise ValueError(f"it speaks contract {declared['contract']}, this agent {CONTRACT}")
        verbs = frozenset(Verb(verb) for verb in declared["verbs"])
        if Verb.APPLY not in verbs:
            raise ValueError("it has no method apply")
        limits = _limits({**declared["timeouts"], "stall": declared["stall"]})
    except (KeyError, TypeError, ValueError) as error:
        reason = f"handler {found.name} of {found.source} cannot be used: {error}"
        raise HandlerError(Code.HANDLER_BROKEN, reason) from None
    return Handler(
        name=found.name,
        source=found.source,
        argv=argv,
        digest=found.digest,
        version=declared["version"] or found.version,
        verbs=verbs,
        limits=limits,
        apply_rerun=declared["applyRerun"],
        cancel_apply=declared["cancelApply"],
    )


def _limits(declared: dict[str, Any]) -> Limits:
    for name, seconds in declared.items():
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (name == "stall" and seconds is None) and not (number and 0 < seconds < math.inf):
            raise ValueError(f"its timeout {name} is {seconds!r}, not a number of seconds")
    return Limits(**declared)
