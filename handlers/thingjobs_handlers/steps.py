"""The steps of a plan, and the programs that carry them out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.interpreter import isolated
from thingjobs.model import Code
from thingjobs_handlers import packages, services
from thingjobs_handlers.processes import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

REBOOT = "reboot"

_DOWNLOAD = "import sys; from thingjobs_handlers.download import main; sys.exit(main())"
#: The exit statuses of `download`.
_DOWNLOAD_FAILURES = MappingProxyType({20: Code.FETCH_FAILED, 21: Code.FETCH_SPACE, 22: Code.FETCH_DIGEST})
#: What AWS documents for a download step is a URL and a path: no digest, and http as well.
DOWNLOAD_RULES: dict[str, Any] = {"digest_required": False, "allow_http": True}
NO_POLICY: Mapping[str, Any] = MappingProxyType({})
#: What the policy in job.json calls the rules of a download.
_POLICY = MappingProxyType({"maxKibPerSecond": "max_kib_s", "digestRequired": "digest_required"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as the agent judged and planned it.

    Attributes:
        name: free text.
        kind: `run`, `reboot`, or one of the built-ins.
        argv: for `run` the program and its arguments, else what the built-in works on.
        user: the account to run as; None: our own.
        ignore_failure: the job goes on whatever becomes of it.
        stderr_limit: how many lines to standard error are no failure; None: any number.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    user: str | None
    ignore_failure: bool
    stderr_limit: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the agent made of a document with steps; the final step is the last."""

    steps: tuple[Step, ...]
    show_stdout: bool


def read_plan(params: Mapping[str, Any]) -> Plan:
    """Read the parameters of the handler `aws-steps`."""
    steps = tuple(
        Step(
            name=step["name"],
            kind=step["kind"],
            argv=tuple(step["argv"]),
            user=step["user"],
            ignore_failure=step["ignoreStepFailure"],
            stderr_limit=step["allowStdErr"],
        )
        for step in params["steps"]
    )
    return Plan(steps, params["includeStdOut"])


def programs_of(step: Step, downloads: Mapping[str, Any] = NO_POLICY) -> tuple[Program, ...]:
    """Return what a step runs, in order; a reboot runs nothing.

    Args:
        step: what to do.
        downloads: the local policy, as job.json has it.

    Raises:
        CannotStartError: this device has no program for it.
        ValueError: there is no such kind of step.
    """
    match step.kind.partition("-"):
        case ("run", _, _):
            return (Program(step.argv, step.user),)
        case ("download", _, "file"):
            return (_download(step, downloads),)
        case (verb, _, "packages"):
            return packages.programs(verb, step.argv, step.user)
        case (verb, _, "services"):
            return services.programs(verb, step.argv, step.user)
        case _:
            raise ValueError(f"there is no step of the kind {step.kind}")


def _download(step: Step, downloads: Mapping[str, Any]) -> Program:
    url, path = step.argv
    policy = {key: downloads[name] for name, key in _POLICY.items() if name in downloads}
    return Program(
        argv=isolated(_DOWNLOAD),
        user=step.user,
        stdin=json.dumps({"url": url, "path": path, "rules": {**DOWNLOAD_RULES, **policy}}),
        failures=_DOWNLOAD_FAILURES,
        talks=True,
    )
