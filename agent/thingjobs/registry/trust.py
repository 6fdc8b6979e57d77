"""Whether a file can be trusted: who may change it, and who may put another in its place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH
#: The kernel follows no more links than that.
MAX_LINKS = 40


def owners() -> frozenset[int]:
    """Return the users whom code may belong to: root, and the agent's own."""
    return frozenset((0, os.geteuid()))


def program_problem(path: Path) -> str:
    """Return why a program is not to be trusted: others could change it or put another in its place; "" if none could.

    A folder like /tmp, where none can replace the files of others, is one where anybody can add a program.

    Raises:
        OSError: there is no such file.
    """
    here = (problem_of(str(part), part.stat()) for part in (path, path.parent))
    return next(filter(None, (*here, *way_problems(os.path.abspath(path)))), "")  # noqa: PTH100 - links count


def problem_of(path: str, status: os.stat_result) -> str:
    """Return why a file, folder or link is not to be trusted, or ""; of a link, what it leads to counts as well."""
    if status.st_uid not in owners():
        return f"{shown(path)} belongs to user {status.st_uid}, not to {_owners()}; run chown -h {_to()} {shown(path)}"
    if status.st_mode & OPEN_TO_OTHERS and not stat.S_ISLNK(status.st_mode):
        return f"{shown(path)} may be written by others; run chmod go-w {shown(path)}"
    return ""


def way_problems(path: str) -> list[str]:
    """Return what cannot be trusted of the folders and links through which a path leads, from / to its end.

    Up there, a folder like /tmp will do, where none can replace what is another's.

    Raises:
        OSError: it leads nowhere.
    """
    found = []
    for part, status in way(path):
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid in owners()
        problem = "" if sticky else problem_of(part, status)
        if problem:
            found.append(problem)
    return list(dict.fromkeys(found))


def way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all that the kernel passes on its way to an absolute path, the path itself left out unless it is a link.

    Raises:
        OSError: it leads nowhere.
    """
    here, left, links = "/", [part for part in path.split("/") if part not in ("", ".")][::-1], 0
    yield here, os.lstat(here)
    while left:
        part = left.pop()
        if part == "..":
            here = str(Path(here).parent)
            continue
        step = f"{here.rstrip('/')}/{part}"
        status = os.lstat(step)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            yield step, status
            target = str(Path(step).readlink())
            here = "/" if target.startswith("/") else here
            left += [part for part in target.split("/") if part not in ("", ".")][::-1]
        else:
            here = step
            if left:
                yield here, status


def _owners() -> str:
    return "root" if os.geteuid() == 0 else f"root or user {os.geteuid()}"


def _to() -> str:
    return "root" if os.geteuid() == 0 else str(os.geteuid())
