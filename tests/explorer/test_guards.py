"""Each guard of the core is needed: without it, the explorer finds a schedule of faults that breaks a promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.explorer.world import World

from thingjobs.jobs import Described, Pending
from thingjobs.machine import agent, claim, look, report, resume, table, verbs, watch
from thingjobs.machine.effects import Save
from thingjobs.machine.events import Finished, Resumed, Spawned, Unanswered
from thingjobs.machine.state import State, Timer
from thingjobs.model import Phase, Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.explorer.conftest import Explorer

    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn


@dataclass(frozen=True)
class Guard:
    """How to take a guard away, and where that shows.

    Attributes:
        removed: takes it away.
        scenario: the smallest in which it is needed.
        faults: which kinds it takes, in their order.
        broken: what is said of the promise that is broken then.
    """

    removed: Callable[[pytest.MonkeyPatch], None]
    scenario: str
    faults: tuple[str, ...]
    broken: str


def instead(module: Any, name: str, other: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Have `other` stand in a module instead of what has that name."""
    return lambda patch: patch.setattr(module, name, other)


def row(phase: Phase, event: type, rule: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Have another rule in one row of the table."""
    return lambda patch: patch.setitem(table.TABLE[phase], event, replace(table.TABLE[phase][event], rule=rule))


def any_reply(turn: Turn, event: Any) -> None:
    """Take a reply for that to whatever is open."""
    searching = turn.state.look
    if searching is not None and searching.token == event.token:
        look.on_reply(turn, event)
        return
    for job in turn.state.jobs.values():
        if job.open is not None and not isinstance(event, Pending):
            agent._give(turn, job, event)
            return


def let_go_unsaved(turn: Turn, job: Job, event: Spawned) -> Job:
    job = verbs.on_spawned(turn, job, event)
    turn.effects = [effect for effect in turn.effects if not isinstance(effect, Save)]
    return job


def send_always(turn: Turn, job: Job) -> bool:
    return turn.connected and job.open is None and job.record.claim != ""


def everywhere(name: str, other: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Have `other` stand in every module of the core that knows that name."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for module in (agent, claim, report, resume, verbs, watch):
            if hasattr(module, name):
                patch.setattr(module, name, other)

    return remove


def without_mark(turn: Turn, job: Job, event: Any) -> Job | None:
    """Take any claim for our own."""
    found = event.execution
    return claim._claimed(turn, job.with_(open=None, version=found.version), found.document)


real_learned = watch._learned
real_advance = verbs.advance


def learn_once(turn: Turn, job: Job, seconds_left: int | None) -> Job:
    return real_learned(turn, job, seconds_left).without(Timer.LEARN)


def begin_at_once(patch: pytest.MonkeyPatch) -> None:
    """Heed no end that is not written down: neither when an offer comes nor, were that forgotten, at the claim."""

    def save_claim(turn: Turn, job: Job) -> Job:
        turn.do(Save(job.record))
        return claim.send_claim(turn, job)

    patch.setattr(State, "busy", property(lambda state: any(not job.aside for job in state.jobs.values())))
    patch.setattr(claim, "_save_claim", save_claim)


GUARDS = {
    "a reply answers only the request whose token it has": Guard(
        instead(agent, "_replied", any_reply), "apply only", ("again later", "request lost"), "was not told"
    ),
    "what is finished is remembered": Guard(
        instead(agent, "_remember", lambda turn, identity: None), "two jobs", ("doubled",), "knows of no job"
    ),
    "a claim is written down before it is sent": Guard(
        instead(claim, "_save_claim", claim.send_claim), "apply only", (), "not in the journal"
    ),
    "the process is written down before it is let go": Guard(
        row(Phase.APPLYING, Spawned, let_go_unsaved), "apply only", ("dies",), "beside another verb"
    ),
    "an interrupted apply runs again only with leave": Guard(
        instead(resume, "_rerun_or_fail", lambda turn, job: verbs.begin(turn, job, Verb.APPLY)),
        "apply only",
        ("power cut",),
        "again without leave",
    ),
    "before commit, another boot wants another verify": Guard(
        everywhere("verified", lambda turn, job, verb: verb), "firmware", ("power cut",), "without verify"
    ),
    "a verify of another boot is not believed": Guard(
        instead(resume, "_stale", lambda turn, record: False), "firmware", ("power cut",), "without verify"
    ),
    "a commit of another boot is not believed": Guard(
        instead(resume, "_stale", lambda turn, record: record.verb is Verb.VERIFY and resume._earlier(turn, record)),
        "firmware",
        ("losing writes",),
        "not as the job wants it",
    ),
    "a success of apply in another boot is not believed without a verify": Guard(
        row(Phase.APPLYING, Finished, verbs.on_finished), "apply only", ("losing writes",), "not as the job wants it"
    ),
    "commit waits for the proof that the service is reached": Guard(
        instead(verbs, "_prove_reach", lambda turn, job: verbs.begin_run(turn, job, Verb.COMMIT)),
        "firmware",
        (),
        "without proof",
    ),
    "only another boot id is a reboot": Guard(
        row(Phase.REBOOTING, Resumed, lambda turn, job, event: watch.on_rebooted(turn, job.with_(boot=""), event)),
        "reboots again",
        ("dies",),
        "never rebooted",
    ),
    "three deaths inside one verb are enough": Guard(
        instead(resume, "MAX_DEATHS_PER_VERB", 99),
        "apply rerun",
        ("power cut in apply",) * 3,
        "once more after 3",
    ),
    "commit is not tried for ever because verify comes in between": Guard(
        instead(verbs, "advance", lambda turn, job, verb: real_advance(turn, job.with_(attempts={}), verb)),
        "commit",
        ("power cut in commit",) * 3,
        "once more after 3",
    ),
    "a result is owed until the service has it": Guard(
        row(Phase.REPORTING, Unanswered, lambda turn, job, event: report.close(turn, job)),
        "apply only",
        ("request lost",),
        "the service was not told",
    ),
    "a report without an answer is remembered": Guard(
        row(Phase.REPORTING, Unanswered, lambda turn, job, event: report.retry(turn, job.with_(open=None))),
        "apply only, untold",
        ("reply lost",),
        "holds the result",
    ),
    "after a restart, a report may have been sent": Guard(
        row(Phase.REPORTING, Resumed, lambda turn, job, event: job),
        "apply only, untold",
        ("reply lost", "dies"),
        "holds the result",
    ),
    "a lost reply to a claim is recognised": Guard(
        instead(claim, "compare", lambda job, stored, sent: report.Match.FOREIGN),
        "apply only",
        ("reply lost",),
        "not in the journal",
    ),
    "a lost reply to a report is recognised": Guard(
        instead(report, "compare", lambda job, stored, sent: report.Match.ENDED),
        "apply only",
        ("reply lost",),
        "holds the result",
    ),
    "a claim is ours by its mark": Guard(
        row(Phase.CLAIMING, Described, without_mark), "a rival", ("dies", "rival claims"), "another agent's"
    ),
    "a claim without an answer may have been taken": Guard(
        instead(claim, "over", claim.drop), "apply only", ("reply lost", "cancelled"), "forgotten"
    ),
    "nothing is sent for what is over": Guard(
        everywhere("can_send", send_always), "reboots again", ("asleep",), "something is sent"
    ),
    "a cancel during apply is latched": Guard(
        everywhere("too_late", lambda job: True), "firmware", ("cancelled",), "of a cancelled execution"
    ),
    "a time-out is no cancel": Guard(
        instead(watch, "timed_out", lambda turn, job: False), "apply only, untold", ("asleep",), "taken for a cancel"
    ),
    "the in-progress timer is asked for until it shows": Guard(
        instead(watch, "_learned", learn_once), "apply only, untold", ("too long",), "taken for a cancel"
    ),
    "nothing begins while an end is unwritten": Guard(
        begin_at_once, "a full disk", ("disk is full", "disk is full", "power cut"), "claimed beside a verb"
    ),
    "an end takes its place at once unless a report stands there": Guard(
        lambda patch: patch.setattr(World, "MAY_STAND", frozenset(Phase)),
        "a full disk",
        ("request lost", "asleep", "unsettled"),
        "claimed beside a verb",
    ),
    "a verb runs five times at most": Guard(
        instead(verbs, "MAX_RUNS_PER_VERB", 99), "waits for ever", (), "runs too often"
    ),
    "a job reboots three times at most": Guard(
        instead(verbs, "MAX_REBOOTS", 99), "reboots for ever", (), "rebooted too often"
    ),
    "a reboot is asked for three times at most": Guard(
        instead(watch, "MAX_REBOOT_REQUESTS", 99), "never reboots", (), "told to reboot for ever"
    ),
}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=list(GUARDS))
def test_without_this_guard_a_promise_is_broken(
    guard: Guard, explore: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.removed(monkeypatch)

    with pytest.raises(AssertionError, match=guard.broken):
        explore(guard.scenario, guard.faults)
