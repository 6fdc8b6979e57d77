"""The handler contract, version 1: the public API for teams that write handlers in Python.

A handler is a class with a method `apply`; `check`, `prepare`, `verify`, `commit` and `rollback` are optional, and
only the methods that exist are ever called. The class is found by its entry point in the group
`thingjobs.handlers.v1` and runs in a child process of its own, one verb a process: nothing it does can hurt the agent.

    from dataclasses import dataclass
    from typing import Annotated

    from thingjobs.handler import Context, Failed

    @dataclass(frozen=True)
    class Params:
        name: Annotated[str, "whom to greet", {"minLength": 1}]
        times: int = 1

    class Greet:
        version = "1.0"

        def apply(self, ctx: Context, params: Params) -> None:
            for count in range(params.times):
                ctx.progress(100 * count / params.times, f"greeting {params.name}")
            ctx.details(greeted=params.name)

What the document gives as params is checked and made a `Params` before the method is called; `thingjobs.params` says
which types its fields may have. Where params are not annotated with a dataclass, they are the JSON object as a dict.

A method returns None or an `Outcome`, or raises `Failed`, `Reject` or `Retry`. Whatever else comes out of it (another
exception, sys.exit, another value) is a bug of the handler and is reported as a failure.

Programs in other languages speak the same contract: the exit codes of `Exit`, `job.json` in $JOB_DIR, and JSON lines
appended to $JOB_EVENTS. This module has no I/O; `thingjobs.child` is what runs a class.

Names are only added here as long as CONTRACT is 1; what exists keeps its meaning.
"""

# Every verb of every Python handler imports this module in a new process. So it imports nothing: enum or typing alone
# would make the start of the interpreter half as long again. TYPE_CHECKING needs no import to be understood.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from os import PathLike
    from pathlib import Path
    from typing import Any, ClassVar, Final, Protocol

    from thingjobs.cloud.session import Cloud
    from thingjobs.exits import Exit as Exit  # noqa: PLC0414 - public here
else:
    Protocol = object

__all__ = [
    "CONTRACT",
    "ENTRY_POINT_GROUP",
    "REBOOT",
    "VERBS",
    "Context",
    "Failed",
    "Handler",
    "Outcome",
    "Reject",
    "Retry",
]

CONTRACT = 1
ENTRY_POINT_GROUP = "thingjobs.handlers.v1"
#: The methods that a handler may have, in the order in which they are called.
VERBS = ("check", "prepare", "apply", "verify", "commit", "rollback")


class Outcome:
    """What a method may return; None is the same as DONE.

    Attributes:
        name: as below.
        value: the exit status that says the same (`Exit`).
    """

    #: The verb is done. From `check`: the change is needed.
    DONE: "ClassVar[Outcome]"
    #: From `check` only: the device is already as the document wants it; the job succeeds and nothing else is called.
    ALREADY: "ClassVar[Outcome]"
    #: Reboot, then call this verb again.
    REBOOT_AND_AGAIN: "ClassVar[Outcome]"
    #: The verb is done; reboot, then call the next one.
    DONE_AND_REBOOT: "ClassVar[Outcome]"
    #: Call this verb again after the agent was restarted.
    AGAIN_AFTER_RESTART: "ClassVar[Outcome]"

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: int) -> None:
        self.name: Final = name
        self.value: Final = value

    def __repr__(self) -> str:
        return f"Outcome.{self.name}"


Outcome.DONE = Outcome("DONE", 0)
Outcome.ALREADY = Outcome("ALREADY", 10)
Outcome.REBOOT_AND_AGAIN = Outcome("REBOOT_AND_AGAIN", 194)
Outcome.DONE_AND_REBOOT = Outcome("DONE_AND_REBOOT", 195)
Outcome.AGAIN_AFTER_RESTART = Outcome("AGAIN_AFTER_RESTART", 196)

#: The change is made and takes effect with a reboot; the agent reboots and goes on with the next verb.
REBOOT = Outcome.DONE_AND_REBOOT


class HandlerSignal(Exception):  # noqa: N818 - the names below are what an author means, not errors of ours
    """How a method ends other than by returning; never raised itself.

    Args:
        reason: a sentence for the person who reads the job's status details: what is wrong, and what to do.
        code: one of the published list (`thingjobs.model.Code`); left out: the agent chooses by the verb.
        details: status details to report, at most as many as the agent leaves room for.
    """

    def __init__(self, reason: str, *, code: str = "", details: "Mapping[str, str] | None" = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.details = dict(details or {})


class Failed(HandlerSignal):
    """The verb failed; another try of the job may succeed (FAILED)."""


class Reject(HandlerSignal):
    """This job must never be tried on this device (REJECTED)."""


class Retry(HandlerSignal):
    """Not now: call the same verb again later; from `check`: the job keeps waiting in its queue.

    Raised by `apply`, it is its leave to be called again. A verb is called at most 5 times in all.

    Args:
        reason: what is being waited for.
        after: seconds until the next call, at least; None lets the agent choose.
    """

    def __init__(self, reason: str = "not ready yet", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Handler:
    """What a class may declare beside its methods. Deriving from it is optional; it brings no methods.

    The same names, with the same meaning, stand in the `manifest.json` of a handler that is a program.

    Attributes:
        version: of the handler, such as "1.2"; "": that of its distribution. Documents may ask for one.
        description: one line for people.
        timeouts: seconds by verb, and "reach" (how long `commit` waits for proof that the service is still reached).
            Without: check 60, prepare and apply 3600, verify 600, commit 300, rollback and reach 1800.
        stall: seconds without an event, output or downloaded byte after which a verb counts as stuck; None: never.
        cancel_apply: a cancelled job may stop `apply`; otherwise it ends on its own and is rolled back.
        apply_rerun: an `apply` that a power cut interrupted may simply run again.
        elsewhere: what `apply` changes is not on this device, so `apply` cannot be what brings it down: where an
            interrupted one may run again, it may do so any number of times, and not only three.
        observe: nothing on the device is changed: such a job may overtake those that wait, and run beside one.
        max_defer: seconds that `check` and the local gates may put a job off before it fails; None: for ever.
        daemons: "end": what a verb leaves running is ended with it; "keep": it stays.
        resumes_across_versions: a later version of this class may go on with an execution that an earlier one began.
        limits: what one verb may use, where the device can hold it to that: "memory" in bytes or as "64M",
            "processes" as a number, "cpu" as processors' worth of time (0.5 is half of one).
        needs: what the agent must provide beyond the contract: "cloud" for short-lived AWS credentials, which the
            operator must allow ([cloud] handlers).
        user: the account to run as; local policy decides.
        params_schema: JSON Schema (draft-07) of params, for a class that takes them as a dict.
    """

    version: str = ""
    description: str = ""
    timeouts: "ClassVar[Mapping[str, float]]" = {}  # noqa: RUF012 - read only
    stall: float | None = None
    cancel_apply: bool = False
    elsewhere: bool = False
    apply_rerun: bool = False
    observe: bool = False
    max_defer: float | None = None
    daemons: str = "end"
    resumes_across_versions: bool = False
    limits: "ClassVar[Mapping[str, float | str]]" = {}  # noqa: RUF012
    needs: "Collection[str]" = ()
    user: str | None = None
    params_schema: "Mapping[str, Any] | None" = None


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

    @property
    def dir(self) -> "Path":
        """The job's own folder, also the working directory; kept from verb to verb, and across reboots."""

    @property
    def cancelled(self) -> bool:
        """Whether the agent asked this verb to stop (SIGTERM); it is killed 30 seconds later."""

    @property
    def cloud(self) -> "Cloud":
        """The way to S3 Batch Operations and AWS Batch, with credentials that the agent gives and renews.

        A call that fails raises `thingjobs.cloud.errors.CloudError`; its message says what to do, and a verb that lets
        it through fails with that message. In a dry run calls are printed, and raise
        `thingjobs.cloud.session.Rehearsed`; a verb that lets that through is done.

        Raises:
            CloudError: the handler does not declare that it needs "cloud".
        """

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Report how far the verb is, 0..100, and a few words; the agent decides how often the cloud hears it."""

    def details(self, **pairs: str) -> None:
        """Add to the status details; keys are [a-zA-Z0-9:_-]{1,128}, values any text."""

    def log(self, text: str) -> None:
        """Write a line to the job's bounded log."""

    def refresh(self, timeout: float = 60.0) -> "Any":
        """Return the params anew: presigned URLs in them are fresh.

        Args:
            timeout: seconds to wait for the agent's answer.

        Returns:
            What the method got as params, of the same type.

        Raises:
            Failed: none came in time, or the agent asked this verb to stop; the verb may catch it and go on.
            Reject: what came does not fit the type.
        """

    def download(
        self,
        url: str,
        to: "str | PathLike[str]",
        *,
        digest: str = "",
        size: int | None = None,
        max_bytes: int | None = None,
    ) -> "Path":
        """Fetch a file, going on with what an earlier call began, and return where it is; progress is reported.

        A URL that stands in the params is asked for anew when it expires.

        Args:
            url: https, or http where a digest or the local policy makes up for it.
            to: the file to make or to replace; relative to `dir`, or absolute. Its folder must exist.
            digest: `sha256:HEX`, `sha384:HEX` or `sha512:HEX`; HEX alone is sha256. Required, unless the local
                policy says otherwise.
            size: bytes that it must have; None: not known.
            max_bytes: bytes that it may have at most; None: as many as there is room for.

        Raises:
            Failed: with code `fetch.digest`: it is not what was promised; `fetch.space`: the disk is full;
                `cancelled`: the agent asked this verb to stop; `fetch.failed`: everything else.
        """


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import `Exit` when it is wanted: few handlers want it."""
        if name != "Exit":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from thingjobs.exits import Exit  # noqa: PLC0415

        return Exit
