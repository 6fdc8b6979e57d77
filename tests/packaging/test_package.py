"""The Debian package: what is in it, and that the agent in it works, with nothing but Python beside it."""

from __future__ import annotations

import email.parser
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Require
    from tests.packaging.conftest import Package

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "packaging/debian"
#: The interpreter below the environment of these tests: what that has installed, it does not find.
PYTHON = os.path.realpath(sys.executable)
PATIENCE_SECONDS = 100
CONTENT = b"a file of some size\n" * 100


def listed(package: Package) -> list[list[str]]:
    """Return the lines of dpkg-deb --contents, in words."""
    told = subprocess.run(["dpkg-deb", "-c", package.file], capture_output=True, text=True, check=True)
    return [line.split() for line in told.stdout.splitlines()]


def distributions(package: Package) -> dict[str, Path]:
    """Return the metadata folders of all that is vendored, by the names on the registry."""
    parser = email.parser.BytesHeaderParser()
    found = package.tree.glob("*.dist-info")
    named = {parser.parsebytes((folder / "METADATA").read_bytes())["Name"]: folder for folder in found}
    return {name.lower().replace("_", "-"): folder for name, folder in named.items()}


def test_the_package_has_the_agent_and_every_library_that_the_agent_asks_for(package: Package) -> None:
    from packaging.requirements import Requirement

    found = distributions(package)

    assert "thingjobs" in found
    for name, folder in found.items():
        said = email.parser.BytesHeaderParser().parsebytes((folder / "METADATA").read_bytes())
        for wanted in map(Requirement, said.get_all("Requires-Dist", [])):
            if wanted.marker is None:
                assert wanted.name.lower().replace("_", "-") in found, (name, wanted)


def test_each_library_comes_with_its_licence_and_is_named_in_the_copyright(package: Package) -> None:
    text = (package.root / "usr/share/doc/thingjobs/copyright").read_text()

    for name, folder in distributions(package).items():
        assert [path for path in folder.rglob("*") if re.search("licen[cs]e|copying", path.name, re.IGNORECASE)], name
        pattern = name.replace("-", "[-_]")
        assert re.search(rf"^{pattern} [0-9][^:]*: \S", text, re.MULTILINE | re.IGNORECASE), name


def test_everything_in_it_is_roots_and_nobody_else_may_write_it(package: Package) -> None:
    for mode, owner, *_ in listed(package):
        assert owner == "root/root"
        assert mode.startswith("l") or mode[5] == mode[8] == "-"


def test_nothing_in_it_is_compiled_so_it_is_for_every_architecture(package: Package) -> None:
    names = [words[5] for words in listed(package)]

    assert not [name for name in names if name.endswith((".so", ".pyc", ".pyd"))]
    assert "Architecture: all\n" in (package.control / "control").read_text()


def test_no_configuration_and_no_state_belong_to_the_package_so_no_upgrade_touches_them(package: Package) -> None:
    files = [words[5] for words in listed(package) if not words[0].startswith("d")]

    assert not [name for name in files if name.startswith(("./etc/", "./var/"))]
    assert (package.root / "etc/thingjobs/conf.d").is_dir()


def test_its_list_of_sums_is_of_what_is_in_it(package: Package) -> None:
    lines = (package.control / "md5sums").read_text().splitlines()

    for line in lines:
        digest, _, name = line.partition("  ")
        assert hashlib.md5((package.root / name).read_bytes()).hexdigest() == digest, name
    # Other tests run what was unpacked, which leaves compiled modules.
    files = [path for path in package.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(lines) == len([path for path in files if path.parent.name != "__pycache__"])


def test_the_template_of_a_configuration_only_lacks_what_has_to_be_filled_in(package: Package, tmp_path: Path) -> None:
    template = (package.root / "usr/share/thingjobs/config.toml").read_text()
    filled = tmp_path / "config.toml"
    filled.write_text(
        template.replace('name = ""', 'name = "pump-7"').replace('endpoint = ""', 'endpoint = "e.example"')
    )
    empty = tmp_path / "empty.toml"
    empty.write_text(template)

    assert "config" in marked(package, filled, "ok")
    assert "config" in marked(package, empty, "FAILED")


def marked(package: Package, config: Path, mark: str) -> list[str]:
    """Return the lines of `thingjobs check` that have this mark."""
    done = thingjobs(package, "check", "--json", "--config", str(config))
    return [item["check"] for item in json.loads(done.stdout)["findings"] if item["mark"] == mark]


def thingjobs(package: Package, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command of the unpacked package with a bare Python and a bare environment."""
    return subprocess.run(
        [PYTHON, "-I", package.root / "usr/bin/thingjobs", *words],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture
def web() -> Iterator[str]:
    """Serve one file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/file"
        server.shutdown()
        thread.join()


def test_the_unpacked_agent_runs_jobs_with_nothing_installed(package: Package, tmp_path: Path, web: str) -> None:
    team = tmp_path / "team"
    write_handler(team)
    shutil.copytree(package.root, tmp_path / "own" / "root", symlinks=True)
    package = type(package)(package.file, tmp_path / "own")  # Others read it meanwhile.
    tree = package.tree / "thingjobs_tree.py"
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    download = {
        "name": "get",
        "type": "runHandler",
        "input": {"handler": "download-file.sh", "args": [web, f"{tmp_path}/got"]},
    }
    steps = {"version": "1.0", "steps": [{"action": download}]}
    (jobs / "download.json").write_text(json.dumps(steps))
    (jobs / "greet.json").write_text(json.dumps({"handler": "greet", "params": {"name": "pump"}}))
    tree.write_text(tree.read_text().replace("/usr/local/lib/thingjobs", str(team)))

    done = thingjobs(package, "run", "--local", str(jobs), "--once")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "got").read_bytes() == CONTENT
    (log,) = (jobs / ".thingjobs/logs").glob("greet*")
    assert f"hello pump from {team}/greet.py beside {package.tree}/requests/__init__.py" in log.read_text()


def write_handler(team: Path) -> None:
    """Make what `pip install --target` makes of a handler package."""
    info = team / "greet-1.0.dist-info"
    info.mkdir(parents=True)
    (team / "greet.py").write_text(
        "import requests\n\n\nclass Greet:\n    def apply(self, ctx, params: dict) -> None:\n"
        "        print(f\"hello {params['name']} from {__file__} beside {requests.__file__}\")\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[thingjobs.handlers.v1]\ngreet = greet:Greet\n")
    (info / "RECORD").write_text("greet.py,,\n")


def test_the_pins_are_releases_that_the_agent_allows() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, wanted in (
        ("vendored.txt", project["dependencies"]),
        ("vendored-awsiot.txt", project["optional-dependencies"]["awsiot"]),
    ):
        pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (DEBIAN / lock).read_text(), re.MULTILINE))
        for one in map(Requirement, wanted):
            assert one.specifier.contains(pinned[one.name]), one


def test_on_an_older_python_it_says_so_in_one_line(package: Package) -> None:
    older = f"import sys; sys.version_info = (3, 9); sys.path.insert(0, {str(package.tree)!r}); import thingjobs_tree"
    done = subprocess.run([PYTHON, "-I", "-c", older], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.fullmatch(r"thingjobs: cannot start: it needs Python 3\.11 or newer, .*\n", done.stderr)


@pytest.mark.parametrize(
    ("earlier", "later"), [("1.0rc1", "1.0"), ("1.0.dev3", "1.0a1"), ("1.0b2", "1.0"), ("1.0", "1.1")]
)
def test_debian_orders_our_versions_as_python_does(require: Require, earlier: str, later: str) -> None:
    require("dpkg")
    spec = importlib.util.spec_from_file_location("build_packages", DEBIAN / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = build
    spec.loader.exec_module(build)
    words = [build.debian_version(version, "1") for version in (earlier, later)]

    assert subprocess.run(["dpkg", "--compare-versions", words[0], "lt", words[1]], check=False).returncode == 0, words


@pytest.mark.parametrize(
    "script",
    [
        "debian/postinst",
        "debian/prerm",
        "debian/postrm",
        "debian/try-in-root",
        "debian/try-booted",
        "container/init",
        "openrc/thingjobs",
        "procd/thingjobs",
    ],
)
def test_the_scripts_are_ones_that_a_plain_shell_can_read(script: str) -> None:
    done = subprocess.run(["/bin/sh", "-n", ROOT / "packaging" / script], capture_output=True, text=True, check=False)

    assert not done.stderr
    assert done.returncode == 0
