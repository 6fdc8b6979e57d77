"""The journal's record as JSON and back: the on-disk formats. Pure; `journal` does the files.

Each release reads and writes its own format and the one before, because a device that falls back to its old image
gets the old agent back; a record keeps the format that it was born with. Format 1 is the first. The first line means
the same in every format to come: its number, and the SHA-256 of that number, a newline and the second line. So a
release tells a record that is newer than itself, which it leaves alone, from one of its own whose number was damaged,
which has a generation before it.

What a release may add without a new format: keys, which earlier releases leave out, and which it reads with a default;
and codes, which earlier releases report as `handler.failed`. Another phase, verb, status or meaning is a new format:
FORMAT and STEP change then, and nothing of what stands behind the step before.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

from thingjobs.errors import StateError
from thingjobs.model import (
    Code,
    Deadline,
    Identity,
    JobId,
    Limits,
    Phase,
    Plan,
    Process,
    Record,
    Resources,
    Result,
    Status,
    Verb,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.model import Json

Value = TypeVar("Value")

FORMAT = 1
LINES = 2
#: How every record begins.
_BEGINNING = b'{"format": '


@dataclass(frozen=True, slots=True)
class Step:
    """The way between the format before and FORMAT, for a record as JSON.

    Attributes:
        up: makes FORMAT of the one before.
        down: makes the one before of FORMAT, as far as that can say it.
    """

    up: Callable[[Json], Json]
    down: Callable[[Json], Json]


#: None: this is the first format.
STEP: Step | None = None


class CorruptError(StateError):
    """The bytes are not what was written."""


class CutError(CorruptError):
    """The bytes are a beginning of what was written, or zeros behind one: the power failed before they were synced."""


class NewerError(StateError):
    """Another release wrote this, a later one or one long gone; it is left as it is."""


def readable() -> frozenset[int]:
    """Return the formats that this release reads and writes."""
    return frozenset({FORMAT} if STEP is None else {FORMAT - 1, FORMAT})


def dump(record: Record, number: int | None = None) -> bytes:
    """Return the bytes of `record`: a line of JSON with format and checksum, and a line of JSON with the record.

    Args:
        record: the record.
        number: the format that it was born with; None: it is born now.
    """
    content = _to_json(record)
    number = FORMAT if number is None else number
    if STEP is not None and number != FORMAT:
        content = STEP.down(content)
    body = json.dumps(content, separators=(",", ":")).encode()
    header = json.dumps({"format": number, "sha256": _digest(number, body)}).encode()
    return header + b"\n" + body + b"\n"


def load(data: bytes) -> Record:
    """Return the record in `data`.

    Raises:
        CutError: the bytes are cut.
        CorruptError: the bytes are changed, or make no sense.
        NewerError: the format is one that this release does not know.
    """
    return load_born(data)[0]


def load_born(data: bytes) -> tuple[Record, int]:
    """Return the record in `data`, and the format that it was born with.

    Raises:
        CutError: the bytes are cut.
        CorruptError: the bytes are changed, or make no sense.
        NewerError: the format is one that this release does not know.
    """
    if _is_cut(data):
        raise CutError("it is cut")
    header, _, body = data.removesuffix(b"\n").partition(b"\n")
    try:
        head = json.loads(header)
        number, digest = head["format"], head["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"cannot read its first line: {error}") from None
    if not isinstance(number, int) or _digest(number, body) != digest or not data.endswith(b"\n"):
        raise CorruptError("its checksum does not fit")
    if number not in readable():
        raise NewerError(f"it has format {number}, and this release reads {sorted(readable())}")
    try:
        content = json.loads(body)
        return _from_json(STEP.up(content) if STEP is not None and number != FORMAT else content), number
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        # Cut: some of these repeat all that they could not read.
        raise CorruptError(f"cannot read the record: {error!r:.200}") from None


def _is_cut(data: bytes) -> bool:
    left = data.rstrip(b"\0")
    beginning = left[: len(_BEGINNING)] == _BEGINNING[: len(left)]
    return beginning and (left != data or not left.endswith(b"\n") or left.count(b"\n") < LINES)


def _digest(number: int, body: bytes) -> str:
    return hashlib.sha256(b"%d\n%b" % (number, body)).hexdigest()


def _to_json(record: Record) -> Json:
    done = record.phase is Phase.DONE
    return {
        "jobId": record.identity.job_id,
        "executionNumber": record.identity.number,
        "queuedAt": record.identity.queued_at,
        "phase": record.phase,
        "claim": record.claim,
        "version": record.version,
        "plan": _plan_to_json(record.plan, done=done),
        # Of a finished execution only what tells it apart and how it ended is kept.
        "document": {} if done else record.document,
        "verb": record.verb,
        "process": _plain(record.process) if record.process else None,
        "attempts": dict(record.attempts),
        "deaths": record.deaths,
        "reboots": record.reboots,
        "rebootAsked": record.reboot_asked,
        "again": record.again,
        "boot": record.boot,
        "until": _plain(record.until) if record.until else None,
        "applied": record.applied,
        "cancelled": record.cancelled,
        "ended": record.ended,
        "result": _result_to_json(record.result),
        "owed": record.owed,
        "unanswered": record.unanswered,
        "late": record.late,
        "note": record.note,
        "details": dict(record.details),
        "finishedAt": record.finished_at,
        "order": record.order,
    }


def _plain(value: Process | Deadline | Limits | Resources) -> Json:
    """Return a value of numbers and words as JSON, without the deep copies of `dataclasses.asdict`."""
    return {name: getattr(value, name) for name in value.__slots__}


def _from_json(raw: Json) -> Record:
    process, until = raw["process"], raw.get("until")
    return Record(
        identity=Identity(JobId(raw["jobId"]), raw["executionNumber"], raw["queuedAt"]),
        phase=Phase(raw["phase"]),
        claim=raw["claim"],
        version=raw["version"],
        plan=_plan_from_json(raw["plan"]),
        document=raw["document"],
        verb=_verb(raw["verb"]),
        process=_known(Process, process) if process else None,
        attempts={Verb(verb): int(count) for verb, count in raw["attempts"].items()},
        deaths=raw["deaths"],
        reboots=raw["reboots"],
        reboot_asked=raw["rebootAsked"],
        again=_verb(raw["again"]),
        boot=raw["boot"],
        until=_known(Deadline, until) if until else None,
        applied=raw["applied"],
        cancelled=raw["cancelled"],
        ended=Status(raw["ended"]) if raw["ended"] else None,
        result=_result_from_json(raw["result"]),
        owed=raw["owed"],
        unanswered=raw["unanswered"],
        late=raw["late"],
        note=raw["note"],
        details=dict(raw["details"]),
        finished_at=raw["finishedAt"],
        order=raw.get("order", 0),
    )


def _known(kind: Callable[..., Value], raw: Json) -> Value:
    """Make a value of what this release knows of it."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in raw.items() if name in names})


def _verb(value: str | None) -> Verb | None:
    return Verb(value) if value else None


def _plan_to_json(plan: Plan, *, done: bool) -> Json:
    return {
        "handler": plan.handler,
        "argv": list(plan.argv),
        "verbs": sorted(plan.verbs),
        "digest": plan.digest,
        "version": plan.version,
        "params": {} if done else plan.params,
        "user": plan.user,
        "limits": _plain(plan.limits),
        "applyRerun": plan.apply_rerun,
        "cancelApply": plan.cancel_apply,
        "elsewhere": plan.elsewhere,
        "checkOnly": plan.check_only,
        "observe": plan.observe,
        "maxDefer": plan.max_defer,
        "keepsDaemons": plan.keeps_daemons,
        "resumesAcrossVersions": plan.resumes_across_versions,
        "resources": _plain(plan.resources),
        "needs": sorted(plan.needs),
    }


def _plan_from_json(raw: Json) -> Plan:
    return Plan(
        handler=raw["handler"],
        argv=tuple(raw["argv"]),
        verbs=frozenset(Verb(verb) for verb in raw["verbs"]),
        digest=raw["digest"],
        version=raw["version"],
        params=raw["params"],
        user=raw["user"],
        limits=_known(Limits, raw["limits"]),
        apply_rerun=raw["applyRerun"],
        cancel_apply=raw["cancelApply"],
        elsewhere=raw["elsewhere"],
        check_only=raw["checkOnly"],
        observe=raw["observe"],
        max_defer=raw["maxDefer"],
        keeps_daemons=raw["keepsDaemons"],
        resumes_across_versions=raw["resumesAcrossVersions"],
        resources=_known(Resources, raw["resources"]),
        needs=frozenset(raw["needs"]),
    )


def _result_to_json(result: Result | None) -> Json | None:
    return {"status": result.status, "code": result.code, "reason": result.reason} if result else None


def _result_from_json(raw: Json | None) -> Result | None:
    if raw is None:
        return None
    status, code, reason = Status(raw["status"]), raw["code"], raw["reason"]
    if isinstance(code, str) and code and code not in set(Code):
        return Result(status, Code.HANDLER_FAILED, f"{code}: {reason}")
    return Result(status, Code(code) if code else None, reason)
