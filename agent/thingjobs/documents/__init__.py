"""Job documents: what each asks of this device. Pure: decides and refuses, runs nothing.

Three shapes are understood, told apart by the key they have: `handler` (native), `steps` (the AWS managed
templates and the AWS IoT Device Client) and `operation` (its older schema). Whether the handler is there, and
likes its parameters, is not judged here.
"""

from __future__ import annotations

from thingjobs.documents.asked import AWS_STEPS, Asked, Device
from thingjobs.documents.aws_steps import read_operation, read_steps
from thingjobs.documents.native import read_native
from thingjobs.documents.placeholders import refuse_placeholders
from thingjobs.documents.shape import kind_of
from thingjobs.errors import DocumentError
from thingjobs.model import Code

__all__ = ["AWS_STEPS", "Asked", "Device", "route"]

_READERS = (("handler", read_native), ("steps", read_steps), ("operation", read_operation))


def route(document: object, device: Device) -> Asked:
    """Tell what a job document asks for.

    Args:
        document: the parsed document, any JSON value.
        device: what is to be known of this device.

    Returns:
        The handler to call and its parameters.

    Raises:
        DocumentError: this device must refuse the document; `code` and `reason` say why.
    """
    if not isinstance(document, dict):
        raise DocumentError(Code.DOCUMENT_INVALID, f"the job document must be a JSON object, not {kind_of(document)}")
    for key, read in _READERS:
        if key in document:
            return read(document, device)
    refuse_placeholders(document)
    raise DocumentError(
        Code.DOCUMENT_UNKNOWN,
        "the document has none of the keys handler, steps and operation: write "
        '{"handler": NAME, "params": {…}}, an AWS document {"version": "1.0", "steps": […]}, '
        'or {"operation": NAME, …}',
    )
