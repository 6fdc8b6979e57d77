"""What the agent has to do with the guard that started it, and how it starts itself again.

The guard is a small shell program (packaging/guard) that becomes the agent, of the version that counts; it brings the
version before back when a new one does not prove itself. It says in the environment that it is there. An agent that
was started without one can be started again as well, but not be upgraded by a job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.model import Json

log = logging.getLogger("thingjobs")

#: The program; the folder with versions and notes; which of them this is.
PROGRAM, FOLDER, VERSION = "THINGJOBS_GUARD", "THINGJOBS_GUARD_FOLDER", "THINGJOBS_GUARD_VERSION"


@dataclass(frozen=True, slots=True)
class Guard:
    """The guard that started this agent.

    Attributes:
        program: to become it again is to start the agent anew.
        folder: where it keeps versions and notes; packaging/guard/guard says which.
        version: the key of the version that this agent is, "-" for the one that the guard came with.
    """

    program: str
    folder: Path
    version: str

    def told(self) -> Json:
        """Return what handlers are told of it, as `guard` among the settings in job.json."""
        return {"folder": str(self.folder), "version": self.version}

    def reached(self) -> None:
        """Note that the service has answered, while this version is on trial; before it, another may still run."""
        with contextlib.suppress(OSError):  # There is no trial; or the guard's reason will be less exact.
            if (self.folder / "trial").read_bytes().startswith(f"{self.version} ".encode()):
                (self.folder / "reached").touch()


def found(environment: Mapping[str, str]) -> Guard | None:
    """Return the guard that this agent was started by, None without one."""
    said = [environment.get(name, "") for name in (PROGRAM, FOLDER, VERSION)]
    return Guard(said[0], Path(said[1]), said[2]) if all(said) else None


def start_again(guard: Guard | None) -> None:
    """Become a new agent, in this process: that takes no service manager, and one that is there notices nothing.

    When that is not possible, this returns, and the agent ends: as failed, so that its service manager starts it.
    """
    # This agent may be of a version that does not count any more: where there is a guard, it chooses.
    argv = [guard.program, str(guard.folder), *sys.argv[1:]] if guard else [sys.executable, *sys.orig_argv[1:]]
    log.info("starting again: %s", " ".join(argv))
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell, and nothing of a job
    except OSError as error:
        log.error("cannot start again: %s: %s; whoever started the agent must", argv[0], error.strerror)  # noqa: TRY400
