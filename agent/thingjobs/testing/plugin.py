"""The pytest plug-in: the fixture `thingjobs`, and the timelines of its jobs in the report of a test that fails.

pytest imports this in every run wherever thingjobs is installed, so it imports nothing until a test wants the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    import pluggy

    from thingjobs.testing.kit import Kit


@pytest.fixture
def thingjobs(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """Run a handler through any verbs, with a crash, a reboot, a cancel or a timeout on the way, and no cloud."""
    from thingjobs.testing.kit import Kit  # noqa: PLC0415

    return Kit(tmp_path_factory.mktemp("thingjobs"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Show what became of the jobs of a test that failed."""
    report = (yield).get_result()
    kit = getattr(item, "funcargs", {}).get("thingjobs")
    if report.when == "call" and report.failed and kit is not None:
        report.sections.extend(("thingjobs", str(shown)) for shown in (*kit.calls, *kit.runs))
