"""Shows, cancels and terminates jobs of AWS Batch.

CancelJob does nothing to a job that is STARTING or RUNNING, and says that all is well. So the job is looked at
afterwards; --terminate-running ends one that runs all the same.

Exit code: 0 done, or the service took the request; 1 it came out otherwise, or there is no such job; 2 the call or the
configuration is wrong; 130 Ctrl-C: the job in the cloud goes on.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, complain, options, print_help
from thingjobs.cli.cloud import batch_lines, dry, reach
from thingjobs.cli.cloud.asking import Request, carry_out
from thingjobs.cli.cloud.common import add_waiting, new_action, print_json, reason
from thingjobs.cli.paint import Paint
from thingjobs.cloud.batch import UNDER_WAY, cancel_call, describe_call, terminate_call
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.outcomes import Asked, Failed, Why, of_batch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from thingjobs.cloud.batch import Batch, Job
    from thingjobs.cloud.outcomes import Outcome

_UNKNOWN = "it knows no job of this id; look at id and region, and it forgets jobs 7 days or more after their end"


def add_to(services: Any) -> None:
    """Add this service and what can be done with its jobs."""
    parser = options.new_parser(services, "batch-jobs", "jobs of AWS Batch", __doc__)
    parser.set_defaults(command=print_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")

    show = new_action(actions, "show", "show all about jobs", _show)
    show.add_argument("ids", nargs="+", metavar="ID", help="up to 100 ids of jobs")

    cancel = new_action(actions, "cancel", "cancel a job", _cancel)
    cancel.add_argument("id", metavar="ID", help="the job's id")
    cancel.add_argument(
        "--reason", required=True, type=reason, metavar="TEXT", help="kept with the job, 1 to 1024 characters"
    )
    cancel.add_argument("--terminate-running", action="store_true", help="end it, too, if it is STARTING or RUNNING")
    add_waiting(cancel, "the job is over")


def _show(chosen: argparse.Namespace) -> int:
    where = reach.of(chosen)
    ids = list(dict.fromkeys(chosen.ids))
    if chosen.dry_run:
        return dry.show(where.aws_batch, [dry.Planned(describe_call(*ids))], as_json=chosen.json)
    found = {job.job_id: job for job in where.batch_jobs().describe(*ids)}
    jobs = [found[job_id] for job_id in ids if job_id in found]
    unknown = [job_id for job_id in ids if job_id not in found]
    if chosen.json:
        print_json({"jobs": jobs, "unknown": unknown})
    else:
        _print(jobs)
    if unknown:
        complain(f"cannot look at the AWS Batch job {', '.join(unknown)} in {where.region}: {_UNKNOWN}")
    return FAILED if unknown else 0


def _print(jobs: Iterable[Job]) -> None:
    paint = Paint(sys.stdout)
    for number, job in enumerate(jobs):
        if number:
            paint.line()
        for line in batch_lines.shown(paint, job):
            paint.line(line)


def _cancel(chosen: argparse.Namespace) -> int:
    where = reach.of(chosen)
    if chosen.dry_run:
        return dry.show(where.aws_batch, list(_planned(chosen)), as_json=chosen.json)
    ending = _Ending(where.batch_jobs(), chosen)
    request = Request(
        name=f"the AWS Batch job {chosen.id}",
        again=f"thingjobs cloud batch-jobs show {chosen.id}",
        send=ending.cancel,
        look=ending.look,
        judge=ending.judge,
        final=ending.judge,
        granted=lambda job: bool(job.cancelled or job.terminated),
        follow_up=ending.terminate,
    )
    return carry_out(request, chosen)


class _Ending:
    """Ends one job, as far as the operator allows it."""

    def __init__(self, jobs: Batch, chosen: argparse.Namespace) -> None:
        self._jobs = jobs
        self._id: str = chosen.id
        self._reason: str = chosen.reason
        self._may_terminate: bool = chosen.terminate_running
        self._terminated = False

    def cancel(self) -> None:
        """Ask for a cancel."""
        self._jobs.cancel(self._id, self._reason)

    def look(self) -> Job:
        """Return the job as it is. Raises CloudError: there is none of this id, or no answer that describes it."""
        for job in self._jobs.describe(self._id):
            if job.job_id == self._id:
                return job
        raise CloudError(f"cannot look at the AWS Batch job {self._id}: {_UNKNOWN}", Trouble.NOT_FOUND, Fate.REFUSED)

    def terminate(self, job: Job) -> Job:
        """Terminate a job that runs, if that is allowed, and once; return the job as it is then."""
        if self._terminated or not self._may_terminate or job.status not in UNDER_WAY:
            return job
        self._terminated = True
        self._jobs.terminate(self._id, self._reason)
        return self.look()

    def judge(self, job: Job) -> Outcome:
        """Say what the job amounts to. Whoever ended a job leaves the reason with it, so one with ours we ended."""
        if job.reason == self._reason:
            job = replace(job, cancelled=True, terminated=job.terminated or self._terminated)
        outcome = of_batch(Asked.TERMINATE if self._may_terminate else Asked.CANCEL, job)
        if isinstance(outcome, Failed) and outcome.code == Why.RUNNING:
            return replace(outcome, sentence=f"{outcome.sentence}: give --terminate-running")
        return outcome


def _planned(chosen: argparse.Namespace) -> Iterator[dry.Planned]:
    look = describe_call(chosen.id)
    yield dry.Planned(cancel_call(chosen.id, chosen.reason))
    yield dry.Planned(look, "until it is over" if chosen.wait else "")
    if chosen.terminate_running:
        yield dry.Planned(terminate_call(chosen.id, chosen.reason), "if it is STARTING or RUNNING")
