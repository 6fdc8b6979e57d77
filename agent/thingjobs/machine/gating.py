"""Waiting for the gates, before the claim, `apply` and a reboot: local reasons to leave the device alone for now."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from thingjobs.machine.effects import AskGates
from thingjobs.policy import defer, reopened

if TYPE_CHECKING:
    from thingjobs.machine.events import Gated
    from thingjobs.machine.state import Job
    from thingjobs.machine.turn import Turn


class Before(StrEnum):
    """What a gate holds back."""

    CLAIM = "claim"
    APPLY = "apply"
    REBOOT = "reboot"


def ask(turn: Turn, job: Job, before: Before) -> Job:
    """Ask the gates; until they answer, and while one is closed, `job` stands before what it wants to do."""
    turn.do(AskGates(job.record, before))
    return job.with_(gate=before)


def passed(job: Job) -> Job:
    """The gates are open."""
    return job.with_(gate="", gate_tries=0, note="")


def wait(turn: Turn, job: Job, closed: Gated) -> tuple[Job, float]:
    """Return the job with the reason why it waits, and Now.clock of the next try."""
    tries = job.gate_tries + 1
    if closed.reason != job.record.note:
        turn.note(f"waits: {closed.reason}", job.identity)
    pause = defer(tries) if closed.opens_in is None else reopened(closed.opens_in, turn.roll())
    return job.with_(gate_tries=tries, note=closed.reason), turn.now.clock + pause
