"""A configuration that is wrong: everything that is wrong with it at once, and what to write instead."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.conftest import Cli, Running
    from tests.conftest import Pki

WRONG = """\
[thing]
nam = "pump-7"
[connection]
endpoint = "https://abc-ats.iot.eu-west-1.amazonaws.com"
port = "8883"
keep_alive_seconds = 5
[jobz]
only = ["*"]
[handlers]
allow = "hello"
"""
#: What is said of each, in this order.
COMPLAINTS = (
    ("thing.nam", "did you mean thing.name?"),
    ("connection.endpoint", "a host name without https://"),
    ("connection.port", "a whole number without quotes"),
    ("connection.keep_alive_seconds", "must be 30..1200 seconds"),
    ("[jobz]", "did you mean [jobs]?"),
    ("handlers.allow", 'for example ["*"]'),
)


def written(cli: Cli, text: str) -> Path:
    """Write a configuration."""
    path = cli.folder / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("command", ["run", "status", "validate", "dry-run"])
def test_all_errors_are_told_at_once_each_with_its_key_and_a_hint(cli: Cli, command: str) -> None:
    words = [] if command in ("run", "status") else ["-"]

    told = cli(command, "--config", written(cli, WRONG), *words)

    assert told.code == 2
    assert told.out == ""
    first, *lines = told.err.splitlines()
    assert first == "thingjobs: the configuration cannot be used:"
    assert len(lines) == len(COMPLAINTS)
    for line, (key, hint) in zip(lines, COMPLAINTS, strict=True):
        assert line.startswith(f"  - {key}")
        assert hint in line


def test_a_single_error_is_one_line(cli: Cli) -> None:
    told = cli("run", "--config", written(cli, "[thing]\nname = \n"))

    assert told.code == 2
    assert (
        told.err
        == f"thingjobs: {cli.folder}/config.toml, line 2, column 8: is not TOML: invalid value; put that place right\n"
    )


def test_a_configuration_that_is_not_there_is_named(cli: Cli) -> None:
    told = cli("run", "--config", "nowhere.toml")

    assert (told.code, told.out) == (2, "")
    assert (
        told.err
        == f"thingjobs: {cli.folder}/nowhere.toml: there is no such file; write it, or name another one with --config\n"
    )


@pytest.mark.skipif(Path("/etc/thingjobs").exists(), reason="this machine has a configuration")
def test_without_any_configuration_the_ways_out_are_told(cli: Cli) -> None:
    told = cli("run")

    assert told.code == 2
    assert "/etc/thingjobs/config.toml" in told.err
    assert "--config" in told.err
    assert "--local FOLDER" in told.err


def test_certificate_and_key_that_are_missing_or_in_danger_are_named(cli: Cli) -> None:
    key = cli.folder / "device.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    key.chmod(0o644)
    config = written(
        cli,
        '[thing]\nname = "pump-7"\n[connection]\nendpoint = "localhost"\nca = "ca.pem"\n'
        'certificate = "device.pem"\nprivate_key = "device.key"\n[state]\ndirectory = "state"\n',
    )

    told = cli("run", "--config", config)

    assert told.code == 2
    assert f"connection.certificate: there is no file {cli.folder}/device.pem; put it there" in told.err
    assert f"connection.private_key: others may use {key} (mode 0644); run chmod 600 {key}" in told.err
    assert f"connection.ca: there is no file {cli.folder}/ca.pem" in told.err
    assert not (cli.folder / "state").exists()


def test_a_folder_of_handlers_that_is_not_there_is_named_in_a_local_run_too(cli: Cli) -> None:
    (cli.folder / "jobs").mkdir()

    told = cli("run", "--local", "jobs", "--once", "--config", written(cli, '[handlers]\ndirectory = "handlrs"\n'))

    assert told.code == 2
    assert told.err.startswith(f"thingjobs: handlers.directory: there is no folder {cli.folder}/handlrs; make it")


def test_documents_are_judged_without_a_connection_in_the_configuration(cli: Cli, examples: Path) -> None:
    told = cli("validate", "--config", examples / "demo.toml", examples / "jobs" / "1-run-command.json")

    assert told.code == 0, told.err


# --- a cloud that cannot be reached -----------------------------------------------------------------------------------


def connecting(cli: Cli, pki: Pki, endpoint: str) -> Running:
    """Start an agent that will not get a connection."""
    certificate, key = pki.device("pump-7")
    config = written(
        cli,
        f'[thing]\nname = "pump-7"\n[connection]\nendpoint = "{endpoint}"\ncertificate = "{certificate}"\n'
        f'private_key = "{key}"\nca = "{pki.ca}"\n[state]\ndirectory = "state"\n'
        '[handlers]\nuser = "nobody"\n',
    )
    return cli.start("run", "--config", config)


def test_an_endpoint_that_does_not_resolve_is_tried_again_with_one_clear_line_each(
    cli: Cli, pki: Pki, eventually: Callable[..., object]
) -> None:
    agent = connecting(cli, pki, "nowhere.invalid")

    eventually(lambda: agent.told.count("cannot connect") >= 2, 60)
    status = cli("status", "--config", "config.toml")
    agent.signal(signal.SIGTERM)
    told = agent.end()

    assert status.out.startswith("thing pump-7: the agent runs, without a connection")
    assert "  why   the name nowhere.invalid cannot be resolved" in status.out
    assert told.code == 0
    first, *lines, last = told.err.splitlines()
    assert first.endswith(f"thing pump-7: jobs from nowhere.invalid:8883, state in {cli.folder}/state")
    tries = [line for line in lines if "cannot connect" in line]
    assert all(line.startswith("WARNING cannot connect: the name nowhere.invalid cannot be resolved") for line in tries)
    assert all("check connection.endpoint" in line for line in tries)
    assert set(lines) - set(tries) == {"INFO ending"}
    assert last == "INFO ended"


def test_a_port_where_nobody_listens_is_tried_again(cli: Cli, pki: Pki, eventually: Callable[..., object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    agent = connecting(cli, pki, f"127.0.0.1:{port}")

    eventually(lambda: agent.told.count("cannot connect") >= 2, 60)
    agent.signal(signal.SIGINT)

    told = agent.end()
    assert told.code == 0
    assert f"WARNING cannot connect: 127.0.0.1:{port}: Connection refused" in told.err
