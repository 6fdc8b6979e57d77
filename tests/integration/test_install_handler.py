"""`install-handler`: real archives from a real server, verbs in real processes, and a kill at every step."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.web import Quiet

from thingjobs.runner.events import Said, fold
from thingjobs_handlers.archives import ArchiveError, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TARGET = "thingjobs_handlers.install_handler:InstallHandler"
NAME = "firmware"
RUN = b"#!/bin/sh\nexit 0\n"
#: Kills itself just before the Nth time that it opens or changes a file below a folder.
KILLED = """
import os, runpy, signal, sys
last, folder = int(sys.argv.pop(1)), sys.argv.pop(1)
steps = {"open", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.truncate"}
count = 0
def hook(event, args):
    global count
    if event not in steps:
        return
    if any(folder in os.fsdecode(one) for one in args if isinstance(one, (str, bytes, os.PathLike))):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
runpy.run_module("thingjobs.child", run_name="__main__", alter_sys=True)
"""


def manifest(**more: Any) -> bytes:
    return json.dumps(
        {"contract": 1, "name": NAME, "version": "1", "exec": "run.sh", "verbs": ["apply"], **more}
    ).encode()


def tar(files: Mapping[str, bytes | None], *extra: tarfile.TarInfo, modes: dict[str, int] | None = None) -> bytes:
    """Pack files, None is a folder, and entries without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            entry.size = len(data or b"")
            entry.mode = (modes or {}).get(name, 0o755)
            archive.addfile(entry, io.BytesIO(data or b""))
        for entry in extra:
            archive.addfile(entry)
    return out.getvalue()


def entry(name: str, kind: bytes, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def sparse(key: str, value: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo("x")
    made.pax_headers = {key: value}
    return made


def zipped(
    files: Mapping[str, bytes], modes: dict[str, int] | None = None, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o100755) << 16
            info.compress_type = method
            archive.writestr(info, data)
    return out.getvalue()


GOOD = {"manifest.json": manifest(), "run.sh": RUN}
#: The first leads to the top; through it the second stands there too, and leads out; and so does all behind that.
THROUGH_A_LINK = (
    entry("a/b/up", tarfile.SYMTYPE, "../.."),
    entry("a/b/up/out", tarfile.SYMTYPE, "../../.."),
    entry("out/x", tarfile.SYMTYPE, "y"),
)


class Answer(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.answer(found or b"", 404 if found is None else 200)


@dataclass
class Done:
    """How a verb ended."""

    code: int
    said: Said
    errors: str


@dataclass
class Device:
    """A device with a folder for handlers, a server with archives, and jobs that install from it."""

    root: Path
    url: str
    files: dict[str, bytes]
    jobs: int = 0
    owner: int | None = None
    work: Path = field(init=False)

    def __post_init__(self) -> None:
        self.handlers = self.root / "handlers"
        self.handlers.mkdir(mode=0o755)
        self.new_job()

    @property
    def link(self) -> Path:
        return self.handlers / NAME

    def new_job(self) -> None:
        self.jobs += 1
        self.work = self.root / f"job-{self.jobs}"
        self.work.mkdir()
        if self.owner is not None:
            os.chown(self.work, self.owner, self.owner)

    def params(self, archive: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(archive).hexdigest()
        self.files[f"/{digest}"] = archive
        return {"name": NAME, "url": f"{self.url}/{digest}", "digest": f"sha256:{digest}", **more}

    def run(self, verb: str, params: dict[str, Any], *, kill_at: int = 0, **job: Any) -> Done:
        """Run one verb in a child; `kill_at`: it kills itself just before its Nth step below the root."""
        events = self.root / "events"
        events.write_bytes(b"")
        events.chmod(0o666)
        told = {"jobId": "j", "execution": 1, "thing": "t", "attempt": 1, "resumed": False, "rebooted": False}
        more = {"contract": 1, "dryRun": False, "deadline": None, "revision": 1, "verb": verb, "params": params}
        settings = {"settings": {"handlers": str(self.handlers)}}
        (self.work / "job.json").write_text(json.dumps({**told, **more, **settings, **job}))
        argv = ["-I", "-m", "thingjobs.child", TARGET]
        if kill_at:
            argv = ["-c", KILLED, str(kill_at), str(self.root), TARGET]
        environment = {
            "PATH": os.environ["PATH"],
            "JOB_VERB": verb,
            "JOB_DIR": str(self.work),
            "JOB_EVENTS": str(events),
        }
        ended = subprocess.run(
            [sys.executable, *argv],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.work,
            user=self.owner,
            check=False,
        )
        said = Said()
        for line in events.read_bytes().splitlines():
            said = fold(said, line)
        return Done(ended.returncode, said, ended.stderr)

    def verbs(self, params: dict[str, Any], *verbs: str) -> None:
        """Run verbs that must all be done, as a job of their own."""
        self.new_job()
        for verb in verbs:
            done = self.run(verb, params)
            assert (done.code, done.said.reason, done.errors) == (0, "", ""), verb

    def install(self, archive: bytes, **more: Any) -> dict[str, Any]:
        params = self.params(archive, **more)
        self.verbs(params, "check", "prepare", "apply", "verify", "commit")
        return params

    def refused(self, archive: bytes, **more: Any) -> str:
        """Return why an archive was refused by `prepare`, having changed nothing."""
        self.new_job()
        done = self.run("prepare", self.params(archive, **more))
        assert (done.code, done.said.reject, done.errors) == (1, True, "")
        assert list(self.handlers.iterdir()) == []
        return done.said.reason

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.handlers / ".versions" / NAME).iterdir())


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.block_on_close = True
        server.files = {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Device(tmp_path, f"http://127.0.0.1:{server.server_port}", server.files)  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def key(params: dict[str, Any]) -> str:
    return str(params["digest"]).removeprefix("sha256:")[:32]


# --- A handler that arrives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "archive",
    [
        tar(GOOD),
        tar({f"./{name}": data for name, data in GOOD.items()}, entry("./", tarfile.DIRTYPE)),
        tar({f"{NAME}/{name}": data for name, data in GOOD.items()}),
        tar({f"{NAME}/": None, f"{NAME}/sub/": None, **{f"{NAME}/{name}": data for name, data in GOOD.items()}}),
        zipped(GOOD),
        zipped({f"{NAME}/{name}": data for name, data in GOOD.items()}),
    ],
)
def test_a_handler_is_installed_from_an_archive(device: Device, archive: bytes) -> None:
    params = device.install(archive, version="1")

    assert str(device.link.readlink()) == f".versions/{NAME}/{key(params)}"
    assert (device.link / "run.sh").read_bytes() == RUN
    assert stat.S_IMODE((device.link / "run.sh").stat().st_mode) == 0o755
    assert device.run("check", params).code == 10


def test_modes_are_ordinary_whatever_the_archive_says(device: Device) -> None:
    archive = tar({**GOOD, "a/b": b"x", "c": b"y"}, modes={"a/b": 0o666, "c": 0o4, "run.sh": 0o700})

    device.install(archive)

    found = {str(path.relative_to(device.link)): stat.S_IMODE(path.stat().st_mode) for path in device.link.rglob("*")}
    assert found == {"manifest.json": 0o755, "run.sh": 0o755, "a": 0o755, "a/b": 0o644, "c": 0o644}


def test_links_within_the_handler_are_kept(device: Device) -> None:
    links = [entry("lib/y", tarfile.SYMTYPE, "../lib/x"), entry("z", tarfile.SYMTYPE, "./lib/y")]

    device.install(tar({**GOOD, "lib/x": b"x"}, *links))

    assert (device.link / "z").read_bytes() == b"x"
    assert (device.link / "z").is_symlink()


def test_check_changes_nothing_and_needs_no_archive(device: Device) -> None:
    params = device.params(tar(GOOD))
    device.files.clear()

    assert device.run("check", params, dryRun=True).code == 0
    assert list(device.handlers.iterdir()) == []


def test_a_newer_version_takes_the_place_of_the_old_one_which_stays_for_one_more(device: Device) -> None:
    keys = [key(device.install(tar({**GOOD, "n": bytes([number])}))) for number in range(3)]

    assert device.versions() == sorted(keys[1:])
    assert device.link.readlink().name == keys[2]


def test_a_version_may_be_put_beside_the_one_that_counts(device: Device) -> None:
    old = device.install(tar(GOOD))
    new = device.params(tar({**GOOD, "n": b"1"}), activate=False)

    device.verbs(new, "check", "prepare", "apply", "verify")

    assert device.link.readlink().name == key(old)
    assert device.run("check", new).code == 10
    assert device.run("check", {**new, "activate": True}).code == 0


def test_an_older_version_that_is_still_there_can_come_back(device: Device) -> None:
    old = device.install(tar(GOOD))
    device.install(tar({**GOOD, "n": b"1"}))

    device.verbs(old, "check", "prepare", "apply", "verify", "commit")

    assert device.link.readlink().name == key(old)


def test_what_was_damaged_after_it_was_installed_counts_as_needed(device: Device) -> None:
    params = device.install(tar(GOOD))
    (device.link / "run.sh").chmod(0o644)

    assert device.run("check", params).code == 0
    assert "may not be executed" in device.run("verify", params).said.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (b"#!/bin/sh\r\n", "run.sh ends its lines with CR LF"),
        (b"#!/usr/bin/env no-such-sh\n", "run.sh is to be run by no-such-sh, which is not on the PATH"),
    ],
)
def test_a_program_that_could_not_be_started_is_not_installed_well(device: Device, script: bytes, reason: str) -> None:
    params = device.params(tar({**GOOD, "run.sh": script}))
    device.verbs(params, "prepare", "apply")

    done = device.run("verify", params)

    assert done.code == 1
    assert f"firmware was not installed well: {reason}" in done.said.reason
    assert device.run("rollback", params).code == 0
    assert not device.link.is_symlink()


def test_what_runs_a_program_may_come_with_it(device: Device) -> None:
    interpreter = device.link / "sh"
    archive = tar({**GOOD, "run.sh": f"#!{interpreter}\n".encode(), "sh": b"\x7fELF"}, modes={"sh": 0o755})

    beside = device.install(archive, activate=False)
    assert not interpreter.exists()
    assert device.run("check", beside).code == 10
    device.install(archive)

    assert interpreter.exists()


# --- Going back -----------------------------------------------------------------------------------------------------


def test_rollback_switches_back_to_what_was_there_before(device: Device) -> None:
    old = device.install(tar(GOOD))
    new = device.params(tar({**GOOD, "n": b"1"}))
    device.verbs(new, "prepare", "apply", "rollback", "rollback")

    assert device.link.readlink().name == key(old)
    assert device.versions() == [key(old)]


def test_rollback_of_the_first_version_leaves_nothing(device: Device) -> None:
    device.verbs(device.params(tar(GOOD)), "prepare", "apply", "rollback", "rollback")

    assert not device.link.is_symlink()
    assert device.versions() == []


def test_rollback_before_anything_was_changed_changes_nothing(device: Device) -> None:
    old = device.install(tar(GOOD))

    device.verbs(old, "rollback")

    assert device.link.readlink().name == key(old)


def test_rollback_leaves_a_version_that_was_there_already(device: Device) -> None:
    old = device.install(tar(GOOD))
    new = device.install(tar({**GOOD, "n": b"1"}))

    device.verbs(old, "prepare", "apply", "rollback")

    assert device.link.readlink().name == key(new)
    assert device.versions() == sorted([key(old), key(new)])


# --- Killed at every step -------------------------------------------------------------------------------------------


def usable(device: Device, *allowed: str | None) -> None:
    """Make sure that what a job for the handler would find is whole, or nothing if that is allowed."""
    found = device.link.readlink().name if device.link.is_symlink() else None
    assert found in allowed
    if found is not None:
        assert sorted(path.name for path in device.link.iterdir())[:2] == ["manifest.json", "n"]
        assert (device.link / "run.sh").read_bytes() == RUN


@pytest.mark.parametrize("after", ["apply", "rollback"])
def test_an_apply_that_is_killed_anywhere_can_be_finished_or_taken_back(device: Device, after: str) -> None:
    old = key(device.install(tar({**GOOD, "n": b"0"})))
    params = device.params(tar({**GOOD, "n": b"1"}))
    before = device.root / "before"
    shutil.copytree(device.handlers, before, symlinks=True)
    device.verbs(params, "prepare")
    prepared = device.root / "prepared"
    shutil.copytree(device.work, prepared)
    steps = 0
    while True:
        steps += 1
        killed = device.run("apply", params, kill_at=steps)
        if killed.code == 0:
            break
        assert killed.code == -signal.SIGKILL
        usable(device, old, key(params))

        assert device.run(after, params, resumed=True).code == 0

        usable(device, key(params) if after == "apply" else old)
        for verb in ("verify", "rollback") if after == "apply" else ("rollback",):
            assert device.run(verb, params).code == 0
        usable(device, old)
        for original, place in ((before, device.handlers), (prepared, device.work)):
            shutil.rmtree(place)
            shutil.copytree(original, place, symlinks=True)
    assert steps > 8


@pytest.mark.parametrize("verb", ["prepare", "commit", "rollback"])
def test_other_verbs_that_are_killed_anywhere_can_be_run_again(device: Device, verb: str) -> None:
    for number in range(2):
        old = key(device.install(tar({**GOOD, "n": b"%d" % number})))
    params = device.params(tar({**GOOD, "n": b"2"}))
    device.new_job()
    for earlier in {"prepare": (), "commit": ("prepare", "apply"), "rollback": ("prepare", "apply")}[verb]:
        assert device.run(earlier, params).code == 0
    steps = 0
    while (killed := device.run(verb, params, kill_at=steps + 1)).code:
        assert killed.code == -signal.SIGKILL
        usable(device, old, key(params))
        steps += 1
        assert steps < 200
    if verb == "prepare":
        assert device.run("apply", params).code == 0
    usable(device, old if verb == "rollback" else key(params))
    assert not [name for name in device.versions() if name.startswith(".")]


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (tar({**GOOD, "../x": b""}), "'../x' would leave the folder"),
        (tar({**GOOD, "a/../../x": b""}), "would leave the folder"),
        (tar({**GOOD, "/etc/x": b""}), "'/etc/x' would leave the folder"),
        (zipped({**GOOD, "../x": b""}), "'../x' would leave the folder"),
        (tar({**GOOD, "a//b": b""}), "would leave the folder"),
        (tar({**GOOD, "a\nb": b""}), "is no name for a file"),
        (tar({**GOOD, "a\\b": b""}), "is no name for a file"),
        (tar({**GOOD, "n" * 256: b""}), "is no name for a file"),
        (tar({**GOOD, "/".join("d" * 40): b""}), "is no name for a file"),
        (tar(GOOD, entry("x", tarfile.SYMTYPE, "/etc/passwd")), "x is a link that may lead out of the folder"),
        (tar(GOOD, entry("x", tarfile.SYMTYPE, "../y")), "x is a link that may lead out of the folder"),
        (tar(GOOD, entry("a/x", tarfile.SYMTYPE, "b/../../y")), "a/x is a link that may lead out of the folder"),
        (tar(GOOD, entry("x", tarfile.SYMTYPE, "")), "x is a link that may lead out of the folder"),
        (tar(GOOD, entry("x", tarfile.LNKTYPE, "run.sh")), "'x' is a hard link"),
        (tar(GOOD, entry("x", tarfile.CHRTYPE)), "x is neither a file nor a folder nor a link"),
        (tar(GOOD, entry("x", tarfile.FIFOTYPE)), "x is neither a file nor a folder nor a link"),
        (tar(GOOD, entry("x", tarfile.REGTYPE, mode=0o4755)), "x takes the rights of its owner (setuid)"),
        (zipped({**GOOD, "x": b""}, {"x": 0o104755}), "x takes the rights of its owner (setuid)"),
        (zipped({**GOOD, "x": b"/etc/passwd"}, {"x": 0o120777}), "x is a link that may lead out of the folder"),
        (zipped({**GOOD, "x": b""}, {"x": 0o010644}), "x is neither a file nor a folder nor a link"),
        (tar(GOOD, entry("run.sh", tarfile.REGTYPE)), "run.sh is in it twice"),
        (tar(GOOD, entry("run.sh/x", tarfile.REGTYPE)), "run.sh/x is in it twice"),
        (tar(GOOD, entry("run.sh", tarfile.SYMTYPE, "x")), "run.sh is in it twice"),
        (tar({**GOOD, "a/x": b""}, entry("a", tarfile.SYMTYPE, "run.sh")), "a is in it twice"),
        (tar(GOOD, entry(".", tarfile.REGTYPE)), "'.' is no name for a file"),
        (tar(GOOD, entry("./", tarfile.SYMTYPE, "x")), "'./' is no name for a file"),
        (tar(GOOD, *THROUGH_A_LINK), "a/b/up/out is in it twice, or as a link and as a folder"),
        (tar(GOOD)[:-20], "it is damaged, or of a kind that cannot be read"),
        (tar(GOOD)[:60] + bytes(99), "it is damaged, or of a kind that cannot be read"),
        (zipped(GOOD)[:-20], "it is damaged, or of a kind that cannot be read"),
        (tar(GOOD, *[entry("x", b"x")] * 2000), "it is damaged, or of a kind that cannot be read"),
        (tar(GOOD, sparse("GNU.sparse.map", "1,x")), "it is damaged, or of a kind that cannot be read"),
        (zipped(GOOD, method=zipfile.ZIP_LZMA), "'manifest.json' is compressed in a way that is seldom used"),
        (b"MZ", "it is neither a .tar.gz nor a .zip"),
        (b"", "it is neither a .tar.gz nor a .zip"),
    ],
)
def test_an_archive_that_could_do_harm_is_refused(tmp_path: Path, archive: bytes, reason: str) -> None:
    (tmp_path / "archive").write_bytes(archive)

    with pytest.raises(ArchiveError, match=re.escape(reason)):
        unpack(tmp_path / "archive", tmp_path / "into")

    assert not (tmp_path / "x").exists()


def test_what_is_wrong_with_an_archive_is_told_to_the_author_of_the_job(device: Device) -> None:
    assert device.refused(tar({"../x": b""})) == "the archive cannot be used: '../x' would leave the folder"


def test_an_archive_of_very_many_files_is_refused(device: Device) -> None:
    assert "it has more than 10000 entries" in device.refused(tar({f"{number}": b"" for number in range(10_001)}))


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_that_unpacks_to_very_much_is_refused(device: Device, pack: Callable[..., bytes]) -> None:
    assert "it holds more than 256 MiB" in device.refused(pack({**GOOD, "x": bytes(257 << 20)}))


def test_a_header_that_unpacks_to_very_much_is_refused_before_it_is_read(device: Device) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 600 << 20
    bomb = gzip.compress(header.tobuf() + bytes(header.size), 1)

    assert "it holds more than 256 MiB" in device.refused(bomb)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"run.sh": RUN}, "there is no manifest.json and no firmware/manifest.json in it"),
        ({"other/manifest.json": manifest(), "other/run.sh": RUN}, "there is no manifest.json"),
        ({**GOOD, "manifest.json": b"{"}, "manifest.json is no file with JSON"),
        ({**GOOD, "manifest.json": b"\xff"}, "manifest.json is no file with JSON"),
        ({**GOOD, "manifest.json": b"[" * 100_000}, "manifest.json is no file with JSON"),
        ({**GOOD, "manifest.json": b"[]"}, "manifest.json: it must be a JSON object"),
        ({**GOOD, "manifest.json": manifest(verbs=["check"])}, "manifest.json: "),
        ({**GOOD, "manifest.json": manifest(name="other")}, "name is other"),
        ({**GOOD, "manifest.json": manifest(exec="no.sh")}, "its program no.sh is not in it"),
        ({**GOOD, "manifest.json": manifest(exec="../run.sh")}, "manifest.json: "),
        ({**GOOD, "manifest.json": manifest(version="2")}, "its version is 2, not 1"),
        ({**GOOD, "manifest.json": manifest(exec="bin"), "bin/": None}, "its program bin is no file"),
    ],
)
def test_an_archive_without_the_handler_that_was_meant_is_refused(
    device: Device, files: dict[str, bytes | None], reason: str
) -> None:
    assert reason in device.refused(tar(files), version="1")


def test_a_program_that_may_not_be_executed_is_refused(device: Device) -> None:
    assert "pack it with mode 755" in device.refused(tar(GOOD, modes={"run.sh": 0o644}))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".versions", "a b", "x" * 129, "aws-steps"])
def test_a_name_that_cannot_be_used_is_refused(device: Device, name: str) -> None:
    done = device.run("check", {**device.params(tar(GOOD)), "name": name})

    assert (done.code, done.said.reject, done.errors) == (1, True, "")


@pytest.mark.parametrize("digest", ["", "md5:0", "sha256:"])
def test_an_archive_without_a_digest_that_holds_is_refused(device: Device, digest: str) -> None:
    done = device.run("check", {**device.params(tar(GOOD)), "digest": digest})

    assert (done.code, done.said.reject, done.said.code) == (1, True, "fetch.digest")


def test_an_archive_that_is_not_what_was_promised_fails(device: Device) -> None:
    params = device.params(tar(GOOD))
    device.files[f"/{params['url'].rpartition('/')[2]}"] = tar(GOOD) + b"x"

    done = device.run("prepare", params)

    assert (done.code, done.said.reject, done.said.code) == (1, False, "fetch.digest")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_somebody_put_there_by_hand_is_left_alone(device: Device, kind: str) -> None:
    match kind:
        case "folder":
            device.link.mkdir()
        case "file":
            device.link.write_bytes(RUN)
        case "link":
            device.link.symlink_to("/opt/firmware")

    done = device.run("check", device.params(tar(GOOD)))

    assert (done.code, done.said.reject) == (1, True)
    assert "by hand" in done.said.reason


def test_an_agent_that_does_not_say_where_handlers_are_cannot_install_any(device: Device) -> None:
    done = device.run("check", device.params(tar(GOOD)), settings={})

    assert (done.code, done.said.reject) == (1, True)
    assert "too old" in done.said.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_only_root_or_the_owner_of_the_folder_may_install(device: Device, reachable: Callable[[], None]) -> None:
    reachable()
    params = device.params(tar(GOOD))
    device.owner = 12345
    device.new_job()

    refused = device.run("check", params)
    os.chown(device.handlers, 12345, 12345)
    device.verbs(params, "check", "prepare", "apply", "verify", "commit")

    assert refused.said.reject
    assert "as user 12345: it belongs to root; name install-handler in [handlers] allow_root" in refused.said.reason
    assert device.link.lstat().st_uid == 12345


@pytest.fixture
def reachable(device: Device) -> Callable[[], None]:
    """Let others reach the folder of the test; skip where they cannot run this Python."""

    def open_up() -> None:
        argv = [sys.executable, "-I", "-c", "import thingjobs"]
        try:
            ended = subprocess.run(argv, user=12345, capture_output=True, check=False)
        except PermissionError:
            pytest.skip("NOT TESTED: others may not run this Python")
        if ended.returncode:
            pytest.skip("NOT TESTED: others may not read thingjobs here")
        for folder in (device.root, *device.root.parents[:3]):
            if folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        (device.root / "events").touch()

    return open_up


def test_a_disk_without_room_is_told_and_the_old_version_stays(device: Device) -> None:
    old = device.install(tar(GOOD))
    params = device.params(tar({**GOOD, "big": os.urandom(300_000)}))
    device.verbs(params, "prepare")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n{KILLED}"
    events = device.root / "events"
    environment = {"JOB_VERB": "apply", "JOB_DIR": str(device.work), "JOB_EVENTS": str(events)}
    job = json.loads((device.work / "job.json").read_text()) | {"verb": "apply"}
    (device.work / "job.json").write_text(json.dumps(job))

    argv = [sys.executable, "-c", limited, "0", "/", TARGET]
    ended = subprocess.run(argv, env=environment, cwd=device.work, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (1, "")
    assert "File too large" in events.read_text()
    assert device.link.readlink().name == key(old)
    device.verbs(params, "prepare", "apply", "verify", "commit")
