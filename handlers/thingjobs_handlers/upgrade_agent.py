"""The handler `upgrade-agent`: puts another version of the agent on trial, and keeps it if it proves itself.

The guard (packaging/guard/guard) starts the agent, and says in the agent's settings where its folder is and which
version it started. `apply` puts the new version beside the old one, notes that it is on trial, and turns the link;
`verify` has the agent started again, and runs to its end in the new one; `commit`, which waits until the new one has
reached the service over a connection of its own, ends the trial. If the new one gets that far only in part, or not at
all, the guard notes why and starts the old one, in which `verify` or `commit` reads that note and fails.

The steps may be interrupted anywhere and done again: what was there before is written down before anything is changed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from thingjobs import __version__
from thingjobs.handler import Failed, Outcome, Reject
from thingjobs.model import Code
from thingjobs_handlers.archives import ArchiveError, unpack
from thingjobs_handlers.files import told, write_durably
from thingjobs_handlers.settings import settings
from thingjobs_handlers.versions import OccupiedError, Versions, key_of, make_folder, sync

if TYPE_CHECKING:
    from thingjobs.handler import Context

MAX_ARCHIVE_BYTES = 128 << 20
#: What starts a version, below its folder; and how long that may take when it is only asked who it is.
PROGRAM = "bin/thingjobs"
ASK_SECONDS = 60.0
#: What the guard calls the version that it came with.
ORIGINAL = "-"


@dataclass(frozen=True)
class Params:
    """What a job for `upgrade-agent` says."""

    url: Annotated[str, "where the archive of the version is, a .tar.gz or a .zip; best a presigned URL"]
    digest: Annotated[str, "what the archive hashes to: sha256:, sha384: or sha512: and all its hexadecimals"]
    version: Annotated[str, "what the new agent must say its version is", {"minLength": 1, "maxLength": 64}]
    trial_seconds: Annotated[
        int, "how long the new agent has to reach the service and go on with the job", {"minimum": 5, "maximum": 86400}
    ] = 900


class UpgradeAgent:
    """Upgrades the agent that runs it, with a way back that does not depend on the new version."""

    version = "1.0"
    description = "upgrades the agent"
    user = "root"
    apply_rerun = True
    resumes_across_versions = True
    #: How long the new agent has is for `trial_seconds` to say.
    timeouts = {"reach": 86400.0}  # noqa: RUF012 - read only

    def check(self, ctx: Context, params: Params) -> Outcome:
        """Say whether this agent is that version already, and no trial is under way.

        Raises:
            Reject: this agent can never be upgraded by a job.
        """
        place = _Place(ctx, params)
        there = place.runs() or params.version == __version__
        return Outcome.ALREADY if there and not place.on_trial() else Outcome.DONE

    def prepare(self, ctx: Context, params: Params) -> None:
        """Fetch and unpack it, and see that it starts here.

        Raises:
            Failed: it cannot be fetched or unpacked.
            Reject: it does not start here, or is another version.
        """
        place = _Place(ctx, params)
        archive = ctx.download(params.url, "agent.archive", digest=params.digest, max_bytes=MAX_ARCHIVE_BYTES)
        ctx.progress(message="unpacking")
        with told():
            shutil.rmtree(place.staged, ignore_errors=True)
            try:
                unpack(archive, place.staged, lambda: _go_on(ctx))
            except ArchiveError as error:
                raise Reject(f"the archive cannot be used: {error}", code=Code.HANDLER_BROKEN) from None
            archive.unlink()
        if problem := _problem(place.staged / PROGRAM, params.version):
            raise Reject(f"the archive holds no agent for this device: {problem}", code=Code.HANDLER_BROKEN)

    def apply(self, ctx: Context, params: Params) -> None:
        """Put it beside the old version, on trial from the next start on.

        Raises:
            Failed: it cannot be written.
        """
        place = _Place(ctx, params)
        with told():
            if place.before().noted:  # It ran before, and the new version with it, perhaps.
                place.look_at_trial()
            place.note_before()
            if place.runs():
                return
            if not place.versions.holds(place.key) and not place.staged.is_dir():
                raise Failed("what was unpacked for this job is gone: try it again")
            place.versions.place(place.staged, place.key)
            place.put_on_trial()

    def verify(self, ctx: Context, params: Params) -> Outcome:
        """Have the agent started again, and see that it is the new version.

        Raises:
            Failed: the guard has brought the old version back, and says why.
        """
        place = _Place(ctx, params)
        place.look()
        if not place.runs():
            return Outcome.AGAIN_AFTER_RESTART
        ctx.details(agentVersion=params.version)
        return Outcome.DONE

    def commit(self, ctx: Context, params: Params) -> None:
        """End the trial: the agent that waited for the service until this was called is the new one.

        Raises:
            Failed: the guard has brought the old version back, and says why.
        """
        place = _Place(ctx, params)
        place.look()
        if not place.runs():
            raise Failed(f"version {params.version} was not running any more", code=Code.VERIFY_FAILED)
        with told():
            place.pass_trial()
        with suppress(OSError):  # What cannot be removed costs room, and no upgrade.
            place.versions.prune({place.key, place.before().key})

    def rollback(self, ctx: Context, params: Params) -> Outcome:
        """Turn back to the version before, and have the agent started again if it is the new one.

        Raises:
            Failed: the version before is not there any more; the one that the guard came with stands in for it.
        """
        place = _Place(ctx, params)
        before = place.before()
        if not before.noted or before.key == place.key:
            return Outcome.DONE
        gone = before.key != ORIGINAL and not place.versions.holds(before.key)
        with told():
            if place.versions.current() == place.key:
                place.versions.switch(None if gone or before.key == ORIGINAL else before.key)
            place.end_trial()
            if place.runs():
                return Outcome.AGAIN_AFTER_RESTART
            place.versions.remove(place.key)
        if gone:
            raise Failed(f"{place.versions.at(before.key)} is gone; the version that the guard came with runs instead")
        return Outcome.DONE


@dataclass(frozen=True, slots=True)
class _Before:
    """What was there before this job changed anything.

    Attributes:
        noted: it has changed something, or was about to.
        key: of the version that ran.
    """

    noted: bool = False
    key: str = ORIGINAL


class _Place:
    """Where things are, for one job.

    Raises:
        Reject: the job can never be done here.
    """

    def __init__(self, ctx: Context, params: Params) -> None:
        guard = settings(ctx).get("guard")
        if not isinstance(guard, dict):
            raise Reject(
                "this agent cannot be upgraded by a job: no guard started it that could bring it back; "
                "let its service start packaging/guard, or upgrade it with its package"
            )
        self._folder = Path(guard["folder"])
        self._running = guard["version"]
        self._params = params
        self._note = ctx.dir / "before.json"
        self.staged = ctx.dir / "staged"
        self.key = key_of(params.digest)
        self.versions = Versions(self._folder, "current")
        try:
            self.versions.current()
        except OccupiedError as error:
            raise Reject(f"{error}; remove it") from None

    def runs(self) -> bool:
        """Return whether the agent that runs this job is the new version."""
        return bool(self._running == self.key)

    def on_trial(self) -> bool:
        """Return whether some version is on trial, or was given up and not yet rolled back."""
        return any((self._folder / name).exists() for name in ("trial", "failed"))

    def look(self) -> None:
        """See that the new version counts and was not given up.

        Raises:
            Failed: otherwise.
        """
        self.look_at_trial()
        if self.versions.current() != self.key:
            raise Failed(f"{self.versions.link} was turned to another version", code=Code.VERIFY_FAILED)

    def look_at_trial(self) -> None:
        """See that the guard did not give the new version up.

        Raises:
            Failed: it did.
        """
        if (self._text("failed") or "").partition(" ")[0] != self.key:
            return
        why = (self._text("reason") or "").strip() or "the power was cut before the reason was on the disk"
        reason = f"version {self._params.version} was given up, and the one before runs again: {why}"
        raise Failed(reason, code=Code.VERIFY_FAILED)

    def _text(self, name: str) -> str | None:
        """Return what is in a file of the guard's folder, None if it is not there."""
        with suppress(FileNotFoundError):
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        return None

    def put_on_trial(self) -> None:
        """Tell the guard, and then turn the link; what an earlier trial left is none of this one."""
        self._remove("reason", "reached", "starts")
        trial = f"{self.key} {self.before().key} {self._params.trial_seconds}\n"
        write_durably(self._folder / "trial", trial)
        self.versions.switch(self.key)
        self._remove("failed")  # Last: until then the link may lead to a version that was given up.
        sync(self._folder)

    def pass_trial(self) -> None:
        """End the trial, unless the guard was quicker: of the two, whoever takes `trial` away has decided.

        Raises:
            Failed: it was.
        """
        try:
            (self._folder / "trial").unlink()
        except FileNotFoundError:  # It was done already, or
            self.look_at_trial()
        self.end_trial()

    def end_trial(self) -> None:
        """Tell the guard, durably, that there is nothing to watch any more."""
        self._remove("trial", "failed", "reason", "reached", "starts")
        sync(self._folder)

    def _remove(self, *names: str) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def note_before(self) -> None:
        """Store what runs now, once, so that it survives a power cut. The link may lead to what does not even start."""
        if self.before().noted:
            return
        make_folder(self._folder)
        write_durably(self._note, json.dumps({"key": self._running}))

    def before(self) -> _Before:
        """Return what was stored, by this version or another."""
        try:
            return _Before(noted=True, key=json.loads(self._note.read_text(encoding="utf-8"))["key"])
        except FileNotFoundError:
            return _Before()


def _problem(program: Path, version: str) -> str:
    """Return why a version cannot be started here, or is another one; "" if it can."""
    said = ""
    # The second imports all that an agent is made of.
    for arguments in (("--version",), ("run", "--help")):
        try:
            done = subprocess.run(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ASK_SECONDS,
                check=False,
            )
        except OSError as error:
            return f"{PROGRAM} cannot be started: {error.strerror}"
        except subprocess.TimeoutExpired:
            return f"{PROGRAM} {' '.join(arguments)} does not come to an end"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            return f"{PROGRAM} {' '.join(arguments)} ends with status {done.returncode}: {last[:300]}"
        said = said or done.stdout.strip()
    return "" if said == f"thingjobs {version}" else f"it is {said[:100]!a}, not thingjobs {version}"


def _go_on(ctx: Context) -> None:
    if ctx.cancelled:
        raise Failed("it was stopped while it unpacked the archive", code=Code.CANCELLED)
