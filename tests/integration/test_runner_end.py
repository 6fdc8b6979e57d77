"""A verb's end is told as soon as nothing can change it; that the kernel buries its processes is waited for later."""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.child import START
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Evidence, Finished
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Verb
from thingjobs.runner import Runner, Settings, exits, sweep
from thingjobs.runner.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.machine.events import Ending

PATIENCE_SECONDS = 30
#: Says that it is there, and goes on when the pipe beside its folder is written to.
WAITS = "open('up', 'w').close()\nos.read(os.open('../../../../gate', os.O_RDONLY), 1)"


class Bench:
    """A runner, and handler classes whose `apply` is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runs = 0
        os.mkfifo(folder / "gate")
        self.gate = os.open(folder / "gate", os.O_RDWR)
        self.next()

    def next(self) -> None:
        """Have the runner of the next agent."""
        environment = {"PATH": "/usr/bin:/bin"}
        self.runner = Runner(Settings(self.state, "pump-7", boot.boot_id(), environment), self.events.put)

    def spawn(self, body: str, **plan: Any) -> Record:
        """Make the process of a handler whose `apply` is `body`; return what the journal would hold."""
        self.runs += 1
        lines = "\n        ".join(body.splitlines())
        code = f"import os\n\nclass Handler:\n    def apply(self, ctx, params):\n        {lines}\n"
        (self.folder / f"team_{self.runs}.py").write_text(code, encoding="utf-8")
        start = f"import sys; sys.path.append({str(self.folder)!r}); sys.dont_write_bytecode = True; {START}"
        argv = (sys.executable, "-I", "-c", start, f"team_{self.runs}:Handler")
        identity = Identity(JobId(f"fw-{self.runs}"), 1, 1_790_000_000)
        made = Plan("noop", argv, **{"params": {"slot": "a"}, **plan})
        record = Record(identity, Phase.APPLYING, "c0ffee", 1, made, {}, verb=Verb.APPLY, attempts={Verb.APPLY: 1})
        return replace(record, process=self.runner.spawn(Run(record, Verb.APPLY, 1)))

    def start(self, body: str, **plan: Any) -> Record:
        """Let it run."""
        record = self.spawn(body, **plan)
        self.runner.go(record.identity)
        return record

    def ended(self) -> Ending:
        """Return how a verb ended, once it did."""
        while True:
            event = self.events.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, Finished):
                return event.ending

    def place(self, record: Record) -> Path:
        return self.state / "jobs" / record.identity.key

    def work(self, record: Record) -> Path:
        return self.place(record) / "work"


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def bench(eventually: Callable[..., Any]) -> Iterator[Bench]:
    before = fds()
    with tempfile.TemporaryDirectory(prefix="thingjobs-end-") as name:
        made = Bench(Path(name))
        yield made
        made.runner.let_go()
        os.close(made.gate)
    eventually(lambda: fds() == before)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else starts anything on this machine."""
    monkeypatch.setattr(boot, "forks_since", lambda _: sweep.OWN_FORKS)


def shim_of(record: Record) -> int:
    assert record.process is not None
    return record.process.pid


def let_on(bench: Bench) -> None:
    """Let a handler that waits go on."""
    os.write(bench.gate, b".")


def stored(bench: Bench, record: Record) -> exits.Stored:
    return exits.stored(bench.place(record) / "exit-apply-1")


# --- who is alone -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
def test_the_end_of_a_python_handler_is_told_though_its_shim_has_not_seen_it(
    bench: Bench, eventually: Callable[..., Any]
) -> None:
    record = bench.start(WAITS)
    eventually((bench.work(record) / "up").exists)
    os.kill(shim_of(record), signal.SIGSTOP)
    let_on(bench)

    assert bench.ended().code == 0
    assert stored(bench, record).early
    bench.runner.clean(record.identity)
    eventually(lambda: boot.start_time(shim_of(record)) is None)


@pytest.mark.parametrize("keeps", [False, True])
def test_while_something_else_may_be_left_its_shims_word_is_waited_for(
    bench: Bench, eventually: Callable[..., Any], *, keeps: bool
) -> None:
    leaves = "pid = os.posix_spawn('/bin/sleep', ['sleep', '1000'], os.environ)\nopen('left', 'w').write(str(pid))\n"
    record = bench.start(leaves + WAITS, keeps_daemons=keeps)
    eventually((bench.work(record) / "up").exists)
    left = int((bench.work(record) / "left").read_text())
    os.kill(shim_of(record), signal.SIGSTOP)
    let_on(bench)
    eventually(lambda: stored(bench, record).early)
    events = bench.runner._watchers[record.identity]._events
    eventually(lambda: fcntl.ioctl(events, 0x541B, bytes(4)) == bytes(4))  # FIONREAD: the agent was woken.
    early = bench.events.empty()
    os.kill(shim_of(record), signal.SIGCONT)

    assert early
    assert bench.ended().code == 0
    assert (boot.start_time(left) is not None) is keeps
    if keeps:
        os.kill(left, signal.SIGKILL)


@pytest.mark.usefixtures("quiet")
def test_a_handler_alone_that_may_leave_something_is_told_by_its_shim(bench: Bench) -> None:
    record = bench.start("pass", keeps_daemons=True)

    assert bench.ended().code == 0
    assert not stored(bench, record).early


# --- what a handler does to itself --------------------------------------------------------------------------------


def test_a_copy_of_the_process_that_ends_says_nothing_of_it(bench: Bench) -> None:
    ends = "if (copy := os.fork()) == 0:\n    return\nos.waitpid(copy, 0)\n"
    record = bench.start(f"{ends}open('seen', 'w').write(open('../exit-apply-1').read() + 'then')")

    assert bench.ended().code == 0
    assert (bench.work(record) / "seen").read_text() == "then"


def test_a_handler_that_closed_all_files_finds_nothing_in_its_own(bench: Bench) -> None:
    opens = "os.closerange(0, 64)\nfor number in range(64):\n    os.open(f'own-{number}', os.O_CREAT | os.O_WRONLY)"
    record = bench.start(opens)

    assert bench.ended().code == 0
    own = list(bench.work(record).glob("own-*"))
    assert [path.stat().st_size for path in own] == [0] * 64


@pytest.mark.parametrize("how", ["os.remove('../exit-apply-1')", "os.remove(os.environ['JOB_EVENTS'])"])
def test_where_it_cannot_say_it_its_shim_does(bench: Bench, how: str) -> None:
    bench.start(how)

    assert bench.ended().code == 0


def test_what_only_the_agent_and_its_process_know_is_not_in_the_environment(bench: Bench) -> None:
    record = bench.start("open('names', 'w').write(' '.join(sorted(os.environ)))")

    assert bench.ended().code == 0
    names = (bench.work(record) / "names").read_text().split()
    assert [name for name in names if name.startswith("JOB_")] == ["JOB_CONTRACT", "JOB_DIR", "JOB_EVENTS", "JOB_VERB"]


@pytest.mark.parametrize(
    ("content", "code", "early"),
    [
        (b"0000\n", 0, True),
        (b"0196\n", 196, True),
        (b"0\n", 0, False),
        (b"196\n", 196, False),
        (b"0000\n0\n", 0, False),
        (b"0001\n137\n", 1, False),
    ],
)
def test_who_stored_an_exit_status_can_be_seen(tmp_path: Path, content: bytes, code: int, *, early: bool) -> None:
    path = tmp_path / "exit"
    path.write_bytes(content)

    assert exits.stored(path) == exits.Stored(complete=True, code=code, early=early)


# --- what comes after ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
def test_the_folder_of_each_is_fit_for_the_next(bench: Bench) -> None:
    for _ in range(10):
        record = bench.start("pass")
        assert bench.ended().code == 0
        bench.runner.clean(record.identity)
        assert (bench.state / "spare").is_dir()


@pytest.mark.parametrize("same", [False, True], ids=["the next job", "the next verb"])
@pytest.mark.usefixtures("quiet")
def test_nothing_runs_beside_what_is_left_of_a_verb_that_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, same: bool
) -> None:
    order: list[str] = []
    may, real_end, real_join = threading.Event(), Watcher._end_shim, Watcher.join

    def ends_late(self: Watcher) -> int | None:
        may.wait(PATIENCE_SECONDS)
        status = real_end(self)
        order.append("gone")
        return status

    def join(self: Watcher, timeout: float | None = None) -> None:
        may.set()
        real_join(self, timeout)

    monkeypatch.setattr(Watcher, "_end_shim", ends_late)
    monkeypatch.setattr(Watcher, "join", join)
    record = bench.start("pass")
    assert bench.ended().code == 0
    assert not order
    if same:
        bench.runner.spawn(Run(record, Verb.APPLY, 2))
        order.append("made")
        bench.runner.go(record.identity)
    else:
        other = bench.spawn("pass")
        bench.runner.go(other.identity)
        order.append("made")
    assert bench.ended().code == 0

    assert order[:2] == ["gone", "made"]


@pytest.mark.usefixtures("quiet")
def test_a_shim_that_was_quick_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Watcher._drain

    def drain(self: Watcher) -> None:
        """Read what wakes the agent only when all of it is there."""
        while exits.stored(self._subject.exit_file).early:
            pass
        real(self)

    monkeypatch.setattr("thingjobs.runner.watcher.SEEN_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(Watcher, "_drain", drain)
    record = bench.start("pass")
    assert bench.ended().code == 0
    watcher = bench.runner._watchers[record.identity]
    watcher.join(PATIENCE_SECONDS / 3)

    assert not watcher.is_alive()


@pytest.mark.usefixtures("quiet")
def test_a_verb_that_the_kernel_is_stuck_with_is_waited_for_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    may, waited, real_join = threading.Event(), list[Watcher](), Watcher.join

    def join(self: Watcher, timeout: float | None = None) -> None:
        waited.append(self)
        real_join(self, timeout)

    def ends_late(self: Watcher, real: Callable[[Watcher], int | None] = Watcher._end_shim) -> int | None:
        may.wait(PATIENCE_SECONDS)
        return real(self)

    monkeypatch.setattr("thingjobs.runner.GONE_SECONDS", 0.1)
    monkeypatch.setattr(Watcher, "_end_shim", ends_late)
    monkeypatch.setattr(Watcher, "join", join)
    for _ in range(4):
        bench.start("pass")
        assert bench.ended().code == 0
    assert len(waited) == len(set(waited)) == 3
    may.set()


@pytest.mark.usefixtures("quiet")
def test_an_agent_that_died_right_after_the_end_leaves_no_shim_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "_end_shim", lambda _: None)
        record = bench.start("pass")
        assert bench.ended().code == 0
        before = bench.runner._watchers[record.identity]
        before.join(PATIENCE_SECONDS)
    assert boot.start_time(shim_of(record)) is not None

    bench.next()
    evidence = bench.runner.adopt(replace(record, phase=Phase.REPORTING, verb=None, process=None))

    assert evidence is Evidence.NOT_STARTED
    assert before._child is not None
    assert before._child.wait(PATIENCE_SECONDS) == -signal.SIGKILL


# --- what comes with the go ---------------------------------------------------------------------------------------


def test_the_job_comes_with_the_go(bench: Bench) -> None:
    record = bench.spawn("open('seen', 'w').write(params['slot'] + ctx.job_id)")
    (bench.work(record) / "job.json").unlink()
    bench.runner.go(record.identity)

    assert bench.ended().code == 0
    assert (bench.work(record) / "seen").read_text() == "afw-1"


@pytest.mark.parametrize("length", [3_000, 4_070, 5_000, 100_000])
def test_what_the_pipe_has_no_room_for_is_read_from_job_json(bench: Bench, length: int) -> None:
    record = bench.spawn("open('seen', 'w').write(params['slot'])", params={"slot": "a" * length})
    fcntl.fcntl(bench.runner.waiting._held[record.identity].started.gate, fcntl.F_SETPIPE_SZ, 4096)
    bench.runner.go(record.identity)

    assert bench.ended().code == 0
    assert (bench.work(record) / "seen").stat().st_size == length


@pytest.mark.parametrize(
    "params",
    [{}, {"deep": [[[{"a": [None, True, 1.5, -(2**70)]}]]]}, {"half": "\ud800", "ä": "\x00"}, {"far": [[]] * 1000}],
)
def test_what_comes_with_the_go_is_what_stands_in_job_json(bench: Bench, params: dict[str, Any]) -> None:
    reads = "import json\nfrom thingjobs.child.context import read_job\njob = read_job('.')\n"
    bench.start(f"{reads}assert job == ctx.job and repr(job) == repr(ctx.job), (job, ctx.job)", params=params)

    assert bench.ended().code == 0
