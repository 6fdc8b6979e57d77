"""A Python handler in its own process: what a method returns or raises becomes an exit status and events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.runner.events import Said, fold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOB = {
    "contract": 1,
    "jobId": "fw-1",
    "execution": 2,
    "thing": "pump-7",
    "params": {"slot": "b", "text": "ä\ud800"},
    "verb": "apply",
    "attempt": 3,
    "resumed": True,
    "rebooted": False,
    "dryRun": False,
    "deadline": 1_790_000_000.5,
    "revision": 1,
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a child left.

    Attributes:
        said: its events, as the agent reads them.
    """

    code: int
    said: Said
    output: str
    errors: str


class Team:
    """A module with a handler class, run one verb a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        self.events = folder / "events"

    def start(
        self, code: str, *, job: dict[str, Any] | None = None, target: str = "team:Handler"
    ) -> subprocess.Popen[str]:
        """Start the verb of the handler in `code`."""
        (self.folder / "team.py").write_text(code, encoding="utf-8")
        text = json.dumps(job or JOB, ensure_ascii=False).encode("utf-8", "backslashreplace")
        (self.work / "job.json").write_bytes(text)
        self.events.write_bytes(b"")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JOB_VERB": "apply",
            "JOB_DIR": str(self.work),
            "JOB_EVENTS": str(self.events),
        }
        argv = [sys.executable, "-m", "thingjobs.child", target]
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.work
        )

    def run(self, code: str, **more: Any) -> Done:
        """Run the verb to its end."""
        with self.start(code, **more) as child:
            output, errors = child.communicate(timeout=30)
        return Done(child.returncode, self.said(), output, errors)

    def method(self, body: str, **more: Any) -> Done:
        """Run a handler whose `apply` is `body`."""
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        code = "from thingjobs.handler import *\nfrom thingjobs.handler import Outcome, REBOOT\nimport os, sys, time\n"
        return self.run(f"{code}class Handler:\n    def apply(self, ctx, params):\n{lines}\n", **more)

    def said(self) -> Said:
        said = Said()
        for line in self.events.read_bytes().splitlines():
            said = fold(said, line)
        return said


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


# --- what is returned ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "code"),
    [
        ("None", 0),
        ("Outcome.DONE", 0),
        ("Outcome.ALREADY", 10),
        ("Outcome.REBOOT_AND_AGAIN", 194),
        ("Outcome.DONE_AND_REBOOT", 195),
        ("REBOOT", 195),
        ("Outcome.AGAIN_AFTER_RESTART", 196),
    ],
)
def test_what_a_method_returns_is_its_exit_status(team: Team, returned: str, code: int) -> None:
    assert team.method(f"return {returned}") == Done(code, Said(), "", "")


@pytest.mark.parametrize("returned", ["0", "True", "False", "'done'", "75", "Outcome", "[]"])
def test_a_method_that_returns_something_else_failed(team: Team, returned: str) -> None:
    done = team.method(f"return {returned}")

    assert (done.code, done.said.code) == (1, "handler.failed")
    assert done.said.reason.startswith("apply returned ")
    assert done.said.reason.endswith("which means nothing")


# --- what is raised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("Failed('no room')", 1, Said(reason="no room", code="handler.failed")),
        ("Failed('no room', code='fetch.space')", 1, Said(reason="no room", code="fetch.space")),
        ("Failed('x', details={'slot': 'b'})", 1, Said(reason="x", code="handler.failed", details={"slot": "b"})),
        ("Reject('wrong board')", 1, Said(reason="wrong board", code="handler.rejected", reject=True)),
        ("Retry()", 75, Said(reason="not ready yet")),
        ("Retry('warming up', after=90)", 75, Said(reason="warming up", after=90.0)),
        ("Retry('now', after=0)", 75, Said(reason="now", after=0.0)),
        ("type('Full', (Failed,), {})('no room')", 1, Said(reason="no room", code="handler.failed")),
    ],
)
def test_what_a_method_raises_on_purpose_is_said_without_a_traceback(
    team: Team, raised: str, code: int, said: Said
) -> None:
    assert team.method(f"raise {raised}") == Done(code, said, "", "")


def test_a_bug_is_a_failure_and_its_author_sees_where(team: Team) -> None:
    done = team.method("slots = {}\nslots[params['slot']]")

    assert (done.code, done.said) == (1, Said(reason="KeyError: 'b'", code="handler.failed"))
    assert "Traceback" in done.errors
    assert "slots[params['slot']]" in done.errors


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "class Handler:\n    def __init__(self): raise OSError('no modem')\n    def apply(self, c, p): ...",
            "no modem",
        ),
        ("class Handler:\n    def __init__(self, must): ...\n    def apply(self, c, p): ...", "must"),
        ("class Handler:\n    def apply(self): ...", "apply() takes 1 positional argument"),
        ("class Handler:\n    def verify(self, c, p): ...", "apply"),
    ],
)
def test_a_class_that_cannot_be_called_failed(team: Team, code: str, reason: str) -> None:
    done = team.run(code)

    assert (done.code, done.said.code) == (1, "handler.failed")
    assert reason in done.said.reason


def test_a_method_may_end_the_process_itself(team: Team) -> None:
    assert team.method("ctx.details(a='b')\nsys.exit(75)") == Done(75, Said(details={"a": "b"}), "", "")


# --- what cannot be imported --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "target", "reason"),
    [
        ("raise RuntimeError('no modem')", "team:Handler", "no modem"),
        ("class Handler:", "team:Handler", "team.py"),
        ("x = 1", "team:Handler", "team:Handler is not a class"),
        ("Handler = 5", "team:Handler", "team:Handler is not a class"),
        ("class Handler: ...", "team", "team is not a class"),
        ("class Handler: ...", "nowhere:Handler", "No module named 'nowhere'"),
        # Taken at its word, this would be a verb that is done.
        ("import sys; sys.exit(0)", "team:Handler", "0"),
        ("raise SystemExit", "team:Handler", ""),
    ],
)
def test_what_cannot_be_imported_is_a_broken_handler(team: Team, code: str, target: str, reason: str) -> None:
    done = team.run(code, target=target)

    assert (done.code, done.said.code) == (1, "handler.broken")
    assert done.said.reason.startswith(f"cannot import {target}: ")
    assert reason in done.said.reason


def test_a_class_may_stand_in_another(team: Team) -> None:
    code = "class Outer:\n    class Handler:\n        def apply(self, ctx, params): ctx.log('here')"

    assert team.run(code, target="team:Outer.Handler").output == "here\n"


# --- what a handler knows and says --------------------------------------------------------------------------------


def test_a_handler_knows_its_job(team: Team) -> None:
    names = (
        "job_id",
        "execution",
        "thing",
        "verb",
        "attempt",
        "resumed",
        "rebooted",
        "dry_run",
        "deadline",
        "cancelled",
    )

    done = team.method(f"print([getattr(ctx, name) for name in {names!r}])\nprint(ctx.dir)\nprint(ascii(params))")

    known, folder, params = done.output.splitlines()
    assert known == str(["fw-1", 2, "pump-7", "apply", 3, True, False, False, 1_790_000_000.5, False])
    assert folder == str(team.work)
    assert params == ascii(JOB["params"])


def test_the_verb_of_the_job_is_the_method_that_runs(team: Team) -> None:
    code = "class Handler:\n    def apply(self, c, p): c.log('apply')\n    def verify(self, c, p): c.log('verify')"

    assert team.run(code, job={**JOB, "verb": "verify"}).output == "verify\n"


def test_what_a_handler_says_arrives_as_events(team: Team) -> None:
    done = team.method(
        "ctx.progress(10)\nctx.progress(message='writing')\nctx.details(slot='b')\nctx.progress(40.5, 'ä\\ud800')"
    )

    assert done.said == Said(percent=40.5, message="ä\ud800", details={"slot": "b"})


def test_a_line_of_log_goes_out_at_once(team: Team) -> None:
    with team.start(
        "class Handler:\n    def apply(self, ctx, p):\n        ctx.log('up')\n        __import__('time').sleep(1000)\n"
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.kill()


def test_long_events_from_many_threads_stay_whole(team: Team) -> None:
    body = """
import threading
def talk(n):
    for _ in range(50): ctx.details(**{f'k{n}': 'x' * 3000})
threads = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
"""
    done = team.method(body)

    assert done.code == 0
    assert done.said.broken == 0
    assert done.said.details == {f"k{n}": "x" * 3000 for n in range(8)}


def test_a_handler_is_told_to_stop_and_decides_how(team: Team, eventually: Callable[..., Any]) -> None:
    code = """
import signal
from thingjobs.handler import Failed
class Handler:
    def apply(self, ctx, params):
        ctx.progress(message='up')
        while not ctx.cancelled:
            signal.sigtimedwait([], 0.01)
        raise Failed('stopped half way')
"""
    with team.start(code) as child:
        eventually(lambda: team.said().message == "up")
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)

    assert (child.returncode, errors) == (1, "")
    assert team.said().reason == "stopped half way"


# --- what a class declares ----------------------------------------------------------------------------------------


def described(team: Team, code: str) -> dict[str, Any]:
    (team.folder / "team.py").write_text(code, encoding="utf-8")
    argv = [sys.executable, "-m", "thingjobs.child", "--describe", "team:Handler"]
    environment = {"PYTHONPATH": str(team.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(argv, capture_output=True, env=environment, check=True)
    declared: dict[str, Any] = json.loads(answer.stdout)
    return declared


def test_a_class_declares_the_methods_that_it_has_or_inherits(team: Team) -> None:
    code = """
class Base:
    def check(self, ctx, params): ...
    def apply(self, ctx, params): ...
class Handler(Base):
    rollback = None
    verify = 'no method'
    def commit(self, ctx, params): ...
    def helper(self): ...
"""
    assert described(team, code)["verbs"] == ["check", "apply", "commit"]


def test_a_class_that_declares_nothing_has_the_defaults(team: Team) -> None:
    assert described(team, "class Handler:\n    def apply(self, ctx, params): ...") == {
        "contract": 1,
        "version": "",
        "verbs": ["apply"],
        "params": None,
        "timeouts": {},
        "stall": None,
        "applyRerun": False,
        "cancelApply": False,
    }


def test_describing_a_class_makes_no_object_of_it(team: Team) -> None:
    code = "class Handler:\n    def __init__(self): raise SystemExit\n    def apply(self, ctx, params): ..."

    assert described(team, code)["verbs"] == ["apply"]


def test_what_a_module_prints_is_not_part_of_the_answer(team: Team) -> None:
    assert described(team, "print('hello')\nclass Handler:\n    def apply(self, c, p): ...")["contract"] == 1
