"""The state of the simulated service, its one lock, and the rules of who is told what when.

Every operation runs inside `_locked`, every change of a thing's executions inside `_changing`, which compares the
pending list before and after and so cannot forget a notification. What is to be sent collects in one outbox and is
delivered, in order, when the operation is complete: first the answer, then `notify`, then `notify-next`.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from thingjobs.testing import shapes, snapshot
from thingjobs.testing.messages import Message
from thingjobs.testing.records import RETRIABLE
from thingjobs.testing.roster import Roster
from thingjobs.testing.transitions import queued, retry_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from thingjobs.testing.records import Behaviour, ExecutionView, Job

    Listener = Callable[[Message], None]


class Ledger:
    """Jobs and executions, who listens, and what is still to be sent.

    Args:
        clock: seconds since the epoch.
        behaviour: the settings.
    """

    def __init__(self, clock: Callable[[], float], behaviour: Behaviour) -> None:
        self._clock = clock
        self._behaviour = behaviour
        # Re-entrant: a listener may call the service, and the outbox keeps the order even then.
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._rosters: defaultdict[str, Roster] = defaultdict(Roster)
        self._listeners: list[tuple[str | None, Listener]] = []
        self._outbox: deque[tuple[Message, Listener | None]] = deque()
        self._ended: deque[ExecutionView] = deque()

    def listen(self, thing: str | None, listener: Listener) -> Callable[[], None]:
        """Have the notifications of `thing` (None: of every thing) handed to `listener` from now on.

        It is called on the thread whose operation caused the notification, when that operation is complete and
        while the service's lock is held: it may call the service, and should otherwise only hand the message over.

        Returns:
            A function that ends this.
        """
        entry = (thing, listener)
        with self._lock:
            self._listeners.append(entry)

        def unlisten() -> None:
            with self._lock, suppress(ValueError):
                self._listeners.remove(entry)

        return unlisten

    def execution(self, thing: str, job_id: str, number: int | None = None) -> ExecutionView:
        """Return an execution as it is now; without `number`, the latest of that job.

        Raises:
            KeyError: there is none, or it was deleted.
        """
        with self._lock:
            if found := self._rosters[thing].find(job_id, number):
                return found
        raise KeyError(f"{thing}/{job_id}" if number is None else f"{thing}/{job_id}#{number}")

    def executions(self, thing: str) -> tuple[ExecutionView, ...]:
        """Return every execution of `thing` that was not deleted, in the order of queueing."""
        with self._lock:
            return self._rosters[thing].all()

    def dump(self) -> dict[str, Any]:
        """Return all jobs and executions as a JSON object for `load`; not requests, listeners and faults."""
        with self._lock:
            hidden = [thing for thing, roster in self._rosters.items() if roster.hidden]
            return snapshot.dumped(self._jobs.values(), self._all(), hidden)

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Replace all jobs and executions by those of an earlier `dump`; nobody is notified.

        Raises:
            ValueError: `dumped` is not such a dump; nothing has changed then.
        """
        jobs, executions, hidden = snapshot.loaded(dumped)
        with self._lock:
            self._jobs = {job.job_id: job for job in jobs}
            self._rosters.clear()
            for execution in executions:
                self._rosters[execution.thing].put(execution)
            for thing in hidden:
                self._rosters[thing].hidden = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            yield
            while self._ended:
                self._retry(self._ended.popleft())
            self._deliver()

    @contextmanager
    def _changing(self, thing: str) -> Iterator[None]:
        roster = self._rosters[thing]
        members, head = roster.members(), roster.head()
        yield
        now_head = roster.head()
        # notify tells who joins or leaves the list, notify-next another head; that the head starts, neither.
        if members != roster.members():
            self._notify(thing, "notify", {"jobs": shapes.by_status(roster.pending())})
        if (head and head.key) != (now_head and now_head.key):
            self._notify(thing, "notify-next", self._next(now_head))

    def _put(self, execution: ExecutionView) -> None:
        self._rosters[execution.thing].put(execution)
        if execution.status in RETRIABLE:
            self._ended.append(execution)

    def _retry(self, ended: ExecutionView) -> None:
        job = self._jobs.get(ended.job_id)
        attempts = self._rosters[ended.thing].attempts(ended.job_id)
        if job and not job.cancelled and retry_left(job, attempts, ended.status):
            number = max(attempt.number for attempt in attempts) + 1
            with self._changing(ended.thing):
                self._put(queued(job, ended.thing, number, self._clock()))

    def _all(self) -> Iterator[ExecutionView]:
        return chain.from_iterable(roster.all() for roster in self._rosters.values())

    def _next(self, head: ExecutionView | None) -> shapes.Shape:
        if head is None:
            return {}
        return {"execution": {**shapes.full(head, self._clock()), "jobDocument": self._document(head.job_id)}}

    def _document(self, job_id: str) -> Any:
        return shapes.delivered(self._jobs[job_id].document, self._behaviour.presign)

    def _notify(self, thing: str, suffix: str, shape: shapes.Shape) -> None:
        self._send(thing, suffix, {"timestamp": int(self._clock()), **shape}, None)

    def _send(self, thing: str, suffix: str, shape: shapes.Shape, respond: Listener | None) -> None:
        self._outbox.append((Message(thing, suffix, shapes.encoded(shape)), respond))

    def _deliver(self) -> None:
        while self._outbox:
            message, respond = self._outbox.popleft()
            listening = [listener for thing, listener in self._listeners if thing in (None, message.thing)]
            for listener in [respond] if respond else listening:
                listener(message)
