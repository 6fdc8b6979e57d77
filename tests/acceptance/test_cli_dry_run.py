"""`thingjobs dry-run` and `thingjobs validate`: what a document would do, found out without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.conftest import Cli, Local

    Snapshot = Callable[[Path], dict[str, tuple[int, int, bytes]]]


@pytest.fixture
def probing(cli: Cli, python_with_probe: Path) -> Cli:
    """The program, with that handler."""
    cli.python = python_with_probe
    (cli.folder / "handlers").mkdir(mode=0o755)
    (cli.folder / "config.toml").write_text('[handlers]\ndirectory = "handlers"\n')
    return cli


def documents(cli: Cli, answers: list[str], **more: str) -> list[Path]:
    """Write a document for each answer that `check` shall give."""
    folder = cli.folder / "jobs"
    folder.mkdir()
    paths = [folder / f"{answer.replace(' ', '-')}.json" for answer in answers]
    for path, answer in zip(paths, answers, strict=True):
        params = {"answer": answer, "log": str(cli.folder / "log")}
        path.write_text(json.dumps({"handler": "probe", "params": params, **more}))
    return paths


def calls(cli: Cli) -> list[Any]:
    """Return the calls that the handler wrote down."""
    log = cli.folder / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_dry_run_calls_check_alone_with_dry_run_set_and_changes_nothing(
    probing: Cli, python_with_probe: Path, snapshot: Snapshot
) -> None:
    paths = documents(probing, ["needed"])
    (probing.folder / "log").touch()
    places = [probing.folder / name for name in ("jobs", "handlers", "home")]
    places.append(python_with_probe.parents[1] / "lib")
    before = [snapshot(place) for place in places]

    told = probing("dry-run", "--local", "jobs", "--config", "config.toml", *paths)

    assert told.code == 0, told.err
    assert [snapshot(place) for place in places] == before
    assert sorted(path.name for path in probing.folder.iterdir()) == ["config.toml", "handlers", "home", "jobs", "log"]
    (call,) = calls(probing)
    assert call[:3] == ["check", True, "dry-run"]
    assert call[3].startswith(probing.environment["PATH"]), "only the agent's own commands are added, behind it"
    assert "handler  probe 2.5\n" in told.out
    assert "verbs    check, prepare, apply, verify, commit\n" in told.out
    assert "check    the change is needed\n" in told.out
    assert "updates  IN_PROGRESS, then SUCCEEDED or FAILED\n" in told.out


def test_dry_run_tells_what_the_agent_would_make_of_each_answer_of_check(probing: Cli) -> None:
    answers = ["needed", "as wanted", "later", "never", "killed", "endless"]
    paths = documents(probing, answers)

    told = probing("dry-run", "--json", "--config", "config.toml", *paths)

    found = {Path(line["document"]).stem: line for line in map(json.loads, told.out.splitlines())}
    assert told.code == 1
    assert {name: line["would"] for name, line in found.items()} == {
        "needed": "run",
        "as-wanted": "nothing",
        "later": "wait",
        "never": "reject",
        "killed": "fail",
        "endless": "fail",
    }
    assert found["later"]["check"] == "the pump is running"
    assert found["never"]["reason"] == "there is no pump here"
    assert found["killed"]["check"] == "check gave no answer: SIGKILL"
    assert found["endless"]["check"] == "check gave no answer: it took longer than 1 s"
    assert {line["updates"][-1] for line in found.values() if line["would"] == "fail"} == {"FAILED"}
    assert {verb for verb, *_ in calls(probing)} == {"check"}


def test_dry_run_shows_the_calls_to_the_cloud_that_would_be_made(local: Local, cli: Cli) -> None:
    folder = local.handlers / "lamp"
    folder.mkdir(mode=0o755)
    manifest = {"contract": 1, "verbs": ["check", "apply"], "exec": "run", "needs": ["cloud"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    body = (
        "from thingjobs.cloud.session import Rehearsed\n"
        "class Handler:\n"
        "    def check(self, ctx, params):\n"
        "        print('    would not')\n"
        "        try: ctx.cloud.batch.cancel('job-1', 'no more')\n"
        "        except Rehearsed: print('would send something')\n"
        "        ctx.cloud.s3_batch.describe('00e123a4')\n"
        "    def apply(self, ctx, params): pass\n"
    )
    (folder / "team.py").write_text(body)
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); from thingjobs.child import main"
    (folder / "run").write_text(f"#!/bin/sh\nexec {cli.python} -I -c \"{start}; sys.exit(main(['team:Handler']))\"\n")
    (folder / "run").chmod(0o755)
    more = '[cloud]\nregion = "eu-west-1"\naccount = "123456789012"\nhandlers = ["lamp"]\n'
    local.config.write_text(local.config.read_text() + more)
    document = local.job("one", {"handler": "lamp"})

    told, found = cli("dry-run", *local.words, document), cli("dry-run", "--json", *local.words, document)

    assert json.loads(found.out)["calls"] == [
        'POST https://batch.eu-west-1.amazonaws.com/v1/canceljob {"jobId": "job-1", "reason": "no more"}',
        "GET https://123456789012.s3-control.eu-west-1.amazonaws.com/v20180820/jobs/00e123a4",
    ]
    assert "    would send  POST https://batch.eu-west-1" in told.out
    assert "    check       the change is needed\n" in told.out


def test_dry_run_of_a_document_that_only_asks_says_so(probing: Cli) -> None:
    paths = documents(probing, ["as wanted"], mode="check")

    told = probing("dry-run", "--config", "config.toml", *paths)

    assert told.code == 0
    assert "would only be checked\n" in told.out
    assert "verbs    check\n" in told.out
    assert "updates  IN_PROGRESS, then SUCCEEDED with would=nothing\n" in told.out


def test_dry_run_shows_steps_users_and_downloads_of_an_aws_document_but_no_query_string(
    local: Local, cli: Cli, examples: Path
) -> None:
    jobs = examples / "jobs"

    told = cli("dry-run", *local.words, jobs / "2-download-file.json", jobs / "4-several-steps.json")

    assert told.code == 0
    assert (
        "step 1     Download-File: download-file 'http://files.demo.invalid/release-notes.txt?…' /srv/demo" in told.out
    )
    assert "downloads  http://files.demo.invalid/release-notes.txt?…\n" in told.out
    assert "step 2      What the release before left behind, if anything: ls /opt/no-such-release" in told.out
    assert "(a failure is ignored)\n" in told.out
    assert "final step  Only after all steps: echo 'All steps are done" in told.out
    assert "runs as" in told.out
    assert "X-Amz-Signature" not in told.all


def test_dry_run_runs_no_executable_handler_and_hides_queries_in_its_parameters(local: Local, cli: Cli) -> None:
    local.handler("touch", 'touch "$OUT/ran"')
    secret = {"deep": ["see HTTPS://user:pa55word@host.invalid/a?Signature=5ecret&b#5ecret now"]}
    path = local.job("one", {"handler": "touch", "params": secret})

    told = cli("dry-run", *local.words, path)

    assert told.code == 0
    assert 'params   {"deep": ["see HTTPS://…@host.invalid/a?… now"]}' in told.out
    assert not (local.out / "ran").exists()
    assert not local.state.exists()


def test_dry_run_of_what_would_be_rejected_exits_1_with_code_and_reason(local: Local, cli: Cli, examples: Path) -> None:
    told = cli("dry-run", *local.words, examples / "jobs" / "3-mistake.json")

    assert told.code == 1
    assert "would be REJECTED\n" in told.out
    assert "document.invalid  steps[0].action.input is missing\n" in told.out


# --- validate -----------------------------------------------------------------------------------------------------


def test_validate_tells_good_from_bad_and_changes_nothing(
    local: Local, cli: Cli, examples: Path, snapshot: Snapshot
) -> None:
    local.handler("touch", 'touch "$OUT/ran"')
    good = local.job("good", {"handler": "touch"})
    broken = local.folder / "broken.json"
    broken.write_text('{\n"handler"')
    unknown = local.job("unknown", {"handler": "tuch"})
    before = snapshot(cli.folder)

    told = cli("validate", *local.words, good, examples / "jobs" / "1-run-command.json", broken, unknown)

    assert told.code == 1
    assert told.out.splitlines() == [
        f"✓ {good}: good, for handler touch",
        f"✓ {examples}/jobs/1-run-command.json: good, for handler aws-steps",
        f"✗ {broken}: document.invalid: it is not JSON: expecting ':' delimiter in line 2, column 10",
        (
            f"✗ {unknown}: handler.unknown: there is no handler tuch on this device; "
            "there are: aws-steps, batch-job, collect, install-handler, s3-batch-job, touch, upgrade-agent"
        ),
    ]
    assert snapshot(cli.folder) == before


def test_validate_exits_0_when_all_are_good_and_reads_standard_input(local: Local, cli: Cli, examples: Path) -> None:
    document = (examples / "jobs" / "1-run-command.json").read_bytes()

    told = cli("validate", *local.words, "-", stdin=b"\xef\xbb\xbf" + document)

    assert (told.code, told.out) == (0, "✓ standard input: good, for handler aws-steps\n")


def test_validate_for_programs_prints_one_object_a_line(local: Local, cli: Cli, examples: Path) -> None:
    path = examples / "jobs" / "1-run-command.json"

    told = cli("validate", "--json", *local.words, path, "-", stdin="[]")

    assert told.code == 1
    assert [json.loads(line) for line in told.out.splitlines()] == [
        {"document": str(path), "valid": True, "handler": "aws-steps"},
        {
            "document": "-",
            "valid": False,
            "code": "document.invalid",
            "reason": "the job document must be a JSON object, not a list",
        },
    ]


@pytest.mark.parametrize("command", ["validate", "dry-run"])
def test_files_that_cannot_be_read_exit_2_before_any_verdict(local: Local, cli: Cli, command: str) -> None:
    good = local.job("good", {"handler": "nobody"})

    told = cli(command, *local.words, "nowhere.json", good, local.folder)

    assert (told.code, told.out) == (2, "")
    assert told.err.splitlines() == [
        "thingjobs: cannot read all documents:",
        "  - cannot read nowhere.json: No such file or directory",
        f"  - cannot read {local.folder}: Is a directory",
    ]


def test_dry_run_tells_a_handler_the_same_of_this_device_as_a_job_would(cli: Cli) -> None:
    (cli.folder / "handlers").mkdir(mode=0o755)
    (cli.folder / "config.toml").write_text('[handlers]\ndirectory = "handlers"\nallow_root = ["install-handler"]\n')
    params = {"name": "pump", "url": "https://nowhere.invalid/pump.tgz", "digest": f"sha256:{'0' * 64}"}
    (cli.folder / "install.json").write_text(json.dumps({"handler": "install-handler", "params": params}))

    told = cli("dry-run", "--config", "config.toml", "install.json")

    assert told.code == 0, told.all
    assert "would run" in told.out
