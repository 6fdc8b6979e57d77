"""A file that is not complete yet, beside the one it will become, and what must be known to go on with it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.fetch.replies import Stamp
from thingjobs.fetch.rules import FetchError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.fetch.rules import Digest

_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: What a power cut may take away, in bytes and in seconds' worth.
_SYNC_BYTES, _SYNC_S = 33554432, 30.0
_READ_BYTES = 1048576
_NOTE_BYTES = 262144
#: Left on a disk for others to live on.
RESERVE_BYTES = 1048576


class Partial:
    """The bytes that have come, in one file that goes by one name whoever fetches it, and a note beside it.

    Whole files are hashed as they grow. A second thread brings the bytes to the disk, as far as the note then says.

    Attributes:
        length: bytes so far.
        stamp: of which version of the file they are.
        resumed: some of them came with an earlier reply.
    """

    def __init__(self, target: Path, descriptor: int, digest: Digest) -> None:
        self._target = target
        self._path, self._note = _names(target)
        self._descriptor = descriptor
        self._digest = digest
        self._hash = digest.new()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="fetch-sync")
        self._syncing: tuple[int, Future[None]] | None = None
        self._synced = 0
        self._synced_at = time.monotonic()
        self._source = ""
        self.length = 0
        self.stamp = Stamp()
        self.resumed = False

    @property
    def complete(self) -> bool:
        """Whether no byte is missing."""
        return self.stamp.total is not None and self.length == self.stamp.total

    @property
    def digest(self) -> str:
        """What all of it hashes to; "" if no digest is wanted."""
        return self._hash.hexdigest() if self._hash else ""

    def take_up(self, source: str, poll: Callable[[], None]) -> None:
        """Go on with what an earlier call left, if that can be told to be of the same file.

        Args:
            source: where it comes from, without secrets.
            poll: is called now and then.
        """
        self._source = source
        self.stamp, self.length, self._synced = self._left()
        length = self.length
        os.truncate(self._descriptor, length)
        self.resumed = length > 0
        if self._hash:
            _hash_into(self._hash, self._descriptor, length, poll)

    def _left(self) -> tuple[Stamp, int, int]:
        """Return what an earlier call left: the version, the bytes, and how many of them are sure to be on the disk."""
        nothing = (Stamp(), 0, 0)
        try:
            note = json.loads(_read_note(self._note))
            stamp = Stamp(str(note["etag"]), str(note["modified"]), note["total"])
            same = (note["format"], note["url"], note["digest"]) == (_FORMAT, self._source, str(self._digest))
            booted = note["boot"] != _boot_id()
            on_disk = _count(note["synced"])
            if stamp.total is not None:
                _count(stamp.total)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return nothing
        size = os.fstat(self._descriptor).st_size
        length = min(size, on_disk) if booted else size
        fits = same and length and (stamp.total is None or length <= stamp.total)
        # Without either, nobody could tell a mixture of two versions from a file.
        told = stamp.validator or self._digest.name
        return (stamp, length, min(length, on_disk)) if fits and told else nothing

    def begin(self, offset: int, stamp: Stamp) -> None:
        """Prepare for the bytes from `offset` on: 0, or all that have come so far.

        Raises:
            FetchError: there is no space for the rest.
        """
        if offset == 0:
            self.clear()
        self.resumed = self.resumed or offset > 0
        missing = (stamp.total or offset) - offset
        found = os.statvfs(self._target.parent)
        # Not f_bfree: what is kept back for root is not ours to use up, not even as root.
        if missing + RESERVE_BYTES > found.f_bavail * found.f_frsize:
            raise FetchError(Code.FETCH_SPACE, f"there is no space in {self._target.parent} for {missing} bytes")
        self.stamp = stamp
        self._write_note()

    def clear(self) -> None:
        """Forget what has come."""
        self._wait()
        if self._synced:
            # Else a power cut could bring the note back, and have it vouch for what comes now.
            self._note.unlink(missing_ok=True)
            _sync_folder(self._target.parent)
        os.truncate(self._descriptor, 0)
        self.length = self._synced = 0
        self.stamp = Stamp()
        self.resumed = False
        self._hash = self._digest.new()

    def end(self) -> None:
        """Note that there is no more to come, where nobody had told how much would."""
        self.stamp = Stamp(self.stamp.etag, self.stamp.modified, self.length)

    def append(self, chunk: bytes) -> None:
        """Add bytes; now and then they are brought to the disk."""
        if self._hash:
            self._hash.update(chunk)
        rest = memoryview(chunk)
        while rest:
            count = os.pwrite(self._descriptor, rest, self.length)
            self.length += count
            rest = rest[count:]
        self._sync()

    def _sync(self) -> None:
        if self._syncing and self._syncing[1].done():
            self._wait()
        begun = self._syncing[0] if self._syncing else self._synced
        behind = self.length - begun
        if behind >= _SYNC_BYTES or (behind and time.monotonic() - self._synced_at >= _SYNC_S):
            self._wait()  # A disk that is slower than the network holds it up here.
            self._synced_at = time.monotonic()
            self._syncing = (self.length, self._disk.submit(os.fdatasync, self._descriptor))

    def _wait(self) -> None:
        if self._syncing:
            (length, done), self._syncing = self._syncing, None
            done.result()
            self._synced = length
            self._write_note()

    def _write_note(self) -> None:
        note = {
            "format": _FORMAT,
            "url": self._source,
            "digest": str(self._digest),
            "etag": self.stamp.etag,
            "modified": self.stamp.modified,
            "total": self.stamp.total,
            "synced": self._synced,
            "boot": _boot_id(),
        }
        fresh = self._note.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(_created(fresh), "w", encoding="utf-8") as file:
            json.dump(note, file)
        fresh.replace(self._note)

    def publish(self) -> None:
        """Put it in the target's place, in one move that survives a power cut."""
        self._wait()
        _be_like(self._target, self._descriptor)
        os.fsync(self._descriptor)
        self._path.replace(self._target)
        self._note.unlink(missing_ok=True)
        _sync_folder(self._target.parent)

    def remove(self) -> None:
        """Leave nothing behind."""
        for path in (self._note, self._note.with_suffix(".new"), self._path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        self._disk.shutdown()
        os.close(self._descriptor)


@contextmanager
def opened(target: Path, digest: Digest) -> Iterator[Partial]:
    """Give the file that will become `target`, to nobody else at the same time.

    Raises:
        FetchError: somebody has it already.
    """
    path, _ = _names(target)
    while True:
        descriptor = _opened(path)
        try:
            _lock(descriptor, target)
        except BaseException:
            os.close(descriptor)
            raise
        if _is(descriptor, path):
            break
        os.close(descriptor)  # Whoever had it before us has published or removed it by now.
    partial = Partial(target, descriptor, digest)
    try:
        yield partial
    finally:
        partial.close()


def holds(path: Path, digest: Digest, size: int | None, poll: Callable[[], None]) -> bool:
    """Return whether there is a regular file that hashes to `digest`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found, hashing = os.fstat(descriptor), digest.new()
        if hashing is None or not stat.S_ISREG(found.st_mode) or size not in (None, found.st_size):
            return False
        _hash_into(hashing, descriptor, found.st_size, poll)
    finally:
        os.close(descriptor)
    return hashing.hexdigest() == digest.value


def _count(number: object) -> int:
    """Return a number of bytes.

    Raises:
        ValueError: it is none.
    """
    if type(number) is not int or number < 0:
        raise ValueError("it is no number of bytes")
    return number


def _names(target: Path) -> tuple[Path, Path]:
    """Return the names of the partial file and of its note: the same each time, and never too long."""
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".thingjobs-{mark}.part"), target.with_name(f".thingjobs-{mark}.json")


def _read_note(path: Path) -> bytes:
    """Return what our own note says; where others may write, one of theirs may stand, or what blocks or never ends.

    Raises:
        OSError: there is none of ours.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise FileNotFoundError(errno.ENOENT, "is no note of ours", str(path))
        return os.read(descriptor, _NOTE_BYTES)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    # One that may be written but not read cannot be opened; the file itself is on the disk.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    """Open our own partial file; what is none of ours, or anything but a file, is put out of the way."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
            return descriptor
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return _created(path)


def _created(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FetchError(
            Code.FETCH_FAILED, f"cannot save {target}: another download of it is under way", resumable=True
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):  # a file system without locks
            raise


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _hash_into(hashing: hashlib._Hash, descriptor: int, length: int, poll: Callable[[], None]) -> None:
    offset = 0
    while offset < length and (chunk := os.pread(descriptor, min(_READ_BYTES, length - offset), offset)):
        poll()
        hashing.update(chunk)
        offset += len(chunk)


def _be_like(target: Path, descriptor: int) -> None:
    """Take over owner and mode of the file that is replaced, as writing into it would have kept them."""
    try:
        old = target.stat()
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        return
    # In a folder where anybody may make files, the one that is there may be somebody's trap for what comes.
    shared = target.parent.stat().st_mode & stat.S_ISVTX and old.st_uid != os.geteuid()
    with suppress(PermissionError):
        if not shared:
            os.fchown(descriptor, old.st_uid, old.st_gid)
    # Not what makes others act as its owner: whoever writes into a file loses that as well.
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return str(time.monotonic_ns())  # never the same again: only what was synced counts
