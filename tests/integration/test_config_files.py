"""Configuration as it lies on a disk: real files, modes and certificates."""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.config import (
    Authorizer,
    Cloud,
    Config,
    Connection,
    Gates,
    Handlers,
    Pkcs11,
    State,
    System,
    check_files,
    default_paths,
    load,
    local,
)
from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Pki

GOOD = '[thing]\nname = "pump"\n[connection]\nendpoint = "localhost"\n'
NOBODY = 65534


def write(path: Path, content: str | bytes) -> Path:
    """Write a file that only its owner may read, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems(*paths: Path) -> tuple[str, ...]:
    """Return what is wrong with configuration files; they must not load."""
    with pytest.raises(ConfigError) as caught:
        load(paths, environment={})
    return caught.value.problems


def problem(*paths: Path) -> str:
    """Return the one thing that is wrong."""
    (only,) = problems(*paths)
    return only


@contextmanager
def without_leave(path: Path) -> Iterator[None]:
    """Take the leave to use a path away; root, whom no mode stops, becomes nobody for as long."""
    mode = path.stat().st_mode
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.chmod(mode)


# --- Which files are read ---------------------------------------------------------------------------------


def test_drop_ins_are_read_after_the_main_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "config.toml", GOOD + '[facts]\na = "main"\nb = "main"\nc = "main"\n')
    write(tmp_path / "conf.d" / "20-b.toml", '[facts]\nc = "20"\n')
    write(tmp_path / "conf.d" / "10-a.toml", '[facts]\nb = "10"\nc = "10"\n')
    config = load(default_paths(tmp_path), environment={})
    assert config.facts == {"a": "main", "b": "10", "c": "20"}


def test_what_editors_and_packages_leave_beside_drop_ins_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "config.toml", GOOD)
    for name in (".10-a.toml", "10-a.toml~", "10-a.toml.dpkg-new", "README"):
        write(tmp_path / "conf.d" / name, "this is not TOML")
    assert load(default_paths(tmp_path), environment={}).thing.name == "pump"


def test_without_drop_ins_the_main_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "config.toml", GOOD)
    assert default_paths(tmp_path) == (tmp_path / "config.toml",)
    assert load(default_paths(tmp_path), environment={}).connection.endpoint == "localhost"


def test_where_nothing_is_installed_there_are_no_paths(tmp_path: Path) -> None:
    assert default_paths(tmp_path) == ()
    assert default_paths(write(tmp_path / "file", "")) == ()


def test_drop_ins_without_the_main_file_do_not_hide_that_it_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "conf.d" / "a.toml", GOOD)
    assert problem(*default_paths(tmp_path)).startswith(f"{tmp_path}/config.toml: there is no such file")


@pytest.mark.skipif(Path("/etc/thingjobs").exists(), reason="thingjobs is installed on this machine")
def test_a_system_without_configuration_is_told_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"^/etc/thingjobs/config\.toml: there is no such file; ") as caught:
        load(environment={})
    assert len(caught.value.problems) == 1


def test_a_folder_can_be_given_in_place_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", '[thing]\nname = "pump"\n')
    write(tmp_path / "b.toml", '[connection]\nendpoint = "localhost"\n')
    assert load([tmp_path], environment={}).thing.name == "pump"


def test_relative_paths_are_made_absolute_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "etc" / "config.toml", GOOD + '[handlers]\ndirectory = "handlers"\n')
    monkeypatch.chdir(tmp_path)
    assert load([Path("etc/config.toml")], environment={}).handlers.directory == (tmp_path / "etc" / "handlers",)


# --- Files that cannot be read ----------------------------------------------------------------------------


def test_a_missing_file_is_one_problem_and_hides_none_in_the_others(tmp_path: Path) -> None:
    extra = write(tmp_path / "extra.toml", "[jobs]\nonly = 3\n")
    first, second = problems(tmp_path / "config.toml", extra)
    assert first == f"{tmp_path}/config.toml: there is no such file; write it, or name another one with --config"
    assert second.startswith("jobs.only = 3")


def test_a_file_without_leave_to_read_it_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", GOOD)
    with without_leave(path):
        assert problem(path).startswith(f"{path}: cannot be read (Permission denied); let the account")


def test_a_link_to_itself_is_a_problem_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.symlink_to(path)
    assert problem(path).startswith(f"{path}: cannot be read (Too many levels of symbolic links); ")


def test_a_folder_without_leave_to_read_it_is_a_problem_and_no_empty_configuration(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "config.toml", GOOD)
    write(tmp_path / "etc" / "conf.d" / "a.toml", "")
    with without_leave(tmp_path / "etc"):
        assert "cannot be read (Permission denied)" in problems(*default_paths(tmp_path / "etc"))[0]
    with without_leave(tmp_path / "etc" / "conf.d"):
        assert "cannot be read (Permission denied)" in problems(*default_paths(tmp_path / "etc"))[-1]


def test_a_file_that_is_not_utf_8_is_told_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", (GOOD + "# Pümpe\n").encode("latin-1"))
    assert problem(path) == f"{path}, line 5: is not UTF-8; save the file as UTF-8"


def test_a_syntax_error_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", GOOD + 'name = \n"x"')
    assert problem(path).startswith(f"{path}, line 5, column 8: is not TOML: invalid value; ")


def test_a_syntax_error_at_the_end_is_told_too(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", '[thing]\nname = "x')
    assert problem(path).startswith(f"{path}, at its end: is not TOML: ")


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = " + "9" * 10_000], ids=["nested", "digits"])
def test_what_the_toml_reader_gives_up_on_is_a_problem_like_any_other(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "config.toml", content)
    assert problem(path).startswith(f"{path}: is not TOML that can be read: ")


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load([path], environment={}).thing.name == "pump"


@given(content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_content_is_read_or_refused_with_sentences(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.toml", GOOD.encode() + content)
    try:
        said: str = load([path], environment={}).thing.name
    except ConfigError as error:
        said = "".join(error.problems)
    assert said


# --- The thing's name -------------------------------------------------------------------------------------


def test_the_name_comes_from_a_real_certificate(tmp_path: Path, pki: Pki) -> None:
    certificate, key = pki.device("valve:9")
    settings = f'endpoint = "localhost"\ncertificate = "{certificate}"\nprivate_key = "{key}"\n'
    path = write(tmp_path / "config.toml", f'[thing]\nname_from = "certificate-cn"\n[connection]\n{settings}')
    config = load([path], environment={})
    assert (config.thing.name, config.thing.name_from) == ("valve:9", "certificate-cn")
    assert config.connection.client_id == "valve:9"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "holds no PEM certificate"),
        (b"\xff", "holds no PEM certificate"),
    ],
)
def test_a_certificate_without_a_name_is_told_with_its_path(tmp_path: Path, content: bytes | None, said: str) -> None:
    certificate = tmp_path / "device.pem"
    if content is not None:
        write(certificate, content)
    path = write(tmp_path / "config.toml", GOOD.replace('name = "pump"', 'name_from = "certificate-cn"'))
    write(path, path.read_text() + 'certificate = "device.pem"\n')
    told = problem(path)
    assert told.startswith(f'thing.name_from = "certificate-cn" (in {path}): {certificate} {said}; ')
    assert told.endswith('put that right, or write name = "pump-7" instead')


@pytest.mark.parametrize(("content", "name"), [("valve", "valve"), ("  valve-9 \n", "valve-9"), ("x" * 128, "x" * 128)])
def test_the_name_comes_from_a_file(tmp_path: Path, content: str, name: str) -> None:
    write(tmp_path / "name", content)
    path = write(tmp_path / "config.toml", GOOD.replace('name = "pump"', 'name_from = "file:name"'))
    assert load([path], environment={}).thing.name == name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is ''"),
        (b"two words", "is 'two words'"),
        (b"x" * 1000, "…'"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_file_without_a_name_that_a_thing_can_have_is_a_problem(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path / "name", content)
    path = write(tmp_path / "config.toml", GOOD.replace('name = "pump"', 'name_from = "file:name"'))
    told = problem(path)
    assert told.startswith(f'thing.name_from = "file:name" (in {path}): ')
    assert f"{tmp_path}/name" in told
    assert said in told


def test_the_name_comes_from_the_host(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", GOOD.replace('name = "pump"', 'name_from = "hostname"'))
    hostname = socket.gethostname()
    if re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", hostname):
        assert load([path], environment={}).thing.name == hostname
    else:
        assert repr(hostname) in problem(path)


# --- The time zone of the maintenance windows -------------------------------------------------------------


def gates(tmp_path: Path, content: str, **environment: str) -> Gates:
    """Return the gates of a file with these lines in its section [gates]."""
    return load([write(tmp_path / "config.toml", f"{GOOD}[gates]\n{content}\n")], environment=environment).gates


def test_the_zone_is_the_one_written_else_that_of_the_environment_else_that_of_the_device(tmp_path: Path) -> None:
    windows = 'windows = ["Sat"]'
    assert gates(tmp_path, f'{windows}\ntime_zone = "UTC"', TZ="Europe/Berlin").time_zone == "UTC"
    assert gates(tmp_path, windows, TZ=":Europe/Berlin").time_zone == "Europe/Berlin"
    assert gates(tmp_path, windows, TZ=":/etc/localtime").time_zone == ""
    assert gates(tmp_path, windows).time_zone == ""


def test_a_zone_that_is_not_there_is_a_problem_where_windows_need_it(tmp_path: Path) -> None:
    wrong = 'is no time zone that this device knows; install tzdata, or write "UTC"'
    path = write(tmp_path / "written.toml", f'{GOOD}[gates]\ntime_zone = "Europe/Atlantis"\n')
    assert problem(path) == f'gates.time_zone = "Europe/Atlantis" (in {path}): Europe/Atlantis {wrong}'
    with pytest.raises(ConfigError) as caught:
        gates(tmp_path, 'windows = ["Sat"]', TZ="CET-1CEST")
    assert caught.value.problems == (f'TZ = "CET-1CEST" (in the environment): CET-1CEST {wrong}',)
    assert gates(tmp_path, "", TZ="CET-1CEST").time_zone == ""


def test_a_window_that_is_none_is_told_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", f'{GOOD}[gates]\nwindows = ["Sat", "Mo 22:00-04:00"]\n')
    assert problem(path) == (
        f'gates.windows = ["Sat", "Mo 22:00-04:00"] (in {path}): must be a list of maintenance windows, and '
        '"Mo 22:00-04:00" is none: "Mo" is no day; the days are Mon Tue Wed Thu Fri Sat Sun, '
        'for example ["Mon-Fri 22:00-04:00", "Sat,Sun"]'
    )


# --- A run on this machine alone --------------------------------------------------------------------------


def test_a_local_run_needs_no_file_at_all(tmp_path: Path) -> None:
    config = local(tmp_path)
    assert config.thing.name
    assert config.connection.endpoint == ""
    assert config.state.directory == tmp_path / ".thingjobs"
    assert config.handlers == replace(Handlers(), user=None)


def test_a_local_run_keeps_its_state_in_the_folder_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local(Path("jobs")).state.directory == tmp_path / "jobs" / ".thingjobs"


def test_what_the_files_of_a_local_run_set_counts(tmp_path: Path) -> None:
    content = '[thing]\nname = "demo"\n[handlers]\nuser = "nobody"\n[state]\ndirectory = "state"\n'
    config = local(tmp_path / "jobs", [write(tmp_path / "demo.toml", content)])
    assert config.thing.name == "demo"
    assert config.handlers.user == "nobody"
    assert config.state.directory == tmp_path / "state"


def test_a_local_run_connects_to_nothing_even_where_its_files_say_how(tmp_path: Path) -> None:
    config = local(tmp_path, [write(tmp_path / "config.toml", GOOD)])
    assert config.connection.endpoint == ""
    assert [said for said in check_files(config) if said.startswith("connection")] == []


def test_a_local_run_tells_all_problems_of_its_files(tmp_path: Path) -> None:
    path = write(tmp_path / "demo.toml", '[thing]\nname = "a b"\n[jobs]\nonly = 3\n')
    with pytest.raises(ConfigError) as caught:
        local(tmp_path, [path])
    assert [said.partition(" ")[0] for said in caught.value.problems] == ["thing.name", "jobs.only"]


def test_a_local_run_takes_the_endpoints_of_the_environment(tmp_path: Path) -> None:
    assert local(tmp_path, environment={"AWS_ENDPOINT_URL": "http://h:1"}).cloud.batch_url == "http://h:1"


# --- The files that a configuration names -----------------------------------------------------------------


@pytest.fixture
def sound(tmp_path: Path, pki: Pki) -> Config:
    """Give a configuration whose files are all as they should be; tests spoil copies of them."""
    certificate, key = pki.device("pump")
    connection = Connection(
        "localhost",
        certificate=write(tmp_path / "device.pem", certificate.read_bytes()),
        private_key=write(tmp_path / "device.key", key.read_bytes()),
        ca=write(tmp_path / "ca.pem", pki.ca.read_bytes()),
    )
    for folder in ("handlers", "handlers/hello", "scripts", "gates"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(0o755)
    base = load([write(tmp_path / "config.toml", GOOD)], environment={})
    return replace(
        base,
        connection=connection,
        handlers=Handlers(directory=(tmp_path / "handlers",), scripts=tmp_path / "scripts"),
        gates=Gates(tmp_path / "gates"),
        system=System(boot_id_file=write(tmp_path / "boot_id", "1234\n")),
        state=State(tmp_path / "state"),
    )


def with_file(config: Config, name: str, path: Path) -> Config:
    """Return the configuration with another file for one setting of the connection."""
    changed: dict[str, Any] = {name: path}
    return replace(config, connection=replace(config.connection, **changed))


def test_sound_files_give_no_problem(sound: Config) -> None:
    assert check_files(sound) == []


def test_a_connection_without_certificate_needs_no_files(sound: Config) -> None:
    bare = Connection("localhost", certificate=None, private_key=None, ca=None)
    assert check_files(replace(sound, connection=bare)) == []


@pytest.mark.parametrize("name", ["certificate", "private_key", "ca"])
def test_a_missing_file_is_told_with_its_setting(sound: Config, tmp_path: Path, name: str) -> None:
    gone = tmp_path / "gone.pem"
    config = with_file(sound, name, gone)
    assert check_files(config) == [
        f"connection.{name}: there is no file {gone}; put it there, or set connection.{name} to where it is"
    ]


def test_all_missing_files_are_told_at_once(sound: Config, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    connection = replace(sound.connection, certificate=gone, private_key=gone, ca=gone)
    said = check_files(replace(sound, connection=connection, handlers=Handlers((gone,), gone)))
    assert [line.partition(":")[0] for line in said] == [
        "connection.certificate",
        "connection.private_key",
        "connection.ca",
        "handlers.directory",
        "handlers.scripts",
    ]


@pytest.mark.parametrize("name", ["certificate", "private_key", "ca"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_told_and_never_waited_for(
    sound: Config, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    odd = tmp_path / "odd"
    make(odd)
    config = with_file(sound, name, odd)
    assert check_files(config) == [f"connection.{name}: {odd} is not a file; set connection.{name} to one"]


def test_a_file_that_cannot_be_read_for_another_reason_is_told_with_it(sound: Config, tmp_path: Path) -> None:
    path = tmp_path / "loop.pem"
    path.symlink_to(path)
    (said,) = check_files(with_file(sound, "ca", path))
    assert said.startswith(f"connection.ca: {path} cannot be read (Too many levels of symbolic links); ")


def test_a_certificate_that_this_account_may_not_read_is_told(sound: Config) -> None:
    certificate = sound.connection.certificate
    assert certificate is not None
    with without_leave(certificate):
        said = check_files(sound)
    wanted = f"connection.certificate: {certificate} cannot be read by this account; "
    assert any(line.startswith(wanted) for line in said)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660, 0o777, 0o602])
def test_a_key_that_others_may_use_is_told_with_the_command_that_helps(sound: Config, mode: int) -> None:
    key = sound.connection.private_key
    assert key is not None
    key.chmod(mode)
    assert check_files(sound) == [
        f"connection.private_key: others may use {key} (mode {mode:04o}); run chmod 600 {key}"
    ]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_only_its_owner_may_use_is_right(sound: Config, mode: int) -> None:
    key = sound.connection.private_key
    assert key is not None
    key.chmod(mode)
    assert check_files(sound) == []


def test_a_path_with_a_space_can_be_pasted_into_a_shell(sound: Config, tmp_path: Path) -> None:
    key = sound.connection.private_key
    assert key is not None
    spaced = write(tmp_path / "my key", key.read_bytes())
    spaced.chmod(0o644)
    (said,) = check_files(with_file(sound, "private_key", spaced))
    assert said.endswith(f"run chmod 600 '{spaced}'")


@pytest.mark.parametrize("name", ["certificate", "private_key", "ca"])
def test_a_file_that_is_not_pem_is_told(sound: Config, tmp_path: Path, name: str) -> None:
    binary = write(tmp_path / "device.der", b"\x30\x82\x01\x00")
    config = with_file(sound, name, binary)
    assert check_files(config) == [f"connection.{name}: {binary} is not a PEM file; convert it with openssl"]


def test_swapped_files_are_told(sound: Config) -> None:
    certificate, key = sound.connection.certificate, sound.connection.private_key
    assert certificate is not None
    swapped = replace(sound.connection, certificate=key, private_key=certificate)
    first, second = check_files(replace(sound, connection=swapped))
    assert f"{key} holds a PRIVATE KEY, not a CERTIFICATE" in first
    assert f"{certificate} holds a CERTIFICATE, not a PRIVATE KEY" in second


def test_the_key_of_another_certificate_is_told(sound: Config, tmp_path: Path, pki: Pki) -> None:
    other = write(tmp_path / "other.key", pki.device("other")[1].read_bytes())
    (said,) = check_files(with_file(sound, "private_key", other))
    assert said.startswith(f"connection.private_key: {other} is not the key of the certificate ")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_with_a_password_is_told_and_nobody_is_asked_for_it(
    sound: Config, tmp_path: Path, form: PrivateFormat
) -> None:
    assert sound.connection.private_key is not None
    key = load_pem_private_key(sound.connection.private_key.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
    path = write(tmp_path / "locked.key", locked)
    (said,) = check_files(with_file(sound, "private_key", path))
    assert said.startswith(f"connection.private_key: {path} has a password")


@pytest.fixture
def locked(sound: Config, tmp_path: Path) -> Config:
    """Give a configuration whose private key has the password `secret`, in a file."""
    assert sound.connection.private_key is not None
    key = load_pem_private_key(sound.connection.private_key.read_bytes(), None)
    form = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    config = with_file(sound, "private_key", write(tmp_path / "locked.key", form))
    return with_file(config, "private_key_password_file", write(tmp_path / "password", "secret\n"))


def test_a_key_with_a_password_in_a_file_is_sound(locked: Config) -> None:
    assert check_files(locked) == []


def test_a_password_that_does_not_open_the_key_is_told(locked: Config, tmp_path: Path) -> None:
    write(tmp_path / "password", "Secret\n")
    (said,) = check_files(locked)
    assert said == (
        f"connection.private_key_password_file: what {tmp_path}/password holds does not open {tmp_path}/locked.key; "
        "correct it"
    )


def test_a_password_for_a_key_without_one_does_no_harm(sound: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "password", "secret")
    assert check_files(with_file(sound, "private_key_password_file", path)) == []


def secrets(sound: Config, path: Path) -> dict[str, Config]:
    """Return configurations in which one secret is in a file, by the name of its setting."""
    base = replace(sound.connection, transport="awsiot", private_key=None, pkcs11=Pkcs11(path.parent / "token"))
    bare = Connection("localhost", "awsiot", certificate=None, private_key=None, ca=None, authorizer=Authorizer())
    token: dict[str, Any] = {"token_key": "token", "token_file": write(path.parent / "token", "t")}
    shown = {
        "authorizer.password_file": replace(bare, authorizer=Authorizer(password_file=path)),
        "authorizer.token_file": replace(bare, authorizer=Authorizer(token_key="t", token_file=path)),
        "authorizer.signature_file": replace(bare, authorizer=Authorizer(**token, signature_file=path)),
        "pkcs11.pin_file": replace(base, pkcs11=Pkcs11(path.parent / "token", pin_file=path)),
        "private_key_password_file": replace(sound.connection, private_key_password_file=path),
    }
    return {f"connection.{name}": replace(sound, connection=connection) for name, connection in shown.items()}


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("secret\n", 0o600, []),
        ("secret", 0o640, ["others may use {path} (mode 0640); run chmod 600 {path}"]),
        ("", 0o600, ["{path} does not hold one line of text; write the secret alone into it, on one line"]),
        ("a\nb", 0o600, ["{path} does not hold one line of text; write the secret alone into it, on one line"]),
        (b"\xff", 0o600, ["{path} is not UTF-8 text; write the secret alone into it, on one line"]),
        (None, 0, ["there is no file {path}; put it there, or set {name} to where it is"]),
    ],
)
def test_a_file_with_a_secret_holds_one_line_that_nobody_else_may_read(
    sound: Config, tmp_path: Path, content: str | bytes | None, mode: int, said: list[str]
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        write(path, content).chmod(mode)
    for name, config in secrets(sound, path).items():
        assert check_files(config) == [f"{name}: {line.format(path=path, name=name)}" for line in said]


def test_a_library_for_a_token_that_is_not_there_is_told(sound: Config, tmp_path: Path) -> None:
    gone = tmp_path / "gone.so"
    connection = replace(sound.connection, transport="awsiot", private_key=None, pkcs11=Pkcs11(gone))
    (said,) = check_files(replace(sound, connection=connection))
    assert said.startswith(f"connection.pkcs11.module: there is no file {gone}; put it there, or set ")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_both_forms_of_a_key_are_right(sound: Config, tmp_path: Path, form: PrivateFormat) -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption

    assert sound.connection.private_key is not None
    key = load_pem_private_key(sound.connection.private_key.read_bytes(), None)
    path = write(tmp_path / "plain.key", key.private_bytes(Encoding.PEM, form, NoEncryption()))
    assert check_files(with_file(sound, "private_key", path)) == []


def test_a_damaged_certificate_is_told(sound: Config) -> None:
    certificate = sound.connection.certificate
    assert certificate is not None
    lines = certificate.read_text().splitlines()
    write(certificate, "\n".join([lines[0], *lines[2:]]))
    (said,) = check_files(sound)
    assert said.startswith(f"connection.certificate: {certificate} and {sound.connection.private_key} cannot be used")


def test_damaged_certificates_to_trust_are_told(sound: Config, tmp_path: Path) -> None:
    damaged = write(tmp_path / "bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    trusted = with_file(sound, "ca", damaged)
    assert check_files(trusted) == [
        f"connection.ca: the certificates in {damaged} are damaged; put the file there anew"
    ]
    from_environment = replace(sound, cloud=Cloud(ca_bundle=damaged))
    assert check_files(from_environment) == [
        f"AWS_CA_BUNDLE: the certificates in {damaged} are damaged; put the file there anew"
    ]


@pytest.mark.parametrize("name", ["handlers", "scripts", "gates"])
@pytest.mark.parametrize("mode", [0o757, 0o775, 0o1777])
def test_a_folder_of_programs_that_others_may_change_is_told(
    sound: Config, tmp_path: Path, name: str, mode: int
) -> None:
    (tmp_path / name).chmod(mode)
    (said,) = check_files(sound)
    assert said.startswith({"scripts": "handlers.scripts", "gates": "gates.directory"}.get(name, "handlers.directory"))
    assert said.endswith(f": others may change {tmp_path / name}, and it is run here; run chmod go-w {tmp_path / name}")


def test_one_handler_that_others_may_change_does_not_stop_the_agent(sound: Config, tmp_path: Path) -> None:
    (tmp_path / "handlers" / "hello").chmod(0o777)

    assert check_files(sound) == []


def test_a_handler_folder_that_is_a_file_is_told(sound: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "")
    said = check_files(replace(sound, handlers=replace(sound.handlers, directory=(path,))))
    assert said == [f"handlers.directory: {path} is not a folder; set handlers.directory to one"]


def test_a_handler_folder_that_cannot_be_listed_is_told(sound: Config, tmp_path: Path) -> None:
    with without_leave(tmp_path / "handlers"):
        said = check_files(sound)
    assert any(line.startswith(f"handlers.directory: {tmp_path}/handlers cannot be listed (Perm") for line in said)


def test_a_link_that_leads_nowhere_among_the_handlers_is_no_problem(sound: Config, tmp_path: Path) -> None:
    (tmp_path / "handlers" / "old").symlink_to(tmp_path / "gone")
    assert check_files(sound) == []


def test_a_boot_id_that_is_missing_or_empty_is_told(sound: Config, tmp_path: Path) -> None:
    write(tmp_path / "boot_id", "\n")
    (said,) = check_files(sound)
    assert said.startswith(f"system.boot_id_file: {tmp_path}/boot_id is empty")
    (tmp_path / "boot_id").unlink()
    (said,) = check_files(sound)
    assert said.startswith(f"system.boot_id_file: there is no file {tmp_path}/boot_id")


def test_the_kernels_own_boot_id_is_right(sound: Config) -> None:
    assert check_files(replace(sound, system=System())) == []


def test_a_state_folder_that_is_a_file_or_lies_below_one_is_told(sound: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "file", "")
    for directory in (path, path / "state"):
        (said,) = check_files(replace(sound, state=State(directory)))
        assert said.startswith(f"state.directory: {path} is not a folder; ")


def test_a_state_folder_that_this_account_cannot_write_or_make_is_told(sound: Config, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    for directory in (tmp_path / "closed", tmp_path / "closed" / "state"):
        with without_leave(tmp_path / "closed"):
            said = check_files(replace(sound, state=State(directory)))
        assert any(line.startswith("state.directory: this account may not write in ") for line in said)
