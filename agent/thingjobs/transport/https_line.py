"""One way to an HTTPS server with requests: one request after the other, each with its whole answer.

requests is used below its sessions: so no cookie is kept, no redirect followed, and neither the environment nor
`.netrc` has a say. What it is given in their place is in `https_adapter`.

Connections stay open for the next request until `rest`, so that a job needs one handshake and a day of waiting none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import requests
import urllib3
from urllib3.exceptions import SystemTimeWarning

from thingjobs.transport.dial import tls_context
from thingjobs.transport.https_adapter import BROKE_OFF, Adapter, Held, as_os_errors
from thingjobs.transport.https_wire import MAX_ANSWER_BYTES, Answer

if TYPE_CHECKING:
    from requests import PreparedRequest

    from thingjobs.transport.certificates import Certificates
    from thingjobs.transport.https_wire import Call
    from thingjobs.transport.link import Link

#: AWS IoT Core developer guide, "Device communication protocols": HTTPS with a certificate on port 443.
ALPN_443 = "x-amzn-http-ca"
_CHUNK = 16 * 1024


class Signer(Protocol):
    """Signs requests with Signature Version 4 for `iot-jobs-data`, where no certificate says who we are."""

    def sign(self, request: PreparedRequest) -> None:
        """Add the headers that sign a request.

        Raises:
            ThingjobsError: there are no credentials; the message says why.
        """

    def refused(self) -> None:
        """The service did not take the credentials: fetch others for the next request."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the service is and how to get there.

    Attributes:
        link: the host, who we are, whom to trust and the proxy, whatever the environment says; its `version` means
            nothing here, and `keep_alive` is how often at most its files are looked at while a connection is open.
        signer: None: the certificate of the link says who we are.
        agent: the User-Agent.
    """

    link: Link
    signer: Signer | None = None
    agent: str = "thingjobs"

    @property
    def alpn(self) -> str:
        """The protocol to ask for in TLS; "": what the library asks for."""
        return ALPN_443 if self.link.port == 443 and self.link.certificate is not None else ""

    @property
    def base(self) -> str:
        """The URL before the path."""
        host = self.link.host.strip("[]")
        return f"https://{f'[{host}]' if ':' in host else host}:{self.link.port}"


class Line:
    """Sends one request after the other. Only `cut` is for other threads.

    Args:
        site: where to.
        certificates: looks at the certificate files of the link.
    """

    def __init__(self, site: Site, certificates: Certificates) -> None:
        self._site = site
        self._certificates = certificates
        self._held = Held(site.link)
        self._adapter: Adapter | None = None
        # "System time is way off": whoever uses this says so with the error that comes of it, and better.
        urllib3.disable_warnings(SystemTimeWarning)

    def ask(self, call: Call) -> Answer:
        """Send a request and return the answer, whatever its status; each step may take the patience of the link.

        Raises:
            OSError: there is no whole answer, or a file cannot be read.
            ThingjobsError: the certificates cannot be used, or there are no credentials to sign with.
        """
        patience = self._site.link.patience
        adapter = self._ready()
        request = self._prepared(call)
        with as_os_errors():
            response = adapter.send(request, stream=True, timeout=(patience, patience))
            with response:
                body = _body(response, time.monotonic() + patience)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, headers, body)

    def rest(self) -> None:
        """Close what is open: nothing will be asked for a while."""
        if self._adapter is not None:
            self._adapter.close()

    def cut(self) -> None:
        """End what is under way, from any thread, and all that would come after it."""
        self._held.cut()

    def _ready(self) -> Adapter:
        link = self._site.link
        looks = self._held.idle or self._certificates.overdue
        if self._adapter is not None and looks and self._certificates.replaced(tls_context):
            self._adapter.close()
            self._adapter = None
        if self._adapter is None:
            self._certificates.opened()
            context = tls_context(link)
            if self._site.alpn:
                context.set_alpn_protocols([self._site.alpn])
                # urllib3 would put its own in the place of it.
                vars(context)["set_alpn_protocols"] = _nothing
            self._adapter = Adapter(context, self._held)
        return self._adapter

    def _prepared(self, call: Call) -> PreparedRequest:
        headers = {"User-Agent": self._site.agent}
        if call.body:
            headers["Content-Type"] = "application/json"
        request = requests.Request(call.method, self._site.base + call.path, headers, data=call.body).prepare()
        if self._site.signer is not None:
            self._site.signer.sign(request)
        return request


def _body(response: requests.Response, until: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ConnectionAbortedError(f"its answer is larger than {MAX_ANSWER_BYTES // 1024} KiB")
        if time.monotonic() > until:
            raise ConnectionAbortedError("its answer takes too long")
    announced = response.headers.get("Content-Length", "")
    # urllib3 1.26 does not look. Compared as text: Python reads no number of thousands of digits.
    if announced.isdecimal() and announced.lstrip("0") != str(len(body)).lstrip("0"):
        raise ConnectionAbortedError(BROKE_OFF)
    return bytes(body)


def _nothing(*_: object) -> None:
    """Stands where a library would change what is settled."""
