"""Who the files belong to that an agent in service believes, and the way that leads to them; packaging/THREATS.md."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import belongings
from thingjobs.config import Authorizer, Cloud, Config, Connection, Pkcs11, State, local

if TYPE_CHECKING:
    from pathlib import Path

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give files away")
SECRETS = ("certificate", "private_key", "ca", "private_key_password_file", "module", "pin", "token", "bundle")


@pytest.fixture
def sound(tmp_path: Path) -> list[Config]:
    """Configurations all of whose files are ours, in folders of ours: with a key, a token and an authorizer."""
    tmp_path.chmod(0o755)
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "d" / "c.toml").touch(mode=0o644)
    files: dict[str, Any] = {name: tmp_path / "d" / name for name in SECRETS}
    for path in files.values():
        path.touch(mode=0o600)
    key = Connection("localhost", **{name: files[name] for name in SECRETS[:4]})
    bare = {"endpoint": "localhost", "transport": "awsiot", "private_key": None, "ca": files["ca"]}
    pin = Pkcs11(files["module"], pin_file=files["pin"])
    token = Connection(**bare, certificate=files["certificate"], pkcs11=pin)
    shown = Connection(**bare, certificate=None, authorizer=Authorizer(token_key="t", token_file=files["token"]))
    whole = replace(local(tmp_path), cloud=Cloud(ca_bundle=files["bundle"]), state=State(tmp_path / "state"))
    return [replace(whole, connection=connection) for connection in (key, token, shown)]


def told(configs: list[Config], folder: Path) -> list[str]:
    found = (belongings.problems(config, [folder / "d" / "c.toml"]) for config in configs)
    return list(dict.fromkeys(problem for problems in found for problem in problems))


def test_what_is_ours_in_folders_of_ours_is_right(sound: list[Config], tmp_path: Path) -> None:
    assert told(sound, tmp_path) == []


def test_a_folder_above_that_others_may_write_is_told_once_for_all_that_is_in_it(
    sound: list[Config], tmp_path: Path
) -> None:
    (tmp_path / "d").chmod(0o777)

    said = [f"{tmp_path}/d/c.toml: {tmp_path}/d may be written by others; run chmod go-w {tmp_path}/d"]
    assert told(sound, tmp_path) == said
    (tmp_path / "d").chmod(0o1777)
    assert told(sound, tmp_path) == [], "as in /tmp, nobody can replace what is another's"


@as_root
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("d/c.toml", "{}/d/c.toml"),
        ("d/certificate", "connection.certificate"),
        ("d/private_key", "connection.private_key"),
        ("d/ca", "connection.ca"),
        ("d/private_key_password_file", "connection.private_key_password_file"),
        ("d/module", "connection.pkcs11.module"),
        ("d/pin", "connection.pkcs11.pin_file"),
        ("d/token", "connection.authorizer.token_file"),
        ("d/bundle", "AWS_CA_BUNDLE"),
        ("state", "state.directory"),
    ],
)
def test_a_file_of_another_account_is_told(sound: list[Config], tmp_path: Path, file: str, name: str) -> None:
    path = tmp_path / file
    os.chown(path, 65534, -1)

    (said,) = told(sound, tmp_path)

    assert said == f"{name.format(tmp_path)}: {path} belongs to user 65534, not to root; run chown -h root {path}"


@as_root
def test_a_link_of_another_account_and_a_link_through_its_folder_are_told(sound: list[Config], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "ca").touch(mode=0o644)
    (tmp_path / "d" / "ca").unlink()
    (tmp_path / "d" / "ca").symlink_to(theirs / "ca")
    assert told(sound, tmp_path) == []

    os.chown(theirs, 65534, -1)
    (said,) = told(sound, tmp_path)
    assert said.startswith(f"connection.ca: {theirs} belongs to user 65534")
    os.chown(theirs, 0, -1)
    os.chown(tmp_path / "d" / "ca", 65534, -1, follow_symlinks=False)
    (said,) = told(sound, tmp_path)
    assert said.startswith(f"connection.ca: {tmp_path}/d/ca belongs to user 65534")


@as_root
def test_what_lies_in_a_folder_of_the_configuration_is_looked_at(sound: list[Config], tmp_path: Path) -> None:
    os.chown(tmp_path / "d" / "c.toml", 65534, -1)

    (said,) = belongings.problems(sound[0], [tmp_path / "d"])

    assert said.startswith(f"{tmp_path}/d/c.toml: {tmp_path}/d/c.toml belongs to user 65534")


def test_what_is_not_there_is_for_others_to_tell(sound: list[Config], tmp_path: Path) -> None:
    for path in (tmp_path / "d").iterdir():
        path.unlink()
    (tmp_path / "state").rmdir()

    assert told(sound, tmp_path) == []
