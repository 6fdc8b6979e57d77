"""Lists, shows, confirms and cancels jobs of S3 Batch Operations: those that run, and those that ended in 90 days.

A job that is Cancelling is not cancelled yet, and may still become Complete: --wait waits for its end.

Exit code: 0 done, or the service took the request; 1 it came out otherwise; 2 the call or the configuration is wrong;
130 Ctrl-C: the job in the cloud goes on.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from thingjobs.cli import complain, options, print_help
from thingjobs.cli.cloud import dry, reach, s3_lines
from thingjobs.cli.cloud.asking import Request, carry_out
from thingjobs.cli.cloud.common import add_waiting, at_least_one, new_action, print_json, reason
from thingjobs.cli.cloud.tables import counted
from thingjobs.cli.paint import Paint
from thingjobs.cloud.outcomes import Asked, of_s3
from thingjobs.cloud.s3_batch import describe_call, list_call, update_call
from thingjobs.cloud.s3_jobs import Status

if TYPE_CHECKING:
    import argparse

    from thingjobs.cli.cloud.reach import Reach

_MOST_A_PAGE = 1000
_KNOWN = {status.lower(): str(status) for status in Status}


def add_to(services: Any) -> None:
    """Add this service and what can be done with its jobs."""
    parser = options.new_parser(services, "s3-jobs", "jobs of S3 Batch Operations", __doc__)
    parser.set_defaults(command=print_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")

    listing = new_action(actions, "list", "list the jobs of the account in the region", _list)
    statuses = f"only jobs in one of these: {', '.join(Status)}"
    listing.add_argument(
        "--status", nargs="+", action="extend", default=[], type=_status, metavar="STATUS", help=statuses
    )
    listing.add_argument("--limit", type=at_least_one, metavar="N", help="no more jobs than these")

    show = new_action(actions, "show", "show all about a job", _show)
    confirm = new_action(actions, "confirm", "let a job run that waits to be confirmed", _confirm)
    cancel = new_action(actions, "cancel", "cancel a job", _cancel)
    for action in (show, confirm, cancel):
        action.add_argument("id", metavar="ID", help="the job's id")
    kept = "kept with the job, 1 to 256 characters"
    confirm.add_argument("--reason", type=reason, metavar="TEXT", help=kept)
    cancel.add_argument("--reason", required=True, type=reason, metavar="TEXT", help=kept)
    add_waiting(confirm, "the job is over")
    add_waiting(cancel, "the job is over")


def _status(text: str) -> str:
    """Return a status as the service writes it; one that this release does not know goes as it is."""
    return _KNOWN.get(text.lower(), text)


def _list(chosen: argparse.Namespace) -> int:
    where = reach.of(chosen)
    if chosen.dry_run:
        size = chosen.limit and min(chosen.limit, _MOST_A_PAGE)
        call = list_call(where.account, *chosen.status, max_results=size)
        return dry.show(where.s3_control, [dry.Planned(call)], as_json=chosen.json)
    jobs = list(where.s3_jobs().jobs(*chosen.status, limit=chosen.limit))
    if unknown := [status for status in chosen.status if status not in _KNOWN.values()]:
        complain(f"this release knows no status {', '.join(unknown)}; known are {', '.join(Status)}")
    if chosen.json:
        print_json({"jobs": jobs})
        return 0
    paint = Paint(sys.stdout)
    among = f" that is {' or '.join(chosen.status)}" * bool(chosen.status)
    if not jobs:
        paint.line(f"there is no job{among} in {where.region}, account {where.account}")
        return 0
    for line in s3_lines.listed(paint, jobs):
        paint.line(line)
    more = "; there may be more, --limit asked for no more" if len(jobs) == chosen.limit else ""
    paint.line(paint.style(f"{counted(len(jobs), 'job')}{more}", "dim"))
    return 0


def _show(chosen: argparse.Namespace) -> int:
    where = reach.of(chosen)
    if chosen.dry_run:
        return dry.show(where.s3_control, _planned(where, chosen), as_json=chosen.json)
    job = where.s3_jobs().describe(chosen.id)
    if chosen.json:
        print_json(job)
        return 0
    paint = Paint(sys.stdout)
    for line in s3_lines.shown(paint, job):
        paint.line(line)
    return 0


def _confirm(chosen: argparse.Namespace) -> int:
    return _change(chosen, "Ready")


def _cancel(chosen: argparse.Namespace) -> int:
    return _change(chosen, "Cancelled")


def _change(chosen: argparse.Namespace, status: Literal["Ready", "Cancelled"]) -> int:
    where = reach.of(chosen)
    if chosen.dry_run:
        return dry.show(where.s3_control, _planned(where, chosen, status), as_json=chosen.json)
    jobs = where.s3_jobs()
    confirming = status == "Ready"
    change = jobs.confirm if confirming else jobs.cancel
    asked, wanted = (Asked.CONFIRM, Asked.WATCH) if confirming else (Asked.CANCEL, Asked.CANCEL)
    request = Request(
        name=f"the S3 batch job {chosen.id}",
        again=f"thingjobs cloud s3-jobs show {chosen.id}",
        send=lambda: change(chosen.id, chosen.reason or ""),
        look=lambda: jobs.describe(chosen.id),
        judge=partial(of_s3, asked),
        final=partial(of_s3, wanted),
        granted=lambda job: job.status == Status.CANCELLING and not confirming,
    )
    return carry_out(request, chosen)


def _planned(
    where: Reach, chosen: argparse.Namespace, status: Literal["Ready", "Cancelled", ""] = ""
) -> list[dry.Planned]:
    """Return the calls of an action: the change, if there is one, and the look at what came of it."""
    look = dry.Planned(describe_call(where.account, chosen.id), "until it is over" if _waits(chosen) else "")
    return [dry.Planned(update_call(where.account, chosen.id, status, chosen.reason or "")), look] if status else [look]


def _waits(chosen: argparse.Namespace) -> bool:
    return bool(getattr(chosen, "wait", False))
