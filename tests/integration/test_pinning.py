"""Pinned at the claim: a handler runs as it was when its job was judged, or it is told that it cannot."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs.config.settings import Config, Connection, Handlers, Thing
from thingjobs.errors import HandlerError
from thingjobs.judging import Judge, registry_for
from thingjobs.model import Code, Plan, Result, ThingName
from thingjobs.registry import Handler, Registry, classes, pinning, tree

if TYPE_CHECKING:
    from collections.abc import Callable

SAYS = "#!/bin/sh\necho {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for executables."""
    made = tmp_path / "handlers"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def program(path: Path, says: str = "one") -> Path:
    path.write_text(SAYS.format(says))
    path.chmod(0o755)
    return path


def package(folder: Path, says: str = "one", name: str = "firmware") -> Path:
    """Make the folder of a handler with a folder and a link in it."""
    path = folder / name
    (path / "lib").mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"contract": 1, "exec": ["run.sh", "-x"], "verbs": ["apply"]}))
    (path / "lib" / "data").write_text("data")
    (path / "lib" / "link").symlink_to("data")
    program(path / "run.sh", says)
    return path


def plan_of(handler: Handler) -> Plan:
    return Plan(handler.name, handler.argv, digest=handler.digest, version=handler.version)


def output(argv: tuple[str, ...]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def copies(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "pinned").iterdir())


# --- making a copy ------------------------------------------------------------------------------------------------


def test_a_folder_runs_from_its_copy_whatever_becomes_of_it(folder: Path, state: Path) -> None:
    path = package(folder)
    registry = Registry([folder], state)

    pinned = registry.pin(registry.get("firmware"))
    shutil.rmtree(path)

    assert Path(pinned.argv[0]).is_relative_to(state / "pinned")
    assert pinned.argv[1:] == ("-x",)
    assert output(pinned.argv) == "one"
    assert (Path(pinned.argv[0]).parent / "lib" / "link").read_text() == "data"


def test_a_single_file_runs_from_its_copy_under_its_own_name(folder: Path, state: Path) -> None:
    path = program(folder / "firmware")
    registry = Registry([folder], state)

    pinned = registry.pin(registry.get("firmware"))
    path.unlink()

    assert Path(pinned.argv[0]).name == "firmware"
    assert output(pinned.argv) == "one"


def test_a_single_file_that_is_a_link_is_copied_and_not_the_link(folder: Path, state: Path, tmp_path: Path) -> None:
    target = program(tmp_path / "real")
    (folder / "firmware").symlink_to(target)
    registry = Registry([folder], state)

    pinned = registry.pin(registry.get("firmware"))
    target.unlink()

    assert output(pinned.argv) == "one"


def test_a_copy_has_no_write_bits_and_no_more_readers_than_the_original(folder: Path, state: Path) -> None:
    path = package(folder)
    (path / "lib" / "data").chmod(0o600)
    registry = Registry([folder], state)

    place = Path(registry.pin(registry.get("firmware")).argv[0]).parent

    def mode(name: str) -> int:
        return stat.S_IMODE((place / name).stat().st_mode)

    assert (mode("run.sh"), mode("manifest.json"), mode("lib/data")) == (0o555, 0o444, 0o400)
    assert (mode(""), mode("lib"), mode("..")) == (0o755, 0o755, 0o755)


def test_there_is_one_copy_for_each_content(folder: Path, state: Path) -> None:
    path = package(folder)
    registry = Registry([folder], state)
    first = registry.pin(registry.get("firmware"))
    made = Path(first.argv[0]).stat()

    assert registry.pin(registry.get("firmware")) == first
    assert Registry([folder], state).pin(registry.get("firmware")) == first
    assert Path(first.argv[0]).stat() == made

    program(path / "run.sh", "two")
    second = registry.pin(registry.get("firmware"))
    assert second.argv != first.argv
    assert [output(first.argv), output(second.argv)] == ["one", "two"]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "lib" / "data").write_text("DATA"),
        lambda path: (path / "lib" / "data").rename(path / "lib" / "datb"),
        lambda path: (path / "lib" / "data").chmod(0o755),
        lambda path: (path / "lib" / "new").touch(),
        lambda path: (path / "lib" / "new").mkdir(),
        lambda path: ((path / "lib" / "link").unlink(), (path / "lib" / "link").symlink_to("../run.sh")),
    ],
    ids=["content", "name", "exec bit", "file", "folder", "link"],
)
def test_the_digest_covers_whatever_may_matter(folder: Path, change: Callable[[Path], object]) -> None:
    path = package(folder)
    registry = Registry([folder])
    before = registry.get("firmware").digest
    assert Registry([folder]).get("firmware").digest == before

    change(path)

    assert registry.get("firmware").digest != before


def test_a_change_that_keeps_size_and_time_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "SETTLED_SECONDS", -1.0)
    path = package(folder)
    for each in (path, *path.rglob("*")):
        os.utime(each, (1, 1), follow_symlinks=False)
    registry = Registry([folder])
    before = registry.get("firmware").digest

    (path / "lib" / "data").write_text("DATA")
    os.utime(path / "lib" / "data", (1, 1))

    assert registry.get("firmware").digest != before


def test_an_unchanged_handler_is_not_read_again(folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(folder)
    monkeypatch.setattr(tree, "SETTLED_SECONDS", -1.0)
    registry = Registry([folder], state)
    pinned = registry.pin(registry.get("firmware"))
    monkeypatch.setattr(tree, "digest", None)

    assert registry.pin(registry.get("firmware")) == pinned
    assert registry.changed(plan_of(pinned)) == ""


def test_what_was_changed_just_now_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(folder)
    read: list[object] = []
    real = tree.digest

    def counting(found: tree.Tree) -> str:
        read.append(found)
        return real(found)

    monkeypatch.setattr(tree, "digest", counting)
    registry = Registry([folder])

    for _ in range(2):
        registry.get("firmware")

    assert len(read) == 2


def test_a_change_before_it_is_copied_is_noticed(folder: Path, state: Path) -> None:
    path = package(folder)
    registry = Registry([folder], state)
    handler = registry.get("firmware")
    program(path / "run.sh", "two")

    with pytest.raises(HandlerError, match="was changed while it was looked at") as refused:
        registry.pin(handler)

    assert refused.value.code is Code.HANDLER_CHANGED
    assert copies(state) == []


def test_a_job_gets_the_handler_that_came_while_it_was_judged(
    folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package(folder)
    config = Config(Thing(ThingName("p")), Connection(""), handlers=Handlers(directory=(folder,), allow_root=("*",)))
    registry = registry_for(config, state)
    real = registry.pin
    says = iter(("two", "three"))

    def pin(handler: Handler) -> Handler:
        if (word := next(says, "")) != "":
            program(path / "run.sh", word)
        return real(handler)

    monkeypatch.setattr(registry, "pin", pin)
    judge = Judge(config, registry)

    plan = judge.judge({"handler": "firmware"})

    assert isinstance(plan, Plan)
    assert output(plan.argv) == "three"
    assert plan.digest == registry.get("firmware").digest
    assert registry.changed(plan) == ""

    program(path / "run.sh", "never pinned")
    says = iter(("four", "five", "six"))
    refused = judge.judge({"handler": "firmware"})
    assert isinstance(refused, Result)
    assert refused.code is Code.HANDLER_CHANGED


@pytest.mark.parametrize("why", ["no state folder", "read only", "no room", "cannot be written"])
def test_without_a_copy_it_runs_where_it_is_and_is_compared_there(
    folder: Path, state: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package(folder)
    if why == "no room":
        monkeypatch.setattr(pinning, "ROOM", 1 << 60)
    if why == "cannot be written":
        (state / "pinned").write_text("in the way")
    registry = Registry([folder], None if why == "no state folder" else state, read_only=why == "read only")
    handler = registry.get("firmware")

    pinned = registry.pin(handler)

    assert pinned == handler
    assert registry.changed(plan_of(pinned)) == ""
    assert why != "read only" or list(state.iterdir()) == []

    program(path / "run.sh", "two")
    assert registry.changed(plan_of(pinned)) == "handler firmware was changed since the job was claimed"


# --- before each use ----------------------------------------------------------------------------------------------


def damage(argv: tuple[str, ...]) -> None:
    """Change a copy as its own handler could."""
    path = Path(argv[0])
    path.chmod(0o755)
    path.write_text(SAYS.format("damaged"))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_copy_that_was_damaged_is_made_anew(folder: Path, state: Path, restarted: bool) -> None:
    package(folder)
    registry = Registry([folder], state)
    pinned = registry.pin(registry.get("firmware"))
    assert registry.changed(plan_of(pinned)) == ""
    damage(pinned.argv)
    if restarted:
        registry = Registry([folder], state)

    assert registry.changed(plan_of(pinned)) == ""
    assert output(pinned.argv) == "one"

    damage(pinned.argv)
    assert registry.pin(registry.get("firmware")) == pinned
    assert output(pinned.argv) == "one"


@pytest.mark.parametrize("source", ["changed", "gone", "broken"])
def test_a_damaged_copy_whose_source_is_another_by_now_is_told(folder: Path, state: Path, source: str) -> None:
    path = package(folder)
    registry = Registry([folder], state)
    plan = plan_of(registry.pin(registry.get("firmware")))
    damage(plan.argv)

    match source:
        case "changed":
            program(path / "run.sh", "two")
        case "gone":
            shutil.rmtree(path)
        case _:
            path.chmod(0o777)

    assert registry.changed(plan).startswith("handler firmware was changed since the job was claimed")


@pytest.mark.parametrize("copied", [True, False])
def test_a_script_does_not_change_with_what_runs_it(folder: Path, tmp_path: Path, state: Path, copied: bool) -> None:
    interpreter = tmp_path / "sh"
    interpreter.symlink_to("/bin/sh")
    path = program(folder / "firmware")
    path.write_text(f"#!{interpreter}\n")
    registry = Registry([folder], state, read_only=not copied)
    plan = plan_of(registry.pin(registry.get("firmware")))
    if copied:
        damage(plan.argv)
    interpreter.unlink()

    assert registry.changed(plan) == ""
    with pytest.raises(HandlerError, match="is to be run by"):
        registry.get("firmware")


def test_a_file_that_is_added_to_a_copy_is_damage(folder: Path, state: Path) -> None:
    package(folder)
    registry = Registry([folder], state)
    pinned = registry.pin(registry.get("firmware"))
    (Path(pinned.argv[0]).parent / "lib" / "more").touch()

    assert registry.changed(plan_of(pinned)) == ""
    assert not (Path(pinned.argv[0]).parent / "lib" / "more").exists()


def test_a_new_version_does_not_matter_to_what_is_pinned(folder: Path, state: Path) -> None:
    path = package(folder)
    registry = Registry([folder], state)
    plan = plan_of(registry.pin(registry.get("firmware")))

    program(path / "run.sh", "two")
    assert registry.changed(plan) == ""
    shutil.rmtree(path)
    assert registry.changed(plan) == ""


# --- classes ------------------------------------------------------------------------------------------------------


class Shelf(Registry):
    """A registry in which the test says what is installed."""

    def __init__(self, *points: classes.Point) -> None:
        super().__init__(())
        self.points = points

    def _named(self, name: str) -> list[Path | classes.Point]:
        return [point for point in self.points if point.name == name]

    def get(self, name: str) -> Handler:
        found = self._named(name)
        if not found:
            raise HandlerError(Code.HANDLER_UNKNOWN, f"there is no handler {name}")
        point = found[0]
        assert isinstance(point, classes.Point)
        argv = (*classes.PYTHON, point.target)
        return Handler(name, point.source, argv, point.digest, point.version)


GREET = classes.Point("greet", "greet:Greet", "greet", "1.0", "sha256:a", editable=False)


def test_a_class_is_compared_by_the_digest_of_its_distribution() -> None:
    shelf = Shelf(GREET)
    handler = shelf.get("greet")
    plan = plan_of(handler)

    assert shelf.pin(handler) == handler
    assert shelf.changed(plan) == ""

    shelf.points = (replace(GREET, version="1.1", digest="sha256:b"),)
    assert shelf.changed(plan) == "handler greet was 1.0 when the job was claimed and is 1.1 now"
    assert shelf.changed(replace(plan, resumes_across_versions=True)) == ""

    shelf.points = (replace(GREET, digest="sha256:b"),)
    assert "greet 1.0 was installed anew, with other content" in shelf.changed(plan)

    shelf.points = ()
    for resumes in (False, True):
        gone = shelf.changed(replace(plan, resumes_across_versions=resumes))
        assert gone == "handler greet was 1.0 when the job was claimed; now: there is no handler greet"


def test_another_class_under_the_same_name_goes_on_with_nothing() -> None:
    shelf = Shelf(GREET)
    plan = replace(plan_of(shelf.get("greet")), resumes_across_versions=True)

    shelf.points = (replace(GREET, target="other:Greet", version="2.0", digest="sha256:b"),)

    assert shelf.changed(plan) == "handler greet was 1.0 when the job was claimed and is 2.0 now"


# --- tidying ------------------------------------------------------------------------------------------------------


def test_copies_that_nobody_needs_are_removed_but_the_newest(folder: Path, state: Path) -> None:
    path = package(folder)
    registry = Registry([folder], state)
    made = []
    for number in range(6):
        program(path / "run.sh", str(number))
        pinned = registry.pin(registry.get("firmware"))
        made.append(pinned)
        place = Path(pinned.argv[0]).parent
        os.utime(place, (number, number))
    (state / "pinned" / ".left-over").mkdir()

    registry.prune([made[0].digest, "sha256:" + "0" * 64])

    kept = {Path(one.argv[0]).parent.name for one in (made[0], *made[3:])}
    assert set(copies(state)) == kept
    Registry([folder], state.parent / "nowhere").prune([])
