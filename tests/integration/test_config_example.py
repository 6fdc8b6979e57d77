"""What we ship with the configuration: the example, the schema's module, and an import that costs little."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from thingjobs.config import load
from thingjobs.config.keys import KEYS

EXAMPLE = Path(__file__).parents[2] / "examples" / "config.toml"


def shown_defaults() -> dict[str, object]:
    """Return what the example shows behind `#`, by key."""
    section, shown = "", dict[str, object]()
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"\[([a-z.]+)\]", line):
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
    assert shown_defaults() == {**defaults, "thing.name_from": "certificate-cn"}


def test_the_example_has_every_setting() -> None:
    written = {f"{section}.{name}" for section, keys in tomllib.loads(EXAMPLE.read_text()).items() for name in keys}
    assert written | shown_defaults().keys() | {"facts"} == KEYS.keys()


def test_the_example_is_the_same_configuration_with_its_defaults_written_out(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[a-z])(?!name_from)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "config.toml"
    path.write_text(text)
    written = load([path], environment={})
    assert text != EXAMPLE.read_text()
    assert written == load([EXAMPLE], environment={})


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
