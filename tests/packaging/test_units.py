"""The units of systemd: valid, with a reason for each setting, and with none that handlers would inherit."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Pki, Require

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
UNITS = ("thingjobs.service", "thingjobs@.service")
#: Names itself, or says for whom the rest is.
PLAIN = {"Description", "Documentation", "WantedBy"}
#: What a child of the agent would have to live with (systemd.exec(5), systemd.resource-control(5)).
INHERITED = re.compile(
    r"Protect|Private|Restrict|SystemCall|Capability|NoNew|ReadOnly|ReadWrite|Inaccessible|Memory|CPU|IO|Limit[A-Z]|Nice|OOMScore"
    r"|LockPersonality|RemoveIPC|Dynamic|Root|UMask|Secure|Temporary|Device|IPAddress|Socket|AppArmor|Environment"
)
PATIENCE_SECONDS = 20.0


def settings(unit: str) -> list[tuple[str, str]]:
    """Return each setting of a unit in its order, and its value."""
    lines = (PACKAGING / "systemd" / unit).read_text().splitlines()
    return [(key, value) for key, sign, value in (line.partition("=") for line in lines) if sign and key.isalpha()]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(require: Require, unit: str, tmp_path: Path) -> None:
    program = require("systemd-analyze")
    text = (PACKAGING / "systemd" / unit).read_text()
    name = unit.replace("@", "@left")
    # The guard need not be installed here, but it must be one that can be started.
    (tmp_path / name).write_text(text.replace("/usr/lib/thingjobs/guard", str(PACKAGING / "guard/guard")))
    done = subprocess.run(
        [program, "verify", "--man=no", tmp_path / name], capture_output=True, text=True, timeout=60, check=False
    )

    said = [line for line in done.stderr.splitlines() if name in line]
    # systemd before 254.
    assert not [line for line in said if "Unknown key" not in line or "'DelegateSubgroup'" not in line]
    assert done.returncode == 0


@pytest.mark.parametrize("unit", UNITS)
def test_each_setting_has_its_reason_above_it(unit: str) -> None:
    before = ""
    for line in (PACKAGING / "systemd" / unit).read_text().splitlines():
        key, sign, _ = line.partition("=")
        if sign and key.isalpha() and key not in PLAIN:
            assert before.startswith("# "), line
        before = line


@pytest.mark.parametrize("unit", UNITS)
def test_no_setting_is_one_that_handlers_would_inherit(unit: str) -> None:
    assert not [key for key, _ in settings(unit) if INHERITED.match(key)]


def test_the_unit_of_an_instance_differs_in_its_files_alone() -> None:
    one, each = (dict(settings(unit)) for unit in UNITS)

    assert list(one) == list(each)
    different = {key for key in one if one[key] != each[key]}
    assert different == {"Description", "ConditionPathExists", "ExecStart", "SyslogIdentifier", "RuntimeDirectory"}


def test_two_agents_never_share_a_folder_in_memory() -> None:
    one, each = (dict(settings(unit))["RuntimeDirectory"].split() for unit in UNITS)

    # The first is what the agent is told, and it removes what is in there and no job of its own.
    assert one[0] == "thingjobs"
    assert each == ["thingjobs/things/%i"]


def test_the_agent_says_that_it_began_that_it_lives_and_that_it_ends(pki: Pki, tmp_path: Path) -> None:
    certificate, key = pki.device("pump-7")
    (tmp_path / "config.toml").write_text(
        f'[thing]\nname = "pump-7"\n[state]\ndirectory = "{tmp_path}/state"\n'
        f'[connection]\nendpoint = "127.0.0.1:1"\nca = "{pki.ca}"\n'
        f'certificate = "{certificate}"\nprivate_key = "{key}"\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_SECONDS)
        agent = subprocess.Popen(
            [sys.executable, "-I", "-m", "thingjobs", "run", "--config", str(tmp_path / "config.toml")],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"},
            stderr=subprocess.DEVNULL,
        )
        try:
            messages = (manager.recv(100).decode() for _ in iter(int, 1))
            began = until(messages, "READY=1")
            lives = [until(messages, "WATCHDOG=1") for _ in range(3)]
            agent.send_signal(signal.SIGTERM)
            ended = until(messages, "STOPPING=1")
        except BaseException:
            agent.kill()
            raise
        finally:
            agent.wait(PATIENCE_SECONDS)

    assert began == []
    assert lives == [[], [], []]
    assert set(ended) <= {"WATCHDOG=1"}
    assert agent.returncode == 0


def until(messages: Iterator[str], wanted: str) -> list[str]:
    """Return what was said before `wanted`."""
    before: list[str] = []
    for message in messages:
        if message == wanted:
            return before
        before.append(message)
    raise AssertionError(before)
