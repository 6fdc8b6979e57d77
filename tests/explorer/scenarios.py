"""What the explorer goes through: which jobs, on what kind of device, beside which service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.explorer.device import Kind

from thingjobs.model import Identity, JobId, ThingName, Verb
from thingjobs.policy import Settings

if TYPE_CHECKING:
    from thingjobs.testing import ExecutionView


THING = ThingName("thing")
SETTINGS = Settings(agent="thingjobs/test", step_timeout_minutes=20)
#: Later than the step timer, sooner than the end of a verb's own time.
IN_PROGRESS_MINUTES = 30


@dataclass(frozen=True)
class Scenario:
    """What is queued, and what the surroundings are like.

    Attributes:
        kinds: of the jobs, in the order of queueing.
        faults: how many there are at most in the usual run.
        reboots: the machine reboots when it is told to.
        deletes: the operator deletes jobs instead of cancelling them.
        rival: another agent may be faster with the claim.
        fills: the disk may be full for one write.
        service: how the service behaves where that is not known for certain.
    """

    kinds: tuple[Kind, ...]
    faults: int = 1
    reboots: bool = True
    deletes: bool = False
    rival: bool = False
    fills: bool = False
    service: tuple[tuple[str, Any], ...] = ()


ALL = frozenset(Verb)
PLAIN = Kind()
RERUN = Kind(declares=(("apply_rerun", True),))
FIRMWARE = Kind(ALL, firmware=True)
UNTOLD = (("terminal_update_code", "TerminalStateReached"), ("count_service_changes", True))
SCENARIOS = {
    "apply only": Scenario((PLAIN,), faults=2),
    "apply only, untold": Scenario((PLAIN,), service=UNTOLD, faults=2),
    "apply only, deleted": Scenario((PLAIN,), deletes=True),
    "a rival": Scenario((PLAIN,), rival=True, faults=2),
    "a full disk": Scenario((RERUN, PLAIN), fills=True),
    "two jobs": Scenario((PLAIN, PLAIN)),
    "apply rerun": Scenario((RERUN,), faults=2),
    "apply rerun and rollback": Scenario((Kind(frozenset({Verb.APPLY, Verb.ROLLBACK}), (("apply_rerun", True),)),)),
    "cancel apply": Scenario((Kind(frozenset({Verb.APPLY, Verb.ROLLBACK}), (("cancel_apply", True),)),)),
    "check": Scenario((Kind(frozenset({Verb.CHECK, Verb.APPLY})),), faults=2),
    "verify": Scenario((Kind(frozenset({Verb.APPLY, Verb.VERIFY})),), faults=2),
    "commit": Scenario((Kind(frozenset({Verb.APPLY, Verb.VERIFY, Verb.COMMIT})),)),
    # The AWS-Reboot document is one of these, too.
    "reboots again": Scenario((replace(PLAIN, again=194),)),
    "waits": Scenario((replace(PLAIN, again=75),)),
    "restarts": Scenario((replace(PLAIN, again=196),)),
    "waits for ever": Scenario((Kind(ends=((Verb.APPLY, 75),)),)),
    "reboots for ever": Scenario((Kind(ends=((Verb.APPLY, 194),)),)),
    "never reboots": Scenario((replace(PLAIN, again=194),), reboots=False),
    "fails": Scenario((Kind(ends=((Verb.APPLY, 3),)),)),
    "firmware": Scenario((FIRMWARE,)),
    "firmware, tried twice": Scenario((replace(FIRMWARE, tries=2),)),
    "firmware, deleted": Scenario((FIRMWARE,), deletes=True),
    "firmware, bad": Scenario((replace(FIRMWARE, ends=((Verb.VERIFY, 1),)),)),
    "firmware, then plain": Scenario((FIRMWARE, PLAIN)),
}


def identity_of(view: ExecutionView) -> Identity:
    """Return what an execution of the service is called here."""
    return Identity(JobId(view.job_id), view.number, int(view.queued_at))
