"""Documents that name a handler of ours: `{"handler": NAME, "params": {…}}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.documents.asked import AWS_STEPS, Asked, Device
from thingjobs.documents.placeholders import refuse_placeholders
from thingjobs.documents.shape import check_shape, invalid

if TYPE_CHECKING:
    from thingjobs.model import Json


def read_native(document: Json, device: Device) -> Asked:  # noqa: ARG001 - all readers are called alike
    """Read a native document.

    Raises:
        DocumentError: it is not one.
    """
    refuse_placeholders(document)
    check_shape(document, "document-native")
    return Asked(
        handler=nameable(document["handler"]),
        params=document.get("params", {}),
        version=document.get("version", ""),
        check_only="mode" in document,
    )


def nameable(handler: str) -> str:
    """Return the name of a handler that a document may name.

    `aws-steps` is not one: its parameters are a plan made here, whose users, scripts and names were judged.

    Raises:
        DocumentError: it may not.
    """
    if handler == AWS_STEPS:
        raise invalid(f'{AWS_STEPS} cannot be named: write the steps as {{"version": "1.0", "steps": […]}}')
    return handler
