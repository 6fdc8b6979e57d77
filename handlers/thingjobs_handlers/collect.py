"""The handler `collect`: sends the device's logs and state, in one bounded archive, to a presigned URL."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from thingjobs.fetch import FetchError, upload
from thingjobs.fetch.rules import Digest, Rules, objection
from thingjobs.handler import Failed, Reject
from thingjobs.interpreter import isolated
from thingjobs.model import Code
from thingjobs_handlers import evidence
from thingjobs_handlers.bundle import Bundle
from thingjobs_handlers.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.handler import Context

_COMMAND = "import sys; from thingjobs.cli import main; sys.exit(main())"
_MIB = 1 << 20
_MAX_FILES = 200
#: Of one log of a job, and of one file that is asked for, the end.
_LOG_BYTES, _FILE_BYTES = 256 << 10, 8 * _MIB


@dataclass(frozen=True)
class Params:
    """What a job for `collect` says."""

    url: Annotated[str, "a presigned URL that allows a PUT, without conditions on headers"]
    max_bytes: Annotated[int, "the most that is sent", {"minimum": 128 << 10, "maximum": 32 * _MIB}] = 5 * _MIB
    paths: Annotated[
        tuple[str, ...], "files to send too, as far as the device allows; may hold *", {"maxItems": 50}
    ] = ()


class Collect:
    """Gathers in memory and writes nothing, so that it also works on a full disk or on one that is read-only."""

    version = "1.0"
    description = "sends logs and state of the device to a presigned URL"
    observe = True
    apply_rerun = True
    cancel_apply = True
    resumes_across_versions = True
    timeouts = {"apply": 1800.0}  # noqa: RUF012 - what a class declares is never changed

    def check(self, ctx: Context, params: Params) -> None:
        """Look at what is asked for.

        Raises:
            Reject: it is never allowed here.
        """
        reason = objection(params.url, digest=Digest(), rules=Rules())
        if reason:
            raise Reject(f"cannot send anything to that URL: {reason.partition(':')[0]}", code=Code.PARAMS_INVALID)
        allowed = _allowed(ctx)
        for path in params.paths:
            if not path.startswith("/") or ".." in path.split("/"):
                raise Reject(f"{path} is no path from the root", code=Code.PARAMS_INVALID)
            if not glob.has_magic(path) and not _matches(path, allowed):
                raise Reject(f"this device does not allow to collect {path}: it is not among [handlers] collect")

    def apply(self, ctx: Context, params: Params) -> None:
        """Gather it and send it.

        Raises:
            Failed: it was not taken.
            Reject: it is not allowed here.
        """
        self.check(ctx, params)
        ctx.progress(0, "gathering")
        data = _gathered(ctx, params)
        digest = hashlib.sha256(data).hexdigest()
        ctx.progress(50, f"sending {len(data) / _MIB:.1f} MiB")

        def fresh_url() -> str:
            anew: Params = ctx.refresh()
            return anew.url

        try:
            upload(params.url, data, fresh_url=fresh_url, cancelled=lambda: ctx.cancelled)
        except FetchError as error:
            raise Failed(error.reason, code=error.code) from None
        ctx.details(size=str(len(data)), sha256=digest)


def _gathered(ctx: Context, params: Params) -> bytes:
    """Return the archive: what matters most first, because the rest may have no room."""
    bundle = Bundle(params.max_bytes)
    for name, tell in _sources(ctx):
        if ctx.cancelled:
            raise Failed("it was stopped while it gathered", code=Code.CANCELLED)
        try:
            bundle.add(name, tell())
        except evidence.MissingError as error:
            bundle.miss(name, str(error))
        except OSError as error:
            bundle.miss(name, error.strerror or str(error))
    _add_files(bundle, ctx, params)
    return bundle.close()


def _sources(ctx: Context) -> Iterator[tuple[str, Callable[[], bytes]]]:
    told = settings(ctx)
    yield "device.json", evidence.device
    yield "os-release", Path("/etc/os-release").read_bytes
    config = ("--config", told["config"]) if told.get("config") else ()
    argv = (*isolated(_COMMAND), "status", "--json", *config)
    yield "agent/status.json", partial(evidence.output, argv)
    if told.get("state"):
        state = Path(told["state"])
        yield "agent/journal.json", partial(evidence.journal, state)
        for path in _newest(state / "logs"):
            yield f"agent/logs/{path.name}", partial(_tail_of, path)
    yield "system/dmesg.txt", partial(evidence.output, ("dmesg",))
    yield (
        "system/journal.txt",
        partial(evidence.output, ("journalctl", "--no-pager", "--lines=5000", "--output=short-iso")),
    )


def _newest(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)[:_MAX_FILES]
    return []


def _tail_of(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return evidence.tail(file, _LOG_BYTES)


# --- files that the job asks for -------------------------------------------------------------------------------


def _allowed(ctx: Context) -> tuple[str, ...]:
    return tuple(settings(ctx).get("collect") or ())


def _matches(path: str, allowed: tuple[str, ...]) -> bool:
    """Return whether the local policy allows a file; a `*` in its patterns stands for no more than one name."""
    return any(PurePosixPath(path).match(pattern) for pattern in allowed if pattern.startswith("/"))


def _add_files(bundle: Bundle, ctx: Context, params: Params) -> None:
    allowed = _allowed(ctx)
    found = [path for wanted in params.paths for path in _named(wanted, allowed)]
    for path in found[:_MAX_FILES]:
        try:
            bundle.add(f"files{path}", _read_allowed(path, allowed, min(bundle.room, _FILE_BYTES)))
        except (OSError, ValueError) as error:
            bundle.miss(path, getattr(error, "strerror", None) or str(error))
    if found[_MAX_FILES:]:
        bundle.miss("files", f"{len(found) - _MAX_FILES} of them: no more than {_MAX_FILES} are taken")


def _named(wanted: str, allowed: tuple[str, ...]) -> list[str]:
    """Return the files that a path or a pattern means; of those that are not allowed, not even the names."""
    if not glob.has_magic(wanted):
        return [wanted]
    return sorted(path for path in map(str, Path("/").glob(wanted.lstrip("/"))) if _matches(path, allowed))


def _read_allowed(path: str, allowed: tuple[str, ...], limit: int) -> bytes:
    """Return the end of a file, if what was opened in the end, all links followed, is one that is allowed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not _matches(str(Path(f"/proc/self/fd/{file.fileno()}").readlink()), allowed):
            raise ValueError("it leads to a file that the device does not allow to collect")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no file")
        return evidence.tail(file, limit)
