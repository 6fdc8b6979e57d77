"""Conditions of an AWS document: whether it is meant for a device like this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.documents.shape import shown
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.documents.asked import Device
    from thingjobs.model import Json


def judge(conditions: Sequence[Json], device: Device) -> None:
    """Refuse the document unless all its conditions hold here; one holds if any of its values is the fact.

    The AWS IoT Device Client reads conditions and ignores them, which is why one we cannot judge is refused.

    Raises:
        DocumentError: condition.false, or condition.unknown for a key or type that means nothing here.
    """
    for condition in conditions:
        key, wanted = condition["key"], condition["value"]
        if condition.get("type", "stringEqual") != "stringEqual":
            raise DocumentError(
                Code.CONDITION_UNKNOWN,
                f"the condition on {shown(key)} has the type {shown(condition['type'])}; "
                "the only one known is stringEqual",
            )
        if key not in device.facts:
            raise DocumentError(
                Code.CONDITION_UNKNOWN,
                f"the condition on {shown(key)} cannot be judged, known here are "
                f"{', '.join(sorted(device.facts))}: add it to [facts] of the configuration",
            )
        if device.facts[key] not in wanted:
            raise DocumentError(
                Code.CONDITION_FALSE,
                f"the document is for {shown(key)} {' or '.join(map(shown, wanted))}; "
                f"on {device.thing} it is {shown(device.facts[key])}",
            )
