"""The Jobs service over HTTPS from the first answer to the first failure.

HTTP has no connection that could be lost and nobody who notifies, so both are made here. It counts as connected from
the first answer of the service until a request brings none. Notifications are what a poll finds:

- Waiting for a job, the head of the queue is asked for, and told as `notify-next` would be.
- While executions of ours are in progress, the list of pending ones is asked for, which has no documents in it, and
  told as `notify` would be: one that is missing from it was cancelled, one that came may be an observer. An update
  that was accepted proves as much, so it puts that off.
- After a terminal update the head is asked for at once: so a job costs three requests.

How often is for `https_polls`. A poll that is refused is tried again at growing distances; nothing depends on one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING

from thingjobs.errors import ThingjobsError, TransportError, WireError
from thingjobs.jobs import (
    RENEWED,
    Connected,
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refused,
    Update,
    Updated,
)
from thingjobs.policy import REPLY_TIMEOUT
from thingjobs.ports import Shadow
from thingjobs.transport.dial import explain
from thingjobs.transport.https_polls import Running
from thingjobs.transport.https_wire import DeniedError, call_for, doubt, operation_of, read, settled, shadow_call
from thingjobs.transport.patience import Cause, Ended, kind_of
from thingjobs.wire import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.jobs import Incoming, Reply, Request
    from thingjobs.transport.https_line import Line, Site
    from thingjobs.transport.https_polls import Polls

log = logging.getLogger("thingjobs.connection")

#: What comes within this of the last answer uses its connection; a job has mostly ended by then.
KEEP_SECONDS = 10.0
POLL = "poll"


class Session:
    """From the first answer to the first failure.

    Args:
        site: where to, and as whom.
        line: carries one request after the other.
        polls: how often to ask for news.
        tell: takes what comes.
        accepted: is told each kind of request that the service carried out.
        held: says whether a kind of request is held back.
        roll: gives randomness in [0, 1).
    """

    def __init__(
        self,
        site: Site,
        line: Line,
        polls: Polls,
        tell: Callable[[Incoming], None],
        accepted: Callable[[str], None],
        held: Callable[[str], bool],
        roll: Callable[[], float],
    ) -> None:
        self._site = site
        self._line = line
        self._polls = polls
        self._tell = tell
        self._accept = accepted
        self._is_held = held
        self._roll = roll
        #: Requests and when they came; None wakes the thread.
        self._wishes: queue.SimpleQueue[tuple[Request | Shadow, float] | None] = queue.SimpleQueue()
        self._ending = threading.Lock()
        self._reason = ""
        self._cause = Cause.LOST
        self._suspect = ""
        self._ready_at: float | None = None
        self._running = Running()
        self._refused = 0
        self._poll_at = 0.0
        self._rest_at: float | None = None

    def ended(self) -> Ended:
        """Return how it ended."""
        if self._ready_at is None:
            return Ended(Cause.UNREACHED)
        return Ended(self._cause, max(time.monotonic() - self._ready_at, 1e-3), self._suspect)

    # --- any thread -----------------------------------------------------------------------------------------------

    def send(self, request: Request) -> None:
        """Have a request sent, if the service is reached."""
        if self._ready_at is not None and not self._reason:
            self._wishes.put((request, time.monotonic()))

    def tell(self, shadow: Shadow) -> None:
        """Have a shadow say something, if the service is reached and nobody wants anything else."""
        if self._ready_at is not None and not self._reason and self._wishes.empty():
            self._wishes.put((shadow, time.monotonic()))

    def withhold(self) -> None:
        """A request was held back: nothing follows from that here, as each answer tells what it is to."""

    def renew(self) -> None:
        """End it, because somebody wants a new one."""
        self._cut(RENEWED)

    def stop(self) -> None:
        """End it for good."""
        self._cut("stopped")

    def _cut(self, reason: str) -> None:
        """End it, and cut off what is under way."""
        self._end(reason, Cause.RENEWED)
        self._line.cut()
        self._wishes.put(None)

    # --- the thread -----------------------------------------------------------------------------------------------

    def serve(self) -> str:
        """Ask for a first answer, then carry requests and polls until one brings none; return why it ended.

        Raises:
            OSError: there was no first answer.
            ThingjobsError: there was no first answer, or one that is none.
        """
        try:
            self._open()
        except (OSError, ThingjobsError):
            if not self._reason:  # it was not us
                raise
        while not self._reason:
            try:
                wish = self._wishes.get(timeout=max(0.0, self._next_due() - time.monotonic()))
            except queue.Empty:
                self._on_due()
            else:
                self._on_wish(wish)
        return self._reason

    def _end(self, reason: str, cause: Cause = Cause.LOST, suspect: str = "") -> None:
        with self._ending:  # The first reason is the true one.
            if not self._reason:
                self._cause, self._suspect, self._reason = cause, suspect, reason

    def _open(self) -> None:
        reply = self._exchange(GetPending(POLL))
        if isinstance(reply, Refused):
            where = self._site.link.address
            raise TransportError(f"{where} is there, and refuses to serve: {reply.text} {reply.message}".rstrip())
        self._ready_at = time.monotonic()
        self._later()
        self._tell(Connected())

    def _next_due(self) -> float:
        return self._poll_at if self._rest_at is None else min(self._poll_at, self._rest_at)

    def _on_due(self) -> None:
        if time.monotonic() >= self._poll_at:
            self._poll()
        else:
            self._rest()

    def _rest(self) -> None:
        self._line.rest()
        self._rest_at = None

    # --- news -----------------------------------------------------------------------------------------------------

    def _later(self) -> None:
        wait = self._polls.after(busy=bool(self._running), refused=self._refused, roll=self._roll())
        self._poll_at = time.monotonic() + wait

    def _poll(self) -> None:
        request = GetPending(POLL) if self._running else DescribeNext(POLL)
        reply = None if self._is_held(kind_of(request)) else self._carry(request)
        self._refused = 0 if isinstance(reply, (Described, Pending)) else self._refused + 1
        match reply:
            case Described(_, execution):
                self._tell(NextChanged(execution))
                if execution is None and self._wishes.empty():
                    self._rest()
            case Pending(_, in_progress, queued):
                self._tell(ListChanged(in_progress, queued))
            case Refused():
                log.info("the service refused to tell what is new: %s %s", reply.text, reply.message)
        self._later()

    # --- requests -------------------------------------------------------------------------------------------------

    def _on_wish(self, wish: tuple[Request | Shadow, float] | None) -> None:
        if wish is None or self._reason:
            return
        request, came = wish
        if isinstance(request, Shadow):
            self._tell_shadow(request)
            return
        if time.monotonic() - came > REPLY_TIMEOUT:
            log.debug("left out a request that nobody waits for any more")
            return
        was_running = bool(self._running)
        reply = self._carry(request)
        if reply is None:
            return
        self._tell(reply)
        if isinstance(request, Update) and isinstance(reply, Updated) and request.status.terminal:
            self._poll_at = time.monotonic()
        elif bool(self._running) is not was_running:
            self._later()

    def _carry(self, request: Request) -> Reply | None:
        """Send a request and return the reply; None: there is none, and perhaps there will be no more."""
        try:
            reply = self._exchange(request)
        except WireError as error:
            log.warning("left out an answer: %s", error)
            return None
        except DeniedError as error:
            self._end(str(error), suspect=kind_of(request))
            return None
        except (OSError, ThingjobsError) as error:
            self._end(explain(error, self._site.link))
            return None
        self._running.note(request, reply)
        return reply

    def _exchange(self, request: Request) -> Reply:
        reply = self._ask(request)
        question = doubt(request, reply)
        if question is None or not isinstance(request, Update) or not isinstance(reply, Refused):
            return reply
        return settled(request, reply, self._ask(question))

    def _ask(self, request: Request) -> Reply:
        call = call_for(request, self._site.link.thing)
        if len(call.body) > MAX_PAYLOAD_BYTES:
            raise WireError(f"cannot send {len(call.body)} bytes: it is more than the service takes")
        answer = self._line.ask(call)
        self._rest_at = time.monotonic() + KEEP_SECONDS
        try:
            reply = read(request, answer)
        except DeniedError as error:
            raise DeniedError(self._denied(request, error)) from None
        self._accept(kind_of(request))
        return reply

    def _tell_shadow(self, shadow: Shadow) -> None:
        """Have a shadow say something; that it is refused matters to nobody else."""
        thing = self._site.link.thing
        try:
            answer = self._line.ask(shadow_call(shadow, thing))
        except (OSError, ThingjobsError) as error:  # if it is the connection, the next request finds out
            log.info("could not update the shadow %s: %s", shadow.name, explain(error, self._site.link))
            self._rest()
            return
        self._rest_at = time.monotonic() + KEEP_SECONDS
        if answer.status == 200:
            self._accept(kind_of(shadow))
        else:
            hint = f"is iot:UpdateThingShadow allowed on thing/{thing}/{shadow.name}?"
            log.warning("the service did not take the shadow %s (%d); %s", shadow.name, answer.status, hint)

    def _denied(self, request: Request, error: DeniedError) -> str:
        site, operation = self._site, operation_of(request)
        thing = f"iotjobsdata:{operation} on thing/{site.link.thing}"
        if site.signer is not None:
            site.signer.refused()
            check = f"do the credentials allow {thing}, are they those of this account, and is the clock right?"
        else:
            check = (
                f"is {site.link.certificate} active, and does its policy allow {thing}, by the name of the thing "
                "itself? HTTPS knows no thing policy variables"
            )
        return f"{site.link.address} denies {operation} ({error}); {check}"
