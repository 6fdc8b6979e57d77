"""The handler contract, version 1: the public API for teams that write handlers in Python.

A handler is a class with a method `apply`; `check`, `prepare`, `verify`, `commit` and `rollback` are optional, and
only the methods that exist are ever called. The class is found by its entry point in the group
`thingjobs.handlers.v1` and runs in a child process of its own: nothing it does can hurt the agent.

    from thingjobs.handler import Context, Failed

    class Greet:
        version = "1.0"

        def apply(self, ctx: Context, params: dict[str, object]) -> None:
            ctx.progress(50, "warming up")
            if not params.get("name"):
                raise Failed("there is nobody to greet: give params.name")
            ctx.details(greeted=str(params["name"]))

Programs in other languages speak the same contract: the exit codes below, `job.json` in $JOB_DIR, and JSON lines
appended to $JOB_EVENTS. This module has no I/O; `thingjobs.child` is what runs a class.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONTRACT = 1
ENTRY_POINT_GROUP = "thingjobs.handlers.v1"


class Exit(IntEnum):
    """What the exit code of a verb means; everything else, and any signal, is failure."""

    DONE = 0
    #: `check` only: the device is already as the document wants it.
    ALREADY = 10
    #: This verb again later; from `check`: not now, the execution stays QUEUED.
    LATER = 75
    #: Reboot, then this verb again.
    REBOOT_AND_AGAIN = 194
    #: Done; reboot, then the next verb.
    DONE_AND_REBOOT = 195
    #: This verb again after the agent was restarted.
    AGAIN_AFTER_RESTART = 196


class Outcome(Enum):
    """What a method may return; None is the same as DONE."""

    DONE = Exit.DONE
    #: From `check` only.
    ALREADY = Exit.ALREADY
    REBOOT_AND_AGAIN = Exit.REBOOT_AND_AGAIN
    DONE_AND_REBOOT = Exit.DONE_AND_REBOOT
    AGAIN_AFTER_RESTART = Exit.AGAIN_AFTER_RESTART


#: The change is made and takes effect with a reboot; the agent reboots and goes on with the next verb.
REBOOT = Outcome.DONE_AND_REBOOT


class HandlerSignal(Exception):  # noqa: N818 - the names below are what an author means, not errors of ours
    """How a method ends other than by returning; never raised itself.

    Args:
        reason: a sentence for the person who reads the job's status details.
        code: one of the published list (`thingjobs.model.Code`); left out: the agent chooses by the verb.
        details: status details to report, at most as many as the agent leaves room for.
    """

    def __init__(self, reason: str, *, code: str = "", details: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.details = dict(details or {})


class Failed(HandlerSignal):
    """The verb failed; another try of the job may succeed (FAILED)."""


class Reject(HandlerSignal):
    """This job must never be tried on this device (REJECTED)."""


class Retry(HandlerSignal):
    """Not now: call the same verb again later.

    Args:
        reason: what is being waited for.
        after: seconds until the next call, at least; None lets the agent choose.
    """

    def __init__(self, reason: str = "not ready yet", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Context(Protocol):
    """What a method knows of its job, and how it speaks to the agent.

    Attributes:
        job_id: the AWS IoT job id.
        execution: executionNumber, opaque.
        thing: the thing's name.
        verb: the verb being run.
        attempt: 1 for the first call of this verb, then counting.
        resumed: an earlier call of this verb was interrupted, or asked to be called again.
        rebooted: the machine rebooted since the earlier call.
        dry_run: only find out; change nothing.
        deadline: seconds since the epoch by which the verb will be stopped; None when nothing limits it.
        dir: the job's own folder, also the working directory; kept from verb to verb, and across reboots.
    """

    job_id: str
    execution: int
    thing: str
    verb: str
    attempt: int
    resumed: bool
    rebooted: bool
    dry_run: bool
    deadline: float | None
    dir: Path

    @property
    def cancelled(self) -> bool:
        """Whether the agent asked this verb to stop (SIGTERM)."""

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Report how far the verb is, 0..100, and a few words; the agent decides how often the cloud hears it."""

    def details(self, **pairs: str) -> None:
        """Add to the status details; keys are [a-zA-Z0-9:_-]{1,128}, values any text."""

    def log(self, text: str) -> None:
        """Write a line to the job's bounded log."""
