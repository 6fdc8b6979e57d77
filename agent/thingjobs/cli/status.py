"""Shows what the agent does: what runs, what waits and why, which reports are owed, the last jobs, the connection.

Without an agent it shows what the state folder holds. Exit code: 0, or 3 when there is no state folder to read.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from thingjobs import statusbox
from thingjobs.cli import options
from thingjobs.cli.paint import Paint, fold
from thingjobs.errors import StateError
from thingjobs.generations import read_only
from thingjobs.status import of_journal
from thingjobs.transport.local import KEPT, outcomes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from thingjobs.config import Config
    from thingjobs.model import Json

WATCH_SECONDS = 1.0
SHOWN = 8
#: Characters that are shown of what others wrote; --json has all of them.
MAX_TEXT = 500
#: Columns before each line, and before what goes on from the one above.
_INDENT, _HANGING = 8, 2
#: Columns of a row about a job that ended, beside its name.
_ROW = len("✗   SUCCEEDED  2026-01-01 00:00")


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
    try:
        for found in _looks(config, chosen) if chosen.watch else [read(config)]:
            if chosen.json:
                paint.line(json.dumps(found))
            else:
                (paint.page if chosen.watch else paint.lines)(list(_shown(paint, found)))
    except KeyboardInterrupt:
        return 0
    return 0


def _looks(config: Config, chosen: argparse.Namespace) -> Iterator[Json]:
    """Yield the status again and again.

    Raises:
        StateError: it cannot be read; a person is told so and goes on looking, once there was something to see: an
            agent may be starting, or too busy to answer.
    """
    found = read(config)
    while True:
        yield found
        time.sleep(WATCH_SECONDS)
        try:
            found = read(config)
        except StateError as error:
            if chosen.json:
                raise
            found = {**found, "trouble": [str(error)]}


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


def _shown(paint: Paint, found: Json) -> Iterator[str]:
    yield from fold(f"thing {paint.style(found['thing'], 'bold')}: {_agent(found)}", paint.width)
    for title, entries in _sections(paint, found):
        head = title
        for entry in entries:
            first, *rest = fold(entry, max(20, paint.width - _INDENT - _HANGING))
            yield f"  {paint.style(head.ljust(5), 'dim')} {first}"
            yield from (" " * (_INDENT + _HANGING) + line for line in rest)
            head = ""


def _sections(paint: Paint, found: Json) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield what there is to say, what matters most first: a small screen shows no more."""
    last = sorted(found.get("executions") or found["last"], key=lambda job: -(job["finishedAt"] or 0))
    if found.get("unconnected"):  # An agent of an earlier version does not tell.
        yield "why", (_brief(found["unconnected"]), "`thingjobs check` looks for what is wrong")
    yield "wrong", map(_brief, found.get("trouble", ()))
    yield "now", [_job_line(paint, job) for job in found["jobs"]] or [paint.style("nothing", "dim")]
    if queued := _queued(found, last):
        yield "next", [", ".join(queued[:SHOWN]) + ", …" * (len(queued) > SHOWN)]
    if found.get("foreign"):
        names = ", ".join(map(_name, found["foreign"][:SHOWN])) + ", …" * (len(found["foreign"]) > SHOWN)
        yield "other", [f"{names}: not this agent's, left alone"]
    owed = [f"{_name(job)}  {job['status']}, not accepted by the service yet" for job in found["owed"]]
    yield "owed", owed or [paint.style("nothing", "dim")]
    yield "late", [f"{_name(job)}  {_brief(job['late'])}" for job in found["late"][::-1][:SHOWN]]
    done = [job for job in last if job["finishedAt"]][:SHOWN]
    yield "last", list(_last_entries(paint, done)) or [paint.style("nothing yet", "dim")]


def _queued(found: Json, last: list[Json]) -> list[str]:
    """Return what waits its turn: as the folder has it, or as the service told it."""
    busy = {_name(job) for job in found["jobs"]}
    local = [_name(job) for job in last if job["status"] == "QUEUED"]
    told = map(_name, found.get("queued", ()))  # An agent of an earlier version does not tell.
    return [name for name in dict.fromkeys((*local, *told)) if name not in busy]


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


def _brief(text: str) -> str:
    text = " ⏎ ".join(text.splitlines())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _name(job: Json) -> str:
    return f"{job['jobId']}#{job['executionNumber']}"


def _job_line(paint: Paint, job: Json) -> str:
    text = f"{paint.style(_name(job), 'bold')}  {job['phase'].replace('_', ' ')}"
    if job["handler"]:
        text += f" ({job['handler']})"
    if job.get("progress") is not None:
        text += f"  {paint.bar(job['progress'])} {job['progress']:.0f}%"
    if job.get("message"):
        text += f"  {_brief(job['message'])}"
    if job.get("waits"):
        before = f" before {job['before']}" if job.get("before") else ""
        text += f"  waits{before}: {_brief(job['waits']).removeprefix('waits ')}"
    if job.get("againSeconds") is not None:
        text += f", again in {_ago(job['againSeconds'])}"
    return text


def _last_entries(paint: Paint, jobs: list[Json]) -> Iterator[str]:
    room = max(0, paint.width - _INDENT - _HANGING - _ROW)
    width = min(room, max((len(_name(job)) for job in jobs), default=0))
    for job in jobs:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["finishedAt"]))
        ended = job["status"] or "CANCELED"  # Of one without either, no more is known than that the service ended it.
        status = paint.status(ended) + " " * (9 - len(ended))
        yield f"{paint.mark(ended)} {_name(job).ljust(width)}  {status}  {paint.style(when, 'dim')}"
        if job["reason"]:
            yield "  " + ": ".join(filter(None, (job["code"], _brief(job["reason"]))))
