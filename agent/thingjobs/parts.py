"""What an agent is made of: put together by the command line, used by the loop and by what carries out its effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.cloud_desk import Desk
    from thingjobs.gates import Gates
    from thingjobs.journal import Journal
    from thingjobs.judging import Judge
    from thingjobs.policy import Settings
    from thingjobs.ports import Transport
    from thingjobs.registry import Registry
    from thingjobs.runner import Runner
    from thingjobs.seeing.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, each made once.

    Attributes:
        desk: gives credentials to handlers that ask.
        boot: the id of this boot.
        reboot: the program that reboots the machine, and its arguments.
        nonce: random, fresh for each start of the agent.
        thing: the thing's name, for people.
        reporter: tells how the agent is; None: nobody is told.
    """

    settings: Settings
    transport: Transport
    journal: Journal
    runner: Runner
    judge: Judge
    handlers: Registry
    gates: Gates
    desk: Desk
    boot: str
    reboot: Sequence[str]
    nonce: str
    thing: str
    reporter: Reporter | None = None
