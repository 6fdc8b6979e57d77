"""Talking to web servers, for downloads and uploads: who is trusted, where credentials go, what is followed."""

from __future__ import annotations

import http.client
import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.auth import HTTPBasicAuth

from thingjobs.fetch.rules import objection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.fetch.rules import Digest, Rules

_MAX_REDIRECTS = 5
_REDIRECTS = {"GET": (301, 302, 303, 307, 308), "PUT": (307, 308)}
_UNUSABLE = "the URL, or one it is redirected to, cannot be used"


class RefusedError(Exception):
    """What will not be done, however often it is tried; the message says why."""


class Session(requests.Session):
    """One that sends credentials to nobody else, and follows redirects only where they may lead.

    Args:
        digest: what makes up for plain http.
        rules: the local policy.
    """

    def __init__(self, digest: Digest, rules: Rules) -> None:
        super().__init__()
        self._digest = digest
        self._rules = rules
        self.verify = _authorities(os.environ)

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the signature is theirs
        """Say that there is none: even when told not to follow redirects, requests reads all of their bodies."""
        return None

    def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: Callable[[], object] = lambda: None
    ) -> requests.Response:
        """Return the reply that is no redirect.

        Args:
            method: GET or PUT.
            url: where to ask.
            headers: to be sent along.
            body: makes what is sent, anew for each server that is asked.

        Raises:
            RefusedError: the URL, or one it is redirected to, cannot be used.
        """
        auth = _auth_of(url)
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = self.request(
                    method,
                    url,
                    headers=dict(headers),
                    data=body(),  # type: ignore[arg-type]
                    auth=auth,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._rules.connect_s, self._rules.stall_s),
                )
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
                raise RefusedError(_UNUSABLE) from None
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS[method] or not location:
                return response
            response.close()
            following = self._redirected(url, location)
            if _origin(following) != _origin(url):
                auth = _no_auth
            url = following
        raise RefusedError("it is redirected without end")

    def _redirected(self, url: str, location: str) -> str:
        try:
            following = urljoin(url, location)
        except ValueError:
            following = ""
        if objection(following, digest=self._digest, rules=self._rules):
            raise RefusedError(_UNUSABLE)
        if url.startswith("https:") and not following.startswith("https:"):
            raise RefusedError("it is redirected from https to plain http")
        return following


class Quiet(logging.Filter):
    """Keeps urllib3 from logging requests, whose queries are secrets, while it is used."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let warnings through."""
        return record.levelno >= logging.WARNING

    def __enter__(self) -> None:
        logging.getLogger("urllib3.connectionpool").addFilter(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("urllib3.connectionpool").removeFilter(self)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stand in for what requests would else look up in ~/.netrc."""
    return request


def _auth_of(url: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    name, password = requests.utils.get_auth_from_url(url)
    return HTTPBasicAuth(name, password) if name else _no_auth


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _authorities(environment: Mapping[str, str]) -> str | bool:
    """Return what to trust; requests itself looks at REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, and puts those first."""
    return environment.get("SSL_CERT_FILE") or environment.get("SSL_CERT_DIR") or True


def why(error: Exception, rules: Rules) -> str:
    """Return what went wrong as a sentence without a URL in it; "" where whoever counts the bytes can say it better."""
    match error:
        case requests.ConnectTimeout():
            return f"no connection within {rules.connect_s:g} s"
        case requests.ReadTimeout() | TimeoutError() | urllib3.exceptions.ReadTimeoutError():
            return f"no data for {rules.stall_s:g} s"
        case http.client.IncompleteRead():
            return ""
        case _:
            return _cause(error) or f"the connection broke ({type(error).__name__})"


def _cause(error: BaseException) -> str:
    """Return what the operating system, the resolver, TLS or a proxy said at the bottom of it."""
    said = ""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, http.client.RemoteDisconnected):
            said = "the server closed the connection without an answer"
        elif isinstance(below, OSError) and below.strerror:
            said = below.strerror
        elif type(below) is OSError:  # how http.client tells what a proxy answered
            said = str(below)
        below = below.__cause__ or below.__context__
    return said
