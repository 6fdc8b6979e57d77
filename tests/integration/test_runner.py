"""Verbs as real processes: nothing before go, all output drained, everything ended, nothing inherited or left."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pwd
import queue
import signal
import stat
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.errors import StateError
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Ending, Finished, Progressed
from thingjobs.model import Identity, JobId, Limits, Phase, Plan, Record, Verb
from thingjobs.runner import Runner, Settings, exits, process, watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thingjobs.runner.events import Wanted

BOOT = boot.boot_id()
IDENTITY = Identity(JobId("fw-1"), 2, 1_790_000_000)
PATIENCE_SECONDS = 30
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass
class Bench:
    """A runner with a folder of its own, and handlers that are shell scripts.

    Attributes:
        progress: when and what was told, in order.
    """

    folder: Path
    inbox: queue.SimpleQueue[Progressed | Finished | Wanted] = field(default_factory=queue.SimpleQueue)
    progress: list[tuple[float, Progressed]] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        self.state = self.folder / "state"
        self.settle()

    def settle(self, **settings: Any) -> None:
        """Have a runner with these settings."""
        self.runner = Runner(Settings(self.state, "pump-7", BOOT, **{"environment": ENVIRONMENT, **settings}), self.put)

    def put(self, event: Progressed | Finished | Wanted) -> None:
        if isinstance(event, Progressed):
            self.progress.append((time.monotonic(), event))
        self.inbox.put(event)

    def asked(
        self,
        script: str,
        *,
        user: str | None = None,
        verb: Verb = Verb.APPLY,
        plan: dict[str, Any] | None = None,
        **more: Any,
    ) -> Run:
        """Return the order to run `script` once more."""
        self.runs += 1
        program = self.folder / "handler"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        params = {"slot": "b", "text": "ä\ud800"}
        known = {"params": params, "limits": Limits(apply=77), **(plan or {})}
        made = Plan("firmware", (str(program),), user=user, **known)
        record = Record(IDENTITY, Phase.APPLYING, "c0ffee", 1, made, {}, attempts={verb: self.runs})
        return Run(record, verb, self.runs, **more)

    def spawn(self, script: str, **more: Any) -> Run:
        """Make the process of `script`; it waits for go. Return its order, with what the journal would keep of it."""
        run = self.asked(script, **more)
        made = self.runner.spawn(run)
        return replace(run, record=replace(run.record, verb=run.verb, process=made))

    def start(self, script: str, **more: Any) -> Record:
        """Let `script` run; return what the journal would hold."""
        run = self.spawn(script, **more)
        self.runner.go(IDENTITY)
        return run.record

    def ended(self) -> Ending:
        """Return how the verb ended, once it did."""
        while True:
            event = self.inbox.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, Finished):
                return event.ending

    def heard(self, message: str) -> None:
        """Wait until the handler said `message`."""
        while True:
            event = self.inbox.get(timeout=PATIENCE_SECONDS)
            assert isinstance(event, Progressed), event
            if event.message == message:
                return

    def run(self, script: str, **more: Any) -> Ending:
        """Run `script` to its end."""
        self.start(script, **more)
        return self.ended()

    @property
    def place(self) -> Path:
        return self.state / "jobs" / IDENTITY.key

    @property
    def work(self) -> Path:
        return self.place / "work"

    def text(self, name: str) -> str:
        """Return what the handler wrote into a file of its folder."""
        return (self.work / name).read_text(encoding="utf-8")

    def log(self) -> bytes:
        """Return the job's log as it is kept."""
        self.runner.clean(IDENTITY)
        return (self.state / "logs" / f"{IDENTITY.key}.log").read_bytes()


def says(message: str) -> str:
    """Return a line of shell that tells the agent `message`."""
    return f"""echo '{{"message":"{message}"}}' >>"$JOB_EVENTS" """


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def bench(eventually: Callable[..., Any]) -> Iterator[Bench]:
    """A bench whose folder others may pass through, as they may the agent's; all of it is gone afterwards."""
    before = fds()
    with tempfile.TemporaryDirectory(prefix="thingjobs-runner-") as name:
        Path(name).chmod(0o711)
        made = Bench(Path(name))
        yield made
        made.runner.kill(IDENTITY)
        for one in threading.enumerate():
            if isinstance(one, watcher.Watcher):
                one.end()
                one.join(PATIENCE_SECONDS)
    # Whatever was tried: no file stays open, no thread and no process stays behind.
    eventually(lambda: fds() == before)


@pytest.fixture
def impatient(bench: Bench) -> None:
    bench.settle(grace=0.2)


# --- the gate -----------------------------------------------------------------------------------------------------


def asleep(pid: int) -> bool:
    """Tell whether a process waits for something."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] == b"S"


def test_nothing_runs_before_go(bench: Bench, eventually: Callable[..., Any]) -> None:
    made = bench.spawn("[ -e gate ] && exit 3; exit 4").record.process

    assert made is not None
    eventually(lambda: asleep(made.pid))
    assert boot.lives(made, BOOT)
    (bench.work / "gate").touch()
    bench.runner.go(IDENTITY)

    assert bench.ended().code == 3


def test_what_is_given_up_before_go_leaves_no_process_and_says_nothing(bench: Bench) -> None:
    before = fds()
    made = bench.spawn("touch ran").record.process

    bench.runner.kill(IDENTITY)

    assert made is not None
    assert boot.start_time(made.pid) is None
    assert bench.inbox.empty()
    assert fds() == before
    bench.runner.go(IDENTITY)
    assert names(bench.work) == ["job.json"]


def test_a_verb_can_be_made_again_after_it_was_given_up(bench: Bench) -> None:
    bench.spawn("exit 9")
    bench.runner.kill(IDENTITY)

    assert bench.run("exit 3").code == 3


def test_when_the_agent_dies_before_go_nothing_ran_and_the_shim_says_so(bench: Bench) -> None:
    run = bench.spawn("touch ran")
    started = bench.runner.waiting._held.pop(IDENTITY).started

    # What the kernel does for an agent that is gone.
    os.close(started.gate)

    assert started.child.wait(PATIENCE_SECONDS) == 125
    assert names(bench.work) == ["job.json"]
    assert exits.stored(started.exit_file) == exits.Stored(complete=True, never=True)
    for fd in (started.family.pidfd, started.exit_fd, *started.pipes):
        os.close(fd)
    assert run.record.process == started.process


@pytest.mark.parametrize("look", ["fstat", "pread"])
def test_an_exit_status_that_is_stored_while_it_is_read_is_whole_or_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    path = tmp_path / "exit"
    path.touch()
    fd, real = os.open(path, os.O_RDONLY), getattr(os, look)

    def stored_meanwhile(*arguments: int) -> object:
        found = real(*arguments)
        path.write_bytes(b"0\n")
        return found

    monkeypatch.setattr(os, look, stored_meanwhile)
    found = exits.stored_in(fd)
    os.close(fd)

    assert not found.complete or found.code == 0


def test_a_verb_that_cannot_be_watched_for_want_of_a_thread_did_not_begin_and_is_to_be_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.spawn("touch ran")
    with monkeypatch.context() as patch:
        patch.setattr(watcher.Watcher, "start", no_more_threads)
        bench.runner.go(IDENTITY)
    ending = bench.ended()

    assert (ending.code, ending.after) == (75, 30.0)
    assert "can't start new thread" in ending.reason
    assert not (bench.work / "ran").exists()


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# --- how it ends --------------------------------------------------------------------------------------------------


def expected(code: int) -> Ending:
    name = exits.signal_name(code)
    return Ending(None if name else code, name)


def test_each_exit_status_is_told_as_it_is(bench: Bench) -> None:
    assert [bench.run(f"exit {code}") for code in range(256)] == [expected(code) for code in range(256)]


#: Those that end a process, and can be sent: not the ones that stop it, or that nobody minds.
DEADLY = sorted(
    set(range(1, 65))
    - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, 32, 33}
)


def test_each_signal_that_ends_a_handler_is_named(bench: Bench) -> None:
    endings = [bench.run(f"ulimit -c 0; kill -{number} $$; exit 0") for number in DEADLY]

    assert endings == [expected(128 + number) for number in DEADLY]


@pytest.mark.parametrize(("program", "code"), [("/nowhere/handler", 127), ("/etc/passwd", 126), ("/etc", 126)])
def test_a_program_that_cannot_be_run_fails_with_the_shells_own_reason(bench: Bench, program: str, code: int) -> None:
    run = bench.asked("")
    run = replace(run, record=replace(run.record, plan=replace(run.record.plan, argv=(program,))))
    bench.runner.spawn(run)
    bench.runner.go(IDENTITY)

    ending = bench.ended()
    assert ending.code == code
    assert program in ending.reason


def test_the_last_words_on_stderr_are_the_reason(bench: Bench) -> None:
    ending = bench.run("echo trying >&2; echo 'no such slot: ä' >&2; echo fine; exit 1")

    assert (ending.code, ending.reason) == (1, "no such slot: ä")


@pytest.mark.parametrize(
    ("verb", "code", "reason"),
    [
        (Verb.CHECK, 0, ""),
        (Verb.CHECK, 10, ""),
        (Verb.CHECK, 75, "no such file"),
        (Verb.CHECK, 1, "no such file"),
        (Verb.APPLY, 0, ""),
        (Verb.APPLY, 10, "no such file"),
        (Verb.APPLY, 75, "no such file"),
    ],
)
def test_where_all_is_well_noise_on_stderr_is_no_reason(bench: Bench, verb: Verb, code: int, reason: str) -> None:
    ending = bench.run(f"echo 'no such file' >&2; exit {code}", verb=verb)

    assert (ending.code, ending.reason) == (code, reason)


@pytest.mark.parametrize("number", [6, 9, 11, 15])
def test_the_shells_own_words_about_a_signal_are_not_the_handlers(bench: Bench, number: int) -> None:
    ending = bench.run(f"ulimit -c 0; echo 'out of luck' >&2; kill -{number} $$")

    assert ending.reason == "out of luck"
    assert bench.log() == b"out of luck\n"


def test_what_the_handler_gave_as_the_reason_counts_more(bench: Bench) -> None:
    event = json.dumps({"reason": "slot b is in use", "code": "fetch.space", "details": {"slot": "b"}, "after": 9})

    ending = bench.run(f"echo '{event}' >>$JOB_EVENTS; echo noise >&2; exit 75")

    assert ending == Ending(75, "", "slot b is in use", "fetch.space", after=9.0, details={"slot": "b"})


def test_a_shim_that_is_killed_takes_its_handler_along(bench: Bench, eventually: Callable[..., Any]) -> None:
    record = bench.start(f"echo $$ >pid; {says('up')}; sleep 1000")
    bench.heard("up")
    assert record.process is not None

    os.kill(record.process.pid, signal.SIGKILL)

    assert bench.ended() == Ending(None, "SIGKILL")
    eventually(lambda: boot.start_time(int(bench.text("pid"))) is None)


# --- what it says -------------------------------------------------------------------------------------------------

TEN_MEGABYTES = 10_000_000


def test_ten_megabytes_on_each_stream_are_drained_at_once_and_kept_within_bounds(bench: Bench) -> None:
    event = json.dumps({"progress": 50, "message": "x" * 1000})
    script = f"""
head -c {TEN_MEGABYTES} /dev/zero | tr '\\0' o &
head -c {TEN_MEGABYTES} /dev/zero | tr '\\0' e >&2 &
yes '{event}' | head -c {TEN_MEGABYTES // len(event) * (len(event) + 1)} >>"$JOB_EVENTS" &
wait
echo '{{"progress":100,"details":{{"done":"yes"}}}}' >>"$JOB_EVENTS"
echo >&2
echo 'the end' >&2
exit 3
"""

    ending = bench.run(script)

    assert ending == Ending(3, "", "the end", details={"done": "yes"})
    parts = {path.name: path.stat().st_size for path in bench.place.glob("log*")}
    assert sum(parts.values()) <= 256 * 1024
    assert parts["log"] == 128 * 1024


def test_the_log_keeps_the_beginning_and_the_end(bench: Bench) -> None:
    bench.run("echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last")

    log = bench.log()
    assert log.startswith(b"first\nxxx")
    assert log.endswith(b"xxx\nlast\n")
    assert b"output is left out here" in log
    assert len(log) <= 256 * 1024 + 100


def test_the_log_goes_on_from_verb_to_verb(bench: Bench) -> None:
    bench.run("echo staged", verb=Verb.PREPARE)
    bench.run("echo applied >&2")

    assert bench.log() == b"staged\napplied\n"


def test_progress_is_folded_to_one_event_in_each_interval(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "FOLD_SECONDS", 0.1)
    loop = """i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo "{\\"progress\\":$i}" >>$JOB_EVENTS; sleep 0.004; done"""

    bench.run(f"{loop}; sleep 0.11; {says('end')}; sleep 0.11")

    times = [at for at, _ in bench.progress]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.09
    assert [event.percent for _, event in bench.progress] == sorted(event.percent or 0 for _, event in bench.progress)
    assert bench.progress[-1][1] == Progressed(IDENTITY, 100.0, "end")


def test_output_alone_is_a_sign_of_life_and_no_news(bench: Bench) -> None:
    bench.start("echo something; exec sleep 1000")

    assert bench.inbox.get(timeout=PATIENCE_SECONDS) == Progressed(IDENTITY)


def test_a_sign_of_life_does_not_tell_old_news_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "FOLD_SECONDS", 0.0)
    bench.start(f"{says('up')}; while [ ! -e go-on ]; do sleep 0.01; done; echo output; exec sleep 1000")
    bench.heard("up")

    (bench.work / "go-on").touch()

    assert bench.inbox.get(timeout=PATIENCE_SECONDS) == Progressed(IDENTITY)


def test_events_that_are_none_are_noted_and_never_fatal(bench: Bench) -> None:
    huge = "9" * 400
    script = f"""
{{ echo '{{'; echo nonsense; printf '\\377\\n'; echo '[1]'; }} >>$JOB_EVENTS
echo '{{"progress":{huge}}}' >>$JOB_EVENTS
printf '{{"details":{{"last":"no newline"}}}}' >>$JOB_EVENTS
"""

    ending = bench.run(script)

    assert ending == Ending(0, details={"last": "no newline"})
    assert b"4 lines in $JOB_EVENTS were no events" in bench.log()


def test_an_endless_line_is_skipped_and_the_next_one_is_heard(bench: Bench) -> None:
    script = f"head -c {TEN_MEGABYTES} /dev/zero >>$JOB_EVENTS; echo >>$JOB_EVENTS; {says('heard')}"

    bench.run(f"""{script}; echo '{{"details":{{"a":"b"}}}}' >>$JOB_EVENTS""")

    assert b"1 lines in $JOB_EVENTS were no events" in bench.log()


# --- ending it ----------------------------------------------------------------------------------------------------


def test_a_handler_that_heeds_sigterm_ends_as_it_likes(bench: Bench) -> None:
    bench.start(f"""trap 'echo stopped >&2; exit 7' TERM; sleep 1000 & {says("up")}; wait""")
    bench.heard("up")

    bench.runner.kill(IDENTITY)

    assert bench.ended() == Ending(7, "", "stopped")


@pytest.mark.usefixtures("impatient")
def test_a_handler_that_ignores_sigterm_is_killed(bench: Bench) -> None:
    bench.start(f"trap '' TERM; {says('up')}; while :; do sleep 1000; done")
    bench.heard("up")
    began = time.monotonic()

    bench.runner.kill(IDENTITY)

    assert bench.ended().signal == "SIGKILL"
    assert time.monotonic() - began >= 0.2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("again", [2, 5])
def test_asking_again_does_not_put_the_killing_off(bench: Bench, again: int) -> None:
    bench.start(f"trap '' TERM; {says('up')}; while :; do sleep 1000; done")
    bench.heard("up")
    began = time.monotonic()

    for _ in range(again):
        bench.runner.kill(IDENTITY)
        time.sleep(0.05)

    assert bench.ended().signal == "SIGKILL"
    assert time.monotonic() - began < 2


#: Writes down the pids of children and grandchildren, of which one ignores SIGTERM.
FAMILY = """
sleep 1000 & echo $! >>pids
sh -c 'sleep 1000 & echo $! >>pids; sleep 1000' & echo $! >>pids
sh -c 'trap "" TERM; while :; do sleep 1000; done' & echo $! >>pids
nohup sleep 1000 >/dev/null 2>&1 & echo $! >>pids
while [ $(wc -l <pids) -lt 5 ]; do sleep 0.01; done
"""


@pytest.mark.parametrize("end", ["", "exit 1", "kill -9 $$"])
def test_what_a_handler_left_in_the_background_ends_with_it(
    bench: Bench, eventually: Callable[..., Any], end: str
) -> None:
    bench.run(f"{FAMILY} {end}")

    pids = [int(pid) for pid in bench.text("pids").split()]
    assert len(pids) == 5
    eventually(lambda: [pid for pid in pids if boot.start_time(pid)] == [])


@pytest.mark.usefixtures("impatient")
def test_ending_a_verb_ends_all_it_started(bench: Bench, eventually: Callable[..., Any]) -> None:
    bench.start(f"{FAMILY} {says('up')}; wait")
    bench.heard("up")

    bench.runner.kill(IDENTITY)

    bench.ended()
    pids = [int(pid) for pid in bench.text("pids").split()]
    eventually(lambda: [pid for pid in pids if boot.start_time(pid)] == [])


def test_a_child_that_escaped_and_still_writes_does_not_hold_up_the_end(bench: Bench) -> None:
    ending = bench.run("setsid sh -c 'echo $$ >pid; exec yes' & while [ ! -s pid ]; do :; done; exit 3")

    assert ending.code == 3
    os.kill(int(bench.text("pid")), signal.SIGKILL)


def test_killing_a_verb_that_ended_touches_no_file_that_came_after_it(bench: Bench) -> None:
    bench.run("exit 0")
    (one,) = bench.runner._watchers.values()
    one.join(PATIENCE_SECONDS)
    # Every number that the watcher had belongs to somebody else now.
    others = [os.pipe2(os.O_NONBLOCK) for _ in range(20)]

    bench.runner.kill(IDENTITY)
    one.let_go()

    for reading, writing in others:
        os.close(writing)
        assert os.read(reading, 100) == b""
        os.close(reading)


# --- what it is given ---------------------------------------------------------------------------------------------


def test_the_environment_is_what_the_contract_says_and_nothing_of_the_agents(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HOME", "/somewhere/else")
    monkeypatch.setenv("JOB_VERB", "forged")

    bench.run("exec env -0 >env")

    found = dict(entry.split("=", 1) for entry in bench.text("env").split("\0") if entry)
    # A shell tells its children where it is.
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):
        found.pop(name, None)
    assert found == {
        **ENVIRONMENT,
        "HOME": pwd.getpwuid(os.geteuid()).pw_dir,
        "JOB_CONTRACT": "1",
        "JOB_VERB": "apply",
        "JOB_DIR": str(bench.work),
        "JOB_EVENTS": str(bench.place / "events"),
    }


def test_the_operators_environment_cannot_replace_the_contracts(bench: Bench) -> None:
    bench.settle(environment={"JOB_VERB": "forged", "TZ": "UTC"})

    bench.run('echo $JOB_VERB $TZ >said; [ -n "$PATH" ]')

    assert bench.text("said") == "apply UTC\n"


def test_the_handler_has_its_own_streams_open_and_nothing_else(bench: Bench) -> None:
    run = bench.asked("")
    argv = ("/bin/ls", "-l", "/proc/self/fd")
    bench.runner.spawn(replace(run, record=replace(run.record, plan=replace(run.record.plan, argv=argv))))
    bench.runner.go(IDENTITY)
    bench.ended()

    lines = [line.split() for line in bench.log().decode().splitlines() if "->" in line]
    found = {line[-3]: line[-1] for line in lines}
    # Through this one `ls` looks.
    assert found.pop("3").startswith("/proc/")
    assert found == {"0": "/dev/null", "1": str(bench.place / "stdout"), "2": str(bench.place / "stderr")}


def test_job_json_says_what_is_asked(bench: Bench) -> None:
    before = time.time()

    bench.run("cat job.json >seen", resumed=True, rebooted=True, dry_run=True)

    job = json.loads(bench.text("seen"))
    assert before + 77 <= job.pop("deadline") <= time.time() + 77
    assert job == {
        "contract": 1,
        "jobId": "fw-1",
        "execution": 2,
        "thing": "pump-7",
        "params": {"slot": "b", "text": "ä\ud800"},
        "verb": "apply",
        "attempt": 1,
        "resumed": True,
        "rebooted": True,
        "dryRun": True,
        "downloads": {"maxKibPerSecond": 0, "digestRequired": True},
        "settings": {},
        "revision": 1,
    }


def test_nobody_else_can_read_the_job_or_write_to_its_pipes(bench: Bench) -> None:
    old = os.umask(0)
    try:
        bench.run("exit 0")
    finally:
        os.umask(old)

    modes = {path.name: path.stat().st_mode & 0o777 for path in [bench.work, *bench.place.iterdir()]}
    assert modes.pop("work") == 0o700
    assert set(modes.values()) == {0o600}
    assert (bench.work / "job.json").stat().st_mode & 0o777 == 0o600
    assert bench.place.stat().st_mode & 0o777 == 0o711


def test_a_verb_works_in_the_jobs_folder_and_finds_there_what_the_one_before_left(bench: Bench) -> None:
    bench.run("echo staged >image", verb=Verb.PREPARE)

    bench.run('[ "$(pwd -P)" = "$(realpath "$JOB_DIR")" ] && cat image >&2')

    assert bench.text("image") == "staged\n"


# --- another user -------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    return pwd.getpwnam("nobody")


@pytest.fixture
def agents_group() -> Iterator[int]:
    """A group that the agent is in, as root often is in some, and nobody is not."""
    before = os.getgroups()
    os.setgroups([4242])
    yield 4242
    os.setgroups(before)


def test_a_handler_of_another_user_is_that_user_and_has_what_it_needs(
    bench: Bench, nobody: pwd.struct_passwd, agents_group: int
) -> None:
    ending = bench.run(
        "id -u >ids; id -g >>ids; id -G >>ids; echo $HOME >>ids; cat job.json >seen;"
        """ echo '{"details":{"slot":"b"}}' >>$JOB_EVENTS; echo bye >&2; exit 3""",
        user="nobody",
    )

    groups = " ".join(str(group) for group in os.getgrouplist("nobody", nobody.pw_gid))
    assert str(agents_group) not in groups.split()
    assert ending == Ending(3, "", "bye", details={"slot": "b"})
    assert bench.text("ids").splitlines() == [str(nobody.pw_uid), str(nobody.pw_gid), groups, nobody.pw_dir]
    assert json.loads(bench.text("seen"))["jobId"] == "fw-1"


@pytest.mark.parametrize(
    "trick",
    [
        "rm -f ../stdout",
        "mv ../events ../x",
        "touch ../new",
        "ln -s nowhere ../log",
        "mv ../work ../elsewhere",
        "ls ..",
        "rm -rf ../../fw-1.2.1790000000",
        "cat ../log",
    ],
)
@pytest.mark.usefixtures("nobody")
def test_a_handler_of_another_user_cannot_touch_the_agents_part_of_the_folder(bench: Bench, trick: str) -> None:
    ending = bench.run(f"echo logged; {trick} && exit 0; exit 3", user="nobody")

    assert ending.code == 3


@pytest.mark.usefixtures("nobody")
def test_a_handler_of_another_user_can_forge_no_more_than_its_own_exit_status(bench: Bench) -> None:
    # The file is its own; the shim's line comes after whatever was written.
    forged = "head -c 1000000 /dev/zero | tr '\\0' 9 >../exit-apply-1; exit 3"

    assert bench.run(forged, user="nobody") == Ending(None)


def test_a_user_that_does_not_exist_is_a_state_error_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(StateError, match="no such user"):
        bench.spawn("exit 0", user="no-such-user")


# --- tricks in the folder -----------------------------------------------------------------------------------------


@pytest.fixture
def outside(bench: Bench) -> Path:
    """A file that is not the handler's business."""
    path = bench.folder / "outside"
    path.write_text("untouched", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["job.json", ".job.json.new"])
@pytest.mark.parametrize("how", ["ln -s", "ln"])
def test_the_agent_does_not_write_through_links_that_a_handler_left(
    bench: Bench, outside: Path, name: str, how: str
) -> None:
    bench.run(f"rm -f {name}; {how} {outside} {name}")

    assert bench.run("grep -q fw-1 job.json").code == 0

    assert outside.read_text() == "untouched"
    assert stat.S_ISREG((bench.work / "job.json").lstat().st_mode)
    assert (bench.work / "job.json").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["stdout", "stderr", "events"])
@pytest.mark.parametrize(
    "how",
    ["ln -s {outside} ../{name}", "ln -s nowhere ../{name}", "cp {outside} ../{name}", "ln {outside} ../{name}", ":"],
)
def test_pipes_that_a_handler_replaced_are_made_anew(bench: Bench, outside: Path, name: str, how: str) -> None:
    bench.run(f"rm ../{name}; {how.format(outside=outside, name=name)}")

    said = """echo '{"details":{"slot":"b"}}' >>$JOB_EVENTS"""
    ended = bench.run(f"{said}; echo out; echo err >&2")

    assert stat.S_ISFIFO((bench.place / name).lstat().st_mode)
    assert (ended.code, ended.details) == (0, {"slot": "b"})
    assert sorted(bench.log().split()) == [b"err", b"out"]
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("name", ["stdout", "stderr", "events"])
def test_a_pipe_that_a_handler_replaced_by_a_folder_is_refused(bench: Bench, name: str) -> None:
    bench.run(f"rm ../{name}; mkdir ../{name}")

    with pytest.raises(StateError):
        bench.spawn("exit 0")


@pytest.mark.parametrize("target", ["folder", "file", "nowhere"])
def test_a_work_folder_that_was_replaced_by_a_link_is_not_used(bench: Bench, outside: Path, target: str) -> None:
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    to = {"folder": elsewhere, "file": outside, "nowhere": bench.folder / "nowhere"}[target]
    bench.run(f"cd ..; rm -r work; ln -s {to} work")

    with pytest.raises(StateError):
        bench.spawn("exit 0")

    assert list(elsewhere.iterdir()) == []
    assert outside.read_text() == "untouched"
    assert not (bench.folder / "nowhere").exists()


def test_a_work_folder_that_was_replaced_by_a_file_is_not_used(bench: Bench) -> None:
    bench.run("cd ..; rm -r work; echo >work")

    with pytest.raises(StateError):
        bench.spawn("exit 0")


@pytest.mark.parametrize("name", ["log", "exit-apply-2"])
def test_the_agents_own_files_are_not_written_through_links(bench: Bench, outside: Path, name: str) -> None:
    bench.run(f"rm -f ../{name}; ln -s {outside} ../{name}")

    with contextlib.suppress(StateError):
        bench.run("echo something")

    assert outside.read_text() == "untouched"


def test_cleaning_up_follows_no_links(bench: Bench, outside: Path) -> None:
    (bench.folder / "precious").mkdir()
    (bench.folder / "precious" / "file").touch()
    bench.run(f"ln -s {bench.folder}/precious precious; ln -s {outside} out; mkdir d; ln -s .. d/up")

    bench.runner.clean(IDENTITY)

    assert not bench.place.exists()
    assert (bench.folder / "precious" / "file").exists()
    assert outside.read_text() == "untouched"


# --- what cannot be made ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), ValueError("embedded null byte")])
def test_a_process_that_cannot_be_made_is_a_state_error_and_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = fds()

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        with pytest.raises(StateError, match=str(error.args[-1])):
            bench.spawn("exit 0")

    assert fds() == before
    bench.runner.go(IDENTITY)
    assert bench.run("exit 3").code == 3


def test_a_process_that_cannot_be_followed_is_ended_before_it_began(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    before, pids = fds(), []

    def fail(pid: int) -> int:
        pids.append(pid)
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        with pytest.raises(StateError, match="Too many open files"):
            bench.spawn("touch ran")

    assert fds() == before
    eventually(lambda: not Path(f"/proc/{pids[0]}").exists())
    assert names(bench.work) == ["job.json"]


def test_a_folder_that_cannot_be_made_is_a_state_error(bench: Bench) -> None:
    bench.state.write_text("not a folder")

    with pytest.raises(StateError):
        bench.spawn("exit 0")


# --- afterwards ---------------------------------------------------------------------------------------------------


def test_a_hundred_verbs_leave_no_file_open_and_no_thread(bench: Bench, eventually: Callable[..., Any]) -> None:
    bench.run("exit 0")
    eventually(lambda: not [one for one in threading.enumerate() if isinstance(one, watcher.Watcher)])
    before = fds()

    for _ in range(100):
        bench.run("echo x")

    eventually(lambda: not [one for one in threading.enumerate() if isinstance(one, watcher.Watcher)])
    assert fds() == before


def test_cleaning_keeps_the_log_and_nothing_else(bench: Bench) -> None:
    bench.run("echo hello; mkdir -p a/b; touch a/b/c")

    bench.runner.clean(IDENTITY)

    assert list((bench.state / "jobs").iterdir()) == []
    assert [path.read_bytes() for path in (bench.state / "logs").iterdir()] == [b"hello\n"]


def test_a_verb_that_said_nothing_leaves_no_log(bench: Bench) -> None:
    bench.run("exit 0")

    bench.runner.clean(IDENTITY)

    assert not (bench.state / "logs").exists()


def another(bench: Bench, script: str) -> Ending:
    """Run `script` for the next execution, which gets what the one before left of its folder."""
    run = bench.asked(script)
    bench.runner.clean(IDENTITY)
    made = replace(run, record=replace(run.record, identity=NEXT))
    bench.runner.spawn(made)
    bench.runner.go(NEXT)
    return bench.ended()


NEXT = Identity(JobId("fw-2"), 1, 1_790_000_001)


@pytest.mark.parametrize(
    "left",
    [
        "touch file .hidden; ln -s ../../../../precious link; mkfifo pipe",
        "mkdir -p a/b; touch a/b/c",
        "chmod 777 .",
        "chmod 666 ../stdout ../stderr ../events",
        "rm ../events; ln -s /dev/null ../events",
        "cd ..; rm -r work; ln -s ../../../precious work",
        "touch ../log.before ../extra; mkdir ../more",
        "echo words; echo more >&2",
    ],
)
def test_the_next_execution_finds_nothing_of_the_one_before(bench: Bench, left: str) -> None:
    precious = bench.folder / "precious"
    precious.mkdir()
    (precious / "file").touch()
    bench.run(left)

    # Its own log is there as soon as it said something.
    folder = "ls -A .. | grep -v '^log$' | sort | xargs >&2"
    ending = another(bench, f"ls -A >&2; {folder}; stat -c %a . ../stdout ../events | xargs >&2")

    said = (bench.state / "jobs" / NEXT.key / "log").read_text().splitlines()
    assert ending.code == 0
    assert said == ["job.json", "events exit-apply-2 hold stderr stdout work", "700 600 600"]
    assert names(precious) == ["file"]


def test_a_process_that_escaped_does_not_reach_the_next_execution(bench: Bench) -> None:
    script = "echo $$ >pid; while [ ! -e go-on ]; do sleep 0.02; done; echo late; echo late >late; echo >done"
    bench.run(f"setsid sh -c '{script}' >/dev/null 2>&1 & while [ ! -s pid ]; do :; done")
    pid = int(bench.text("pid"))

    ending = another(bench, "touch go-on; sleep 0.2; ls -A >&2; exit 3")

    os.kill(pid, signal.SIGKILL)
    assert ending.code == 3
    said = (bench.state / "jobs" / NEXT.key / "log").read_text().split()
    assert sorted(said) == ["go-on", "job.json"]


def test_cleaning_what_was_never_run_is_no_error(bench: Bench) -> None:
    bench.runner.clean(IDENTITY)


def test_only_the_newest_logs_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thingjobs.runner.leftovers.MAX_LOGS", 3)
    logs = bench.state / "logs"
    logs.mkdir(parents=True)
    for number in range(6):
        (logs / f"old-{number}.log").touch()
        os.utime(logs / f"old-{number}.log", (number, number))

    bench.run("echo hello")
    bench.runner.clean(IDENTITY)

    assert {path.name for path in logs.iterdir()} == {"old-4.log", "old-5.log", f"{IDENTITY.key}.log"}


def test_folders_of_executions_that_are_no_more_are_swept_away(bench: Bench) -> None:
    bench.run("exit 0")
    (bench.state / "jobs" / "old.1.5" / "work").mkdir(parents=True)

    bench.runner.sweep({IDENTITY.key})

    assert [path.name for path in (bench.state / "jobs").iterdir()] == [IDENTITY.key]


def test_the_log_of_an_execution_that_nobody_put_away_is_kept(bench: Bench) -> None:
    bench.run("echo last words")

    bench.runner.sweep(set())

    assert list((bench.state / "jobs").iterdir()) == []
    assert "last words" in (bench.state / "logs" / f"{IDENTITY.key}.log").read_text()


def test_a_log_that_was_kept_is_not_replaced_by_what_is_left_of_its_folder(bench: Bench) -> None:
    bench.run("echo last words")
    kept = bench.state / "logs" / f"{IDENTITY.key}.log"
    kept.parent.mkdir(parents=True)
    kept.write_text("all of it")

    bench.runner.sweep(set())

    assert kept.read_text() == "all of it"


def test_only_an_execution_that_left_nothing_of_its_own_left_little(bench: Bench) -> None:
    assert not bench.runner.left_little(IDENTITY)
    bench.run("echo out; echo err >&2")
    assert bench.runner.left_little(IDENTITY)
    bench.run(": >file")
    assert not bench.runner.left_little(IDENTITY)


def test_a_folder_that_its_handler_closed_is_opened_for_the_next_verb(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("chmod 0 ..")
    folder = bench.state / "jobs" / IDENTITY.key
    mkdir = Path.mkdir

    def closed(path: Path, *args: Any, **more: Any) -> None:  # As for an agent that is not root.
        if path == folder / "work" and folder.stat().st_mode & 0o777 == 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mkdir(path, *args, **more)

    monkeypatch.setattr(Path, "mkdir", closed)

    assert bench.run("exit 0").code == 0


def test_sweeping_a_folder_that_never_was_is_no_error(bench: Bench) -> None:
    bench.runner.sweep(set())


def test_the_shim_is_what_a_plain_sh_understands() -> None:
    shells = [["dash"], ["bash", "--posix"], ["busybox", "sh"], ["ksh"], ["mksh"]]
    for shell in shells:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([*shell, "-n", "-c", process.SHIM], check=True)


# --- the folder that is used again ---------------------------------------------------------------------------------


def test_the_next_execution_finds_nothing_of_the_one_before_in_its_folder(bench: Bench) -> None:
    bench.run('echo secret > left; echo out; echo err >&2; echo \'{"message": "m"}\' >> $JOB_EVENTS')
    bench.runner.clean(IDENTITY)
    assert (bench.state / "spare").is_dir()

    ended = bench.run("test ! -e left && test ! -e ../log")

    assert ended.code == 0
    assert not (bench.state / "spare").exists()


def test_the_next_execution_works_in_a_folder_that_is_ready_for_it(bench: Bench) -> None:
    bench.run("exit 3")
    bench.runner.clean(IDENTITY)
    spare = bench.state / "spare"
    ready = {path.name: path.stat().st_ino for path in spare.iterdir()}
    assert (spare / "blank").read_bytes() == b""

    assert bench.run("exit 4").code == 4

    folder = bench.state / "jobs" / IDENTITY.key
    assert folder.joinpath("work").stat().st_ino == ready["work"]
    assert [path.stat().st_ino for path in folder.glob("exit-*")] == [ready["blank"]]
    assert not folder.joinpath("blank").exists()


@pytest.mark.parametrize(
    "command",
    ["echo 0 >", "ln -sf {kept}", "ln -f {kept}", "rm {blank}; mkdir", "rm {blank}; mkfifo -m 600", "chmod 644", "rm"],
)
def test_a_file_for_the_exit_status_that_is_not_as_it_was_made_is_not_used(bench: Bench, command: str) -> None:
    bench.run("exit 0")
    bench.runner.clean(IDENTITY)
    blank, kept = bench.state / "spare" / "blank", bench.state / "kept"
    kept.write_text("")
    kept.chmod(0o600)
    subprocess.run(["sh", "-c", f"{command.format(kept=kept, blank=blank)} {blank}"], check=True)

    assert bench.run("exit 5").code == 5

    assert kept.read_text() == ""
    (exit_file,) = (bench.state / "jobs" / IDENTITY.key).glob("exit-*")
    assert exit_file.lstat().st_mode == stat.S_IFREG | 0o600


def test_a_folder_is_not_used_again_while_somebody_may_write_into_its_pipes(bench: Bench) -> None:
    script = "setsid sleep 30 & echo $! >daemon; while [ $(cut -d' ' -f6 /proc/$!/stat) != $! ]; do :; done"
    bench.run(script, plan={"keeps_daemons": True})
    daemon = int(bench.text("daemon"))
    bench.runner.clean(IDENTITY)
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon, signal.SIGKILL)

    assert not (bench.state / "spare").exists()


@pytest.mark.usefixtures("nobody")
def test_the_folder_of_another_users_handler_is_not_used_again(bench: Bench) -> None:
    bench.run("exit 0", user="nobody")

    bench.runner.clean(IDENTITY)

    assert not (bench.state / "spare").exists()
    assert list((bench.state / "jobs").iterdir()) == []


def test_the_next_agent_begins_without_a_spare_folder(bench: Bench) -> None:
    bench.run("exit 0")
    bench.runner.clean(IDENTITY)
    assert (bench.state / "spare").is_dir()

    bench.runner.sweep(set())

    assert not (bench.state / "spare").exists()


def test_the_folder_of_all_jobs_cannot_be_listed_by_others(bench: Bench) -> None:
    bench.run("exit 0")

    assert stat.S_IMODE(bench.place.parent.stat().st_mode) == 0o711
