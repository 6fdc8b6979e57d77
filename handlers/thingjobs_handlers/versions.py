"""Versions of a handler, or of the agent, side by side, and a link to the one that counts.

DIRECTORY/NAME                       -> .versions/NAME/KEY
DIRECTORY/.versions/NAME/KEY         one folder for each version, complete or not there
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from thingjobs.fetch.rules import FetchError, parse_digest
from thingjobs.handler import Reject
from thingjobs.model import Code

if TYPE_CHECKING:
    from pathlib import Path


#: Of the digest: as many as no two versions will ever share.
_KEY_DIGITS = 32


def key_of(digest: str) -> str:
    """Return the key of the version that comes in an archive with that digest.

    Raises:
        Reject: it is no digest.
    """
    try:
        found = parse_digest(digest)
    except FetchError as error:
        raise Reject(error.reason, code=error.code) from None
    if not found.name:
        raise Reject("the digest of the archive is missing", code=Code.FETCH_DIGEST)
    return found.value[:_KEY_DIGITS]


class OccupiedError(Exception):
    """The handler's place is taken by something that was not installed; the message says by what."""


class Versions:
    """The versions of one handler.

    Args:
        directory: the folder of all handlers.
        name: the handler's.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.link = directory / name
        self._directory = directory
        self._prefix = f".versions/{name}"
        self._folder = directory / ".versions" / name

    def at(self, key: str) -> Path:
        """Return where a version is or would be."""
        return self._folder / key

    def holds(self, key: str) -> bool:
        """Return whether a version is there."""
        return self.at(key).is_dir()

    def current(self) -> str | None:
        """Return the key of the version that counts; None: none does.

        Raises:
            OccupiedError: something else is in its place.
        """
        try:
            target = str(self.link.readlink())
        except FileNotFoundError:
            return None
        except OSError:
            raise OccupiedError(f"{self.link} is no link: it was put there by hand") from None
        prefix, _, key = target.rpartition("/")
        if prefix != self._prefix:
            raise OccupiedError(f"{self.link} leads to {target}: it was put there by hand")
        return key

    def place(self, source: Path, key: str) -> None:
        """Copy a version into its place, durably, unless it is there."""
        if self.holds(key):
            return
        make_folder(self._folder)
        fresh = self._folder / f".{key}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        _copy(source, fresh)
        fresh.rename(self.at(key))
        sync(self._folder)

    def switch(self, key: str | None) -> None:
        """Make a version the one that counts, in one move; None: have none count."""
        if key is None:
            self.link.unlink(missing_ok=True)
        else:
            fresh = self._folder / ".link"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(f"{self._prefix}/{key}")
            fresh.replace(self.link)
        sync(self._directory)

    def remove(self, key: str) -> None:
        """Remove a version, or what there is of one; it is never taken for one."""
        gone = self._folder / f".{key}.gone"
        for path in (gone, self._folder / f".{key}.new"):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.at(key).rename(gone)
            shutil.rmtree(gone)

    def prune(self, keep: set[str]) -> None:
        """Remove all that is neither one of these versions nor the one that counts."""
        keep = keep | {self.current() or ""}
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            elif path.name.startswith("."):
                shutil.rmtree(path)
            elif path.name not in keep:
                self.remove(path.name)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder of files, folders and links, durably."""
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    for path in sorted(source.iterdir()):
        if path.is_symlink():
            (target / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            _copy(path, target / path.name)
        else:
            shutil.copy(path, target / path.name)
            sync(target / path.name)
    sync(target)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: they may not be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
