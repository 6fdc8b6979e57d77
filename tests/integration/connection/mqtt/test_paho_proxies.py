"""The transport paho through proxies, HTTP and SOCKS5, and what it says of those that let nobody through."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import ListChanged, NextChanged
from thingjobs.model import ThingName
from thingjobs.transport.proxy import Proxy

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.conftest import Pki
    from tests.integration.connection.conftest import Device, HttpProxy, SocksProxy

    from thingjobs.testing import JobsService
    from thingjobs.transport.link import Link
    from thingjobs.transport.paho import PahoTransport

    Connect = Callable[[Link], Device[PahoTransport]]

THING = ThingName("pump-7")
#: Far less than the patience of a link, also on a machine that does much else.
AT_ONCE_SECONDS = 5.0


@pytest.mark.parametrize("version", [5, 4])
def test_through_an_http_proxy_that_wants_a_password_requests_are_answered(
    paho: Connect, link: Link, served: JobsService, http_proxy: Callable[..., HttpProxy], version: int
) -> None:
    proxy = http_proxy(link.port, login="me:pass word:ü")
    device = paho(replace(link, version=version, proxy=proxy.proxy("me", "pass word:ü")))
    device.works()
    served.create_job("greet", {"handler": "greet"}, [THING])
    device.next(ListChanged)
    device.next(NextChanged)


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_through_a_socks_proxy_requests_are_answered_and_the_proxy_looks_up_the_name(
    paho: Connect, link: Link, served: JobsService, socks_proxy: Callable[..., SocksProxy], kind: int
) -> None:
    proxy = socks_proxy(link.port, login=("me", "pass:wörd"), kind=kind)
    paho(replace(link, proxy=proxy.proxy("me", "pass:wörd"))).works()
    assert proxy.asked == [(3, b"localhost", link.port)]


def test_addresses_are_given_to_a_socks_proxy_as_addresses(
    paho: Connect, link: Link, served: JobsService, socks_proxy: Callable[..., SocksProxy]
) -> None:
    proxy = socks_proxy(link.port)
    paho(replace(link, host="127.0.0.1", proxy=proxy.proxy())).works()
    paho(replace(link, host="::1", client_id="pump-8", proxy=proxy.proxy())).works()
    assert proxy.asked == [(1, b"\x7f\0\0\1", link.port), (4, bytes(15) + b"\1", link.port)]


def test_a_proxy_that_closes_the_tunnel_is_gone_through_again(
    paho: Connect, link: Link, served: JobsService, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(link.port)
    device = paho(replace(link, proxy=proxy.proxy()))
    device.works()
    proxy.hang_up()
    device.reason()
    device.works()
    assert len(proxy.heads) == 2


HTTP_REFUSALS = [
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", "does not let us through to localhost:PORT (403 Forbidden): whoever runs it"),
    (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach localhost:PORT (502 Bad Gateway): check connection.endpoint"),
    (b"HTTP/1.1 302\r\nLocation: x\r\n\r\n", "does not let us through to localhost:PORT (302): whoever runs it"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as an HTTP proxy does: check connection.proxy"),
    (b"x" * 100_000, "does not answer as an HTTP proxy does: check connection.proxy"),
    (b"HTTP/1.1 200", "does not answer as an HTTP proxy does: check connection.proxy"),
]


@pytest.mark.parametrize(("answer", "words"), HTTP_REFUSALS, ids=[str(answer[:16]) for answer, _ in HTTP_REFUSALS])
def test_an_http_proxy_that_refuses_is_told_with_what_to_do(
    paho: Connect, link: Link, http_proxy: Callable[..., HttpProxy], answer: bytes, words: str
) -> None:
    proxy = http_proxy(answer=answer)
    device = paho(replace(link, proxy=proxy.proxy("me", "s3cret")))
    for reason in (device.reason(), device.reason()):
        assert words.replace("PORT", str(link.port)) in reason
        assert f"127.0.0.1:{proxy.port}" in reason
        assert "s3cret" not in reason


def test_a_proxy_that_wants_to_know_who_we_are_is_told_with_what_to_write(
    paho: Connect, link: Link, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(login="me:s3cret")
    unknown = paho(replace(link, proxy=proxy.proxy())).reason()
    mistaken = paho(replace(link, proxy=proxy.proxy("me", "wr0ng"))).reason()
    said = f"the proxy 127.0.0.1:{proxy.port}"
    assert unknown.startswith(f"{said} wants a user and a password (407 ")
    assert "http://user:password@host:port" in unknown
    assert mistaken.startswith(f"{said} does not take the user me with that password (407 ")
    assert "wr0ng" not in mistaken


def test_a_socks_proxy_that_wants_to_know_who_we_are_is_told_with_what_to_write(
    paho: Connect, link: Link, socks_proxy: Callable[..., SocksProxy]
) -> None:
    proxy = socks_proxy(login=("me", "s3cret"))
    unknown = paho(replace(link, proxy=proxy.proxy())).reason()
    mistaken = paho(replace(link, proxy=proxy.proxy("me", "wr0ng"))).reason()
    said = f"the proxy 127.0.0.1:{proxy.port}"
    assert unknown.startswith(f"{said} wants a user and a password: write socks5://user:password@host:port")
    assert mistaken.startswith(f"{said} does not take the user me with that password")
    assert "wr0ng" not in mistaken


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "it failed, and does not say why"),
        (2, "its rules do not allow it"),
        (3, "it cannot reach that network"),
        (4, "it cannot reach that host, or find its name"),
        (5, "the connection was refused there"),
        (6, "that host is too far away"),
        (7, "it does not open connections for others"),
        (8, "it does not know that kind of address"),
        (99, "it says 99, which nobody knows"),
    ],
)
def test_what_a_socks_proxy_refuses_is_told_in_words(
    paho: Connect, link: Link, socks_proxy: Callable[..., SocksProxy], code: int, words: str
) -> None:
    proxy = socks_proxy(code=code)
    reason = paho(replace(link, proxy=proxy.proxy())).reason()
    assert reason.startswith(f"the proxy 127.0.0.1:{proxy.port} does not let us through to localhost:{link.port}: ")
    assert words in reason


def test_an_http_proxy_that_is_taken_for_a_socks_proxy_is_told(
    paho: Connect, link: Link, silent: socket.socket
) -> None:
    proxy = Proxy("socks5", "127.0.0.1", silent.getsockname()[1])
    device = paho(replace(link, proxy=proxy))
    sock, _ = silent.accept()
    with sock:
        assert len(sock.recv(3)) == 3
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert device.reason() == f"{proxy.address} does not answer as a SOCKS5 proxy does: check connection.proxy"


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_is_not_there_is_told_as_the_proxy(
    paho: Connect, link: Link, free_port: Callable[[], int], kind: str
) -> None:
    proxy = Proxy(kind, "127.0.0.1", free_port(), "me", "s3cret")
    reason = paho(replace(link, proxy=proxy)).reason()
    assert reason == f"cannot reach the proxy {proxy.address}: Connection refused; check connection.proxy"
    nowhere = replace(proxy, host="no-such-proxy.invalid")
    assert paho(replace(link, proxy=nowhere)).reason().startswith("cannot reach the proxy no-such-proxy.invalid:")


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_says_nothing_is_given_up_and_holds_up_no_stop(
    paho: Connect, link: Link, silent: socket.socket, kind: str
) -> None:
    proxy = Proxy(kind, "127.0.0.1", silent.getsockname()[1])
    impatient = paho(replace(link, proxy=proxy, patience=0.5))
    reason = impatient.reason()
    assert reason.startswith(f"the proxy {proxy.address} takes the connection and does not answer within")
    impatient.stop()
    device = paho(replace(link, proxy=proxy))
    with silent.accept()[0]:
        began = time.monotonic()
        device.stop()
        assert time.monotonic() - began < AT_ONCE_SECONDS


def test_a_broker_that_is_not_trusted_is_told_with_the_proxy_on_the_way(
    paho: Connect, link: Link, other_pki: Pki, http_proxy: Callable[..., HttpProxy]
) -> None:
    proxy = http_proxy(link.port)
    reason = paho(replace(link, ca=other_pki.ca, proxy=proxy.proxy())).reason()
    assert f"localhost:{link.port} (through the proxy 127.0.0.1:{proxy.port}) is not trusted" in reason
