"""The operator's side: what is needed here of the AWS IoT control plane, and the passing of time."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.testing.ledger import Ledger
from thingjobs.testing.records import CANCELED, IN_PROGRESS, NO_DETAILS, QUEUED, REMOVED, TIMED_OUT, Job
from thingjobs.testing.transitions import moved, queued
from thingjobs.testing.validation import JOB_ID, MAX_TIMEOUT_MINUTES, THING_NAME, details_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from thingjobs.testing.records import ExecutionView

#: CreateJob: the longest document, before placeholders are replaced.
MAX_DOCUMENT_CHARACTERS = 32768
#: CreateJob, jobExecutionsRetryConfig: over all criteria.
MAX_RETRIES = 10
#: CreateJob, targets.
MAX_TARGETS = 100
_RETRY_KINDS = frozenset({"FAILED", "TIMED_OUT", "ALL"})


class ControlPlaneError(Exception):
    """The control plane refuses a call; nothing has changed.

    Attributes:
        code: the exception's name in the `iot` API, such as ResourceNotFoundException.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ControlPlane(Ledger):
    """Makes, cancels and deletes jobs. Each call notifies the things concerned before it returns."""

    def create_job(
        self,
        job_id: str,
        document: object,
        things: Iterable[str],
        *,
        in_progress_timeout_minutes: int | None = None,
        retries: Mapping[str, int] | None = None,
    ) -> None:
        """Queue a job on each of `things`, in that order.

        Args:
            job_id: 1..64 of [a-zA-Z0-9_-]. `get`, `start-next`, `notify` and `notify-next` are legal too, but
                their topics mean something else, so a device cannot ask for such a job over MQTT.
            document: any value that JSON can hold; a copy is kept.
            things: 1..100 thing names.
            in_progress_timeout_minutes: an execution that is IN_PROGRESS longer than this becomes TIMED_OUT.
            retries: how many retries each of FAILED, TIMED_OUT and ALL gets, 10 at most in all.

        Raises:
            ControlPlaneError: a value is out of range, or the job exists.
        """
        cannot = f"cannot create job {job_id!a}"
        targets = list(dict.fromkeys(things))
        allowed = MappingProxyType(dict(retries or {}))
        problem = _names_problem(job_id, targets) or _settings_problem(in_progress_timeout_minutes, allowed)
        if problem:
            raise ControlPlaneError("InvalidRequestException", f"{cannot}: {problem}")
        try:
            copy = _copied(document)
        except (TypeError, ValueError) as error:
            raise ControlPlaneError("InvalidRequestException", f"{cannot}: its document: {error}") from error
        with self._locked():
            if job_id in self._jobs:
                raise ControlPlaneError("ResourceAlreadyExistsException", f"{cannot}: it exists")
            job = Job(job_id, copy, in_progress_timeout_minutes, allowed)
            self._jobs[job_id] = job
            for thing in targets:
                with self._changing(thing):
                    self._put(queued(job, thing, 1, self._clock()))

    def cancel_job(self, job_id: str, *, force: bool = False) -> None:
        """Cancel what is QUEUED of a job, with `force` what is IN_PROGRESS too; nothing is retried any more.

        Raises:
            ControlPlaneError: there is no such job.
        """
        with self._locked():
            self._jobs[job_id] = replace(self._job(job_id, "cancel"), cancelled=True)
            self._end(CANCELED, lambda it: it.job_id == job_id and (force or it.status == QUEUED))

    def cancel_execution(
        self,
        thing: str,
        job_id: str,
        *,
        force: bool = False,
        expected_version: int | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Cancel the latest execution of a job on one thing.

        Args:
            thing: the thing's name.
            job_id: the job.
            force: needed when it is IN_PROGRESS.
            expected_version: its versionNumber must be this.
            details: replace its status details.

        Raises:
            ControlPlaneError: there is none, it is terminal, it is IN_PROGRESS and `force` is not given, its
                version is another one, or `details` could not be stored.
        """
        cannot = f"cannot cancel {job_id} on {thing}"
        if problem := details_problem(dict(details or {})):
            raise ControlPlaneError("InvalidRequestException", f"{cannot}: {problem}")
        with self._locked():
            found = self._rosters[thing].find(job_id, None)
            if found is None:
                raise ControlPlaneError("ResourceNotFoundException", f"{cannot}: there is no such execution")
            if expected_version not in (None, found.version):
                raise ControlPlaneError(
                    "VersionConflictException",
                    f"{cannot}: its version is {found.version}, not {expected_version}",
                )
            if not found.pending or (found.status == IN_PROGRESS and not force):
                raise ControlPlaneError("InvalidStateTransitionException", f"{cannot}: it is {found.status}")
            self._end(CANCELED, lambda it: it is found, details=details or NO_DETAILS)

    def delete_job(self, job_id: str, *, force: bool = False) -> None:
        """Delete a job with all its executions; its id may be used again.

        Raises:
            ControlPlaneError: there is no such job, or it is neither cancelled nor done and not forced.
        """
        with self._locked():
            job = self._job(job_id, "delete")
            executions = [it for it in self._all() if it.job_id == job_id]
            if not (force or job.cancelled) and any(it.pending for it in executions):
                raise ControlPlaneError(
                    "InvalidStateTransitionException", f"cannot delete job {job_id}: it is not done"
                )
            for thing in {it.thing: None for it in executions}:
                with self._changing(thing):
                    for attempt in self._rosters[thing].attempts(job_id):
                        self._rosters[thing].remove(attempt)
            del self._jobs[job_id]

    def delete_execution(self, thing: str, job_id: str, number: int, *, force: bool = False) -> None:
        """Delete one execution; its number may be used again.

        Raises:
            ControlPlaneError: there is none, or it is IN_PROGRESS and `force` is not given.
        """
        cannot = f"cannot delete {job_id}#{number} on {thing}"
        with self._locked():
            found = self._rosters[thing].find(job_id, number)
            if found is None:
                raise ControlPlaneError("ResourceNotFoundException", f"{cannot}: there is no such execution")
            if found.status == IN_PROGRESS and not force:
                raise ControlPlaneError("InvalidStateTransitionException", f"{cannot}: it is {found.status}")
            with self._changing(thing):
                self._rosters[thing].remove(found)

    def remove_thing(self, thing: str) -> None:
        """Take a thing out of the target group of all its jobs: what was pending becomes REMOVED."""
        with self._locked():
            self._end(REMOVED, lambda it: it.thing == thing)

    def hide_queued(self, thing: str, hidden: bool) -> None:  # noqa: FBT001 - reads as what it sets
        """Close (`hidden`) or open a maintenance window: while closed, a device sees nothing that is QUEUED."""
        with self._locked(), self._changing(thing):
            self._rosters[thing].hidden = hidden

    def tick(self) -> None:
        """Fire the timers that are due: those executions become TIMED_OUT, and are retried if that is left.

        Nothing else fires a timer. The live service is up to a minute late, and takes updates until then.
        """
        with self._locked():
            now = self._clock()
            self._end(TIMED_OUT, lambda it: it.due is not None and it.due <= now)

    def next_deadline(self) -> float | None:
        """Return when `tick` will next have something to do; None while no timer runs."""
        with self._lock:
            running = chain.from_iterable(roster.unfinished() for roster in self._rosters.values())
            return min((it.due for it in running if it.due is not None), default=None)

    def _job(self, job_id: str, verb: str) -> Job:
        if job := self._jobs.get(job_id):
            return job
        raise ControlPlaneError("ResourceNotFoundException", f"cannot {verb} job {job_id}: there is no such job")

    def _end(
        self,
        status: str,
        which: Callable[[ExecutionView], bool],
        *,
        details: Mapping[str, str] = NO_DETAILS,
    ) -> None:
        counts = self._behaviour.count_service_changes
        for thing, roster in self._rosters.items():
            ending = [it for it in roster.unfinished() if which(it)]
            if not ending:
                continue
            with self._changing(thing):
                for execution in ending:
                    self._put(moved(execution, status, self._clock(), details=details, counts=counts))


def _names_problem(job_id: str, things: list[str]) -> str:
    if not JOB_ID.fullmatch(job_id):
        return f"its id does not match {JOB_ID.pattern}"
    if not 1 <= len(things) <= MAX_TARGETS:
        return f"it has {len(things)} targets, not 1..{MAX_TARGETS}"
    return next((f"{thing!a} is not a thing name" for thing in things if not THING_NAME.fullmatch(thing)), "")


def _settings_problem(timeout_minutes: int | None, retries: Mapping[str, int]) -> str:
    if timeout_minutes is not None and not 1 <= timeout_minutes <= MAX_TIMEOUT_MINUTES:
        return f"its in-progress timeout is {timeout_minutes} minutes, not 1..{MAX_TIMEOUT_MINUTES}"
    if unknown := set(retries) - _RETRY_KINDS:
        return f"{', '.join(sorted(unknown))}: only {', '.join(sorted(_RETRY_KINDS))} can be retried"
    if sum(retries.values()) > MAX_RETRIES or any(times < 0 for times in retries.values()):
        return f"it has more than {MAX_RETRIES} retries, or fewer than none"
    return ""


def _copied(document: object) -> Any:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    text.encode()
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_DOCUMENT_CHARACTERS}")
    return json.loads(text)
