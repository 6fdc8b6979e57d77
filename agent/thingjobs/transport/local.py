"""A folder as the cloud: every `*.json` in it is a queued job, carried by the embedded Jobs service.

The same agent, journal and handlers as with AWS, and no network. What became of each job is kept beside the state,
so a job that is done is not run again. New files are noticed while the agent runs. As with AWS a job keeps the
document it was made with; only one that was never looked at follows its file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from thingjobs.errors import StateError
from thingjobs.jobs import Update
from thingjobs.model import JOB_ID_PATTERN
from thingjobs.testing.control import ControlPlaneError
from thingjobs.testing.memory import MemoryTransport
from thingjobs.testing.messages import UNROUTABLE
from thingjobs.testing.records import PENDING
from thingjobs.testing.service import JobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from thingjobs.jobs import Incoming, Request
    from thingjobs.model import Json, ThingName

log = logging.getLogger("thingjobs.local")

#: The file in the state folder that keeps the service's state from run to run.
KEPT = "jobs.json"
#: Of lists and objects in each other, in a document.
MAX_LEVELS = 100
SCAN_SECONDS = 1.0
CHANGED = "it was changed, and a job keeps the document it was made with; under a new name it runs as a new job"


class LocalTransport(MemoryTransport):
    """The embedded Jobs service behind the transport contract.

    Args:
        folder: the job documents; the file name without `.json` is the job id.
        kept: the file that keeps the service's state from run to run.
        thing: the thing whose jobs they are; those of earlier runs become its own, whatever it was called then.

    Attributes:
        service: the embedded service.
        unusable: why a file is no job, by file name; for people.
        tell: is called from the thread that looks for files, with the name of one that cannot be used, and why.

    Raises:
        StateError: what earlier runs left cannot be read.
    """

    def __init__(self, folder: Path, kept: Path, thing: ThingName) -> None:
        super().__init__(JobsService(), thing)
        self._folder = folder
        self._kept = kept
        #: By file name: when it was written, and how large it is.
        self._seen: dict[str, tuple[int, int]] = {}
        #: By job id.
        self._documents: dict[str, object] = {}
        self._keeping = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="local jobs", daemon=True)
        self.unusable: dict[str, str] = {}
        self.tell: Callable[[str, str], None] = lambda name, why: None  # noqa: ARG005 - until somebody listens
        self._restore()
        self.scan()

    def start(self, put: Callable[[Incoming], None]) -> None:
        """Begin: this service is always there."""
        super().start(put)
        self._thread.start()

    def send(self, request: Request) -> None:
        """Ask the embedded service."""
        super().send(request)
        if isinstance(request, Update):
            self._keep()

    def stop(self) -> None:
        """Put nothing more."""
        super().stop()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(SCAN_SECONDS * 5)
        self._keep()

    def scan(self) -> None:
        """Queue a job for each file that is new; look again at one that was written anew."""
        known = len(self._documents)
        found = {path.name: path for path in sorted(self._folder.glob("*.json"))}
        for name in self.unusable.keys() - found.keys():
            self.unusable.pop(name)
            self._seen.pop(name, None)
        for name, path in found.items():
            stamp = _stamp(path)
            if self._seen.get(name) != stamp:
                self._seen[name] = stamp
                self._look_at(path)
        if len(self._documents) != known:
            self._keep()

    def _look_at(self, path: Path) -> None:
        self.unusable.pop(path.name, None)
        try:
            self._add(path)
        except ValueError as error:
            self.unusable[path.name] = str(error)
            self.tell(path.name, str(error))

    def _add(self, path: Path) -> None:
        """Queue a job for the file.

        Raises:
            ValueError: it is no job, or not the one that is there by this name; the message says why.
        """
        job_id = path.stem
        if not JOB_ID_PATTERN.fullmatch(job_id):
            raise ValueError("its name is no job id: use 1 to 64 letters, digits, _ and -")
        if job_id in UNROUTABLE:
            raise ValueError(f"its name cannot be a job id, the Jobs service uses {job_id} itself; choose another one")
        document = read_document(path)
        if job_id in self._documents:
            if self._documents[job_id] != document:
                raise ValueError(CHANGED)
            return
        try:
            self.service.create_job(job_id, document, [self._thing])
        except ControlPlaneError as error:
            raise ValueError(str(error).rpartition(": ")[2]) from None
        self._documents[job_id] = document

    def _watch(self) -> None:
        while not self._stopping.wait(SCAN_SECONDS):
            self.service.tick()
            self.scan()

    # --- from run to run ------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        try:
            kept = json.loads(self._kept.read_bytes())
            executions = [{**execution, "thing": self._thing} for execution in kept["executions"]]
            self.service.load({**kept, "executions": executions})
            self._documents = {job["job_id"]: job["document"] for job in kept["jobs"]}
            self._follow_files()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"cannot read {self._kept}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, RecursionError, ControlPlaneError):
            why = "it is damaged; it says which jobs are done, so only without it they all run again: move it away"
            raise StateError(f"cannot read {self._kept}: {why}") from None

    def _follow_files(self) -> None:
        """A job that nobody looked at yet is gone with its file, and changes with it."""
        for view in self.service.executions(self._thing):
            if view.status == "QUEUED" and not self._is_as_in_file(view.job_id):
                self.service.delete_job(view.job_id, force=True)
                del self._documents[view.job_id]

    def _is_as_in_file(self, job_id: str) -> bool:
        try:
            return bool(read_document(self._folder / f"{job_id}.json") == self._documents[job_id])
        except ValueError:
            return False

    def _keep(self) -> None:
        """Keep all of it; documents may hold presigned URLs, so nobody else may read it."""
        temporary = self._kept.with_suffix(".tmp")
        with self._keeping:
            try:
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    json.dump(self.service.dump(), file)
                    file.flush()
                    os.fsync(fd)
                temporary.replace(self._kept)
            except OSError as error:
                log.error("cannot keep the outcomes: %s: %s", self._kept, error.strerror)  # noqa: TRY400 - it says all


def outcomes(kept: Path) -> list[Json]:
    """Return what became of each execution, as the file `kept` tells it, in the order of queueing.

    Raises:
        StateError: the file cannot be read.
    """
    try:
        executions = json.loads(kept.read_bytes())["executions"]
        return [_outcome(execution) for execution in executions]
    except OSError as error:
        raise StateError(f"cannot read {kept}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StateError(f"cannot read {kept}: it is damaged") from None


def _outcome(execution: Json) -> Json:
    status, details = execution["status"], execution["details"]
    return {
        "jobId": execution["job_id"],
        "executionNumber": execution["number"],
        "status": status,
        "code": details.get("code"),
        "reason": details.get("reason", ""),
        "finishedAt": None if status in PENDING else execution["updated_at"],
    }


def read_document(path: Path) -> Any:
    """Return the parsed document in a file.

    Raises:
        ValueError: it cannot be read or is not JSON; the message is a sentence about "it", the file.
    """
    try:
        return parse_document(path.read_bytes())
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except OSError as error:
        raise ValueError(f"cannot read it: {error.strerror}") from None


def parse_document(data: bytes) -> Any:
    """Return the JSON value in `data`.

    Raises:
        ValueError: it is not JSON; the message is a sentence about "it", the document.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start + 1} cannot be read") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"it is not JSON: {error.msg[:1].lower()}{error.msg[1:]} in {where}") from None
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_LEVELS} levels deep") from None
    except ValueError:  # Python reads whole numbers of up to 4300 digits.
        raise ValueError("it holds a number with too many digits") from None
    _check_transferable(value)
    return value


def _check_transferable(value: Any) -> None:
    """Python reads a little more than JSON is, and deeper than anybody writes."""
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise ValueError(f"it is nested more than {MAX_LEVELS} levels deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds one half of a \\u surrogate pair, which is no character") from None
    except ValueError:
        raise ValueError("it is not JSON: NaN and Infinity are no numbers there") from None


def _children(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
