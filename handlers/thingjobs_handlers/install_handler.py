"""The handler `install-handler`: fetches a handler as an archive, checks it, and switches a link to it."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from thingjobs import manifest, startable
from thingjobs.handler import ENTRY_POINT_GROUP, Failed, Outcome, Reject
from thingjobs.model import Code
from thingjobs_handlers.archives import ArchiveError, unpack
from thingjobs_handlers.files import told, write_durably
from thingjobs_handlers.settings import needed
from thingjobs_handlers.versions import OccupiedError, Versions, key_of

if TYPE_CHECKING:
    from thingjobs.handler import Context

MAX_ARCHIVE_BYTES = 128 << 20


@dataclass(frozen=True)
class Params:
    """What a job for `install-handler` says."""

    name: Annotated[str, "the name of the handler", {"minLength": 1, "maxLength": 128}]
    url: Annotated[str, "where its archive is, a .tar.gz or a .zip; best a presigned URL"]
    digest: Annotated[str, "what the archive hashes to: sha256:, sha384: or sha512: and all its hexadecimals"]
    version: Annotated[str | None, "what its manifest must say its version is"] = None
    activate: Annotated[bool, "false: put it beside the version that counts, and leave that one"] = True


class InstallHandler:
    """Puts a version of a handler beside those that are there, and switches to it.

    Every step may be interrupted and done again: a version is complete or not there, the link leads to the old one or
    to the new one, and which was the old one is on the disk before anything is changed.
    """

    version = "1.0"
    description = "installs a handler from an archive"
    user = "root"
    apply_rerun = True
    resumes_across_versions = True

    def check(self, ctx: Context, params: Params) -> Outcome:
        """Say whether it is installed already.

        Raises:
            Reject: it can never be installed here.
        """
        place = _Place(ctx, params)
        return Outcome.ALREADY if place.installed() and not place.problems() else Outcome.DONE

    def prepare(self, ctx: Context, params: Params) -> None:
        """Fetch, unpack and check it.

        Raises:
            Failed: it cannot be fetched or unpacked.
            Reject: it is no handler.
        """
        place = _Place(ctx, params)
        archive = ctx.download(params.url, "handler.archive", digest=params.digest, max_bytes=MAX_ARCHIVE_BYTES)
        ctx.progress(message="unpacking")
        with told():
            for folder in (place.unpacked, place.staged):
                shutil.rmtree(folder, ignore_errors=True)
            try:
                unpack(archive, place.unpacked, lambda: _go_on(ctx))
            except ArchiveError as error:
                raise Reject(f"the archive cannot be used: {error}", code=Code.HANDLER_BROKEN) from None
            found = _top(place.unpacked, params.name)
            problems = problems_of(found, params)
            if problems:
                raise Reject(
                    f"the archive holds no handler to install: {'; '.join(problems)}", code=Code.HANDLER_BROKEN
                )
            found.rename(place.staged)
            archive.unlink()

    def apply(self, ctx: Context, params: Params) -> None:
        """Put it in its place, and switch to it.

        Raises:
            Failed: it cannot be written.
        """
        place = _Place(ctx, params)
        with told():
            place.note_before()
            if not place.versions.holds(place.key) and not place.staged.is_dir():
                raise Failed("what was unpacked for this job is gone: try it again")
            place.versions.place(place.staged, place.key)
            if params.activate and place.versions.current() != place.key:
                place.versions.switch(place.key)
        ctx.details(handler=params.name, installed=place.key)

    def verify(self, ctx: Context, params: Params) -> None:
        """Look at what is installed as a job for it would find it.

        Raises:
            Failed: it is not as it should be.
        """
        place = _Place(ctx, params)
        if not place.installed():
            raise Failed(
                f"{place.versions.link} does not lead to the version that was installed", code=Code.VERIFY_FAILED
            )
        problems = place.problems()
        if problems:
            raise Failed(f"{params.name} was not installed well: {'; '.join(problems)}", code=Code.VERIFY_FAILED)

    def commit(self, ctx: Context, params: Params) -> None:
        """Remove all versions but this one and the one before."""
        place = _Place(ctx, params)
        with told():
            place.versions.prune({place.key, place.before().link or place.key})

    def rollback(self, ctx: Context, params: Params) -> None:
        """Switch back to what was there before, which may be nothing.

        Raises:
            Failed: it is not there any more.
        """
        place = _Place(ctx, params)
        before = place.before()
        with told():
            if params.activate and before.noted and place.versions.current() == place.key != before.link:
                if before.link is not None and not place.versions.holds(before.link):
                    raise Failed(f"cannot go back to {place.versions.at(before.link)}: it is gone")
                place.versions.switch(before.link)
            if before.noted and not before.held:
                place.versions.remove(place.key)


@dataclass(frozen=True, slots=True)
class _Before:
    """What was there before this job changed anything.

    Attributes:
        noted: it has changed something, or was about to.
        link: the key of the version that counted.
        held: this very version was there.
    """

    noted: bool = False
    link: str | None = None
    held: bool = False


class _Place:
    """Where things are, for one job.

    Raises:
        Reject: the job can never be done here.
    """

    def __init__(self, ctx: Context, params: Params) -> None:
        self._params = params
        self._note = ctx.dir / "before.json"
        self.unpacked = ctx.dir / "unpacked"
        self.staged = ctx.dir / "staged"
        self.key = key_of(params.digest)
        directory = Path(needed(ctx, "handlers"))
        _check_name(params.name)
        _check_owner(directory)
        self.versions = Versions(directory, params.name)
        try:
            self.versions.current()
        except OccupiedError as error:
            raise Reject(f"{error}; remove it, or give the handler another name") from None

    def installed(self) -> bool:
        """Return whether this version is where it should be."""
        return self.versions.holds(self.key) and (not self._params.activate or self.versions.current() == self.key)

    def problems(self) -> list[str]:
        """Return what is wrong with this version as it is installed."""
        return problems_of(self.versions.at(self.key), self._params, start=self._params.activate)

    def note_before(self) -> None:
        """Store what is there now, once, so that it survives a power cut."""
        if self.before().noted:
            return
        found = {"link": self.versions.current(), "held": self.versions.holds(self.key)}
        write_durably(self._note, json.dumps(found))

    def before(self) -> _Before:
        """Return what was stored."""
        try:
            return _Before(noted=True, **json.loads(self._note.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return _Before()


def problems_of(folder: Path, params: Params, *, start: bool = False) -> list[str]:
    """Return why a folder is not the handler that the job means, a sentence each.

    Args:
        folder: holds manifest.json.
        params: what the job means.
        start: whether its program must be ready to be started; what runs it may come with it, and be found by the link.
    """
    try:
        with (folder / "manifest.json").open("rb") as file:
            declared = manifest.parse(json.loads(file.read(manifest.MAX_BYTES)), program=True, name=params.name)
    except FileNotFoundError:
        return [f"there is no manifest.json and no {params.name}/manifest.json in it"]
    except manifest.ManifestError as error:
        return [f"manifest.json: {problem}" for problem in error.problems]
    except (OSError, ValueError, RecursionError):
        return ["manifest.json is no file with JSON"]
    problems = []
    if params.version is not None and declared.version != params.version:
        problems.append(f"its version is {declared.version or 'not told'}, not {params.version}")
    return problems + _program_problems(folder, declared.exec[0], start=start)


def _program_problems(folder: Path, program: str, *, start: bool) -> list[str]:
    try:
        found = (folder / program).stat()
    except OSError:
        return [f"its program {program} is not in it"]
    if not stat.S_ISREG(found.st_mode):
        return [f"its program {program} is no file"]
    if not found.st_mode & 0o100:
        return [f"its program {program} may not be executed: pack it with mode 755"]
    return startable.problems_of(folder / program, os.environ.get("PATH", os.defpath), program) if start else []


def _check_name(name: str) -> None:
    if not re.fullmatch(manifest.NAME, name):
        raise Reject(f"{name!a} is no name for a handler", code=Code.PARAMS_INVALID)
    if any(found.name == name for found in entry_points(group=ENTRY_POINT_GROUP)):
        raise Reject(
            f"a Python package on this device brings a handler {name}: two of one name could not be told apart"
        )


def _check_owner(directory: Path) -> None:
    try:
        owner = directory.stat().st_uid
    except OSError as error:
        raise Reject(f"cannot install into {directory}: {error.strerror}; make the folder") from None
    if os.geteuid() not in (0, owner):
        raise Reject(
            f"cannot install into {directory} as {_account(os.geteuid())}: it belongs to {_account(owner)}; "
            "name install-handler in [handlers] allow_root, or give the folder to the account that runs handlers"
        )


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _top(unpacked: Path, name: str) -> Path:
    """Return the folder with the manifest: all of the archive, or the one folder that it holds."""
    inner = unpacked / name
    alone = [path.name for path in unpacked.iterdir()] == [name]
    return inner if alone and inner.is_dir() and not inner.is_symlink() else unpacked


def _go_on(ctx: Context) -> None:
    if ctx.cancelled:
        raise Failed("it was stopped while it unpacked the archive", code=Code.CANCELLED)
