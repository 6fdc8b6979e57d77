"""The device's side: requests in, answers out, and faults that tests put in between."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, assert_never

from thingjobs.testing import shapes
from thingjobs.testing.ledger import Ledger
from thingjobs.testing.messages import NEXT, Lost, Message, Operation, Refuse, Request, routed
from thingjobs.testing.records import IN_PROGRESS, QUEUED
from thingjobs.testing.transitions import moved
from thingjobs.testing.validation import (
    MAX_PAYLOAD_BYTES,
    Rejected,
    client_token,
    decoded,
    judged_get,
    judged_start,
    judged_update,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.testing.messages import Fault
    from thingjobs.testing.records import Behaviour, ExecutionView
    from thingjobs.testing.shapes import Shape
    from thingjobs.testing.validation import Body

#: How many requests are remembered; a service that runs for years must not grow for ever.
REQUESTS_KEPT = 100_000


class DevicePlane(Ledger):
    """Answers requests as the Jobs service does over MQTT."""

    def __init__(self, clock: Callable[[], float], behaviour: Behaviour) -> None:
        super().__init__(clock, behaviour)
        self._requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        self._hooks: list[Callable[[Request], Fault | None]] = []

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests received so far, oldest first (the last 100,000), answered or not."""
        with self._lock:
            return tuple(self._requests)

    def handle(self, thing: str, suffix: str, payload: bytes, respond: Callable[[Message], None]) -> None:
        """Carry out one request: `respond` gets its answer, then who listens gets the notifications it caused.

        Both happen before this returns, on this thread, while the service's lock is held; `respond` may call
        the service, and should otherwise only hand the answer over.

        Args:
            thing: who asks.
            suffix: the topic after `$aws/things/THING/jobs/`: `get`, `start-next`, `$next/get`, `J/get` or
                `J/update`. Anything else is no request and is ignored, also the topics of jobs that are called
                `get`, `start-next`, `notify` or `notify-next`.
            payload: what was published. More than 128 KiB is ignored: a broker would have closed the connection.
            respond: called once, or never if the request was ignored or a fault lost it or its answer.
        """
        route = routed(suffix)
        if route is None or len(payload) > MAX_PAYLOAD_BYTES:
            return
        operation, job_id = route
        with self._locked():
            request = Request(thing, suffix, operation, job_id, decoded(payload), self._clock())
            self._requests.append(request)
            fault = self._fault(request)
            if fault is Lost.REQUEST:
                return
            with self._changing(thing):
                verdict, shape = self._answer(request, fault)
                if fault is not Lost.REPLY:
                    self._send(thing, f"{suffix}/{verdict}", shape, respond)

    def ask(self, thing: str, suffix: str, body: Mapping[str, Any] | None = None) -> Message | None:
        """Send a request with `body` as a device would, and return its answer; None if there was none."""
        answers: list[Message] = []
        self.handle(thing, suffix, shapes.encoded(body or {}), answers.append)
        return answers[0] if answers else None

    def interpose(self, hook: Callable[[Request], Fault | None]) -> Callable[[], None]:
        """Ask `hook` about each request before it is carried out, and do it the harm that it returns.

        The hook may also change the service (cancel the job, say): that happens before the request.
        Of several hooks, the first that returns a fault decides.

        Returns:
            A function that takes the hook away.
        """
        with self._lock:
            self._hooks.append(hook)

        def remove() -> None:
            with self._lock, suppress(ValueError):
                self._hooks.remove(hook)

        return remove

    def _fault(self, request: Request) -> Fault | None:
        return next((fault for hook in list(self._hooks) if (fault := hook(request))), None)

    def _answer(self, request: Request, fault: Fault | None) -> tuple[str, Shape]:
        shape: Shape = {"timestamp": int(self._clock())}
        token = client_token(request.body)
        if token is not None:
            shape["clientToken"] = token
        try:
            return "accepted", {**shape, **self._outcome(request, fault)}
        except Rejected as rejected:
            shape.update(code=rejected.code, message=str(rejected))
            if rejected.execution:
                shape["executionState"] = shapes.state(rejected.execution)
            return "rejected", shape

    def _outcome(self, request: Request, fault: Fault | None) -> Shape:
        if isinstance(fault, Refuse):
            raise Rejected(fault.code, fault.message)
        if request.body is None:
            raise Rejected("InvalidJson", "the payload is not a JSON object in UTF-8")
        return self._carry_out(request, request.body)

    def _carry_out(self, request: Request, body: Mapping[str, object]) -> Shape:
        match request.operation:
            case Operation.GET_PENDING:
                judged_get(body)
                return shapes.lists(self._rosters[request.thing].pending())
            case Operation.START_NEXT:
                return self._start_next(request.thing, judged_start(body))
            case Operation.DESCRIBE:
                return self._describe(request.thing, request.job_id, judged_get(body))
            case Operation.UPDATE:
                return self._update(request.thing, request.job_id, judged_update(body))
            case _ as never:
                assert_never(never)

    def _start_next(self, thing: str, body: Body) -> Shape:
        head = self._rosters[thing].head()
        if head is None:
            return {}
        if head.status == QUEUED:
            head = self._move(head, IN_PROGRESS, body)
        return self._shown(head, with_document=True)

    def _describe(self, thing: str, job_id: str, body: Body) -> Shape:
        if job_id == NEXT:
            head = self._rosters[thing].head()
            return self._shown(head, with_document=body.with_document) if head else {}
        found = self._found(thing, job_id, body.number)
        if not found.pending:
            raise Rejected("TerminalStateReached", f"{job_id} on {thing} is {found.status}")
        return self._shown(found, with_document=body.with_document)

    def _update(self, thing: str, job_id: str, body: Body) -> Shape:
        found = self._found(thing, job_id, body.number)
        checks = [self._check_state, self._check_version]
        for check in reversed(checks) if self._behaviour.version_first else checks:
            check(found, body)
        updated = self._move(found, body.status, body)
        shape: Shape = {}
        if body.with_state:
            shape["executionState"] = shapes.state(updated)
        if body.with_document:
            shape["jobDocument"] = self._document(job_id)
        return shape

    def _check_state(self, found: ExecutionView, body: Body) -> None:
        if not found.pending:
            code = self._behaviour.terminal_update_code
            told = found if code == "InvalidStateTransition" else None
            raise Rejected(code, f"{found.job_id} is {found.status} and cannot become {body.status}", told)

    def _check_version(self, found: ExecutionView, body: Body) -> None:
        if body.expected_version not in (None, found.version):
            message = f"expected version {body.expected_version} but found version {found.version}"
            raise Rejected("VersionMismatch", message, found)

    def _found(self, thing: str, job_id: str, number: int | None) -> ExecutionView:
        found = self._rosters[thing].find(job_id, number)
        if found is None:
            raise Rejected("ResourceNotFound", f"there is no such execution of {job_id} on {thing}")
        return found

    def _move(self, execution: ExecutionView, status: str, body: Body) -> ExecutionView:
        after = moved(
            execution,
            status,
            self._clock(),
            details=body.details,
            step_minutes=body.step_minutes,
            timeout_minutes=self._jobs[execution.job_id].timeout_minutes,
        )
        self._put(after)
        return after

    def _shown(self, execution: ExecutionView, *, with_document: bool) -> Shape:
        shape = {**shapes.full(execution, self._clock()), "thingName": execution.thing}
        if with_document:
            shape["jobDocument"] = self._document(execution.job_id)
        return {"execution": shape}
