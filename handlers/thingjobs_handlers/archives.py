"""Unpacking an archive that somebody sent: nothing in it may reach beyond the folder, or be more than was agreed.

Folders, files and links within are made, with ordinary modes; everything else is refused, not left out.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_BYTES = 256 << 20
MAX_ENTRIES = 10_000
MAX_LINK_BYTES = 4096
#: What the packing itself may need, beyond the contents.
_PACKING_BYTES = MAX_ENTRIES * 2048
_CHUNK_BYTES = 1 << 20
#: What the libraries raise when they read what makes no sense.
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, ValueError, LookupError, RecursionError, OverflowError),
)


class ArchiveError(Exception):
    """An archive that is not unpacked; the message says why."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of an archive, of either kind.

    Attributes:
        mode: as stat has it, the type of file included.
        open: opens its content.
        link: where it leads, if it is a link.
    """

    name: str
    mode: int
    open: Callable[[], IO[bytes]]
    link: str = ""


def unpack(archive: Path, into: Path, poll: Callable[[], None] = lambda: None) -> None:
    """Unpack a .tar.gz or a .zip into a folder that does not exist yet.

    Args:
        archive: what to unpack; its first bytes say what it is.
        into: the folder to make.
        poll: is called for each piece that is written.

    Raises:
        ArchiveError: it is damaged, or holds what may not be.
        OSError: it cannot be written.
    """
    with archive.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            entries = _tar_entries(file)
        elif magic == b"PK\x03\x04":
            entries = _zip_entries(file)
        else:
            raise ArchiveError("it is neither a .tar.gz nor a .zip")
        into.mkdir(mode=0o755)
        into.chmod(0o755)
        try:
            _Unpacking(into, poll).run(entries)
        except _DAMAGED:
            raise ArchiveError("it is damaged, or of a kind that cannot be read") from None


class _Unpacking:
    """Writes entries below a folder."""

    def __init__(self, root: Path, poll: Callable[[], None]) -> None:
        self._root = root
        self._poll = poll
        self._count = 0
        self._bytes = 0

    def run(self, entries: Iterator[_Entry]) -> None:
        links = []
        for entry in entries:
            self._count += 1
            if self._count > MAX_ENTRIES:
                raise ArchiveError(f"it has more than {MAX_ENTRIES} entries")
            name = _legal(entry.name)
            if not name and not stat.S_ISDIR(entry.mode):
                raise ArchiveError(f"{ascii(entry.name)[:200]} is no name for a file")
            if entry.mode & (stat.S_ISUID | stat.S_ISGID):
                raise ArchiveError(f"{name} takes the rights of its owner (setuid)")
            try:
                if stat.S_ISLNK(entry.mode):
                    links.append((name, _inner(name, entry.link)))
                else:
                    self._make(name, entry)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise ArchiveError(f"{name} is in it twice, or as a file and as a folder") from None
        # Last, so that nothing can be written through one.
        for name, target in links:
            self._link(name, target)

    def _make(self, name: str, entry: _Entry) -> None:
        path = self._root / name
        if stat.S_ISDIR(entry.mode):
            self._folder(path)
        elif stat.S_ISREG(entry.mode):
            self._folder(path.parent)
            mode = 0o755 if entry.mode & 0o111 else 0o644
            with entry.open() as source, path.open("xb") as file:
                os.fchmod(file.fileno(), mode)
                while chunk := source.read(_CHUNK_BYTES):
                    self._count_bytes(len(chunk))
                    file.write(chunk)
        else:
            raise ArchiveError(f"{name} is neither a file nor a folder nor a link")

    def _count_bytes(self, count: int) -> None:
        self._poll()
        self._bytes += count
        if self._bytes > MAX_BYTES:
            raise ArchiveError(f"it holds more than {MAX_BYTES >> 20} MiB")

    def _folder(self, path: Path) -> None:
        if path != self._root:
            self._folder(path.parent)
            if path.is_symlink():  # Behind it, what leads up may lead out.
                raise NotADirectoryError
            path.mkdir(mode=0o755, exist_ok=True)
            path.chmod(0o755)

    def _link(self, name: str, target: str) -> None:
        path = self._root / name
        try:
            self._folder(path.parent)
            path.symlink_to(target)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"{name} is in it twice, or as a link and as a folder") from None


def _legal(name: str) -> str:
    """Return a name that stays below the folder, without what changes nothing in it."""
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if name.startswith("/") or ".." in parts or "" in parts[:-1]:
        raise ArchiveError(f"{ascii(name)[:200]} would leave the folder")
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        encoded = [b""]
    if not all(0 < len(part) <= 255 for part in encoded) and parts != []:
        raise ArchiveError(f"{ascii(name)[:200]} is no name for a file")
    if any(not character.isprintable() or character == "\\" for character in name) or len(parts) > 32:
        raise ArchiveError(f"{ascii(name)[:200]} is no name for a file")
    return "/".join(parts)


def _inner(name: str, target: str) -> str:
    """Return where a link leads, which is to somewhere in the folder.

    `..` may only stand in front: behind the name of a link it would lead up from where that one leads.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if not target or target.startswith("/") or ".." in parts[up:] or up > name.count("/"):
        raise ArchiveError(f"{name} is a link that may lead out of the folder")
    return target


class _Bounded(gzip.GzipFile):
    """Stops at more than all entries together may have: the headers of a tar are read into memory as they are."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > MAX_BYTES + _PACKING_BYTES:
            raise ArchiveError(f"it holds more than {MAX_BYTES >> 20} MiB")
        return data


def _tar_entries(file: IO[bytes]) -> Iterator[_Entry]:
    with _Bounded(fileobj=file) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        for member in tar:
            if member.islnk():
                raise ArchiveError(f"{ascii(member.name)[:200]} is a hard link")
            kinds = ((member.isreg, stat.S_IFREG), (member.isdir, stat.S_IFDIR), (member.issym, stat.S_IFLNK))
            kind = next((kind for test, kind in kinds if test()), stat.S_IFIFO)

            def content(member: tarfile.TarInfo = member) -> IO[bytes]:
                found = tar.extractfile(member)
                assert found is not None  # noqa: S101 - asked for of regular files only
                return found

            yield _Entry(member.name, kind | stat.S_IMODE(member.mode), content, member.linkname)


def _zip_entries(file: IO[bytes]) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise ArchiveError(f"{ascii(info.filename)[:200]} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArchiveError(f"{ascii(info.filename)[:200]} is compressed in a way that is seldom used")
            mode = info.external_attr >> 16
            if not stat.S_IFMT(mode):
                mode |= stat.S_IFDIR if info.is_dir() else stat.S_IFREG

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            link = ""
            if stat.S_ISLNK(mode):
                with content() as source:
                    link = source.read(MAX_LINK_BYTES).decode("utf-8", "replace")
            yield _Entry(info.filename, mode, content, link)
