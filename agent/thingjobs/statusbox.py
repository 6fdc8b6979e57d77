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

from thingjobs.daemon import Asked
from thingjobs.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingjobs.model import Json

log = logging.getLogger("thingjobs")

NAME = "status.sock"
ANSWER_SECONDS = 5.0


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
        self._thread = threading.Thread(target=self._serve, name="status", daemon=True)

    def start(self) -> None:
        """Listen; an agent whose status cannot be asked for works all the same."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / NAME).unlink()
            with _short(self._folder) as path:
                listener.bind(path)
            (self._folder / NAME).chmod(0o600)
            listener.listen(4)
        except OSError as error:
            log.warning("`thingjobs status` will not see this agent: %s", error)
            listener.close()
            return
        self._listener = listener
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._listener is None:
            return
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(ANSWER_SECONDS)
        self._listener.close()
        with contextlib.suppress(OSError):
            (self._folder / NAME).unlink()

    def _serve(self) -> None:
        assert self._listener is not None  # noqa: S101 - narrows the type; start() set it
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
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
            data = b"".join(iter(lambda: link.recv(65536), b""))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise StateError(f"cannot ask the agent at {folder / NAME}: {error.strerror or error}") from None
    try:
        answer: Json = json.loads(data)
    except ValueError:
        raise StateError(f"cannot ask the agent at {folder / NAME}: it did not answer") from None
    return answer


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give a path to the socket that is short enough for the kernel (108 bytes), however deep the folder is."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)
