"""What comes over a line that stays open: packets of MQTT, and downloads with what an earlier one left behind."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.structures import CaseInsensitiveDict
from tests.fuzz.device import FOLDER
from tests.fuzz.harness import hold, of_bytes, of_json, sentence, written
from tests.fuzz.service import EXECUTION

from thingjobs.fetch import replies
from thingjobs.fetch.partial import opened
from thingjobs.fetch.rules import Digest, FetchError, Rules, objection, parse_digest, promised, public
from thingjobs.model import ThingName
from thingjobs.transport.certificates import Certificates
from thingjobs.transport.dial import Bell
from thingjobs.transport.link import Link
from thingjobs.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# --- MQTT ---------------------------------------------------------------------------------------------------------


def packet(first: int, *parts: bytes) -> bytes:
    """Return a packet of MQTT."""
    body = b"".join(parts)
    return (
        bytes([first, len(body) & 127 | 128, len(body) >> 7]) + body
        if len(body) > 127
        else (bytes([first, len(body)]) + body)
    )


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


NEXT = _text("$aws/things/pump-7/jobs/notify-next")
NEWS = written({"execution": {**EXECUTION, "status": "QUEUED", "statusDetails": {}}})
#: Each begins with what says its version.
STREAMS = (
    b"\5"
    + packet(0x20, b"\0\0\0")
    + packet(0x90, b"\0\1\0", b"\1" * 8)
    + packet(0x32, NEXT, b"\0\7\0", b"{}")
    + packet(0xE0, b"\x8e\0"),
    b"\5" + packet(0x20, b"\0\0\x08", b"\x13\0\x3c\x27\0\2\x48\0") + packet(0x90, b"\0\1\0", b"\x87" * 8),
    b"\5" + packet(0x20, b"\0\x87\x05", b"\x1f\0\2no"),
    b"\4" + packet(0x20, b"\0\0") + packet(0x90, b"\0\1", b"\1" * 8) + packet(0x30, NEXT, NEWS) + packet(0xD0),
    b"\4" + packet(0x20, b"\0\0") + packet(0x90, b"\0\1", b"\x80" * 8) + packet(0x40, b"\0\2"),
)


def check_packets(data: bytes) -> None:
    """Whatever a broker sends, the connection ends with a reason, and what was a message before is told."""
    link = Link("h", 8883, "c", ThingName("pump-7"), version=4 if data[:1] == b"\4" else 5)
    told: list[object] = []
    bell, (ours, theirs) = Bell(), socket.socketpair()
    with ours, theirs, contextlib.closing(bell):
        ours.setblocking(False)
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.sendall(data[1:])
        theirs.shutdown(socket.SHUT_WR)
        session = Session(link, ours, told.append, bell, lambda kind: hold(kind, "a kind without a name"))
        sentence(session.serve(threading.Event(), Certificates(link, time.time)))
        session.ended()
        session.part()


# --- heads of downloads -------------------------------------------------------------------------------------------

HEADS = (
    b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nETag: "a"\r\n\r\n',
    (
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: W/"a"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n'
        b"Date: Wed, 21 Oct 2015 07:28:10 GMT\r\n\r\n"
    ),
    b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\n\r\n",
    b"HTTP/1.1 503 Slow Down\r\nRetry-After: 120\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n<Error><Code>ExpiredToken</Code></Error>",
)
STAMPS = (replies.Stamp(), replies.Stamp('"a"', total=10), replies.Stamp(modified="Wed, 21 Oct 2015 07:28:00 GMT"))


def check_downloads(data: bytes) -> None:
    """Whatever a server says of a file, it goes on from where it was, begins anew, waits no longer than is bearable."""
    status, _, rest = data.partition(b"\r\n")
    number = re.search(rb" ([1-5][0-9]{2})\b", status)
    stream = io.BytesIO(rest)
    try:
        headers: Mapping[str, str] = CaseInsensitiveDict(http.client.parse_headers(stream).items())
    except http.client.HTTPException:
        return
    head = replies.Head(int(number[1]) if number else 200, headers, stream.read(4096))
    for offset in (0, 5):
        for stamp in STAMPS:
            _hold_verdict(replies.judge(head, offset, stamp, now=1445412480.0), offset, stamp)


def _hold_verdict(verdict: replies.Verdict, offset: int, stamp: replies.Stamp) -> None:
    match verdict:
        case replies.Body(begin, found):
            assert begin in (0, offset)
            assert found.total is None or begin < found.total or begin == 0 <= found.total
            assert begin == 0 or not (stamp.total and found.total) or stamp.total == found.total
            assert not re.search("[\r\n]", "".join(replies.conditions(begin, found).values()))
        case replies.Whole() | replies.Anew():
            assert offset
        case _:
            sentence(verdict.reason)
            assert not isinstance(verdict, replies.Later) or 0 <= (verdict.after or 0) <= 300


# --- their URLs and digests ---------------------------------------------------------------------------------------

HEX = "0123456789abcdef" * 4
URLS = (
    f"https://user:s3cret@h.example.com:8443/p/f.bin?X-Amz-Signature=s3cret#sha256={HEX}".encode(),
    b"http://[::1]:80/a?token=s3cret",
    f"sha256:{HEX}".encode(),
    f"{HEX}{HEX}".upper().encode(),
)


def check_urls(data: bytes) -> None:
    """Whatever stands in a job as a URL or a digest is one, or is refused, and what of it is secret is not shown."""
    text = data.decode("utf-8", "replace")
    found = Digest()
    readers: tuple[Callable[[], Digest], ...] = (
        lambda: parse_digest(text),
        lambda: promised(text, ""),
        lambda: promised(text, HEX),
    )
    for read in readers:
        try:
            found = read()
        except FetchError as error:
            hold("s3cret" not in error.reason or "s3cret" in public(text), error.reason)
            continue
        assert not found.name or found.new() is not None
    said = objection(text, digest=found, rules=Rules())
    hold("s3cret" not in said, said)
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        hold(
            "s3cret" not in public(text) or "s3cret" in parts.path + parts.netloc.rpartition("@")[2] + parts.scheme,
            text,
        )
    if not said:
        sentence(text, most=len(text))
        assert parts.hostname


# --- what an earlier download left --------------------------------------------------------------------------------

SOURCE, WANTED = "https://h/f", Digest("sha256", HEX)
NOTE = {
    "format": 1,
    "url": SOURCE,
    "digest": str(WANTED),
    "etag": '"a"',
    "modified": "",
    "total": 10,
    "synced": 5,
    "boot": "another",
}


def check_partial(data: bytes) -> None:
    """Whatever stands beside a file that is not complete, it is gone on with from a byte that is there, or not."""
    target = FOLDER / "partial" / "f"
    target.parent.mkdir(exist_ok=True)
    with opened(target, WANTED) as partial:
        partial.append(b"x" * 7)
    note = partial._note
    note.write_bytes(data)
    with opened(target, WANTED) as partial:
        partial.take_up(SOURCE, lambda: None)
        assert 0 <= partial.length <= 7
        assert partial.resumed == (partial.length > 0)
        assert partial.stamp.total is None or partial.length <= partial.stamp.total
        partial.remove()
    json.dumps(replies.conditions(partial.length, partial.stamp))


HARNESSES = (
    of_bytes("packets", check_packets, *STREAMS),
    of_bytes("downloads", check_downloads, *HEADS),
    of_bytes("urls", check_urls, *URLS),
    of_json("partial", check_partial, NOTE, {**NOTE, "total": None, "boot": ""}),
)
