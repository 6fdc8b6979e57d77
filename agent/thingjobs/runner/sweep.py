"""Ending a verb whole: by its cgroup, or by its process group and then whatever else knows the job's folder.

By JOB_DIR in its environment, which is different for each execution, is found what made a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.marked import end_marked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from thingjobs.boot import Moment
    from thingjobs.runner.cgroup import Cell, Tree

#: By this, and the exit file behind it, a shim is known among all processes.
SHIM_NAME = b"thingjobs"
#: The shim, the handler itself, and the agent's thread that watches them.
OWN_FORKS = 3


@dataclass(frozen=True, slots=True)
class Family:
    """A verb's shim and all that came of it.

    Attributes:
        pid: of the shim, which leads its session and process group.
        pidfd: a handle of the shim, -1 if it is gone.
        work: the handler's folder.
        adopted: it was started by an earlier agent.
        since: a moment before the shim was started, None if nobody knows.
        keeps: what the handler leaves behind when it ends is meant to stay.
        cell: its cgroup, None without.
    """

    pid: int
    pidfd: int
    work: Path
    adopted: bool = False
    since: Moment | None = None
    keeps: bool = False
    tree: Tree | None = None
    cell: Cell | None = None

    def stop(self) -> None:
        """Ask it to end: SIGTERM to the group."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End it, the shim too."""
        if self.cell is not None and not self.keeps:
            self.cell.kill()
        self._signal_group(signal.SIGKILL)

    def dismiss(self) -> None:
        """End the shim, whose handler ended, and what the handler left unless it is meant to stay."""
        if self.keeps:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        else:
            self.kill()

    def is_alone(self) -> bool:
        """Return whether nobody was started beside the shim and its handler, so that nothing is to be ended or kept.

        False where something may be meant to stay: what that is, is seen only once the handler is gone.
        """
        return not self.keeps and self._had_no_children()

    def sweep(self, *, alone: bool = False) -> None:
        """End what is left, once the shim is gone, unless it is meant to stay; alone: only a cgroup can be left."""
        if self.cell is not None and self.tree is not None:
            (self.tree.leave if self.keeps else self.tree.end)(self.cell)
        elif not self.keeps and not alone and not self._had_no_children():
            _end_marked(self.work, lambda: boot.younger(self.pid, self.since))

    def wait(self, seconds: float) -> None:
        """Wait for the end of the shim."""
        waiting = select.poll()
        waiting.register(self.pidfd, select.POLLIN)
        waiting.poll(seconds * 1000)

    def bury(self) -> int | None:
        """Take what the kernel keeps of the shim, if it is this process's child: an agent that became this one made it.

        Returns:
            Its exit status, or the signal that ended it as a negative number; None if it is nobody's of ours.
        """
        with contextlib.suppress(OSError):  # ChildProcessError most of all.
            if found := os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG):
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return None

    def ran_out_of_memory(self) -> bool:
        """Return whether the kernel killed something of it because of its limit."""
        return self.cell is not None and self.cell.ran_out_of_memory()

    def _had_no_children(self) -> bool:
        """Return whether the whole machine made nothing but what it takes to run the handler: the usual short job."""
        made = boot.forks_since(self.since)
        return made is not None and made <= OWN_FORKS

    def _signal_group(self, number: signal.Signals) -> None:
        if self.adopted and self._is_gone():
            # Nobody keeps its number for us, which is that of the group: it may be somebody else's by now.
            _end_marked(self.work, lambda: boot.members(self.pid))
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _is_gone(self) -> bool:
        if self.pidfd < 0:
            return True
        looking = select.poll()
        looking.register(self.pidfd, select.POLLIN)
        return bool(looking.poll(0))


def _end_marked(work: Path, candidates: Callable[[], Iterable[int]]) -> None:
    """Kill those processes among the candidates whose environment has the job's folder, until none is left."""
    end_marked(b"JOB_DIR=" + os.fsencode(work), candidates)


def end_verbs(folder: Path) -> bool:
    """Kill each verb that still runs in the folder, and return whether there was any.

    What a verb that ended left behind on purpose is spared.
    """
    start_of_exit_file = os.fsencode(folder / "exit-")
    found = False
    for pid in boot.processes():
        argv = boot.command(pid)
        if len(argv) > 4 and argv[3] == SHIM_NAME and argv[4].startswith(start_of_exit_file):
            found = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
    if found:
        _end_marked(folder / "work", boot.processes)
    return found
