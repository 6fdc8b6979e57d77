"""`thingjobs run --local FOLDER --once`: every *.json is a job, each ends with a status and a reason, once."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.conftest import Cli, Local

#: Says on each run that it ran, so that a second run of one job is seen.
COUNTS = 'echo "$JOB_VERB" >> "$OUT/ran"; [ "$JOB_VERB" = apply ]'


def runs(command: str, **more: str) -> dict[str, Any]:
    """Return an AWS document that runs one command."""
    return {
        "version": "1.0",
        "steps": [{"action": {"name": "It", "type": "runCommand", "input": {"command": command}}}],
        **more,
    }


def ran(cli: Cli) -> list[str]:
    """Return which verbs the handler above was called with."""
    path = cli.folder / "out" / "ran"
    return path.read_text().split() if path.exists() else []


def test_each_job_is_shown_with_its_way_and_why_it_did_not_succeed(local: Local, examples: Path) -> None:
    local.job("good", runs("true"))
    local.job("fails", runs("false"))
    local.job("mistake", json.loads((examples / "jobs" / "3-mistake.json").read_text()))

    told = local.run()

    assert told.code == 1
    assert told.err == ""
    header, *lines = told.out.splitlines()
    assert header.endswith(f": jobs from {local.folder}, no cloud")
    assert [re.sub(r" +[0-9]+\.[0-9] s$", "", line) for line in lines] == [
        "✗ fails         QUEUED → IN_PROGRESS → FAILED",
        '                step.failed: step 1 of 1 "It" exited with status 1',
        "                step: 1/1 It, exit: 1",
        "✓ good          QUEUED → IN_PROGRESS → SUCCEEDED",
        "✗ mistake       QUEUED → REJECTED",
        "                document.invalid: steps[0].action.input is missing",
        "",
        "3 jobs: 1 SUCCEEDED, 1 FAILED, 1 REJECTED",
    ]


def test_it_exits_0_when_every_job_succeeded_and_does_none_of_them_twice(local: Local, cli: Cli) -> None:
    local.handler("count", COUNTS)
    local.job("one", {"handler": "count"})
    local.job("two", {"handler": "count"})

    first, second = local.run(), local.run()

    assert (first.code, second.code) == (0, 0)
    assert ran(cli) == ["apply", "apply"]
    assert "2 jobs are done already and will not run again: one, two" in second.out
    assert second.out.endswith("\n2 jobs: 2 SUCCEEDED\n")


def test_a_job_that_did_not_succeed_is_not_run_again_either_and_the_exit_code_stays_1(local: Local, cli: Cli) -> None:
    local.handler("count", f"{COUNTS}; exit 3")
    local.job("one", {"handler": "count"})

    codes = local.run().code, local.run().code

    assert codes == (1, 1)
    assert ran(cli) == ["apply"]


def test_a_done_job_is_not_run_again_under_another_thing_name(local: Local, cli: Cli) -> None:
    local.handler("count", COUNTS)
    local.job("one", {"handler": "count"})
    local.run()
    local.config.write_text('[thing]\nname = "another"\n' + local.config.read_text())

    told = local.run()

    assert told.code == 0
    assert "thing another: " in told.out
    assert told.out.endswith("1 job is done already and will not run again: one\n\n1 job: 1 SUCCEEDED\n")
    assert ran(cli) == ["apply"]


def test_a_done_job_whose_file_was_changed_is_named_and_not_run(local: Local, cli: Cli) -> None:
    local.handler("count", COUNTS)
    local.job("one", {"handler": "count"})
    local.run()
    local.job("one", {"handler": "count", "params": {"more": 1}})

    told = local.run()

    assert told.code == 1
    assert "one.json is left out: it was changed, and a job keeps the document it was made with" in told.out
    assert ran(cli) == ["apply"]


UNUSABLE = {
    "broken.json": (b'{"handler": ', "it is not JSON: expecting value in line 1, column 13"),
    "deep.json": (b"[" * 200 + b"]" * 200, "it is nested more than 100 levels deep"),
    "deeper.json": (b"[" * 100_000, "it is nested more than 100 levels deep"),
    "digits.json": (b"1" * 5000, "it holds a number with too many digits"),
    "empty.json": (b"", "it is not JSON: expecting value in line 1, column 1"),
    "get.json": (b"{}", "its name cannot be a job id, the Jobs service uses get itself"),
    "half.json": (rb'{"handler": "\ud800"}', "it holds one half of a \\u surrogate pair"),
    "large.json": (b'"' + b"x" * 40_000 + b'"', "it has 40002 characters, more than 32768"),
    "latin.json": (b'{"handler": "\xe9"}', "it is not UTF-8: byte 14 cannot be read"),
    "nan.json": (b'{"handler": NaN}', "it is not JSON: NaN and Infinity are no numbers there"),
    "no job id.json": (b"{}", "its name is no job id: use 1 to 64 letters, digits, _ and -"),
    "notify-next.json": (b"{}", "its name cannot be a job id"),
    os.fsdecode(b"\xff.json"): (b"{}", "its name is no job id"),
}


def test_files_that_are_no_jobs_are_left_out_with_the_reason_and_hold_up_no_other(local: Local) -> None:
    for name, (content, _) in UNUSABLE.items():
        (local.folder / name).write_bytes(content)
    (local.folder / "folder.json").mkdir()
    (local.folder / "nowhere.json").symlink_to("gone")
    local.job("good", runs("true"))

    told = local.run()

    assert told.code == 1
    for name, (_, why) in UNUSABLE.items():
        shown = name.encode("utf-8", "replace").decode()
        assert f"✗ {shown} is left out: {why}" in told.out
    assert "✗ folder.json is left out: cannot read it: Is a directory" in told.out
    assert "✗ nowhere.json is left out: there is no such file" in told.out
    assert told.out.endswith(f"\n1 job: 1 SUCCEEDED; {len(UNUSABLE) + 2} files left out\n")


def test_an_empty_folder_is_no_error(local: Local) -> None:
    told = local.run()

    assert told.code == 0
    assert f"there is no job document (*.json) in {local.folder}" in told.out
    assert told.out.endswith("\n0 jobs\n")


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file or directory"), ("a-file", "Not a directory")])
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_folder_that_is_none_is_a_wrong_call(cli: Cli, command: str, name: str, why: str) -> None:
    (cli.folder / "a-file").touch()

    told = cli(command, "--local", name)

    assert told.code == 2
    assert told.err == f"thingjobs: --local {name}: {why}; name a folder that holds job documents (*.json)\n"


def test_a_folder_that_cannot_be_written_exits_3(cli: Cli) -> None:
    # Root may write everywhere else.
    folder = Path("/proc") if os.geteuid() == 0 else cli.folder
    cli.folder.chmod(0o555)

    told = cli("run", "--local", folder, "--once")

    cli.folder.chmod(0o755)
    assert told.code == 3
    assert told.err.startswith(f"thingjobs: cannot use the state folder {folder}/.thingjobs: ")


def test_outcomes_that_cannot_be_read_exit_3_instead_of_running_everything_again(local: Local, cli: Cli) -> None:
    local.handler("count", COUNTS)
    local.job("one", {"handler": "count"})
    local.run()
    for damaged in ("", "[]", '{"format": 1, "jobs": 3}'):
        (local.state / "jobs.json").write_text(damaged)

        told = local.run()

        assert told.code == 3
        assert told.err.startswith(f"thingjobs: cannot read {local.state}/jobs.json: it is damaged")
    assert ran(cli) == ["apply"]


def test_jobs_that_are_not_ours_are_left_alone_and_not_waited_for(local: Local) -> None:
    local.config.write_text(local.config.read_text() + '[jobs]\nonly = ["mine-*"]\n')
    local.job("another", runs("true"))
    local.job("mine-1", runs("true"))

    told = local.run()

    assert told.code == 1
    assert local.outcomes() == {"another": "QUEUED", "mine-1": "SUCCEEDED"}


def test_a_document_may_not_reboot_the_machine_of_whoever_tries_it(local: Local) -> None:
    local.job(
        "one",
        {
            "version": "1.0",
            "steps": [{"action": {"name": "It", "type": "runHandler", "input": {"handler": "reboot.sh"}}}],
        },
    )

    told = local.run()

    assert told.code == 1
    assert local.outcomes() == {"one": "FAILED"}


def test_nobody_else_may_read_what_is_kept_of_documents(local: Local) -> None:
    local.job("one", runs("true"))

    local.run()

    for path in (local.state / "jobs.json", *(local.state / "journal").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_what_was_never_begun_follows_its_file(local: Local, eventually: Callable[..., Any]) -> None:
    local.handler("wait", 'echo began >> "$OUT/began"; while [ ! -e "$OUT/go" ]; do sleep 0.05; done')
    out = local.out
    local.job("a", {"handler": "wait"})
    local.job("b", {"handler": "nowhere"})
    local.job("c", runs("true"))
    agent = local.start("--once")
    eventually((out / "began").exists)
    agent.signal(signal.SIGTERM)
    eventually(lambda: "ending as soon as" in agent.told)
    (out / "go").touch()
    assert agent.end().code == 1
    assert local.outcomes() == {"a": "SUCCEEDED", "b": "QUEUED", "c": "QUEUED"}

    local.job("b", runs("true"))
    (local.folder / "c.json").unlink()

    assert local.run().code == 0
    assert local.outcomes() == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_files_that_come_or_get_better_while_it_runs_are_noticed(local: Local, eventually: Callable[..., Any]) -> None:
    agent = local.start()
    eventually(lambda: "there is no job document" in agent.told)

    (local.folder / "late.json").write_text("{")
    eventually(lambda: "late.json is left out: it is not JSON" in agent.told)
    local.job("late", runs("true"))
    eventually(lambda: "✓ late " in agent.told)
    agent.signal(signal.SIGTERM)

    told = agent.end()
    assert told.code == 0
    assert told.out.endswith("\n1 job: 1 SUCCEEDED\n")


def test_a_second_agent_on_the_same_folder_exits_3(local: Local, eventually: Callable[..., Any]) -> None:
    agent = local.start()
    eventually((local.state / "status.sock").exists)

    told = local.run()

    assert told.code == 3
    assert told.err == f"thingjobs: cannot use the state folder {local.state}: another agent runs on it\n"
    agent.signal(signal.SIGTERM)
    assert agent.end().code == 0


def test_a_job_that_waits_is_shown_with_its_reason_and_what_stands_behind_it(
    local: Local, cli: Cli, python_with_probe: Path, eventually: Callable[..., Any]
) -> None:
    cli.python = python_with_probe
    local.job("a", {"handler": "probe", "params": {"answer": "later", "log": str(local.out / "calls")}})
    local.job("b", runs("true"))
    agent = local.start("--once")
    eventually(lambda: "○ a             waits: the pump is running\n" in agent.told)

    status = cli("status", *local.words).out.splitlines()
    agent.signal(signal.SIGTERM)

    assert agent.end().out.endswith("\n2 jobs: 2 QUEUED\n")
    assert status[1].startswith("  now   a#1  deferred (probe)  waits: the pump is running, again in ")
    assert status[2] == "  next  b#1"


def test_a_job_that_found_nothing_to_do_does_not_look_like_one_that_did_it(
    local: Local, cli: Cli, python_with_probe: Path
) -> None:
    cli.python = python_with_probe
    for name, answer in (("done", "needed"), ("easy", "as wanted")):
        local.job(name, {"handler": "probe", "params": {"answer": answer, "log": str(local.out / "calls")}})
    why = "already as wanted; nothing was changed"

    told = local.run()

    assert re.search(rf"^✓ easy .* SUCCEEDED .*\n +{why}$", told.out, re.MULTILINE), told.out
    assert told.out.count(why) == 1
    status = cli("status", *local.words).out.splitlines()
    assert status[[line.startswith("  last  ✓ easy#1") for line in status].index(True) + 1].strip() == why


def test_a_job_for_a_script_that_nothing_could_run_is_rejected_and_a_dry_run_knows(local: Local, cli: Cli) -> None:
    handler = local.handler("greet", "exit 0")
    handler.write_text("#!/bin/sh\r\nexit 0\r\n")
    job = local.job("one", {"handler": "greet"})
    why = f"handler.broken.* handler greet cannot be used: {handler} ends its lines with CR LF"

    asked, told = cli("dry-run", str(job), *local.words), local.run()

    assert asked.code == 1
    assert re.search(why, asked.out), asked.out
    assert re.search(rf"^✗ one .* REJECTED\n +{why}", told.out, re.MULTILINE), told.out


def test_a_defect_that_one_document_brings_out_ends_that_job_and_not_the_agent(local: Local, cli: Cli) -> None:
    defect = cli.folder / "defect"
    defect.mkdir()
    (defect / "sitecustomize.py").write_text("from thingjobs import judging\njudging.fits = lambda *_: 1 / 0\n")
    cli.environment["PYTHONPATH"] = str(defect)
    local.handler("greet", "exit 0")
    local.job("a", {"handler": "greet", "version": ">=1"})
    local.job("b", {"handler": "greet"})

    told = local.run()

    assert told.code == 1
    assert local.outcomes() == {"a": "REJECTED", "b": "SUCCEEDED"}
    assert "agent.defect: the agent failed at this document (ZeroDivisionError)" in told.out
    assert re.search(r"a#1: a fault in judging its document: ZeroDivisionError: .*judging\.py:\d+ handler", told.err)

    asked = cli("validate", str(local.folder / "a.json"), *local.words)
    assert asked.code == 1
    assert re.fullmatch(r"thingjobs: ended by a fault: ZeroDivisionError: .*; please report it\n", asked.err)


def test_a_job_that_failed_is_shown_with_where_its_log_is(local: Local) -> None:
    local.handler("talks", "echo the valve is stuck; exit 3")
    local.job("one", {"handler": "talks"})

    told = local.run()

    found = re.search(r"^ +log: (.+)$", told.out, re.MULTILINE)
    assert found, told.out
    assert "the valve is stuck" in Path(found[1]).read_text()


def test_the_state_of_a_device_is_not_used_to_try_things_on(cli: Cli) -> None:
    (cli.folder / "device.toml").write_text(f'[state]\ndirectory = "{cli.folder}/device-state"\n', encoding="utf-8")
    jobs = cli.folder / "jobs"
    jobs.mkdir()
    (jobs / "one.json").write_text('{"handler": "nobody"}', encoding="utf-8")

    cli("run", "--local", jobs, "--once", "--config", cli.folder / "device.toml")

    assert (jobs / ".thingjobs" / "journal").is_dir()
    assert not (cli.folder / "device-state").exists()


@pytest.mark.parametrize("option", ["--local", "--config"])
def test_a_name_that_is_empty_is_no_folder(cli: Cli, option: str) -> None:
    told = cli("run", option, "")

    assert (told.code, told.out) == (2, "")
    assert f"argument {option}: it is empty" in told.err
