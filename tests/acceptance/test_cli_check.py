"""`thingjobs check` as a person and as a program see it: lines, marks, what to do, exit codes, JSON."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Cli
    from tests.conftest import Mosquitto, Pki

THING = "pump-7"
KEYS = {"check", "mark", "text", "todo"}
CHECKS = [
    *("config", "agent", "files", "certificate", "clock", "name", "port", "tls", "connect", "subscribe", "jobs"),
    *("client id", "handlers", "space", "state"),
]
#: What depends on the machine that the tests run on: who sets its clock, and what its disks are.
MACHINES_OWN = {"clock", "space", "state"}


@pytest.fixture
def device(cli: Cli, pki: Pki, mosquitto: Mosquitto) -> Path:
    """The configuration of a good device."""
    certificate, key = pki.device(THING)
    for name in ("handlers", "scripts"):
        (cli.folder / name).mkdir(mode=0o755)
    path = cli.folder / "config.toml"
    path.write_text(
        f"""[thing]
name = "{THING}"
[connection]
endpoint = "localhost"
port = {mosquitto.port}
certificate = "{certificate}"
private_key = "{key}"
ca = "{pki.ca}"
[handlers]
directory = "handlers"
scripts = "scripts"
user = "nobody"
allow_root = ["*"]
[state]
directory = "state"
"""
    )
    path.chmod(0o644)
    return path


@pytest.fixture
def served(mosquitto: Mosquitto, pki: Pki) -> Iterator[None]:
    """The Jobs service behind the broker."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    with BrokerJobsService(JobsService(), "localhost", mosquitto.port, tls=context):
        yield


@pytest.mark.usefixtures("served")
def test_a_good_device_is_called_so_in_keys_that_programs_can_rely_on(
    cli: Cli, device: Path, mosquitto: Mosquitto, snapshot: Callable[[Path], object]
) -> None:
    (cli.folder / "tmp").mkdir()
    before = snapshot(cli.folder)
    told = cli("check", "--config", device, "--json", environment={"TMPDIR": str(cli.folder / "tmp")})
    found = told.json()
    assert list(found) == ["thing", "endpoint", "transport", "ok", "findings"]
    assert (found["thing"], found["endpoint"], found["transport"]) == (THING, f"localhost:{mosquitto.port}", "paho")
    assert all(set(one) == KEYS for one in found["findings"])
    assert list(dict.fromkeys(one["check"] for one in found["findings"])) == CHECKS
    others = [one for one in found["findings"] if one["check"] not in MACHINES_OWN]
    assert [one for one in others if one["mark"] != "ok"] == []
    assert found["ok"] is (told.code == 0)
    assert told.err == ""
    assert snapshot(cli.folder) == before


def test_a_failure_says_what_to_do_on_the_next_line_and_what_depends_on_it_is_skipped(
    cli: Cli, device: Path, mosquitto: Mosquitto
) -> None:
    mosquitto.stop()
    told = cli("check", "--config", device)
    assert told.code == 1
    first, *lines = told.out.splitlines()
    assert first == f"thing pump-7 at localhost:{mosquitto.port}, by paho"
    at = next(index for index, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[at] == (
        f"FAILED   port         localhost:{mosquitto.port} refuses the connection: nobody listens on that port"
    )
    assert lines[at + 1].startswith(" " * 22 + "→ see that connection.endpoint and connection.port are right")
    assert lines[at + 2] == "skipped  tls          because of port, and so are connect, subscribe, jobs and client id"
    assert sum("because of" in line for line in lines) == 1
    assert lines[-1].endswith(" failed: begin with the first")
    assert "\x1b" not in told.out


def test_a_configuration_that_cannot_be_used_is_exit_2_with_all_problems_at_once(cli: Cli, device: Path) -> None:
    device.write_text('[thing]\nname = "a b"\n[connection]\nport = 99999\n')
    told = cli("check", "--config", device)
    assert (told.code, told.err) == (2, "")
    failed = [line for line in told.out.splitlines() if line.startswith("FAILED")]
    assert [re.split(r"  +", line)[1] for line in failed] == ["config"] * 3
    assert [word for line in failed for word in re.findall(r"thing\.name|connection\.\w+", line)][:3] == [
        "thing.name",
        "connection.port",
        "connection.endpoint",
    ]
    found = cli("check", "--config", device, "--json").json()
    assert (found["ok"], found["endpoint"]) == (False, "")
    assert [one["check"] for one in found["findings"]] == ["config"] * 3 + CHECKS[1:]


def test_a_setting_with_a_wrong_name_is_one_failure_and_not_missing_as_well(cli: Cli, device: Path) -> None:
    device.write_text(device.read_text().replace("endpoint =", "endpont ="))
    told = cli("check", "--config", device)
    first, then, skipped, end = told.out.splitlines()
    assert first == f"FAILED   config       connection.endpont (in {device}) is not a setting"
    assert then.strip() == "→ did you mean connection.endpoint?"
    assert skipped.startswith("skipped  agent        because of config, and so are files, certificate, clock, ")
    assert end == "1 failed: begin with the first"


def test_a_request_that_the_broker_refuses_is_told_once_and_nowhere_but_in_the_list(
    cli: Cli, device: Path, mosquitto: Mosquitto
) -> None:
    rules, config = mosquitto.log.parent / "acl", mosquitto.log.parent / "mosquitto.conf"
    rules.write_text("topic read #\n")
    rules.chmod(0o600)
    mosquitto.stop()
    config.write_text(f"{config.read_text()}acl_file {rules}\n")
    mosquitto.start()
    told = cli("check", "--config", device)
    assert (told.code, told.err) == (1, "")
    assert told.out.count("Not authorized") == 1
    assert "skipped  client id    because of jobs" in told.out.splitlines()


def test_an_agent_that_may_not_be_asked_keeps_its_connection(cli: Cli, device: Path, mosquitto: Mosquitto) -> None:
    state = cli.folder / "state"
    state.mkdir()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(state / "status.sock"))
        agent.listen()

        def hang_up() -> None:
            agent.accept()[0].close()

        threading.Thread(target=hang_up).start()
        told = cli("check", "--config", device)
    assert told.code == 0
    assert told.out.splitlines()[-1].startswith("nothing failed, and 4 could not be found out")
    (said,) = (line for line in told.out.splitlines() if line.startswith("skipped  connect"))
    assert "an agent may run here as pump-7, and does not say so" in said
    assert " as pump-7 " not in mosquitto.log.read_text()


@pytest.mark.usefixtures("served")
def test_another_client_that_takes_its_time_to_come_back_is_found_all_the_same(
    cli: Cli, device: Path, mosquitto: Mosquitto, pki: Pki, eventually: Callable[..., Any]
) -> None:
    def come() -> mqtt.Client:
        rival = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=THING, reconnect_on_failure=False)
        certificate, key = pki.device("pump-8")
        rival.tls_set(str(pki.ca), str(certificate), str(key))
        rival.connect("localhost", mosquitto.port)
        return rival

    def answers() -> int:
        return mosquitto.log.read_text().count(f"Sending PUBLISH to {THING} ")

    checking, rivals = cli.start("check", "--config", device), []
    for known, seconds in ((0, 0.0), (1, 4.0)):
        eventually(lambda known=known: answers() > known)
        time.sleep(seconds)  # As an agent does that was thrown out again and again.
        rivals.append(come())
    told = checking.end()
    for rival in rivals:
        rival.disconnect()
    assert told.code == 1
    (failed,) = (line for line in told.out.splitlines() if line.startswith("FAILED"))
    assert failed.startswith("FAILED   client id    ")
    assert "another client came as pump-7" in failed


def test_a_file_that_is_missing_and_a_wrong_call_are_exit_2(cli: Cli, tmp_path: Path) -> None:
    told = cli("check", "--config", tmp_path / "nothing.toml")
    assert told.code == 2
    assert "there is no such file" in told.out
    assert cli("check", "--jsn").code == 2


def test_on_a_terminal_marks_are_coloured_and_lines_are_wrapped(cli: Cli, device: Path, mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    terminal = cli.on_terminal("check", "--config", device, columns=80)
    assert terminal.end() == 1
    assert "\x1b[31mFAILED\x1b[0m" in terminal.shown
    assert "\x1b[32mok\x1b[0m" in terminal.shown
    assert terminal.widest <= 80
    assert not any("checking" in line for line in terminal.lines())
