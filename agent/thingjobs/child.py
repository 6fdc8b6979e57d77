"""The program that runs a Python handler class: `python -I -m thingjobs.child MODULE:CLASS`, one verb a process.

It is the other side of the contract in `thingjobs.handler`: reads job.json, calls the method named by $JOB_VERB,
writes events to $JOB_EVENTS, and turns what the method returned or raised into an exit code. With `--describe` it
prints what the class declares, as JSON. Team code is imported here and nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from thingjobs.handler import Exit, HandlerSignal, Outcome, Reject, Retry
from thingjobs.model import Verb

#: The exit status of a handler that raised; what it said is in its events.
RAISED = 1
FAULT_FAILED, FAULT_REJECTED = "handler.failed", "handler.rejected"


class JobContext:
    """What a handler knows of its job (thingjobs.handler.Context)."""

    def __init__(self, job: dict[str, Any], folder: Path, events: int) -> None:
        self.job_id: str = job["jobId"]
        self.execution: int = job["execution"]
        self.thing: str = job["thing"]
        self.verb: str = job["verb"]
        self.attempt: int = job["attempt"]
        self.resumed: bool = job["resumed"]
        self.rebooted: bool = job["rebooted"]
        self.dry_run: bool = job["dryRun"]
        self.deadline: float | None = job["deadline"]
        self.dir = folder
        self._events = events
        self._cancelled = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature is Python's
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether the agent asked this verb to stop."""
        return self._cancelled

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Report how far the verb is, 0..100, and a few words."""
        event: dict[str, object] = {"message": message} if message else {}
        self.emit({**event, "progress": percent} if percent is not None else event)

    def details(self, **pairs: str) -> None:
        """Add to the status details."""
        self.emit({"details": pairs})

    def log(self, text: str) -> None:
        """Write a line to the job's bounded log."""
        print(text, flush=True)  # noqa: T201 - stdout is the log

    def emit(self, event: dict[str, object]) -> None:
        """Append one event."""
        data = json.dumps(event).encode() + b"\n"
        while data:
            data = data[os.write(self._events, data) :]


def load(target: str) -> type:
    """Return the class that `MODULE:CLASS` names.

    Raises:
        ImportError: there is no such module or class.
    """
    module, _, name = target.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    if not isinstance(found, type):
        raise ImportError(f"{target} is not a class")
    return found


def describe(handler: type) -> dict[str, object]:
    """Return what a handler class declares: the verbs are the methods that exist."""
    return {
        "contract": 1,
        "version": str(getattr(handler, "version", "")),
        "verbs": [verb.value for verb in Verb if callable(getattr(handler, verb.value, None))],
        "params": getattr(handler, "params_schema", None),
        "timeouts": getattr(handler, "timeouts", {}),
        "stall": getattr(handler, "stall", None),
        "applyRerun": bool(getattr(handler, "apply_rerun", False)),
        "cancelApply": bool(getattr(handler, "cancel_apply", False)),
    }


def run(handler: type, context: JobContext, params: dict[str, Any]) -> int:
    """Call the method for the verb and return the exit status."""
    try:
        outcome = getattr(handler(), context.verb)(context, params)
    except HandlerSignal as said:
        return _said(context, said)
    except Exception as error:  # noqa: BLE001 - a bug in a handler is a failed verb, and its author wants to see it
        traceback.print_exc()
        context.emit({"reason": f"{type(error).__name__}: {error}", "code": FAULT_FAILED})
        return RAISED
    return _exit_of(context, outcome)


def _said(context: JobContext, said: HandlerSignal) -> int:
    event: dict[str, object] = {"reason": said.reason, "details": said.details}
    if isinstance(said, Retry):
        context.emit({**event, "after": said.after} if said.after is not None else event)
        return Exit.LATER
    reject = isinstance(said, Reject)
    fault = said.code or (FAULT_REJECTED if reject else FAULT_FAILED)
    context.emit({**event, "code": str(fault), "reject": reject})
    return RAISED


def _exit_of(context: JobContext, outcome: object) -> int:
    if outcome is None:
        return Exit.DONE
    if isinstance(outcome, Outcome):
        return int(outcome.value)
    reason = f"{context.verb} returned {outcome!r}, which means nothing"
    context.emit({"reason": reason, "code": FAULT_FAILED})
    return RAISED


def main(arguments: list[str]) -> int:
    """Describe a handler, or run one verb of it."""
    if arguments[0] == "--describe":
        with contextlib.redirect_stdout(sys.stderr):  # What a module prints at import is not the answer.
            described = json.dumps(describe(load(arguments[1])))
        print(described)  # noqa: T201 - this is
        return 0
    folder = Path(os.environ["JOB_DIR"])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    events = os.open(os.environ["JOB_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    context = JobContext(job, folder, events)
    try:
        handler = load(arguments[0])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a team's module raises at import
        # An import that ends the process would end it with the status of a verb that is done.
        traceback.print_exc()
        context.emit({"reason": f"cannot import {arguments[0]}: {error}", "code": "handler.broken"})
        return RAISED
    return run(handler, context, job["params"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
