"""The test kit on real processes, with a real download, and as an outsider's pytest finds it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.handler import Failed
from thingjobs.testing import NeverHappenedError, cancel, crash, offline, restart, stall, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thingjobs.handler import Context
    from thingjobs.testing import Kit
    from thingjobs.testing.kit.faults import VerbName

pytest_plugins = ("pytester",)

#: Keeps in its folder which verbs were called; $FIRST and $APPLY are what `apply` does besides.
SHELL = """\
#!/bin/sh
echo "$JOB_VERB" >>called
case $JOB_VERB in
check) [ ! -e slot ] || exit 10 ;;
apply)
    eval "${FIRST:-:}"
    echo '{"progress": 40, "message": "writing slot b"}' >>"$JOB_EVENTS"
    eval "${APPLY:-:}"
    echo b >slot
    echo '{"details": {"slot": "b"}}' >>"$JOB_EVENTS"
    echo written ;;
rollback) rm -f slot ;;
esac
"""


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    """Make a handler folder: a shell program with all verbs."""
    folder = tmp_path / "slots"
    folder.mkdir()
    (folder / "run.sh").write_text(SHELL)
    (folder / "run.sh").chmod(0o755)
    says = {
        "contract": 1,
        "exec": "run.sh",
        "verbs": ["check", "prepare", "apply", "verify", "commit", "rollback"],
        "cancel_apply": True,
        "stall": 60,
        "params": {"type": "object", "properties": {"slot": {"enum": ["a", "b"]}}},
    }
    (folder / "manifest.json").write_text(json.dumps(says))
    return folder


# --- every fault in every moment ----------------------------------------------------------------------------------

VERBS: tuple[VerbName, ...] = ("check", "prepare", "apply", "verify", "commit", "rollback")


class Chatty:
    """All verbs, each with two events; `verify` fails if the job says so."""

    stall = 60

    def check(self, ctx: Context, params: dict[str, Any]) -> None:
        ctx.progress(1)
        ctx.details(**{ctx.verb: str(ctx.attempt)})

    prepare = apply = commit = rollback = check

    def verify(self, ctx: Context, params: dict[str, Any]) -> None:
        self.check(ctx, params)
        if params["fails"]:
            raise Failed("it does not work", code="verify.failed")


def moments() -> Iterator[Any]:
    """Give every fault that the kit has, in every moment."""
    for verb in VERBS:
        for make in (crash, restart, cancel, offline):
            for event in (None, 1, 2):
                yield make(verb, event=event)
            yield make(before=verb)
            yield make(after=verb)
        for late in (timeout, stall):
            for event in (None, 1, 2):
                yield late(verb, event=event)


@pytest.mark.parametrize("fails", [False, True])
def test_every_fault_in_every_moment_leaves_a_job_with_an_end(thingjobs: Kit, fails: bool) -> None:
    came = 0
    for fault in moments():
        try:
            job = thingjobs.run(Chatty, {"fails": fails}, faults=[fault])
        except NeverHappenedError:
            assert fault.verb == ("commit" if fails else "rollback"), fault
            continue
        came += 1
        assert job.status in ("SUCCEEDED", "FAILED", "CANCELED"), (fault, job)
        assert job.verbs.count("apply") <= 1, (fault, job)
        assert not any("does not know what" in note for note in job.notes), (fault, job)
    assert came == 130


# --- programs -----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_manifest_goes_through_its_verbs(thingjobs: Kit, slots: Path) -> None:
    job = thingjobs.run(slots, {"slot": "b"})

    assert job.statuses == ["IN_PROGRESS", "SUCCEEDED"]
    assert job.verbs == ["check", "prepare", "apply", "verify", "commit"]
    assert (job.dir / "called").read_text().split() == job.verbs
    assert (job.details, job.log) == ({"slot": "b"}, "written\n")
    assert job.events == [{"progress": 40, "message": "writing slot b"}, {"details": {"slot": "b"}}]


def test_params_are_held_against_the_manifest(thingjobs: Kit, slots: Path) -> None:
    job = thingjobs.run(slots, {"slot": "c"})

    assert (job.status, job.code, job.verbs) == ("REJECTED", "params.invalid", [])


def test_a_program_alone_has_only_apply(thingjobs: Kit, slots: Path) -> None:
    job = thingjobs.run(slots / "run.sh")

    assert (job.status, job.verbs) == ("SUCCEEDED", ["apply"])


def test_the_reason_of_a_program_is_its_last_word(thingjobs: Kit, slots: Path) -> None:
    thingjobs.environment["APPLY"] = "echo 'no such slot' >&2; exit 3"
    job = thingjobs.run(slots)

    assert (job.code, job.reason) == ("handler.exit", "apply exited with status 3: no such slot; rolled back")
    assert (job.calls[2].exit, job.calls[2].reason) == (3, "no such slot")


@pytest.mark.parametrize("status", [194, 196])
def test_a_program_may_ask_to_be_called_again(thingjobs: Kit, slots: Path, status: int) -> None:
    thingjobs.environment["APPLY"] = f"[ -e asked ] || {{ touch asked; exit {status}; }}"
    job = thingjobs.run(slots)

    assert (job.status, job.verbs.count("apply"), job.reboots) == ("SUCCEEDED", 2, int(status == 194))


def test_a_crash_at_an_event_leaves_nothing_of_the_program(thingjobs: Kit, slots: Path) -> None:
    thingjobs.environment["APPLY"] = "sleep 60"
    job = thingjobs.run(slots, faults=[crash("apply", event=1)])

    assert job.verbs == ["check", "prepare", "apply", "check", "rollback"]
    assert (job.code, job.calls[2].interrupted) == ("interrupted", True)
    assert not (job.dir / "slot").exists()


def test_a_crash_after_all_was_done_is_found_by_check(thingjobs: Kit, slots: Path) -> None:
    job = thingjobs.run(slots, faults=[crash("apply")])

    assert (job.status, job.verbs) == ("SUCCEEDED", ["check", "prepare", "apply", "check", "verify", "commit"])


def test_a_program_goes_on_while_the_agent_restarts(thingjobs: Kit, slots: Path) -> None:
    job = thingjobs.run(slots, faults=[restart("apply", event=1)])

    assert (job.status, job.verbs.count("apply"), job.details) == ("SUCCEEDED", 1, {"slot": "b"})


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (timeout("apply", event=1), "FAILED", "handler.timeout"),
        (stall("apply"), "FAILED", "handler.stalled"),
        (cancel("apply", event=1), "CANCELED", ""),
    ],
    ids=str,
)
def test_a_program_is_told_to_stop_by_a_signal(thingjobs: Kit, slots: Path, fault: Any, status: str, code: str) -> None:
    thingjobs.environment["FIRST"] = "trap 'echo stopping; exit 7' TERM"
    thingjobs.environment["APPLY"] = "sleep 60 & wait"
    job = thingjobs.run(slots, faults=[fault])

    assert (job.status, job.code, job.verbs[-1]) == (status, code, "rollback")
    assert (job.calls[2].exit, job.log) == (7, "stopping\n")


def test_a_program_that_does_not_stop_is_killed(thingjobs: Kit, slots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thingjobs.testing.kit.program.GRACE_SECONDS", 0.1)
    thingjobs.environment["FIRST"] = "trap '' TERM"
    thingjobs.environment["APPLY"] = "sleep 60"
    job = thingjobs.run(slots, faults=[timeout("apply", event=1)])

    assert (job.code, job.calls[2].signal) == ("handler.timeout", "SIGKILL")


def test_a_program_that_never_ends_fails_the_test(thingjobs: Kit, slots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thingjobs.testing.kit.program.MOST_SECONDS", 0.2)
    thingjobs.environment["APPLY"] = "sleep 60"

    with pytest.raises(AssertionError, match="apply still runs"):
        thingjobs.run(slots)


def test_what_a_program_leaves_running_is_ended_with_it(thingjobs: Kit, slots: Path) -> None:
    thingjobs.environment["APPLY"] = "sleep 60 & exit 0"

    assert thingjobs.run(slots).succeeded


def test_lines_that_are_no_events_are_counted(thingjobs: Kit, slots: Path) -> None:
    thingjobs.environment["APPLY"] = (
        'echo nonsense >>"$JOB_EVENTS"; printf \'{"progress": 99}\' >>"$JOB_EVENTS"; exit 0'
    )
    call = thingjobs.call(slots, "apply")

    assert (call.broken, call.events[-1]) == (1, {"progress": 99})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ('{"contract": 1, "exec": "run.sh", "verbs": ["check"]}', "must hold apply"),
        ('{"contract": 1, "exec": "gone.sh", "verbs": ["apply"]}', "chmod"),
    ],
)
def test_a_folder_that_is_no_handler_is_refused_with_the_reason(
    thingjobs: Kit, slots: Path, text: str | None, reason: str
) -> None:
    manifest = slots / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)

    with pytest.raises(ValueError, match=reason):
        thingjobs.run(slots)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("#!/bin/sh\r", "no handler: .*run.sh ends its lines with CR LF"),
        ("#!/usr/bin/env sh-of-ours", "sh-of-ours, which is not on the PATH"),
    ],
)
def test_a_program_that_could_not_be_started_is_refused_as_on_a_device(
    thingjobs: Kit, slots: Path, line: str, reason: str
) -> None:
    (slots / "run.sh").write_text(f"{line}\n")
    thingjobs.environment["PATH"] = "/ours:/usr/bin"

    with pytest.raises(ValueError, match=reason):
        thingjobs.run(slots)


# --- classes in a child -------------------------------------------------------------------------------------------


def test_a_class_can_run_in_a_child_as_on_a_device(thingjobs: Kit) -> None:
    job = thingjobs.run("thingjobs_handlers.aws_steps:AwsSteps", {})

    assert job.verbs == ["apply"]
    assert job.failed


def test_a_class_that_cannot_be_imported_is_refused_with_the_reason(thingjobs: Kit) -> None:
    with pytest.raises(ValueError, match="No module named 'nowhere'"):
        thingjobs.run("nowhere:Handler")


# --- downloads ----------------------------------------------------------------------------------------------------

IMAGE = b"image " * 1000


class Store(BaseHTTPRequestHandler):
    """A bucket: /new is there, all other URLs have expired."""

    def do_GET(self) -> None:
        found = self.path == "/new"
        self.send_response(200 if found else 403)
        self.send_header("Content-Length", str(len(IMAGE) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(IMAGE)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def store() -> Iterator[str]:
    """Serve files on loopback; give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Fetch:
    def apply(self, ctx: Context, params: dict[str, Any]) -> None:
        path = ctx.download(params["url"], "image", digest=params["digest"])
        ctx.details(bytes=str(path.stat().st_size))


def test_a_handler_downloads_for_real_and_an_expired_url_comes_anew(thingjobs: Kit, store: str) -> None:
    digest = f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"
    params = {"url": f"{store}/old", "digest": digest}
    job = thingjobs.run(Fetch, params, refreshed={**params, "url": f"{store}/new"})

    assert job.succeeded
    assert (job.dir / "image").read_bytes() == IMAGE


def test_a_download_with_the_wrong_digest_fails(thingjobs: Kit, store: str) -> None:
    job = thingjobs.run(Fetch, {"url": f"{store}/new", "digest": f"sha256:{'0' * 64}"})

    assert (job.status, job.code) == ("FAILED", "fetch.digest")


# --- as an outsider's pytest finds it -----------------------------------------------------------------------------

OUTSIDE = """\
from thingjobs.handler import Context, Failed
from thingjobs.testing import crash

class Greet:
    def apply(self, ctx: Context, params: dict) -> None:
        ctx.progress(50, "warming up")
        print("hello")
        raise Failed("nobody is there")

def test_it_greets(thingjobs):
    job = thingjobs.run(Greet, {"name": "pump-7"}, faults=[crash("apply", event=1)])
    thingjobs.call(Greet, "apply")
    assert job.succeeded
"""


def test_a_test_of_an_outsider_finds_the_fixture_and_sees_the_timeline(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OUTSIDE)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*assert False",
            "* where False = <job greet: FAILED interrupted *",
            "* thingjobs *",
            "apply: exit 1 (handler.failed) nobody is there",
            "  50 % warming up",
            "  | hello",
            "* thingjobs *",
            "job greet: FAILED interrupted *",
            "*0 s  update    IN_PROGRESS",
            "*FAULT     crash during apply at event 1",
            "*update    FAILED code=interrupted *",
        ]
    )


def test_a_fault_that_never_came_is_told_without_our_own_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OUTSIDE.replace("event=1", "event=7"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["E *NeverHappenedError: the job never got there: crash during apply at event 7"])
    result.stdout.no_fnmatch_line("*device.py*")


def test_the_fixture_is_listed_with_what_it_does(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["thingjobs -- *plugin.py*", "    Run a handler through any verbs*"])


def test_whoever_does_not_want_it_pays_for_nothing() -> None:
    code = """\
import sys
import thingjobs.testing.plugin
print([name for name in sys.modules if name.startswith("thingjobs.")])
import thingjobs.testing.kit
print([name for name in ("hypothesis", "paho", "requests", "boto3") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["['thingjobs.testing', 'thingjobs.testing.plugin']", "[]"]
