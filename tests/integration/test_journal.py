"""The journal on a real disk: what was saved is found, damage costs at most one generation, one agent a folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import journal as journal_module
from thingjobs import records
from thingjobs.beginning import Beginning
from thingjobs.errors import StateBusyError, StateError
from thingjobs.generations import Found, Loaded, read_only
from thingjobs.journal import NEXT, Journal
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.runner import Runner, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST = Record(
    Identity(JobId("fw-1"), 1, 1_790_000_000),
    Phase.CLAIMING,
    "c0ffee",
    1,
    Plan("firmware", ("/h/firmware",)),
    {"handler": "firmware"},
)
SECOND = replace(FIRST, phase=Phase.APPLYING, version=2)
THIRD = replace(SECOND, phase=Phase.REPORTING, result=Result(Status.SUCCEEDED), owed=True)
KEY = FIRST.identity.key


def of_job(job_id: str, *, finished_at: float | None = None, phase: Phase = Phase.DONE) -> Record:
    """Return a record of another execution."""
    identity = Identity(JobId(job_id), 1, 1_790_000_000)
    return replace(FIRST, identity=identity, phase=phase, document={}, finished_at=finished_at)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(folder)
    opened.open()
    yield opened
    opened.close()


def saved(journal: Journal, *generations: Record) -> Path:
    """Save the generations one after the other; return the current file."""
    for record in generations:
        journal.save(record)
    return journal.folder / "journal" / f"{KEY}.json"


def listing(folder: Path) -> dict[str, bytes]:
    """Return the name and content of every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- what was saved is found --------------------------------------------------------------------------------------


def test_what_was_saved_last_is_found(journal: Journal) -> None:
    saved(journal, FIRST, SECOND, THIRD)

    assert journal.load() == Found((Loaded(THIRD),))


def test_an_empty_journal_holds_nothing(journal: Journal) -> None:
    assert journal.load() == Found(())


def test_the_finished_come_first_in_the_order_they_finished(journal: Journal) -> None:
    late, early, running = of_job("a", finished_at=9.0), of_job("b", finished_at=5.0), SECOND
    for record in (early, running, late):
        journal.save(record)

    assert [one.record for one in journal.load().loaded if one.record.phase is Phase.DONE] == [early, late]


def test_what_was_forgotten_is_not_found(journal: Journal) -> None:
    saved(journal, FIRST, SECOND)

    journal.forget(FIRST.identity)

    assert journal.load() == Found(())
    assert listing(journal.folder / "journal") == {}


def test_forgetting_what_was_never_there_is_no_error(journal: Journal) -> None:
    journal.forget(FIRST.identity)


def test_nobody_but_the_agent_can_look_into_the_journal(journal: Journal) -> None:
    path = saved(journal, FIRST)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    # Handlers of another user have to reach their own job's folder.
    assert journal.folder.stat().st_mode & 0o777 == 0o711


# --- the end of an execution takes its place when nobody waits -----------------------------------------------------

LAST = replace(THIRD, phase=Phase.DONE, document={}, owed=False, finished_at=5.0, order=1)


def fails(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def ended(journal: Journal) -> Callable[[], None]:
    """Save the end of an execution; return what is left to do."""
    waiting: list[Callable[[], None]] = []
    journal.save(replace(LAST, order=0), waiting.append)
    (settle,) = waiting
    return settle


def test_the_end_of_an_execution_is_found_once_it_took_its_place_and_its_parameters_are_gone(journal: Journal) -> None:
    secret = replace(THIRD, plan=replace(THIRD.plan, params={"key": "hidden"}))
    path = saved(journal, FIRST, SECOND, secret)

    settle = ended(journal)
    assert records.load(path.read_bytes()) == secret
    settle()

    assert journal.load() == Found((Loaded(LAST),))
    (content,) = listing(path.parent).values()
    assert b"hidden" not in content


@pytest.mark.parametrize("before", [(), (FIRST,), (FIRST, SECOND), (THIRD, SECOND)])
def test_an_end_does_not_wait_where_the_disk_does_not_hold_it_as_a_report(
    journal: Journal, before: tuple[Record, ...]
) -> None:
    saved(journal, *before)
    waiting: list[Callable[[], None]] = []

    journal.save(replace(LAST, order=0), waiting.append)

    assert not waiting
    assert journal.load() == Found((Loaded(LAST),))


def test_an_end_does_not_wait_where_the_folder_is_another_one_by_now(journal: Journal) -> None:
    saved(journal, THIRD)
    shutil.rmtree(journal.folder)
    waiting: list[Callable[[], None]] = []

    journal.save(replace(LAST, order=0), waiting.append)

    assert not waiting
    assert journal.load() == Found((Loaded(LAST),))


def test_an_end_does_not_wait_where_the_report_could_not_be_saved(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(journal, FIRST, SECOND)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(StateError):
            journal.save(THIRD)
    waiting: list[Callable[[], None]] = []

    journal.save(replace(LAST, order=0), waiting.append)

    assert not waiting
    assert journal.load() == Found((Loaded(LAST),))


def test_an_agent_that_dies_before_the_end_took_its_place_finds_what_it_reports_once_more(journal: Journal) -> None:
    path = saved(journal, FIRST, SECOND, THIRD)
    ended(journal)
    journal.prepare()
    journal.close()

    again = Journal(journal.folder)
    again.open()

    assert again.load() == Found((Loaded(THIRD),))
    assert not path.with_name(NEXT).exists()
    again.close()


def test_what_only_reports_is_durable_and_leaves_nothing_to_do(journal: Journal) -> None:
    waiting: list[Callable[[], None]] = []

    journal.save(FIRST, waiting.append)

    assert not waiting
    assert journal.load() == Found((Loaded(FIRST),))


def test_an_end_that_was_forgotten_or_whose_folder_was_deleted_meanwhile_is_no_error(journal: Journal) -> None:
    saved(journal, THIRD)
    settle = ended(journal)
    journal.forget(FIRST.identity)
    settle()

    saved(journal, THIRD)
    settle = ended(journal)
    shutil.rmtree(journal.folder)
    journal.look()
    settle()

    saved(journal, THIRD)
    settle = ended(journal)
    shutil.rmtree(journal.folder)
    settle()
    journal.look()

    assert journal.load() == Found(())
    assert journal.emptied()


def test_an_end_takes_its_place_with_the_room_of_the_reserve(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(journal, FIRST, SECOND, THIRD)
    settle = ended(journal)
    write, there = os.write, []

    def full(fd: int, data: bytes) -> int:
        there.append((journal.folder / "reserve").exists())
        if there[-1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        settle()

    assert journal.load() == Found((Loaded(LAST),))
    assert there == [True, False]


def test_an_end_does_not_wait_while_there_is_no_reserve(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is begun next would take the room that it needs.
    saved(journal, FIRST, SECOND, THIRD)
    monkeypatch.setattr(os, "posix_fallocate", fails)
    assert journal.give_up_reserve()
    waiting: list[Callable[[], None]] = []

    journal.save(replace(LAST, order=0), waiting.append)

    assert not waiting
    assert journal.load() == Found((Loaded(LAST),))


def test_an_end_that_cannot_take_its_place_is_told_and_leaves_the_report_that_is_owed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(journal, FIRST, SECOND, THIRD)
    settle = ended(journal)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        with pytest.raises(StateError, match=r"cannot write the journal in .*the disk fails"):
            settle()

    assert [one.suffix for one in path.parent.iterdir()] == [".json"]
    journal.save(replace(LAST, order=0))
    assert journal.load() == Found((Loaded(replace(LAST, order=2)),))


# --- the file of the next generation is made when nobody waits -----------------------------------------------------


def test_the_next_generation_is_written_to_the_file_that_was_made_for_it(journal: Journal) -> None:
    journal.prepare()
    prepared = (journal.folder / "journal" / NEXT).stat().st_ino

    path = saved(journal, FIRST)

    assert path.stat().st_ino == prepared
    assert journal.load() == Found((Loaded(FIRST),))

    journal.prepare()
    assert path.with_name(NEXT).read_bytes() == b""


def test_a_generation_that_nobody_needs_is_removed_while_nobody_waits(journal: Journal) -> None:
    secret = replace(FIRST, plan=replace(FIRST.plan, params={"key": "hidden"}))
    path = saved(journal, secret, SECOND, THIRD)

    journal.prepare()
    journal.prepare()

    assert {one.name for one in path.parent.iterdir()} == {path.name, f"{KEY}.prev", NEXT}
    assert all(b"hidden" not in content for content in listing(path.parent).values())


def test_saves_that_follow_one_another_need_no_preparation(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rename to another name of the same file does nothing (rename(2)), so what failed must leave no such names.
    saved(journal, FIRST, SECOND)
    with monkeypatch.context() as patch:
        rename = os.rename
        patch.setattr(os, "rename", lambda old, *more, **where: (fails if old == NEXT else rename)(old, *more, **where))
        with pytest.raises(StateError):
            journal.save(THIRD)

    for record in (THIRD, SECOND, FIRST, THIRD):
        saved(journal, record)

    assert journal.load() == Found((Loaded(THIRD),))


def test_a_save_needs_room_for_no_more_than_three_generations(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(journal, FIRST, SECOND, THIRD)
    write, beside = os.write, []

    def watched(fd: int, data: bytes) -> int:
        beside.append({one.name for one in path.parent.iterdir()})
        return write(fd, data)

    monkeypatch.setattr(os, "write", watched)
    saved(journal, SECOND)

    assert beside == [{path.name, f"{KEY}.prev", NEXT}]


def test_a_file_that_cannot_be_made_is_tried_once_for_each_save(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fails_and_counts(*_: object, **__: object) -> None:
        tried.append(NEXT)
        fails()

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails_and_counts)
        journal.prepare()
        journal.prepare()
    assert tried == [NEXT]

    path = saved(journal, FIRST)
    journal.prepare()
    assert path.with_name(NEXT).exists()


def test_what_another_agent_took_over_is_left_alone(journal: Journal) -> None:
    path = saved(journal, FIRST, SECOND, THIRD)
    settle = ended(journal)
    (journal.folder / "lock").unlink()
    other = Journal(journal.folder)
    other.open()
    path.with_name(NEXT).write_bytes(b"being written")
    before = listing(path.parent)

    journal.prepare()
    settle()

    assert listing(path.parent) == before
    other.close()


def test_what_keeps_the_file_from_being_made_is_said_by_the_save(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        journal.prepare()
        with pytest.raises(StateError, match="the disk fails"):
            journal.save(FIRST)

    assert saved(journal, FIRST).exists()


def test_a_file_that_was_made_in_a_folder_that_is_gone_is_not_missed(journal: Journal) -> None:
    journal.prepare()
    shutil.rmtree(journal.folder)

    assert saved(journal, FIRST).exists()
    assert journal.load() == Found((Loaded(FIRST),))


def test_a_file_that_was_made_for_nothing_is_removed_by_the_next_agent(journal: Journal) -> None:
    saved(journal, FIRST)
    journal.prepare()
    journal.close()

    again = Journal(journal.folder)
    again.open()

    assert again.load() == Found((Loaded(FIRST),))
    assert [path.suffix for path in (journal.folder / "journal").iterdir()] == [".json"]
    again.close()


# --- damage: of single bytes, see test_journal_bytes.py ------------------------------------------------------------


def test_a_current_file_that_is_missing_gives_way_to_the_generation_before(journal: Journal) -> None:
    saved(journal, FIRST, SECOND).unlink()

    assert journal.load() == Found((Loaded(FIRST, previous=True),))


def test_the_file_of_another_execution_is_not_believed(journal: Journal) -> None:
    other = of_job("other")
    journal.save(other)
    path = saved(journal, FIRST, SECOND)

    path.write_bytes((path.parent / f"{other.identity.key}.json").read_bytes())

    assert {one.record.identity: one for one in journal.load().loaded} == {
        other.identity: Loaded(other),
        FIRST.identity: Loaded(FIRST, previous=True),
    }


@pytest.mark.parametrize("suffixes", [("json",), ("json", "prev")])
def test_an_execution_of_which_no_generation_can_be_read_is_put_aside_alone(
    journal: Journal, suffixes: tuple[str, ...]
) -> None:
    generations = (FIRST, SECOND)[: len(suffixes)]
    path = saved(journal, *generations)
    other = of_job("other")
    journal.save(other)
    for suffix in suffixes:
        path.with_suffix(f".{suffix}").write_bytes(b"garbage")

    assert journal.load() == Found((Loaded(other),), quarantined=(KEY,))

    assert listing(journal.folder / "quarantine") == {f"{KEY}.{suffix}": b"garbage" for suffix in suffixes}
    assert journal.load() == Found((Loaded(other),))


def test_an_execution_that_was_put_aside_can_be_journalled_anew(journal: Journal) -> None:
    saved(journal, FIRST).write_bytes(b"")
    journal.load()

    saved(journal, SECOND)

    assert journal.load() == Found((Loaded(SECOND),))


@pytest.mark.parametrize("error", ["EMFILE", "EACCES", "ENOMEM"])
def test_a_passing_trouble_of_the_machine_is_not_taken_for_damage(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    saved(journal, FIRST, SECOND)

    def fail(_: Path) -> bytes:
        raise OSError(getattr(errno, error), "not now")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(StateError):
            journal.load()

    assert journal.load() == Found((Loaded(SECOND),))


def test_a_medium_that_cannot_be_read_is_damage(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(journal, FIRST, SECOND)
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.suffix == ".json":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)

    assert journal.load() == Found((Loaded(FIRST, previous=True),))


def test_what_a_crash_left_half_written_is_removed_at_the_next_start(journal: Journal) -> None:
    path = saved(journal, FIRST)
    path.with_suffix(".tmp").write_bytes(b"half")
    (path.parent / "never-1.1.5.tmp").write_bytes(b"half of the first that there was")

    assert journal.load() == Found((Loaded(FIRST),))
    assert set(listing(path.parent)) == {path.name}


# --- a later release ----------------------------------------------------------------------------------------------


def newer(record: Record, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return `record` as a release that writes format 2 would write it."""
    with monkeypatch.context() as patch:
        patch.setattr(records, "FORMAT", 2)
        return records.dump(record)


def test_what_a_later_release_wrote_is_named_and_left_as_it_is(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(journal, FIRST, SECOND)
    path.write_bytes(newer(THIRD, monkeypatch))
    path.with_suffix(".tmp").write_bytes(b"half of it")
    before = listing(journal.folder)

    assert journal.load() == Found((), newer=(KEY,))
    assert listing(journal.folder) == before


def test_what_an_execution_of_a_later_release_works_in_stays_as_it_is(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(journal, FIRST).write_bytes(newer(FIRST, monkeypatch))
    mine, nobodys = (journal.folder / "jobs" / key / "work" for key in (KEY, "gone.1.1790000000"))
    for folder in (mine, nobodys):
        folder.mkdir(parents=True)
    pruned: list[set[str]] = []
    handlers: Any = SimpleNamespace(prune=pruned.append)
    runner = Runner(Settings(journal.folder, "pump-7", "boot", {}), lambda _: None)

    Beginning(journal, runner, handlers).take_up(lambda _records, _newer: None, lambda _: None)

    assert mine.is_dir()
    assert not nobodys.exists()
    assert not pruned


def test_a_damaged_file_of_a_later_release_gives_way_to_its_own_generation_before(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(journal, FIRST)
    path.write_bytes(newer(SECOND, monkeypatch)[:-9])
    path.with_suffix(".prev").write_bytes(newer(FIRST, monkeypatch))

    assert journal.load() == Found((), newer=(KEY,))


# --- one agent a folder -------------------------------------------------------------------------------------------


def test_a_second_agent_on_the_same_folder_is_refused_and_leaves_nothing_open(journal: Journal) -> None:
    before = fds()

    for _ in range(3):
        with pytest.raises(StateBusyError, match="another agent"):
            Journal(journal.folder).open()

    assert fds() == before


def test_a_folder_is_free_again_when_its_agent_ended(journal: Journal) -> None:
    saved(journal, FIRST)
    journal.close()

    other = Journal(journal.folder)
    other.open()

    assert other.load() == Found((Loaded(FIRST),))
    other.close()


def test_an_agent_that_was_killed_holds_no_folder(folder: Path) -> None:
    program = "import sys; from pathlib import Path; from thingjobs.journal import Journal\n"
    program += "Journal(Path(sys.argv[1])).open() or print('open', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"open\n"
        with pytest.raises(StateBusyError):
            Journal(folder).open()
        agent.send_signal(signal.SIGKILL)

    journal = Journal(folder)
    journal.open()
    journal.close()


def test_a_folder_that_cannot_be_made_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = fds()

    with pytest.raises(StateError, match="cannot use the state folder"):
        Journal(tmp_path / "file" / "state").open()

    assert fds() == before


def test_a_journal_that_was_closed_writes_nothing(journal: Journal) -> None:
    journal.close()

    with pytest.raises(StateError):
        journal.save(FIRST)


# --- for people ---------------------------------------------------------------------------------------------------


def test_reading_for_people_takes_no_lock_and_changes_nothing(journal: Journal) -> None:
    path = saved(journal, FIRST, SECOND)
    journal.save(of_job("done", finished_at=7.0))
    (path.parent / "broken.1.2.json").write_bytes(b"garbage")
    (path.parent / f"{KEY}.tmp").write_bytes(b"half")
    before = listing(journal.folder)

    assert {record.identity.job_id: record.phase for record in read_only(journal.folder)} == {
        "fw-1": Phase.APPLYING,
        "done": Phase.DONE,
    }

    assert listing(journal.folder) == before
    saved(journal, THIRD)


def test_reading_for_people_while_the_agent_is_off_leaves_the_folder_free(folder: Path, journal: Journal) -> None:
    saved(journal, FIRST)
    journal.close()

    assert read_only(folder) == [FIRST]

    journal.open()


def test_a_folder_without_a_journal_holds_no_records(tmp_path: Path) -> None:
    assert read_only(tmp_path) == []


def test_a_journal_that_may_not_be_read_is_said_to_be_so_and_not_empty() -> None:
    # pytest's own folders let nobody pass, this one does as the agent's does.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        journal = Journal(Path(name) / "state")
        journal.open()
        saved(journal, FIRST)

        with as_nobody(journal.folder / "journal"), pytest.raises(StateError, match="Permission denied"):
            read_only(journal.folder)

        journal.close()


class as_nobody:  # noqa: N801 - reads as what it does
    """Drop the right to read `path` for a while, whoever we are."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)
        else:
            self._path.chmod(0)

    def __exit__(self, *_: object) -> None:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            self._path.chmod(0o700)


# --- tombstones ---------------------------------------------------------------------------------------------------


@pytest.fixture
def few_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "PRUNE_AT", 6)
    monkeypatch.setattr(journal_module, "MAX_TOMBSTONES", 4)


@pytest.mark.usefixtures("few_tombstones")
def test_the_latest_tombstones_are_kept_and_their_number_is_bounded(journal: Journal) -> None:
    counts = []
    for number in range(30):
        journal.save(of_job(f"job-{number}", phase=Phase.REPORTING))
        journal.save(of_job(f"job-{number}", finished_at=float(number)))
        counts.append(len(list((journal.folder / "journal").glob("*.json"))))

    assert max(counts) == 6
    left = [one.record.identity.job_id for one in journal.load().loaded]
    assert left == [f"job-{number}" for number in range(30)][-len(left) :]
    # With a tombstone its generation before goes too.
    assert len(listing(journal.folder / "journal")) == len(left)


@pytest.mark.usefixtures("few_tombstones")
def test_tombstones_of_an_earlier_agent_count(folder: Path, journal: Journal) -> None:
    for number in range(6):
        journal.save(of_job(f"old-{number}", finished_at=float(number)))
    journal.close()

    again = Journal(folder)
    again.open()
    again.load()
    again.save(of_job("new", finished_at=99.0))

    assert [one.record.identity.job_id for one in again.load().loaded] == ["old-3", "old-4", "old-5", "new"]
    again.close()


@pytest.mark.usefixtures("few_tombstones")
def test_what_is_not_finished_is_never_pruned(journal: Journal) -> None:
    for number in range(10):
        journal.load()
        journal.save(of_job(f"open-{number}", phase=Phase.REPORTING))
        journal.save(of_job(f"done-{number}", finished_at=float(number)))

    running = [one for one in journal.load().loaded if one.record.phase is not Phase.DONE]
    assert len(running) == 10


# --- a disk that does not take it ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", str(disk)]
    mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Use up every byte of `disk`, into a file of its own each time."""
    path = disk / f"filler-{len(list(disk.iterdir()))}"
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


def drain(disk: Path) -> None:
    for path in disk.glob("filler-*"):
        path.unlink()


@pytest.fixture
def on_small_disk(small_disk: Path) -> Iterator[Journal]:
    journal = Journal(small_disk / "state")
    journal.open()
    yield journal
    journal.close()


def test_on_a_full_disk_the_reserve_is_given_up_and_the_job_goes_on(on_small_disk: Journal, small_disk: Path) -> None:
    on_small_disk.save(FIRST)
    fill(small_disk)

    on_small_disk.save(SECOND)
    on_small_disk.save(THIRD)

    assert on_small_disk.load() == Found((Loaded(THIRD),))
    assert not (small_disk / "state" / "reserve").exists()


def test_the_reserve_is_kept_while_there_is_room(on_small_disk: Journal, small_disk: Path) -> None:
    on_small_disk.save(FIRST)

    reserve = (small_disk / "state" / "reserve").stat()
    assert reserve.st_size == 1024 * 1024
    # Not a promise of bytes, the bytes.
    assert reserve.st_blocks * 512 >= 1024 * 1024


def full(journal: Journal, disk: Path) -> None:
    """Fill the disk behind `journal`, reserve included."""
    (journal.folder / "reserve").unlink()
    fill(disk)


def test_a_save_that_fails_says_so_and_leaves_the_generation_before(on_small_disk: Journal, small_disk: Path) -> None:
    on_small_disk.save(FIRST)
    full(on_small_disk, small_disk)
    before = listing(small_disk / "state")

    with pytest.raises(StateError, match="No space left"):
        on_small_disk.save(SECOND)

    assert listing(small_disk / "state") == before
    assert on_small_disk.load() == Found((Loaded(FIRST),))


def test_a_save_works_again_when_there_is_room_again(on_small_disk: Journal, small_disk: Path) -> None:
    on_small_disk.save(FIRST)
    full(on_small_disk, small_disk)
    with pytest.raises(StateError):
        on_small_disk.save(SECOND)
    drain(small_disk)

    on_small_disk.save(SECOND)

    assert on_small_disk.load() == Found((Loaded(SECOND),))


def test_the_reserve_is_made_again_once_a_job_is_done_and_there_is_room(
    on_small_disk: Journal, small_disk: Path
) -> None:
    on_small_disk.save(FIRST)
    fill(small_disk)
    on_small_disk.save(SECOND)
    drain(small_disk)

    on_small_disk.save(of_job("fw-1", finished_at=1.0))

    assert (small_disk / "state" / "reserve").stat().st_size == 1024 * 1024


def test_an_agent_starts_on_a_disk_too_full_for_the_reserve(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1536 * 1024))
    journal = Journal(small_disk / "state")

    journal.open()
    journal.save(FIRST)

    # What cannot be had whole is not held in part.
    assert not (small_disk / "state" / "reserve").exists()
    assert journal.load() == Found((Loaded(FIRST),))
    journal.close()


def test_nothing_is_left_open_by_saves_that_fail(on_small_disk: Journal, small_disk: Path) -> None:
    full(on_small_disk, small_disk)
    before = fds()

    for _ in range(5):
        with pytest.raises(StateError):
            on_small_disk.save(FIRST)

    assert fds() == before


def test_a_broken_disk_does_not_cost_the_reserve(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StateError, match="Input/output error"):
            journal.save(FIRST)

    assert (journal.folder / "reserve").exists()
    assert journal.load() == Found(())
