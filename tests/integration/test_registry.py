"""Which handlers there are: entry points and executables, each usable, or broken with a reason."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from thingjobs import registry as registry_module
from thingjobs.config.settings import Config, Connection, Handlers, Thing
from thingjobs.errors import DocumentError, HandlerError
from thingjobs.judging import ThisDevice
from thingjobs.model import Code, Limits, ThingName, Verb
from thingjobs.registry import Registry, written_by_others

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASS = """
class Greet:
    def apply(self, ctx, params):
        pass
"""


@dataclass
class Site:
    """A folder on sys.path in which distributions are installed, as pip would leave them."""

    folder: Path
    installed: list[Path] = field(default_factory=list)

    def install(
        self, name: str, code: str = CLASS, *, version: str = "1.0", points: str = "", record: str = ""
    ) -> Path:
        """Install a distribution `name` with one module of its name, and a handler of that name; return its folder."""
        module = name.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(record or f"{module}.py,sha256=abc,12\n")
        points = points or f"{name} = {module}:Greet"
        (info / "entry_points.txt").write_text(f"[thingjobs.handlers.v1]\n{points}\n")
        return info


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A place for distributions that this process and its children see."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    # In service the child sees only what is installed (-I); here a folder stands for that.
    monkeypatch.setattr(registry_module, "PYTHON", (sys.executable, "-m", "thingjobs.child"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Site(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for executables."""
    made = tmp_path / "handlers"
    made.mkdir(mode=0o755)
    return made


def program(folder: Path, name: str = "firmware", text: str = "#!/bin/sh\nexit 0\n", mode: int = 0o755) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


def why_not(registry: Registry, name: str) -> str:
    """Return the reason for which a handler cannot be used."""
    with pytest.raises(HandlerError) as refused:
        registry.get(name)
    assert refused.value.code is Code.HANDLER_BROKEN
    return refused.value.reason


# --- classes ------------------------------------------------------------------------------------------------------


def test_a_class_that_a_distribution_names_is_a_handler(site: Site) -> None:
    code = """
class Greet:
    version = "3.2"
    timeouts = {"apply": 5, "reach": 60.5}
    stall = 30
    apply_rerun = True
    def check(self, ctx, params): ...
    def apply(self, ctx, params): ...
    rollback = None
"""
    site.install("greet", code)

    handler = Registry(()).get("greet")

    assert handler.source == "greet 1.0"
    assert handler.argv == (*registry_module.PYTHON, "greet:Greet")
    assert handler.version == "3.2"
    assert handler.verbs == {Verb.CHECK, Verb.APPLY}
    assert handler.limits == Limits(apply=5, reach=60.5, stall=30)
    assert (handler.apply_rerun, handler.cancel_apply) == (True, False)


def test_a_class_without_a_version_has_that_of_its_distribution(site: Site) -> None:
    site.install("greet", version="7.1")

    handler = Registry(()).get("greet")

    assert (handler.version, handler.limits, handler.verbs) == ("7.1", Limits(), frozenset({Verb.APPLY}))


def test_team_code_is_never_imported_into_the_agent(site: Site, tmp_path: Path) -> None:
    site.install("greet", f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{CLASS}")

    Registry(()).get("greet")

    assert "greet" not in sys.modules
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_looking_at_names_starts_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PYTHON", ("/nowhere/python",))
    site.install("greet", "raise RuntimeError")
    registry = Registry(())

    assert "greet" in registry.names()
    assert registry.has("greet")


def test_the_digest_changes_with_what_is_installed(site: Site) -> None:
    info = site.install("greet", record="greet.py,sha256=abc,12\n")
    before = Registry(()).get("greet").digest

    assert Registry(()).get("greet").digest == before
    (info / "RECORD").write_text("greet.py,sha256=def,12\n")
    assert Registry(()).get("greet").digest != before


def test_a_module_may_talk_while_it_is_imported(site: Site) -> None:
    site.install("greet", f"import sys\nprint('hello')\nprint('oops', file=sys.stderr)\n{CLASS}")

    assert Registry(()).get("greet").version == "1.0"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no modem here')", "no modem here"),
        ("import not_there", "No module named 'not_there'"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "no description"),
        ("import os; os._exit(0)", "no description"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "no description"),
        ("Greet = 5", "greet:Greet is not a class"),
        ("", "greet:Greet is not a class"),
        ("class Greet: ...", "no method apply"),
        ("class Greet: apply = 5", "no method apply"),
        (CLASS + "    params_schema = {1, 2}", "not JSON serializable"),
        (CLASS + "    timeouts = {'aply': 5}", "aply"),
        (CLASS + "    timeouts = {'apply': '1h'}", "apply is '1h', not a number of seconds"),
        (CLASS + "    timeouts = {'apply': 0}", "apply is 0, not"),
        (CLASS + "    timeouts = {'apply': -1}", "apply is -1, not"),
        (CLASS + "    timeouts = {'apply': True}", "apply is True, not"),
        (CLASS + "    timeouts = {'apply': None}", "apply is None, not"),
        (CLASS + "    timeouts = {'apply': float('inf')}", "apply is inf, not"),
        (CLASS + "    timeouts = {'apply': float('nan')}", "apply is nan, not"),
        (CLASS + "    timeouts = [5]", ""),
        (CLASS + "    stall = 'never'", "stall is 'never', not"),
    ],
)
def test_a_class_that_cannot_be_used_is_broken_with_its_reason(site: Site, code: str, reason: str) -> None:
    site.install("greet", code)
    registry = Registry(())

    said = why_not(registry, "greet")

    assert said.startswith("handler greet of greet 1.0 cannot be used: ")
    assert reason in said
    # It is there all the same, and its jobs are told why.
    assert registry.has("greet")
    assert "greet" in registry.names()


def test_an_import_that_hangs_is_broken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "DESCRIBE_SECONDS", 0.5)
    site.install("greet", "import time\ntime.sleep(1000)")

    assert "not imported within 0.5 s" in why_not(Registry(()), "greet")


def test_an_interpreter_that_cannot_be_started_is_a_broken_handler(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PYTHON", ("/nowhere/python",))
    site.install("greet")

    assert "No such file" in why_not(Registry(()), "greet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("entry_points.txt", b"[thingjobs.handlers.v1]\nno equals sign\n"),
        ("entry_points.txt", b"[thingjobs.handlers.v1]\n\xff = \xff:x\n"),
        ("METADATA", b"Name: \xff\nVersion: 1\n"),
        ("METADATA", None),
        ("METADATA", b""),
        ("RECORD", b"\xff\xfe"),
    ],
)
def test_a_distribution_that_is_damaged_spoils_no_other(site: Site, name: str, content: bytes | None) -> None:
    damaged = site.install("damaged") / name
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    site.install("greet")

    assert Registry(()).get("greet").source == "greet 1.0"


# --- executables --------------------------------------------------------------------------------------------------


def test_an_executable_is_a_handler_that_understands_apply(folder: Path) -> None:
    path = program(folder)

    handler = Registry([folder]).get("firmware")

    assert (handler.argv, handler.source, handler.version) == ((str(path),), str(path), "")
    assert (handler.verbs, handler.limits) == (frozenset({Verb.APPLY}), Limits())


def test_the_digest_of_an_executable_changes_with_its_content(folder: Path) -> None:
    program(folder)
    registry = Registry([folder])
    before = registry.get("firmware").digest

    program(folder, text="#!/bin/sh\nexit 1\n")

    assert registry.get("firmware").digest != before


def test_what_is_no_visible_executable_file_is_no_handler(folder: Path) -> None:
    program(folder, ".hidden")
    program(folder, "plain", mode=0o644)
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe", 0o755)

    before = Registry(()).names()

    assert Registry([folder]).names() == before


def test_a_folder_that_is_missing_holds_no_handlers(folder: Path) -> None:
    program(folder)

    assert Registry([folder.parent / "nowhere", folder]).has("firmware")


def test_an_executable_that_comes_or_goes_is_noticed(folder: Path) -> None:
    registry = Registry([folder])
    assert not registry.has("firmware")

    path = program(folder)
    assert registry.has("firmware")

    path.unlink()
    with pytest.raises(HandlerError) as refused:
        registry.get("firmware")
    assert refused.value.code is Code.HANDLER_UNKNOWN


def test_an_unknown_handler_is_told_with_those_that_there_are(folder: Path) -> None:
    program(folder, "beta")
    program(folder, "alpha")

    with pytest.raises(HandlerError, match=r"there is no handler gamma on this device; there are: .*alpha.*beta"):
        Registry([folder]).get("gamma")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_an_executable_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    path = program(folder, mode=mode)

    said = why_not(Registry([folder]), "firmware")

    assert f"{path} may be written by others; run chmod go-w {path}" in said


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_an_executable_in_a_folder_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    # Where anybody may add a file, anybody may add a handler: the sticky bit of /tmp does not help.
    program(folder)
    folder.chmod(mode)

    assert f"{folder} may be written by others" in why_not(Registry([folder]), "firmware")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_is_judged_by_where_it_leads(folder: Path, tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = program(elsewhere)
    (folder / "firmware").symlink_to(target)
    assert Registry([folder]).get("firmware").argv == (str(folder / "firmware"),)

    changed = target if what == "file" else elsewhere
    changed.chmod(0o777)

    assert f"{changed} may be written by others" in why_not(Registry([folder]), "firmware")


def test_an_executable_that_cannot_be_read_is_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(folder)

    def vanish(_: Path) -> Path | None:
        path.unlink()
        return written_by_others(path)

    monkeypatch.setattr(registry_module, "written_by_others", vanish)

    assert "cannot be read" in why_not(Registry([folder]), "firmware")


# --- two of one name ----------------------------------------------------------------------------------------------


def test_two_executables_of_one_name_are_refused_naming_both(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    paths = [program(folder), program(other)]
    program(other, "alone")
    registry = Registry([folder, other])

    said = why_not(registry, "firmware")

    assert all(str(path) in said for path in paths)
    assert registry.names().count("firmware") == 1
    assert registry.get("alone").name == "alone"


def test_an_executable_and_a_class_of_one_name_are_refused_naming_both(site: Site, folder: Path) -> None:
    site.install("greet")
    path = program(folder, "greet")

    said = why_not(Registry([folder]), "greet")

    assert str(path) in said
    assert "greet 1.0" in said


def test_two_distributions_that_name_one_handler_are_refused_naming_both(site: Site) -> None:
    site.install("greet")
    site.install("polite", points="greet = polite:Greet")

    said = why_not(Registry(()), "greet")

    assert "greet 1.0" in said
    assert "polite 1.0" in said


def test_one_distribution_found_twice_is_one(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("greet")
    again = Site(tmp_path / "again")
    again.folder.mkdir()
    again.install("greet", version="0.9")
    monkeypatch.setattr(sys, "path", [*sys.path, str(again.folder)])

    assert Registry(()).get("greet").source == "greet 1.0"


# --- what is remembered -------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "handlers.json"


@pytest.fixture
def starts(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts how often a child was started to describe the handler `greet`."""
    log = site.folder / "starts"
    site.install("greet", f"open({str(log)!r}, 'a').write('x')\n{CLASS}")
    return lambda: len(log.read_text()) if log.exists() else 0


def test_a_class_is_read_once_for_each_version_that_is_installed(
    site: Site, cache: Path, starts: Callable[[], int]
) -> None:
    for _ in range(3):
        Registry((), cache).get("greet")
    assert starts() == 1

    (site.folder / "greet-1.0.dist-info" / "RECORD").write_text("greet.py,sha256=other,12\n")
    for _ in range(3):
        Registry((), cache).get("greet")
    assert starts() == 2


@pytest.mark.parametrize("code", ["raise RuntimeError('no modem here')", CLASS + "    timeouts = {'apply': '1h'}"])
def test_a_class_that_was_broken_is_read_again(site: Site, cache: Path, code: str) -> None:
    site.install("greet", code)
    registry = Registry((), cache)
    why_not(registry, "greet")

    (site.folder / "greet.py").write_text(CLASS)

    assert registry.get("greet").name == "greet"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"x": 1}', b"[" * 100_000])
def test_a_cache_that_is_damaged_costs_a_start_and_no_more(
    cache: Path, starts: Callable[[], int], content: bytes
) -> None:
    cache.write_bytes(content)

    assert Registry((), cache).get("greet").name == "greet"
    assert Registry((), cache).get("greet").name == "greet"
    assert starts() == 1


def test_a_cache_that_cannot_be_written_costs_a_start_and_no_more(tmp_path: Path, starts: Callable[[], int]) -> None:
    registry = Registry((), tmp_path / "nowhere" / "handlers.json")

    assert [registry.get("greet").name for _ in range(2)] == ["greet", "greet"]
    assert starts() == 2


# --- scripts ------------------------------------------------------------------------------------------------------


def device(folder: Path) -> ThisDevice:
    return ThisDevice(
        Config(Thing(ThingName("pump-7")), Connection(""), handlers=Handlers(scripts=folder)), Registry(())
    )


def test_a_script_is_an_executable_in_the_scripts_folder_itself(folder: Path) -> None:
    path = program(folder, "install.sh")
    program(folder, "plain.sh", mode=0o644)
    (folder / "below").mkdir()
    program(folder / "below", "deep.sh")
    known = device(folder)

    assert known.script("install.sh") == str(path)
    for name in (
        "plain.sh",
        "missing.sh",
        "below",
        "below/deep.sh",
        "../handlers/install.sh",
        "",
        ".",
        "..",
        "/bin/sh",
        "a\0",
    ):
        assert known.script(name) is None, name


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_script_that_others_may_write_is_refused(folder: Path, what: str) -> None:
    path = program(folder, "install.sh")
    changed = path if what == "file" else folder
    changed.chmod(0o777)

    with pytest.raises(DocumentError, match=f"{changed} may be written by others") as refused:
        device(folder).script("install.sh")

    assert refused.value.code is Code.HANDLER_BROKEN
