"""The handler model-update: downloads a machine-learning model and lets the camera use it.

    {"handler": "model-update", "params": {
        "version": "leaks-7", "url": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/fleet-models/leaks-7.mdl}",
        "digest": "sha256:…", "reboot": true}}

The models are files in one folder, and the link `current` says which of them is used. A new one is put beside the old
one and the link is switched, in one move; so the way back is one move too. Where the folder is, the operator of the
device decides (`[handlers.environment] MODEL_HOME`), and never a job.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from thingjobs.handler import REBOOT, Context, Failed, Outcome, Reject, Retry

MAX_BYTES = 512 * 1024 * 1024
#: What every model begins with.
MAGIC = b"MDL1"


@dataclass(frozen=True)
class Params:
    """What a job says. The schema that is made of this refuses the rest before anything starts."""

    version: Annotated[str, "becomes a file name", {"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}]
    url: Annotated[str, "where the model is, presigned", {"minLength": 8}]
    digest: Annotated[str, "of the model", {"pattern": "^sha256:[0-9a-f]{64}$"}]
    reboot: Annotated[bool, "the camera reads its model only at boot"] = False


class ModelUpdate:
    """Puts a model in place, and the old one back if the new one will not do."""

    version = "1.2"
    description = "downloads a model and switches to it"
    timeouts = {"prepare": 7200, "apply": 120}
    #: Every step of `apply` can be done twice, so a power cut in it needs no way back.
    apply_rerun = True

    def check(self, ctx: Context, params: Params) -> Outcome:
        """Say whether the model is wanted, and whether now is a good time. Changes nothing."""
        home = _home()
        if not home.is_dir():
            raise Reject(f"there is no folder {home} on this device, so it has no camera")
        if _current(home) == params.version:
            return Outcome.ALREADY
        if (home / "recording").exists():
            raise Retry("the camera is recording", after=60)
        return Outcome.DONE

    def prepare(self, ctx: Context, params: Params) -> None:
        """Download the model; nothing that the camera uses is touched."""
        for model in _home().glob("*.mdl"):  # Room for the new one: models that are not in use are of no use.
            if model.stem not in (_current(_home()), params.version):
                model.unlink()
        ctx.progress(0, "downloading")
        model = ctx.download(params.url, "model", digest=params.digest, max_bytes=MAX_BYTES)
        with model.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise Failed("the file at params.url is no model; upload it again and make a new job")

    def apply(self, ctx: Context, params: Params) -> Outcome | None:
        """Put the model beside the old one and switch the link."""
        home, before = _home(), ctx.dir / "before"
        if not before.exists():  # In a second call the link may be switched already.
            _write(before, _current(home).encode())
        ctx.progress(30, "copying")
        with (ctx.dir / "model").open("rb") as source, (home / "new").open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        (home / "new").replace(home / f"{params.version}.mdl")
        ctx.progress(80, "switching")
        _switch(home, params.version)
        ctx.details(model=params.version)
        return REBOOT if params.reboot else None

    def verify(self, ctx: Context, params: Params) -> None:
        """Look whether the camera will read what was asked for; called after the reboot, if there is one."""
        home = _home()
        if _current(home) != params.version:
            raise Failed(f"the link {home / 'current'} leads to {_current(home) or 'nothing'}")
        with (home / "current").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != params.digest:
            raise Failed("the model on the disk is not the one that was downloaded: the disk may be failing")

    def rollback(self, ctx: Context, params: Params) -> None:
        """Switch back. May be called twice, and after an `apply` that hardly began."""
        home, before = _home(), ctx.dir / "before"
        if not before.exists():
            return
        old = before.read_text()
        if old:
            _switch(home, old)
        else:
            (home / "current").unlink(missing_ok=True)
        if old != params.version:
            (home / f"{params.version}.mdl").unlink(missing_ok=True)


def _home() -> Path:
    return Path(os.environ.get("MODEL_HOME", "/var/lib/model-update"))


def _current(home: Path) -> str:
    """Return the version that the link leads to, "" if there is none."""
    link = home / "current"
    return link.readlink().stem if link.is_symlink() else ""


def _switch(home: Path, version: str) -> None:
    """Let the link lead to another model: at any moment it leads to one of the two."""
    new = home / "current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(f"{version}.mdl")
    new.replace(home / "current")


def _write(path: Path, data: bytes) -> None:
    """Write a file so that after a power cut it is there as a whole, or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
