"""Answers that are no results: both envelopes, every code, and what may be tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.cloud import s3_batch, s3_jobs
from thingjobs.cloud.batch import cancel_call, describe_call, read_jobs
from thingjobs.cloud.calls import Reply
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.markup import MarkupError, parse
from thingjobs.cloud.replies import check, json_result, xml_result
from thingjobs.cloud.words import moment, number, plain, seconds_of

ACCOUNT = "123456789012"
JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
UPDATE = s3_batch.update_call(ACCOUNT, JOB, "Cancelled")
CANCEL = cancel_call(JOB, "why")


def refused(reply: Reply, call: object = UPDATE) -> CloudError:
    with pytest.raises(CloudError) as e:
        (json_result if call is CANCEL else xml_result)(call, reply)  # type: ignore[arg-type]
    return e.value


@pytest.mark.parametrize(
    "body",
    [
        "<Error><Code>NoSuchJob</Code><Message>gone</Message></Error>",
        "<ErrorResponse><Error><Code>NoSuchJob</Code><Message>gone</Message></Error></ErrorResponse>",
        "<Error xmlns='http://awss3control.amazonaws.com/'><Code> NoSuchJob </Code><Message>gone</Message></Error>",
        "<x:Error xmlns:x='u'><x:Code>NoSuchJob</x:Code><x:Message>gone</x:Message></x:Error>",
    ],
)
@pytest.mark.parametrize("status", [400, 404, 200])
def test_the_code_decides_in_either_envelope(body: str, status: int) -> None:
    error = refused(Reply(status, {}, body.encode()))

    assert (error.code, error.trouble, error.fate) == ("NoSuchJob", Trouble.NOT_FOUND, Fate.REFUSED)
    assert "NoSuchJob: gone" in str(error)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-amzn-errortype": "ClientException:http://internal.amazon.com/"}, b'{"message": "no"}'),
        ({}, b'{"__type": "com.amazonaws.batch#ClientException", "Message": "no"}'),
        ({}, b'{"code": "ClientException", "message": "no"}'),
    ],
)
def test_the_code_of_aws_batch_is_found_wherever_it_is(headers: dict[str, str], body: bytes) -> None:
    error = refused(Reply(400, headers, body), CANCEL)

    assert (error.code, error.trouble) == ("ClientException", Trouble.REJECTED)
    assert "ClientException: no" in str(error)


def test_codes_are_those_of_the_models() -> None:
    """Each error that the API's model names is one that we know, or one that has nothing special about it."""
    import botocore.session

    session = botocore.session.get_session()
    plain_ones = {"BadRequestException", "InvalidRequestException", "InvalidNextTokenException", "ClientException"}
    for service, operations in (
        ("s3control", ("ListJobs", "DescribeJob", "UpdateJobStatus")),
        ("batch", ("CancelJob", "TerminateJob", "DescribeJobs")),
    ):
        model = session.get_service_model(service)
        for operation in operations:
            for shape in model.operation_model(operation).error_shapes:
                trouble = refused(Reply(400, {}, f"<Error><Code>{shape.name}</Code></Error>".encode())).trouble
                assert (trouble is Trouble.REJECTED) == (shape.name in plain_ones), shape.name


@pytest.mark.parametrize(
    ("status", "trouble", "fate", "passing"),
    [
        (301, Trouble.REGION, Fate.REFUSED, False),
        (400, Trouble.REJECTED, Fate.REFUSED, False),
        (401, Trouble.DENIED, Fate.REFUSED, False),
        (403, Trouble.DENIED, Fate.REFUSED, False),
        (404, Trouble.NOT_FOUND, Fate.REFUSED, False),
        (405, Trouble.REJECTED, Fate.REFUSED, False),
        (429, Trouble.THROTTLED, Fate.REFUSED, True),
        (500, Trouble.UNAVAILABLE, Fate.UNKNOWN, True),
        (503, Trouble.UNAVAILABLE, Fate.UNKNOWN, True),
        (599, Trouble.UNAVAILABLE, Fate.UNKNOWN, True),
    ],
)
def test_without_a_code_the_status_must_do(status: int, trouble: Trouble, fate: Fate, *, passing: bool) -> None:
    for body in (b"", b"<html><body>oops</body></html>", b"{}", b'"text"', b"<Err", bytes([0, 255])):
        error = refused(Reply(status, {}, body))
        assert (error.trouble, error.fate, error.passing) == (trouble, fate, passing)
        assert error.status == status


@pytest.mark.parametrize(
    ("code", "message", "trouble"),
    [
        ("InvalidSignatureException", "Signature expired: 2026 is now earlier than 2027", Trouble.CLOCK),
        ("InvalidSignatureException", "Signature not yet current: 2027 is still later", Trouble.CLOCK),
        ("SignatureDoesNotMatch", "Credential should be scoped to a valid region.", Trouble.REGION),
        ("SignatureDoesNotMatch", "The request signature we calculated", Trouble.SIGNATURE),
        ("RequestTimeTooSkewed", "", Trouble.CLOCK),
        ("ExpiredToken", "", Trouble.EXPIRED),
        ("SlowDown", "", Trouble.THROTTLED),
        ("InternalError", "", Trouble.UNAVAILABLE),
    ],
)
def test_signatures_clocks_and_regions_are_told_apart(code: str, message: str, trouble: Trouble) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"

    assert refused(Reply(403, {}, body.encode())).trouble is trouble


def test_the_region_that_the_service_names_is_told() -> None:
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-east-2</Region></Error>"

    assert "set cloud.region to the region where the job is" in str(refused(Reply(400, {}, body)))
    assert "(the service names us-east-2)" in str(refused(Reply(400, {}, body)))


def test_how_long_to_wait_is_read_as_seconds_or_as_a_time() -> None:
    at = seconds_of("Sun, 22 Nov 2026 08:00:30 GMT")
    assert at
    for said, expected in (("3", 3), ("Sun, 22 Nov 2026 08:00:30 GMT", 30), ("soon", None), ("", None), ("9" * 99, 60)):
        reply = Reply(429, {"retry-after": said}, b"", at - 30)
        assert refused(reply).after == expected, said


@given(st.integers(100, 599), st.binary(max_size=60), st.sampled_from(["", "ClientException", "x:y#z", "\x00"]))
def test_no_answer_is_too_odd_to_be_told(status: int, body: bytes, kind: str) -> None:
    reply = Reply(status, {"x-amzn-errortype": kind, "content-type": kind, "retry-after": kind}, body)
    for call, read in ((UPDATE, s3_jobs.read_updated), (describe_call(JOB), read_jobs)):
        told = ""
        try:
            read(call, reply)
        except CloudError as error:
            told = str(error)
        assert not told or (told.startswith("cannot ") and told.isprintable())


def test_what_is_fine_passes() -> None:
    check(UPDATE, Reply(200))
    assert json_result(CANCEL, Reply(200, {}, b"")) == {}
    assert json_result(CANCEL, Reply(204, {}, b" \n")) == {}


# --- XML ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no element found"),
        (b"<a><b></a>", "mismatched tag"),
        (b"<a>", "no element found"),
        (b"<a/><b/>", "junk after document element"),
        (b"\xff\xfe<", "no XML"),
        (b"<?xml version='1.0' encoding='klingon'?><a/>", "no XML"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "declares a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
        (b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:1/"> %x;]><a/>', "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode("utf-16"), "declares a document type"),
        (b"<a>&x;</a>", "undefined entity"),
        (b"<a>" * 60 + b"</a>" * 60, "nested deeper"),
    ],
)
def test_xml_that_is_none_or_dangerous_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MarkupError, match=why):
        parse(data)


@given(st.binary(max_size=80))
def test_xml_is_read_or_refused(data: bytes) -> None:
    try:
        parse(b"<a>" + data + b"</a>")
    except MarkupError as error:
        assert str(error)  # noqa: PT017 - either is fine


def test_xml_keeps_texts_as_they_are() -> None:
    root = parse(b"<?xml version='1.0'?><n:a xmlns:n='u'> <b>x &lt;&amp;&#252; <![CDATA[<y>]]></b><b>2</b></n:a>")

    assert (root.name, root.said("b")) == ("a", "x <&ü <y>")
    assert [node.text for node in root.every()] == ["x <&ü <y>", "2"]
    assert (root.said("c", "d"), root.at("c")) == ("", None)


def test_a_job_without_id_or_status_is_nonsense() -> None:
    describe = s3_batch.describe_call(ACCOUNT, JOB)
    for body in (b"<a/>", b"<a><Job/></a>", b"<a><Job><JobId>x</JobId></Job></a>"):
        with pytest.raises(CloudError, match="names no job and no status") as e:
            s3_jobs.read_job(describe, Reply(200, {}, body))
        assert e.value.fate is Fate.UNKNOWN
    with pytest.raises(CloudError, match="names no job and no status"):
        s3_jobs.read_updated(UPDATE, Reply(200, {}, b"<a><JobId>x</JobId></a>"))


# --- Words -------------------------------------------------------------------------------------------------------


def test_words_of_others_are_made_fit_for_a_line() -> None:
    assert plain("a\nb\x1b[31m\u202ec  d") == "a b [31m c d"
    assert plain("see https://u:p@h/p?X-Amz-Signature=hush") == "see https://…@h/p?…"
    assert len(plain("x" * 1000)) == 300


def test_times_and_numbers_that_are_none_are_none() -> None:
    assert (
        moment("2026-01-02T03:04:05.678Z") == moment("2026-01-02T04:04:05.678+01:00") == moment("20260102T030405.678Z")
    )
    assert moment("2026-01-02T03:04:05") == moment("2026-01-02T03:04:05Z")
    assert [moment(text) for text in ("", None, "soon", "0001-01-01T00:00:00+23:59")] == [None] * 4
    assert [number(text) for text in ("7", "-1", "", None, "1.5", "9" * 5000, "٣")] == [7, -1, *[None] * 5]
    assert seconds_of("nonsense") is None
