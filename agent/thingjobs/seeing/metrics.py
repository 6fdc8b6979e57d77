"""What is known of the agent as text for the textfile collector of node_exporter. Pure.

Few series, and none named after a job: each value of a label is a series that Prometheus keeps for good. Each names the
thing, because a machine may have several with a file each, and the collector takes no series twice. There are no times
of writing in it, which the collector does not take either; it tells the file's own (node_textfile_mtime_seconds).

Source: Prometheus, "Exposition formats" (text format 0.0.4); node_exporter, "Textfile Collector".
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from thingjobs.model import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from thingjobs.machine import State
    from thingjobs.model import Json

    #: Of each metric: its name, whether it is a gauge or a counter, what it is, and its values, each with its labels.
    Metric = tuple[str, str, str, Sequence[tuple[Mapping[str, str], float]]]

#: How a job can end, as its label says: those that never happened are there as well, so that rates begin at 0.
ENDINGS = ("SUCCEEDED", "FAILED", "REJECTED", "CANCELED")


def text(version: str, status: Json, ended: Mapping[str, int], *, started: float, expires: float | None) -> str:
    """Return all metrics.

    Args:
        version: the agent's.
        status: as `status.of_agent` tells it.
        ended: by status: how many jobs ended since the start of the agent.
        started: when the agent started, seconds since the epoch.
        expires: the end of the device certificate, seconds since the epoch; None: nobody knows.
    """
    lines: list[str] = []
    info: Metric = ("info", "gauge", "The agent and its thing.", [({"version": version}, 1)])
    start: Metric = ("start_time_seconds", "gauge", "When the agent started.", [({}, round(started))])
    for name, kind, what, values in (info, start, *_metrics(status, ended, expires)):
        lines += [f"# HELP thingjobs_{name} {what}", f"# TYPE thingjobs_{name} {kind}"]
        lines += [
            f"thingjobs_{name}{_labels({'thing': status['thing'], **labels})} {_number(value)}"
            for labels, value in values
        ]
    return "\n".join(lines) + "\n"


def ended_in(before: State, after: State) -> Iterator[str]:
    """Yield how the jobs ended that ended in a step; of one that was merely left alone there is nothing to tell."""
    for identity, job in before.jobs.items():
        now = after.jobs.get(identity)
        if job.phase is Phase.DONE or (now is not None and now.phase is not Phase.DONE):
            continue
        record = (now or job).record
        status = record.result.status if record.result else record.ended
        if status or record.cancelled:
            yield str(status or "CANCELED")


def _metrics(status: Json, ended: Mapping[str, int], expires: float | None) -> Iterator[Metric]:
    def gauge(name: str, what: str, value: float) -> Metric:
        return name, "gauge", what, [({}, value)]

    yield gauge("connected", "Whether the Jobs service is reached.", int(status["connected"]))
    phases = Counter(str(job["phase"]) for job in status["jobs"])
    known = [({"phase": phase}, count) for phase, count in sorted(phases.items())]
    yield "jobs", "gauge", "Jobs that the agent is busy with, by their phase.", known
    waiting = sum(1 for job in status["jobs"] if job["waits"])
    yield gauge("jobs_waiting", "Jobs that wait, for a gate for example.", waiting)
    yield gauge("reports_owed", "Results that the service has not accepted yet.", len(status["owed"]))
    late = len(status["late"])
    yield gauge("late_truths", "Ended jobs of which the service holds something else than happened.", late)
    yield gauge("troubles", "What this machine lacks for now.", len(status.get("trouble", ())))
    totals = [({"status": name}, ended.get(name, 0)) for name in dict.fromkeys((*ENDINGS, *sorted(ended)))]
    yield "jobs_ended_total", "counter", "Jobs that ended since the agent started.", totals
    if expires is not None:
        yield gauge("certificate_expiry_seconds", "The end of the device certificate.", round(expires))


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
