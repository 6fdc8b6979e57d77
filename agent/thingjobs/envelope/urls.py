"""Presigned URLs in a signed document: they stand beside what is signed, and are held to a digest that is in it.

AWS IoT puts a presigned URL in the place of `${aws:iot:s3-presigned-url:…}` when a device asks for the document, so
it cannot have been signed. The signed document has `{"$url": "image", "digest": "sha256:…"}` where the URL belongs.
The handler reads there the URL with the digest behind it, `https://…#sha256=…`, and whatever fetches it for handlers
(`thingjobs.fetch`) holds the file to that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from thingjobs.documents.shape import invalid, kind_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from thingjobs.model import Json

REFERENCE = "$url"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: The characters of RFC 3986 but for #, behind which a digest of its own could stand. An AWS placeholder that was not
#: replaced is told better by who reads the document.
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+|\$\{aws:iot:[^#\x00-\x20\x7f]*")


def names(document: Json) -> list[str]:
    """Return the names of the URLs that a signed document refers to, each once, in its order.

    Raises:
        DocumentError: document.invalid; a reference is written wrongly.
    """
    return list(dict.fromkeys(_name(one) for one in _references(document)))


def filled(document: Json, urls: object) -> Json:
    """Return the document with the URLs in place of the references.

    Args:
        document: as it was signed, with no more levels than a document may have; not changed.
        urls: the URLs by name, signed by nobody.

    Raises:
        DocumentError: document.invalid; a URL lacks, is no URL, or is not referred to.
    """
    wanted = names(document)
    if not isinstance(urls, dict) or not all(isinstance(url, str) for url in urls.values()):
        raise invalid("urls must be an object of URLs by name")
    for name in wanted:
        if name not in urls:
            raise invalid(f'the signed document refers to the URL {shown(name)}: write it as "urls": {{"{name}": …}}')
    for name, url in urls.items():
        if name not in wanted:
            raise invalid(f"urls: nothing that is signed refers to {shown(name)}")
        if not _URL.fullmatch(url):
            raise invalid(f"urls.{name} must be a URL that begins with https://, without # and without spaces")
    return _replaced(document, urls)  # type: ignore[no-any-return]


def _replaced(value: Any, urls: Mapping[str, str]) -> Any:
    match value:
        case {"$url": name, "digest": str(digest)}:
            return f"{urls[name]}#{digest.replace(':', '=')}"
        case dict():
            return {key: _replaced(part, urls) for key, part in value.items()}
        case list():
            return [_replaced(part, urls) for part in value]
        case _:
            return value


def _references(document: Json) -> Iterator[Json]:
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and REFERENCE in value:
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _name(reference: Json) -> str:
    name, digest = reference[REFERENCE], reference.get("digest")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        said = shown(name) if isinstance(name, str) else kind_of(name)
        raise invalid(f"{REFERENCE} must be a name of up to 64 letters, digits, _ . and -, not {said}")
    if set(reference) != {REFERENCE, "digest"} or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        how = f'{{"{REFERENCE}": "{name}", "digest": "sha256:…"}} with all its small hexadecimals, and nothing else'
        raise invalid(f"the reference to the URL {name} must be {how}")
    return name
