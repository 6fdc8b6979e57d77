"""`thingjobs handlers …`: what there is, what is wrong with it, and new ones; `thingjobs job …`, for scripts."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli, Local, Told

MANIFEST = {"contract": 1, "version": "1.0", "exec": "run.sh", "verbs": ["check", "apply"]}


def program(local: Local, name: str, script: str = "#!/bin/sh\n", **more: Any) -> Path:
    """Make a handler with a manifest; return its folder."""
    folder = local.handlers / name
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, **more}))
    (folder / "run.sh").write_bytes(script.encode())
    (folder / "manifest.json").chmod(0o644)
    (folder / "run.sh").chmod(0o755)
    return folder


def problems(told: Told) -> list[str]:
    """Return what `check --json` found of one handler."""
    found: list[str] = told.json()["problems"]
    assert told.code == (1 if found else 0)
    return found


# --- list ---------------------------------------------------------------------------------------------------------


def test_list_shows_every_handler_with_its_state_and_the_reason_why_one_cannot_be_used(local: Local, cli: Cli) -> None:
    program(local, "pump", verbs=["check", "apply", "rollback"])
    program(local, "broken", verb=["apply"])
    local.handler("plain", "exit 0")

    told = cli("handlers", "list", *local.words)

    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0].split() == ["name", "version", "kind", "runs", "as", "verbs"]
    rows = {line.split()[1]: line for line in lines[1:] if not line.startswith(" ")}
    assert rows["pump"].startswith("✓ pump ")
    assert rows["pump"].endswith("check, apply, rollback")
    assert rows["plain"].split()[2:4] == ["-", "program"]
    assert rows["aws-steps"].split()[3] == "python"
    assert rows["broken"].startswith("✗ broken ")
    assert "verb is not a key" in told.out


def test_list_and_show_know_of_a_program_that_could_not_be_started(local: Local, cli: Cli) -> None:
    program(local, "crlf", "#!/bin/sh\r\nexit 0\r\n")

    every, one = cli("handlers", "list", *local.words), cli("handlers", "show", "crlf", *local.words)

    assert "✗ crlf " in every.out
    assert "ends its lines with CR LF" in every.out
    assert one.code == 1
    assert "ends its lines with CR LF" in one.out


def test_list_fits_a_narrow_terminal(local: Local, cli: Cli) -> None:
    every = ["check", "prepare", "apply", "verify", "commit", "rollback"]
    program(local, "a-handler-with-quite-a-long-name", verbs=every)
    program(local, "broken", exec="nothing.sh")

    for columns in (80, 50):
        terminal = cli.on_terminal("handlers", "list", *local.words, columns=columns)
        assert terminal.end() == 0
        text = "\n".join(terminal.lines())
        assert terminal.widest < columns or columns == 50
        assert all(verb in text for verb in every)


def test_list_as_json_has_an_object_for_each_handler_with_what_it_declares(local: Local, cli: Cli) -> None:
    program(local, "pump", limits={"memory": "64M"}, timeouts={"apply": 60}, apply_rerun=True)
    program(local, "broken", verbs=[])

    told = cli("handlers", "list", "--json", *local.words)

    found = {one["name"]: one for one in map(json.loads, told.out.splitlines())}
    assert found["pump"]["usable"] is True
    assert found["pump"]["source"] == str(local.handlers / "pump")
    assert found["pump"]["digest"].startswith("sha256:")
    assert found["pump"]["manifest"]["limits"]["memory"] == 64 * 1024 * 1024
    assert found["pump"]["manifest"]["timeouts"]["apply"] == 60
    assert found["pump"]["manifest"]["apply_rerun"] is True
    assert found["broken"]["usable"] is False
    assert found["broken"]["manifest"] is None
    assert "apply" in found["broken"]["reason"]


def test_a_handler_that_no_job_may_use_says_so_in_the_list(local: Local, cli: Cli) -> None:
    program(local, "pump")
    local.config.write_text(local.config.read_text() + 'allow = ["aws-*"]\n')

    told = cli("handlers", "list", *local.words)

    assert told.code == 0
    assert "○ pump " in told.out
    assert "not listed in [handlers] allow" in told.out


# --- show ---------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "required": ["level"],
    "properties": {
        "level": {"enum": ["low", "high"], "description": "how much"},
        "seconds": {"type": "integer", "minimum": 1, "default": 5},
    },
}


def test_show_tells_everything_that_a_handler_declares(local: Local, cli: Cli) -> None:
    more: dict[str, Any] = {
        "description": "sets the level",
        "timeouts": {"apply": 7200, "check": 90},
        "stall": 60,
        "limits": {"memory": "64M", "processes": 8, "cpu": 0.5},
        "needs": ["cloud", "the-moon"],
        "observe": True,
    }
    program(local, "pump", params=SCHEMA, **more)

    told = cli("handlers", "show", "pump", *local.words)

    assert told.code == 1
    assert told.out.startswith("✗ pump 1.0: sets the level\n    trouble  it needs the-moon, which this release")
    shown = " ".join(told.out.split())
    for part in (
        f"source {local.handlers / 'pump'}",
        "sha256:",
        "check (90 s), apply (2 h)",
        "stuck after 1 min",
        "64 MiB of memory, 8 processes, 0.5 processors",
        "cloud, the-moon",
        "overtakes",
        'level how much ("low" or "high", required)',
        "seconds integer, at least 1, default 5",
    ):
        assert part in shown, told.out


def test_what_a_program_declares_is_known_where_only_what_runs_it_is_not_there(local: Local, cli: Cli) -> None:
    program(local, "pump", "#!/opt/no-such/lua\n", params=SCHEMA)

    every, one = cli("handlers", "list", *local.words), cli("handlers", "show", "pump", "--json", *local.words)
    schema = cli("handlers", "show", "pump", "--schema", *local.words)

    row = re.compile(r"^✗ pump +1\.0 +program +\S+\n +\S+run\.sh is to be run by /opt/no-such/lua", re.MULTILINE)
    assert row.search(every.out), every.out
    found = one.json()
    assert (one.code, found["usable"], found["manifest"]["version"]) == (1, False, "1.0")
    assert "/opt/no-such/lua, which is not on this device" in found["reason"]
    assert schema.json() == SCHEMA


def test_show_says_what_is_in_arrays_and_objects(local: Local, cli: Cli) -> None:
    kinds = {
        "hosts": {"type": "array", "items": {"type": "string"}},
        "levels": {"type": "object", "additionalProperties": {"type": "integer"}},
        "notify": {"type": ["object", "null"], "properties": {"url": {}, "retries": {}}},
        "any": {"type": "array"},
        "free": {},
    }
    program(local, "pump", params={"type": "object", "properties": kinds})

    told = cli("handlers", "show", "pump", *local.words)

    assert [line.split(maxsplit=1) for line in told.out.splitlines()[-5:]] == [
        ["hosts", "array of string"],
        ["levels", "object of integer"],
        ["notify", "object with url, retries or null"],
        ["any", "array"],
        ["free", "see --schema"],
    ]


def test_show_of_a_path_names_the_action_that_takes_one(local: Local, cli: Cli) -> None:
    folder = program(local, "pump")

    told = cli("handlers", "show", folder)

    assert told.code == 1
    assert told.err.endswith(f"; thingjobs handlers check {folder} looks at one that is not installed\n")


def test_show_prints_the_bare_schema_for_those_who_write_templates(local: Local, cli: Cli) -> None:
    program(local, "pump", params=SCHEMA)
    program(local, "free")

    assert cli("handlers", "show", "pump", "--schema", *local.words).json() == SCHEMA
    assert cli("handlers", "show", "free", "--schema", *local.words).json() == {}


def test_show_of_an_unknown_and_of_a_broken_handler_exits_1_and_says_why(local: Local, cli: Cli) -> None:
    program(local, "broken", contract=2)

    unknown = cli("handlers", "show", "nothing", *local.words)
    broken = cli("handlers", "show", "broken", *local.words)
    schema = cli("handlers", "show", "broken", "--schema", *local.words)

    assert (unknown.code, broken.code, schema.code) == (1, 1, 1)
    assert unknown.err.startswith("thingjobs: cannot show nothing: there is no handler nothing on this device;")
    assert "✗ broken" in broken.out
    assert "contract is 2" in broken.out
    assert "contract is 2" in schema.err


# --- check --------------------------------------------------------------------------------------------------------


def test_check_of_all_handlers_of_a_good_device_exits_0(local: Local, cli: Cli) -> None:
    program(local, "pump")

    told = cli("handlers", "check", *local.words)

    assert told.code == 0
    assert "✓ pump: good\n" in told.out
    assert "✓ aws-steps: good\n" in told.out


def test_check_of_all_handlers_calls_none_wrong_because_the_operator_did_not_allow_it(local: Local, cli: Cli) -> None:
    program(local, "pump")
    local.config.write_text(local.config.read_text() + 'allow = ["pump"]\n')

    every, one = cli("handlers", "check", *local.words), cli("handlers", "check", "aws-steps", *local.words)

    assert every.code == 0
    assert "○ aws-steps: good\n  - no job may use it: it is not listed in [handlers] allow" in every.out
    assert one.code == 1


def test_check_tells_all_that_is_wrong_with_a_manifest_at_once(local: Local, cli: Cli) -> None:
    program(local, "pump", verbs=["aply"], timeouts={"apply": -1}, stal=3, params={"$ref": "https://x.invalid/s"})

    found = problems(cli("handlers", "check", "--json", "pump", *local.words))

    for part in ("stal is not a key", "aply", "timeouts.apply", "params"):
        assert any(part in one for one in found), (part, found)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\r\necho\r\n", "CR LF"),
        ("#!/no/such/program\n", "/no/such/program, which is not on this device"),
        ("#!/usr/bin/env no-such-program\n", "no-such-program, which is not on the PATH"),
        ("echo hello\n", "does not begin with #!"),
        ("\ufeff#!/bin/sh\n", "byte order mark"),
        ("#!\n", "names no program"),
    ],
)
def test_check_finds_that_the_program_could_not_be_started(local: Local, cli: Cli, script: str, said: str) -> None:
    program(local, "pump", script)

    (found,) = problems(cli("handlers", "check", "--json", "pump", *local.words))

    assert said in found
    assert "run.sh" in found


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", "#!/usr/bin/env -S sh -e\n"]
)
def test_check_has_nothing_against_a_program_that_can_be_started(local: Local, cli: Cli, script: str) -> None:
    program(local, "pump", script)

    assert problems(cli("handlers", "check", "--json", "pump", *local.words)) == []


def test_check_finds_files_that_others_may_write_and_says_how_to_change_that(local: Local, cli: Cli) -> None:
    folder = program(local, "pump")
    (folder / "run.sh").chmod(0o775)

    (found,) = problems(cli("handlers", "check", "--json", "pump", *local.words))

    assert f"chmod go-w {folder / 'run.sh'}" in found


def test_check_finds_links_out_of_the_folder_and_a_program_that_is_not_there(local: Local, cli: Cli) -> None:
    folder = program(local, "pump", exec="gone.sh")
    (folder / "passwd").symlink_to("/etc/passwd")

    found = problems(cli("handlers", "check", "--json", "pump", *local.words))

    assert any("passwd is a link" in one for one in found)
    assert any("gone.sh" in one for one in found)


def test_a_handler_that_may_not_have_credentials_is_shown_with_the_key_that_lets_it(local: Local, cli: Cli) -> None:
    program(local, "pump", needs=["cloud"])

    told = cli("handlers", "list", *local.words)

    assert "handler pump needs AWS credentials, and is not listed in [cloud] handlers on this device" in told.out


def test_check_holds_a_handler_against_the_policy_of_the_device(local: Local, cli: Cli) -> None:
    program(local, "pump", user="somebody-else", stall=99999, needs=["the-moon"])
    local.config.write_text(local.config.read_text() + "allow = []\n")

    found = problems(cli("handlers", "check", "--json", "pump", *local.words))

    assert [one for one in found if "[handlers] allow on this device" in one]
    assert [one for one in found if "no user somebody-else on this device" in one]
    assert [one for one in found if "needs the-moon" in one]
    assert [one for one in found if "it never counts" in one]


@pytest.mark.skipif(os.geteuid() != 0, reason="only an agent that is root becomes somebody else")
def test_check_finds_that_the_user_of_handlers_does_not_exist(local: Local, cli: Cli) -> None:
    program(local, "pump")
    local.config.write_text(local.config.read_text() + 'user = "no-such-user"\n')

    found = problems(cli("handlers", "check", "--json", "pump", *local.words))

    assert [one for one in found if "there is no user no-such-user on this device" in one]


def test_check_finds_two_handlers_of_one_name(local: Local, cli: Cli) -> None:
    program(local, "aws-steps")

    found = problems(cli("handlers", "check", "--json", "aws-steps", *local.words))

    assert any("exists more than once" in one for one in found)


def test_check_takes_the_path_of_a_handler_that_is_not_installed(local: Local, cli: Cli) -> None:
    good, bad = program(local, "good"), program(local, "bad", contract=3)
    plain = cli.folder / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    (cli.folder / "notes.md").write_text("# no program\n")

    told = cli("handlers", "check", good, bad, "plain", "handlers/good/", bad / "manifest.json", "./notes.md")

    assert told.code == 1
    assert f"✓ {good}: good\n" in told.out
    assert f"✗ {bad}: 1 problem\n" in told.out
    assert "contract is 3" in told.out
    assert f"chmod +x {plain}" in told.out
    assert "✓ handlers/good/: good\n" in told.out
    assert told.out.count("contract is 3") == 2
    assert "notes.md is neither a folder with manifest.json nor a program" in told.out


def test_check_helps_those_who_name_the_wrong_folder_or_nothing_that_exists(cli: Cli) -> None:
    cli("handlers", "new", "one", "--shell")
    cli("handlers", "new", "two")
    (cli.folder / "empty").mkdir()

    said = {name: problems(cli("handlers", "check", "--json", name))[0] for name in ("one", "two", "empty", "a/b", "x")}

    assert said["one"].endswith("/one/handlers/one?")
    assert "pip install -e" in said["two"]
    assert "no manifest.json" in said["empty"]
    assert "neither a handler" in said["a/b"]
    assert said["x"].startswith("there is no handler x on this device")


def test_check_wraps_its_sentences_on_a_terminal(local: Local, cli: Cli) -> None:
    program(local, "pump", verbs=["aply"], timeouts={"apply": -1})

    terminal = cli.on_terminal("handlers", "check", "pump", *local.words, columns=80)

    assert terminal.end() == 1
    assert "✗ pump: 2 problems" in terminal.lines()[0]
    assert terminal.widest <= 80


# --- new ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"), [("Set Level", "set-level would do"), ("../etc", "etc would do"), ("9", ""), ("a" * 65, "65")]
)
def test_new_refuses_a_name_that_is_none_and_makes_nothing(cli: Cli, name: str, hint: str) -> None:
    told = cli("handlers", "new", name)

    assert told.code == 2
    assert told.err.startswith("thingjobs: cannot make a handler: ")
    assert hint in told.err
    assert [path.name for path in cli.folder.iterdir()] == ["home"]


def test_new_overwrites_nothing(cli: Cli) -> None:
    (cli.folder / "pump").mkdir()

    told = cli("handlers", "new", "pump")

    assert told.code == 2
    assert "pump exists" in told.err
    assert not list((cli.folder / "pump").iterdir())


def test_new_refuses_a_place_that_is_no_folder(cli: Cli) -> None:
    (cli.folder / "file").touch()

    told = cli("handlers", "new", "pump", "--into", "file")

    assert told.code == 2
    assert told.err == "thingjobs: cannot make a handler: file is not a folder; name one with --into\n"


def test_new_refuses_the_name_of_a_handler_that_is_installed(cli: Cli) -> None:
    told = cli("handlers", "new", "aws-steps")

    assert told.code == 2
    assert "there is a handler aws-steps already" in told.err


def test_new_says_what_it_made_and_what_to_type_next(cli: Cli) -> None:
    told = cli("handlers", "new", "pump", "--shell", "--into", "deep/er")

    assert told.code == 0
    made = [str(path.relative_to(cli.folder / "deep/er/pump")) for path in (cli.folder / "deep/er/pump").rglob("*.*")]
    assert {"handlers/pump/run.sh", "handlers/pump/manifest.json", "jobs/try-it.json", "test_pump.py"} <= set(made)
    assert all(f"    {path}\n" in told.out for path in made)
    assert "    cd deep/er/pump\n" in told.out
    assert "    thingjobs run --local jobs --once --config local.toml\n" in told.out


# --- job: what handler scripts call -------------------------------------------------------------------------------

JOB = {
    "contract": 1,
    "jobId": "one",
    "execution": 1,
    "thing": "pump-7",
    "params": {"name": "a b", "count": 3, "on": True, "list": ["x", {"y": "z"}], "none": None, "text": "two\nlines"},
    "verb": "apply",
    "attempt": 2,
    "resumed": False,
    "rebooted": False,
    "dryRun": False,
    "deadline": 1.5,
    "revision": 1,
}


@pytest.fixture
def inside(cli: Cli) -> Cli:
    """The program as a handler calls it; what it says goes to a file."""
    folder = cli.folder / "job"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(JOB))
    (folder / "events").touch()
    cli.environment.update(JOB_DIR=str(folder), JOB_EVENTS=str(folder / "events"))
    return cli


def events(cli: Cli) -> list[Any]:
    """Return what was said."""
    return [json.loads(line) for line in (cli.folder / "job" / "events").read_text().splitlines()]


@pytest.mark.parametrize(
    ("keys", "printed"),
    [
        (["params.name"], "a b\n"),
        (["params.text"], "two\nlines\n"),
        (["params.count", "params.on", "params.list.1.y", "thing", "attempt"], "3\ntrue\nz\npump-7\n2\n"),
        (["params.list"], '["x", {"y": "z"}]\n'),
        (["params.none", "params.name", "--or", ""], "\na b\n"),
        (["params.list.7", "--or", "nothing"], "nothing\n"),
    ],
)
def test_a_script_gets_values_of_its_job(inside: Cli, keys: list[str], printed: str) -> None:
    told = inside("job", "get", *keys)

    assert (told.code, told.out, told.err) == (0, printed, "")


def test_a_value_that_is_not_there_or_cannot_be_told_from_the_next_ends_the_script(inside: Cli) -> None:
    missing = inside("job", "get", "params.none")
    mixed = inside("job", "get", "params.text", "params.name")

    assert (missing.code, missing.out) == (1, "")
    assert missing.err == "thingjobs: the job has no params.none; with --or TEXT that is no error\n"
    assert (mixed.code, mixed.out) == (1, "")


def test_a_script_reports_with_every_quote_in_its_place(inside: Cli) -> None:
    inside("job", "progress", "40", 'he said "no"\n')
    inside("job", "detail", "slot=b", "rest=a=b")

    assert events(inside) == [
        {"progress": 40.0, "message": 'he said "no"\n'},
        {"details": {"slot": "b", "rest": "a=b"}},
    ]


@pytest.mark.parametrize("pair", ["slot", "=b", "the slot=b"])
def test_a_detail_that_the_cloud_would_not_take_is_a_wrong_call(inside: Cli, pair: str) -> None:
    told = inside("job", "detail", "good=yes", pair)

    assert told.code == 2
    assert told.err.startswith(f"thingjobs: {pair!r} is no KEY=VALUE with a key of letters,")
    assert events(inside) == []


def test_a_job_file_that_was_written_by_hand_is_told_what_it_lacks(inside: Cli) -> None:
    lacking = {key: value for key, value in JOB.items() if key != "execution"}
    (inside.folder / "job" / "job.json").write_text(json.dumps(lacking))

    told = inside("job", "get", "params.name")

    assert told.code == 2
    assert told.err.endswith("job.json has no execution\n")


def test_a_script_ends_with_a_reason_and_the_exit_status_that_goes_with_it(inside: Cli) -> None:
    codes = [
        inside("job", "fail", "broken").code,
        inside("job", "fail", "broken", "--code", "fetch.space").code,
        inside("job", "reject", "never").code,
        inside("job", "retry", "busy", "--after", "60").code,
        inside("job", "retry", "busy").code,
    ]

    assert codes == [1, 1, 1, 75, 75]
    assert events(inside) == [
        {"reason": "broken"},
        {"reason": "broken", "code": "fetch.space"},
        {"reason": "never", "code": "handler.rejected", "reject": True},
        {"reason": "busy", "after": 60.0},
        {"reason": "busy"},
    ]


def test_a_download_that_the_policy_forbids_gives_the_reason_and_its_code(inside: Cli) -> None:
    told = inside("job", "download", "https://host.invalid/a?secret=1", "file")

    assert told.code == 1
    (said,) = events(inside)
    assert said["code"] == "fetch.digest"
    assert said["reason"] in told.err
    assert "secret" not in told.err


def test_fresh_parameters_that_do_not_come_are_a_failure(inside: Cli) -> None:
    told = inside("job", "refresh", "--timeout", "0.1")

    assert told.code == 1
    assert [set(event) for event in events(inside)] == [{"refresh"}, {"reason"}]


def test_outside_of_a_job_it_says_that_there_is_none(cli: Cli) -> None:
    told = cli("job", "get", "params.name")

    assert told.code == 2
    assert told.err.startswith("thingjobs: there is no job here: $JOB_DIR is not set;")


@pytest.mark.parametrize("words", [["job"], ["handlers"]])
def test_a_command_without_an_action_shows_its_help_and_exits_2(cli: Cli, words: list[str]) -> None:
    told = cli(*words)

    assert told.code == 2
    assert told.err.startswith(f"usage: thingjobs {words[0]} [-h] ACTION")


@pytest.mark.parametrize(
    "words",
    [
        *(["handlers", action] for action in ("list", "show", "check", "new")),
        *(
            ["job", action]
            for action in ("get", "progress", "detail", "download", "refresh", "fail", "reject", "retry")
        ),
    ],
)
def test_every_action_explains_itself_within_80_columns(cli: Cli, words: list[str]) -> None:
    told = cli(*words, "--help", environment={"COLUMNS": "80"})

    assert told.code == 0
    assert told.out.startswith(f"usage: thingjobs {' '.join(words)} ")
    assert max(map(len, told.out.splitlines())) <= 80
