"""Processes that are known by their environment, and their end: real ones, caught while they become another program.

For that moment a process shows no environment at all.
"""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from thingjobs import boot, marked
from thingjobs.registry import asking

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_SECONDS = 20.0
#: Says that it is there, under its number, and becomes another program at once.
CHANGING = "echo $$ >new; mv new there; exec sleep 1000"
#: Becomes another program again and again.
RESTLESS = "#!/bin/sh\nexec ./restless\n"
#: Leaves one of those behind in a session of its own, and ends as soon as it is there.
LEAVING = "setsid sh -c 'echo $$ >new; mv new there; exec ./restless' & until [ -e there ]; do :; done; echo well"


def _from(first: int) -> list[int]:
    return [pid for pid in boot.processes() if pid >= first]


def test_one_that_is_just_becoming_another_program_is_not_overlooked(tmp_path: Path) -> None:
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        argv = ["setsid", "sh", "-c", CHANGING]
        with subprocess.Popen(argv, cwd=folder, env={"PATH": os.environ["PATH"], "MARK": str(folder)}) as daemon:
            while not (folder / "there").exists():
                pass
            marked.end_marked(b"MARK=" + os.fsencode(folder), partial(_from, daemon.pid))
            assert daemon.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def test_what_leaves_a_child_that_was_asked_is_not_overlooked_either(
    tmp_path: Path, eventually: Callable[..., object]
) -> None:
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        restless = folder / "restless"
        restless.write_text(RESTLESS)
        restless.chmod(0o755)
        argv = ["sh", "-c", f"cd {folder}; {LEAVING}"]
        assert asking.ask(argv, seconds=PATIENCE_SECONDS) == b"well\n"
        left = int((folder / "there").read_text())
        try:
            eventually(lambda left=left: boot.start_time(left) is None)
        finally:
            if boot.start_time(left) is not None:
                os.kill(left, signal.SIGKILL)
