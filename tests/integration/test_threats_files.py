"""packaging/THREATS.md: files that decide whom the agent believes, and what the journal's checksum is not."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs import records
from thingjobs.config import Cloud, Config, Connection, Pkcs11, check_files, check_sources, local
from thingjobs.model import Identity, JobId, Phase, Plan, Record

if TYPE_CHECKING:
    from tests.conftest import Pki


@pytest.fixture
def sound(pki: Pki, tmp_path: Path) -> Config:
    """A configuration that nothing is wrong with; all that it names is below `tmp_path`."""
    found = {name: tmp_path / name for name in ("device.pem", "device.key", "ca.pem", "module.so")}
    sources = (*pki.device("pump"), pki.ca, Path("/bin/sh"))
    for path, source in zip(found.values(), sources, strict=True):
        path.write_bytes(source.read_bytes())
        path.chmod(0o600)
    files = {"certificate": found["device.pem"], "private_key": found["device.key"], "ca": found["ca.pem"]}
    connection = Connection("localhost", **files)  # type: ignore[arg-type]
    return replace(local(tmp_path), connection=connection, cloud=Cloud(ca_bundle=found["ca.pem"]))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize(("file", "name"), [("device.pem", "connection.certificate"), ("ca.pem", "connection.ca")])
def test_whom_to_believe_is_not_for_others_to_write(
    sound: Config, tmp_path: Path, file: str, name: str, mode: int
) -> None:
    assert check_files(sound) == []
    (tmp_path / file).chmod(mode)

    said = check_files(sound)

    assert f"{name}: others may change {tmp_path / file}, and it is trusted; run chmod go-w {tmp_path / file}" in said
    assert any(line.startswith("AWS_CA_BUNDLE: others may change") for line in said) == (file == "ca.pem")


def test_a_module_that_is_loaded_into_the_agent_is_not_for_others_to_write(sound: Config, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    connection = replace(sound.connection, transport="awsiot", private_key=None, pkcs11=Pkcs11(module))
    module.chmod(0o757)

    said = check_files(replace(sound, connection=connection))

    assert f"connection.pkcs11.module: others may change {module}, and it is trusted; run chmod go-w {module}" in said


def test_a_configuration_that_only_its_owner_may_write_is_right(tmp_path: Path) -> None:
    (tmp_path / "a.toml").touch(mode=0o644)
    tmp_path.chmod(0o755)

    assert check_sources([tmp_path, tmp_path / "a.toml", tmp_path / "is-not-there.toml"]) == []


def test_a_checksum_tells_damage_and_no_forgery() -> None:
    """Whoever can write the state folder is the agent: THREATS.md says so, and this is why."""
    record = Record(Identity(JobId("j"), 1, 1), Phase.APPLYING, "c", 1, Plan("h", ("/bin/true",)), {})
    body = json.loads(records.dump(record).splitlines()[1])
    body["plan"]["argv"] = ["/bin/sh"]
    line = json.dumps(body).encode()
    head = {"format": records.FORMAT, "sha256": hashlib.sha256(b"%d\n%b" % (records.FORMAT, line)).hexdigest()}

    assert records.load(json.dumps(head).encode() + b"\n" + line + b"\n").plan.argv == ("/bin/sh",)


def test_behind_each_claim_of_the_page_stands_a_test_that_is_there() -> None:
    tests = Path(__file__).parents[1]
    page = (tests.parent / "packaging" / "THREATS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!they can|---).*\| (.*) \|$", page, re.MULTILINE)
    named = re.findall(r"`((?:\w+/)*(?:fuzz|test_\w+|connection/))(?:: ([^`]+))?`", page)
    harnesses = set(re.findall(r"of_\w+\(\s*\"([\w.-]+)\"", "".join(map(_text, tests.glob("fuzz/*.py")))))

    assert len(rows) > 30
    assert [shown for shown in rows if "`" not in shown and shown != "the same"] == []
    for where, words in named:
        if where == "fuzz":
            assert {name.strip() for name in words.split(",")} <= harnesses
            continue
        found = [*tests.rglob(f"{where}**/*.py" if where.endswith("/") else f"{where}.py")]
        wanted = re.compile("def test_" + r"\w*".join(map(re.escape, words.split("…"))) + r"\w*\(")
        assert any(wanted.search(_text(path)) or not words for path in found), (where, words)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
