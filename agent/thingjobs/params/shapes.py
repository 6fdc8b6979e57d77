"""Shapes: types as they are in JSON, each with its schema, and with what it makes of a JSON value. Pure."""

# ruff: noqa: D102 - what the methods do is said once, in `Shape`

from __future__ import annotations

import dataclasses
import json
import types
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from thingjobs.params.limits import broken
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    Json = dict[str, Any]


class ParamsError(ValueError):
    """A value that does not fit its type; the message is a sentence that begins with the place and quotes no text."""


class Shape(Protocol):
    """A type as it is in JSON."""

    def schema(self, book: Book) -> Json:
        """Return its schema."""

    def parse(self, value: Any, place: str) -> Any:
        """Return the Python value of a JSON value; ParamsError says why there is none."""

    def wanted(self) -> str:
        """Return what is wanted, in words."""


class Book:
    """The definitions of a schema: dataclasses that contain themselves stand there, all others where they are used."""

    def __init__(self, root: type) -> None:
        self.definitions: Json = {}
        self.open: list[type] = []
        self.names: dict[type, str] = {}
        self._root = root

    def reference(self, kind: type) -> Json:
        """Return a reference to a dataclass, which is going to be defined."""
        if kind is self._root:
            return {"$ref": "#"}
        if kind not in self.names:
            taken = set(self.names.values())
            names = (f"{kind.__name__}{number or ''}" for number in count())
            self.names[kind] = next(name for name in names if name not in taken)
        return {"$ref": f"#/definitions/{self.names[kind]}"}


class Anything:
    """Any JSON value, as it is."""

    def schema(self, book: Book) -> Json:  # noqa: ARG002 - every shape is asked alike
        return {}

    def parse(self, value: Any, place: str) -> Any:  # noqa: ARG002
        return value

    def wanted(self) -> str:
        return "anything"


@dataclasses.dataclass(frozen=True, slots=True)
class Scalar:
    """str, int, float, bool or None."""

    kind: type
    name: str
    words: str

    def schema(self, book: Book) -> Json:  # noqa: ARG002
        return {"type": self.name}

    def parse(self, value: Any, place: str) -> Any:
        if not _is_a(value, self.kind):
            raise _wrong(place, self, value)
        try:
            return None if value is None else self.kind(value)
        except OverflowError:
            raise ParamsError(f"{shown(place)} must be a number that is not so large") from None

    def wanted(self) -> str:
        return self.words


SCALARS: dict[Any, Scalar] = {
    str: Scalar(str, "string", "a string"),
    int: Scalar(int, "integer", "a whole number"),
    float: Scalar(float, "number", "a number"),
    bool: Scalar(bool, "boolean", "true or false"),
    types.NoneType: Scalar(types.NoneType, "null", "null"),
}


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is int:  # JSON has one kind of numbers: 2.0 is a whole one.
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Literal or Enum: one of some values.

    Attributes:
        options: the value in JSON, and in Python.
    """

    options: tuple[tuple[Any, Any], ...]

    def schema(self, book: Book) -> Json:  # noqa: ARG002
        values = [value for value, _ in self.options]
        kinds = list(dict.fromkeys(SCALARS[type(value)].name for value in values))
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}

    def parse(self, value: Any, place: str) -> Any:
        for option, meant in self.options:
            # To Python, true is 1.
            if option == value and isinstance(option, bool) is isinstance(value, bool):
                return meant
        raise _wrong(place, self, value)

    def wanted(self) -> str:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value, _ in self.options)


@dataclasses.dataclass(frozen=True, slots=True)
class List:
    """list or tuple of any length."""

    items: Shape
    make: type

    def schema(self, book: Book) -> Json:
        return {"type": "array", "items": self.items.schema(book)}

    def parse(self, value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise _wrong(place, self, value)
        return self.make(self.items.parse(item, f"{place}[{index}]") for index, item in enumerate(value))

    def wanted(self) -> str:
        return "a list"


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """dict with any keys."""

    values: Shape

    def schema(self, book: Book) -> Json:
        return {"type": "object", "additionalProperties": self.values.schema(book)}

    def parse(self, value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(place, self, value)
        return {key: self.values.parse(content, f"{place}.{key}") for key, content in value.items()}

    def wanted(self) -> str:
        return "an object"


@dataclasses.dataclass(frozen=True, slots=True)
class Either:
    """A union; the first that fits counts."""

    options: tuple[Shape, ...]

    def schema(self, book: Book) -> Json:
        schemas = [option.schema(book) for option in self.options]
        if len(schemas) == 2 and {"type": "null"} in schemas:
            return _nullable(next(one for one in schemas if one != {"type": "null"}))
        return {"anyOf": schemas}

    def parse(self, value: Any, place: str) -> Any:
        reasons = []
        for option in self.options:
            try:
                return option.parse(value, place)
            except ParamsError as reason:
                reasons.append((option, str(reason)))
        # The one that the value was meant for is wrong elsewhere than in its kind.
        meant = [reason for option, reason in reasons if reason != str(_wrong(place, option, value))]
        raise ParamsError(meant[0]) if meant else _wrong(place, self, value)

    def wanted(self) -> str:
        return " or ".join(option.wanted() for option in self.options)


def _nullable(schema: Json) -> Json:
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" in kinds:
        return schema
    options = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [*kinds, "null"], **options}


@dataclasses.dataclass(frozen=True, slots=True)
class Limited:
    """Annotated: something with limits and notes."""

    inner: Shape
    keywords: Json

    def schema(self, book: Book) -> Json:
        schema = self.inner.schema(book)
        return {**({"allOf": [schema]} if "$ref" in schema else schema), **self.keywords}

    def parse(self, value: Any, place: str) -> Any:
        made = self.inner.parse(value, place)
        for keyword, limit in self.keywords.items():
            if demand := broken(keyword, limit, value):
                raise ParamsError(f"{shown(place)} {shown(demand)}")
        return made

    def wanted(self) -> str:
        return self.inner.wanted()


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of a dataclass.

    Attributes:
        notes: its default, if that can be written in JSON.
    """

    shape: Shape
    required: bool
    notes: Json


class Object:
    """A dataclass; its fields come later, because it may contain itself."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.fields: dict[str, Field] = {}

    def schema(self, book: Book) -> Json:
        if self.kind in book.open:
            return book.reference(self.kind)
        if self.kind in book.names:
            return {"$ref": f"#/definitions/{book.names[self.kind]}"}
        book.open.append(self.kind)
        schema: Json = {
            "type": "object",
            "properties": {name: self._property(field, book) for name, field in self.fields.items()},
            "required": [name for name, field in self.fields.items() if field.required],
            "additionalProperties": False,
        }
        book.open.pop()
        if self.kind not in book.names:
            return schema
        book.definitions[book.names[self.kind]] = schema
        return book.reference(self.kind)

    def _property(self, field: Field, book: Book) -> Json:
        schema = field.shape.schema(book)
        return {**schema, **{key: note for key, note in field.notes.items() if key not in schema}}

    def parse(self, value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(place, self, value)
        for key in value:
            if key not in self.fields:
                known = shown(", ".join(self.fields)) or "none"
                raise ParamsError(f"{shown(f'{place}.{key}')} is not a parameter; there are: {known}")
        given = {}
        for name, field in self.fields.items():
            if name in value:
                given[name] = field.shape.parse(value[name], f"{place}.{name}")
            elif field.required:
                raise ParamsError(f"{shown(f'{place}.{name}')} is missing")
        try:
            return self.kind(**given)
        except ValueError as error:  # its __post_init__ has a say
            raise ParamsError(f"{shown(place)}: {error}") from error

    def wanted(self) -> str:
        return "an object"


def _wrong(place: str, shape: Shape, value: object) -> ParamsError:
    given = "" if isinstance(shape, Choice) else f", not {_kind(value)}"
    return ParamsError(f"{shown(place)} must be {shape.wanted()}{given}")


def _kind(value: object) -> str:
    """Name a JSON value without showing it: it may be a secret."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), type(value).__name__)
