"""Runs the agent. With --local FOLDER the same agent runs on an embedded Jobs service, without a cloud.

SIGTERM and SIGINT (Ctrl-C) end it: a step that is running goes on, and the next agent takes it up again. On a
terminal, with --once, with --patient or as process 1 the first signal waits for that step, and the second stops it.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from thingjobs import __version__, belongings, boot, clock, guard, policy, trusted
from thingjobs.cli import FAILED, USAGE, complain, options, signals
from thingjobs.cloud_desk import Desk, source_of
from thingjobs.config import check_sources
from thingjobs.daemon import Asked, Daemon
from thingjobs.errors import ConfigError
from thingjobs.gates import Gates
from thingjobs.journal import Journal
from thingjobs.judging import Judge, missing_user, registry_for
from thingjobs.machine import Stopping
from thingjobs.machine.events import Stop
from thingjobs.model import JobId
from thingjobs.notify import Notifier, Pulse, every
from thingjobs.parts import Parts
from thingjobs.runner import Runner
from thingjobs.seeing import logs
from thingjobs.statusbox import StatusBox

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from thingjobs.cli.console import Console
    from thingjobs.config import Config
    from thingjobs.machine import State
    from thingjobs.machine.effects import Note
    from thingjobs.ports import ShadowTransport, Tell, Transport
    from thingjobs.seeing.reporter import Reporter
    from thingjobs.transport.local import LocalTransport

    Observer = Callable[[State, State, Sequence[Note]], None]

log = logging.getLogger("thingjobs")


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "run", "run the agent", __doc__)
    options.add_config(parser)
    parser.add_argument(
        "--once", action="store_true", help="with --local: end when no job is left; exit 1 unless all SUCCEEDED"
    )
    parser.add_argument(
        "--patient", action="store_true", help="where nothing outlives the agent: when told to end, wait for the step"
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
    if chosen.local is not None:
        return _run_local(config, chosen)
    # Whoever tries something with --local is its own operator: only a service can be had to run what others wrote.
    sources = options.sources(chosen)
    _check(config, [*check_sources(sources), *belongings.problems(config, sources)])
    _set_up_logging(logging.DEBUG if chosen.verbose else logging.INFO, config)
    return _run_connected(config, patient=chosen.patient or _is_patient())


def _check(config: Config, more: Sequence[str] = ()) -> None:
    """Refuse a configuration whose files cannot be used or trusted.

    Raises:
        ConfigError: with all that is wrong.
    """
    if problems := [*more, *trusted.problems(config)]:
        raise ConfigError(problems)


def _run_connected(config: Config, *, patient: bool) -> int:
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    journal = Journal(config.state.directory)
    journal.open()
    try:
        transport = _transport(config)
        notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        where = f"{config.connection.endpoint}:{config.connection.port}"
        log.info(
            "thingjobs %s, thing %s: jobs from %s, state in %s",
            *(__version__, config.thing.name, where, config.state.directory),
        )
        if missing := missing_user(config):
            log.warning("%s", missing)
        guarded = guard.found(os.environ)
        reached = guarded.reached if guarded else _nothing
        daemon = Daemon(
            _parts(config, transport, journal, inbox, transport.tell), inbox, observe=_log_ending, reached=reached
        )
        again = _serve(daemon, inbox, config, notifier, patient=patient)
        if not again:
            notifier.stopping()
            log.info("ended")
    finally:
        journal.close()
    if again:
        guard.start_again(guarded)
        return FAILED
    return 0


def _nothing() -> None:
    """Nobody wants to know."""


def _run_local(config: Config, chosen: argparse.Namespace) -> int:
    from thingjobs.cli.console import Console  # noqa: PLC0415 - an agent in service has no console
    from thingjobs.transport.local import KEPT, LocalTransport  # noqa: PLC0415

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    journal = Journal(config.state.directory)
    journal.open()
    try:
        _check(config)
        transport = LocalTransport(chosen.local, config.state.directory / KEPT, config.thing.name)
        console = Console(transport.service, config.thing.name, sys.stdout, config.state.directory)
        _set_up_logging(logging.DEBUG if chosen.verbose else logging.ERROR, config, console.erase)
        console.begin(chosen.local, transport.unusable, once=chosen.once)
        transport.tell = console.left_out
        daemon = Daemon(
            _parts(config, transport, journal, inbox),
            inbox,
            observe=_shown_on(console),
            enough=_nothing_left(transport, config.thing.name) if chosen.once else None,
        )
        again = _serve(daemon, inbox, config, Notifier(), patient=chosen.once or chosen.patient or _is_patient())
    finally:
        journal.close()
    if again:
        guard.start_again(None)
    return console.end(unusable=len(transport.unusable), once=chosen.once)


def _nothing_left(transport: LocalTransport, thing: str) -> Callable[[State], bool]:
    def enough(state: State) -> bool:
        pending = [view for view in transport.service.executions(thing) if view.pending]
        return not state.jobs and not any(state.settings.ours(JobId(view.job_id)) for view in pending)

    return enough


def _serve(daemon: Daemon, inbox: queue.SimpleQueue[Any], config: Config, notifier: Notifier, *, patient: bool) -> bool:
    """Run the loop with signals and the status socket around it; return whether the agent is to be started again."""
    box = StatusBox(config.state.directory, inbox.put)
    told: list[int] = []

    def heard(count: int) -> None:
        told.append(count)
        inbox.put(_ending(count, patient=patient))

    with signals.told_of(heard):
        box.start()
        try:
            pulse = Pulse(notifier, every(os.environ, os.getpid()))
            gc.freeze()  # All of this stays as long as the agent: the collector need not look at it every few jobs.
            daemon.run(started=notifier.ready, renewed=box.renew, pulse=pulse)
        finally:
            box.stop()
    return daemon.restart and not told  # Whoever ends it does not want it to begin again.


# --- ending -------------------------------------------------------------------------------------------------------


def _is_patient() -> bool:
    """Whether the agent should wait for a running verb when it is told to end: no next agent will come by itself."""
    return os.getpid() == 1 or sys.stdout.isatty() or sys.stderr.isatty()


def _ending(count: int, *, patient: bool) -> Stop:
    """Return what the first, second … signal asks for.

    A service leaves a running verb to the next agent; a patient one waits for the verb, and stops it when it is asked
    again.
    """
    if not patient:
        return Stop(Stopping.LEAVE)
    return Stop(Stopping.WAIT if count == 1 else Stopping.CANCEL)


def _shown_on(console: Console) -> Observer:
    def observe(before: State, after: State, notes: Sequence[Note]) -> None:  # noqa: ARG001 - the daemon logs notes
        console.observe(after)
        if before.stopping is not after.stopping and (text := _how_it_ends(after)):
            console.say(text)

    return observe


def _log_ending(before: State, after: State, notes: Sequence[Note]) -> None:  # noqa: ARG001 - the daemon logs notes
    if before.stopping is not after.stopping:
        log.info(_how_it_ends(after) or "ending")


def _how_it_ends(state: State) -> str:
    """Return what becomes of the running verbs, "" when there is none."""
    names = ", ".join(job.identity.job_id for job in state.jobs.values() if job.running)
    if not names:
        return ""
    match state.stopping:
        case Stopping.WAIT:
            return f"ending as soon as the running step of {names} is done; Ctrl-C or SIGTERM again stops it now"
        case Stopping.CANCEL:
            return f"stopping {names}"
        case _:
            return f"ending; {names} goes on, and the next agent takes it up again"


# --- parts --------------------------------------------------------------------------------------------------------


def _parts(
    config: Config,
    transport: Transport,
    journal: Journal,
    inbox: queue.SimpleQueue[Any],
    tell: Tell | None = None,
) -> Parts:
    """Put the agent together; without `tell` no shadow is told anything."""
    boot_id = boot.boot_id(config.system.boot_id_file)
    registry = registry_for(config, config.state.directory)
    settings = options.runner_settings(config, config.state.directory, boot_id)
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
        judge=Judge(config, registry, keys=trusted.keys_of(config.signed), now=_time(config)),
        handlers=registry,
        gates=Gates(config.gates, inbox.put),
        desk=Desk(config.cloud.handlers, partial(source_of, config, os.environ), inbox.put),
        boot=boot_id,
        reboot=config.system.reboot,
        nonce=os.urandom(8).hex(),
        thing=config.thing.name,
        reporter=_reporter(config, inbox, tell),
    )


def _time(config: Config) -> Callable[[], float | None]:
    """Return what tells the time; without a cloud nobody is harmed by a clock that nobody has set."""
    return clock.once_right() if config.connection.endpoint else time.time


def _reporter(config: Config, inbox: queue.SimpleQueue[Any], tell: Tell | None) -> Reporter | None:
    if not config.report.textfile and not (config.report.shadow and tell):
        return None
    from thingjobs.seeing import reporter  # noqa: PLC0415 - most agents report of their jobs alone

    return reporter.configured(config, lambda answer: inbox.put(Asked(answer)), tell)


def _transport(config: Config) -> ShadowTransport:
    from thingjobs.transport import configured  # noqa: PLC0415 - --local needs no network

    roll = random.SystemRandom().random
    delay = policy.first_connect_delay(boot.clock(), roll())
    return configured.transport_of(config, configured.link_of(config), delay=delay)


def _set_up_logging(level: int, config: Config, before: Callable[[], None] = lambda: None) -> None:
    """Log to stderr as [report] says; before each line `before` is called."""
    journal = logs.read_by_journal(sys.stderr, os.environ)
    logs.set_up(level, config.report.log_format, journal=journal, before=before)
