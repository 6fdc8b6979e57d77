"""What lies on this device: files and who may use them, our certificate, the agent that runs, handlers, the disk."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import belongings, statusbox, trusted
from thingjobs.certificate import cn_of, dates_of
from thingjobs.doctor import rules
from thingjobs.doctor.findings import failed, ok, parted, skipped, warning
from thingjobs.doctor.issuer import SELF, issuer_of
from thingjobs.doctor.surroundings import within
from thingjobs.errors import DocumentError, StateError, ThingjobsError
from thingjobs.judging import missing_user, registry_for, user_for, without_cloud
from thingjobs.manifest import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thingjobs.config import Config
    from thingjobs.doctor.findings import Verdict
    from thingjobs.doctor.rules import Span, Times
    from thingjobs.doctor.surroundings import Surroundings
    from thingjobs.model import Json
    from thingjobs.registry import Listed

OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Local:
    """Looks at this device.

    Args:
        config: what the agent is to use.
        sources: the configuration's files and folders.
        surroundings: what is looked at.
    """

    def __init__(self, config: Config, sources: Sequence[Path], surroundings: Surroundings) -> None:
        self._config = config
        self._sources = sources
        self._around = surroundings
        self._folder = config.state.directory
        self._problems = trusted.problems(config)
        self._status, self._status_problem = self._ask()

    # --- the agent ------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Json | None:
        """What the agent says that runs on the state folder; None: none runs, or it does not say."""
        return self._status

    @property
    def unheard(self) -> bool:
        """Whether an agent runs, or may do, and does not tell us."""
        return bool(self._status_problem)

    def look_again(self) -> Json | None:
        """Ask the agent anew."""
        return self._ask()[0]

    def _ask(self) -> tuple[Json | None, str]:
        try:
            return statusbox.ask(self._folder), ""
        except (StateError, OSError) as error:
            return None, str(error)

    def agent(self) -> Iterator[Verdict]:
        """Say whether an agent runs, and whether we see what it sees."""
        found = self._status
        if self._status_problem:
            yield warning(self._status_problem, _as_owner(self._folder))
        elif found is None:
            yield ok(f"none runs on {self._folder}")
        elif found["thing"] != self._config.thing.name:
            said = f"one runs on {self._folder}, as {found['thing']} and not as {self._config.thing.name}"
            yield warning(said, "start it anew, so that it takes up this configuration")
        elif found["connected"]:
            yield ok(f"one runs on {self._folder}, connected for {rules.lasted(found['connectedSeconds'])}")
        else:
            yield ok(f"one runs on {self._folder}, without a connection")
        owner = _owner(self._folder)
        if owner not in (None, os.geteuid()) and not self._status_problem:
            said = f"{self._folder} belongs to {_account(owner)}, and this check runs as {_account(os.geteuid())}"
            yield warning(f"{said}: it may see what the agent does not", _as_owner(self._folder))

    # --- files ----------------------------------------------------------------------------------------------------

    def files(self) -> Iterator[Verdict]:
        """Look whether others can read the key, or change what the agent reads and runs."""
        found = [
            *self._problems_about("files"),
            *(verdict for path in self._sources for verdict in self._config_file(path)),
            *(failed(*parted(problem)) for problem in self._belongings()),
        ]
        key = self._config.connection.private_key
        read = "read the key, or " if key is not None and os.access(key, os.F_OK) else ""
        yield from found or [ok(f"nobody else can {read}change what the agent reads and runs")]

    def _problems_about(self, check: str) -> list[Verdict]:
        return [failed(*parted(problem)) for problem in self._problems if _about(problem) == check]

    def _belongings(self) -> list[str]:
        """Return what the agent would refuse because of who it belongs to; only its own account can tell."""
        mine = _owner(self._folder) in (None, os.geteuid())
        return belongings.problems(self._config, self._sources) if mine else []

    def _config_file(self, path: Path) -> Iterator[Verdict]:
        """Look at a configuration file or folder: who can write it can have the agent run anything."""
        inside = sorted(path.glob("*.toml")) if path.is_dir() else []
        for one in (path, *inside):
            with contextlib.suppress(OSError):
                found = one.stat()
                if found.st_mode & OPEN_TO_OTHERS:
                    said = f"{one} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
                    yield failed(f"{said}, and what it says is run", f"run chmod go-w {one}")
                elif _owner(self._folder) not in (None, os.geteuid(), found.st_uid) and found.st_uid:
                    yield warning(f"{one} belongs to {_account(found.st_uid)}", f"run chown root {one}")

    # --- our certificate ------------------------------------------------------------------------------------------

    def our_span(self) -> Span | None:
        """Return the dates of our certificate; None: there is none, or it cannot be read."""
        path = self._config.connection.certificate
        if path is None:
            return None
        try:
            since, until = dates_of(path.read_bytes())
        except (OSError, ValueError):
            return None
        return rules.Span(since.timestamp(), until.timestamp())

    def certificate(self, times: Times) -> Iterator[Verdict]:
        """Look at our certificate, its key, and the authority that we trust."""
        problems = self._problems_about("certificate")
        path = self._config.connection.certificate
        if problems:
            yield from problems
        elif path is None:
            yield ok("none is configured: something else has to say who we are")
        else:
            wrong, dates = rules.of_dates(times)
            said = f"{path}: {_signed(path)}{', ' * bool(dates)}{dates}{self._about_name(path)}"
            yield _with_name(path, wrong) if wrong is not None else ok(said)

    def _about_name(self, path: Path) -> str:
        """Return a hint where the certificate's name looks like that of another thing; AWS IoT does not mind."""
        name = self._config.thing.name
        try:
            found = cn_of(path.read_bytes())
        except (OSError, ValueError):
            return ""
        if found in (name, "AWS IoT Certificate"):
            return ""
        return f"; its name is {found} and the thing's is {name}, which can be meant"

    # --- handlers -------------------------------------------------------------------------------------------------

    def handlers(self) -> Iterator[Verdict]:
        """Ask all handlers what they are."""
        seconds = self._around.patience.handlers
        if missing := missing_user(self._config):
            yield warning(*parted(missing))
        registry = registry_for(self._config, self._folder, read_only=True)
        try:
            found = within(seconds, registry.everything)
        except TimeoutError:
            yield skipped(f"they do not all say within {seconds:.0f} s what they are", "run thingjobs handlers list")
            return
        except (OSError, ThingjobsError) as error:
            yield failed(f"they cannot be listed: {error}")
            return
        broken = [
            *_of_broken(found, self._config.handlers.user or ""),
            *(verdict for one in found if (verdict := self._of_handler(one))),
        ]
        yield from broken
        good = [one.name for one in found if not one.reason]
        if not broken:
            yield ok(f"{len(good)} can be used: {', '.join(good)}" if good else "there are none")

    def _of_handler(self, one: Listed) -> Verdict | None:
        """Return why a handler's jobs are rejected although it can be used, None if they are not."""
        if one.handler is None or one.reason:
            return None
        if reason := without_cloud(self._config, one.handler):
            return warning(f"its jobs are rejected: {reason}", "list it there, if it is to have AWS credentials")
        if lacks := lacking(one.handler.needs):
            return warning(f"handler {one.name} {lacks}: its jobs are rejected")
        try:
            user_for(self._config, one.handler)
        except DocumentError as error:
            text, todo = parted(error.reason)
            return warning(f"jobs for handler {one.name} are rejected: {text}", todo)
        return None

    # --- the disk -------------------------------------------------------------------------------------------------

    def space(self) -> Iterator[Verdict]:
        """Look how much room there is for the state folder."""
        try:
            found = os.statvfs(self._place())
        except OSError as error:
            yield failed(f"{self._folder}: {error.strerror}")
            return
        free = found.f_bavail * found.f_frsize
        ours = found.f_bfree * found.f_frsize if os.geteuid() == 0 else free
        yield rules.of_space(str(self._folder), free, ours, found.f_favail if found.f_files else None)

    def state(self) -> Iterator[Verdict]:
        """Look whether the state folder can be written, and survives a reboot."""
        found = self._problems_about("state")
        place = self._place()
        with contextlib.suppress(OSError):
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                what = "mount it for writing (`mount -o remount,rw`); `dmesg` says why it is not"
                found.append(failed(f"{self._folder} is on a disk that is mounted read-only", what))
        mounts = self._around.mounts.read_text(encoding="utf-8", errors="replace")
        point, kind = rules.mount_of(os.path.realpath(place), mounts)
        if verdict := rules.of_mount(str(self._folder), point, kind):
            found.append(verdict)
        there = "there" if place == self._folder else f"made in {place} when the agent starts"
        yield from found or [ok(f"{self._folder} is {there}{f', on {point} ({kind})' * bool(kind)}")]

    def _place(self) -> Path:
        """Return the state folder, or the folder in which it would be made."""
        return next((one for one in (self._folder, *self._folder.parents) if os.access(one, os.F_OK)), Path("/"))


def _with_name(path: Path, verdict: Verdict) -> Verdict:
    """Return a verdict on dates with the name of the file."""
    return replace(verdict, text=f"{path} {verdict.text}")


def _of_broken(found: Sequence[Listed], user: str) -> Iterator[Verdict]:
    """Yield what is wrong with the handlers that cannot be used: once, where several share the cause."""
    named: dict[str, list[str]] = {}
    for one in found:
        if one.reason:
            _, mark, cause = one.reason.partition(" cannot be described: ")
            named.setdefault(cause if mark else one.reason, []).append(one.name)
    reasons = {one.name: one.reason for one in found}
    for cause, names in named.items():
        text, todo = parted(cause if len(names) > 1 else reasons[names[0]])
        said = f"none of {', '.join(names)} can be used: {text}" if len(names) > 1 else text
        if user and "Permission denied" in text:
            todo = f"let the account {user} run that, and enter the folders above it; or set handlers.user"
        yield failed(said, todo or f"thingjobs handlers check {names[0]} says all that is wrong with it")


def _about(problem: str) -> str:
    """Return which check says a problem that the configuration's own look at files found."""
    if problem.startswith("state."):
        return "state"
    return "certificate" if problem.startswith("connection.") and "others may" not in problem else "files"


def _signed(path: Path) -> str:
    try:
        who = issuer_of(path.read_text(encoding="latin-1"))
    except (OSError, ValueError):
        return "its authority cannot be read"
    if who == SELF:
        return "self-signed"
    return f"signed by {who}" if who else "signed by an authority without a name"


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _account(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid).pw_name if uid is not None else "nobody"
    except KeyError:
        return f"user {uid}"


def _as_owner(path: Path) -> str:
    owner = _owner(path)
    return f"check again with sudo{f' -u {_account(owner)}' if owner else ''}"
