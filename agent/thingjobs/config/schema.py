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
    sections = {section: _section(section) for section in SECTIONS}
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
    keys = (key for name, key in KEYS.items() if name.startswith(f"{section}."))
    properties = {key.name.partition(".")[2]: _key(key) for key in keys}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _key(key: Key) -> Json:
    default = {} if key.default is None else {"default": key.default}
    return {"description": key.does, **key.kind.schema, **default}


if __name__ == "__main__":
    sys.stdout.write(text())
