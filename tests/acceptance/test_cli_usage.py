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
