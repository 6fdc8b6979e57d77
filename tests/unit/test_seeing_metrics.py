"""The metrics are what Prometheus reads, whatever the agent is doing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from thingjobs.machine.state import Job, State
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.policy import Settings
from thingjobs.seeing import metrics

IDLE: dict[str, Any] = {"thing": "pump-7", "connected": True, "jobs": [], "owed": [], "late": []}
IDENTITY = Identity(JobId("fw-7"), 1, 1_700_000_000)
#: The grammar of a sample, and of a label's value, in the text format 0.0.4.
SAMPLE = re.compile(r'([a-z_]+)((?:\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})?) (\S+)')


def text(status: dict[str, Any], ended: dict[str, int] | None = None, expires: float | None = None) -> str:
    return metrics.text("1.0", status, ended or {}, started=1.7e9, expires=expires)


def read(written: str) -> dict[str, float]:
    """Read samples as the collector does: types come before them, each series is there once."""
    found: dict[str, float] = {}
    typed: list[str] = []
    assert written.endswith("\n")
    for line in written[:-1].split("\n"):
        if line.startswith("# "):
            typed += [line.split(" ")[2]] if line.startswith("# TYPE ") else []
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == typed[-1]
        assert sample[1] + sample[2] not in found
        found[sample[1] + sample[2]] = float(sample[3])
    assert len(typed) == len(set(typed))
    return found


@given(
    st.text(), st.lists(st.sampled_from(Phase), max_size=4), st.dictionaries(st.sampled_from(Status), st.integers(0))
)
def test_what_is_written_can_be_read(thing: str, phases: list[Phase], ended: dict[str, int]) -> None:
    jobs = [{"phase": phase, "waits": ""} for phase in phases]
    found = read(text({**IDLE, "thing": thing, "jobs": jobs}, ended, 1.8e9))
    assert sum(value for name, value in found.items() if name.startswith("thingjobs_jobs{")) == len(phases)


def test_what_the_agent_is_doing_is_counted() -> None:
    jobs = [{"phase": "applying", "waits": ""}, {"phase": "deferred", "waits": "gate battery: empty"}]
    status = {**IDLE, "jobs": jobs, "owed": [{}], "late": [{}, {}], "trouble": ["no room"], "connected": False}
    found = read(text(status, {"SUCCEEDED": 3, "TIMED_OUT": 1}, 1.8e9 + 0.5))
    expected = {
        'jobs{phase="applying"}': 1,
        "jobs_waiting": 1,
        "reports_owed": 1,
        "late_truths": 2,
        "troubles": 1,
        "connected": 0,
        'jobs_ended_total{status="SUCCEEDED"}': 3,
        'jobs_ended_total{status="FAILED"}': 0,
        'jobs_ended_total{status="TIMED_OUT"}': 1,
        "certificate_expiry_seconds": 1_800_000_000,
        'info{version="1.0",thing="pump-7"}': 1,
    }
    assert expected.items() <= {name.removeprefix("thingjobs_"): value for name, value in found.items()}.items()


def test_an_unknown_end_of_the_certificate_is_left_out() -> None:
    assert "certificate" not in text(IDLE)


def record(phase: Phase, **more: Any) -> Record:
    return Record(IDENTITY, phase, "c1a1m", 2, Plan("firmware", ()), {}, **more)


def after(before: Record, now: Record | None) -> list[str]:
    """Return how a job ended in a step."""
    first = State(Settings("thingjobs/test"), "n", jobs={IDENTITY: Job(record=before)})
    last = replace(first, jobs={IDENTITY: Job(record=now)} if now else {})
    return list(metrics.ended_in(first, last))


def test_a_job_is_counted_when_it_ends_and_only_then() -> None:
    failed = Result(Status.FAILED, Code.HANDLER_EXIT, "exit status 3")
    reporting, done = record(Phase.REPORTING, result=failed), record(Phase.DONE, result=failed)
    assert after(record(Phase.APPLYING), reporting) == []
    assert after(reporting, done) == after(reporting, None) == ["FAILED"]
    assert after(done, None) == after(done, done) == []


def test_a_job_that_the_service_ended_is_counted_as_that_and_one_left_alone_is_not() -> None:
    assert after(record(Phase.APPLYING), record(Phase.DONE, ended=Status.TIMED_OUT)) == ["TIMED_OUT"]
    assert after(record(Phase.PREPARING), record(Phase.DONE, cancelled=True)) == ["CANCELED"]
    assert after(record(Phase.OFFERED), None) == []
