"""From the annotations of a dataclass to shapes. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from thingjobs.params.limits import LIMITS, NOTES
from thingjobs.params.shapes import SCALARS, Anything, Choice, Either, Field, Limited, List, Object, Table

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from thingjobs.params.shapes import Shape

    Json = dict[str, Any]


@lru_cache(maxsize=64)
def shape_of(kind: Hashable) -> Shape:
    """Return the shape of a dataclass.

    Raises:
        TypeError: it is none, or one of its fields cannot be had in JSON; the message names the field.
    """
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise TypeError(f"params must be a dataclass, not {kind!r}")
    return Reader().object(kind)


class Reader:
    """Makes shapes of annotations."""

    def __init__(self) -> None:
        self._objects: dict[type, Object] = {}

    def object(self, kind: type) -> Object:
        """Return the shape of a dataclass, complete once all that it holds was read."""
        if kind in self._objects:
            return self._objects[kind]
        found = self._objects[kind] = Object(kind)
        hints = _hints(kind)
        for field in dataclasses.fields(kind):
            if field.init:
                shape = self.shape(hints[field.name], f"{kind.__qualname__}.{field.name}")
                found.fields[field.name] = Field(shape, not _has_default(field), _default(field))
        return found

    def shape(self, hint: Any, where: str) -> Shape:
        """Return the shape of an annotation.

        Raises:
            TypeError: there is none.
        """
        while hasattr(hint, "__supertype__") or isinstance(hint, getattr(typing, "TypeAliasType", ())):
            hint = getattr(hint, "__supertype__", None) or hint.__value__
        if hint is None:
            hint = types.NoneType
        if hint in (Any, object):
            return Anything()
        if isinstance(hint, type) and typing.get_origin(hint) is None:
            found = self._class(hint, where)
        else:
            found = self._generic(hint, where)
        if found is None:
            shapes = "str, int, float, bool, X | None, Literal, Enum, list[X], tuple[X, ...], dict[str, X], dataclasses"
            raise TypeError(f"{where} is {_written(hint)}, which JSON params cannot be; there are: {shapes}, Any")
        return found

    def _class(self, hint: type, where: str) -> Shape | None:
        if hint in SCALARS:
            return SCALARS[hint]
        if dataclasses.is_dataclass(hint):
            return self.object(hint)
        if issubclass(hint, enum.Enum):
            return _choice(((member.value, member) for member in hint), where)
        if hint in (list, tuple):
            return List(Anything(), hint)
        return Table(Anything()) if hint is dict else None

    def _generic(self, hint: Any, where: str) -> Shape | None:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return Limited(self.shape(arguments[0], where), _keywords(hint.__metadata__, where))
        if origin is typing.Literal:
            return _choice(((value, value) for value in arguments), where)
        if origin in (typing.Union, types.UnionType):
            return Either(tuple(self.shape(argument, where) for argument in arguments))
        if origin is list or (origin is tuple and arguments[1:] == (...,)):
            return List(self.shape(arguments[0], f"{where}[]"), origin)
        if origin is dict and arguments[0] is str:
            return Table(self.shape(arguments[1], f"{where}.*"))
        return None


def _hints(kind: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception as error:
        # Anything can stand in an annotation, and it is evaluated here.
        reason = f"the types of {kind.__qualname__} are not known at run time: {error}"
        advice = "import them outside of TYPE_CHECKING, and write Annotated[X | None, …] for Annotated[X, …] | None"
        raise TypeError(f"{reason}; {advice}") from error
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar):
            raise TypeError(f"{kind.__qualname__}.{name} is an InitVar, which params cannot have; make it a field")
    return hints


def _choice(options: Iterable[tuple[Any, Any]], where: str) -> Choice:
    found = Choice(tuple(options))
    for value, _ in found.options:
        if type(value) not in SCALARS:
            raise TypeError(f"{where} has the choice {value!r}, which is no text, number, true, false or null")
    return found


def _keywords(metadata: tuple[object, ...], where: str) -> Json:
    keywords: Json = {}
    for one in metadata:
        if isinstance(one, str):
            keywords["description"] = one
        elif isinstance(one, dict):
            keywords.update(one)
    for keyword in keywords:
        if keyword not in LIMITS and keyword not in NOTES:
            known = ", ".join((*LIMITS, *sorted(NOTES)))
            raise TypeError(f"{where} has the keyword {keyword}, which cannot be held to; there are: {known}")
    return keywords


def _written(hint: object) -> str:
    return hint.__qualname__ if isinstance(hint, type) and typing.get_origin(hint) is None else str(hint)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Json:
    """Return the default for the schema; one that is made anew each time is only told if it is an empty container."""
    default = field.default
    if field.default_factory in (list, tuple, dict):
        default = field.default_factory()
    if default is dataclasses.MISSING:
        return {}
    try:
        return {"default": json.loads(json.dumps(default, default=_as_json, allow_nan=False))}
    except (TypeError, ValueError):
        return {}


def _as_json(value: Any) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    raise TypeError
