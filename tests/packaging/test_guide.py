"""The operator's guide: its commands for AWS run in their order against an emulator, and what it names is there."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cli import parser

if TYPE_CHECKING:
    from tests.conftest import Ministack, Require

HERE = Path(__file__).resolve().parent
GUIDE = HERE.parents[1] / "packaging/README.md"
RUN = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE_SECONDS = 100


def aws() -> Any:
    """Return the stand-in for the AWS CLI: this folder is no package."""
    spec = importlib.util.spec_from_file_location("guide_aws_cli", HERE / "aws_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_device_and_its_first_jobs_are_made_as_the_guide_says(
    ministack: Ministack, require: Require, tmp_path: Path
) -> None:
    require("boto3")
    desk = tmp_path / "bin"
    desk.mkdir()
    (desk / "thingjobs").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -m thingjobs "$@"\n')
    # The root certificate is public, and nothing here asks for it.
    (desk / "curl").write_text('#!/bin/sh\nfor url; do :; done\ntouch "${url##*/}"\n')
    for command in desk.iterdir():
        command.chmod(0o755)
    script = "\n".join(RUN.findall(GUIDE.read_text()))
    with aws().installed(desk / "aws", ministack.boto):
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", script],
            cwd=tmp_path,
            env={"PATH": f"{desk}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    iot = ministack.boto("iot")
    jobs = {job["jobId"] for job in iot.list_job_executions_for_thing(thingName="pump-7")["executionSummaries"]}
    assert jobs >= {"hello-1", "ask-1", "hello-all"}
    (principal,) = iot.list_thing_principals(thingName="pump-7")["principals"]
    assert [policy["policyName"] for policy in iot.list_attached_policies(target=principal)["policies"]] == [
        "thingjobs"
    ]
    document = json.loads(iot.get_policy(policyName="thingjobs")["policyDocument"])
    assert "pump-7" not in json.dumps(document)
    assert (tmp_path / "device.key").read_text().startswith("-----BEGIN")


def test_the_commands_of_thingjobs_that_the_guide_names_are_there() -> None:
    named = set(re.findall(r"thingjobs ((?:handlers )?[a-z-]+)(?: |`|$)", "\n".join(commands()), re.MULTILINE))

    assert {"check", "run", "status", "policy", "handlers list", "validate"} <= named
    for words in named:
        with pytest.raises(SystemExit) as end:
            parser().parse_args([*words.split(), "--help"])
        assert end.value.code == 0, words


def commands() -> list[str]:
    """Return what the guide sets as code, in blocks and in lines, but for the names of packages."""
    text = GUIDE.read_text()
    found = re.findall(r"`(thingjobs [^`]+)`", text)
    found += re.findall(r"^ +(thingjobs .*)$", text, re.MULTILINE)
    return [
        *found,
        *(line for block in RUN.findall(text) for line in block.splitlines() if line.startswith("thingjobs ")),
    ]


def test_every_file_that_the_guide_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text()):
        assert (GUIDE.parent / link).exists(), link


def test_every_heading_that_the_guide_links_to_is_there() -> None:
    text = GUIDE.read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
