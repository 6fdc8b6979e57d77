"""A handler as the registry knows it, and what to call one that cannot be used. Values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thingjobs.errors import HandlerError
from thingjobs.model import Code, Limits, Resources, Verb
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.manifest import Manifest
    from thingjobs.model import Json

#: What a handler and a plan have from the manifest.
DECLARED = (
    *("verbs", "limits", "apply_rerun", "cancel_apply", "elsewhere", "observe", "max_defer"),
    *("keeps_daemons", "resumes_across_versions", "resources", "needs"),
)


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler: what it declares, and where it is.

    Attributes:
        source: the distribution and its version, or the file or folder; for people.
        argv: the program that runs one verb of it.
        digest: changes whenever the handler's code does.
        path: the executable, or the folder that it is in; None: a class.
        params: the JSON Schema of its parameters; None: any will do.
        user: the account that it wants to run as; "": none in particular.

    The others are those of `thingjobs.manifest.Manifest`.
    """

    name: str
    source: str
    argv: tuple[str, ...]
    digest: str
    version: str = ""
    verbs: frozenset[Verb] = frozenset({Verb.APPLY})
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
    description: str = ""
    params: Json | None = None
    user: str = ""
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A handler in a list, usable or not.

    Attributes:
        handler: what it declares; None if that cannot be known.
        reason: why it cannot be used; "" if it can.
    """

    name: str
    source: str
    handler: Handler | None
    reason: str = ""


def handler_of(manifest: Manifest, name: str, source: str, argv: tuple[str, ...], digest: str) -> Handler:
    """Return the handler that a manifest makes of a program."""
    declared = {key: getattr(manifest, key) for key in (*DECLARED, "version", "description", "params", "user")}
    return Handler(name, source, argv, digest, **declared)


def unusable(name: str, source: str, problems: list[str]) -> HandlerError:
    """Return the refusal of a handler with the first of its problems, which there must be."""
    more = f" (and {len(problems) - 1} more; see thingjobs handlers check {shown(name)})" if len(problems) > 1 else ""
    what = f"handler {shown(name)}" + (f" of {shown(source)}" if source else "")
    return HandlerError(Code.HANDLER_BROKEN, f"{what} cannot be used: {problems[0]}{more}")
