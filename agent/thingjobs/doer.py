"""Carries out what the core decided, one effect after the other; what comes of them are events for the core.

What fails is told to the core as well, or tried again where the core waits for it. Nothing here decides anything about
a job.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, assert_never

from thingjobs import boot
from thingjobs.errors import StateBusyError, StateError
from thingjobs.keeper import Keeper
from thingjobs.lull import Lull
from thingjobs.machine.effects import (
    AskGates,
    Clean,
    Effect,
    Forget,
    GetReady,
    Go,
    Judge,
    Kill,
    Note,
    Reboot,
    Reconnect,
    Refresh,
    Run,
    Save,
    Send,
)
from thingjobs.machine.events import Event, Judged, NotSaved, NotSpawned
from thingjobs.model import Code, Phase, Result, Status
from thingjobs.starter import Starter
from thingjobs.troubles import Postponed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thingjobs.lull import Act
    from thingjobs.machine.state import Job
    from thingjobs.model import Execution, Identity, Plan, Record
    from thingjobs.parts import Parts
    from thingjobs.troubles import Troubles

log = logging.getLogger("thingjobs")

MAX_SHOWN_FINISHED = 50


class Doer:
    """The loop's hands.

    Args:
        parts: what it works with.
        troubles: takes what is short or broken for now.
        jobs: gives what the core is busy with.

    Attributes:
        events: for the core, the next one first.
        finished: records of what finished here, the oldest first.
        postponed: what is tried again later.
        keeper: keeps the journal.
        lull: what can wait until nothing is under way.
    """

    def __init__(self, parts: Parts, troubles: Troubles, jobs: Callable[[], Mapping[Identity, Job]]) -> None:
        self.events: deque[Event] = deque()
        self.finished: deque[Record] = deque(maxlen=MAX_SHOWN_FINISHED)
        self.postponed = Postponed()
        self.lull = Lull()
        self.keeper = Keeper(parts.journal, troubles, self._known, self.lull.put_off)
        self._parts = parts
        self._troubles = troubles
        self._jobs = jobs
        self._starter = Starter(parts.runner, parts.handlers, parts.journal, parts.reboot)

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order. When a record cannot be saved, nothing of what was to follow it is done.

        Raises:
            StateBusyError: the state folder was deleted, and another agent has made it anew.
        """
        unsaved: dict[Identity, tuple[Record, str]] = {}
        withheld: dict[Identity, list[Effect]] = {}
        for effect in effects:
            subject = about(effect)
            if subject is not None and subject in unsaved:
                if isinstance(effect, Save):  # What is to be written in the end is the newest.
                    unsaved[subject] = (effect.record, unsaved[subject][1])
                else:
                    withheld[subject].append(effect)
                continue
            try:
                self.do(effect)
            except StateBusyError:
                raise
            except (StateError, OSError) as error:
                if isinstance(effect, Save):
                    identity = effect.record.identity
                    unsaved[identity], withheld[identity] = (effect.record, str(error)), []
                else:
                    self._failed(effect, error)
        for identity, (record, reason) in unsaved.items():
            # Before all else that these effects caused: what comes next depends on it.
            self.events.appendleft(NotSaved(record, reason, tuple(withheld[identity])))

    def try_again(self, effect: Judge | AskGates | Run) -> None:
        """Try to carry out what was postponed; nothing begins of what the service ended meanwhile."""
        job = self._jobs().get(effect.record.identity) if isinstance(effect, Run) else None
        if isinstance(effect, Run) and job is not None and job.record.ended and not job.record.applied:
            self._begun(job.identity)
            self.events.append(NotSpawned(job.identity, effect.verb, "the service ended this execution"))
        else:
            self.carry_out([effect])

    def _failed(self, effect: Effect, error: Exception) -> None:
        """An effect could not be carried out. One that the core waits for is tried again."""
        identity = about(effect)
        line = f"{identity}: {error}" if identity else str(error)
        if identity is None or not isinstance(effect, (Judge, AskGates, Run)):
            log.error("%s", line)
        elif self.postponed.add(identity.key, effect, boot.clock()):
            self._troubles.came(str(identity), f"{line}; this is tried again")
        elif isinstance(effect, Run):
            self._begun(identity)
            self.events.append(NotSpawned(identity, effect.verb, str(error)))

    def _begun(self, identity: Identity) -> Effect | None:
        """What was postponed for an execution works, or is not wanted any more."""
        self._troubles.went(str(identity))
        return self.postponed.drop(identity.key)

    def do(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915 - one case an effect
        """Carry out one effect.

        Raises:
            StateBusyError: the state folder was deleted, and another agent has made it anew.
            StateError: it could not be carried out.
            OSError: likewise.
        """
        parts = self._parts
        match effect:
            case Save(record):
                self.events.extend(self.keeper.save(record))
                if record.phase is Phase.DONE and not any(one.identity == record.identity for one in self.finished):
                    self.finished.append(record)  # One that could not be written in a lull comes again.
            case Forget(identity):
                parts.journal.forget(identity)
            case Send(request, identity):
                if identity is not None:  # What the service is told of an execution, the journal should hold.
                    self.events.extend(self.keeper.look())
                parts.transport.send(request)
            case Judge(execution):
                boot.spare_files()
                self.events.append(Judged(execution.identity, self._verdict(execution)))
                self._begun(execution.identity)
            case AskGates(record, before):
                boot.spare_files()
                self._begun(record.identity)
                answer = parts.gates.ask(record.identity, before, record.plan.handler)
                if answer is not None:
                    self.events.append(answer)
            case Refresh(record):
                parts.runner.refresh(record)
            case Run(record):
                self.act(self.lull.take_of(record.identity))
                self.events.append(self._starter.spawn(effect))
                self._begun(record.identity)
            case GetReady(run):
                self.act(self.lull.take_of(run.record.identity))
                self._starter.get_ready(run)
            case Go(identity):
                parts.runner.go(identity)
            case Kill(identity):
                self._kill(identity)
            case Reboot():
                self._starter.reboot()
            case Reconnect():
                parts.transport.renew()
            case Clean(identity):
                self._begun(identity)
                self._clean(identity)
            case Note():
                pass
            case _:
                assert_never(effect)

    def _verdict(self, execution: Execution) -> Plan | Result:
        """Judge a document.

        One at which we fail by a defect is refused: an agent that ended by it would find it again at every start, and
        nothing would count how often.

        Raises:
            StateError: it cannot be judged now.
            OSError: likewise.
        """
        try:
            return self._parts.judge.judge(execution.document, execution.identity.job_id)
        except (StateError, OSError, MemoryError):
            raise
        except Exception as error:
            log.critical("%s: a fault in judging its document", execution.identity, exc_info=error)
            reason = f"the agent failed at this document ({type(error).__name__}); its log says where; please report it"
            return Result(Status.REJECTED, Code.AGENT_DEFECT, reason)

    def act(self, acts: Sequence[Act]) -> None:
        """Do what could wait; what comes of it are events for the core."""
        for act in acts:
            self.events.extend(act())

    def _clean(self, identity: Identity) -> None:
        """Put away what an execution left: later, where that is little and there is room for it."""
        if self._parts.runner.left_little(identity) and not self._parts.journal.reserve_lost:
            self.lull.put_off(identity, partial(self._put_away, identity))
        else:
            self._put_away(identity)

    def _put_away(self, identity: Identity) -> Sequence[Event]:
        """Put away what an execution left, and what only executions before it needed."""
        try:
            self._parts.runner.clean(identity)
            self._parts.handlers.prune({job.record.plan.digest for job in self._jobs().values()})
        except (StateError, OSError) as error:
            self._failed(Clean(identity), error)
        return ()

    def _kill(self, identity: Identity) -> None:
        waiting = self._begun(identity)
        if isinstance(waiting, Run):
            self.events.append(NotSpawned(identity, waiting.verb, "it was stopped before"))
        else:
            self._parts.runner.kill(identity)

    def _known(self) -> list[Record]:
        """Return all records that the journal should hold."""
        jobs = self._jobs().values()
        open_ = (job.record for job in jobs if job.record.claim and job.phase is not Phase.REFUSING)
        return [*self.finished, *open_]


def about(effect: Effect) -> Identity | None:
    """Return which execution an effect belongs to, so that one that cannot be saved holds up no other."""
    match effect:
        case Save(record) | Run(record) | GetReady(Run(record)) | AskGates(record) | Refresh(record):
            return record.identity
        case Judge(execution):
            return execution.identity
        case Send(_, identity):
            return identity
        case Forget(identity) | Go(identity) | Kill(identity) | Reboot(identity) | Clean(identity):
            return identity
        case _:
            return None
