"""Signature Version 4 for requests, by requests-aws4auth; for all but S3 and for S3, which differ.

Source: "Signature Version 4 signing process" in the IAM user guide. What is signed is what goes over the wire,
checked against botocore's signers. Where requests-aws4auth does otherwise, its rule is replaced here:

- the path is taken without what follows a `;`, and for S3 with `//` and `..` collapsed, which S3 leaves alone; path and
  query are decoded and encoded anew, which changes bytes that are no UTF-8, and a `+` in a query into a space;
- a header's value with spaces and one quotation mark raises ValueError;
- `x-amz-content-sha256` is sent to every service, botocore sends it to S3 alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from requests_aws4auth import AWS4Auth, AWS4SigningKey

if TYPE_CHECKING:
    from datetime import datetime

    from requests import PreparedRequest

    from thingjobs.cloud.credentials import Credentials

_DIGEST = "x-amz-content-sha256"
_ALWAYS = frozenset({"host", "content-type", "x-amz-date", "x-amz-security-token"})


def sign(request: PreparedRequest, credentials: Credentials, *, region: str, service: str, at: datetime) -> None:
    """Add the headers that sign a request: date, digest of the body (S3), session token, host and Authorization.

    Args:
        request: its URL must be quoted as it will be sent; its body, if any, is bytes.
        credentials: whose signature.
        region: such as `eu-west-1`.
        service: the name to sign for; `s3` (which S3 Control goes by) is signed as S3 wants it.
        at: the time to sign with, aware, in UTC; the service takes it if it is within 5 minutes of its own, S3 15.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = stamp
    # Written down here, because then it is what goes over the wire, whatever port or name the connection is for.
    request.headers["Host"] = _host(request.url or "")
    amazon = {name.lower() for name in request.headers if name.lower().startswith("x-amz-")}
    signed = amazon | _ALWAYS | {_DIGEST}
    key = AWS4SigningKey(credentials.secret_access_key, region, service, stamp[:8])
    _Signer(
        credentials.access_key_id,
        key,
        session_token=credentials.session_token or None,
        include_hdrs=signed if service == "s3" else signed - {_DIGEST},
    )(request)
    if service != "s3":
        del request.headers[_DIGEST]


def _host(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"


class _Signer(AWS4Auth):  # type: ignore[misc]  # the library has no types
    """The library's signer, with botocore's rules of what is canonical."""

    def get_canonical_request(self, req: PreparedRequest, cano_headers: str, signed_headers: str) -> str:
        parts = urlsplit(req.url or "")
        path = (parts.path or "/") if self.service == "s3" else quote(_without_dots(parts.path) or "/", safe="/~")
        pairs = sorted(pair.partition("=")[::2] for pair in parts.query.split("&")) if parts.query else []
        query = "&".join(f"{key}={value}" for key, value in pairs)
        return "\n".join([(req.method or "").upper(), path, query, cano_headers, signed_headers, req.headers[_DIGEST]])

    @staticmethod
    def amz_norm_whitespace(text: str) -> str:
        return " ".join(text.split())


def _without_dots(path: str) -> str:
    """Remove `.`, `..` and empty segments; a slash at either end stays."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" * path.startswith("/") + "/".join(kept) + "/" * (bool(kept) and path.endswith("/"))
