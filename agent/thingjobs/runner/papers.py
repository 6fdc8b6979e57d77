"""The job.json of each execution: what a run begins with, and what comes anew while it runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from thingjobs.errors import StateError
from thingjobs.manifest import forbidden_cloud
from thingjobs.runner import given
from thingjobs.runner.place import account_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.machine.effects import Run
    from thingjobs.model import Identity, Json, Record
    from thingjobs.runner.place import Account, Place
    from thingjobs.runner.settings import Settings


class Papers:
    """What the agent wrote into the job.json of each execution. A handler may write there too: that is not believed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs: dict[Identity, Json] = {}

    def begin(self, run: Run, place: Place, account: Account | None, *, prepared: bool = False) -> None:
        """Make `place` ready for a run, with a job.json of the first revision.

        One that is prepared has a process by now, perhaps one that ended: its pipes and exit status stay as they are.

        Raises:
            OSError: it could not be written.
        """
        record = run.record
        deadline = time.time() + record.plan.limits.of(run.verb)
        job = given.job_json(run, thing=self._settings.thing, deadline=deadline, told=self._told(record))
        if not prepared:
            place.prepare(place.exit_file(run.verb, run.attempt), account)
        place.write_first_job(job, account)
        self._jobs[record.identity] = job

    def read(self, identity: Identity) -> Json:
        """Return what a handler reads that begins now: as it comes out of JSON."""
        job: Json = json.loads(json.dumps(self._jobs.get(identity, {})))
        return job

    def renew(self, record: Record, place: Place, change: Callable[[Json], Json]) -> None:
        """Put another revision of job.json in its place.

        Args:
            record: of the execution.
            place: where it works.
            change: makes the next revision of the one that was there.

        Raises:
            StateError: it could not be written.
        """
        job = self._jobs.get(record.identity)
        if job is None:
            old, told = place.read_job(), self._told(record)
            job = given.job_again(old, record, thing=self._settings.thing, now=time.time(), told=told)
        job = change(job)
        try:
            place.renew_job(job, account_for(record.plan))
        except OSError as error:
            raise StateError(f"cannot write job.json anew in {place.work}: {error.strerror or error}") from None
        self._jobs[record.identity] = job

    def forget(self, identity: Identity) -> None:
        """Take note that an execution is over."""
        self._jobs.pop(identity, None)

    def _told(self, record: Record) -> Json:
        settings, plan = self._settings, record.plan
        told = {
            "downloads": given.downloads(
                plan.handler, max_kib_s=settings.max_kib_s, digest_optional=settings.digest_optional
            ),
            "settings": dict(settings.told),
        }
        if given.CLOUD not in plan.needs:
            return told
        forbidden = forbidden_cloud(plan.handler, plan.needs, settings.cloud_handlers)
        return {**told, "cloud": given.cloud({} if forbidden else settings.cloud)}
