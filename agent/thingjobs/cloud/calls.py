"""One call of an AWS API as a value, ready to be printed in a dry run or to be signed and sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service is, and what requests to it are signed for.

    Attributes:
        url: `https://HOST`, with a port and a path before the API's own where somebody gave one; no slash at its end.
        region: the region in the signature.
        service: the name in the signature: `s3` for S3 Control, `batch`.
    """

    url: str
    region: str
    service: str


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent.

    Attributes:
        operation: the API operation, such as `UpdateJobStatus`.
        purpose: what it is for, as the rest of a sentence that begins with "cannot".
        action: the IAM action that allows it.
        path: as it goes over the wire: nothing in it needs quoting.
        query: keys and values, not quoted; a key may come more than once.
        headers: what the API wants on top of what signing adds.
        changes: whether it changes something; such a call is never sent again while nobody knows what became of it.
    """

    operation: str
    purpose: str
    action: str
    method: Literal["GET", "POST"]
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    changes: bool = False

    def url(self, endpoint: Endpoint) -> str:
        """Return the whole URL; a space is %20, as signatures want it, never +."""
        query = "&".join(f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in self.query)
        return f"{endpoint.url}{self.path}{'?' * bool(query)}{query}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        headers: by names in lower case.
        received: when, seconds since the epoch by this device's clock.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    received: float = 0.0
