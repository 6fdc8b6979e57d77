"""What may be fetched, and what of a URL may be shown. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

#: Each by the number of its hexadecimal digits, which is how one without a name is told.
_ALGORITHMS = {64: "sha256", 96: "sha384", 128: "sha512"}
_HEX = re.compile(r"[0-9a-f]+")
_PINNED = re.compile(r"#(sha256|sha384|sha512)=(.*)", re.DOTALL)
#: What no URL has: it would end a line of the request, or be changed on the way.
_ILLEGAL = re.compile(r"[\x00-\x20\x7f]")


class FetchError(Exception):
    """A file was not fetched; the target is as it was.

    Attributes:
        code: of the published list: fetch.digest, fetch.space, fetch.failed, or cancelled.
        reason: a sentence for people, without a secret in it.
        resumable: what came so far was kept, and the next call goes on from there.
    """

    def __init__(self, code: str, reason: str, *, resumable: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.resumable = resumable


@dataclass(frozen=True, slots=True)
class Rules:
    """What the local policy says of downloads, and how patient they are.

    Attributes:
        max_kib_s: the most that is taken from the network, in KiB a second; 0: no limit.
        digest_required: a download without a digest is refused.
        allow_http: plain http is allowed from anywhere, even without a digest.
        attempts: how often in a row it may be tried without one more byte.
        until: seconds since the epoch; before that it is tried again however often nothing came: a line may be down.
        stall_s: after how many seconds without a byte a connection is given up.
        connect_s: how many seconds a connection may take to come about.
        first_pause_s: between attempts, seconds; doubled each time, and jittered in full.
        longest_pause_s: what the pause does not pass, seconds.
    """

    max_kib_s: int = 0
    digest_required: bool = True
    allow_http: bool = False
    attempts: int = 10
    until: float = 0.0
    stall_s: float = 60.0
    connect_s: float = 20.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """What whoever asked wants to hear and is asked; the fields are arguments of `thingjobs.fetch.fetch`."""

    report: Callable[[int, int | None], None] = lambda *_: None
    fresh_url: Callable[[], str] | None = None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file must hash to; `name` is "" when nobody said."""

    name: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.value}" if self.name else ""

    def new(self) -> _Hash | None:
        """Return what hashes as this digest does; None: nothing needs to be hashed."""
        return hashlib.new(self.name, usedforsecurity=True) if self.name else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller promises to accept.

    Attributes:
        size: exactly so many bytes; None: any number.
        max_bytes: no more than so many; None: as many as there is space for.
    """

    digest: Digest
    size: int | None = None
    max_bytes: int | None = None

    def objection(self, length: int, *, whole: bool) -> str:
        """Return why a file of `length` bytes is not wanted, "" if it may be; not `whole`: it may be longer yet."""
        if self.max_bytes is not None and length > self.max_bytes:
            return f"it is longer than the {self.max_bytes} bytes that are allowed"
        if self.size is not None and (length > self.size or (whole and length != self.size)):
            return f"it has {'' if whole else 'more than '}{length} bytes where {self.size} were announced"
        return ""


def parse_digest(text: str) -> Digest:
    """Read `sha256:HEX`, `sha384:HEX`, `sha512:HEX`, or one of them without its name.

    Raises:
        FetchError: it is none of these.
    """
    if not text:
        return Digest()
    name, colon, value = text.strip().lower().rpartition(":")
    found = _ALGORITHMS.get(len(value)) if _HEX.fullmatch(value) else None
    if found is None or (colon and name != found):
        raise FetchError(
            Code.FETCH_DIGEST, "the digest cannot be used: give sha256:, sha384: or sha512: and all its hexadecimals"
        )
    return Digest(found, value)


def promised(url: str, digest: str) -> Digest:
    """Return what a file must hash to: as the caller says, and as the end of the URL does (`#sha256=HEX`).

    Job documents that are signed hold their presigned URLs, which nobody can sign, to a digest in this way.

    Raises:
        FetchError: fetch.digest; one of the two cannot be used, or they contradict each other.
    """
    said, pinned = parse_digest(digest), _PINNED.search(url)
    if pinned is None:
        return said
    found = parse_digest(f"{pinned[1]}:{pinned[2] or '-'}")
    if said.name and said != found:
        raise FetchError(
            Code.FETCH_DIGEST, f"the job document says {found} of the file at {public(url)}, and its handler {said}"
        )
    return found


def public(url: str) -> str:
    """Return a URL without what may be secret in it: the query, the fragment, user and password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        return "a URL that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def objection(url: str, *, digest: Digest, rules: Rules) -> str:
    """Return why a URL may not be fetched, "" if it may.

    A digest makes up for plain http, because it says what must arrive; it cannot be read along in secret either way.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("https", "http") or not parts.hostname or _ILLEGAL.search(url):
        return "it is no URL that begins with https://"
    if parts.scheme == "https" or rules.allow_http or digest.name or _loopback(parts.hostname):
        return ""
    return "plain http needs a digest: anybody on the way could change the file; use https, or give the digest"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
