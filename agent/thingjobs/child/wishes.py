"""What a handler asks of the agent while it runs: parameters, credentials, files by the local policy."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from thingjobs.child.context import read_job
from thingjobs.fetch import FetchError, Rules, fetch
from thingjobs.handler import Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path

    from thingjobs.child.context import JobContext
    from thingjobs.cloud.session import Cloud

    Json = dict[str, Any]
    Place = tuple[str | int, ...]

#: Between two looks at job.json, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
#: Between two reports of a download, in seconds.
REPORT_EVERY = 0.5
#: For the agent to get a document anew while it is connected, in seconds.
REFRESH_SECONDS = 60.0
#: For the agent to ask AWS, which may take it a minute and a half where nothing answers; and until it is asked again.
CLOUD_SECONDS, REPEAT_SECONDS = 120.0, 3.0
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
    job = _awaited(_Wish(context, folder, {"refresh": "params"}, _revision, known, "fresh parameters"), timeout)
    if job is None:
        raise Failed(f"the agent gave no fresh parameters within {timeout:g} s")
    context.job = job
    return context.parse(job["params"])


def _revision(job: Json) -> int:
    """Return how often parameters came; answers about the cloud make a revision, too."""
    return int(job.get("revision", 1)) - _answers(job)


def _answers(job: Json) -> int:
    """Return how often credentials came, or the sentence why not."""
    return int((job.get("cloud") or {}).get("answers", 0))


# --- the cloud ----------------------------------------------------------------------------------------------------


def cloud(context: JobContext, folder: str) -> Cloud:
    """Return the way to the cloud.

    Raises:
        CloudError: the handler did not say that it needs it.
    """
    from thingjobs.cloud.session import Cloud  # noqa: PLC0415 - few handlers want it

    ask = partial(ask_for_cloud, context, folder)
    return Cloud(_told(context), ask, dry_run=context.dry_run, say=context.log)


def _told(context: JobContext) -> Json:
    from thingjobs.cloud.errors import unusable  # noqa: PLC0415

    told = context.job.get("cloud")
    if isinstance(told, dict):
        return told
    todo = 'declare needs = ("cloud",), in manifest.json "needs": ["cloud"]'
    raise unusable("reach the cloud", f"this handler does not say that it needs it; {todo}")


def ask_for_cloud(context: JobContext, folder: str, refused: str = "", timeout: float = CLOUD_SECONDS) -> Json:
    """Ask the agent for credentials, and return `cloud` of job.json when it has the answer.

    The question is repeated: an agent that is started anew has read the first one, and forgotten it.

    Args:
        context: of the verb that runs.
        folder: where its job.json is.
        refused: the id of the access key that a service does not take any more; "": none.
        timeout: seconds; the agent says at once why it has none, so this is about an agent that is gone.

    Raises:
        Failed: the agent asked this verb to stop.
        CloudError: there is no answer, or the handler did not say that it needs the cloud.
    """
    _told(context)
    # Others may have asked meanwhile, a program of the handler for one: their answer may be old.
    known = _answers(_read(folder) or context.job)
    event: dict[str, object] = {"refresh": "cloud", **({"refused": refused} if refused else {})}
    job = _awaited(_Wish(context, folder, event, _answers, known, "credentials", REPEAT_SECONDS), timeout)
    if job is None:
        from thingjobs.cloud.errors import CloudError, Fate, Trouble  # noqa: PLC0415

        why = f"cannot get credentials: the agent gave none within {timeout:g} s; does it run, and what does it log?"
        raise CloudError(why, Trouble.CREDENTIALS, Fate.NOT_SENT)
    # The params stay: whoever wants fresh ones asks for them.
    context.job = {**context.job, "cloud": job["cloud"], "revision": job["revision"]}
    found: Json = job["cloud"]
    return found


# --- asking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wish:
    """What is asked of the agent, and how the answer is known: something is counted in job.json.

    Attributes:
        count: what is counted.
        known: its number before the answer.
        what: is waited for, for people.
        again: after so many seconds it is asked once more.
    """

    context: JobContext
    folder: str
    event: dict[str, object]
    count: Callable[[Json], int]
    known: int
    what: str
    again: float = float("inf")


def _awaited(wish: _Wish, timeout: float) -> Json | None:
    """Return the job.json that has the answer; None: it did not come in time.

    Raises:
        Failed: the agent asked this verb to stop.
    """
    wish.context.emit(wish.event)
    now = time.monotonic()
    end, repeat_at, pause = now + timeout, now + wish.again, FIRST_PAUSE
    while (job := _read(wish.folder)) is None or wish.count(job) <= wish.known:
        if wish.context.cancelled:
            raise Failed(f"it was stopped while it waited for {wish.what}", code="cancelled")
        now = time.monotonic()
        if now >= end:
            return None
        if now >= repeat_at:
            wish.context.emit(wish.event)
            repeat_at = now + wish.again
        time.sleep(min(pause, end - now))
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return job


def _read(folder: str) -> Json | None:
    try:
        return read_job(folder)
    except (OSError, ValueError):
        return None  # The agent will replace it.


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
