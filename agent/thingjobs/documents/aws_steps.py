"""AWS documents: steps, and the older single operation, made into a plan for the handler `aws-steps`.

The documented meaning is kept, not the slips of the AWS IoT Device Client: flags may be booleans or strings,
a missing `input` and a step without `action` are refused, conditions are judged, and `allowStdErr` is wanted
beside exit status 0, not instead of it.

The plan is JSON: `includeStdOut` and `steps`, a list of objects with `name`, `kind`, `argv`, `user`,
`ignoreStepFailure`, `allowStdErr` and `final`. Every name, user, path and script in it was judged already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.documents.asked import AWS_STEPS, Asked, Device
from thingjobs.documents.command import split
from thingjobs.documents.conditions import judge
from thingjobs.documents.native import nameable
from thingjobs.documents.placeholders import given, refuse_placeholders
from thingjobs.documents.reference import BUILT_INS, REBOOT
from thingjobs.documents.shape import check_shape, invalid, shown
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.model import Json

_OPTIONAL = re.compile(r"(steps\[\d+\]|finalStep)\.action\.(runAsUser|input\.path)")
_OPTIONAL_OF_OPERATION = re.compile("path")


@dataclass(frozen=True, slots=True)
class _Work:
    kind: str
    argv: Sequence[str]
    user: str | None = None


def read_steps(document: Json, device: Device) -> Asked:
    """Read a document with steps.

    Raises:
        DocumentError: it is not one, or not for this device.
    """
    refuse_placeholders(document, optional=_OPTIONAL)
    check_shape(document, "document-aws-steps")
    judge(document.get("conditions", []), device)
    steps = [_step(f"steps[{index}].action", entry["action"], device) for index, entry in enumerate(document["steps"])]
    if "finalStep" in document:
        steps.append(_step("finalStep.action", document["finalStep"]["action"], device) | {"final": True})
    return _asked(document, steps)


def read_operation(document: Json, device: Device) -> Asked:
    """Read a document with an operation: a handler's name, else a script's.

    To a handler go all other keys, except comments, which start with `_`.

    Raises:
        DocumentError: it is not one, or there is neither.
    """
    operation = document["operation"]
    if isinstance(operation, str) and device.has_handler(operation):
        refuse_placeholders(document)
        params = {key: value for key, value in document.items() if key != "operation" and key[:1] != "_"}
        return Asked(nameable(operation), params)
    refuse_placeholders(document, optional=_OPTIONAL_OF_OPERATION)
    check_shape(document, "document-operation")
    _check_file_name("operation", operation)
    _check_folder("path", document.get("path"), device)
    for name in (operation, f"{operation}.sh"):
        # The scripts of this schema get their arguments alone, without a user in front.
        work = _handler("args", name, document.get("args", []), [], None, device)
        if work is not None:
            return _asked(document, [_planned(operation, work, document)])
    raise DocumentError(
        Code.HANDLER_UNKNOWN,
        f"there is no handler {shown(operation)} on this device, "
        f"and no executable script of that name in {device.scripts_shown}",
    )


def _asked(document: Json, steps: list[Json]) -> Asked:
    return Asked(AWS_STEPS, {"includeStdOut": _flag(document.get("includeStdOut")), "steps": steps})


def _step(place: str, action: Json, device: Device) -> Json:
    user = given(action.get("runAsUser"))
    if user is not None:
        if not user.isprintable():
            raise invalid(f"{place}.runAsUser has characters that no account's name has")
        device.check_user(user)
    if action["type"] == "runCommand":
        argv = split(f"{place}.input.command", action["input"]["command"])
        work = _Work("run", _passable(f"{place}.input.command", argv), user)
    else:
        work = _run_handler(f"{place}.input", action["input"], user, device)
    return _planned(action["name"], work, action)


def _run_handler(place: str, asked: Json, user: str | None, device: Device) -> _Work:
    name = asked["handler"]
    _check_file_name(f"{place}.handler", name)
    _check_folder(f"{place}.path", asked.get("path"), device)
    # Scripts for the AWS IoT Device Client expect the user, maybe empty, in front and change to it alone.
    work = _handler(f"{place}.args", name, asked.get("args", []), [user or ""], user, device)
    if work is None:
        raise DocumentError(
            Code.HANDLER_UNKNOWN,
            f"{place}.handler: there is no executable script {shown(name)} in {device.scripts_shown}, "
            f"and it is not built in, as {REBOOT}, {', '.join(BUILT_INS)} are",
        )
    return work


def _handler(
    place: str, name: str, args: Sequence[str], before: Sequence[str], user: str | None, device: Device
) -> _Work | None:
    """Find who carries out a script's name: reboots are ours, then the operator's script, then a built-in."""
    _passable(place, args)
    if name == REBOOT:
        return _Work("reboot", [])
    path = device.script(name)
    if path is not None:
        return _Work("run", [path, *before, *args])
    if name in BUILT_INS:
        kind, clean = BUILT_INS[name]
        return _Work(kind, clean(place, args), user)
    return None


def _planned(name: str, work: _Work, action: Json) -> Json:
    limit = action.get("allowStdErr")
    return {
        "name": "".join(letter if letter.isprintable() else " " for letter in name),
        "kind": work.kind,
        "argv": list(work.argv),
        "user": work.user,
        "ignoreStepFailure": _flag(action.get("ignoreStepFailure")),
        "allowStdErr": None if limit is None else int(limit),
        "final": False,
    }


def _flag(value: bool | str | None) -> bool:  # noqa: FBT001 - the documents of AWS have both
    return str(value).lower() == "true"


def _check_file_name(place: str, name: str) -> None:
    if "/" in name or ".." in name or name == "." or not name.isprintable():
        raise invalid(f"{place} must be a plain file name, without / and .., not {shown(name)}")


def _check_folder(place: str, path: str | None, device: Device) -> None:
    wanted = given(path)
    if wanted not in (None, "default") and wanted.rstrip("/") != device.scripts_shown.rstrip("/"):
        raise invalid(
            f"{place} is {shown(wanted)}, but scripts run from {device.scripts_shown} only: "
            "leave it out, or change scripts in [handlers] of the configuration"
        )


def _passable(place: str, argv: Sequence[str]) -> Sequence[str]:
    """Refuse what no program can be given: a NUL, and half a character (a lone surrogate)."""
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for text in argv for letter in text):
        raise invalid(f"{place} has a character that no program can be given")
    return argv
