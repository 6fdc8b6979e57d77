"""Typed parameters: what the schema of a dataclass accepts is what becomes an instance of it."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType, get_args, get_origin

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs import schema
from thingjobs.params import ParamsError, parse, schema_of


class Slot(enum.Enum):
    A = "a"
    B = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


Name = NewType("Name", str)


@dataclass(frozen=True)
class Step:
    retries: int = 3
    then: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Params:
    url: Annotated[str, "where the image is", {"minLength": 3}]
    slot: Slot = Slot.B
    mode: Literal["full", "delta"] | None = None
    steps: tuple[Step, ...] = ()
    labels: dict[str, float] = field(default_factory=dict)
    size: Annotated[int | None, {"minimum": 1}] = None
    either: bool | list[int] = False


# --- the two sides agree ------------------------------------------------------------------------------------------

#: Whole numbers that a float can hold exactly: what does not fit a float is refused by `parse` only.
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | NUMBERS | st.text("ab$\n", max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcx"), inner, max_size=3),
    max_leaves=8,
)
LIMITS: list[tuple[Any, dict[str, Any]]] = [
    (int, {"minimum": 0, "maximum": 2}),
    (float, {"exclusiveMinimum": -1, "exclusiveMaximum": 2.5}),
    (int | None, {"minimum": 1}),
    (float, {"multipleOf": 0.5}),
    (int, {"multipleOf": 2}),
    (str, {"minLength": 1, "maxLength": 2}),
    (str, {"pattern": "^a+$"}),
    (list[Any], {"minItems": 1, "maxItems": 2, "uniqueItems": True}),
    (dict[str, Any], {"minProperties": 1, "maxProperties": 2}),
    (str | int, {"minimum": 1, "minLength": 1}),
]


def made(fields: dict[str, Any], optional: set[str]) -> type:
    """Return a dataclass with those fields; the optional ones may be left out."""
    each = [(name, hint, field(default=None, kw_only=True)) for name, hint in fields.items() if name in optional]
    others = [(name, hint, field(kw_only=True)) for name, hint in fields.items() if name not in optional]
    return dataclasses.make_dataclass("Made", [*each, *others], frozen=True)


def dataclasses_of(hints: st.SearchStrategy[Any]) -> st.SearchStrategy[type]:
    fields = st.dictionaries(st.sampled_from("abc"), hints, min_size=1)
    return st.builds(made, fields, st.sets(st.sampled_from("abc")))


HINTS_ALONE: list[Any] = [
    *(str, int, float, bool, None, Any, list, tuple, dict, Slot, Level, Name, Step, str | None, Slot | None, int | str),
    *(Literal["a", 1] | None, Literal[True, 0], bool | list[int] | None, Step | None, Step | int),
    *(Annotated[kind, "", of] for kind, of in LIMITS),
]
HINTS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(HINTS_ALONE),
    lambda inner: st.one_of(
        inner.map(list.__class_getitem__),
        inner.map(lambda one: tuple.__class_getitem__((one, ...))),
        inner.map(lambda one: dict.__class_getitem__((str, one))),
        dataclasses_of(inner),
    ),
    max_leaves=5,
)
#: What stands at the borders of all these.
EDGES: list[Any] = [
    *(None, True, False, -1, -1.0, 0, 0.0, 0.5, 0.75, 1, 1.0, 1.5, 2, 2.0, 2.5, 3, 1e300),
    *("", "a", "b", "aa", "aab", "a\n", "abc", "1", [], [1], [1, 1.0], [1, True], [{}, {}], [1, 2, 3], ["a"]),
    *(
        {},
        {"a": 1},
        {"a": 1, "b": 2},
        {"a": 1, "b": 2, "c": 3},
        {"retries": 1.0},
        {"retries": True},
        {"then": [{"x": 1}]},
    ),
]


def accepts(evaluate: Any, value: object) -> bool:
    try:
        evaluate(value)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def fits(kind: type, value: object) -> bool:
    try:
        parse(kind, value)
    except ParamsError:
        return False
    return True


STEPS = st.fixed_dictionaries(
    {}, optional={"retries": LEAVES, "then": st.sampled_from([[], [{}], [{"retries": 2.0}], {}])}
)


def near_to(hint: Any) -> st.SearchStrategy[Any]:
    """Return values that fit a hint, or nearly."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return near_to(arguments[0])
    if origin in (list, tuple):
        return st.lists(near_to(arguments[0]) | LEAVES, max_size=3)
    if origin is dict:
        return st.dictionaries(st.sampled_from("ab"), near_to(arguments[1]) | LEAVES, max_size=3)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not Step:
        return st.fixed_dictionaries({one.name: near_to(one.type) for one in dataclasses.fields(hint)})
    if arguments:
        return st.one_of(*(near_to(one) for one in arguments)) | LEAVES
    return STEPS if hint is Step else st.sampled_from(["a", "b", 1, 2]) | LEAVES


@st.composite
def types_and_values(draw: st.DrawFn) -> tuple[type, list[Any]]:
    """Draw a type, and values of which many fit."""
    hint = draw(HINTS)
    near = st.fixed_dictionaries({"a": near_to(hint) | VALUES})
    return made({"a": hint}, draw(st.sets(st.just("a")))), draw(st.lists(near | near | VALUES, min_size=5, max_size=10))


@given(types_and_values())
@settings(max_examples=60, deadline=None)
def test_what_the_schema_accepts_is_what_becomes_an_instance(drawn: tuple[type, list[Any]]) -> None:
    kind, values = drawn
    schema = schema_of(kind)
    evaluate = fastjsonschema.compile(json.loads(json.dumps(schema)), use_default=False)
    for value in values:
        assert fits(kind, value) == accepts(evaluate, value), (schema, value)


@pytest.mark.parametrize("hint", HINTS_ALONE, ids=str)
def test_at_the_borders_both_sides_agree_too(hint: Any) -> None:
    kind = made({"a": hint}, set())
    evaluate = fastjsonschema.compile(schema_of(kind), use_default=False)

    assert [fits(kind, {"a": edge}) for edge in EDGES] == [accepts(evaluate, {"a": edge}) for edge in EDGES]


@given(dataclasses_of(HINTS))
@settings(max_examples=60, deadline=None)
def test_a_schema_has_only_what_the_agent_understands(kind: type) -> None:
    assert schema.problems(schema_of(kind)) == []


# --- schemas ------------------------------------------------------------------------------------------------------


def test_the_schema_says_all_that_is_known_of_a_field() -> None:
    assert schema_of(Params) == {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "where the image is", "minLength": 3},
            "slot": {"type": "string", "enum": ["a", "b"], "default": "b"},
            "mode": {"type": ["string", "null"], "enum": ["full", "delta", None], "default": None},
            "steps": {"type": "array", "items": {"$ref": "#/definitions/Step"}, "default": []},
            "labels": {"type": "object", "additionalProperties": {"type": "number"}, "default": {}},
            "size": {"type": ["integer", "null"], "minimum": 1, "default": None},
            "either": {
                "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "integer"}}],
                "default": False,
            },
        },
        "required": ["url"],
        "additionalProperties": False,
        "definitions": {
            "Step": {
                "type": "object",
                "properties": {
                    "retries": {"type": "integer", "default": 3},
                    "then": {"type": "array", "items": {"$ref": "#/definitions/Step"}, "default": []},
                },
                "required": [],
                "additionalProperties": False,
            }
        },
    }


def test_a_class_that_contains_itself_refers_to_the_whole() -> None:
    assert schema_of(Step)["properties"]["then"]["items"] == {"$ref": "#"}


def test_two_classes_of_one_name_are_two_definitions() -> None:
    def node() -> type:
        kind = dataclasses.make_dataclass("Node", [("a", "int")])
        kind.__annotations__["a"] = list[kind]  # type: ignore[valid-type]
        return kind

    made = dataclasses.make_dataclass("Made", [("a", node()), ("b", node())])

    schema = schema_of(made)

    assert {schema["properties"][name]["$ref"] for name in "ab"} == {"#/definitions/Node", "#/definitions/Node1"}
    assert set(schema["definitions"]) == {"Node", "Node1"}


def test_a_default_that_json_cannot_have_is_left_out_of_the_schema() -> None:
    made = dataclasses.make_dataclass("Made", [("a", float, float("nan")), ("b", Step, Step(1)), ("c", Any, object())])

    properties = schema_of(made)["properties"]

    assert properties["a"] == {"type": "number"}
    assert properties["b"]["default"] == {"retries": 1, "then": []}
    assert properties["c"] == {}


# --- instances ----------------------------------------------------------------------------------------------------


def test_values_become_what_the_fields_say() -> None:
    value = {
        "url": "https://x",
        "slot": "a",
        "steps": [{"retries": 2.0, "then": [{}]}],
        "labels": {"a": 1},
        "either": [1],
    }

    params = parse(Params, value)

    assert params == Params("https://x", Slot.A, None, (Step(2, [Step()]),), {"a": 1.0}, None, [1])
    assert type(params.steps[0].retries) is int
    assert type(params.labels["a"]) is float


def test_a_field_that_is_made_by_the_class_itself_is_no_parameter() -> None:
    @dataclass
    class Made:
        a: int
        b: int = field(init=False, default=5)

    assert parse(Made, {"a": 1}).b == 5
    assert not fits(Made, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "params must be an object, not a list"),
        ({}, "params.url is missing"),
        ({"url": 5}, "params.url must be a string, not a number"),
        ({"url": "x"}, "params.url must have at least 3 characters"),
        ({"url": "xxx", "lot": 1}, "params.lot is not a parameter; there are: "),
        ({"url": "xxx", "slot": "c"}, 'params.slot must be "a" or "b"'),
        ({"url": "xxx", "mode": True}, 'params.mode must be "full" or "delta" or null'),
        ({"url": "xxx", "size": 0}, "params.size must be >= 1"),
        ({"url": "xxx", "size": "5"}, "params.size must be a whole number or null, not a string"),
        ({"url": "xxx", "size": 1.5}, "params.size must be a whole number or null, not a number"),
        ({"url": "xxx", "steps": {}}, "params.steps must be a list, not an object"),
        (
            {"url": "xxx", "steps": [{}, {}, {"retries": "x"}]},
            "params.steps[2].retries must be a whole number, not a str",
        ),
        (
            {"url": "xxx", "steps": [{"then": [{"then": 1}]}]},
            "params.steps[0].then[0].then must be a list, not a number",
        ),
        ({"url": "xxx", "labels": {"a": None}}, "params.labels.a must be a number, not null"),
        ({"url": "xxx", "labels": {"a": 10**400}}, "params.labels.a must be a number that is not so large"),
        ({"url": "xxx", "either": [True]}, "params.either[0] must be a whole number, not true"),
        ({"url": "xxx", "either": 1}, "params.either must be true or false or a list, not a number"),
        ({"url": "xxx", "https://u:p@h/?sig=1": 1}, "params.https://…@h/?… is not a parameter"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(value: object, reason: str) -> None:
    with pytest.raises(ParamsError) as raised:
        parse(Params, value)

    assert str(raised.value).startswith(reason)


def test_a_class_may_have_the_last_word() -> None:
    @dataclass
    class Window:
        first: int
        last: int

        def __post_init__(self) -> None:
            if self.first > self.last:
                raise ValueError("first must not be after last")

    @dataclass
    class Made:
        windows: list[Window]

    with pytest.raises(ParamsError, match=r"^params\.windows\[0\]: first must not be after last$"):
        parse(made_with(windows=list[Window]), {"windows": [{"first": 2, "last": 1}]})


def test_a_value_that_is_too_deep_is_no_defect() -> None:
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"then": [value]}

    with pytest.raises(ParamsError, match="nested too deeply"):
        parse(Step, value)


# --- types that cannot be used ------------------------------------------------------------------------------------


def made_with(**fields: Any) -> type:
    return dataclasses.make_dataclass("Made", list(fields.items()))


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (set[int], "Made.a is set[int], which JSON params cannot be; there are: str"),
        (bytes, "Made.a is bytes, which"),
        (list[set[str]], "Made.a[] is set[str], which"),
        (dict[int, str], "Made.a is dict[int, str], which"),
        (dict[str, bytes], "Made.a.* is bytes, which"),
        (tuple[int, str], "Made.a is tuple[int, str], which"),
        (complex | None, "Made.a is complex, which"),
        (Literal[b"x"], "Made.a has the choice b'x', which is no text"),
        (enum.Enum("Odd", {"A": object}), "Made.a has the choice <class 'object'>"),
        (Annotated[str, {"minlength": 1}], "Made.a has the keyword minlength, which cannot be held to; there are: min"),
        ("Nowhere", "the types of Made are not known at run time: name 'Nowhere' is not defined"),
        (dataclasses.InitVar[int], "Made.a is an InitVar"),
    ],
)
def test_a_field_that_json_cannot_have_is_named(hint: Any, reason: str) -> None:
    with pytest.raises(TypeError) as raised:
        schema_of(made_with(a=hint))

    assert str(raised.value).startswith(reason)


def test_params_are_a_dataclass_or_nothing() -> None:
    with pytest.raises(TypeError, match="params must be a dataclass, not <class 'dict'>"):
        schema_of(dict)
