"""The one transition table: what happens to an execution in each phase, for each kind of event.

Everything about transitions stands here; what the rows do stands in `claim`, `verbs`, `timers`, `resume`, `watch` and
`report`. A pair that has no row is a defect: the tests fail on it, and at run time that execution is quarantined while
the agent goes on. `to` names every phase in which a row may leave the execution; the tests hold the rows to it, and the
diagram in agent/README.md is drawn from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.jobs import Described, Refused, Updated
from thingjobs.machine import claim, report, resume, timers, verbs, watch
from thingjobs.machine.events import (
    Doubted,
    Due,
    Finished,
    Gated,
    Judged,
    LinkUp,
    NotSaved,
    NotSpawned,
    Progressed,
    Resumed,
    Spawned,
    Stop,
    Unanswered,
)
from thingjobs.model import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the table.

    Attributes:
        rule: works out the new job; None means that the execution is not ours any more, or not for now.
        to: the phases in which it may leave the execution, in addition to the one it is in.
        gone: it may drop the execution: not claimed, or not for now.
    """

    rule: Callable[[Turn, Job, Any], Job | None]
    to: frozenset[Phase] = frozenset()
    gone: bool = False


def _row(rule: Callable[[Turn, Job, Any], Job | None], *to: Phase, gone: bool = False) -> Row:
    return Row(rule, frozenset(to), gone)


def _ignore(turn: Turn, job: Job, event: object) -> Job:  # noqa: ARG001 - nothing happens, on purpose
    return job


P = Phase
IGNORE = _row(_ignore)
#: Where a verb that did not end well leaves an execution.
_FAIL = (P.ROLLING_BACK, P.REPORTING, P.DONE)
#: Where it goes when the service ended it.
_ENDED = (P.ROLLING_BACK, P.DONE)
_STARTED = (P.PREPARING, P.APPLYING, P.REPORTING)


def _running(*following: Phase, resumed: tuple[Phase, ...] = (), ended: tuple[Phase, ...] = _ENDED) -> dict[type, Row]:
    """Return the rows of a phase in which a verb of a claimed execution runs or waits to run.

    Args:
        following: where it leads when the verb ended well.
        resumed: where a restart of the agent may lead besides.
        ended: where it leads when the service ended the execution.
    """
    return {
        Judged: _row(verbs.on_judged_anew),
        Gated: _row(verbs.on_gated),
        Spawned: _row(verbs.on_spawned),
        NotSpawned: _row(verbs.on_not_spawned, *_FAIL),
        Progressed: _row(verbs.on_progressed),
        Finished: _row(verbs.on_finished, *following, P.REBOOTING, *_FAIL),
        Updated: _row(watch.on_updated),
        Described: _row(watch.on_described, *ended),
        Refused: _row(watch.on_refused, *ended),
        Unanswered: _row(watch.on_unanswered),
        Doubted: _row(watch.on_doubted),
        Due: _row(timers.on_due, *_FAIL),
        LinkUp: _row(watch.on_link_up),
        Resumed: _row(resume.on_resumed, *resumed, *_FAIL),
        NotSaved: _row(timers.on_not_saved),
        Stop: _row(timers.on_stop),
    }


TABLE: Mapping[Phase, Mapping[type, Row]] = {
    P.OFFERED: {
        Judged: _row(claim.on_judged, P.CHECKING, P.CLAIMING, P.REFUSING, P.DEFERRED, gone=True),
        Gated: _row(claim.on_gated, P.CHECKING, P.CLAIMING, P.DEFERRED),
        LinkUp: IGNORE,
        Doubted: _row(claim.on_deferred_doubted, gone=True),
        Stop: IGNORE,
    },
    P.CHECKING: {
        # Before the claim, and again after an interrupted apply.
        **_running(resumed=(P.APPLYING,)),
        NotSpawned: _row(claim.on_check_not_spawned, P.CLAIMING, *_FAIL),
        Finished: _row(
            claim.on_check_finished,
            *(P.CLAIMING, P.REFUSING, P.DEFERRED),
            *(P.APPLYING, P.VERIFYING, P.COMMITTING, *_FAIL),
        ),
        Doubted: _row(claim.on_check_doubted),
        LinkUp: _row(claim.on_check_link_up),
    },
    P.DEFERRED: {
        Due: _row(claim.on_deferred_due, gone=True),
        Gated: _row(claim.on_deferred_gated, P.CLAIMING, gone=True),
        Doubted: _row(claim.on_deferred_doubted, gone=True),
        LinkUp: IGNORE,
        Stop: IGNORE,
    },
    P.REFUSING: {
        Gated: IGNORE,
        Updated: _row(claim.on_refusal_updated, P.DONE),
        Refused: _row(claim.on_refusal_refused, P.DONE, gone=True),
        Unanswered: _row(claim.on_claim_unanswered),
        Due: _row(claim.send_refusal),
        LinkUp: _row(claim.send_refusal),
        Doubted: IGNORE,
        Stop: IGNORE,
    },
    P.CLAIMING: {
        Gated: IGNORE,
        Judged: _row(claim.on_judged_again, *_STARTED),
        Updated: _row(claim.on_claimed, *_STARTED),
        Refused: _row(claim.on_claim_refused, P.DONE, gone=True),
        Described: _row(claim.on_claim_described, *_STARTED, P.DONE, gone=True),
        Unanswered: _row(claim.on_claim_unanswered),
        Due: _row(claim.on_claim_due),
        LinkUp: _row(claim.on_claim_link_up),
        Doubted: IGNORE,
        Resumed: _row(claim.on_claim_resumed),
        NotSaved: _row(claim.on_claim_not_saved),
        Stop: IGNORE,
    },
    P.PREPARING: _running(P.APPLYING, ended=(P.CANCELLING, P.DONE)),
    P.APPLYING: {
        **_running(resumed=(P.CHECKING,)),
        Finished: _row(resume.on_applied, P.CHECKING, P.VERIFYING, P.COMMITTING, P.REBOOTING, *_FAIL),
    },
    P.VERIFYING: _running(P.COMMITTING),
    P.COMMITTING: _running(resumed=(P.VERIFYING,)),
    P.ROLLING_BACK: _running(ended=()),
    P.REBOOTING: {
        Updated: _row(watch.on_reboot_told),
        Described: _row(watch.on_reboot_described, *_ENDED),
        Refused: _row(watch.on_reboot_refused, *_ENDED),
        Unanswered: _row(watch.on_reboot_told),
        Due: _row(watch.on_reboot_due, *_FAIL),
        Doubted: _row(watch.on_doubted),
        LinkUp: _row(watch.on_link_up),
        Gated: _row(watch.on_reboot_gated, *_FAIL),
        Judged: _row(verbs.on_judged_anew),
        Resumed: _row(watch.on_rebooted, P.PREPARING, P.APPLYING, P.VERIFYING, P.COMMITTING, *_FAIL),
        NotSaved: _row(watch.on_reboot_not_saved),
        Stop: IGNORE,
    },
    P.CANCELLING: {
        Gated: IGNORE,
        NotSpawned: _row(verbs.on_not_spawned, P.DONE),
        Finished: _row(verbs.on_finished, P.DONE),
        Progressed: IGNORE,
        Updated: IGNORE,
        Described: IGNORE,
        Refused: IGNORE,
        Unanswered: _row(watch.on_unanswered),
        Due: IGNORE,
        Doubted: IGNORE,
        LinkUp: IGNORE,
        Resumed: _row(watch.on_cancelling_resumed, P.DONE),
        NotSaved: IGNORE,
        Stop: IGNORE,
    },
    P.REPORTING: {
        Gated: IGNORE,
        Judged: IGNORE,
        Updated: _row(report.on_updated, P.DONE),
        Refused: _row(report.on_refused, P.DONE),
        Described: _row(report.on_described, P.DONE),
        Unanswered: _row(report.on_unanswered),
        Due: _row(report.on_due),
        LinkUp: _row(report.on_link_up),
        Doubted: IGNORE,
        Progressed: IGNORE,
        Finished: IGNORE,  # Of a verb of an earlier boot that was not believed.
        Resumed: _row(report.on_resumed),
        NotSaved: _row(report.on_not_saved),
        Stop: IGNORE,
    },
}
