"""Fetching files from real servers that misbehave, over real sockets, onto real disks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.fetch import FetchError, Rules, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Pki

    Fault = Callable[["Answer"], None]

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SECRET = "?X-Amz-Signature=s3cr3t"
PATIENCE_SECONDS = 60
PATIENT = {"first_pause_s": 0.01, "longest_pause_s": 0.01, "attempts": 3}
RULES = Rules(stall_s=10, **PATIENT)  # type: ignore[arg-type]


class Store(ThreadingHTTPServer):
    """A server of one file, as good as they come, but for the faults of the next requests.

    Attributes:
        asked: path and headers of each request.
        over: set when the test is; what hangs waits for it.
    """

    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = CONTENT
        self.headers = {"ETag": '"v1"'}
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/fw.bin"

    @property
    def ranges(self) -> list[str | None]:
        """What range each request asked for."""
        return [headers.get("Range") for _, headers in self.asked]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


class Answer(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        fault = self.server.faults.pop(0) if self.server.faults else serve
        fault(self)

    def do_CONNECT(self) -> None:
        """Be a proxy."""
        self.server.asked.append((self.path, dict(self.headers)))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            thread = threading.Thread(target=pump, args=(far, self.connection))
            thread.start()
            pump(self.connection, far)
            thread.join()

    def begin(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in (self.server.headers | headers).items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(answer: Answer, upto: int | None = None) -> None:
    """Answer as RFC 9110 wants it; `upto`: only so many bytes."""
    content, wanted = answer.server.content, answer.headers.get("Range", "")
    condition = answer.headers.get("If-Range")
    etag, modified = answer.server.headers.get("ETag"), answer.server.headers.get("Last-Modified")
    first = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
    if first and condition not in (None, etag, modified):
        first = 0
    if first >= len(content) and first:
        answer.begin(416, 0, Content_Range=f"bytes */{len(content)}")
        return
    if first:
        answer.begin(206, len(content) - first, Content_Range=f"bytes {first}-{len(content) - 1}/{len(content)}")
    else:
        answer.begin(200, len(content))
    answer.wfile.write(content[first:][:upto])


def cut(count: int) -> Fault:
    """Break the connection after so many bytes of the body."""
    return lambda answer: serve(answer, count)


def say(status: int, body: bytes = b"", **headers: str) -> Fault:
    def answer_so(answer: Answer) -> None:
        answer.begin(status, len(body), **headers)
        answer.wfile.write(body)

    return answer_so


def deaf_to_ranges(answer: Answer) -> None:
    answer.begin(200, len(answer.server.content))
    answer.wfile.write(answer.server.content)


def unmeasured(answer: Answer) -> None:
    answer.begin(200, None)
    answer.wfile.write(answer.server.content)


def hang(answer: Answer) -> None:
    answer.server.over.wait(30)


def begin_and_hang(answer: Answer) -> None:
    serve(answer, 1000)
    answer.server.over.wait(30)


def flood(answer: Answer) -> None:
    """Send without end or length."""
    answer.begin(200, None)
    for _ in range(512):
        answer.wfile.write(bytes(65536))


@contextlib.contextmanager
def running(server: Store) -> Iterator[Store]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def store() -> Iterator[Store]:
    with running(Store()) as server:
        yield server


@pytest.fixture
def secure_store(pki: Pki) -> Iterator[Store]:
    server = Store()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    with running(server):
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "fw.bin"


def leftovers(target: Path) -> list[str]:
    return sorted(path.suffix for path in target.parent.iterdir() if path.name.startswith(".thingjobs-"))


def note_of(target: Path) -> Path:
    [path] = target.parent.glob(".thingjobs-*.json")
    return path


def part_of(target: Path) -> Path:
    [path] = target.parent.glob(".thingjobs-*.part")
    return path


def refusal(url: str, target: Path, **more: Any) -> FetchError:
    """Return why it was not fetched, having made sure that it gave no secret away."""
    with pytest.raises(FetchError) as caught:
        fetch(url, target, **{"digest": DIGEST, "rules": RULES, **more})
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "s3cr3t" not in shown
    assert "s3cr3t" not in "".join(path.read_text() for path in target.parent.glob(".thingjobs-*.json"))
    return caught.value


def left_half(store: Store, target: Path, count: int = 1000, **more: Any) -> None:
    """Let a call fail that got so many bytes."""
    store.faults = [cut(count), cut(0)]
    error = refusal(store.url, target, **{"rules": Rules(attempts=1, digest_required=False, first_pause_s=0), **more})
    assert error.resumable
    assert part_of(target).stat().st_size == count
    store.asked.clear()


# --- A file that arrives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("form", ["{0}:{1}", "{1}", "{0}:{2}"])
def test_a_file_arrives_if_it_hashes_to_what_was_promised(
    store: Store, target: Path, algorithm: str, form: str
) -> None:
    value = hashlib.new(algorithm, CONTENT).hexdigest()

    assert fetch(store.url, target, digest=form.format(algorithm, value, value.upper()), rules=RULES) == target

    assert target.read_bytes() == CONTENT
    assert store.asked[0][1]["Accept-Encoding"] == "identity"
    assert leftovers(target) == []


def test_progress_is_told_from_nothing_to_all(store: Store, target: Path) -> None:
    told: list[tuple[int, int | None]] = []

    fetch(store.url, target, digest=DIGEST, rules=RULES, report=lambda *said: told.append(said))

    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_already_is_not_fetched_again(store: Store, target: Path) -> None:
    target.write_bytes(CONTENT)
    before = target.stat()

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert store.asked == []
    assert target.stat() == before


def test_another_file_of_that_name_is_replaced_and_hands_on_its_mode(store: Store, target: Path) -> None:
    target.write_bytes(b"old")
    target.chmod(0o4750)

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o750


def test_what_has_come_is_for_nobody_else_to_read(store: Store, target: Path) -> None:
    left_half(store, target)

    assert stat.S_IMODE(part_of(target).stat().st_mode) == 0o600
    assert stat.S_IMODE(note_of(target).stat().st_mode) == 0o600


# --- Going on -------------------------------------------------------------------------------------------------------


def test_a_broken_connection_is_gone_on_with_where_it_broke(store: Store, target: Path) -> None:
    store.faults = [cut(100_000), cut(200_000)]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None, "bytes=100000-", "bytes=300000-"]
    assert store.asked[1][1]["If-Range"] == '"v1"'


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(store: Store, target: Path) -> None:
    left_half(store, target)

    fetch(store.url + SECRET, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == ["bytes=1000-"]
    assert leftovers(target) == []


def test_a_killed_process_is_gone_on_after_by_the_next(
    store: Store, target: Path, eventually: Callable[..., Any]
) -> None:
    store.faults = [begin_and_hang]
    program = f"from thingjobs.fetch import *; fetch({store.url!r}, {str(target)!r}, digest={DIGEST!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        eventually(lambda: leftovers(target) and part_of(target).stat().st_size == 1000)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize(("synced", "asked"), [(0, None), (600, "bytes=600-"), (5000, "bytes=1000-")])
def test_after_a_reboot_only_what_was_sure_to_be_on_the_disk_counts(
    store: Store, target: Path, synced: int, asked: str | None
) -> None:
    left_half(store, target)
    note_of(target).write_text(json.dumps(json.loads(note_of(target).read_text()) | {"boot": "old", "synced": synced}))

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [asked]


def test_what_is_on_the_disk_is_noted_on_the_way(store: Store, target: Path) -> None:
    store.content = bytes(1 << 20) * 80
    store.faults = [cut(75 << 20), cut(0)]

    refusal(store.url, target, rules=Rules(attempts=1, first_pause_s=0))

    assert json.loads(note_of(target).read_text())["synced"] >= 32 << 20


def test_what_was_never_sure_to_be_on_the_disk_is_not_called_so_later(store: Store, target: Path) -> None:
    left_half(store, target, 1000)
    store.faults = [cut(500), cut(0)]

    refusal(store.url, target, rules=Rules(attempts=1, first_pause_s=0))

    assert part_of(target).stat().st_size == 1500
    assert json.loads(note_of(target).read_text())["synced"] == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"format": 2}', b"\xff"])
def test_a_note_that_cannot_be_read_means_to_start_over(store: Store, target: Path, damage: bytes) -> None:
    left_half(store, target)
    note_of(target).write_bytes(damage)

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None]


def test_what_came_for_another_digest_is_not_gone_on_with(store: Store, target: Path) -> None:
    left_half(store, target, digest="0" * 64)

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert store.ranges == [None]


def test_what_came_from_another_place_is_not_gone_on_with(store: Store, target: Path) -> None:
    left_half(store, target)

    fetch(store.url + "2", target, digest=DIGEST, rules=RULES)

    assert store.ranges == [None]


def test_a_server_that_knows_no_ranges_is_asked_for_all_of_it(store: Store, target: Path) -> None:
    store.faults = [cut(1000), deaf_to_ranges]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None, "bytes=1000-"]


def test_a_file_that_changed_on_the_server_is_started_over(store: Store, target: Path) -> None:
    left_half(store, target)
    store.content = b"new" + CONTENT
    store.headers = {"ETag": '"v2"'}

    fetch(store.url, target, digest=hashlib.sha256(store.content).hexdigest(), rules=RULES)

    assert target.read_bytes() == store.content


@pytest.mark.parametrize(
    "wrong",
    [
        {"Content_Range": f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", "ETag": '"v2"'},
        {"Content_Range": f"bytes 1000-{len(CONTENT)}/{len(CONTENT) + 1}"},
        {"Content_Range": f"bytes 999-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content_Range": f"bytes 1000-{len(CONTENT)}/{len(CONTENT)}"},
        {"Content_Range": "bytes 1000-1999/*"},
        {"Content_Range": "lines 1000-1999/2000"},
        {},
    ],
)
def test_a_part_that_does_not_fit_is_thrown_away_and_all_is_asked_for(
    store: Store, target: Path, wrong: dict[str, str]
) -> None:
    store.faults = [cut(1000), say(206, CONTENT[1000:], **wrong)]

    fetch(store.url, target, rules=Rules(digest_required=False, **PATIENT))  # type: ignore[arg-type]

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None, "bytes=1000-", None]


def test_a_part_nobody_asked_for_is_no_file(store: Store, target: Path) -> None:
    store.faults = [say(206, CONTENT[:1000], Content_Range=f"bytes 0-999/{len(CONTENT)}")]

    assert refusal(store.url, target).reason == f"cannot fetch {store.url}: the server answered 206"


@pytest.mark.parametrize(("said", "asked"), [(1000, 2), (999, 3)])
def test_a_range_that_does_not_exist_ends_a_file_of_unknown_length_or_starts_it_over(
    store: Store, target: Path, said: int, asked: int
) -> None:
    content = CONTENT[:1000]

    def chunk_and_break(answer: Answer) -> None:
        answer.begin(200, None, Transfer_Encoding="chunked")
        answer.wfile.write(b"3e8\r\n" + content + b"\r\n")

    store.faults = [chunk_and_break, say(416, Content_Range=f"bytes */{said}"), say(200, content)]

    fetch(store.url, target, digest=hashlib.sha256(content).hexdigest(), rules=RULES)

    assert target.read_bytes() == content
    assert len(store.asked) == asked


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ({"ETag": 'W/"v1"'}, None),
        ({"ETag": 'W/"v1"', "Last-Modified": "Mon, 05 Oct 2015 12:00:00 GMT"}, None),
        ({"Last-Modified": "Mon, 05 Oct 2015 12:00:00 GMT"}, "Mon, 05 Oct 2015 12:00:00 GMT"),
        ({"Last-Modified": "Mon, 05 Oct 2099 12:00:00 GMT"}, None),
        ({"Last-Modified": "yesterday"}, None),
        ({}, None),
    ],
)
def test_only_what_is_sure_to_tell_versions_apart_is_a_condition(
    store: Store, target: Path, headers: dict[str, str], condition: str | None
) -> None:
    store.headers = headers
    store.faults = [cut(1000), cut(0)]

    fetch(store.url, target, digest=DIGEST, rules=RULES)
    with_digest = [(asked.get("Range"), asked.get("If-Range")) for _, asked in store.asked]
    store.asked.clear()
    store.faults = [cut(1000)]
    fetch(store.url, target, rules=Rules(digest_required=False, **PATIENT))  # type: ignore[arg-type]
    without = [(asked.get("Range"), asked.get("If-Range")) for _, asked in store.asked]

    # A digest would find a mixture of two versions out; nothing else would.
    assert with_digest == [(None, None), ("bytes=1000-", condition), ("bytes=1000-", condition)]
    assert without == [(None, None), ("bytes=1000-", condition) if condition else (None, None)]
    assert target.read_bytes() == CONTENT


def test_bytes_that_went_bad_on_the_disk_cost_one_more_download_not_the_job(store: Store, target: Path) -> None:
    left_half(store, target)
    part_of(target).write_bytes(bytes(1000))

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == ["bytes=1000-", None]


# --- What is not accepted -------------------------------------------------------------------------------------------


def test_a_file_that_is_not_what_was_promised_leaves_the_old_one_and_nothing_else(store: Store, target: Path) -> None:
    target.write_bytes(b"old")

    error = refusal(store.url + SECRET, target, digest="0" * 64)

    assert (error.code, error.resumable) == ("fetch.digest", False)
    assert error.reason.startswith(f"{store.url} is not the file that was promised: it hashes to sha256:{DIGEST}")
    assert target.read_bytes() == b"old"
    assert leftovers(target) == []
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "digest", ["", "md5:" + "0" * 32, "0" * 40, "sha512:" + DIGEST, "sha256:" + "g" * 64, "sha256:"]
)
def test_a_download_without_a_digest_that_holds_is_not_begun(store: Store, target: Path, digest: str) -> None:
    assert refusal(store.url, target, digest=digest).code == "fetch.digest"
    assert store.asked == []


@pytest.mark.parametrize(("size", "said"), [(len(CONTENT) + 1, "has 1048576 bytes"), (10, "has 1048576 bytes")])
def test_a_file_of_another_size_is_refused_before_it_is_taken(store: Store, target: Path, size: int, said: str) -> None:
    assert said in refusal(store.url, target, size=size).reason
    assert leftovers(target) == []


def test_a_file_that_is_too_long_is_refused_when_its_length_is_known_or_passed(store: Store, target: Path) -> None:
    known = refusal(store.url, target, max_bytes=len(CONTENT) - 1)
    store.faults = [flood]
    passed = refusal(store.url, target, max_bytes=1 << 20)

    assert known.reason == passed.reason.replace("1048576", "1048575")
    assert "it is longer than the 1048575 bytes that are allowed" in known.reason
    assert leftovers(target) == []


def test_a_file_of_unknown_length_must_end_where_it_was_said_to(store: Store, target: Path) -> None:
    store.faults = [unmeasured, unmeasured]

    fetch(store.url, target, digest=DIGEST, size=len(CONTENT), rules=RULES)
    target.unlink()

    assert (
        "it has 1048576 bytes where 1048577 were announced" in refusal(store.url, target, size=len(CONTENT) + 1).reason
    )


def test_a_server_that_promises_more_than_it_has_is_not_believed(store: Store, target: Path) -> None:
    def lie(answer: Answer) -> None:
        answer.begin(200, len(CONTENT) + 5)
        answer.wfile.write(CONTENT)

    store.faults = [lie] * 3

    # The true length is told by the second answer.
    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT


def test_a_server_that_promises_less_than_it_has_is_found_out_by_the_digest(store: Store, target: Path) -> None:
    store.faults = [say(200, CONTENT[:-5])]

    assert refusal(store.url, target).code == "fetch.digest"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fw.bin",
        "ftp://a/b",
        "file:///etc/passwd",
        "https://",
        "https://a b/c",
        "https://a/\nb",
        "http://[/",
        "https://a:b/",
    ],
)
def test_what_is_no_url_of_a_web_server_is_refused(target: Path, url: str) -> None:
    assert refusal(url, target).code == "fetch.failed"


def test_plain_http_from_afar_needs_a_digest_or_leave(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", store.url.removesuffix("/fw.bin"))
    far, lax = "http://far.invalid/fw.bin", Rules(digest_required=False, attempts=1)

    assert "plain http needs a digest" in refusal(far, target, digest="", rules=lax).reason
    assert store.asked == []
    fetch(far, target, digest=DIGEST, rules=RULES)
    fetch(far, target, rules=Rules(digest_required=False, allow_http=True))
    assert [path for path, _ in store.asked] == [far, far]


# --- Space ----------------------------------------------------------------------------------------------------------


def test_a_file_larger_than_the_disk_is_not_even_begun(store: Store, target: Path) -> None:
    def huge(answer: Answer) -> None:
        answer.begin(200, 2**62)

    store.faults = [huge]

    error = refusal(store.url, target)

    assert (error.code, error.reason) == ("fetch.space", f"there is no space in {target.parent} for {2**62} bytes")
    assert leftovers(target) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("NOT TESTED: there is no mount on this machine")
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: cannot mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_on_the_way_is_told_and_emptied_again(store: Store, small_disk: Path) -> None:
    target = small_disk / "fw.bin"
    target.write_bytes(b"old")
    store.faults = [flood]

    error = refusal(store.url, target)

    assert (error.code, error.reason) == ("fetch.space", f"there is no space left for {target}")
    assert (leftovers(target), target.read_bytes()) == ([], b"old")


def test_a_reserve_is_left_for_others(store: Store, small_disk: Path) -> None:
    store.content = bytes(3 * (1 << 20) + 1)

    assert refusal(store.url, small_disk / "fw.bin").code == "fetch.space"


def test_a_resumed_file_needs_space_only_for_its_rest(store: Store, small_disk: Path) -> None:
    store.content = bytes(2_500_000)
    target = small_disk / "fw.bin"
    left_half(store, target, 1_500_000, digest=hashlib.sha256(store.content).hexdigest())

    fetch(store.url, target, digest=hashlib.sha256(store.content).hexdigest(), rules=RULES)

    assert store.ranges == ["bytes=1500000-"]


def test_a_limit_on_file_sizes_is_told_as_the_system_does(store: Store, target: Path) -> None:
    program = (
        "import resource, sys; from thingjobs.fetch import *; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n"
        f"try: fetch({store.url!r}, {str(target)!r}, digest={DIGEST!r})\nexcept FetchError as e: print(e.code, e)"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ended.stdout == f"fetch.failed cannot save {target}: File too large\n"
    assert leftovers(target) == []


# --- Trying again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [hang, begin_and_hang])
def test_a_server_that_falls_silent_is_asked_again(store: Store, target: Path, fault: Fault) -> None:
    store.faults = [fault]

    fetch(store.url, target, digest=DIGEST, rules=Rules(stall_s=0.4, **PATIENT))  # type: ignore[arg-type]

    assert target.read_bytes() == CONTENT
    assert len(store.asked) == 2


def test_slow_is_not_silent(store: Store, target: Path) -> None:
    store.content = CONTENT[:6]

    def drip(answer: Answer) -> None:
        answer.begin(200, 6)
        for byte in range(6):
            answer.wfile.write(CONTENT[byte : byte + 1])
            answer.server.over.wait(0.2)

    store.faults = [drip]

    fetch(store.url, target, digest=hashlib.sha256(CONTENT[:6]).hexdigest(), rules=Rules(stall_s=0.8, **PATIENT))  # type: ignore[arg-type]

    assert len(store.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_server_in_trouble_is_asked_again(store: Store, target: Path, status: int) -> None:
    store.faults = [say(status), say(status)]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert len(store.asked) == 3


def test_attempts_without_a_byte_are_limited_and_bytes_make_up_for_them(store: Store, target: Path) -> None:
    store.faults = [cut(100), cut(0), cut(0), cut(100), cut(0), cut(0), cut(0)]

    error = refusal(store.url + SECRET, target)

    assert error.reason == f"cannot fetch {store.url}: the connection ended after 200 of 1048576 bytes (3 attempts)"
    assert error.resumable
    assert len(store.asked) == 7


def test_bytes_that_came_before_are_no_progress(store: Store, target: Path) -> None:
    store.headers = {}
    store.faults = [cut(1000)] * 9

    refusal(store.url, target, digest="", rules=Rules(digest_required=False, **PATIENT))  # type: ignore[arg-type]

    assert len(store.asked) == 4


def test_a_server_says_how_long_to_wait(store: Store, target: Path) -> None:
    store.faults = [say(503, Retry_After="1"), say(429, Retry_After="Mon, 05 Oct 2015 12:00:00 GMT")]
    began = time.monotonic()

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "the server answered 400"),
        (401, "the server wants credentials that the URL does not bring (401)"),
        (403, "the server refuses it (403); a presigned URL may have expired"),
        (404, "there is no such file (404)"),
        (204, "the server answered 204"),
    ],
)
def test_a_refusal_is_final(store: Store, target: Path, status: int, reason: str) -> None:
    store.faults = [say(status)]

    error = refusal(store.url + SECRET, target)

    assert (error.code, error.reason) == ("fetch.failed", f"cannot fetch {store.url}: {reason}")
    assert len(store.asked) == 1
    assert leftovers(target) == []


def test_nobody_listening_is_told_with_the_cause(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = refusal(f"http://user:s3cr3t@127.0.0.1:{port}/a{SECRET}", target, rules=Rules(attempts=1))

    assert error.reason == f"cannot fetch http://127.0.0.1:{port}/a: Connection refused"


# --- Presigned URLs -------------------------------------------------------------------------------------------------


EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@pytest.mark.parametrize(("status", "body"), [(403, b""), (403, EXPIRED), (400, EXPIRED), (400, b"ExpiredToken")])
def test_an_expired_url_is_replaced_by_a_fresh_one_and_gone_on_with(
    store: Store, target: Path, status: int, body: bytes
) -> None:
    store.faults = [cut(1000), say(status, body)]
    fresh = iter([f"{store.url}?fresh"])

    fetch(store.url + SECRET, target, digest=DIGEST, rules=RULES, fresh_url=lambda: next(fresh))

    assert [path for path, _ in store.asked] == [f"/fw.bin{SECRET}", f"/fw.bin{SECRET}", "/fw.bin?fresh"]
    assert store.ranges == [None, "bytes=1000-", "bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_fresh_url_is_asked_for_once_unless_it_brought_something(store: Store, target: Path) -> None:
    store.faults = [say(403), cut(1000), say(403), say(403)]
    fresh = iter([f"{store.url}{SECRET}1", f"{store.url}{SECRET}2"])

    error = refusal(store.url, target, fresh_url=lambda: next(fresh))

    assert "a presigned URL may have expired" in error.reason
    assert list(fresh) == []
    assert error.resumable


def test_a_fresh_url_is_held_to_the_same_rules(store: Store, target: Path) -> None:
    store.faults = [say(403)]

    error = refusal(store.url, target, fresh_url=lambda: "ftp://far.invalid/x?s3cr3t")

    assert "it is no URL" in error.reason


def test_what_goes_wrong_in_getting_a_fresh_url_is_the_callers_to_know(store: Store, target: Path) -> None:
    store.faults = [say(403)]

    def fail() -> str:
        raise LookupError("the agent gave none")

    with pytest.raises(LookupError, match="gave none"):
        fetch(store.url, target, digest=DIGEST, rules=RULES, fresh_url=fail)


# --- Redirections, TLS, proxies -------------------------------------------------------------------------------------


def test_a_redirection_is_followed_with_the_range(store: Store, target: Path) -> None:
    left_half(store, target)
    store.faults = [say(302, Location="/elsewhere")]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert store.ranges == ["bytes=1000-", "bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_redirection_with_an_endless_body_is_followed_without_reading_it(store: Store, target: Path) -> None:
    def redirect_and_flood(answer: Answer) -> None:
        answer.begin(302, None, Location="/elsewhere")
        while not answer.server.over.is_set():
            answer.wfile.write(bytes(65536))

    store.faults = [redirect_and_flood]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT


def test_an_endless_redirection_ends(store: Store, target: Path) -> None:
    store.faults = [say(302, Location=f"/loop{SECRET}")] * 9

    assert refusal(store.url, target).reason.endswith("it is redirected without end")
    assert len(store.asked) == 6


@pytest.mark.parametrize("location", ["http://[/x", "file:///etc/passwd", "ftp://a/b", "http://a:b/c"])
def test_a_redirection_to_something_else_is_not_followed(store: Store, target: Path, location: str) -> None:
    store.faults = [say(302, Location=location)]

    assert refusal(store.url, target).reason.endswith("cannot be used")


def test_a_redirection_from_https_to_http_is_refused_whatever_the_digest(
    store: Store, secure_store: Store, target: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))
    secure_store.faults = [say(302, Location=store.url)]

    assert refusal(secure_store.url, target).reason.endswith("it is redirected from https to plain http")
    assert store.asked == []


def test_credentials_go_to_the_server_they_were_given_for_only(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cr3t\nmachine localhost login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(netrc))
    near = store.url.replace("127.0.0.1", "user:s3cr3t@127.0.0.1")
    store.faults = [say(302, Location="/same"), say(302, Location=store.url.replace("127.0.0.1", "localhost"))]

    fetch(near, target, digest=DIGEST, rules=RULES)
    fetch(store.url, target.with_name("other"), digest=DIGEST, rules=RULES)

    basic = "Basic dXNlcjpzM2NyM3Q="
    assert [headers.get("Authorization") for _, headers in store.asked] == [basic, basic, None, None]


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_says_whom_to_trust(
    secure_store: Store, target: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(pki.ca))

    fetch(secure_store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT


def test_a_server_that_nobody_vouches_for_is_not_trusted(secure_store: Store, target: Path) -> None:
    error = refusal(secure_store.url + SECRET, target, rules=Rules(attempts=1))

    assert "CERTIFICATE_VERIFY_FAILED" in error.reason
    assert secure_store.asked == []


def test_https_goes_through_the_proxy_unless_the_host_is_excepted(
    store: Store, secure_store: Store, target: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = store
    monkeypatch.setenv("SSL_CERT_FILE", str(pki.ca))
    monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/fw.bin"))
    secure_store.faults = [cut(1000)]

    fetch(secure_store.url + SECRET, target, digest=DIGEST, rules=RULES)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(secure_store.url + SECRET, target.with_name("direct"), digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert [path for path, _ in proxy.asked] == [f"127.0.0.1:{secure_store.server_port}"] * 2
    assert len(secure_store.asked) == 3


# --- Pace, cancelling, secrets, neighbours --------------------------------------------------------------------------


def test_the_limit_on_the_rate_is_kept(store: Store, target: Path) -> None:
    began = time.monotonic()

    fetch(store.url, target, digest=DIGEST, rules=Rules(max_kib_s=512))

    assert time.monotonic() - began >= 1.8, "a mebibyte at 512 KiB a second takes two seconds"


@pytest.mark.parametrize("fault", [hang, begin_and_hang])
def test_a_cancelled_download_stops_at_once_and_keeps_what_came(store: Store, target: Path, fault: Fault) -> None:
    store.faults = [fault]
    began = time.monotonic()

    error = refusal(store.url + SECRET, target, cancelled=lambda: time.monotonic() > began + 0.5)
    took = time.monotonic() - began
    store.over.set()

    assert error.code == "cancelled"
    assert took < 30, "not when the server is taken for dead"
    assert leftovers(target) == ([".json", ".part"] if fault is begin_and_hang else [])


def test_a_download_that_waits_for_its_next_attempt_can_be_cancelled(store: Store, target: Path) -> None:
    store.faults = [say(503, Retry_After="300")]
    began = time.monotonic()

    error = refusal(store.url, target, cancelled=lambda: time.monotonic() > began + 0.5)

    assert error.code == "cancelled"


def test_nothing_of_a_secret_is_logged(store: Store, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store.faults = [cut(1000), say(500)]

    fetch(store.url + SECRET, target, digest=DIGEST, rules=RULES)

    assert "s3cr3t" not in caplog.text


def test_two_downloads_of_one_file_do_not_mix(store: Store, target: Path, eventually: Callable[..., Any]) -> None:
    store.faults = [begin_and_hang]
    over = threading.Event()
    first = threading.Thread(
        target=lambda: refusal(store.url, target, cancelled=over.is_set),
    )
    first.start()
    try:
        eventually(lambda: leftovers(target) == [".json", ".part"])
        second = refusal(store.url, target)
    finally:
        over.set()
        first.join()

    assert second.reason == f"cannot save {target}: another download of it is under way"
    assert leftovers(target) == [".json", ".part"]


@pytest.mark.parametrize("plant", ["link", "hard link", "pipe"])
def test_what_somebody_put_where_the_parts_go_is_not_written_to(store: Store, target: Path, plant: str) -> None:
    left_half(store, target)
    part, victim = part_of(target), target.with_name("victim")
    victim.write_bytes(b"victim")
    part.unlink()
    match plant:
        case "link":
            part.symlink_to(victim)
        case "hard link":
            part.hardlink_to(victim)
        case "pipe":
            os.mkfifo(part)

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert (victim.read_bytes(), target.read_bytes()) == (b"victim", CONTENT)


@pytest.mark.parametrize("plant", ["pipe", "endless", "somebody else's"])
def test_what_somebody_put_where_the_note_goes_is_not_read(store: Store, target: Path, plant: str) -> None:
    left_half(store, target)
    note = note_of(target)
    match plant:
        case "pipe":
            note.unlink()
            os.mkfifo(note)
        case "endless":
            note.unlink()
            note.symlink_to("/dev/zero")
        case _ if os.geteuid() == 0:
            os.chown(note, 12345, 12345)
        case _:
            pytest.skip("only root can give a file away")

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT
    assert store.ranges == [None]


@pytest.mark.parametrize("headers", [{"Content_Range": f"bytes {'9' * 5000}-{'9' * 5000}/{'9' * 5000}"}, {}])
def test_a_server_that_counts_without_end_cannot_break_it(store: Store, target: Path, headers: dict[str, str]) -> None:
    left_half(store, target)
    store.faults = [say(206, b"", **headers)]

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert target.read_bytes() == CONTENT


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(store: Store, target: Path) -> None:
    other = target.with_name("other")
    other.write_bytes(CONTENT)
    target.symlink_to(other)

    fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert not target.is_symlink()
    assert len(store.asked) == 1


@pytest.mark.parametrize("odd", ["missing", "pipe", "folder", "long"])
def test_a_target_that_cannot_be_one_is_told_before_anything_is_asked(store: Store, target: Path, odd: str) -> None:
    match odd:
        case "missing":
            target /= "in-no-folder"
        case "pipe":
            os.mkfifo(target)
        case "folder":
            target.mkdir()
        case "long":
            target = target.with_name("n" * 300)

    with pytest.raises(FetchError) as caught:
        fetch(store.url, target, digest=DIGEST, rules=RULES)

    assert caught.value.reason.startswith(f"cannot save {target}: ")
    assert store.asked == []


def test_a_line_that_is_down_is_waited_for_until_a_time(store: Store, target: Path) -> None:
    store.faults = [cut(0)] * 9
    waits = Rules(until=time.time() + PATIENCE_SECONDS, **PATIENT)  # type: ignore[arg-type]

    fetch(store.url, target, digest=DIGEST, rules=waits)

    assert target.read_bytes() == CONTENT
    assert len(store.asked) == 10, "more often than the attempts that are allowed without it"


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: takes root, who alone can give files away")
@pytest.mark.parametrize(("mode", "owner"), [(0o1777, 0), (0o755, 65534)])
def test_in_a_folder_open_to_all_a_file_is_not_given_to_whoever_was_there_first(
    store: Store, tmp_path: Path, mode: int, owner: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").touch()
    os.chown(shared / "file", 65534, 65534)
    shared.chmod(mode)

    fetch(store.url, shared / "file", digest=DIGEST, rules=RULES)

    assert (shared / "file").stat().st_uid == owner
