"""What the agent is doing, as a JSON object that people and programs read: pure, from the core's state and records.

Handlers and gates have their say in it, and nothing of what they say that must stay secret.

What a device cannot know is not in it: the service tells at most 10 executions that wait, and none of them anew after a
connection until something changes. A refused execution is in no journal, so the next agent does not know of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.machine.state import UNCLAIMED, Stopping, Timer
from thingjobs.model import Phase
from thingjobs.redact import redacted_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thingjobs.machine.state import Job, State
    from thingjobs.model import Identity, Json, Record

#: Phases in which nothing goes on until something else happens, and what is said where nobody said what.
_WAITING = {
    Phase.DEFERRED: "waits for its turn",
    Phase.CLAIMING: "waits for the service",
    Phase.REBOOTING: "waits for the reboot",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the loop knows beside the core.

    Attributes:
        lost: why the last connection ended or was not made; "": there was none yet, or nobody knows.
        queued: what waits, as the service told it last, in its order.
        refused: records of executions that were refused, the oldest first.
        trouble: what is short or broken for now, a line each.
    """

    lost: str = ""
    queued: Sequence[Identity] = ()
    refused: Iterable[Record] = ()
    trouble: Sequence[str] = ()


def of_agent(state: State, finished: Iterable[Record], told: Told, *, thing: str, clock: float) -> Json:
    """Return the status of a running agent.

    Args:
        state: the core's.
        finished: records of finished executions, oldest first.
        told: what else is known.
        thing: the thing's name.
        clock: seconds, as in the state's timers.
    """
    since = state.connected_at
    jobs = [of_job(job, clock) for job in state.jobs.values()]
    ended = sorted((*finished, *told.refused), key=lambda record: record.finished_at or 0.0)
    found: Json = {
        **_common(thing, jobs, [job.record for job in state.jobs.values()], ended),
        "running": True,
        "connected": since is not None,
        "agent": state.settings.agent,
        "connectedSeconds": None if since is None else round(clock - since),
        "unconnected": told.lost if since is None else "",
        "queued": [_named(identity) for identity in _queued(state, told.queued)],
        "foreign": [_named(identity) for identity in sorted(state.foreign, key=str)],
        "stopping": state.stopping is not Stopping.NO,
        **({"trouble": list(told.trouble)} if told.trouble else {}),
    }
    hidden: Json = redacted_json(found)
    return hidden


def of_journal(records: Iterable[Record], *, thing: str) -> Json:
    """Return the status when no agent runs: what the journal holds."""
    everything = list(records)
    open_ = [record for record in everything if record.phase is not Phase.DONE]
    done = [record for record in everything if record.phase is Phase.DONE]
    common = _common(thing, [_of_record(record) for record in open_], open_, done)
    absent = {"running": False, "connected": False, "connectedSeconds": None, "unconnected": ""}
    hidden: Json = redacted_json({**common, **absent, "agent": "", "queued": [], "foreign": [], "stopping": False})
    return hidden


def _common(thing: str, jobs: list[Json], open_: list[Record], finished: Iterable[Record]) -> Json:
    done = list(finished)
    return {
        "thing": thing,
        "jobs": jobs,
        "owed": [_of_record(record) for record in open_ if record.owed],
        "late": [_of_record(record) for record in done if record.late],
        "last": [_of_record(record) for record in reversed(done)],
    }


def _queued(state: State, told: Sequence[Identity]) -> list[Identity]:
    """Return what waits and is not at work here, left alone, or over."""
    offer = [state.offer.identity] if state.offer else []
    known = {*state.jobs, *state.foreign, *state.remembered}
    waiting = dict.fromkeys((*offer, *told))
    return [one for one in waiting if one not in known and state.settings.ours(one.job_id)]


def _named(identity: Identity) -> Json:
    return {"jobId": identity.job_id, "executionNumber": identity.number}


def of_job(job: Job, clock: float) -> Json:
    """Return what is known of an execution that the agent is busy with."""
    again = job.timers.get(Timer.AGAIN, job.timers.get(Timer.DEFER))
    return {
        **_of_record(job.record),
        "progress": job.heard.percent,
        "message": job.heard.message,
        "waits": job.record.note or _WAITING.get(job.phase, ""),
        "before": job.gate,
        "againSeconds": None if again is None else max(0, round(again - clock)),
        "claimed": job.phase not in UNCLAIMED,
    }


def _of_record(record: Record) -> Json:
    result = record.result
    return {
        **_named(record.identity),
        "handler": record.plan.handler,
        "phase": record.phase,
        "verb": record.verb,
        "status": result.status if result else record.ended,
        "code": result.code if result else None,
        "reason": result.reason if result else "",
        "late": record.late,
        "finishedAt": record.finished_at,
        "details": dict(record.details),
    }


#: What every answer has, whether an agent runs or not.
KEYS = frozenset(of_journal((), thing=""))
