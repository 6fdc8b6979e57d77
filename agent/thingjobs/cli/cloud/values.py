"""Jobs of the cloud as JSON, for scripts. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def as_json(value: Any) -> Any:
    """Return a value of `thingjobs.cloud` as JSON has it: names in camelCase, times in ISO 8601 and UTC.

    What the service did not say is null, or "" for text.
    """
    if dataclasses.is_dataclass(value):
        return {_camel(one.name): as_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case Mapping():
            return {str(name): as_json(inner) for name, inner in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case _:
            return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
