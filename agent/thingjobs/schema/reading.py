"""Reading a schema: a copy of what is understood, what is not, and how long an evaluation may take. Pure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
#: What may be evaluated in the agent: subschemas visited for one value, and characters of Python made of the schema.
MAX_VISITS = 1000
MAX_CODE = 500_000
#: Characters of all patterns together: merely compiling one takes milliseconds for each range of letters in it.
MAX_PATTERNS = 4096

DRAFTS = ("http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-07/schema")
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
#: All of draft-07. One that is unknown would be passed over without a word.
FORMATS = (
    *("date", "date-time", "time", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6", "uri", "iri"),
    *("uri-reference", "iri-reference", "uri-template", "json-pointer", "relative-json-pointer", "regex"),
)
#: What people read and no evaluation needs.
NOTES = (
    *("$comment", "title", "description", "default", "examples", "readOnly", "writeOnly"),
    *("contentMediaType", "contentEncoding"),
)
PLACES = ("definitions", "$defs")
#: Keywords whose value is a map from names, not a schema.
_MAPS = ("properties", "patternProperties", "dependencies")
_REFERENCE = re.compile(r"#(?:/(definitions|\$defs)/([^/]+))?")
#: What means something in the Python that is made of a schema. fastjsonschema quotes it as it must only since 2.22, so
#: that a handler could have had its own code run in the agent.
_CODE = re.compile(r'["\\{}\x00-\x1f]')


@dataclass(frozen=True, slots=True)
class Read:
    """A schema that was read.

    Attributes:
        problems: all that is wrong with it, each a sentence that starts with the place.
        clean: a copy of what was understood.
        slow: it has patterns, formats or words like code, or may take long.
    """

    problems: tuple[str, ...]
    clean: Any
    slow: bool


@lru_cache(maxsize=16)
def read(text: str) -> Read:
    """Read a schema that is written as JSON; an empty text stands for one that cannot be."""
    if not text:
        return Read(("params is no schema that can be written as JSON",), {}, slow=False)
    if len(text) > MAX_BYTES:
        return Read((f"params has {len(text)} bytes; a schema has at most {MAX_BYTES}",), {}, slow=False)
    reader = _Reader()
    try:
        clean = reader.top(json.loads(text))
    except RecursionError:
        return Read((f"params nests deeper than {MAX_DEPTH} levels",), {}, slow=False)
    slow = reader.patterns or (not reader.problems and (any(map(_CODE.search, _words(clean))) or _heavy(clean)))
    return Read(tuple(reader.problems), clean, slow)


def _words(node: Any) -> Iterator[str]:
    """Yield all texts and keys of a JSON value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list)):
        for part in (*node, *(node.values() if isinstance(node, dict) else ())):
            yield from _words(part)


def _heavy(clean: Any) -> bool:
    try:
        return _Weight(clean).heavy()
    except RecursionError:  # A chain of references.
        return True


class _Reader:
    """Copies what it understands of a schema, and notes what it does not."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.patterns = False
        self._pattern_characters = 0
        self._names: dict[tuple[str, str], str] = {}

    def top(self, schema: object) -> Any:
        if not isinstance(schema, dict):
            return self._wrong("params", "must be a JSON object that is a schema")
        if schema.get("$schema", DRAFTS[0]) not in DRAFTS:
            self._wrong("params.$schema", f"must be {DRAFTS[0]}, or left out")
        parts = [(place, name, part) for place in PLACES for name, part in self._definitions(schema, place)]
        # Under names of ours: of theirs, fastjsonschema makes names of functions, and `a-b` and `A_B` would be one.
        self._names = {(place, name): f"d{number}" for number, (place, name, _) in enumerate(parts)}
        rest = {key: value for key, value in schema.items() if key not in (*PLACES, "$schema")}
        clean = self.schema(rest, "params", 0)
        definitions = {
            self._names[place, name]: self.schema(part, f"params.{place}.{name}", 1) for place, name, part in parts
        }
        return {**clean, "definitions": definitions} if definitions and isinstance(clean, dict) else clean

    def _definitions(self, schema: dict[str, Any], place: str) -> list[tuple[str, Any]]:
        parts = schema.get(place, {})
        if not isinstance(parts, dict):
            self._wrong(f"params.{place}", "must be an object of schemas")
            return []
        return list(parts.items())

    def schema(self, node: object, where: str, depth: int) -> Any:
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            return self._wrong(where, "must be a schema: an object, true or false")
        if depth > MAX_DEPTH:
            return self._wrong(where, f"nests deeper than {MAX_DEPTH} levels; move parts into definitions")
        if "$ref" in node:
            return self._reference(node, where)
        clean = {}
        for keyword, value in node.items():
            copy = _KEYWORDS.get(keyword)
            if copy is not None:
                clean[keyword] = copy(self, value, f"{where}.{keyword}", depth + 1)
            elif keyword not in NOTES:
                self._wrong(where, _unknown(keyword))
        return clean

    def _reference(self, node: dict[str, Any], where: str) -> Any:
        target = node["$ref"]
        found = _REFERENCE.fullmatch(target) if isinstance(target, str) else None
        if beside := [keyword for keyword in node if keyword != "$ref" and keyword not in NOTES]:
            self._wrong(where, f'has {shown(beside[0])} beside $ref, where it means nothing: put both into "allOf"')
        if found is None:
            return self._wrong(where, 'refers elsewhere; only "#", "#/definitions/NAME" and "#/$defs/NAME" can be used')
        if found[1] is None:
            return {"$ref": "#"}
        name = found[2].replace("~1", "/").replace("~0", "~")
        if (found[1], name) not in self._names:
            return self._wrong(where, f"refers to {shown(found[1] + '/' + name)}, which is not there")
        return {"$ref": f"#/definitions/{self._names[found[1], name]}"}

    # --- the values of keywords -----------------------------------------------------------------------------------

    def schemas(self, value: object, where: str, depth: int) -> Any:
        if not isinstance(value, list) or not value:
            return self._wrong(where, "must be a list of schemas, and not an empty one")
        return [self.schema(one, f"{where}[{index}]", depth) for index, one in enumerate(value)]

    def items(self, value: object, where: str, depth: int) -> Any:
        return self.schemas(value, where, depth) if isinstance(value, list) else self.schema(value, where, depth)

    def properties(self, value: object, where: str, depth: int) -> Any:
        if not isinstance(value, dict):
            return self._wrong(where, "must be an object of schemas")
        return {name: self.schema(one, f"{where}.{name}", depth) for name, one in value.items()}

    def pattern_properties(self, value: object, where: str, depth: int) -> Any:
        for pattern in value if isinstance(value, dict) else ():
            self.pattern(pattern, where, depth)
        return self.properties(value, where, depth)

    def property_names(self, value: object, where: str, depth: int) -> Any:
        self.patterns = True
        return self.schema(value, where, depth)

    def dependencies(self, value: object, where: str, depth: int) -> Any:
        if not isinstance(value, dict):
            return self._wrong(where, "must be an object of schemas or of lists of names")
        return {
            name: (self.names if isinstance(one, list) else self.schema)(one, f"{where}.{name}", depth)
            for name, one in value.items()
        }

    def pattern(self, value: object, where: str, _: int) -> Any:
        self.patterns = True
        self._pattern_characters += len(value) if isinstance(value, str) else 0
        if self._pattern_characters > MAX_PATTERNS:
            return self._wrong(where, f"is too long: all patterns together have at most {MAX_PATTERNS} characters")
        try:
            re.compile(value if isinstance(value, str) else "(")
        except (re.error, RecursionError, OverflowError, Warning):
            return self._wrong(where, "is no regular expression")
        return value

    def format(self, value: object, where: str, _: int) -> Any:
        self.patterns = True
        return value if value in FORMATS else self._wrong(where, f"must be one of {', '.join(FORMATS)}")

    def type(self, value: object, where: str, _: int) -> Any:
        listed = value if isinstance(value, list) else [value]
        good = listed and all(isinstance(one, str) and one in TYPES for one in listed)
        return value if good else self._wrong(where, f"must be one of {', '.join(TYPES)}, or a list of them")

    def names(self, value: object, where: str, _: int) -> Any:
        good = isinstance(value, list) and all(isinstance(one, str) for one in value) and len({*value}) == len(value)
        return value if good else self._wrong(where, "must be a list of names, each once")

    def number(self, value: object, where: str, _: int) -> Any:
        return value if _is_number(value) else self._wrong(where, "must be a number")

    def divisor(self, value: Any, where: str, _: int) -> Any:
        return value if _is_number(value) and value > 0 else self._wrong(where, "must be a number greater than 0")

    def count(self, value: Any, where: str, _: int) -> Any:
        good = type(value) is int and value >= 0
        return value if good else self._wrong(where, "must be a whole number, 0 or more")

    def flag(self, value: object, where: str, _: int) -> Any:
        return value if isinstance(value, bool) else self._wrong(where, "must be true or false")

    def constants(self, value: object, where: str, depth: int) -> Any:
        if not isinstance(value, list) or not value:
            return self._wrong(where, "must be a list of values, and not an empty one")
        return [self.constant(one, where, depth) for one in value]

    def constant(self, value: object, where: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return self._wrong(where, f"nests deeper than {MAX_DEPTH} levels")
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self.constant(one, where, depth + 1)
        # In a constant these mean nothing, and yet would be followed.
        if isinstance(value, dict) and not {"$ref", "$id", "id"}.isdisjoint(value):
            return self._wrong(where, "cannot hold objects with a key $ref, $id or id")
        if isinstance(value, float) and not math.isfinite(value):
            return self._wrong(where, "must be a number that JSON can write")
        return value

    def _wrong(self, where: str, what: str) -> Any:
        self.problems.append(f"{shown(where)} {what}")
        return {}


_KEYWORDS: dict[str, Callable[[_Reader, Any, str, int], Any]] = {
    **dict.fromkeys(("additionalItems", "additionalProperties", "contains"), _Reader.schema),
    **dict.fromkeys(("if", "then", "else", "not"), _Reader.schema),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _Reader.schemas),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _Reader.number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _Reader.count),
    **dict.fromkeys(("minProperties", "maxProperties"), _Reader.count),
    "items": _Reader.items,
    "properties": _Reader.properties,
    "patternProperties": _Reader.pattern_properties,
    "propertyNames": _Reader.property_names,
    "dependencies": _Reader.dependencies,
    "multipleOf": _Reader.divisor,
    "uniqueItems": _Reader.flag,
    "type": _Reader.type,
    "enum": _Reader.constants,
    "const": _Reader.constant,
    "required": _Reader.names,
    "pattern": _Reader.pattern,
    "format": _Reader.format,
}


def _unknown(keyword: str) -> str:
    if keyword in PLACES:
        return f"has {keyword}, which belong to the top of the schema"
    if keyword == "$id":
        return "has $id; leave it out, a schema is known by its handler"
    return f"has {shown(keyword)}, which is no keyword of JSON Schema draft-07"


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


class _Weight:
    """How long evaluating a clean schema may take, for one value, whatever that is."""

    def __init__(self, schema: Any) -> None:
        self._definitions = schema.get("definitions", {})
        self._visits: dict[str, float] = {}
        self._code = 0
        self._total = self._weigh({key: value for key, value in schema.items() if key != "definitions"})[0]
        for name in self._definitions:
            self._definition(name)

    def heavy(self) -> bool:
        return self._total > MAX_VISITS or self._code > MAX_CODE

    def _definition(self, name: str) -> float:
        if name not in self._visits:
            self._visits[name] = math.inf  # What comes back here is recursive.
            self._visits[name] = self._weigh(self._definitions[name])[0]
        return self._visits[name]

    def _weigh(self, node: Any, rules: int = 1) -> tuple[float, int]:
        """Return how many subschemas are visited, and how long the text is: each rule has it in its code."""
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            return (math.inf if node["$ref"] == "#" else self._definition(node["$ref"].rpartition("/")[2])), 100
        if isinstance(node, dict):
            inner = [self._weigh(value, 0 if rules and key in _MAPS else 1) for key, value in node.items()]
            length = sum(one[1] for one in inner) + sum(map(len, node))
            self._code += length * len(node) * rules
        elif isinstance(node, list):
            inner = [self._weigh(value) for value in node]
            length = sum(one[1] for one in inner)
        else:
            return 0, len(str(node))
        return 1 + sum(one[0] for one in inner), length
