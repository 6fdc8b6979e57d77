"""The main job over every transport: a real agent process, a real handler, jobs made in the account.

Where the service can push, there are two jobs for each way: one that waits when the agent comes, and one that comes
while it is connected.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.aws.asking import NoAnswerError
from tests.aws.world import Finding, NotHereError

from thingjobs import config as configuration
from thingjobs import statusbox
from thingjobs.errors import StateError
from thingjobs.runner.sweep import end_verbs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.aws.world import World

    from thingjobs.config import Config

HANDLER = "thingjobs-check-greet"
#: How long the agent may take to connect, and a job until it is over.
CONNECT_SECONDS, JOB_SECONDS = 60.0, 90.0
_HANDLER_TEXT = f"""#!{sys.executable}
import json, os
with open(os.path.join(os.environ["JOB_DIR"], "job.json"), encoding="utf-8") as file:
    word = json.load(file)["params"]["word"]
with open(os.environ["JOB_EVENTS"], "a", encoding="utf-8") as file:
    print(json.dumps({{"progress": 50, "message": "greeting", "details": {{"word": word}}}}), file=file)
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the Jobs service.

    Attributes:
        port: that AWS IoT has for it.
        signed: AWS credentials say who the device is, and no certificate is shown.
        emulated: whether an emulator may have it, at its one port.
        module: a library that it cannot do without.
    """

    name: str
    transport: str
    port: int
    websocket: bool = False
    signed: bool = False
    emulated: bool = False
    module: str = ""

    @property
    def pushed(self) -> bool:
        return self.transport != "https"


WAYS = (
    Way("paho 8883", "paho", 8883, emulated=True),
    Way("paho 443 with ALPN", "paho", 443),
    Way("paho WebSocket 443, signed", "paho", 443, websocket=True, signed=True),
    Way("awsiot 8883", "awsiot", 8883, emulated=True, module="awscrt"),
    Way("https 8443", "https", 8443),
    Way("https 443 with ALPN", "https", 443),
    Way("https 443, signed", "https", 443, signed=True),
)


def config_text(world: World, way: Way, folder: Path, cloud: str = "") -> str:
    """Return the configuration of an agent that goes this way."""
    account = world.account
    host, port = account.mqtt if account.emulated else (account.data, way.port)
    shown = ("", "") if way.signed else (world.folder / "device.pem", world.folder / "device.key")
    value = json.dumps
    return f"""
[thing]
name = {value(world.thing)}
[connection]
transport = {value(way.transport)}
endpoint = {value(host)}
port = {port}
websocket = {value(way.websocket)}
certificate = {value(str(shown[0]))}
private_key = {value(str(shown[1]))}
ca = {value(str(account.ca.absolute()) if account.ca else "")}
region = {value(account.region if way.signed else "")}
[handlers]
directory = {value(str(folder / "handlers"))}
allow = [{value(HANDLER)}]
allow_root = [{value(HANDLER)}]
[system]
reboot = []
[state]
directory = {value(str(folder / "state"))}
{cloud}
"""


def config_of(world: World, way: Way, cloud: str = "") -> Config:
    """Return that configuration as the agent understands it.

    Raises:
        ConfigError: it is none.
    """
    path = world.folder / "for-the-policy.toml"
    path.write_text(config_text(world, way, world.folder, cloud), encoding="utf-8")
    return configuration.load([path], environment={})


def main_job(way: Way) -> Callable[[World], Finding]:
    """Return what runs the main job this way."""
    return functools.partial(_main_job, way)


def _main_job(way: Way, world: World) -> Finding:
    if world.account.emulated and not way.emulated:
        raise NotHereError("an emulator has MQTT with certificates at one port, and nothing else for devices")
    if way.module and not importlib.util.find_spec(way.module):
        raise NotHereError(f"{way.module} is not installed: pip install 'thingjobs[{way.transport}]'")
    with _waiting_job(world) as (waiting, word), _agent(world, way) as agent:
        seen = [_outcome(world, agent, waiting, word)]
        if way.pushed:
            agent.connected(world)
            with _waiting_job(world, wait=False) as (told, another):
                seen.append(_outcome(world, agent, told, another))
    return Finding("; ".join(seen), fits=all(each.startswith("SUCCEEDED") for each in seen))


@contextlib.contextmanager
def _waiting_job(world: World, *, wait: bool = True) -> Iterator[tuple[str, str]]:
    word = uuid.uuid4().hex[:12]
    with world.job({"handler": HANDLER, "params": {"word": word}}) as job_id:
        if wait:
            world.rolled_out(job_id)
        yield job_id, word


def _outcome(world: World, agent: Agent, job_id: str, word: str) -> str:
    """Wait until a job is over; return how it ended."""

    def over() -> str:
        agent.check()
        found = world.execution(job_id)
        if found.get("status", "QUEUED") in ("QUEUED", "IN_PROGRESS"):
            return ""
        details = found.get("statusDetails", {}).get("detailsMap", {})
        if found["status"] != "SUCCEEDED" or details.get("word") == word:
            return f"{found['status']} {details.get('reason', '')}".strip()
        return "the handler's details are missing"

    return world.stop.until(over, JOB_SECONDS) or f"not over after {JOB_SECONDS:.0f} s"


class Agent:
    """`thingjobs run` with a configuration of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._state = folder / "state"
        self.log = folder / "agent.log"
        tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        argv = [*tied, sys.executable, "-m", "thingjobs", "run", "--verbose", "--config", str(folder / "config.toml")]
        with self.log.open("wb") as log:
            # Ctrl-C is for us, and we end it; it ends with us if we are killed.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            NoAnswerError: it has ended by itself.
        """
        if (code := self._process.poll()) is not None:
            raise NoAnswerError(f"the agent ended with exit code {code}; its log is in the transcript")

    def connected(self, world: World) -> None:
        """Wait until it is connected.

        Raises:
            NoAnswerError: it is not, in time.
        """

        def is_connected() -> bool:
            self.check()
            with contextlib.suppress(StateError):
                return bool((statusbox.ask(self._state) or {}).get("connected"))
            return False

        if not world.stop.until(is_connected, CONNECT_SECONDS):
            raise NoAnswerError(
                f"the agent does not connect within {CONNECT_SECONDS:.0f} s; its log is in the transcript"
            )

    def end(self) -> None:
        """End it, whatever it does, and a handler that it left to the next agent: there is none."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for folder in self._state.glob("jobs/*"):
            end_verbs(folder)


@contextlib.contextmanager
def _agent(world: World, way: Way) -> Iterator[Agent]:
    folder = world.folder / way.name.replace(" ", "-").replace(",", "")
    handlers = folder / "handlers"
    handlers.mkdir(parents=True)
    handler = handlers / HANDLER
    handler.write_text(_HANDLER_TEXT, encoding="utf-8")
    handler.chmod(0o755)
    (folder / "config.toml").write_text(config_text(world, way, folder), encoding="utf-8")
    agent = Agent(folder, _environment(world, way))
    try:
        yield agent
    finally:
        agent.end()
        world.transcript.note(f"  the agent's log:\n{agent.log.read_text(encoding='utf-8', errors='replace')}")


def _environment(world: World, way: Way) -> dict[str, str]:
    """Return what the agent finds around it: AWS credentials only where this way is signed with them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    held = world.account.credentials
    keys = {
        "AWS_ACCESS_KEY_ID": held.access_key_id,
        "AWS_SECRET_ACCESS_KEY": held.secret_access_key,
        "AWS_SESSION_TOKEN": held.session_token,
    }
    return {**kept, **{name: value for name, value in keys.items() if way.signed and value}}
