"""What must hold whatever happens, and what the judge remembers for it.

It is told of what happened, and does not ask the core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.explorer.scenarios import SETTINGS, identity_of

from thingjobs.jobs import Described, Pending, Refused, Updated
from thingjobs.model import Phase, Status, Verb
from thingjobs.policy import MAX_DEATHS_PER_VERB, MAX_RUNS_PER_VERB

if TYPE_CHECKING:
    from tests.explorer.world import Run, World

    from thingjobs.model import Identity, Record
    from thingjobs.testing import ExecutionView

#: Seconds after which an agent that is awake has asked for both timers, and heard of each renewal.
AWAKE_FOR = 900.0


class BrokenPromise(AssertionError):  # noqa: N818 - it reads as what happened
    """A schedule of faults after which something is not as promised."""


def promise(kept: bool, broken: str) -> None:
    """Say that a promise is broken, unless it is `kept`."""
    if not kept:
        raise BrokenPromise(broken)


@dataclass(frozen=True)
class Seen:
    """What the judge remembers of one execution, whatever the core knows.

    Attributes:
        runs: how often each verb was let go.
        leaves: exit statuses by which `apply` asked for another run.
        cuts: power cuts in the middle of each verb.
        first_boot: in which `apply` was first let go; 0: never.
        verified: the boot in which `verify` passed last.
        proved: since `apply` or `verify` ended, a reply came over a connection that was opened after it: 0 no, 1 the
            connection is there, 2 the reply as well.
        asked: how often the machine was told to reboot for it.
        reboots: how often it did.
        over: the agent was told that the service has ended it: 1 told, 2 it is written down, too.
        canceled: it was ended by the operator, and cannot be taken for a time-out.
        timers: those of the service's timers, "step" and "job", that this run of the agent knows.
        fired: the one that ended it.
        known: the agent could know that it was a timer.
    """

    runs: tuple[tuple[Verb, int], ...] = ()
    leaves: int = 0
    cuts: tuple[tuple[Verb, int], ...] = ()
    first_boot: int = 0
    verified: int = 0
    proved: int = 0
    asked: int = 0
    reboots: int = 0
    over: int = 0
    canceled: bool = False
    timers: frozenset[str] = frozenset()
    fired: str = ""
    known: bool = False


def learn(world: World, event: Any) -> None:
    """What does the agent know once it took this message?"""
    if not isinstance(event, Pending | Described | Updated | Refused):
        return
    look = world.state.look
    if look is not None and look.token == event.token:
        world.seen = {key: replace(seen, proved=2 if seen.proved else 0) for key, seen in world.seen.items()}
    for identity, job in world.state.jobs.items():
        if job.open is not None and job.open.token == event.token:
            seen = world.seen.get(identity, Seen())
            world.see(
                identity,
                proved=2 if seen.proved else 0,
                timers=seen.timers | timers_in(event, world.find(identity), job.step_until),
            )
            if tells_end(event):
                _told_end(world, identity, event)


def _told_end(world: World, identity: Identity, event: Any) -> None:
    seen, found = world.seen[identity], world.find(identity)
    long_awake = world.clock() - world.awake_since > AWAKE_FOR
    told = getattr(event, "state", None) is not None
    known = told or long_awake or seen.fired in seen.timers
    canceled = seen.canceled or (told and found is not None and found.status == "CANCELED")
    # Once `commit` is written down as begun, it is too late for a cancel.
    too_late = identity in world.disk and Verb.COMMIT in world.disk[identity].attempts
    world.see(identity, over=1, known=known, canceled=canceled and not too_late)


def let_go(world: World, run: Run) -> None:
    identity, verb, seen = run.identity, run.verb, world.seen.get(run.identity, Seen())
    counts = dict(seen.runs)
    counts[verb] = counts.get(verb, 0) + (identity in world.disk)  # A `check` before the claim is not counted.
    world.see(identity, runs=tuple(counts.items()), first_boot=seen.first_boot or world.boot * (verb is Verb.APPLY))
    kind = world.kind(identity)
    found = world.find(identity)
    cuts = dict(seen.cuts).get(verb, 0)
    promise(cuts < MAX_DEATHS_PER_VERB, f"{verb} runs once more after {cuts} power cuts in the middle of it")
    promise(counts[verb] <= MAX_RUNS_PER_VERB + cuts, f"{verb} runs too often")
    if verb is Verb.APPLY:
        promise(kind.may_rerun or counts[verb] <= 1 + seen.leaves, "apply runs again without leave")
        promise(not (seen.over and seen.canceled), "apply of a cancelled execution begins")
        rival = found is not None and found.details.get("claim") == "rival"
        promise(not rival, "apply of another agent's execution begins")
    if verb is Verb.COMMIT:
        promise(seen.verified == world.boot, "commit without verify in the same boot")
        promise(seen.proved == 2, "commit without proof that the service is still reached")
        promise(not (seen.over and seen.canceled), "commit of a cancelled execution begins")


def at_the_end(world: World) -> None:
    """All is over: is what is told what happened?"""
    for identity in {*world.disk, *map(identity_of, world.executions())}:
        _at_its_end(world, identity, world.disk.get(identity), world.find(identity))


def _at_its_end(world: World, identity: Identity, record: Record | None, found: ExecutionView | None) -> None:
    kind, job = world.kind(identity), identity.job_id
    seen = world.seen.get(identity, Seen())
    whole, untouched = kind.whole(world.device, job), kind.untouched(world.device, job)
    promise(record is not None or untouched, "something changed, and the journal knows of no job")
    if found is not None:
        ends = [change.status for change in found.history if Status(change.status).terminal]
        promise(len(ends) == 1, f"{len(ends)} terminal statuses")
        ours = found.details.get("agent") == SETTINGS.agent
        promise(record is not None or not ours, "an accepted job is forgotten")
    if record is None:
        return
    promise(record.phase is Phase.DONE, "the journal believes that it goes on")
    result = record.result.status if record.result is not None else None
    reason = record.result.reason if record.result is not None else ""
    status = found.status if found is not None else "deleted"
    if status != result:
        promise(bool(record.late), f"the service says {status}, the journal {result}, and nothing of late truth")
    else:
        late = record.late == "" or record.late.startswith("unconfirmed")
        promise(late, f"the service holds the result, and the journal says: {record.late}")
    if result is Status.SUCCEEDED:
        promise(whole, "SUCCEEDED, and the device is not as the job wants it")
        rebooted = world.boot > seen.first_boot or kind.again != 194
        promise(rebooted, "SUCCEEDED, and the machine never rebooted")
    said = f"{reason} {record.late}"
    undone = "rolled back" in said or "nothing was changed" in said or not record.applied
    promise(untouched or not undone, f"the device is not as before, in spite of: {said}")
    undoes = Verb.ROLLBACK in kind.verbs and "rollback failed" not in said
    promise(untouched or result is Status.SUCCEEDED or not undoes, f"not rolled back: {said}")
    if status == "TIMED_OUT" and record.applied and seen.known:
        promise(result is not None, "a time-out was taken for a cancel")


def timers_in(event: Any, view: ExecutionView | None, step_until: float) -> frozenset[str]:
    """Return which of the service's timers a reply lets an agent know: its own, and one that is sooner than that.

    Args:
        event: the reply.
        view: the execution as the service holds it.
        step_until: when its own timer fires, by the last renewal that was answered.
    """
    if isinstance(event, Updated):
        return frozenset({"step"})
    told = isinstance(event, Described) and view is not None and view.deadline is not None
    return frozenset({"job"} if told and view.deadline + 120 < step_until < math.inf else ())  # type: ignore[union-attr, operator]


def tells_end(event: Any) -> bool:
    """Return whether a reply says that the execution it is about is over."""
    if isinstance(event, Described):
        return event.execution is None or event.execution.status.terminal
    if not isinstance(event, Refused):
        return False
    if event.state is not None:
        return event.state.status.terminal
    return event.text in ("ResourceNotFound", "TerminalStateReached", "InvalidStateTransition")
