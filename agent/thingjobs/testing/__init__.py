"""Public test tools: the AWS IoT Jobs service in memory, and a clock that moves only when it is told to.

`thingjobs.testing.broker` puts the service behind a real MQTT broker; it is not imported here: it needs paho.
"""

from thingjobs.testing.clock import ManualClock
from thingjobs.testing.control import ControlPlaneError
from thingjobs.testing.messages import Fault, Lost, Message, Operation, Refuse, Request
from thingjobs.testing.records import Change, ExecutionView
from thingjobs.testing.service import JobsService

__all__ = [
    "Change",
    "ControlPlaneError",
    "ExecutionView",
    "Fault",
    "JobsService",
    "Lost",
    "ManualClock",
    "Message",
    "Operation",
    "Refuse",
    "Request",
]
