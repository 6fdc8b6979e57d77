"""Ending processes that are known by their environment, wherever they went.

A process that made a session of its own is in no group of ours any more, but it has its environment from us, and all
that it started have it too. Where there are no cgroups, one escapes that hides even that, or that starts another and
ends again and again, faster than anybody can look.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from thingjobs import boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: So often is looked again at a process whose environment cannot be seen.
DOUBTS = 20
#: A process that starts others as it dies is followed so often, with pauses that grow to 10 ms.
ROUNDS = 200


def end_marked(mark: bytes, candidates: Callable[[], Iterable[int]]) -> None:
    """Kill those processes among the candidates that have a mark, until none is left.

    Args:
        mark: NAME=VALUE in the environment.
        candidates: gives the processes to look at, each time anew.
    """
    doubts = DOUBTS
    for number in range(ROUNDS):
        environments = {pid: boot.environment(pid) for pid in candidates()}
        left = [pid for pid, environment in environments.items() if mark in environment]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            unknown = [pid for pid, environment in environments.items() if not environment]
            if not unknown or not doubts:
                return
            # One that ended as we looked may have started another behind our back; one that is about to become
            # another program shows no environment until it is that.
            doubts = doubts - 1 if any(boot.may_have_environment(pid) for pid in unknown) else 0
        time.sleep(min(0.0005 * (number + 1), 0.01))
