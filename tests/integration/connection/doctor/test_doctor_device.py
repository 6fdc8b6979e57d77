"""What the doctor says of the device itself: nothing where all is well, and its files, handlers and disks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from thingjobs.doctor import Mark, Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Pki
    from tests.integration.conftest import Disk
    from tests.integration.connection.doctor.conftest import Patient

    from thingjobs.testing import JobsService

THING = "pump-7"
ALWAYS = (
    "config",
    "agent",
    "files",
    "certificate",
    "clock",
    "name",
    "port",
    "tls",
    "connect",
    "subscribe",
    "jobs",
    "client id",
)
REST = ("handlers", "space", "state")


@pytest.mark.usefixtures("served")
def test_where_all_is_well_nothing_else_is_said_no_job_is_taken_and_nothing_is_changed(
    patient: Patient, service: JobsService
) -> None:
    service.create_job("job-1", {"handler": "x"}, [THING])
    patient.state.mkdir()
    before = tree(patient.folder)
    report = patient.examine(everything=True)
    assert [one.check for one in report.findings] == [*ALWAYS, *REST]
    assert report.marked(Mark.OK) == {*ALWAYS, *REST}
    assert report.of("jobs").text == "the Jobs service answers: job-1#1 waits for pump-7, and was left alone"
    assert service.execution(THING, "job-1").status == "QUEUED"
    assert tree(patient.folder) == before


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("who", "words"),
    [("key", "others may use"), ("config", "may be written by others"), ("handlers", "others may change")],
)
def test_files_that_others_can_read_or_change_are_named(patient: Patient, pki: Pki, who: str, words: str) -> None:
    patient.install((-1, 90))
    path = {"key": patient.folder / "own.key", "config": patient.config, "handlers": patient.folder / "handlers"}[who]
    path.chmod(path.stat().st_mode | (0o044 if who == "key" else 0o022))
    found = patient.examine().only("files", words)
    assert str(path) in found.text
    assert found.todo.startswith("run chmod ")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give files away")
@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("who", ["own.key", "own.pem", "config"])
def test_files_of_another_account_are_named_as_the_agent_would(patient: Patient, who: str) -> None:
    patient.install((-1, 90))
    path = patient.config if who == "config" else patient.folder / who
    os.chown(path, 65534, -1)
    found = patient.examine().only("files", f"{path} belongs to user 65534, not to root")
    assert found.todo == f"run chown -h root {path}"


@pytest.mark.usefixtures("served")
def test_a_folder_in_which_others_could_put_another_configuration_is_named(patient: Patient) -> None:
    patient.config.parent.chmod(0o777)
    found = patient.examine().only("files", f"{patient.config.parent} may be written by others")
    assert found.todo == f"run chmod go-w {patient.config.parent}"


def test_of_a_key_that_is_not_there_nothing_is_said_to_be_well(patient: Patient) -> None:
    patient.set("private_key", f'"{patient.folder}/no.key"')
    said = next(one for one in patient.examine().findings if one.check == "files")
    assert said.text == "nobody else can change what the agent reads and runs"


@pytest.mark.usefixtures("served")
def test_a_handler_that_is_broken_is_named_with_its_reason(patient: Patient) -> None:
    folder = patient.folder / "handlers" / "firmware"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"contract": 1')
    found = patient.examine(everything=True).only("handlers", "handler firmware")
    assert "manifest.json" in found.text
    assert "thingjobs handlers check firmware" in found.todo


@pytest.mark.usefixtures("served")
def test_a_state_folder_in_memory_is_named(patient: Patient, new_disk: Callable[..., Disk]) -> None:
    disk = new_disk("100m")
    patient.rewrite(f'directory = "{patient.folder}/state"', f'directory = "{disk.path}/state"')
    found = patient.examine(mounts=None, everything=True).only(
        "state", f"is on {disk.path}, which is in memory (tmpfs)"
    )
    assert found.todo.startswith("set state.directory to a folder on a disk")


@pytest.mark.usefixtures("served")
def test_a_full_disk_and_one_that_is_read_only_are_named(patient: Patient, new_disk: Callable[..., Disk]) -> None:
    disk = new_disk("100m")
    patient.rewrite(f'directory = "{patient.folder}/state"', f'directory = "{disk.path}/state"')
    disk.read_only()
    found = patient.examine(everything=True, rival=0.0).only("state", "is on a disk that is mounted read-only")
    assert "mount -o remount,rw" in found.todo
    disk.writable()
    disk.fill()
    found = patient.examine(everything=True, rival=0.0).only("space", "0.0 MiB free for ")
    assert found.todo.startswith("free some space there")


def test_no_check_begins_after_its_time(patient: Patient) -> None:
    report = patient.examine(everything=True, whole=0.0)
    assert report.marked(Mark.SKIPPED) == {*ALWAYS, *REST}


def test_in_the_worst_case_a_minute_is_enough() -> None:
    usual = Patience()
    assert 2 * usual.session + usual.reply + usual.rival + 2 < usual.talk, "a transport's conversation"
    assert (
        usual.whole + max(usual.talk, usual.cloud, usual.handlers, usual.name + usual.reach + 2 * usual.handshake) < 60
    )
