"""The way of one handler to the cloud, `ctx.cloud`: the clients, made when they are wanted, and what the policy allows.

    def apply(self, ctx, params):
        if not ctx.cloud.may_touch_s3(params.job):
            raise Reject(f"cloud.allow_s3_jobs on this device does not allow {params.job}")
        ctx.cloud.s3_batch.confirm(params.job, "the manifest is there")

Where the services are and what may be touched comes from the agent, which also gives credentials, as often as they are
asked for. This module knows nothing of how it is asked: that is a function that it is given.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from thingjobs.cloud import endpoints
from thingjobs.cloud.batch import Batch
from thingjobs.cloud.credentials import Credentials, Issued, Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble, unusable
from thingjobs.cloud.s3_batch import S3Batch
from thingjobs.cloud.words import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.calls import Call, Endpoint

    Json = Mapping[str, Any]

#: What a dry run puts before a call that it does not send, and before each line of its body.
WOULD_SEND, BODY = "would send: ", "    "
_PURPOSE = "get credentials from the agent"


class Rehearsed(CloudError):  # noqa: N818 - no error, but how a call ends that is not made
    """A dry run sends nothing: this call was printed instead. A method that lets it through ends well there."""


class Cloud:
    """What a handler may do in the cloud.

    Args:
        told: `cloud` of job.json.
        ask: asks the agent for credentials and returns `cloud` of the job.json that answers. Its argument is the id of
            the access key that a service does not take any more, "" if there is none. Raises CloudError.
        dry_run: print calls instead of making them.
        say: takes what is printed.

    Attributes:
        region: such as `eu-west-1`; "": none is configured.
        account: the 12 digits; "": none is configured.
    """

    def __init__(
        self, told: Json, ask: Callable[[str], Json], *, dry_run: bool = False, say: Callable[[str], object] = print
    ) -> None:
        self._told = told
        self._ask = ask
        self._dry_run = dry_run
        self._say = say
        self.region: str = told.get("region") or ""
        self.account: str = told.get("account") or ""

    # --- what the local policy says -------------------------------------------------------------------------------

    def may_touch_s3(self, job_id: str) -> bool:
        """Return whether cloud.allow_s3_jobs of this device has a pattern for a job of S3 Batch Operations."""
        return _any_fits(job_id, self._told.get("allowS3Jobs") or ())

    def may_touch_batch(self, job_id: str) -> bool:
        """Return whether cloud.allow_batch_jobs of this device has a pattern for a job of AWS Batch."""
        return _any_fits(job_id, self._told.get("allowBatchJobs") or ())

    # --- the services ---------------------------------------------------------------------------------------------

    @cached_property
    def s3_batch(self) -> S3Batch:
        """The client of S3 Batch Operations. In a dry run its methods print the call and raise Rehearsed.

        Raises:
            CloudError: no region or no account is configured; the message says which key to set.
        """
        if not self.account:
            raise unusable("reach S3 Batch Operations", "no account is known; set cloud.account")
        return S3Batch(self._caller, endpoints.s3_control(self._place("s3ControlUrl"), self.account), self.account)

    @cached_property
    def batch(self) -> Batch:
        """The client of AWS Batch. In a dry run its methods print the call and raise Rehearsed.

        Raises:
            CloudError: no region is configured; the message says which key to set.
        """
        return Batch(self._caller, endpoints.batch(self._place("batchUrl")))

    def credentials(self) -> Credentials:
        """Return credentials that are good now, for a client of the handler's own; ask again before each use.

        Raises:
            CloudError: there are none; the message says why.
        """
        if self._dry_run:
            raise Rehearsed(f"cannot {_PURPOSE}: this is a dry run", Trouble.CREDENTIALS, Fate.NOT_SENT)
        return self._keeper.current()

    def _place(self, url: str) -> endpoints.Place:
        fips, dualstack = (self._told.get(which) is True for which in ("fips", "dualstack"))
        return endpoints.Place(self.region, self._told.get(url) or "", fips=fips, dualstack=dualstack)

    @cached_property
    def _keeper(self) -> _Keeper:
        return _Keeper(self._ask)

    @cached_property
    def _caller(self) -> Caller:
        if self._dry_run:
            return cast("Caller", _Rehearsal(self._say))
        from thingjobs.cloud.caller import Caller  # noqa: PLC0415 - they bring requests, which a dry run spares
        from thingjobs.cloud.web import Line  # noqa: PLC0415

        bundle = self._told.get("caBundle")
        return Caller(self._keeper, Line(ca=Path(bundle) if bundle else None, proxy=self._told.get("proxy") or ""))


class _Keeper(Keeper):
    """Keeps what the agent gave, and tells it what a service did not take."""

    def __init__(self, ask: Callable[[str], Json]) -> None:
        super().__init__(self._issued)
        self._agent = ask
        self._refused = ""

    def forget(self, credentials: Credentials) -> None:
        """Ask for others next time, because the service does not take these any more."""
        self._refused = credentials.access_key_id
        super().forget(credentials)

    def _issued(self) -> Issued:
        issued = issued_of(self._agent(self._refused))
        self._refused = ""
        return issued


class _Rehearsal:
    """Stands where a Caller would, and prints."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say

    def make(self, call: Call, endpoint: Endpoint, understand: object) -> NoReturn:  # noqa: ARG002 - as a Caller's
        """Print a call."""
        self._say(f"{WOULD_SEND}{call.method} {call.url(endpoint)}")
        for line in call.body.decode(errors="replace").splitlines():
            self._say(f"{BODY}{line}")
        raise Rehearsed(f"cannot {call.purpose}: this is a dry run", Trouble.INPUT, Fate.NOT_SENT)


def issued_of(told: Json) -> Issued:
    """Return the credentials in `cloud` of a job.json.

    Raises:
        CloudError: there are none; the message is what the agent said.
    """
    found = told.get("credentials")
    if isinstance(found, dict):
        try:
            credentials = Credentials(
                found["accessKeyId"],
                found["secretAccessKey"],
                found.get("sessionToken") or "",
                moment(found.get("expiration")),
            )
            return Issued(credentials, found.get("lifeSeconds"))
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"job.json is not what the agent wrote ({type(error).__name__})"
            raise CloudError(f"cannot {_PURPOSE}: {wrong}", Trouble.NONSENSE, Fate.NOT_SENT) from None
    raise CloudError(told.get("problem") or f"cannot {_PURPOSE}: it gave none", _trouble(told), Fate.NOT_SENT)


def _trouble(told: Json) -> Trouble:
    try:
        return Trouble(str(told.get("trouble")))
    except ValueError:
        return Trouble.CREDENTIALS


def _any_fits(job_id: str, patterns: Any) -> bool:
    return any(fnmatchcase(job_id, pattern) for pattern in patterns)
