"""A folder as the cloud: every `*.json` in it is a queued job, carried by the embedded Jobs service.

The same agent, journal and handlers as with AWS, and no network. What became of each job is kept beside the state,
so a job that is done is not run again. New files are noticed while the agent runs.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING

from thingjobs.errors import WireError
from thingjobs.jobs import Connected, Disconnected
from thingjobs.model import JOB_ID_PATTERN
from thingjobs.testing.control import ControlPlaneError
from thingjobs.testing.service import JobsService
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import ThingName
    from thingjobs.testing.messages import Message

log = logging.getLogger("thingjobs.local")

SCAN_SECONDS = 1.0


class LocalTransport:
    """The embedded Jobs service behind the transport contract.

    Args:
        folder: the job documents; the file name without `.json` is the job id.
        kept: the file that keeps the service's state from run to run.
    """

    def __init__(self, folder: Path, kept: Path, thing: ThingName) -> None:
        self._folder = folder
        self._kept = kept
        self._thing = thing
        self._topics = Topics(thing)
        self._put: Callable[[Incoming], None] | None = None
        self._seen: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="local jobs", daemon=True)
        self.service = JobsService()
        #: Why a file is no job, by file name; for people.
        self.unusable: dict[str, str] = {}
        self._restore()
        self.scan()

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin: this service is always there."""
        self._put = put
        self.service.listen(self._thing, self._hear)
        put(Connected())
        self._thread.start()

    def send(self, request: Request) -> None:
        """Ask the embedded service."""
        topic, payload = self._topics.outgoing(request)
        suffix = topic.split("/jobs/", 1)[1]
        self.service.handle(self._thing, suffix, payload, self._hear)
        self._keep()

    def renew(self) -> None:
        """Open a new connection; it takes no time."""
        if self._put is not None:
            self._put(Disconnected("a new connection was asked for"))
            self._put(Connected())

    def stop(self) -> None:
        """Put nothing more."""
        self._put = None
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(SCAN_SECONDS * 5)
        self._keep()

    def scan(self) -> None:
        """Queue a job for each file that was not seen before."""
        for path in sorted(self._folder.glob("*.json")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._add(path)

    def _add(self, path: Path) -> None:
        if not JOB_ID_PATTERN.fullmatch(path.stem):
            self.unusable[path.name] = "its name is no job id: use 1 to 64 letters, digits, _ and -"
            return
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.unusable[path.name] = f"cannot read it: {error.strerror}"
            return
        except (ValueError, RecursionError) as error:
            self.unusable[path.name] = f"it is not JSON: {error}"
            return
        try:
            self.service.create_job(path.stem, document, [self._thing])
        except ControlPlaneError as error:
            if error.code != "ResourceAlreadyExistsException":
                self.unusable[path.name] = str(error)

    def _hear(self, message: Message) -> None:
        put = self._put
        if put is None:
            return
        try:
            incoming = self._topics.incoming(message.topic, message.payload)
        except WireError as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            put(incoming)

    def _watch(self) -> None:
        while not self._stopping.wait(SCAN_SECONDS):
            self.service.tick()
            self.scan()

    # --- from run to run ------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        try:
            self.service.load(json.loads(self._kept.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("the outcomes of earlier runs are lost: %s: %s", self._kept, error)

    def _keep(self) -> None:
        temporary = self._kept.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(self.service.dump()), encoding="utf-8")
            temporary.replace(self._kept)
        except OSError as error:
            log.warning("cannot keep the outcomes: %s: %s", self._kept, error)
