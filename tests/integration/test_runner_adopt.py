"""An agent ends or is killed, and the next one finds what became of the verb in flight: it, its end, or nothing."""

from __future__ import annotations

import errno
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot, records
from thingjobs.errors import StateError
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Ending, Evidence, Finished, Progressed
from thingjobs.model import Identity, JobId, Phase, Plan, Process, Record, Verb
from thingjobs.runner import Runner, Settings, exits
from thingjobs.runner.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOOT = boot.boot_id()
PATIENCE_SECONDS = 30
#: As much of an agent as it takes: makes the process, keeps the record, says go or not, and waits to be killed.
AGENT = """
import sys
from dataclasses import replace
from pathlib import Path
from thingjobs import boot, records
from thingjobs.machine.effects import Run
from thingjobs.runner import Runner, Settings, exits

folder = Path(sys.argv[1])
record = records.load((folder / "record").read_bytes())
runner = Runner(Settings(folder / "state", "pump-7", boot.boot_id(), {}), lambda event: None)
process = runner.spawn(Run(record, record.verb, record.attempts[record.verb]))
(folder / "record").write_bytes(records.dump(replace(record, process=process)))
if sys.argv[2] == "go":
    runner.go(record.identity)
print("ready", flush=True)
sys.stdin.read()
"""


class Agents:
    """One agent after another on the same state folder.

    Attributes:
        record: what the journal holds.
        events: what the present agent's runner told.
    """

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        program = folder / "handler"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        identity = Identity(JobId("fw-1"), 1, 1_790_000_000)
        plan = Plan("firmware", (str(program),))
        self.record = Record(identity, Phase.APPLYING, "c0ffee", 1, plan, {}, verb=Verb.APPLY, attempts={Verb.APPLY: 2})
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runner = self.next()

    def next(self, boot_id: str = BOOT) -> Runner:
        """Return the runner of the next agent."""
        self.runner = Runner(Settings(self.folder / "state", "pump-7", boot_id, {}), self.events.put)
        return self.runner

    def start(self) -> None:
        """Run the script under the present agent, which is this process."""
        made = self.runner.spawn(Run(self.record, Verb.APPLY, 2))
        self.record = replace(self.record, process=made)
        self.runner.go(self.record.identity)

    def start_and_kill(self, *, when: str, go: str = "go", then: Callable[[], bool] = lambda: True) -> None:
        """Run the script under an agent of its own; kill that one once the file `when` is there and `then` is true."""
        (self.folder / "record").write_bytes(records.dump(self.record))
        argv = [sys.executable, "-c", AGENT, str(self.folder), go]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            self.record = records.load((self.folder / "record").read_bytes())
            self.wait_for(when)
            while not then():
                pass
            agent.send_signal(signal.SIGKILL)

    def wait_for(self, name: str) -> None:
        """Wait until the handler wrote the file `name`; nothing, if that is empty."""
        end = threading.Event()
        for _ in range(PATIENCE_SECONDS * 100):
            if not name or (self.work / name).exists():
                return
            end.wait(0.01)
        raise AssertionError(f"the handler never wrote {name}")

    def finished(self) -> Finished:
        """Return what is told of the end."""
        while True:
            event = self.events.get(timeout=PATIENCE_SECONDS)
            if isinstance(event, Finished):
                return event

    @property
    def work(self) -> Path:
        return self.folder / "state" / "jobs" / self.record.identity.key / "work"

    @property
    def process(self) -> Process:
        assert self.record.process is not None
        return self.record.process

    def has_ended(self) -> bool:
        """Tell whether the handler ended and the shim stored how."""
        return exits.stored(self.work.parent / "exit-apply-2").complete

    def events_so_far(self) -> Iterator[Any]:
        """Return what was told and not yet looked at."""
        while not self.events.empty():
            yield self.events.get()

    def log(self) -> bytes:
        """Return the job's log, once it was cleaned up."""
        return (self.folder / "state" / "logs" / f"{self.record.identity.key}.log").read_bytes()

    def release(self) -> None:
        """Let a handler that waits for it go on."""
        (self.work / "go-on").touch()


#: Says that it runs, and waits to be released.
WAITS = "echo $$ >pid; mv pid up; while [ ! -e go-on ]; do sleep 0.02; done"


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def agents(eventually: Callable[..., Any]) -> Iterator[Callable[[str], Agents]]:
    """Makes the agents; no file stays open afterwards, no thread and no process stays behind."""
    before = fds()
    made: list[Agents] = []
    with tempfile.TemporaryDirectory(prefix="thingjobs-adopt-") as name:

        def make(script: str) -> Agents:
            made.append(Agents(Path(name), script))
            return made[0]

        yield make
        for one in made:
            one.runner.kill(one.record.identity)
        for thread in threading.enumerate():
            if isinstance(thread, Watcher):
                thread.end()
                thread.join(PATIENCE_SECONDS)
    eventually(lambda: fds() == before)


def reap(runner: Runner) -> None:
    """Wait for the children of an agent that let go of them: in real life they are nobody's by now."""
    for watcher in runner._watchers.values():
        if watcher._child is not None:
            watcher._child.wait(PATIENCE_SECONDS)


def alive(pid: int) -> bool:
    return boot.start_time(pid) is not None


# --- it still runs ------------------------------------------------------------------------------------------------


def test_an_agent_that_lets_go_leaves_the_handler_running_for_the_next(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start()
    both.wait_for("up")
    first = both.runner

    first.let_go()

    assert not [one for one in threading.enumerate() if isinstance(one, Watcher)]
    assert boot.lives(both.process, BOOT)
    assert both.next().adopt(both.record) is Evidence.ADOPTED
    both.release()
    assert both.finished() == Finished(both.record.identity, Verb.APPLY, 2, Ending(42))
    reap(first)


def test_an_agent_that_is_killed_leaves_the_handler_running_for_the_next(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")

    assert boot.lives(both.process, BOOT)
    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    both.release()

    assert both.finished().ending == Ending(42)


def test_what_was_said_while_no_agent_was_there_is_heard(agents: Callable[[str], Agents]) -> None:
    said = """echo '{"details":{"slot":"b"}}' >>$JOB_EVENTS; echo 'almost there' >&2"""
    both = agents(f"{WAITS}; {said}; touch said; while [ ! -e end ]; do sleep 0.02; done; exit 1")
    both.start_and_kill(when="up")
    both.release()
    both.wait_for("said")

    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    (both.work / "end").touch()

    assert both.finished().ending == Ending(1, "", "almost there", details={"slot": "b"})


def test_a_handler_without_an_agent_waits_for_the_next_one_when_its_pipe_is_full(
    agents: Callable[[str], Agents],
) -> None:
    both = agents(f"{WAITS}; touch began; head -c 1000000 /dev/zero || exit 9; touch written; exit 3")
    both.start_and_kill(when="up")
    both.release()
    both.wait_for("began")

    assert not (both.work / "written").exists()
    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    assert both.finished().ending == Ending(3)
    assert (both.work / "written").exists()


def test_the_next_agent_can_end_what_it_found(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")
    pid = int((both.work / "up").read_text())
    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    both.runner.kill(both.record.identity)

    assert both.finished().ending == Ending(None, "SIGTERM")
    assert not alive(pid)


def test_an_agent_that_ends_a_verb_and_lets_go_at_once_has_ended_it(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    one = agents(f"""{WAITS.replace("mv pid up", "mv pid up; echo '{}' >>$JOB_EVENTS")}; exit 42""")

    def at_once(_: object) -> None:
        # The thread that tells this gets no turn between the two.
        (watcher,) = one.runner._watchers.values()
        watcher.end()
        watcher.let_go()

    one.runner._put = at_once
    one.start()
    one.wait_for("up")
    pid = int((one.work / "up").read_text())

    eventually(lambda: not alive(pid))
    first = one.runner
    assert one.next().adopt(one.record) is Evidence.ADOPTED
    assert one.finished().ending == Ending(None, "SIGTERM")
    reap(first)


def test_a_third_agent_finds_it_too(agents: Callable[[str], Agents]) -> None:
    three = agents(f"{WAITS}; exit 42")
    three.start_and_kill(when="up")
    second = three.runner
    assert second.adopt(three.record) is Evidence.ADOPTED
    second.let_go()

    assert three.next().adopt(three.record) is Evidence.ADOPTED
    three.release()

    assert three.finished().ending == Ending(42)


@pytest.mark.parametrize(("how", "ending"), [("ends", Ending(42)), ("is killed", Ending(None, "SIGKILL"))])
def test_what_an_agent_left_that_became_the_next_one_is_buried_by_that(
    agents: Callable[[str], Agents], how: str, ending: Ending
) -> None:
    """An agent that starts itself again is the same process, and so the parent of what it finds."""
    both = agents(f"{WAITS}; exit 42")
    both.start()
    both.wait_for("up")
    first = both.runner
    first.let_go()
    assert both.next().adopt(both.record) is Evidence.ADOPTED

    if how == "ends":
        both.release()
    else:
        os.kill(both.process.pid, signal.SIGKILL)

    assert both.finished().ending == ending
    assert not Path(f"/proc/{both.process.pid}").exists()
    reap(first)


def test_it_is_watched_to_its_end_even_when_its_pipes_are_gone(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")
    for name in ("stdout", "stderr", "events"):
        (both.work.parent / name).unlink()

    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    both.release()

    assert both.finished().ending == Ending(42)


def test_what_stands_where_a_pipe_was_is_not_read(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")
    (both.work.parent / "stdout").unlink()
    (both.work.parent / "stdout").write_text("forged")

    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    both.release()

    assert both.finished().ending == Ending(42)
    assert not (both.work.parent / "log").exists()


def test_it_is_watched_to_its_end_even_when_its_folder_is_gone(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")
    both.work.parent.rename(both.folder / "moved")

    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    (both.folder / "moved" / "work" / "go-on").touch()

    # The shim opened the file that it writes to before it was moved; here there is none.
    assert both.finished().ending == Ending(None)


@pytest.mark.parametrize("call", ["pidfd_open", "open"])
def test_what_runs_and_cannot_be_watched_is_not_taken_for_lost(
    agents: Callable[[str], Agents], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StateError, match="Too many open files"):
            both.runner.adopt(both.record)

    assert boot.lives(both.process, BOOT)
    assert both.runner.adopt(both.record) is Evidence.ADOPTED


#: All that counts for the result, in a file so that no quoting matters.
WORDS = """
cat >>$JOB_EVENTS <<'EOF'
{"progress":40,"message":"on the way","details":{"slot":"b","old":"1.2"}}
{"reason":"slot b is worn out","code":"fetch.space","reject":true,"after":60}
EOF
"""
SAID = Ending(1, "", "slot b is worn out", "fetch.space", reject=True, after=60.0, details={"slot": "b", "old": "1.2"})


def test_what_was_said_to_an_agent_that_is_killed_is_not_forgotten(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WORDS} {WAITS}; exit 1")
    both.start_and_kill(when="../said-apply-2")
    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    both.release()

    assert both.finished().ending == SAID
    assert not list(both.events_so_far())


def test_what_was_written_to_an_agent_that_is_killed_is_in_the_log_once(agents: Callable[[str], Agents]) -> None:
    both = agents(f"echo first; {WAITS}; echo second >&2; exit 1")
    both.start_and_kill(when="../log")
    both.wait_for("up")
    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    both.release()
    assert both.finished().ending.reason == "second"

    both.runner.clean(both.record.identity)

    assert both.log() == b"first\nsecond\n"


def test_the_last_words_to_an_agent_that_is_killed_are_the_reason(agents: Callable[[str], Agents]) -> None:
    both = agents(f"echo 'no such slot' >&2; {WAITS}; exit 1")
    both.start_and_kill(when="../log")
    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    both.release()

    assert both.finished().ending == Ending(1, "", "no such slot")


@pytest.mark.parametrize("content", ["[1]", '{"details": 5, "reason": ["x"], "after": "soon"}', "\\377", "x" * 99])
def test_what_was_kept_of_its_words_is_not_trusted(agents: Callable[[str], Agents], content: str) -> None:
    both = agents(f"{WAITS}; printf '{content}' >../said-apply-2; touch ready; while [ ! -e end ]; do sleep 0.02; done")
    both.start_and_kill(when="up")
    both.release()
    both.wait_for("ready")

    assert both.runner.adopt(both.record) is Evidence.ADOPTED
    (both.work / "end").touch()

    assert both.finished().ending == Ending(0)


# --- it ended meanwhile -------------------------------------------------------------------------------------------


def test_what_it_wrote_to_nobody_is_kept_until_somebody_reads_it(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"echo $$ >>ran; {WAITS}; {WORDS} echo out; echo err >&2; exit 1")
    both.start_and_kill(when="up")
    both.release()
    eventually(both.has_ended)
    assert alive(both.process.pid)

    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    assert both.finished().ending == SAID
    assert not alive(both.process.pid)
    assert len((both.work / "ran").read_text().split()) == 1
    both.runner.clean(both.record.identity)
    assert sorted(both.log().split()) == [b"err", b"out"]


def test_the_wake_up_of_an_agent_that_died_then_is_not_needed(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"{WAITS}; {WORDS} exit 1")
    both.start_and_kill(when="up")
    both.release()
    eventually(both.has_ended)
    # What an agent reads before it is killed: all of it, the empty line too.
    pipe = os.open(both.work.parent / "events", os.O_RDONLY | os.O_NONBLOCK)
    eventually(lambda: os.read(pipe, 65536).endswith(b"\n\n"))
    os.close(pipe)

    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    assert both.finished().ending == Ending(1)


def test_an_agent_that_is_killed_between_the_end_and_its_journal_leaves_all_for_the_next(
    agents: Callable[[str], Agents],
) -> None:
    both = agents(f"{WORDS} echo out; exit 1")
    both.start_and_kill(when="../said-apply-2", then=both.has_ended)

    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    assert both.finished().ending == SAID


@pytest.mark.parametrize(
    ("end", "ending"), [("exit 0", (0, "")), ("exit 75", (75, "")), ("kill -9 $$", (None, "SIGKILL"))]
)
def test_an_end_while_no_agent_was_there_is_told_by_the_next(
    agents: Callable[[str], Agents], eventually: Callable[..., Any], end: str, ending: tuple[int | None, str]
) -> None:
    both = agents(f"{WAITS}; {end}")
    both.start_and_kill(when="up")
    both.release()
    eventually(both.has_ended)

    assert both.runner.adopt(both.record) is Evidence.ADOPTED

    found = both.finished()
    assert (found.verb, found.attempt) == (Verb.APPLY, 2)
    assert (found.ending.code, found.ending.signal) == ending


def test_what_it_left_in_the_background_is_ended_by_the_next(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"sleep 1000 & echo $! >child; {WAITS}; exit 0")
    both.start_and_kill(when="up")
    both.release()
    eventually(both.has_ended)
    child = int((both.work / "child").read_text())
    assert alive(child)

    both.runner.adopt(both.record)

    both.finished()
    assert not alive(child)


# --- it is lost, or never was -------------------------------------------------------------------------------------


def test_a_verb_that_was_never_let_go_is_known_to_have_done_nothing(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents("touch ran")
    both.start_and_kill(when="", go="no")
    eventually(lambda: not alive(both.process.pid))

    assert both.runner.adopt(both.record) is Evidence.NOT_STARTED
    assert not (both.work / "ran").exists()
    assert both.events.empty()


def test_a_record_without_a_process_says_that_nothing_was_started(agents: Callable[[str], Agents]) -> None:
    both = agents("exit 0")

    assert both.runner.adopt(both.record) is Evidence.NOT_STARTED
    assert both.runner.adopt(replace(both.record, verb=None)) is Evidence.NOT_STARTED


def test_a_verb_that_no_record_names_is_ended(agents: Callable[[str], Agents], eventually: Callable[..., Any]) -> None:
    both = agents("touch runs; sleep 1000")
    both.start_and_kill(when="runs")

    assert both.runner.adopt(replace(both.record, verb=None, process=None)) is Evidence.NOT_STARTED

    eventually(lambda: not alive(both.process.pid))


def test_a_verb_that_died_with_its_shim_is_lost_and_what_is_left_of_it_is_ended(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"sleep 1000 & echo $! >child; {WAITS}; exit 0")
    both.start_and_kill(when="up")
    pids = [int((both.work / name).read_text()) for name in ("up", "child")]
    os.kill(both.process.pid, signal.SIGKILL)
    eventually(lambda: not alive(both.process.pid))
    assert [pid for pid in pids if alive(pid)] == pids

    # Otherwise it could be run again beside itself.
    assert both.runner.adopt(both.record) is Evidence.LOST
    assert [pid for pid in pids if alive(pid)] == []
    assert both.events.empty()


def test_after_another_boot_a_verb_is_lost_whatever_has_its_pid(agents: Callable[[str], Agents]) -> None:
    both = agents(f"{WAITS}; exit 0")
    both.start_and_kill(when="up")
    other = replace(both.record, process=replace(both.process, boot="another-boot"))

    assert both.runner.adopt(other) is Evidence.LOST
    assert both.next("another-boot").adopt(both.record) is Evidence.LOST

    # By its own boot it would have been found.
    assert boot.lives(both.process, BOOT)
    assert both.next().adopt(both.record) is Evidence.ADOPTED


def test_a_pid_that_was_given_away_is_not_the_verb_and_is_left_alone(agents: Callable[[str], Agents]) -> None:
    both = agents("exit 0")
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        started = boot.start_time(stranger.pid)
        assert started is not None
        record = replace(both.record, process=Process(stranger.pid, started - 1, BOOT))

        assert both.runner.adopt(record) is Evidence.LOST

        both.runner.kill(record.identity)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", [b"", b"0", b"12", b"x\n", b"\n", b"-1\n", b"\xff\n", b"9" * 5000 + b"\n"])
def test_an_exit_status_that_is_not_whole_is_none(agents: Callable[[str], Agents], content: bytes) -> None:
    both = agents("exit 0")
    both.work.mkdir(parents=True)
    (both.work.parent / "exit-apply-2").write_bytes(content)
    gone = replace(both.record, process=Process(4_000_000, 1, BOOT))

    assert both.runner.adopt(gone) is Evidence.LOST


def test_the_exit_status_of_an_earlier_run_is_not_that_of_this_one(agents: Callable[[str], Agents]) -> None:
    both = agents("exit 0")
    both.work.mkdir(parents=True)
    (both.work.parent / "exit-apply-1").write_text("0\n")
    gone = replace(both.record, process=Process(4_000_000, 1, BOOT))

    assert both.runner.adopt(gone) is Evidence.LOST


# --- telling processes apart --------------------------------------------------------------------------------------


def test_a_process_is_told_apart_whatever_it_is_called(tmp_path: Path) -> None:
    # The kernel puts the name between brackets, unescaped, before what is read.
    for name in ("plain", ") Z 1 2 3", "a b) (c", ")"):
        program = tmp_path / name
        program.write_bytes(Path("/bin/sleep").read_bytes())
        program.chmod(0o755)
        with subprocess.Popen([str(program), "1000"], start_new_session=True) as child:
            started = boot.start_time(child.pid)
            assert started is not None
            assert boot.lives(Process(child.pid, started, BOOT), BOOT)
            assert boot.members(child.pid) == [child.pid]
            child.kill()


def test_a_process_that_ended_and_was_not_waited_for_is_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert boot.start_time(child.pid) is None


def test_progress_goes_on_under_the_next_agent(agents: Callable[[str], Agents]) -> None:
    both = agents(f"""{WAITS}; echo '{{"message":"second half"}}' >>$JOB_EVENTS; exec sleep 1000""")
    both.start_and_kill(when="up")
    both.runner.adopt(both.record)

    both.release()

    assert both.events.get(timeout=PATIENCE_SECONDS) == Progressed(both.record.identity, None, "second half")


# --- it runs, and the journal does not know --------------------------------------------------------------------------


def test_a_verb_that_the_journal_does_not_know_is_ended_before_the_next_one_begins(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")
    lost = both.process

    made = both.runner.spawn(Run(both.record, Verb.VERIFY, 1))

    eventually(lambda: not boot.lives(lost, BOOT))
    assert boot.lives(made, BOOT)
    both.runner.kill(both.record.identity)


def test_what_runs_for_an_execution_that_the_journal_does_not_know_is_swept_away(
    agents: Callable[[str], Agents], eventually: Callable[..., Any]
) -> None:
    both = agents(f"{WAITS}; exit 42")
    both.start_and_kill(when="up")

    both.runner.sweep(keep=set())

    eventually(lambda: not boot.lives(both.process, BOOT))
    assert not both.work.exists()
