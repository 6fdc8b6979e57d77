"""Placeholders that AWS IoT should have replaced before the document was delivered.

A literal one in a document means that it did not: a misspelling, or a parameter in a template of one's own.
How it renders an optional parameter of a managed template that was left out is not documented, so where those
stand a literal placeholder, an empty string and a missing key all mean the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from thingjobs.documents.shape import shown
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.model import Json

_START = "${aws:iot:"
_PLACEHOLDER = re.compile(r"\$\{aws:iot:[^}]*\}")


def given(value: str | None) -> str | None:
    """Return the value of an optional parameter, None if it was not given."""
    return value if value and not _PLACEHOLDER.fullmatch(value) else None


def refuse_placeholders(document: Json, *, optional: re.Pattern[str] | None = None) -> None:
    """Refuse a document in which a placeholder was not replaced.

    Args:
        document: the document as delivered.
        optional: the places of optional parameters, which may hold one, such as `steps[0].action.runAsUser`.

    Raises:
        DocumentError: document.placeholder, naming the place and the placeholder.
    """
    if found := placeholder(document, optional=optional):
        raise DocumentError(
            Code.DOCUMENT_PLACEHOLDER,
            f"AWS IoT did not replace {found}: check its spelling; parameters work in managed templates only",
        )


def placeholder(document: Json, *, optional: re.Pattern[str] | None = None) -> str:
    """Return which placeholder stands in a document, and where, for people; "" if there is none."""
    for place, text in _strings(document):
        if _START not in text or (optional and optional.fullmatch(place) and given(text) is None):
            continue
        found = text[text.index(_START) :]
        whole = _PLACEHOLDER.match(found)
        return f"the placeholder {shown(whole.group() if whole else found)} in {place}"
    return ""


def _strings(document: Json) -> Iterator[tuple[str, str]]:
    """Walk over every string, keys included, in the order of the document; depth costs no stack."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            for key in value:
                yield f"a key of {place or 'the document'}", key
            dot = f"{place}." if place else ""
            waiting.extend((dot + key, part) for key, part in reversed(value.items()))
        elif isinstance(value, list):
            waiting.extend((f"{place}[{index}]", value[index]) for index in reversed(range(len(value))))
