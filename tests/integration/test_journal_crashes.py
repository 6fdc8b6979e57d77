"""The agent dies, or the power fails, at every write of the journal: the old generation is found, or the new one.

The death of a process loses nothing that it wrote. A power cut may: of a file that was not synced any part of the
content, and of the changes to a folder since its last sync any at all, in no order.
"""

from __future__ import annotations

import ast
import runpy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import journal as journal_module
from thingjobs.generations import Found, Loaded
from thingjobs.journal import Journal
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Result, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.kills.mortal import Watched
else:
    Watched = runpy.run_path(str(Path(__file__).parent / "kills" / "mortal.py"))["Watched"]

FIRST = Record(
    Identity(JobId("fw-1"), 1, 1_790_000_000),
    Phase.CLAIMING,
    "c0ffee",
    1,
    Plan("firmware", ("/h/firmware",)),
    {"handler": "firmware"},
)
GENERATIONS = [FIRST, replace(FIRST, phase=Phase.APPLYING), replace(FIRST, phase=Phase.REPORTING, owed=True)]
LAST = replace(FIRST, phase=Phase.DONE, document={}, result=Result(Status.SUCCEEDED), finished_at=5.0)
ALL = [*GENERATIONS, LAST]
KEY = FIRST.identity.key
#: How many generations there were before the one being saved.
BEFORE = pytest.mark.parametrize("before", range(4))
#: The same, of saves that have to be durable.
BEFORE_THE_LAST = pytest.mark.parametrize("before", range(3))


class Died(BaseException):
    """The process is gone: nothing of it cleans up."""


class Deadly(Watched):
    """`os` as the journal sees it: what changes the disk is written down, and the agent may die before it.

    Args:
        die_at: the number of the step before which the agent dies.
        write_at_most: the kernel takes no more bytes at once than these.
    """

    def __init__(self, die_at: int = -1, write_at_most: int = 1 << 30) -> None:
        super().__init__(self._step, write_at_most)
        #: The changes, as operation, name and more.
        self.steps: list[tuple[Any, ...]] = []
        self._die_at = die_at

    def _step(self, step: tuple[Any, ...]) -> None:
        if len(self.steps) == self._die_at:
            raise Died
        self.steps.append(step)


@pytest.fixture(params=[False, True], ids=["at once", "prepared"])
def watched(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Journal, Record, Deadly], list[tuple[Any, ...]]]:
    """Saves with a watched `os`, to the end or to the agent's death, at once or prepared for it; returns the steps."""

    def save(journal: Journal, record: Record, system: Deadly) -> list[tuple[Any, ...]]:
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "os", system)
            if request.param:
                journal.prepare()
            journal.save(record)
        return system.steps

    return save


def opened(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.open()
    return journal


def at_rest(folder: Path, generations: list[Record]) -> Journal:
    """Return an open journal that holds `generations`."""
    journal = opened(folder)
    for record in generations:
        journal.save(record)
    return journal


def after(folder: Path) -> Found:
    """Return what the next agent finds."""
    journal = opened(folder)
    found = journal.load()
    journal.close()
    return found


def expected(before: int) -> list[Found]:
    """Return what may be found when the save of generation `before` was cut off: the old state or the new."""
    old = Found((Loaded(ALL[before - 1]),)) if before else Found(())
    return [old, Found((Loaded(ALL[before]),))]


# --- the agent dies -----------------------------------------------------------------------------------------------

#: One more than any save has steps: then it was complete.
DEATHS = pytest.mark.parametrize("die_at", range(12))


@BEFORE
@DEATHS
def test_an_agent_that_dies_at_any_write_leaves_the_old_generation_or_the_new(
    tmp_path: Path, watched: Callable[..., Any], before: int, die_at: int
) -> None:
    journal = at_rest(tmp_path, ALL[:before])
    system = Deadly(die_at)

    try:
        watched(journal, ALL[before], system)
    except Died:
        journal.close()
        assert after(tmp_path) in expected(before), system.steps
    else:
        journal.close()
        assert after(tmp_path) == expected(before)[1]
        assert len(system.steps) <= die_at


@BEFORE
@DEATHS
def test_the_next_agent_goes_on_from_there(
    tmp_path: Path, watched: Callable[..., Any], before: int, die_at: int
) -> None:
    journal = at_rest(tmp_path, ALL[:before])
    try:
        watched(journal, ALL[before], Deadly(die_at))
    except Died:
        pass
    finally:
        journal.close()

    again = opened(tmp_path)
    again.load()
    again.save(LAST)

    assert again.load() == Found((Loaded(LAST),))
    # Nothing half written lies about.
    assert {path.suffix for path in (tmp_path / "journal").iterdir()} <= {".json", ".prev"}
    again.close()


@pytest.mark.parametrize("die_at", range(4))
def test_an_agent_that_dies_while_it_forgets_leaves_the_whole_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, die_at: int
) -> None:
    journal = at_rest(tmp_path, GENERATIONS)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "os", Deadly(die_at))
        try:
            journal.forget(FIRST.identity)
        except Died:
            found = [Found((Loaded(GENERATIONS[-1]),))]
        else:
            found = [Found(())]
    journal.close()

    # Never the generation before: it would be taken for an interrupted `apply`.
    assert after(tmp_path) in found


@pytest.mark.parametrize("at_most", [1, 7, 512])
def test_a_kernel_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, watched: Callable[..., Any], at_most: int
) -> None:
    journal = at_rest(tmp_path, [])

    watched(journal, FIRST, Deadly(write_at_most=at_most))

    assert journal.load() == Found((Loaded(FIRST),))
    journal.close()


def test_every_operation_by_which_the_journal_changes_the_disk_is_one_that_can_be_the_last() -> None:
    code = ast.parse(Path(journal_module.__file__).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }

    harmless = {"close", "fstat", "stat", "strerror", "path"}
    assert {name for name in used - harmless if name.islower()} <= vars(Watched).keys()


# --- the power fails ----------------------------------------------------------------------------------------------


@dataclass
class File:
    """Content, and whether it is sure to survive."""

    data: bytes = b""
    safe: bool = False

    def remains(self) -> list[bytes]:
        """Return what may be left of it."""
        whole = self.data
        return [whole] if self.safe else [whole, b"", whole[: len(whole) // 2], bytes(len(whole))]


class Disk:
    """A folder as it lies on the medium, and what of its changes may not have got there yet."""

    def __init__(self, folder: Path) -> None:
        self._settled = {path.name: File(path.read_bytes(), safe=True) for path in folder.iterdir()}
        self._live = dict(self._settled)
        #: Each change as names to set to a file, or to None: removed.
        self._pending: list[dict[str, File | None]] = []

    def take(self, step: tuple[Any, ...]) -> None:
        """Carry out one step of the journal."""
        match step:
            case "create", name:
                self._change({name: File()})
            case "write", name, data:
                self._live[name].data += data
                self._live[name].safe = False
            case "fsync", ".":
                self._settled, self._pending = dict(self._live), []
            case "fsync", name:
                self._live[name].safe = True
            case "unlink", name:
                self._change({name: None})
            case "link", name, other:
                self._change({other: self._live[name]})
            case "rename", name, other:
                self._change({other: self._live[name], name: None})
            case _:
                raise AssertionError(step)

    def _change(self, change: dict[str, File | None]) -> None:
        self._pending.append(change)
        self._apply(self._live, change)

    @staticmethod
    def _apply(names: dict[str, File], change: dict[str, File | None]) -> None:
        for name, file in change.items():
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file

    def outcomes(self, *, in_order: bool = False) -> Iterator[dict[str, bytes]]:
        """Return every content that the folder may have after a power cut now.

        Args:
            in_order: the file system keeps the order of changes to a folder, as those with a journal do.
        """
        for chosen in product([False, True], repeat=len(self._pending)):
            if in_order and list(chosen) != sorted(chosen, reverse=True):
                continue
            names = dict(self._settled)
            for change, got_there in zip(self._pending, chosen, strict=True):
                if got_there:
                    self._apply(names, change)
            for contents in product(*(file.remains() for file in names.values())):
                yield dict(zip(names, contents, strict=True))


def outcome(folder: Path, files: dict[str, bytes]) -> Found:
    """Return what the next agent finds when a power cut left `files`."""
    records = folder / "journal"
    for path in records.iterdir():
        path.unlink()
    for name, data in files.items():
        (records / name).write_bytes(data)
    return after(folder)


@BEFORE_THE_LAST
def test_a_power_cut_at_any_moment_leaves_the_old_generation_or_the_new(
    tmp_path: Path, watched: Callable[..., Any], before: int
) -> None:
    journal = at_rest(tmp_path / "live", ALL[:before])
    opened(tmp_path / "after").close()
    disk = Disk(tmp_path / "live" / "journal")
    steps = watched(journal, ALL[before], Deadly())
    journal.close()

    for number, step in enumerate(steps):
        for files in disk.outcomes():
            assert outcome(tmp_path / "after", files) in expected(before), (number, files)
        disk.take(step)


@BEFORE_THE_LAST
def test_when_a_save_returned_no_power_cut_can_take_it_back(
    tmp_path: Path, watched: Callable[..., Any], before: int
) -> None:
    journal = at_rest(tmp_path / "live", ALL[:before])
    opened(tmp_path / "after").close()
    disk = Disk(tmp_path / "live" / "journal")
    for step in watched(journal, ALL[before], Deadly()):
        disk.take(step)
    journal.close()

    for files in disk.outcomes():
        assert outcome(tmp_path / "after", files) == expected(before)[1], files


def test_a_power_cut_after_the_end_never_brings_back_a_step_that_was_done(
    tmp_path: Path, watched: Callable[..., Any]
) -> None:
    # The end is not synced. It may be lost, or cut, and is known to be; what is found is no earlier step to go on from.
    journal = at_rest(tmp_path / "live", GENERATIONS)
    opened(tmp_path / "after").close()
    disk = Disk(tmp_path / "live" / "journal")
    may_be = [*expected(len(GENERATIONS)), Found((), unsynced=(KEY,))]

    for step in [*watched(journal, LAST, Deadly()), None]:
        for files in disk.outcomes(in_order=True):
            assert outcome(tmp_path / "after", files) in may_be, files
        if step is not None:
            disk.take(step)
    journal.close()


def test_a_finished_execution_leaves_no_generation_with_its_parameters(tmp_path: Path) -> None:
    secret = replace(FIRST.plan, params={"password": "hunter2"})
    journal = at_rest(tmp_path, [replace(one, plan=secret, document={"params": secret.params}) for one in ALL])

    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path
    journal.close()


def test_a_new_folder_survives_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A synced file in a folder whose own name was never synced is not there after a power cut.
    system = Deadly()
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "os", system)
        opened(tmp_path / "state").close()

    synced = [step[1] for step in system.steps if step[0] == "fsync"]
    assert synced == [tmp_path / "state", tmp_path]
