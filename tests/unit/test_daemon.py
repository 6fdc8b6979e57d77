"""What the loop works out by itself: next to nothing."""

from __future__ import annotations

from typing import Any

import pytest

from thingjobs import boot
from thingjobs.beginning import identity_of_key
from thingjobs.daemon import STOP_SECONDS, Daemon
from thingjobs.machine import State, Stopping
from thingjobs.machine.state import Job, Kind, Open
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Verb
from thingjobs.policy import Settings


def test_the_identity_of_an_execution_is_read_back_from_its_file_name() -> None:
    identity = Identity(JobId("job-1"), 7, 1_790_000_000)

    assert identity_of_key(identity.key) == identity


@pytest.mark.parametrize("name", ["", "job", "job.1", "job.one.2", "a.1.2.3", "not a job.1.2"])
def test_a_file_of_another_name_stops_nothing(name: str) -> None:
    assert identity_of_key(name) is None


def test_the_report_of_a_verb_that_was_waited_for_gets_its_time_however_long_that_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(boot, "clock", lambda: now)
    daemon: Any = object.__new__(Daemon)  # Only its rule for ending is looked at.
    daemon._enough, daemon._stop_at = None, now + STOP_SECONDS
    record = Record(Identity(JobId("fw-1"), 1, 1_790_000_000), Phase.APPLYING, "c0ffee", 1, Plan("h", ("/h",)), {})

    def stands(job: Job) -> None:
        jobs = {job.identity: job}
        daemon.state = State(Settings(agent="thingjobs/test"), "x", jobs=jobs, stopping=Stopping.WAIT)

    stands(Job(record, running=Verb.APPLY))
    now += 600
    assert not daemon._over()
    stands(Job(record, open=Open("token", Kind.REPORT)).with_(phase=Phase.REPORTING))
    now += STOP_SECONDS / 2
    assert not daemon._over()
    now += STOP_SECONDS
    assert daemon._over()
