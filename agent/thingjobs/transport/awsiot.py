"""MQTT 5 with awsiotsdk, the vendor's SDK: mutual TLS, WebSocket with SigV4, custom authorizers, PKCS#11, HTTP proxy.

Two decisions, measured on one machine over loopback TLS (awsiotsdk 1.31.0, awscrt 0.36.1):

- Its plain MQTT 5 client under our own correlation, not its Jobs client (IotJobsClientV2). That one subscribes before
  each request and unsubscribes after it: 9 requests took 11 SUBSCRIBE and 9 UNSUBSCRIBE, where we send one SUBSCRIBE
  with 8 filters. It puts tokens of its own in place of ours, hides approximateSecondsBeforeTimedOut, and to it a
  refusal without a token is a time-out. An update takes it 0.65 ms and us 0.50, both without Nagle's delay, which
  alone is 44; 18.7 and 18.0 MiB.
- A client object for each connection, which never connects again by itself, as in `paho`. Left alone, awscrt comes
  back between 0 and 120 s later and knows no causes: two devices with one client id took each other's connection ten
  times in 15 s. How long to wait is for `patience`.

One connection is in `awsiot_session`, what is to be said of its end in `course` and `awsiot_why`. awscrt is imported
when a transport is made, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.errors import ConfigError
from thingjobs.transport.awsiot_settings import AwsIotSettings
from thingjobs.transport.patience import LIMITS, Ended, Limits
from thingjobs.transport.reconnecting import Reconnecting

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.transport.awsiot_session import Session  # noqa: F401 - it is named in a string below
    from thingjobs.transport.link import Link

MISSING = (
    'connection.transport = "awsiot" needs thingjobs[awsiot], which is not installed: pip install "thingjobs[awsiot]"; '
    'there are no wheels for 32-bit Arm: write "paho" there'
)


class AwsIotTransport(Reconnecting["Session"]):
    """MQTT with awsiotsdk.

    Args:
        link: where and as whom to connect.
        roll: gives randomness in [0, 1).
        delay: seconds to wait before the first connection.
        read_clock: gives the clocks.
        limits: how patient to be.
        settings: an authorizer, a token.

    Raises:
        ConfigError: the SDK is not installed, or cannot do what is configured.
    """

    def __init__(
        self,
        link: Link,
        roll: Callable[[], float],
        delay: float = 0.0,
        read_clock: Callable[[], Reading] = clock.read,
        limits: Limits = LIMITS,
        settings: AwsIotSettings | None = None,
    ) -> None:
        super().__init__(link, roll, delay, read_clock, limits)
        self._settings = settings or AwsIotSettings()
        if problems := self._settings.problems(link):
            raise ConfigError(problems)
        try:
            from thingjobs.transport import awsiot_session, awsiot_why  # noqa: PLC0415 - see the module's docstring
        except ImportError as error:
            raise ConfigError([f"{MISSING} ({error})"]) from None
        self._new_session = awsiot_session.Session
        self._reasons = awsiot_why.Why(link, self._settings, read_clock)

    def _wake(self) -> None:
        self._reasons.stop()
        session = self._session
        if session is not None:
            session.stop()

    def _hold_one(self) -> tuple[str, Ended]:
        self._certificates.opened()
        session = self._new_session(
            *(self._link, self._settings, self._tell, self._accepted, self._reasons.say),
            one_by_one=self._history.one_by_one,
        )
        self._session = session
        try:
            if self._stopping.is_set():
                session.stop()  # whoever stopped us may not have seen it
            return session.serve(self._certificates)
        finally:
            session.close()
