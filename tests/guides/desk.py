"""The machine of somebody who follows a document: thingjobs in an environment, a home, and what stands for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60


class Desk:
    """An environment with thingjobs, pytest and pip, and what is installed there; it is gone after the test.

    Attributes:
        folder: where commands are run; the environment is `.venv` in it, as in a checkout.
        home: the home folder.
        tools: a folder for programs that are found first, but for those of the environment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "desk"
        self.home = folder / "home"
        self.tools = folder / "tools"
        for made in (self.folder, self.home, self.tools):
            made.mkdir()
        self._venv = self.folder / ".venv"
        venv.create(self._venv, symlinks=True)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(self._venv)}))
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for name in ("pip", "pytest", "thingjobs"):
            self.program(f'exec "{self._venv}/bin/python" -m {name} "$@"', self._venv / "bin" / name)

    def program(self, script: str, path: Path) -> None:
        """Make a program of lines of shell."""
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def environment(self, *, activated: bool = True) -> dict[str, str]:
        """Return what programs get; without `. .venv/bin/activate` where they are to do that."""
        path = f"{self.tools}:/usr/local/bin:/usr/bin:/bin"
        return {
            "PATH": f"{self._venv}/bin:{path}" if activated else path,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            # As pip has it, 0 is: no isolation. So nothing is fetched, and everything must be here.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            **{name: os.environ[name] for name in ("TMPDIR", "COVERAGE_PROCESS_START") if name in os.environ},
        }

    def run(self, script: str) -> str:
        """Run lines of shell, the first that fails being the last; return all that they print."""
        told = subprocess.run(
            ["/bin/sh", "-euxc", script],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        text = told.stdout.decode()
        assert told.returncode == 0, text
        assert "Traceback" not in text
        return text

    def copy(self, example: str, to: str = "") -> Path:
        """Copy an example, as somebody takes it out of this repository; to `to` in the folder, by default its name."""
        target = self.folder / (to or example)
        shutil.copytree(ROOT / "examples" / example, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for path in (target, *target.rglob("*")):  # A clone under umask 002 lets the group write; handlers may not be.
            path.chmod(path.stat().st_mode & ~0o022)
        return target
