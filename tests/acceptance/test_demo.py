"""The demo, as `make demo` runs it: five documents, each with its way from QUEUED to its end."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli


def test_the_demo_shows_each_execution_and_what_it_was(cli: Cli, examples: Path) -> None:
    argv = [sys.executable, str(examples / "demo.py"), str(cli.folder / "demo")]

    told = subprocess.run(argv, cwd=cli.folder, env=cli.environment, capture_output=True, text=True, check=False)

    assert (told.returncode, told.stderr) == (0, "")
    ways = dict(re.findall(r"^. (\d-[a-z-]+) +(QUEUED[A-Z_ →]+?)(?: +\d+\.\d s)?$", told.stdout, re.MULTILINE))
    done = "QUEUED → IN_PROGRESS → SUCCEEDED"
    assert ways == {
        "1-run-command": done,
        "2-download-file": done,
        "3-mistake": "QUEUED → REJECTED",
        "4-several-steps": done,
        "5-hello": done,
    }
    assert "document.invalid: steps[0].action.input is missing" in told.stdout
    assert "greeted: pump-7" in told.stdout
    assert "\n5 jobs: 4 SUCCEEDED, 1 REJECTED\n\nFive job documents went in" in told.stdout
    assert "X-Amz-Signature" not in told.stdout
