"""`thingjobs status`: what runs, what waits and why, what is owed, late truth, the last jobs, the connection."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from thingjobs import statusbox
from thingjobs.cli import options
from thingjobs.cli.paint import Paint
from thingjobs.errors import StateError
from thingjobs.journal import read_only
from thingjobs.status import of_journal

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from thingjobs.config import Config
    from thingjobs.model import Json

WATCH_SECONDS = 1.0
SHOWN = 8


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = commands.add_parser("status", help="show what the agent does", description=__doc__)
    options.add_config(parser)
    parser.add_argument("--watch", action="store_true", help="show it again each second, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Show the status of the agent that uses this configuration's state folder.

    Raises:
        ConfigError: the configuration cannot be used.
        StateError: the state folder cannot be read.
    """
    config = options.load(chosen)
    paint = Paint(sys.stdout)
    while True:
        found = read(config)
        if chosen.watch and not chosen.json and paint.live:
            sys.stdout.write("\x1b[H\x1b[2J")
        if chosen.json:
            paint.line(json.dumps(found))
        else:
            _print(paint, found)
        if not chosen.watch:
            return 0
        time.sleep(WATCH_SECONDS)


def read(config: Config) -> Json:
    """Return the status: of the agent if one runs, else of what its journal holds.

    Raises:
        StateError: the state folder cannot be read.
    """
    folder = config.state.directory
    if not folder.is_dir():
        raise StateError(f"cannot show the status: there is no state folder {folder}; did an agent ever run with it?")
    found = statusbox.ask(folder)
    if found is None:
        found = of_journal(read_only(folder), thing=config.thing.name)
    kept = folder / "jobs.json"
    if kept.exists():
        found["executions"] = _local_outcomes(kept, config.thing.name)
    return found


def _local_outcomes(kept: Path, thing: str) -> list[Json]:
    """Return what the embedded service of `run --local` holds, refused jobs included."""
    from thingjobs.testing import JobsService  # noqa: PLC0415 - only --local has it

    service = JobsService()
    try:
        service.load(json.loads(kept.read_bytes()))
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read {kept}: {error}") from None
    return [
        {
            "jobId": view.job_id,
            "executionNumber": view.number,
            "status": view.status,
            "code": view.details.get("code"),
            "reason": view.details.get("reason", ""),
        }
        for view in service.executions(thing)
    ]


def _print(paint: Paint, found: Json) -> None:
    paint.line(f"thing {paint.style(found['thing'], 'bold')}: {_agent(found)}")
    _section(paint, "now", [_job_line(paint, job) for job in found["jobs"]], "nothing")
    owed = [f"{_name(job)}  {job['status']}, not accepted by the service yet" for job in found["owed"]]
    _section(paint, "owed", owed, "nothing")
    if found["late"]:
        _section(paint, "late", [f"{_name(job)}  {job['late']}" for job in found["late"][-SHOWN:]], "")
    last = found.get("executions") or found["last"]
    done = [job for job in last if job["status"] not in (None, "QUEUED", "IN_PROGRESS")]
    _section(paint, "last", [_last_line(paint, job) for job in done[:SHOWN]], "nothing yet")


def _agent(found: Json) -> str:
    if not found["running"]:
        return "no agent runs"
    if not found["connected"]:
        return "the agent runs, without a connection"
    return f"the agent runs, connected for {_ago(found['connectedSeconds'])}"


def _ago(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _section(paint: Paint, title: str, lines: list[str], empty: str) -> None:
    for index, text in enumerate(lines or [paint.style(empty, "dim")]):
        paint.line(f"  {paint.style((title if index == 0 else '').ljust(5), 'dim')} {text}")


def _name(job: Json) -> str:
    return f"{job['jobId']}#{job['executionNumber']}"


def _job_line(paint: Paint, job: Json) -> str:
    text = f"{paint.style(_name(job), 'bold')}  {job['phase']}"
    if job["handler"]:
        text += f" ({job['handler']})"
    if job.get("progress") is not None:
        text += f"  {paint.bar(job['progress'])} {job['progress']:.0f}%"
    if job.get("message"):
        text += f"  {job['message']}"
    if job.get("waits"):
        text += f"  waits: {job['waits']}"
    if job.get("againSeconds") is not None:
        text += f", again in {_ago(job['againSeconds'])}"
    return text


def _last_line(paint: Paint, job: Json) -> str:
    text = f"{paint.mark(job['status'])} {_name(job)}  {paint.status(job['status'])}"
    if job["reason"]:
        text += f"  {job['code']}: {job['reason']}"
    if job.get("finishedAt"):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["finishedAt"]))
        text += paint.style(f"  {when}", "dim")
    return text
