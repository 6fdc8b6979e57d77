"""The handler send-manifest on the kit, with a real server on loopback in the place of S3."""

from __future__ import annotations

import hashlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from thingjobs.testing import Kit

from send_manifest.handler import SendManifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Bucket(http.server.ThreadingHTTPServer):
    """Takes objects, from those with a signature that has not expired."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.objects: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Door(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Bucket

    def do_PUT(self) -> None:
        """Keep the object."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if query != "X-Amz-Signature=good":
            self.send_error(403)
            return
        self.server.objects[path] = body
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """An empty bucket."""
    with Bucket() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def outbox(thingjobs: Kit, tmp_path: Path) -> Path:
    """The outbox of a camera, with two pictures."""
    for name in ("b.jpg", "a 1,2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    thingjobs.environment["OUTBOX"] = str(tmp_path)
    return tmp_path


def params(bucket: Bucket, signature: str = "good") -> dict[str, str]:
    url = f"{bucket.url}/fleet-pictures/m.csv?X-Amz-Signature={signature}"
    return {"url": url, "bucket": "fleet-pictures", "prefix": "pictures/camera-3/"}


def test_the_manifest_arrives_as_s3_batch_operations_reads_it(thingjobs: Kit, outbox: Path, bucket: Bucket) -> None:
    job = thingjobs.run(SendManifest, params(bucket))

    assert job.succeeded
    (sent,) = bucket.objects.values()
    assert sent == (b"fleet-pictures,pictures/camera-3/a%201%2C2.jpg\nfleet-pictures,pictures/camera-3/b.jpg\n")
    assert job.details == {"pictures": "2", "manifestEtag": hashlib.md5(sent).hexdigest()}


def test_an_empty_outbox_keeps_the_job_in_its_queue(thingjobs: Kit, outbox: Path, bucket: Bucket) -> None:
    for picture in outbox.glob("*.jpg"):
        picture.unlink()

    call = thingjobs.call(SendManifest, "check", params(bucket))

    assert (call.exit, call.after) == (75, 300)
    assert call.reason == f"there is no picture in {outbox} yet"


def test_a_url_that_expired_is_asked_for_anew(thingjobs: Kit, outbox: Path, bucket: Bucket) -> None:
    job = thingjobs.run(SendManifest, params(bucket, "old"), refreshed=params(bucket))

    assert job.succeeded
    assert len(bucket.objects) == 1


def test_a_manifest_that_is_not_taken_fails_the_job_without_telling_the_signature(
    thingjobs: Kit, outbox: Path, bucket: Bucket
) -> None:
    job = thingjobs.run(SendManifest, params(bucket, "wrong"))

    assert not job.succeeded
    assert job.code == "fetch.failed"
    assert "wrong" not in job.reason
