"""The values that everything else speaks in: executions, verbs, phases, results, and the journal's record.

All are frozen and checked when they are built, so an invalid one cannot exist. Nothing here decides or does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

JobId = NewType("JobId", str)
ThingName = NewType("ThingName", str)
#: A JSON object, already parsed; only `wire` and `documents` look inside one.
Json = dict[str, Any]

#: AWS IoT Jobs API reference, DescribeJobExecution (data plane): JobId and ThingName patterns.
JOB_ID_PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,64}")
THING_NAME_PATTERN = re.compile(r"[a-zA-Z0-9:_-]{1,128}")

NOTHING: Mapping[str, str] = MappingProxyType({})


class Status(StrEnum):
    """The wire statuses of a job execution (AWS IoT Jobs, JobExecutionStatus). "SUCCESS" is not one."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"

    @property
    def terminal(self) -> bool:
        """Whether nobody can change an execution that has this status."""
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


class Verb(StrEnum):
    """What the agent asks of a handler (contract version 1)."""

    CHECK = "check"
    PREPARE = "prepare"
    APPLY = "apply"
    VERIFY = "verify"
    COMMIT = "commit"
    ROLLBACK = "rollback"


class Phase(StrEnum):
    """Where an execution stands on this device."""

    OFFERED = "offered"
    CHECKING = "checking"
    DEFERRED = "deferred"
    REFUSING = "refusing"
    CLAIMING = "claiming"
    PREPARING = "preparing"
    APPLYING = "applying"
    REBOOTING = "rebooting"
    VERIFYING = "verifying"
    COMMITTING = "committing"
    CANCELLING = "cancelling"
    ROLLING_BACK = "rolling_back"
    REPORTING = "reporting"
    DONE = "done"


class Code(StrEnum):
    """The published closed list of reasons: every FAILED and REJECTED carries exactly one."""

    DOCUMENT_INVALID = "document.invalid"
    DOCUMENT_UNKNOWN = "document.unknown"
    DOCUMENT_PLACEHOLDER = "document.placeholder"
    DOCUMENT_UNSIGNED = "document.unsigned"
    DOCUMENT_SIGNATURE = "document.signature"
    DOCUMENT_MISDIRECTED = "document.misdirected"
    DOCUMENT_EARLY = "document.early"
    DOCUMENT_EXPIRED = "document.expired"
    CONDITION_FALSE = "condition.false"
    CONDITION_UNKNOWN = "condition.unknown"
    HANDLER_UNKNOWN = "handler.unknown"
    HANDLER_FORBIDDEN = "handler.forbidden"
    HANDLER_BROKEN = "handler.broken"
    HANDLER_VERSION = "handler.version"
    HANDLER_CHANGED = "handler.changed"
    PARAMS_INVALID = "params.invalid"
    NAME_FORBIDDEN = "name.forbidden"
    USER_UNKNOWN = "user.unknown"
    USER_FORBIDDEN = "user.forbidden"
    CHECK_REJECTED = "check.rejected"
    GATE_EXPIRED = "gate.expired"
    HANDLER_START = "handler.start"
    HANDLER_EXIT = "handler.exit"
    HANDLER_SIGNAL = "handler.signal"
    HANDLER_TIMEOUT = "handler.timeout"
    HANDLER_STALLED = "handler.stalled"
    HANDLER_FAILED = "handler.failed"
    HANDLER_REJECTED = "handler.rejected"
    HANDLER_ATTEMPTS = "handler.attempts"
    STEP_FAILED = "step.failed"
    STEP_STDERR = "step.stderr"
    FETCH_DIGEST = "fetch.digest"
    FETCH_FAILED = "fetch.failed"
    FETCH_SPACE = "fetch.space"
    CLOUD_FORBIDDEN = "cloud.forbidden"
    CLOUD_CONFIG = "cloud.config"
    CLOUD_CREDENTIALS = "cloud.credentials"
    CLOUD_DENIED = "cloud.denied"
    CLOUD_UNKNOWN = "cloud.unknown"
    CLOUD_REFUSED = "cloud.refused"
    CLOUD_UNAVAILABLE = "cloud.unavailable"
    CLOUD_NOT_READY = "cloud.not-ready"
    CLOUD_LOST_RACE = "cloud.lost-race"
    CLOUD_RUNNING = "cloud.running"
    CLOUD_CANCELLED = "cloud.cancelled"
    CLOUD_FAILED = "cloud.failed"
    CLOUD_TASKS_FAILED = "cloud.tasks-failed"
    VERIFY_FAILED = "verify.failed"
    COMMIT_FAILED = "commit.failed"
    REACH_FAILED = "reach.failed"
    REBOOT_FAILED = "reboot.failed"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    JOURNAL_CORRUPT = "journal.corrupt"
    AGENT_DEFECT = "agent.defect"


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes one execution this one: a retry has another number, a recreated job another queue time.

    Attributes:
        job_id: the job, 1..64 of [a-zA-Z0-9_-].
        number: executionNumber as the service gave it; opaque.
        queued_at: queuedAt in whole seconds since the epoch.
    """

    job_id: JobId
    number: int
    queued_at: int

    def __post_init__(self) -> None:
        if not JOB_ID_PATTERN.fullmatch(self.job_id):
            raise ValueError(f"{self.job_id!r} is not a job id")
        # They are part of a file's name.
        if not all(type(one) is int and abs(one) < 1 << 63 for one in (self.number, self.queued_at)):
            raise ValueError(f"the execution of {self.job_id} has no number, or was never queued")

    def __str__(self) -> str:
        return f"{self.job_id}#{self.number}"

    @property
    def key(self) -> str:
        """The identity as a file name: letters, digits, `_`, `-` and `.` only, and never one with a dot in front."""
        return f"{self.job_id}.{self.number}.{self.queued_at}"


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution as the service showed it (JobExecution; MQTT: JobExecutionData).

    Attributes:
        document: the parsed job document; None when the service left it out or it is not a JSON object.
        seconds_left: approximateSecondsBeforeTimedOut; None when no timer runs or the service did not say.
    """

    identity: Identity
    status: Status
    version: int
    details: Mapping[str, str] = field(default_factory=dict)
    document: Json | None = None
    seconds_left: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How an execution ended on this device: what is reported is what happened.

    Attributes:
        status: SUCCEEDED, FAILED (may work next time) or REJECTED (never try this here).
        code: why, from the published list; None with SUCCEEDED only.
        reason: a sentence that a person can act on; never empty unless SUCCEEDED.
    """

    status: Status
    code: Code | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in (Status.SUCCEEDED, Status.FAILED, Status.REJECTED):
            raise ValueError(f"{self.status} is not a result that a device can report")
        if self.status is not Status.SUCCEEDED and (self.code is None or not self.reason):
            raise ValueError(f"a {self.status} result needs a code and a reason")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each verb may take, in seconds, and when silence means that a handler is stuck.

    Attributes:
        stall: seconds without an event, output or download byte; None: never.
    """

    check: float = 60
    prepare: float = 3600
    apply: float = 3600
    verify: float = 600
    commit: float = 300
    rollback: float = 1800
    reach: float = 1800
    stall: float | None = None

    def of(self, verb: Verb) -> float:
        """Return the seconds that `verb` may take."""
        return float(getattr(self, verb.value))


@dataclass(frozen=True, slots=True)
class Resources:
    """What one verb may use of the machine; None: as much as it wants. Kept by cgroup v2, where there is one.

    Attributes:
        memory: bytes (memory.max).
        processes: processes and threads at a time (pids.max).
        cpu: processors' worth of time, 0.5 is half of one (cpu.max).
    """

    memory: int | None = None
    processes: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a document asks for, judged and resolved: which handler, with what, and what it may do.

    Attributes:
        handler: the handler's name.
        argv: the program and its first arguments; the agent's own, never from a document.
        verbs: the verbs that the handler declares; always holds APPLY.
        digest: what was pinned when the job was judged, `sha256:…`.
        params: the document's parameters as the handler will read them.
        user: the account to run as; None: the agent's own.
        check_only: the document said "mode": "check".
        observe: the handler changes nothing: it may overtake what waits, run beside it, and needs no journal.
        max_defer: seconds that the claim may be put off; None: as long as it takes.
        elsewhere: what `apply` changes is not on this device.
        keeps_daemons: what a verb leaves running is meant to stay.
        resumes_across_versions: a later version of the handler may go on with what an earlier one began.
        needs: what the agent must provide beyond the contract, such as "cloud".
    """

    handler: str
    argv: tuple[str, ...]
    verbs: frozenset[Verb] = frozenset({Verb.APPLY})
    digest: str = ""
    version: str = ""
    params: Json = field(default_factory=dict)
    user: str | None = None
    limits: Limits = Limits()
    apply_rerun: bool = False
    cancel_apply: bool = False
    elsewhere: bool = False
    check_only: bool = False
    observe: bool = False
    max_defer: float | None = None
    keeps_daemons: bool = False
    resumes_across_versions: bool = False
    resources: Resources = Resources()
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if Verb.APPLY not in self.verbs:
            raise ValueError(f"handler {self.handler} does not declare apply")


@dataclass(frozen=True, slots=True)
class Process:
    """A running verb, told apart from any later process that gets the same pid.

    Attributes:
        pid: of the shim, which leads the handler's session and process group.
        started: field 22 of /proc/PID/stat, in clock ticks since boot.
        boot: the boot id under which it was started.
    """

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment that outlives the agent: seconds of CLOCK_BOOTTIME, which mean nothing in another boot."""

    at: float
    boot: str


@dataclass(frozen=True)
class Record:
    """All that the journal keeps of one execution; the truth after a crash.

    Attributes:
        identity: which execution.
        claim: the random mark sent in every update: how our own claim is told from another's.
        version: the service's versionNumber as last learned.
        document: the job document as delivered last; job.json is derived from it.
        verb: the verb in flight, None between verbs.
        process: of the verb in flight, None until it was spawned.
        attempts: how often each verb was started.
        deaths: agent deaths that the verb in flight did not survive.
        reboots: reboots that this execution asked for.
        reboot_asked: how often the machine was told to carry out the present one.
        again: the verb that follows the present reboot or wait.
        boot: the boot id when the present reboot was asked for, or when `verify` passed.
        until: when the verb in flight has had its time, when one that waits is run again, or when the machine should
            have carried out the reboot that it was told; None: nothing is timed, or an earlier agent wrote the record.
        applied: whether `apply` was ever started.
        cancelled: the service ended the execution (CANCELED, REMOVED or gone): nothing more is sent.
        ended: the service's terminal status for it, if it told one.
        result: how it ended here.
        owed: the result is not yet accepted by the service.
        unanswered: an earlier attempt at this very report got no answer.
        late: what the service held against our result, a sentence; shown for good as late truth.
        note: why it waits or what is unusual, for people.
        details: the handler's own status details, of all verbs that ended.
        order: the journal's count of finished executions, because the clock may be wrong after a boot; else 0.
    """

    identity: Identity
    phase: Phase
    claim: str
    version: int
    plan: Plan
    document: Json
    verb: Verb | None = None
    process: Process | None = None
    attempts: Mapping[Verb, int] = field(default_factory=dict)
    deaths: int = 0
    reboots: int = 0
    reboot_asked: int = 0
    again: Verb | None = None
    boot: str = ""
    until: Deadline | None = None
    applied: bool = False
    cancelled: bool = False
    ended: Status | None = None
    result: Result | None = None
    owed: bool = False
    unanswered: bool = False
    late: str = ""
    note: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    finished_at: float | None = None
    order: int = field(default=0, compare=False)
