"""`documents`: AWS documents with steps, from the managed templates to what must be refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.documents import Asked, route
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPTS = "/etc/thingjobs/scripts"
FACTS = {"operatingSystem": "debian", "architecture": "aarch64", "thingName": "pump-7", "site": "north"}


@dataclass
class FakeDevice:
    """A device with the scripts, and the accounts `app` and `root`, of which documents may name `app`."""

    scripts: tuple[str, ...] = ()
    thing: str = "pump-7"
    facts: Mapping[str, str] = field(default_factory=lambda: FACTS)
    scripts_shown: str = SCRIPTS
    asked_users: list[str] = field(default_factory=list)

    def has_handler(self, name: str) -> bool:
        return name == "firmware"

    def script(self, name: str) -> str | None:
        return f"{SCRIPTS}/{name}" if name in self.scripts else None

    def check_user(self, user: str) -> None:
        self.asked_users.append(user)
        if user == "root":
            raise DocumentError(Code.USER_FORBIDDEN, "documents may not name root")
        if user != "app":
            raise DocumentError(Code.USER_UNKNOWN, f"there is no user {user}")


def document(*actions: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"version": "1.0", "steps": [{"action": action} for action in actions], **rest}


def command(text: str = "true", **rest: Any) -> dict[str, Any]:
    return {"name": "Run", "type": "runCommand", "input": {"command": text}, **rest}


def script(name: str, *args: str, path: str | None = None, **rest: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"handler": name, "args": list(args)}
    if path is not None:
        asked["path"] = path
    return {"name": "Do", "type": "runHandler", "input": asked, **rest}


def planned(name: str, kind: str, argv: list[str], user: str | None = None, **rest: Any) -> dict[str, Any]:
    plain = {"ignoreStepFailure": False, "allowStdErr": None, "final": False}
    return {"name": name, "kind": kind, "argv": argv, "user": user, **plain, **rest}


def steps(asked: Asked) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked.params["steps"]
    return found


def refusal(what: object, device: FakeDevice | None = None) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        route(what, device or FakeDevice())
    return caught.value


# --- The managed templates --------------------------------------------------------------------------------

URL = "https://b.s3.eu-west-1.amazonaws.com/fw%20a.bin?X-Amz-Signature=00"


def managed(name: str, handler: str, *args: str) -> dict[str, Any]:
    """A document as the managed templates have it, with the parameters in their places."""
    return {
        "version": "1.0",
        "steps": [
            {
                "action": {
                    "name": name,
                    "type": "runHandler",
                    "input": {
                        "handler": handler,
                        **({"args": list(args)} if args else {}),
                        "path": "${aws:iot:parameter:pathToHandler}",
                    },
                    "runAsUser": "${aws:iot:parameter:runAsUser}",
                }
            }
        ],
    }


MANAGED_RUN_COMMAND = {
    "version": "1.0",
    "steps": [
        {
            "action": {
                "name": "Run-Command",
                "type": "runCommand",
                "input": {"command": "systemctl,is-active,cron"},
                "runAsUser": "${aws:iot:parameter:runAsUser}",
            }
        }
    ],
}

TEMPLATES = [
    (managed("Reboot", "reboot.sh"), "reboot", []),
    (managed("Download-File", "download-file.sh", URL, "/opt/fw.bin"), "download-file", [URL, "/opt/fw.bin"]),
    (managed("Install-Application", "install-packages.sh", "vim  curl"), "install-packages", ["vim", "curl"]),
    (managed("Remove-Application", "remove-packages.sh", "vim"), "remove-packages", ["vim"]),
    (managed("Start-Application", "start-services.sh", "a b.service"), "start-services", ["a", "b.service"]),
    (managed("Stop-Application", "stop-services.sh", "getty@tty1"), "stop-services", ["getty@tty1"]),
    (managed("Restart-Application", "restart-services.sh", " cron "), "restart-services", ["cron"]),
    (MANAGED_RUN_COMMAND, "run", ["systemctl", "is-active", "cron"]),
]


def with_optional(what: dict[str, Any], user: str | None, path: str | None) -> dict[str, Any]:
    """The document with its two optional parameters given, empty (""), or left out (None)."""
    action = dict(what["steps"][0]["action"])
    asked = dict(action["input"])
    for part, key, value in ((action, "runAsUser", user), (asked, "path", path)):
        part.pop(key, None)
        if value is not None:
            part[key] = value
    return document(action | {"input": asked})


@pytest.mark.parametrize(("what", "kind", "argv"), TEMPLATES)
def test_the_managed_templates_become_our_own_built_ins(what: dict[str, Any], kind: str, argv: list[str]) -> None:
    asked = route(what, FakeDevice())

    name = what["steps"][0]["action"]["name"]
    assert asked == Asked("aws-steps", {"includeStdOut": False, "steps": [planned(name, kind, argv)]})


@pytest.mark.parametrize(("what", "kind", "argv"), TEMPLATES)
@pytest.mark.parametrize("path", [None, "", "default", "${aws:iot:parameter:pathToHandler}", SCRIPTS])
@pytest.mark.parametrize("user", [None, "", "${aws:iot:parameter:runAsUser}"])
def test_optional_parameters_not_given_make_no_difference(
    what: dict[str, Any], kind: str, argv: list[str], path: str | None, user: str | None
) -> None:
    device = FakeDevice()

    asked = route(with_optional(what, user, path), device)

    assert steps(asked) == steps(route(what, FakeDevice()))
    assert device.asked_users == []


@pytest.mark.parametrize(("what", "kind", "argv"), TEMPLATES[1:])
def test_built_ins_and_commands_run_as_the_user_that_was_named(
    what: dict[str, Any], kind: str, argv: list[str]
) -> None:
    asked = route(with_optional(what, "app", None), FakeDevice())

    assert [(step["argv"], step["user"]) for step in steps(asked)] == [(argv, "app")]


def test_the_operators_script_takes_the_place_of_a_built_in() -> None:
    device = FakeDevice(scripts=("install-packages.sh",))

    asked = route(managed("Install-Application", "install-packages.sh", "vim -y"), device)

    argv = [f"{SCRIPTS}/install-packages.sh", "", "vim -y"]
    assert steps(asked) == [planned("Install-Application", "run", argv)]


def test_a_reboot_is_ours_even_if_there_is_a_script_for_it() -> None:
    asked = route(managed("Reboot", "reboot.sh", "--force"), FakeDevice(scripts=("reboot.sh",)))

    assert steps(asked) == [planned("Reboot", "reboot", [])]


# --- What a document may say ------------------------------------------------------------------------------


def test_a_script_gets_the_user_in_front_and_changes_to_it_itself() -> None:
    device = FakeDevice(scripts=("backup.sh",))

    asked = route(document(script("backup.sh", "", "a b", runAsUser="app")), device)

    assert steps(asked) == [planned("Do", "run", [f"{SCRIPTS}/backup.sh", "app", "", "a b"])]
    assert device.asked_users == ["app"]


def test_steps_keep_their_order_and_the_final_step_is_the_last() -> None:
    what = document(command("one"), command("two"), finalStep={"action": command("three")})

    asked = route(what, FakeDevice())

    assert [(step["argv"], step["final"]) for step in steps(asked)] == [
        (["one"], False),
        (["two"], False),
        (["three"], True),
    ]


@pytest.mark.parametrize(
    ("flag", "meant"), [(True, True), (False, False), ("true", True), ("TRUE", True), ("fAlse", False)]
)
def test_flags_are_booleans_or_words(flag: bool | str, meant: bool) -> None:
    asked = route(document(command(ignoreStepFailure=flag), includeStdOut=flag), FakeDevice())

    assert asked.params["includeStdOut"] is meant
    assert steps(asked)[0]["ignoreStepFailure"] is meant


@pytest.mark.parametrize(("limit", "meant"), [(0, 0), (7, 7), (2.0, 2)])
def test_a_limit_of_lines_on_stderr_is_kept_as_a_whole_number(limit: float, meant: int) -> None:
    found = steps(route(document(command(allowStdErr=limit)), FakeDevice()))[0]["allowStdErr"]

    assert found == meant
    assert type(found) is int


def test_unknown_keys_are_comments() -> None:
    what = document(command(_comment="x", colour=3), _comment=["y"], more={})
    what["steps"][0]["note"] = None

    assert steps(route(what, FakeDevice())) == [planned("Run", "run", ["true"])]


def test_names_lose_what_cannot_be_shown() -> None:
    asked = route(document(command() | {"name": "a\nb\x1b[2J\ud800é"}), FakeDevice())

    assert steps(asked)[0]["name"] == "a b [2J é"


def test_routing_leaves_the_document_as_it_was() -> None:
    what = managed("Install-Application", "install-packages.sh", "vim")
    before = repr(what)

    route(what, FakeDevice())

    assert repr(what) == before


# --- Conditions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conditions",
    [
        [],
        [{"key": "operatingSystem", "value": ["debian"]}],
        [{"key": "operatingSystem", "value": ["ubuntu", "debian"], "type": "stringEqual"}],
        [{"key": "thingName", "value": ["pump-7"]}, {"key": "site", "value": ["south", "north"]}],
    ],
)
def test_conditions_that_all_hold_let_the_document_pass(conditions: list[dict[str, Any]]) -> None:
    assert steps(route(document(command(), conditions=conditions), FakeDevice()))


@pytest.mark.parametrize(
    ("conditions", "code", "reason"),
    [
        (
            [{"key": "architecture", "value": ["x86_64", "armv7l"]}],
            Code.CONDITION_FALSE,
            'the document is for "architecture" "x86_64" or "armv7l"; on pump-7 it is "aarch64"',
        ),
        (
            [{"key": "site", "value": ["north"]}, {"key": "operatingSystem", "value": ["Debian"]}],
            Code.CONDITION_FALSE,
            'the document is for "operatingSystem" "Debian"; on pump-7 it is "debian"',
        ),
        (
            [{"key": "colour", "value": ["red"]}],
            Code.CONDITION_UNKNOWN,
            (
                'the condition on "colour" cannot be judged, known here are architecture, operatingSystem, site, '
                "thingName: add it to [facts] of the configuration"
            ),
        ),
        (
            [{"key": "site", "value": ["north"], "type": "stringLike"}],
            Code.CONDITION_UNKNOWN,
            'the condition on "site" has the type "stringLike"; the only one known is stringEqual',
        ),
        (
            [{"key": "site", "value": "north"}],
            Code.DOCUMENT_INVALID,
            'conditions[0].value must be a list, not "north"',
        ),
        (
            [{"key": "site", "value": []}],
            Code.DOCUMENT_INVALID,
            "conditions[0].value must not be empty",
        ),
        ([{"value": ["north"]}], Code.DOCUMENT_INVALID, "conditions[0].key is missing"),
    ],
)
def test_a_condition_that_does_not_hold_refuses_the_document(
    conditions: list[dict[str, Any]], code: Code, reason: str
) -> None:
    found = refusal(document(command(), conditions=conditions))

    assert (found.code, found.reason) == (code, reason)


def test_a_condition_is_judged_before_scripts_and_users() -> None:
    what = document(
        script("only-on-ubuntu.sh", runAsUser="nobody-here"),
        conditions=[{"key": "operatingSystem", "value": ["ubuntu"]}],
    )

    assert refusal(what).code is Code.CONDITION_FALSE


# --- What is refused --------------------------------------------------------------------------------------

ACTION = "steps[0].action"
BAD_SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"steps": [{"action": command()}]}, "version is missing"),
    (document(command()) | {"version": "1.1"}, 'version must be "1.0", not "1.1"'),
    (document(command()) | {"version": 1.0}, 'version must be "1.0", not a number'),
    ({"version": "1.0", "steps": {}}, "steps must be a list, not a JSON object"),
    (document(), "steps must not be empty"),
    (document() | {"steps": [{}]}, f"{ACTION} is missing"),
    (document() | {"steps": [{"action": command()}, {"acton": command()}]}, "steps[1].action is missing"),
    (document() | {"steps": [None]}, "steps[0] must be a JSON object, not null"),
    (document(command(), finalStep={}), "finalStep.action is missing"),
    (document({"type": "runCommand", "input": {"command": "a"}}), f"{ACTION}.name is missing"),
    (document({"name": "a", "input": {"command": "a"}}), f"{ACTION}.type is missing"),
    (document({"name": "a", "type": "runCommand"}), f"{ACTION}.input is missing"),
    (document(command() | {"name": ""}), f"{ACTION}.name must not be empty"),
    (document(command() | {"name": "n" * 257}), f"{ACTION}.name must not be longer than 256 characters"),
    (
        document(command() | {"type": "runShell"}),
        f'{ACTION}.type must be "runHandler" or "runCommand", not "runShell"',
    ),
    (document(command() | {"input": {"handler": "a"}}), f"{ACTION}.input.command is missing"),
    (document(script("a") | {"input": {"command": "a"}}), f"{ACTION}.input.handler is missing"),
    (document(command("")), f"{ACTION}.input.command must not be empty"),
    (document(script("a") | {"input": {"handler": "a", "args": "x"}}), f'{ACTION}.input.args must be a list, not "x"'),
    (
        document(script("a") | {"input": {"handler": "a", "args": ["x", 1]}}),
        f"{ACTION}.input.args[1] must be a string, not a number",
    ),
    (document(command(runAsUser=None)), f"{ACTION}.runAsUser must be a string, not null"),
    (document(command(runAsUser="u" * 257)), f"{ACTION}.runAsUser must not be longer than 256 characters"),
    (document(command(allowStdErr=True)), f"{ACTION}.allowStdErr must be a whole number, not true"),
    (document(command(allowStdErr=False)), f"{ACTION}.allowStdErr must be a whole number, not false"),
    (document(command(allowStdErr="3")), f'{ACTION}.allowStdErr must be a whole number, not "3"'),
    (document(command(allowStdErr=0.5)), f"{ACTION}.allowStdErr must be a whole number, not a number"),
    (document(command(allowStdErr=-1)), f"{ACTION}.allowStdErr must be 0 or more"),
    (document(command(ignoreStepFailure="yes")), f'{ACTION}.ignoreStepFailure must be true or false, not "yes"'),
    (document(command(ignoreStepFailure=1)), f"{ACTION}.ignoreStepFailure must be true or false, not a number"),
    (document(command(), includeStdOut="true\n"), 'includeStdOut must be true or false, not "true?"'),
    (document(command(), includeStdOut=[]), "includeStdOut must be true or false, not a list"),
    (document(command(), conditions={}), "conditions must be a list, not a JSON object"),
]


@pytest.mark.parametrize(("what", "reason"), BAD_SHAPES)
def test_a_wrong_shape_is_refused_with_the_place_of_the_mistake(what: dict[str, Any], reason: str) -> None:
    found = refusal(what)

    assert (found.code, found.reason) == (Code.DOCUMENT_INVALID, reason)


@pytest.mark.parametrize("name", ["../../bin/sh", "/bin/sh", "a/b", "..", ".", "a..b", "a\0b", "a\nb", "\ud800"])
def test_a_script_that_is_no_plain_file_name_is_refused_before_the_device_is_asked(name: str) -> None:
    class Trap(FakeDevice):
        def script(self, name: str) -> str | None:
            raise AssertionError(name)

    found = refusal(document(script(name)), Trap())

    assert found.code is Code.DOCUMENT_INVALID
    assert found.reason.startswith("steps[0].action.input.handler must be a plain file name")


def test_a_script_that_is_not_there_is_refused_and_the_built_in_ones_are_named() -> None:
    found = refusal(document(script("shutdown.sh")))

    assert found.code is Code.HANDLER_UNKNOWN
    assert '"shutdown.sh" in /etc/thingjobs/scripts' in found.reason
    assert "restart-services.sh" in found.reason


@pytest.mark.parametrize("path", ["/tmp", "scripts", SCRIPTS + "/sub", "DEFAULT", "/"])
@pytest.mark.parametrize("name", ["mine.sh", "install-packages.sh", "reboot.sh"])
def test_another_folder_of_scripts_is_refused(name: str, path: str) -> None:
    found = refusal(document(script(name, "vim", path=path)), FakeDevice(scripts=("mine.sh",)))

    assert found.code is Code.DOCUMENT_INVALID
    assert f'input.path is "{path}", but scripts run from {SCRIPTS} only' in found.reason


@pytest.mark.parametrize(
    ("user", "code"),
    [("ghost", Code.USER_UNKNOWN), ("root", Code.USER_FORBIDDEN), ("a\0b", Code.DOCUMENT_INVALID)],
)
@pytest.mark.parametrize("action", [command(), script("mine.sh"), script("reboot.sh"), script("stop-services.sh", "a")])
def test_a_user_that_may_not_be_named_refuses_the_document(action: dict[str, Any], user: str, code: Code) -> None:
    device = FakeDevice(scripts=("mine.sh",))

    assert refusal(document(action | {"runAsUser": user}), device).code is code


@pytest.mark.parametrize(
    "names",
    [
        ["-y"],
        ["vim", "--allow-unauthenticated"],
        ["vim -o=APT::Foo"],
        ["foo-"],
        ["./local.deb"],
        ["a/b"],
        ["a;b"],
        ["$(id)"],
        ["*"],
        ["^python"],
        ["@group"],
        ["päckchen"],
        ["v" * 256],
    ],
)
@pytest.mark.parametrize("handler", ["install-packages.sh", "remove-packages.sh"])
def test_what_is_no_name_of_a_package_is_refused(handler: str, names: list[str]) -> None:
    assert refusal(document(script(handler, *names))).code is Code.NAME_FORBIDDEN


@pytest.mark.parametrize("name", ["g++", "libstdc++6", "foo=1:2.0~rc1-3", "foo:armhf", "a-1.0-2.x86_64", "x@edge"])
def test_names_of_packages_may_have_versions_and_architectures(name: str) -> None:
    asked = route(document(script("install-packages.sh", name)), FakeDevice())

    assert steps(asked)[0]["argv"] == [name]


@pytest.mark.parametrize("name", ["-f", "--root=/", "/dev/sda", "a/b", "*", "ssh*", "a;b", "@x", ""])
@pytest.mark.parametrize("handler", ["start-services.sh", "stop-services.sh", "restart-services.sh"])
def test_what_is_no_name_of_a_service_is_refused(handler: str, name: str) -> None:
    code = Code.NAME_FORBIDDEN if name else Code.DOCUMENT_INVALID

    assert refusal(document(script(handler, name))).code is code


@pytest.mark.parametrize("args", [[], [""], [" ", "\t"]])
def test_a_built_in_for_names_needs_at_least_one(args: list[str]) -> None:
    found = refusal(document(script("install-packages.sh", *args)))

    assert (found.code, found.reason) == (
        Code.DOCUMENT_INVALID,
        "steps[0].action.input.args must name at least one package",
    )


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["https://a/b"],
        ["https://a/b", "/c", "/d"],
        ["file:///etc/shadow", "/c"],
        ["ftp://a/b", "/c"],
        ["https://", "/c"],
        ["https://a:99999/b", "/c"],
        ["https://[a/b", "/c"],
        ["https://a/b c", "/c"],
        ["https://a/b\nHost: c", "/c"],
        ["https://a/b", "c"],
        ["https://a/b", ""],
        ["https://a/b", "/opt/../etc/passwd"],
        ["https://a/b", "/opt/.."],
        ["https://a/b", "/opt/a\0b"],
    ],
)
def test_a_download_needs_a_web_address_and_an_absolute_path(args: list[str]) -> None:
    assert refusal(document(script("download-file.sh", *args))).code is Code.DOCUMENT_INVALID


def test_a_download_may_name_a_port_and_dots_in_the_path() -> None:
    argv = ["HTTP://h:8080/a..b?c", "/opt/a..b/.c"]

    asked = route(document(script("download-file.sh", f" {argv[0]}\n", argv[1])), FakeDevice())

    assert steps(asked) == [planned("Do", "download-file", argv)]


@pytest.mark.parametrize("text", ["a\0b", "\ud83d"])
def test_what_no_program_can_be_given_is_refused(text: str) -> None:
    device = FakeDevice(scripts=("mine.sh",))

    assert refusal(document(script("mine.sh", "x", text)), device).code is Code.DOCUMENT_INVALID
    assert refusal(document(command(f"echo,{text}")), device).code is Code.DOCUMENT_INVALID
