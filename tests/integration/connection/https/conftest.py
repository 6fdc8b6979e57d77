"""The transport `https` and a real HTTPS server with mutual TLS; the contract of all transports is in contract/."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.jobs import Refused, Update
from thingjobs.model import ThingName
from thingjobs.testing.web import Answer, WebJobsService
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import Link
from thingjobs.transport.https import HttpsTransport, Site
from thingjobs.transport.https_line import Line
from thingjobs.transport.https_wire import call_for, doubt, read, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest
    from tests.conftest import Pki
    from tests.integration.connection.conftest import Device

    from thingjobs.jobs import Reply, Request
    from thingjobs.testing import JobsService
    from thingjobs.testing.web import Call

THING = ThingName("plant:a_7-b")
PATIENCE_SECONDS = 20.0


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    """The Jobs service, behind HTTPS."""
    with WebJobsService(service, tls=pki.server_tls()) as serving:
        yield serving


@pytest.fixture
def new_site(pki: Pki) -> Callable[[int], Site]:
    """Tells where the service is: on that port."""

    def make(port: int) -> Site:
        certificate, key = pki.device("device")
        link = Link("localhost", port, "unused", THING, 300, certificate, key, pki.ca, patience=PATIENCE_SECONDS)
        return Site(link)

    return make


@pytest.fixture
def site(web: WebJobsService, new_site: Callable[[int], Site]) -> Site:
    """Where the service is."""
    return new_site(web.port)


class Asker:
    """One line, and what the service said over it; no threads."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.line = Line(site, Certificates(site.link, time.time))

    def ask(self, request: Request) -> Reply:
        reply = read(request, self.line.ask(call_for(request, self.site.link.thing)))
        question = doubt(request, reply)
        if question is not None and isinstance(request, Update) and isinstance(reply, Refused):
            found = read(question, self.line.ask(call_for(question, self.site.link.thing)))
            return settled(request, reply, found)
        return reply


@pytest.fixture
def new_asker() -> Iterator[Callable[[Site], Asker]]:
    made: list[Asker] = []

    def make(site: Site) -> Asker:
        made.append(Asker(site))
        return made[-1]

    yield make
    for asker in made:
        asker.line.rest()


@pytest.fixture
def asker(site: Site, new_asker: Callable[[Site], Asker]) -> Asker:
    return new_asker(site)


@pytest.fixture
def connect(
    site: Site, new_device: Callable[[HttpsTransport], Device[HttpsTransport]]
) -> Callable[..., Device[HttpsTransport]]:
    """Starts transports."""

    def start(
        to: Site = site, roll: float = 0.02, dice: Callable[[], float] | None = None, **more: Any
    ) -> Device[HttpsTransport]:
        return new_device(HttpsTransport(to, dice or (lambda: roll), **more)).start()

    return start


class Hang:
    """Has the server take its time, until it is told to go on."""

    def __init__(self, web: WebJobsService) -> None:
        self._going = threading.Event()
        self._remove = web.interpose(self._wait)

    def _wait(self, _call: Call) -> None:
        self._going.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        self._remove()
        self._going.set()


@pytest.fixture
def hang(web: WebJobsService) -> Iterator[Callable[[], Hang]]:
    """Has the server take its time from now on."""
    hanging: list[Hang] = []

    def begin() -> Hang:
        hanging.append(Hang(web))
        return hanging[-1]

    yield begin
    for one in hanging:
        one.end()


@dataclass
class Signer:
    """Signs with the cloud bridge's own signing, as the command line will have it done."""

    region: str = "eu-west-1"
    refusals: int = 0
    error: Exception | None = None

    def sign(self, request: PreparedRequest) -> None:
        from thingjobs.cloud.credentials import Credentials
        from thingjobs.cloud.signing import sign

        if self.error is not None:
            raise self.error
        credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "a+session/token==")
        sign(request, credentials, region=self.region, service="iot-jobs-data", at=datetime.now(UTC))

    def refused(self) -> None:
        self.refusals += 1


@pytest.fixture
def new_signer() -> type[Signer]:
    """Makes what signs."""
    return Signer


@pytest.fixture
def signed(service: JobsService, pki: Pki) -> Iterator[tuple[WebJobsService, Site]]:
    """A server that asks for no certificate, and where it is."""
    with WebJobsService(service, tls=pki.server_tls(mutual=False)) as serving:
        link = Link("localhost", serving.port, "unused", THING, ca=pki.ca, patience=PATIENCE_SECONDS)
        yield serving, Site(link, signer=Signer())


@pytest.fixture
def refusal() -> Callable[[int, str], Answer]:
    """Makes answers of the service that refuse: from the status and the name of the exception."""
    json_ = {"Content-Type": "application/json"}
    return lambda status, name: Answer(status, b"{}", {**json_, "x-amzn-ErrorType": name})
