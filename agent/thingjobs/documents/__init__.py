"""Job documents: what each asks of this device. Pure: decides and refuses, runs nothing.

Three shapes are understood, told apart by the key they have: `handler` (native), `steps` (the AWS managed
templates and the AWS IoT Device Client) and `operation` (its older schema). Whether the handler is there, and
likes its parameters, is not judged here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.documents.asked import AWS_STEPS, Asked, Device
from thingjobs.documents.aws_steps import read_operation, read_steps
from thingjobs.documents.native import read_native
from thingjobs.documents.placeholders import refuse_placeholders
from thingjobs.documents.shape import check_shape, kind_of
from thingjobs.errors import DocumentError
from thingjobs.model import Code

if TYPE_CHECKING:
    from thingjobs.model import Json

__all__ = ["AWS_STEPS", "Asked", "Device", "called", "check_form", "route"]

_READERS = (("handler", read_native), ("steps", read_steps), ("operation", read_operation))
#: What those must look like on any device; an operation is a handler's or a script's, as the device has it.
_SHAPES = {"handler": "document-native", "steps": "document-aws-steps"}


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
    raise _unknown()


def called(document: object, device: Device) -> str:
    """Return the name of the handler that a document would call, and look no further into it; "" if it names none."""
    match document:
        case {"handler": name}:
            return name if isinstance(name, str) else ""
        case {"steps": _}:
            return AWS_STEPS
        case {"operation": str(name)} if device.has_handler(name):
            return name
        case {"operation": _}:
            return AWS_STEPS
        case _:
            return ""


def check_form(document: Json) -> None:
    """Refuse what no device would understand, as far as that can be told without one.

    Raises:
        DocumentError: it is written wrongly, or like none that is known.
    """
    key = next((key for key, _ in _READERS if key in document), None)
    if key is None:
        raise _unknown()
    if key in _SHAPES:
        check_shape(document, _SHAPES[key])


def _unknown() -> DocumentError:
    return DocumentError(
        Code.DOCUMENT_UNKNOWN,
        "the document has none of the keys handler, steps and operation: write "
        '{"handler": NAME, "params": {…}}, an AWS document {"version": "1.0", "steps": […]}, '
        'or {"operation": NAME, …}',
    )
