"""The query string of a presigned URL is a secret: where it may be while a job runs, and where it may stay.

It may be in the journal and in the job's own folder while the job runs, and in the local folder's own list of jobs,
which stands for the cloud; all of these only their owner can read. It is in no output, no log, no status, and gone
from the journal when the job is.
"""

from __future__ import annotations

import http.server
import json
import signal
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Cli, Local

SECRET = "5f1e0c4a9d3b"
QUERY = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={SECRET}"


def downloads(url: str, path: object) -> dict[str, Any]:
    """Return AWS-Download-File as a device receives it."""
    given = {"handler": "download-file.sh", "args": [url, str(path)], "path": ""}
    return {"version": "1.0", "steps": [{"action": {"name": "Download", "type": "runHandler", "input": given}}]}


@contextmanager
def file_server(go: threading.Event) -> Iterator[str]:
    """Serve a file, the second half of it once `go` is set; answer 403 for one that is called so."""

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            forbidden = self.path.startswith("/forbidden")
            self.send_response(403 if forbidden else 200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"abc")
            self.wfile.flush()
            forbidden or go.wait(30)
            self.wfile.write(b"def")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            go.set()
            server.shutdown()
            thread.join()


def holding(folder: Path) -> set[str]:
    """Return the files below a folder that hold the secret; none of them may be read by others."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and SECRET.encode() in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            found.add(str(path.relative_to(folder)))
    return found


@pytest.fixture
def jobs(local: Local) -> Iterator[Callable[[], None]]:
    """Documents with a secret: one that succeeds, ones that fail, ones refused; gives what lets the first one end."""
    go = threading.Event()
    with file_server(go) as url:
        secret = f"{url}/file?{QUERY}"
        local.job("a-good", downloads(secret, local.out / "file"))
        local.job("b-forbidden", downloads(f"{url}/forbidden?{QUERY}", local.out / "other"))
        local.job("d-no-folder", downloads(secret, local.out / "no" / "folder"))
        local.job("e-scheme", downloads(f"gopher://nowhere.invalid/file?{QUERY}", local.out / "other"))
        local.job("f-no-path", downloads(secret, ""))
        yield go.set


def test_no_output_log_or_status_has_the_query_of_a_url(local: Local, cli: Cli, jobs: Callable[[], None]) -> None:
    jobs()
    words = [*local.words, *sorted(local.folder.glob("*.json"))]

    told = [local.run("--verbose"), cli("status", *local.words), cli("status", "--json", *local.words)]
    told += [cli("validate", *words), cli("dry-run", *words), cli("dry-run", "--json", *words)]

    assert (local.out / "file").read_bytes() == b"abcdef"
    assert list(local.outcomes().values()) == ["SUCCEEDED", *["FAILED"] * 2, *["REJECTED"] * 2]
    assert [command.all for command in told if SECRET in command.all] == []
    assert {path.partition("/")[0] for path in holding(local.state)} <= {"jobs.json", "journal"}


def test_while_a_job_runs_its_secret_is_only_where_its_owner_can_read_it(
    local: Local, cli: Cli, jobs: Callable[[], None], eventually: Callable[..., Any]
) -> None:
    agent = local.start("--once", "--verbose")
    eventually(lambda: any(local.out.glob(".thingjobs-*.part")))

    found = {path.partition("/")[0] for path in holding(local.state)}
    status = cli("status", "--json", *local.words).out
    agent.signal(signal.SIGTERM)
    jobs()
    told = agent.end()

    assert found == {"jobs.json", "journal", "jobs"}
    assert json.loads(status)["jobs"][0]["jobId"] == "a-good"
    assert SECRET not in status + told.all


def test_a_secret_is_gone_from_the_journal_when_its_job_is_done(local: Local, jobs: Callable[[], None]) -> None:
    jobs()

    local.run()

    assert holding(local.state) == {"jobs.json"}


@pytest.mark.parametrize(
    "document",
    [
        {"handler": "URL"},
        {"operation": "URL"},
        {"version": "URL", "steps": []},
        {"version": "1.0", "steps": [{"action": "URL"}]},
        {"version": "1.0", "steps": [{"action": {"name": "x", "type": "runHandler", "input": {"handler": "URL"}}}]},
    ],
)
def test_the_reason_of_a_refusal_quotes_no_query(local: Local, cli: Cli, document: object) -> None:
    text = json.dumps(document).replace("URL", f"http://a.invalid/?S={SECRET}")

    told = cli("validate", *local.words, "-", stdin=text)

    assert told.code == 1
    assert SECRET not in told.all
