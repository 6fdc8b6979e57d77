"""The simulated AWS IoT Jobs service: both its sides over one state, in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thingjobs.testing.control import ControlPlane
from thingjobs.testing.device import DevicePlane
from thingjobs.testing.records import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.testing.records import TerminalUpdateCode


class JobsService(ControlPlane, DevicePlane):
    """The device side of AWS IoT Jobs and the part of its control plane that tests need, for many things.

        service = JobsService(clock := ManualClock())
        service.create_job("greet", {"handler": "greet"}, ["pump-7"])
        answer = service.ask("pump-7", "greet/update", {"status": "IN_PROGRESS", "expectedVersion": 1})
        assert answer.accepted
        assert service.execution("pump-7", "greet").version == 2

    It speaks bytes and topics, so that it shares no code, and no mistakes, with the agent's own codec. Any thread
    may call it. The keyword arguments choose where it is not known for certain what the live service does.

    Args:
        clock: seconds since the epoch.
        terminal_update_code: the refusal of an update to a terminal execution; InvalidStateTransition comes with
            the stored state, TerminalStateReached without.
        version_first: such an update is refused for its version, if that is wrong too, before its state.
        count_service_changes: TIMED_OUT, CANCELED and REMOVED raise versionNumber too.
        presign: makes the URL that a `${aws:iot:s3-presigned-url:URL}` in a document becomes, afresh for each
            delivery; None leaves such placeholders as they are.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        terminal_update_code: TerminalUpdateCode = "InvalidStateTransition",
        version_first: bool = False,
        count_service_changes: bool = False,
        presign: Callable[[str], str] | None = None,
    ) -> None:
        behaviour = Behaviour(terminal_update_code, version_first, count_service_changes, presign)
        super().__init__(clock, behaviour)
