"""The shape of a document: judged by the JSON Schemas in `schemas/`, told in sentences."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.model import Json

_SHOWN_CHARACTERS = 80

_KINDS = {
    "object": "a JSON object",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
}


def invalid(reason: str) -> DocumentError:
    """Return the refusal of a document that is written wrongly."""
    return DocumentError(Code.DOCUMENT_INVALID, reason)


def shown(text: str) -> str:
    """Return a text of the document as a reason may show it: quoted, printable and short."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return '"' + "".join(letter if letter.isprintable() else "?" for letter in cut) + '"'


def kind_of(value: object) -> str:
    """Name the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case dict():
            return "a JSON object"
        case _:
            return "a list"


def check_shape(document: Json, schema: str) -> None:
    """Judge a document by one of the published schemas.

    Args:
        document: what is judged; not changed.
        schema: the file name, without `.json`.

    Raises:
        DocumentError: it does not have that shape; the reason names the first place that is wrong.
    """
    from fastjsonschema import JsonSchemaValueException  # noqa: PLC0415 - an idle agent does not load it

    try:
        _validator(schema)(document)
    except JsonSchemaValueException as error:
        reason = _sentence(str(error.name), str(error.rule), error.value, error.definition)
        raise invalid(reason) from None


@cache
def _validator(schema: str) -> Callable[[object], object]:
    from importlib.resources import files  # noqa: PLC0415 - an idle agent does not load it

    import fastjsonschema  # noqa: PLC0415 - likewise

    text = (files("thingjobs") / "schemas" / f"{schema}.json").read_text(encoding="utf-8")
    compiled: Callable[[object], object] = fastjsonschema.compile(json.loads(text), use_default=False)
    return compiled


def _sentence(name: str, rule: str, value: Any, definition: Mapping[str, Any]) -> str:
    place = name.removeprefix("data").removeprefix(".")
    if rule == "required":
        missing = next(key for key in definition["required"] if key not in value)
        return f"{place}.{missing} is missing" if place else f"{missing} is missing"
    if rule == "additionalProperties":
        known = definition["properties"]
        stranger = next(key for key in value if key not in known and not key.startswith("_"))
        return f"{shown(stranger)} is not a key here: there are {', '.join(known)}, and _… for comments"
    return f"{place} {_demand(rule, value, definition)}"


def _demand(rule: str, value: object, definition: Mapping[str, Any]) -> str:
    given = shown(value) if isinstance(value, str) else kind_of(value)
    match rule:
        case "enum" | "const":
            wanted = " or ".join(f'"{one}"' for one in definition.get("enum", [definition.get("const")]))
            return f"must be {wanted}, not {given}"
        case "minLength" | "minItems":
            return "must not be empty"
        case "maxLength":
            return f"must not be longer than {definition['maxLength']} characters"
        case "minimum":
            return f"must be {definition['minimum']} or more"
        case _:
            wanted = _KINDS[definition["type"]] if isinstance(definition["type"], str) else "true or false"
            return f"must be {wanted}, not {given}"
