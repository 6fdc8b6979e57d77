"""Why there was no connection, in one line: what awscrt calls by a code, said with what to do about it.

awscrt says of TLS, proxies and WebSockets only that they failed. Then the same is tried once with `dial`, which says
why; not again while awscrt keeps saying the same of the same certificates, so that a fleet that is not let in does not
knock twice.
"""

from __future__ import annotations

import contextlib
import select
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.errors import ThingjobsError
from thingjobs.transport.awsiot_library import name_of, said
from thingjobs.transport.certificates import state_of
from thingjobs.transport.patience import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.clock import Reading
    from thingjobs.transport.awsiot_settings import AwsIotSettings
    from thingjobs.transport.dial import Bell
    from thingjobs.transport.link import Link

#: How long the other end may take to refuse our certificate, which TLS 1.3 does after the handshake.
ALERT_SECONDS = 2.0
#: How long each step may take when the same is tried without awscrt.
TRY_SECONDS = 10.0
#: By the beginning of awscrt's name of an error; the first that fits. `where` is the proxy if there is one.
SENTENCES = (
    ("AWS_IO_SOCKET_CONNECTION_REFUSED", "{where}: Connection refused"),
    ("AWS_IO_SOCKET_NO_ROUTE_TO_HOST", "{where}: No route to host"),
    ("AWS_IO_SOCKET_NETWORK_DOWN", "{where}: Network is unreachable"),
    ("AWS_IO_SOCKET_TIMEOUT", "{where} does not answer within {patience:.0f} s; is the port blocked?"),
    ("AWS_IO_DNS", "the name {host} cannot be resolved; check {key} and the DNS"),
    (
        "AWS_ERROR_HTTP_PROXY",
        "{where} does not let us through to {address}; are user and password of connection.proxy right?",
    ),
    (
        "AWS_ERROR_HTTP",
        "{address} refused the WebSocket ({said}); are the AWS credentials, connection.region and our clock right?",
    ),
    (
        "AWS_AUTH",
        "no AWS credentials to sign the WebSocket with ({said}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        "AWS_IO_TLS",
        "TLS with {address} failed: {said}; is it a TLS port, connection.ca its authority, and our certificate active?",
    ),
    ("", "{where}: {said}"),
)
CLOSED_BEHIND_PROXY = (
    "{where}, or {address} behind it, closed the connection; are user and password of connection.proxy right, and may "
    "this certificate connect as {us}?"
)
#: What stands for an error when there is none, because nothing was heard for too long.
SILENCE = "SILENCE"
#: awscrt's names for an end without a reason.
CLOSED = ("AWS_IO_SOCKET_CLOSED", "AWS_IO_BROKEN_PIPE", "AWS_ERROR_MQTT_UNEXPECTED_HANGUP", SILENCE)
#: What awscrt does not explain. Its s2n sits on a certificate that it does not trust for 10 to
#: 30 s before it says so, on purpose, and so that looks like a server that is slow.
OPAQUE = ("AWS_IO_TLS", "AWS_ERROR_HTTP", *CLOSED)


class Why:
    """Explains failures to connect; `say` in one thread only.

    Args:
        link: where and as whom.
        settings: how.
        read_clock: gives the clocks.
    """

    def __init__(self, link: Link, settings: AwsIotSettings, read_clock: Callable[[], Reading]) -> None:
        self._link = link
        self._settings = settings
        self._read_clock = read_clock
        self._stopping = threading.Event()
        self._bell: Bell | None = None
        #: What awscrt said last, with which files, and what came of asking why.
        self._known: tuple[object, tuple[str, Cause]] = (None, ("", Cause.UNREACHED))

    def stop(self) -> None:
        """End what is being tried, and try nothing more; from any thread."""
        self._stopping.set()
        bell = self._bell
        if bell is not None:
            bell.ring()

    def say(self, error: Exception | None) -> tuple[str, Cause]:
        """Return why there was no connection, and its cause; "" when nobody says.

        Args:
            error: what awscrt said; None: nothing for too long.
        """
        name = name_of(error) if error is not None else SILENCE
        if name.startswith(OPAQUE):
            reason, cause = self._asked(name)
            if reason:
                return reason, cause
        return self._sentence(name, error), Cause.UNREACHED

    def _sentence(self, name: str, error: Exception | None) -> str:
        link, proxy = self._link, self._link.proxy
        form = next(form for beginning, form in SENTENCES if name.startswith(beginning))
        if name.startswith(CLOSED):
            form = CLOSED_BEHIND_PROXY if proxy else ""
        return form.format(
            where=f"the proxy {proxy.address}" if proxy else link.address,
            host=proxy.host if proxy else link.host,
            key="connection.proxy" if proxy else "connection.endpoint",
            address=link.address,
            us=link.client_id,
            patience=link.patience,
            said=said(error) if error is not None else "",
        )

    def _asked(self, name: str) -> tuple[str, Cause]:
        """Return what our own connecting says, or said when awscrt said the same before."""
        known, answer = self._known
        question = name, state_of(self._link)
        if question != known or answer[1] is Cause.UNDATED:  # the clock may be right by now
            answer = self._tried()
            self._known = (question, answer)
        return answer

    def _tried(self) -> tuple[str, Cause]:
        """Connect as `paho` would, and return why that failed; "" when it did not."""
        from ssl import SSLCertVerificationError, SSLWantReadError  # noqa: PLC0415 - 1.6 MiB, and wanted only now

        from thingjobs.transport.dial import Bell, Dial, why  # noqa: PLC0415

        link = self._imitation()
        self._bell = bell = Bell()
        try:
            with contextlib.closing(Dial(link, bell, self._stopping).open()) as sock:
                bell.sleep(sock, select.POLLIN, ALERT_SECONDS)
                sock.recv(1)
        except (BlockingIOError, SSLWantReadError):
            return "", Cause.UNREACHED
        except (OSError, ThingjobsError) as error:
            if self._settings.pkcs11 is not None and not isinstance(error, SSLCertVerificationError):
                return "", Cause.UNREACHED  # they missed the certificate that we could not show
            return why(error, link, self._read_clock)
        finally:
            bell.close()
        return "", Cause.UNREACHED

    def _imitation(self) -> Link:
        """Return the link as far as Python can go it: it has no tokens, and no authorizers."""
        link, settings = self._link, self._settings
        link = replace(link, patience=min(link.patience, TRY_SECONDS), alpn=settings.protocol(link))
        if settings.pkcs11 is not None or not settings.shows_certificate(link):
            link = replace(link, certificate=None, private_key=None)
        return link if settings.authorizer is None else replace(link, websocket=False, region="")
