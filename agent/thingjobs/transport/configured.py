"""The transport that a configuration asks for: `run` goes by it, and `check` looks at the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from thingjobs import __version__
from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    from thingjobs.config import Config
    from thingjobs.config.settings import Connection
    from thingjobs.ports import ShadowTransport
    from thingjobs.transport.link import Link


def link_of(config: Config, *, patience: float | None = None) -> Link:
    """Return where and as whom a configuration connects.

    Args:
        config: has an endpoint.
        patience: seconds that each step may take; None: the usual ones.

    Raises:
        ConfigError: that makes no sense.
    """
    from thingjobs.transport.link import PATIENCE_SECONDS, VERSIONS, Link  # noqa: PLC0415 - --local needs no network

    connection = config.connection
    shows = connection.shows_certificate
    try:
        return Link(
            host=connection.endpoint,
            port=connection.port,
            client_id=connection.client_id,
            thing=config.thing.name,
            keep_alive=connection.keep_alive_seconds,
            certificate=connection.certificate if shows else None,
            private_key=connection.private_key if shows else None,
            private_key_password_file=connection.private_key_password_file if shows else None,
            ca=connection.ca,
            version=VERSIONS[connection.mqtt_version],
            patience=PATIENCE_SECONDS if patience is None else patience,
            websocket=connection.websocket,
            region=connection.region if connection.websocket else "",
            proxy=_proxy(connection),
            tls_min=connection.tls_min,
        )
    except ValueError as error:
        raise ConfigError([str(error)]) from None


def _proxy(connection: Connection) -> Any:
    if not connection.proxy:
        return None
    from thingjobs.transport.proxy import Proxy  # noqa: PLC0415 - wanted seldom

    return Proxy.parse(connection.proxy)


def transport_of(config: Config, link: Link, *, delay: float = 0.0) -> ShadowTransport:
    """Return the transport of a configuration.

    Args:
        config: has an endpoint.
        link: made by `link_of`.
        delay: seconds before the first connection.

    Raises:
        ConfigError: its library is not installed, or cannot do what is configured.
    """
    roll = random.SystemRandom().random
    connection = config.connection
    match connection.transport:
        case "https":
            from thingjobs.transport.https import HttpsTransport, Polls, Site  # noqa: PLC0415 - one of them is wanted

            polls = Polls(idle=config.jobs.poll_interval_seconds, busy=config.jobs.progress_interval_seconds)
            site = Site(link, signer=_signer(connection), agent=f"thingjobs/{__version__}")
            return HttpsTransport(site, roll, delay, polls=polls)
        case "awsiot":
            from thingjobs.transport.awsiot import AwsIotTransport  # noqa: PLC0415
            from thingjobs.transport.awsiot_settings import AwsIotSettings  # noqa: PLC0415

            settings = AwsIotSettings(authorizer=connection.authorizer, pkcs11=connection.pkcs11)
            return AwsIotTransport(link, roll, delay, settings=settings)
        case _:
            from thingjobs.transport.paho import PahoTransport  # noqa: PLC0415

            return PahoTransport(link, roll, delay)


def _signer(connection: Connection) -> Any:
    if not connection.signs:
        return None
    from thingjobs.transport.https_signer import JobsSigner  # noqa: PLC0415 - wanted seldom

    return JobsSigner(connection.region)
