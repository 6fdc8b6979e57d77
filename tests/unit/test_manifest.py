"""What a handler may declare: the parser and the published schema say the same, and all problems are told at once."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import fastjsonschema
import pytest

from thingjobs.manifest import Manifest, ManifestError, parse
from thingjobs.model import Limits, Resources, Verb

LEAST: dict[str, Any] = {"contract": 1, "verbs": ["apply"]}
WHOLE: dict[str, Any] = {
    "contract": 1,
    "name": "firmware",
    "version": "1.2",
    "description": "writes the other slot",
    "exec": ["bin/run.sh", "--flag"],
    "verbs": ["check", "prepare", "apply", "verify", "commit", "rollback"],
    "params": {"type": "object", "properties": {"slot": {"enum": ["a", "b"]}}},
    "user": "operator",
    "timeouts": {"check": 1, "prepare": 2, "apply": 3.5, "verify": 4, "commit": 5, "rollback": 6, "reach": 7},
    "stall": 30,
    "cancel_apply": True,
    "apply_rerun": True,
    "observe": True,
    "max_defer": 3600,
    "daemons": "keep",
    "elsewhere": True,
    "resumes_across_versions": True,
    "limits": {"memory": "64M", "processes": 32, "cpu": 0.5},
    "needs": ["cloud"],
}
#: Values that stand in the place of each key, one after the other, and of each key within.
ANYTHING: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 1e300, 32, 1048576, 31536000, 31536001, 2**60, "", "a", "64M", "1.5M", "-1"),
    *("end", "keep", "apply", "root", "a b", "a\nb", "x" * 65, "x" * 129, "x" * 256, "x" * 501, "../x", "a/../b"),
    *("a/./b", "/x", "a/b", "..", ".", "...", ".a", "a/", "ä", "1a", "A", "-a", "x\x7f", [], ["apply"], ["run"], [1]),
    *(["apply", "apply"], ["check"], ["run", "x" * 1025], ["run", "a\nb"], ["run", ""], ["run", *"x" * 64], [[]]),
    *({}, {"apply": 5}, {"aply": 5}, {"apply": 0}, {"apply": "5"}, {"apply": None}, {"memory": 1}, {"cpu": 0.01}),
    *(
        {"memory": "1G"},
        {"memory": 1.0},
        {"processes": 0},
        {"processes": 1.0},
        {"processes": True},
        {"cpu": 0},
        {"x": 1},
    ),
    *({"cpu": 2000}, {"memory": True}, {"memory": None}, ["cloud", "x-1"], ["Cloud"], ["cloud", "cloud"]),
]


@pytest.fixture(scope="module")
def published() -> Any:
    """The published schema, compiled."""
    text = (files("thingjobs") / "schemas" / "manifest.json").read_text(encoding="utf-8")
    return fastjsonschema.compile(json.loads(text), use_default=False)


def takes(content: object) -> bool:
    program = isinstance(content, dict) and content.get("exec") is not None
    try:
        parse(content, program=program)
    except ManifestError:
        return False
    return True


def published_takes(published: Any, content: object) -> bool:
    try:
        published(copy.deepcopy(content))
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def variants() -> list[tuple[str, dict[str, Any]]]:
    """Return manifests in which one value is another."""
    found = []
    for key in [*WHOLE, "surprise"]:
        for value in ANYTHING:
            # Whether params are a schema is a question of their own; and beyond sizes, text says nothing of a number.
            if key == "params" and isinstance(value, dict):
                continue
            found.append((key, {**WHOLE, key: value}))
        found.append((key, {other: value for other, value in WHOLE.items() if other != key}))
    return found


def test_parser_and_published_schema_take_and_refuse_the_same(published: Any) -> None:
    differ = [
        (key, content.get(key, "left out"))
        for key, content in variants()
        if takes(content) != published_takes(published, content)
    ]

    assert differ == []
    assert {takes(content) for _, content in variants()} == {True, False}
    for content in (None, 5, "x", [], [LEAST]):
        assert not takes(content)
        assert not published_takes(published, content)


def test_the_published_schema_tells_the_defaults_of_the_contract(published: Any) -> None:
    text = (files("thingjobs") / "schemas" / "manifest.json").read_text(encoding="utf-8")
    properties = json.loads(text)["properties"]
    timeouts = {key: value["default"] for key, value in properties["timeouts"]["properties"].items()}

    assert Limits(**timeouts, stall=properties["stall"]["default"]) == Limits()
    assert properties["daemons"]["default"] == "end"
    for key in ("cancel_apply", "apply_rerun", "elsewhere", "observe", "resumes_across_versions"):
        assert properties[key]["default"] is getattr(Manifest(), key)


def test_a_whole_manifest_becomes_a_value() -> None:
    assert parse(WHOLE, program=True, name="firmware") == Manifest(
        name="firmware",
        version="1.2",
        description="writes the other slot",
        exec=("bin/run.sh", "--flag"),
        verbs=frozenset(Verb),
        params=WHOLE["params"],
        user="operator",
        limits=Limits(1, 2, 3.5, 4, 5, 6, 7, 30),
        cancel_apply=True,
        apply_rerun=True,
        observe=True,
        max_defer=3600,
        keeps_daemons=True,
        elsewhere=True,
        resumes_across_versions=True,
        resources=Resources(64 << 20, 32, 0.5),
        needs=frozenset({"cloud"}),
    )


def test_what_is_left_out_or_null_has_its_default() -> None:
    nulls = dict.fromkeys(("name", "version", "params", "user", "timeouts", "stall", "limits", "needs", "exec"))

    assert parse(LEAST, program=False) == Manifest()
    assert parse({**LEAST, **nulls}, program=False) == Manifest()
    assert parse({**LEAST, "exec": "run.sh"}, program=True).exec == ("run.sh",)


@pytest.mark.parametrize(
    ("memory", "size"),
    [("1048576", 1 << 20), ("1024K", 1 << 20), ("64M", 64 << 20), ("2G", 2 << 30), (1 << 21, 1 << 21)],
)
def test_memory_is_written_in_bytes_or_with_a_unit(memory: object, size: int) -> None:
    assert parse({**LEAST, "limits": {"memory": memory}}, program=False).resources.memory == size


@pytest.mark.parametrize("memory", ["0M", "1023K", "999999999999999G", "64m", "64MB", "64 M", " 64M", "M"])
def test_memory_that_is_too_little_too_much_or_no_number_is_refused(memory: str) -> None:
    assert not takes({**LEAST, "limits": {"memory": memory}})


def test_all_problems_are_told_at_once_each_with_its_place_and_a_hint() -> None:
    wrong = {
        **LEAST,
        "verbs": ["aply"],
        "timeout": {},
        "timeouts": {"aply": 1, "apply": "1h"},
        "limits": {"memory": "64X", "cp": 1},
        "params": {"type": "strin", "properties": 5},
        "version": 1.2,
        "name": "other",
    }

    with pytest.raises(ManifestError) as refused:
        parse(wrong, program=True, name="firmware")

    starts = [problem.split(" ")[0] for problem in refused.value.problems]
    assert starts == [
        *("timeout", "version", "verbs", "params.type", "params.properties", "timeouts.aply"),
        *("timeouts.apply", "limits.cp", "limits.memory", "exec", "name"),
    ]
    said = "\n".join(refused.value.problems)
    assert "did you mean timeouts?" in said
    assert "did you mean apply?" in said
    assert "did you mean cpu?" in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "contract is missing"),
        ({"contract": 2, "verbs": 5}, "contract is 2"),
        ({"contract": True, "verbs": ["apply"]}, "contract is True"),
        ({"contract": 1}, "verbs is missing"),
        ({**LEAST, "exec": "x"}, "exec is only for executables"),
        ({**LEAST, "user": "https://x/?secret"}, "user must be the name of an account"),
    ],
)
def test_a_problem_says_what_to_write(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        parse(content, program=False)


def test_a_class_needs_no_program_and_an_executable_does() -> None:
    with pytest.raises(ManifestError, match="exec is missing"):
        parse(LEAST, program=True)
