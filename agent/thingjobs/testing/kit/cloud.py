"""The Jobs service as one job sees it: queued there, updated from here, cancelled; and answers are lost on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.jobs import Connected, Disconnected, Update
from thingjobs.model import JobId, ThingName
from thingjobs.testing.kit import outcome
from thingjobs.testing.kit.running import THING
from thingjobs.testing.messages import Lost, Operation, Refuse
from thingjobs.testing.service import JobsService
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections import deque

    from thingjobs import jobs
    from thingjobs.machine.events import Event
    from thingjobs.testing.clock import ManualClock
    from thingjobs.testing.kit.faults import UpdateFault
    from thingjobs.testing.kit.outcome import Diary, Json
    from thingjobs.testing.messages import Fault, Message, Request
    from thingjobs.testing.records import ExecutionView

JOB = JobId("job")


class Cloud:
    """The service, and the link to it.

    Args:
        clock: what time it is.
        inbox: takes what the agent hears.
        faults: what happens to updates; those that happened are taken out.
        diary: is told of each update.

    Attributes:
        connected: the link is up.
        back_at: when it will be up again, by the clock.
        updates: those sent so far.
    """

    def __init__(self, clock: ManualClock, inbox: deque[Event], faults: list[UpdateFault], diary: Diary) -> None:
        self._clock = clock
        self._inbox = inbox
        self._faults = faults
        self._diary = diary
        self._topics = Topics(ThingName(THING))
        self._counted: dict[str, int] = {}
        self._service = JobsService(clock)
        self._service.listen(THING, self._hear)
        self._service.interpose(self._harm)
        self.connected = False
        self.back_at = clock()
        self.updates: list[outcome.Update] = []

    # --- the operator ---------------------------------------------------------------------------------------------

    @property
    def execution(self) -> ExecutionView:
        """The execution as the service holds it."""
        return self._service.execution(THING, JOB)

    def queue(self, document: Json) -> None:
        """Make the job.

        Raises:
            ControlPlaneError: no such document can be.
        """
        self._service.create_job(JOB, document, [THING])

    def cancel(self) -> None:
        """Cancel the job by force; one that is over stays as it is."""
        if self.execution.pending:
            self._service.cancel_execution(THING, JOB, force=True)

    def change(self, params: Json) -> None:
        """Let the next delivery of the document hold `params`, as one with fresh presigned URLs does."""
        held = self._service.dump()
        held["jobs"][0]["document"]["params"] = params
        self._service.load(held)

    def tick(self) -> float | None:
        """Fire the service's timers that are due, and return when the next one will be."""
        self._service.tick()
        return self._service.next_deadline()

    # --- the link -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a connection."""
        # One that is opened in the same instant as the change would be no proof for `commit`.
        self._clock.advance(0.1)
        self._topics = Topics(ThingName(THING))
        self.connected = True
        self._inbox.append(Connected())

    def disconnect(self, why: str, seconds: float = 0.0) -> None:
        """Cut the link for `seconds`."""
        self.back_at = self._clock() + seconds
        if self.connected:
            self.connected = False
            self._inbox.append(Disconnected(why))

    def send(self, request: jobs.Request) -> None:
        """Carry a request to the service, and its answer back."""
        if not self.connected:
            return
        answers: list[Message] = []
        topic, payload = self._topics.outgoing(request)
        self._service.handle(THING, topic.split("/jobs/")[1], payload, answers.append)
        if isinstance(request, Update):
            answer = _answer(answers)
            made = outcome.Update(request.status.value, dict(request.details), answer)
            self.updates.append(made)
            self._diary.write("update", str(made))
        for message in answers:
            self._hear(message)

    def _hear(self, message: Message) -> None:
        heard = self._topics.incoming(message.topic, message.payload) if self.connected else None
        if heard is not None:
            self._inbox.append(heard)

    def _harm(self, request: Request) -> Fault | None:
        if request.operation is not Operation.UPDATE or request.body is None:
            return None
        status = str(request.body.get("status"))
        nth = self._counted[status] = self._counted.get(status, 0) + 1
        for fault in self._faults:
            if (fault.status, fault.nth) == (status, nth):
                self._faults.remove(fault)
                return Refuse(fault.code) if fault.code else Lost.REPLY
        return None


def _answer(answers: list[Message]) -> str:
    if not answers:
        return "no answer"
    return "accepted" if answers[0].accepted else str(answers[0].body.get("code"))
