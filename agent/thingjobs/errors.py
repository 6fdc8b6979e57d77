"""Every exception that the agent raises on purpose, sorted by whose fault it is and what to do.

    ThingjobsError
    ├── ConfigError        the operator's: fix the configuration, then start again (exit 2)
    ├── StateError         this machine's: the state folder cannot be read or written
    │   ├── StateBusyError     another agent holds the state folder
    │   └── ScarceError        room, files, memory or processes are short: try again
    ├── TransportError     the network's or the service's: try again
    ├── WireError          the service sent something that is not its own protocol
    ├── DocumentError      the job author's: the execution is REJECTED with `code` and `reason`
    ├── CloudError         (in thingjobs.cloud.errors) a call to AWS that brought no result; its fate says what it did
    └── HandlerError       the handler author's: the handler cannot be found, loaded or trusted

A new class is made only if somebody catches it. Messages are lower case and say what, where and what to do.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.model import Code


#: The errnos of a full disk, or of a full share of it.
FULL = (errno.ENOSPC, errno.EDQUOT)


class ThingjobsError(Exception):
    """Anything that the agent raises on purpose; the message is fit for a person."""


class ConfigError(ThingjobsError):
    """The configuration cannot be used.

    Attributes:
        problems: one sentence each, with the key and what to write instead; never empty.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class StateError(ThingjobsError):
    """The state folder cannot be read or written."""


class StateBusyError(StateError):
    """Another agent holds the state folder."""


class ScarceError(StateError):
    """Something is short that may come back: room or leave to write on a disk, open files, memory, processes.

    Attributes:
        full: a disk is.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class TransportError(ThingjobsError):
    """The Jobs service cannot be reached for now."""


class WireError(ThingjobsError):
    """A message from the service does not follow its own protocol."""


class DocumentError(ThingjobsError):
    """A job document that this device must refuse.

    Attributes:
        code: one of the published list, for programs.
        reason: a sentence that a person can act on.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class HandlerError(DocumentError):
    """A handler that cannot be found, loaded or trusted; jobs for it are REJECTED with this reason."""


def made_of(error: BaseException) -> list[BaseException]:
    """Return an error and all that it was made of, down to what the operating system or TLS said.

    Not `__context__`: that may lead to what a caller of ours is just handling.
    """
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is other for other in found):
            found.append(one)
            waiting += [one.__cause__, getattr(one, "reason", None), *one.args]
    return found
