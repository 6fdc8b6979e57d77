"""The handler model-update on the kit: downloads from a real server on loopback, and what goes wrong on a device."""

from __future__ import annotations

import hashlib
import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest
from thingjobs.testing import Kit, cancel, crash, restart

from model_update.handler import ModelUpdate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW = b"MDL1 old", b"MDL1 new" * 20_000


class Files(http.server.BaseHTTPRequestHandler):
    """Serves a model, to those with a signature that has not expired."""

    def do_GET(self) -> None:
        """Answer with the model."""
        if "signature=good" not in self.path:
            self.send_error(403)
            return
        body = b"<html>" if "page" in self.path else NEW
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of models; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()
        thread.join()


@pytest.fixture
def camera(thingjobs: Kit, tmp_path: Path) -> Path:
    """The folder of models, with one in use."""
    home = tmp_path / "models"
    home.mkdir()
    (home / "leaks-6.mdl").write_bytes(OLD)
    (home / "current").symlink_to("leaks-6.mdl")
    thingjobs.environment["MODEL_HOME"] = str(home)
    return home


@pytest.fixture
def params(server: str) -> dict[str, Any]:
    """What a good job says."""
    digest = f"sha256:{hashlib.sha256(NEW).hexdigest()}"
    return {"version": "leaks-7", "url": f"{server}/leaks-7.mdl?signature=good", "digest": digest}


def in_use(camera: Path) -> bytes:
    """Return the model that the camera reads."""
    return (camera / "current").read_bytes()


def test_the_model_is_downloaded_and_switched_to(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    job = thingjobs.run(ModelUpdate, params)

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "verify"]
    assert job.details == {"model": "leaks-7"}
    assert in_use(camera) == NEW


def test_a_model_that_is_in_use_already_is_not_downloaded_again(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    job = thingjobs.run(ModelUpdate, {**params, "version": "leaks-6"})

    assert job.succeeded
    assert job.verbs == ["check"]


def test_the_job_waits_in_its_queue_while_the_camera_records(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    (camera / "recording").touch()

    job = thingjobs.run(ModelUpdate, params)

    assert job.status == "QUEUED"
    assert set(job.verbs) == {"check"}
    assert job.calls[0].reason == "the camera is recording"


def test_a_device_without_a_camera_rejects_the_job(thingjobs: Kit, tmp_path: Path, params: dict[str, Any]) -> None:
    thingjobs.environment["MODEL_HOME"] = str(tmp_path / "none")

    job = thingjobs.run(ModelUpdate, params)

    assert job.rejected
    assert "has no camera" in job.reason


@pytest.mark.parametrize(
    ("key", "value"), [("version", "../../etc/passwd"), ("digest", "md5:0"), ("reboot", "yes"), ("url", "")]
)
def test_what_makes_no_sense_is_rejected_before_anything_runs(
    thingjobs: Kit, camera: Path, params: dict[str, Any], key: str, value: str
) -> None:
    job = thingjobs.run(ModelUpdate, {**params, key: value})

    assert job.rejected
    assert job.code == "params.invalid"
    assert key in job.reason
    assert job.verbs == []


def test_a_file_with_another_digest_is_not_used(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    job = thingjobs.run(ModelUpdate, {**params, "digest": f"sha256:{'0' * 64}"})

    assert job.failed
    assert job.code == "fetch.digest"
    assert in_use(camera) == OLD


def test_a_file_that_is_no_model_is_not_used(thingjobs: Kit, camera: Path, params: dict[str, Any], server: str) -> None:
    page = {"url": f"{server}/page?signature=good", "digest": f"sha256:{hashlib.sha256(b'<html>').hexdigest()}"}

    job = thingjobs.run(ModelUpdate, {**params, **page})

    assert job.failed
    assert "is no model" in job.reason
    assert in_use(camera) == OLD


def test_a_url_that_expired_is_asked_for_anew(
    thingjobs: Kit, camera: Path, params: dict[str, Any], server: str
) -> None:
    expired = {**params, "url": f"{server}/leaks-7.mdl?signature=expired"}

    job = thingjobs.run(ModelUpdate, expired, refreshed=params)

    assert job.succeeded
    assert in_use(camera) == NEW


def test_it_is_verified_after_the_reboot_that_it_asks_for(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    job = thingjobs.run(ModelUpdate, {**params, "reboot": True})

    assert job.succeeded
    assert job.reboots == 1
    assert job.verbs == ["check", "prepare", "apply", "verify"]


@pytest.mark.parametrize("event", [1, 2, None])
def test_a_power_cut_during_apply_leaves_a_camera_that_works_and_then_the_new_model(
    thingjobs: Kit, camera: Path, params: dict[str, Any], event: int | None
) -> None:
    job = thingjobs.run(ModelUpdate, params, faults=[crash("apply", event=event)])

    assert job.succeeded
    assert in_use(camera) == NEW


def test_a_power_cut_while_it_downloads_costs_nothing_but_time(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    job = thingjobs.run(ModelUpdate, params, faults=[crash("prepare", event=1)])

    assert job.succeeded
    assert job.verbs.count("apply") == 1


def test_a_restart_of_the_agent_runs_nothing_twice(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    job = thingjobs.run(ModelUpdate, params, faults=[restart("apply", event=1)])

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "verify"]


def test_a_job_cancelled_while_it_downloads_changes_nothing(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    job = thingjobs.run(ModelUpdate, params, faults=[cancel("prepare", event=1)])

    assert "apply" not in job.verbs
    assert in_use(camera) == OLD


def test_a_job_cancelled_after_apply_began_is_undone(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    job = thingjobs.run(ModelUpdate, params, faults=[cancel("apply", event=1)])

    assert job.verbs[-1] == "rollback"
    assert in_use(camera) == OLD
    assert not (camera / "leaks-7.mdl").exists()


def test_the_way_back_is_the_same_after_a_second_apply(thingjobs: Kit, camera: Path, params: dict[str, Any]) -> None:
    thingjobs.call(ModelUpdate, "prepare", params)
    thingjobs.call(ModelUpdate, "apply", params)
    thingjobs.call(ModelUpdate, "apply", params, attempt=2)

    thingjobs.call(ModelUpdate, "rollback", params)

    assert in_use(camera) == OLD


def test_a_first_model_is_taken_away_again_when_it_is_undone(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    (camera / "current").unlink()

    thingjobs.run(ModelUpdate, params, faults=[cancel("apply")])

    assert not (camera / "current").is_symlink()


def test_a_disk_that_lies_is_found_out_and_the_old_model_comes_back(
    thingjobs: Kit, camera: Path, params: dict[str, Any]
) -> None:
    thingjobs.call(ModelUpdate, "prepare", params)
    thingjobs.call(ModelUpdate, "apply", params)
    (camera / "leaks-7.mdl").write_bytes(b"MDL1 bits fell over")

    verified = thingjobs.call(ModelUpdate, "verify", params)
    thingjobs.call(ModelUpdate, "rollback", params)

    assert not verified.succeeded
    assert "disk may be failing" in verified.reason
    assert in_use(camera) == OLD
