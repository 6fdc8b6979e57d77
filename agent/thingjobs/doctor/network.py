"""The way to the service, step by step: the name, TCP, the proxy, TLS; and what the server's certificate tells.

The connections are opened by `transport.dial`, as those of the agent are.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from thingjobs.config.clashes import region_of
from thingjobs.doctor import rules, ways
from thingjobs.doctor.findings import failed, ok, parted, warning
from thingjobs.doctor.surroundings import within
from thingjobs.errors import ThingjobsError, TransportError
from thingjobs.transport.dial import Bell, Dial, explain, is_about_dates, tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.config import Config
    from thingjobs.doctor.findings import Verdict
    from thingjobs.doctor.rules import Span, Times
    from thingjobs.doctor.surroundings import Patience
    from thingjobs.transport.link import Link

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name: trust goes by signatures and the name alone.
NO_CHECK_TIME = 0x200000


class Network:
    """Looks at the way to the service; what is asked for twice is looked up once.

    Args:
        config: says how the agent connects.
        link: the same.
        patience: how long each step may take.
    """

    def __init__(self, config: Config, link: Link, patience: Patience) -> None:
        self._config = config
        self._link = link
        self._patience = patience
        #: Where the first TCP connection goes.
        self._first = link.proxy if link.proxy is not None else link
        self._stopping = threading.Event()
        self._addresses: tuple[str, ...] | OSError | None = None
        self._reached: OSError | ThingjobsError | bool | None = None

    # --- name and port --------------------------------------------------------------------------------------------

    def name(self) -> Iterator[Verdict]:
        """Look up the name."""
        found, host = self._look_up(), self._first.host
        what = "the proxy's name" if self._link.proxy is not None else "the name"
        if isinstance(found, TimeoutError):
            said = f"no DNS server says what {host} is within {self._patience.name:.0f} s"
            yield failed(said, "see whether this device has a network at all, and a DNS server (`resolvectl status`)")
        elif isinstance(found, OSError):
            yield failed(f"{what} {host} cannot be resolved: {found.strerror or found}", self._about_name())
        elif found == (host,):
            yield ok(f"{host} is an address already")
        else:
            yield ok(f"{host} is {', '.join(found)}")

    def _about_name(self) -> str:
        key = "connection.proxy" if self._link.proxy is not None else "connection.endpoint"
        see = "; `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it" if self._link.proxy is None else ""
        return f"see whether {key} is written right{see}; if it is, this device has no DNS, or no network"

    def _look_up(self) -> tuple[str, ...] | OSError:
        if self._addresses is None:
            where = (self._first.host, self._first.port)
            try:
                found = within(self._patience.name, lambda: socket.getaddrinfo(*where, type=socket.SOCK_STREAM))
                self._addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
            except OSError as error:
                self._addresses = error
            except UnicodeError:
                self._addresses = OSError(0, "no name is written like that")
        return self._addresses

    def port(self) -> Iterator[Verdict]:
        """Connect by TCP, to the proxy if there is one."""
        where = f"{'the proxy ' * (self._link.proxy is not None)}{self._first.address}"
        match self._reach():
            case TimeoutError():
                yield failed(
                    f"{where} does not answer within {self._patience.reach:.0f} s: what we send there is dropped",
                    f"have the firewall let TCP to port {self._first.port} out{self._elsewhere()}",
                )
            case ConnectionRefusedError():
                yield failed(
                    f"{where} refuses the connection: nobody listens on that port",
                    f"see that {self._where_written()} are right{self._elsewhere()}",
                )
            case OSError() as error:
                said = f"{where} cannot be reached: {error.strerror or error}"
                yield failed(said, "see whether this device has a network, and a route there (`ip route`)")
            case ThingjobsError() as error:
                yield failed(str(error))
            case _:
                yield ok(f"{where} takes the connection")

    def _elsewhere(self) -> str:
        if self._link.proxy is not None or self._link.port == 443:
            return ""
        return "; AWS IoT can be reached on port 443 as well (connection.port = 443), or by connection.proxy"

    def _where_written(self) -> str:
        both = "host and port in connection.proxy"
        return both if self._link.proxy is not None else "connection.endpoint and connection.port"

    def _reach(self) -> OSError | ThingjobsError | bool:
        if self._reached is None:
            direct = replace(ways.bare(self._link), host=self._first.host, port=self._first.port, proxy=None)
            self._reached = self._attempt(replace(direct, patience=self._patience.reach))
        return self._reached

    def _attempt(self, link: Link) -> OSError | ThingjobsError | bool:
        try:
            with self._opened(link):
                return True
        except (OSError, ThingjobsError) as error:
            return error

    @contextlib.contextmanager
    def _opened(self, link: Link) -> Iterator[tuple[socket.socket, Bell]]:
        """Open a connection as the agent does."""
        with contextlib.closing(Bell()) as bell:
            sock = Dial(link, bell, self._stopping).open()
            if not isinstance(sock, socket.socket):
                raise TypeError("a WebSocket was not asked for")
            with sock:
                yield sock, bell

    # --- the proxy ------------------------------------------------------------------------------------------------

    def proxy(self) -> Iterator[Verdict]:
        """Have the proxy open a connection."""
        link = self._link
        if link.proxy is None:
            return
        outcome = self._attempt(replace(ways.bare(link), patience=self._patience.handshake))
        if outcome is True:
            yield ok(f"{link.proxy.address} lets us through to {link.address}")
        else:
            yield _of_proxy(str(outcome))

    # --- TLS ------------------------------------------------------------------------------------------------------

    def tls(self, times: Times) -> Iterator[Verdict]:
        """Shake hands as the agent does, and see whether our certificate is taken."""
        link = replace(ways.tls_only(self._config, self._link), patience=self._patience.handshake)
        if not link.tls:
            yield warning(f"{link.address} is reached without TLS", "set connection.ca and connection.certificate")
            return
        try:
            with self._opened(link) as (sock, bell):
                if isinstance(sock, ssl.SSLSocket):
                    self._hear_out(sock, bell)
                    yield from _of_tls(sock, link)
        except (OSError, ThingjobsError) as error:
            yield failed(_explained(error, link), _about_tls(error, link, times))

    def _hear_out(self, sock: ssl.SSLSocket, bell: Bell) -> None:
        """Wait until the other end has judged our certificate: in TLS 1.3 that comes after the handshake.

        Raises:
            OSError: it was refused.
            TransportError: who is there is not waiting for us.
        """
        if sock.version() != "TLSv1.3" or not bell.sleep(sock, select.POLLIN, self._patience.alert):
            return
        try:
            came = sock.recv(1)
        except ssl.SSLWantReadError:
            return  # a ticket for later, which is given to those who are welcome
        if not came:
            raise ConnectionResetError(0, "the connection was closed right after the TLS handshake")
        raise TransportError(f"{self._link.address} speaks first, which no MQTT broker or web server does")

    def answers_http(self) -> bool:
        """Return whether a web server is there."""
        return self._peer(ask=True) is not None

    # --- what time it is there --------------------------------------------------------------------------------------

    def server_span(self) -> Span | None:
        """Return the dates of the server's certificate, if it is good but for them; None if that cannot be known."""
        found = self._peer()
        return found.span if found is not None else None

    def said(self) -> float | None:
        """Return what the service says that the time is, by HTTP, seconds since the epoch; None if it does not."""
        link = self._link
        if self._config.connection.transport == "https":
            return self._date(link.port)
        return self._date(443) if region_of(link.host) else None

    def _date(self, port: int) -> float | None:
        found = self._peer(port, ask=True)
        return found.said if found is not None else None

    def _peer(self, port: int | None = None, *, ask: bool = False) -> _Peer | None:
        if isinstance(self._look_up(), OSError) or (port is None and self._reach() is not True):
            return None
        tls = replace(ways.tls_only(self._config, self._link), port=port or self._link.port)
        if not tls.tls:
            return None
        try:
            return _peer(tls, self._stopping, self._patience.handshake, ask=ask)
        except (OSError, ThingjobsError, ValueError, http.client.HTTPException):
            return None


@dataclass(frozen=True, slots=True)
class _Peer:
    span: Span
    said: float | None = None


def _peer(link: Link, stopping: threading.Event, seconds: float, *, ask: bool) -> _Peer:
    context = tls_context(link)
    context.verify_flags |= NO_CHECK_TIME
    with contextlib.closing(Bell()) as bell:
        plain = Dial(replace(ways.bare(link), patience=seconds), bell, stopping).open()
    if not isinstance(plain, socket.socket):
        raise TypeError("a WebSocket was not asked for")
    with plain:
        plain.settimeout(seconds)
        with context.wrap_socket(plain, server_hostname=link.host) as tls:
            found = tls.getpeercert() or {}
            dates = [ssl.cert_time_to_seconds(str(found[key])) for key in ("notBefore", "notAfter")]
            return _Peer(rules.Span(*dates), _date_of(tls, link.host) if ask else None)


def _date_of(sock: ssl.SSLSocket, host: str) -> float | None:
    """Ask for nothing in particular; every answer has the time in it."""
    sock.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    response = http.client.HTTPResponse(sock, method="HEAD")
    response.begin()
    said = response.getheader("Date")
    return parsedate_to_datetime(said).timestamp() if said else None


def _of_proxy(said: str) -> Verdict:
    """Judge what the transport says of a proxy: what is wrong; a question, or: what to do."""
    text, todo = parted(said)
    if not todo:
        text, _, todo = said.partition(": ")
    known = "see that kind, host and port in connection.proxy are right; the proxy's log may say more"
    return failed(text, todo if todo and not todo.endswith("?") else known)


def _of_tls(sock: ssl.SSLSocket, link: Link) -> Iterator[Verdict]:
    agreed = sock.selected_alpn_protocol()
    if link.protocol and agreed != link.protocol:
        yield warning(
            f"{link.address} does not know the protocol {link.protocol} (ALPN), by which AWS IoT tells what is spoken "
            f"on port {link.port}",
            "see that connection.endpoint is AWS IoT's, and that no proxy takes TLS apart on the way",
        )
        return
    found = sock.getpeercert() or {}
    until = ssl.cert_time_to_seconds(str(found["notAfter"])) if "notAfter" in found else None
    valid = f", valid until {rules.day(until)}" if until is not None else ""
    alpn = f", {agreed}" if agreed else ""
    yield ok(f"{sock.version()}{alpn} with {link.host}, by a certificate of {_issuer(found)}{valid}")


def _issuer(found: object) -> str:
    names = dict(pair for part in found.get("issuer", ()) for pair in part) if isinstance(found, dict) else {}
    wanted = ("commonName", "organizationalUnitName", "organizationName")
    return next((str(names[name]) for name in wanted if name in names), "an authority without a name")


def _explained(error: OSError | ThingjobsError, link: Link) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) and link.ca is None:
        return f"{link.route} is not trusted by what this system trusts: {error.verify_message}"
    return parted(explain(error, link))[0]


def _about_tls(error: OSError | ThingjobsError, link: Link, times: Times) -> str:
    """Return what to do when there is no TLS."""
    match error:
        case ssl.SSLCertVerificationError():
            return _about_trust(error, link, times)
        case ConnectionError():
            return _register(link)
        case ssl.SSLError():
            wrong_place = "see that connection.endpoint and connection.port are those of AWS IoT, or of an MQTT broker"
            return _register(link) if "ALERT" in (error.reason or "") else wrong_place
        case TimeoutError():
            return "see whether something on the way holds back TLS; a link with a too large MTU looks like that"
        case _:
            return ""


def _about_trust(error: ssl.SSLCertVerificationError, link: Link, times: Times) -> str:
    if is_about_dates(error):
        theirs = "that is for whoever runs the server"
        return theirs if times.reading.synchronised else f"see whether this device's clock is right; if it is, {theirs}"
    if "match" in error.verify_message.lower():
        return "write connection.endpoint as the server's certificate has it, or mend the DNS"
    if ".iot." in link.host and "-ats.iot" not in link.host:
        return "use the endpoint with -ats: `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it"
    signer = "the certificate of the authority that signed the server's"
    put = f"put {signer} there" if link.ca is not None else f"set connection.ca to a file with {signer}"
    aws = "for AWS IoT https://www.amazontrust.com/repository/AmazonRootCA1.pem"
    return f"{put}: {aws}; or see whether connection.endpoint is right"


def _register(link: Link) -> str:
    return (
        f"see that {link.certificate} is registered and ACTIVE in the account and region of {link.host}: "
        "`aws iot list-certificates`; on another broker, that it trusts the authority of this certificate"
    )
