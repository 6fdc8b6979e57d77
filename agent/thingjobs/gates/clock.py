"""Whether the wall clock is right, as far as this machine can tell."""

from __future__ import annotations

from pathlib import Path

#: systemd-timesyncd makes it, once it has set the clock; whoever sets the clock by other means may do the same.
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
#: The error that the kernel starts with, and comes back to after half a day without correction: NTP_PHASE_LIMIT.
_NEVER_SET_US = 16_000_000
#: struct timex begins with `modes`, in the place of a long, then `offset`, `freq` and `maxerror`: adjtimex(2).
_MAXERROR = 3


def synchronised(file: Path = SYNCHRONISED) -> bool:
    """Return whether a time service has set the clock.

    The error is looked at and not the flag STA_UNSYNC, as systemd does: a chrony that leaves the hardware clock
    alone keeps that flag (systemd, src/basic/time-util.c, ntp_synced).
    """
    if file.exists():
        return True
    import ctypes  # noqa: PLC0415 - wanted only where there are maintenance windows

    timex = (ctypes.c_long * 64)()
    try:
        asked = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return False
    return asked >= 0 and timex[_MAXERROR] < _NEVER_SET_US
