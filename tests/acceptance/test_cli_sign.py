"""`thingjobs sign`: from a new key to a job that runs where signatures are demanded."""

from __future__ import annotations

import json
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import ec

KEY = ec.generate_private_key(ec.SECP256R1())
ECHO = {
    "version": "1.0",
    "steps": [{"action": {"name": "greet", "type": "runCommand", "input": {"command": "echo,hello"}}}],
}


@pytest.fixture
def desk(cli: Cli) -> Cli:
    """An author's folder: a document, a key, and a device that trusts the key and demands signatures."""
    secret = cli.folder / "release.key"
    secret.write_bytes(KEY.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    secret.chmod(0o600)
    (cli.folder / "document.json").write_text(json.dumps(ECHO))
    for name in ("keys", "jobs"):
        (cli.folder / name).mkdir(mode=0o755)
    for public in (cli.folder / "release.pem", cli.folder / "keys" / "release.pem"):
        public.write_bytes(KEY.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo))
        public.chmod(0o644)
    (cli.folder / "config.toml").write_text('[signed]\nkeys = "keys"\nrequire = true\n')
    return cli


def sign(desk: Cli, *words: str | Path) -> Path:
    told = desk("sign", "document.json", "--key", "release.key", "--days", "7", *words)
    assert (told.code, told.err) == (0, "")
    path = desk.folder / "jobs" / "greet-1.json"
    path.write_text(told.out)
    return path


def test_a_new_key_is_secret_and_never_takes_the_place_of_another(desk: Cli) -> None:
    assert desk("sign", "--new-key", "next").code == 0
    secret = desk.folder / "next.key"
    before = secret.read_bytes()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    told = desk("sign", "--new-key", "next")
    assert told.code == 2
    assert told.err == "thingjobs: next.pem is there already; choose another name, a key is never overwritten\n"
    assert secret.read_bytes() == before
    (desk.folder / "next.pem").unlink()
    assert desk("sign", "--new-key", "next").code == 2
    assert not (desk.folder / "next.pem").exists(), "half a pair is of no use"


def test_a_new_key_can_be_locked_and_is_opened_by_its_password_alone(desk: Cli) -> None:
    for name, text in (("password", "geheim\n"), ("other", "wrong"), ("empty", "\n"), ("long", "x" * 1024)):
        (desk.folder / name).write_text(text)
        (desk.folder / name).chmod(0o600)
    words = ("document.json", "--days", "7", "--thing", "*", "--key", "locked.key")
    assert desk("sign", "--new-key", "locked", "--password-file", "password").code == 0
    assert (desk.folder / "locked.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert desk("sign", *words, "--password-file", "password").code == 0
    for more, said in (
        ((), "it has a password; say --password-file"),
        (("--password-file", "other"), "the password does not open it"),
        (("--password-file", "empty"), "must hold a password of 1 to 1023 bytes"),
    ):
        told = desk("sign", *words, *more)
        assert (told.code, told.out) == (2, "")
        assert said in told.err
    for password in ("empty", "long"):
        assert desk("sign", "--new-key", "never", "--password-file", password).code == 2
        assert not (desk.folder / "never.key").exists()


def test_a_key_that_cannot_be_written_whole_is_not_there_at_all(desk: Cli) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); "
        "from thingjobs.cli import main; sys.exit(main(['sign', '--new-key', 'next']))"
    )
    told = subprocess.run(
        [desk.python, "-B", "-c", program], cwd=desk.folder, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (2, "thingjobs: cannot write next.key: File too large\n")
    assert not list(desk.folder.glob("next.*"))


def test_what_is_signed_runs_where_signatures_are_demanded_and_the_tools_say_by_whom(desk: Cli) -> None:
    assert desk("sign", "--new-key", "keys/other", "--ed25519").code == 0
    (desk.folder / "keys" / "other.key").rename(desk.folder / "other.key")
    (desk.folder / "keys" / "other.pem").chmod(0o644)
    told = desk("sign", "document.json", "--key", "other.key", "--days", "7", "--thing", "*", "--job", "greet-1")
    path = desk.folder / "jobs" / "greet-1.json"
    path.write_text(told.out)
    here = ("--local", "jobs", "--config", "config.toml")

    assert ": good, for handler aws-steps, signed by other, good until 20" in desk("validate", *here, path).out
    assert "signed by  other, good until 20" in desk("dry-run", *here, path).out
    assert json.loads(desk("validate", "--json", *here, path).out)["signed"].startswith("other, good until 20")

    (desk.folder / "jobs" / "greet-2.json").write_text(told.out)
    (desk.folder / "jobs" / "greet-3.json").write_text(json.dumps(ECHO))
    ran = desk("run", *here, "--once")
    assert ran.code == 1
    assert "1 SUCCEEDED, 2 REJECTED" in ran.out
    assert "document.misdirected: the document was signed for job greet-1, and this job is greet-2" in ran.out
    assert "document.unsigned: " in ran.out


def test_a_url_stands_outside_with_its_digest_inside(desk: Cli) -> None:
    reference = {"$url": "image", "digest": f"sha256:{'ab' * 32}"}
    (desk.folder / "document.json").write_text(json.dumps({"handler": "x", "params": {"image": reference}}))
    placeholder = "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/bucket/image}"
    path = sign(desk, "--thing", "*", "--url", f"image={placeholder}")
    assert json.loads(path.read_text())["urls"] == {"image": placeholder}

    told = desk("sign", "document.json", "--key", "release.key", "--days", "7", "--thing", "*")
    assert told.code == 1
    assert told.err.startswith('thingjobs: cannot sign document.json: the signed document refers to the URL "image"')


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "cannot sign without --key and --days"),
        (("--key", "release.key", "--days", "7"), "cannot sign nothing: name a DOCUMENT"),
        (("document.json", "--key", "release.key", "--days", "7"), 'say --thing "*" for all things'),
        (("document.json", "--key", "release.key", "--days", "7", "--thing", "a b"), "is no name of a thing"),
        (("document.json", "--key", "release.key", "--days", "0", "--thing", "*"), "--days: must be more than 0"),
        (("document.json", "--key", "release.key", "--days", "nan", "--thing", "*"), "--days: must be more than 0"),
        (("document.json", "--key", "release.pem", "--days", "7", "--thing", "*"), "it holds no private key"),
        (("document.json", "--key", "open.key", "--days", "7", "--thing", "*"), "others may use open.key (mode 0640)"),
        (("document.json", "--key", "none.key", "--days", "7", "--thing", "*"), "cannot read none.key"),
        (("document.json", "--key", "document.key", "--days", "7", "--thing", "*"), "it holds no private key"),
        (("document.json", "--key", "release.key", "--days", "7", "--job", "x", "--url", "x"), "write NAME=URL"),
        (
            ("document.json", "--key", "release.key", "--days", "7", "--job", "x", "--not-before", "now"),
            "a time is written as 2027-01-01T00:00:00Z",
        ),
        (
            (
                "document.json",
                "--key",
                "release.key",
                "--days",
                "7",
                "--job",
                "x",
                "--not-before",
                "2020-01-01T00:00:00Z",
            ),
            "the signature would have ended at 2020-01-08T00:00:00Z",
        ),
        (("document.json", "--key", "release.key", "--days", "7", "--job", "x", "--ed25519"), "goes with --new-key"),
        (("document.json", "--new-key", "next"), "--new-key makes a key and signs nothing"),
        (("--new-key", "next", "--key", "release.key"), "--new-key makes a key and signs nothing"),
        (("--new-key", "a b"), "is no name for a key"),
        (("--new-key", "keys/"), "is no name for a key"),
        (("--new-key", "none/release"), "cannot write none/release.pem"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(desk: Cli, words: tuple[str, ...], part: str) -> None:
    (desk.folder / "document.key").write_text("{}")
    (desk.folder / "document.key").chmod(0o600)
    (desk.folder / "open.key").write_bytes((desk.folder / "release.key").read_bytes())
    (desk.folder / "open.key").chmod(0o640)
    told = desk("sign", *words)
    assert (told.code, told.out) == (2, "")
    assert part in told.err


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("[]", "it must be a JSON object, not a list"),
        ("{", "it is not JSON"),
        ('{"a": "\\ud800"}', "half of a"),
        ('{"a": 1e999}', "are no numbers"),
        ("[" * 5000 + "]" * 5000, "nested more than 100 levels"),
        ('{"handler": "mild", "params": {}, "handler": "wild"}', 'it says "handler" twice in one object'),
        ('{"handlr": "x"}', "none of the keys handler, steps and operation"),
        ('{"signed": {}}', "it is signed already"),
        ('{"handler": "x", "params": {"u": "${aws:iot:s3-presigned-url:https://s3/x}"}}', "because that is signed"),
    ],
)
def test_what_no_device_would_take_is_not_signed(desk: Cli, document: str, part: str) -> None:
    told = desk("sign", "-", "--key", "release.key", "--days", "7", "--thing", "*", stdin=document)
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("thingjobs: cannot sign standard input: ")
    assert part in told.err


def test_a_document_that_aws_iot_would_not_take_any_more_is_not_printed(desk: Cli) -> None:
    (desk.folder / "document.json").write_text(json.dumps({"handler": "x", "params": {"text": "x" * 24_000}}))
    sign(desk, "--thing", "*")
    (desk.folder / "document.json").write_text(json.dumps({"handler": "x", "params": {"text": "x" * 24_400}}))
    told = desk("sign", "document.json", "--key", "release.key", "--days", "7", "--thing", "*")
    assert (told.code, told.out) == (1, "")
    assert "AWS IoT takes documents of up to 32768 bytes" in told.err


def test_a_key_with_a_password_is_opened_by_the_file_that_holds_it(desk: Cli) -> None:
    secret, password = desk.folder / "release.key", desk.folder / "password"
    locked = KEY.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.BestAvailableEncryption(b"open"))
    secret.write_bytes(locked)
    password.write_text("open\n")
    password.chmod(0o600)
    sign(desk, "--thing", "*", "--password-file", "password")

    told = desk("sign", "document.json", "--key", "release.key", "--days", "7", "--thing", "*")
    assert told.code == 2
    assert "--password-file" in told.err
