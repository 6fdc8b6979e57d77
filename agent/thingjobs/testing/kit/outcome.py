"""What came of a run: values to assert on, which also print themselves as a timeline. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.handler import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Json = dict[str, Any]
#: Details of every update that are the agent's own, and are shown elsewhere or random.
OURS = frozenset({"agent", "claim", "code", "reason", "progress"})
_EXITS: Mapping[int | None, str] = MappingProxyType({one.value: one.name.lower().replace("_", " ") for one in Exit})


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one verb.

    Attributes:
        verb: "check", "prepare", "apply", "verify", "commit" or "rollback".
        attempt: which run of this verb, counted from 1.
        exit: its exit status (`thingjobs.handler.Exit`); None if it has none: a signal or the power ended it.
        signal: the signal that ended it, such as "SIGTERM"; "" if none did.
        interrupted: it was ended without a word, by a power cut, or its exit status went with that.
        reason: what it gave as the reason; if it gave none and failed, the last line on stderr.
        code: the code that it gave, such as "fetch.digest"; "" if none.
        reject: it said that this job must never be tried here.
        after: the seconds that `Retry` asked for; None if it left that to the agent.
        details: status details that it gave in this run.
        events: what it reported, in order, as the JSON objects that the agent reads.
        log: what it wrote to stdout and stderr.
        broken: lines in $JOB_EVENTS that were no events.
    """

    verb: str
    attempt: int = 1
    exit: int | None = None
    signal: str = ""
    interrupted: bool = False
    reason: str = ""
    code: str = ""
    reject: bool = False
    after: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    events: tuple[Json, ...] = ()
    log: str = ""
    broken: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether it is done, a reboot that it asked for included."""
        return self.exit in (Exit.DONE, Exit.ALREADY, Exit.DONE_AND_REBOOT)

    @property
    def ending(self) -> str:
        """How it ended, in words: "done", "later", "exit 3", "killed by SIGTERM", "interrupted"."""
        if self.interrupted:
            return "interrupted"
        if self.signal:
            return f"killed by {self.signal}"
        return _EXITS.get(self.exit, f"exit {self.exit}")

    @property
    def how(self) -> str:
        """How it ended and why, in one line."""
        said = [f"({self.code})"] * bool(self.code) + [self.reason] * bool(self.reason)
        return " ".join([self.ending, *said])

    def __repr__(self) -> str:
        run = f" #{self.attempt}" if self.attempt > 1 else ""
        return f"<{self.verb}{run}: {self.how}>"

    def __str__(self) -> str:
        events = [f"  {shown_event(event)}" for event in self.events]
        return "\n".join([repr(self)[1:-1], *events, *_log_lines(self.log)])


@dataclass(frozen=True, slots=True)
class Update:
    """One UpdateJobExecution that the agent sent.

    Attributes:
        status: what it says.
        details: the status details, all of them.
        answer: "accepted", the error code that it was refused with, or "no answer".
    """

    status: str
    details: Mapping[str, str]
    answer: str

    def __str__(self) -> str:
        pairs = [shown_pair(key, value) for key, value in self.details.items() if key not in ("agent", "claim")]
        answer = [] if self.answer == "accepted" else [f"[{self.answer}]"]
        return " ".join([self.status, *pairs, *answer])


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline; `at` is in seconds since the beginning, none of which have really passed."""

    at: float
    what: str
    text: str = ""


class Diary:
    """The timeline while it is being written.

    Args:
        clock: what time it is.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self.lines: list[Line] = []

    def write(self, what: str, text: str) -> None:
        """Add a line."""
        self.lines.append(Line(self._clock() - self._began, what, text))


@dataclass(frozen=True, slots=True)
class JobRun:
    """What became of a job.

    `print(job)`, and the report of a test that fails, show the timeline: verbs and how they ended, what they reported,
    what was sent to the service and what went wrong on the way.

    Attributes:
        handler: its name.
        status: the status that the service holds in the end; QUEUED if the job still waits.
        statuses: the statuses that it had after QUEUED, each once in a row.
        code: why it ended so, from the published list (`thingjobs.model.Code`); "" if it succeeded.
        reason: the same as a sentence.
        details: the handler's own status details, as the service holds them.
        calls: the runs of verbs, in order.
        updates: the status updates sent, in order, those that were lost or refused included.
        late: what happened here after the service had ended the job, as a sentence.
        notes: what the agent has to say to people: why a job waits, what was dropped.
        reboots: how often the handler had the machine rebooted.
        dir: the job's folder, as the last verb left it.
        would: with mode="check": "run", "nothing" or "wait"; else "".
        lines: the timeline.
    """

    handler: str
    status: str
    statuses: list[str]
    code: str
    reason: str
    details: dict[str, str]
    calls: tuple[Call, ...]
    updates: tuple[Update, ...]
    late: str
    notes: tuple[str, ...]
    reboots: int
    dir: Path
    would: str = ""
    lines: tuple[Line, ...] = field(default=(), repr=False)

    @property
    def succeeded(self) -> bool:
        """Whether the service holds SUCCEEDED."""
        return self.status == "SUCCEEDED"

    @property
    def failed(self) -> bool:
        """Whether the service holds FAILED: another try may succeed."""
        return self.status == "FAILED"

    @property
    def rejected(self) -> bool:
        """Whether the service holds REJECTED: this job must never be tried here."""
        return self.status == "REJECTED"

    @property
    def verbs(self) -> list[str]:
        """The verbs that ran, in order; one that ran twice is there twice."""
        return [call.verb for call in self.calls]

    @property
    def events(self) -> list[Json]:
        """What the handler reported, over all verbs."""
        return [event for call in self.calls for event in call.events]

    @property
    def log(self) -> str:
        """What the handler wrote to stdout and stderr, over all verbs."""
        return "".join(call.log for call in self.calls)

    def __repr__(self) -> str:
        why = f' {self.code} "{self.reason}"' if self.code else ""
        return f"<job {self.handler}: {self.status}{why} after {', '.join(self.verbs) or 'no verb'}>"

    def __str__(self) -> str:
        return "\n".join([repr(self)[1:-1], *shown(self.lines)])


def shown(lines: tuple[Line, ...]) -> list[str]:
    """Return a timeline as lines of text."""
    made, before = [], ""
    for line in lines:
        at = f"{line.at:.0f} s"
        made.append(f"{'' if at == before else at:>9}  {line.what:<9} {line.text}".rstrip())
        before = at
    return made


def shown_event(event: Json) -> str:
    """Return an event as a person reads it."""
    percent, message = event.get("progress"), event.get("message")
    parts = [f"{percent:g} %"] if isinstance(percent, (int, float)) else []
    parts += [str(message)] if message else []
    details = event.get("details")
    parts += [shown_pair(key, value) for key, value in details.items()] if isinstance(details, dict) else []
    parts += [shown_pair(key, value) for key, value in event.items() if key not in ("progress", "message", "details")]
    return " ".join(parts) or "{}"


def shown_pair(key: str, value: object) -> str:
    """Return a pair as `key=value`, in quotes where it holds a blank."""
    text = str(value)
    return f"{key}={text!r}" if " " in text or not text else f"{key}={text}"


def _log_lines(log: str) -> list[str]:
    return [f"  | {line}" for line in log.splitlines()]
