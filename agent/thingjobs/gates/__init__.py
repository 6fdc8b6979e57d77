"""Gates: local reasons to leave the device alone for now. Asked before a claim, before `apply` and before a reboot.

    inhibit      files that hold jobs back while they are locked, or until a time that they say
    windows      maintenance windows; the clock is `thingjobs.clock`
    programs     programs of the operator: exit status 0 is open, 75 is closed
    closed       why a gate is closed; what of a folder counts

The first that is closed, in this order, is the reason. What cannot be told is closed: a gate that is broken holds
jobs back and says why. What waits, and for how long, is the core's decision.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.errors import ScarceError
from thingjobs.gates import programs, windows
from thingjobs.gates.closed import Closed, entries
from thingjobs.gates.inhibit import Inhibit
from thingjobs.machine.events import Gated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from thingjobs.config import Gates as Settings
    from thingjobs.model import Identity

#: A gate that was killed is gone at once, unless the kernel holds it.
STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Question:
    identity: Identity
    gates: Sequence[Path]
    environment: dict[str, str]


class Gates:
    """Says whether the device may be changed now.

    Args:
        settings: the section [gates] of the configuration.
        put: takes the answers that programs had to be run for, from a thread.
        wall: the time of day, seconds since the epoch.
        synchronised: whether that time is right.
    """

    def __init__(
        self,
        settings: Settings,
        put: Callable[[Gated], None],
        *,
        wall: Callable[[], float] = time.time,
        synchronised: Callable[[], bool] = clock.synchronised,
    ) -> None:
        self._settings = settings
        self._put = put
        self._wall = wall
        self._synchronised = synchronised
        self._trusted = False
        self._inhibit = Inhibit(settings.inhibit, settings.time_zone)
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._wake = -1

    def ask(self, identity: Identity, before: str, handler: str = "") -> Gated | None:
        """Return the answer, or None where programs have to be run: then it is put later.

        Args:
            identity: the execution that wants to go on.
            before: what it wants: "claim", "apply" or "reboot".
            handler: its handler's name, for the programs.
        """
        now = self._wall()
        closed = self._inhibit.closed(now) or self._outside(now)
        gates: list[Path] = []
        if closed is None:
            try:
                gates = entries(self._settings.directory)
            except OSError as error:
                closed = Closed(f"the gates in {self._settings.directory} cannot be listed: {error.strerror}")
        if closed is not None:
            return Gated(identity, closed.reason, closed.opens_in)
        if not gates:
            return Gated(identity)
        self._enqueue(_Question(identity, gates, programs.environment(before, identity.job_id, handler)))
        return None

    def stop(self) -> None:
        """End the program that runs, if one does; nothing is put any more."""
        self._stopped = True
        if self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._questions.put(None)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            os.close(self._wake)
            self._thread = None

    def _outside(self, now: float) -> Closed | None:
        """Say whether no maintenance window is open; a clock that was right once since the start is trusted."""
        if not self._settings.windows:
            return None
        self._trusted = self._trusted or self._synchronised()
        if not self._trusted:
            return Closed("gate maintenance: the clock is not synchronised yet")
        return windows.closed(self._settings.windows, self._settings.time_zone, now)

    # --- programs, one after another in a thread ------------------------------------------------------------------

    def _enqueue(self, question: _Question) -> None:
        if self._stopped:
            return
        if self._thread is None:
            self._begin()
        self._questions.put(question)

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, name="gates", daemon=True)
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake = wake
        try:
            thread.start()
        except RuntimeError as error:  # No more threads.
            os.close(wake)
            raise ScarceError(f"cannot ask the gates: {error}") from None
        self._thread = thread

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            reason = self._first_closed(question)
            if self._stopped:
                return
            self._put(Gated(question.identity, reason))

    def _first_closed(self, question: _Question) -> str:
        for gate in question.gates:
            reason = programs.ask(gate, question.environment, stop=self._wake)
            if reason or self._stopped:
                return reason
        return ""
