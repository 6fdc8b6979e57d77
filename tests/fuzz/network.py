"""What comes from other machines: answers of AWS services, certificates, WebSockets, HTTP servers and proxies."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz.harness import hold, of_bytes, of_json, sentence

from thingjobs.certificate import cn_of, dates_of
from thingjobs.cloud import batch, markup, replies, role_alias, s3_jobs
from thingjobs.cloud.calls import Call, Reply
from thingjobs.cloud.errors import CloudError
from thingjobs.doctor.issuer import issuer_of
from thingjobs.errors import TransportError
from thingjobs.transport.dialogue import MAX_ANSWER_BYTES, head_of
from thingjobs.transport.proxy import Proxy
from thingjobs.transport.websocket import Frames, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.transport.dialogue import Dialogue

# --- XML of S3 Control --------------------------------------------------------------------------------------------

JOB_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<DescribeJobResult xmlns="http://awss3control.amazonaws.com/doc/2018-08-20/"><Job><JobId>a-1</JobId>
<Status>Active</Status><Priority>10</Priority><ConfirmationRequired>false</ConfirmationRequired>
<Operation><S3PutObjectTagging/></Operation><CreationTime>2025-01-01T00:00:00.000Z</CreationTime>
<ProgressSummary><TotalNumberOfTasks>5</TotalNumberOfTasks><Timers><ElapsedTimeInActiveSeconds>1
</ElapsedTimeInActiveSeconds></Timers></ProgressSummary><FailureReasons><JobFailure><FailureCode>x</FailureCode>
</JobFailure></FailureReasons><Report><Enabled>true</Enabled></Report><Description><![CDATA[a<b]]> &amp; c</Description>
<Manifest><Location><ObjectArn>arn</ObjectArn></Location><Spec><Format>CSV</Format></Spec></Manifest></Job>
</DescribeJobResult>"""
PAGE_XML = b"<ListJobsResult><Jobs><member><JobId>a</JobId></member></Jobs><NextToken>t</NextToken></ListJobsResult>"
ERROR_XML = b"<ErrorResponse><Error><Code>NoSuchJob</Code><Message>no &lt;a&gt;</Message></Error></ErrorResponse>"
CALL = Call("DescribeJob", "look at the job a-1", "s3:DescribeJob", "GET", "/v20180820/jobs/a-1")
#: Statuses and headers, by the last byte of an input.
ANSWERS: tuple[tuple[int, dict[str, str]], ...] = (
    (200, {}),
    (200, {"x-amzn-errortype": "ServerException:x"}),
    (503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    (429, {"retry-after": "9" * 5000}),
    (301, {"location": "https://h?X-Amz-Signature=secret"}),
    (400, {"content-type": "text/html\ud800"}),
)


def check_xml(data: bytes) -> None:
    """Whatever S3 answers is a result or a CloudError; a tree is never deeper than is good for our stack."""
    try:
        assert _depth(markup.parse(data)) <= 51
    except markup.MarkupError as error:
        sentence(str(error))
    _check_answer(data, s3_jobs.read_job, s3_jobs.read_page, s3_jobs.read_updated)


def _depth(root: markup.Node) -> int:
    depth, level = 0, [root]
    while level:
        depth, level = depth + 1, [child for node in level for child in node.children]
    return depth


def _check_answer(data: bytes, *readers: Callable[[Call, Reply], object]) -> None:
    status, headers = ANSWERS[(data[-1] if data else 0) % len(ANSWERS)]
    date = data[:80].decode("latin-1").partition("\n")[0]
    for reply in (Reply(200, {}, data), Reply(status, headers, data), Reply(503, {"retry-after": date}, data)):
        for reader in readers:
            try:
                reader(CALL, reply)
            except CloudError as error:
                sentence(str(error), most=10_000)
                hold(error.after is None or 0 <= error.after <= 60, error.after)
        with contextlib.suppress(CloudError):
            replies.check(CALL, reply)


# --- JSON of AWS Batch and of the credentials provider ------------------------------------------------------------

CONTAINER = {"exitCode": 1, "reason": "OutOfMemory", "logStreamName": "l"}
BATCH_JOB: dict[str, Any] = {
    "jobId": "0123",
    "status": "RUNNING",
    "jobName": "n",
    "createdAt": 1735689600000,
    "startedAt": 1735689600001,
    "isCancelled": False,
    "container": CONTAINER,
    "attempts": [{"startedAt": 1, "container": CONTAINER}],
    "arrayProperties": {"size": 2, "statusSummary": {"RUNNING": 1, "FAILED": 1}},
}
ISSUED = {
    "credentials": {
        "accessKeyId": "AKIA",
        "secretAccessKey": "s",
        "sessionToken": "t",
        "expiration": "2035-01-01T00:00:00Z",
    }
}
REFUSED = {"__type": "com.amazon#ClientException", "message": "no", "Output": {"__type": "x"}}
ROLE = role_alias.RoleAlias("h", "device-role", Path("/device.pem"), Path("/device.key"), "pump-7")


def check_batch(data: bytes) -> None:
    """Whatever AWS Batch answers is a result or a CloudError."""
    _check_answer(data, batch.read_jobs, replies.json_result)


def check_credentials(data: bytes) -> None:
    """Whatever the credentials provider answers is credentials or a CloudError, which does not show them."""
    status = (200, 403, 404, 500)[(data[-1] if data else 0) % 4]
    for reply in (Reply(200, {"date": data[:40].decode("latin-1")}, data), Reply(status, {}, data)):
        try:
            issued = role_alias.read(reply, ROLE)
        except CloudError as error:
            sentence(str(error), most=10_000)
        else:
            assert issued.life is not None
            assert issued.life > 0
            assert issued.credentials.expires is not None
            assert issued.credentials.expires.tzinfo is not None


# --- certificates -------------------------------------------------------------------------------------------------


def der(tag: int, *parts: bytes) -> bytes:
    """Return an element of DER."""
    content = b"".join(parts)
    size = len(content)
    return bytes([tag]) + (bytes([size]) if size < 128 else b"\x82" + struct.pack(">H", size)) + content


def _certificate(name: bytes, since: bytes, until: bytes) -> bytes:
    subject = der(0x30, der(0x31, der(0x30, der(0x06, b"\x55\x04\x03"), name)))
    validity = der(0x30, since, until)
    issuer, key = der(0x30), der(0x30, b"\x05\x00" * 40)
    signed = der(0x30, der(0xA0, b"\2\1\2"), der(2, b"\1"), der(0x30), issuer, validity, subject, key)
    return der(0x30, signed, der(0x30), der(3, b"\0"))


UTC_TIME, GENERAL_TIME = der(0x17, b"250101000000Z"), der(0x18, b"20600101000000Z")
CERTIFICATES = (
    _certificate(der(0x0C, b"pump-7"), UTC_TIME, GENERAL_TIME),
    _certificate(der(0x1E, "pümp".encode("utf-16-be")), UTC_TIME, UTC_TIME),
)


def check_certificate(data: bytes) -> None:
    """Whatever a certificate is, its name is text, and its dates are moments that can be told."""
    body = base64.b64encode(data)
    with contextlib.suppress(ValueError):
        assert isinstance(issuer_of(data.decode("latin-1")), str)
    with contextlib.suppress(ValueError):
        issuer_of(f"-----BEGIN CERTIFICATE-----\n{body.decode()}\n-----END CERTIFICATE-----\n")
    for pem in (data, b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"):
        for read in (cn_of, dates_of):
            try:
                found = read(pem)
            except ValueError as error:
                sentence(str(error))
                continue
            for date in found if isinstance(found, tuple) else ():
                assert isinstance(date, dt.datetime)
                assert date.tzinfo is not None
                dt.datetime.fromtimestamp(date.timestamp(), dt.UTC)


# --- WebSockets ---------------------------------------------------------------------------------------------------


def frame(first: int, content: bytes) -> bytes:
    """Return a frame of a server."""
    size = len(content)
    return bytes([first]) + (bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)) + content


FRAMES = (
    frame(0x82, b"\x20\x02\0\0"),
    frame(0x02, b"a") + frame(0x89, b"ping") + frame(0x80, b"b" * 200),
    frame(0x88, b"\x03\xe8goodbye"),
    b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 50,
)


def check_frames(data: bytes) -> None:
    """Whatever comes, it means the same however it is cut, and holds no more than came."""
    assert _taken([data]) == _taken([data[at : at + 3] for at in range(0, min(len(data), 3000), 3)] + [data[3000:]])


def _taken(pieces: list[bytes]) -> tuple[bytes, list[bytes], str | None, bool]:
    frames, broken = Frames(), False
    try:
        for piece in pieces:
            frames.feed(piece)
    except ValueError as error:
        sentence(str(error))
        broken = True
    assert len(frames.data) <= sum(map(len, pieces))
    assert all(len(ping) < 126 for ping in frames.pings)
    if frames.farewell is not None:
        sentence(frames.farewell)
    return bytes(frames.data), frames.pings, frames.farewell, broken


# --- heads of HTTP, and proxies -----------------------------------------------------------------------------------

HEADS = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nno, no",
    b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\x05\x00\x05\x00\x00\x01\x7f\0\0\1\0\x50",
    b"\x05\x02\x01\x00\x05\x00\x00\x03\x04host\0\x50",
    b"\x05\xff",
)
PROXIES = (
    Proxy("http", "proxy", 3128, "user", "s3cret"),
    Proxy("http", "proxy", 3128),
    Proxy("socks5", "proxy", 1080, "user", "s3cret"),
    Proxy("socks5", "proxy", 1080),
)


def check_dialogues(data: bytes) -> None:
    """Whatever a server or a proxy answers, a dialogue ends, in success or in an error that a person can read."""
    if (head := head_of(data)) is not None:
        assert 0 <= head.status <= 999
        assert head.reason.isprintable()
    for proxy in PROXIES:
        _talk(lambda p=proxy: p.tunnel("h.example.com", 8883), data)  # type: ignore[misc]
    _talk(lambda: upgrade("h", "/mqtt", "h:443", signed=True), data)


def _talk(begin: Callable[[], Dialogue[None]], data: bytes) -> None:
    """Carry a dialogue as `dial` does, with an other end that says `data` and closes."""
    dialogue, at = begin(), 0
    with contextlib.suppress(StopIteration):
        ask = next(dialogue)
        for _ in range(4):
            came = b""
            while (missing := ask.missing(came)) > 0 and len(came) < MAX_ANSWER_BYTES and at < len(data):
                came += data[at : at + missing]
                at += missing
            try:
                ask = dialogue.send(came)
            except TransportError as error:
                sentence(str(error))
                hold("s3cret" not in str(error), error)
                return
        raise AssertionError("the dialogue does not end")


def check_proxy(data: bytes) -> None:
    """Whatever stands in `connection.proxy` is a proxy, or a ValueError that does not show the password."""
    text = data.decode("utf-8", "replace")
    try:
        proxy = Proxy.parse(text)
    except ValueError as error:
        hold("s3cret" not in str(error), error)
        return
    assert proxy.host
    assert 0 < proxy.port < 65536
    assert not re.search("s3cret", repr(proxy)) or "s3cret" in proxy.host + proxy.user


HARNESSES = (
    of_bytes("s3-xml", check_xml, JOB_XML, PAGE_XML, ERROR_XML),
    of_json("batch", check_batch, {"jobs": [BATCH_JOB]}, REFUSED),
    of_json("credentials", check_credentials, ISSUED, REFUSED),
    of_bytes("certificates", check_certificate, *CERTIFICATES),
    of_bytes("frames", check_frames, *FRAMES),
    of_bytes("dialogues", check_dialogues, *HEADS),
    of_bytes("proxies", check_proxy, b"http://user:s3cret@proxy:3128", b"socks5://u:s3cret@[::1]:1080"),
)
