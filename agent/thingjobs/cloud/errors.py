"""What goes wrong between this device and AWS: one exception, which says what is known of the call's effect. Pure.

CloudError(ThingjobsError)
    trouble    whose it is and what it is about, for programs
    fate       what has become of the call: not sent, refused, or nobody knows
    code       the service's own word for it, "" if it said none
"""

from __future__ import annotations

from enum import StrEnum

from thingjobs.errors import ThingjobsError


class Fate(StrEnum):
    """What is known of a call that failed. A caller that changes something goes by this, and by nothing else."""

    #: It never left this machine: it certainly did nothing.
    NOT_SENT = "not-sent"
    #: The service answered that it did not do it.
    REFUSED = "refused"
    #: It left, and no answer says what came of it: look before you send it again.
    UNKNOWN = "unknown"


class Trouble(StrEnum):
    """What a failure is about."""

    #: The arguments cannot be sent: an id, a reason, a region that the API would not take.
    INPUT = "input"
    #: There are no credentials, or the service does not know them.
    CREDENTIALS = "credentials"
    #: The credentials' time is over.
    EXPIRED = "expired"
    #: The credentials are good, and do not allow it.
    DENIED = "denied"
    #: There is no such job.
    NOT_FOUND = "not-found"
    #: The job's state does not allow it.
    CONFLICT = "conflict"
    #: This device's clock is wrong.
    CLOCK = "clock"
    #: The service computed another signature.
    SIGNATURE = "signature"
    #: Another region or host has it.
    REGION = "region"
    #: Too many calls.
    THROTTLED = "throttled"
    #: The service failed.
    UNAVAILABLE = "unavailable"
    #: No answer: the network, TLS, a proxy.
    UNREACHABLE = "unreachable"
    #: An answer that is not the service's protocol.
    NONSENSE = "nonsense"
    #: Refused for a reason that is none of these; the message has the service's words.
    REJECTED = "rejected"


#: Another try may do better.
_PASSING = frozenset({Trouble.THROTTLED, Trouble.UNAVAILABLE, Trouble.UNREACHABLE})


class CloudError(ThingjobsError):
    """A call that brought no result; the message says what could not be done, why, and what to do.

    Attributes:
        trouble: what it is about.
        fate: what has become of the call.
        code: the service's code, such as `JobStatusException`; "" if there is none.
        status: the HTTP status of the answer; 0: there is none.
        after: how many seconds the service wants us to wait; None: it does not say.
    """

    def __init__(
        self,
        message: str,
        trouble: Trouble,
        fate: Fate,
        *,
        code: str = "",
        status: int = 0,
        after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.fate = fate
        self.code = code
        self.status = status
        self.after = after

    @property
    def passing(self) -> bool:
        """Whether the same call may work a little later."""
        return self.trouble in _PASSING


def unusable(purpose: str, wrong: str) -> CloudError:
    """Return the error for what is not even sent, because the API's own limits forbid it."""
    return CloudError(f"cannot {purpose}: {wrong}", Trouble.INPUT, Fate.NOT_SENT)
