"""The handler under test: a class in this very process, a class in a child, or a program; and what it declares."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, Protocol

from thingjobs import child, manifest, schema, startable
from thingjobs.child.answers import Unanswerable, describe
from thingjobs.child.context import JobContext
from thingjobs.child.events import lines
from thingjobs.interpreter import isolated
from thingjobs.model import Code, Plan, Result, Status
from thingjobs.registry import DECLARED
from thingjobs.testing.kit.program import environment_of, on_top, run_program
from thingjobs.testing.kit.running import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from thingjobs.manifest import Manifest
    from thingjobs.testing.kit.outcome import Json
    from thingjobs.testing.kit.running import Running

#: A class, `MODULE:CLASS`, a program, or a folder with manifest.json.
HandlerUnderTest = type | str | os.PathLike[str]


class Subject(Protocol):
    """A handler that can be run.

    Attributes:
        name: for people.
        manifest: what it declares.
    """

    name: str
    manifest: Manifest

    def run(self, running: Running) -> int:
        """Run one verb; return its exit status as a shell tells it: 128 + N for signal N.

        Raises:
            Ended: the power was cut while it ran.
        """


def subject_of(handler: HandlerUnderTest, environment: Mapping[str, str]) -> Subject:
    """Return what is tested, ready to run.

    Args:
        handler: a class, `MODULE:CLASS`, a program, or a folder with manifest.json.
        environment: what it finds in its environment besides the contract, as [handlers.environment] gives it.

    Raises:
        ValueError: it is no handler; the message says why.
    """
    if isinstance(handler, type):
        return InProcess(handler, environment)
    path = Path(handler)
    if isinstance(handler, str) and ":" in handler and not path.exists():
        return Program(handler, (*isolated(child.START), handler), _described(handler), environment)
    if path.is_dir():
        found = _parsed(path, _read(path / "manifest.json"), program=True)
        argv = (str(path.resolve() / found.exec[0]), *found.exec[1:])
        return Program(path.name, argv, found, environment)
    return Program(path.name, (str(path.resolve()),), manifest.Manifest(), environment)


def plan_of(handler: Subject, params: Json, *, check_only: bool = False) -> Plan | Result:
    """Return what a document with `params` asks of a handler, or the result to refuse it with."""
    says = handler.manifest
    if lacks := manifest.lacking(says.needs):
        return Result(Status.REJECTED, Code.HANDLER_BROKEN, f"handler {handler.name} {lacks}")
    wrong = schema.check(says.params, params) if says.params is not None else ""
    if wrong:
        return Result(Status.REJECTED, Code.PARAMS_INVALID, wrong)
    return Plan(
        handler=handler.name,
        argv=("under test",),
        version=says.version,
        params=params,
        check_only=check_only,
        **{key: getattr(says, key) for key in DECLARED},
    )


# --- what it declares ---------------------------------------------------------------------------------------------


def _parsed(what: object, content: object, *, program: bool) -> Manifest:
    try:
        return manifest.parse(content, program=program)
    except manifest.ManifestError as error:
        raise ValueError(f"{what} is no handler: {error}") from None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def _described(target: str) -> Manifest:
    """Ask a child, which finds only what is installed: as on a device, the present folder is no place for modules."""
    argv = [*isolated(child.START), "--describe", target]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"{target} is no handler: {done.stderr.strip()}")
    return _parsed(target, json.loads(done.stdout), program=False)


# --- programs -----------------------------------------------------------------------------------------------------


class Program:
    """A program, or a class that a child runs: one process a verb.

    Raises:
        ValueError: there is no such program, or it could not be started.
    """

    def __init__(self, name: str, argv: tuple[str, ...], says: Manifest, environment: Mapping[str, str]) -> None:
        if not os.access(argv[0], os.X_OK):
            raise ValueError(f"{argv[0]} is no program; a handler must exist and be executable (chmod +x)")
        for problem in startable.problems_of(Path(argv[0]), on_top(environment)["PATH"]):
            raise ValueError(f"{name} is no handler: {problem}")
        self.name = name
        self.manifest = says
        self._argv = argv
        self._environment = environment

    def run(self, running: Running) -> int:
        """Run one verb."""
        running.looked = True  # It is told by a signal, which it cannot overlook.
        return run_program(self._argv, running, self._environment)


# --- classes in this process --------------------------------------------------------------------------------------


class InProcess:
    """A class, called in the process of the test: as `thingjobs.child` calls it, only sooner.

    Raises:
        ValueError: it is no handler class.
    """

    def __init__(self, handler: type, environment: Mapping[str, str]) -> None:
        self.name = handler.__name__.lower()
        self._class = handler
        self._environment = environment
        try:
            self.manifest = _parsed(handler.__name__, describe(handler), program=False)
        except Unanswerable as error:
            raise ValueError(f"{handler.__name__} is no handler: {error}") from None

    def run(self, running: Running) -> int:
        """Run one verb."""
        running.put_job()
        with contextlib.chdir(running.work), _environ(environment_of(running, self._environment)), _output(running):
            try:
                return child.run(self._class, Context(running), running.job["params"])
            except Ended:
                if running.dead is not None:
                    raise
                return 128 + SIGKILL


class Context(JobContext):
    """What the class gets: events go to the test instead of a pipe."""

    def __init__(self, running: Running) -> None:
        super().__init__(running.job, running.work, -1)
        self._running = running

    @property
    def cancelled(self) -> bool:
        """Whether the agent asked this verb to stop."""
        self._running.looked = self._running.looked or self._running.told
        return self._running.told

    def refresh(self, timeout: float = 60.0) -> Any:  # noqa: ARG002 - whatever comes is there at once
        """Return the params anew."""
        return super().refresh(0.0)

    def emit(self, event: dict[str, object]) -> None:
        """Report one event."""
        with self._writing:
            for line in lines(event):
                self._running.event(line)


class _Output(io.TextIOBase):
    """Takes what a handler prints."""

    def __init__(self, running: Running, *, error: bool) -> None:
        self._running = running
        self._error = error

    def write(self, text: str) -> int:
        self._running.write(text, error=self._error)
        return len(text)


@contextlib.contextmanager
def _output(running: Running) -> Iterator[None]:
    out, err = _Output(running, error=False), _Output(running, error=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextlib.contextmanager
def _environ(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    # What the developer's own environment holds, no device has.
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
