"""The one door to the network: sends a request once, over a connection of its own, and says how it ended.

No connection is used twice: one that the server has meanwhile closed would look like a call whose answer got lost.
Redirects are not followed, a signature is good for one host only. Nothing is tried again here.
"""

from __future__ import annotations

import re
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3

from thingjobs.cloud.calls import Reply
from thingjobs.cloud.errors import CloudError, Fate, Trouble, unusable
from thingjobs.errors import made_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Larger than any answer of these services: 1,000 jobs of S3 Batch Operations make about 1 MiB.
_LARGEST = 16 * 2**20
_CHUNK = 2**16
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
_UNUSABLE = "its URL, or the proxy's, cannot be used; look at the endpoint that is configured"
_ERRNO = re.compile(r"\[Errno -?[0-9]+\] ")
_CLOCK_WORDS = ("not yet valid", "has expired")


@dataclass(frozen=True, slots=True)
class Line:
    """How servers are reached.

    Attributes:
        ca: the certificates to trust, a file or a folder; None: those that come with requests.
        identity: this device's certificate and its private key; None: it shows none.
        proxy: a URL; "": what the environment says (HTTPS_PROXY, NO_PROXY).
        connect_s: how many seconds a connection may take to come about.
        read_s: how many seconds nothing may arrive.
        whole_s: how many seconds a whole answer may take.
    """

    ca: Path | None = None
    identity: tuple[Path, Path] | None = None
    proxy: str = field(default="", repr=False)
    connect_s: float = 10.0
    read_s: float = 20.0
    whole_s: float = 60.0


def send(
    request: requests.PreparedRequest, line: Line, purpose: str, *, clock: Callable[[], float] = time.time
) -> Reply:
    """Send a request, and return whatever answer there is.

    Args:
        request: is sent as it is.
        line: how.
        purpose: what for, as the rest of a sentence that begins with "cannot".
        clock: seconds since the epoch.

    Raises:
        CloudError: there is no answer, or not all of it; its fate says whether the request may have arrived.
    """
    host = urlsplit(request.url or "").netloc
    if not _HOST.fullmatch(host):
        raise unusable(purpose, _UNUSABLE)
    began = time.monotonic()
    with requests.Session() as session:
        session.verify = str(line.ca) if line.ca else True
        session.cert = (str(line.identity[0]), str(line.identity[1])) if line.identity else None
        session.proxies = {"http": line.proxy, "https": line.proxy} if line.proxy else {}
        session.trust_env = not line.proxy  # else a variable would come before what was configured
        try:
            response = session.send(request, stream=True, allow_redirects=False, timeout=(line.connect_s, line.read_s))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _unanswered(error, _fate(error), purpose, line, host) from None
        with response:
            try:
                body = _body(response, began + line.whole_s)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise _unanswered(error, Fate.UNKNOWN, purpose, line, host) from None
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status_code, headers, body, clock())


def _body(response: requests.Response, until: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > _LARGEST:
            raise OSError(f"its answer is larger than {_LARGEST // 2**20} MiB")
        if time.monotonic() > until:
            raise requests.ReadTimeout
    announced = response.headers.get("Content-Length", "")
    # urllib3 1.26 does not look. Compared as text: Python reads no number of thousands of digits.
    if announced.isdecimal() and announced.lstrip("0") != str(len(body)).lstrip("0"):
        raise urllib3.exceptions.IncompleteRead(len(body), max(0, int(announced[:18]) - len(body)))
    return bytes(body)


def _fate(error: BaseException) -> Fate:
    """Say whether a request that was not answered may have arrived; in doubt it may."""
    below = made_of(error)
    if any(isinstance(cause, _BEFORE_SENDING) or _refused_by_proxy(cause) for cause in below):
        return Fate.NOT_SENT
    # requests looks at the URL and for files before it opens a connection, and says so by itself.
    alone = len(below) == 1 and not isinstance(error, (requests.Timeout, requests.ConnectionError))
    return Fate.NOT_SENT if alone else Fate.UNKNOWN


def _refused_by_proxy(cause: BaseException) -> bool:
    """Return whether a proxy opened no tunnel. ProxyError alone is none: what a tunnel loses is one, too."""
    return type(cause) is OSError and str(cause).startswith("Tunnel connection failed")


#: Nothing was sent yet when one of these was raised.
_BEFORE_SENDING = (
    requests.ConnectTimeout,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.LocationParseError,
    ssl.SSLCertVerificationError,
)


def _unanswered(error: BaseException, fate: Fate, purpose: str, line: Line, host: str) -> CloudError:
    trouble, why = _why(error, line)
    if fate is Fate.NOT_SENT:
        known = f" ({host})" if isinstance(error, (requests.Timeout, requests.ConnectionError)) else ""
    else:
        known = "; it may have been carried out all the same"
    return CloudError(f"cannot {purpose}: {why}{known}", trouble, fate)


def _why(error: BaseException, line: Line) -> tuple[Trouble, str]:
    below = made_of(error)
    if refused := next((cause for cause in below if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return _distrusted(refused)
    for cause in below:
        match cause:
            case urllib3.exceptions.NewConnectionError():  # it is a ConnectTimeoutError, too
                break
            case requests.ConnectTimeout() | urllib3.exceptions.ConnectTimeoutError():
                return Trouble.UNREACHABLE, f"no connection within {line.connect_s:g} s"
            case requests.ReadTimeout() | urllib3.exceptions.ReadTimeoutError() | TimeoutError():
                return Trouble.UNREACHABLE, "the answer, or the rest of it, did not come in time"
            case urllib3.exceptions.IncompleteRead():
                return Trouble.UNREACHABLE, "the answer broke off in the middle"
    if isinstance(error, ValueError):
        return Trouble.INPUT, _UNUSABLE
    said = _said(below)
    identified = line.identity and said.startswith("TLS ")
    return Trouble.UNREACHABLE, f"{said}; does the service know this device's certificate?" if identified else said


def _distrusted(error: ssl.SSLCertVerificationError) -> tuple[Trouble, str]:
    said = error.verify_message or "it cannot be verified"
    if any(words in said for words in _CLOCK_WORDS):
        return Trouble.CLOCK, f"the server's certificate is refused: {said}; is this device's clock right?"
    fix = "is this the right host, and does AWS_CA_BUNDLE, or connection.ca for the credentials, name who signed it?"
    return Trouble.UNREACHABLE, f"the server's certificate is refused: {said}; {fix}"


def _said(below: list[BaseException]) -> str:
    for cause in reversed(below):
        if isinstance(cause, ssl.SSLError):
            words = cause.reason or (cause.strerror or "no reason is given").partition(" (_ssl")[0]
            return f"TLS failed: {words.replace('_', ' ').lower()}"
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return _ERRNO.sub("", str(cause).rpartition(": ")[2]).lower()
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        if type(cause) is OSError:  # what a proxy answered; a file that is missing
            return str(cause)
    return "the connection broke" if len(below) > 1 else f"the connection broke ({type(below[0]).__name__})"
