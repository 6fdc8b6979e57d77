"""`thingjobs dry-run`: what would happen here if these documents came as jobs? Runs only `check`, changes nothing."""

from __future__ import annotations

import json
import queue
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thingjobs import boot
from thingjobs.cli import FAILED, options
from thingjobs.cli.paint import Paint
from thingjobs.cli.validate import verdict
from thingjobs.errors import StateError
from thingjobs.handler import Exit
from thingjobs.judging import Judge, effective_user
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Ending, Finished
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status, Verb
from thingjobs.registry import Registry
from thingjobs.runner import Runner, Settings

if TYPE_CHECKING:
    import argparse

    from thingjobs.config import Config
    from thingjobs.machine.events import Progressed

ORDER = (Verb.CHECK, Verb.PREPARE, Verb.APPLY, Verb.VERIFY, Verb.COMMIT)


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = commands.add_parser("dry-run", help="show what job documents would do here", description=__doc__)
    parser.add_argument("documents", metavar="DOCUMENT", nargs="+", help="a JSON file, - for stdin")
    options.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Show what each document would do; exit 1 if any would be rejected.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    judge = Judge(config, Registry(config.handlers.directory))
    paint = Paint(sys.stdout)
    rejected = False
    for name in chosen.documents:
        shown = foresee(config, verdict(judge, name))
        rejected = rejected or shown["would"] == "reject"
        if chosen.json:
            paint.line(json.dumps({"document": name, **shown}))
        else:
            _print(paint, name, shown)
    return FAILED if rejected else 0


def foresee(config: Config, found: Plan | Result) -> dict[str, Any]:
    """Return what would happen: handler, verbs, user, steps, downloads, updates, and what `check` says."""
    if isinstance(found, Result):
        return {"would": "reject", "code": found.code, "reason": found.reason, "updates": [Status.REJECTED]}
    shown: dict[str, Any] = {
        "would": "run",
        "handler": found.handler,
        "version": found.version,
        "user": effective_user(config, found.handler),
        "verbs": [verb for verb in ORDER if verb in found.verbs],
        "updates": [Status.IN_PROGRESS, "SUCCEEDED or FAILED"],
        **_of_params(found.params),
    }
    if Verb.CHECK in found.verbs:
        shown.update(_of_check(_check(config, found)))
    return shown


def _of_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return the steps and downloads of an AWS document's plan; for any other handler its parameters."""
    steps = params.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "kind" in step for step in steps):
        return {"params": params}
    downloads = [_without_query(step["argv"][0]) for step in steps if step["kind"] == "download-file"]
    lines = [{**step, "argv": [_without_query(word) for word in step["argv"]]} for step in steps]
    return {"steps": lines, "downloads": downloads}


def _without_query(word: str) -> str:
    """A presigned URL's query string is a secret."""
    if not word.startswith(("http://", "https://")):
        return word
    parts = urlsplit(word)
    return parts._replace(query="…", fragment="").geturl() if parts.query else word


# --- check --------------------------------------------------------------------------------------------------------


def _check(config: Config, plan: Plan) -> Ending:
    """Run `check` with dryRun in a folder of its own that is removed afterwards."""
    events: queue.SimpleQueue[Progressed | Finished] = queue.SimpleQueue()
    identity = Identity(JobId("dry-run"), 1, 0)
    with tempfile.TemporaryDirectory(prefix="thingjobs-dry-run-") as folder:
        settings = Settings(Path(folder), config.thing.name, boot.boot_id(), config.handlers.environment)
        Path(folder).chmod(0o711)
        runner = Runner(settings, events.put)
        record = Record(identity, Phase.CHECKING, claim="", version=1, plan=plan, document={})
        try:
            runner.spawn(Run(record, Verb.CHECK, attempt=1, dry_run=True))
        except StateError as error:
            return Ending(None, reason=str(error))
        runner.go(identity)
        try:
            return _ending(events, plan.limits.check)
        except queue.Empty:
            runner.kill(identity)
            _ending(events, None)
            return Ending(None, reason=f"check took longer than {plan.limits.check:g} s")
        finally:
            runner.let_go()


def _ending(events: queue.SimpleQueue[Progressed | Finished], seconds: float | None) -> Ending:
    while True:
        event = events.get(timeout=seconds)
        if isinstance(event, Finished):
            return event.ending


def _of_check(ending: Ending) -> dict[str, Any]:
    match ending.code:
        case Exit.DONE:
            return {"would": "run", "check": "the change is needed"}
        case Exit.ALREADY:
            return {"would": "nothing", "check": "already as wanted"}
        case Exit.LATER:
            return {"would": "wait", "check": ending.reason or "not now"}
        case None:
            return {"would": "run", "check": f"check failed: {ending.reason or ending.signal}"}
        case _:
            reason = ending.reason or f"check exited with status {ending.code}"
            return {"would": "reject", "code": Code.CHECK_REJECTED, "reason": reason, "updates": [Status.REJECTED]}


# --- for people ---------------------------------------------------------------------------------------------------

_WOULD = {
    "run": ("SUCCEEDED", "would run"),
    "nothing": ("SUCCEEDED", "would change nothing"),
    "wait": ("IN_PROGRESS", "would wait"),
    "reject": ("REJECTED", "would be REJECTED"),
}


def _print(paint: Paint, name: str, shown: dict[str, Any]) -> None:
    status, words = _WOULD[shown["would"]]
    paint.line(f"{paint.mark(status)} {name}: {paint.style(words, 'bold')}")
    rows: list[tuple[str, str]] = []
    if "reason" in shown:
        rows.append((str(shown["code"]), shown["reason"]))
    if "handler" in shown:
        rows.append(("handler", f"{shown['handler']} {shown['version']}".strip()))
        rows.append(("runs as", shown["user"]))
        rows.append(("verbs", ", ".join(shown["verbs"])))
    if "check" in shown:
        rows.append(("check", shown["check"]))
    if shown.get("params"):
        rows.append(("params", json.dumps(shown["params"], ensure_ascii=False)))
    rows.extend(_step_rows(shown.get("steps", [])))
    rows.extend(("downloads", url) for url in shown.get("downloads", []))
    rows.append(("updates", ", then ".join(str(update) for update in shown["updates"])))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        paint.line(f"    {paint.style(key.ljust(width), 'dim')}  {value}")
    paint.line()


def _step_rows(steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    rows = []
    for index, step in enumerate(steps, 1):
        kind = "" if step["kind"] == "run" else f"{step['kind']} "
        notes = [f"as {step['user']}"] if step["user"] else []
        notes += ["a failure is ignored"] if step["ignoreStepFailure"] else []
        notes += [f"at most {step['allowStdErr']} lines on stderr"] if step["allowStdErr"] is not None else []
        said = f"  ({', '.join(notes)})" if notes else ""
        label = "final step" if step["final"] else f"step {index}"
        rows.append((label, f"{step['name']}: {kind}{shlex.join(step['argv'])}{said}".rstrip()))
    return rows
