"""Time zones by name, and the device's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

LOCAL = Path("/etc/localtime")


def zone(name: str = "", local: Path = LOCAL) -> tzinfo:
    """Return a time zone as it stands on the disk now: the rules of zones change, and so may the device's own.

    Args:
        name: an IANA name; empty: the zone of the device, which is UTC where nobody set one.
        local: the file that holds the device's zone, by custom a link to one with a name.

    Raises:
        ValueError: there is none of that name here; the text is the rest of a sentence.
    """
    from datetime import UTC  # noqa: PLC0415 - not wanted in an agent without maintenance windows
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    if name == "UTC" or (not name and not local.exists()):
        return UTC
    try:
        if name:
            return ZoneInfo.no_cache(name)
        with local.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(local.resolve()).partition("/zoneinfo/")[2] or None)
    except (OSError, KeyError, ValueError) as error:
        here = f"{name} is no time zone that this device knows" if name else f"{local} holds no time zone"
        raise ValueError(f'{here}; install tzdata, or write "UTC"') from error
