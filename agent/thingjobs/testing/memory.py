"""The simulated service in the same process, as a transport: no network, no files, no threads.

    transport = MemoryTransport(service := JobsService(clock), ThingName("pump-7"))

What is sent goes through the same topics and bytes as over a broker. `thingjobs run --local` adds files to it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from thingjobs.errors import WireError
from thingjobs.jobs import RENEWED, Connected, Disconnected
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import ThingName
    from thingjobs.testing.messages import Message
    from thingjobs.testing.service import JobsService

log = logging.getLogger("thingjobs.local")


class MemoryTransport:
    """The transport contract over a service that is always there; replies are put before `send` returns.

    Args:
        service: what answers.
        thing: whose jobs they are.

    Attributes:
        service: what answers.
    """

    def __init__(self, service: JobsService, thing: ThingName) -> None:
        self.service = service
        self._thing = thing
        self._lock = threading.Lock()
        self._topics = Topics(thing)
        self._put: Callable[[Incoming], None] | None = None
        self._unlisten: Callable[[], None] = _nothing

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin."""
        self._put = put
        self._unlisten = self.service.listen(self._thing, self._hear)
        put(Connected())

    def send(self, request: Request) -> None:
        """Ask the service; before the start and after the end nobody does."""
        if self._put is None:
            return
        with self._lock:
            topic, payload = self._topics.outgoing(request)
        self.service.handle(self._thing, topic.split("/jobs/", 1)[1], payload, self._hear)

    def renew(self) -> None:
        """Open a new connection; it takes no time, and replies to what was asked before do not reach it."""
        with self._lock:
            self._topics = Topics(self._thing)
        self._tell(Disconnected(RENEWED))
        self._tell(Connected())

    def stop(self) -> None:
        """Put nothing more."""
        self._put = None
        self._unlisten()

    def _tell(self, incoming: Incoming) -> None:
        put = self._put
        if put is not None:
            put(incoming)

    def _hear(self, message: Message) -> None:
        if self._put is None:
            return
        try:
            with self._lock:
                incoming = self._topics.incoming(message.topic, message.payload)
        except WireError as error:
            log.warning("left out a message: %s", error)
            return
        if incoming is not None:
            self._tell(incoming)


def _nothing() -> None:
    """Stands in for what there is not yet to undo."""
