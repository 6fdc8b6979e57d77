"""The handler `aws-steps`: carries out the steps of an AWS job document, one after the other."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.handler import Context, Failed, Outcome
from thingjobs.model import Code
from thingjobs_handlers.marks import Marks
from thingjobs_handlers.processes import TAIL_BYTES, CannotStartError, Ended, Program, run, signal_name
from thingjobs_handlers.settings import downloads
from thingjobs_handlers.steps import REBOOT, Plan, Step, programs_of, read_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Leaves room for the rest of the reason in the 1024 of a status detail.
_LINE_CHARACTERS = 500


class AwsSteps:
    """Runs the plan that the agent made of a document with steps.

    A reboot is a step like any other: where to go on is stored, the agent reboots, and `apply` is called again. Only
    that mark makes a later call skip steps; after any other interruption it would begin with the first.
    """

    version = "1.0"
    description = "carries out the steps of AWS managed documents and of the AWS IoT Device Client"
    #: A plan and its marks mean the same in every release, and an agent may be upgraded by one of these jobs.
    resumes_across_versions = True

    def apply(self, ctx: Context, params: Mapping[str, Any]) -> Outcome:
        """Carry out the steps, up to the end or to the next reboot.

        Raises:
            Failed: a step failed that may not; the reason names it.
        """
        plan = read_plan(params)
        marks = Marks(ctx.dir)
        first = marks.after_reboot()
        if first is not None and not ctx.rebooted:
            ctx.log("the reboot that an earlier step asked for has not happened yet")
            return Outcome.REBOOT_AND_AGAIN
        marks.forget_reboot()
        if first is None and ctx.resumed:
            ctx.log("an earlier call was interrupted: beginning with the first step again")
        job = _Job(ctx, plan)
        for index in range(first or 0, len(plan.steps)):
            job.begin(index)
            if plan.steps[index].kind == REBOOT:
                marks.store_reboot(index + 1)
                return Outcome.REBOOT_AND_AGAIN
            job.carry_out(index)
            marks.store_done(index)
        return Outcome.DONE


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a step failed.

    Attributes:
        code: for programs.
        reason: the rest of a sentence that begins with the step.
        exit: the exit status, or the signal's name; "": nothing ran.
    """

    code: Code
    reason: str
    exit: str = ""


class _Job:
    """One call of `apply`: carries out steps and reports them."""

    def __init__(self, ctx: Context, plan: Plan) -> None:
        self._ctx = ctx
        self._plan = plan
        self._downloads = downloads(ctx)
        self._stdout = b""
        self._ignored: list[str] = []

    def begin(self, index: int) -> None:
        """Announce a step, unless the job was cancelled."""
        if self._ctx.cancelled:
            raise Failed(f"it was stopped before {self._named(index)}", code=Code.CANCELLED)
        self._ctx.progress(self._percent(index), self._short(index))

    def carry_out(self, index: int) -> None:
        """Run a step and report how it ended.

        Raises:
            Failed: it failed, and that is not ignored.
        """
        step = self._plan.steps[index]
        listener = _Listener(lambda part, text: self._hear(index, part, text))
        ended, failure = _run_step(step, listener, self._downloads)
        self._show_stdout(ended.stdout)
        if failure is None:
            return
        stderr = _text(ended.stderr)
        if stderr:
            self._ctx.details(stderr=stderr)
        if step.ignore_failure and not self._ctx.cancelled:
            self._ignore(index, failure)
            return
        code = Code.CANCELLED if self._ctx.cancelled else failure.code
        details = {"step": self._short(index).removeprefix("step ")}
        if failure.exit:
            details["exit"] = failure.exit
        raise Failed(f"{self._named(index)} {failure.reason}", code=code, details=details)

    def _ignore(self, index: int, failure: _Failure) -> None:
        note = f"{self._named(index)} {failure.reason}"
        self._ignored.append(note)
        self._ctx.log(f"{note}; going on, because it says ignoreStepFailure")
        self._ctx.progress(self._percent(index + 1), f"{note}; going on")
        self._ctx.details(ignored="; ".join(self._ignored))

    def _show_stdout(self, tail: bytes) -> None:
        self._stdout = (self._stdout + tail)[-TAIL_BYTES:]
        text = _text(self._stdout)
        if self._plan.show_stdout and text:
            self._ctx.details(stdout=text)

    def _hear(self, index: int, part: float | None, text: str) -> None:
        percent = None if part is None else self._percent(index + part / 100)
        self._ctx.progress(percent, f"{self._short(index)}: {text}")

    def _percent(self, steps: float) -> float:
        return 100 * steps / len(self._plan.steps)

    def _short(self, index: int) -> str:
        return f"step {index + 1}/{len(self._plan.steps)} {self._plan.steps[index].name}"

    def _named(self, index: int) -> str:
        return f'step {index + 1} of {len(self._plan.steps)} "{self._plan.steps[index].name}"'


class _Listener:
    """Makes lines of what a program of ours says about its progress."""

    def __init__(self, tell: Callable[[float | None, str], None]) -> None:
        self._tell = tell
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):  # a word of somebody else's, sudo perhaps
                said = json.loads(line)
                self._tell(said.get("progress"), said["message"])


def _run_step(step: Step, listener: _Listener, policy: Mapping[str, Any]) -> tuple[Ended, _Failure | None]:
    """Run the programs of a step until one fails; return what they wrote in all, and the failure."""
    whole = Ended(0)
    try:
        for program in programs_of(step, policy):
            ended = run(program, listener)
            whole = Ended(
                status=ended.status,
                stdout=whole.stdout if program.talks else whole.stdout + ended.stdout,
                stderr=(whole.stderr + ended.stderr)[-TAIL_BYTES:],
                stderr_lines=whole.stderr_lines + ended.stderr_lines,
            )
            failure = _judge(step, program, whole)
            if failure is not None:
                return whole, failure
    except CannotStartError as error:
        return whole, _Failure(error.code, f"could not start: {error}")
    return whole, None


def _judge(step: Step, program: Program, ended: Ended) -> _Failure | None:
    if ended.status < 0:
        name = signal_name(-ended.status)
        return _Failure(Code.STEP_FAILED, f"was killed by signal {name}", name)
    if ended.status > 0:
        line = _last_line(ended.stderr)
        if ended.status in program.failures:
            return _Failure(program.failures[ended.status], f"failed: {line}", str(ended.status))
        reason = f"exited with status {ended.status}" + (f": {line}" if line else "")
        return _Failure(Code.STEP_FAILED, reason, str(ended.status))
    if step.stderr_limit is not None and ended.stderr_lines > step.stderr_limit:
        reason = (
            f"wrote {ended.stderr_lines} lines to standard error, where {step.stderr_limit} are allowed: "
            f"{_last_line(ended.stderr)}"
        )
        return _Failure(Code.STEP_STDERR, reason, "0")
    return None


def _text(tail: bytes) -> str:
    """Return the end of an output as text of at most as many bytes, without half a character in front."""
    text = tail.decode("utf-8", "replace").encode()[-TAIL_BYTES:].decode("utf-8", "ignore")
    return (text.lstrip("\ufffd") if len(tail) == TAIL_BYTES else text).strip()


def _last_line(tail: bytes) -> str:
    lines = _text(tail).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last if len(last) <= _LINE_CHARACTERS else last[:_LINE_CHARACTERS] + "…"
