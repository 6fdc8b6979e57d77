"""What can wait until nothing is under way: putting away what finished executions left.

The service often has the next execution within milliseconds of the end of the one before. That one is begun first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs import boot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.machine.events import Event
    from thingjobs.model import Identity

    #: Returns what comes of it, for the core.
    Act = Callable[[], Sequence[Event]]

#: Seconds that something waits: by then the next execution, if there is one, is begun, and its handler is waited for.
LULL_SECONDS = 0.005


class Lull:
    """Acts that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._acts: dict[Identity, tuple[float, list[Act]]] = {}

    def put_off(self, identity: Identity, act: Act) -> None:
        """Have an act wait, with what waits for the same execution already."""
        _, acts = self._acts.get(identity, (0.0, []))
        self._acts[identity] = (boot.clock() + LULL_SECONDS, [*acts, act])

    def next_due(self) -> float | None:
        """Return when, by `boot.clock`, there is something to do; None: nothing waits."""
        return min((due for due, _ in self._acts.values()), default=None)

    def take(self, now: float) -> list[Act]:
        """Return what is to be done by now, and keep it no longer."""
        return [act for identity, (due, _) in list(self._acts.items()) if due <= now for act in self.take_of(identity)]

    def take_of(self, identity: Identity) -> list[Act]:
        """Return what waits for an execution, and keep it no longer: the execution has come back."""
        _, acts = self._acts.pop(identity, (0.0, []))
        return acts

    def take_all(self) -> list[Act]:
        """Return all that waits, and keep it no longer."""
        return self.take(float("inf"))
