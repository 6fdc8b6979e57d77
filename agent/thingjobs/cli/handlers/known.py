"""The handlers of this device as the actions here see them: usable, allowed, and as whom they would run."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from thingjobs import manifest
from thingjobs.errors import DocumentError
from thingjobs.handler import CONTRACT
from thingjobs.judging import effective_user, registry_for, user_for, without_cloud
from thingjobs.model import Code, Verb

if TYPE_CHECKING:
    from thingjobs.config import Config
    from thingjobs.model import Json, Limits
    from thingjobs.registry import Handler, Listed, Registry

#: The flags of a manifest, in its words, and what each says to a person.
FLAGS = {
    "apply_rerun": "an interrupted apply may simply run again",
    "cancel_apply": "a cancelled job may stop apply",
    "elsewhere": "what apply changes is not on this device: interruptions do not count",
    "observe": "changes nothing: overtakes jobs that wait, and runs beside one",
    "resumes_across_versions": "a later version may go on with what an earlier one began",
    "keeps_daemons": "what a verb leaves running stays",
}


FORBIDDEN = "no job may use it: it is not listed in [handlers] allow on this device"


@dataclass(frozen=True, slots=True)
class Known:
    """One handler.

    Attributes:
        source: the distribution and its version, or the path.
        kind: "python" or "program".
        handler: what it declares; None if that cannot be known.
        reason: why it cannot be used, a sentence; "" if it can.
        refused: why jobs may not use it here although it is well, a sentence; "" if they may.
        user: the account that it would run as here.
    """

    name: str
    source: str
    kind: str
    handler: Handler | None
    reason: str
    refused: str
    user: str

    @property
    def trouble(self) -> str:
        """Why no job can use it, a sentence; "" if jobs can."""
        return self.reason or self.refused

    def as_json(self) -> Json:
        """Return it for programs; what it declares is in the shape of a manifest."""
        return {
            "name": self.name,
            "usable": not self.reason,
            "allowed": not self.refused,
            "reason": self.trouble,
            "kind": self.kind,
            "source": self.source,
            "digest": self.handler.digest if self.handler else "",
            "runsAs": self.user,
            "manifest": manifest_of(self.handler) if self.handler else None,
        }


def registry_of(config: Config) -> Registry:
    """Return the registry of this device; it writes nothing."""
    return registry_for(config, config.state.directory, read_only=True)


def known(config: Config, listed: Listed) -> Known:
    """Return what there is to say of a handler in the registry's list."""
    handler = listed.handler
    program = handler.path is not None if handler else listed.source.startswith("/")
    return Known(
        name=listed.name,
        source=listed.source,
        kind="program" if program else "python",
        handler=handler,
        reason=listed.reason or "; ".join(_faults(config, handler)),
        refused=_refused(config, listed),
        user=_user(config, listed),
    )


def _user(config: Config, listed: Listed) -> str:
    """Return the account that a handler would run as; where its wish is refused, as whom it would run without it."""
    usual = effective_user(config, listed.name)
    try:
        return (user_for(config, listed.handler) or usual) if listed.handler else usual
    except DocumentError:
        return usual


def _faults(config: Config, handler: Handler | None) -> list[str]:
    """Return why a handler that is well declared cannot be used here, whatever the operator chooses."""
    error = no_user(config, handler)
    nobody = [error.reason] if error and error.code is not Code.USER_FORBIDDEN else []
    return [*nobody, *lacking(handler)]


def _refused(config: Config, listed: Listed) -> str:
    """Return why the operator's choices keep jobs from a handler."""
    if not allowed(config, listed.name):
        return FORBIDDEN
    error = no_user(config, listed.handler)
    if error and error.code is Code.USER_FORBIDDEN:
        return error.reason
    return without_cloud(config, listed.handler) if listed.handler else ""


def no_user(config: Config, handler: Handler | None) -> DocumentError | None:
    """Return why there is no account that a handler could run as here; None: there is one."""
    try:
        if handler is not None:
            user_for(config, handler)
    except DocumentError as error:
        return error
    return None


def lacking(handler: Handler | None) -> list[str]:
    """Return what a handler needs and this agent has not got, at most one sentence."""
    lacks = manifest.lacking(handler.needs) if handler else ""
    return [f"it {lacks}"] if lacks else []


def allowed(config: Config, name: str) -> bool:
    """Return whether the operator lets jobs use a handler of that name."""
    return any(fnmatchcase(name, pattern) for pattern in config.handlers.allow)


def verbs_of(handler: Handler) -> list[str]:
    """Return the verbs in the order in which they are called."""
    return [verb.value for verb in Verb if verb in handler.verbs]


def timeouts_of(limits: Limits) -> dict[str, float]:
    """Return the seconds that each verb may take, and how long `commit` waits for the service."""
    return {**{verb.value: limits.of(verb) for verb in Verb}, "reach": limits.reach}


def manifest_of(handler: Handler) -> Json:
    """Return what a handler declares, defaults included, in the shape of a manifest."""
    resources = handler.resources
    return {
        "contract": CONTRACT,
        "name": handler.name,
        "version": handler.version,
        "description": handler.description,
        "verbs": verbs_of(handler),
        "user": handler.user or None,
        "timeouts": timeouts_of(handler.limits),
        "stall": handler.limits.stall,
        "max_defer": handler.max_defer,
        "daemons": "keep" if handler.keeps_daemons else "end",
        **{flag: getattr(handler, flag) for flag in FLAGS if flag != "keeps_daemons"},
        "limits": {"memory": resources.memory, "processes": resources.processes, "cpu": resources.cpu},
        "needs": sorted(handler.needs),
        "params": handler.params,
    }
