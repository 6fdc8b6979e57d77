"""What the loop does with the journal: saves, says once what is wrong, fills a folder that was deleted under it."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from thingjobs.errors import StateBusyError, StateError
from thingjobs.machine.events import NotSaved
from thingjobs.model import Phase
from thingjobs.redact import redacted_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingjobs.journal import Journal
    from thingjobs.lull import Act
    from thingjobs.model import Identity, Record
    from thingjobs.troubles import Troubles

log = logging.getLogger("thingjobs")

SUBJECT = "the journal"


class Keeper:
    """Keeps the journal.

    Args:
        journal: what is kept.
        troubles: takes what is wrong with it.
        known: gives all records that the journal should hold.
        put_off: takes what can wait, of an execution.
    """

    def __init__(
        self,
        journal: Journal,
        troubles: Troubles,
        known: Callable[[], Iterable[Record]],
        put_off: Callable[[Identity, Act], None],
    ) -> None:
        self._journal = journal
        self._troubles = troubles
        self._known = known
        self._put_off = put_off
        #: Whether it could be written the last time.
        self._works = True
        #: Is called when the state folder had to be made anew.
        self.renewed: Callable[[], None] = lambda: None

    def save(self, record: Record) -> list[NotSaved]:
        """Save a record; return which others could not be saved again, after their folder was deleted.

        Raises:
            StateBusyError: another agent has taken the folder.
            StateError: it could not be saved.
        """
        try:
            if self._journal.save(_as_kept(record), partial(self._later, record)):
                self._say_that_it_works()
        except StateError as error:
            self._fails(error)
            raise
        return self._fill(record.identity)

    def _later(self, record: Record, rest: Callable[[], None]) -> None:
        self._put_off(record.identity, partial(self._finish, record, rest))

    def _finish(self, record: Record, rest: Callable[[], None]) -> list[NotSaved]:
        """Do the rest of what a save was to do; if that fails, the record was not saved."""
        try:
            rest()
        except StateError as error:
            self._fails(error)
            return [NotSaved(record, str(error))]
        self._say_that_it_works()
        return []

    def look(self) -> list[NotSaved]:
        """See that there is a journal; return which records could not be saved again, after it was deleted.

        Raises:
            StateBusyError: another agent has taken the folder.
        """
        try:
            self._journal.look()
        except StateBusyError:
            raise
        except StateError as error:
            self._fails(error)
            return []
        return self._fill(None)

    def look_at_reserve(self) -> None:
        """Make the journal's reserve anew if it is used up and there is room for it by now."""
        if self._works and self._journal.reserve_lost:
            self._journal.restore_reserve()
            self._say_how_it_is()

    def _fails(self, error: StateError) -> None:
        self._works = False
        self._troubles.came(SUBJECT, str(error))

    def _say_that_it_works(self) -> None:
        self._works = True
        self._say_how_it_is()

    def _say_how_it_is(self) -> None:
        """The journal can be written; that it lives on its reserve has to be said before that is over."""
        if lost := self._journal.reserve_lost:
            self._troubles.came(SUBJECT, f"the journal in {self._journal.folder} lives on its reserve: {lost}")
        else:
            self._troubles.went(SUBJECT)

    def _fill(self, written: Identity | None) -> list[NotSaved]:
        if not self._journal.emptied():
            return []
        log.warning("the state folder %s was deleted; it was made anew", self._journal.folder)
        lost: list[NotSaved] = []
        for record in self._known():
            if record.identity != written:
                try:
                    self._journal.save(_as_kept(record))
                except StateError as error:
                    lost.append(NotSaved(record, str(error)))
        self.renewed()
        return lost


def _as_kept(record: Record) -> Record:
    """Return a record as the journal is to hold it: credentials that a handler said stay until its job is over."""
    over = record.phase is Phase.DONE
    return replace(record, details=redacted_json(dict(record.details))) if over and record.details else record
