"""What the core wants done: data, carried out in order by the daemon.

`Save` comes before whatever cannot be undone. When it fails, the daemon does nothing of the rest and gives it back
in NotSaved: the core knows what may be done without a journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingjobs.jobs import Request
    from thingjobs.model import Execution, Identity, Record, Verb


@dataclass(frozen=True, slots=True)
class Save:
    """Write the record to the journal: durably, but for that of a finished execution.

    Where the journal holds how that ended, it may be written a moment later: what follows does not wait for it, and
    NotSaved, if it comes, comes by itself.
    """

    record: Record


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record from the journal: the execution was never ours."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request to the service; `identity` is the execution it is about, None for the search."""

    request: Request
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Read and route the document, find the handler, check its parameters; answered by Judged."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class AskGates:
    """Ask whether the device may be changed now; answered by Gated.

    Attributes:
        before: what is to come: "claim", "apply" or "reboot".
    """

    record: Record
    before: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """Write job.json anew for the verb that runs, with a higher revision: the parameters came anew."""

    record: Record


@dataclass(frozen=True, slots=True)
class Run:
    """Make the process of a verb, which waits for Go; answered by Spawned or NotSpawned.

    Attributes:
        attempt: 1 for the first run of this verb, then counting.
        resumed: an earlier run of this verb was interrupted, or asked for this one.
        rebooted: the machine rebooted since the earlier run.
        dry_run: only find out; change nothing.
    """

    record: Record
    verb: Verb
    attempt: int
    resumed: bool = False
    rebooted: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class GetReady:
    """Make the process that `run` will ask for if all goes well: in vain if it does not, for nothing runs before Go."""

    run: Run


@dataclass(frozen=True, slots=True)
class Go:
    """Let the spawned process begin."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Kill:
    """End the verb: SIGTERM, 30 s, SIGKILL, to all it started; Finished follows."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Reboot:
    """Reboot the machine."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Drop the connection and open a new one: the proof that the service is still reached."""


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove the execution's folder; its log is kept."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Note:
    """A fact for people: what happened, or why something waits."""

    text: str
    identity: Identity | None = None
    warning: bool = False


Effect = (
    Save | Forget | Send | Judge | AskGates | Refresh | Run | GetReady | Go | Kill | Reboot | Reconnect | Clean | Note
)
