"""`documents.route`: which shape a document has, native documents, operations, placeholders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thingjobs.documents import Asked, route
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class FakeDevice:
    """A device with the handler `firmware`, and the scripts `firmware`, `mine.sh` and `bare`."""

    thing: str = "pump-7"
    facts: Mapping[str, str] = field(default_factory=lambda: {"thingName": "pump-7"})
    scripts_shown: str = "/srv/scripts/"

    def has_handler(self, name: str) -> bool:
        return name in ("firmware", "aws-steps")

    def script(self, name: str) -> str | None:
        return f"/srv/scripts/{name}" if name in ("firmware", "mine.sh", "bare") else None

    def check_user(self, user: str) -> None:
        raise DocumentError(Code.USER_UNKNOWN, f"there is no user {user}")


def refusal(what: object) -> tuple[Code, str]:
    with pytest.raises(DocumentError) as caught:
        route(what, FakeDevice())
    return caught.value.code, caught.value.reason


# --- Shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "kind"),
    [(None, "null"), (True, "true"), (3, "a number"), (0.5, "a number"), ("{}", "a string"), ([{}], "a list")],
)
def test_what_is_no_object_is_refused(what: object, kind: str) -> None:
    assert refusal(what) == (Code.DOCUMENT_INVALID, f"the job document must be a JSON object, not {kind}")


@pytest.mark.parametrize("what", [{}, {"version": "1.0"}, {"Handler": "x"}, {"params": {"handler": "x"}}])
def test_an_unknown_shape_is_refused_with_those_that_are_known(what: dict[str, Any]) -> None:
    code, reason = refusal(what)

    assert code is Code.DOCUMENT_UNKNOWN
    assert all(f'{{"{key}"' in reason for key in ("handler", "version", "operation"))


def test_of_several_keys_the_native_one_decides() -> None:
    code, reason = refusal({"operation": "mine", "steps": [], "handler": "x"})

    assert code is Code.DOCUMENT_INVALID
    assert reason.startswith('"operation" is not a key here')


# --- Native -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ({"handler": "a"}, Asked("a", {})),
        ({"handler": "a", "params": {"b": [1]}}, Asked("a", {"b": [1]})),
        ({"handler": "a", "version": ">=2"}, Asked("a", {}, version=">=2")),
        ({"handler": "a", "mode": "check"}, Asked("a", {}, check_only=True)),
        ({"handler": "a", "_comment": 1, "_": {}}, Asked("a", {})),
    ],
)
def test_a_native_document_names_a_handler_and_its_parameters(what: dict[str, Any], asked: Asked) -> None:
    assert route(what, FakeDevice()) == asked


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"handler": 5}, "handler must be a string, not a number"),
        ({"handler": ""}, "handler must not be empty"),
        ({"handler": "h" * 129}, "handler must not be longer than 128 characters"),
        ({"handler": "a", "params": None}, "params must be a JSON object, not null"),
        ({"handler": "a", "params": []}, "params must be a JSON object, not a list"),
        ({"handler": "a", "version": 2}, "version must be a string, not a number"),
        ({"handler": "a", "mode": "dry"}, 'mode must be "check", not "dry"'),
        ({"handler": "a", "mode": None}, 'mode must be "check", not null'),
        (
            {"handler": "a", "parms": {}},
            '"parms" is not a key here: there are handler, params, version, mode, and _… for comments',
        ),
    ],
)
def test_a_mistake_in_a_native_document_is_told_with_its_place(what: dict[str, Any], reason: str) -> None:
    assert refusal(what) == (Code.DOCUMENT_INVALID, reason)


@pytest.mark.parametrize("what", [{"handler": "aws-steps", "params": {"steps": []}}, {"operation": "aws-steps"}])
def test_the_plan_of_steps_cannot_be_handed_in_past_its_judge(what: dict[str, Any]) -> None:
    code, reason = refusal(what)

    assert code is Code.DOCUMENT_INVALID
    assert reason.startswith("aws-steps cannot be named")


# --- Operations -------------------------------------------------------------------------------------------


def one_step(name: str, kind: str, argv: list[str], **rest: Any) -> Asked:
    plain = {"user": None, "ignoreStepFailure": False, "allowStdErr": None, "final": False}
    shown = rest.pop("includeStdOut", False)
    step = {"name": name, "kind": kind, "argv": argv, **plain, **rest}
    return Asked("aws-steps", {"includeStdOut": shown, "steps": [step]})


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ({"operation": "firmware", "a": 1, "args": 2, "_c": 3}, Asked("firmware", {"a": 1, "args": 2})),
        ({"operation": "mine", "args": ["a", ""]}, one_step("mine", "run", ["/srv/scripts/mine.sh", "a", ""])),
        ({"operation": "mine.sh"}, one_step("mine.sh", "run", ["/srv/scripts/mine.sh"])),
        ({"operation": "bare", "path": "default"}, one_step("bare", "run", ["/srv/scripts/bare"])),
        ({"operation": "bare", "path": "/srv/scripts"}, one_step("bare", "run", ["/srv/scripts/bare"])),
        (
            {"operation": "bare", "allowStdErr": 1, "includeStdOut": "True", "more": 1},
            one_step("bare", "run", ["/srv/scripts/bare"], allowStdErr=1, includeStdOut=True),
        ),
        ({"operation": "reboot"}, one_step("reboot", "reboot", [])),
        ({"operation": "reboot.sh", "path": "${aws:iot:parameter:p}"}, one_step("reboot.sh", "reboot", [])),
        (
            {"operation": "install-packages", "args": ["a b"]},
            one_step("install-packages", "install-packages", ["a", "b"]),
        ),
    ],
)
def test_an_operation_is_a_handler_else_a_script(what: dict[str, Any], asked: Asked) -> None:
    assert route(what, FakeDevice()) == asked


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"operation": "ghost"}, Code.HANDLER_UNKNOWN),
        ({"operation": 3}, Code.DOCUMENT_INVALID),
        ({"operation": ["firmware"]}, Code.DOCUMENT_INVALID),
        ({"operation": ""}, Code.DOCUMENT_INVALID),
        ({"operation": "../mine"}, Code.DOCUMENT_INVALID),
        ({"operation": "mine", "path": "/tmp"}, Code.DOCUMENT_INVALID),
        ({"operation": "mine", "args": "a"}, Code.DOCUMENT_INVALID),
        ({"operation": "mine", "args": ["a\0"]}, Code.DOCUMENT_INVALID),
        ({"operation": "mine", "allowStdErr": -1}, Code.DOCUMENT_INVALID),
        ({"operation": "mine", "includeStdOut": "no"}, Code.DOCUMENT_INVALID),
        ({"operation": "stop-services", "args": ["-f"]}, Code.NAME_FORBIDDEN),
    ],
)
def test_an_operation_that_cannot_be_carried_out_is_refused(what: dict[str, Any], code: Code) -> None:
    assert refusal(what)[0] is code


# --- Placeholders -----------------------------------------------------------------------------------------

LITERAL = "${aws:iot:parameter:version}"


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ({"handler": "a", "params": {"b": [0, {"c": f"x {LITERAL}"}]}}, "params.b[1].c"),
        ({"handler": LITERAL}, "handler"),
        ({"handler": "a", "params": {"path": LITERAL}}, "params.path"),
        ({"handler": "a", "params": {LITERAL: 1}}, "a key of params"),
        ({LITERAL: 1, "handler": "a"}, "a key of the document"),
        ({"operation": "firmware", "path": LITERAL}, "path"),
        ({"operation": "mine", "args": [LITERAL]}, "args[0]"),
        ({"operation": "mine", "path": f"/a/{LITERAL}"}, "path"),
        ({"steps": 1, "_comment": LITERAL}, "_comment"),
        ({"steps": [{"action": {"runAsUser": f"a{LITERAL}"}}]}, "steps[0].action.runAsUser"),
        ({"steps": [{"action": {"runAsUser": f"{LITERAL}a"}}]}, "steps[0].action.runAsUser"),
        ({"steps": [{"action": {"runAsUser": LITERAL, "name": LITERAL}}]}, "steps[0].action.name"),
        ({"steps": [{"action": {"input": {"path": LITERAL, "handler": LITERAL}}}]}, "steps[0].action.input.handler"),
        ({"steps": [], "runAsUser": LITERAL}, "runAsUser"),
        ({"neither": LITERAL}, "neither"),
    ],
)
def test_a_placeholder_left_in_the_document_is_refused(what: dict[str, Any], place: str) -> None:
    code, reason = refusal(what)

    assert code is Code.DOCUMENT_PLACEHOLDER
    assert f'"{LITERAL}" in {place}:' in reason


def test_a_placeholder_without_its_end_is_refused_as_well() -> None:
    assert refusal({"handler": "a", "params": {"b": "${aws:iot:oops"}})[0] is Code.DOCUMENT_PLACEHOLDER


@pytest.mark.parametrize("text", ["${aws:s3:x}", "$ {aws:iot:x}", "aws:iot:x", "${HOME}"])
def test_other_text_in_braces_is_none_of_our_business(text: str) -> None:
    assert route({"handler": "a", "params": {"b": text}}, FakeDevice()) == Asked("a", {"b": text})


def test_a_very_deep_document_is_read_to_its_bottom() -> None:
    deep: Any = LITERAL
    for _ in range(5000):
        deep = [deep]

    assert refusal({"handler": "a", "params": {"b": deep}})[0] is Code.DOCUMENT_PLACEHOLDER


# --- Properties -------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from(
    ["mine.sh", "reboot.sh", "install-packages.sh", "vim", "-y", "a,b", "runHandler", "runCommand", "1.0", "default"]
)


def maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything."""
    return value | value | value | json_values


actions = st.fixed_dictionaries(
    {
        "name": maybe(words | st.text(min_size=1)),
        "type": maybe(st.sampled_from(["runHandler", "runCommand"])),
        "input": maybe(
            st.fixed_dictionaries(
                {"handler": maybe(words), "command": maybe(words | st.text())},
                optional={"args": maybe(st.lists(words | st.text())), "path": maybe(words)},
            )
        ),
    },
    optional={"runAsUser": maybe(st.just("")), "allowStdErr": json_values, "ignoreStepFailure": json_values},
)
almost_documents = st.one_of(
    st.fixed_dictionaries(
        {"version": maybe(st.just("1.0")), "steps": maybe(st.lists(st.fixed_dictionaries({"action": maybe(actions)})))},
        optional={"finalStep": json_values, "conditions": json_values, "includeStdOut": json_values},
    ),
    st.fixed_dictionaries({"handler": maybe(words)}, optional={"params": json_values, "mode": json_values}),
    st.fixed_dictionaries({"operation": maybe(words)}, optional={"args": json_values, "path": maybe(words)}),
)


def routed(what: object) -> Asked | DocumentError:
    try:
        return route(what, FakeDevice())
    except DocumentError as error:
        return error


@given(json_values | almost_documents)
@example({"operation": "mine", "allowStdErr": float("inf")})
@example({"operation": "mine", "allowStdErr": float("nan")})
def test_any_json_either_routes_or_is_refused_with_a_code_and_a_reason(what: object) -> None:
    outcome = routed(what)

    if isinstance(outcome, DocumentError):
        assert outcome.code in Code
        assert outcome.reason
    else:
        assert outcome.handler
        assert isinstance(outcome.params, dict)


@given(almost_documents)
def test_a_plan_holds_nothing_but_what_can_be_carried_out(what: dict[str, Any]) -> None:
    outcome = routed(what)

    if isinstance(outcome, Asked) and outcome.handler == "aws-steps":
        for step in outcome.params["steps"]:
            assert step["name"].isprintable()
            assert step["kind"] == "reboot" or step["argv"]
            assert all("\0" not in word and word.encode() is not None for word in step["argv"])
            assert step["kind"] != "install-packages" or not any(word.startswith("-") for word in step["argv"])
