"""What a handler is given (contract version 1): job.json and the environment. Pure."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from thingjobs.handler import CONTRACT
from thingjobs.machine.effects import Run
from thingjobs.model import Verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from thingjobs.model import Json, Record

#: What a manifest calls AWS credentials, and job.json all about the cloud.
CLOUD = "cloud"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: In it: how many revisions came of credentials; the others came of parameters. And what an answer brings.
ANSWERS = "answers"
ANSWER = frozenset({"credentials", "problem", "trouble"})
#: What numbers JSON readers in other languages keep exactly.
_MOST = 2**53


def job_json(run: Run, *, thing: str, deadline: float, told: Json) -> Json:
    """Return what the handler reads as job.json.

    Args:
        run: which verb of which execution.
        thing: the thing's name.
        deadline: seconds since the epoch.
        told: what the agent says of itself: `downloads`, `settings`, and `cloud` if the handler needs that.
    """
    identity = run.record.identity
    return {
        "contract": CONTRACT,
        "jobId": identity.job_id,
        "execution": identity.number,
        "thing": thing,
        "params": run.record.plan.params,
        "verb": run.verb,
        "attempt": run.attempt,
        "resumed": run.resumed,
        "rebooted": run.rebooted,
        "dryRun": run.dry_run,
        "deadline": deadline,
        **told,
        "revision": 1,
    }


def job_again(old: Json, record: Record, *, thing: str, now: float, told: Json) -> Json:
    """Return the job.json of a run that an earlier agent started, as far as what is left of it makes sense.

    A handler may have written what stands there, so nothing of it is taken that is known otherwise; `now` is in
    seconds since the epoch.
    """
    verb = record.verb or Verb.APPLY
    run = Run(
        record,
        verb,
        record.attempts.get(verb, 1),
        resumed=old.get("resumed") is True,
        rebooted=old.get("rebooted") is True,
        dry_run=old.get("dryRun") is True,
    )
    deadline = _number(old.get("deadline"), now + record.plan.limits.of(verb))
    job = job_json(run, thing=thing, deadline=deadline, told=told)
    # Where the count was lost, this is more than anybody can have counted to.
    job["revision"] = int(_number(old.get("revision"), now))
    if CLOUD in job:
        before = old.get(CLOUD)
        answers = int(_number(before.get(ANSWERS) if isinstance(before, dict) else None, 0))
        job[CLOUD] = {**job[CLOUD], ANSWERS: min(answers, job["revision"] - 1)}
    return job


def _number(value: object, otherwise: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value < _MOST:
        return float(value)
    return otherwise


def anew(job: Json, params: Json) -> Json:
    """Return a job.json that came anew: the next revision, with these parameters."""
    return {**job, "params": params, "revision": job["revision"] + 1}


def cloud(told: Json) -> Json:
    """Return what a handler that needs the cloud reads of it from the first revision on: no credentials yet."""
    return {**told, ANSWERS: 0}


def answered(job: Json, answer: Json) -> Json:
    """Return a job.json with the answer to {"refresh": "cloud"}: the next revision.

    `answer` holds `credentials`, or `problem` and `trouble`; what an earlier one held is gone.
    """
    kept = {key: value for key, value in job[CLOUD].items() if key not in ANSWER}
    told = {**kept, ANSWERS: kept[ANSWERS] + 1, **answer}
    return {**job, CLOUD: told, "revision": job["revision"] + 1}


def downloads(handler: str, *, max_kib_s: int, digest_optional: Sequence[str]) -> Json:
    """Return the rules for what a handler downloads."""
    optional = any(fnmatchcase(handler, pattern) for pattern in digest_optional)
    return {"maxKibPerSecond": max_kib_s, "digestRequired": not optional}


def with_own_commands(path: str) -> str:
    """Return a PATH on which handlers find `thingjobs job` too, behind all else: an environment may be on no PATH."""
    own = os.path.dirname(sys.executable)  # noqa: PTH120 - a Path would make of it what the system would
    return path if own in path.split(os.pathsep) else f"{path}{os.pathsep}{own}"


def environment(more: Mapping[str, str], *, home: str, verb: Verb, work: Path, events: Path) -> dict[str, str]:
    """Return the environment of a handler; nothing in it comes from the job.

    `more` is what the operator and the agent's own environment give; it cannot replace what the contract says.
    """
    return {
        "PATH": DEFAULT_PATH,
        "LANG": "C.UTF-8",
        **more,
        "HOME": home,
        "JOB_CONTRACT": str(CONTRACT),
        "JOB_VERB": verb.value,
        "JOB_DIR": str(work),
        "JOB_EVENTS": str(events),
    }
