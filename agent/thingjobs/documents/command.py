"""The `command` of a runCommand step, split into an argv without a shell."""

from __future__ import annotations

import re

from thingjobs.documents.shape import invalid

#: A backslash right before a comma always escapes it, also when another backslash is in front.
_SEPARATOR = re.compile(r"(?<!\\),")
_BLANK = " \t\n\v\f\r"


def split(place: str, command: str) -> list[str]:
    r"""Split a command at its commas.

    Written `\,` a comma stands for itself; everything else (quotes, `$`, `*`, `|`) is literal. White space
    around a part is dropped, and empty parts vanish. A part of white space alone is kept as an empty string:
    there is no other way to write an empty argument, and the AWS IoT Device Client keeps it too.

    Args:
        place: where the command stands, for the reason.
        command: what the document says.

    Raises:
        DocumentError: there is no program to run.
    """
    parts = [part.replace("\\,", ",").strip(_BLANK) for part in _SEPARATOR.split(command) if part]
    if not parts or not parts[0]:
        raise invalid(f"{place} names no program to run")
    if any(letter in _BLANK for letter in parts[0]):
        raise invalid(
            f"{place} must have commas between the program and its arguments, as in echo,Hello: "
            "its first part has white space in it"
        )
    return parts
