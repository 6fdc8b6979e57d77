"""`collect`: a real child that gathers from real files and programs, and a real server that takes what it sends."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import stat
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.fetch import FetchError, Rules, upload
from thingjobs.runner.events import Said, fold
from thingjobs_handlers.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET = "thingjobs_handlers.collect:Collect"
SECRET = "?X-Amz-Signature=s3cr3t"
PATIENT = Rules(first_pause_s=0.01, longest_pause_s=0.01, attempts=3, stall_s=0.5)
#: For what is to be counted: a loaded machine is no stalled server.
UNHURRIED = replace(PATIENT, stall_s=60.0)


class Bucket(ThreadingHTTPServer):
    """Takes what is put into it, but for the replies of the next requests.

    Attributes:
        replies: status and headers, or None: no reply at all.
        taken: path, headers and body of each request.
    """

    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.replies: list[tuple[int, dict[str, str]] | None] = []
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/bundle"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class Answer(BaseHTTPRequestHandler):
    server: Bucket

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, dict(self.headers), body))
        reply = self.server.replies.pop(0) if self.server.replies else (200, {})
        if reply is None:
            self.server.over.wait(30)
            return
        self.send_response(reply[0])
        for name, value in {"Content-Length": "0", **reply[1]}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Bucket() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@dataclass
class Device:
    """A device with an agent's state folder, and jobs that collect from it."""

    root: Path
    bucket: Bucket
    allowed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.root / "state"
        self.work = self.root / "work"
        self.work.mkdir()
        (self.state / "logs").mkdir(parents=True)
        (self.state / "journal").mkdir()
        self.config = self.root / "config.toml"
        pair = {name: self.root / name for name in ("certificate", "private_key", "ca")}
        for path in pair.values():
            path.touch(mode=0o600)
        keys = "".join(f'{name} = "{path}"\n' for name, path in pair.items())
        self.config.write_text(
            f'[thing]\nname = "t"\n[state]\ndirectory = "{self.state}"\n[connection]\nendpoint = "localhost"\n{keys}'
        )

    def start(self, verb: str = "apply", *, revision: int = 1, **params: Any) -> subprocess.Popen[str]:
        """Start a verb."""
        (self.root / "events").write_bytes(b"")
        self.write_job(verb, revision, params)
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "JOB_VERB": verb,
            "JOB_DIR": str(self.work),
            "JOB_EVENTS": str(self.root / "events"),
        }
        argv = [sys.executable, "-I", "-m", "thingjobs.child", TARGET]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.work
        )

    def write_job(self, verb: str, revision: int, params: dict[str, Any]) -> None:
        told = {"jobId": "j", "execution": 1, "thing": "t", "attempt": 1, "resumed": False, "rebooted": False}
        more = {"contract": 1, "dryRun": False, "deadline": None, "revision": revision, "verb": verb}
        settings = {"state": str(self.state), "config": str(self.config), "collect": self.allowed}
        params = {"url": self.bucket.url + SECRET, **params}
        fresh = self.work / "job.json.new"
        fresh.write_text(json.dumps({**told, **more, "settings": settings, "params": params}))
        fresh.replace(self.work / "job.json")

    def said(self) -> Said:
        said = Said()
        for line in (self.root / "events").read_bytes().splitlines():
            said = fold(said, line)
        return said

    def run(self, verb: str = "apply", **params: Any) -> tuple[int, Said]:
        """Run a verb to its end."""
        with self.start(verb, **params) as child:
            output, errors = child.communicate(timeout=60)
        assert "Traceback" not in errors
        assert "s3cr3t" not in output + errors + (self.root / "events").read_text()
        return child.returncode, self.said()

    def collect(self, **params: Any) -> dict[str, bytes]:
        """Run the job and return the files that arrived."""
        code, said = self.run(**params)
        assert (code, said.reason) == (0, "")
        sent = self.bucket.taken[-1][2]
        assert said.details == {"size": str(len(sent)), "sha256": hashlib.sha256(sent).hexdigest()}
        return unpacked(sent)

    def program(self, name: str, script: str) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


def unpacked(sent: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(sent), mode="r:gz") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


@pytest.fixture
def device(tmp_path: Path, bucket: Bucket) -> Device:
    device = Device(tmp_path, bucket)
    device.program("dmesg", "echo '[0.0] booted'")
    device.program("journalctl", "echo nothing")
    return device


# --- What is sent ---------------------------------------------------------------------------------------------------


def test_the_state_of_the_device_is_sent_in_one_archive(device: Device) -> None:
    (device.state / "logs" / "fw-1.1.1700000000.log").write_text("installed\n")

    found = device.collect()

    told = json.loads(found["device.json"])
    assert told["uname"]["system"] == "Linux"
    assert told["memory"]["MemTotal"]
    assert told["disks"]
    assert told["thingjobs"]
    assert found["agent/logs/fw-1.1.1700000000.log"] == b"installed\n"
    assert found["system/dmesg.txt"] == b"[0.0] booted\n"
    assert b"ID=" in found["os-release"]
    assert json.loads(found["agent/status.json"])["thing"] == "t"
    assert "missing.txt" not in found


def test_nothing_tells_an_address_of_the_device(device: Device) -> None:
    told = device.collect()["device.json"].decode()

    assert json.loads(told)["interfaces"]
    assert not re.search(r"([0-9a-f]{2}:){5}[0-9a-f]{2}|\b127\.0\.0\.1\b", told)


def test_of_the_journal_only_names_and_phases_are_sent(device: Device) -> None:
    record = {
        "phase": "applying",
        "verb": "apply",
        "owed": False,
        "document": {"params": {"password": "s3cr3t"}},
        "plan": {"handler": "firmware", "params": {"password": "s3cr3t"}},
        "result": {"status": "FAILED", "code": "handler.exit", "reason": "s3cr3t"},
    }
    (device.state / "journal" / "fw.1.17.json").write_text(f'{{"format": 1}}\n{json.dumps(record)}')
    (device.state / "journal" / "bad.1.17.json").write_text("garbage")

    found = device.collect()

    told = {entry.pop("file"): entry for entry in json.loads(found["agent/journal.json"])}
    shown = {key: told["fw.1.17.json"][key] for key in ("phase", "verb", "handler", "status", "code")}
    assert shown == {
        "phase": "applying",
        "verb": "apply",
        "handler": "firmware",
        "status": "FAILED",
        "code": "handler.exit",
    }
    assert told["bad.1.17.json"] == {"phase": "cannot be read"}
    assert b"s3cr3t" not in found["agent/journal.json"]


def test_secrets_are_blackened_wherever_they_are(device: Device) -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\ns3cr3t\n-----END EC PRIVATE KEY-----"
    log = f"got https://u:s3cr3t@b.s3.amazonaws.com/fw{SECRET} and\n{key}\n\xff\n"
    (device.state / "logs" / "a.log").write_bytes(log.encode("latin-1"))
    device.program("dmesg", f"echo 'https://b/x{SECRET}'")

    found = device.collect()

    assert (
        found["agent/logs/a.log"]
        == b"got https://\xe2\x80\xa6@b.s3.amazonaws.com/fw?\xe2\x80\xa6 and\n(a private key was here)\n\xff\n"
    )
    assert found["system/dmesg.txt"].decode() == "https://b/x?…\n"
    assert not any(b"s3cr3t" in data for data in found.values())


def test_half_a_secret_where_a_log_is_cut_is_not_sent(device: Device) -> None:
    line = f"https://b/x?{'s3cr3t' * 20}\n".encode()
    (device.state / "logs" / "a.log").write_bytes(line * 5000)

    found = device.collect()["agent/logs/a.log"]

    assert set(found.decode().splitlines()) == {"https://b/x?…"}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3cr3t\n-----END PRIVATE KEY-----\nrest", "(a private key was here)\nrest"),
        ("a -----BEGIN RSA PRIVATE KEY-----\ns3cr3t", "a (a private key was here)"),
        ("a -----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY----- b", "a (a private key was here) b"),
        ("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
        (f"https://{'a' * 5000}?s3cr3t b", "(a long URL was here) b"),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)
def test_keys_without_a_beginning_or_an_end_and_long_words_are_blackened_too(text: str, clean: str) -> None:
    bundle = Bundle(5 << 20)
    bundle.add("a", text.encode())

    assert unpacked(bundle.close())["a"].decode() == clean


# --- Limits ---------------------------------------------------------------------------------------------------------


def test_an_archive_never_passes_its_limit_and_says_what_is_missing() -> None:
    noise = random.Random(1)
    bundle = Bundle(1 << 20)
    for number in range(40):
        bundle.add(f"f{number}", noise.randbytes(100_000))
    sent = bundle.close()

    found = unpacked(sent)
    assert 900_000 < len(sent) <= 1 << 20
    assert "f39: the first 100000 of 100000 bytes: there was no room" in found["missing.txt"].decode()


def test_a_program_that_floods_or_hangs_or_fails_costs_its_part_only(device: Device) -> None:
    device.program("dmesg", "yes 0123456789 | head -c 55000000; echo last")
    device.program("journalctl", "echo no >&2; exit 3")

    found = device.collect()

    assert found["system/dmesg.txt"].endswith(b"0123456789\nlast\n")
    assert len(found["system/dmesg.txt"]) <= 1 << 20
    assert found["missing.txt"].decode() == "system/journal.txt: journalctl failed: no\n"


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from thingjobs_handlers import evidence

    monkeypatch.setattr(evidence, "_PROGRAM_S", 0.3)

    with pytest.raises(evidence.MissingError, match=r"did not answer within 0\.3 s"):
        evidence.output(["sleep", "600"])


def test_what_cannot_be_read_is_named_and_the_rest_is_sent(device: Device) -> None:
    (device.state / "journal").rmdir()
    (device.state / "logs" / "a.log").symlink_to("/etc/passwd")
    os.mkfifo(device.state / "logs" / "b.log")
    device.config.write_text("x")

    found = device.collect()

    missing = found["missing.txt"].decode()
    assert "agent/journal.json: No such file or directory" in missing
    assert "agent/logs/a.log: Too many levels of symbolic links" in missing
    assert "agent/status.json: " in missing
    assert "device.json" in found


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself without leave to write, where that can be done."""
    for argv in (["mount", "--bind"], ["mount", "-o", "remount,ro,bind"]):
        done = subprocess.run([*argv, str(folder), str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT TESTED: cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_nothing_is_written_to_the_disk(device: Device) -> None:
    device.write_job("apply", 1, {})
    device.program("dmesg", "echo ok")
    before = {path: path.stat().st_mtime_ns for path in device.root.rglob("*") if stat.S_ISREG(path.stat().st_mode)}
    environment = {"JOB_VERB": "apply", "JOB_DIR": str(device.work), "JOB_EVENTS": "/dev/null"}
    argv = [sys.executable, "-I", "-B", "-m", "thingjobs.child", TARGET]

    with read_only(device.root):
        ended = subprocess.run(argv, env=environment, cwd=device.work, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(device.bucket.taken) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


# --- Files that the job asks for ------------------------------------------------------------------------------------


def test_files_are_sent_only_as_far_as_the_device_allows(device: Device) -> None:
    folder = device.root / "var"
    folder.mkdir()
    for name in ("a.log", "b.log", "c.key"):
        (folder / name).write_text(name)
    (folder / "link.log").symlink_to(folder / "c.key")
    device.allowed = [f"{folder}/*.log"]

    found = device.collect(paths=[f"{folder}/*"])

    files = {name: data for name, data in found.items() if name.startswith("files")}
    assert files == {f"files{folder}/a.log": b"a.log", f"files{folder}/b.log": b"b.log"}
    missing = found["missing.txt"].decode()
    assert missing == f"{folder}/link.log: it leads to a file that the device does not allow to collect\n"


@pytest.mark.parametrize("verb", ["check", "apply"])
@pytest.mark.parametrize("path", ["/etc/shadow", "{}/sub/a.log", "{}/../x.log", "a.log", "{}/a.key"])
def test_a_path_that_the_device_does_not_allow_is_refused(device: Device, path: str, verb: str) -> None:
    device.allowed = [f"{device.root}/*.log", "*"]

    code, said = device.run(verb, paths=[path.format(device.root)])

    assert (code, said.reject) == (1, True)
    assert device.bucket.taken == []


def test_no_path_is_allowed_unless_the_device_says_so(device: Device) -> None:
    code, said = device.run("check", paths=["/etc/os-release"])

    assert (code, said.reject) == (1, True)
    assert said.reason == ("this device does not allow to collect /etc/os-release: it is not among [handlers] collect")


def test_of_a_long_file_the_last_lines_are_sent(device: Device) -> None:
    path = device.root / "a.log"
    path.write_bytes(b"".join(b"%d %s\n" % (number, os.urandom(50).hex().encode()) for number in range(20_000)))
    device.allowed = [str(path)]

    found = device.collect(paths=[str(path)], max_bytes=300_000)[f"files{path}"]

    assert found.startswith(b"1")
    assert path.read_bytes().endswith(found)
    assert len(device.bucket.taken[0][2]) <= 300_000


def test_what_is_no_file_is_not_waited_for(device: Device) -> None:
    os.mkfifo(device.root / "a.log")
    device.allowed = [f"{device.root}/*.log"]

    found = device.collect(paths=[f"{device.root}/a.log", f"{device.root}/gone.log"])

    assert "a.log: it is no file" in found["missing.txt"].decode()
    assert "gone.log: No such file or directory" in found["missing.txt"].decode()


# --- Sending --------------------------------------------------------------------------------------------------------


def test_it_is_put_with_its_length_and_nothing_that_was_not_signed(device: Device) -> None:
    device.collect()

    [(path, headers, body)] = device.bucket.taken
    assert path == f"/bundle{SECRET}"
    assert headers["Content-Length"] == str(len(body))
    assert {"Content-Type", "Transfer-Encoding", "Authorization"}.isdisjoint(headers)


def test_an_expired_url_is_asked_for_anew(device: Device) -> None:
    device.bucket.replies = [(403, {})]
    with device.start() as child:
        while b'"refresh"' not in (device.root / "events").read_bytes():
            assert child.poll() is None
        device.write_job("apply", 2, {"url": f"{device.bucket.url}?fresh"})
        _, errors = child.communicate(timeout=60)

    assert (child.returncode, errors) == (0, "")
    assert [path for path, _, _ in device.bucket.taken] == [f"/bundle{SECRET}", "/bundle?fresh"]


def test_a_server_that_does_not_take_it_fails_the_job(device: Device) -> None:
    device.bucket.replies = [(404, {})]

    code, said = device.run()

    assert (code, said.code, said.reject) == (1, "fetch.failed", False)
    assert said.reason == f"cannot upload to {device.bucket.url}: there is no such file (404)"


@pytest.mark.parametrize("url", ["http://far.invalid/x?s3cr3t", "ftp://a/b?s3cr3t", "x"])
def test_a_url_that_would_show_it_to_others_is_refused(device: Device, url: str) -> None:
    code, said = device.run("check", url=url)

    assert (code, said.reject, said.code) == (1, True, "params.invalid")


@pytest.mark.parametrize("reply", [(500, {}), (503, {"Retry-After": "0"}), (429, {}), None])
def test_a_server_in_trouble_is_tried_again(bucket: Bucket, reply: tuple[int, dict[str, str]] | None) -> None:
    bucket.replies = [reply, reply]

    upload(bucket.url, b"data", rules=UNHURRIED if reply else PATIENT)

    assert [body for _, _, body in bucket.taken] == [b"data"] * 3


def failed(url: str, **more: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        upload(url, b"data", **{"rules": PATIENT, **more})
    assert "s3cr3t" not in repr((caught.value, caught.value.__cause__))
    return caught.value


def test_attempts_are_limited(bucket: Bucket) -> None:
    bucket.replies = [(500, {})] * 3

    assert failed(bucket.url + SECRET).reason.endswith("the server answered 500 (3 attempts)")
    assert len(bucket.taken) == 3


def test_a_fresh_url_that_is_refused_too_is_the_last(bucket: Bucket) -> None:
    bucket.replies = [(403, {}), (403, {})]

    error = failed(bucket.url, fresh_url=lambda: bucket.url + SECRET)

    assert "a presigned URL may have expired" in error.reason


def test_a_redirection_is_followed_with_all_of_the_body(bucket: Bucket) -> None:
    bucket.replies = [(307, {"Location": "/elsewhere"})]

    upload(bucket.url, b"data", rules=UNHURRIED)

    assert [(path, body) for path, _, body in bucket.taken] == [("/bundle", b"data"), ("/elsewhere", b"data")]


def test_a_redirection_that_would_change_the_method_is_not_followed(bucket: Bucket) -> None:
    bucket.replies = [(302, {"Location": "/elsewhere"})]

    assert failed(bucket.url).reason.endswith("the server answered 302")


def test_an_upload_can_be_cancelled(bucket: Bucket) -> None:
    assert failed(bucket.url + SECRET, cancelled=lambda: True).code == "cancelled"
    assert bucket.taken == []
