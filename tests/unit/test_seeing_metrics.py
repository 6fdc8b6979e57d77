"""The metrics are what Prometheus reads, whatever the agent is doing: its own client library is the judge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from thingjobs.machine.state import Job, State
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.policy import Settings
from thingjobs.seeing import metrics

IDLE: dict[str, Any] = {"thing": "pump-7", "connected": True, "jobs": [], "owed": [], "late": []}
IDENTITY = Identity(JobId("fw-7"), 1, 1_700_000_000)
Series = tuple[str, frozenset[tuple[str, str]]]


def text(status: dict[str, Any], ended: dict[str, int] | None = None, expires: float | None = None) -> str:
    return metrics.text("1.0", status, ended or {}, started=1.7e9, expires=expires)


def read(written: str) -> dict[Series, float]:
    """Read samples as the collector of node_exporter does: each series once, described, and without a time."""
    found: dict[Series, float] = {}
    for family in text_string_to_metric_families(written):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            series = sample.name, frozenset(sample.labels.items())
            assert series not in found
            assert sample.timestamp is None
            found[series] = sample.value
    assert len(found) == sum(not line.startswith("#") for line in written[:-1].split("\n"))
    return found


def series(name: str, **labels: str) -> Series:
    return f"thingjobs_{name}", frozenset({"thing": "pump-7", **labels}.items())


@example('a "quoted"\n\\n', [], {})
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.sampled_from(Phase), max_size=4),
    st.dictionaries(st.sampled_from(Status), st.integers(0, 1 << 50)),
)
def test_what_is_written_is_read_as_it_was_meant(thing: str, phases: list[Phase], ended: dict[str, int]) -> None:
    jobs = [{"phase": phase, "waits": ""} for phase in phases]
    found = read(text({**IDLE, "thing": thing, "jobs": jobs}, ended, 1.8e9))
    assert all(("thing", thing) in labels for _, labels in found)
    assert sum(value for (name, _), value in found.items() if name == "thingjobs_jobs") == len(phases)
    for status, count in ended.items():
        ends = [value for (_, labels), value in found.items() if ("status", str(status)) in labels]
        assert ends == [count]


def test_what_the_agent_is_doing_is_counted() -> None:
    jobs = [{"phase": "applying", "waits": ""}, {"phase": "deferred", "waits": "gate battery: empty"}]
    status = {**IDLE, "jobs": jobs, "owed": [{}], "late": [{}, {}], "trouble": ["no room"], "connected": False}
    expected = {
        series("jobs", phase="applying"): 1,
        series("jobs_waiting"): 1,
        series("reports_owed"): 1,
        series("late_truths"): 2,
        series("troubles"): 1,
        series("connected"): 0,
        series("jobs_ended_total", status="SUCCEEDED"): 3,
        series("jobs_ended_total", status="FAILED"): 0,
        series("jobs_ended_total", status="TIMED_OUT"): 1,
        series("certificate_expiry_seconds"): 1_800_000_000,
        series("info", version="1.0"): 1,
    }
    assert expected.items() <= read(text(status, {"SUCCEEDED": 3, "TIMED_OUT": 1}, 1.8e9 + 0.5)).items()


def test_two_things_of_one_machine_share_no_series() -> None:
    left, right = (read(text({**IDLE, "thing": thing}, {}, 1.8e9)) for thing in ("left", "right"))
    assert not left.keys() & right.keys()


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
