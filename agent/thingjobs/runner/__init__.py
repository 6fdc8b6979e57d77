"""Running verbs: one child process each, watched, adopted again after a restart of the agent, cleaned up after.

Handler code never runs inside the agent's process, and the agent's death neither kills, repeats nor forgets a
handler. What runs when is the core's decision; this package carries it out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.errors import FULL, ScarceError, StateError
from thingjobs.exits import Exit
from thingjobs.machine.events import Ending, Evidence, Finished
from thingjobs.runner import cgroup, exits, given
from thingjobs.runner.leftovers import Leftovers
from thingjobs.runner.papers import Papers
from thingjobs.runner.place import HOLD, Account, Place, account_for, homes, own_home
from thingjobs.runner.process import Started, put_into, start
from thingjobs.runner.settings import INHERITED, Settings
from thingjobs.runner.sweep import Family, end_verbs
from thingjobs.runner.waiting import Waiting
from thingjobs.runner.watcher import Subject, Watcher, said_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from thingjobs.machine.effects import Run
    from thingjobs.machine.events import Progressed
    from thingjobs.model import Identity, Json, Process, Record, Verb
    from thingjobs.runner.cgroup import Tree
    from thingjobs.runner.events import Wanted

__all__ = ["INHERITED", "Runner", "Settings"]

log = logging.getLogger("thingjobs")

#: A verb that could not be watched, for want of a thread, is tried again after this.
SHORT_SECONDS = 30.0
#: What is left of a verb whose end was told is gone at once, unless the kernel is stuck with it.
GONE_SECONDS = 3.0
#: What is short may come back; a read-only disk or a failing one may be mended.
SCARCE = (*FULL, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


@contextlib.contextmanager
def _told_of(run: Run) -> Iterator[None]:
    """Say of what keeps a process from being made whether it may pass."""
    program = run.record.plan.argv[0]
    try:
        yield
    except OSError as error:
        why = f"{error.filename or program}: {error.strerror or error}"
        if error.errno in SCARCE:
            raise ScarceError(why, full=error.errno in FULL) from None
        raise StateError(why) from None
    except (ValueError, subprocess.SubprocessError) as error:
        raise StateError(f"{program}: {error}") from None


class Runner:
    """Carries out Run, Go, Kill, Refresh and Clean.

    Args:
        put: takes Progressed, Finished and Wanted, from the watchers' threads.

    Attributes:
        waiting: the processes that wait for their go.
    """

    def __init__(self, settings: Settings, put: Callable[[Progressed | Finished | Wanted], None]) -> None:
        self._settings = settings
        self._put = put
        self.waiting = Waiting()
        self._watchers: dict[Identity, Watcher] = {}
        self._settled: set[Identity] = set()
        #: Executions that are not at their place in the state folder.
        self._aside: dict[Identity, Place] = {}
        self._papers = Papers(settings)
        self._leftovers = Leftovers(settings)
        self._looked_for_tree = False
        self._tree_found: Tree | None = None
        self._warned: set[str] = set()

    # --- one run of a verb ----------------------------------------------------------------------------------------

    def get_ready(self, run: Run) -> None:
        """Make the process that `spawn` will most likely be asked for, soon.

        Raises:
            StateError: it cannot be made.
        """
        identity = run.record.identity
        if self.waiting.serving(run) is None:
            with _told_of(run):
                account, place = account_for(run.record.plan), self._place(identity)
                self._settle(identity, place, account)
                place.prepare(place.exit_file(run.verb, run.attempt), account)
                self._make(run, place, account)
        self.waiting.expect(identity)

    def spawn(self, run: Run) -> Process:
        """Make the process of a verb; it waits for `go`.

        Raises:
            ScarceError: it cannot be made for now.
            StateError: it could not be made; the message says why.
        """
        with _told_of(run):
            account = account_for(run.record.plan)
            ready = self.waiting.serving(run)
            if ready is not None:
                with contextlib.suppress(OSError):
                    self._papers.begin(run, self._place(run.record.identity), account, prepared=True)
                    return ready.process
                self.waiting.end(run.record.identity)
            return self._make(run, self._prepared(run, account), account).process

    def _make(self, run: Run, place: Place, account: Account | None) -> Started:
        if before := self._watchers.get(run.record.identity):
            self._see_gone([before])
        environment, confine = self._environment(place, run.verb, account), self._tree() is not None
        boot_id = self._settings.boot
        started = start(place, run, environment=environment, account=account, boot_id=boot_id, confine=confine)
        started = self._confined(started, run)
        if confine:
            started.warm()
        self.waiting.hold(run, started)
        return started

    def _prepared(self, run: Run, account: Account | None) -> Place:
        """Return the place of a run, made ready for it.

        What only observes is wanted most of all when the disk is full or read-only: then it works elsewhere.

        Raises:
            OSError: there is none.
        """
        identity = run.record.identity
        try:
            return self._prepare(self._place(identity), run, account)
        except OSError:
            if not run.record.plan.observe:
                raise
        for home in homes(self._settings.state, self._settings.runtime):
            place = Place(home / identity.key)
            with contextlib.suppress(OSError):
                self._settled.discard(identity)
                self._aside[identity] = self._prepare(place, run, account)
                return place
        reason = "nothing can be written here, nor in /run and /tmp"
        raise OSError(errno.EROFS, reason, str(self._settings.state))

    def _prepare(self, place: Place, run: Run, account: Account | None) -> Place:
        self._settle(run.record.identity, place, account)
        self._papers.begin(run, place, account)
        return place

    def _settle(self, identity: Identity, place: Place, account: Account | None) -> None:
        """Make sure that nothing else runs in the folder, and take the spare one if there is none yet."""
        if identity in self._settled:
            return
        self._settled.add(identity)
        if place.folder.exists():
            # An earlier agent made it. What it left running there is in no journal, or it would have been adopted.
            end_verbs(place.folder)
            if tree := self._tree():
                tree.sweep({identity.key}, spare=False)
        elif account is None or account.owner is None:
            self._leftovers.take_spare(place)

    def _confined(self, started: Started, run: Run) -> Started:
        """Put a process into a cgroup of its own, where there are such; say once a handler what limits are not kept."""
        plan = run.record.plan
        tree, lost = self._tree(), [controller for controller, _, _ in cgroup.wanted(plan.resources)]
        if tree is not None:
            try:
                cell, lost = tree.make(self._cell_name(run.record, run.verb, run.attempt), plan.resources)
                started = put_into(started, tree, cell)
            except OSError as error:
                log.warning("cannot give %s a cgroup of its own: %s", plan.handler, error)
        if lost and plan.handler not in self._warned:
            self._warned.add(plan.handler)
            text = "%s: its limits of %s are not kept: that takes cgroup v2, delegated to the agent (Delegate=yes)"
            log.warning(text, plan.handler, " and ".join(lost))
        return started

    def go(self, identity: Identity) -> None:
        """Let a process begin that was made before."""
        found = self.waiting.take(identity)
        if found is None:
            return
        run, started = found
        self._see_gone(self._watchers.values())
        job = self._papers.read(identity) if started.eager else {}
        subject = self._subject(run.record, run.verb, run.attempt, started.family, started.pipes)
        watcher = None
        try:
            watcher = Watcher(replace(subject, child=started.child, exit_fd=started.exit_fd), self._put)
            self._watch(watcher)
        except (OSError, RuntimeError) as error:  # The latter: no more threads.
            started.abandon()
            if watcher is not None:
                watcher.discard()
            # Nothing ran, and what is short may come back.
            ending = Ending(Exit.LATER, reason=f"it could not be watched: {error}", after=SHORT_SECONDS)
            self._put(Finished(identity, run.verb, run.attempt, ending))
            return
        started.go(job)

    def _subject(
        self, record: Record, verb: Verb, attempt: int, family: Family, pipes: tuple[int, int, int]
    ) -> Subject:
        return Subject(
            identity=record.identity,
            verb=verb,
            attempt=attempt,
            child=None,
            pipes=pipes,
            exit_file=self._place(record.identity).exit_file(verb, attempt),
            exit_fd=-1,
            family=family,
            grace=self._settings.grace,
            memory=record.plan.resources.memory,
        )

    @staticmethod
    def _see_gone(watchers: Iterable[Watcher]) -> None:
        """Wait until nothing is left of verbs whose end was told: no other runs beside them.

        Whatever the kernel is stuck with is waited for once: the agent has more to do.
        """
        until = time.monotonic() + GONE_SECONDS
        for watcher in watchers:
            if watcher.told and not watcher.stuck:
                watcher.join(max(0.0, until - time.monotonic()))
                watcher.stuck = watcher.is_alive()

    def _watch(self, watcher: Watcher) -> None:
        watcher.start()
        self._watchers[watcher.identity] = watcher
        self._settled.add(watcher.identity)

    def kill(self, identity: Identity) -> None:
        """End a verb: one that has not begun at once and without a word, one that runs by SIGTERM, then SIGKILL."""
        watcher = self._watchers.get(identity)
        if not self.waiting.end(identity) and watcher is not None:
            watcher.end()

    def refresh(self, record: Record) -> None:
        """Write job.json anew for the verb that runs: the parameters of `record`, under the next revision.

        Raises:
            StateError: it could not be written.
        """
        self._renew(record, lambda job: given.anew(job, record.plan.params))

    def answer(self, record: Record, answer: Json) -> None:
        """Write job.json anew for the verb that runs: with the answer to its question for credentials.

        Raises:
            StateError: it could not be written.
        """
        self._renew(record, lambda job: given.answered(job, answer))

    def _renew(self, record: Record, change: Callable[[Json], Json]) -> None:
        if record.identity in self._watchers:
            self._papers.renew(record, self._place(record.identity), change)

    # --- after a restart of the agent -----------------------------------------------------------------------------

    def end(self, identity: Identity) -> None:
        """End what still runs of an execution of which no record says what that is."""
        end_verbs(self._place_found(identity).folder)
        if tree := self._tree():
            tree.sweep({identity.key}, spare=False)

    def adopt(self, record: Record) -> Evidence:
        """Find, after the agent was started again, what became of the verb in flight.

        Raises:
            StateError: it runs, and cannot be watched.
        """
        verb, process = record.verb, record.process
        if verb is None or process is None:
            # An observer runs without its record on a disk that is full: nobody would hear of its end.
            self.end(record.identity)
            return Evidence.NOT_STARTED
        attempt = record.attempts.get(verb, 1)
        try:
            boot.spare_files()
            place = self._place_found(record.identity)
            family = self._family(record, verb, attempt, process, place)
            pidfd = self._open_process(process)
            if pidfd is None:
                return self._ended(record, verb, attempt, family)
            pipes = self._open_pipes(place, pidfd)
            self._adopted(self._subject(record, verb, attempt, replace(family, pidfd=pidfd), pipes))
        except (OSError, RuntimeError) as error:  # The latter: no more threads.
            # What cannot be found out is not made up: a verb that is taken for lost may be run a second time.
            raise StateError(f"cannot look after {verb} of {record.identity}: {error}") from None
        return Evidence.ADOPTED

    def _adopted(self, subject: Subject) -> None:
        with contextlib.suppress(FileNotFoundError):
            subject = replace(subject, exit_fd=exits.open_exit(subject.exit_file))
        watcher = Watcher(subject, self._put, said_before(subject.exit_file))
        try:
            self._watch(watcher)
        except RuntimeError:
            watcher.close()
            raise

    def _family(self, record: Record, verb: Verb, attempt: int, process: Process, place: Place) -> Family:
        tree = self._tree()
        return Family(
            process.pid,
            -1,
            place.work,
            adopted=True,
            keeps=record.plan.keeps_daemons,
            tree=tree,
            cell=tree.find(self._cell_name(record, verb, attempt)) if tree else None,
        )

    def _open_process(self, process: Process) -> int | None:
        """Return a handle of `process`, None if it is gone; the handle comes first, so that it is of no later one."""
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return None
        lives = False
        try:
            lives = boot.lives(process, self._settings.boot)
        finally:
            if not lives:
                os.close(pidfd)
        return pidfd if lives else None

    @staticmethod
    def _open_pipes(place: Place, pidfd: int) -> tuple[int, int, int]:
        try:
            with contextlib.suppress(OSError):
                return place.open_pipes()
            # Somebody removed them. Nothing comes through new ones, not even the shim's wake-up: so it shall not stay.
            place.make(None)
            (place.folder / HOLD).unlink()
            return place.open_pipes()
        except OSError:
            os.close(pidfd)
            raise

    def _ended(self, record: Record, verb: Verb, attempt: int, family: Family) -> Evidence:
        """The shim is gone: an earlier agent ended it, or it was killed. End what it left, tell how the verb ended."""
        exit_file = self._place(record.identity).exit_file(verb, attempt)
        stored = exits.stored(exit_file)
        if record.process is not None and record.process.boot == self._settings.boot:
            if not stored.complete:
                family.kill()
            family.sweep()
        if stored.never:
            return Evidence.NOT_STARTED
        if stored.code is None:
            return Evidence.LOST
        said = said_before(exit_file)
        self._put(Finished(record.identity, verb, attempt, exits.ending(stored.code, said, said.reason)))
        return Evidence.ADOPTED

    # --- afterwards -----------------------------------------------------------------------------------------------

    def left_little(self, identity: Identity) -> bool:
        """Return whether what an execution left takes no room to speak of, and no time to remove."""
        return self._place(identity).holds_little()

    def clean(self, identity: Identity) -> None:
        """Remove an execution's folder and keep its log."""
        self.waiting.end(identity)
        watcher = self._watchers.pop(identity, None)
        place = self._place(identity)
        self._settled.discard(identity)
        self._papers.forget(identity)
        if watcher is not None:
            self._see_gone([watcher])
        aside = self._aside.pop(identity, None) is not None
        self._leftovers.put_away(place, fit=not aside and watcher is not None and watcher.silent)

    def sweep(self, keep: set[str]) -> None:
        """Remove what earlier agents left of executions that are not among the keys `keep`: a crash came in between.

        Raises:
            OSError: it cannot be known what there is.
        """
        boot.spare_files()
        self._leftovers.remove_others(keep)
        if tree := self._tree():
            tree.sweep(keep)

    def let_go(self) -> None:
        """Stop watching; what runs goes on, for the next agent to find."""
        self.waiting.end_all()
        for watcher in self._watchers.values():
            watcher.let_go()
        for watcher in self._watchers.values():
            watcher.join(5)

    # --- where and with what --------------------------------------------------------------------------------------

    def _place(self, identity: Identity) -> Place:
        return self._aside.get(identity) or Place(self._settings.state / "jobs" / identity.key)

    def _place_found(self, identity: Identity) -> Place:
        """Return where an earlier agent had an execution."""
        place = self._place(identity)
        if not place.folder.is_dir():
            for home in homes(self._settings.state, self._settings.runtime, existing=True):
                if (home / identity.key).is_dir():
                    place = self._aside[identity] = Place(home / identity.key)
        return place

    def _environment(self, place: Place, verb: Verb, account: Account | None) -> dict[str, str]:
        home = account.home if account else own_home()
        more = self._settings.environment
        return given.environment(more, home=home, verb=verb, work=place.work, events=place.folder / "events")

    def _tree(self) -> Tree | None:
        if not self._looked_for_tree:
            self._looked_for_tree = True
            self._tree_found = cgroup.find(self._settings.cgroup)
        return self._tree_found

    @staticmethod
    def _cell_name(record: Record, verb: Verb, attempt: int) -> str:
        return cgroup.name_of(record.identity.key, verb, attempt, keeps=record.plan.keeps_daemons)
