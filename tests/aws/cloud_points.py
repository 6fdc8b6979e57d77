"""What is open about jobs in the cloud, asked through the agent's own bridge; nothing is made or changed there."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, TypeVar

from tests.aws.world import Finding, NotHereError

from thingjobs.cloud import endpoints
from thingjobs.cloud.batch import Batch
from thingjobs.cloud.caller import Caller, Patience
from thingjobs.cloud.credentials import Issued, Keeper
from thingjobs.cloud.endpoints import Place
from thingjobs.cloud.errors import CloudError, Trouble
from thingjobs.cloud.s3_batch import S3Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.aws.world import World

T = TypeVar("T")


def _caller(world: World) -> Caller:
    return Caller(Keeper(lambda: Issued(world.account.credentials)), patience=Patience(attempts=2))


def _s3(world: World) -> S3Batch:
    account = world.account
    return S3Batch(
        _caller(world),
        endpoints.s3_control(Place(account.region, account.endpoint_url), account.number),
        account.number,
    )


def _batch(world: World) -> Batch:
    return Batch(_caller(world), endpoints.batch(Place(world.account.region, world.account.endpoint_url)))


def _tried(world: World, ask: Callable[[], T]) -> T | CloudError:
    """Return what a call brings, or the error that says that there is no such job.

    Raises:
        CloudError: it brings something else.
        NotHereError: the caller may not ask this, or the emulator cannot answer.
    """
    try:
        return ask()
    except CloudError as error:
        if error.trouble is Trouble.DENIED:
            raise NotHereError(f"the caller may not ask this ({error.code})") from None
        if error.trouble is Trouble.NOT_FOUND or (error.status and not world.account.emulated):
            return error
        if world.account.emulated:
            raise NotHereError(f"the emulator does not know it ({error.code or error.trouble})") from None
        raise


def _shown(came: object) -> str:
    return f"{came.status} {came.code} ({came.trouble})" if isinstance(came, CloudError) else "accepted"


def s3_errors(world: World) -> Finding:
    """Describe and cancel an S3 batch job that does not exist."""
    job_id, s3 = str(uuid.uuid4()), _s3(world)
    described = _tried(world, lambda: s3.describe(job_id))
    cancelled = _tried(world, lambda: s3.cancel(job_id, "thingjobs check"))
    fits = all(isinstance(came, CloudError) and came.trouble is Trouble.NOT_FOUND for came in (described, cancelled))
    return Finding(
        f"of an unknown job: describe {_shown(described)}, cancel {_shown(cancelled)}; from which states a cancel is "
        "accepted was not asked, since each S3 batch job is billed",
        fits,
    )


def batch_unknown(world: World) -> Finding:
    """Cancel and describe an AWS Batch job that does not exist."""
    job_id, batch = str(uuid.uuid4()), _batch(world)
    cancelled = _tried(world, lambda: batch.cancel(job_id, "thingjobs check"))
    described = _tried(world, lambda: batch.describe(job_id))
    # Whatever cancelling says, the agent describes the job and believes that.
    how = "nothing" if described == () else _shown(described)
    return Finding(f"cancel {_shown(cancelled)}, describe {how}", fits=described == ())


def batch_delay(world: World) -> Finding:
    """Say why this is not asked."""
    del world
    raise NotHereError("it takes a queue of AWS Batch with a compute environment, which this does not make")


def s3_no_results(world: World) -> Finding:
    """List S3 batch jobs, none of them."""
    came = _tried(world, lambda: _s3(world).page(max_results=0))
    if isinstance(came, CloudError):
        return Finding(f"refused: {_shown(came)}")
    return Finding(f"{len(came.jobs)} jobs; {'a' if came.next_token else 'no'} next page")


CLOUD_POINTS: tuple[tuple[str, str, Callable[[World], Finding]], ...] = (
    ("i", "errors of S3 Batch Operations", s3_errors),
    ("j", "AWS Batch and a job that it does not know", batch_unknown),
    ("k", "how long the cancel of a RUNNABLE job of AWS Batch takes", batch_delay),
    ("p", "maxResults=0 of ListJobs of S3", s3_no_results),
)
