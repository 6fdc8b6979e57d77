"""What a handler knows of its job, and how it speaks to the agent: `thingjobs.handler.Context` in a child process."""

import os
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from pathlib import Path
    from typing import Any

    from thingjobs.cloud.session import Cloud


def read_job(folder: str) -> "dict[str, Any]":
    """Return what job.json in `folder` says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object.
    """
    with open(f"{folder}/job.json", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs the start of a process
        text = file.read()
    try:
        job = _from_json(text)
    except RecursionError:
        job = None
    if not isinstance(job, dict):
        raise ValueError("job.json is no JSON object")
    return job


class _Plain:
    """What the scanner of the standard library wants to know of its decoder: nothing special."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


def _from_json(text: str) -> object:
    """Read JSON without importing `json`, whose regular expressions cost more than half a start of the interpreter."""
    try:
        from _json import make_scanner  # noqa: PLC0415

        value, end = make_scanner(_Plain)(text, 0)  # type: ignore[arg-type]
        if not text[end:].strip():
            return value
    except Exception:  # noqa: BLE001, S110 - not this Python's way, or no JSON; the public way says which
        pass
    import json  # noqa: PLC0415

    return json.loads(text)


class JobContext:
    """What a handler knows of its job (thingjobs.handler.Context).

    Args:
        job: what job.json says.
        folder: where it is.
        events: the file descriptor that events are written to.

    Attributes:
        job: what job.json said last.
        parse: makes params of the JSON object what the handler's methods take.
    """

    def __init__(self, job: "dict[str, Any]", folder: "str | PathLike[str]", events: int) -> None:
        self.job = job
        self.job_id: str = job["jobId"]
        self.execution: int = job["execution"]
        self.thing: str = job["thing"]
        self.verb: str = job["verb"]
        self.attempt: int = job["attempt"]
        self.resumed: bool = job["resumed"]
        self.rebooted: bool = job["rebooted"]
        self.dry_run: bool = job["dryRun"]
        self.deadline: float | None = job["deadline"]
        self.parse: Callable[[dict[str, Any]], Any] = lambda params: params
        self._folder = os.fspath(folder)
        self._events = events
        self._writing = RLock()
        self._cancelled = False
        self._cloud: Cloud | None = None

    def listen(self) -> None:
        """Take SIGTERM as the agent's word to stop."""
        # Without the enums of `signal`.
        import _signal  # type: ignore[import-not-found]  # noqa: PLC0415

        _signal.signal(_signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: object) -> None:  # noqa: ARG002 - the signature is Python's
        self._cancelled = True

    @property
    def dir(self) -> "Path":
        """The job's own folder."""
        from pathlib import Path  # noqa: PLC0415

        return Path(self._folder)

    @property
    def cancelled(self) -> bool:
        """Whether the agent asked this verb to stop."""
        return self._cancelled

    @property
    def cloud(self) -> "Cloud":
        """The way to the cloud.

        Raises:
            CloudError: the handler did not say that it needs it.
        """
        if self._cloud is None:
            from thingjobs.child.wishes import cloud  # noqa: PLC0415

            self._cloud = cloud(self, self._folder)
        return self._cloud

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Report how far the verb is, 0..100, and a few words."""
        event: dict[str, object] = {"message": message} if message else {}
        self.emit({**event, "progress": percent} if percent is not None else event)

    def details(self, **pairs: str) -> None:
        """Add to the status details."""
        self.emit({"details": pairs})

    def log(self, text: str) -> None:
        """Write a line to the job's bounded log."""
        print(text, flush=True)  # noqa: T201 - stdout is the log

    def refresh(self, timeout: float = 60.0) -> "Any":
        """Return the params anew.

        Raises:
            Failed: none came in time, or the agent asked this verb to stop.
            Reject: what came does not fit the type.
        """
        from thingjobs.child.wishes import refresh  # noqa: PLC0415

        return refresh(self, self._folder, timeout)

    def download(
        self,
        url: str,
        to: "str | PathLike[str]",
        *,
        digest: str = "",
        size: int | None = None,
        max_bytes: int | None = None,
    ) -> "Path":
        """Fetch a file.

        Raises:
            Failed: it could not be fetched.
        """
        from thingjobs.child.wishes import download  # noqa: PLC0415

        return download(self, url, to, digest=digest, size=size, max_bytes=max_bytes)

    def emit(self, event: dict[str, object]) -> None:
        """Append one event.

        Raises:
            OSError: it cannot be written.
        """
        from thingjobs.child.events import lines  # noqa: PLC0415

        with self._writing:
            for line in lines(event):
                rest = line
                while rest:
                    rest = rest[os.write(self._events, rest) :]

    def tell(self, event: dict[str, object]) -> None:
        """Append one event if that is possible: the last word of a verb, whose exit status counts without it."""
        try:
            self.emit(event)
        except OSError as error:
            print(f"cannot write to $JOB_EVENTS: {error}: {event}", flush=True)  # noqa: T201 - stdout is the log
