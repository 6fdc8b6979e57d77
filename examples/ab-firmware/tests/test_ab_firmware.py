"""The handler ab-firmware on the kit: the real bootloader of the fake device, and what goes wrong on a device.

The kit knows that a machine reboots, and not what a bootloader does then: `Booting` below does it. What a power cut at
each single step leaves behind is tested with the real agent, in the repository of thingjobs.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from thingjobs.testing import Kit, cancel, crash, offline, restart

from ab_firmware import image
from ab_firmware.handler import AbFirmware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.handler import Context, Outcome

    from ab_firmware.handler import Params

BOOTLOADER = Path(__file__).resolve().parents[1] / "fake-bootloader"
#: What the server has, by path.
IMAGES = {
    "good": image.make("pump-2", "2.0"),
    "ill": image.make("pump-2", "2.0", healthy=False),
    "dead": image.make("pump-2", "2.0", boots=False),
    "for-another-board": image.make("pump-3", "2.0"),
    "no-image": b"<html>",
}


class Device:
    """The fake device, and its power switch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str) -> None:
        """Write one of its files."""
        (self.folder / name).write_text(content)

    def boot(self) -> None:
        """Turn it on, or let it reboot."""
        subprocess.run([sys.executable, BOOTLOADER, self.folder], check=True, stdout=subprocess.DEVNULL)

    @property
    def state(self) -> tuple[str, str, str]:
        """The slot that runs, the one that is confirmed, and the one to be tried."""
        env = json.loads((self.folder / "env").read_text())
        return (self.folder / "booted").read_text().strip(), env["active"], env["trial"]


class Booting(AbFirmware):
    """The handler on a machine whose bootloader does its work before the verb that follows a reboot."""

    device: Device

    def verify(self, ctx: Context, params: Params) -> None:
        """Boot, if this comes after a reboot; then do as the handler does."""
        if ctx.rebooted:
            self.device.boot()
        super().verify(ctx, params)

    def rollback(self, ctx: Context, params: Params) -> Outcome | None:
        """Boot, if this comes after a reboot; then do as the handler does."""
        if ctx.rebooted:
            self.device.boot()
        return super().rollback(ctx, params)


class Files(http.server.BaseHTTPRequestHandler):
    """Serves the images."""

    def do_GET(self) -> None:
        """Answer with an image."""
        body = IMAGES[self.path.strip("/")]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of images; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()
        thread.join()


@pytest.fixture
def device(thingjobs: Kit, tmp_path: Path) -> Device:
    """A device that runs firmware 1.0 in slot a."""
    made = Device(tmp_path)
    made.write("board", "pump-2")
    made.write("battery", "80")
    made.write("env", json.dumps({"active": "a", "trial": "", "boots": 0}))
    (tmp_path / "a.img").write_bytes(image.make("pump-2", "1.0"))
    made.boot()
    thingjobs.environment["AB_DEVICE"] = str(tmp_path)
    Booting.device = made
    return made


def params_of(server: str, name: str = "good", **changes: Any) -> dict[str, Any]:
    """Return what a job says that wants version 2.0."""
    digest = hashlib.sha256(IMAGES[name]).hexdigest()
    return {"version": "2.0", "board": "pump-2", "url": f"{server}/{name}", "sha256": digest, **changes}


def test_a_good_update_runs_from_the_other_slot_and_stays(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server))

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "verify", "commit"]
    assert job.details == {"slot": "b", "firmware": "2.0"}
    assert job.reboots == 1
    assert device.state == ("b", "b", "")


def test_firmware_that_does_not_work_is_left_again(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server, "ill"))

    assert job.failed
    assert job.code == "verify.failed"
    assert "the pump controller does not answer" in job.reason
    assert job.verbs[-3:] == ["verify", "rollback", "rollback"]
    assert device.state == ("a", "a", "")


def test_firmware_that_does_not_boot_needs_no_way_back(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server, "dead"))

    assert job.failed
    assert job.reason.startswith("firmware 2.0 did not come up: slot a runs, with 1.0")
    assert job.verbs[-2:] == ["verify", "rollback"]
    assert job.reboots == 1
    assert device.state == ("a", "a", "")


def test_what_runs_already_is_not_downloaded(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server, version="1.0"))

    assert job.succeeded
    assert job.verbs == ["check"]


def test_firmware_for_another_board_is_rejected_before_anything_is_downloaded(
    thingjobs: Kit, device: Device, server: str
) -> None:
    job = thingjobs.run(Booting, params_of(server, "for-another-board", board="pump-3"))

    assert job.rejected
    assert job.reason == "the image is for the board pump-3, and this is a pump-2"
    assert job.verbs == ["check"]


@pytest.mark.parametrize(("name", "why"), [("for-another-board", "for the board pump-3"), ("no-image", "no firmware")])
def test_an_image_that_is_not_what_the_job_says_is_rejected(
    thingjobs: Kit, device: Device, server: str, name: str, why: str
) -> None:
    job = thingjobs.run(Booting, params_of(server, name))

    assert job.rejected
    assert why in job.reason
    assert job.verbs[-1] == "prepare"


def test_a_battery_that_is_low_puts_the_update_off(thingjobs: Kit, device: Device, server: str) -> None:
    device.write("battery", "12")

    job = thingjobs.run(Booting, params_of(server))

    assert job.status == "QUEUED"
    assert job.calls[0].reason == "the battery has 12 %, it takes 30 to update"


@pytest.mark.parametrize(
    ("key", "value"), [("version", "../2"), ("sha256", "0"), ("trial_boots", 0), ("board", ""), ("url", "")]
)
def test_what_makes_no_sense_is_rejected_before_anything_runs(
    thingjobs: Kit, device: Device, server: str, key: str, value: Any
) -> None:
    job = thingjobs.run(Booting, params_of(server, **{key: value}))

    assert job.code == "params.invalid"
    assert key in job.reason


def test_a_wrong_digest_touches_no_slot(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server, sha256="0" * 64))

    assert job.code == "fetch.digest"
    assert not (device.folder / "b.img").exists()


@pytest.mark.parametrize("event", [1, 2, 3])
def test_a_power_cut_while_the_slot_is_written_costs_nothing_but_time(
    thingjobs: Kit, device: Device, server: str, event: int
) -> None:
    job = thingjobs.run(Booting, params_of(server), faults=[crash("apply", event=event)])

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "check", "apply", "verify", "commit"]


def test_a_cancel_during_the_download_changes_nothing(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server), faults=[cancel("prepare", event=1)])

    assert "apply" not in job.verbs
    assert device.state == ("a", "a", "")


def test_a_cancel_while_the_slot_is_written_has_nothing_tried(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server), faults=[cancel("apply", event=2)])

    assert job.verbs[-1] == "rollback"
    assert job.reboots == 0
    assert device.state == ("a", "a", "")


@pytest.mark.parametrize("verb", ["prepare", "apply", "verify"])
def test_a_restart_of_the_agent_runs_nothing_twice(thingjobs: Kit, device: Device, server: str, verb: Any) -> None:
    job = thingjobs.run(Booting, params_of(server), faults=[restart(verb, event=1)])

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "verify", "commit"]


def test_new_firmware_that_does_not_reach_the_cloud_is_left_again(thingjobs: Kit, device: Device, server: str) -> None:
    job = thingjobs.run(Booting, params_of(server), faults=[offline(after="verify", seconds=7200)])

    assert job.code == "reach.failed"
    assert device.state == ("a", "a", "")


def test_flash_that_fails_is_found_out_before_it_is_booted(thingjobs: Kit, device: Device, server: str) -> None:
    thingjobs.call(AbFirmware, "prepare", params_of(server))
    (thingjobs.dir / "image").write_bytes(b"bits fell over")

    applied = thingjobs.call(AbFirmware, "apply", params_of(server))

    assert "the flash may be failing" in applied.reason
    assert device.state == ("a", "a", "")


def test_nothing_is_written_while_a_slot_is_on_trial(thingjobs: Kit, device: Device, server: str) -> None:
    (device.folder / "b.img").write_bytes(IMAGES["good"])
    device.write("env", json.dumps({"active": "a", "trial": "b", "boots": 1}))
    device.boot()

    checked = thingjobs.call(AbFirmware, "check", params_of(server, version="3.0"))
    applied = thingjobs.call(AbFirmware, "apply", params_of(server, version="3.0"))

    assert checked.exit == 75
    assert "slot b is on trial" in applied.reason
    assert device.state == ("b", "a", "b")


def test_only_a_slot_that_runs_is_kept(thingjobs: Kit, device: Device, server: str) -> None:
    thingjobs.call(AbFirmware, "prepare", params_of(server))
    thingjobs.call(AbFirmware, "apply", params_of(server))

    committed = thingjobs.call(AbFirmware, "commit", params_of(server))

    assert committed.reason == "slot a runs; only a slot that runs may be kept, not b"
    assert device.state == ("a", "a", "b")


def test_new_firmware_gets_as_many_boots_as_the_job_says(thingjobs: Kit, device: Device, server: str) -> None:
    thingjobs.call(AbFirmware, "prepare", params_of(server))
    thingjobs.call(AbFirmware, "apply", params_of(server, trial_boots=2))

    ran = []
    for _ in range(3):
        device.boot()
        ran.append(device.state[0])

    assert ran == ["b", "b", "a"]
