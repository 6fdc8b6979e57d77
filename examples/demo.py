"""The demo, run by `make demo`: five job documents go through the agent on this machine.

It plays what surrounds the agent: it lays the documents of examples/jobs into a folder, serves the file that
one of them downloads, and looks at the outcomes afterwards. The agent in between is the real one, started as
anybody would start it. No cloud, no account, no network but loopback.

    python examples/demo.py [FOLDER]      all of it happens in FOLDER, which is emptied first; else in demo-run/
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent

#: The documents in examples/jobs name a host and a folder that exist nowhere; the demo fills in its own.
HOST_IN_DOCUMENTS = "http://files.demo.invalid"
FOLDER_IN_DOCUMENTS = "/srv/demo"

FILE_TEXT = "Release notes, version 2: the pump no longer says hello twice.\n"
EXPECTED = {
    "1-run-command": "SUCCEEDED",
    "2-download-file": "SUCCEEDED",
    "3-mistake": "REJECTED",
    "4-several-steps": "SUCCEEDED",
    "5-hello": "SUCCEEDED",
}


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file, to those who bring something like a presigned URL, and is silent about it."""

    def do_GET(self) -> None:
        """Answer with the file."""
        url = urlsplit(self.path)
        if url.path != "/release-notes.txt":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif "X-Amz-Signature" not in parse_qs(url.query):
            self.send_error(HTTPStatus.FORBIDDEN)
        else:
            body = FILE_TEXT.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the terminal for the agent."""


@contextmanager
def file_server() -> Iterator[str]:
    """Serve the file on loopback for as long as the block runs; give the URL of the server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def lay_out(run: Path, url: str) -> None:
    """Make the folder `run` afresh: documents, filled in, handlers and the configuration."""
    shutil.rmtree(run, ignore_errors=True)
    jobs, handlers = run / "jobs", run / "handlers"
    for folder in (jobs, run / "downloads"):
        folder.mkdir(parents=True)
    for source in sorted((EXAMPLES / "jobs").glob("*.json")):
        text = source.read_text().replace(HOST_IN_DOCUMENTS, url)
        (jobs / source.name).write_text(text.replace(FOLDER_IN_DOCUMENTS, json.dumps(str(run.resolve()))[1:-1]))
    # The agent refuses handlers that others may write, and some checkouts are writable for the group.
    shutil.copytree(EXAMPLES / "handlers", handlers)
    for path in (run, handlers, *handlers.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)
    shutil.copy(EXAMPLES / "demo.toml", run)


def outcomes(thingjobs: str, run: Path) -> dict[str, str]:
    """Return the status of each job, by job id, as `thingjobs status` tells it (or says why not)."""
    argv = [thingjobs, "status", "--json", "--local", str(run / "jobs")]
    told = subprocess.run(argv, check=False, stdout=subprocess.PIPE)
    if told.returncode:
        return {}
    return {job["jobId"]: job["status"] for job in json.loads(told.stdout)["executions"]}


def mismatches(found: dict[str, str], run: Path) -> list[str]:
    """Say what is not as it should be after the run."""
    wrong = [
        f"{job} should be {status} and is {found.get(job, 'not there')}"
        for job, status in EXPECTED.items()
        if found.get(job) != status
    ]
    arrived = run / "downloads" / "release-notes.txt"
    if not arrived.is_file() or arrived.read_text() != FILE_TEXT:
        wrong.append(f"{arrived} should hold the file that was downloaded")
    return wrong


def explain(thingjobs: str, run: Path) -> None:
    """Say what was seen, where it is kept, and what to try next."""
    command, jobs = thingjobs.removeprefix(f"{Path.cwd()}/"), run / "jobs"
    print(
        f"""
Five job documents went in, as AWS IoT delivers them. Four did their work, and
3-mistake was refused on purpose, with the reason, before anything of it ran.
The agent, its journal and the handlers were the real ones, the cloud was not.

To see what is kept of it:
    {command} status --local {jobs}
To run documents of your own, from a new folder my-jobs:
    {command} run --local my-jobs --once"""
    )


def main(run: Path) -> int:
    """Run the demo in the folder `run`; return the exit code."""
    beside_python = str(Path(sys.executable).parent)
    thingjobs = shutil.which("thingjobs", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', '')}")
    if thingjobs is None:
        print("demo: cannot find the command thingjobs: run `make demo`, which installs it", file=sys.stderr)
        return 2
    with file_server() as url:
        lay_out(run, url)
        argv = [thingjobs, "run", "--local", str(run / "jobs"), "--once", "--config", str(run / "demo.toml")]
        # Its exit code is 1, because not all are SUCCEEDED; which ones are, we ask below.
        subprocess.run(argv, check=False)
    if wrong := mismatches(outcomes(thingjobs, run), run):
        print(f"\ndemo: this went wrong: {'; '.join(wrong)}.", file=sys.stderr)
        print(f"The state and the logs of the jobs are in {run}/jobs/.thingjobs.", file=sys.stderr)
        return 1
    explain(thingjobs, run)
    return 0


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute() if sys.argv[1:] else Path("demo-run")
    os.chdir(ROOT)
    try:
        sys.exit(main(folder))
    except KeyboardInterrupt:
        sys.exit(130)
