"""What a handler asks of the agent while it runs: its parameters anew, and files by the local policy."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thingjobs.child.context import read_job
from thingjobs.fetch import FetchError, Rules, fetch
from thingjobs.handler import Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path

    from thingjobs.child.context import JobContext

    Json = dict[str, Any]
    Place = tuple[str | int, ...]

#: Between two looks at job.json, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
#: Between two reports of a download, in seconds.
REPORT_EVERY = 0.5
#: For the agent to get a document anew while it is connected, in seconds.
REFRESH_SECONDS = 60.0
#: For a line that is down, in seconds; a verb that ends sooner waits less, and keeps some to say why it failed.
PATIENCE, TO_SPARE = 1800.0, 30.0
MIB = 1024 * 1024


def refresh(context: JobContext, folder: str, timeout: float) -> Any:
    """Ask for the params, and return them when they came.

    Raises:
        Failed: none came in time, or the agent asked this verb to stop.
        Reject: what came does not fit the type.
    """
    known = _revision(context.job)
    context.emit({"refresh": "params"})
    end, pause = time.monotonic() + timeout, FIRST_PAUSE
    while (job := _newer(folder, known)) is None:
        if context.cancelled:
            raise Failed("it was stopped while it waited for fresh parameters", code="cancelled")
        left = end - time.monotonic()
        if left <= 0:
            raise Failed(f"the agent gave no fresh parameters within {timeout:g} s")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
    context.job = job
    return context.parse(job["params"])


def _revision(job: Json) -> int:
    return int(job.get("revision", 1))


def _newer(folder: str, known: int) -> Json | None:
    try:
        job = read_job(folder)
    except (OSError, ValueError):
        return None  # The agent will replace it.
    return job if _revision(job) > known else None


def download(
    context: JobContext,
    url: str,
    to: str | PathLike[str],
    *,
    digest: str,
    size: int | None,
    max_bytes: int | None,
) -> Path:
    """Fetch a file as the local policy has it.

    Raises:
        Failed: it could not be fetched.
    """
    if context.verb == "check":
        raise Failed("check may not download anything: it holds up the queue; do it in prepare")
    target = context.dir / to
    try:
        return fetch(
            url,
            target,
            digest=digest,
            size=size,
            max_bytes=max_bytes,
            rules=replace(rules_of(context.job), until=time.time() + _patience(context)),
            report=_reporter(context, target.name),
            fresh_url=_fresh_url(context, url),
            cancelled=lambda: context.cancelled,
        )
    except FetchError as error:
        raise Failed(error.reason, code=error.code) from error


def _patience(context: JobContext) -> float:
    """Return for how many seconds a line that is down is waited for: offline work goes on, but the verb has an end."""
    left = context.deadline - time.time() - TO_SPARE if context.deadline is not None else PATIENCE
    return max(0.0, min(PATIENCE, left))


def rules_of(job: Json) -> Rules:
    """Return the local policy; an agent that says nothing of it has the defaults."""
    said = job.get("downloads") or {}
    return Rules(max_kib_s=said.get("maxKibPerSecond", 0), digest_required=said.get("digestRequired", True))


def _reporter(context: JobContext, name: str) -> Callable[[int, int | None], None]:
    next_report = 0.0

    def report(received: int, total: int | None) -> None:
        nonlocal next_report
        now = time.monotonic()
        if now < next_report and received != total:
            return
        next_report = now + REPORT_EVERY
        of = f" of {total / MIB:.1f}" if total is not None else ""
        percent = 100 * received / total if total else None
        context.progress(percent, f"downloading {name}: {received / MIB:.1f}{of} MiB")

    return report


def _fresh_url(context: JobContext, url: str) -> Callable[[], str] | None:
    """Return what gets the URL anew, None if it does not come from the params."""
    place = place_of(context.job["params"], url)
    if place is None:
        return None

    def fresh() -> str:
        context.refresh(timeout=max(REFRESH_SECONDS, _patience(context)))
        found = at(context.job["params"], place)
        if not isinstance(found, str):
            raise Failed("the URL expired, and the fresh parameters have none in its place", code="fetch.failed")
        return found

    return fresh


def place_of(value: object, wanted: str) -> Place | None:
    """Return the way through a JSON value to the first string that equals `wanted`; None: it is not there."""
    if value == wanted:
        return ()
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        way = place_of(part, wanted)
        if way is not None:
            return (key, *way)
    return None


def at(value: Any, place: Place) -> object:
    """Return what is at the end of that way through a JSON value; None: it does not go so far."""
    for key in place:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
