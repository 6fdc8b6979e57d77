"""What we show to handler authors works: the commands of their guide, new handlers as made, and the examples.

All of it in an environment as an author has it, with handlers installed by pip; nothing is taken from a network.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sysconfig
import threading
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "handlers" / "README.md"
#: A block of the guide that is run here.
RUN = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_SECONDS = 60


class Desk:
    """An author's environment: thingjobs, pytest and pip, and what the author installs; it is gone after the test.

    Attributes:
        folder: where commands are run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "desk"
        self.folder.mkdir()
        self._home = folder / "home"
        self._home.mkdir()
        self._bin = folder / "venv" / "bin"
        venv.create(self._bin.parent, symlinks=True)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(self._bin.parent)}))
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for name in ("pip", "pytest", "thingjobs"):
            command = self._bin / name
            command.write_text(f'#!/bin/sh\nexec "{self._bin}/python" -m {name} "$@"\n')
            command.chmod(0o755)

    def run(self, script: str) -> str:
        """Run lines of shell, the first that fails being the last; return all that they print."""
        environment = {
            "PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            # As pip has it, 0 is: no isolation. So nothing is fetched, and everything must be here.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **{name: os.environ[name] for name in ("TMPDIR", "COVERAGE_PROCESS_START") if name in os.environ},
        }
        told = subprocess.run(
            ["/bin/sh", "-euxc", script],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        text = told.stdout.decode()
        assert told.returncode == 0, text
        assert "Traceback" not in text
        return text

    def copy(self, example: str) -> Path:
        """Copy an example, as somebody takes it out of this repository."""
        target = self.folder / example
        shutil.copytree(ROOT / "examples" / example, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for path in (target, *target.rglob("*")):  # A clone under umask 002 lets the group write; handlers may not be.
            path.chmod(path.stat().st_mode & ~0o022)
        return target


@pytest.fixture
def desk(tmp_path: Path, require: Require) -> Desk:
    """An author's environment."""
    for module in ("pip", "hatchling", "editables"):
        require(module)
    return Desk(tmp_path)


# --- the guide ----------------------------------------------------------------------------------------------------


def test_every_command_of_the_ten_minutes_works_as_it_stands_in_the_guide(desk: Desk) -> None:
    blocks = RUN.findall(GUIDE.read_text(encoding="utf-8"))
    assert len(blocks) >= 5

    told = desk.run("\n".join(blocks))

    assert told.count(" passed in ") == 2
    assert "2 jobs: 2 SUCCEEDED" in told
    assert (desk.folder / "set-text" / "try-it.txt").read_text() == "Hello from set-text.\n"
    assert (desk.folder / "set-text-sh" / "try-it.txt").read_text() == "Hello from set-text-sh.\n"


def test_every_file_that_the_guides_link_to_is_there() -> None:
    for guide in (GUIDE, ROOT / "examples" / "README.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", guide.read_text(encoding="utf-8"))
        assert links
        assert [link for link in links if not (guide.parent / link).exists()] == []


def test_every_command_that_the_guide_names_exists(desk: Desk) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^|exec )thingjobs ((?:handlers|job) [a-z]+|[a-z]+(?:-[a-z]+)?)", text, re.MULTILINE)
    commands = set(named)
    assert {"handlers new", "handlers check", "job fail", "dry-run"} <= commands

    desk.run("\n".join(f"thingjobs {command} --help" for command in sorted(commands)))


# --- new handlers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "a1_b2-class"])
def test_a_new_python_handler_passes_its_tests_and_checks_and_runs_a_job(desk: Desk, name: str) -> None:
    told = desk.run(f"""
        umask 002
        thingjobs handlers new {name} --into deep/er
        cd deep/er/{name}
        pip install --quiet -e '.[test]'
        pytest -q
        thingjobs handlers check {name}
        thingjobs dry-run jobs/try-it.json
        thingjobs run --local jobs --once
    """)

    assert f"✓ {name}: good" in told
    assert "would run" in told
    assert "1 job: 1 SUCCEEDED" in told
    assert (desk.folder / "deep" / "er" / name / "try-it.txt").read_text() == f"Hello from {name}.\n"


def test_a_new_shell_handler_passes_its_tests_and_checks_and_runs_a_job(desk: Desk) -> None:
    told = desk.run("""
        umask 002
        thingjobs handlers new set-text --shell
        cd set-text
        pytest -q
        thingjobs handlers check handlers/set-text
        thingjobs handlers check --config local.toml set-text
        thingjobs dry-run jobs/try-it.json --config local.toml
        thingjobs run --local jobs --once --config local.toml
    """)

    assert "✓ handlers/set-text: good" in told
    assert "✓ set-text: good" in told
    assert "1 job: 1 SUCCEEDED" in told
    assert (desk.folder / "set-text" / "try-it.txt").read_text() == "Hello from set-text.\n"


def test_a_new_python_handler_is_whole_as_a_wheel(desk: Desk) -> None:
    told = desk.run("""
        thingjobs handlers new set-text
        pip install --quiet ./set-text
        rm -r set-text/src
        thingjobs handlers check set-text
        thingjobs run --local set-text/jobs --once
    """)

    assert "1 job: 1 SUCCEEDED" in told


# --- the examples -------------------------------------------------------------------------------------------------

MODEL = b"MDL1" + bytes(100_000)


@pytest.fixture
def server() -> Iterator[str]:
    """A server of one model; its URL."""

    class Model(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(MODEL)))
            self.end_headers()
            self.wfile.write(MODEL)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as files:
        thread = threading.Thread(target=files.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{files.server_port}/leaks-7.mdl"
        files.shutdown()
        thread.join()


def test_the_python_example_installs_passes_its_tests_and_runs_a_job(desk: Desk, server: str) -> None:
    desk.copy("python-handler")
    home = desk.folder / "models"
    home.mkdir()
    params = {"version": "leaks-7", "url": server, "digest": f"sha256:{hashlib.sha256(MODEL).hexdigest()}"}
    (desk.folder / "jobs").mkdir()
    (desk.folder / "jobs" / "one.json").write_text(json.dumps({"handler": "model-update", "params": params}))
    (desk.folder / "local.toml").write_text(f'[handlers]\nenvironment = {{ MODEL_HOME = "{home}" }}\n')

    told = desk.run("""
        pip install --quiet './python-handler[test]'
        (cd python-handler && rm -r src && pytest -q)
        thingjobs handlers check model-update
        thingjobs run --local jobs --once --config local.toml
    """)

    assert "✓ model-update: good" in told
    assert "1 job: 1 SUCCEEDED" in told
    assert "model: leaks-7" in told
    assert (home / "current").read_bytes() == MODEL


def test_the_firmware_example_installs_passes_its_tests_and_ends_as_its_stories_say(desk: Desk) -> None:
    desk.copy("ab-firmware")

    told = desk.run("""
        pip install --quiet './ab-firmware[test]'
        (cd ab-firmware && rm -r src && pytest -q)
        thingjobs handlers check ab-firmware
        python ab-firmware/try.py --folder played
    """)

    assert "✓ ab-firmware: good" in told
    ends = re.findall(r"^ +agent \| . (\w+) +QUEUED → IN_PROGRESS → (\w+)", told, re.MULTILINE)
    assert dict(ends) == {"good": "SUCCEEDED", "unhealthy": "FAILED", "dead": "FAILED", "cancelled": "FAILED"}
    assert "verify.failed: firmware 2.1 came up, but the pump controller does not answer; rolled back" in told
    assert "verify.failed: firmware 2.2 did not come up: slot b runs, with 2.0; rolled back" in told
    assert told.endswith("     slots | a: 2.2; b: 2.0, runs, confirmed\n")


def test_the_firmware_example_works_by_hand_as_its_guide_says(desk: Desk) -> None:
    """The commands stand in the guide; only the folder in them is another one, so that nothing meets in /tmp."""
    folder = desk.copy("ab-firmware")
    played = desk.folder / "played"
    for file in (folder / "config.toml", folder / "README.md", folder / "try.py"):
        file.write_text(file.read_text().replace("/tmp/ab-firmware", str(played)))
    guide = (folder / "README.md").read_text().partition("## The same by hand")[2].partition("\n## ")[0]
    first, *lines = [line.strip().split("   ")[0] for line in guide.splitlines() if line.startswith("    ")]
    assert first == "python try.py --by-hand"
    assert len(lines) == 6

    told = desk.run(f"""
        pip install --quiet ./ab-firmware
        cd ab-firmware
        python try.py --by-hand >../served & served=$!
        trap 'kill $served' EXIT
        while ! grep -q "Ctrl-C ends this" ../served; do sleep 0.1; done
        {lines[0]}
        {lines[1]}
        {lines[2]} || test -e {played}/device/off
        {lines[3]}
        {lines[4]}
        {lines[5]}
    """)

    assert "1 job: 1 IN_PROGRESS" in told
    assert "bootloader: slot b runs, with firmware 2.0" in told
    assert "1 job: 1 SUCCEEDED" in told
    assert '{"active": "b", "trial": "", "boots": 0}' in told


def test_the_shell_example_passes_its_tests_and_runs_a_job(desk: Desk) -> None:
    folder = desk.copy("shell-handler")
    config = folder / "local.toml"
    pump = desk.folder / "pump.conf"
    pump.write_text("unit=bar\n")
    config.write_text(config.read_text().replace("/tmp/pump.conf", str(pump)))

    told = desk.run("""
        cd shell-handler
        pytest -q
        thingjobs handlers check handlers/pump-config
        thingjobs run --local jobs --once --config local.toml
    """)

    assert "✓ handlers/pump-config: good" in told
    assert "1 job: 1 SUCCEEDED" in told
    assert pump.read_text() == "unit=bar\nlevel=high\n"


def test_the_scripts_of_the_examples_and_of_new_handlers_are_posix_shell(desk: Desk) -> None:
    if shutil.which("dash") is None:
        pytest.skip("NOT TESTED: dash is not installed here")
    desk.run("thingjobs handlers new one --shell")

    for script in (
        desk.folder / "one/handlers/one/run.sh",
        ROOT / "examples/shell-handler/handlers/pump-config/run.sh",
        ROOT / "examples/ab-firmware/fake-reboot",
    ):
        told = subprocess.run(["dash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert (told.returncode, told.stderr) == (0, ""), script
