"""Tells of the agent what [report] asks for: the daemon lets it look on, and it does the rest.

The loop waits for none of it. The look that a shadow needs may ask children and a slow disk, so a thread of its own
takes it, which lives as long as the look. Over MQTT nobody hears whether the service could use what the broker took;
the daily telling makes up for that.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from thingjobs import __version__, boot
from thingjobs.judging import registry_for
from thingjobs.ports import Shadow
from thingjobs.seeing import device, pace, shadow
from thingjobs.seeing.pace import Pace
from thingjobs.seeing.textfile import TextFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.config import Config
    from thingjobs.machine import State
    from thingjobs.model import Json
    from thingjobs.ports import Tell
    from thingjobs.seeing.shadow import Device

log = logging.getLogger("thingjobs.report")


@dataclass(frozen=True, slots=True)
class ShadowDocument:
    """A named shadow.

    Attributes:
        name: of the shadow.
        look: looks at the device; from a thread.
        tell: hands it to the transport, as `ports.ShadowTransport.tell`.
        soon: has the loop call what it is given with the status; from any thread.
        roll: gives randomness in [0, 1).
    """

    name: str
    look: Callable[[], Device]
    tell: Tell
    soon: Callable[[Callable[[Json], None]], None]
    roll: Callable[[], float]


def configured(config: Config, soon: Callable[[Callable[[Json], None]], None], tell: Tell | None) -> Reporter:
    """Return what tells what a configuration asks for.

    Args:
        config: says so in [report].
        soon: has the loop call what it is given with the status; from any thread.
        tell: hands a shadow to the transport; None: this one knows no shadows.
    """
    certificate = config.connection.certificate
    path, name = config.report.textfile, config.report.shadow
    expires = partial(device.expiry, certificate)
    textfile = TextFile(path, __version__, expires, boot.clock()) if path else None
    document = None
    if name and tell is not None:
        # Of its own, because it is used in another thread.
        registry = registry_for(config, config.state.directory, read_only=True)
        look = partial(device.look, config.state.directory, certificate, registry.everything)
        document = ShadowDocument(name, look, tell, soon, random.SystemRandom().random)
    return Reporter(__version__, textfile, document)


class Reporter:
    """Looks on, and tells; all of it is called by the loop.

    Args:
        version: the agent's.
        textfile: None: no metrics are written.
        shadow_document: None: no shadow is told.
    """

    def __init__(self, version: str, textfile: TextFile | None, shadow_document: ShadowDocument | None) -> None:
        self._version = version
        self._file = textfile
        self._shadow = shadow_document
        self._pace = Pace()
        self._connected = self._looking = False
        self._told = self._sent = ""

    def observe(self, before: State, after: State, now: float) -> None:
        """A step was made.

        Args:
            before: the core's state before.
            after: and after it.
            now: seconds since boot.
        """
        if self._file is not None:
            self._file.observe(before, after, now)
        self._connected = after.connected_at is not None
        if self._shadow is None:
            return
        if self._connected and before.connected_at != after.connected_at:
            self._pace = pace.connected(self._pace, now, self._shadow.roll())
        if _of_interest(before) != _of_interest(after):
            self._pace = pace.changed(self._pace, now)

    def changed(self, now: float) -> None:
        """Something is to be told of that no step tells, at `now` in seconds since boot."""
        if self._file is not None:
            self._file.changed(now)
        self._pace = pace.changed(self._pace, now)

    def next_due(self) -> float | None:
        """Return when `act` is to be called, seconds since boot; None: when something has happened."""
        file_due = self._file.due if self._file else None
        shadow_due = self._pace.due if self._shadow and self._connected and not self._looking else None
        return min((due for due in (file_due, shadow_due) if due is not None), default=None)

    def act(self, now: float, status: Callable[[], Json]) -> None:
        """Do what is due.

        Args:
            now: seconds since boot.
            status: tells how the agent is.
        """
        if self._file is not None:
            self._file.act(now, status)
        due = self._pace.due
        if self._shadow and self._connected and not self._looking and due is not None and now >= due:
            self._look(self._shadow, now)

    def stop(self) -> None:
        """Take the metrics away: an agent that does not run has none."""
        if self._file is not None:
            self._file.remove()

    # --- the shadow -----------------------------------------------------------------------------------------------

    def _look(self, told: ShadowDocument, now: float) -> None:
        self._looking = True
        try:
            threading.Thread(target=self._look_now, args=(told,), name="look", daemon=True).start()
        except RuntimeError:  # no more threads: the next try is as good
            self._looking = False
            self._pace = pace.tried(self._pace, now, told.roll())

    def _look_now(self, told: ShadowDocument) -> None:
        try:
            seen = told.look()
        except Exception as error:  # noqa: BLE001 - nothing that is seen of a device is worth the agent
            log.warning("cannot look at the device for the shadow: %s", error)
            told.soon(partial(self._looked, told, None))
        else:
            told.soon(partial(self._looked, told, seen))

    def _looked(self, told: ShadowDocument, seen: Device | None, status: Json) -> None:
        self._looking = False
        now = boot.clock()
        if seen is None:
            self._pace = pace.tried(self._pace, now, told.roll())
            return
        request = shadow.document(self._version, status, seen)
        essence = shadow.essence(request)
        if essence == self._told and now < self._pace.renew_at:
            self._pace = pace.unchanged(self._pace)
            return
        self._sent = essence
        self._pace = pace.tried(self._pace, now, told.roll())
        told.tell(Shadow(told.name, request), lambda: told.soon(partial(self._taken, told, essence)))

    def _taken(self, told: ShadowDocument, essence: str, _status: Json) -> None:
        if essence == self._sent:
            self._told = essence
            self._pace = pace.taken(self._pace, boot.clock(), told.roll())


def _of_interest(state: State) -> object:
    """Return what is another when a shadow may have to say something else."""
    jobs = state.jobs.items()
    return {identity: (job.phase, job.record.note, job.record.owed) for identity, job in jobs}, state.remembered
