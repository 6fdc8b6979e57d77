"""A .tar.gz that is made in memory and never passes its limit, so that it needs no disk."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import time

from thingjobs.redact import redacted

#: What compression may add to bytes that it cannot make fewer, and the headers of an entry.
_OVERHEAD_BYTES = 4096
#: Kept for the list of what is missing, and for the end.
_RESERVE_BYTES = 65536
#: A key may have lost its beginning where something was cut off, or its end.
_BEGIN_OF_KEY = re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")
_END_OF_KEY = re.compile(r"-----END [A-Z ]{0,20}PRIVATE KEY-----")
_BLACKENED = "(a private key was here)"
#: What may have a URL in it.
_WORD = re.compile(r"\S+")
_LONGEST_URL = 4096


class Bundle:
    """Files in the order of how much they matter: what has no room any more is cut at its beginning, or left out.

    Args:
        max_bytes: the most that it may have when it is compressed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._missing: list[str] = []
        self._names: set[str] = set()
        self._buffer = io.BytesIO()
        self._packed = gzip.GzipFile(fileobj=self._buffer, mode="wb", mtime=0)
        self._tar = tarfile.open(fileobj=self._packed, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    @property
    def room(self) -> int:
        """How many bytes of a file are sure to fit."""
        self._packed.flush()
        used = self._buffer.tell() + _RESERVE_BYTES
        return max(0, (self._max - used - _OVERHEAD_BYTES) * 99 // 100)

    def add(self, name: str, data: bytes) -> None:
        """Add a file, its secrets blackened; of one that is too long, the end."""
        clean = _clean(data)
        room = self.room
        if len(clean) > room:
            self.miss(name, f"the first {len(clean) - room} of {len(clean)} bytes: there was no room")
            clean = clean[len(clean) - room :]
        if clean or not data:
            self._write(name, clean)

    def miss(self, name: str, why: str) -> None:
        """Note that something is missing."""
        self._missing.append(f"{name}: {_clean(why.encode(errors='replace')).decode()}")

    def close(self) -> bytes:
        """Return all of it."""
        missing = "\n".join(self._missing).encode()[: _RESERVE_BYTES // 2]
        if missing:
            self._write("missing.txt", missing + b"\n")
        self._tar.close()
        self._packed.close()
        return self._buffer.getvalue()

    def _write(self, name: str, data: bytes) -> None:
        while name in self._names:
            name += "_"
        self._names.add(name)
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        entry.mtime = int(time.time())
        self._tar.addfile(entry, io.BytesIO(data))


def _clean(data: bytes) -> bytes:
    """Return text without the queries and passwords of its URLs, and without private keys; other bytes stay."""
    text = _without_keys(data.decode("utf-8", "surrogateescape"))
    return _WORD.sub(_clean_word, text).encode("utf-8", "surrogateescape")


def _clean_word(word: re.Match[str]) -> str:
    # A word at a time: looking for a URL in all of a long text can take the square of its length.
    if "://" not in word[0]:
        return word[0]
    return redacted(word[0]) if len(word[0]) <= _LONGEST_URL else "(a long URL was here)"


def _without_keys(text: str) -> str:
    *parts, rest = _END_OF_KEY.split(text)
    kept = []
    for part in parts:
        begin = _BEGIN_OF_KEY.search(part)
        kept.append(part[: begin.start()] if begin else "")
    begin = _BEGIN_OF_KEY.search(rest)
    kept.append(rest[: begin.start()] + _BLACKENED if begin else rest)
    return _BLACKENED.join(kept)
