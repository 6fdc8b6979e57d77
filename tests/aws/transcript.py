"""What was said and seen, on the terminal and in a file, without what nobody else may know."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from thingjobs.redact import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: What gives itself away by its form, in whatever it stands; in this order.
_FORMS = (
    (re.compile(r"-----BEGIN .*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), "<PEM>"),
    (re.compile(r"(X-Amz-[A-Za-z-]+=)[^&\s\"']+", re.IGNORECASE), r"\1…"),
    (re.compile(r"(Signature=|Credential=)[^&,\s\"']+"), r"\1…"),
    (
        re.compile(
            r"(\"(?:accessKeyId|secretAccessKey|sessionToken|AccessKeyId|SecretAccessKey|SessionToken)\":\s*\")[^\"]*"
        ),
        r"\1…",
    ),
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{12,}\b"), "<key id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<certificate id>"),
    (
        re.compile(r"\b[a-z0-9-]+(\.credentials|\.jobs)?\.iot(-fips)?\.[a-z0-9-]+\.[a-z.]*[a-z]", re.IGNORECASE),
        "<endpoint>",
    ),
    (re.compile(r"(?<![0-9A-Za-z-])[0-9]{12}(?![0-9A-Za-z-])"), "<account>"),
    (re.compile(r"[A-Za-z0-9+/=_-]{100,}"), "<long>"),
)


def hidden(text: str, secrets: Mapping[str, str]) -> str:
    """Return `text` without secrets; pure.

    Args:
        text: anything.
        secrets: what to hide, and what to write in its place; also found where it stands in JSON or in a URL.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for written in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}:
            text = text.replace(written, secrets[secret])
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return redacted(text)


class Transcript:
    """Writes lines to a file, each at once, so that it is all there however this ends.

    Args:
        path: the file; it is made, for its owner alone.
        show: prints a line on the terminal.

    Raises:
        OSError: the file is there already, or cannot be made.
    """

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        self.path = path
        self._show = show
        self._secrets: dict[str, str] = {}
        path.touch(mode=0o600, exist_ok=False)

    def hide(self, secret: str, instead: str) -> None:
        """Never write this from now on."""
        self._secrets[secret] = instead

    def say(self, text: str) -> None:
        """Show and write what people are to read."""
        self.note(text)
        with contextlib.suppress(OSError):  # the terminal may be gone, and what was made must be deleted all the same
            self._show(hidden(text, self._secrets))

    def note(self, text: str) -> None:
        """Write what people may want to look up."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{hidden(text, self._secrets)}\n")
