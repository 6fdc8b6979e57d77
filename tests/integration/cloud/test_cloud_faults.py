"""What can go wrong between a call and its answer: what is sent again, what is not, and what people are told."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.caller import Caller, Patience
from thingjobs.cloud.calls import Endpoint
from thingjobs.cloud.credentials import Credentials, Issued, Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.s3_batch import S3Batch
from thingjobs.cloud.web import Line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Pki
    from tests.integration.cloud.conftest import Calling, FakeCloud

    from thingjobs.cloud.batch import Batch

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
GOOD = Credentials("AKIDTEST", "secret/+=")


# --- What is sent again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequestsException"), (400, "ThrottlingException")]
)
def test_a_throttled_call_is_sent_again_even_one_that_changes_something(
    cloud: FakeCloud, s3: S3Batch, pauses: list[float], status: int, code: str
) -> None:
    cloud.new_job(JOB)
    cloud.refuse(status, code)
    cloud.refuse(status, code)

    assert s3.cancel(JOB).status == "Cancelling"
    assert len(cloud.seen) == 3
    assert len(pauses) == 2
    assert pauses[0] <= 0.5
    assert pauses[1] <= 1.0


def test_the_service_may_say_how_long_to_wait_within_reason(cloud: FakeCloud, s3: S3Batch, pauses: list[float]) -> None:
    cloud.new_job(JOB)
    cloud.fail(429, headers={"Retry-After": "7"})
    cloud.fail(503, headers={"Retry-After": "999999"})

    s3.describe(JOB)

    assert pauses == [7, 60]


def test_in_the_end_it_is_given_up(cloud: FakeCloud, s3: S3Batch, pauses: list[float]) -> None:
    for _ in range(9):
        cloud.refuse(503, "SlowDown", "Please reduce your request rate.")

    with pytest.raises(CloudError, match=r"SlowDown: Please reduce your request rate.*try again later") as e:
        s3.describe(JOB)

    assert (e.value.trouble, e.value.fate) == (Trouble.THROTTLED, Fate.REFUSED)
    assert len(cloud.seen) == 5
    assert len(pauses) == 4


def test_reading_is_repeated_when_the_service_fails_or_its_answer_is_lost(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB)
    cloud.refuse(500, "InternalServiceException")
    cloud.hang_up()
    cloud.hang_up(after=True)
    cloud.fail(200, b"<DescribeJobResult><Job><JobId>x</JobId></Job></DescribeJobResult>", cut=20)

    assert s3.describe(JOB).status == "Active"
    assert len(cloud.seen) == 5


LOST: list[Callable[[FakeCloud], None]] = [
    lambda cloud: cloud.hang_up(after=True),
    lambda cloud: cloud.hang_up(),
    lambda cloud: cloud.refuse(500, "InternalError"),
    lambda cloud: cloud.fail(502, b"<html>Bad gateway</html>", after=True),
    lambda cloud: cloud.fail(503, b""),
    lambda cloud: cloud.fail(200, b"<UpdateJobStatusResult><JobId>00e1</JobId></UpdateJo", after=True),
    lambda cloud: cloud.fail(200, b"x" * 1000, cut=10, after=True),
    lambda cloud: cloud.fail(200, b"<html>Please log in to the hotel's network</html>"),
]


@pytest.mark.parametrize("lose", LOST)
def test_a_change_whose_answer_is_lost_is_not_sent_again(
    cloud: FakeCloud, s3: S3Batch, lose: Callable[[FakeCloud], None]
) -> None:
    cloud.new_job(JOB)
    lose(cloud)

    with pytest.raises(CloudError, match="cannot cancel the S3 batch job") as e:
        s3.cancel(JOB, "mine")

    assert e.value.fate is Fate.UNKNOWN
    assert len(cloud.seen) == 1


@pytest.mark.parametrize("operation", ["cancel", "terminate"])
def test_aws_batch_is_not_asked_twice_either(cloud: FakeCloud, batch: Batch, operation: str) -> None:
    cloud.hang_up(after=True)

    with pytest.raises(CloudError, match="may have been carried out all the same") as e:
        getattr(batch, operation)(JOB, "mine")

    assert (e.value.fate, len(cloud.seen)) == (Fate.UNKNOWN, 1)


def test_an_answer_that_takes_too_long_may_still_have_been_a_success(cloud: FakeCloud, calling: Calling) -> None:
    cloud.new_job(JOB)
    late = threading.Event()
    answer, cloud.answer = cloud.answer, lambda seen: (late.wait(10), answer(seen))[1]  # type: ignore[method-assign]
    s3 = S3Batch(calling(read_s=0.2), Endpoint(f"http://{cloud.s3_host}", cloud.region, "s3"), cloud.account)

    try:
        with pytest.raises(CloudError, match="did not come in time; it may have been carried out") as e:
            s3.cancel(JOB)
    finally:
        late.set()

    assert (e.value.trouble, e.value.fate) == (Trouble.UNREACHABLE, Fate.UNKNOWN)


# --- What never left -----------------------------------------------------------------------------------------------


def test_a_change_that_found_nobody_listening_was_not_sent_and_is_tried_again(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    s3 = s3_at(f"http://127.0.0.1:{port}", Line(), sleep=pauses.append)

    with pytest.raises(CloudError, match=r"connection refused \(127\.0\.0\.1:[0-9]+\)$") as e:
        s3.cancel(JOB)

    assert (e.value.trouble, e.value.fate) == (Trouble.UNREACHABLE, Fate.NOT_SENT)
    assert len(pauses) == 4


def test_a_server_that_we_do_not_trust_is_sent_nothing(cloud: FakeCloud, pki: Pki, secure: str) -> None:
    with pytest.raises(CloudError, match=r"certificate is refused.*AWS_CA_BUNDLE") as e:
        s3_at(secure, Line()).cancel(JOB)

    assert e.value.fate is Fate.NOT_SENT
    assert cloud.seen == []

    cloud.new_job(JOB)
    assert s3_at(secure, Line(ca=pki.ca)).cancel(JOB).status == "Cancelling"


@pytest.mark.parametrize(("days", "said"), [(-2, "has expired"), (5, "not yet valid")])
def test_a_certificate_of_another_time_points_at_the_clock(cloud: FakeCloud, pki: Pki, days: int, said: str) -> None:
    url = behind_tls(cloud, *pki.dated("localhost", (days, days + 1)))

    with pytest.raises(CloudError, match=f"{said}; is this device's clock right") as e:
        s3_at(url, Line(ca=pki.ca)).cancel(JOB)

    assert (e.value.trouble, e.value.fate, cloud.seen) == (Trouble.CLOCK, Fate.NOT_SENT, [])


def test_a_proxy_that_is_not_there_is_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    with pytest.raises(CloudError, match="connection refused") as e:
        s3_at("https://h.invalid", Line(proxy=f"http://u:hush@127.0.0.1:{port}")).cancel(JOB)

    assert e.value.fate is Fate.NOT_SENT
    assert "hush" not in str(e.value)


def test_a_proxy_that_opens_no_tunnel_sends_nothing(cloud: FakeCloud) -> None:
    with pytest.raises(CloudError, match="Tunnel connection failed: 501") as e:
        s3_at("https://h.invalid", Line(proxy=cloud.url)).cancel(JOB)

    assert e.value.fate is Fate.NOT_SENT


@pytest.mark.parametrize("url", ["https://", "https://host:port", "ftp://host", "nonsense", "https://ex ample/"])
def test_an_endpoint_that_is_none_is_said_to_be(url: str) -> None:
    with pytest.raises(CloudError, match="cannot cancel the S3 batch job") as e:
        s3_at(url, Line()).cancel(JOB)

    assert (e.value.trouble, e.value.fate) == (Trouble.INPUT, Fate.NOT_SENT)


def test_what_happened_to_somebody_else_is_not_taken_for_ours(cloud: FakeCloud, s3: S3Batch) -> None:
    """An exception that a caller is just handling becomes the context of ours."""
    cloud.hang_up(after=True)
    try:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        s3_at(f"http://127.0.0.1:{port}", Line(), attempts=1).cancel(JOB)
    except CloudError:
        with pytest.raises(CloudError) as e:
            s3.cancel(JOB)

    assert e.value.fate is Fate.UNKNOWN


# --- What it was not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "trouble", "fix"),
    [
        (403, "AccessDenied", Trouble.DENIED, "allow s3:UpdateJobStatus .* cloud.account"),
        (403, "InvalidAccessKeyId", Trouble.CREDENTIALS, "does not know these credentials"),
        (400, "BadRequestException", Trouble.REJECTED, "so it is"),
        (301, "PermanentRedirect", Trouble.REGION, "set cloud.region"),
        (400, "AuthorizationHeaderMalformed", Trouble.REGION, "set cloud.region"),
        (400, "SomethingNew", Trouble.REJECTED, "SomethingNew"),
    ],
)
def test_refusals_say_what_to_do(
    cloud: FakeCloud, s3: S3Batch, status: int, code: str, trouble: Trouble, fix: str
) -> None:
    cloud.refuse(status, code)

    with pytest.raises(CloudError, match=fix) as e:
        s3.cancel(JOB)

    assert (e.value.trouble, e.value.fate, e.value.code) == (trouble, Fate.REFUSED, code)
    assert len(cloud.seen) == 1


def test_redirects_are_not_followed(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.fail(307, headers={"Location": f"{cloud.url}/elsewhere?X-Amz-Signature=hush"})

    with pytest.raises(
        CloudError, match=r"sends us elsewhere.*the service names http://127.0.0.1:[0-9]+/elsewhere"
    ) as e:
        s3.cancel(JOB)

    assert "hush" not in str(e.value)
    assert (e.value.trouble, len(cloud.seen)) == (Trouble.REGION, 1)


def test_an_error_under_the_status_200_is_an_error(cloud: FakeCloud, s3: S3Batch, batch: Batch) -> None:
    cloud.new_job(JOB)
    cloud.refuse(200, "SlowDown")
    cloud.refuse(200, "AccessDenied")
    with pytest.raises(CloudError, match="AccessDenied"):
        s3.cancel(JOB)

    for body in (
        b'{"__type": "com.amazonaws#AccessDeniedException"}',
        b'{"Output": {"__type": "AccessDeniedException"}}',
    ):
        cloud.fail(200, body)
        with pytest.raises(CloudError, match="AccessDeniedException"):
            batch.describe(JOB)


def test_a_document_type_is_refused_before_it_can_explode(cloud: FakeCloud, s3: S3Batch) -> None:
    lines = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)]
    bomb = f'<!DOCTYPE x [<!ENTITY a0 "boom">{"".join(lines)}]><DescribeJobResult>&a11;</DescribeJobResult>'
    cloud.fail(200, bomb.encode())

    with pytest.raises(CloudError, match="it declares a document type") as e:
        s3.describe(JOB)

    assert (e.value.trouble, len(cloud.seen)) == (Trouble.NONSENSE, 1)


def test_an_answer_without_end_is_cut_short(cloud: FakeCloud, s3: S3Batch) -> None:
    for _ in range(5):
        cloud.fail(200, bytes(17 * 2**20))

    with pytest.raises(CloudError, match="larger than 16 MiB"):
        s3.describe(JOB)


def test_no_secret_is_in_what_people_read(cloud: FakeCloud, calling: Calling) -> None:
    secret = Credentials("AKIDTEST", "secret/+=", "hush-hush")
    s3 = s3_with(cloud, calling(keeper=Keeper(lambda: Issued(secret))))
    cloud.refuse(403, "AccessDenied")

    with pytest.raises(CloudError) as e:
        s3.describe(JOB)

    told = f"{e.value} {secret!r} {secret} {Issued(secret)!r}"
    assert "hush" not in told
    assert "secret/" not in told


# --- Machinery ---------------------------------------------------------------------------------------------------


def s3_with(cloud: FakeCloud, caller: Caller) -> S3Batch:
    return S3Batch(caller, Endpoint(f"http://{cloud.s3_host}", cloud.region, "s3"), cloud.account)


def s3_at(url: str, line: Line, *, attempts: int = 5, sleep: Callable[[float], Any] = lambda _: None) -> S3Batch:
    caller = Caller(Keeper(lambda: Issued(GOOD)), line, patience=Patience(attempts), sleep=sleep)
    return S3Batch(caller, Endpoint(url, "eu-west-1", "s3"), "123456789012")


@pytest.fixture
def secure(cloud: FakeCloud, pki: Pki) -> str:
    """Put the fake behind TLS; return its URL."""
    return behind_tls(cloud, pki.server_cert, pki.server_key)


def behind_tls(cloud: FakeCloud, certificate: Path, key: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    cloud.socket = context.wrap_socket(cloud.socket, server_side=True)
    return cloud.url.replace("http://127.0.0.1", "https://localhost")
