"""What the exit status of a verb means: contract version 1 for programs in any language. Pure."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the exit status of a verb means; everything else, and any signal, is failure."""

    DONE = 0
    #: `check` only: the device is already as the document wants it.
    ALREADY = 10
    #: This verb again later; from `check`: not now, the execution stays QUEUED.
    LATER = 75
    #: Reboot, then this verb again.
    REBOOT_AND_AGAIN = 194
    #: Done; reboot, then the next verb.
    DONE_AND_REBOOT = 195
    #: This verb again after the agent was restarted.
    AGAIN_AFTER_RESTART = 196
