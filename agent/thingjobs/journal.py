"""The agent's memory on disk: one file an execution, replaced atomically, with the generation before it kept.

There is never a moment without a current file: the new generation is written and synced beside it, the current one
gets a second name, and only then is it renamed over. A reserve of 1 MiB is given up when the disk is full, so that
one job at a time can still be journalled. A folder that was deleted under the agent is made anew. It decides nothing:
what to save and when is the core's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from thingjobs import records
from thingjobs.errors import FULL, StateBusyError, StateError
from thingjobs.generations import read_all
from thingjobs.model import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.generations import Found
    from thingjobs.model import Identity, Record

RESERVE_BYTES = 1024 * 1024
#: Finished executions whose tombstones are kept, so that nothing runs again.
MAX_TOMBSTONES = 200
PRUNE_AT = 300
#: What the next generation is written to, of whichever execution; and what a generation becomes that nobody needs.
NEXT, OLD = "next.tmp", "old.tmp"
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
#: What a person can do about it.
_ADVICE = {
    **dict.fromkeys(FULL, "free some space there"),
    errno.EROFS: "see in `dmesg` why it is read-only, then mount it for writing again",
    errno.EIO: "the disk fails; see `dmesg`",
    errno.EACCES: "give it to the account that the agent runs as",
    errno.EPERM: "give it to the account that the agent runs as",
}


def _now(act: Callable[[], None]) -> None:
    act()


class Journal:
    """The state folder of one agent.

    Args:
        folder: made if it does not exist; others may pass through it to their own job's folder, but not look.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = folder / "journal"
        self._lock = folder / "lock"
        self._folder_fd = -1
        self._lock_fd = -1
        #: Keys of finished executions, those first that finished first.
        self._finished: list[str] = []
        self._order = 0
        #: The formats of those that were not born with the one of this release, by key.
        self._born: dict[str, int] = {}
        #: Keys of executions of which the disk holds how they ended, and not yet that this was taken.
        self._reported: set[str] = set()
        self._reserve_lost = ""
        self._emptied = False
        self._prepared = False

    def open(self) -> None:
        """Make the folders and take the lock. On a read-only disk, what is there has to do.

        Raises:
            StateBusyError: another agent holds the folder.
            StateError: the folder cannot be used.
        """
        try:
            self._make_folders()
            self._take()
        except BlockingIOError:
            self.close()
            raise self._busy() from None
        except OSError as error:
            self.close()
            raise StateError(f"cannot use the state folder {self.folder}: {_why(error)}") from None
        self._make_reserve()

    def _make_folders(self) -> None:
        new = not self._records.is_dir()
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)
            self._records.chmod(0o700)
            if new:
                # Syncing a folder keeps the names in it, not its own: that one stands in its parent.
                for folder in (self.folder, self.folder.parent):
                    _sync(folder)
        except OSError as error:
            if new:  # What was not synced must not be taken for old the next time.
                with contextlib.suppress(OSError):
                    self._records.rmdir()
            if new or error.errno in (errno.EACCES, errno.EPERM):
                raise

    def _take(self) -> None:
        """Have the folder and the lock open that stand at their paths now."""
        if not _stands(self._lock_fd, self._lock):
            lock_fd = self._locked()
            _close(self._lock_fd)
            self._lock_fd = lock_fd
        if not _stands(self._folder_fd, self._records):
            folder_fd = os.open(self._records, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _close(self._folder_fd)
            self._folder_fd = folder_fd

    def _locked(self) -> int:
        # A file that is open for writing would keep an operator from making the disk read-only. NFS wants it so.
        for access in (os.O_RDONLY, os.O_RDWR):
            fd = os.open(self._lock, access | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBADF:
                    raise
            else:
                return fd
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def close(self) -> None:
        """Give the lock back."""
        for fd in (self._folder_fd, self._lock_fd):
            _close(fd)
        self._folder_fd = self._lock_fd = -1

    def _busy(self) -> StateBusyError:
        return StateBusyError(f"cannot use the state folder {self.folder}: another agent runs on it")

    # --- a folder that was deleted under the agent ----------------------------------------------------------------

    def look(self) -> None:
        """See that the state folder is still the one that was opened; where it was deleted, make it anew.

        Raises:
            StateBusyError: another agent has taken it meanwhile.
            StateError: it cannot be made.
        """
        try:
            self._look()
        except BlockingIOError:
            raise self._busy() from None
        except OSError as error:
            raise StateError(f"cannot make the state folder {self.folder} anew: {_why(error)}") from None

    def _look(self) -> None:
        if self._lock_fd < 0:
            raise OSError(errno.EBADF, "the journal is closed")
        if self._is_ours():
            return
        self._make_folders()
        emptied = not _stands(self._folder_fd, self._records)
        self._take()
        if emptied:
            self._emptied = True
            self._finished.clear()
            self._reported.clear()
            self._make_reserve()

    def _is_ours(self) -> bool:
        return _stands(self._folder_fd, self._records) and _stands(self._lock_fd, self._lock)

    def emptied(self) -> bool:
        """Return, once, whether the folder is another one than before: what was saved until then is not in it."""
        self._emptied, emptied = False, self._emptied
        return emptied

    # --- writing --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the file that the next save writes to, while nobody waits; what keeps it from being made is said there.

        To make a file takes a disk as long as to write it, and so does removing the one that it replaced.
        """
        if self._prepared:
            return
        self._prepared = True
        with contextlib.suppress(OSError):
            if self._is_ours():
                self._remove_file(OLD)
                os.close(os.open(NEXT, _WRITING, 0o600, dir_fd=self._folder_fd))

    def save(self, record: Record, later: Callable[[Callable[[], None]], None] = _now) -> bool:
        """Replace the file of `record` durably: when this returns, no power cut can take it back.

        A finished execution is the exception: the service has its result, so one that a crash makes unfinished again
        is reported once more, and the answer shows that it was known. That is not worth waiting for a disk: it is
        written when nobody waits, if the disk holds how it ended and has room, and it is not synced.

        Args:
            record: what to write.
            later: takes what is left to do for a finished execution, when nobody waits. It may raise StateError.

        Returns:
            Whether it is written; else `later` was called.

        Raises:
            StateBusyError: another agent has taken the folder.
            StateError: it could not be written, and is to be saved again: what is found there until then is the
                generation before, or this one if only the last sync failed.
        """
        key, done = record.identity.key, record.phase is Phase.DONE
        self.look()
        if done:
            self._order += 1
            record = replace(record, order=self._order)
            if key in self._reported and not self._reserve_lost:
                # An agent that dies before finds the generation before: one that says how the execution ended.
                later(partial(self._bury_reported, record))
                return False
        self._reported.discard(key)
        try:
            (self._bury if done else self._replace)(record)
        except OSError as error:
            raise self._cannot_write(error) from None
        if record.phase is Phase.REPORTING:
            self._reported.add(key)
        return True

    def _bury_reported(self, record: Record) -> None:
        """Save a finished execution, unless it was forgotten, or saved anew with all that is known, since.

        Raises:
            StateError: it could not be written, and is to be saved again.
        """
        if record.identity.key in self._reported:
            self._reported.discard(record.identity.key)
            try:
                if self._is_ours():  # Else it will be made anew with all that is known.
                    self._bury(record)
            except OSError as error:
                raise self._cannot_write(error) from None

    def _bury(self, record: Record) -> None:
        """Save a finished execution; of too many, remove those that finished first."""
        key = record.identity.key
        self._replace(record)
        if key in self._finished:
            self._finished.remove(key)
        self._finished.append(key)
        if len(self._finished) > PRUNE_AT:
            for oldest in self._finished[:-MAX_TOMBSTONES]:
                with contextlib.suppress(OSError):
                    self._remove(oldest)
            self._finished = self._finished[-MAX_TOMBSTONES:]
        self.restore_reserve()

    def _replace(self, record: Record) -> None:
        """Write a record and put it in the place of the generation before; on a full disk with the reserve's room."""
        data = records.dump(record, self._born.get(record.identity.key))
        durable = record.phase is not Phase.DONE
        try:
            self._write_and_exchange(record.identity.key, data, durable=durable)
        except OSError as error:
            if error.errno not in FULL or not self.give_up_reserve():
                raise
            self._write_and_exchange(record.identity.key, data, durable=durable)

    def _write_and_exchange(self, key: str, data: bytes, *, durable: bool) -> None:
        try:
            self._remove_file(OLD)  # Where there was no idle moment: it would take the room of a fourth generation.
            self._write(data, durable=durable)
            self._exchange(key, keep=durable)
            if durable:
                os.fsync(self._folder_fd)
        except OSError:
            # A sync that failed says nothing about the next one of the same file; and on a full disk it is room.
            with contextlib.suppress(OSError):
                self._remove_file(NEXT)
                self._remove_file(OLD)
            raise

    def _write(self, data: bytes, *, durable: bool) -> None:
        self._prepared = False
        fd = os.open(NEXT, _WRITING, 0o600, dir_fd=self._folder_fd)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _exchange(self, key: str, *, keep: bool) -> None:
        """Put the new generation in the place of the current one.

        The current one is kept; not that of a finished execution: it holds the parameters, which may be secrets.
        """
        where, current, previous = self._folder_fd, f"{key}.json", f"{key}.prev"
        if keep:
            with contextlib.suppress(FileNotFoundError):
                os.rename(previous, OLD, src_dir_fd=where, dst_dir_fd=where)
            with contextlib.suppress(FileNotFoundError):
                os.link(current, previous, src_dir_fd=where, dst_dir_fd=where)
        else:
            self._remove_file(previous)
        os.rename(NEXT, current, src_dir_fd=where, dst_dir_fd=where)

    def _remove_file(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder_fd)

    def _cannot_write(self, error: OSError) -> StateError:
        return StateError(f"cannot write the journal in {self._records}: {_why(error)}")

    def forget(self, identity: Identity) -> None:
        """Remove the files of an execution that was never ours.

        Raises:
            StateError: they could not be removed.
        """
        try:
            self._remove(identity.key)
        except OSError as error:
            raise StateError(f"cannot remove {self._records}/{identity.key}.json: {_why(error)}") from None

    def _remove(self, key: str) -> None:
        self._born.pop(key, None)
        self._reported.discard(key)
        # The current file goes last: without it, the generation before would be taken for the truth.
        for suffix in ("prev", "json"):
            self._remove_file(f"{key}.{suffix}")

    # --- reading --------------------------------------------------------------------------------------------------

    def load(self) -> Found:
        """Read every record; what cannot be read is put aside and named.

        Raises:
            StateError: the folder itself cannot be read.
        """
        try:
            names = sorted(path.name for path in self._records.iterdir())
        except OSError as error:
            raise StateError(f"cannot read {self._records}: {error.strerror}") from None
        found = read_all(self._records, names)
        for key in found.quarantined:
            self._quarantine(key)
        for key in found.unsynced:
            with contextlib.suppress(OSError):
                self._remove(key)
        self._remove_unfinished(names, found.newer)
        self._born = {one.record.identity.key: one.born for one in found.loaded if one.born != records.FORMAT}
        done = [one.record for one in found.loaded if one.record.phase is Phase.DONE]
        self._finished = [record.identity.key for record in done]
        self._order = max((record.order for record in done), default=0)
        return found

    def _remove_unfinished(self, names: list[str], newer: tuple[str, ...]) -> None:
        """Remove what was not used before a crash; what another release wrote for an execution of its own stays."""
        for name in names:
            key, _, suffix = name.rpartition(".")
            if suffix == "tmp" and key not in newer:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._folder_fd)

    def _quarantine(self, key: str) -> None:
        aside = self.folder / "quarantine"
        for suffix in ("json", "prev"):
            with contextlib.suppress(OSError):
                aside.mkdir(mode=0o700, exist_ok=True)
                (self._records / f"{key}.{suffix}").rename(aside / f"{key}.{suffix}")

    # --- the reserve ----------------------------------------------------------------------------------------------

    @property
    def reserve_lost(self) -> str:
        """Why there is no reserve, and what to do about it; "" while there is one."""
        return self._reserve_lost

    def restore_reserve(self) -> None:
        """Make the reserve anew, if it was used up and there is room."""
        if self._reserve_lost:
            self._make_reserve()

    def _make_reserve(self) -> None:
        path = self.folder / "reserve"
        try:
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                finally:
                    os.close(fd)
            self._reserve_lost = ""
        except OSError as error:
            # No room for it now: then it is missing until there is. Jobs are still journalled while they can be.
            self._reserve_lost = _why(error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def give_up_reserve(self) -> bool:
        """Make room on a full disk; return whether there was any left to make."""
        try:
            (self.folder / "reserve").unlink()
        except OSError:
            return False
        self._reserve_lost = _why(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return True


def _stands(fd: int, path: Path) -> bool:
    """Return whether what is open is what stands at `path`."""
    try:
        return fd >= 0 and os.path.samestat(os.fstat(fd), os.stat(path))  # noqa: PTH116 - at each save and each update
    except (FileNotFoundError, NotADirectoryError):
        return False


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _why(error: OSError) -> str:
    advice = _ADVICE.get(error.errno or 0)
    return f"{error.strerror}; {advice}" if advice else f"{error.strerror}"


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
