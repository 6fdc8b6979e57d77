"""Limits: the keywords of JSON Schema that a field may have in Annotated. Pure."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Keywords that people read, and one that only the schema's own evaluation holds against a value.
NOTES = frozenset({"title", "description", "default", "examples", "$comment", "format"})


def broken(keyword: str, limit: Any, value: object) -> str:
    """Return what a keyword demands of a JSON value that does not keep to it; "" if it does."""
    if keyword in NOTES:
        return ""
    kinds, holds, words = LIMITS[keyword]
    if not isinstance(value, kinds) or isinstance(value, bool) or holds(value, limit):
        return ""
    return words.replace("{}", str(limit))


def _matches(value: str, pattern: str) -> bool:
    # In JSON Schema `$` is the very end; in Python it may be before a last line break.
    return re.search(re.sub(r"(?<!\\)\$", r"\\Z", pattern), value) is not None


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    quotient = Decimal(repr(value)) / Decimal(repr(of)) if isinstance(of, float) else value / of
    return int(quotient) == quotient


def _are_unique(value: list[Any], wanted: bool) -> bool:  # noqa: FBT001 - it is the keyword's value
    return not wanted or len({_hashable(item) for item in value}) == len(value)


def _hashable(value: Any) -> object:
    if isinstance(value, dict):
        return frozenset((key, _hashable(content)) for key, content in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value


_NUMBERS = (int, float)
_Limit = tuple[type | tuple[type, ...], "Callable[[Any, Any], bool]", str]
#: By keyword: what it limits, whether a value keeps to it, and the demand in words.
LIMITS: Mapping[str, _Limit] = {
    "minimum": (_NUMBERS, operator.ge, "must be >= {}"),
    "maximum": (_NUMBERS, operator.le, "must be <= {}"),
    "exclusiveMinimum": (_NUMBERS, operator.gt, "must be > {}"),
    "exclusiveMaximum": (_NUMBERS, operator.lt, "must be < {}"),
    "multipleOf": (_NUMBERS, _is_multiple, "must be a multiple of {}"),
    "minLength": (str, lambda text, limit: len(text) >= limit, "must have at least {} characters"),
    "maxLength": (str, lambda text, limit: len(text) <= limit, "must have at most {} characters"),
    "pattern": (str, _matches, "must match {}"),
    "minItems": (list, lambda items, limit: len(items) >= limit, "must have at least {} entries"),
    "maxItems": (list, lambda items, limit: len(items) <= limit, "must have at most {} entries"),
    "uniqueItems": (list, _are_unique, "must not have the same entry twice"),
    "minProperties": (dict, lambda table, limit: len(table) >= limit, "must have at least {} keys"),
    "maxProperties": (dict, lambda table, limit: len(table) <= limit, "must have at most {} keys"),
}
