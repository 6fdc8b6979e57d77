"""What the agent is doing, as a JSON object that people and programs read: pure, from the core's state and records.

Handlers and gates have their say in it, and nothing of what they say that must stay secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.machine.state import UNCLAIMED, Stopping, Timer
from thingjobs.model import Phase
from thingjobs.redact import redacted_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingjobs.machine.state import Job, State
    from thingjobs.model import Json, Record

#: Phases in which nothing goes on until something else happens.
_WAITING = frozenset({Phase.DEFERRED, Phase.CLAIMING, Phase.REBOOTING})


def of_agent(state: State, finished: Iterable[Record], *, thing: str, clock: float, lost: str = "") -> Json:
    """Return the status of a running agent.

    Args:
        state: the core's.
        finished: records of finished executions, oldest first.
        thing: the thing's name.
        clock: seconds, as in the state's timers.
        lost: why the last connection ended or was not made; "": there was none yet, or nobody knows.
    """
    since = state.connected_at
    jobs = [of_job(job, clock) for job in state.jobs.values()]
    foreign = sorted(state.foreign, key=str)
    found: Json = {
        **_common(thing, jobs, [job.record for job in state.jobs.values()], finished),
        "running": True,
        "connected": since is not None,
        "agent": state.settings.agent,
        "connectedSeconds": None if since is None else round(clock - since),
        "unconnected": lost if since is None else "",
        "foreign": [{"jobId": one.job_id, "executionNumber": one.number} for one in foreign],
        "stopping": state.stopping is not Stopping.NO,
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
    hidden: Json = redacted_json({**common, **absent, "agent": "", "foreign": [], "stopping": False})
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


def of_job(job: Job, clock: float) -> Json:
    """Return what is known of an execution that the agent is busy with."""
    waits = job.phase in _WAITING or bool(job.record.note)
    again = job.timers.get(Timer.AGAIN, job.timers.get(Timer.DEFER))
    return {
        **_of_record(job.record),
        "progress": job.heard.percent,
        "message": job.heard.message,
        "waits": job.record.note or str(job.phase) if waits else "",
        "before": job.gate,
        "againSeconds": None if again is None else max(0, round(again - clock)),
        "claimed": job.phase not in UNCLAIMED,
    }


def _of_record(record: Record) -> Json:
    result = record.result
    return {
        "jobId": record.identity.job_id,
        "executionNumber": record.identity.number,
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
