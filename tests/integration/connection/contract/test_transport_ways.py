"""The ways to the service over which the contract of transports is tested, and what each of them lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.connection.contract.conftest import Harness


def test_each_way_says_what_it_lacks(ways: dict[str, type[Harness]]) -> None:
    missing = {name: {trait.name for trait in way.lacks} for name, way in ways.items() if way.lacks}
    assert missing == {
        "memory": {"SERVER", "NOTICE"},
        "local": {"SERVER", "NOTICE"},
        "https": {"PUSH", "TOKENS", "NOTICE"},
    }
    assert all(reason for way in ways.values() for reason in way.lacks.values())
