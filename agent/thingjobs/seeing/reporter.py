"""Tells of the agent what [report] asks for: the daemon lets it look on, and it does the rest.

The loop waits for none of it. The text file is written by the loop, on a tmpfs in no time; the look that a shadow needs
may ask children and a slow disk, so a thread of its own takes it, which lives as long as the look.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from thingjobs import __version__, boot
from thingjobs.judging import registry_for
from thingjobs.ports import Shadow
from thingjobs.seeing import device, metrics, pace, shadow
from thingjobs.seeing.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.config import Config
    from thingjobs.machine import State
    from thingjobs.model import Json
    from thingjobs.ports import Tell
    from thingjobs.seeing.shadow import Device

log = logging.getLogger("thingjobs.report")

#: Between two writes of the text file: Prometheus reads no more often.
APART_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class TextFile:
    """Metrics for node_exporter.

    Attributes:
        path: the file.
        expires: tells the end of the device certificate, seconds since the epoch, None if nobody knows.
        started: when the agent started, seconds since the epoch.
    """

    path: Path
    expires: Callable[[], float | None]
    started: float


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
    expires = partial(device.expiry, certificate)
    path, name = config.report.textfile, config.report.shadow
    textfile = TextFile(path, expires, time.time()) if path else None
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
        self._file_due: float | None = 0.0 if textfile else None
        self._file_text = ""
        self._file_wrong = ""
        self._ended: Counter[str] = Counter()
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
        self._ended.update(metrics.ended_in(before, after))
        if self._file is not None and self._file_due is None:
            self._file_due = now + APART_SECONDS / 10  # One change seldom comes alone.
        self._connected = after.connected_at is not None
        if self._shadow is None:
            return
        if self._connected and before.connected_at != after.connected_at:
            self._pace = pace.connected(self._pace, now, self._shadow.roll())
        if _of_interest(before) != _of_interest(after):
            self._pace = pace.changed(self._pace, now)

    def next_due(self) -> float | None:
        """Return when `act` is to be called, seconds since boot; None: when something has happened."""
        shadow_due = self._pace.due if self._shadow and self._connected and not self._looking else None
        return min((due for due in (self._file_due, shadow_due) if due is not None), default=None)

    def act(self, now: float, status: Callable[[], Json]) -> None:
        """Do what is due.

        Args:
            now: seconds since boot.
            status: tells how the agent is.
        """
        if self._file is not None and self._file_due is not None and now >= self._file_due:
            self._file_due = None
            self._write(self._file, status())
        due = self._pace.due
        if self._shadow and self._connected and not self._looking and due is not None and now >= due:
            self._look(self._shadow, now)

    def stop(self) -> None:
        """Take the metrics away: an agent that does not run has none."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.path.unlink()

    # --- the text file --------------------------------------------------------------------------------------------

    def _write(self, file: TextFile, status: Json) -> None:
        expires = file.expires()
        text = metrics.text(self._version, status, self._ended, started=file.started, expires=expires)
        if text == self._file_text:
            return
        try:
            replace_file(file.path, text)
        except OSError as error:
            wrong = f"cannot write {file.path} (report.textfile): {error.strerror}"
            if wrong != self._file_wrong:
                log.warning("%s", wrong)
            self._file_wrong = wrong
            return
        self._file_text, self._file_wrong = text, ""

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


def replace_file(path: Path, text: str) -> None:
    """Replace a file at once, so that whoever reads it finds the old or the new one; everybody may read it.

    It is not synced: after a power cut it is written anew anyway.

    Raises:
        OSError: it cannot be written.
    """
    # The collector reads what ends in .prom.
    new = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # Not written to: others may write in that folder, too, and it may be a link.
        with new.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
