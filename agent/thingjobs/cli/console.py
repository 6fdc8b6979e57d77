"""What a person sees of `thingjobs run --local`: each execution's way from QUEUED to its end, and progress on it."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from thingjobs import __version__
from thingjobs.cli.paint import Paint
from thingjobs.model import Identity, JobId, Phase, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from thingjobs.machine import Job, State
    from thingjobs.testing import ExecutionView, JobsService

#: Details that the agent adds itself; a person has seen their content already.
_OURS = frozenset({"agent", "claim", "code", "reason", "progress"})
#: The longest way: QUEUED → IN_PROGRESS → SUCCEEDED.
_WAY = 32
#: Lines that are shown of one detail, and how line breaks in it look.
_LINES = 6
_BREAK = " ⏎ "
#: Details that are no longer share one line.
_SHORT = 30
#: A terminal with fewer columns has no room for text beside the names.
_NARROW = 60


class Console:
    """Shows a local run.

    Args:
        service: the embedded service: what it holds is what is shown.
        thing: the thing's name.
        out: where to write.
        state: the state folder: a job that went wrong is shown with where its log is.
    """

    def __init__(self, service: JobsService, thing: str, out: TextIO, state: Path) -> None:
        self._service = service
        self._thing = thing
        self._paint = Paint(out)
        self._state = state
        self._began: dict[str, float] = {}
        self._shown: set[tuple[str, int]] = set()
        self._waits: dict[Identity, str] = {}
        self._width = 12

    def begin(self, folder: Path, unusable: Mapping[str, str], *, once: bool) -> None:
        """Say what is about to happen, and which jobs are done already."""
        paint = self._paint
        views = self._service.executions(self._thing)
        self._width = max([12, *(len(view.job_id) for view in views)])
        paint.line(f"thingjobs {__version__}, thing {self._thing}: jobs from {folder}, no cloud")
        done = [view for view in views if Status(view.status).terminal]
        if done:
            self._shown.update((view.job_id, view.number) for view in done)
            several = f"{len(done)} jobs are" if len(done) > 1 else "1 job is"
            paint.line(paint.style(f"{several} done already and will not run again: {_names(done)}", "dim"))
        for name, why in unusable.items():
            self.left_out(name, why)
        if not views and not unusable:
            paint.line(f"there is no job document (*.json) in {folder}")
        if not once:
            paint.line(paint.style("each *.json that is put there runs; Ctrl-C ends this", "dim"))

    def say(self, text: str) -> None:
        """Write a line."""
        self._paint.line(text)

    def erase(self) -> None:
        """Remove the line of progress: something else will be written there."""
        self._paint.erase()

    def left_out(self, name: str, why: str) -> None:
        """Say that a file is no job."""
        self._paint.line(f"{self._paint.mark('REJECTED')} {name} is left out: {why}")

    def observe(self, state: State) -> None:
        """Show what a step changed."""
        for view in self._service.executions(self._thing):
            if Status(view.status).terminal and (view.job_id, view.number) not in self._shown:
                self._shown.add((view.job_id, view.number))
                self._finished(view)
        for job in state.jobs.values():
            if job.phase not in (Phase.OFFERED, Phase.DEFERRED):
                self._began.setdefault(job.identity.job_id, time.monotonic())
            self._waiting(job)
            self._busy(job)

    def end(self, *, unusable: int, once: bool) -> int:
        """Say how it went, and return the exit code: with --once 0 only if every job SUCCEEDED."""
        counts = Counter(view.status for view in self._service.executions(self._thing))
        total = sum(counts.values())
        parts = [f"{counts[status]} {self._paint.status(status)}" for status in Status if counts[status]]
        left_out = f"; {unusable} file{'s' * (unusable != 1)} left out" if unusable else ""
        self._paint.line()
        self._paint.line(f"{total} job{'s' * (total != 1)}{': ' * bool(parts)}{', '.join(parts)}{left_out}")
        good = counts["SUCCEEDED"] == total and not unusable
        return 0 if good or not once else 1

    # --- one job --------------------------------------------------------------------------------------------------

    def _busy(self, job: Job) -> None:
        paint, heard = self._paint, job.heard
        name = job.identity.job_id.ljust(self._width if paint.width >= _NARROW else 0)
        bar = f"{paint.bar(heard.percent)} {heard.percent:3.0f}%  " if heard.percent is not None else ""
        text = job.record.note or heard.message or job.phase.replace("_", " ")
        paint.draw(f"{paint.mark('IN_PROGRESS')} {name}  {bar}{text}")

    def _waiting(self, job: Job) -> None:
        """Say once why a job waits: it may be for long."""
        why = job.record.note if job.phase is Phase.DEFERRED else ""
        if why and self._waits.get(job.identity) != why:
            self._paint.line(f"{self._paint.mark('QUEUED')} {job.identity.job_id.ljust(self._width)}  waits: {why}")
        self._waits[job.identity] = why

    def _finished(self, view: ExecutionView) -> None:
        paint = self._paint
        way: list[str] = []
        for change in view.history:
            if not way or way[-1] != change.status:
                way.append(change.status)
        steps = paint.arrow().join(paint.status(status) for status in way)
        took = time.monotonic() - self._began.pop(view.job_id, time.monotonic())
        room = " " * (_WAY - len(" → ".join(way)))
        seconds = f"{room}  {paint.style(f'{took:6.1f} s', 'dim')}" if Status.IN_PROGRESS in way else ""
        paint.line(f"{paint.mark(view.status)} {view.job_id.ljust(self._width)}  {steps}{seconds}")
        why = ": ".join(filter(None, (view.details.get("code"), view.details.get("reason"))))
        if why:
            self._below(why)
        if view.status == Status.FAILED:
            self._where_the_log_is(view)
        details = dict(_news(view.details))
        short = [f"{key}: {value}" for key, value in details.items() if len(key + value) <= _SHORT]
        if short:
            self._below(", ".join(short), "dim")
        for key, value in details.items():
            if len(key + value) > _SHORT:
                self._long_detail(key, value)

    def _where_the_log_is(self, view: ExecutionView) -> None:
        key = Identity(JobId(view.job_id), view.number, int(view.queued_at)).key
        log = self._state / "logs" / f"{key}.log"
        # It comes there in a moment, when the folder of the job is cleared away.
        if log.exists() or (self._state / "jobs" / key / "log").exists():
            self._paint.line(self._indent() + self._paint.style(f"log: {log}", "dim"))  # Whole, to be copied.

    def _long_detail(self, key: str, value: str) -> None:
        first, *rest = value.split(_BREAK)
        self._below(f"{key}: {first}", "dim")
        hidden = max(0, len(rest) + 1 - _LINES)
        for line in rest[: len(rest) - hidden]:
            self._below("  " + line, "dim")
        if hidden:
            self._below(f"  … {hidden} more line{'s' * (hidden != 1)}", "dim")

    def _indent(self) -> str:
        return " " * (self._width + 4 if self._paint.width >= _NARROW else 2)

    def _below(self, text: str, *styles: str) -> None:
        paint = self._paint
        indent = self._indent()
        hanging = " " * (len(text) - len(text.lstrip()))
        lines = textwrap.wrap(text, paint.width - len(indent) - 2, subsequent_indent=hanging, break_on_hyphens=False)
        for line in lines:
            paint.line(indent + paint.style(line, *styles))


def _news(details: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the handler's details, without those that only repeat what stands in another one or in the reason."""
    for key, value in details.items():
        repeated = len(value) > _SHORT and any(value in other for other in details.values() if other != value)
        if key not in _OURS and not repeated:
            yield key, value


def _names(views: Sequence[ExecutionView]) -> str:
    shown = ", ".join(view.job_id for view in views[:6])
    return f"{shown}, …" if len(views) > 6 else shown
