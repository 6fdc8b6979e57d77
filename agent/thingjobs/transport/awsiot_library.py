"""What is asked of awscrt, the library under awsiotsdk: its threads, its TLS, its client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from awscrt import auth, http, io, mqtt5

from thingjobs.errors import TransportError
from thingjobs.transport.awsiot_settings import line_of
from thingjobs.transport.link import ANNOUNCED_PACKET_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from thingjobs.config.settings import Pkcs11
    from thingjobs.transport.awsiot_settings import AwsIotSettings
    from thingjobs.transport.link import Link
    from thingjobs.transport.proxy import Proxy

#: Of AWS IoT Core, in signatures: the builders of the AWS IoT Device SDK, websockets_with_default_aws_signing.
SIGNING_NAME = "iotdevicegateway"
#: awscrt connects again by itself; long before this is over we have stopped it.
NEVER_MILLISECONDS = 24 * 3600 * 1000
PING_TIMEOUT_SECONDS = 30
#: MQTT 5, reason codes: unspecified error.
UNSPECIFIED = 0x80
#: How long awscrt's threads may take to end; a millisecond, unless one looks up a name.
SHUTDOWN_SECONDS = 0.5
TLS_VERSIONS = {"1.2": io.TlsVersion.TLSv1_2, "1.3": io.TlsVersion.TLSv1_3}

_RAISED = re.compile(r"\d+ \((AWS_\w+)\): (.*)", re.DOTALL)

_modules: dict[Path, io.Pkcs11Lib] = {}


class Threads:
    """The one thread of awscrt that does the socket work of one connection, and the one that looks up names."""

    def __init__(self) -> None:
        group = io.EventLoopGroup(1)
        self._ended = group.shutdown_event
        self.bootstrap: io.ClientBootstrap | None = io.ClientBootstrap(group, io.DefaultHostResolver(group, 1))

    def close(self) -> None:
        """End them; the client that uses them must be gone."""
        self.bootstrap = None
        self._ended.wait(SHUTDOWN_SECONDS)


def client_of(
    link: Link, settings: AwsIotSettings, threads: Threads, callbacks: Mapping[str, Callable[[Any], None]]
) -> mqtt5.Client:
    """Return a client that was not started yet.

    Args:
        link: where and as whom.
        settings: how.
        threads: that do the work.
        callbacks: by the name of the option.

    Raises:
        OSError: a file cannot be read.
        TransportError: a file does not hold what it should, or the library cannot use it.
    """
    username, password = settings.login()
    connect = mqtt5.ConnectPacket(
        client_id=link.client_id,
        keep_alive_interval_sec=link.keep_alive,
        username=username,
        password=password,
        maximum_packet_size=ANNOUNCED_PACKET_BYTES,
    )
    patience = int(link.patience * 1000)
    sockets = io.SocketOptions()
    sockets.connect_timeout_ms = patience
    options = mqtt5.ClientOptions(
        host_name=link.host,
        port=link.port,
        bootstrap=threads.bootstrap,
        socket_options=sockets,
        tls_ctx=tls_context(link, settings),
        http_proxy_options=_proxy_options(link.proxy),
        websocket_handshake_transform=_handshake(link, settings, threads),
        connect_options=connect,
        session_behavior=mqtt5.ClientSessionBehaviorType.CLEAN,
        retry_jitter_mode=mqtt5.ExponentialBackoffJitterMode.NONE,
        min_reconnect_delay_ms=NEVER_MILLISECONDS,
        max_reconnect_delay_ms=NEVER_MILLISECONDS,
        connack_timeout_ms=patience,
        ping_timeout_ms=min(PING_TIMEOUT_SECONDS, max(1, link.keep_alive // 2)) * 1000,
        # It would put the name and version of the SDK into the user name.
        disable_metrics=True,
        **callbacks,
    )
    return mqtt5.Client(options)


def tls_context(link: Link, settings: AwsIotSettings) -> io.ClientTlsContext | None:
    """Return the TLS settings of a link; None: no TLS, for a broker on this machine.

    Raises:
        OSError: a file cannot be read.
        TransportError: a file does not hold what it should, or the library cannot use it.
    """
    if not settings.tls(link):
        return None
    shows = settings.shows_certificate(link)
    if shows and settings.pkcs11 is not None:
        options = _from_token(link, settings.pkcs11)
    elif shows:
        options = _from_files(link)
    else:
        options = io.TlsContextOptions()
    if link.ca is not None:
        options.override_default_trust_store(link.ca.read_bytes())
    options.min_tls_ver = TLS_VERSIONS[link.tls_min]
    protocol = settings.protocol(link)
    options.alpn_list = [protocol] if protocol else None
    try:
        return io.ClientTlsContext(options)
    except Exception as error:  # noqa: BLE001 - awscrt raises whatever Python has for its code
        raise TransportError(_why_unusable(link, settings, error)) from None


def _from_files(link: Link) -> io.TlsContextOptions:
    assert link.certificate is not None  # noqa: S101 - the caller looked
    certificate = link.certificate.read_bytes()
    key = (link.private_key or link.certificate).read_bytes()
    if b"ENCRYPTED" in key:
        raise TransportError(
            f'cannot use {link.private_key}: it is protected by a password, which transport "awsiot" cannot take; '
            'use a key without one, a token (connection.pkcs11), or transport "paho"'
        )
    return io.TlsContextOptions.create_client_with_mtls(certificate, key)


def _from_token(link: Link, token: Pkcs11) -> io.TlsContextOptions:
    assert link.certificate is not None  # noqa: S101 - the caller looked
    try:
        if token.module not in _modules:
            # One for the process: the library is to be initialised once.
            _modules[token.module] = io.Pkcs11Lib(file=str(token.module))
    except Exception as error:  # noqa: BLE001 - awscrt raises whatever Python has for its code
        raise TransportError(
            f"cannot use {token.module} as a PKCS#11 module: {said(error)}; check connection.pkcs11.module"
        ) from None
    return io.TlsContextOptions.create_client_with_mtls_pkcs11(
        pkcs11_lib=_modules[token.module],
        user_pin=line_of(token.pin_file) if token.pin_file is not None else None,
        token_label=token.token or None,
        private_key_label=token.key or None,
        cert_file_contents=link.certificate.read_bytes(),
    )


def _why_unusable(link: Link, settings: AwsIotSettings, error: Exception) -> str:
    if settings.pkcs11 is not None:
        token = settings.pkcs11
        which = f"token {token.token or '(the only one)'}, key {token.key or '(the only one)'}"
        return f"cannot use {which} of {token.module}: {said(error)}; check connection.pkcs11 and its pin_file"
    from thingjobs.transport.dial import tls_context as judged  # noqa: PLC0415 - it brings ssl: only to say why

    try:
        judged(link)
    except (OSError, TransportError) as found:
        return str(found)
    return f"cannot use {link.certificate} with {link.private_key}, or {link.ca}: {said(error)}"


def _proxy_options(proxy: Proxy | None) -> http.HttpProxyOptions | None:
    if proxy is None:
        return None
    kind = http.HttpProxyAuthenticationType.Basic if proxy.user else http.HttpProxyAuthenticationType.Nothing
    return http.HttpProxyOptions(
        proxy.host,
        proxy.port,
        auth_type=kind,
        auth_username=proxy.user or None,
        auth_password=proxy.password or None,
        connection_type=http.HttpProxyConnectionType.Tunneling,
    )


def _handshake(link: Link, settings: AwsIotSettings, threads: Threads) -> Callable[[Any], None] | None:
    """Return what makes the request of a WebSocket ready, in awscrt's thread; None: there is no WebSocket."""
    if not link.websocket:
        return None
    region = settings.signed_for(link)
    if not region:
        return lambda transform_args: transform_args.set_done()
    # Environment, profile, container, instance: as every AWS SDK does.
    provider = auth.AwsCredentialsProvider.new_default_chain(threads.bootstrap)

    def sign(transform_args: Any) -> None:
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
            credentials_provider=provider,
            region=region,
            service=SIGNING_NAME,
            should_sign_header=lambda name: name.lower() == "host",
            omit_session_token=True,  # AWS IoT wants the token in the URL, but not in what is signed
        )
        signing = auth.aws_sign_request(transform_args.http_request, config)
        signing.add_done_callback(lambda done: transform_args.set_done(done.exception()))

    return sign


def name_of(error: BaseException) -> str:
    """Return awscrt's name of an error; that of its class when it has none."""
    return _read(error)[0]


def said(error: BaseException) -> str:
    """Return what awscrt says of an error, as a part of a sentence."""
    name, message = _read(error)
    return f"{message.strip().rstrip('.')} ({name})"


def _read(error: BaseException) -> tuple[str, str]:
    """Return name and message: attributes in callbacks, in the text "1033 (AWS_NAME): message" of what is raised."""
    if (name := getattr(error, "name", None)) is not None:
        return str(name), str(getattr(error, "message", ""))
    if found := _RAISED.fullmatch(str(error)):
        return found[1], found[2]
    return type(error).__name__, str(error)


def code_of(reason: Any) -> int:
    """Return a reason code of MQTT 5; awscrt gives None for one that is not of this kind of packet."""
    return UNSPECIFIED if reason is None else int(reason)


def reason_of(reason: Any, text: str | None = None) -> str:
    """Return a reason code of MQTT 5 for people, with what the broker says beside it."""
    words = "Unspecified error" if reason is None else str(reason.name).replace("_", " ").capitalize()
    return f"{words} ({text})" if text else words
