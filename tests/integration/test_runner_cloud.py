"""The runner between a handler that asks for credentials and the agent that has them; handlers are shell scripts."""

from __future__ import annotations

import json
import os
import pwd
import queue
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.machine.effects import Run
from thingjobs.machine.events import Evidence, Finished, Progressed
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Verb
from thingjobs.runner import Runner, Settings, watcher
from thingjobs.runner.events import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

IDENTITY = Identity(JobId("lamp-1"), 1, 1)
PATIENCE_SECONDS = 20
TOLD = {"region": "eu-west-1", "allowS3Jobs": ["*"]}
ANSWER = {"credentials": {"accessKeyId": "ASIA1", "secretAccessKey": "hush"}}
#: Waits for as many answers as its parameters say.
ASKS = """echo '{"refresh":"cloud"}' >>$JOB_EVENTS
while [ ! -e go-on ]; do sleep 0.01; done"""


class Bench:
    """A runner that may give the cloud to `lamp`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox: queue.SimpleQueue[Progressed | Finished | Wanted] = queue.SimpleQueue()
        self.runner = self.settle()

    def settle(self, *handlers: str) -> Runner:
        """Have a runner anew."""
        known: dict[str, Any] = {"environment": {"PATH": "/usr/bin:/bin"}, "grace": 0.2, "cloud": TOLD}
        known["cloud_handlers"] = handlers or ("lamp",)
        settings = Settings(self.folder / "state", "pump-7", boot.boot_id(), **known)
        self.runner = Runner(settings, self.inbox.put)
        return self.runner

    def start(self, script: str, *, needs: str = "cloud", **plan: Any) -> Record:
        """Let a script run; return what the journal would hold."""
        program = self.folder / "handler"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        made = Plan("lamp", (str(program),), params={"a": 1}, needs=frozenset({needs}), **plan)
        record = Record(IDENTITY, Phase.APPLYING, "c0ffee", 1, made, {}, verb=Verb.APPLY, attempts={Verb.APPLY: 1})
        started = self.runner.spawn(Run(record, Verb.APPLY, 1))
        self.runner.go(IDENTITY)
        return replace(record, process=started)

    def heard(self, kind: type[Any]) -> Any:
        """Return the next event of a kind."""
        while not isinstance(event := self.inbox.get(timeout=PATIENCE_SECONDS), kind):
            pass
        return event

    @property
    def file(self) -> Path:
        return self.folder / "state" / "jobs" / IDENTITY.key / "work" / "job.json"

    @property
    def job(self) -> Any:
        return json.loads(self.file.read_text())

    def go_on(self) -> None:
        """Let the script end, and wait for that."""
        self.file.with_name("go-on").touch()
        assert self.heard(Finished).ending.code == 0


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="thingjobs-cloud-") as name:
        Path(name).chmod(0o711)
        yield Bench(Path(name))
        for one in threading.enumerate():
            if isinstance(one, watcher.Watcher):
                one.end()
                one.join(PATIENCE_SECONDS)


def test_a_question_is_passed_on_and_its_answer_is_the_next_revision(bench: Bench) -> None:
    record = bench.start(ASKS)
    first = bench.job
    assert bench.heard(Wanted) == Wanted(IDENTITY)

    bench.runner.answer(record, {"problem": "it is dark", "trouble": "unreachable"})
    second = bench.job
    bench.runner.answer(record, ANSWER)
    third = bench.job
    bench.runner.refresh(replace(record, plan=replace(record.plan, params={"a": 2})))
    bench.go_on()

    assert (first["revision"], first["cloud"]) == (1, {**TOLD, "answers": 0})
    problem = {"problem": "it is dark", "trouble": "unreachable"}
    assert second == {**first, "revision": 2, "cloud": {**TOLD, "answers": 1, **problem}}
    assert third == {**first, "revision": 3, "cloud": {**TOLD, "answers": 2, **ANSWER}}
    assert bench.job == {**third, "revision": 4, "params": {"a": 2}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only an agent that is root becomes somebody else")
def test_an_answer_is_for_the_handlers_account_alone(bench: Bench) -> None:
    record = bench.start(ASKS, user="nobody")
    bench.heard(Wanted)

    bench.runner.answer(record, ANSWER)

    found = bench.file.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (pwd.getpwnam("nobody").pw_uid, 0o600)
    assert bench.file.parent.stat().st_mode & 0o777 == 0o700
    bench.go_on()


def test_asking_in_a_loop_is_passed_on_once_a_second_with_the_key_that_is_refused(bench: Bench) -> None:
    bench.start("""yes '{"refresh":"cloud","refused":"ASIA1"}' >>$JOB_EVENTS""")
    began = time.monotonic()

    heard = [bench.heard(Wanted) for _ in range(2)]

    assert heard == [Wanted(IDENTITY, "ASIA1")] * 2
    assert time.monotonic() - began >= 0.9


def test_what_does_not_need_the_cloud_or_may_not_have_it_is_told_nothing_of_it(bench: Bench) -> None:
    bench.start("exit 0", needs="light")
    bench.heard(Finished)
    assert "cloud" not in bench.job

    bench.settle("kettle").clean(IDENTITY)
    bench.start("exit 0")
    bench.heard(Finished)
    assert bench.job["cloud"] == {"answers": 0}


@pytest.mark.parametrize(
    ("cloud", "answers"),
    [('{"answers": 4}', 5), ('{"answers": 4000}', 41), ('{"answers": "4"}', 1), ("7", 1), ("[]", 1), ("null", 1)],
)
def test_after_a_restart_answers_are_counted_on_and_nothing_else_is_believed(
    bench: Bench, cloud: str, answers: int
) -> None:
    record = bench.start(f"""echo '{{"revision": 41, "cloud": {cloud}}}' >job.json; {ASKS}""")
    bench.heard(Wanted)
    child = bench.runner._watchers[IDENTITY]._child
    assert child
    bench.runner.let_go()
    assert bench.settle().adopt(record) is Evidence.ADOPTED

    bench.runner.answer(record, ANSWER)

    assert bench.job["cloud"] == {**TOLD, "answers": answers, **ANSWER}
    assert bench.job["revision"] == 42
    bench.go_on()
    child.wait(PATIENCE_SECONDS)


def test_a_job_that_is_over_leaves_no_credentials_behind(bench: Bench) -> None:
    record = bench.start(ASKS)
    bench.heard(Wanted)
    bench.runner.answer(record, ANSWER)
    bench.go_on()

    bench.runner.clean(IDENTITY)

    left = [path for path in bench.folder.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    assert left == []
