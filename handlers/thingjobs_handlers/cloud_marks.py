"""What a device job has asked of a cloud job, in a file of its folder: it survives what ends the process."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thingjobs_handlers.marks import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class CloudMarks:
    """Requests, written down before they are sent and once they are answered, and whether the job has had its verdict.

    They spare a second request, and are no more than that: whoever goes on looks at the cloud job first, whatever they
    say. So a disk that cannot be written does not keep a cloud job from being cancelled.

    Args:
        folder: the device job's own.
        say: takes a line for its log.
    """

    def __init__(self, folder: Path, say: Callable[[str], object]) -> None:
        self._path = folder / "cloud.json"
        self._say = say
        self._asked: dict[str, bool] = {}
        self.over = False
        self._read()

    @property
    def unsure(self) -> bool:
        """Whether a request was about to be sent of which nobody knows what became."""
        return not all(self._asked.values())

    @property
    def any_answered(self) -> bool:
        """Whether the service took any request."""
        return any(self._asked.values())

    def answered(self, name: str) -> bool:
        """Return whether the service took that request."""
        return self._asked.get(name, False)

    def asking(self, name: str) -> None:
        """Note that a request is about to be sent."""
        self._asked[name] = False
        self._write()

    def refused(self, name: str) -> None:
        """Note that a request certainly did nothing."""
        self._asked.pop(name, None)
        self._write()

    def taken(self, name: str) -> None:
        """Note that the service took a request."""
        self._asked[name] = True
        self._write()

    def close(self) -> None:
        """Note that the device job has had its verdict: nothing that it began is to be undone."""
        self.over = True
        self._write()

    def _read(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="ascii"))
            asked = found.get("asked", {})
            self._asked = {str(name): value is True for name, value in asked.items()}
            self.over = found.get("over") is True

    def _write(self) -> None:
        try:
            replace_file(self._path, json.dumps({"asked": self._asked, "over": self.over}), durable=True)
        except OSError as error:
            self._say(f"cannot write {self._path}: {error.strerror}; going on without it")
