"""What we show to handler authors works: new handlers as made, and the examples; tests/guides has their guides.

All of it in an environment as an author has it, with handlers installed by pip; nothing is taken from a network.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.guides.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def desk(tmp_path: Path, require: Require) -> Desk:
    """An author's environment."""
    for module in ("pip", "hatchling", "editables"):
        require(module)
    return Desk(tmp_path)


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
