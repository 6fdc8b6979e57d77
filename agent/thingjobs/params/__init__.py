"""Typed parameters: a dataclass as a JSON Schema, and a JSON value as an instance of it. Pure.

    @dataclass(frozen=True)
    class Params:
        url: Annotated[str, "where the image is"]
        slot: Literal["a", "b"] = "b"
        retries: Annotated[int, {"minimum": 0, "maximum": 10}] = 3

A field may be str, int, float, bool, None, Any, X | Y, Literal, an Enum (by value), list[X], tuple[X, ...],
dict[str, X] or another dataclass, which may contain itself. In Annotated a text is the description, and a dict holds
keywords of JSON Schema: limits, which count here too, and notes. `format` is held against the schema only. Write
`Annotated[int | None, {…}]`: Python cannot make a union of something that is annotated with a dict.

What `parse` takes and what the schema (draft-07) accepts is the same, but for what `__post_init__` of a dataclass
refuses with a ValueError, and for numbers that do not fit a float. Defaults stand in the schema for people to read.
"""

from __future__ import annotations

from typing import Any, TypeVar

from thingjobs.params.annotations import shape_of
from thingjobs.params.shapes import Book, ParamsError

__all__ = ["ParamsError", "parse", "schema_of"]

T = TypeVar("T")
Json = dict[str, Any]


def schema_of(kind: type) -> Json:
    """Return the JSON Schema (draft-07) of a dataclass.

    Raises:
        TypeError: a field has a type that JSON cannot have, or the class is none; the message names the field.
    """
    book = Book(kind)
    schema = shape_of(kind).schema(book)
    return {**schema, "definitions": book.definitions} if book.definitions else schema


def parse(kind: type[T], value: object) -> T:
    """Return the instance of a dataclass that a JSON value stands for.

    Raises:
        ParamsError: it stands for none.
        TypeError: the class cannot be used, as in `schema_of`.
    """
    wanted: Any = kind
    shape = shape_of(wanted)
    try:
        made: T = shape.parse(value, "params")
    except RecursionError:
        raise ParamsError("params is nested too deeply") from None
    return made
