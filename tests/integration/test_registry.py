"""Which handlers there are: entry points and executables, each usable, or broken with a reason."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import registry as registry_module
from thingjobs.config.settings import Config, Connection, Handlers, Thing
from thingjobs.errors import DocumentError, HandlerError
from thingjobs.judging import ThisDevice
from thingjobs.model import Code, Limits, Resources, ThingName, Verb
from thingjobs.registry import Registry, asking, classes, executables, tree

if TYPE_CHECKING:
    from collections.abc import Callable

CLASS = """
class Greet:
    def apply(self, ctx, params):
        pass
"""
#: The child of service, which sees only what is installed, and a folder that stands for that.
CHILD = """
import runpy, sys
sys.dont_write_bytecode = True
sys.path.append({folder!r})
del sys.argv[1]
runpy.run_module("thingjobs.child", run_name="__main__")
"""


@dataclass
class Site:
    """A folder on sys.path in which distributions are installed, as pip would leave them."""

    folder: Path
    installed: list[Path] = field(default_factory=list)

    def install(
        self,
        name: str,
        code: str = CLASS,
        *,
        version: str = "1.0",
        points: str = "",
        record: str = "",
        editable: bool = False,
    ) -> Path:
        """Install a distribution `name` with one module of its name, and a handler of that name; return its folder."""
        module = name.replace("-", "_")
        for old in self.folder.glob(f"{module}-*.dist-info"):
            shutil.rmtree(old)
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(record or f"{module}.py,sha256=abc,12\n")
        points = points or f"{name} = {module}:Greet"
        (info / "entry_points.txt").write_text(f"[thingjobs.handlers.v1]\n{points}\n")
        if editable:
            (info / "direct_url.json").write_text('{"url": "file:///src", "dir_info": {"editable": true}}')
        return info


def child_for(folder: Path) -> tuple[str, ...]:
    """Return how to call the child so that it sees `folder` as well."""
    return (sys.executable, "-I", "-c", CHILD.format(folder=str(folder)), "thingjobs.child")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A place for distributions that this process and its children see."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(classes, "PYTHON", child_for(folder))
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
    assert handler.argv == (*classes.PYTHON, "greet:Greet")
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


def test_looking_at_names_imports_nothing(site: Site) -> None:
    site.install("greet", f"open({str(site.folder / 'imported')!r}, 'w')")
    registry = Registry(())

    assert "greet" in registry.names()
    assert registry.has("greet")
    assert not (site.folder / "imported").exists()


def test_the_digest_changes_with_what_is_installed(site: Site) -> None:
    site.install("greet", record="greet.py,sha256=abc,12\n")
    before = Registry(()).get("greet").digest

    assert Registry(()).get("greet").digest == before
    site.install("greet", record="greet.py,sha256=def,12\n")
    assert Registry(()).get("greet").digest != before


def test_a_module_may_talk_while_it_is_imported(site: Site) -> None:
    site.install("greet", f"import sys\nprint('hello')\nprint('oops', file=sys.stderr)\n{CLASS}")

    assert Registry(()).get("greet").version == "1.0"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no modem here')", "cannot import greet:Greet: RuntimeError: no modem here"),
        ("import not_there", "No module named 'not_there'"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "it printed nothing"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it printed nothing"),
        (CLASS + "    description = 'x' * 100_000", "it printed more than 64 KiB"),
        ("Greet = 5", "greet:Greet is not a class"),
        ("", "greet:Greet is not a class"),
        ("class Greet: ...", "verbs must hold apply"),
        ("class Greet: apply = 5", "verbs must hold apply"),
        (CLASS + "    params_schema = {1: object}", "JSON cannot say"),
        (CLASS + "    params_schema = {'type': 'strin'}", "params.type must be one of"),
        (CLASS + "    params_schema = {'$ref': 'http://127.0.0.1/'}", "params refers elsewhere"),
        (CLASS + "    timeouts = {'aply': 5}", "timeouts.aply is no verb; did you mean apply?"),
        (CLASS + "    timeouts = {'apply': '1h'}", 'timeouts.apply is "1h"'),
        (CLASS + "    timeouts = {'apply': 0}", "timeouts.apply is 0"),
        (CLASS + "    timeouts = {'apply': float('nan')}", "timeouts.apply is nan"),
        (CLASS + "    timeouts = [5]", "timeouts must be"),
        (CLASS + "    stall = 'never'", 'stall is "never"'),
        (CLASS + "    limits = {'memory': '64X'}", "limits.memory must be"),
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


def test_what_is_printed_at_import_is_not_the_answer(site: Site) -> None:
    site.install("greet", 'print(\'{"contract": 1, "verbs": ["apply"], "version": "forged"}\')\n' + CLASS)

    assert Registry(()).get("greet").version == "1.0"


def test_an_import_that_hangs_is_broken_and_not_tried_again_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classes, "DESCRIBE_SECONDS", 1.0)
    site.install("greet", "import time\ntime.sleep(1000)")
    registry = Registry(())

    assert "took longer than 1 s" in why_not(registry, "greet")
    monkeypatch.setattr(classes, "PYTHON", ("/nowhere/python",))
    assert "took longer than 1 s" in why_not(registry, "greet"), "no second child was started"


@pytest.mark.parametrize("leave", ["", "os.setsid()"])
def test_what_an_import_leaves_running_holds_nothing_up_and_is_ended(site: Site, tmp_path: Path, leave: str) -> None:
    pid = tmp_path / "pid"
    code = f"""
import os, time
if os.fork() == 0:
    {leave or "pass"}
    open({str(pid)!r}, "w").write(str(os.getpid()))
    time.sleep(1000)
while not os.path.exists({str(pid)!r}) or not open({str(pid)!r}).read():
    time.sleep(0.01)
"""
    site.install("greet", code + CLASS)

    assert Registry(()).get("greet").name == "greet"

    left = int(pid.read_text())
    assert gone(left)


def gone(pid: int) -> bool:
    """Wait until a process that was killed is no more, or a zombie of somebody's."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_class_is_described_without_the_secrets_of_the_agent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    names = f"import os\nnames = ' '.join(sorted(set(os.environ) - {{'LC_CTYPE'}}))\n{CLASS}    description = names"
    site.install("greet", names)

    known = set(Registry(()).get("greet").description.split())
    assert known <= {"PATH", "LANG", "HOME", asking.MARK}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_child_is_asked_as_the_user_that_is_wanted() -> None:
    who = asking.ask(["/bin/sh", "-c", 'id -u; id -G; echo "$HOME"; cat'], seconds=5, user="nobody", question=b"hello")

    assert who.split()[:2] == [b"65534", b"65534"]
    assert who.endswith(b"hello")


def test_the_account_of_a_handler_is_the_one_that_imports_it(site: Site) -> None:
    site.install("greet")

    said = why_not(Registry((), account=lambda name: f"nobody-for-{name}"), "greet")

    assert "there is no user nobody-for-greet on this device" in said


def test_an_interpreter_that_cannot_be_started_is_told_instead_of_an_unknown_handler(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("greet")
    monkeypatch.setattr(classes, "PYTHON", ("/nowhere/python",))

    assert "what is installed cannot be listed: /nowhere/python cannot be started" in why_not(Registry(()), "greet")


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

    named = folder / "firmware" if what == "file" else elsewhere
    assert f"{named} may be written by others" in why_not(Registry([folder]), "firmware")


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
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


@pytest.fixture
def starts(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Counts how often a child was started to describe the handler `greet`."""
    log = tmp_path / "starts"
    site.install("greet", f"open({str(log)!r}, 'a').write('x')\n{CLASS}")
    return lambda: len(log.read_text()) if log.exists() else 0


def test_a_class_is_read_once_for_each_version_that_is_installed(
    site: Site, state: Path, starts: Callable[[], int]
) -> None:
    for _ in range(3):
        Registry((), state).get("greet")
    assert starts() == 1

    site.install("greet", (site.folder / "greet.py").read_text(), record="greet.py,sha256=other,12\n")
    for _ in range(3):
        Registry((), state).get("greet")
    assert starts() == 2


def test_with_what_is_remembered_no_child_is_started(
    site: Site, state: Path, starts: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Registry((), state).get("greet")
    monkeypatch.setattr(classes, "ask", None)

    registry = Registry((), state)

    assert registry.get("greet") == before
    assert registry.names()


def test_a_package_that_comes_or_goes_is_noticed_without_a_restart(site: Site, state: Path) -> None:
    registry = Registry((), state)
    assert not registry.has("greet")

    info = site.install("greet")
    assert registry.get("greet").version == "1.0"
    site.install("greet", version="1.1")
    assert registry.get("greet").version == "1.1"

    shutil.rmtree(site.folder / "greet-1.1.dist-info")
    assert not registry.has("greet")
    assert not info.exists()
    assert "1.1" not in (state / "handlers.json").read_text()


@pytest.mark.parametrize("code", ["raise RuntimeError('no modem here')", CLASS + "    timeouts = {'apply': '1h'}"])
def test_a_class_that_was_broken_is_read_again_a_minute_later(
    site: Site, state: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("greet", code)
    registry = Registry((), state)
    why_not(registry, "greet")

    (site.folder / "greet.py").write_text(CLASS)
    why_not(registry, "greet")
    monkeypatch.setattr(classes, "AGAIN_SECONDS", 0.0)

    assert registry.get("greet").name == "greet"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b'{"x": 1}', b"[" * 100_000, b" " * (5 << 20)),
        *(b'{"format": 2}', b'{"format": 1, "listed": 5}', b'{"format": 1, "listed": {"signature": []}}'),
    ],
)
def test_a_memory_that_is_damaged_costs_a_start_and_no_more(
    state: Path, starts: Callable[[], int], content: bytes
) -> None:
    (state / "handlers.json").write_bytes(content)

    assert Registry((), state).get("greet").name == "greet"
    assert Registry((), state).get("greet").name == "greet"
    assert starts() == 1


def test_what_is_remembered_is_judged_like_what_is_said(state: Path, starts: Callable[[], int]) -> None:
    Registry((), state).get("greet")
    file = state / "handlers.json"
    content = json.loads(file.read_text())
    key = next(key for key in content if key.startswith("described greet"))
    content[key] = {"contract": 1, "verbs": ["apply"], "timeouts": {"apply": -1}}
    file.write_text(json.dumps(content))

    assert Registry((), state).get("greet").limits == Limits()
    assert starts() == 2


@pytest.mark.parametrize("points", [[5], [{"name": "x"}], [{"name": 5, "target": "a:b"}], {}])
def test_a_list_that_is_damaged_is_asked_for_again(state: Path, starts: Callable[[], int], points: object) -> None:
    Registry((), state).get("greet")
    file = state / "handlers.json"
    content = json.loads(file.read_text())
    content["listed"]["points"] = points
    file.write_text(json.dumps(content))

    assert Registry((), state).has("greet")


def test_a_memory_that_cannot_be_written_costs_a_start_and_no_more(tmp_path: Path, starts: Callable[[], int]) -> None:
    for _ in range(2):
        assert Registry((), tmp_path / "nowhere").get("greet").name == "greet"
    assert starts() == 2


def test_a_reader_writes_nothing(site: Site, state: Path, starts: Callable[[], int]) -> None:
    Registry((), state, read_only=True).get("greet")
    assert list(state.iterdir()) == []

    Registry((), state).get("greet")
    Registry((), state, read_only=True).get("greet")
    assert starts() == 2


def test_what_is_installed_as_a_link_to_its_source_is_read_again_when_that_changes(
    site: Site, state: Path, starts: Callable[[], int]
) -> None:
    source = (site.folder / "greet.py").read_text()
    site.install("greet", source, editable=True)
    registry = Registry((), state)
    assert [registry.get("greet").version for _ in range(3)] == ["1.0"] * 3
    assert starts() == 1

    (site.folder / "greet.py").write_text(source + "    version = '2.0'\n")

    assert registry.get("greet").version == "2.0"
    assert "described" not in (state / "handlers.json").read_text()


# --- folders with a manifest --------------------------------------------------------------------------------------

WHOLE = {
    "contract": 1,
    "name": "firmware",
    "version": "1.2",
    "description": "writes the other slot",
    "exec": ["bin/run.sh", "--flag"],
    "verbs": ["check", "apply", "rollback"],
    "params": {"type": "object", "properties": {"retries": {"type": "integer", "minimum": 1}}},
    "user": "operator",
    "timeouts": {"apply": 5},
    "stall": 30,
    "cancel_apply": True,
    "apply_rerun": True,
    "observe": True,
    "max_defer": 3600,
    "daemons": "keep",
    "resumes_across_versions": True,
    "limits": {"memory": "64M", "processes": 32, "cpu": 0.5},
    "needs": ["cloud"],
}
LEAST: dict[str, Any] = {"contract": 1, "exec": "run.sh", "verbs": ["apply"]}


def package(folder: Path, manifest: object = LEAST, name: str = "firmware") -> Path:
    """Make the folder of a handler; `manifest` is JSON, or what stands in the file."""
    path = folder / name
    path.mkdir()
    text = manifest if isinstance(manifest, (str, bytes)) else json.dumps(manifest)
    (path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    program(path, "run.sh")
    return path


def test_a_folder_with_a_manifest_is_a_handler(folder: Path) -> None:
    path = package(folder, WHOLE)
    (path / "bin").mkdir()
    program(path / "bin", "run.sh")

    handler = Registry([folder]).get("firmware")

    assert handler.argv == (str(path / "bin" / "run.sh"), "--flag")
    assert (handler.version, handler.description, handler.user) == ("1.2", "writes the other slot", "operator")
    assert handler.verbs == {Verb.CHECK, Verb.APPLY, Verb.ROLLBACK}
    assert handler.limits == Limits(apply=5, stall=30)
    assert (handler.cancel_apply, handler.apply_rerun, handler.observe) == (True, True, True)
    assert (handler.keeps_daemons, handler.resumes_across_versions, handler.max_defer) == (True, True, 3600)
    assert handler.resources == Resources(64 << 20, 32, 0.5)
    assert handler.needs == {"cloud"}
    assert handler.params == WHOLE["params"]


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("", "manifest.json: line 1, column 1: this is not JSON"),
        ('{"contract": 1,\n"x"}', "manifest.json: line 2, column 4: this is not JSON"),
        (b"\xff\xfe\xfd", "manifest.json: "),
        ("[" * 60_000, "manifest.json: it nests too deeply"),
        ("9" * 5000, "manifest.json: it holds a number that is too long"),
        (" " * (10 << 20), "manifest.json: it has more than 128 KiB"),
        ([], "manifest.json: it must be a JSON object, not a list"),
        ({**LEAST, "contract": 2}, "manifest.json: contract is 2"),
        ({**LEAST, "name": "other"}, "manifest.json: name is other, and the handler is called firmware"),
        ({**LEAST, "timeout": {}}, "manifest.json: timeout is not a key of a manifest; did you mean timeouts?"),
        ({**LEAST, "exec": "gone.sh"}, "manifest.json: exec names gone.sh, which cannot be found"),
        ({**LEAST, "exec": "../run.sh"}, "manifest.json: exec must name a file in the handler's folder"),
        ({**LEAST, "exec": "manifest.json"}, "manifest.json cannot be run; run chmod +x"),
        ({"contract": 1, "verbs": ["apply"]}, "manifest.json: exec is missing"),
        ({**LEAST, "limits": {"memory": -1}}, "manifest.json: limits.memory must be"),
        ({**LEAST, "params": {"$ref": "https://evil.example/x"}}, "manifest.json: params refers elsewhere"),
    ],
)
def test_a_manifest_that_cannot_be_used_makes_a_broken_handler(folder: Path, manifest: object, reason: str) -> None:
    package(folder, manifest)
    registry = Registry([folder])

    said = why_not(registry, "firmware")

    assert said.startswith("handler firmware cannot be used: ")
    assert reason in said
    assert registry.has("firmware")


def test_all_problems_are_found_at_once(folder: Path) -> None:
    path = package(folder, {"contract": 1, "exec": "gone.sh", "verbs": ["aply"], "stall": 0})
    (path / "run.sh").chmod(0o777)
    os.mkfifo(path / "pipe")
    registry = Registry([folder])

    found = registry.problems("firmware")

    for part in ("aply", "stall", "run.sh may be written by others", "pipe is neither a file nor a folder"):
        assert any(part in one for one in found), found
    assert "and 3 more; see thingjobs handlers check firmware" in why_not(registry, "firmware")


def test_a_handler_without_problems_has_none(folder: Path) -> None:
    package(folder)

    assert Registry([folder]).problems("firmware") == []


def test_everything_is_listed_usable_or_with_its_reason(folder: Path) -> None:
    package(folder)
    package(folder, "{", name="torn")

    found = {one.name: one for one in Registry([folder]).everything()}

    assert found["firmware"].handler is not None
    assert found["firmware"].reason == ""
    assert found["torn"].handler is None
    assert "not JSON" in found["torn"].reason
    assert found["torn"].source == str(folder / "torn")


def test_a_folder_without_a_manifest_is_no_handler_and_who_asks_for_it_is_told(folder: Path) -> None:
    (folder / "firmware").mkdir()
    registry = Registry([folder])

    assert "firmware" not in registry.names()
    with pytest.raises(HandlerError, match=r"firmware has no manifest\.json"):
        registry.get("firmware")


def test_a_file_that_cannot_be_run_is_no_handler_and_who_asks_for_it_is_told(folder: Path) -> None:
    (folder / "greet").write_text("#!/bin/sh\n")
    registry = Registry([folder])

    assert "greet" not in registry.names()
    with pytest.raises(HandlerError, match=rf"there is no handler greet .*chmod \+x {folder}/greet\)") as caught:
        registry.get("greet")
    assert caught.value.code is Code.HANDLER_UNKNOWN


def test_chmod_is_not_the_advice_where_it_would_not_help(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(folder, "greet")
    # As on a file system that is mounted noexec, or for an account that may not.
    monkeypatch.setattr(os, "access", lambda *_args, **_more: False)

    with pytest.raises(HandlerError, match=r"greet cannot be run by this account, or not from this file system\)"):
        Registry([folder]).get("greet")


def test_a_script_is_broken_as_long_as_what_runs_it_is_not_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "SETTLED_SECONDS", -1.0)  # so what was found is kept from the first look on
    interpreter = tmp_path / "sh"
    program(folder, "greet", f"#!{interpreter}\n")
    program(folder, "found", "#!/usr/bin/env sh-of-ours\n")
    registry = Registry([folder], path=str(tmp_path))

    for _ in range(2):
        assert f"greet is to be run by {interpreter}, which is not on this device" in why_not(registry, "greet")
        assert "is to be run by sh-of-ours, which is not on the PATH of handlers" in why_not(registry, "found")
        for name in ("sh", "sh-of-ours"):
            (tmp_path / name).symlink_to("/bin/sh")
        assert {registry.get(name).name for name in ("greet", "found")} == {"greet", "found"}
        for name in ("sh", "sh-of-ours"):
            (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["a b", "ä", "a\nb", "-x", "x" * 129])
def test_a_name_that_is_none_is_broken(folder: Path, name: str) -> None:
    program(folder, name)
    registry = Registry([folder])

    assert "its name is none" in why_not(registry, name)
    assert "\n" not in why_not(registry, name)


@pytest.mark.parametrize("name", ["", ".", "..", "../handlers/firmware", "firmware/run.sh", "a\0", "\ud800", "x" * 300])
def test_no_name_leads_out_of_the_folder(folder: Path, name: str) -> None:
    package(folder)

    assert not Registry([folder]).has(name)


def test_the_name_may_be_a_link_to_a_folder_that_is_switched(folder: Path) -> None:
    store = folder / ".versions"
    store.mkdir()
    for number in ("1", "2"):
        package(store, {**LEAST, "version": number}, name=number)
    link = folder / "firmware"
    link.symlink_to(".versions/1")
    registry = Registry([folder])
    assert registry.get("firmware").version == "1"

    (folder / "next").symlink_to(".versions/2")
    (folder / "next").rename(link)
    assert registry.get("firmware").version == "2"

    (store / "2" / "run.sh").chmod(0o777)
    assert "run.sh may be written by others" in why_not(registry, "firmware")


# --- trust --------------------------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path / "strange")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        os.chdir(path)
        unix.bind("strange")


def link_to(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        (path / "deep" / "er").mkdir(parents=True)
        (path / "deep" / "er" / "strange").symlink_to(target)

    return make


def with_mode(mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        (path / "strange").touch()
        (path / "strange").chmod(mode)

    return make


def folder_with_mode(path: Path) -> None:
    (path / "strange").mkdir()
    (path / "strange").chmod(0o775)


def manifest_link(path: Path) -> None:
    (path / "manifest.json").rename(path / "strange")
    (path / "manifest.json").symlink_to("strange")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (pipe, "strange is neither a file nor a folder"),
        (listener, "strange is neither a file nor a folder"),
        (link_to("/etc/passwd"), "strange is a link that may lead out of the folder"),
        (link_to("../../../x"), "strange is a link that may lead out of the folder"),
        (link_to("../er/../../../x"), "strange is a link that may lead out of the folder"),
        (with_mode(0o4755), "strange takes the rights of its owner"),
        (with_mode(0o2755), "strange takes the rights of its owner"),
        (with_mode(0o664), "strange may be written by others; run chmod go-w"),
        (with_mode(0o646), "strange may be written by others; run chmod go-w"),
        (folder_with_mode, "strange may be written by others"),
        (manifest_link, "manifest.json: it must be a plain file"),
    ],
)
def test_what_cannot_be_trusted_in_its_folder_makes_a_handler_broken(
    folder: Path, spoil: Callable[[Path], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    spoil(package(folder))

    assert reason in why_not(Registry([folder]), "firmware")


@pytest.mark.parametrize("target", ["x", "./x", "../x", "../../run.sh", "..", "missing"])
def test_a_link_that_stays_inside_is_welcome(folder: Path, target: str) -> None:
    link_to(target)(package(folder))

    assert Registry([folder]).get("firmware").name == "firmware"


def test_a_handler_is_bounded_in_size_and_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package(folder)
    registry = Registry([folder])
    with (path / "big").open("wb") as big:
        big.truncate(tree.MAX_BYTES + 1)
    assert "a handler has at most 256" in why_not(registry, "firmware")

    (path / "big").unlink()
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    assert "holds more than 2 files" in why_not(registry, "firmware")


@pytest.mark.parametrize(("mode", "refused"), [(0o1777, False), (0o777, True), (0o775, True), (0o755, False)])
def test_who_may_write_further_up_may_put_another_handler_there(tmp_path: Path, mode: int, refused: bool) -> None:
    above = tmp_path / "above"
    inner = above / "handlers"
    inner.mkdir(parents=True)
    package(inner)
    above.chmod(mode)
    registry = Registry([inner])

    if refused:
        assert f"{above} may be written by others" in why_not(registry, "firmware")
    else:
        assert registry.get("firmware")


def test_the_way_of_a_link_is_held_against_the_same(folder: Path, tmp_path: Path) -> None:
    hop = tmp_path / "hop"
    hop.mkdir()
    (hop / "on").symlink_to(package(tmp_path, name="real"))
    (folder / "firmware").symlink_to(hop / "on")
    registry = Registry([folder])
    assert registry.get("firmware")

    hop.chmod(0o777)

    assert f"{hop} may be written by others" in why_not(registry, "firmware")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["", "run.sh", "manifest.json", ".."])
def test_what_belongs_to_somebody_else_is_refused(folder: Path, what: str) -> None:
    path = package(folder)
    os.chown(path / what, 65534, 65534)

    assert "belongs to user 65534" in why_not(Registry([folder]), "firmware")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_a_link_that_belongs_to_somebody_else_is_refused(folder: Path, tmp_path: Path) -> None:
    link = folder / "firmware"
    link.symlink_to(package(tmp_path, name="real"))
    os.chown(link, 65534, 65534, follow_symlinks=False)

    assert f"{link} belongs to user 65534" in why_not(Registry([folder]), "firmware")


def test_an_agent_that_knows_its_handlers_has_loaded_nothing_that_is_seldom_needed(folder: Path) -> None:
    program(folder)
    code = f"""
import sys
from pathlib import Path
from thingjobs.registry import Registry
registry = Registry([Path({str(folder)!r})])
registry.get("firmware"), registry.get("aws-steps")
print([name for name in ("importlib.metadata", "fastjsonschema", "shutil", "difflib") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"


def test_what_cannot_be_read_is_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(folder)

    def vanish(_: Path) -> list[str]:
        shutil.rmtree(folder / "firmware")
        return []

    monkeypatch.setattr(executables, "_outside", vanish)

    assert "cannot be read: No such file" in why_not(Registry([folder]), "firmware")


# --- params -------------------------------------------------------------------------------------------------------


def checked(folder: Path, schema: dict[str, Any], params: dict[str, Any]) -> str:
    """Return what a handler with that schema says of params."""
    package(folder, {**LEAST, "params": schema})
    registry = Registry([folder])
    return registry.check(registry.get("firmware"), params)


def test_a_schema_with_patterns_is_evaluated_in_a_child(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"properties": {"slot": {"type": "string", "pattern": "^[ab]$"}}}
    package(folder, {**LEAST, "params": schema})
    registry = Registry([folder])
    handler = registry.get("firmware")

    assert registry.check(handler, {"slot": "a"}) == ""
    assert registry.check(handler, {"slot": "secret"}) == "params.slot must match ^[ab]$"

    monkeypatch.setattr(classes, "PYTHON", ("/nowhere/python",))
    with pytest.raises(HandlerError, match="params could not be checked"):
        registry.check(handler, {"slot": "a"})


def test_a_pattern_that_never_ends_makes_a_broken_handler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "VALIDATE_SECONDS", 1.0)

    with pytest.raises(HandlerError, match="params could not be checked by its schema within 1 s") as refused:
        checked(folder, {"properties": {"x": {"pattern": "^(a+)+$"}}}, {"x": "a" * 40 + "!"})

    assert refused.value.code is Code.HANDLER_BROKEN


def test_alternatives_that_multiply_hold_up_no_agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "VALIDATE_SECONDS", 1.0)
    doubled = {f"a{n}": {"anyOf": [{"$ref": f"#/definitions/a{n + 1}"}] * 2} for n in range(40)}
    schema = {"properties": {"x": {"$ref": "#/definitions/a0"}}, "definitions": {**doubled, "a40": {"type": "null"}}}

    with pytest.raises(HandlerError, match="within 1 s"):
        checked(folder, schema, {"x": 1})


def test_nothing_is_ever_fetched_for_a_schema(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        tries: list[dict[str, Any]] = [
            {"$ref": url},
            {"properties": {"a": {"$ref": f"{url}#/definitions/a"}}},
            {"$schema": url},
            {"$id": url, "properties": {"a": {"$ref": "#/definitions/a"}}},
            {"properties": {"a": {"const": {"$ref": url}}}},
            {"properties": {"a": {"enum": [[{"$ref": url}]]}}},
            {"default": {"$ref": url}, "examples": [{"$ref": url}], "type": "object", "required": ["a"]},
            {"properties": {"$ref": {"const": url}}, "patternProperties": {"x": {"$ref": url}}},
        ]
        for number, schema in enumerate(tries):
            package(folder, {**LEAST, "params": schema}, name=f"h{number}")
            registry = Registry([folder])
            registry.problems(f"h{number}")
            if number != 6:
                assert "params" in why_not(registry, f"h{number}")
        with pytest.raises(TimeoutError):
            server.accept()


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


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give a file away")
@pytest.mark.parametrize("what", ["file", "folder", "folder above"])
def test_a_script_that_somebody_else_owns_is_refused(folder: Path, what: str) -> None:
    path = program(folder, "install.sh")
    changed = {"file": path, "folder": folder, "folder above": folder.parent}[what]
    os.chown(changed, 12345, -1)

    with pytest.raises(DocumentError, match=f"{changed} belongs to user 12345") as refused:
        device(folder).script("install.sh")

    assert refused.value.code is Code.HANDLER_BROKEN
