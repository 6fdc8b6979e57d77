"""What a handler wrote, bounded: the first 128 KiB and the last 64 to 128 KiB, on disk as it comes.

Credentials in it are left out: a program that is told to be verbose prints the address that it fetches, presigned.
Nothing is synced: a log is no report. It lies beside the job's folder, so that it survives an agent restart.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from thingjobs.redact import SIGNS, discreet
from thingjobs.runner import files

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 128 * 1024
SEGMENT_BYTES = 64 * 1024
TAIL_BYTES = 4096
#: A word that is cut by the end of what was read waits for its rest, if it is no longer than this.
WORD_BYTES = 8 * 1024
_SIGNS = tuple(sign.encode() for sign in SIGNS)


class JobLog:
    """Head and tail of one execution's output, over all its verbs.

    Args:
        folder: the execution's folder; the files are made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._segment = ""
        self._size = 0

    def append(self, data: bytes) -> None:
        """Add output; a disk that is full loses output, never the job."""
        with contextlib.suppress(OSError):
            while data:
                data = data[self._write(data) :]

    def _write(self, data: bytes) -> int:
        if self._fd < 0:
            self._open()
        room = (HEAD_BYTES if self._segment == "log" else SEGMENT_BYTES) - self._size
        if room <= 0:
            self._rotate()
            return 0
        written = os.write(self._fd, data[:room])
        self._size += written
        return written

    def _open(self) -> None:
        head = self._folder / "log"
        full = head.exists() and head.stat().st_size >= HEAD_BYTES
        self._open_segment("log.tail" if full else "log")

    def _open_segment(self, name: str) -> None:
        path = self._folder / name
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._segment, self._size = name, os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        if self._segment == "log.tail":
            (self._folder / "log.tail").rename(self._folder / "log.before")
        self._open_segment("log.tail")

    def close(self) -> None:
        """Close the file; it is opened again when more comes."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def last_words(folder: Path) -> bytes:
    """Return the end of what was written so far."""
    for name in ("log.tail", "log"):
        _, end = files.read_ends(folder / name, 0, TAIL_BYTES)
        if end:
            return end
    return b""


def collect(folder: Path, target: Path) -> bool:
    """Put the parts of the log in `folder` together in `target`, whole or not at all; return whether there was any.

    Raises:
        OSError: it could not be written.
    """
    parts = [part for name in ("log", "log.before", "log.tail") if (part := files.read(folder / name, HEAD_BYTES))]
    if not parts:
        return False
    target.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    try:
        with unfinished.open("wb") as out:
            for index, part in enumerate(parts):
                if index == 1:
                    out.write(b"\n[thingjobs: output is left out here]\n")
                out.write(part)
        unfinished.replace(target)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return True


class Words:
    """Passes one stream on without the credentials in it, whole words at a time: half an address is not recognised."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown of all that came so far and was not returned before."""
        data = self._rest + data
        end = max(data.rfind(blank) for blank in (b" ", b"\n", b"\t", b"\r")) + 1
        if len(data) - end > WORD_BYTES:
            end = len(data)
        self._rest = data[end:]
        return without_credentials(data[:end])

    def end(self) -> bytes:
        """Return the rest: no more comes."""
        rest, self._rest = self._rest, b""
        return without_credentials(rest)


def without_credentials(data: bytes) -> bytes:
    """Return output without credentials; bytes that are no text stay as they are."""
    lower = data.lower()
    if not any(sign in lower for sign in _SIGNS):
        return data
    return discreet(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


class Tail:
    """The last bytes of one stream, for reasons and status details."""

    def __init__(self) -> None:
        self._data = b""

    def append(self, data: bytes) -> None:
        """Add output."""
        self._data = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._data + data)[-TAIL_BYTES:]

    def last_line(self) -> str:
        """Return the last line that is not empty, "" if there is none."""
        lines = [line for line in self._data.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""
