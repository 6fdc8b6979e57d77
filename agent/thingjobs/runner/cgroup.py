"""A cgroup of its own for each verb, where a part of the cgroup v2 tree was delegated to the agent.

In it a verb has its limits, and what it starts cannot leave: all of it ends with the verb. Which part is whose is
decided as the kernel and systemd say it (kernel.org: cgroup-v2, "Delegation"; systemd.io: CGROUP_DELEGATION): a
cgroup that nobody delegated to the agent is somebody else's, also when root can write to it.

The agent itself moves to the leaf `agent` (DelegateSubgroup=agent in its unit does the same): only a cgroup without
processes can give controllers to those below it. It gives them only while a verb with limits runs: systemd before 254
cannot start a unit again whose cgroup gives some while a verb of the earlier agent still runs below.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingjobs.model import Resources

LEAF = "agent"
#: How the cgroups of verbs are called: what is in the first kind ends with its verb, what is in the other may stay.
ENDS, KEEPS = "run-", "keep-"
CPU_PERIOD_US = 100_000
#: So often a cgroup is killed until it is empty, with pauses that grow to a tenth of a second: six seconds in all.
ROUNDS = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """The cgroup of one verb."""

    path: Path

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from now on is in it too.

        Raises:
            OSError: it cannot be.
        """
        _write(self.path / "cgroup.procs", f"{pid}")

    def limit(self, resources: Resources) -> list[str]:
        """Set the limits; return the names of those that cannot be kept here."""
        lost = []
        for controller, name, value in wanted(resources):
            try:
                _write(self.path / name, value)
            except OSError:
                lost.append(controller)
        if resources.memory is not None:
            # All of it goes at once, or a handler lives on without the half that was killed; it cannot swap instead.
            for name, value in (("memory.oom.group", "1"), ("memory.swap.max", "0")):
                with contextlib.suppress(OSError):
                    _write(self.path / name, value)
        return lost

    def ran_out_of_memory(self) -> bool:
        """Return whether the kernel killed something here because of the limit."""
        try:
            counts = dict(line.split() for line in (self.path / "memory.events").read_text("ascii").splitlines())
        except (OSError, ValueError):
            return False
        return counts.get("oom_kill", "0") != "0"

    def kill(self) -> None:
        """Kill all that is in it, once: what is just being started may escape this time where the kernel is old."""
        try:
            _write(self.path / "cgroup.kill", "1")
        except OSError:
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> bool:
        """Kill all that is in it until nothing is, and remove it; return whether it is gone."""
        for number in range(ROUNDS):
            if self.remove():
                return True
            self.kill()
            time.sleep(min(0.0005 * (number + 1), 0.1))
        return False

    def remove(self) -> bool:
        """Remove it if it is empty; return whether it is gone."""
        try:
            for folder in self._folders():
                folder.rmdir()
        except OSError:
            pass
        return not self.path.exists()

    def _folders(self) -> list[Path]:
        """Return it and the cgroups that a handler made in it, the innermost first."""
        found = [self.path]
        for folder in found:  # which grows: os.walk would take stack for each level
            with contextlib.suppress(OSError), os.scandir(folder) as inner:
                found += [Path(one.path) for one in inner if one.is_dir(follow_symlinks=False)]
        return found[::-1]

    def _pids(self) -> list[int]:
        pids: set[int] = set()
        for folder in self._folders():
            with contextlib.suppress(OSError, ValueError):
                pids.update(int(line) for line in (folder / "cgroup.procs").read_text("ascii").split())
        # A process that is not of our pid namespace reads as 0, which would be our own group.
        return sorted(pids - {0})


def wanted(resources: Resources) -> list[tuple[str, str, str]]:
    """Return the controller, the file and its content for each limit."""
    asked = []
    if resources.memory is not None:
        asked.append(("memory", "memory.max", f"{resources.memory}"))
    if resources.processes is not None:
        # The shim is not the handler's.
        asked.append(("pids", "pids.max", f"{resources.processes + 1}"))
    if resources.cpu is not None:
        quota = max(1000, int(resources.cpu * CPU_PERIOD_US))  # The kernel takes no less than a millisecond.
        asked.append(("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}"))
    return asked


@dataclass(frozen=True, slots=True)
class Tree:
    """The part of the cgroup tree that is the agent's."""

    base: Path
    #: Held while controllers are given or taken away: one verb is begun while another is buried.
    _giving: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def make(self, name: str, resources: Resources) -> tuple[Cell, list[str]]:
        """Make the cgroup of a verb; return with it the limits that cannot be kept.

        Raises:
            OSError: it cannot be made.
        """
        cell = Cell(self.base / name)
        with self._giving:
            cell.path.mkdir(exist_ok=True)
            for controller, _, _ in wanted(resources):
                self._give("+", controller)
            return cell, cell.limit(resources)

    def find(self, name: str) -> Cell | None:
        """Return the cgroup of a verb that an earlier agent made."""
        path = self.base / name
        return Cell(path) if path.is_dir() else None

    def end(self, cell: Cell) -> None:
        """End all that is in the cgroup of a verb, and remove it."""
        cell.end()
        self._tidy()

    def leave(self, cell: Cell) -> None:
        """Remove the cgroup of a verb if nothing stayed behind in it."""
        cell.remove()
        self._tidy()

    def sweep(self, keys: set[str], *, spare: bool = True) -> None:
        """End what earlier agents left.

        Args:
            keys: of executions.
            spare: these are left alone, and all others ended; False: only these are ended.
        """
        for path in self._cells():
            kind, rest = path.name.split("-", 1)
            key = rest.rsplit("-", 2)[0]
            if (key in keys) is spare:
                continue
            if f"{kind}-" == ENDS:
                Cell(path).end()
            else:
                Cell(path).remove()
        self._tidy()

    def _cells(self) -> list[Path]:
        try:
            return [path for path in self.base.iterdir() if path.name.startswith((ENDS, KEEPS))]
        except OSError:
            return []

    def _tidy(self) -> None:
        """Give no controllers any more when there is nobody who needs them."""
        try:
            given = (self.base / "cgroup.subtree_control").read_text("ascii").split()
        except OSError:
            return
        with self._giving:
            if given and not self._cells():
                for controller in given:
                    self._give("-", controller)

    def _give(self, sign: str, controller: str) -> None:
        with contextlib.suppress(OSError):
            _write(self.base / "cgroup.subtree_control", f"{sign}{controller}")


def name_of(key: str, verb: str, attempt: int, *, keeps: bool) -> str:
    """Return what the cgroup of one run of a verb is called, for this agent and the next."""
    return f"{KEEPS if keeps else ENDS}{key}-{verb}-{attempt}"


def _write(path: Path, value: str) -> None:
    # Never made: a file that is not there is a controller that is not there.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


# --- which part is ours -------------------------------------------------------------------------------------------


def find(given: Path | None = None) -> Tree | None:
    """Return the agent's part of the tree, with the agent out of its way; None when there is none.

    Args:
        given: it is this one; nobody is asked.
    """
    own = own_cgroup()
    if given is not None:
        base: Path | None = given
    elif own is None:
        base = None
    else:
        base = next((path for path in (own, own.parent) if _is_base(path, own) and is_ours(path)), None)
    if base is None or not os.access(base, os.W_OK):
        return None
    return Tree(base) if base != own or _make_room(base) else None


def _is_base(path: Path, own: Path) -> bool:
    return path == own or own.name == LEAF


def own_cgroup(proc: Path = Path("/proc/self")) -> Path | None:
    """Return the folder of the cgroup that the agent is in; None without cgroup v2."""
    try:
        # Bytes, and lines that end as the kernel ends them: a mount, a stick for instance, may have any name.
        lines = (proc / "cgroup").read_bytes().split(b"\n")
        mounts = (proc / "mountinfo").read_bytes().split(b"\n")
    except OSError:
        return None
    within = next((os.fsdecode(line[3:]) for line in lines if line.startswith(b"0::")), None)
    # proc_pid_mountinfo(5): the root within the file system, the mount point, options, " - ", the type.
    for mount in mounts:
        before, _, after = mount.partition(b" - ")
        fields = [os.fsdecode(field) for field in before.split(b" ")]
        if within is None or len(fields) < 5 or not after.startswith(b"cgroup2 "):
            continue
        root, point = fields[3:5]
        if Path(within).is_relative_to(root):
            return Path(point) / Path(within).relative_to(root)
    return None


def is_ours(path: Path) -> bool:
    """Return whether a cgroup was delegated to the agent."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    if os.geteuid() != 0:
        # It was given to us if the one above it was not.
        procs = os.access(path / "cgroup.procs", os.W_OK)
        return procs and os.access(path, os.W_OK) and not os.access(path.parent, os.W_OK)
    # The only program of a container has the whole of the container's part; the machine's own root has no type.
    return os.getpid() == 1 and (path / "cgroup.type").exists() and not (path.parent / "cgroup.procs").exists()


def _make_room(base: Path) -> bool:
    """Move the agent to a leaf."""
    try:
        (base / LEAF).mkdir(exist_ok=True)
        _write(base / LEAF / "cgroup.procs", f"{os.getpid()}")
    except OSError:
        return False
    return True
