"""One step while it is being worked out: what is known, and the effects decided so far."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from thingjobs.machine.effects import Effect, Note, Send
from thingjobs.machine.state import Job, Kind, Now, Open, State, Timer, changed
from thingjobs.model import NOTHING, Deadline
from thingjobs.policy import MAX_REMEMBERED, REPLY_TIMEOUT, Settings
from thingjobs.wire import legal_details

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.jobs import Request
    from thingjobs.model import Identity


class Turn:
    """The scratch pad of one call of `step`; it never outlives the call.

    Attributes:
        state: as it stands so far.
        now: one reading of the clocks, so that all decisions of a step agree.
        effects: decided so far, in order.
    """

    def __init__(self, state: State, now: Now) -> None:
        self.state = state
        self.now = now
        self.effects: list[Effect] = []

    @property
    def settings(self) -> Settings:
        """What the configuration says."""
        return self.state.settings

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self.state.connected_at is not None

    def do(self, *effects: Effect) -> None:
        """Decide on `effects`."""
        self.effects.extend(effects)

    def note(self, text: str, identity: Identity | None = None, *, warning: bool = False) -> None:
        """Tell people something."""
        self.do(Note(text, identity, warning))

    def change(self, **changes: object) -> None:
        """Change fields of the state."""
        self.state = changed(self.state, changes)

    def remember(self, identity: Identity) -> None:
        """Take an execution for over, however late the service speaks of it once more; the oldest are forgotten."""
        self.change(remembered=(*self.state.remembered, identity)[-MAX_REMEMBERED:])

    def look_past(self, identity: Identity) -> None:
        """Leave an execution alone for as long as the service shows it."""
        self.change(foreign=self.state.foreign | {identity})

    def mint(self) -> str:
        """Return a string that was never returned before, by any run of the agent."""
        self.change(minted=self.state.minted + 1)
        return f"{self.state.nonce}-{self.state.minted}"

    def roll(self) -> float:
        """Return a number in [0, 1) that other devices do not share.

        Two that drew nearly the same once must not again, or those that met once at the service meet at each retry: a
        checksum would not do.
        """
        digest = hashlib.blake2b(self.mint().encode(), digest_size=4, usedforsecurity=False).digest()
        return int.from_bytes(digest) / 2**32

    def until(self, seconds: float) -> Deadline:
        """Return the moment `seconds` from now, for the record."""
        return Deadline(self.now.clock + seconds, self.now.boot)

    def saved(self, until: Deadline | None) -> float | None:
        """Return a deadline of the record as Now.clock; None when there is none, or it is of another boot."""
        return until.at if until is not None and until.boot == self.now.boot else None

    def send(
        self,
        job: Job,
        kind: Kind,
        request: Request,
        details: Mapping[str, str] = NOTHING,
        minutes: int | None = None,
    ) -> Job:
        """Send `request` for `job`; there is never more than one open request of a job."""
        self.do(Send(request, job.identity))
        opened = job.with_(open=Open(request.token, kind, details, self.now.clock, minutes)).without(Timer.RETRY)
        return opened.at(Timer.REPLY, self.now.clock + REPLY_TIMEOUT)

    def details(self, job: Job, ours: Mapping[str, str]) -> dict[str, str]:
        """Return the complete set of status details that an update of `job` carries."""
        if job.minimal:
            return {}
        theirs = {**job.record.details, **job.heard.details}
        return legal_details({"agent": self.settings.agent, "claim": job.record.claim, **ours}, theirs)
