"""Makes calls: signs them, sends them, mends what can be mended once, and tries again what may be tried again.

A call that changes something is sent again only when it is certain that the one before did nothing: it was never sent,
or the service refused it. Reading may be repeated at will.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, cast

import requests
import tenacity

from thingjobs import __version__
from thingjobs.cloud.errors import CloudError, Fate, Trouble, unusable
from thingjobs.cloud.signing import sign
from thingjobs.cloud.web import Line, send
from thingjobs.cloud.words import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.cloud.calls import Call, Endpoint, Reply
    from thingjobs.cloud.credentials import Credentials, Keeper

T = TypeVar("T")

#: Seconds. Services take signatures that are 5 minutes off, S3 15; below that a wrong clock is not what is wrong.
_TOLERABLE_SKEW = 240.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is tried, and how long it waits in between; seconds.

    Attributes:
        attempts: in all.
        first: what the first pause is at most; each one doubles that, and takes a random part of it.
        longest: what no pause passes, unless the service asks for more.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 20.0

    def pause(self, attempt: int, after: float | None, roll: float) -> float:
        """Return how long to wait after an attempt, counted from 1; `roll` is in [0, 1)."""
        if after is not None:
            return after
        return float(roll * min(self.longest, self.first * 2 ** min(attempt - 1, 30)))


def may_repeat(call: Call, error: CloudError) -> bool:
    """Return whether a call that failed may be sent again, unchanged, a little later."""
    return error.passing and not (call.changes and error.fate is Fate.UNKNOWN)


class Caller:
    """Makes calls with one set of credentials; any number of threads may use it.

    Args:
        keeper: gives the credentials.
        line: how servers are reached.
        patience: how often.
        clock: seconds since the epoch; may be wrong, which is found out and reckoned with.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        keeper: Keeper,
        line: Line | None = None,
        *,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._keeper = keeper
        self._line = line or Line()
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._slow_by = 0.0

    def make(self, call: Call, endpoint: Endpoint, understand: Callable[[Call, Reply], T]) -> T:
        """Make a call and return what it brought.

        Args:
            call: what to ask.
            endpoint: whom.
            understand: reads an answer; raises CloudError.

        Raises:
            CloudError: it brought nothing; `fate` says whether it may have done something all the same.
        """
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, CloudError) and may_repeat(call, error)),
            stop=tenacity.stop_after_attempt(self._patience.attempts),
            wait=self._pause,
            sleep=self._sleep,
            reraise=True,
        )
        return cast("T", trying(self._mended, call, endpoint, understand))

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, CloudError) else None
        return self._patience.pause(state.attempt_number, after, random.random())  # noqa: S311 - no secret

    def _mended(self, call: Call, endpoint: Endpoint, understand: Callable[[Call, Reply], T]) -> T:
        """Make it; when a wrong clock or credentials past their time are why not, once more without these."""
        mended: set[Trouble] = set()
        while True:
            credentials = self._keeper.current()
            reply = self._send(call, endpoint, credentials)
            try:
                return understand(call, reply)
            except CloudError as error:
                cure = self._cure(error, reply, credentials)
                if cure is None or cure in mended:
                    raise
                mended.add(cure)

    def _send(self, call: Call, endpoint: Endpoint, credentials: Credentials) -> Reply:
        headers = {"User-Agent": f"thingjobs/{__version__}", **dict(call.headers)}
        at = datetime.fromtimestamp(self._clock() + self._slow_by, UTC)
        try:
            # Not through the session: that would add credentials of ~/.netrc and headers that nobody signed.
            request = requests.Request(call.method, call.url(endpoint), headers=headers, data=call.body).prepare()
            sign(request, credentials, region=endpoint.region, service=endpoint.service, at=at)
        except (requests.RequestException, ValueError):
            raise unusable(call.purpose, f"{endpoint.url!r} is no endpoint; look at AWS_ENDPOINT_URL") from None
        return send(request, self._line, call.purpose, clock=self._clock)

    def _cure(self, error: CloudError, reply: Reply, credentials: Credentials) -> Trouble | None:
        """Remove what made the service refuse a call; return what that was, None if it cannot be removed."""
        match error.trouble:
            case Trouble.EXPIRED:
                self._keeper.forget(credentials)
                return Trouble.EXPIRED
            case Trouble.CLOCK | Trouble.SIGNATURE:
                slow_by = slowness(reply)
                if slow_by is None or abs(slow_by - self._slow_by) < _TOLERABLE_SKEW:
                    return None
                self._slow_by = slow_by
                return Trouble.CLOCK
            case _:
                return None


def slowness(reply: Reply) -> float | None:
    """Return by how many seconds this device's clock is behind the one that the answer was written by."""
    theirs = seconds_of(reply.headers.get("date", ""))
    return None if theirs is None else theirs - reply.received
