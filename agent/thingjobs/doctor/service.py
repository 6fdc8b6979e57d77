"""A conversation with the service: connect, subscribe, ask for the next job, and see whether somebody takes our place.

With `paho`, by the very session that the agent holds; with the other transports, by the transport itself. Asking for
the next job (DescribeJobExecution of `$next`) changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thingjobs.doctor.rules import Stage, Talk
from thingjobs.errors import ThingjobsError
from thingjobs.jobs import Connected, Described, DescribeNext, Disconnected, Refused
from thingjobs.transport import configured
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import Bell, Dial, explain
from thingjobs.transport.patience import Cause
from thingjobs.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.config import Config
    from thingjobs.doctor.surroundings import Patience
    from thingjobs.transport.link import Link

STOP_SECONDS = 2.0
#: What the other transports' reasons for an end have in them: they come as sentences alone.
_TAKEN, _NOT_SUBSCRIBED = "another client uses the id", "iot:Subscribe"


@dataclass(frozen=True, slots=True)
class Over:
    """The connection ended."""

    reason: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The broker refused our request."""

    reason: str


class _Watched(Session):
    """A session that tells how far it came."""

    let_in = False

    def _on_connect(self, client: object, data: object, flags: object, reason: Any, props: object) -> None:
        self.let_in = not reason.is_failure
        super()._on_connect(client, data, flags, reason, props)

    def _on_publish(self, client: object, data: object, mid: int, reason: Any, props: object) -> None:
        if reason.is_failure:
            self._tell(NotTaken(str(reason)))  # type: ignore[arg-type]  # `converse` is the only one to hear it
        super()._on_publish(client, data, mid, reason, props)


def talk(config: Config, link: Link, patience: Patience) -> Talk:
    """Hold a conversation, and return what came of it.

    When the connection is closed while we subscribe, it is tried once more with one filter after another, which shows
    which of them it was; when it is closed while nothing was asked, to see whether that comes back.

    Args:
        config: which transport.
        link: where and as whom.
        patience: how long each step may take.
    """
    link = replace(link, patience=patience.session)
    if config.connection.transport != "paho":
        return _by_transport(config, link, patience)
    until = time.monotonic() + patience.talk
    found = _by_session(link, patience, until)
    if found.cause is Cause.UNSUBSCRIBED:
        return _by_session(link, patience, until, one_by_one=True)
    if found.stage is Stage.ANSWERED and found.cause is Cause.LOST:
        # So much is left when the second conversation is as slow as it may be.
        left = until - time.monotonic() - patience.session - patience.reply
        longer = replace(patience, rival=max(0.0, min(patience.return_, left)))
        return replace(found, again=bool(_by_session(link, longer, until).reason))
    return found


# --- paho ---------------------------------------------------------------------------------------------------------


def _by_session(link: Link, patience: Patience, until: float, *, one_by_one: bool = False) -> Talk:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stopping = threading.Event()
    with contextlib.closing(Bell()) as bell, _stopped_at(until, stopping, bell):
        try:
            sock = Dial(link, bell, stopping).open()
        except (OSError, ThingjobsError) as error:
            return Talk(Stage.BEGUN, explain(error, link), Cause.UNREACHED)
        with contextlib.closing(sock):
            session = _Watched(link, sock, heard.put, bell, _ignore, one_by_one=one_by_one)

            def serve() -> None:
                reason = session.serve(stopping, Certificates(link, time.time))
                heard.put(Over(reason, session.ended().cause))

            thread = threading.Thread(target=serve, name="check", daemon=True)
            thread.start()
            try:
                found = _converse(heard, session.send, patience)
            finally:
                stopping.set()
                bell.ring()
                thread.join(STOP_SECONDS)
                session.part()
    return replace(found, stage=Stage.LET_IN) if session.let_in and found.stage < Stage.LET_IN else found


@contextlib.contextmanager
def _stopped_at(until: float, stopping: threading.Event, bell: Bell) -> Iterator[None]:
    """Stop what goes on inside when the time is over."""

    def stop() -> None:
        stopping.set()
        bell.ring()

    timer = threading.Timer(max(0.0, until - time.monotonic()), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _ignore(kind: str) -> None:
    """Take note of nothing."""


# --- any transport ------------------------------------------------------------------------------------------------


def _by_transport(config: Config, link: Link, patience: Patience) -> Talk:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    try:
        transport = configured.transport_of(config, link)
    except ThingjobsError as error:
        return Talk(Stage.BEGUN, str(error), Cause.UNREACHED)
    transport.start(heard.put)
    try:
        found = _converse(heard, transport.send, patience)
    finally:
        transport.stop()
    subscribing = found.stage is Stage.BEGUN and _NOT_SUBSCRIBED in found.reason
    return replace(found, stage=Stage.LET_IN) if subscribing else found


# --- both ---------------------------------------------------------------------------------------------------------


class _Ear:
    """Hears what comes, one thing after another; what ends the connection is remembered."""

    def __init__(self, heard: queue.SimpleQueue[Any]) -> None:
        self._heard = heard
        self.over: Over | None = None
        self.refused = ""

    def hear(self, kinds: type | tuple[type, ...], seconds: float) -> Any:
        """Return the next of some kinds; None when it does not come in time, or the connection ends before."""
        until = time.monotonic() + seconds
        while self.over is None and not self.refused:
            try:
                came = self._heard.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return None
            match came:
                case Over():
                    self.over = came
                case Disconnected(reason):
                    self.over = Over(reason, Cause.TAKEN if _TAKEN in reason else Cause.LOST)
                case NotTaken(reason):
                    self.refused = reason
                case _ if isinstance(came, kinds):
                    return came
        return None


def _converse(heard: queue.SimpleQueue[Any], send: Callable[[DescribeNext], None], patience: Patience) -> Talk:
    ear, token = _Ear(heard), f"check-{os.urandom(8).hex()}"
    stage, reply = Stage.BEGUN, None
    # A session has its own patience, which ends with a reason.
    if ear.hear(Connected, 2 * patience.session) is not None:
        stage = Stage.SUBSCRIBED
        send(DescribeNext(token))
        reply = ear.hear((Described, Refused), patience.reply)
        if reply is not None:
            stage = Stage.ANSWERED
            ear.hear((), patience.rival)
    elif ear.over is None:
        ear.over = Over(f"there was no connection within {2 * patience.session:.0f} s", Cause.UNREACHED)
    over = ear.over
    return Talk(
        stage, over.reason if over is not None else "", over.cause if over is not None else None, ear.refused, reply
    )
