"""The files of a handler: what there is, what of it cannot be trusted, its digest, and a signature by stat alone.

A tree is a folder with all in it, or a single file, which is a tree of one entry. The digest covers names, modes
(but for leave to write), contents and where links lead.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.registry.trust import problem_of
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 256 << 20
MAX_FILES = 10_000
#: What was changed so short a time ago could be changed again without a trace in its times.
SETTLED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link of a tree; `name` is relative to the root, "" for the root itself."""

    name: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Tree:
    """What a look at a handler's files found.

    Attributes:
        root: the folder; of a single file, the one that it is in.
        entries: in the order of their names.
        too_many: there are more than may be; the rest was not looked at.
        signature: is another one whenever something was changed, and the look was not too soon after it.
        settled: it was not.
    """

    root: Path
    entries: tuple[Entry, ...]
    too_many: bool
    signature: bytes
    settled: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and not a single file."""
        return self.entries[0].name == ""

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(entry.status.st_size for entry in self.entries if stat.S_ISREG(entry.status.st_mode))


def look(path: Path) -> Tree:
    """Look at the folder or file `path`, which may be a link to one, by stat alone.

    Raises:
        OSError: it cannot be read.
    """
    now = time.time()
    top = path.stat()
    if stat.S_ISDIR(top.st_mode):
        root, entries, too_many = path, [Entry("", top)], False
        for entry in _below(os.fspath(path), ""):
            entries.append(entry)
            if len(entries) > MAX_FILES:
                too_many = True
                break
        entries.sort(key=lambda entry: entry.name)
    else:
        root, entries, too_many = path.parent, [Entry(path.name, top)], False
    settled = all(abs(entry.status.st_ctime - now) > SETTLED_SECONDS for entry in entries)
    return Tree(root, tuple(entries), too_many, _signature(entries), settled)


def _below(root: str, name: str) -> Iterator[Entry]:
    folders = [name]
    while folders:
        folder = folders.pop()
        with os.scandir(f"{root}/{folder}" if folder else root) as found:
            for one in found:
                entry = Entry(f"{folder}/{one.name}" if folder else one.name, one.stat(follow_symlinks=False))
                if stat.S_ISDIR(entry.status.st_mode):
                    folders.append(entry.name)
                yield entry


def _signature(entries: list[Entry]) -> bytes:
    """Return what changes with any entry. The access time is left out: reading changes nothing."""
    facts = [
        (one.name, s.st_dev, s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for one in entries
        for s in (one.status,)
    ]
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def problems(tree: Tree) -> list[str]:
    """Return all that cannot be trusted or used of a tree, each as a sentence with what to do."""
    found = []
    if tree.too_many:
        found.append(f"{shown(str(tree.root))} holds more than {MAX_FILES} files; a handler has at most so many")
    if tree.size > MAX_BYTES:
        found.append(f"{shown(str(tree.root))} holds {tree.size >> 20} MiB; a handler has at most {MAX_BYTES >> 20}")
    for entry in tree.entries:
        path = str(tree.root / entry.name)
        found += [one for one in (problem_of(path, entry.status), _kind_problem(path, entry)) if one]
    return found


def _kind_problem(path: str, entry: Entry) -> str:
    mode = entry.status.st_mode
    if stat.S_ISLNK(mode):
        return _link_problem(path, entry.name)
    if stat.S_ISREG(mode):
        if mode & (stat.S_ISUID | stat.S_ISGID):
            return f"{shown(path)} takes the rights of its owner (setuid); run chmod ug-s {shown(path)}"
        return ""
    return "" if stat.S_ISDIR(mode) else f"{shown(path)} is neither a file nor a folder; remove it"


def _link_problem(path: str, name: str) -> str:
    """Return why a link leads, or may lead, out of the folder.

    `..` may only stand in front: behind the name of a link it would lead up from where that one leads.
    """
    target = os.readlink(path)  # noqa: PTH115 - as it is written, a dot and a last slash included
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if target.startswith("/") or ".." in parts[up:] or up > name.count("/"):
        return f"{shown(path)} is a link that may lead out of the folder ({shown(target)}); copy the file instead"
    return ""


def digest(tree: Tree) -> str:
    """Return the digest of a tree, `sha256:…`. The folder itself is no part of it: a file is found again in a copy.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    for entry in tree.entries:
        if entry.name:
            total.update(_fact(tree, entry))
    return f"sha256:{total.hexdigest()}"


def _fact(tree: Tree, entry: Entry) -> bytes:
    mode = entry.status.st_mode
    path = tree.root / entry.name
    match stat.S_IFMT(mode):
        case stat.S_IFREG:
            with open(path, "rb", opener=_no_link if tree.is_folder else None) as file:
                kind, content = "file", hashlib.file_digest(file, "sha256").hexdigest()
        case stat.S_IFLNK:
            kind, content = "link", os.fsencode(path.readlink()).hex()
        case _:
            kind, content = "folder", ""
    # Who may not read it here can't read a copy: so leave to read is a part of what is copied.
    shown_mode = 0 if kind == "link" else stat.S_IMODE(mode) & 0o555
    return f"{kind} {shown_mode:o} {os.fsencode(entry.name).hex()} {content}\n".encode()


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
