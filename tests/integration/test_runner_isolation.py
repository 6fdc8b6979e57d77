"""What a verb starts ends with it and keeps within its limits; floods and full disks hold up nothing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.child import START
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Ending, Evidence, Finished, Progressed
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Resources, Verb
from thingjobs.runner import Runner, Settings, cgroup, place, process, watcher
from thingjobs.runner.cgroup import Cell, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.runner.events import Wanted

BOOT = boot.boot_id()
IDENTITY = Identity(JobId("fw-1"), 1, 1_790_000_000)
PATIENCE_SECONDS = 30
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Bench:
    """A runner, and handlers that are shell scripts."""

    folder: Path
    inbox: queue.SimpleQueue[Progressed | Finished | Wanted] = field(default_factory=queue.SimpleQueue)
    runs: int = 0

    def __post_init__(self) -> None:
        self.state = self.folder / "state"
        self.runner = self.settle()

    def settle(self, **settings: Any) -> Runner:
        """Have a runner with these settings; return it."""
        known = {"environment": {"PATH": PATH}, "grace": 0.2, **settings}
        self.runner = Runner(Settings(self.state, "pump-7", BOOT, **known), self.inbox.put)
        return self.runner

    def start(self, script: str, *, params: dict[str, Any] | None = None, **plan: Any) -> Record:
        """Let `script` run; return what the journal would hold."""
        self.runs += 1
        program = self.folder / "handler"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        made = Plan("firmware", (str(program),), params=params or {}, **plan)
        attempts = {Verb.APPLY: self.runs}
        record = Record(IDENTITY, Phase.APPLYING, "c0ffee", 1, made, {}, verb=Verb.APPLY, attempts=attempts)
        started = self.runner.spawn(Run(record, Verb.APPLY, self.runs))
        self.runner.go(IDENTITY)
        return replace(record, process=started)

    def ended(self) -> Ending:
        """Return how the verb ended, once it did."""
        while True:
            event = self.inbox.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, Finished):
                return event.ending

    def run(self, script: str, **more: Any) -> Ending:
        """Run `script` to its end."""
        self.start(script, **more)
        return self.ended()

    @property
    def work(self) -> Path:
        return self.state / "jobs" / IDENTITY.key / "work"

    def pid(self, name: str = "pid") -> int:
        """Return the pid that a process wrote into a file."""
        return int((self.work / name).read_text())


@pytest.fixture
def bench(eventually: Callable[..., Any]) -> Iterator[Bench]:
    """A bench; no file stays open afterwards and no thread behind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with tempfile.TemporaryDirectory(prefix="thingjobs-isolation-") as name:
        Path(name).chmod(0o711)
        made = Bench(Path(name))
        yield made
        for one in threading.enumerate():
            if isinstance(one, watcher.Watcher):
                one.end()
                one.join(PATIENCE_SECONDS)
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) == before)


def alive(pid: int) -> bool:
    return boot.start_time(pid) is not None


#: A daemon as the textbook makes it: a session of its own, nobody's child, no file of its parent's open.
DAEMON = """
(setsid sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 1000' </dev/null >/dev/null 2>&1 &)
while [ ! -e pid ]; do :; done
"""


# --- without cgroups ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -9 $$", "kill -9 $PPID; sleep 9"])
def test_a_daemon_ends_with_the_verb_that_made_it(bench: Bench, end: str) -> None:
    bench.run(f"{DAEMON} {end}")

    assert not alive(bench.pid())


def test_a_daemon_that_is_just_becoming_another_program_ends_with_the_verb(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the middle of exec(2), the kernel gives an empty environment.
    content, looked_at = boot._content, set()

    def becoming(path: str) -> bytes:
        if not path.endswith("/environ") or path in looked_at:
            return content(path)
        looked_at.add(path)
        return b""

    monkeypatch.setattr(boot, "_content", becoming)

    bench.run(f"{DAEMON} exit 0")

    assert f"/proc/{bench.pid()}/environ" in looked_at
    assert not alive(bench.pid())


def test_a_daemon_ends_with_a_verb_that_is_killed(bench: Bench, eventually: Callable[..., Any]) -> None:
    bench.start(f"trap '' TERM; {DAEMON} while :; do sleep 1000; done")
    eventually((bench.work / "pid").exists)

    bench.runner.kill(IDENTITY)

    assert bench.ended().signal == "SIGKILL"
    assert not alive(bench.pid())


def test_one_that_starts_another_as_it_dies_is_followed(bench: Bench) -> None:
    # A chain of sessions, each of which lives for a moment only.
    link = "echo x >>links; [ $(wc -l <links) -lt 400 ] && setsid sh ./link & "
    bench.run(f"echo '{link}' >link; setsid sh ./link >/dev/null 2>&1; while [ ! -s links ]; do :; done")

    before = (bench.work / "links").read_bytes()
    assert (bench.work / "links").read_bytes() == before
    mark = b"JOB_DIR=" + os.fsencode(bench.work)
    assert [pid for pid in boot.processes() if mark in boot.environment(pid)] == []


def test_strangers_are_left_alone(bench: Bench) -> None:
    other = {"JOB_DIR": str(bench.work.parent.parent / "fw-2.1.5" / "work")}
    with subprocess.Popen(["sleep", "1000"], env=other, start_new_session=True) as stranger:
        bench.run(f"{DAEMON} exit 0")

        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("group", ["its own", "the handler's"])
def test_a_daemon_that_may_stay_stays_and_the_verb_ends(bench: Bench, group: str) -> None:
    script = DAEMON.replace(">/dev/null 2>&1", "")  # It holds the pipes as well.
    script = script.replace("setsid", "") if group == "the handler's" else script
    ending = bench.run(f"{script} echo done >&2; exit 3", keeps_daemons=True)

    assert (ending.code, ending.reason) == (3, "done")
    assert alive(bench.pid())
    os.kill(bench.pid(), signal.SIGKILL)


def test_a_handler_that_keeps_daemons_is_killed_all_the_same(bench: Bench, eventually: Callable[..., Any]) -> None:
    bench.start(f"trap '' TERM; echo $$ >handler; {DAEMON} while :; do sleep 1000; done", keeps_daemons=True)
    eventually((bench.work / "pid").exists)

    bench.runner.kill(IDENTITY)

    assert bench.ended().signal == "SIGKILL"
    assert not alive(bench.pid("handler"))
    assert alive(bench.pid())
    os.kill(bench.pid(), signal.SIGKILL)


def test_only_pids_that_can_have_been_given_out_since_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_pid_max", lambda: 1 << 22)  # else those of this test may just be the last before it
    since = boot.moment()
    assert since is not None
    with subprocess.Popen(["sleep", "1000"]) as older, subprocess.Popen(["sleep", "1000"]) as younger:
        found = boot.younger(older.pid, since)
        older.kill()
        younger.kill()

    assert younger.pid in found
    assert older.pid not in found
    assert 1 not in found


@pytest.mark.parametrize("since", [None, boot.Moment(-(10**9), 10), boot.Moment(0, 10**9)])
def test_all_pids_are_looked_at_when_they_can_have_begun_anew(since: boot.Moment | None) -> None:
    assert os.getpid() in boot.younger(os.getpid(), since)


# --- what cannot be stored ------------------------------------------------------------------------------------------


def test_an_exit_status_that_cannot_be_stored_is_the_shims_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events")
    argv = ["/bin/sh", "-c", process.SHIM, "thingjobs", "/dev/full", "/bin/sh", "-c", "exit 42"]

    shim = subprocess.run(argv, input=b"go\n", env={"JOB_EVENTS": str(tmp_path / "events")}, timeout=10, check=False)

    assert shim.returncode == 42


def test_an_observer_runs_elsewhere_when_the_state_folder_cannot_be_written(bench: Bench) -> None:
    bench.state.write_text("not a folder")
    runtime = bench.folder / "runtime"
    runtime.mkdir(mode=0o755)
    bench.settle(runtime=runtime)
    seen = bench.folder / "seen"

    ending = bench.run(f"pwd -P >{seen}; cat job.json >>{seen}; echo said >&2; exit 3", observe=True)

    assert (ending.code, ending.reason) == (3, "said")
    where, job = seen.read_text().split("\n", 1)
    assert where == os.path.realpath(runtime / "jobs" / IDENTITY.key / "work")
    assert json.loads(job)["jobId"] == "fw-1"
    assert stat.S_IMODE((runtime / "jobs").stat().st_mode) == 0o711
    bench.runner.clean(IDENTITY)
    assert list((runtime / "jobs").iterdir()) == []


def test_what_changes_something_does_not_run_elsewhere(bench: Bench) -> None:
    bench.state.write_text("not a folder")
    (bench.folder / "runtime").mkdir()
    bench.settle(runtime=bench.folder / "runtime")

    with pytest.raises(Exception, match="Not a directory"):
        bench.run("exit 0")


def test_an_observer_elsewhere_is_found_by_the_next_agent_and_swept_when_it_is_nobodys(bench: Bench) -> None:
    runtime = bench.folder / "runtime"
    runtime.mkdir()
    bench.state.write_text("not a folder")
    bench.settle(runtime=runtime)
    record = bench.start("while [ ! -e go-on ]; do sleep 0.02; done; exit 42", observe=True)
    work = runtime / "jobs" / IDENTITY.key / "work"
    first = bench.runner
    first.let_go()

    assert bench.settle(runtime=runtime).adopt(record) is Evidence.ADOPTED
    (work / "go-on").touch()
    assert bench.ended().code == 42
    bench.settle(runtime=runtime).sweep(set())

    assert not work.exists()
    for one in first._watchers.values():
        assert one._child is not None
        one._child.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("trick", ["open to others", "a link", "somebody else's"])
def test_a_folder_that_others_have_a_hand_in_is_not_worked_in(tmp_path: Path, trick: str) -> None:
    folder = tmp_path / "folder"
    match trick:
        case "a link":
            (tmp_path / "elsewhere").mkdir()
            folder.symlink_to(tmp_path / "elsewhere")
        case "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        case _:
            if os.geteuid() != 0:
                pytest.skip("NOT TESTED: only root can give a folder away")
            folder.mkdir()
            os.chown(folder, 65534, 65534)

    assert not place._is_ours(folder)
    assert place._is_ours(tmp_path / "new")


# --- floods ---------------------------------------------------------------------------------------------------------


DEEP = """
import os, sys
for _ in range(3000):
    os.mkdir("a")
    open("f", "w").close()
    os.chdir("a")
"""


def test_a_folder_of_any_depth_is_removed(bench: Bench) -> None:
    bench.run(f"exec {sys.executable} -I -c '{DEEP}'".replace("\n", "\n"))

    bench.runner.clean(IDENTITY)

    assert list((bench.state / "jobs").iterdir()) == []


def test_folders_that_are_closed_to_their_owner_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True, mode=0o750)
    inner = tmp_path / "job" / "work" / "a" / "b"
    (inner / "c").mkdir(parents=True)
    (inner / "c" / "file").touch()
    (inner / "link").symlink_to(outside)
    (tmp_path / "job" / "link").symlink_to(outside / "kept")
    for folder in (inner / "c", inner, inner.parent):
        folder.chmod(0)

    removing = (
        f"from pathlib import Path; from thingjobs.runner import files; files.remove(Path({str(tmp_path / 'job')!r}))"
    )
    subprocess.run([sys.executable, "-c", removing], check=True, timeout=PATIENCE_SECONDS)

    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").stat().st_mode & 0o777 == 0o750


def resident_kib() -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


@pytest.mark.parametrize("line", ['{"progress":40,"message":"writing"}', '{"details":{"n":"1"}}', "x", "{}", ""])
def test_a_flood_of_events_takes_no_more_than_its_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(watcher, "FOLD_SECONDS", 0.1)
    bench.start(f"yes '{line}' >>$JOB_EVENTS & while [ ! -e end ]; do sleep 0.02; done; exit 3")
    time.sleep(0.3)  # The burst that is free.
    memory, cpu, clock = resident_kib(), time.process_time(), time.monotonic()
    time.sleep(1)
    used, passed = time.process_time() - cpu, time.monotonic() - clock
    grown = resident_kib() - memory

    assert used / passed < 2 * watcher.EVENT_SHARE
    assert grown < 2048
    (bench.work / "end").touch()
    assert bench.ended().code == 3


def test_a_flood_of_output_leaves_no_trace_in_memory(bench: Bench) -> None:
    bench.run("head -c 10000000 /dev/zero")
    before = resident_kib()

    assert bench.run("head -c 300000000 /dev/zero").code == 0

    assert resident_kib() - before < 2048


# --- parameters anew ------------------------------------------------------------------------------------------------

ASKS = """echo '{"refresh":"params"}' >>$JOB_EVENTS; cp job.json before
while grep -q '"revision": 1$' job.json; do sleep 0.01; done; cp job.json after; exit 3"""


def test_a_handler_that_asks_gets_its_parameters_anew(bench: Bench) -> None:
    record = bench.start(ASKS, params={"url": "old"})
    assert bench.inbox.get(timeout=PATIENCE_SECONDS) == Progressed(IDENTITY, refresh=True)

    bench.runner.refresh(replace(record, plan=replace(record.plan, params={"url": "new"})))

    assert bench.ended().code == 3
    before, after = (json.loads((bench.work / name).read_text()) for name in ("before", "after"))
    assert after == {**before, "params": {"url": "new"}, "revision": 2}
    assert stat.S_IMODE((bench.work / "job.json").stat().st_mode) == 0o600


def test_asking_again_and_again_is_passed_on_once_a_second(bench: Bench) -> None:
    bench.start("""yes '{"refresh":"params"}' >>$JOB_EVENTS""")
    began = time.monotonic()

    asked = 0
    while asked < 2:
        event = bench.inbox.get(timeout=PATIENCE_SECONDS)
        assert isinstance(event, Progressed)
        asked += event.refresh

    assert time.monotonic() - began >= 0.9


def test_refreshing_what_does_not_run_does_nothing(bench: Bench) -> None:
    record = Record(IDENTITY, Phase.APPLYING, "c0ffee", 1, Plan("firmware", ("/bin/true",)), {})

    bench.runner.refresh(record)

    assert not bench.work.exists()


@pytest.mark.parametrize(
    ("trick", "revision"),
    [
        ("true", 2),
        ("ln -sf ../../../../secret job.json", None),
        ("rm job.json; mkfifo job.json", None),
        ("head -c 3000000 /dev/zero >job.json", None),
        ("""echo '{"revision": "7", "params": 4, "verb": "rollback", "deadline": 1e999}' >job.json""", None),
        ("""echo '{"revision": 41, "resumed": true, "dryRun": 1}' >job.json""", 42),
    ],
)
def test_after_a_restart_of_the_agent_the_old_file_is_not_trusted(
    bench: Bench, trick: str, revision: int | None
) -> None:
    (bench.folder / "secret").write_text('{"resumed": true}')
    record = bench.start(f"{trick}; touch up; while [ ! -e go-on ]; do sleep 0.01; done")
    while not (bench.work / "up").exists():
        time.sleep(0.01)
    first = bench.runner
    first.let_go()
    assert bench.settle(max_kib_s=64).adopt(record) is Evidence.ADOPTED

    bench.runner.refresh(replace(record, plan=replace(record.plan, params={"url": "new"})))

    job = json.loads((bench.work / "job.json").read_text())
    found = job.pop("revision")
    assert found == revision if revision else found > 1_700_000_000
    assert job.pop("deadline") > time.time()
    assert job == {
        "contract": 1,
        "jobId": "fw-1",
        "execution": 1,
        "thing": "pump-7",
        "params": {"url": "new"},
        "verb": "apply",
        "attempt": 1,
        "resumed": revision == 42,
        "rebooted": False,
        "dryRun": False,
        "downloads": {"maxKibPerSecond": 64, "digestRequired": True},
        "settings": {},
    }
    assert (bench.folder / "secret").read_text() == '{"resumed": true}'
    (bench.work / "go-on").touch()
    bench.ended()
    for one in first._watchers.values():
        assert one._child is not None
        one._child.wait(PATIENCE_SECONDS)


def test_who_may_download_without_a_digest_is_told_so(bench: Bench) -> None:
    bench.settle(digest_optional=("firm*",))
    bench.run("exit 0")

    assert json.loads((bench.work / "job.json").read_text())["downloads"]["digestRequired"] is False


# --- cgroups: real ones ---------------------------------------------------------------------------------------------


def mounted() -> Path | None:
    """Return where cgroup v2 is mounted and can be written to."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2" and os.access(fields[4], os.W_OK):
            return Path(fields[4])
    return None


@pytest.fixture
def base() -> Iterator[Path]:
    """A cgroup for the test; all that is in it is killed afterwards."""
    mount = mounted()
    if mount is None or os.geteuid() != 0:
        pytest.skip("NOT TESTED: there is no cgroup v2 here that a test may write to")
    folder = mount / f"thingjobs-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    assert Cell(folder).end()


def cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


#: It hides its environment, and with that all that tells whose it was.
HIDES = DAEMON.replace("setsid", "setsid env -i PATH=$PATH")


@pytest.mark.parametrize("way", ["cgroup.kill", "one by one"])
def test_nothing_escapes_from_a_cgroup(bench: Bench, base: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "one by one":  # Linux before 5.14 has no such file.
        write = cgroup._write

        def without(path: Path, value: str) -> None:
            if path.name == "cgroup.kill":
                raise FileNotFoundError(path)
            write(path, value)

        monkeypatch.setattr(cgroup, "_write", without)
    bench.settle(cgroup=base)

    ending = bench.run(f"cat /proc/self/cgroup >cgroup; {HIDES} exit 3")

    assert ending.code == 3
    assert f"/{base.name}/run-{IDENTITY.key}-apply-1\n" in (bench.work / "cgroup").read_text()
    assert not alive(bench.pid())
    assert [path.name for path in base.iterdir() if path.is_dir()] == []


def test_an_interpreter_that_waits_for_its_go_is_in_the_cgroup_of_its_verb(
    bench: Bench, base: Path, eventually: Callable[..., Any]
) -> None:
    runner = bench.settle(cgroup=base)
    plan = Plan("lamp", (sys.executable, "-I", "-c", START, "team:Lamp"))
    cell = base / f"run-{IDENTITY.key}-apply-1"

    runner.get_ready(Run(Record(IDENTITY, Phase.CLAIMING, "c0ffee", 1, plan, {}), Verb.APPLY, 1))

    eventually(lambda: len((cell / "cgroup.procs").read_text().split()) == 2)  # and its shim
    runner.kill(IDENTITY)
    assert not cell.exists()


def test_a_cgroup_that_a_handler_made_in_its_own_goes_too(bench: Bench, base: Path) -> None:
    bench.settle(cgroup=base)
    mine = f"{base}/run-{IDENTITY.key}-apply-1"

    inner = f"cat >inner <<'EOF'\necho $$ >{mine}/a/b/cgroup.procs\n{HIDES}\nEOF\n"
    bench.run(f"mkdir -p {mine}/a/b; {inner} sh inner; exit 0")

    assert not alive(bench.pid())
    assert not Path(mine).exists()


def test_killing_a_verb_kills_its_cgroup(bench: Bench, base: Path, eventually: Callable[..., Any]) -> None:
    bench.settle(cgroup=base)
    bench.start(f"trap '' TERM; {HIDES} while :; do sleep 1000; done")
    eventually((bench.work / "pid").exists)

    bench.runner.kill(IDENTITY)

    assert bench.ended().signal == "SIGKILL"
    assert not alive(bench.pid())


def test_a_daemon_that_may_stay_keeps_its_cgroup_until_it_is_gone(
    bench: Bench, base: Path, eventually: Callable[..., Any]
) -> None:
    bench.settle(cgroup=base)
    bench.run(f"{HIDES} exit 0", keeps_daemons=True)
    kept = base / f"keep-{IDENTITY.key}-apply-1"
    daemon = bench.pid()
    assert kept.is_dir()

    bench.settle(cgroup=base).sweep(set())
    assert alive(daemon)
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not alive(daemon))
    Tree(base).sweep(set())

    assert not kept.exists()


def test_the_next_agent_finds_the_cgroup_again(bench: Bench, base: Path, eventually: Callable[..., Any]) -> None:
    first = bench.settle(cgroup=base)
    record = bench.start(f"{HIDES} while [ ! -e go-on ]; do sleep 0.02; done")
    eventually((bench.work / "pid").exists)
    first.let_go()

    bench.settle(cgroup=base).sweep({IDENTITY.key})
    assert bench.runner.adopt(record) is Evidence.ADOPTED
    assert alive(bench.pid())
    (bench.work / "go-on").touch()

    assert bench.ended().code == 0
    assert not alive(bench.pid())
    for one in first._watchers.values():
        assert one._child is not None
        one._child.wait(PATIENCE_SECONDS)


def test_what_an_earlier_agent_left_in_cgroups_is_swept_away(bench: Bench, base: Path) -> None:
    left = base / "run-fw-0.1.5-apply-1"
    left.mkdir()
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as lost:
        Cell(left).add(lost.pid)

        bench.settle(cgroup=base).sweep({IDENTITY.key})

        assert lost.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert not left.exists()


def test_the_agent_makes_room_for_its_verbs(base: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from thingjobs.runner import cgroup
base = Path(sys.argv[1])
(base / "cgroup.procs").write_text(str(os.getpid()))
for _ in range(2):
    tree = cgroup.find(base)
    print(tree.base, cgroup.own_cgroup())
"""
    out = subprocess.run([sys.executable, "-c", script, str(base)], capture_output=True, text=True, check=True).stdout

    assert out.splitlines() == [f"{base} {base}/agent"] * 2


# --- cgroups: whose they are ----------------------------------------------------------------------------------------

UNIT = "/system.slice/thingjobs.service"


@pytest.mark.parametrize(
    ("cgroups", "mounts", "expected"),
    [
        (f"0::{UNIT}", "1 2 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw", f"/sys/fs/cgroup{UNIT}"),
        (
            f"4:pids:/x\n0::{UNIT}",
            "1 2 0:28 / /sys/fs/cgroup/unified rw - cgroup2 c rw",
            f"/sys/fs/cgroup/unified{UNIT}",
        ),
        ("0::/", "1 2 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw", "/sys/fs/cgroup"),
        (f"0::{UNIT}/agent", f"1 2 0:28 {UNIT} /cg rw - cgroup2 cgroup rw", "/cg/agent"),
        (f"0::{UNIT}", "1 2 0:28 /other /cg rw - cgroup2 cgroup rw", None),
        ("4:pids:/x", "1 2 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw", None),
        (f"0::{UNIT}", "1 2 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw", None),
    ],
)
def test_the_own_cgroup_is_found_in_each_layout(
    tmp_path: Path, cgroups: str, mounts: str, expected: str | None
) -> None:
    (tmp_path / "cgroup").write_text(f"{cgroups}\n")
    (tmp_path / "mountinfo").write_text(f"9 1 0:5 / /proc rw - proc proc rw\n{mounts}\n")

    assert cgroup.own_cgroup(tmp_path) == (Path(expected) if expected else None)


def test_without_cgroups_there_is_none(tmp_path: Path) -> None:
    assert cgroup.own_cgroup(tmp_path) is None
    assert cgroup.find(tmp_path / "nowhere") is None


def test_what_systemd_marked_as_delegated_is_ours_and_else_roots_word_does_not_count(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: this is about root")
    assert not cgroup.is_ours(tmp_path)

    try:
        os.setxattr(tmp_path, "trusted.delegate", b"1")
    except OSError:
        pytest.skip("NOT TESTED: no such attributes here")

    assert cgroup.is_ours(tmp_path)


def test_a_user_has_what_was_given_to_it_and_not_what_is_below_that(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    outer = Path(tempfile.mkdtemp(prefix="thingjobs-delegated-"))
    outer.chmod(0o755)
    unit = outer / "unit.service"
    (unit / "app.scope").mkdir(parents=True)
    for folder in (unit, unit / "app.scope"):
        (folder / "cgroup.procs").touch()
        os.chown(folder, 65534, 65534)
        os.chown(folder / "cgroup.procs", 65534, 65534)
    try:
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.setuid(65534)
            answers = [cgroup.is_ours(folder) for folder in (outer, unit, unit / "app.scope")]
            os.write(writing, repr(answers).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading) as file:
            assert file.read() == "[False, True, False]"
    finally:
        subprocess.run(["rm", "-r", str(outer)], check=True)


# --- cgroups: limits, in a tree of plain files ------------------------------------------------------------------------

MIB = 1 << 20
ASKED = Resources(memory=64 * MIB, processes=32, cpu=0.5)
FILES = ("cgroup.procs", "memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cpu.max")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cgroup as the kernel would make it for the first run; controllers are not to be seen on every machine."""
    monkeypatch.setattr(cgroup, "ROUNDS", 1)  # Plain files are not removed with their folder.
    base = tmp_path / "tree"
    cell = base / f"run-{IDENTITY.key}-apply-1"
    cell.mkdir(parents=True)
    (base / "cgroup.subtree_control").touch()
    for name in FILES:
        (cell / name).touch()
    (cell / "memory.events").write_text("low 0\nhigh 0\nmax 5\noom 1\noom_kill 0\noom_group_kill 0\n")
    return cell


def test_each_limit_is_written_to_its_file(bench: Bench, fake: Path) -> None:
    bench.settle(cgroup=fake.parent)

    bench.run("exit 0", resources=ASKED)

    found = {name: (fake / name).read_text() for name in FILES[1:]}
    assert found == {
        "memory.max": str(64 * MIB),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "33",
        "cpu.max": "50000 100000",
    }


def test_what_was_not_asked_for_is_not_limited(bench: Bench, fake: Path) -> None:
    bench.settle(cgroup=fake.parent)

    bench.run("exit 0")

    assert [name for name in FILES[1:] if (fake / name).read_text()] == []


def test_running_out_of_memory_is_told_as_that(bench: Bench, fake: Path) -> None:
    bench.settle(cgroup=fake.parent)
    (fake / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")

    ending = bench.run("echo 'still fine' >&2; kill -9 0", resources=ASKED)

    assert (ending.code, ending.signal) == (None, "SIGKILL")
    assert ending.reason == "it used more memory than its limit of 64 MiB"


def test_who_outlived_the_killing_of_a_part_of_it_and_succeeded_has_succeeded(bench: Bench, fake: Path) -> None:
    bench.settle(cgroup=fake.parent)
    (fake / "memory.events").write_text("oom_kill 1\n")

    assert bench.run("exit 0", resources=ASKED).code == 0


def test_limits_that_cannot_be_kept_are_told_once_a_handler(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "find", lambda _: None)
    with caplog.at_level(logging.WARNING, logger="thingjobs"):
        assert bench.run("exit 0", resources=ASKED).code == 0
        assert bench.run("exit 0", resources=ASKED).code == 0

    text = "firmware: its limits of memory and pids and cpu are not kept: that takes cgroup v2, delegated to the agent"
    assert [record.getMessage() for record in caplog.records] == [f"{text} (Delegate=yes)"]


def test_a_controller_that_is_not_there_is_named(bench: Bench, fake: Path, caplog: pytest.LogCaptureFixture) -> None:
    (fake / "memory.max").unlink()
    bench.settle(cgroup=fake.parent)

    with caplog.at_level(logging.WARNING, logger="thingjobs"):
        bench.run("exit 0", resources=ASKED)

    assert "firmware: its limits of memory are not kept" in caplog.text
    assert (fake / "pids.max").read_text() == "33"


def test_controllers_are_given_while_they_are_needed_and_not_longer(bench: Bench, tmp_path: Path, fake: Path) -> None:
    given = fake.parent / "cgroup.subtree_control"
    bench.settle(cgroup=fake.parent)

    bench.run("exit 0", resources=Resources(memory=MIB))
    assert given.read_text() == "+memory"

    subprocess.run(["rm", "-r", str(fake)], check=True)
    bench.runner.clean(IDENTITY)
    given.write_text("memory pids")
    Tree(fake.parent).sweep(set())
    with contextlib.suppress(OSError):
        assert given.read_text().startswith("-pids")


def test_nobody_takes_away_what_was_just_given(bench: Bench, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def cells(_: Tree) -> list[Path]:
        inside.set()
        go_on.wait(PATIENCE_SECONDS)
        return []

    monkeypatch.setattr(cgroup, "_write", lambda _, value: order.append(value))
    monkeypatch.setattr(Tree, "_cells", cells)
    (fake.parent / "cgroup.subtree_control").write_text("memory")
    tree = Tree(fake.parent)
    tidies = threading.Thread(target=tree.leave, args=(Cell(fake.parent / "gone"),))
    gives = threading.Thread(target=tree.make, args=("ends-new", Resources(memory=MIB)))
    tidies.start()
    assert inside.wait(PATIENCE_SECONDS)
    gives.start()
    gives.join(0.3)  # It would be done by then.
    go_on.set()
    for thread in (tidies, gives):
        thread.join(PATIENCE_SECONDS)

    assert order[:2] == ["-memory", "+memory"]


def test_a_process_of_another_namespace_is_not_taken_for_our_own_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n0\n")

    assert Cell(tmp_path)._pids() == []
