#!/usr/bin/env python3
"""Builds the Debian packages thingjobs and thingjobs-awsiot from this tree, with pip and dpkg-deb and no more.

The same tree, the same SOURCE_DATE_EPOCH and the same dpkg give the same bytes. Libraries are the files that
vendored.txt names by their digests: pip fetches them, or finds them in the folder of --wheelhouse, without a network.
"""

from __future__ import annotations

import argparse
import email.parser
import email.utils
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TREE = Path("usr/lib/thingjobs")
#: Debian's name of an architecture, and that of the wheels that run on it.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: The oldest date that a wheel can hold, for a tree that tells no other.
EPOCH = "315532800"
#: What ships as it stands: from this folder's parent or the root of the repository, to where, with which mode.
FILES = (
    ("packaging/guard/guard", f"{TREE}/guard", 0o755),
    ("packaging/systemd/thingjobs.service", "usr/lib/systemd/system/thingjobs.service", 0o644),
    ("packaging/systemd/thingjobs@.service", "usr/lib/systemd/system/thingjobs@.service", 0o644),
    ("packaging/systemd/tmpfiles.conf", "usr/lib/tmpfiles.d/thingjobs.conf", 0o644),
    ("examples/config.toml", "usr/share/doc/thingjobs/examples/config.toml", 0o644),
    ("packaging/config.toml", "usr/share/thingjobs/config.toml", 0o644),
    ("packaging/README.md", "usr/share/doc/thingjobs/README.md", 0o644),
    ("handlers/README.md", "usr/share/doc/thingjobs/handlers.md", 0o644),
)
#: What makes a folder of libraries an agent that can be started; with --archive, a version for `upgrade-agent`.
STARTS = (
    ("packaging/guard/thingjobs", "bin/thingjobs", 0o755),
    ("packaging/debian/thingjobs_tree.py", "thingjobs_tree.py", 0o644),
)
FOLDERS = ("conf.d", "things", "handlers", "scripts", "gates", "keys")
SCRIPTS = {"postinst": 0o755, "prerm": 0o755, "postrm": 0o755, "triggers": 0o644}

ALL_SAYS = """\
Depends: python3 (>= 3.11), passwd
Recommends: ca-certificates
Suggests: thingjobs-awsiot, python3-cryptography (>= 38)
Description: job agent for AWS IoT things
 Takes jobs from AWS IoT Jobs, runs them through handlers that teams write, and
 reports each one truthfully, whatever breaks in between.
 .
 The agent and its libraries are in a tree of their own, run by the system's
 Python: nothing of it is in the way of other Python programs.
"""
AWSIOT_SAYS = """\
Depends: thingjobs (>= {version}), libc6
Description: job agent for AWS IoT things, transport awsiot
 The AWS IoT Device SDK for thingjobs: custom authorizers, and private keys in a
 TPM or another PKCS#11 token.
"""


@dataclass(frozen=True)
class Made:
    """What all packages of one run share.

    Attributes:
        version: of the packages, as Debian writes it.
        maintainer: NAME <ADDRESS>.
        scratch: a folder for what is only needed meanwhile.
        out: where the packages go.
    """

    version: str
    maintainer: str
    scratch: Path
    out: Path


def main() -> int:
    """Build what the command line asks for; return the exit code."""
    asked = _asked()
    os.environ.setdefault("SOURCE_DATE_EPOCH", _epoch())
    with tempfile.TemporaryDirectory(prefix="thingjobs-deb-") as scratch:
        version = debian_version(_own_version(), asked.revision)
        made = Made(version, asked.maintainer, Path(scratch), asked.out.resolve())
        made.out.mkdir(parents=True, exist_ok=True)
        try:
            print(_agent(made, asked.wheelhouse, archive=asked.archive))
            for machine in asked.awsiot:
                print(_awsiot(made, machine, asked.wheelhouse))
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip()
            print(f"build.py: {error.cmd[0]} failed: {said}", file=sys.stderr)
            return 1
        except (OSError, ValueError) as error:
            print(f"build.py: cannot build: {error}", file=sys.stderr)
            return 1
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the packages go (dist/)")
    parser.add_argument("--revision", default="1", help="of the packaging, behind the version (1)")
    parser.add_argument("--wheelhouse", type=Path, help="a folder with all wheels: nothing is fetched")
    parser.add_argument("--maintainer", default="thingjobs <thingjobs@localhost>", help="NAME <ADDRESS>")
    parser.add_argument("--archive", action="store_true", help="the agent as an archive for upgrade-agent too")
    parser.add_argument(
        "--awsiot", nargs="*", choices=MACHINES, default=[], metavar="ARCH", help="thingjobs-awsiot too: amd64, arm64"
    )
    return parser.parse_args()


# --- versions and dates -------------------------------------------------------------------------------------------


def debian_version(version: str, revision: str) -> str:
    """Return a version of Python as Debian orders it: 1.0rc1 and 1.0.dev2 come before 1.0."""
    ordered = re.sub(r"(a|b|rc)(?=[0-9])", r"~\1", version).replace(".dev", "~~dev")
    return f"{ordered}-{revision}"


def _own_version() -> str:
    text = (ROOT / "agent/thingjobs/__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError("agent/thingjobs/__init__.py names no version")
    return found[1]


def _epoch() -> str:
    """Return when the tree was last committed; without git, no time at all."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or EPOCH


# --- the packages -------------------------------------------------------------------------------------------------


def _agent(made: Made, wheelhouse: Path | None, *, archive: bool) -> Path:
    place = made.scratch / "thingjobs"
    tree = place / TREE
    wheels = made.scratch / "wheels"
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *_isolation(), "-w", str(wheels), str(ROOT))
    fetch(HERE / "vendored.txt", wheels, wheelhouse, "any", "--implementation", "py", "--abi", "none")
    found = [unpack(wheel, tree) for wheel in sorted(wheels.glob("*.whl"))]
    for source, target, mode in STARTS:
        _put((ROOT / source).read_bytes(), tree / target, mode)
    if archive:
        print(archive_of(made, tree))
    for source, target, mode in FILES:
        _put((ROOT / source).read_bytes(), place / target, mode)
    (place / "usr/bin").mkdir()
    (place / "usr/bin/thingjobs").symlink_to("../lib/thingjobs/bin/thingjobs")
    for folder in FOLDERS:
        (place / "etc/thingjobs" / folder).mkdir(parents=True)
    _put(_packed(ROOT / "CHANGELOG.md"), place / "usr/share/doc/thingjobs/changelog.gz", 0o644)
    _put(copyright_of(found).encode(), place / "usr/share/doc/thingjobs/copyright", 0o644)
    return pack(made, place, "all", ALL_SAYS, SCRIPTS)


def _awsiot(made: Made, machine: str, wheelhouse: Path | None) -> Path:
    place = made.scratch / f"awsiot-{machine}" / "thingjobs-awsiot"
    wheels = made.scratch / f"wheels-{machine}"
    fetch(HERE / "vendored-awsiot.txt", wheels, wheelhouse, f"manylinux2014_{MACHINES[machine]}")
    found = [unpack(wheel, place / TREE) for wheel in sorted(wheels.glob("*.whl"))]
    _put(copyright_of(found).encode(), place / "usr/share/doc/thingjobs-awsiot/copyright", 0o644)
    return pack(made, place, machine, AWSIOT_SAYS.format(version=made.version))


def _isolation() -> tuple[str, ...]:
    """Return how pip gets what builds us: from the registry, unless it is here."""
    done = subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True, check=False)
    return () if done.returncode else ("--no-build-isolation",)


def fetch(lock: Path, wheels: Path, wheelhouse: Path | None, platform: str, *words: str) -> None:
    """Put the wheels that a lock file names into a folder; only those with the digests that it names."""
    source = ("--no-index", "--find-links", str(wheelhouse)) if wheelhouse else ()
    how = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--platform", platform)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "download", "-q", *source, *how, *words, "-d", str(wheels), "-r", str(lock))


def unpack(wheel: Path, tree: Path) -> tuple[str, str, str]:
    """Unpack a wheel, which for a pure one is all there is to installing it; return name, version and licence.

    Raises:
        ValueError: it has parts that belong elsewhere, or two wheels hold the same file.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.split("/")[0].endswith(".data"):
                raise ValueError(f"{wheel.name} has files that belong elsewhere: {name}")
            if not name.endswith("/"):
                if (tree / name).exists():
                    raise ValueError(f"{wheel.name} has {name}, as another wheel has")
                _put(archive.read(name), tree / name, 0o644)
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.parser.BytesHeaderParser().parsebytes(archive.read(info))
    licence = said["License-Expression"] or said["License"] or ""
    return said["Name"], said["Version"], "Apache-2.0" if "Apache Software" in licence else licence


def copyright_of(found: list[tuple[str, str, str]]) -> str:
    """Return what Debian wants to know of licences: whose, which, and where the texts are."""
    lines = [
        "Each distribution below comes as its authors released it. Its licence is in",
        f"/{TREE}/NAME-VERSION.dist-info/licenses; where there is none, it is the",
        "one in /usr/share/common-licenses.",
        "",
        *(f"{name} {version}: {licence}" for name, version, licence in found),
    ]
    return "\n".join(lines) + "\n"


def debian_changelog(made: Made, name: str) -> str:
    """Return what Debian wants beside our own changelog: when which version was packaged, and by whom."""
    dated = email.utils.formatdate(int(os.environ["SOURCE_DATE_EPOCH"])).replace("-0000", "+0000")
    text = "  * What is new: /usr/share/doc/thingjobs/changelog.gz"
    return f"{name} ({made.version}) unstable; urgency=medium\n\n{text}\n\n -- {made.maintainer}  {dated}\n"


# --- files --------------------------------------------------------------------------------------------------------


def _put(content: bytes, path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def _packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


def archive_of(made: Made, tree: Path) -> Path:
    """Make the archive of a tree that the handler `upgrade-agent` takes; return its path."""

    def dated(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = int(os.environ["SOURCE_DATE_EPOCH"])
        return member

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            archive.add(path, str(path.relative_to(tree)), recursive=False, filter=dated)
    file = made.out / f"thingjobs-{made.version.rpartition('-')[0]}.tar.gz"
    file.write_bytes(gzip.compress(content.getvalue(), mtime=0))
    return file


def pack(made: Made, place: Path, architecture: str, says: str, scripts: Mapping[str, int] | None = None) -> Path:
    """Make the package of all that is below `place`; return its path.

    Args:
        made: what all packages share.
        place: the root of its files; its last part is the package's name.
        architecture: as Debian calls it.
        says: the rest of its control file.
        scripts: what dpkg runs or reads when it installs and removes the package, and its mode.
    """
    name, control = place.name, place / "DEBIAN"
    doc = place / "usr/share/doc" / name
    _put(gzip.compress(debian_changelog(made, name).encode(), mtime=0), doc / "changelog.Debian.gz", 0o644)
    files = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    sums = "".join(f"{hashlib.md5(f.read_bytes()).hexdigest()}  {f.relative_to(place)}\n" for f in files)  # noqa: S324
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    head = f"Package: {name}\nVersion: {made.version}\nArchitecture: {architecture}\nMaintainer: {made.maintainer}\n"
    head += f"Installed-Size: {size}\nSection: net\nPriority: optional\n"
    _put(f"{head}{says}".encode(), control / "control", 0o644)
    _put(sums.encode(), control / "md5sums", 0o644)
    for script, mode in (scripts or {}).items():
        _put((HERE / script).read_bytes(), control / script, mode)
    for path in [place, *place.rglob("*")]:  # Whatever umask this runs with.
        if path.is_dir():
            path.chmod(0o755)
    package = made.out / f"{name}_{made.version}_{architecture}.deb"
    # One thread: how many there are must not change the bytes.
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", str(place), str(package))
    return package


def run(*argv: str) -> None:
    """Run a program that has nothing to say when all is well."""
    subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
