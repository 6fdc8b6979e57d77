"""A Unix socket in the state folder that answers with the agent's status; its thread sleeps until somebody asks."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING

from thingjobs import status
from thingjobs.daemon import Asked
from thingjobs.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingjobs.model import Json

log = logging.getLogger("thingjobs")

NAME = "status.sock"
ANSWER_SECONDS = 5.0
#: Of an answer; what an agent is busy with takes some kilobytes.
MAX_BYTES = 16 * 1024 * 1024
#: Between questions that could not be taken.
FIRST_PAUSE, LAST_PAUSE = 0.1, 10.0


class StatusBox:
    """Answers whoever connects.

    Args:
        folder: the state folder.
        put: takes the questions; the loop answers them.
    """

    def __init__(self, folder: Path, put: Callable[[Asked], None]) -> None:
        self._folder = folder
        self._put = put
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def start(self) -> None:
        """Listen; an agent whose status cannot be asked for works all the same."""
        try:
            listener = self._bound()
        except OSError as error:
            log.warning("`thingjobs status` will not see this agent: %s", error)
            return
        self._listener = listener
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(listener, self._ending), name="status", daemon=True)
        self._thread.start()

    def _bound(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / NAME).unlink()
            with _short(self._folder) as path:
                listener.bind(path)
            (self._folder / NAME).chmod(0o600)
            listener.listen(4)
        except OSError:
            listener.close()
            raise
        return listener

    def renew(self) -> None:
        """Listen anew, in a folder that was made anew."""
        self._end()
        self.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._listener is None:
            return
        self._end()
        with contextlib.suppress(OSError):
            (self._folder / NAME).unlink()

    def _end(self) -> None:
        if self._listener is None or self._thread is None:
            return
        self._ending.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(ANSWER_SECONDS)
        self._listener.close()
        self._listener = None

    def _serve(self, listener: socket.socket, ending: threading.Event) -> None:
        """Answer until the end. What keeps one question from being answered, too many open files say, passes."""
        pause = FIRST_PAUSE
        while not ending.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                ending.wait(pause)
                pause = min(pause * 2, LAST_PAUSE)
                continue
            pause = FIRST_PAUSE
            with client, contextlib.suppress(OSError, queue.Empty):
                box: queue.SimpleQueue[Json] = queue.SimpleQueue()
                self._put(Asked(box.put))
                client.settimeout(ANSWER_SECONDS)
                client.sendall(json.dumps(box.get(timeout=ANSWER_SECONDS)).encode())


def ask(folder: Path) -> Json | None:
    """Return the status of the agent that runs on `folder`, None if none does.

    Raises:
        StateError: an agent is there and does not answer, or may not be asked.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, _short(folder) as path:
            link.settimeout(ANSWER_SECONDS)
            link.connect(path)
            data = b""
            while (part := link.recv(65536)) and len(data) < MAX_BYTES:
                data += part
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise StateError(f"cannot ask the agent at {folder / NAME}: {error.strerror or error}") from None
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise StateError(f"cannot ask the agent at {folder / NAME}: it did not answer")
    if status.KEYS - answer.keys():
        reason = "it is of another release, and answers in another way; restart it, or ask it with its own"
        raise StateError(f"cannot ask the agent at {folder / NAME}: {reason}")
    return answer


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give a path to the socket that is short enough for the kernel (108 bytes), however deep the folder is."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)
