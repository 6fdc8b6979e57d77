"""What can go wrong, and when: at each write of the journal, inside each verb, with each message."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.explorer.scenarios import THING, identity_of

from thingjobs.jobs import Connected, Disconnected, ListChanged, NextChanged
from thingjobs.machine import effects as do
from thingjobs.machine.events import Finished
from thingjobs.machine.state import Timer
from thingjobs.testing import Lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.explorer.world import World

#: Its name, and what does it to a world.
Fault = tuple[str, Callable[[Any], Any]]


def faults(world: World) -> Iterator[Fault]:
    """Yield what could go wrong now: its name, and what does it to a twin of this world."""
    following = world.todo[0] if world.todo else None
    saves = world.just_saved or isinstance(following, do.Save)
    still = not world.todo and not world.soon
    idle = still and not world.inbox
    ended = still and bool(world.inbox) and isinstance(world.inbox[0], Finished)
    if saves or ended or (idle and (world.runs or world.reboot_for)):
        yield from _anywhere(world)
    if idle and world.until is None:
        yield from _in_verb(world)
    if isinstance(following, do.Save) and world.scenario.fills:
        yield "the disk is full", lambda it: setattr(it, "full", True)
    if still and world.waiting and world.scenario.fills:
        yield "the disk is full, an end unsettled", lambda it: it.fail_to_settle()
    if isinstance(following, do.Send) and world.connected:
        yield "request lost", lambda it: _send_with(it, Lost.REQUEST)
        yield "reply lost", lambda it: _send_with(it, Lost.REPLY)
        if world.scenario.rival and any(view.status == "QUEUED" for view in world.executions()):
            yield "a rival claims", _rival
    if still and world.inbox and not isinstance(world.inbox[0], Finished | Connected | Disconnected):
        yield from _in_message(world)


def _anywhere(world: World) -> Iterator[Fault]:
    where = "".join(f" in {run.verb}" for run in world.runs.values() if run.going)
    yield f"agent dies{where}", lambda it: it.start()
    yield f"power cut{where}", lambda it: it.reboot()
    if world.device != world.synced or world.unsynced:
        yield f"power cut{where}, losing writes", lambda it: it.reboot(lost=True)
    if world.waiting:
        yield f"agent dies{where}, an end unsettled", lambda it: it.start(settled=False)
        yield f"power cut{where}, an end unsettled", lambda it: it.reboot(settled=False)
    for view in world.executions():
        if view.pending:
            yield f"{view.job_id} cancelled{where}", partial(_cancel, job=view.job_id)
    if world.service.next_deadline() is not None:
        yield f"asleep{where}", _sleep


def _in_verb(world: World) -> Iterator[Fault]:
    limits = [job.timers[Timer.VERB] for job in world.state.jobs.values() if Timer.VERB in job.timers]
    if world.runs and limits:
        yield "the verb takes too long", lambda it: setattr(it, "until", limits[0])
    ends = [view.deadline for view in world.executions() if view.deadline is not None]
    if world.runs and ends:
        yield "the in-progress timer runs out", lambda it: setattr(it, "until", min(ends) + 0.001)


def _in_message(world: World) -> Iterator[Fault]:
    yield "message doubled", lambda it: it.inbox.insert(1, it.inbox[0])
    yield "message again later", lambda it: it.echo.append(it.inbox[0])
    if isinstance(world.inbox[0], NextChanged | ListChanged):
        yield "message lost", lambda it: it.inbox.popleft()


def _send_with(world: World, fault: Lost) -> None:
    sent = world.todo.popleft()
    assert isinstance(sent, do.Send)
    world.send(sent.request, sent.identity, fault)


def _cancel(world: World, job: str) -> None:
    view = world.service.execution(THING, job)
    # The service fires its timers up to a minute late: so near to one, nobody can tell a cancel from a time-out.
    world.see(identity_of(view), canceled=view.due is None or view.due > world.clock() + 90)
    if world.scenario.deletes:
        world.service.delete_job(job, force=True)
    else:
        world.service.cancel_execution(THING, job, force=True)


def _sleep(world: World) -> None:
    """The machine sleeps until the service's next timer has fired."""
    world.advance((world.service.next_deadline() or 0.0) + 1)
    world.awake_since = world.clock()


def _rival(world: World) -> None:
    claim = {"status": "IN_PROGRESS", "statusDetails": {"agent": "rival/1", "claim": "rival"}}
    world.service.ask(THING, "job-1/update", claim)
