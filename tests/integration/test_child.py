"""A Python handler in its own process: what a method returns or raises becomes an exit status and events."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import child, manifest
from thingjobs.child.wishes import at, place_of
from thingjobs.handler import Exit, Outcome
from thingjobs.runner.events import Said, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    """A module with a handler class, run one verb a process.

    Started as `-m thingjobs.child`, without -I so that the module is found; the agent's own way is START.
    """

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
        code = "from thingjobs.handler import *\nimport asyncio, os, sys, time\n"
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
        ("Outcome.REBOOT_AND_AGAIN", 194),
        ("Outcome.DONE_AND_REBOOT", 195),
        ("REBOOT", 195),
        ("Outcome.AGAIN_AFTER_RESTART", 196),
    ],
)
def test_what_a_method_returns_is_its_exit_status(team: Team, returned: str, code: int) -> None:
    assert team.method(f"return {returned}") == Done(code, Said(), "", "")


def test_only_check_may_find_it_done_already_and_it_may_say_nothing_else(team: Team) -> None:
    code = "from thingjobs.handler import *\nclass Handler:\n    def check(self, c, p): return Outcome."
    check = {**JOB, "verb": "check"}

    assert team.run(f"{code}ALREADY", job=check) == Done(10, Said(), "", "")
    assert team.run(f"{code}DONE", job=check) == Done(0, Said(), "", "")
    done = team.run(f"{code}DONE_AND_REBOOT", job=check)
    assert (done.code, done.said.reason) == (1, "check returned Outcome.DONE_AND_REBOOT, which means nothing there")
    done = team.method("return Outcome.ALREADY")
    assert (done.code, done.said.reason) == (1, "apply returned Outcome.ALREADY, which means nothing there")


def test_outcomes_are_the_exit_codes_of_the_contract() -> None:
    assert {exit_.name: exit_.value for exit_ in Exit if exit_ is not Exit.LATER} == {
        name: outcome.value for name, outcome in vars(Outcome).items() if isinstance(outcome, Outcome)
    }
    assert child.LATER == Exit.LATER


@pytest.mark.parametrize(
    "returned",
    ["0", "True", "False", "'done'", "75", "Outcome", "[]", "'x' * 5000", "type('Odd', (), {'__repr__': 5})()"],
)
def test_a_method_that_returns_something_else_failed(team: Team, returned: str) -> None:
    done = team.method(f"return {returned}")

    assert (done.code, done.said.code) == (1, "handler.failed")
    assert done.said.reason.startswith("apply returned ")
    assert done.said.reason.endswith("which means nothing")
    assert len(done.said.reason) < 200


@pytest.mark.parametrize("body", ["yield", "yield from ()"])
def test_a_method_that_only_would_do_something_failed(team: Team, body: str) -> None:
    assert team.method(body).said.reason == (
        "apply returned a generator and did nothing: it may be neither async nor a generator"
    )


def test_an_async_method_failed(team: Team) -> None:
    done = team.run("class Handler:\n    async def apply(self, ctx, params): ...")

    assert (done.code, done.errors) == (1, "")
    assert done.said.reason.startswith("apply returned a coroutine and did nothing")


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


@pytest.mark.parametrize("status", ["", "0", "75", "'no room'"])
def test_a_method_that_calls_exit_failed(team: Team, status: str) -> None:
    done = team.method(f"ctx.details(a='b')\nsys.exit({status})")

    assert (done.code, done.said.code, done.said.details) == (1, "handler.failed", {"a": "b"})
    exit_ = f"apply called sys.exit({status or None})"
    assert done.said.reason == f"{exit_}: it must return, or raise Failed, Reject or Retry"
    assert f"sys.exit({status})" in done.errors


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "GeneratorExit", "asyncio.CancelledError", "RecursionError"])
def test_whatever_else_a_method_raises_is_a_failure(team: Team, raised: str) -> None:
    done = team.method(f"raise {raised}")

    assert done.code == 1
    assert raised.rpartition(".")[2] in done.errors


def test_a_signal_of_a_team_that_forgot_ours_still_has_a_reason(team: Team) -> None:
    code = """
from thingjobs.handler import *
class Full(Reject):
    def __init__(self, free): self.free = free
class Handler:
    def apply(self, ctx, params): raise Full(5)
"""
    assert team.run(code).said == Said(reason="5", code="handler.rejected", reject=True)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [("Failed(OSError('no modem'))", "no modem"), ("Failed('')", "Failed"), ("Failed('x' * 100_000)", "x" * 4096)],
)
def test_any_reason_is_a_text_that_arrives(team: Team, raised: str, reason: str) -> None:
    assert team.method(f"raise {raised}").said.reason == reason


def test_the_exit_status_counts_without_the_reason(team: Team) -> None:
    done = team.method("os.closerange(3, 20)\nraise Retry('warming up')")

    assert (done.code, done.said) == (75, Said())
    assert "warming up" in done.output


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


def test_without_its_agent_a_verb_says_what_is_missing(team: Team) -> None:
    argv = [sys.executable, "-I", "-m", "thingjobs.child", "team:Handler"]
    done = subprocess.run(argv, capture_output=True, text=True, env={}, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("thingjobs.child: cannot run team:Handler: KeyError: 'JOB_DIR'")


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


def test_whatever_is_said_is_an_event(team: Team) -> None:
    done = team.method("""
ctx.progress(float('nan'), 'ä' + chr(0xd800))
ctx.progress('x')
ctx.progress(type('Number', (), {'__float__': lambda self: 40.0})())
ctx.details(a=5, b=float('inf'), c=os, d=None, e=[1], f={1: {2}}, stderr='x' * 5000 + 'end', g='x' * 5000)
print('ä' + chr(0xd800))
""")
    details = done.said.details

    assert (done.code, done.said.broken, done.said.percent, done.said.message) == (0, 0, 40.0, "ä\ud800")
    assert (details["a"], details["b"], details["d"], details["e"]) == ("5", "inf", "null", "[1]")
    assert details["c"].startswith("<module 'os'")
    assert details["f"] == "{1: {2}}"
    assert (len(details["stderr"]), details["stderr"][-3:], len(details["g"])) == (4096, "end", 4096)
    assert done.output == "ä\\ud800\n"


def test_a_long_event_is_said_in_lines_that_a_pipe_keeps_whole(team: Team) -> None:
    done = team.method("raise Failed('ä' * 2000, details={f'k{n}': 'x' * 900 for n in range(9)})")

    assert (done.said.reason, len(done.said.details), done.said.code) == ("ä" * 2000, 9, "handler.failed")
    assert max(map(len, team.events.read_bytes().splitlines(keepends=True))) <= select.PIPE_BUF


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


# --- typed parameters ---------------------------------------------------------------------------------------------

TYPED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from thingjobs.handler import *
if TYPE_CHECKING:
    from collections.abc import Mapping as Somewhere
@dataclass(frozen=True)
class Step:
    retries: int = 3
@dataclass(frozen=True)
class Params:
    slot: Annotated[str, {"pattern": "^[ab]$"}]
    steps: tuple[Step, ...] = ()
class Handler:
"""


@pytest.mark.parametrize(
    "body",
    [
        "def apply(self, ctx: Context, params: Params) -> None: print(params)",
        "def apply(self, ctx, wanted: 'Params'): print(wanted)",
        "Params = Params\n    def apply(self, ctx, params): print(params)",
        "@__import__('functools').cache\n    def apply(self, ctx, params: Params): print(params)",
    ],
)
def test_a_method_may_take_a_dataclass(team: Team, body: str) -> None:
    done = team.run(f"{TYPED}    {body}", job={**JOB, "params": {"slot": "a", "steps": [{}]}})

    assert (done.code, done.said) == (0, Said())
    assert done.output == "Params(slot='a', steps=(Step(retries=3),))\n"


@pytest.mark.parametrize("hint", ["dict[str, object]", "dict", "Mapping[str, Nowhere]", "t.Any", "object", "TypedDict"])
def test_any_other_method_takes_the_dict(team: Team, hint: str) -> None:
    code = f"{TYPED}    def apply(self, ctx, params: {hint}): print(params)"

    done = team.run(code.replace("TYPE_CHECKING,", "TypedDict,").replace("TYPE_CHECKING", "False"))

    assert done.output == f"{JOB['params']}\n".replace("\ud800", "\\ud800")


def test_params_that_do_not_fit_are_rejected_before_the_call(team: Team) -> None:
    code = f"{TYPED}    def apply(self, ctx, params: Params): print('called')"

    done = team.run(code, job={**JOB, "params": {"slot": "a", "steps": [{"retries": "x"}]}})

    reason = "params.steps[0].retries must be a whole number, not a string"
    assert done == Done(1, Said(reason=reason, code="params.invalid", reject=True), "", "")


def test_a_type_that_is_not_there_at_run_time_is_a_bug(team: Team) -> None:
    done = team.run(f"{TYPED}    def apply(self, ctx, params: Somewhere): print('called')")

    assert (done.code, done.output, done.said.code) == (1, "", "handler.failed")
    assert UNKNOWN in done.said.reason


# --- fresh parameters ---------------------------------------------------------------------------------------------

REFRESHING = "class Handler:\n    def apply(self, ctx, params):\n        ctx.log(str(ctx.refresh({})))\n"


def give(team: Team, **new: Any) -> None:
    """Replace job.json as the agent does."""
    anew = team.work / ".job.json.new"
    anew.write_text(json.dumps({**JOB, **new}))
    anew.replace(team.work / "job.json")


def asked(team: Team) -> bool:
    return b'{"refresh": "params"}\n' in team.events.read_bytes()


def test_fresh_parameters_are_those_of_a_higher_revision(team: Team, eventually: Callable[..., Any]) -> None:
    with team.start(REFRESHING.format("timeout=30")) as running:
        eventually(lambda: asked(team))
        give(team, params={"slot": "old"})
        (team.work / "job.json").write_text("{")
        give(team, revision=2, params={"slot": "new"})
        output, errors = running.communicate(timeout=30)

    assert (running.returncode, output, errors) == (0, "{'slot': 'new'}\n", "")


def test_fresh_parameters_have_the_type_of_the_old(team: Team, eventually: Callable[..., Any]) -> None:
    code = f"{TYPED}    def apply(self, ctx, params: Params): print(ctx.refresh())"
    with team.start(code, job={**JOB, "params": {"slot": "a"}}) as running:
        eventually(lambda: asked(team))
        give(team, revision=2, params={"slot": "b"})
        output, errors = running.communicate(timeout=30)

    assert (running.returncode, output, errors) == (0, "Params(slot='b', steps=())\n", "")


def test_an_answer_about_the_cloud_brings_no_parameters(team: Team, eventually: Callable[..., Any]) -> None:
    with team.start(REFRESHING.format("timeout=30"), job={**JOB, "cloud": {"answers": 0}}) as running:
        eventually(lambda: asked(team))
        give(team, revision=2, params={"slot": "old"}, cloud={"answers": 1})
        give(team, revision=3, params={"slot": "old"}, cloud={"answers": 2})
        with pytest.raises(subprocess.TimeoutExpired):  # It looks twice a second at least.
            running.wait(1.2)
        give(team, revision=4, params={"slot": "new"}, cloud={"answers": 2})
        output, errors = running.communicate(timeout=30)

    assert (running.returncode, output, errors) == (0, "{'slot': 'new'}\n", "")


def test_fresh_parameters_that_do_not_come_are_a_failure(team: Team) -> None:
    done = team.run(REFRESHING.format("timeout=0.1"))

    assert (done.code, done.said.code, done.errors) == (1, "handler.failed", "")
    assert done.said.reason == "the agent gave no fresh parameters within 0.1 s"


def test_whoever_is_stopped_does_not_wait_for_fresh_parameters(team: Team, eventually: Callable[..., Any]) -> None:
    with team.start(REFRESHING.format("")) as running:
        eventually(lambda: asked(team))
        running.terminate()
        running.communicate(timeout=30)

    assert (running.returncode, team.said().code) == (1, "cancelled")


# --- downloads ----------------------------------------------------------------------------------------------------


class Files(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at /image for the signature "good"; any other has expired."""

    def do_GET(self) -> None:
        good = self.path.endswith("?sig=good")
        self.send_response(200 if good else 403)
        body = CONTENT if good else b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url() -> Iterator[str]:
    """Where `Files` are served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/image"
        server.shutdown()
        thread.join()


def downloading(**arguments: Any) -> str:
    words = "".join(f", {name}={value!r}" for name, value in arguments.items())
    return f"print(ctx.download(params['images'][0]['url'], 'image'{words}))"


def test_a_file_is_fetched_into_the_folder_of_the_job(team: Team, url: str) -> None:
    params = {"images": [{"url": f"{url}?sig=good"}]}

    done = team.method(downloading(digest=DIGEST, size=len(CONTENT)), job={**JOB, "params": params})

    assert (done.code, done.output) == (0, f"{team.work}/image\n")
    assert (team.work / "image").read_bytes() == CONTENT
    assert (done.said.percent, done.said.message) == (100.0, "downloading image: 1.0 of 1.0 MiB")


def test_an_expired_url_is_had_anew_from_its_place_in_the_params(
    team: Team, url: str, eventually: Callable[..., Any]
) -> None:
    params = {"images": [{"url": f"{url}?sig=bad"}]}
    code = "class Handler:\n    def apply(self, ctx, params): " + downloading(digest=DIGEST)

    with team.start(code, job={**JOB, "params": params}) as running:
        eventually(lambda: asked(team))
        give(team, revision=2, params={"images": [{"url": f"{url}?sig=good"}]})
        output, errors = running.communicate(timeout=30)

    assert (running.returncode, output, errors) == (0, f"{team.work}/image\n", "")


def test_a_url_that_is_not_from_the_params_is_not_had_anew(team: Team, url: str) -> None:
    done = team.method(f"ctx.download({url + '?sig=bad'!r}, 'image', digest={DIGEST!r})")

    assert (done.code, done.said.code) == (1, "fetch.failed")
    assert not asked(team)
    assert "sig=" not in done.said.reason


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"digest": "0" * 64}, "fetch.digest"),
        ({"digest": DIGEST, "max_bytes": 1000}, "fetch.failed"),
        ({"digest": DIGEST, "size": 1000}, "fetch.failed"),
        ({}, "fetch.digest"),
    ],
)
def test_a_file_that_is_not_what_was_promised_is_a_failure(
    team: Team, url: str, arguments: dict[str, Any], code: str
) -> None:
    params = {"images": [{"url": f"{url}?sig=good"}]}

    done = team.method(downloading(**arguments), job={**JOB, "params": params})

    assert (done.code, done.said.code, done.errors) == (1, code, "")
    assert not (team.work / "image").exists()


def test_the_local_policy_may_do_without_a_digest(team: Team, url: str) -> None:
    job = {**JOB, "params": {"images": [{"url": f"{url}?sig=good"}]}, "downloads": {"digestRequired": False}}

    assert team.method(downloading(), job=job).code == 0


def test_a_place_in_the_params_is_found_again_or_not() -> None:
    params = {"a": [1, {"b": "x"}], "c": "x", "d": None}

    assert place_of(params, "x") == ("a", 1, "b")
    assert place_of(params, "y") is None
    assert at(params, ("a", 1, "b")) == "x"
    assert at(params, ()) == params
    nowhere: list[Any] = [{"a": []}, {"a": {"1": "x"}}, {}, {"a": "text"}, {"a": [1, {}]}]
    for gone in nowhere:
        assert at(gone, ("a", 1, "b")) is None


# --- what a class declares ----------------------------------------------------------------------------------------


def asking(team: Team, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(team.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "thingjobs.child", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, input=given, env=environment, check=False, timeout=30)


def described(team: Team, code: str) -> dict[str, Any]:
    (team.folder / "team.py").write_text(code, encoding="utf-8")
    answer = asking(team, "--describe", "team:Handler")
    assert answer.returncode == 0, answer.stderr
    declared: dict[str, Any] = json.loads(answer.stdout)
    return declared


UNKNOWN = "what params of apply is annotated with is not known at run time"
NAME_IT = "name it as the attribute Params"
KINDS = "str, int, float, bool, X | None, Literal, Enum, list[X], tuple[X, ...], dict[str, X], dataclasses, Any"


def refused(team: Team, code: str) -> str:
    """Return why a class cannot be described."""
    (team.folder / "team.py").write_text(code, encoding="utf-8")
    answer = asking(team, "--describe", "team:Handler")
    assert (answer.returncode, answer.stdout) == (1, "")
    return answer.stderr.splitlines()[-1]


def test_a_class_declares_the_methods_that_it_has_or_inherits(team: Team) -> None:
    code = """
class Base:
    def check(self, ctx, params): ...
    def apply(self, ctx, params): ...
class Handler(Base):
    rollback = None
    verify = 'no method'
    @staticmethod
    def commit(ctx, params): ...
    def helper(self): ...
"""
    assert described(team, code)["verbs"] == ["check", "apply", "commit"]


def test_a_class_that_declares_nothing_is_as_short_as_that(team: Team) -> None:
    wanted = {"contract": 1, "verbs": ["apply"]}

    assert described(team, "class Handler:\n    def apply(self, ctx, params): ...") == wanted
    base = "from thingjobs.handler import *\nclass Handler(Handler):\n    def apply(self, ctx, params): ..."
    assert described(team, base) == wanted


def test_what_a_class_declares_is_a_manifest(team: Team) -> None:
    code = """
from types import MappingProxyType
class Handler:
    version, description, user = '1.2', 'writes slots', 'root'
    timeouts = MappingProxyType({'apply': 60})
    stall, max_defer = 30, None
    cancel_apply = apply_rerun = observe = resumes_across_versions = True
    daemons = 'keep'
    limits, needs = {'memory': '64M'}, {'cloud'}
    params_schema = {'type': 'object'}
    helper = object()
    def apply(self, ctx, params): ...
"""
    declared = described(team, code)

    assert declared == {
        "contract": 1,
        "version": "1.2",
        "description": "writes slots",
        "timeouts": {"apply": 60},
        "stall": 30,
        "cancel_apply": True,
        "apply_rerun": True,
        "observe": True,
        "daemons": "keep",
        "resumes_across_versions": True,
        "limits": {"memory": "64M"},
        "needs": ["cloud"],
        "user": "root",
        "verbs": ["apply"],
        "params": {"type": "object"},
    }
    assert manifest.parse(declared, program=False).version == "1.2"


def test_typed_parameters_are_declared_as_their_schema(team: Team) -> None:
    declared = described(team, f"{TYPED}    def apply(self, ctx, params: Params): ...")

    assert declared["params"]["properties"]["slot"] == {"type": "string", "pattern": "^[ab]$"}
    assert manifest.parse(declared, program=False).params == declared["params"]


def test_describing_a_class_makes_no_object_of_it(team: Team) -> None:
    code = "class Handler:\n    def __init__(self): raise SystemExit\n    def apply(self, ctx, params): ..."

    assert described(team, code)["verbs"] == ["apply"]


def test_what_a_module_prints_is_not_part_of_the_answer(team: Team) -> None:
    code = "import os\nprint('hello')\nos.system('echo hello')\nclass Handler:\n    def apply(self, c, p): ..."

    assert described(team, code)["contract"] == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no modem')", "cannot import team:Handler: RuntimeError: no modem"),
        ("import sys; sys.exit(0)", "cannot import team:Handler: SystemExit: 0"),
        ("import nowhere", "cannot import team:Handler: No module named 'nowhere'"),
        ("Handler = 5", "cannot import team:Handler: team:Handler is not a class"),
        (
            "class Handler:\n    def apply(self): ...",
            "Handler.apply(self) must take self, ctx, params: too many positional arguments",
        ),
        (
            "class Handler:\n    def __init__(self, must): ...\n    def apply(self, c, p): ...",
            "Handler(must) must take nothing: missing a required argument: 'must'",
        ),
        (
            "class Handler:\n    async def apply(self, c, p): ...",
            "Handler.apply may be neither async nor a generator: calling it would do nothing",
        ),
        (
            "class Handler:\n    needs = object\n    def apply(self, c, p): ...",
            "Handler.needs is <class 'object'>, which JSON cannot say",
        ),
        (
            f"{TYPED}    def apply(self, ctx, params: Somewhere): ...",
            f"Handler: {UNKNOWN}: name 'Somewhere' is not defined; import it outside of TYPE_CHECKING, or {NAME_IT}",
        ),
        (
            f"{TYPED}    @dataclass\n    class Params:\n        tags: set[str]\n    def apply(self, ctx, params): ...",
            f"Handler: Handler.Params.tags is set[str], which JSON params cannot be; there are: {KINDS}",
        ),
    ],
)
def test_what_cannot_be_described_is_told_in_one_line(team: Team, code: str, reason: str) -> None:
    assert refused(team, code) == reason


# --- the other questions ------------------------------------------------------------------------------------------


def install(folder: Path, name: str, points: str, *, more: dict[str, str] | None = None, metadata: bool = True) -> None:
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    files = {"RECORD": "a.py,,\n", "entry_points.txt": f"[thingjobs.handlers.v1]\n{points}\n", **(more or {})}
    if metadata:
        files["METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    for file, text in files.items():
        (information / file).write_text(text)


def test_every_handler_that_is_installed_is_listed_and_none_is_imported(team: Team, tmp_path: Path) -> None:
    install(team.folder, "first", "greet = nowhere:Greet\nleave = nowhere:Leave")
    install(team.folder, "edited", "edit = nowhere:Edit", more={"direct_url.json": '{"dir_info": {"editable": true}}'})
    install(team.folder, "half-removed", "gone = nowhere:Gone", metadata=False)
    install(team.folder, "torn", "torn = nowhere:Torn", more={"direct_url.json": "{"})

    listed = {point["name"]: point for point in json.loads(asking(team, "--list").stdout)}

    digest = "sha256:" + hashlib.sha256(b"first 1.0 a.py,,\n").hexdigest()
    first = {"distribution": "first", "version": "1.0", "digest": digest, "editable": False}
    assert listed["greet"] == {"name": "greet", "target": "nowhere:Greet", **first}
    assert listed["leave"] == {"name": "leave", "target": "nowhere:Leave", **first}
    assert listed["edit"]["editable"] is True
    assert not {"gone", "torn"} & listed.keys()
    assert listed["aws-steps"]["target"] == "thingjobs_handlers.aws_steps:AwsSteps"


def test_a_distribution_that_is_found_twice_counts_once(team: Team) -> None:
    install(team.folder, "first", "greet = nowhere:Greet")
    install(team.folder / "again", "first", "greet = nowhere:Greet")
    code = f"import sys; sys.path.append({str(team.folder / 'again')!r}); {child.START}"
    argv = [sys.executable, "-c", code, "--list"]

    answer = subprocess.run(argv, capture_output=True, env={"PYTHONPATH": str(team.folder)}, check=True)

    assert [point["name"] for point in json.loads(answer.stdout)].count("greet") == 1


@pytest.mark.parametrize(
    ("params", "problem"),
    [({"slot": "a"}, ""), ({"slot": "x"}, "params.slot must match ^[ab]$"), ([], "params must be")],
)
def test_parameters_are_held_against_a_schema(team: Team, params: object, problem: str) -> None:
    schema = {"type": "object", "properties": {"slot": {"pattern": "^[ab]$"}}}

    answer = asking(team, "--validate", given=json.dumps({"schema": schema, "params": params}))

    found = json.loads(answer.stdout)["problem"]
    assert found.startswith(problem)
    assert bool(found) is bool(problem)


@pytest.mark.parametrize("given", ["", "{", "[]", '{"schema": {}}'])
def test_a_question_that_is_none_has_no_answer(team: Team, given: str) -> None:
    answer = asking(team, "--validate", given=given)

    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("cannot read the question on stdin: ")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("team:Handler", "more"), ("--describe",)])
def test_whoever_calls_it_otherwise_is_told_how(team: Team, arguments: tuple[str, ...]) -> None:
    answer = asking(team, *arguments)

    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("usage: thingjobs.child MODULE:CLASS")


# --- what it costs ------------------------------------------------------------------------------------------------


def test_a_verb_starts_without_what_the_standard_library_makes_expensive(team: Team) -> None:
    code = "from thingjobs.handler import *\nimport sys\nclass Handler:\n    def apply(self, c, p): print(*sys.modules)"
    (team.folder / "team.py").write_text(code)
    (team.work / "job.json").write_text(json.dumps(JOB))
    team.events.touch()
    start = f"import sys; sys.path.append({str(team.folder)!r}); {child.START}"
    environment = {"JOB_DIR": str(team.work), "JOB_EVENTS": str(team.events)}

    def modules(*arguments: str) -> set[str]:
        argv = [sys.executable, "-I", "-c", *arguments]
        return set(subprocess.run(argv, capture_output=True, text=True, env=environment, check=True).stdout.split())

    ours = {"thingjobs", "thingjobs.child", "thingjobs.child.context", "thingjobs.handler", "team"}
    assert modules(start, "team:Handler") - modules("import sys; print(*sys.modules)") == {
        *ours,
        "_json",
        "gc",
    }


def test_what_was_printed_is_in_the_log_whatever_happens_next(team: Team) -> None:
    done = team.method("print('here')\nos.kill(os.getpid(), 9)")

    assert (done.code, done.output) == (-9, "here\n")


def test_a_check_may_not_download(team: Team) -> None:
    code = "class Handler:\n    def apply(self, ctx, params): pass\n"
    code += "    def check(self, ctx, params): ctx.download('https://nowhere.invalid/x', 'x')\n"

    done = team.run(code, job={**JOB, "verb": "check"})

    assert done.code == 1
    assert "check may not download anything" in done.said.reason


# --- the end ------------------------------------------------------------------------------------------------------

#: What a method leaves behind, to be done when its process ends.
LEFT_BEHIND = {
    "a file": "import team\nteam.file = open('late', 'w')\nteam.file.write('done')",
    "a compressed file": "import gzip, team\nteam.file = gzip.open('late', 'wb')\nteam.file.write(b'done')",
    "a finalizer": "import team\nclass Late:\n    def __del__(self, os=os):\n"
    "        os.write(os.open('late', os.O_CREAT | os.O_WRONLY), b'done')\nteam.late = Late()",
    "a function": "import atexit, pathlib\natexit.register(pathlib.Path('late').write_text, 'done')",
    "a thread": "import pathlib, threading\ndef late():\n    threading.main_thread().join()\n"
    "    pathlib.Path('late').write_text('done')\nthreading.Thread(target=late).start()",
    "a process": "import multiprocessing, pathlib\n"
    "multiprocessing.Process(target=pathlib.Path('late').write_text, args=('done',)).start()",
}


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_what_was_left_for_the_end_is_done(team: Team, left: str) -> None:
    done = team.method(LEFT_BEHIND[left])

    assert (done.code, done.errors) == (0, "")
    late = (team.work / "late").read_bytes()
    assert (gzip.decompress(late) if left == "a compressed file" else late) == b"done"


#: What nobody expects to find among modules and objects.
ODD = {
    "lazy module": """
class Lazy:
    def __getattr__(self, name):
        raise ImportError(name)
sys.modules["lazy"] = Lazy()""",
    "path of a module": """
import pathlib, types
sys.modules["odd"] = types.ModuleType("odd")
sys.modules["odd"].__file__ = pathlib.Path("/x")""",
    "no hash": """
class Meta(type):
    def __eq__(self, other):
        return True
class Odd(metaclass=Meta):
    pass
sys.odd = Odd()""",
    "no attribute": """
class Meta(type):
    def __getattr__(self, name):
        raise KeyError(name)
class Odd(metaclass=Meta):
    pass
sys.odd = Odd()""",
    "no stdout": "del sys.stdout",
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_a_method_leaves_lying_around_it_ended_well(team: Team, odd: str) -> None:
    done = team.method(ODD[odd])

    assert (done.code, done.errors) == (0, "")


def test_what_a_library_in_c_keeps_is_written(team: Team) -> None:
    done = team.method("import ctypes\nctypes.CDLL(None).printf(b'done')")

    assert (done.code, done.output) == (0, "done")


@pytest.mark.parametrize(("left", "in_order"), [("pass", False), ("a function", True), ("a file", True)])
def test_an_interpreter_is_taken_apart_only_where_something_needs_that(
    team: Team, left: str, *, in_order: bool
) -> None:
    code = LEFT_BEHIND.get(left, left).replace("\n", "\n        ")
    (team.folder / "team.py").write_text(f"class Handler:\n    def apply(self, c, p):\n        {code}\n")
    (team.work / "job.json").write_text(json.dumps(JOB))
    team.events.touch()
    start = f"import sys; sys.path.append({str(team.folder)!r}); {child.START}"
    environment = {"JOB_DIR": str(team.work), "JOB_EVENTS": str(team.events)}
    argv = [sys.executable, "-I", "-v", "-c", start, "team:Handler"]

    told = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=team.work, check=True).stderr

    assert ("# clear sys." in told) is in_order
