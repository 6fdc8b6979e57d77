"""The executions of one thing, in order and quick to find. A container: it changes and refuses nothing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.testing.records import IN_PROGRESS, QUEUED

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from thingjobs.testing.records import ExecutionView, Key


class Roster:
    """What a thing has to do and has done, in the order of queueing.

    Attributes:
        hidden: a maintenance window is closed: what is QUEUED does not show as pending.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self.hidden = hidden
        self._all: dict[Key, ExecutionView] = {}
        self._by_job: dict[str, dict[int, ExecutionView]] = {}
        self._queued: dict[Key, ExecutionView] = {}
        self._running: dict[Key, ExecutionView] = {}
        #: When two were queued in the same instant, the one that came first is first.
        self._places: dict[Key, int] = {}
        self._next_place = 0

    def put(self, execution: ExecutionView) -> None:
        """Add an execution, or replace an earlier state of it."""
        key = execution.key
        if key not in self._places:
            self._places[key] = self._next_place
            self._next_place += 1
        self._all[key] = execution
        self._by_job.setdefault(execution.job_id, {})[execution.number] = execution
        for status, among in ((QUEUED, self._queued), (IN_PROGRESS, self._running)):
            if execution.status == status:
                among[key] = execution
            else:
                among.pop(key, None)

    def remove(self, execution: ExecutionView) -> None:
        """Forget an execution."""
        for among in (self._all, self._queued, self._running, self._places):
            among.pop(execution.key, None)
        del self._by_job[execution.job_id][execution.number]

    def all(self) -> tuple[ExecutionView, ...]:
        """Return every execution."""
        return tuple(self._all.values())

    def attempts(self, job_id: str) -> tuple[ExecutionView, ...]:
        """Return every execution of one job."""
        return tuple(self._by_job.get(job_id, {}).values())

    def find(self, job_id: str, number: int | None) -> ExecutionView | None:
        """Return one execution, without `number` the latest of the job."""
        if number is not None:
            return self._all.get((job_id, number))
        return max(self.attempts(job_id), key=lambda attempt: attempt.number, default=None)

    def pending(self) -> list[ExecutionView]:
        """Return what the device is shown: what is IN_PROGRESS, then what is QUEUED, each by queue time."""
        running = sorted(self._running.values(), key=lambda it: (it.queued_at, self._places[it.key]))
        return running if self.hidden else [*running, *self._queued.values()]

    def unfinished(self) -> list[ExecutionView]:
        """Return what can still change, hidden or not."""
        return [*self._running.values(), *self._queued.values()]

    def head(self) -> ExecutionView | None:
        """Return the first of what is pending."""
        if self._running:
            return self.pending()[0]
        return None if self.hidden else next(iter(self._queued.values()), None)

    def members(self) -> AbstractSet[Key]:
        """Return what is pending in no order."""
        return set(self._running) if self.hidden else self._running.keys() | self._queued.keys()
