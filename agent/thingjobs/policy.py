"""Every number that says how often, how long and how many; pure, and bounded.

Seconds unless the name says otherwise. Randomness is an argument: `roll` is a number in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingjobs.model import JobId

#: No reply after this long: the request or its reply is lost.
REPLY_TIMEOUT = 10.0
#: Requests in a row without a reply after which the connection is taken for dead, however alive it looks.
MAX_SILENT = 3
#: The in-progress timer is learned by one DescribeJobExecution this long after the claim.
LEARN_AFTER = 20.0
FIRST_PROGRESS_AFTER = 15.0
#: A renewal of the step timer that was not taken is tried again after this long.
RENEW_AGAIN = 15.0
#: A verb that is found again after a restart gets at least this: that it ended in time is heard first.
ADOPTED_GRACE = 10.0
#: A terminal update is followed by `notify-next`; when it is not, we ask.
EXPECT_NEXT_WITHIN = 5.0
#: A safety net, not a poll: every notification may be lost.
LOOK_EVERY = 6 * 3600.0
#: After an outage a whole fleet asks the same account what is pending, which for nearly all of it is nothing: the
#: question waits up to as long as the outage was, and no longer than this.
LOOK_SPREAD = 300.0
#: Whoever was away for less looks at once: so soon after a loss, jitter has spread the connections themselves.
BLIP = 5.0
RETRY_FIRST = 1.0
RETRY_CAP = 300.0
#: A search that the account has no room for comes again after 30, 60, 120 … seconds at most: others are at it as well.
CROWDED_FIRST = 15.0
SAVE_RETRY_CAP = 60.0
DEFER_FIRST = 60.0
DEFER_CAP = 900.0
#: A gate that says when it opens opens for a whole fleet at that moment.
REOPEN_JITTER = 60.0
#: A job that takes longer than this is worth a request for observers that wait behind it; one that is put off at once.
ASIDE_AFTER = 20.0
ASIDE_SOON = 1.0
#: Fresh parameters are asked for no more often, however often a handler wants them.
FRESH_PAUSE = 10.0
REBOOT_WAIT = 600.0
REBOOT_STEP_TIMEOUT_MINUTES = 60
#: The service fires its timers up to a minute late.
TIMER_SLACK = 60.0
#: A device that booted this recently may share its reason for booting with a whole fleet.
FRESH_BOOT = 120.0
FRESH_BOOT_JITTER = 30.0

#: Legal job ids whose topics mean something else: no request about such a job is ever answered over MQTT.
RESERVED_IDS = frozenset({"get", "start-next", "notify", "notify-next"})

MAX_RUNS_PER_VERB = 5
MAX_DEATHS_PER_VERB = 3
MAX_REBOOTS = 3
MAX_REBOOT_REQUESTS = 3
#: Identities of finished executions that are remembered while running; the journal's tombstones are the rest.
MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says about jobs.

    Attributes:
        only: patterns of job ids that are this agent's; all others are left alone.
        step_timeout_minutes: asked for in each update, 1..10080.
        progress_interval: the largest distance between two progress reports, seconds.
        agent: the mark in every update, thingjobs/VERSION.
        may_reboot: whether a job may have this machine rebooted at all.
    """

    agent: str
    only: tuple[str, ...] = ("*",)
    step_timeout_minutes: int = 1440
    progress_interval: float = 300.0
    may_reboot: bool = True

    def ours(self, job_id: JobId) -> bool:
        """Return whether this agent takes jobs of that id, and can."""
        return job_id not in RESERVED_IDS and any(fnmatchcase(job_id, pattern) for pattern in self.only)


def backoff(tries: int, roll: float, *, first: float = RETRY_FIRST, cap: float = RETRY_CAP) -> float:
    """Return how long to wait before the next try: exponential with full jitter, capped.

    Args:
        tries: tries that failed so far, at least 1.
        roll: randomness in [0, 1).
        first: the bound of the first wait is twice this, seconds.
        cap: no wait is longer, seconds.
    """
    return roll * min(cap, first * 2.0 ** min(tries, 32))


def spread(seconds: float, roll: float, share: float = 1 / 3) -> float:
    """Return `seconds` give or take `share` of it."""
    return seconds * (1 + share * (2 * roll - 1))


def look_delay(away: float, roll: float) -> float:
    """Return how long the search waits after a reconnect, when nothing is at stake.

    Args:
        away: seconds without a connection.
        roll: randomness in [0, 1).
    """
    return roll * min(away, LOOK_SPREAD) if away >= BLIP else 0.0


def renew_after(minutes: int) -> float:
    """Return the seconds after which a step timer of so many minutes is renewed: half its time."""
    return minutes * 60 / 2


def defer(tries: int) -> float:
    """Return how long a deferred execution waits before it is looked at again: 1, 2, 4 … 15 minutes."""
    return min(DEFER_CAP, DEFER_FIRST * 2.0 ** min(max(tries - 1, 0), 16))


def reopened(opens_in: float, roll: float) -> float:
    """Return how long to wait for a gate that opens in `opens_in` seconds; it may be opened by hand before."""
    return min(opens_in + min(REOPEN_JITTER, opens_in) * roll, DEFER_CAP)


def first_connect_delay(uptime: float, roll: float) -> float:
    """Return how long to wait before the first connection: nothing, unless the machine has just booted."""
    return FRESH_BOOT_JITTER * roll if uptime < FRESH_BOOT else 0.0
