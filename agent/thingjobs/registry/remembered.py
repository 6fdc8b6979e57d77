"""What is remembered of installed handlers between two starts of the agent: STATE/handlers.json.

Nothing in it is believed: whoever reads an entry judges it anew, and what is damaged counts as not there.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.model import Json

FORMAT = 1
MAX_BYTES = 4 << 20


class Remembered:
    """A JSON file with what is known by key.

    Args:
        file: where; None: nothing outlives the process.
        read_only: the file is not written.
    """

    def __init__(self, file: Path | None, *, read_only: bool = False) -> None:
        self._file = file
        self._read_only = read_only
        self._content: Json | None = None

    def get(self, key: str) -> Any:
        """Return what is known by `key`, None if nothing is."""
        return self._all().get(key)

    def keep(self, changes: Json) -> None:
        """Remember values by key; None forgets one. A file that cannot be written costs a start of a child, no more."""
        content = {key: value for key, value in {**self._all(), **changes}.items() if value is not None}
        self._content = content
        if self._file is None or self._read_only:
            return
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"format": FORMAT, **content}), encoding="utf-8")
            temporary.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def all_keys(self) -> tuple[str, ...]:
        """Return all keys."""
        return tuple(self._all())

    def _all(self) -> Json:
        if self._content is None:
            self._content = self._read()
        return self._content

    def _read(self) -> Json:
        try:
            if self._file is None or self._file.stat().st_size > MAX_BYTES:
                return {}
            content = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            return {}
        return content
