#!/usr/bin/env python3
"""Plays a machine with two slots for its firmware, four updates of it, and what goes wrong with three of them.

    python try.py [--folder FOLDER] [good] [unhealthy] [dead] [cancelled]
    python try.py --by-hand                         lays all of it out, serves the images, and leaves the rest to you

The agent is the real one (`thingjobs run --local`), so is the handler; the machine is this program: it turns the
power on (fake-bootloader), starts the agent, and does so again when the agent had the machine rebooted (fake-reboot).
No root, no cloud, no network but loopback. All of it happens in FOLDER, /tmp/ab-firmware if not given, which is
emptied first.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ab_firmware import image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
FOLDER_IN_CONFIG = "/tmp/ab-firmware"
BOARD = "pump-2"
IMAGE_BYTES = 2_000_000


@dataclass(frozen=True)
class Story:
    """One update and how it should end."""

    title: str
    version: str
    boots: bool = True
    healthy: bool = True
    cancelled: bool = False
    status: str = "FAILED"
    runs: str = "2.0"

    @property
    def image(self) -> bytes:
        """The firmware."""
        return image.make(BOARD, self.version, boots=self.boots, healthy=self.healthy, size=IMAGE_BYTES)


STORIES = {
    "good": Story("a good update", "2.0", status="SUCCEEDED"),
    "unhealthy": Story("the new firmware boots, and does not work", "2.1", healthy=False),
    "dead": Story("the new firmware does not even boot", "2.2", boots=False),
    "cancelled": Story("somebody cancels it while it downloads", "2.3", cancelled=True),
}


def say(who: str, text: str) -> None:
    """Print what happens, line by line."""
    for line in text.splitlines():
        print(f"{who:>10} | {line}".rstrip(), flush=True)


# --- where the images come from -----------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves the image of each story; of one that is to be cancelled the first half, until it is."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Images)
        self.half_served = threading.Event()
        self.cancelled = threading.Event()


class Images(http.server.BaseHTTPRequestHandler):
    """Answers with an image."""

    server: Server

    def do_GET(self) -> None:
        """Send the image that the path names."""
        story = STORIES.get(self.path.strip("/"))
        if story is None:
            self.send_error(404)
            return
        body = story.image
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2 if story.cancelled else len(body)
        self.wfile.write(body[:half])
        if story.cancelled:
            self.wfile.flush()
            self.server.half_served.set()
            self.server.cancelled.wait(60)

    def log_message(self, *_: object) -> None:
        """Be silent."""


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """Serve the images for as long as the block runs."""
    with Server(port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.cancelled.set()
            server.shutdown()
            thread.join()


# --- the machine --------------------------------------------------------------------------------------------------


class Machine:
    """A device of files, the agent on it, and the power switch.

    Args:
        folder: emptied, and then the device's.
    """

    def __init__(self, folder: Path) -> None:
        self.jobs = folder / "jobs"
        self.device = folder / "device"
        self.config = folder / "config.toml"
        shutil.rmtree(folder, ignore_errors=True)
        for made in (self.jobs, self.device):
            made.mkdir(parents=True)
        text = (HERE / "config.toml").read_text().replace(FOLDER_IN_CONFIG, str(folder))
        self.config.write_text(text.replace("./fake-reboot", str(HERE / "fake-reboot")))
        (self.device / "board").write_text(f"{BOARD}\n")
        (self.device / "battery").write_text("80\n")
        (self.device / "env").write_text(json.dumps({"active": "a", "trial": "", "boots": 0}))
        (self.device / "a.img").write_bytes(image.make(BOARD, "1.0", size=IMAGE_BYTES))

    def queue(self, name: str, url: str) -> None:
        """Put a job document where the agent finds it."""
        story = STORIES[name]
        digest = hashlib.sha256(story.image).hexdigest()
        params = {"version": story.version, "board": BOARD, "url": f"{url}/{name}", "sha256": digest}
        document = {"handler": "ab-firmware", "params": params}
        (self.jobs / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")

    def turn_on(self) -> None:
        """Let the bootloader choose a slot."""
        (self.device / "off").unlink(missing_ok=True)
        told = subprocess.run(
            [sys.executable, HERE / "fake-bootloader", self.device], check=False, capture_output=True, text=True
        )
        for line in told.stdout.splitlines():
            say(*line.split(": ", 1))
        if told.returncode:
            sys.exit(f"try.py: the device does not boot any more; look into {self.device}")

    def run_agent(self, server: Server, story: Story) -> None:
        """Run the agent until no job is left, or the machine goes down; cancel the job if that is the story."""
        argv = self._thingjobs("run", "--once", "--verbose")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as agent:
            canceller = threading.Thread(target=cancel, args=(agent, server))
            if story.cancelled:
                canceller.start()
            for line in agent.stdout or ():
                say("agent", line)
                if "Ctrl-C or SIGTERM again" in line:
                    agent.send_signal(signal.SIGINT)
            if story.cancelled:
                canceller.join()

    def slots(self) -> str:
        """Return what is in the slots, for people."""
        env = json.loads((self.device / "env").read_text())
        booted = (self.device / "booted").read_text().strip()
        parts = []
        for slot in "ab":
            path = self.device / f"{slot}.img"
            marks = [image.look_at(path).version if path.exists() else "empty"]
            marks += ["runs"] * (slot == booted) + ["confirmed"] * (slot == env["active"])
            marks += ["to be tried"] * (slot == env["trial"])
            parts.append(f"{slot}: {', '.join(marks)}")
        return "; ".join(parts)

    def outcome(self, name: str) -> tuple[str, str]:
        """Return the status of a job and the version that runs now."""
        told = json.loads(
            subprocess.run(self._thingjobs("status", "--json"), check=True, stdout=subprocess.PIPE).stdout
        )
        status = next(str(job["status"]) for job in told["executions"] if job["jobId"] == name)
        booted = (self.device / "booted").read_text().strip()
        return status, image.look_at(self.device / f"{booted}.img").version

    def _thingjobs(self, *words: str) -> list[str]:
        where = ["--local", str(self.jobs), "--config", str(self.config)]
        return [sys.executable, "-m", "thingjobs", *words, *where]


def cancel(agent: subprocess.Popen[str], server: Server) -> None:
    """Do as somebody who presses Ctrl-C twice: the first waits for the step that runs, the second stops it."""
    server.half_served.wait(60)
    say("you", "Ctrl-C, and when it says that it waits, once more")
    agent.send_signal(signal.SIGINT)


def play(name: str, machine: Machine, server: Server) -> bool:
    """Take one update through to its end; return whether it ended as it should."""
    story = STORIES[name]
    print(f"\n=== {name}: {story.title}")
    machine.queue(name, f"http://127.0.0.1:{server.server_port}")
    say("slots", machine.slots())
    machine.run_agent(server, story)
    while (machine.device / "off").exists():
        say("machine", "goes down, and comes up again")
        say("slots", machine.slots())
        machine.turn_on()
        machine.run_agent(server, story)
    say("slots", machine.slots())
    found = machine.outcome(name)
    if found != (story.status, story.runs):
        print(f"try.py: {name} should be {story.status} with {story.runs}, and is {found}", file=sys.stderr)
    return found == (story.status, story.runs)


def main(words: Sequence[str]) -> int:
    """Play what was asked for; return 1 if anything did not end as it should."""
    parser = argparse.ArgumentParser(description="Plays a machine with two slots, and updates of its firmware.")
    parser.add_argument("stories", nargs="*", metavar="STORY", help=f"of {', '.join(STORIES)}; all of them if none")
    parser.add_argument("--folder", type=Path, default=Path(FOLDER_IN_CONFIG), help="what is there is removed")
    parser.add_argument("--by-hand", action="store_true", help="only lay out the machine, and serve the images")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.stories if name not in STORIES]:
        parser.error(f"there is no story {unknown[0]}; there are {', '.join(STORIES)}")
    machine = Machine(asked.folder.absolute())
    if asked.by_hand:
        return by_hand(machine)
    say("machine", "a device with two slots; the power is turned on")
    machine.turn_on()
    # The first leaves behind what the others begin with.
    names = [name for name in STORIES if name in {*asked.stories, "good"} or not asked.stories]
    with serving() as server:
        return 0 if all([play(name, machine, server) for name in names]) else 1


def by_hand(machine: Machine) -> int:
    """Serve the images until Ctrl-C."""
    with serving() as server:
        for name in STORIES:
            machine.queue(name, f"http://127.0.0.1:{server.server_port}")
            (machine.jobs / f"{name}.json").rename(machine.jobs.parent / f"{name}.json")
        print(
            f"The device is in {machine.device}, job documents in {machine.jobs.parent}. Ctrl-C ends this.", flush=True
        )
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
