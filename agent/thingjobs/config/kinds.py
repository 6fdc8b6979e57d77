"""What a setting may hold: how a value is judged, what it becomes, and how a JSON Schema says the same.

A kind knows nothing of keys, files or sections.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.model import Json

#: One line of text. TOML can write control characters as escapes; none of them belongs into a name or a path.
LINE = r"[^\x00-\x1f\x7f]+"


def _as_it_is(value: Any, folder: Path) -> object:  # noqa: ARG001 - a path needs the folder
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Attributes:
        says: what is right, in words.
        wrong: what the value must be, as the rest of a sentence, or nothing if it is right.
        schema: the JSON Schema (draft-07) of the value.
        make: the value as the configuration holds it; a relative path starts at the folder given.
        entries: of a free table: the kinds of its names and of its values; None: not a table.
    """

    says: str
    wrong: Callable[[object], str]
    schema: Json
    make: Callable[[Any, Path], object] = _as_it_is
    entries: tuple[Kind, Kind] | None = None


def text(says: str, pattern: str = LINE) -> Kind:
    """A string that matches a pattern as a whole; the pattern must be legal in a JSON Schema too."""

    def wrong(value: object) -> str:
        if not isinstance(value, str):
            return f"must be a string in quotes: {says}"
        return "" if re.fullmatch(pattern, value) else f"must be {says}"

    return Kind(says, wrong, {"type": "string", "pattern": f"^(?:{pattern})$"})


def path(what: str, *, optional: bool = False, ending: str = "") -> Kind:
    """The path of one file or folder, whose name has that ending; an empty optional one becomes None."""
    pattern = LINE + re.escape(ending)
    what, pattern = (f"{what}, or empty", f"(?:{pattern})?") if optional else (what, pattern)
    plain = text(f"the path of {what}", pattern)
    return Kind(plain.says, plain.wrong, plain.schema, lambda value, folder: folder / value if value else None)


def texts(says: str, item: Kind, *, least: int = 0) -> Kind:
    """A list of strings, at least so many."""

    def wrong(value: object) -> str:
        if not isinstance(value, list) or len(value) < least:
            return f"must be {says}"
        return f"must be {says}, each {item.says}" if any(map(item.wrong, value)) else ""

    schema = {"type": "array", "items": item.schema, **({"minItems": least} if least else {})}
    return Kind(says, wrong, schema, lambda value, _: tuple(value))


def paths(what: str) -> Kind:
    """One path as a string, or several as a list."""
    one = path(what)
    says = f"the path of {what} in quotes, or a list of such paths"

    def listed(value: object) -> list[Any]:
        return value if isinstance(value, list) else [value]

    return Kind(
        says,
        lambda value: f"must be {says}" if any(map(one.wrong, listed(value))) else "",
        {"oneOf": [one.schema, {"type": "array", "items": one.schema}]},
        lambda value, folder: tuple(one.make(entry, folder) for entry in listed(value)),
    )


def number(low: int, high: int, unit: str = "") -> Kind:
    """A whole number within bounds, both included."""
    says = f"{low}..{high} {unit}".rstrip()

    def wrong(value: object) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"must be a whole number without quotes, {says}"
        return "" if low <= value <= high else f"must be {says}"

    return Kind(says, wrong, {"type": "integer", "minimum": low, "maximum": high})


def switch() -> Kind:
    """True or false."""
    says = "true or false, without quotes"
    return Kind(says, lambda value: "" if isinstance(value, bool) else f"must be {says}", {"type": "boolean"})


def choice(*options: str | int) -> Kind:
    """One of a few words or numbers."""
    says = " or ".join(map(shown, options))

    def wrong(value: object) -> str:
        right = any(value == option and type(value) is type(option) for option in options)
        return "" if right else f"must be {says}"

    return Kind(says, wrong, {"enum": list(options)})


def table(names: Kind, values: Kind) -> Kind:
    """A table of strings with free names; entries are judged and overridden one by one."""
    schema = {
        "type": "object",
        "propertyNames": {"pattern": names.schema["pattern"]},
        "additionalProperties": values.schema,
    }
    says = "a table of strings"
    return Kind(
        says,
        lambda value: "" if isinstance(value, dict) else f"must be {says}",
        schema,
        entries=(names, values),
    )


def shown(value: object) -> str:
    """Return a value as a person would write it in TOML, cut where it is too long to help."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            short = value if len(value) <= 60 else value[:57] + "…"
            return json.dumps(short, ensure_ascii=not short.isprintable())
        case int():
            # Python refuses to print numbers of thousands of digits, and TOML can hold them.
            return str(value) if abs(value) < 10**20 else "(a number of more than 20 digits)"
        case dict():
            inner = [f"{shown_name(name)} = {_inside(entry)}" for name, entry in list(value.items())[:2]]
            return f"{{ {', '.join(inner)}{', …' if len(value) > 2 else ''} }}"
        case list():
            return f"[{', '.join(map(_inside, value[:4]))}{', …' if len(value) > 4 else ''}]"
        case _:
            return str(value)


def shown_name(name: str) -> str:
    """Return a key as a person would write it in TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else shown(name)


def _inside(value: object) -> str:
    match value:
        case dict():
            return "{…}"
        case list():
            return "[…]"
        case _:
            return shown(value)
