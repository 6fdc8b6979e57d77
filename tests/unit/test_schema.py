"""Schemas of parameters: which may be used, where each may be evaluated, and what they say of params."""

from __future__ import annotations

import json
import time
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs import schema
from thingjobs.schema import SchemaError
from thingjobs.schema.reading import FORMATS, MAX_DEPTH

FEW = settings(max_examples=settings().max_examples // 2, deadline=None)
FIRMWARE = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "what firmware wants",
    "type": "object",
    "required": ["slot"],
    "additionalProperties": False,
    "properties": {
        "slot": {"enum": ["a", "b"], "description": "which"},
        "retries": {"type": "integer", "minimum": 1, "default": 3},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/definitions/tag"}, "uniqueItems": True},
        "where": {"$ref": "#/$defs/place"},
    },
    "definitions": {"tag": {"type": "string", "maxLength": 3}},
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number", "exclusiveMaximum": 9}}}},
}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"slot": "a"}, ""),
        ({"slot": "a", "retries": 1, "name": None, "tags": ["a", "b"], "where": {"x": 1.5}}, ""),
        ({}, "params.slot is missing"),
        ([], "params must be an object, not a list"),
        ({"slot": "c"}, 'params.slot must be "a" or "b"'),
        ({"slot": "a", "retries": 0}, "params.retries must be >= 1"),
        ({"slot": "a", "retries": "1"}, "params.retries must be a whole number, not a string"),
        ({"slot": "a", "retries": True}, "params.retries must be a whole number, not true"),
        ({"slot": "a", "name": 5}, "params.name must be a string or null, not a number"),
        ({"slot": "a", "tags": ["a", "abcd"]}, "params.tags[1] must have at most 3 characters"),
        ({"slot": "a", "tags": ["a", "a"]}, "params.tags must not have the same entry twice"),
        ({"slot": "a", "where": {"x": 9}}, "params.where.x must be < 9"),
        ({"slot": "a", "slott": 1}, "params.slott is not a parameter; there are: slot, retries, name, tags, where"),
    ],
)
def test_a_sentence_names_the_place_and_what_is_wanted(params: object, said: str) -> None:
    assert schema.problems(FIRMWARE) == []
    assert not schema.needs_child(FIRMWARE)
    assert schema.check(FIRMWARE, params) == said


def test_nothing_is_filled_in_and_nothing_changed() -> None:
    params: dict[str, Any] = {"slot": "a"}
    before = json.dumps(FIRMWARE)

    schema.check(FIRMWARE, params)

    assert params == {"slot": "a"}
    assert json.dumps(FIRMWARE) == before


#: One that breaks each rule, with a secret in it.
SECRET = "https://host/path?X-Amz-Signature=secret"
RULES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "integer"}, SECRET),
    ({"enum": ["a"]}, SECRET),
    ({"const": "a"}, SECRET),
    ({"maxLength": 1}, SECRET),
    ({"minLength": 1000}, SECRET),
    ({"pattern": "^x"}, SECRET),
    ({"format": "ipv4"}, SECRET),
    ({"not": {"type": "string"}}, SECRET),
    ({"anyOf": [{"type": "string", "maxLength": 1}, {"type": "null"}]}, SECRET),
    ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, SECRET),
    ({"items": {"type": "null"}}, [SECRET]),
    ({"contains": {"const": 1}}, [SECRET]),
    ({"uniqueItems": True}, [SECRET, SECRET]),
    ({"maxItems": 0}, [SECRET]),
    ({"minItems": 2}, [SECRET]),
    ({"items": [{}], "additionalItems": False}, [SECRET, SECRET]),
    ({"minProperties": 2}, {"a": SECRET}),
    ({"maxProperties": 0}, {"a": SECRET}),
    ({"additionalProperties": False}, {SECRET: SECRET}),
    ({"additionalProperties": {"type": "null"}}, {SECRET: SECRET}),
    ({"propertyNames": {"maxLength": 1}}, {SECRET: SECRET}),
    ({"dependencies": {"a": ["b"]}}, {"a": SECRET}),
    ({"if": {"type": "string"}, "then": {"maxLength": 1}}, SECRET),
    ({"multipleOf": 2}, 3),
    ({"maximum": 2}, 3),
    ({"properties": {"a": False}}, {"a": SECRET}),
]


@pytest.mark.parametrize(("rule", "value"), RULES)
def test_no_sentence_tells_a_secret(rule: dict[str, Any], value: Any) -> None:
    whole = {"properties": {"x": rule}}
    assert schema.problems(whole) == []

    said = schema.check(whole, {"x": value})

    assert said.startswith("params.x")
    assert "secret" not in said
    assert schema.check(whole, {}) == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "params must be a JSON object that is a schema"),
        (True, "params must be a JSON object that is a schema"),
        ({1, 2}, "params is no schema that can be written as JSON"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "params.$schema must be"),
        ({"$id": "http://x/"}, "params has $id"),
        ({"propertees": {}}, "params has propertees, which is no keyword"),
        ({"unevaluatedProperties": False}, "which is no keyword of JSON Schema draft-07"),
        ({"properties": {"a": {"definitions": {}}}}, "params.properties.a has definitions, which belong to the top"),
        ({"properties": {"a": 5}}, "params.properties.a must be a schema"),
        ({"properties": []}, "params.properties must be an object of schemas"),
        ({"definitions": []}, "params.definitions must be an object of schemas"),
        ({"$ref": "http://127.0.0.1:1/x"}, "params refers elsewhere"),
        ({"$ref": "other.json"}, "params refers elsewhere"),
        ({"$ref": 5}, "params refers elsewhere"),
        ({"$ref": "#/properties/a"}, "params refers elsewhere"),
        ({"$ref": "#/definitions/a"}, "params refers to definitions/a, which is not there"),
        ({"properties": {"a": {"$ref": "#", "type": "object"}}}, "params.properties.a has type beside $ref"),
        ({"type": "strin"}, "params.type must be one of"),
        ({"type": []}, "params.type must be one of"),
        ({"type": [["string"]]}, "params.type must be one of"),
        ({"enum": []}, "params.enum must be a list of values"),
        ({"enum": [{"id": "x"}]}, "params.enum cannot hold objects with a key"),
        ({"const": [{"$ref": "http://x"}]}, "params.const cannot hold objects with a key"),
        ({"minimum": "1"}, "params.minimum must be a number"),
        ({"minimum": True}, "params.minimum must be a number"),
        ({"minimum": float("nan")}, "params.minimum must be a number"),
        ({"const": float("inf")}, "params.const must be a number that JSON can write"),
        ({"multipleOf": 0}, "params.multipleOf must be a number greater than 0"),
        ({"minLength": -1}, "params.minLength must be a whole number, 0 or more"),
        ({"minLength": 1.5}, "params.minLength must be a whole number, 0 or more"),
        ({"uniqueItems": 1}, "params.uniqueItems must be true or false"),
        ({"required": ["a", "a"]}, "params.required must be a list of names, each once"),
        ({"required": "a"}, "params.required must be a list of names, each once"),
        ({"dependencies": {"a": [1]}}, "params.dependencies.a must be a list of names, each once"),
        ({"anyOf": []}, "params.anyOf must be a list of schemas"),
        ({"pattern": "("}, "params.pattern is no regular expression"),
        ({"pattern": 5}, "params.pattern is no regular expression"),
        ({"patternProperties": {"(": {}}}, "params.patternProperties is no regular expression"),
        ({"format": "e-mail"}, "params.format must be one of date, "),
        ({"title": "x" * 70_000}, "a schema has at most 65536"),
        ({"required": ["a"], "additionalProperties": False}, "params cannot be evaluated"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_with_the_place(wrong: object, said: str) -> None:
    found = schema.problems(wrong)

    assert any(said in one for one in found), found
    with pytest.raises(SchemaError):
        schema.check(wrong, {})


def nested(depth: int, keyword: str = "not") -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        found = {keyword: found}
    return found


def test_depth_is_bounded() -> None:
    assert schema.problems(nested(5)) == []
    assert any(f"nests deeper than {MAX_DEPTH} levels" in one for one in schema.problems(nested(MAX_DEPTH + 1)))
    assert schema.problems(nested(3000)) != []
    # As deep as is allowed here may be deeper than Python can nest its blocks: that is told, and not raised.
    assert "cannot be evaluated" in schema.problems(nested(MAX_DEPTH, "items"))[0]
    assert schema.problems({"const": json.loads("[" * 50 + "]" * 50)}) != []


@pytest.mark.parametrize(
    ("whole", "child"),
    [
        ({"properties": {"pattern": {"type": "string"}, "format": {}, "propertyNames": {}}}, False),
        ({"default": {"pattern": "x"}}, False),
        ({"properties": {"a": {"pattern": "x"}}}, True),
        ({"properties": {"a": {"items": {"format": "uri"}}}}, True),
        ({"patternProperties": {"^x": {}}}, True),
        ({"propertyNames": {"maxLength": 3}}, True),
        ({"definitions": {"a": {"pattern": "x"}}}, True),
        ({"properties": {"a": {"$ref": "#"}}}, True),
        ({"definitions": {"a": {"items": {"$ref": "#/definitions/a"}}}, "$ref": "#/definitions/a"}, True),
        ({"properties": {f"p{number}": {"type": "string", "maxLength": 9} for number in range(300)}}, False),
        ({"properties": {f"p{number}": {"type": "string", "maxLength": 9} for number in range(1200)}}, True),
    ],
)
def test_what_may_take_long_is_for_a_child(whole: dict[str, Any], child: bool) -> None:
    assert schema.needs_child(whole) is child


def test_alternatives_that_multiply_are_for_a_child() -> None:
    doubled = {f"a{n}": {"anyOf": [{"$ref": f"#/definitions/a{n + 1}"}] * 2} for n in range(12)}

    assert schema.needs_child({"$ref": "#/definitions/a0", "definitions": {**doubled, "a12": {"type": "null"}}})


def test_definitions_are_told_apart_however_alike_their_names_are() -> None:
    whole = {
        "properties": {"a": {"$ref": "#/definitions/A-b"}, "b": {"$ref": "#/definitions/a_B"}},
        "definitions": {"A-b": {"type": "string"}, "a_B": {"type": "integer"}},
    }

    assert schema.check(whole, {"a": "x", "b": 1}) == ""
    assert schema.check(whole, {"a": 1}) == "params.a must be a string, not a number"
    assert schema.check(whole, {"b": "x"}) == "params.b must be a whole number, not a string"


def test_params_that_nest_without_end_are_refused() -> None:
    whole = {"properties": {"a": {"$ref": "#"}}}
    params: dict[str, Any] = {}
    for _ in range(5000):
        params = {"a": params}

    assert schema.check(whole, params) == "params is nested too deeply"


NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from("\"'\\{}[]()%$#./\n\r\t"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(NAMES, VALUES, NAMES, VALUES)
@FEW
def test_no_name_and_no_value_of_a_schema_becomes_code(name: str, const: Any, other: str, given_value: Any) -> None:
    whole = {
        "properties": {name: {"enum": [const]}, other + "x": {"const": const}},
        "required": [name],
        "dependencies": {name: [name]},
        "additionalProperties": {"type": "null"},
    }
    if schema.problems(whole):
        return

    assert schema.check(whole, {name: const}) == ""
    assert schema.check(whole, {}).endswith("is missing")
    said = schema.check(whole, {name: given_value})
    assert (said == "") is fastjsonschema_takes({"enum": [const]}, given_value)
    assert "\n" not in said


def fastjsonschema_takes(definition: dict[str, Any], value: Any) -> bool:
    try:
        fastjsonschema.validate(definition, value)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


@given(VALUES)
@FEW
def test_any_json_is_a_schema_or_is_told_why_not(content: Any) -> None:
    found = schema.problems(content)

    assert all(isinstance(one, str) and one for one in found)
    if not found and not schema.needs_child(content):
        assert isinstance(schema.check(content, {}), str)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_of_the_draft_may_be_named(format_: str) -> None:
    assert schema.problems({"format": format_}) == []


# --- in a child ---------------------------------------------------------------------------------------------------


def test_a_child_answers_what_the_agent_would_have_found() -> None:
    asked = schema.question(FIRMWARE, {"slot": "c"})

    assert schema.understood(schema.answer(asked).encode()) == 'params.slot must be "a" or "b"'
    with pytest.raises(SchemaError, match="refers elsewhere"):
        schema.understood(schema.answer(schema.question({"$ref": "x"}, {})).encode())


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"problem": 5}', b"[" * 100_000, b"\xff"])
def test_what_is_no_answer_is_not_taken_for_a_yes(answer: bytes) -> None:
    with pytest.raises(SchemaError, match="gave no answer"):
        schema.understood(answer)


@pytest.mark.parametrize("word", ['a"b', "a\\", "{data}", "a\nb", '\\" or 1:#'])
@pytest.mark.parametrize(
    "make",
    [
        lambda word: {"properties": {word: {"type": "string"}}},
        lambda word: {"dependencies": {word: {"type": "object"}}},
        lambda word: {"dependencies": {"a": [word]}},
        lambda word: {"required": [word]},
        lambda word: {"properties": {"a": {"enum": [[word]]}}},
        lambda word: {"definitions": {"a": {"const": {word: 1}}}},
    ],
)
def test_words_that_could_be_taken_for_code_are_for_a_child(make: Any, word: str) -> None:
    assert schema.problems(make(word)) == []
    assert schema.needs_child(make(word))
    assert not schema.needs_child(make("it's plain: größer #1"))


def test_a_long_chain_of_references_is_for_a_child() -> None:
    chain = {f"a{number}": {"$ref": f"#/definitions/a{number + 1}"} for number in range(1200)}
    long = {"definitions": {**chain, "a1200": True}, "properties": {"x": {"$ref": "#/definitions/a0"}}}

    assert schema.problems(long) == []
    assert schema.needs_child(long)


def test_patterns_that_take_long_only_to_be_compiled_are_refused() -> None:
    many = {"properties": {f"p{number}": {"pattern": "[!-\uffff]" * 100} for number in range(60)}}

    began = time.process_time()
    assert "all patterns together have at most 4096 characters" in schema.problems(many)[0]
    assert time.process_time() - began < 5
