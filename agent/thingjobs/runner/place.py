"""Where an execution's verbs work: a folder of the agent's with pipes, exit statuses and the log, the handler's in it.

`jobs/KEY` in the state folder; for an observing handler, when the disk is full or read-only, in a folder in memory.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.errors import FULL, StateError
from thingjobs.runner import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.model import Json, Plan, Verb

STREAMS = ("stdout", "stderr", "events")
#: What the shim reads for ever once its handler ended: it keeps the other pipes, and what is in them, until it is
#: killed.
HOLD = "hold"
JOB = "job.json"
#: An empty file in a folder that is given back, for the exit status of the run that comes next.
BLANK = "blank"
#: A job.json that a handler had its hands on; a document has 32 KB.
_MAX_JOB_BYTES = 1024 * 1024
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs a handler: the numbers of a local account."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def owner(self) -> tuple[int, int] | None:
        """The user and group that files are given to; None if they are the agent's own."""
        return None if self.uid == os.geteuid() else (self.uid, self.gid)


def account_of(name: str) -> Account:
    """Return the local account `name`.

    Raises:
        StateError: there is none.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise StateError(f"cannot run as {name}: there is no such user here") from None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def account_for(plan: Plan) -> Account | None:
    """Return whom to become for a handler, None to stay who the agent is.

    Raises:
        StateError: there is no such account.
    """
    return account_of(plan.user) if plan.user else None


def own_home() -> str:
    """Return the agent's own home."""
    try:
        return _home_of(os.geteuid())
    except KeyError:  # A container may run as a number that has no name.
        return "/"


@functools.cache  # What was not found is looked for again.
def _home_of(uid: int) -> str:
    return pwd.getpwuid(uid).pw_dir


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one execution: the agent's own, with the handler's `work` in it."""

    folder: Path

    @property
    def work(self) -> Path:
        """The handler's folder, and its working directory."""
        return self.folder / "work"

    def exit_file(self, verb: Verb, attempt: int) -> Path:
        """Return where the shim stores the exit status of one run."""
        return self.folder / f"exit-{verb}-{attempt}"

    def make(self, account: Account | None) -> None:
        """Make folders and pipes; what is there already is kept; what is no pipe, or one open to others, is made anew.

        Raises:
            OSError: it could not be made.
        """
        try:
            self.work.mkdir(mode=0o700, exist_ok=True)
        except (FileNotFoundError, PermissionError):  # The latter: the verb before took its own account's rights.
            self.folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o711, exist_ok=True)
            self.folder.chmod(0o711)
            self.work.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o711)
        for name in (*STREAMS, HOLD):
            path = f"{self.folder}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_mode == stat.S_IFIFO | 0o600:
                    continue
                os.unlink(path)  # noqa: PTH108 - as the others here: a Path for each costs what its call does
            os.mkfifo(path, 0o600)
            self._give(path, account)
        self._give(self.work, account)

    @staticmethod
    def _give(path: Path | str, account: Account | None) -> None:
        if account is not None and account.owner is not None:
            os.chown(path, *account.owner, follow_symlinks=False)

    def prepare(self, exit_file: Path, account: Account | None) -> None:
        """Make what a run needs before its go: folders, pipes, and the empty file for its exit status.

        Raises:
            OSError: it could not be made.
        """
        self.make(account)
        if not self._take_blank(exit_file):
            os.close(os.open(exit_file, _WRITING | os.O_TRUNC, 0o600))
        self._give(exit_file, account)

    def _take_blank(self, exit_file: Path) -> bool:
        blank = f"{self.folder}/{BLANK}"
        try:
            found = os.lstat(blank)
            if fit := found.st_mode == stat.S_IFREG | 0o600 and found.st_size == 0 and found.st_nlink == 1:
                os.rename(blank, exit_file)  # noqa: PTH104 - see `make`
        except FileNotFoundError:
            return False
        return fit

    def write_first_job(self, job: Json, account: Account | None) -> None:
        """Write job.json for a run.

        Raises:
            OSError: it could not be written.
        """
        try:
            self.write_job(job, account)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # What was begun shall come to its end on a full disk: an earlier verb's has room enough.
            with files.opened_folder(self.work) as work:
                files.overwrite(JOB, _written(job), folder=work)

    def write_job(self, job: Json, account: Account | None) -> None:
        """Write job.json anew.

        Raises:
            OSError: it could not be written.
        """
        with files.opened_folder(self.work) as work:
            files.replace(JOB, _written(job), folder=work, owner=account.owner if account else None)

    def renew_job(self, job: Json, account: Account | None) -> None:
        """Write job.json anew for a verb that runs.

        On a full disk it is written over where it stands, if that has the room: who reads half of it reads it again,
        and a handler that waits for it is to hear of it.

        Raises:
            OSError: it could not be written.
        """
        try:
            self.write_job(job, account)
        except OSError as error:
            if error.errno not in FULL:
                raise
            with files.opened_folder(self.work) as work:
                if files.room(JOB, folder=work) < len(_written(job)):
                    raise
                files.overwrite(JOB, _written(job), folder=work)

    def read_job(self) -> Json:
        """Return what stands in job.json, {} if that is not to be understood; a handler may have written it."""
        try:
            with files.opened_folder(self.work) as work:
                job = json.loads(files.read(JOB, _MAX_JOB_BYTES, folder=work))
        except (OSError, ValueError, RecursionError):
            return {}
        return job if isinstance(job, dict) else {}

    def open_pipes(self) -> tuple[int, int, int]:
        """Open the reading ends of the pipes, none of which blocks.

        Raises:
            OSError: one is gone, or is no pipe.
        """
        fds: list[int] = []
        try:
            for name in STREAMS:
                fds.append(_open_pipe(f"{self.folder}/{name}"))  # noqa: PERF401 - what was opened must be known to be closed
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds[0], fds[1], fds[2]

    def holds_little(self) -> bool:
        """Return whether nothing is in the handler's folder but what the agent wrote."""
        try:
            with os.scandir(self.work) as found:
                return all(entry.name == JOB for entry in found)
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the folder and all in it; what resists stays."""
        files.remove(self.folder)

    def give_back(self, spare: Path) -> bool:
        """Empty the folder and keep it as `spare` for the next execution; False if it is not fit for that.

        Making and removing folders, files and pipes costs a disk more than all else around a short job.
        """
        try:
            for path in self.folder.iterdir():
                if path.name not in (*STREAMS, HOLD, "work"):
                    path.unlink()
            if not stat.S_ISDIR(self.work.lstat().st_mode):
                return False
            for path in self.work.iterdir():
                path.unlink()
            # Made anew for the next: a process that escaped may stand in this one, and its mode may be anything.
            self.work.rmdir()
            self.work.mkdir(mode=0o700)
            os.close(os.open(f"{self.folder}/{BLANK}", _WRITING | os.O_EXCL, 0o600))
            self.folder.rename(spare)
        except OSError:
            return False
        return True


def _written(job: Json) -> bytes:
    return json.dumps(job, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _open_pipe(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, "is not a pipe", path)


# --- beside the disk ----------------------------------------------------------------------------------------------


def homes(state: Path, runtime: Path | None, *, existing: bool = False) -> Iterator[Path]:
    """Return the folders that can stand in for `jobs` in the state folder, best first; only those that are safely ours.

    What others could share has a name of its own for each state folder: an agent removes what is no job of its own.

    Args:
        state: the state folder.
        runtime: the folder in memory that the service manager made for the agent, if any.
        existing: only those that are there already; the others are made.
    """
    mark = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    shared = Path("/run/thingjobs")
    own = Path(f"/tmp/thingjobs-{os.geteuid()}-{mark}")  # noqa: S108 - whose it is is looked at, and /tmp is sticky
    made = [(shared / f"jobs-{mark}", shared), (own,)]
    for path, *above in ([(runtime / "jobs", runtime)] if runtime else []) + made:
        if (path.is_dir() or not existing) and all(_is_ours(one) for one in (*above, path)):
            yield path


def _is_ours(path: Path) -> bool:
    """Make a folder that others can only pass through; return whether there is one now, and nobody else's."""
    try:
        path.mkdir(mode=0o711, exist_ok=True)
        with files.opened_folder(path) as fd:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return False
            os.fchmod(fd, stat.S_IMODE(found.st_mode) | 0o711)
    except OSError:
        return False
    return True
