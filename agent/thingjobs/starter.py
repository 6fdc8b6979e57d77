"""Starting verbs, and rebooting: what takes processes, files and room, and has to be patient when they are short."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.errors import ScarceError, StateError
from thingjobs.machine.events import NotSpawned, Spawned
from thingjobs.model import Code, Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.journal import Journal
    from thingjobs.machine.effects import Run
    from thingjobs.model import Process
    from thingjobs.registry import Registry
    from thingjobs.runner import Runner

log = logging.getLogger("thingjobs")


class Starter:
    """Starts what the core wants to run.

    Args:
        runner: makes the processes.
        handlers: knows whether a handler's code is still what was judged.
        journal: has a reserve of room.
        reboot: the program that reboots the machine, and its arguments.
    """

    def __init__(self, runner: Runner, handlers: Registry, journal: Journal, reboot: Sequence[str]) -> None:
        self._runner = runner
        self._handlers = handlers
        self._journal = journal
        self._reboot = reboot

    def get_ready(self, run: Run) -> None:
        """Make the process that `spawn` will most likely be asked for; why it cannot be made is said there."""
        with contextlib.suppress(StateError, OSError):
            self._runner.get_ready(self._as_pinned(run))

    def spawn(self, run: Run) -> Spawned | NotSpawned:
        """Make the process of a verb, which waits for its go.

        Raises:
            ScarceError: what it takes is short for now.
            OSError: there are too many open files for now.
        """
        identity = run.record.identity
        boot.spare_files()
        # A rollback runs with what there is: better the code of another version than nothing undone.
        if run.verb is not Verb.ROLLBACK and (changed := self._handlers.changed(run.record.plan)):
            return NotSpawned(identity, run.verb, changed, Code.HANDLER_CHANGED)
        try:
            return Spawned(identity, run.verb, self._spawned(run))
        except ScarceError:
            raise
        except StateError as error:
            return NotSpawned(identity, run.verb, str(error))

    def _spawned(self, run: Run) -> Process:
        run = self._as_pinned(run)
        try:
            return self._runner.spawn(run)
        except ScarceError as error:
            # What was begun shall come to its end on a full disk too.
            if not error.full or not self._journal.give_up_reserve():
                raise
        return self._runner.spawn(run)

    def _as_pinned(self, run: Run) -> Run:
        """Return a run of the code that was judged, wherever that is by now."""
        plan = replace(run.record.plan, argv=self._handlers.program(run.record.plan))
        return replace(run, record=replace(run.record, plan=plan))

    def reboot(self) -> None:
        """Tell the machine to reboot."""
        argv = list(self._reboot)
        log.warning("rebooting: %s", " ".join(argv))
        try:
            program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            log.error("cannot reboot: %s: %s", argv[0], error.strerror)  # noqa: TRY400 - the reason is the message
            return
        threading.Thread(target=_wait_for, args=(program,), name="reboot", daemon=True).start()


def _wait_for(program: subprocess.Popen[bytes]) -> None:
    if status := program.wait():
        log.error("cannot reboot: the program %s ended with status %d", program.args[0], status)  # type: ignore[index]
