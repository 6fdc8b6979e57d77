"""Files in folders that a handler may reach: never through a link, within bounds, replaced and removed whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open a folder that is no link, so that its files are found in it wherever it is moved to.

    Raises:
        OSError: it is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read(path: Path | str, most: int, *, folder: int | None = None) -> bytes:
    """Return the first `most` bytes of a plain file, b"" when there is none: a link, a pipe and a device are none."""
    try:
        with _opened(path, folder) as (fd, _):
            return os.read(fd, most)
    except OSError:
        return b""


def read_ends(path: Path, head: int, tail: int) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a plain file, both b"" when there is none."""
    try:
        with _opened(path, None) as (fd, size):
            return os.read(fd, head), os.pread(fd, tail, max(0, size - tail))
    except OSError:
        return b"", b""


@contextlib.contextmanager
def _opened(path: Path | str, folder: int | None) -> Iterator[tuple[int, int]]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "is no plain file", str(path))
        yield fd, found.st_size
    finally:
        os.close(fd)


def replace(name: str, content: bytes, *, folder: int, owner: tuple[int, int] | None = None) -> None:
    """Put a file of mode 0600 in the place of `name`, whatever that is, so that nobody ever sees a part of it.

    It is given to the user and group `owner`, if that is not None.

    Raises:
        OSError: it could not be written.
    """
    new = f".{name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(new, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):  # On a full disk it is room that others need.
            os.unlink(new, dir_fd=folder)
        raise


def overwrite(name: str, content: bytes, *, folder: int) -> None:
    """Write over a plain file where it stands, which takes no room on most file systems; nobody may be reading it.

    Raises:
        OSError: it could not be written, or it is no plain file, or has another name besides.
    """
    fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise FileExistsError(errno.EEXIST, "is no plain file", name)
        view, at = memoryview(content), 0
        while at < len(content):
            at += os.pwrite(fd, view[at:], at)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def room(name: str, *, folder: int) -> int:
    """Return how many bytes a plain file can hold without another block of the disk; 0 if there is none.

    Source: stat(2): st_blocks counts 512 bytes each.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0


def remove(folder: Path) -> None:
    """Remove a folder and all in it, however deep that is and whatever its modes are; what resists stays."""
    with contextlib.suppress(OSError):
        with opened_folder(folder) as top:
            _empty(top)
        folder.rmdir()


def _empty(top: int) -> None:
    """Remove all that is in a folder. What lies deeper is moved to the top first, so that depth costs no stack."""
    names = os.listdir(top)
    while names:
        name = names.pop()
        with contextlib.suppress(OSError), _made_passable(name, top) as inner:
            for one in list(os.scandir(inner)):
                with contextlib.suppress(OSError):
                    if one.is_dir(follow_symlinks=False):
                        with _made_passable(one.name, inner):
                            lifted = f".gone-{one.inode()}"
                            os.rename(one.name, lifted, src_dir_fd=inner, dst_dir_fd=top)
                            names.append(lifted)
                    else:
                        os.unlink(one.name, dir_fd=inner)
            os.rmdir(name, dir_fd=top)
            continue
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=top)


@contextlib.contextmanager
def _made_passable(name: str, parent: int) -> Iterator[int]:
    """Open a folder that is no link, which its owner may have closed to itself."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open(name, flags | os.O_PATH, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{place}").chmod(0o700)
        fd = os.open(".", flags | os.O_RDONLY, dir_fd=place)
    finally:
        os.close(place)
    try:
        yield fd
    finally:
        os.close(fd)
