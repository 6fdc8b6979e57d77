"""`thingjobs dry-run` of whatever comes, against a snapshot of the file system: nothing is new, gone or touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.acceptance.conftest import Cli, Local

#: Path, mode, when it was changed last, size, and a digest of what it holds or where it points.
Entry = tuple[str, int, int, int, str]

#: Every verb but `check` leaves a file; `check` only says what it saw: to wait is the answer whose reason is shown.
WATCHED = """
if [ "$JOB_VERB" != check ]; then touch "$OUT/ran-$JOB_VERB"; exit 0; fi
dry=$(sed -n 's/.*"dryRun": *\\([a-z]*\\).*/\\1/p' "$JOB_DIR/job.json")
echo "called with $JOB_VERB, dryRun $dry, in $JOB_DIR" >&2
exit 75
"""

REBOOT = {
    "version": "1.0",
    "steps": [{"action": {"name": "Reboot", "type": "runHandler", "input": {"handler": "reboot.sh"}}}],
}


def entries(places: Iterable[Path]) -> list[Entry]:
    """Return all that is below the places, and the places."""
    return sorted(entry(path) for place in places if place.exists() for path in (place, *place.rglob("*")))


def entry(path: Path) -> Entry:
    """Return what is compared of a path."""
    found = path.lstat()
    content = b""
    if stat.S_ISREG(found.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(found.st_mode):
        content = os.fsencode(path.readlink())
    return str(path), found.st_mode, found.st_mtime_ns, found.st_size, hashlib.sha256(content).hexdigest()


@pytest.fixture
def temporary(cli: Cli) -> Path:
    """The folder for temporary files, the commands' own; its user may be another one."""
    folder = cli.folder / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    cli.environment["TMPDIR"] = str(folder)
    return folder


@pytest.fixture
def watched(local: Local) -> Local:
    """A handler in a folder, with a manifest and all verbs, and a state folder in which a job has been."""
    folder = local.handlers / "watched"
    folder.mkdir()
    folder.chmod(0o755)
    verbs = ["check", "prepare", "apply", "verify", "commit", "rollback"]
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"contract": 1, "name": "watched", "exec": "run.sh", "verbs": verbs}))
    manifest.chmod(0o644)
    script = folder / "run.sh"
    script.write_text(f"#!/bin/sh\n{WATCHED}")
    script.chmod(0o755)
    local.handler("plain", 'touch "$OUT/ran-plain"')
    local.job("before", {"handler": "no-such-handler"})
    local.run()
    assert local.state.is_dir()
    return local


def written(local: Local, examples: Path, log: Path) -> dict[str, Path]:
    """Write a document of every kind; return them by what they are."""
    folder = local.folder.parent / "documents"
    folder.mkdir()
    contents: dict[str, Any] = {
        "watched": {"handler": "watched"},
        "asks": {"handler": "watched", "mode": "check"},
        "plain": {"handler": "plain"},
        "python": {"handler": "probe", "params": {"answer": "needed", "log": str(log)}},
        "download": json.loads((examples / "jobs" / "2-download-file.json").read_text()),
        "reboot": REBOOT,
        "unknown": {"handler": "no-such-handler"},
    }
    paths = {name: folder / f"{name}.json" for name in (*contents, "broken")}
    for name, content in contents.items():
        paths[name].write_text(json.dumps(content))
    paths["broken"].write_text('{"handler": "watched"')
    return paths


def test_dry_run_calls_check_alone_with_dry_run_true_and_the_file_system_is_as_before(
    cli: Cli, watched: Local, temporary: Path, python_with_probe: Path, examples: Path
) -> None:
    cli.python = python_with_probe
    paths = written(watched, examples, log=Path("/dev/null"))
    places = [cli.folder, python_with_probe.parents[1], Path("/etc/thingjobs")]
    before = entries(places)
    assert len(before) > 30, "a snapshot of nothing proves nothing"

    told = cli("dry-run", "--json", *watched.words, *paths.values())

    after = entries(places)
    # `check` needs a folder with its job.json, for as long as it runs: that there was one is all that is left of it.
    assert without_time_of(temporary, after) == without_time_of(temporary, before)
    assert told.code == 1, told.err
    would = {Path(line["document"]).stem: line["would"] for line in map(json.loads, told.out.splitlines())}
    assert would == {
        "watched": "wait",
        "asks": "answer",
        "plain": "run",
        "python": "run",
        "download": "run",
        "reboot": "run",
        "unknown": "reject",
        "broken": "reject",
    }
    assert not list(watched.out.iterdir()), "a verb other than check was run"


def test_not_even_byte_code_is_left_beside_a_handler_that_was_never_imported(
    cli: Cli, watched: Local, temporary: Path, python_with_probe: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "venv"
    shutil.copytree(python_with_probe.parents[1], packages, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    cli.python = packages / "bin" / "python"
    document = cli.folder / "one.json"
    document.write_text(json.dumps({"handler": "probe", "params": {"answer": "needed", "log": "/dev/null"}}))
    before = entries([cli.folder])

    told = cli("dry-run", "--json", *watched.words, document)

    assert told.json()["would"] == "run"
    assert without_time_of(temporary, entries([cli.folder])) == without_time_of(temporary, before)


def without_time_of(folder: Path, found: list[Entry]) -> list[Entry]:
    """Return `found` without the time at which `folder` itself was changed last."""
    return [(path, mode, 0 if path == str(folder) else when, *rest) for path, mode, when, *rest in found]  # type: ignore[misc]


def test_check_learns_that_it_is_a_dry_run_and_works_in_a_folder_that_is_gone_afterwards(
    cli: Cli, watched: Local, temporary: Path
) -> None:
    document = cli.folder / "one.json"
    document.write_text(json.dumps({"handler": "watched"}))

    told = cli("dry-run", "--json", *watched.words, document)

    said = told.json()["check"]
    assert said.startswith(f"called with check, dryRun true, in {temporary}/")
    assert not list(temporary.iterdir())


def test_what_a_check_that_is_killed_leaves_behind_is_gone_too(cli: Cli, watched: Local, temporary: Path) -> None:
    watched.handler("unused", "exit 0")
    folder = watched.handlers / "watched"
    (folder / "run.sh").write_text('#!/bin/sh\nmkdir -p deep/er; echo x >deep/er/file; kill -9 "$$"\n')
    document = cli.folder / "one.json"
    document.write_text(json.dumps({"handler": "watched"}))
    before = entries([cli.folder])

    told = cli("dry-run", "--json", *watched.words, document)

    assert told.code == 1
    assert told.json()["would"] == "fail"
    assert without_time_of(temporary, entries([cli.folder])) == without_time_of(temporary, before)


def test_the_snapshot_sees_a_new_file_a_changed_mode_and_a_touched_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    before = entries([tmp_path])

    file.chmod(0o600 if stat.S_IMODE(file.stat().st_mode) != 0o600 else 0o644)
    changed_mode = entries([tmp_path])
    os.utime(file, ns=(1, 1))
    touched = entries([tmp_path])
    (tmp_path / "new").touch()

    assert len({str(before), str(changed_mode), str(touched), str(entries([tmp_path]))}) == 4
