"""`thingjobs run`: the agent. With `--local FOLDER` the same agent on the embedded Jobs service, without a cloud."""

from __future__ import annotations

import logging
import os
import queue
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

from thingjobs import __version__, boot, policy
from thingjobs.cli import USAGE, complain, options
from thingjobs.config import check_files
from thingjobs.daemon import Daemon, Parts
from thingjobs.errors import ConfigError
from thingjobs.journal import Journal
from thingjobs.judging import Judge
from thingjobs.machine import Stopping
from thingjobs.machine.events import Stop
from thingjobs.model import Status
from thingjobs.notify import Notifier
from thingjobs.registry import Registry
from thingjobs.runner import INHERITED, Runner
from thingjobs.runner import Settings as RunnerSettings
from thingjobs.statusbox import StatusBox

if TYPE_CHECKING:
    import argparse

    from thingjobs.cli.console import Console
    from thingjobs.config import Config
    from thingjobs.ports import Transport
    from thingjobs.transport.local import LocalTransport

log = logging.getLogger("thingjobs")


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = commands.add_parser("run", help="run the agent", description=__doc__)
    options.add_config(parser)
    parser.add_argument(
        "--once", action="store_true", help="with --local: end when no job is left; exit 1 unless all SUCCEEDED"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Run the agent until it is told to stop.

    Raises:
        ConfigError: the configuration cannot be used.
        StateError: the state folder cannot be used.
    """
    if chosen.once and chosen.local is None:
        complain("--once goes with --local FOLDER")
        return USAGE
    config = options.load(chosen)
    _set_up_logging(quiet=chosen.local is not None, verbose=chosen.verbose)
    if chosen.local is not None:
        return _run_local(config, chosen)
    problems = check_files(config)
    if problems:
        raise ConfigError(problems)
    return _run_connected(config)


def _run_connected(config: Config) -> int:
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    journal = Journal(config.state.directory)
    journal.open()
    try:
        notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        parts = _parts(config, _transport(config), journal, inbox)
        _serve(Daemon(parts, inbox), inbox, config, notifier, patient=os.getpid() == 1)
        notifier.stopping()
    finally:
        journal.close()
    return 0


def _run_local(config: Config, chosen: argparse.Namespace) -> int:
    from thingjobs.cli.console import Console  # noqa: PLC0415 - an agent in service has no console
    from thingjobs.transport.local import LocalTransport  # noqa: PLC0415

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    journal = Journal(config.state.directory)
    journal.open()
    try:
        transport = LocalTransport(chosen.local, config.state.directory / "jobs.json", config.thing.name)
        console = Console(transport.service, config.thing.name, sys.stdout)
        console.begin(chosen.local, transport.unusable)
        daemon = Daemon(
            _parts(config, transport, journal, inbox),
            inbox,
            observe=console.observe,
            enough=_nothing_left(transport, config.thing.name) if chosen.once else None,
        )
        _serve(daemon, inbox, config, Notifier(), patient=True, console=console)
    finally:
        journal.close()
    return console.end(unusable=len(transport.unusable)) if chosen.once else 0


def _nothing_left(transport: LocalTransport, thing: str) -> Any:
    def enough(state: Any) -> bool:
        return not state.jobs and all(Status(view.status).terminal for view in transport.service.executions(thing))

    return enough


def _serve(
    daemon: Daemon,
    inbox: queue.SimpleQueue[Any],
    config: Config,
    notifier: Notifier,
    *,
    patient: bool,
    console: Console | None = None,
) -> None:
    """Run the loop with signals and the status socket around it."""
    _listen_for_signals(inbox, patient=patient, console=console)
    box = StatusBox(config.state.directory, inbox.put)
    box.start()
    try:
        daemon.run(started=notifier.ready)
    finally:
        box.stop()


def _listen_for_signals(inbox: queue.SimpleQueue[Any], *, patient: bool, console: Console | None) -> None:
    """SIGTERM and SIGINT end the agent.

    A service leaves a running verb to the next agent. Where there will be none (a terminal, `--once`, pid 1) the
    first signal waits for the verb, and the second stops it.
    """
    asked: list[int] = []

    def on_signal(number: int, frame: object) -> None:  # noqa: ARG001 - the signature is Python's
        asked.append(number)
        if not patient:
            inbox.put(Stop(Stopping.LEAVE))
            return
        if console is not None:
            console.stopping(again=len(asked) > 1)
        inbox.put(Stop(Stopping.WAIT if len(asked) == 1 else Stopping.CANCEL))

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)


def _parts(config: Config, transport: Transport, journal: Journal, inbox: queue.SimpleQueue[Any]) -> Parts:
    """Put the agent together."""
    boot_id = boot.boot_id(config.system.boot_id_file)
    registry = Registry(config.handlers.directory, config.state.directory / "handlers.json")
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    settings = RunnerSettings(
        state=config.state.directory,
        thing=config.thing.name,
        boot=boot_id,
        environment={**inherited, **config.handlers.environment},
    )
    return Parts(
        settings=policy.Settings(
            agent=f"thingjobs/{__version__}",
            only=config.jobs.only,
            step_timeout_minutes=config.jobs.step_timeout_minutes,
            progress_interval=config.jobs.progress_interval_seconds,
            may_reboot=bool(config.system.reboot),
        ),
        transport=transport,
        journal=journal,
        runner=Runner(settings, inbox.put),
        judge=Judge(config, registry),
        boot=boot_id,
        reboot=config.system.reboot,
        nonce=os.urandom(8).hex(),
        thing=config.thing.name,
    )


def _transport(config: Config) -> Transport:
    if config.connection.transport != "paho":
        problem = f'connection.transport = "{config.connection.transport}" is not in this release; write "paho"'
        raise ConfigError([problem])
    from thingjobs.transport.paho import Link, PahoTransport  # noqa: PLC0415 - --local needs no MQTT

    connection = config.connection
    roll = random.SystemRandom().random
    link = Link(
        host=connection.endpoint,
        port=connection.port,
        client_id=connection.client_id,
        thing=config.thing.name,
        keep_alive=connection.keep_alive_seconds,
        certificate=connection.certificate,
        private_key=connection.private_key,
        ca=connection.ca,
        version=5 if connection.mqtt_version == 5 else 4,
    )
    return PahoTransport(link, roll, policy.first_connect_delay(boot.clock(), roll()))


def _set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Log one line a fact to stderr; the journal of the system adds the time."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
