"""After a start: going on with what the journal holds, as far as it can be looked after, and again later if not."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.machine.events import Evidence, Resumed
from thingjobs.model import Identity, JobId, Phase, Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingjobs.generations import Found, Loaded
    from thingjobs.journal import Journal
    from thingjobs.model import Record
    from thingjobs.registry import Registry
    from thingjobs.runner import Runner

log = logging.getLogger("thingjobs")

#: So many are listed in one line of the log.
MOST_NAMED = 5
_TOLD = {
    Evidence.NOT_STARTED: "",
    Evidence.ADOPTED: "; its handler goes on, or left its exit status",
    Evidence.LOST: "; its handler was interrupted",
}


class Beginning:
    """Takes up, one after the other, the executions that an earlier agent left; what was done is not done twice.

    Args:
        journal: holds them.
        runner: finds what runs of them.
        handlers: forgets the code that none of them needs.
    """

    def __init__(self, journal: Journal, runner: Runner, handlers: Registry) -> None:
        self._journal = journal
        self._runner = runner
        self._handlers = handlers
        self._found: Found | None = None
        self._left: deque[Loaded] | None = None

    def take_up(
        self,
        remember: Callable[[Sequence[Record], Sequence[Identity]], None],
        resume: Callable[[Resumed], None],
    ) -> None:
        """Take up what is left; when this returns, nothing is.

        Args:
            remember: takes the finished executions, and those that a later release finished.
            resume: takes the others.

        Raises:
            StateError: something cannot be read or looked after for now.
            OSError: likewise.
        """
        if self._found is None:
            self._found = self._journal.load()
        if self._left is None:
            self._left = self._prepared(self._found, remember)
        while self._left:
            event = self._resumed(self._left[0])
            self._left.popleft()
            resume(event)

    def _prepared(
        self, found: Found, remember: Callable[[Sequence[Record], Sequence[Identity]], None]
    ) -> deque[Loaded]:
        open_ = [one for one in found.loaded if one.record.phase is not Phase.DONE]
        self._runner.sweep({*(one.record.identity.key for one in open_), *found.newer})
        if not found.newer:  # Which copies those need is the later release's to say.
            self._handlers.prune({one.record.plan.digest for one in open_})
        for key in found.quarantined:
            log.error("the journal of %s is damaged beyond reading; it was moved to quarantine/", key)
        if found.newer:  # Finished executions are among them, hundreds perhaps.
            more = len(found.newer) - MOST_NAMED
            names = ", ".join(found.newer[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            log.error("in a format of another release, and left alone for that: the journal of %s", names)
        for key in found.unsynced:
            log.info("%s was finished, and that was not on the disk yet when the power failed", key)
        newer = [identity for key in found.newer if (identity := identity_of_key(key)) is not None]
        remember([one.record for one in found.loaded if one.record.phase is Phase.DONE], newer)
        return deque(open_)

    def _resumed(self, one: Loaded) -> Resumed:
        record = one.record
        if one.previous and not record.owed:
            # What the lost generation said is unknown; the worst that it can have said is that `apply` had begun.
            log.error("the journal of %s is damaged; going on from the generation before", record.identity)
            self._runner.end(record.identity)
            record = replace(record, phase=Phase.APPLYING, verb=Verb.APPLY, applied=True)
            evidence = Evidence.LOST
        else:
            evidence = self._runner.adopt(record)
        log.info("%s: taken up where it stood: %s%s", record.identity, record.phase, _TOLD[evidence])
        return Resumed(record, evidence)


def identity_of_key(key: str) -> Identity | None:
    """Return the identity whose file name `key` is; None if it is that of no execution."""
    try:
        job_id, number, queued_at = key.split(".")
        return Identity(JobId(job_id), int(number), int(queued_at))
    except ValueError:
        return None
