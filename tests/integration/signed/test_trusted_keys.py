"""The folder of keys: what is a key, who may have put it there, and what is said where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from thingjobs.config.settings import Signed
from thingjobs.envelope.keys import new_pair
from thingjobs.trusted import trusted_keys

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE, PUBLIC = new_pair()
NOWHERE = '[connection]\nendpoint = "127.0.0.1"\nport = 9\ncertificate = ""\nprivate_key = ""\nca = ""\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one key."""
    made = tmp_path / "keys"
    made.mkdir(mode=0o755)
    put(made / "release.pem", PUBLIC)
    return made


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def wrong(folder: Path, *, require: bool = True) -> str:
    (problem,) = trusted_keys(Signed(keys=folder, require=require))[1]
    return problem


def test_each_pem_file_is_a_key_by_its_name_and_nothing_else_is(folder: Path) -> None:
    put(folder / "next.pem", new_pair(ed25519=True)[1])
    for other in ("README", ".release.pem", "release.pem~"):
        put(folder / other, b"x")
    found, problems = trusted_keys(Signed(keys=folder, require=True))
    assert (sorted(found), problems) == (["next", "release"], [])


def test_a_key_that_others_could_have_put_there_is_not_trusted(folder: Path) -> None:
    (folder / "release.pem").chmod(0o664)
    assert "release.pem may be written by others; run chmod go-w" in wrong(folder)
    (folder / "release.pem").chmod(0o644)
    folder.chmod(0o777)
    assert "keys may be written by others; run chmod go-w" in wrong(folder)
    folder.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(folder / "release.pem", 65534, -1)
        assert "belongs to user 65534, not to root" in wrong(folder)


def test_what_is_no_public_key_is_told_with_what_to_do(folder: Path) -> None:
    put(folder / "release.pem", PRIVATE)
    assert "it holds a private key, which belongs to whoever signs" in wrong(folder)
    put(folder / "release.pem", PUBLIC + PUBLIC)
    assert "it holds PUBLIC KEY, PUBLIC KEY, and must hold one PUBLIC KEY alone" in wrong(folder)
    put(folder / "release.pem", b"")
    assert wrong(folder).endswith("put the public key there that `thingjobs sign --new-key` made")
    (folder / "release.pem").unlink()
    (folder / "release.pem").mkdir()
    assert "it is no file" in wrong(folder)
    (folder / "release.pem").rmdir()
    put(folder / "a b.pem", PUBLIC)
    assert "its name is that of the key" in wrong(folder)


def test_a_key_may_be_a_link_to_one_that_is_to_be_trusted_and_to_no_other(folder: Path, tmp_path: Path) -> None:
    (folder / "release.pem").rename(tmp_path / "elsewhere")
    (folder / "release.pem").symlink_to(tmp_path / "elsewhere")
    assert trusted_keys(Signed(keys=folder))[1] == []
    (tmp_path / "elsewhere").chmod(0o666)
    assert "may be written by others" in wrong(folder)
    (tmp_path / "elsewhere").unlink()
    assert "it is a link that leads nowhere; remove it" in wrong(folder)


def test_where_signatures_are_demanded_there_must_be_a_key(folder: Path, tmp_path: Path) -> None:
    (folder / "release.pem").unlink()
    assert "there is no key in" in wrong(folder)
    assert trusted_keys(Signed(keys=folder)) == ({}, [])
    assert "there is no folder" in wrong(tmp_path / "nowhere", require=False)
    assert trusted_keys(Signed()) == ({}, []) or Signed().keys.exists()


def test_without_the_library_an_agent_with_keys_says_what_to_install_and_one_without_needs_it_not(
    folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    (tmp_path / "jobs").mkdir()
    (tmp_path / "site" / "cryptography").mkdir(parents=True)
    broken = tmp_path / "site" / "cryptography" / "__init__.py"
    demanding = f'[signed]\nkeys = "{folder}"\nrequire = true\n'
    install = "install it: pip install 'thingjobs[signed]'"

    def thingjobs(*words: str, text: str = demanding) -> subprocess.CompletedProcess[str]:
        config.write_text(text)
        start = "import sys; from thingjobs.cli import main; sys.exit(main())"
        told = subprocess.run(
            [sys.executable, "-c", start, *words, "--config", str(config)],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in told.stderr
        return told

    local = ("--local", str(tmp_path / "jobs"))
    for why in (
        "raise ModuleNotFoundError(\"No module named 'cryptography'\")",
        "raise ImportError('libssl.so.3: gone')",
    ):
        broken.write_text(why)
        refused = thingjobs("run", "--once", *local)
        assert refused.returncode == 2
        assert "signed.keys: to verify signatures the agent needs cryptography (" in refused.stderr
        assert install in refused.stderr
    assert "(libssl.so.3: gone)" in refused.stderr
    assert thingjobs("run", "--once", *local, text="").returncode == 0
    checked = thingjobs("check", "--json", text=f'{demanding}[thing]\nname = "p"\n{NOWHERE}')
    assert checked.returncode == 1
    assert "signed.keys: to verify signatures the agent needs cryptography (libssl.so.3: gone)" in checked.stdout
    assert install in checked.stdout
