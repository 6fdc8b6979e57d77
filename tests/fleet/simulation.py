"""A fleet of devices after an outage, on a virtual clock: the real core and the real patience of each, and one account.

Every device has the core's own `State` and the transport's own `History`; `step` and `patience.after` decide whatever
is decided. Simulated are only what lies outside of them: the broker, the service with the quotas of the account, how
long messages take, and handlers that end when they are told to. Nothing sleeps: a heap holds what happens next.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thingjobs.jobs import (
    Connected,
    Describe,
    Described,
    DescribeNext,
    Disconnected,
    GetPending,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Summary,
    Update,
    Updated,
)
from thingjobs.jobs import State as Stored
from thingjobs.machine import Now, State, step
from thingjobs.machine import effects as do
from thingjobs.machine.events import Due, Ending, Finished, Gated, Judged, Progressed, Spawned
from thingjobs.model import Execution, Identity, JobId, Phase, Plan, Process, Status
from thingjobs.policy import Settings, first_connect_delay
from thingjobs.transport.patience import Cause, Ended, History, after

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Request

SETTINGS = Settings(agent="thingjobs/fleet")
PLAN = Plan(handler="h", argv=("/h",))
JOB = Identity(JobId("job"), 1, 0)
#: One way between a device and the service, and a TCP, TLS and MQTT handshake with subscriptions; seconds.
TRAVEL = (0.02, 0.08)
HANDSHAKE = (0.2, 0.6)
#: The connections were good ones before the outage.
LASTED = 86_400.0
#: The handler of a running job says how far it is so often.
SAYS_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """What the service takes of all devices together, a second.

    AWS General Reference, "AWS IoT Device Management endpoints and quotas" (jobs data plane: DescribeJobExecution and
    GetPendingJobExecutions, StartNextPendingJobExecution and UpdateJobExecution), and "AWS IoT Core endpoints and
    quotas" (connect requests; small regions: 100).
    """

    reads: float = 200.0
    writes: float = 200.0
    connects: float = 3000.0

    def of(self, share: float) -> Account:
        """Return the account of a fleet that is so much smaller."""
        return Account(self.reads * share, self.writes * share, self.connects * share)


class Quota:
    """So many a second, with a second's worth at once; what is refused costs nothing."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.offered: Counter[int] = Counter()
        self._left, self._at = rate, 0.0

    def take(self, now: float) -> bool:
        """Return whether one more is taken."""
        self.offered[int(now)] += 1
        self._left = min(max(self.rate, 1.0), self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def worst(self) -> float:
        """What was offered in the worst second, as a multiple of what is taken."""
        return max(self.offered.values(), default=0) / self.rate


class Device:
    """One device, and what the service holds of its only execution.

    Attributes:
        link: counts connections: what was under way on an earlier one is lost.
        armed: the timer that was asked for, on the fleet's clock.
        ends: when the verb that runs ends.
        result_at: when there was a result to report, or the service came back to a result that was there.
        accepted: how long that result waited; None: it still does, or there is none.
        looked: how long after the service came back the device knew what is pending.
        requests: sent since then; connects: tried since then.
    """

    __slots__ = (
        *("accepted", "armed", "connects", "ends", "execution", "history", "link", "looked"),
        *("requests", "result_at", "state", "up"),
    )

    def __init__(self, state: State, execution: Execution | None) -> None:
        self.state = state
        self.execution = execution
        self.history = History()
        self.up = False
        self.link = 0
        self.armed: float | None = None
        self.ends: float | None = None
        self.result_at: float | None = None
        self.accepted: float | None = None
        self.looked: float | None = None
        self.requests = self.connects = 0

    @property
    def settled(self) -> bool:
        """Whether it knows what is pending and owes nothing."""
        return self.looked is not None and (self.ends is None or self.accepted is not None)


class Fleet:
    """Devices, one account, and what happens next.

    Args:
        account: what the service takes.
        seed: of all that is random outside of the cores.
    """

    def __init__(self, account: Account, seed: int = 1) -> None:
        self.account = account
        self.dice = random.Random(seed)
        self.devices: list[Device] = []
        self.now = 0.0
        self.back = 0.0
        self.reads, self.writes, self.connects = (
            Quota(rate) for rate in (account.reads, account.writes, account.connects)
        )
        self._next: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._unsettled = 0

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Have something happen."""
        heapq.heappush(self._next, (when, next(self._count), what, args))

    def run(self, horizon: float) -> None:
        """Let everything happen until each device is settled, or the time is over."""
        while self._unsettled and self._next and self._next[0][0] <= horizon:
            self.now, _, what, args = heapq.heappop(self._next)
            what(*args)

    # --- the beginning --------------------------------------------------------------------------------------------

    def join(self, device: Device) -> None:
        """Take a device into the fleet."""
        self.devices.append(device)
        self._unsettled += 1

    def lose(self, device: Device) -> None:
        """The connection of a device ends, as all of them do."""
        self._drop(device, Ended(Cause.LOST, LASTED))

    def boot(self, device: Device, uptime: float) -> None:
        """The agent starts on a device that booted a moment ago."""
        device.history = History(wait=first_connect_delay(uptime, self.dice.random()))
        self.at(self.now + device.history.wait, self._connect, device)

    # --- the connection -------------------------------------------------------------------------------------------

    def _drop(self, device: Device, ended: Ended) -> None:
        device.up = False
        device.link += 1
        self._wait(device, ended)
        self.give(device, Disconnected("the fleet lost it"))

    def _wait(self, device: Device, ended: Ended) -> None:
        device.history = after(device.history, ended, self.now, self.dice.random())
        self.at(self.now + device.history.wait, self._connect, device)

    def _connect(self, device: Device) -> None:
        if self.now < self.back:
            self._wait(device, Ended(Cause.UNREACHED))
            return
        device.connects += 1
        if not self.connects.take(self.now):
            self._wait(device, Ended(Cause.UNREACHED))
            return
        self.at(self.now + self.dice.uniform(*HANDSHAKE), self._connected, device)

    def _connected(self, device: Device) -> None:
        device.up = True
        self.give(device, Connected())

    # --- the core -------------------------------------------------------------------------------------------------

    def give(self, device: Device, event: Any) -> None:
        """Let a device's core work out an event, and carry out what it decides."""
        soon = deque([event])
        while soon:
            device.state, effects = step(device.state, soon.popleft(), Now(self.now, "boot", self.now))
            for effect in effects:
                self._carry_out(device, effect, soon)
        self._arm(device)

    def _carry_out(self, device: Device, effect: do.Effect, soon: deque[Any]) -> None:
        match effect:
            case do.Send(request) if device.up:
                device.requests += 1
                self.at(self.now + self.dice.uniform(*TRAVEL), self._serve, device, device.link, request)
            case do.Judge(execution):
                soon.append(Judged(execution.identity, PLAN))
            case do.AskGates(record):
                soon.append(Gated(record.identity))
            case do.Run(record, verb):
                soon.append(Spawned(record.identity, verb, Process(7, 7, "boot")))
            case do.Reconnect() if device.up:
                self._drop(device, Ended(Cause.RENEWED, 1.0))
            case _:
                pass

    def _arm(self, device: Device) -> None:
        due = device.state.next_due()
        if due is not None and due != device.armed:
            self.at(max(due, self.now), self._due, device, due)
        device.armed = due

    def _due(self, device: Device, due: float) -> None:
        if device.armed != due:
            return
        device.armed = None
        self.give(device, earliest(device.state, due))

    # --- the handler ----------------------------------------------------------------------------------------------

    def end(self, device: Device) -> None:
        """The handler of a device ends."""
        job = device.state.jobs[JOB]
        assert job.running is not None
        device.result_at = max(self.now, self.back)
        self.give(device, Finished(JOB, job.running, job.record.attempts[job.running], Ending(0)))

    def say(self, device: Device) -> None:
        """The handler of a device says how far it is, and will again."""
        if device.result_at is None:
            self.give(device, Progressed(JOB, message=f"at {self.now:.0f}"))
            self.at(self.now + SAYS_EVERY, self.say, device)

    # --- the service ----------------------------------------------------------------------------------------------

    def _serve(self, device: Device, link: int, request: Request) -> None:
        quota = self.writes if isinstance(request, Update) else self.reads
        if quota.take(self.now):
            reply: Any = self._answer(device, request)
        else:
            reply = Refused(request.token, Refusal.REQUEST_THROTTLED, text="RequestThrottled")
        self.at(self.now + self.dice.uniform(*TRAVEL), self._reach, device, link, reply)

    def _reach(self, device: Device, link: int, message: Any) -> None:
        if device.link != link:
            return
        was_settled = device.settled
        asked = device.state.look
        if isinstance(message, Described) and asked is not None and asked.token == message.token:
            device.looked = self.now - self.back if device.looked is None else device.looked
        self.give(device, message)
        if device.result_at is not None and device.accepted is None and JOB not in device.state.jobs:
            device.accepted = self.now - device.result_at
        self._unsettled -= device.settled and not was_settled

    def _answer(self, device: Device, request: Request) -> Any:
        execution = device.execution
        pending = execution is not None and not execution.status.terminal
        match request:
            case DescribeNext(token):
                return Described(token, execution if pending else None)
            case Describe(token):
                return Described(token, execution)
            case GetPending(token):
                listed = (Summary(execution.identity, execution.version),) if execution and pending else ()
                return Pending(token, listed, ())
            case Update():
                return self._update(device, request)

    def _update(self, device: Device, request: Update) -> Any:
        execution = device.execution
        assert execution is not None
        stored = Stored(execution.status, execution.version, execution.details)
        if execution.status.terminal:
            return Refused(request.token, Refusal.INVALID_STATE_TRANSITION, state=stored)
        if execution.version != request.expected_version:
            return Refused(request.token, Refusal.VERSION_MISMATCH, state=stored)
        device.execution = execution = replace(
            execution, status=request.status, version=execution.version + 1, details=request.details
        )
        if request.status.terminal:
            travel = self.dice.uniform(*TRAVEL)
            self.at(self.now + TRAVEL[1] + travel, self._reach, device, device.link, NextChanged(None))
        return Updated(
            request.token, Stored(execution.status, execution.version, execution.details), execution.document
        )


def earliest(state: State, due: float) -> Due:
    """Return the timer of a state that is due then."""
    found = [Due(timer) for timer, at in state.timers.items() if at == due]
    for job in state.jobs.values():
        found += [Due(timer, job.identity) for timer, at in job.timers.items() if at == due]
    return found[0]


def a_running_job() -> tuple[State, Execution]:
    """Return what a core knows that was offered a job and whose handler runs, and what the service holds of it."""
    fleet = Fleet(Account())
    device = Device(State(SETTINGS, nonce="template"), Execution(JOB, Status.QUEUED, 1, document={"handler": "h"}))
    fleet.join(device)
    fleet.at(0.0, fleet._connected, device)
    device.ends = 3600.0  # it is not settled before
    fleet.run(10.0)
    assert device.execution is not None
    assert device.state.jobs[JOB].phase is Phase.APPLYING
    return device.state, device.execution
