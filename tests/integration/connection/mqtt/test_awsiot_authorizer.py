"""Other ways to say who we are, by the transport awsiot: custom authorizers, and keys in a token (PKCS#11).

The AWS IoT Device SDK's own builders judge what an authorizer is shown.
"""

from __future__ import annotations

import ctypes.util
import queue
import ssl
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.config.settings import Authorizer, Pkcs11
from thingjobs.errors import ConfigError
from thingjobs.model import ThingName
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.awsiot_settings import AwsIotSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Pki
    from tests.integration.connection.conftest import Device, Endpoint, HttpProxy
    from tests.integration.connection.mqtt.conftest import Frames, Opening, Web

    from thingjobs.transport.link import Link

    Connect = Callable[..., Device[AwsIotTransport]]
    Seen = queue.SimpleQueue[Opening]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0


NAMES = ("x-amzn-mqtt-ca", "mqtt", "http/1.1")


@pytest.fixture
def authorizer(tmp_path: Path) -> Authorizer:
    for name, text in {"password": "pass word\n", "token": "to-ken.1\n", "signature": "ab+/c==\n"}.items():
        (tmp_path / name).write_text(text)
    files = {f"{name}_file": tmp_path / name for name in ("password", "token", "signature")}
    return Authorizer(name="Doorman", username="jane", token_key="tokenKey", **files)


@pytest.fixture
def endpoints(
    pki: Pki,
    overhear: Callable[..., tuple[Endpoint, Seen]],
    new_endpoint: Callable[..., Endpoint],
    new_web: type[Web],
    frames: type[Frames],
) -> Callable[[bool], tuple[Endpoint, Seen]]:
    """Runs endpoints with a broker's CONNECT, in a WebSocket or not; gives what comes there."""

    def run(websocket: bool) -> tuple[Endpoint, Seen]:
        if not websocket:
            return overhear(*NAMES)
        seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def keep(tls: ssl.SSLSocket) -> None:
            seen.put((tls.selected_alpn_protocol(), bool(tls.getpeercert()), frames.received(tls)[1]))

        context = pki.server_tls()
        context.verify_mode = ssl.CERT_OPTIONAL
        return new_endpoint(new_web(behind=keep), *NAMES, tls=context), seen

    return run


@pytest.mark.parametrize("websocket", [False, True])
def test_a_custom_authorizer_is_shown_what_the_vendors_sdk_shows_it(
    awsiot: Connect,
    anywhere: Link,
    pki: Pki,
    authorizer: Authorizer,
    endpoints: Callable[[bool], tuple[Endpoint, Seen]],
    http_proxy: Callable[..., HttpProxy],
    websocket: bool,
) -> None:
    endpoint, seen = endpoints(websocket)
    proxy = http_proxy(endpoint.port)
    device = awsiot(replace(anywhere, websocket=websocket, proxy=proxy.proxy()), authorizer=authorizer)
    protocol, shown, ours = seen.get(timeout=PATIENCE_SECONDS)
    device.stop()
    theirs_protocol, _, theirs = shown_by_the_sdk(seen, proxy.port, pki, websocket=websocket)
    assert (protocol, shown) == ("http/1.1" if websocket else "mqtt", False)
    assert login_of(ours) == login_of(theirs)
    assert login_of(ours) == (
        b"jane?x-amz-customauthorizer-name=Doorman&x-amz-customauthorizer-signature=ab%2B/c%3D%3D&tokenKey=to-ken.1",
        b"pass word",
    )
    if not websocket:
        assert protocol == theirs_protocol


def login_of(connect_packet: bytes) -> tuple[bytes, bytes]:
    """Return user name and password of a CONNECT (MQTT 5) without a will."""
    body = connect_packet[connect_packet.index(b"\0\4MQTT") :]
    flags, rest = body[7], body[10:]
    rest = rest[1 + rest[0] :]  # properties
    fields = []
    while rest:
        (size,) = struct.unpack("!H", rest[:2])
        fields.append(rest[2 : 2 + size])
        rest = rest[2 + size :]
    assert fields[0] == b"pump-7"
    return (fields[1] if flags & 0x80 else b""), (fields[2] if flags & 0x40 else b"")


def shown_by_the_sdk(seen: Seen, proxy: int, pki: Pki, *, websocket: bool) -> Opening:
    """Return what the vendor's SDK shows, configured with the same."""
    from awscrt.http import HttpProxyConnectionType, HttpProxyOptions
    from awsiot import mqtt5_client_builder as builder

    stopped = threading.Event()
    make = builder.websockets_with_custom_authorizer if websocket else builder.direct_with_custom_authorizer
    client = make(
        endpoint="localhost",
        port=443,
        client_id=THING,
        ca_filepath=str(pki.ca),
        enable_metrics_collection=False,
        http_proxy_options=HttpProxyOptions("127.0.0.1", proxy, connection_type=HttpProxyConnectionType.Tunneling),
        on_lifecycle_stopped=lambda _data: stopped.set(),
        auth_username="jane",
        auth_password="pass word",
        auth_authorizer_name="Doorman",
        auth_authorizer_signature="ab+/c==",
        auth_token_key_name="tokenKey",
        auth_token_value="to-ken.1",
    )
    client.start()
    opening = seen.get(timeout=PATIENCE_SECONDS)
    client.stop()
    assert stopped.wait(PATIENCE_SECONDS)
    return opening


def test_an_authorizer_without_a_readable_password_is_told(awsiot: Connect, anywhere: Link, tmp_path: Path) -> None:
    authorizer = Authorizer(name="Doorman", password_file=tmp_path / "gone")
    reason = awsiot(anywhere, authorizer=authorizer).reason()
    assert reason == f"cannot read {tmp_path}/gone: No such file or directory"


def test_a_module_that_is_none_is_told(awsiot: Connect, anywhere: Link, tmp_path: Path) -> None:
    (tmp_path / "none.so").write_text("no library")
    for module in (tmp_path / "gone.so", tmp_path / "none.so"):
        reason = awsiot(replace(anywhere, private_key=None), pkcs11=Pkcs11(module)).reason()
        assert reason.startswith(f"cannot use {module} as a PKCS#11 module: ")
        assert reason.endswith("check connection.pkcs11.module")


def test_a_module_without_the_token_is_told_with_what_was_looked_for(
    awsiot: Connect, anywhere: Link, tmp_path: Path
) -> None:
    module = ctypes.util.find_library("p11-kit")
    if module is None:
        pytest.skip("NOT TESTED: no PKCS#11 module is here; p11-kit is one that has no tokens")
    (tmp_path / "pin").write_text("1234\n")
    token = Pkcs11(Path(module), tmp_path / "pin", token="tpm", key="device")
    reason = awsiot(replace(anywhere, private_key=None), pkcs11=token).reason()
    assert reason.startswith(f"cannot use token tpm, key device of {module}: ")
    assert "AWS_ERROR_PKCS11_TOKEN_NOT_FOUND" in reason
    assert "1234" not in reason


def test_a_token_needs_its_certificate_and_no_key_file(anywhere: Link) -> None:
    token = AwsIotSettings(pkcs11=Pkcs11(Path("/usr/lib/token.so")))
    for wrong, words in [
        (replace(anywhere, certificate=None, private_key=None), "needs connection.certificate"),
        (anywhere, "exclude each other"),
    ]:
        with pytest.raises(ConfigError, match=words):
            AwsIotTransport(wrong, lambda: 0.0, settings=token)
