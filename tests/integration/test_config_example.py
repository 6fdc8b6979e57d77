"""What we ship with the configuration: the example, the schema's module, and an import that costs little."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from thingjobs.config import Authorizer, Pkcs11, load
from thingjobs.config.keys import KEYS

EXAMPLE = Path(__file__).parents[2] / "examples" / "config.toml"
#: What the example shows of settings without a default.
EXAMPLES = {"thing.name_from": "certificate-cn", "connection.pkcs11.module": "/usr/lib/pkcs11/libtpm2_pkcs11.so"}
#: A section that means something as soon as it is written, up to the next empty line.
OPTIONAL = re.compile(r"^#\[.*?\n\n", re.MULTILINE | re.DOTALL)


def shown_defaults() -> dict[str, object]:
    """Return what the example shows behind `#`, by key."""
    section, shown = "", dict[str, object]()
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"#?\[([a-z0-9.]+)\]", line):
            section = header[1]
        elif re.match(r"#[a-z]", line):
            ((name, value),) = tomllib.loads(line[1:]).items()
            shown[f"{section}.{name}"] = value
    return shown


def test_the_example_loads() -> None:
    config = load([EXAMPLE], environment={})
    assert config.thing.name == "pump-7"
    assert config.connection.endpoint == "abc-ats.iot.eu-west-1.amazonaws.com"


def test_the_defaults_that_the_example_shows_are_those_of_the_code() -> None:
    defaults = {name: key.default for name, key in KEYS.items() if key.default is not None and not key.kind.entries}
    assert shown_defaults() == {**defaults, **EXAMPLES}


def test_the_example_has_every_setting() -> None:
    written = {f"{section}.{name}" for section, keys in tomllib.loads(EXAMPLE.read_text()).items() for name in keys}
    assert written | shown_defaults().keys() | {"facts"} == KEYS.keys()


def test_the_example_is_the_same_configuration_with_its_defaults_written_out(tmp_path: Path) -> None:
    without_optional = OPTIONAL.sub("", EXAMPLE.read_text())
    text = re.sub(r"^#(?=[a-z])(?!name_from)", "", without_optional, flags=re.MULTILINE)
    path = tmp_path / "config.toml"
    path.write_text(text)
    written = load([path], environment={})
    assert text != EXAMPLE.read_text()
    assert written == load([EXAMPLE], environment={})


def test_the_optional_sections_of_the_example_can_be_taken_as_they_are(tmp_path: Path) -> None:
    authorizer, pkcs11 = (
        re.sub(r"^#(?=[a-z[])", "", part, flags=re.MULTILINE) for part in OPTIONAL.findall(EXAMPLE.read_text())
    )
    needed = '[thing]\nname = "pump-7"\n[connection]\nendpoint = "localhost"\ntransport = "awsiot"\n'
    path = tmp_path / "config.toml"
    path.write_text(needed + authorizer)
    assert load([path], environment={}).connection.authorizer == Authorizer()
    path.write_text(needed + pkcs11)
    assert load([path], environment={}).connection.pkcs11 == Pkcs11(Path("/usr/lib/pkcs11/libtpm2_pkcs11.so"))


def test_reading_the_configuration_leaves_no_library_in_memory_that_an_idle_agent_does_not_need() -> None:
    program = (
        "import sys; from pathlib import Path; from thingjobs.config import local; local(Path('/')); "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    unwanted = {"tomllib", "difflib", "ssl", "socket", "logging", "subprocess", "fastjsonschema", "requests", "shlex"}
    assert unwanted.intersection(loaded) == set()


def test_the_schema_is_printed_by_its_module() -> None:
    argv = [sys.executable, "-W", "error", "-m", "thingjobs.config.schema"]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert '"title": "Configuration of thingjobs"' in printed
