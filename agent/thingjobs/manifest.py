"""What a handler declares (contract version 1): `manifest.json` of an executable, or what a class says of itself.

One shape for both, published as schemas/manifest.json; a test holds the two together. All problems are told at once,
for the people who write handlers. Pure.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from thingjobs import schema
from thingjobs.handler import CONTRACT
from thingjobs.model import Limits, Resources, Verb
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.model import Json

#: What names a handler: it is part of paths and messages.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
MAX_BYTES = 2 * schema.MAX_BYTES
MAX_SECONDS = 365 * 24 * 3600
MIN_MEMORY = 1 << 20
MAX_MEMORY = 1 << 50
MAX_PROCESSES = 1_000_000
MIN_CPU, MAX_CPU = 0.01, 1024
MAX_ARGUMENTS = 64
_TIMED = (*(verb.value for verb in Verb), "reach")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: Half a character (a lone surrogate) is in no name of a file and on no terminal. The published schema does not say so:
#: in JavaScript its pattern would refuse whole ones too.
_LINE = r"[^\x00-\x1f\x7f\ud800-\udfff]"
#: Relative, and neither through `.` nor through `..`.
_PROGRAM = rf"(?!/)(?!(?:.*/)?\.{{1,2}}(?:/|$)){_LINE}{{1,255}}"
_ACCOUNT = r"[A-Za-z_][A-Za-z0-9_.@-]{0,254}\$?"
#: What may be null, which is the same as left out.
_NULLABLE = (
    "name",
    "version",
    "description",
    "exec",
    "params",
    "user",
    "timeouts",
    "stall",
    "max_defer",
    "limits",
    "needs",
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a handler declares.

    Attributes:
        name: "" where it is that of the folder or the entry point.
        exec: the program, relative to the handler's folder, and its arguments; empty for a class.
        params: the JSON Schema of its parameters; None: any will do.
        user: the account that it wants to run as, which the local policy decides on; "": none in particular.
        max_defer: seconds that a claim may be put off; None: for ever.
        elsewhere: what `apply` changes is not on this device.
        keeps_daemons: what a verb leaves running is meant to stay.
        needs: what the agent must provide beyond the contract, such as "cloud".
    """

    name: str = ""
    version: str = ""
    description: str = ""
    exec: tuple[str, ...] = ()
    verbs: frozenset[Verb] = frozenset({Verb.APPLY})
    params: Json | None = None
    user: str = ""
    limits: Limits = field(default_factory=Limits)
    apply_rerun: bool = False
    cancel_apply: bool = False
    elsewhere: bool = False
    observe: bool = False
    max_defer: float | None = None
    keeps_daemons: bool = False
    resumes_across_versions: bool = False
    resources: Resources = field(default_factory=Resources)
    needs: frozenset[str] = frozenset()


#: What handlers may need beyond the contract, and this release provides.
PROVIDED: frozenset[str] = frozenset({"cloud"})


def lacking(needs: frozenset[str]) -> str:
    """Return that a handler needs what this agent cannot give, the end of a sentence; "" if it has all."""
    names = sorted(needs - PROVIDED)
    return f"needs {', '.join(names)}, which this release of the agent has not got" if names else ""


def forbidden_cloud(name: str, needs: frozenset[str], allowed: Sequence[str]) -> str:
    """Return that the operator gives a handler no AWS credentials, a sentence; "" if it may have them or needs none.

    Args:
        name: of the handler.
        needs: what it needs.
        allowed: patterns of the handlers that may have credentials.
    """
    if "cloud" not in needs or any(fnmatchcase(name, pattern) for pattern in allowed):
        return ""
    return f"handler {name} needs AWS credentials, and is not listed in [cloud] handlers on this device"


class ManifestError(ValueError):
    """A manifest that cannot be used.

    Attributes:
        problems: one sentence each, which begins with the place; never empty.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def parse(content: object, *, program: bool, name: str = "") -> Manifest:
    """Return the manifest that a JSON value is.

    Args:
        content: the parsed JSON.
        program: it is that of an executable, which must name its program; else of a class, which must not.
        name: that of the folder or the entry point; "": not known.

    Raises:
        ManifestError: it is none.
    """
    if not isinstance(content, dict):
        raise ManifestError([f"it must be a JSON object, not {_kind(content)}"])
    if content.get("contract") != CONTRACT or isinstance(content["contract"], bool):
        said = _kind(content["contract"]) if "contract" in content else "missing"
        raise ManifestError(
            [f'contract is {said}; this agent speaks contract {CONTRACT}: write "contract": {CONTRACT}']
        )
    problems = [_unknown(key) for key in content if key not in _KEYS]
    found: Json = {}
    for key, read in _KEYS.items():
        value = content.get(key)
        if value is not None or (key in content and key not in _NULLABLE):
            try:
                found.update(read(value))
            except _Wrong as wrong:
                problems.extend(wrong.sentences(key))
    problems.extend(_missing(content, program=program))
    if name and "name" in found and found["name"] != name:
        problems.append(f"name is {found['name']}, and the handler is called {name}; leave it out")
    if problems:
        raise ManifestError(problems)
    limits = Limits(**found.pop("timeouts", {}), stall=found.pop("stall", None))
    return Manifest(**found, limits=limits)


def _missing(content: Json, *, program: bool) -> list[str]:
    problems = []
    if "verbs" not in content:
        problems.append('verbs is missing; write the verbs that it understands, at least ["apply"]')
    if program and content.get("exec") is None:
        problems.append("exec is missing; write the file in this folder that is the program")
    if not program and content.get("exec") is not None:
        problems.append("exec is only for executables; a class is its own program")
    return problems


def _unknown(key: str) -> str:
    return f"{shown(key)} is not a key of a manifest; {_nearest(key, tuple(_KEYS))}"


def _nearest(word: str, words: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for those who mistyped

    close = get_close_matches(word[:64], words, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(words)}"


class _Wrong(Exception):  # noqa: N818 - how a reader below says no, to `parse` alone
    """What is wrong with a value: pairs of a place behind the key, and what is wrong there."""

    def __init__(self, *what: str | tuple[str, str]) -> None:
        super().__init__(what)
        self._what = what

    def sentences(self, key: str) -> list[str]:
        return [f"{key} {one}" if isinstance(one, str) else f"{key}{one[0]} {one[1]}" for one in self._what]


# --- the values ---------------------------------------------------------------------------------------------------


def _text(key: str, pattern: str, says: str) -> Callable[[Any], Json]:
    whole = re.compile(pattern)

    def read(value: Any) -> Json:
        if not isinstance(value, str):
            raise _Wrong(f"must be a text in quotes, not {_kind(value)}")
        if not whole.fullmatch(value):
            raise _Wrong(f"must be {says}")
        return {key: value}

    return read


def _flag(key: str) -> Callable[[Any], Json]:
    def read(value: Any) -> Json:
        if not isinstance(value, bool):
            raise _Wrong(f"must be true or false, not {_kind(value)}")
        return {key: value}

    return read


def _contract(value: Any) -> Json:  # noqa: ARG001 - judged before all else
    return {}


def _exec(value: Any) -> Json:
    argv = [value] if isinstance(value, str) else value
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
        raise _Wrong('must be the name of a file, or a list of that and its arguments: ["run.sh", "--flag"]')
    if not re.fullmatch(_PROGRAM, argv[0]):
        raise _Wrong("must name a file in the handler's folder: relative, without . and ..")
    if len(argv) > MAX_ARGUMENTS or not all(re.fullmatch(rf"{_LINE}{{0,1024}}", part) for part in argv[1:]):
        raise _Wrong(f"has arguments that are too many, too long, or no plain line; there are at most {MAX_ARGUMENTS}")
    return {"exec": tuple(argv)}


def _verbs(value: Any) -> Json:
    if not isinstance(value, list):
        raise _Wrong('must be a list of verbs, such as ["check", "apply"]')
    known = tuple(verb.value for verb in Verb)
    strange = [verb for verb in value if verb not in known]
    if strange:
        raise _Wrong(*(f"has {_quoted(verb)}, which is no verb; {_nearest(str(verb), known)}" for verb in strange))
    if "apply" not in value:
        raise _Wrong("must hold apply: a handler without it changes nothing")
    return {"verbs": frozenset(map(Verb, value))}


def _params(value: Any) -> Json:
    found = schema.problems(value)
    if found:
        raise _Wrong(*((one.removeprefix("params").partition(" ")[0], one.partition(" ")[2]) for one in found))
    return {"params": value}


def _timeouts(value: Any) -> Json:
    if not isinstance(value, dict):
        raise _Wrong('must be an object of seconds by verb: {"apply": 3600}')
    wrong = [(f".{shown(key)}", f"is no verb; {_nearest(key, _TIMED)}") for key in value if key not in _TIMED]
    wrong += [
        (f".{key}", f"is {_kind(value[key])}; it {_NO_SECONDS}")
        for key in value
        if key in _TIMED and not _is_seconds(value[key])
    ]
    if wrong:
        raise _Wrong(*wrong)
    return {"timeouts": value}


_NO_SECONDS = f"must be a number of seconds, greater than 0 and at most {MAX_SECONDS} (a year)"


def _is_seconds(value: object) -> bool:
    return _is_number(value) and 0 < value <= MAX_SECONDS  # type: ignore[operator]


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and value.is_integer())


def _seconds(key: str) -> Callable[[Any], Json]:
    def read(value: Any) -> Json:
        if not _is_seconds(value):
            raise _Wrong(f"is {_kind(value)}; it {_NO_SECONDS}")
        return {key: value}

    return read


def _daemons(value: Any) -> Json:
    if value not in ("end", "keep"):
        raise _Wrong('must be "end" or "keep"')
    return {"keeps_daemons": value == "keep"}


def _needs(value: Any) -> Json:
    listed = value if isinstance(value, list) else [None]
    if not all(isinstance(one, str) and re.fullmatch(r"[a-z][a-z0-9-]{0,63}", one) for one in listed):
        raise _Wrong('must be a list of names, such as ["cloud"]')
    return {"needs": frozenset(value)}


def _limits(value: Any) -> Json:
    if not isinstance(value, dict):
        raise _Wrong('must be an object, such as {"memory": "64M", "processes": 32, "cpu": 0.5}')
    readers = {"memory": _memory, "processes": _processes, "cpu": _cpu}
    wrong = [(f".{shown(key)}", f"is no limit; {_nearest(key, tuple(readers))}") for key in value if key not in readers]
    found: Json = {}
    for key, read in readers.items():
        if key in value:
            try:
                found[key] = read(value[key])
            except _Wrong as no:
                wrong.append((f".{key}", str(no.args[0][0])))
    if wrong:
        raise _Wrong(*wrong)
    return {"resources": Resources(**found)}


def _memory(value: Any) -> int:
    size = value
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,15})([KMG]?)", value)):
        size = int(match[1]) * _UNITS[match[2]]
    if _is_whole(size) and MIN_MEMORY <= size <= MAX_MEMORY:
        return int(size)
    raise _Wrong('must be a number of bytes, 1048576 or more, or such as "64M" or "1G"')


def _processes(value: Any) -> int:
    if _is_whole(value) and 1 <= value <= MAX_PROCESSES:
        return int(value)
    raise _Wrong(f"must be a whole number from 1 to {MAX_PROCESSES}")


def _cpu(value: Any) -> float:
    if _is_number(value) and MIN_CPU <= value <= MAX_CPU:
        return float(value)
    raise _Wrong(f"must be a number of processors from {MIN_CPU} to {MAX_CPU}, 0.5 is half of one")


def _kind(value: object) -> str:
    match value:
        case None | bool() | int() | float():
            return shown(str(value)) if value is not None else "null"
        case str():
            return _quoted(value)
        case _:
            return "an object" if isinstance(value, dict) else "a list"


def _quoted(value: object) -> str:
    return f'"{shown(value)}"' if isinstance(value, str) else _kind(value)


_KEYS: dict[str, Callable[[Any], Json]] = {
    "contract": _contract,
    "name": _text("name", NAME, "1 to 128 letters, digits, dots, dashes and underscores, the first no sign"),
    "version": _text("version", rf"{_LINE}{{0,64}}", "one line of at most 64 characters"),
    "description": _text("description", rf"{_LINE}{{0,500}}", "one line of at most 500 characters"),
    "exec": _exec,
    "verbs": _verbs,
    "params": _params,
    "user": _text("user", _ACCOUNT, "the name of an account"),
    "timeouts": _timeouts,
    "stall": _seconds("stall"),
    "cancel_apply": _flag("cancel_apply"),
    "apply_rerun": _flag("apply_rerun"),
    "elsewhere": _flag("elsewhere"),
    "observe": _flag("observe"),
    "max_defer": _seconds("max_defer"),
    "daemons": _daemons,
    "resumes_across_versions": _flag("resumes_across_versions"),
    "limits": _limits,
    "needs": _needs,
}
