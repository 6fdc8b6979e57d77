"""A document is held against this device: which handler, as whom, in which version; or why not."""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thingjobs.config.settings import Config, Connection, Handlers, Jobs, Thing
from thingjobs.errors import DocumentError, HandlerError
from thingjobs.judging import Judge, ThisDevice, account, effective_user, fits, may_be_root, missing_user
from thingjobs.model import Code, Limits, Plan, Resources, Result, Status, ThingName, Verb
from thingjobs.registry import Handler, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

FIRMWARE = Handler(
    "firmware",
    "acme-firmware 2.3.1",
    ("/usr/bin/python3", "-m", "acme"),
    "sha256:abc",
    "2.3.1",
    frozenset({Verb.APPLY, Verb.CHECK}),
    Limits(apply=5),
    apply_rerun=True,
    cancel_apply=True,
    observe=True,
    max_defer=600,
    keeps_daemons=True,
    resumes_across_versions=True,
    resources=Resources(memory=1 << 26),
    params={"type": "object", "properties": {"slot": {"enum": ["a", "b"]}}, "additionalProperties": False},
)
FEW = settings(max_examples=settings().max_examples // 2, deadline=None)


class Shelf(Registry):
    """A registry that holds what the test put there."""

    def __init__(self, *handlers: Handler) -> None:
        super().__init__(())
        self._handlers = {handler.name: handler for handler in handlers}

    def has(self, name: str) -> bool:
        return name in self._handlers

    def get(self, name: str) -> Handler:
        if name not in self._handlers:
            raise HandlerError(Code.HANDLER_UNKNOWN, f"there is no handler {name}")
        return self._handlers[name]


def config(**handlers: Any) -> Config:
    return Config(Thing(ThingName("pump-7")), Connection(""), handlers=Handlers(**handlers), facts={"site": "dock-7"})


def judge(document: object, *shelf: Handler, **handlers: Any) -> Plan | Result:
    return Judge(config(**handlers), Shelf(*(shelf or (FIRMWARE,)))).judge(document)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this machine one on which the agent is root or not, has sudo or not, and has these accounts."""

    def be(
        *, uid: int = 0, users: tuple[str, ...] = ("root", "thingjobs", "agent", "operator"), sudo: bool = False
    ) -> None:
        numbers = {"root": 0, "agent": 1000}

        def entry(name: str) -> pwd.struct_passwd:
            return pwd.struct_passwd((name, "x", numbers.get(name, 5000), 5000, "", "/", "/bin/sh"))

        def by_name(name: str) -> pwd.struct_passwd:
            if name not in users:
                raise KeyError(name)
            return entry(name)

        def by_number(number: int) -> pwd.struct_passwd:
            return entry({number: name for name, number in numbers.items()}[number])

        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(pwd, "getpwnam", by_name)
        monkeypatch.setattr(pwd, "getpwuid", by_number)
        monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sudo" if sudo else None)

    be(uid=1000)
    return be


# --- versions -----------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.integers(0, 12) | st.integers(0, 10**18 - 1), min_size=1, max_size=4)
OPERATORS = ("==", "!=", "<", "<=", ">", ">=")


def dotted(numbers: list[int]) -> str:
    return ".".join(map(str, numbers))


def order(left: list[int], right: list[int]) -> int:
    """Return which of two versions is later, number by number, as a person would."""
    for a, b in zip([*left, 0, 0, 0, 0], [*right, *([0] * len(left)), 0, 0, 0, 0], strict=False):
        if a != b:
            return -1 if a < b else 1
    return 0


@given(NUMBERS, NUMBERS)
@FEW
def test_a_comparison_holds_as_the_numbers_do(found: list[int], wanted: list[int]) -> None:
    later = order(found, wanted)
    expected = {"==": later == 0, "!=": later != 0, "<": later < 0, "<=": later <= 0, ">": later > 0, ">=": later >= 0}

    assert {sign: fits(dotted(found), f"{sign}{dotted(wanted)}") for sign in OPERATORS} == expected


@given(NUMBERS, st.lists(st.tuples(st.sampled_from(OPERATORS), NUMBERS), min_size=1, max_size=3))
@FEW
def test_comparisons_joined_by_commas_all_have_to_hold(found: list[int], parts: list[tuple[str, list[int]]]) -> None:
    each = [f"{sign}{dotted(wanted)}" for sign, wanted in parts]

    assert fits(dotted(found), ",".join(each)) is all(fits(dotted(found), one) for one in each)


@given(NUMBERS, st.sampled_from(OPERATORS), NUMBERS, st.text(" \t\n", max_size=2))
@FEW
def test_space_around_the_parts_means_nothing(found: list[int], sign: str, wanted: list[int], space: str) -> None:
    plain = f"{sign}{dotted(wanted)}"

    assert fits(dotted(found), f"{space}{sign}{space}{dotted(wanted)}{space}") is fits(dotted(found), plain)


@given(NUMBERS, st.integers(0, 3))
@FEW
def test_a_bare_version_is_that_one_and_zeros_at_its_end_mean_nothing(found: list[int], zeros: int) -> None:
    assert fits(dotted(found), dotted([*found, *([0] * zeros)]))


@pytest.mark.parametrize(
    "version", ["2.3.1", "2.3.1.", "2.3.1rc1", "2.3.1-dirty", "2.3.1.post2", "2.3.1..2", "2.3.1+build.9"]
)
def test_what_follows_the_numbers_of_a_version_means_nothing(version: str) -> None:
    assert fits(version, "==2.3.1")


@pytest.mark.parametrize("version", ["", "dev", "v2.0", "1" * 19, "1." + "2" * 5000])
@pytest.mark.parametrize("constraint", ["==1", "!=1", "<1", ">=0"])
def test_a_version_that_cannot_be_read_fits_nothing(version: str, constraint: str) -> None:
    assert not fits(version, constraint)


@given(st.text(max_size=20), st.text("0123456789.,<>=! ~^*x²\u0663", max_size=12))
@example("1", "1" * 5000)
@example("1" * 5000, ">=1")
@FEW
def test_any_two_texts_fit_or_do_not_or_the_document_is_invalid(version: str, constraint: str) -> None:
    try:
        found: bool | Code = fits(version, constraint)
    except DocumentError as refusal:
        found = refusal.code
    assert found in (True, False, Code.DOCUMENT_INVALID)


@pytest.mark.parametrize(
    "constraint", ["", ",", ">=1,", "1,,2", "~=1", "^1", "*", "1.*", ">= =1", "=1", "1.", ".1", "1..2", "v1", "²", "٣"]
)
@pytest.mark.parametrize("version", ["1.0", ""])
def test_what_is_no_constraint_is_refused_whatever_the_version_is(constraint: str, version: str) -> None:
    with pytest.raises(DocumentError) as refused:
        fits(version, constraint)

    assert refused.value.code is Code.DOCUMENT_INVALID


def test_a_part_that_is_wrong_is_refused_even_behind_one_that_does_not_hold() -> None:
    with pytest.raises(DocumentError):
        fits("1", ">2,nonsense")


# --- a plan, or why not -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("machine")
def test_a_plan_holds_what_the_handler_declares_and_the_document_asks() -> None:
    plan = judge({"handler": "firmware", "params": {"slot": "b"}, "version": ">=2,<3"})

    assert plan == Plan(
        handler="firmware",
        argv=FIRMWARE.argv,
        verbs=FIRMWARE.verbs,
        digest="sha256:abc",
        version="2.3.1",
        params={"slot": "b"},
        user=None,
        limits=FIRMWARE.limits,
        apply_rerun=True,
        cancel_apply=True,
        observe=True,
        max_defer=600,
        keeps_daemons=True,
        resumes_across_versions=True,
        resources=Resources(memory=1 << 26),
    )


@pytest.mark.usefixtures("machine")
def test_a_document_may_only_ask() -> None:
    plan = judge({"handler": "firmware", "mode": "check"})

    assert isinstance(plan, Plan)
    assert plan.check_only


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("document", "handlers", "code"),
    [
        (None, {}, Code.DOCUMENT_INVALID),
        ([], {}, Code.DOCUMENT_INVALID),
        ({}, {}, Code.DOCUMENT_UNKNOWN),
        ({"handler": 5}, {}, Code.DOCUMENT_INVALID),
        ({"handler": "aws-steps"}, {}, Code.DOCUMENT_INVALID),
        ({"handler": "other"}, {}, Code.HANDLER_UNKNOWN),
        ({"handler": "firmware"}, {"allow": ()}, Code.HANDLER_FORBIDDEN),
        ({"handler": "firmware"}, {"allow": ("firm", "Firmware")}, Code.HANDLER_FORBIDDEN),
        # What is not allowed is not even looked for.
        ({"handler": "other"}, {"allow": ("firmware",)}, Code.HANDLER_FORBIDDEN),
        ({"handler": "firmware", "version": ">=3"}, {}, Code.HANDLER_VERSION),
        ({"handler": "firmware", "version": "newest"}, {}, Code.DOCUMENT_INVALID),
        ({"handler": "firmware", "version": "9" * 5000}, {}, Code.DOCUMENT_INVALID),
        ({"handler": "firmware", "params": {"slot": "c"}}, {}, Code.PARAMS_INVALID),
        ({"handler": "firmware", "params": {"slott": "a"}}, {}, Code.PARAMS_INVALID),
    ],
)
def test_a_document_that_this_device_cannot_take_is_rejected_with_its_code(
    document: object, handlers: dict[str, Any], code: Code
) -> None:
    refused = judge(document, **handlers)

    assert isinstance(refused, Result)
    assert (refused.status, refused.code) == (Status.REJECTED, code)
    assert refused.reason


@pytest.mark.usefixtures("machine")
def test_a_handler_without_a_version_fits_only_documents_that_want_none() -> None:
    bare = Handler("firmware", "/h/firmware", ("/h/firmware",), "sha256:abc")

    assert isinstance(judge({"handler": "firmware"}, bare), Plan)
    refused = judge({"handler": "firmware", "version": ">=0"}, bare)
    assert isinstance(refused, Result)
    assert refused.code is Code.HANDLER_VERSION


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("pattern", ["*", "firmware", "f*", "[a-g]*"])
def test_an_operator_allows_handlers_by_pattern(pattern: str) -> None:
    assert isinstance(judge({"handler": "firmware"}, allow=(pattern,)), Plan)


@pytest.mark.usefixtures("machine")
def test_params_that_do_not_fit_are_refused_with_the_place_and_without_what_they_hold() -> None:
    refused = judge({"handler": "firmware", "params": {"slot": "https://x/y?X-Amz-Signature=secret"}})

    assert isinstance(refused, Result)
    assert refused.reason == 'params.slot must be "a" or "b"'


@pytest.mark.usefixtures("machine")
def test_a_handler_without_a_schema_takes_any_params() -> None:
    plan = judge({"handler": "firmware", "params": {"any": ["thing"]}}, replace(FIRMWARE, params=None))

    assert isinstance(plan, Plan)


@pytest.mark.usefixtures("machine")
def test_a_handler_that_needs_what_this_agent_has_not_is_refused() -> None:
    refused = judge({"handler": "firmware"}, replace(FIRMWARE, needs=frozenset({"cloud", "the-moon"})))

    assert isinstance(refused, Result)
    assert (refused.status, refused.code) == (Status.REJECTED, Code.HANDLER_BROKEN)
    assert "firmware needs the-moon, which" in refused.reason


@pytest.mark.usefixtures("machine")
def test_a_handler_gets_the_cloud_only_if_it_comes_with_the_agent_or_the_operator_lists_it() -> None:
    needs = frozenset({"cloud"})
    refused = judge({"handler": "firmware"}, replace(FIRMWARE, needs=needs))
    built_in = judge({"handler": "batch-job"}, replace(FIRMWARE, name="batch-job", needs=needs))

    assert isinstance(refused, Result)
    assert (refused.status, refused.code) == (Status.REJECTED, Code.HANDLER_FORBIDDEN)
    assert refused.reason == (
        "handler firmware needs AWS credentials, and is not listed in [cloud] handlers on this device"
    )
    assert isinstance(built_in, Plan)
    assert built_in.needs == needs


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("minutes", "own", "both"), [(0, None, None), (0, 600, 600), (5, None, 300), (5, 600, 300), (50, 600, 600)]
)
def test_a_claim_is_put_off_for_the_shorter_of_what_handler_and_operator_say(
    minutes: int, own: float | None, both: float | None
) -> None:
    told = replace(config(), jobs=Jobs(max_defer_minutes=minutes))

    plan = Judge(told, Shelf(replace(FIRMWARE, max_defer=own))).judge({"handler": "firmware"})

    assert isinstance(plan, Plan)
    assert plan.max_defer == both


# --- as whom ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "allow_root", "user"),
    [
        (0, (), "thingjobs"),
        (0, ("other",), "thingjobs"),
        (0, ("firm",), "thingjobs"),
        (0, ("firmware",), None),
        (0, ("firm*",), None),
        (1000, (), None),
        (1000, ("firmware",), None),
    ],
)
def test_a_handler_is_root_only_where_the_agent_is_and_the_operator_says_so(
    machine: Callable[..., None], uid: int, allow_root: tuple[str, ...], user: str | None
) -> None:
    machine(uid=uid)

    plan = judge({"handler": "firmware"}, allow_root=allow_root)

    assert isinstance(plan, Plan)
    assert plan.user == user
    assert account(config(allow_root=allow_root), "firmware") == user
    assert effective_user(config(allow_root=allow_root), "firmware") == (user or {0: "root", 1000: "agent"}[uid])


def test_the_account_for_handlers_has_to_exist(machine: Callable[..., None]) -> None:
    machine(uid=0, users=("root",))

    refused = judge({"handler": "firmware"})

    assert isinstance(refused, Result)
    assert refused.code is Code.USER_UNKNOWN
    assert "thingjobs" in refused.reason
    assert isinstance(judge({"handler": "firmware"}, allow_root=("firmware",)), Plan)


def test_root_under_another_name_is_root(machine: Callable[..., None]) -> None:
    machine(uid=0)

    refused = judge({"handler": "firmware"}, user="root")

    assert isinstance(refused, Result)
    assert refused.code is Code.USER_FORBIDDEN


@pytest.mark.parametrize(
    ("uid", "wish", "handlers", "found"),
    [
        (0, "operator", {"run_as": ("operator",)}, "operator"),
        (0, "operator", {"run_as": ("operator",), "allow_root": ("*",)}, "operator"),
        (0, "operator", {"user": "operator"}, "operator"),
        (0, "operator", {}, Code.USER_FORBIDDEN),
        (0, "operator", {"allow_root": ("*",)}, Code.USER_FORBIDDEN),
        (0, "thingjobs", {"allow_root": ("*",)}, "thingjobs"),
        (0, "stranger", {"run_as": ("stranger",)}, Code.USER_UNKNOWN),
        (0, "root", {}, Code.USER_FORBIDDEN),
        (0, "root", {"run_as": ("root",)}, Code.USER_FORBIDDEN),
        (0, "root", {"allow_root": ("firmware",)}, None),
        (1000, "agent", {}, None),
        (1000, "operator", {"run_as": ("operator",)}, Code.USER_FORBIDDEN),
        (1000, "root", {"allow_root": ("*",)}, Code.USER_FORBIDDEN),
        (1000, "stranger", {}, Code.USER_UNKNOWN),
    ],
)
def test_whom_a_handler_wishes_to_be_is_for_the_local_policy_to_say(
    machine: Callable[..., None], uid: int, wish: str, handlers: dict[str, Any], found: str | Code | None
) -> None:
    machine(uid=uid)

    said = judge({"handler": "firmware"}, replace(FIRMWARE, user=wish), **handlers)

    if isinstance(said, Plan):
        assert said.user == found
    else:
        assert said.code is found
        assert wish in said.reason


def test_an_agent_whose_number_has_no_name_still_judges(machine: Callable[..., None]) -> None:
    machine(uid=4711)

    assert effective_user(config(), "firmware") == "4711"
    assert isinstance(judge({"handler": "firmware"}), Plan)


def code_for(user: str, **handlers: Any) -> Code | None:
    """Return why a document may not name `user`, None if it may."""
    try:
        ThisDevice(config(**handlers), Shelf()).check_user(user)
    except DocumentError as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize(
    ("uid", "listed", "may_root", "sudo"), [*product((0, 1000), (False, True), (False, True), (False, True))]
)
def test_a_document_names_another_user_only_if_listed_and_the_agent_can_become_it(
    machine: Callable[..., None], uid: int, listed: bool, may_root: bool, sudo: bool
) -> None:
    machine(uid=uid, sudo=sudo)
    handlers = {"run_as": ("operator",) if listed else (), "allow_root": ("aws-steps",) if may_root else ()}

    able = may_root if uid == 0 else sudo
    assert code_for("operator", **handlers) is (None if listed and able else Code.USER_FORBIDDEN)


@pytest.mark.parametrize(("uid", "allow_root", "own"), [(0, (), "thingjobs"), (0, ("*",), "root"), (1000, (), "agent")])
def test_the_user_that_the_steps_run_as_anyway_may_be_named(
    machine: Callable[..., None], uid: int, allow_root: tuple[str, ...], own: str
) -> None:
    machine(uid=uid)

    assert code_for(own, allow_root=allow_root) is None
    assert {code_for(other, allow_root=allow_root) for other in {"root", "thingjobs", "agent"} - {own}} == {
        Code.USER_FORBIDDEN
    }


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("listed", [False, True])
def test_a_user_that_is_not_there_is_unknown_even_if_listed(
    machine: Callable[..., None], uid: int, listed: bool
) -> None:
    machine(uid=uid, sudo=True)

    assert code_for("stranger", run_as=("stranger",) if listed else ()) is Code.USER_UNKNOWN


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 100_000, "../root", "0", "ä"])
def test_a_name_that_no_account_can_have_is_unknown(name: str) -> None:
    assert code_for(name) is Code.USER_UNKNOWN


def test_listing_a_user_takes_no_patterns(machine: Callable[..., None]) -> None:
    machine(uid=1000, sudo=True)

    assert code_for("operator", run_as=("*",)) is Code.USER_FORBIDDEN


@pytest.mark.parametrize(("patterns", "root"), [((), False), (("a",), False), (("*",), True), (("x", "aws-*"), True)])
def test_root_is_given_by_pattern(patterns: tuple[str, ...], root: bool) -> None:
    assert may_be_root(config(allow_root=patterns), "aws-steps") is root


# --- what is known of the device ----------------------------------------------------------------------------------


def test_the_operators_facts_stand_beside_the_agents_own_and_replace_them() -> None:
    device = ThisDevice(config(), Shelf())
    assert device.facts["thingName"] == "pump-7"
    assert device.facts["site"] == "dock-7"
    assert device.facts["operatingSystem"]
    assert device.facts["architecture"]

    told = Config(Thing(ThingName("pump-7")), Connection(""), facts={"architecture": "mill"})
    assert ThisDevice(told, Shelf()).facts["architecture"] == "mill"


def test_a_device_knows_its_handlers_by_name() -> None:
    device = ThisDevice(config(), Shelf(FIRMWARE))

    assert device.has_handler("firmware")
    assert not device.has_handler("Firmware")


def test_a_user_for_handlers_that_does_not_exist_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert "useradd --system nobody-here" in missing_user(config(user="nobody-here"))
    assert missing_user(config(user="root")) == ""
    assert missing_user(config(user=None)) == ""


def test_a_document_that_is_no_object_is_refused_without_guessing_what_it_was() -> None:
    found = judge(None)

    assert isinstance(found, Result)
    assert found.reason == "the job document must be a JSON object"
