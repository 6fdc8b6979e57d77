"""AWS credentials: how long they are used, when fresh ones are asked for, and one asking at a time.

Time here is a clock that only goes forward: a device's wall clock jumps by years when the network first sets it, and
neither makes credentials older. How long they live is what the service says less the service's own time.
"""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from thingjobs.cloud.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

#: Seconds. Fresh ones are wanted a tenth to a fifth of their life before its end, and no more than 10 minutes.
_LEAD_SHARE = 0.2
_LONGEST_LEAD = 600.0
#: Credentials this near to their end may not live until the request arrives.
_SLACK = 5.0
_USABLE = re.compile(r"[!-~]+")
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests; neither `str` nor `repr` shows what is secret.

    Attributes:
        session_token: "" for the lasting credentials of a user.
        expires: as the service wrote it; None: never, or nobody said.

    Raises:
        ValueError: one of them cannot go into a header; the message does not say what it was.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not all(_USABLE.fullmatch(text) for text in (self.access_key_id, self.secret_access_key)):
            raise ValueError("the access key has characters that none can have, or is empty")
        if self.session_token and not _USABLE.fullmatch(self.session_token):
            raise ValueError("the session token has characters that none can have")


@dataclass(frozen=True, slots=True)
class Issued:
    """Credentials as they come from their source; `life`: for how many seconds from now on, None: for good."""

    credentials: Credentials
    life: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Credentials in use; times are of the clock that only goes forward.

    Attributes:
        refresh_at: from when on fresh ones are asked for, and again from when on after that failed.
        dead_at: from when on these are not used any more.
        failures: how often in a row no fresh ones were to be had.
    """

    credentials: Credentials
    refresh_at: float = float("inf")
    dead_at: float = float("inf")
    failures: int = 0


def hold(issued: Issued, now: float, roll: float) -> Held:
    """Say how long credentials are used.

    Args:
        issued: what the source gave.
        now: seconds of the clock that only goes forward.
        roll: in [0, 1), so that a fleet does not ask all at once: AWS IoT lets an account ask 50 to 100 times a second
            (AWS IoT Core quotas, credentials provider).
    """
    if issued.life is None:
        return Held(issued.credentials)
    lead = min(_LONGEST_LEAD, _LEAD_SHARE * issued.life) * (0.5 + 0.5 * roll)
    return Held(issued.credentials, now + issued.life - lead, now + issued.life - min(_SLACK, lead))


def after_failure(held: Held, now: float, roll: float) -> Held:
    """Say when fresh credentials are asked for again; until they die these are as good as ever."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(held.failures, 10))
    return replace(held, refresh_at=min(now + longest * roll, held.dead_at), failures=held.failures + 1)


class Keeper:
    """Gives credentials to any number of threads, of which at most one asks the source at a time.

    Args:
        source: asks for credentials; raises CloudError.
        clock: seconds; only goes forward, also while the machine sleeps.
        roll: gives a number in [0, 1).
    """

    def __init__(
        self,
        source: Callable[[], Issued],
        *,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._clock = clock
        self._roll = roll
        self._asking = threading.Lock()
        self._held: Held | None = None
        self._error: CloudError | None = None
        self._asked = 0

    def current(self) -> Credentials:
        """Return credentials that are good now, asking for fresh ones if it is time to.

        While old ones are good only one thread waits for the source, and its failure is nobody's trouble.

        Raises:
            CloudError: there are none; fate is not-sent.
        """
        held, asked = self._held, self._asked
        now = self._clock()
        if held and now < held.refresh_at:
            return held.credentials
        if held and now < held.dead_at:
            return self._try_to_refresh(held)
        with self._asking:
            # Somebody may have asked while we waited: their answer is ours, unless it has been given up since.
            if self._asked == asked or not (self._held or self._error):
                self._ask()
            if self._error and (self._held is None or self._clock() >= self._held.dead_at):
                raise self._error
            assert self._held  # noqa: S101 - who asked without an error has credentials
            return self._held.credentials

    def forget(self, credentials: Credentials) -> None:
        """Ask for fresh ones next time, because the service does not take these any more."""
        with self._asking:
            if self._held and self._held.credentials == credentials:
                self._held = None

    def _try_to_refresh(self, held: Held) -> Credentials:
        if not self._asking.acquire(blocking=False):
            return held.credentials
        try:
            if self._held is held:
                self._ask()
            return self._held.credentials if self._held else held.credentials
        finally:
            self._asking.release()

    def _ask(self) -> None:
        try:
            self._held = hold(self._source(), self._clock(), self._roll())
            self._error = None
        except CloudError as error:
            self._error = error
            self._held = self._held and after_failure(self._held, self._clock(), self._roll())
        # Only now: who came while the source was being asked has its answer coming.
        self._asked += 1
