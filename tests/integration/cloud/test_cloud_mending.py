"""A wrong clock and credentials past their time: mended once, without anybody being told; else named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.calls import Endpoint
from thingjobs.cloud.credentials import Credentials, Issued, Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.s3_batch import S3Batch

if TYPE_CHECKING:
    from tests.integration.cloud.conftest import Calling, FakeCloud

    from thingjobs.cloud.batch import Batch
    from thingjobs.cloud.caller import Caller

JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"
GOOD = Credentials("AKIDTEST", "secret/+=")


@pytest.mark.parametrize("service", ["s3", "batch"])
@pytest.mark.parametrize("ahead", [-86400, 86400])
def test_a_wrong_clock_is_found_out_once_and_reckoned_with(
    cloud: FakeCloud, s3: S3Batch, batch: Batch, service: str, ahead: int
) -> None:
    cloud.ahead = ahead
    cloud.new_job(JOB)

    for _ in range(2):
        s3.describe(JOB) if service == "s3" else batch.describe(JOB)

    assert len(cloud.seen) == 3


def test_a_clock_that_is_set_meanwhile_is_believed_again(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.new_job(JOB)
    for ahead in (86400, 0):
        cloud.ahead = ahead
        s3.describe(JOB)

    assert len(cloud.seen) == 4


def test_a_clock_that_nothing_helps_is_named(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.ahead = 86400
    for _ in range(3):
        cloud.refuse(403, "RequestTimeTooSkewed", "The difference is too large.")

    with pytest.raises(CloudError, match=r"RequestTimeTooSkewed.*set this device's clock") as e:
        s3.cancel(JOB)

    assert (e.value.trouble, e.value.fate, len(cloud.seen)) == (Trouble.CLOCK, Fate.REFUSED, 2)


def test_a_wrong_secret_is_not_taken_for_a_wrong_clock(cloud: FakeCloud, calling: Calling) -> None:
    keeper = Keeper(lambda: Issued(Credentials("AKIDTEST", "another/secret")))
    s3 = S3Batch(calling(keeper=keeper), Endpoint(f"http://{cloud.s3_host}", cloud.region, "s3"), cloud.account)

    with pytest.raises(CloudError, match=r"SignatureDoesNotMatch.*is the secret access key right") as e:
        s3.describe(JOB)

    assert (e.value.trouble, len(cloud.seen)) == (Trouble.SIGNATURE, 1)


def test_credentials_that_the_service_calls_expired_are_replaced_once(cloud: FakeCloud, calling: Calling) -> None:
    cloud.new_job(JOB)
    cloud.expired.add("AKIDOLD")
    cloud.secrets["AKIDOLD"] = ("old", "")
    issued = iter([Issued(Credentials("AKIDOLD", "old")), Issued(GOOD)])
    s3 = s3_with(cloud, calling(keeper=Keeper(lambda: next(issued))))

    assert s3.cancel(JOB).status == "Cancelling"
    assert len(cloud.seen) == 2


def test_a_wrong_clock_and_old_credentials_are_both_mended(cloud: FakeCloud, calling: Calling) -> None:
    cloud.new_job(JOB)
    cloud.ahead = 86400
    cloud.secrets["AKIDOLD"] = ("old", "")
    issued = iter([Issued(Credentials("AKIDOLD", "old")), Issued(GOOD)])
    s3 = s3_with(cloud, calling(keeper=Keeper(lambda: next(issued))))
    answer = cloud.answer

    def expire_once_seen(seen: Any) -> Any:
        found = answer(seen)
        cloud.expired.add("AKIDOLD")
        return found

    cloud.answer = expire_once_seen  # type: ignore[method-assign]

    assert s3.cancel(JOB).status == "Cancelling"
    assert len(cloud.seen) == 3


def test_credentials_that_stay_expired_are_named(cloud: FakeCloud, s3: S3Batch) -> None:
    cloud.expired.add("AKIDTEST")

    with pytest.raises(CloudError, match=r"ExpiredToken.*get fresh credentials") as e:
        s3.cancel(JOB)

    assert (e.value.trouble, len(cloud.seen)) == (Trouble.EXPIRED, 2)


def s3_with(cloud: FakeCloud, caller: Caller) -> S3Batch:
    return S3Batch(caller, Endpoint(f"http://{cloud.s3_host}", cloud.region, "s3"), cloud.account)
