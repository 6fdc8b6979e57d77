"""One request on a thread of its own, so that whoever waits for bytes can also be cancelled, and hash meanwhile.

All that a library may raise ends here, as a sentence without the URL's query in it.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.fetch.replies import Head
from thingjobs.fetch.session import RefusedError, Session, why

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from thingjobs.fetch.pace import Pace
    from thingjobs.fetch.rules import Digest, Rules

_CHUNK_BYTES = 262144
#: So much may be read from the network before it is hashed and written.
_CHUNKS_AHEAD = 8
_BODY_BYTES = 4096
_FILE_FOLLOWS = (200, 206)
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class End:
    """The reply is over."""


@dataclass(frozen=True, slots=True)
class Broken:
    """There will be no more of this reply; `final`: nor of another one."""

    reason: str
    final: bool = False


Item = Head | bytes | End | Broken


class Line(threading.Thread):
    """Asks once, and hands over the head of the reply, its bytes, and its end."""

    def __init__(self, url: str, headers: Mapping[str, str], *, digest: Digest, rules: Rules, pace: Pace) -> None:
        super().__init__(name="fetch", daemon=True)
        self._url = url
        # identity: what is stored is what was asked for; its length can be compared, and parts of it fit together.
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._digest = digest
        self._rules = rules
        self._pace = pace
        self._items: queue.Queue[Item] = queue.Queue(_CHUNKS_AHEAD)
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None

    def items(self, poll: Callable[[], None]) -> Iterator[Item]:
        """Hand over what comes; `poll` is called in between, and more often than that while nothing comes."""
        last: Item = b""
        while not isinstance(last, End | Broken):
            last = self._next(poll)
            yield last

    def _next(self, poll: Callable[[], None]) -> Item:
        waited = 0.0
        while waited < self._rules.stall_s:
            poll()
            with suppress(queue.Empty):
                return self._items.get(timeout=min(_POLL_S, self._rules.stall_s))
            waited += _POLL_S
        return Broken(f"no data for {self._rules.stall_s:g} s")

    def stop(self) -> None:
        """Let go of it; the thread ends as soon as whatever it waits for does."""
        self._stopped.set()
        if self._socket is not None:
            with suppress(OSError):  # it is over by itself
                self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Ask, and hand on the reply."""
        try:
            with (
                Session(self._digest, self._rules) as session,
                session.ask("GET", self._url, self._headers) as response,
            ):
                self._hand_on(response)
                self._put(End())
        except RefusedError as error:
            self._put(Broken(str(error), final=True))
        except Exception as error:  # noqa: BLE001 - whatever a library raises: nobody else would hear of it
            self._put(Broken(why(error, self._rules)))

    def _hand_on(self, response: requests.Response) -> None:
        self._socket = socket.socket(fileno=os.dup(response.raw.fileno()))
        # Below urllib3, whose read waits until it has all that was asked for, and so cannot tell slow from stuck.
        reader: Any = response.raw._fp  # noqa: SLF001
        with self._socket:
            follows = response.status_code in _FILE_FOLLOWS
            body = b"" if follows else reader.read(_BODY_BYTES)
            self._put(Head(response.status_code, response.headers, body))
            while follows and not self._stopped.is_set() and (chunk := reader.read1(self._pace.piece(_CHUNK_BYTES))):
                self._put(chunk)
                self._pace.spend(len(chunk), self._stopped)

    def _put(self, item: Item) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._items.put(item, timeout=_POLL_S)
                return
