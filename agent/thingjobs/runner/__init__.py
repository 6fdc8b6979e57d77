"""Running verbs: one child process each, watched, adopted again after a restart of the agent, cleaned up after.

Handler code never runs inside the agent's process, and the agent's death neither kills, repeats nor forgets a
handler. What runs when is the core's decision; this package carries it out.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.errors import StateError
from thingjobs.machine.events import Ending, Evidence, Finished
from thingjobs.runner import joblog
from thingjobs.runner.process import Account, Place, Started, account_of, end_leftovers, end_verbs, job_json, start
from thingjobs.runner.watcher import Watcher, never_began, read_exit, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from thingjobs.machine.effects import Run
    from thingjobs.machine.events import Progressed
    from thingjobs.model import Identity, Process, Record, Verb

MAX_LOGS = 50
#: An emptied folder that waits for the next execution.
SPARE = "spare"
#: What a handler inherits from the agent's own environment, if it is set there; nothing else, and nothing of the job.
INHERITED = ("PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while the agent runs.

    Attributes:
        state: the state folder.
        environment: what every handler gets, from [handlers.environment] and the agent's own environment.
    """

    state: Path
    thing: str
    boot: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Runner:
    """Carries out Run, Go, Kill and Clean.

    Args:
        put: takes Progressed and Finished, from the watchers' threads.
    """

    def __init__(self, settings: Settings, put: Callable[[Progressed | Finished], None]) -> None:
        self._settings = settings
        self._put = put
        self._started: dict[Identity, tuple[Run, Started]] = {}
        self._watchers: dict[Identity, Watcher] = {}
        self._settled: set[Identity] = set()
        self._spare = settings.state / SPARE

    def spawn(self, run: Run) -> Process:
        """Make the process of a verb; it waits for `go`.

        Raises:
            StateError: it could not be made; the message says why.
        """
        record = run.record
        deadline = time.time() + record.plan.limits.of(run.verb)
        try:
            account = account_of(record.plan.user) if record.plan.user else None
            place = self._place(record.identity)
            self._settle(record.identity, place, account)
            environment = self._environment(place, run, account)
            job = job_json(run, self._settings.thing, deadline)
            started = start(place, run, job=job, environment=environment, account=account, boot_id=self._settings.boot)
        except OSError as error:
            raise StateError(f"{error.filename or record.plan.argv[0]}: {error.strerror or error}") from None
        except (ValueError, subprocess.SubprocessError) as error:
            raise StateError(f"{record.plan.argv[0]}: {error}") from None
        self._started[record.identity] = (run, started)
        return started.process

    def _settle(self, identity: Identity, place: Place, account: Account | None) -> None:
        """Make sure that nothing else runs in the folder, and take the spare one if there is none yet."""
        if identity in self._settled:
            return
        self._settled.add(identity)
        if place.folder.exists():
            # An earlier agent made it. What it left running there is in no journal, or it would have been adopted.
            end_verbs(place.folder)
        elif account is None or account.uid == os.geteuid():
            with contextlib.suppress(OSError):
                self._spare.rename(place.folder)

    def go(self, identity: Identity) -> None:
        """Let a process begin that was made before."""
        found = self._started.pop(identity, None)
        if found is None:
            return
        run, started = found
        watcher = Watcher(
            identity,
            run.verb,
            run.attempt,
            pid=started.process.pid,
            child=started.child,
            pidfd=started.pidfd,
            pipes=started.pipes,
            exit_file=started.exit_file,
            put=self._put,
        )
        self._watchers[identity] = watcher
        watcher.start()
        started.go()

    def kill(self, identity: Identity) -> None:
        """End a verb: one that has not begun at once and without a word, one that runs by SIGTERM, then SIGKILL."""
        found = self._started.pop(identity, None)
        if found is not None:
            found[1].abandon()
            return
        watcher = self._watchers.get(identity)
        if watcher is not None:
            watcher.end()

    def adopt(self, record: Record) -> Evidence:
        """Find, after the agent was started again, what became of the verb in flight.

        Raises:
            StateError: it runs, and cannot be watched.
        """
        if record.verb is None or record.process is None:
            return Evidence.NOT_STARTED
        place = self._place(record.identity)
        attempt = record.attempts.get(record.verb, 1)
        exit_file = place.exit_file(record.verb, attempt)
        try:
            pidfd = self._open_process(record.process)
            if pidfd is None:
                if record.process.boot == self._settings.boot:
                    end_leftovers(record.process, place.work)
                return self._ended(record.identity, record.verb, attempt, exit_file)
            pipes = self._open_pipes(place, pidfd)
        except OSError as error:
            # What cannot be found out is not made up: a verb that is taken for lost may be run a second time.
            raise StateError(f"cannot look after {record.verb} of {record.identity}: {error}") from None
        watcher = Watcher(
            record.identity,
            record.verb,
            attempt,
            pid=record.process.pid,
            child=None,
            pidfd=pidfd,
            pipes=pipes,
            exit_file=exit_file,
            put=self._put,
        )
        self._watchers[record.identity] = watcher
        self._settled.add(record.identity)
        watcher.start()
        return Evidence.ADOPTED

    def _open_process(self, process: Process) -> int | None:
        """Return a handle of `process`, None if it is gone; the handle comes first, so that it is of no later one."""
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return None
        if boot.lives(process, self._settings.boot):
            return pidfd
        os.close(pidfd)
        return None

    @staticmethod
    def _open_pipes(place: Place, pidfd: int) -> tuple[int, int, int]:
        try:
            with contextlib.suppress(OSError):
                return place.open_pipes()
            # Somebody removed them. Nothing comes through new ones, but that it ends is still seen.
            place.make(None)
            return place.open_pipes()
        except OSError:
            os.close(pidfd)
            raise

    def _ended(self, identity: Identity, verb: Verb, attempt: int, exit_file: Path) -> Evidence:
        if never_began(exit_file):
            return Evidence.NOT_STARTED
        code = read_exit(exit_file)
        if code is None:
            return Evidence.LOST
        name = signal_name(code)
        ending = Ending(None if name else code, name, "its output was not kept, the agent was away")
        self._put(Finished(identity, verb, attempt, ending))
        return Evidence.ADOPTED

    def clean(self, identity: Identity) -> None:
        """Remove an execution's folder and keep its log."""
        watcher = self._watchers.pop(identity, None)
        self._settled.discard(identity)
        place = self._place(identity)
        logs = self._settings.state / "logs"
        try:
            if joblog.collect(place.folder, logs / f"{identity.key}.log"):
                for old in sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_LOGS]:
                    old.unlink()
        except OSError:
            pass  # A full disk loses a log, never a job.
        if not (watcher is not None and watcher.silent and self._ours(place) and place.give_back(self._spare)):
            place.remove()

    @staticmethod
    def _ours(place: Place) -> bool:
        """Return whether the handler ran as the agent itself: only then the next one may have its folder."""
        try:
            return place.work.lstat().st_uid == os.geteuid()
        except OSError:
            return False

    def sweep(self, keep: set[str]) -> None:
        """Remove the folders of executions that are not among the keys `keep`: a crash came before their clean-up."""
        jobs = self._settings.state / "jobs"
        for path in jobs.iterdir() if jobs.is_dir() else ():
            if path.name not in keep:
                place = Place(path)
                end_verbs(place.folder)
                place.remove()
        Place(self._spare).remove()

    def let_go(self) -> None:
        """Stop watching; what runs goes on, for the next agent to find."""
        for _, started in self._started.values():
            started.abandon()
        self._started.clear()
        for watcher in self._watchers.values():
            watcher.let_go()
        for watcher in self._watchers.values():
            watcher.join(5)

    def _place(self, identity: Identity) -> Place:
        return Place(self._settings.state / "jobs" / identity.key)

    def _environment(self, place: Place, run: Run, account: Account | None) -> dict[str, str]:
        return {
            "PATH": DEFAULT_PATH,
            "LANG": "C.UTF-8",
            **self._settings.environment,
            "HOME": account.home if account else _home(),
            "JOB_CONTRACT": "1",
            "JOB_VERB": run.verb.value,
            "JOB_DIR": str(place.work),
            "JOB_EVENTS": str(place.folder / "events"),
        }


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # A container may run as a number that has no name.
        return "/"
