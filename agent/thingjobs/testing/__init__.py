"""Public test tools: the kit for handlers, the AWS IoT Jobs service in memory, a clock that moves only when told to.

The kit comes as the pytest fixture `thingjobs`; what can go wrong in a test of a handler is imported from here:

    from thingjobs.testing import cancel, crash

Each name is imported when it is wanted. `thingjobs.testing.broker` puts the service behind a real MQTT broker; it needs
paho.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingjobs.testing.clock import ManualClock
    from thingjobs.testing.control import ControlPlaneError
    from thingjobs.testing.kit import Kit
    from thingjobs.testing.kit.access import CloudAccess
    from thingjobs.testing.kit.faults import (
        NeverHappenedError,
        cancel,
        crash,
        lost_reply,
        offline,
        refused,
        restart,
        stall,
        timeout,
    )
    from thingjobs.testing.kit.outcome import Call, JobRun
    from thingjobs.testing.messages import Fault, Lost, Message, Operation, Refuse, Request
    from thingjobs.testing.records import Change, ExecutionView
    from thingjobs.testing.service import JobsService

__all__ = [
    "Call",
    "Change",
    "CloudAccess",
    "ControlPlaneError",
    "ExecutionView",
    "Fault",
    "JobRun",
    "JobsService",
    "Kit",
    "Lost",
    "ManualClock",
    "Message",
    "NeverHappenedError",
    "Operation",
    "Refuse",
    "Request",
    "cancel",
    "crash",
    "lost_reply",
    "offline",
    "refused",
    "restart",
    "stall",
    "timeout",
]

_HOMES = {
    "clock": "ManualClock",
    "control": "ControlPlaneError",
    "kit": "Kit",
    "kit.access": "CloudAccess",
    "kit.faults": "NeverHappenedError cancel crash lost_reply offline refused restart stall timeout",
    "kit.outcome": "Call JobRun",
    "messages": "Fault Lost Message Operation Refuse Request",
    "records": "Change ExecutionView",
    "service": "JobsService",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name when it is wanted: pytest imports this package for everybody who has it installed."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
