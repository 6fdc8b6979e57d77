"""Calling the program: its help, its version, and what it says to a wrong call."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Cli

COMMANDS = ("run", "dry-run", "validate", "status")


def test_the_program_alone_prints_its_help_and_exits_2(cli: Cli) -> None:
    told = cli()

    assert told.code == 2
    assert told.out == ""
    assert told.err == cli("--help").out


def test_the_help_names_every_command_the_exit_codes_and_what_to_try_first(cli: Cli) -> None:
    told = cli("--help")

    assert told.code == 0
    assert all(f"\n    {command} " in told.out for command in COMMANDS)
    assert "thingjobs run --local FOLDER --once" in told.out
    assert "exit codes: 0 done; 1 " in told.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_within_80_columns(cli: Cli, command: str) -> None:
    told = cli(command, "--help", environment={"COLUMNS": "80"})

    assert told.code == 0
    assert told.out.startswith(f"usage: thingjobs {command} ")
    assert "--config FILE" in told.out
    assert max(map(len, told.out.splitlines())) <= 80


def test_the_installed_command_and_the_module_are_the_same_program(cli: Cli) -> None:
    command = Path(sys.executable).with_name("thingjobs")

    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)

    assert told.stdout == cli("--version").out == f"thingjobs {version('thingjobs')}\n"


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["nonsense"], "thingjobs"),
        (["--nope"], "thingjobs"),
        (["run", "--nope"], "thingjobs run"),
        (["run", "--on"], "thingjobs run"),
        (["run", "somewhere"], "thingjobs run"),
        (["dry-run"], "thingjobs dry-run"),
        (["validate", "--json"], "thingjobs validate"),
        (["status", "--local"], "thingjobs status"),
    ],
)
def test_a_wrong_call_exits_2_and_shows_the_usage_of_that_command(cli: Cli, words: list[str], usage: str) -> None:
    told = cli(*words)

    assert told.code == 2
    assert told.out == ""
    assert told.err.startswith(f"usage: {usage} [")


def test_once_without_a_folder_is_a_wrong_call(cli: Cli) -> None:
    told = cli("run", "--once")

    assert told.code == 2
    assert told.err == "thingjobs: --once goes with --local FOLDER\n"


def test_a_reader_that_goes_away_ends_the_program_without_a_complaint(cli: Cli) -> None:
    document = cli.folder / "document.json"
    document.write_text("{}")
    argv = [sys.executable, "-m", "thingjobs", "validate", *[str(document)] * 200]

    with subprocess.Popen(
        argv, cwd=cli.folder, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert (process.returncode, said) == (1, b"")


WRITERS = ["handlers list", "status --local {jobs}", "validate {jobs}/a.json", "run --local {jobs} --once"]


def shell(cli: Cli, text: str) -> subprocess.CompletedProcess[str]:
    (cli.folder / "jobs" / ".thingjobs" / "journal").mkdir(parents=True, exist_ok=True)
    (cli.folder / "jobs" / "a.json").write_text('{"handler": "x"}', encoding="utf-8")
    argv = ["sh", "-c", text.replace("thingjobs", f"{sys.executable} -m thingjobs").format(jobs=cli.folder / "jobs")]
    return subprocess.run(argv, capture_output=True, text=True, cwd=cli.folder, check=False)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_told_in_a_line(cli: Cli, command: str, output: str) -> None:
    told = shell(cli, f"thingjobs {command} {output}")

    assert "Traceback" not in told.stderr
    if output == ">/dev/full" and not command.startswith("run"):
        assert told.stderr == "thingjobs: cannot write the output: No space left on device\n"
        assert told.returncode == 1


@pytest.mark.parametrize("command", ["handlers list", "validate x.json", "run --local . --once"])
def test_a_folder_that_is_gone_is_told_in_a_line(cli: Cli, command: str) -> None:
    told = shell(cli, f"mkdir gone && cd gone && rmdir ../gone && thingjobs {command}")

    assert "Traceback" not in told.stderr
    assert told.stderr == "thingjobs: the current folder is gone; cd to another one\n"
