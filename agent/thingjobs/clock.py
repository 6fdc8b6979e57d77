"""Whether the wall clock is right, as far as this machine can tell, and whether somebody has just set it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import boot

if TYPE_CHECKING:
    from collections.abc import Callable

#: systemd-timesyncd makes it, once it has set the clock; whoever sets the clock by other means may do the same.
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
#: The error that the kernel starts with, and comes back to after half a day without correction: NTP_PHASE_LIMIT.
_NEVER_SET_US = 16_000_000
#: struct timex begins with `modes`, in the place of a long, then `offset`, `freq` and `maxerror`: adjtimex(2).
_MAXERROR = 3
#: A clock that is only slewed goes wrong by less between two looks.
JUMP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment.

    Attributes:
        wall: seconds since the epoch, as this machine believes.
        boot: seconds since boot, which nobody can set.
        synchronised: whether a time service has set the wall clock.
    """

    wall: float
    boot: float
    synchronised: bool

    def was_set_since(self, earlier: Reading) -> bool:
        """Return whether the wall clock was set, or found right, since an earlier reading."""
        jump = (self.wall - self.boot) - (earlier.wall - earlier.boot)
        return abs(jump) > JUMP_SECONDS or self.synchronised > earlier.synchronised


def read() -> Reading:
    """Return the present reading."""
    return Reading(time.time(), boot.clock(), synchronised())


def once_right(ask: Callable[[], bool] | None = None) -> Callable[[], float | None]:
    """Return what tells the time: seconds since the epoch, None until a time service has set the clock.

    A clock that was right once is trusted from then on.
    """
    trusted = False

    def now() -> float | None:
        nonlocal trusted
        trusted = trusted or (ask or synchronised)()
        return time.time() if trusted else None

    return now


def synchronised(file: Path = SYNCHRONISED) -> bool:
    """Return whether a time service has set the clock.

    The error is looked at and not the flag STA_UNSYNC, as systemd does: a chrony that leaves the hardware clock
    alone keeps that flag (systemd, src/basic/time-util.c, ntp_synced). Python has no adjtimex of its own.
    """
    if file.exists():
        return True
    import ctypes  # noqa: PLC0415 - wanted only where there are maintenance windows, or dates that seem wrong

    timex = (ctypes.c_long * 64)()
    try:
        asked = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return False
    return asked >= 0 and timex[_MAXERROR] < _NEVER_SET_US
