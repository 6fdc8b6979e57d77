"""The installed program as a user has it: commands as subprocesses, with pipes or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import py_compile
import re
import select
import struct
import subprocess
import sys
import sysconfig
import termios
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping

PATIENCE_SECONDS = 30
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: What the program gets of our environment, and nothing else: tests must not depend on who runs them.
INHERITED = ("PATH", "VIRTUAL_ENV", "TMPDIR", "COVERAGE_PROCESS_START")

#: Gives a program the terminal on its standard input as its own, so that Ctrl-C reaches it.
ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


#: A handler in Python, with every verb; it writes down which of them was called, and how.
PROBE = """
import json, os, signal, time
from thingjobs.handler import Outcome, Reject, Retry

class Probe:
    version = "2.5"
    timeouts = {"check": 1}

    def _called(self, ctx, params):
        with open(params["log"], "a") as file:
            file.write(json.dumps([ctx.verb, ctx.dry_run, ctx.job_id, os.environ["PATH"]]) + "\\n")

    def check(self, ctx, params):
        self._called(ctx, params)
        match params["answer"]:
            case "needed":
                return None
            case "as wanted":
                return Outcome.ALREADY
            case "later":
                raise Retry("the pump is running")
            case "never":
                raise Reject("there is no pump here")
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "endless":
                while not ctx.cancelled:
                    ctx.progress(1, "still looking")
                    time.sleep(0.05)

    prepare = apply = verify = commit = rollback = _called
"""


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Everything that it printed."""
        return self.out + self.err

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def no_traceback(text: str) -> str:
    """Return `text`, in which a user must never find one."""
    assert "Traceback" not in text
    assert "Logging error" not in text
    return text


class Running:
    """A command that goes on; its output is in files."""

    def __init__(self, argv: list[str], folder: Path, name: str, environment: dict[str, str]) -> None:
        self._files = folder / f"{name}.out", folder / f"{name}.err"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def told(self) -> str:
        """What it printed so far."""
        return no_traceback("".join(file.read_text(encoding="utf-8", errors="replace") for file in self._files))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Told:
        """Wait for its end."""
        code = self.process.wait(PATIENCE_SECONDS)
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        no_traceback(out + err)
        return Told(code, out, err)


class Terminal:
    """A command on a terminal of its own, with what its user sees.

    Attributes:
        shown: every byte that it wrote, as text.
        widest: the longest line that was ever on the screen.
    """

    def __init__(self, argv: list[str], folder: Path, environment: dict[str, str], columns: int) -> None:
        self.shown = ""
        self.widest = 0
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        argv = [sys.executable, "-c", ON_TERMINAL, *argv]
        self.process = subprocess.Popen(argv, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def until(self, text: str) -> None:
        """Read until `text` was shown."""
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.shown}"
            assert self._read(0.2) is not False, f"it ended without {text!r}: {self.shown}"

    def end(self) -> int:
        """Read until the command has ended, and return its exit code."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._read(0.2) is not False:
            assert time.monotonic() < end, f"it does not end: {self.shown}"
        os.close(self._master)
        no_traceback(self.shown)
        return self.process.wait(PATIENCE_SECONDS)

    def lines(self) -> list[str]:
        """Return the lines that stand on the screen, as if it had room for all of them; `widest` is of these too."""
        lines = [""]
        for piece in re.split(r"(\r\n|\r|\x1b\[2K|\x1b\[H\x1b\[2J|\x1b\[[0-9;]*m)", self.shown):
            if piece == "\r\n":
                lines.append("")
            elif piece in ("\r", "\x1b[2K"):
                lines[-1] = ""
            elif piece == "\x1b[H\x1b[2J":
                lines = [""]
            elif not piece.startswith("\x1b"):
                lines[-1] += piece
                self.widest = max(self.widest, len(lines[-1]))
        return lines

    def _read(self, seconds: float) -> bool | None:
        """Read what is there; None: nothing yet, False: nothing will come any more."""
        if not select.select([self._master], [], [], seconds)[0]:
            return None
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.shown += data.decode()
        return bool(data)


class Cli:
    """`thingjobs` in a folder of its own.

    Attributes:
        python: the interpreter that has it.
        environment: what it gets; HOME is a folder in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = Path(sys.executable)
        home = folder / "home"
        home.mkdir()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.environment = {**inherited, "HOME": str(home), "LANG": "C.UTF-8"}
        self._started: list[Running | Terminal] = []

    def __call__(
        self, *words: str | Path, stdin: str | bytes = "", environment: Mapping[str, str] | None = None
    ) -> Told:
        """Run a command to its end."""
        told = subprocess.run(
            self._argv(words),
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
        out, err = told.stdout.decode(), told.stderr.decode()
        no_traceback(out + err)
        return Told(told.returncode, out, err)

    def start(self, *words: str | Path) -> Running:
        """Start a command."""
        running = Running(self._argv(words), self.folder, f"command-{len(self._started)}", self.environment)
        self._started.append(running)
        return running

    def on_terminal(self, *words: str | Path, columns: int = 100, **environment: str) -> Terminal:
        """Start a command on a terminal."""
        everything = {**self.environment, "TERM": "xterm-256color", **environment}
        terminal = Terminal(self._argv(words), self.folder, everything, columns)
        self._started.append(terminal)
        return terminal

    def _argv(self, words: tuple[str | Path, ...]) -> list[str]:
        return [str(self.python), "-m", "thingjobs", *map(str, words)]

    def end(self) -> None:
        """Kill what still runs."""
        for one in self._started:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait(PATIENCE_SECONDS)


class Local:
    """A folder of jobs for `run --local`, with handlers of its own beside it.

    Attributes:
        out: a folder for what handlers write; they know it as $OUT.
    """

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        self.folder = cli.folder / "jobs"
        self.state = self.folder / ".thingjobs"
        self.handlers = cli.folder / "handlers"
        self.config = cli.folder / "local.toml"
        self.out = cli.folder / "out"
        for folder in (self.folder, self.handlers, cli.folder / "scripts", self.out):
            folder.mkdir()
            folder.chmod(0o755)
        self.config.write_text(
            f'''[handlers]
directory = "handlers"
scripts = "scripts"
environment = {{ OUT = "{self.out}" }}
'''
        )

    def handler(self, name: str, script: str) -> Path:
        """Make a handler of a shell script."""
        path = self.handlers / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def job(self, name: str, document: object) -> Path:
        """Put a document into the folder."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    @property
    def words(self) -> tuple[str | Path, ...]:
        """The options that name folder and configuration."""
        return "--local", self.folder, "--config", self.config

    def run(self, *more: str) -> Told:
        """Run what is in the folder, to its end."""
        return self._cli("run", "--once", *self.words, *more)

    def start(self, *more: str) -> Running:
        """Start the agent on the folder."""
        return self._cli.start("run", *self.words, *more)

    def status(self) -> Any:
        """What `status --json` says."""
        told = self._cli("status", "--json", *self.words)
        assert told.code == 0, told.err
        return told.json()

    def outcomes(self) -> dict[str, str]:
        """The status of each job."""
        return {execution["jobId"]: execution["status"] for execution in self.status()["executions"]}


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Run commands of the program."""
    commands = Cli(tmp_path)
    yield commands
    commands.end()


@pytest.fixture
def local(cli: Cli) -> Local:
    """Run jobs from a folder."""
    return Local(cli)


@pytest.fixture
def examples() -> Path:
    """The folder with the examples, beside the tests."""
    return EXAMPLES


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for something to become true."""
    return wait_for


def wait_for(true: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what `true` returns once it is true; fail when it does not become so in time."""
    end = time.monotonic() + seconds
    found = None
    while not found:
        assert time.monotonic() < end, "it did not happen in time"
        with contextlib.suppress(OSError):
            found = true()
        if not found:
            time.sleep(0.02)
    return found


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, int, bytes]]]:
    """Return, for each path below a folder, mode, time of the last change and content."""

    def look(folder: Path) -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path.relative_to(folder)): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in (folder, *sorted(folder.rglob("*")))
        }

    return look


@pytest.fixture(scope="session")
def python_with_probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an interpreter that has all that ours has, and a distribution with a handler of its own."""
    folder = tmp_path_factory.mktemp("probe")
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (packages / "probe.py").write_text(PROBE)
    py_compile.compile(str(packages / "probe.py"))
    info = packages / "probe-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[thingjobs.handlers.v1]\nprobe = probe:Probe\n")
    (info / "RECORD").write_text("probe.py,,\n")
    return folder / "bin" / "python"
