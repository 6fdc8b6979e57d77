"""What the tests of `s3-batch-job` and `batch-job` have in common: the kit, the fake services, a clock that jumps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from thingjobs.testing.kit.access import CloudAccess
from thingjobs_handlers.cloud_pursuit import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.conftest import FakeCloud

    from thingjobs.testing.kit import Kit
    from thingjobs.testing.kit.outcome import Call, JobRun


class Hours:
    """A clock of its own: what waits for hours takes no time, and at each pause something happens in the cloud."""

    def __init__(self) -> None:
        self.now = 0.0
        self.happens: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens()

    @property
    def pace(self) -> Pace:
        return Pace(nap=1e9, clock=lambda: self.now, sleep=self.sleep, roll=lambda: 0.5)


class World:
    """Runs a handler against the fake services.

    Args:
        kit: the fixture `thingjobs`.
        fake: the fixture `cloud`.
        handler: the class.
        job_id: of the cloud job.
    """

    def __init__(self, kit: Kit, fake: FakeCloud, handler: type, job_id: str) -> None:
        self.kit = kit
        self.fake = fake
        self.job_id = job_id
        self.hours = Hours()
        self.access: dict[str, Any] = {"url": fake.url, "secret_access_key": "secret/+="}

        class Quick(handler):  # type: ignore[misc]
            pace: ClassVar[Pace] = self.hours.pace

        self.handler = Quick

    def run(self, action: str, *, faults: tuple[Any, ...] = (), **params: Any) -> JobRun:
        """Run a whole device job."""
        params = {"jobId": self.job_id, "action": action, **params}
        return self.kit.run(self.handler, params, faults=faults, cloud=CloudAccess(**self.access))

    def call(self, verb: Any, action: str, attempt: int = 1, **params: Any) -> Call:
        """Call one verb."""
        dry_run = params.pop("dry_run", False)
        params = {"jobId": self.job_id, "action": action, **params}
        access = CloudAccess(**self.access)
        return self.kit.call(self.handler, verb, params, attempt=attempt, dry_run=dry_run, cloud=access)

    @property
    def changes(self) -> list[str]:
        """What was asked of the service that changes something."""
        return [seen.change for seen in self.fake.seen if seen.change]

    @property
    def sequence(self) -> str:
        """The requests as letters: d for a look, C for a change."""
        return "".join("C" if seen.change else "d" for seen in self.fake.seen)


@pytest.fixture
def world_of(thingjobs: Kit, cloud: FakeCloud) -> Callable[[type, str], World]:
    """Make a world, of a handler class and the id of a cloud job."""
    return partial(World, thingjobs, cloud)
