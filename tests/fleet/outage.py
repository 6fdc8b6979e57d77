"""What happens to a fleet, and what is to be seen of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import mean, median
from typing import TYPE_CHECKING

from tests.fleet.simulation import SETTINGS, Account, Device, Fleet, a_running_job

from thingjobs.machine import State

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A tenth of the devices is busy: a third each with a result that was reached without a connection, with a handler that
#: ends in the first minute after it, and with one that runs on for a while.
BUSY = 0.1
SOON = 60.0
LATER = (60.0, 900.0)
HORIZON = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Seen:
    """How the fleet came back; seconds count from when the service was back.

    Attributes:
        drained: when every device knew what is pending, and every report had been accepted that was owed, or became
            so in the first minute.
        looked: when each device knew what is pending.
        waited: how long each final report waited, the first minute's and later ones.
        peaks: the worst second of reads, writes and connects, as multiples of what the account takes.
        requests: how many each device sent.
        connects: how often each tried to connect, with the service there.
        unsettled: devices that did not get there.
    """

    drained: float
    looked: Sequence[float]
    waited: Sequence[float]
    peaks: tuple[float, float, float]
    requests: Sequence[int]
    connects: Sequence[int]
    unsettled: int

    def __str__(self) -> str:
        reads, writes, connects = self.peaks
        return (
            f"drained after {self.drained:6.0f} s; worst second: reads {reads:6.1f}x, writes {writes:5.1f}x, "
            f"connects {connects:5.1f}x; a final report waits {median(self.waited):5.1f} s (p99 "
            f"{part(self.waited, 0.99):5.0f}, worst {max(self.waited):5.0f}); looks {median(self.looked):5.0f} s (p99 "
            f"{part(self.looked, 0.99):5.0f}); a device sends {mean(self.requests):4.1f} requests (worst "
            f"{max(self.requests)}), connects {mean(self.connects):4.1f} times; unsettled {self.unsettled}"
        )


def part(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def outage(size: int, account: Account, lasts: float, *, seed: int = 1, busy: float = BUSY) -> Seen:
    """Cut off a fleet for so many seconds, let it come back, and see how.

    Args:
        size: how many devices.
        account: what the service takes of them.
        lasts: seconds that nobody can connect.
        seed: of all that is random.
        busy: the share of devices with a job.
    """
    fleet = Fleet(account, seed)
    running, execution = a_running_job()
    idle = replace(running, jobs={}, timers={}, connected_at=0.0)
    start = 1000.0
    fleet.back = start + lasts
    occupied = int(size * busy)
    for number in range(size):
        nonce = fleet.dice.randbytes(8).hex()
        works = number < occupied
        device = Device(replace(running if works else idle, nonce=nonce), execution if works else None)
        device.up = True
        fleet.join(device)
        fleet.at(start, fleet.lose, device)
        if works:
            _have_it_end(fleet, device, number % 3, start)
    return see(fleet)


def _have_it_end(fleet: Fleet, device: Device, how: int, start: float) -> None:
    back, dice = fleet.back, fleet.dice
    spans = ((start, back), (back, back + SOON), (back + LATER[0], back + LATER[1]))
    device.ends = dice.uniform(*spans[how])
    fleet.at(device.ends, fleet.end, device)
    fleet.at(start + dice.uniform(0, 60), fleet.say, device)


def power_cut(size: int, account: Account, *, seed: int = 1) -> Seen:
    """Have a fleet of idle devices boot at the same moment, and see how it comes up."""
    fleet = Fleet(account, seed)
    for _ in range(size):
        device = Device(State(SETTINGS, nonce=fleet.dice.randbytes(8).hex()), None)
        fleet.join(device)
        fleet.boot(device, uptime=20.0)
    return see(fleet)


def see(fleet: Fleet) -> Seen:
    """Let a fleet come back, and return what is to be seen of that."""
    back = fleet.back
    fleet.run(back + HORIZON)
    devices = fleet.devices
    waited = [device.accepted for device in devices if device.accepted is not None]
    first = [
        device.result_at - back + device.accepted
        for device in devices
        if device.accepted is not None and device.result_at is not None and device.result_at <= back + SOON
    ]
    looked = [device.looked for device in devices if device.looked is not None]
    return Seen(
        drained=max([*looked, *first]),
        looked=looked,
        waited=waited or [0.0],
        peaks=(fleet.reads.worst, fleet.writes.worst, fleet.connects.worst),
        requests=[device.requests for device in devices],
        connects=[device.connects for device in devices],
        unsettled=sum(not device.settled for device in devices),
    )
