"""packaging/THREATS.md, what stops other accounts of the device and whoever writes documents: shown from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.envelope.keys import new_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.conftest import Cli, Local

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
CONFIG = """[thing]
name = "p"
[connection]
endpoint = "localhost"
certificate = ""
private_key = ""
ca = ""
"""
#: Tries as another user to read, to write and to list what is named on standard input, and prints what it could do.
STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.stdin.read().splitlines():
    for what, flags in (("read", os.O_RDONLY), ("written", os.O_WRONLY)):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK))
            print(path, what)
        except OSError:
            pass
    if os.path.isdir(path):
        try:
            print(path, "listed", os.listdir(path))
        except OSError:
            pass
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            print(path, "asked")
    except OSError:
        pass
"""


@as_root
def test_another_account_reads_nothing_of_a_job_that_runs(
    local: Local, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o011)
    local.handler(
        "hold",
        """echo secret; echo secret >"$JOB_DIR/mine"; echo >"$OUT/up"
while [ ! -e "$OUT/go" ]; do sleep 0.05; done""",
    )
    local.job("held", {"handler": "hold", "params": {"token": "secret"}})
    agent = local.start()
    eventually((local.out / "up").exists)

    paths = [local.state, *local.state.rglob("*")]
    told = subprocess.run(
        [sys.executable, "-c", STRANGER], input="\n".join(map(str, paths)), capture_output=True, text=True, check=True
    )
    (local.out / "go").touch()
    eventually(lambda: local.outcomes() == {"held": "SUCCEEDED"})
    agent.signal(signal.SIGTERM)
    agent.end()

    assert {path.name for path in paths} >= {"journal", "status.sock", "mine", "job.json", "lock"}
    # The code of handlers is nobody's secret, and neither is what they declare.
    harmless = (str(local.state / "pinned"), str(local.state / "handlers.json"))
    assert [line for line in told.stdout.splitlines() if not line.startswith(harmless)] == []
    assert "written" not in told.stdout


def test_what_was_claimed_before_goes_on_where_signatures_are_demanded_and_nothing_else_begins(
    local: Local, eventually: Callable[..., Any]
) -> None:
    """To end it is for whoever creates jobs to cancel it; what it changed is not undone by a key that is gone."""
    local.handler("hold", """echo >"$OUT/up"; while [ ! -e "$OUT/go" ]; do sleep 0.05; done""")
    for name in ("claimed", "waits"):
        local.job(name, {"handler": "hold"})
    agent = local.start()
    eventually((local.out / "up").exists)
    agent.signal(signal.SIGTERM)
    agent.end()

    (local.out / "keys").mkdir(mode=0o755)
    (local.out / "keys" / "release.pem").write_bytes(new_pair()[1])
    with local.config.open("a") as config:
        config.write(f'[signed]\nrequire = true\nkeys = "{local.out}/keys"\n')
    (local.out / "go").touch()
    local.run()

    assert local.outcomes() == {"claimed": "SUCCEEDED", "waits": "REJECTED"}


@pytest.mark.parametrize("which", ["config.toml", "conf.d", "conf.d/10-more.toml"])
def test_an_agent_does_not_start_on_a_configuration_that_others_may_write(cli: Cli, which: str) -> None:
    folder = cli.folder / "conf.d"
    folder.mkdir(mode=0o755)
    main = folder / "config.toml" if which == "config.toml" else folder / "10-more.toml"
    main.write_text(CONFIG)
    main.chmod(0o644)
    changed = folder if which == "conf.d" else main
    changed.chmod(0o775 if which == "conf.d" else 0o664)

    told = cli("run", "--config", main if which == "config.toml" else folder)

    assert told.code == 2
    assert f"{changed}: others may change it, and what it says is run; run chmod go-w {changed}" in told.err


def test_an_agent_does_not_start_where_others_can_put_another_configuration_in_the_place_of_its_own(cli: Cli) -> None:
    folder = cli.folder / "open"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    (folder / "config.toml").chmod(0o644)
    folder.chmod(0o777)

    told = cli("run", "--config", folder / "config.toml")

    assert told.code == 2
    assert f"{folder} may be written by others; run chmod go-w {folder}" in told.err
    assert "Traceback" not in told.err


@as_root
def test_an_agent_does_not_start_on_a_configuration_of_another_account(cli: Cli) -> None:
    config = cli.folder / "config.toml"
    config.write_text(CONFIG)
    config.chmod(0o644)
    os.chown(config, 65534, -1)

    told = cli("run", "--config", config)

    assert told.code == 2
    assert f"{config} belongs to user 65534, not to root; run chown -h root {config}" in told.err


@pytest.mark.parametrize(
    "document",
    [
        {"handler": "../bait"},
        {"handler": "/bin/sh"},
        {"handler": "..", "params": {}},
        {"operation": "../bait"},
        {"operation": "..", "args": []},
        {"operation": "bait", "path": "{}"},
        {"version": "1.0", "steps": [{"action": {"name": "a", "type": "runHandler", "input": {"handler": "../bait"}}}]},
        {"version": "1.0", "steps": [{"action": {"name": "a", "type": "runHandler", "input": {"handler": "b\0"}}}]},
    ],
    ids=str,
)
def test_a_name_in_a_document_never_leads_out_of_its_folder(cli: Cli, local: Local, document: Any) -> None:
    bait = local.handler("../bait", 'echo >"$OUT/taken"')
    document = {key: str(bait.parent) if value == "{}" else value for key, value in document.items()}
    local.job("led", document)

    local.run()

    assert local.outcomes() == {"led": "REJECTED"}
    assert not (local.out / "taken").exists()


def test_a_handler_cannot_have_the_agent_write_elsewhere(local: Local) -> None:
    """It puts links where the agent writes for it; what they lead to stays as it is."""
    victim = local.out / "victim"
    victim.write_text("mine")
    local.handler(
        "links",
        """for name in job.json .job.json.new; do ln -sf "$OUT/victim" "$JOB_DIR/$name"; done
echo '{"refresh": "params"}' >>"$JOB_EVENTS"
while [ -L "$JOB_DIR/job.json" ]; do sleep 0.05; done""",
    )
    local.job("linked", {"handler": "links"})

    local.run()

    assert local.outcomes() == {"linked": "SUCCEEDED"}
    assert victim.read_text() == "mine"
