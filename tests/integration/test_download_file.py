"""The built-in `download-file`: a real program, a real web server, real files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import thingjobs_handlers
from thingjobs.handler import Failed
from thingjobs_handlers import steps
from thingjobs_handlers.aws_steps import AwsSteps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.handler import Context

PROGRAM = Path(thingjobs_handlers.__file__).with_name("download.py")
CONTENT = bytes(range(256)) * 4096
SECRET = "?X-Amz-Signature=s3cr3t"


class Web(ThreadingHTTPServer):
    """A web server on loopback that answers each path as a test says."""

    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, Callable[[Answer], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class Answer(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
        else:
            answer(self)

    def say(self, body: bytes, *, status: int = 200, length: int | None = -1, **headers: str) -> None:
        """Answer; `length` is what Content-Length says, None leaves it out, -1 is the truth."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.answers["/fw.bin"] = lambda answer: answer.say(CONTENT)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every download give up at once: how it tries again is tested where it is written."""
    monkeypatch.setitem(steps.DOWNLOAD_RULES, "attempts", 1)


@dataclass
class FakeContext:
    """Remembers the progress that the handler tells."""

    dir: Path
    told: list[tuple[float | None, str]] = field(default_factory=list)
    job_id: str = "job"
    execution: int = 1
    thing: str = "pump-7"
    verb: str = "apply"
    attempt: int = 1
    resumed: bool = False
    rebooted: bool = False
    dry_run: bool = False
    deadline: float | None = None
    cancelled: bool = False

    def progress(self, percent: float | None = None, message: str = "") -> None:
        self.told.append((percent, message))

    def details(self, **pairs: str) -> None:
        pass

    def log(self, text: str) -> None:
        pass


def download(folder: Path, url: str, path: Path | str, user: str | None = None) -> FakeContext:
    """Carry out a plan with a download as the second of two steps."""
    ctx = FakeContext(folder)
    common = {"user": user, "ignoreStepFailure": False, "allowStdErr": None, "final": False}
    plan = [
        {"name": "Wait", "kind": "run", "argv": ["/bin/true"], **common},
        {"name": "Get", "kind": "download-file", "argv": [url, str(path)], **common},
    ]
    AwsSteps().apply(cast("Context", ctx), {"includeStdOut": False, "steps": plan})
    return ctx


def refusal(folder: Path, url: str, path: Path | str, code: str = "fetch.failed", user: str | None = None) -> str:
    """Return why the download failed, having made sure that it gave no secret away."""
    with pytest.raises(Failed) as caught:
        download(folder, url, path, user)

    told = repr((caught.value.reason, caught.value.details))
    assert "s3cr3t" not in told
    assert caught.value.code == code
    return caught.value.reason.removeprefix('step 2 of 2 "Get" failed: ')


def leftovers(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if "thingjobs" in path.name)


def test_a_file_arrives_whole_with_an_ordinary_mode(web: Web, tmp_path: Path) -> None:
    target = tmp_path / "fw.bin"

    download(tmp_path, f"{web.url}/fw.bin{SECRET}", target)

    mask = os.umask(0)
    os.umask(mask)
    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    assert [path for path, _ in web.asked] == [f"/fw.bin{SECRET}"]
    assert leftovers(tmp_path) == []


def test_progress_is_told_within_the_share_of_the_step(web: Web, tmp_path: Path) -> None:
    ctx = download(tmp_path, f"{web.url}/fw.bin", tmp_path / "fw.bin")

    assert ctx.told[0] == (0, "step 1/2 Wait")
    assert ctx.told[1] == (50, "step 2/2 Get")
    assert ctx.told[2] == (50, "step 2/2 Get: 0.0 of 1.0 MiB")
    assert ctx.told[-1] == (100, "step 2/2 Get: 1.0 of 1.0 MiB")


def test_a_folder_takes_the_file_under_the_name_in_the_url(web: Web, tmp_path: Path) -> None:
    web.answers["/a/fw%20v1.bin"] = lambda answer: answer.say(b"new")

    download(tmp_path, f"{web.url}/a/fw%20v1.bin{SECRET}", tmp_path)

    assert (tmp_path / "fw v1.bin").read_bytes() == b"new"


@pytest.mark.parametrize("path", ["", "/", "/..", "/a/%2e%2e"])
def test_a_url_without_a_name_needs_a_full_path(web: Web, tmp_path: Path, path: str) -> None:
    assert "has no file name at its end" in refusal(tmp_path, f"{web.url}{path}", tmp_path)
    assert web.asked == []


def test_a_file_that_is_replaced_hands_on_its_mode_and_owner(web: Web, tmp_path: Path) -> None:
    target = tmp_path / "tool"
    target.write_bytes(b"old")
    target.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(target, 12345, 23456)
    before = target.stat()

    download(tmp_path, f"{web.url}/fw.bin", target)

    after = target.stat()
    assert target.read_bytes() == CONTENT
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_what_was_compressed_where_it_is_stored_stays_compressed(web: Web, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    web.answers["/log.gz"] = lambda answer: answer.say(packed, Content_Encoding="gzip")

    download(tmp_path, f"{web.url}/log.gz", tmp_path / "log.gz")

    assert (tmp_path / "log.gz").read_bytes() == packed
    assert web.asked[0][1]["Accept-Encoding"] == "identity"


def test_a_file_of_unknown_length_arrives_too(web: Web, tmp_path: Path) -> None:
    web.answers["/stream"] = lambda answer: answer.say(CONTENT, length=None)

    ctx = download(tmp_path, f"{web.url}/stream", tmp_path / "stream")

    assert (tmp_path / "stream").read_bytes() == CONTENT
    assert (None, "step 2/2 Get: 0.0 MiB") in ctx.told
    assert ctx.told[-1] == (100, "step 2/2 Get: 1.0 of 1.0 MiB")


def test_an_empty_file_is_a_file(web: Web, tmp_path: Path) -> None:
    web.answers["/empty"] = lambda answer: answer.say(b"")

    download(tmp_path, f"{web.url}/empty", tmp_path / "empty")

    assert (tmp_path / "empty").read_bytes() == b""


def test_a_redirection_is_followed(web: Web, tmp_path: Path) -> None:
    web.answers["/old"] = lambda answer: answer.say(b"", status=302, Location="/fw.bin")

    download(tmp_path, f"{web.url}/old", tmp_path / "fw.bin")

    assert (tmp_path / "fw.bin").read_bytes() == CONTENT


def test_the_proxy_of_the_environment_is_used(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    web.answers["http://far.invalid/fw.bin"] = lambda answer: answer.say(b"by proxy")

    download(tmp_path, "http://far.invalid/fw.bin", tmp_path / "fw.bin")

    assert (tmp_path / "fw.bin").read_bytes() == b"by proxy"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "the server refuses it (403); a presigned URL may have expired"),
        (404, "there is no such file (404)"),
        (500, "the server answered 500"),
        (204, "the server answered 204"),
        (401, "the server wants credentials that the URL does not bring (401)"),
    ],
)
def test_anything_but_200_fails_and_leaves_the_old_file(web: Web, tmp_path: Path, status: int, reason: str) -> None:
    target = tmp_path / "fw.bin"
    target.write_bytes(b"old")
    web.answers["/gone"] = lambda answer: answer.say(b"", status=status)

    url = f"{web.url}/gone"
    assert refusal(tmp_path, url + SECRET, target) == f"cannot fetch {url}: {reason}"
    assert target.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_body_that_ends_early_fails_and_leaves_the_old_file(web: Web, tmp_path: Path) -> None:
    target = tmp_path / "fw.bin"
    target.write_bytes(b"old")
    bodies = iter([b"half", b""])
    web.answers["/cut"] = lambda answer: answer.say(next(bodies), length=8)

    url = f"{web.url}/cut"
    reason = refusal(tmp_path, url + SECRET, target)

    assert reason == f"cannot fetch {url}: the connection ended after 0 of 8 bytes"
    assert target.read_bytes() == b"old"


def test_a_url_that_is_held_to_a_digest_names_no_file_in_a_folder(web: Web, tmp_path: Path) -> None:
    """Such a URL stands beside what was signed: whoever wrote it could have the file overwrite any other there."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    folder = tmp_path / "app"
    folder.mkdir()

    reason = refusal(tmp_path, f"{web.url}/fw.bin{SECRET}#sha256={digest}", folder)

    assert reason == f"nobody signed the name that the URL has for a file in {folder}: give the path a file name"
    assert leftovers(folder) == []
    download(tmp_path, f"{web.url}/fw.bin{SECRET}#sha256={digest}", folder / "fw")
    assert (folder / "fw").read_bytes() == CONTENT


def test_what_came_of_a_file_is_gone_on_with_by_the_next_try(web: Web, tmp_path: Path) -> None:
    target = tmp_path / "fw.bin"
    replies = iter([(b"half", 200), (b"", 503)])
    web.answers["/cut"] = lambda answer: say(answer, *next(replies))

    def say(answer: Answer, body: bytes, status: int) -> None:
        answer.say(body, status=status, length=8, ETag='"1"')

    refusal(tmp_path, f"{web.url}/cut{SECRET}", target)
    assert leftovers(tmp_path) == [".json", ".part"]

    web.answers["/cut"] = lambda answer: answer.say(b"done", status=206, Content_Range="bytes 4-7/8", ETag='"1"')
    download(tmp_path, f"{web.url}/cut?another", target)

    assert target.read_bytes() == b"halfdone"
    assert web.asked[-1][1]["Range"] == "bytes=4-"
    assert leftovers(tmp_path) == []


def test_a_body_of_unknown_length_that_breaks_off_fails_too(web: Web, tmp_path: Path) -> None:
    web.answers["/cut"] = lambda answer: answer.say(b"8\r\nhalf", length=None, Transfer_Encoding="chunked")

    reason = refusal(tmp_path, f"{web.url}/cut{SECRET}", tmp_path / "cut")

    assert re.fullmatch(f"cannot fetch {web.url}/cut: the connection ended after [04] of \\? bytes", reason)


def test_a_file_larger_than_the_disk_is_not_even_begun(web: Web, tmp_path: Path) -> None:
    web.answers["/huge"] = lambda answer: answer.say(b"x", length=2**62)

    reason = refusal(tmp_path, f"{web.url}/huge{SECRET}", tmp_path / "huge", code="fetch.space")

    assert reason == f"there is no space in {tmp_path} for {2**62} bytes"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("limit", "status", "reason"),
    [
        ("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", 20, "cannot save {}: File too large"),
        ("os.fsync = lambda _: (_ for _ in ()).throw(OSError(28, 'full'))", 21, "there is no space left for {}"),
    ],
)
def test_a_file_that_cannot_be_written_to_its_end_is_told_with_the_cause(
    web: Web, tmp_path: Path, limit: str, status: int, reason: str
) -> None:
    target = tmp_path / "fw.bin"
    program = f"import os, runpy; {limit}; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    asked = json.dumps({"url": f"{web.url}/fw.bin{SECRET}", "path": str(target), "rules": steps.DOWNLOAD_RULES})

    ended = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (status, reason.format(target) + "\n")
    assert leftovers(tmp_path) == []
    assert not target.exists()


def test_nobody_listening_is_told_with_the_cause(tmp_path: Path, web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    url = f"http://user:s3cr3t@127.0.0.1:{port}/a"
    assert refusal(tmp_path, url + SECRET, tmp_path / "a") == (
        f"cannot fetch http://127.0.0.1:{port}/a: Connection refused"
    )


def test_a_server_that_does_not_speak_tls_is_told_with_the_cause(tmp_path: Path, web: Web) -> None:
    url = web.url.replace("http:", "https:") + "/fw.bin"

    assert re.match(f"cannot fetch {url}: .*SSL", refusal(tmp_path, url + SECRET, tmp_path / "a"))


def test_an_endless_redirection_ends(web: Web, tmp_path: Path) -> None:
    web.answers["/loop"] = lambda answer: answer.say(b"", status=302, Location=f"/loop{SECRET}")

    assert refusal(tmp_path, f"{web.url}/loop", tmp_path / "a").endswith("it is redirected without end")


@pytest.mark.parametrize("location", ["http://[/x", "file:///etc/passwd", "ftp://a/b"])
def test_a_redirection_to_something_else_is_not_followed(web: Web, tmp_path: Path, location: str) -> None:
    web.answers["/odd"] = lambda answer: answer.say(b"", status=302, Location=location)

    assert refusal(tmp_path, f"{web.url}/odd", tmp_path / "a").endswith("cannot be used")


def test_a_folder_that_is_missing_is_told_before_anything_is_asked(web: Web, tmp_path: Path) -> None:
    target = tmp_path / "no" / "fw.bin"

    assert refusal(tmp_path, f"{web.url}/fw.bin", target) == (
        f"cannot save {target}: there is no folder {target.parent}"
    )
    assert web.asked == []


def test_what_is_no_regular_file_is_never_replaced(web: Web, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert refusal(tmp_path, f"{web.url}/fw.bin", pipe) == f"cannot save {pipe}: it is no regular file"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(web: Web, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "link").symlink_to("other")

    download(tmp_path, f"{web.url}/fw.bin", tmp_path / "link")

    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "link").read_bytes() == CONTENT


def test_a_name_that_the_disk_cannot_hold_is_told(web: Web, tmp_path: Path) -> None:
    assert "File name too long" in refusal(tmp_path, f"{web.url}/fw.bin", tmp_path / ("n" * 300))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_what_a_download_that_was_ended_left_is_cleared_by_the_next(
    web: Web, tmp_path: Path, number: signal.Signals, status: int, eventually: Callable[..., Any]
) -> None:
    def begun() -> bool:
        return any(part.stat().st_size == 4 for part in tmp_path.glob(".thingjobs-*.part"))

    assert cut_while_downloading(web, tmp_path, number, lambda: eventually(begun)) == status
    assert leftovers(tmp_path) == [".json", ".part"]

    download(tmp_path, f"{web.url}/fw.bin", tmp_path / "fw.bin")

    assert (tmp_path / "fw.bin").read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def cut_while_downloading(web: Web, folder: Path, number: signal.Signals, until_begun: Callable[[], Any]) -> int:
    """Send a signal to a download into `fw.bin` that has begun to write; return how it ended."""
    over = threading.Event()

    def hang(answer: Answer) -> None:
        answer.say(b"half", length=8)
        over.wait(20)

    web.answers["/slow"] = hang
    argv = [sys.executable, "-I", str(PROGRAM)]
    asked = json.dumps({"url": f"{web.url}/slow", "path": str(folder / "fw.bin"), "rules": steps.DOWNLOAD_RULES})
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(asked)
        process.stdin.close()
        try:
            assert process.stdout.readline() == '{"progress": 0.0, "message": "0.0 of 0.0 MiB"}\n'
            until_begun()
            process.send_signal(number)
            return process.wait(20)
        finally:
            process.kill()
            over.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_download_for_somebody_else_is_done_by_somebody_else(web: Web, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run([sys.executable, "-I", str(PROGRAM)], user="nobody", stdin=subprocess.DEVNULL, check=False)
    except PermissionError:
        pytest.skip("nobody may not run this Python")
    with tempfile.TemporaryDirectory() as folder:
        refused = refusal(tmp_path, f"{web.url}/fw.bin", f"{folder}/fw.bin", user="nobody")
        Path(folder).chmod(0o777)
        download(tmp_path, f"{web.url}/fw.bin", f"{folder}/fw.bin", user="nobody")
        owner = Path(folder, "fw.bin").stat().st_uid

    assert "Permission denied" in refused
    assert owner == nobody.pw_uid


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ({}, {"digest_required": False, "allow_http": True}),
        (
            {"maxKibPerSecond": 64, "digestRequired": True, "later": 1},
            {"digest_required": True, "allow_http": True, "max_kib_s": 64},
        ),
    ],
)
def test_the_local_policy_rules_downloads_of_steps_too(policy: dict[str, Any], rules: dict[str, Any]) -> None:
    step = steps.Step("Get", "download-file", ("https://a/b", "/c"), None, ignore_failure=False, stderr_limit=None)

    [program] = steps.programs_of(step, policy)

    assert json.loads(program.stdin)["rules"] == {**rules, "attempts": 1}


def test_the_url_is_not_to_be_seen_in_the_list_of_processes(web: Web, tmp_path: Path) -> None:
    seen: list[str] = []

    def look(answer: Answer) -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_text()
            except OSError:
                continue
            if "thingjobs_handlers.download" in words:
                seen.append(words)
        answer.say(b"x")

    web.answers["/look"] = look
    download(tmp_path, f"{web.url}/look{SECRET}", tmp_path / "look")

    assert seen
    assert not any("s3cr3t" in words for words in seen)
