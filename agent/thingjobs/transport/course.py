"""What happened on one MQTT connection, and what that says about why it ended. Pure; it knows no MQTT library.

One reason is kept, the first: what follows is its consequence.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from thingjobs.jobs import RENEWED
from thingjobs.transport.patience import Cause, Ended, topic_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.transport.link import Link

log = logging.getLogger("thingjobs.connection")

#: MQTT 5, reason codes of DISCONNECT: another connection came with our client id.
TAKEN_OVER = 0x8E
#: Unspecified error, implementation specific error, not authorized: AWS IoT Core, "MQTT 5 reason codes".
DENYING = frozenset({0x80, 0x83, 0x87})
#: The least reason code that says no.
FAILURE = 0x80


class Course:
    """The course of one connection; one thread only.

    Args:
        link: where and as whom.

    Attributes:
        reason: why it is to end, or ended, for people; "": it goes on.
        let_in: CONNECT was accepted.
        asked: the filters in the last SUBSCRIBE.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.reason = ""
        self.let_in = False
        self.asked: Sequence[str] = ()
        self._cause = Cause.LOST
        self._suspect = ""
        self._ready_at: float | None = None
        #: The kinds of the requests that the broker has not acknowledged, by number, the oldest first.
        self._sent: dict[int, str] = {}
        self._asks = self._answers = 0

    @property
    def usable(self) -> bool:
        """Whether requests can be sent."""
        return self._ready_at is not None and not self.reason

    @property
    def quiet(self) -> bool:
        """Whether something may be sent that is nobody's request: if it ends the connection, it is the suspect."""
        return self.usable and not self._sent

    @property
    def ready(self) -> bool:
        """Whether requests could be sent once."""
        return self._ready_at is not None

    def ended(self, now: float) -> Ended:
        """Return how it ended.

        Args:
            now: seconds, on the clock of `subscribed`.
        """
        if self._ready_at is None:
            kept = self._cause in (Cause.TAKEN, Cause.UNSUBSCRIBED, Cause.UNDATED)
            return Ended(self._cause if kept else Cause.UNREACHED)
        return Ended(self._cause, max(now - self._ready_at, 1e-3), self._suspect)

    def end(self, reason: str, cause: Cause = Cause.LOST) -> None:
        """It is to end, or ended."""
        if not self.reason:
            self._cause = cause
            self.reason = reason

    # --- what goes well -------------------------------------------------------------------------------------------

    def subscribed(self, now: float) -> None:
        """The last filter was granted."""
        self._ready_at = now

    def asks(self) -> None:
        """A request is made, or held back: neither is answered by itself."""
        self._asks += 1

    def sent(self, number: int, kind: str) -> None:
        """A request was sent."""
        self._sent[number] = kind

    def acknowledged(self, number: int, code: int, name: str) -> str:
        """The broker acknowledged a request; return its kind if it was taken, "" if not."""
        kind = self._sent.pop(number, "")
        if code < FAILURE:
            return kind
        hint = f"does the policy allow iot:Publish on {topic_of(self._link.thing, kind or '*')}?"
        log.warning("the broker refused a request: %s; %s", name, hint)
        return ""

    def heard(self) -> None:
        """A message came."""
        self._answers += 1

    # --- what does not --------------------------------------------------------------------------------------------

    def refused(self, name: str) -> None:
        """CONNECT was answered with a refusal."""
        us, where = self._link.client_id, self._link.address
        self.end(f"{where} refused the connection of client {us}: {name}; is iot:Connect allowed?")

    def not_granted(self, codes: Sequence[int]) -> bool:
        """SUBSCRIBE was answered; return whether a filter was refused."""
        refused = [name for name, code in zip(self.asked, codes, strict=False) if code >= FAILURE]
        if refused:
            names = ", ".join(refused)
            self.end(f"the broker refused to let us subscribe to {names}: check the policy (iot:Subscribe)")
        return bool(refused)

    def gave_up(self) -> None:
        """The time for connecting is over."""
        self.end(f"{self._link.address} did not answer {'SUBSCRIBE' if self.let_in else 'CONNECT'}")

    def renewed(self) -> None:
        """Somebody wants a new one."""
        if self._asks and not self._answers:
            where = f"{self._link.address} took {self._asks} requests and answered none"
            topics = topic_of(self._link.thing, "*")
            self.end(f"{where}; does the policy allow iot:Receive on {topics}?", Cause.DEAF)
        else:
            self.end(RENEWED, Cause.RENEWED)

    def told_why(self, code: int, name: str) -> None:
        """The broker ended it with DISCONNECT."""
        said = f"{self._link.address} ended the connection: {name}"
        if code == TAKEN_OVER:
            us = self._link.client_id
            self.end(f"{said}: another client uses the id {us}; give each its own (connection.client_id)", Cause.TAKEN)
        elif code in DENYING:
            self._closed_on_us(said)
        else:
            self.end(said)

    def closed(self, how: str = "the connection was closed without a word", hint: str = "") -> None:
        """The broker closed it without DISCONNECT.

        Args:
            how: what was seen of it.
            hint: what may be the reason when CONNECT was not answered; "": nothing is known that others do not have.
        """
        where, us = self._link.address, self._link.client_id
        if self.let_in:
            self._closed_on_us(f"{where}: {how}")
        else:
            hint = hint or f"may this certificate connect as {us}?"
            self.end(f"{where}: {how}, CONNECT was not answered; {hint}")

    def unanswered_ping(self) -> None:
        """A ping was not answered."""
        self.end(f"{self._link.address} did not answer a ping")

    def not_understood(self, hint: str = "") -> None:
        """What came is no MQTT."""
        self.end(f"{self._link.address} does not speak MQTT as we do{hint}")

    def replaced(self) -> None:
        """There are new certificates on disk."""
        self.end("the certificate files were replaced: connecting anew with them", Cause.RENEWED)

    def stopped(self) -> None:
        """We are to stop."""
        self.end("stopped", Cause.RENEWED)

    def _closed_on_us(self, said: str) -> None:
        """The broker closed the connection: perhaps because of what we did last."""
        if self._ready_at is None:
            names = ", ".join(self.asked)
            self.end(f"{said}; does the policy allow iot:Subscribe on {names}?", Cause.UNSUBSCRIBED)
        elif self._sent:
            self._suspect = next(iter(self._sent.values()))
            topic = topic_of(self._link.thing, self._suspect)
            self.end(f"{said}; does the policy allow iot:Publish on {topic}?")
        else:
            self.end(f"{said}; is there another client {self._link.client_id}?")
