"""A verb that exits with 196 gets another agent, whoever started this one: nobody, a guard, or a person at a desk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.upgrade.conftest import SELDOM

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.upgrade.conftest import Unit

#: Wants another agent, the first time.
AGAIN = "[ -e again ] || { touch again; exit 196; }"


def test_without_a_guard_the_agent_starts_itself_again(unit: Unit) -> None:
    unit.handler("again", AGAIN, "apply")
    unit.start_with(str(unit.original / "bin" / "thingjobs"))
    before = unit.pid

    unit.queue("job", "again")

    assert unit.over("job").status == "SUCCEEDED"
    assert unit.ran == ["apply", "apply"]
    assert (unit.pid, unit.ended) == (before, [])


def test_an_agent_that_cannot_start_itself_again_says_so_and_is_started_by_the_service_manager(
    unit: Unit, eventually: Callable[..., Any]
) -> None:
    unit.handler("again", f"hold apply\n{AGAIN}", "apply")
    unit.start()
    unit.queue("job", "again")
    unit.at("apply")
    guard = unit.original / "guard"

    guard.rename(guard.with_name("away"))
    unit.go("apply")
    eventually(lambda: unit.ended)
    guard.with_name("away").rename(guard)

    assert unit.over("job").status == "SUCCEEDED"
    assert unit.ended[0] == 1
    assert f"cannot start again: {guard}: No such file or directory; whoever started the agent must" in (
        unit.agent.log_text()
    )


@SELDOM  # An observer is looked for 20 s after the last time.
def test_what_runs_beside_while_the_agent_starts_itself_again_is_watched_and_buried(unit: Unit) -> None:
    unit.handler("again", f"hold apply\n{AGAIN}", "apply")
    unit.handler("look", "hold look", "apply", observe=True)
    unit.start()
    unit.queue("job", "again")
    unit.at("apply")
    unit.queue("beside", "look")
    unit.at("look")

    unit.go("apply")
    assert unit.over("job").status == "SUCCEEDED"
    unit.go("look")

    assert unit.over("beside").status == "SUCCEEDED"
    assert unit.ran.count("apply") == 3  # Two of them are those of the job that wanted another agent.
    assert dead_children(unit.pid) == []


def dead_children(parent: int) -> list[str]:
    """Return those children of a process that ended and that it has not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == parent:
            found.append(stat.parent.name)
    return found


def test_at_a_desk_the_job_goes_on_as_well(tmp_path: Path) -> None:
    handler = tmp_path / "handlers" / "again"
    handler.parent.mkdir()
    handler.write_text(f"#!/bin/sh\n{AGAIN}\n")
    handler.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(f'[handlers]\ndirectory = "{handler.parent}"\n')
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name in ("first", "second"):
        (jobs / f"{name}.json").write_text(json.dumps({"handler": "again"}))

    argv = [sys.executable, "-m", "thingjobs", "run", "--local", str(jobs), "--once", "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "2 jobs: 2 SUCCEEDED" in done.stdout
