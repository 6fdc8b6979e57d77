"""What an evaluation found, as a sentence: the place and what is wanted, and no text that a document holds. Pure."""

from __future__ import annotations

import json
from typing import Any

from thingjobs.schema.text import shown

_KINDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a string",
    "array": "a list",
    "object": "an object",
}
#: The words for a value of a type, where they are others.
_ALSO = {"true or false": ("true", "false"), "a whole number": ("a number",)}
#: What a rule demands; {} is its value.
_DEMANDS = {
    "minimum": "must be >= {}",
    "maximum": "must be <= {}",
    "exclusiveMinimum": "must be > {}",
    "exclusiveMaximum": "must be < {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "pattern": "must match {}",
    "format": "must be written as {}",
    "minItems": "must have at least {} entries",
    "maxItems": "must have at most {} entries",
    "minProperties": "must have at least {} keys",
    "maxProperties": "must have at most {} keys",
    "uniqueItems": "must not have the same entry twice",
    "contains": "has no entry of the kind that it must have",
    "propertyNames": "has a key of a form that is not allowed",
    "items": "has more entries than it may",
    "not": "is of a form that is not allowed",
    "anyOf": "fits none of the forms that are allowed",
    "oneOf": "must fit exactly one of the forms that are allowed",
    "dependencies": "lacks a key that another one needs",
    "None": "must not be there",
}


def sentence(name: str, rule: str, value: Any, definition: Any) -> str:
    """Return what is wrong with params.

    Args:
        name: where, as fastjsonschema says it: `data.retries`.
        rule: the keyword that is broken.
        value: what is there.
        definition: the schema for it.
    """
    place = shown("params" + name.removeprefix("data"))
    wanted = definition.get(rule) if isinstance(definition, dict) else None
    if rule == "required":
        return f"{place}.{shown(next(key for key in wanted or () if key not in value))} is missing"
    if rule == "additionalProperties":
        known = definition.get("properties", {})
        stranger = shown(next((key for key in value if key not in known), "?"))
        return f"{place}.{stranger} is not a parameter; there are: {shown(', '.join(known)) or 'none'}"
    return f"{place} {_demand(rule, wanted, value)}"


def _demand(rule: str, wanted: Any, value: Any) -> str:
    if rule in ("enum", "const"):
        values = wanted if rule == "enum" else [wanted]
        return f"must be {shown(' or '.join(json.dumps(one, ensure_ascii=False) for one in values))}"
    if rule in ("type", "anyOf") and (kinds := _kinds(rule, wanted)):
        given = _kind_of(value)
        if rule == "type" or not any(given in _ALSO.get(one, (one,)) for one in kinds):
            return f"must be {' or '.join(kinds)}, not {given}"
    return _DEMANDS.get(rule, "does not fit the schema of its handler").replace("{}", shown(str(wanted)))


def _kinds(rule: str, wanted: Any) -> list[str]:
    """Return the types that a rule allows, in words; none if they are not all that it asks for."""
    each = wanted if rule == "anyOf" else [{"type": wanted}]
    if not all(isinstance(one, dict) and "type" in one for one in each):
        return []
    types = [one["type"] if isinstance(one["type"], list) else [one["type"]] for one in each]
    return list(dict.fromkeys(_KINDS[kind] for some in types for kind in some))


def _kind_of(value: object) -> str:
    """Name the JSON type of a value; whether a boolean is true is no secret."""
    kinds = {type(None): "null", bool: str(value).lower(), int: "a number", float: "a number", str: "a string"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else "a list")
