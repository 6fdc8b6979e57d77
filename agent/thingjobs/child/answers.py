"""What the child answers instead of running a verb; each answer is one JSON value on stdout.

    --describe MODULE:CLASS   what the class declares, as a manifest (contract 1)
    --list                    every entry point of the group `thingjobs.handlers.v1`; imports none of them
    --validate                {"problem": sentence or ""} for the {"schema": …, "params": …} on stdin

A question that has no answer ends with status 1, and the last line on stderr says why.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from thingjobs.child import load, params_type
from thingjobs.handler import CONTRACT, ENTRY_POINT_GROUP, VERBS, Handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import Distribution

    Json = dict[str, Any]

#: Attributes that go into the manifest as they are; whether they make sense is for its reader to say.
DECLARED = tuple(name for name in vars(Handler) if not name.startswith("_") and name != "params_schema")


class Unanswerable(Exception):  # noqa: N818 - it is the question that is at fault
    """There is no answer; the reason is a sentence."""


def answer(arguments: list[str]) -> int:
    """Print the answer to a question and return the exit status."""
    match arguments:
        case ["--describe", target]:
            return _say(lambda: json.dumps(describe(_imported(target))))
        case ["--list"]:
            return _say(lambda: json.dumps(list(listed())))
        case ["--validate"]:
            return _say(lambda: validate(sys.stdin.buffer.read()))
    print("usage: thingjobs.child MODULE:CLASS | --describe MODULE:CLASS | --list | --validate", file=sys.stderr)  # noqa: T201
    return 2


def _say(ask: Callable[[], str]) -> int:
    # What a module writes at import, or what it starts then, is not part of the answer.
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(stdout, "w", encoding="utf-8") as file:
            file.write(ask() + "\n")
    except Unanswerable as reason:
        sys.stdout.flush()
        print(reason, file=sys.stderr)  # noqa: T201
        return 1
    return 0


# --- describe -----------------------------------------------------------------------------------------------------


def _imported(target: str) -> type:
    try:
        return load(target)
    except (Exception, SystemExit) as error:  # whatever a team's module raises at import
        traceback.print_exc()
        words = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise Unanswerable(f"cannot import {target}: {words}") from error


def describe(handler: type) -> Json:
    """Return what a handler class declares; the verbs are the methods that exist.

    Raises:
        Unanswerable: a method cannot be called, or something that it declares cannot be written down.
    """
    verbs = [verb for verb in VERBS if callable(getattr(handler, verb, None))]
    _check_call(handler, handler.__name__, ())
    for verb in verbs:
        _check_call(getattr(handler, verb), f"{handler.__name__}.{verb}", _takes(handler, verb))
    declared = {name: _plain(handler, name) for name in DECLARED if _declares(handler, name)}
    params = _schema(handler)
    return {"contract": CONTRACT, **declared, "verbs": verbs, **({} if params is None else {"params": params})}


def _declares(handler: type, name: str) -> bool:
    value = getattr(handler, name, None)
    return value is not None and value is not getattr(Handler, name)


def _check_call(function: Any, name: str, takes: tuple[str, ...]) -> None:
    """Hold a class or method against how it will be called."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # It has none that Python knows of.
    try:
        signature.bind(*takes)
    except TypeError as error:
        wanted = ", ".join(takes) or "nothing"
        raise Unanswerable(f"{name}{signature} must take {wanted}: {error}") from None
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise Unanswerable(f"{name} may be neither async nor a generator: calling it would do nothing")


def _takes(handler: type, verb: str) -> tuple[str, ...]:
    found = inspect.getattr_static(handler, verb)
    bound = isinstance(found, (staticmethod, classmethod)) or not hasattr(found, "__get__")
    return ("ctx", "params") if bound else ("self", "ctx", "params")


def _plain(handler: type, name: str) -> object:
    value = getattr(handler, name)
    try:
        return json.loads(json.dumps(value, default=_as_json))
    except (TypeError, ValueError, RecursionError):
        raise Unanswerable(f"{handler.__name__}.{name} is {value!r}, which JSON cannot say") from None


def _as_json(value: Any) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "keys"):
        return dict(value)
    raise TypeError


def _schema(handler: type) -> object:
    if getattr(handler, "params_schema", None) is not None:
        return _plain(handler, "params_schema")
    try:
        wanted = params_type(handler)
        if wanted is None:
            return None
        from thingjobs.params import schema_of  # noqa: PLC0415

        return schema_of(wanted)
    except (TypeError, NameError, RecursionError) as error:
        raise Unanswerable(f"{handler.__name__}: {error}") from None


# --- list ---------------------------------------------------------------------------------------------------------


def listed() -> Iterator[Json]:
    """Return every entry point for handlers, with what its distribution is told by."""
    from importlib.metadata import distributions  # noqa: PLC0415

    seen: set[str] = set()
    for distribution in distributions():
        try:
            # Most have none; reading their metadata to know their names would cost more than all the rest.
            points = [point for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP]
            source = _source(distribution) if points else None
        except Exception:  # noqa: BLE001, S112 - what an installation that was cut off left behind raises anything
            continue
        if source and source["distribution"] not in seen:  # The same one found twice along sys.path is not two.
            seen.add(source["distribution"])
            yield from ({"name": point.name, "target": point.value, **source} for point in points)


def _source(distribution: Distribution) -> Json | None:
    name, version = distribution.metadata["Name"], distribution.version
    if not (name and version):
        return None
    record = distribution.read_text("RECORD") or ""
    digest = hashlib.sha256(f"{name} {version} {record}".encode()).hexdigest()
    installed_from = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = installed_from.get("dir_info", {}).get("editable") is True
    return {"distribution": name, "version": version, "digest": f"sha256:{digest}", "editable": editable}


# --- validate -----------------------------------------------------------------------------------------------------


def validate(question: bytes) -> str:
    """Hold params against a schema, where that may take as long as it likes.

    Raises:
        Unanswerable: the question is none.
    """
    from thingjobs.schema import answer as judge  # noqa: PLC0415

    try:
        return judge(question)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unanswerable(f"cannot read the question on stdin: {type(error).__name__}: {error}") from None
