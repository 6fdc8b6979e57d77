"""What the loop works out by itself: next to nothing."""

from __future__ import annotations

import pytest

from thingjobs.beginning import identity_of_key
from thingjobs.model import Identity, JobId


def test_the_identity_of_an_execution_is_read_back_from_its_file_name() -> None:
    identity = Identity(JobId("job-1"), 7, 1_790_000_000)

    assert identity_of_key(identity.key) == identity


@pytest.mark.parametrize("name", ["", "job", "job.1", "job.one.2", "a.1.2.3", "not a job.1.2"])
def test_a_file_of_another_name_stops_nothing(name: str) -> None:
    assert identity_of_key(name) is None
