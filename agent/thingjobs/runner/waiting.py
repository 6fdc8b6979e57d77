"""The processes that were made and wait for their go, some of them before anybody asked for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thingjobs import boot

if TYPE_CHECKING:
    from thingjobs.machine.effects import Run
    from thingjobs.model import Identity
    from thingjobs.runner.process import Started

#: What was made ready for a claim waits so long for its answer: longer than a good line takes.
READY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Held:
    run: Run
    started: Started
    #: By `boot.clock`; None: it was asked for.
    until: float | None = None


class Waiting:
    """Holds one process for each execution that has any."""

    def __init__(self) -> None:
        self._held: dict[Identity, _Held] = {}

    def hold(self, run: Run, started: Started) -> None:
        """Hold the process of a run until its go."""
        self._held[run.record.identity] = _Held(run, started)

    def expect(self, identity: Identity) -> None:
        """Take note that nobody has asked for a process yet, and that somebody will, soon."""
        self._held[identity] = replace(self._held[identity], until=boot.clock() + READY_SECONDS)

    def serving(self, run: Run) -> Started | None:
        """Return the process that was made ready and serves for `run`; end one that does not.

        Its parameters may be others by now: they come in job.json, which is not read before the go.
        """
        held = self._held.get(run.record.identity)
        if held is None or held.until is None:
            return None
        made_for = replace(held.run.record.plan, params=run.record.plan.params)
        if replace(held.run, record=run.record) != run or made_for != run.record.plan:
            self.end(run.record.identity)
            return None
        self.hold(run, held.started)
        return held.started

    def take(self, identity: Identity) -> tuple[Run, Started] | None:
        """Return the process of an execution, and hold it no longer; None: there is none."""
        held = self._held.pop(identity, None)
        return None if held is None else (held.run, held.started)

    def end(self, identity: Identity) -> bool:
        """End the process of an execution, and return whether there was one."""
        held = self._held.pop(identity, None)
        if held is not None:
            held.started.abandon()
        return held is not None

    def end_all(self) -> None:
        """End every one."""
        for identity in list(self._held):
            self.end(identity)

    def next_due(self) -> float | None:
        """Return when, by `boot.clock`, the next one has waited long enough for somebody to ask for it; None: never."""
        return min((held.until for held in self._held.values() if held.until is not None), default=None)

    def end_overdue(self, now: float) -> None:
        """End those that nobody asked for until `now`."""
        for identity, held in list(self._held.items()):
            if held.until is not None and held.until <= now:
                with contextlib.suppress(OSError):  # It is dead by then; what it left is looked for with its folder.
                    self.end(identity)
