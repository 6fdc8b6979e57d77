"""The handler `aws-steps` with real programs: order, failure, output, users, reboots."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.handler import Failed, Outcome
from thingjobs_handlers.aws_steps import AwsSteps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.handler import Context

SH = "/bin/sh"


@dataclass
class FakeContext:
    """Remembers what the handler tells, and says what a test wants it to hear."""

    dir: Path
    rebooted: bool = False
    resumed: bool = False
    is_cancelled: Callable[[], bool] = lambda: False
    told: list[tuple[float | None, str]] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    job_id: str = "job"
    execution: int = 1
    thing: str = "pump-7"
    verb: str = "apply"
    attempt: int = 1
    dry_run: bool = False
    deadline: float | None = None
    cloud: Any = None

    @property
    def cancelled(self) -> bool:
        return self.is_cancelled()

    def progress(self, percent: float | None = None, message: str = "") -> None:
        self.told.append((percent, message))

    def details(self, **pairs: str) -> None:
        self.shown.update(pairs)

    def log(self, text: str) -> None:
        self.logged.append(text)

    def refresh(self, timeout: float = 60.0) -> Any:
        raise AssertionError("a step asked for the document anew")

    def download(self, *args: Any, **kwargs: Any) -> Path:
        raise AssertionError("a step did not download with a program of its own")


@pytest.fixture
def ctx(tmp_path: Path) -> FakeContext:
    folder = tmp_path / "job"
    folder.mkdir()
    return FakeContext(folder)


def step(*argv: object, kind: str = "run", name: str = "Do", **rest: Any) -> dict[str, Any]:
    plain = {"user": None, "ignoreStepFailure": False, "allowStdErr": None, "final": False}
    return {"name": name, "kind": kind, "argv": [str(word) for word in argv], **plain, **rest}


def sh(script: str, **rest: Any) -> dict[str, Any]:
    return step(SH, "-c", script, **rest)


def apply(ctx: FakeContext, *steps: dict[str, Any], stdout: bool = True) -> Outcome:
    context: Context = ctx
    return AwsSteps().apply(context, {"includeStdOut": stdout, "steps": list(steps)})


def failure(ctx: FakeContext, *steps: dict[str, Any]) -> Failed:
    with pytest.raises(Failed) as caught:
        apply(ctx, *steps)
    return caught.value


# --- Order and failure ------------------------------------------------------------------------------------


def test_steps_run_in_order_each_announced_before(ctx: FakeContext, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    outcome = apply(
        ctx,
        sh(f"echo one >>{trace}", name="First"),
        sh(f"echo two >>{trace}", name="Second"),
        sh(f"echo three >>{trace}", name="Tidy", final=True),
    )

    assert outcome is Outcome.DONE
    assert trace.read_text() == "one\ntwo\nthree\n"
    assert ctx.told == [
        (0, "step 1/3 First"),
        (pytest.approx(100 / 3), "step 2/3 Second"),
        (pytest.approx(200 / 3), "step 3/3 Tidy"),
    ]


def test_a_failed_step_stops_the_job_and_the_final_step_does_not_run(ctx: FakeContext, tmp_path: Path) -> None:
    later = tmp_path / "later"

    failed = failure(
        ctx,
        sh("exit 0"),
        sh("echo first >&2; echo 'no such pump' >&2; echo >&2; exit 3", name="Stop"),
        sh(f"touch {later}"),
        sh(f"touch {later}", final=True),
    )

    assert failed.reason == 'step 2 of 4 "Stop" exited with status 3: no such pump'
    assert failed.code == "step.failed"
    assert failed.details == {"step": "2/4 Stop", "exit": "3"}
    assert ctx.shown["stderr"] == "first\nno such pump"
    assert not later.exists()


@pytest.mark.parametrize("status", [1, 75, 100, 194, 195, 196, 255])
def test_any_other_exit_status_is_plain_failure(ctx: FakeContext, status: int) -> None:
    assert failure(ctx, sh(f"exit {status}")).reason == f'step 1 of 1 "Do" exited with status {status}'


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_a_step_that_a_signal_kills_has_failed(ctx: FakeContext, name: str) -> None:
    failed = failure(ctx, sh(f"kill -{name[3:]} $$"))

    assert failed.reason == f'step 1 of 1 "Do" was killed by signal {name}'
    assert (failed.code, failed.details["exit"]) == ("step.failed", name)


def test_a_signal_without_a_name_is_told_by_its_number(ctx: FakeContext) -> None:
    assert failure(ctx, sh("kill -40 $$")).reason.endswith("killed by signal 40")


def test_the_failure_of_the_final_step_fails_the_job(ctx: FakeContext) -> None:
    assert "step 2 of 2" in failure(ctx, sh("true"), sh("false", name="Tidy", final=True)).reason


def test_an_ignored_failure_is_noted_and_the_rest_runs(ctx: FakeContext, tmp_path: Path) -> None:
    final = tmp_path / "final"

    outcome = apply(
        ctx, sh("echo gone >&2; exit 4", name="Stop", ignoreStepFailure=True), sh(f"touch {final}", final=True)
    )

    note = 'step 1 of 2 "Stop" exited with status 4: gone'
    assert outcome is Outcome.DONE
    assert final.exists()
    assert ctx.shown == {"stderr": "gone", "ignored": note}
    assert (50, f"{note}; going on") in ctx.told


def test_a_program_that_is_not_there_can_be_ignored_too(ctx: FakeContext) -> None:
    assert apply(ctx, step("no-such-program", ignoreStepFailure=True)) is Outcome.DONE
    assert "no program no-such-program" in ctx.shown["ignored"]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "could not start: there is no program {} on this device"),
        ("#!/bin/sh\n", 0o644, "could not start: {} may not be executed"),
        ("#!/no/such/sh\n", 0o755, "the interpreter that the first line of {} names is not on this device"),
        ("echo hello\n", 0o755, "{} is not a program for this machine, or a script without a first line"),
    ],
)
def test_a_program_that_does_not_start_is_told_in_a_sentence(
    ctx: FakeContext, tmp_path: Path, content: str | None, mode: int, reason: str
) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)

    failed = failure(ctx, step(program))

    assert reason.format(program) in failed.reason
    assert failed.details == {"step": "1/1 Do"}


@pytest.mark.parametrize(
    ("script", "limit", "passes"),
    [
        ("echo a >&2", None, True),
        ("true", 0, True),
        ("echo a >&2; echo b >&2", 2, True),
        ("echo a >&2; echo b >&2", 1, False),
        ("printf a >&2", 0, False),
        ("printf 'a\\nb' >&2", 1, False),
        ("echo out", 0, True),
    ],
)
def test_lines_on_stderr_fail_a_step_only_beyond_its_limit(
    ctx: FakeContext, script: str, limit: int | None, passes: bool
) -> None:
    if passes:
        assert apply(ctx, sh(script, allowStdErr=limit)) is Outcome.DONE
        return
    failed = failure(ctx, sh(script, allowStdErr=limit))

    assert failed.code == "step.stderr"
    assert f"lines to standard error, where {limit} are allowed" in failed.reason


def test_a_limit_on_stderr_does_not_hide_a_failure(ctx: FakeContext) -> None:
    assert failure(ctx, sh("exit 5", allowStdErr=100)).details["exit"] == "5"


# --- Output -----------------------------------------------------------------------------------------------


def test_output_is_passed_on_to_the_log_of_the_job(ctx: FakeContext, capfd: pytest.CaptureFixture[str]) -> None:
    apply(ctx, sh("echo hello; echo careful >&2"))

    assert capfd.readouterr() == ("hello\n", "careful\n")


def test_stdout_is_shown_only_if_the_document_wants_it(ctx: FakeContext) -> None:
    apply(ctx, sh("echo one"), sh("echo two; echo three >&2"), stdout=False)
    assert ctx.shown == {}

    apply(ctx, sh("echo one"), sh("echo two; echo three >&2"), stdout=True)
    assert ctx.shown == {"stdout": "one\ntwo"}


def test_what_is_shown_is_the_end_and_at_most_1024_bytes_of_whole_characters(ctx: FakeContext) -> None:
    apply(ctx, sh("i=0; while [ $i -lt 600 ]; do printf '\\303\\251\\303\\251'; i=$((i+1)); done; printf x"))

    assert ctx.shown["stdout"] == "é" * 511 + "x"


def test_no_part_of_a_long_character_is_left_in_front(ctx: FakeContext) -> None:
    apply(ctx, step(sys.executable, "-c", "import os; os.write(1, '😀'.encode() * 600 + b'x')"))

    assert ctx.shown["stdout"] == "😀" * 255 + "x"


def test_output_that_is_no_text_is_shown_as_far_as_it_can_be(ctx: FakeContext) -> None:
    apply(ctx, step(sys.executable, "-c", r"import os; os.write(1, b'a\xff' * 2000 + b'end')"))

    assert ctx.shown["stdout"].endswith("a\ufffdend")
    assert len(ctx.shown["stdout"].encode()) <= 1024


FLOOD = """
import os, threading
def flood(descriptor):
    for _ in range(160):
        os.write(descriptor, (b"%d" % descriptor) * 65535 + b"\\n")
threads = [threading.Thread(target=flood, args=(number,)) for number in (1, 2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_ten_megabytes_on_both_streams_at_once_neither_hang_nor_pile_up(
    ctx: FakeContext, capfd: pytest.CaptureFixture[str]
) -> None:
    tracemalloc.start()
    try:
        apply(ctx, step(sys.executable, "-c", FLOOD, allowStdErr=160))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    out, err = capfd.readouterr()

    assert (len(out), len(err)) == (160 * 65536, 160 * 65536)
    assert ctx.shown == {"stdout": "1" * 1023}
    assert peak < 2_000_000


def test_lines_of_a_flood_are_all_counted(ctx: FakeContext) -> None:
    failed = failure(ctx, step(sys.executable, "-c", FLOOD, allowStdErr=159))

    assert "wrote 160 lines" in failed.reason


def test_what_a_step_leaves_running_does_not_hold_it_up(ctx: FakeContext, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    try:
        outcome = apply(ctx, sh(f"sleep 600 & echo $! >{pid}; echo started"))
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)

    assert outcome is Outcome.DONE
    assert ctx.shown["stdout"] == "started"


def test_a_step_stays_in_our_process_group(ctx: FakeContext) -> None:
    apply(ctx, step(sys.executable, "-c", "import os; print(os.getpgrp(), os.getsid(0))"))

    assert ctx.shown["stdout"] == f"{os.getpgrp()} {os.getsid(0)}"


def test_a_step_has_nobody_to_ask(ctx: FakeContext, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    answer.write_text("yes")
    before = os.dup(0)
    with answer.open() as ours:
        os.dup2(ours.fileno(), 0)
    try:
        apply(ctx, sh("echo got:$(cat)"))
    finally:
        os.dup2(before, 0)
        os.close(before)

    assert ctx.shown["stdout"] == "got:"


def test_arguments_reach_the_program_untouched_by_any_shell(ctx: FakeContext) -> None:
    words = ["$HOME", "a b", "*", "`id`", "", "'", '"', "\\", ";", "é\n"]

    apply(ctx, step(sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *words))

    assert ctx.shown["stdout"] == ascii(words)


# --- Users ------------------------------------------------------------------------------------------------

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@root_only
def test_root_becomes_the_user_with_its_groups_and_home(ctx: FakeContext) -> None:
    account = pwd.getpwnam("nobody")

    before = os.getgroups()
    os.setgroups([23456])
    try:
        apply(ctx, sh('echo "$(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME"', user="nobody"))
    finally:
        os.setgroups(before)

    groups = " ".join(map(str, os.getgrouplist("nobody", account.pw_gid)))
    ids = f"{account.pw_uid} {account.pw_gid} {groups}"
    assert ctx.shown["stdout"] == f"{ids} {account.pw_dir} nobody nobody"


def stub(folder: Path, name: str, script: str = 'printf "%s\\n" "$0" "$@"') -> None:
    """Put a program into the folder; at first it tells its arguments, a line each."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{SH}\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_others_need_sudo_which_may_not_ask_for_a_password(
    ctx: FakeContext, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(programs, "sudo")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)

    apply(ctx, step("a=b", "-c", user="root"))

    assert ctx.shown["stdout"].split("\n")[1:] == ["-n", "-u", "root", "--", "a=b", "-c"]


def test_without_sudo_a_step_for_somebody_else_never_runs_as_ourselves(
    ctx: FakeContext, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)

    failed = failure(ctx, step("/bin/true", user="root"))

    assert failed.reason == ('step 1 of 1 "Do" could not start: to run as root it needs sudo, which is not installed')


def test_our_own_user_needs_no_sudo(ctx: FakeContext, programs: Path) -> None:
    assert apply(ctx, sh("true", user=pwd.getpwuid(os.geteuid()).pw_name)) is Outcome.DONE


@pytest.mark.parametrize("user", ["no-such-user", "#0", "-u"])
def test_an_unknown_user_never_becomes_ourselves(ctx: FakeContext, user: str) -> None:
    failed = failure(ctx, sh("true", user=user))

    assert failed.code == "user.unknown"
    assert f'there is no user "{user}"' in failed.reason


# --- Packages and services --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manager", "install", "remove"),
    [
        ("apt-get", ["-y", "install"], ["-y", "remove"]),
        ("dnf", ["-y", "install"], ["-y", "remove"]),
        ("yum", ["-y", "install"], ["-y", "remove"]),
        ("apk", ["add"], ["del"]),
    ],
)
def test_packages_go_to_the_package_manager_that_is_there(
    ctx: FakeContext, programs: Path, manager: str, install: list[str], remove: list[str]
) -> None:
    stub(programs, manager)
    stub(programs, "env", 'exec /usr/bin/env "$@"')

    for kind, verb in (("install-packages", install), ("remove-packages", remove)):
        again = FakeContext(ctx.dir)
        apply(again, step("vim", "g++", kind=kind))

        assert again.shown["stdout"].split("\n") == [str(programs / manager), *verb, "--", "vim", "g++"]


def test_apt_get_comes_first_and_asks_no_questions(
    ctx: FakeContext, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    stub(programs, "apt-get", 'echo "$DEBIAN_FRONTEND"')
    stub(programs, "dnf", "exit 1")
    stub(programs, "env", 'exec /usr/bin/env "$@"')

    apply(ctx, step("vim", kind="install-packages"))

    assert ctx.shown["stdout"] == "noninteractive"


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_systemctl_gets_all_services_at_once(ctx: FakeContext, programs: Path, verb: str) -> None:
    stub(programs, "systemctl")
    stub(programs, "service", "exit 1")

    apply(ctx, step("a", "b.service", kind=f"{verb}-services"))

    assert ctx.shown["stdout"].split("\n")[1:] == [verb, "--", "a", "b.service"]


@pytest.mark.parametrize(
    ("manager", "calls"),
    [("rc-service", ["-- a stop", "-- b stop"]), ("service", ["a stop", "b stop"])],
)
def test_other_service_managers_get_one_service_after_the_other(
    ctx: FakeContext, programs: Path, manager: str, calls: list[str]
) -> None:
    stub(programs, manager, 'echo "$@"')

    apply(ctx, step("a", "b", kind="stop-services"))

    assert ctx.shown["stdout"].split("\n") == calls


def test_the_first_service_that_fails_ends_the_step(ctx: FakeContext, programs: Path) -> None:
    stub(programs, "service", 'echo "$1" >&2; [ "$1" = a ]')

    failed = failure(ctx, step("a", "b", "c", kind="start-services"))

    assert failed.reason == 'step 1 of 1 "Do" exited with status 1: b'
    assert ctx.shown["stderr"] == "a\nb"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("install-packages", "no package manager on this device: none of apt-get, dnf, yum, apk is on PATH"),
        ("stop-services", "no service manager on this device: none of systemctl, rc-service, service is on PATH"),
    ],
)
def test_a_device_without_a_manager_says_so(ctx: FakeContext, programs: Path, kind: str, wanted: str) -> None:
    assert wanted in failure(ctx, step("vim", kind=kind)).reason


def test_a_kind_that_nobody_planned_is_a_defect(ctx: FakeContext) -> None:
    with pytest.raises(ValueError, match="no step of the kind dance"):
        apply(ctx, step(kind="dance"))


# --- Reboots, interruptions, cancelling -------------------------------------------------------------------


def reboot() -> dict[str, Any]:
    return step(kind="reboot", name="Reboot")


def test_a_reboot_goes_on_with_the_step_after_it(ctx: FakeContext, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    steps = [sh(f"echo {n} >>{trace}") for n in range(3)]
    plan = [steps[0], reboot(), steps[1], reboot(), steps[2]]

    assert apply(ctx, *plan) is Outcome.REBOOT_AND_AGAIN
    assert trace.read_text() == "0\n"

    ctx.rebooted = ctx.resumed = True
    assert apply(ctx, *plan) is Outcome.REBOOT_AND_AGAIN
    assert trace.read_text() == "0\n1\n"

    assert apply(ctx, *plan) is Outcome.DONE
    assert trace.read_text() == "0\n1\n2\n"


def test_a_reboot_as_the_only_step_is_done_after_it(ctx: FakeContext) -> None:
    assert apply(ctx, reboot()) is Outcome.REBOOT_AND_AGAIN

    ctx.rebooted = ctx.resumed = True
    assert apply(ctx, reboot()) is Outcome.DONE


def test_a_restart_of_the_agent_is_no_reboot(ctx: FakeContext, tmp_path: Path) -> None:
    later = tmp_path / "later"
    assert apply(ctx, reboot(), sh(f"touch {later}")) is Outcome.REBOOT_AND_AGAIN

    ctx.resumed = True
    assert apply(ctx, reboot(), sh(f"touch {later}")) is Outcome.REBOOT_AND_AGAIN
    assert not later.exists()


def test_after_an_interruption_no_step_is_skipped_in_silence(ctx: FakeContext, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    plan = [sh(f"echo 0 >>{trace}"), sh(f"test -e {tmp_path}/fixed")]
    failure(ctx, *plan)
    (tmp_path / "fixed").touch()

    ctx.resumed = ctx.rebooted = True
    apply(ctx, *plan)

    assert trace.read_text() == "0\n0\n"
    assert ctx.logged == ["an earlier call was interrupted: beginning with the first step again"]


def test_a_reboot_counts_once(ctx: FakeContext, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    plan = [sh(f"echo 0 >>{trace}"), reboot(), sh(f"test -e {tmp_path}/fixed")]
    apply(ctx, *plan)
    ctx.rebooted = ctx.resumed = True
    failure(ctx, *plan)

    assert apply(ctx, *plan) is Outcome.REBOOT_AND_AGAIN
    assert trace.read_text() == "0\n0\n"


def test_a_damaged_mark_is_no_leave_to_begin_again(ctx: FakeContext) -> None:
    apply(ctx, reboot(), sh("true"))
    (ctx.dir / "after-reboot").write_text("")
    ctx.rebooted = True

    failed = failure(ctx, reboot(), sh("true"))

    assert failed.code == "interrupted"
    assert "is damaged" in failed.reason


def test_there_is_no_reboot_if_it_cannot_be_noted(ctx: FakeContext) -> None:
    (ctx.dir / "after-reboot.new").mkdir()

    failed = failure(ctx, reboot())

    assert failed.code == "reboot.failed"
    assert failed.reason.startswith("not rebooting: cannot write")


def test_the_last_step_done_is_kept_for_people(ctx: FakeContext) -> None:
    failure(ctx, sh("true"), sh("false", ignoreStepFailure=True), sh("false"))

    assert (ctx.dir / "last-step-done").read_text() == "2"


def test_a_note_for_people_that_cannot_be_written_fails_nothing(ctx: FakeContext) -> None:
    (ctx.dir / "last-step-done.new").mkdir()

    assert apply(ctx, sh("true")) is Outcome.DONE


def test_a_cancelled_job_begins_no_further_step(ctx: FakeContext, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ctx.is_cancelled = first.exists

    failed = failure(ctx, sh(f"touch {first}"), sh(f"touch {second}", name="Second"))

    assert failed.code == "cancelled"
    assert failed.reason == 'it was stopped before step 2 of 2 "Second"'
    assert not second.exists()


def test_a_step_that_the_cancelling_killed_is_not_to_blame(ctx: FakeContext, tmp_path: Path) -> None:
    ctx.is_cancelled = (tmp_path / "cancelled").exists

    failed = failure(ctx, sh(f"touch {tmp_path}/cancelled; kill $$", ignoreStepFailure=True), sh("true"))

    assert failed.code == "cancelled"
    assert failed.reason == 'step 1 of 2 "Do" was killed by signal SIGTERM'
