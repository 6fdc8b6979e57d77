"""Many agents in one process, as far as their connections go: what is real of them, and what is not.

Real are, for each: the transport with its own thread, socket, certificate, TLS session, jitter and patience; MQTT; the
codec; the core with its timers. Not real: the journal (nothing is written) and the handler (it has ended at once). One
loop takes the events of all.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fleet.simulation import PLAN, SETTINGS, earliest

from thingjobs import boot
from thingjobs.jobs import Connected, Disconnected
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Ending, Finished, Gated, Judged, Spawned
from thingjobs.model import Process, ThingName
from thingjobs.transport import paho
from thingjobs.transport.dial import Dial, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest
    from tests.conftest import Mosquitto, Pki


@dataclass
class Agent:
    """One of them.

    Attributes:
        begun: when each handshake began, and
        ended: when it was over, subscriptions included, well or not; seconds of time.monotonic.
        back: when it was connected last; None while it is not.
        failures: handshakes that came to nothing since it was connected last.
    """

    name: str
    transport: paho.PahoTransport
    state: State
    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    back: float | None = None
    failures: int = 0

    def heard(self, incoming: Any) -> None:
        """Remember what the transport's thread tells of its connection, and when."""
        now = time.monotonic()
        if len(self.ended) < len(self.begun):
            self.ended.append(now)
            self.failures += isinstance(incoming, Disconnected)
        if isinstance(incoming, Connected):
            self.back, self.failures = now, 0
        elif isinstance(incoming, Disconnected):
            self.back = None


class Crowd:
    """Agents on one broker, from `start` to `stop`."""

    def __init__(self, count: int, mosquitto: Mosquitto, pki: Pki, patch: pytest.MonkeyPatch) -> None:
        self._inbox: queue.SimpleQueue[tuple[Agent, Any]] = queue.SimpleQueue()
        self._dues: list[tuple[float, int, Agent]] = []
        self._count = itertools.count()
        self._by_link: dict[str, Agent] = {}
        self._roll = random.SystemRandom().random
        self.agents = [self._made(f"thing-{number:03}", mosquitto, pki, count / 50) for number in range(count)]
        crowd = self

        class Counted(Dial):
            def open(self) -> Any:
                crowd._by_link[self._link.client_id].begun.append(time.monotonic())
                return super().open()

        patch.setattr(paho, "Dial", Counted)

    def _made(self, name: str, mosquitto: Mosquitto, pki: Pki, switched_on_within: float) -> Agent:
        certificate, key = pki.device(name)
        link = Link(
            host="localhost",
            port=mosquitto.port,
            client_id=name,
            thing=ThingName(name),
            keep_alive=300,
            certificate=certificate,
            private_key=key,
            ca=pki.ca,
        )
        transport = paho.PahoTransport(link, self._roll, self._roll() * switched_on_within)
        agent = Agent(name, transport, State(SETTINGS, nonce=random.SystemRandom().randbytes(8).hex()))
        self._by_link[name] = agent
        return agent

    def start(self) -> None:
        """Let all begin to connect."""
        for agent in self.agents:
            agent.transport.start(lambda incoming, agent=agent: self._put(agent, incoming))  # type: ignore[misc]

    def stop(self) -> None:
        """End all threads."""
        for agent in self.agents:
            agent.transport._stopping.set()
        for agent in self.agents:
            agent.transport.stop()

    def _put(self, agent: Agent, incoming: Any) -> None:
        agent.heard(incoming)
        self._inbox.put((agent, incoming))

    def run(self, enough: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Let the agents work until there is enough; fail when that takes too long."""
        end = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < end, f"it takes too long until {what}"
            self._turn()

    def _turn(self) -> None:
        """Take what has come within a moment, then what is due."""
        try:
            agent, incoming = self._inbox.get(timeout=0.02)
            self._give(agent, incoming)
        except queue.Empty:
            pass
        now = boot.clock()
        while self._dues and self._dues[0][0] <= now:
            due, _, agent = heapq.heappop(self._dues)
            if agent.state.next_due() == due:
                self._give(agent, earliest(agent.state, due))

    def _give(self, agent: Agent, event: Any) -> None:
        soon = deque([event])
        while soon:
            now = Now(boot.clock(), "boot", time.time())
            agent.state, effects = step(agent.state, soon.popleft(), now)
            for effect in effects:
                soon.extend(carry_out(agent, effect))
        due = agent.state.next_due()
        if due is not None:
            heapq.heappush(self._dues, (due, next(self._count), agent))


def carry_out(agent: Agent, effect: do.Effect) -> Iterable[Any]:
    """Carry out what a core decided; return what comes of it at once."""
    match effect:
        case do.Send(request):
            agent.transport.send(request)
        case do.Reconnect():
            agent.transport.renew()
        case do.Judge(execution):
            return [Judged(execution.identity, PLAN)]
        case do.AskGates(record):
            return [Gated(record.identity)]
        case do.Run(record, verb, attempt):
            process = Process(7, 7, "boot")
            return [
                Spawned(record.identity, verb, process),
                Finished(record.identity, verb, attempt, Ending(0)),
            ]
        case _:
            pass
    return []


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of the spans overlap in the worst moment."""
    changes = sorted(change for begin, end in spans for change in ((begin, 1), (end, -1)))
    return max(itertools.accumulate(change for _, change in changes), default=0)


def histogram(times: Iterable[float], width: float) -> str:
    """Return how many there are in each span of so many seconds, as lines of text."""
    counts: dict[int, int] = {}
    for at in times:
        counts[int(at // width)] = counts.get(int(at // width), 0) + 1
    lines = [
        f"{slot * width:6.1f} s {counts.get(slot, 0):4} {'#' * counts.get(slot, 0)}" for slot in range(max(counts) + 1)
    ]
    return "\n".join(lines)
