"""Shows what would happen here if these documents came as jobs. Runs only the handler's `check`, and changes nothing.

Exit code: 0 all would run, or wait, or change nothing; 1 at least one would be REJECTED; 2 a file cannot be read.
"""

from __future__ import annotations

import json
import queue
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs import boot
from thingjobs.cli import FAILED, USAGE, documents, options
from thingjobs.cli.paint import Paint
from thingjobs.cloud.session import BODY, WOULD_SEND
from thingjobs.documents import AWS_STEPS
from thingjobs.errors import StateError
from thingjobs.handler import Exit
from thingjobs.judging import effective_user
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Ending, Finished
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Record, Result, Status, Verb
from thingjobs.redact import redacted_json
from thingjobs.registry import quiet
from thingjobs.runner import Runner
from thingjobs.runner.given import CLOUD

if TYPE_CHECKING:
    import argparse

    from thingjobs.config import Config
    from thingjobs.machine.events import Progressed
    from thingjobs.runner.events import Wanted

ORDER = (Verb.CHECK, Verb.PREPARE, Verb.APPLY, Verb.VERIFY, Verb.COMMIT)


def add_to(commands: Any) -> None:
    """Add this command."""
    documents.add_to(commands, "dry-run", "show what job documents would do here", __doc__, command)


def command(chosen: argparse.Namespace) -> int:
    """Show what each document would do; exit 1 if any would be rejected.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    found = documents.judged(chosen.documents, config)
    if found is None:
        return USAGE
    paint = Paint(sys.stdout)
    rejected = False
    for one in found:
        shown = {**foresee(config, one.verdict), **({"signed": one.signed} if one.signed else {})}
        rejected = rejected or shown["would"] in ("reject", "fail")
        if chosen.json:
            paint.line(json.dumps({"document": one.name, **shown}))
        else:
            _print(paint, documents.shown(one.name), shown)
    return FAILED if rejected else 0


def foresee(config: Config, found: Plan | Result) -> dict[str, Any]:
    """Return what would happen: handler, verbs, user, steps, downloads, updates, and what `check` says."""
    if isinstance(found, Result):
        return _rejected(found.code, found.reason)
    shown: dict[str, Any] = {
        "would": "run",
        "handler": found.handler,
        "version": found.version,
        "user": found.user or effective_user(config, found.handler),
        "verbs": [verb for verb in ORDER if verb in found.verbs],
        "updates": [Status.IN_PROGRESS, "SUCCEEDED or FAILED"],
        **_of_params(found),
    }
    if Verb.CHECK in found.verbs:
        shown.update(_of_check(*_check(config, found)))
    return _of_check_only(shown) if found.check_only else shown


def _rejected(code: Code | None, reason: str) -> dict[str, Any]:
    return {"would": "reject", "code": code, "reason": reason, "updates": [Status.REJECTED]}


def _of_params(plan: Plan) -> dict[str, Any]:
    """Return the steps and downloads of an AWS document's plan; for any other handler its parameters."""
    params = redacted_json(plan.params)
    if plan.handler != AWS_STEPS:
        return {"params": params}
    downloads = [url for step in params["steps"] if step["kind"] == "download-file" for url in step["argv"][:1]]
    return {"steps": params["steps"], "downloads": downloads}


# --- check --------------------------------------------------------------------------------------------------------


def _check(config: Config, plan: Plan) -> tuple[Ending, list[str]]:
    """Run `check` with dryRun in a folder of its own that is removed afterwards; return the calls to the cloud, too."""
    events: queue.SimpleQueue[Progressed | Finished | Wanted] = queue.SimpleQueue()
    identity = Identity(JobId("dry-run"), 1, 0)
    with tempfile.TemporaryDirectory(prefix="thingjobs-dry-run-") as folder:
        Path(folder).chmod(0o711)
        runner = Runner(options.runner_settings(config, Path(folder), boot.boot_id()), events.put)
        plan = replace(plan, argv=quiet(plan.argv))
        record = Record(identity, Phase.CHECKING, claim="", version=1, plan=plan, document={})
        try:
            runner.spawn(Run(record, Verb.CHECK, attempt=1, dry_run=True))
        except StateError as error:
            return Ending(None, reason=str(error)), []
        runner.go(identity)
        try:
            ending = _ending(events, time.monotonic() + plan.limits.check)
            return ending, _calls(Path(folder) / "jobs" / identity.key / "log") if CLOUD in plan.needs else []
        except queue.Empty:
            runner.kill(identity)
            _ending(events, None)
            return Ending(None, reason=f"it took longer than {plan.limits.check:g} s"), []
        except KeyboardInterrupt:
            runner.kill(identity)
            raise
        finally:
            runner.let_go()


def _calls(log: Path) -> list[str]:
    """Return the cloud calls that a handler would make: what `thingjobs.cloud.session` printed instead."""
    calls: list[str] = []
    inside = False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []:
        if line.startswith(WOULD_SEND):
            calls.append(line.removeprefix(WOULD_SEND))
        elif inside and line.startswith(BODY):
            calls[-1] += f" {line.strip()}"
        inside = line.startswith((WOULD_SEND, BODY)) and bool(calls)
    return calls


def _ending(events: queue.SimpleQueue[Progressed | Finished | Wanted], until: float | None) -> Ending:
    while True:
        event = events.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        if isinstance(event, Finished):
            return event.ending


def _of_check(ending: Ending, calls: list[str]) -> dict[str, Any]:
    """Return what the agent would make of the answer of `check`."""
    match ending.code:
        case Exit.DONE:
            return {"check": "the change is needed", **({"calls": calls} if calls else {})}
        case Exit.ALREADY:
            done = [Status.IN_PROGRESS, Status.SUCCEEDED]
            return {"would": "nothing", "check": "already as wanted", "verbs": [Verb.CHECK], "updates": done}
        case Exit.LATER:
            return {"would": "wait", "check": ending.reason or "not now", "verbs": [Verb.CHECK], "updates": []}
        case None:
            why = f"check gave no answer: {ending.reason or ending.signal}"
            failed = [Status.IN_PROGRESS, Status.FAILED]
            return {"would": "fail", "check": why, "verbs": [Verb.CHECK], "updates": failed}
        case _:
            return _rejected(Code.CHECK_REJECTED, ending.reason or f"check exited with status {ending.code}")


def _of_check_only(shown: dict[str, Any]) -> dict[str, Any]:
    """A document with "mode": "check" only asks; whatever the answer, it is a success."""
    if shown["would"] in ("reject", "fail"):
        return shown
    verbs = [verb for verb in shown["verbs"] if verb is Verb.CHECK]
    updates = [Status.IN_PROGRESS, f"SUCCEEDED with would={shown['would']}"]
    return {**shown, "would": "answer", "verbs": verbs, "updates": updates}


# --- for people ---------------------------------------------------------------------------------------------------

_WOULD = {
    "run": ("SUCCEEDED", "would run"),
    "answer": ("SUCCEEDED", "would only be checked"),
    "nothing": ("SUCCEEDED", "would change nothing"),
    "wait": ("IN_PROGRESS", "would wait"),
    "fail": ("FAILED", "would be FAILED"),
    "reject": ("REJECTED", "would be REJECTED"),
}


def _print(paint: Paint, name: str, shown: dict[str, Any]) -> None:
    status, words = _WOULD[shown["would"]]
    paint.line(f"{paint.mark(status)} {name}: {paint.style(words, 'bold')}")
    rows: list[tuple[str, str]] = []
    if "reason" in shown:
        rows.append((str(shown["code"]), shown["reason"]))
    if "signed" in shown:
        rows.append(("signed by", shown["signed"]))
    if "handler" in shown:
        rows.append(("handler", f"{shown['handler']} {shown['version']}".strip()))
        rows.append(("runs as", shown["user"]))
        rows.append(("verbs", ", ".join(shown["verbs"]) or "none"))
    if "check" in shown:
        rows.append(("check", shown["check"]))
    if shown.get("params"):
        rows.append(("params", json.dumps(shown["params"], ensure_ascii=False)))
    rows.extend(_step_rows(shown.get("steps", [])))
    rows.extend(("downloads", url) for url in shown.get("downloads", []))
    rows.extend(("would send", call) for call in shown.get("calls", []))
    rows.append(("updates", ", then ".join(str(update) for update in shown["updates"]) or "none, it stays QUEUED"))
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
