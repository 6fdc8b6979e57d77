"""Shows what the agent does: what runs, what waits and why, which reports are owed, the last jobs, the connection.

Without an agent it shows what the state folder holds. Exit code: 0, or 3 when there is no state folder to read.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from thingjobs import statusbox
from thingjobs.cli import options
from thingjobs.cli.paint import Paint
from thingjobs.errors import StateError
from thingjobs.generations import read_only
from thingjobs.status import of_journal
from thingjobs.transport.local import KEPT, outcomes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from thingjobs.config import Config
    from thingjobs.model import Json

WATCH_SECONDS = 1.0
SHOWN = 8


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "status", "show what the agent does", __doc__)
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
    if not chosen.watch:
        _show(paint, config, as_json=chosen.json)
        return 0
    try:
        while True:
            _show(paint, config, as_json=chosen.json, watched=True)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _show(paint: Paint, config: Config, *, as_json: bool, watched: bool = False) -> None:
    found = read(config)
    if as_json:
        paint.line(json.dumps(found))
        return
    if watched:
        paint.clear()
    _print(paint, found)


def read(config: Config) -> Json:
    """Return the status: of the agent if one runs, else of what its journal holds.

    Raises:
        StateError: the state folder cannot be read.
    """
    folder = config.state.directory
    try:
        next((folder / "journal").iterdir(), None)
    except PermissionError:
        said = f"cannot show the status: {folder} belongs to another account; ask as that one, or with sudo"
        raise StateError(said) from None
    except OSError:
        said = f"cannot show the status: there is no state folder {folder}; no agent has run with it yet"
        raise StateError(said) from None
    found = statusbox.ask(folder)
    if found is None:
        found = of_journal(read_only(folder), thing=config.thing.name)
    kept = folder / KEPT
    if kept.exists():
        found["executions"] = outcomes(kept)
    return found


# --- for people ---------------------------------------------------------------------------------------------------


def _print(paint: Paint, found: Json) -> None:
    paint.line(f"thing {paint.style(found['thing'], 'bold')}: {_agent(found)}")
    if found.get("unconnected"):  # An agent of an earlier version does not tell.
        why = textwrap.wrap(found["unconnected"], max(30, paint.width - 12), break_on_hyphens=False)
        _section(paint, "why", [*why, "`thingjobs check` looks for what is wrong"])
    last = sorted(found.get("executions") or found["last"], key=lambda job: -(job["finishedAt"] or 0))
    busy = {_name(job) for job in found["jobs"]}
    queued = [_name(job) for job in last if job["status"] == "QUEUED" and _name(job) not in busy]
    if found.get("trouble"):
        _section(paint, "wrong", found["trouble"])
    _section(paint, "now", [_job_line(paint, job) for job in found["jobs"]], "nothing")
    if queued:
        _section(paint, "next", [", ".join(queued[:SHOWN]) + ", …" * (len(queued) > SHOWN)])
    if found.get("foreign"):
        names = ", ".join(map(_name, found["foreign"][:SHOWN]))
        _section(paint, "other", [f"{names}: not this agent's, left alone"])
    owed = [f"{_name(job)}  {job['status']}, not accepted by the service yet" for job in found["owed"]]
    _section(paint, "owed", owed, "nothing")
    if found["late"]:
        _section(paint, "late", [f"{_name(job)}  {job['late']}" for job in found["late"][-SHOWN:]])
    done = [job for job in last if job["finishedAt"]]
    _section(paint, "last", list(_last_lines(paint, done[:SHOWN])), "nothing yet")


def _agent(found: Json) -> str:
    if not found["running"]:
        return f"no agent runs{'; the next one goes on with what is open' * bool(found['jobs'])}"
    does = "the agent is ending" if found.get("stopping") else "the agent runs"
    if not found["connected"]:
        return f"{does}, without a connection{'' if found.get('unconnected') else '; its log says why'}"
    return f"{does}, connected for {_ago(found['connectedSeconds'])}"


def _ago(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _section(paint: Paint, title: str, lines: list[str], empty: str = "") -> None:
    for index, text in enumerate(lines or [paint.style(empty, "dim")]):
        paint.line(f"  {paint.style((title if index == 0 else '').ljust(5), 'dim')} {text}")


def _name(job: Json) -> str:
    return f"{job['jobId']}#{job['executionNumber']}"


def _job_line(paint: Paint, job: Json) -> str:
    text = f"{paint.style(_name(job), 'bold')}  {job['phase'].replace('_', ' ')}"
    if job["handler"]:
        text += f" ({job['handler']})"
    if job.get("progress") is not None:
        text += f"  {paint.bar(job['progress'])} {job['progress']:.0f}%"
    if job.get("message"):
        text += f"  {job['message']}"
    if job.get("waits"):
        before = f" before {job['before']}" if job.get("before") else ""
        text += f"  waits{before}: {job['waits']}"
    if job.get("againSeconds") is not None:
        text += f", again in {_ago(job['againSeconds'])}"
    return text


def _last_lines(paint: Paint, jobs: list[Json]) -> Iterator[str]:
    width = max((len(_name(job)) for job in jobs), default=0)
    for job in jobs:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["finishedAt"]))
        ended = job["status"] or "CANCELED"  # Of one without either, no more is known than that the service ended it.
        status = paint.status(ended) + " " * (9 - len(ended))
        yield f"{paint.mark(ended)} {_name(job).ljust(width)}  {status}  {paint.style(when, 'dim')}"
        if job["reason"]:
            reason = textwrap.wrap(f"{job['code']}: {job['reason']}", max(30, paint.width - 12), break_on_hyphens=False)
            yield from (f"  {line}" for line in reason)
