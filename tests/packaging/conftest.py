"""The Debian package, built once for all tests of a run and unpacked, and never installed."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Require

ROOT = Path(__file__).resolve().parents[2]
#: What pip says where no registry can be reached; any other failure is ours.
NO_NETWORK = re.compile(
    r"Could not find a version|No matching distribution|NewConnectionError|NameResolution|Max retries"
)
BUILD_SECONDS = 300


class Package:
    """A package and what is in it.

    Attributes:
        file: the .deb.
        root: a folder with all its files, as they would be under /.
        control: a folder with its control file and maintainer scripts.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.file = file
        self.root = folder / "root"
        self.control = folder / "control"

    @property
    def tree(self) -> Path:
        """Where the agent and its libraries are."""
        return self.root / "usr/lib/thingjobs"


@pytest.fixture(scope="session")
def package(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Build and unpack it, or take what another process of this run has built.

    THINGJOBS_WHEELHOUSE is a folder with the wheels that vendored.txt names, for a machine without a registry.
    """
    require("dpkg-deb")
    require("pip")
    # Each process of xdist has a folder of its own in one that all share.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "package"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            _build(folder)
    if problem := (folder / "built").read_text():
        pytest.skip(problem)
    (file,) = folder.glob("*.deb")
    return Package(file, folder)


def _build(folder: Path) -> None:
    house = os.environ.get("THINGJOBS_WHEELHOUSE")
    words = ["--wheelhouse", house] if house else []
    argv = [sys.executable, str(ROOT / "packaging/debian/build.py"), "--out", str(folder), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    problem = ""
    if done.returncode:
        assert NO_NETWORK.search(done.stderr), done.stderr
        assert os.environ.get("CI") != "true", done.stderr
        problem = (
            "NOT TESTED: the package: pip reaches no registry; THINGJOBS_WHEELHOUSE names a folder with the wheels"
        )
    else:
        (file,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", file, folder / "root"], check=True)
        subprocess.run(["dpkg-deb", "-e", file, folder / "control"], check=True)
    (folder / "built").write_text(problem)
