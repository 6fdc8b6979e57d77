"""The JSON Schema (draft-07) of the configuration, for editors and provisioning tools.

Made from the table of keys; it describes all files together. `python -m thingjobs.config.schema` prints it;
thingjobs/schemas/config.json keeps the text, and a test fails if that is not current.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from thingjobs.config.keys import KEYS, SECTIONS

if TYPE_CHECKING:
    from thingjobs.config.keys import Key
    from thingjobs.model import Json


def schema() -> Json:
    """Return the schema."""
    sections = {section: _section(section) for section in SECTIONS if "." not in section}
    sections["thing"]["oneOf"] = [{"required": ["name"]}, {"required": ["name_from"]}]
    sections["connection"]["required"] = ["endpoint"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of thingjobs",
        "type": "object",
        "additionalProperties": False,
        "required": ["thing", "connection"],
        "properties": {**sections, "facts": _key(KEYS["facts"])},
    }


def text() -> str:
    """Return the schema as it is kept in the file."""
    return json.dumps(schema(), indent=2) + "\n"


def _section(section: str) -> Json:
    properties = {key.name.rpartition(".")[2]: _key(key) for key in KEYS.values() if _lies_in(key.name, section)}
    inner = {name.rpartition(".")[2]: _section(name) for name in SECTIONS if _lies_in(name, section)}
    needed = {"required": ["module"]} if section == "connection.pkcs11" else {}
    return {"type": "object", "additionalProperties": False, "properties": {**properties, **inner}, **needed}


def _lies_in(name: str, section: str) -> bool:
    return name.rpartition(".")[0] == section


def _key(key: Key) -> Json:
    default = {} if key.default is None else {"default": key.default}
    return {"description": key.does, **key.kind.schema, **default}


if __name__ == "__main__":
    sys.stdout.write(text())
