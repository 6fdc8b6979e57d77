"""Copies of executables' files as they were when a job was judged: one for each digest, under STATE/pinned.

A copy has no write bits, and its digest is that of its source. It is synced before anything depends on it, and
verified before each use: by stat, and by reading it again where that leaves a doubt.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.registry import tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thingjobs.registry.tree import Entry, Tree

#: What is left of the disk for all else, bytes; and what a file of a copy needs beyond its content.
ROOM = 16 << 20
ROOM_EACH = 4096
KEPT_BESIDES = 3
DIGITS = 32


class Copies:
    """The copies in a folder.

    Args:
        folder: where they are; made when the first is wanted. None: there are none, and none is made.
        read_only: none is made.
    """

    def __init__(self, folder: Path | None, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._verified: dict[str, bytes] = {}

    def at(self, digest: str) -> Path | None:
        """Return where the copy for `digest` is or would be; None if none can be."""
        found = self._folder and self._folder / digest.removeprefix("sha256:")[:DIGITS]
        return found or None

    def holds(self, argv: tuple[str, ...]) -> bool:
        """Return whether a program is in a copy."""
        return self._folder is not None and Path(argv[0]).is_relative_to(self._folder)

    def intact(self, digest: str) -> bool:
        """Return whether there is a copy with that digest, unchanged."""
        place = self.at(digest)
        if place is None:
            return False
        try:
            found = tree.look(place)
            if self._verified.get(digest) == found.signature:
                return True
            good = not found.too_many and tree.digest(found) == digest
        except OSError:
            return False
        if good and found.settled:
            self._verified[digest] = found.signature
        return good

    def make(self, source: Tree, digest: str) -> bool:
        """Make a copy of `source`; return whether there is one now.

        False: there is no room, it may not be written, or what was copied has another digest by now.
        """
        place = self.at(digest)
        if place is None or self._read_only:
            return False
        temporary = place.with_name(f".{place.name}")
        try:
            _make_folder(place.parent)
            _remove(temporary)
            if not _has_room(place.parent, source):
                return False
            _copy(source, temporary)
            if tree.digest(tree.look(temporary)) != digest:
                return False
            _remove(place)
            temporary.rename(place)
            _sync(place.parent)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                _remove(temporary)
        return self.intact(digest)

    def prune(self, keep: Iterable[str]) -> None:
        """Remove the copies that are not for one of the digests in `keep`, but not the newest few."""
        if self._folder is None or self._read_only:
            return
        kept = {place.name for digest in keep if (place := self.at(digest)) is not None}
        with contextlib.suppress(OSError):
            others = sorted(self._folder.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
            whole = [path for path in others if not path.name.startswith(".") and path.name not in kept]
            for path in (*(path for path in others if path.name.startswith(".")), *whole[KEPT_BESIDES:]):
                _remove(path)


def _has_room(folder: Path, source: Tree) -> bool:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize > source.size + ROOM_EACH * len(source.entries) + ROOM


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)


def _copy(source: Tree, target: Path) -> None:
    """Copy a tree, file by file, and sync it."""
    target.mkdir(mode=0o755)
    for entry in source.entries:
        _copy_entry(source.root / entry.name, entry, target / entry.name)
    for path in _all(target):
        _sync(path)


def _copy_entry(origin: Path, entry: Entry, target: Path) -> None:
    mode = entry.status.st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(origin.readlink())
        return
    if stat.S_ISDIR(mode):
        target.mkdir(mode=0o700, exist_ok=True)
    else:
        _copy_file(origin, target)
    _give_group(target, entry.status)
    target.chmod(stat.S_IMODE(mode) & 0o555 | (0o200 if stat.S_ISDIR(mode) else 0))


def _copy_file(origin: Path, target: Path) -> None:
    with origin.open("rb") as source, target.open("xb") as copy:
        while data := source.read(1 << 20):
            copy.write(data)


def _give_group(path: Path, status: os.stat_result) -> None:
    """A group that may read the original may read the copy."""
    if status.st_gid != os.getegid():
        with contextlib.suppress(OSError):
            os.chown(path, -1, status.st_gid)


def _all(folder: Path) -> list[Path]:
    """Return all files and folders, what is inside before what it is in."""
    found = [Path(where) / name for where, _, names in os.walk(folder, topdown=False) for name in (*names, "")]
    return [path for path in found if not path.is_symlink()]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        import shutil  # noqa: PLC0415 - it brings three compression libraries along, and is seldom wanted

        shutil.rmtree(path)
