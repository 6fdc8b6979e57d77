"""How a sentence shows what somebody else wrote. Pure."""

from __future__ import annotations

from thingjobs.redact import redacted

SHOWN_CHARACTERS = 120


def shown(text: str) -> str:
    """Return a text as a sentence may show it: without what a URL hides, printable and short."""
    hidden = redacted(text)
    cut = hidden if len(hidden) <= SHOWN_CHARACTERS else hidden[:SHOWN_CHARACTERS] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in cut)
