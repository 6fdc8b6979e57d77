"""Every operation of the disk fails under the journal: nothing that was saved is lost, and nothing unsaved is believed.

The disk is full, read-only, broken or gone, once or for good, at each single operation of a save, of a forget and of
a load; then it is well again. A folder that is deleted is made anew, and the lock with it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import journal as journal_module
from thingjobs import records
from thingjobs.errors import StateBusyError, StateError
from thingjobs.generations import Found, Loaded
from thingjobs.journal import Journal
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Result, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.conftest import Disk

FIRST = Record(
    Identity(JobId("fw-1"), 1, 1_790_000_000),
    Phase.CLAIMING,
    "c0ffee",
    1,
    Plan("firmware", ("/h/firmware",)),
    {"handler": "firmware"},
)
OWED = replace(FIRST, phase=Phase.REPORTING, owed=True)
LAST = replace(FIRST, phase=Phase.DONE, document={}, result=Result(Status.SUCCEEDED), finished_at=5.0)
ALL = [FIRST, replace(FIRST, phase=Phase.APPLYING), OWED, LAST]
IN_MEMORY = Path("/dev/shm")
KEY = FIRST.identity.key
#: How many generations there were before the one being saved.
BEFORE = pytest.mark.parametrize("before", range(4))
ERRORS = pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
FOR_GOOD = pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])


@dataclass
class Failing:
    """`os` as the journal sees it, of which one operation fails.

    Attributes:
        error: what it fails with.
        at: the number of the operation.
        for_good: and so do all that follow.
        then: is done before that operation instead.
        done: the operations that did not fail, with the name of their file.
    """

    error: int
    at: int
    for_good: bool = False
    then: Callable[[], object] | None = None
    asked: int = 0
    done: list[tuple[str, str]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _attempt(self, operation: str, name: object) -> None:
        number, self.asked = self.asked, self.asked + 1
        if self.then is not None and number == self.at:
            self.then()
        elif number == self.at or (self.for_good and number > self.at):
            raise OSError(self.error, os.strerror(self.error), str(name))
        self.done.append((operation, str(name)))

    def open(self, path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._attempt("open", path)
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
        self.names[fd] = str(path)
        return fd

    def write(self, fd: int, data: bytes) -> int:
        part = bytes(data)[:300]
        try:
            self._attempt("write", self.names[fd])
        except OSError:
            os.write(fd, part[: len(part) // 2])
            raise
        return os.write(fd, part)

    def fsync(self, fd: int) -> None:
        self._attempt("fsync", self.names.get(fd, "."))
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)
        self._attempt("close", self.names.pop(fd, "."))

    def fstat(self, fd: int) -> os.stat_result:
        self._attempt("fstat", ".")
        return os.fstat(fd)

    def unlink(self, path: str, *, dir_fd: int) -> None:
        self._attempt("unlink", path)
        os.unlink(path, dir_fd=dir_fd)

    def link(self, path: str, other: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._attempt("link", other)
        os.link(path, other, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def rename(self, path: str, other: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._attempt("rename", other)
        os.rename(path, other, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


#: The operations of a save, and one more: none of them fails.
MOST = 25


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder in memory: what fails here is not the disk, so there is no need to wait for one."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        yield Path(name) / "state"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(folder)
    opened.open()
    yield opened
    opened.close()


def at_rest(journal: Journal, before: int) -> None:
    for record in ALL[:before]:
        journal.save(record)


def holding(before: int) -> Found:
    return Found((Loaded(ALL[before - 1]),)) if before else Found(())


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_durable(done: list[tuple[str, str]]) -> bool:
    """Whether all of a save got to the disk: content before the name, and the name before it returned."""
    kinds = [operation for operation, _ in done]
    renamed = len(kinds) - 1 - kinds[::-1].index("rename")
    written = max(index for index, one in enumerate(done) if one[0] == "write")
    synced = {index for index, one in enumerate(done) if one[0] == "fsync"}
    return bool(synced & set(range(written, renamed))) and bool(synced & set(range(renamed, len(done))))


def refusal(journal: Journal, record: Record) -> str:
    """Save a record; return why it could not be."""
    try:
        journal.save(record)
    except StateError as error:
        return str(error)
    return ""


# --- a save ---------------------------------------------------------------------------------------------------------


@BEFORE
@ERRORS
@FOR_GOOD
def test_whichever_operation_of_a_save_fails_what_is_found_is_whole_and_a_later_save_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: int, error: str, for_good: bool
) -> None:
    monkeypatch.setattr(journal_module, "RESERVE_BYTES", 4096)
    for at in range(MOST):
        shutil.rmtree(folder, ignore_errors=True)
        journal = Journal(folder)
        journal.open()
        at_rest(journal, before)
        system = Failing(getattr(errno, error), at, for_good)
        opened = fds()

        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "os", system)
            refused = refusal(journal, ALL[before])
        failed = refused != ""
        assert not failed or os.strerror(system.error) in refused
        assert fds() == opened, system.done

        # Another agent finds what was there before, or the new one: where only the last sync failed, it may be there.
        found = Journal(folder).load()
        synced_last = not failed or ("rename", f"{KEY}.json") in system.done
        assert found == holding(before + 1) if synced_last else found == holding(before), (at, system.done)
        # And what was said to be saved is.
        assert failed or before == 3 or is_durable(system.done), (at, system.done)

        journal.save(ALL[before])
        assert journal.load() == holding(before + 1)
        assert {path.suffix for path in (folder / "journal").iterdir()} <= {".json", ".prev"}
        journal.close()
        if system.asked <= at:
            return
    pytest.fail(f"a save has more than {MOST} operations")


@BEFORE
def test_whenever_the_folder_is_deleted_during_a_save_a_later_save_is_found(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(journal_module, "RESERVE_BYTES", 4096)
    for at in range(MOST):
        at_rest(journal, before)
        system = Failing(0, at, then=lambda: shutil.rmtree(journal.folder))

        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "os", system)
            refusal(journal, ALL[before])
        refused = refusal(journal, ALL[before])

        assert (refused, journal.load()) == ("", holding(before + 1)), system.done
        assert journal.emptied() or system.asked <= at
        journal.forget(FIRST.identity)
        if system.asked <= at:
            return
    pytest.fail(f"a save has more than {MOST} operations")


def test_a_save_whose_last_sync_failed_is_not_taken_for_saved_and_is_written_anew(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After an EIO the kernel may drop what it could not write: to sync the same file again proves nothing.
    at_rest(journal, 1)
    whole = Failing(errno.EIO, at=999)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "os", whole)
        journal.save(ALL[1])
    system = Failing(errno.EIO, at=len(whole.done) - 1)
    assert whole.done[-1] == ("fsync", ".")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "os", system)
        with pytest.raises(StateError, match="the disk fails"):
            journal.save(OWED)
        patch.setattr(journal_module, "os", again := Failing(errno.EIO, at=999))
        journal.save(OWED)

    assert is_durable(again.done)


# --- a forget, a load -----------------------------------------------------------------------------------------------


@ERRORS
@pytest.mark.parametrize("at", range(4))
def test_whichever_operation_of_a_forget_fails_all_is_there_or_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: str, at: int
) -> None:
    at_rest(journal, 3)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "os", Failing(getattr(errno, error), at))
        try:
            journal.forget(FIRST.identity)
            failed = False
        except StateError:
            failed = True

    # Never the generation before alone: it would be taken for an interrupted `apply`.
    assert journal.load() == (holding(3) if failed else Found(()))
    journal.forget(FIRST.identity)
    assert journal.load() == Found(())


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM", "EACCES"])
@pytest.mark.parametrize("at", range(3))
def test_a_load_for_which_something_is_short_changes_nothing_and_works_later(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: str, at: int
) -> None:
    at_rest(journal, 3)
    journal.save(replace(FIRST, identity=Identity(JobId("fw-2"), 1, 1)))
    read, names, asked = Path.read_bytes, Path.iterdir, [0]

    def fails() -> None:
        asked[0] += 1
        if asked[0] > at:
            raise OSError(getattr(errno, error), "not now")

    def listed(path: Path) -> Any:
        fails()
        return names(path)

    def content(path: Path) -> bytes:
        fails()
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", listed)
        patch.setattr(Path, "read_bytes", content)
        with pytest.raises(StateError, match="not now"):
            journal.load()

    assert len(journal.load().loaded) == 2
    assert not (journal.folder / "quarantine").exists()


# --- the end of an execution is not waited for ----------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "zeros", "half", "half and zeros", "all but the end"])
def test_an_end_that_a_power_cut_made_unreadable_alarms_nobody(journal: Journal, left: str) -> None:
    at_rest(journal, 4)
    path = journal.folder / "journal" / f"{KEY}.json"
    whole = path.read_bytes()
    cut = {
        "nothing": b"",
        "zeros": bytes(len(whole)),
        "half": whole[: len(whole) // 2],
        "half and zeros": whole[: len(whole) // 2].ljust(4096, b"\0"),
        "all but the end": whole[:-1],
    }
    path.write_bytes(cut[left])

    assert journal.load() == Found((), unsynced=(KEY,))
    assert list((journal.folder / "journal").iterdir()) == []
    assert not (journal.folder / "quarantine").exists()


def test_a_finished_execution_whose_file_is_damaged_is_put_aside_and_named(journal: Journal) -> None:
    at_rest(journal, 4)
    path = journal.folder / "journal" / f"{KEY}.json"
    path.write_bytes(path.read_bytes().replace(b"SUCCEEDED", b"SUCCEEDEE"))

    assert journal.load() == Found((), quarantined=(KEY,))


def test_a_live_record_that_is_cut_is_damage_because_it_was_synced(journal: Journal) -> None:
    at_rest(journal, 3)
    path = journal.folder / "journal" / f"{KEY}.json"
    path.write_bytes(b"")

    assert journal.load() == Found((Loaded(ALL[1], previous=True),))


# --- which tombstones are kept --------------------------------------------------------------------------------------


def done(number: int, finished_at: float) -> Record:
    return replace(LAST, identity=Identity(JobId(f"job-{number}"), 1, 1_790_000_000), finished_at=finished_at)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_wrong_after_a_boot_does_not_cost_the_newest_tombstones(
    folder: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    monkeypatch.setattr(journal_module, "PRUNE_AT", 6)
    monkeypatch.setattr(journal_module, "MAX_TOMBSTONES", 4)
    journal = Journal(folder)
    journal.open()
    for number in range(7):
        # The clock stood at 1970 from the fourth on.
        journal.save(done(number, 1_790_000_000.0 + number if number < 4 else float(number)))
        if restarts:
            journal.close()
            journal = Journal(folder)
            journal.open()
            journal.load()

    assert [one.record.identity.job_id for one in journal.load().loaded] == [f"job-{number}" for number in range(3, 7)]
    journal.close()


def test_the_tombstones_of_an_agent_that_did_not_count_come_first(journal: Journal) -> None:
    for number in (2, 1):
        old = replace(done(number, float(number)), order=0)
        name = f"{old.identity.key}.json"
        (journal.folder / "journal" / name).write_bytes(records.dump(old))
    journal.load()

    journal.save(done(3, 0.5))

    assert [one.record.identity.job_id for one in journal.load().loaded] == ["job-1", "job-2", "job-3"]


# --- the folder is deleted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["journal", "."])
def test_a_folder_that_was_deleted_is_made_anew_by_the_next_save(journal: Journal, what: str) -> None:
    at_rest(journal, 1)
    assert not journal.emptied()
    shutil.rmtree(journal.folder / what)

    journal.save(ALL[1])

    assert journal.load() == holding(2)
    assert journal.emptied()
    assert not journal.emptied()
    with pytest.raises(StateBusyError):
        Journal(journal.folder).open()


def test_a_lock_that_was_deleted_is_taken_again(journal: Journal) -> None:
    (journal.folder / "lock").unlink()

    journal.look()

    assert not journal.emptied()
    with pytest.raises(StateBusyError):
        Journal(journal.folder).open()


@pytest.mark.parametrize("what", ["lock", "."])
def test_when_another_agent_took_the_folder_meanwhile_nothing_is_written_into_it(journal: Journal, what: str) -> None:
    at_rest(journal, 1)
    gone = journal.folder / what
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    other = Journal(journal.folder)
    other.open()
    before = sorted((journal.folder / "journal").iterdir())

    with pytest.raises(StateBusyError, match="another agent"):
        journal.save(ALL[1])
    with pytest.raises(StateBusyError):
        journal.look()

    assert sorted((journal.folder / "journal").iterdir()) == before
    other.close()
    journal.save(ALL[1])
    assert journal.load() == holding(2)


def test_a_folder_that_cannot_be_made_anew_is_said_to_be_so_until_it_can(journal: Journal, folder: Path) -> None:
    at_rest(journal, 1)
    opened = fds()
    shutil.rmtree(folder)
    folder.write_text("a file in its place")

    for _ in range(3):
        with pytest.raises(StateError, match="anew"):
            journal.save(ALL[1])
    folder.unlink()
    journal.save(ALL[1])

    assert journal.load() == holding(2)
    assert journal.emptied()
    assert fds() == opened


def test_a_folder_that_was_moved_away_is_written_to_no_more(journal: Journal, folder: Path) -> None:
    at_rest(journal, 1)
    folder.rename(folder.with_name("old"))

    journal.save(ALL[1])

    assert journal.load() == holding(2)
    assert (folder.with_name("old") / "journal" / f"{KEY}.json").read_bytes() == records.dump(FIRST)


# --- a read-only disk -----------------------------------------------------------------------------------------------


def test_an_agent_begins_on_a_read_only_disk_with_what_is_there(new_disk: Callable[..., Disk]) -> None:
    disk = new_disk()
    journal = Journal(disk.path / "state")
    journal.open()
    at_rest(journal, 3)
    journal.close()
    disk.read_only()

    journal.open()
    assert journal.load() == holding(3)
    with pytest.raises(StateBusyError):
        Journal(journal.folder).open()
    with pytest.raises(StateError, match="Read-only file system; see in `dmesg`"):
        journal.save(LAST)
    disk.writable()
    journal.save(LAST)

    assert journal.load() == holding(4)
    assert (journal.folder / "reserve").exists()
    journal.close()


def test_an_idle_agent_does_not_keep_an_operator_from_making_the_disk_read_only(new_disk: Callable[..., Disk]) -> None:
    disk = new_disk()
    journal = Journal(disk.path / "state")
    journal.open()
    at_rest(journal, 1)

    disk.read_only()

    with pytest.raises(StateError, match="Read-only"):
        journal.save(ALL[1])
    disk.writable()
    journal.save(ALL[1])
    assert journal.load() == holding(2)
    journal.close()


def test_a_new_folder_on_a_read_only_disk_is_refused(new_disk: Callable[..., Disk]) -> None:
    disk = new_disk()
    disk.read_only()
    opened = fds()

    with pytest.raises(StateError, match=r"cannot use the state folder .*Read-only"):
        Journal(disk.path / "state").open()

    assert fds() == opened
