"""Frames of WebSockets, however they are cut; wsproto, another implementation of RFC 6455, is the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.transport.dialogue import head_of, missing_of_head
from thingjobs.transport.websocket import Frames, frame

if TYPE_CHECKING:
    from tests.conftest import Require

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 131_073]


def served(kind: int, data: bytes, *, final: bool = True) -> bytes:
    """Return a frame as a server sends it."""
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    if size >= 1 << 16:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 * final | kind]) + length + data


@pytest.mark.parametrize("size", SIZES)
def test_frames_are_what_another_implementation_understands(require: Require, size: int) -> None:
    require("wsproto")
    from wsproto import ConnectionType
    from wsproto.connection import Connection
    from wsproto.events import BytesMessage

    server = Connection(ConnectionType.SERVER)
    data = bytes(number % 251 for number in range(size))
    server.receive_data(frame(0x2, data, b"\x01\xfe\x37\x80"))
    events = list(server.events())
    assert b"".join(event.data for event in events if isinstance(event, BytesMessage)) == data
    assert all(isinstance(event, BytesMessage) for event in events)


@pytest.mark.parametrize("size", SIZES)
def test_frames_of_another_implementation_are_understood(require: Require, size: int) -> None:
    require("wsproto")
    from wsproto import ConnectionType
    from wsproto.connection import Connection
    from wsproto.events import BytesMessage

    data = bytes(number % 251 for number in range(size))
    frames = Frames()
    frames.feed(Connection(ConnectionType.SERVER).send(BytesMessage(data)))
    assert bytes(frames.data) == data


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.lists(st.integers(1, 40), max_size=30),
    st.booleans(),
)
def test_it_does_not_matter_how_frames_are_cut(messages: list[bytes], cuts: list[int], pinged: bool) -> None:
    raw = b"".join(
        served(0x2, one[:2], final=False) + served(0x9, b"hi") * pinged + served(0x0, one[2:]) for one in messages
    )
    frames = Frames()
    for cut in cuts:
        frames.feed(raw[:cut])
        raw = raw[cut:]
    frames.feed(raw)
    assert bytes(frames.data) == b"".join(messages)
    assert frames.pings == [b"hi"] * len(messages) * pinged


def test_the_reason_of_a_close_is_kept_and_nothing_is_read_behind_it() -> None:
    frames = Frames()
    frames.feed(served(0x8, (1001).to_bytes(2, "big") + b"going away") + served(0x2, b"late"))
    assert frames.farewell == "1001 going away"
    assert not frames.data
    nameless = Frames()
    nameless.feed(served(0x8, b""))
    assert nameless.farewell == "1005"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(served(0x1, b"text"), id="text"),
        pytest.param(frame(0x2, b"x", b"mask"), id="masked"),
        pytest.param(b"\xc2\x01x", id="reserved bit"),
        pytest.param(served(0x0, b"x"), id="goes on with nothing"),
        pytest.param(served(0x2, b"x", final=False) + served(0x2, b"y"), id="a second one before the end"),
        pytest.param(served(0x9, b"x", final=False), id="a ping in pieces"),
        pytest.param(served(0x9, b"x" * 126), id="a long ping"),
        pytest.param(served(0xB, b""), id="unknown"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="no frame"),
    ],
)
def test_what_no_server_may_send_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        Frames().feed(raw)


@given(st.binary(max_size=60), st.binary(max_size=5))
def test_a_head_is_read_to_its_end_and_no_further(middle: bytes, behind: bytes) -> None:
    whole = (b"HTTP/1.1 200 OK\r\nX: " + middle).split(b"\r\n\r\n")[0].rstrip(b"\r\n") + b"\r\n\r\n"
    came, rest = b"", whole + behind
    while missing := missing_of_head(came):
        came, rest = came + rest[:missing], rest[missing:]
    assert came == whole
    assert head_of(came) is not None
