"""What a person sees of `thingjobs run --local`: each execution's way from QUEUED to its end, and progress on it."""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from thingjobs import __version__
from thingjobs.cli.paint import Paint
from thingjobs.model import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from thingjobs.machine import Job, State
    from thingjobs.machine.effects import Note
    from thingjobs.testing import ExecutionView, JobsService

#: Details that the agent adds itself; a person has seen their content already.
_OURS = frozenset({"agent", "claim", "code", "reason", "progress"})


class Console:
    """Shows a local run.

    Args:
        service: the embedded service: what it holds is what is shown.
        thing: the thing's name.
        out: where to write.
    """

    def __init__(self, service: JobsService, thing: str, out: TextIO) -> None:
        self._service = service
        self._thing = thing
        self._paint = Paint(out)
        self._began: dict[str, float] = {}
        self._shown: set[tuple[str, int]] = set()
        self._width = 12

    def begin(self, folder: Path, unusable: Mapping[str, str]) -> None:
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
            paint.line(f"{paint.mark('REJECTED')} {name} is left out: {why}")
        if not views and not unusable:
            paint.line(f"there is no *.json in {folder}; put a job document there and it will run")

    def observe(self, before: State, after: State, notes: Sequence[Note]) -> None:  # noqa: ARG002 - notes go to the log
        """Show what a step changed."""
        for view in self._service.executions(self._thing):
            if Status(view.status).terminal and (view.job_id, view.number) not in self._shown:
                self._shown.add((view.job_id, view.number))
                self._finished(view)
        for job in after.jobs.values():
            self._began.setdefault(job.identity.job_id, time.monotonic())
            self._busy(job)

    def stopping(self, *, again: bool) -> None:
        """Say what a signal will do."""
        if again:
            self._paint.line("stopping the running job")
        else:
            self._paint.line("ending when the running step is done; press Ctrl-C again to stop it now")

    def end(self, *, unusable: int) -> int:
        """Say how it went, and return the exit code: 0 if every job SUCCEEDED."""
        statuses = Counter(view.status for view in self._service.executions(self._thing))
        total = sum(statuses.values())
        parts = ", ".join(f"{count} {self._paint.status(status)}" for status, count in sorted(statuses.items()))
        left_out = f"; {unusable} left out" if unusable else ""
        self._paint.line()
        self._paint.line(f"{total} job{'s' * (total != 1)}: {parts or 'none'}{left_out}")
        return 0 if statuses["SUCCEEDED"] == total and not unusable else 1

    # --- one job --------------------------------------------------------------------------------------------------

    def _busy(self, job: Job) -> None:
        paint, heard = self._paint, job.heard
        name = job.identity.job_id.ljust(self._width)
        bar = f"{paint.bar(heard.percent)} {heard.percent:3.0f}% " if heard.percent is not None else ""
        text = job.record.note or heard.message or str(job.phase)
        room = max(10, paint.width - self._width - 40)
        paint.draw(f"{paint.mark('IN_PROGRESS')} {name}  {bar}{textwrap.shorten(text, room, placeholder='…')}")

    def _finished(self, view: ExecutionView) -> None:
        paint = self._paint
        way: list[str] = []
        for change in view.history:
            if not way or way[-1] != change.status:
                way.append(change.status)
        steps = paint.arrow().join(paint.status(status) for status in way)
        took = time.monotonic() - self._began.pop(view.job_id, time.monotonic())
        seconds = paint.style(f"{took:.1f} s", "dim")
        paint.line(f"{paint.mark(view.status)} {view.job_id.ljust(self._width)}  {steps}  {seconds}")
        if "reason" in view.details:
            self._below(f"{view.details.get('code', '')}: {view.details['reason']}")
        for key, value in view.details.items():
            if key not in _OURS:
                self._below(f"{key}: {value}", dim=True)

    def _below(self, text: str, *, dim: bool = False) -> None:
        indent = " " * (self._width + 4)
        for line in textwrap.wrap(text, max(40, self._paint.width - len(indent)), break_long_words=False):
            self._paint.line(indent + self._paint.style(line, *(["dim"] if dim else [])))


def _names(views: Sequence[ExecutionView]) -> str:
    shown = ", ".join(view.job_id for view in views[:6])
    return f"{shown}, …" if len(views) > 6 else shown
