"""S3 Batch Operations: ListJobs, DescribeJob, and UpdateJobStatus to confirm or cancel a job.

Source: the operations of these names in the Amazon S3 Control API, version 2018-08-20. What they bring is in `s3_jobs`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from thingjobs.cloud.calls import Call
from thingjobs.cloud.errors import CloudError, Fate, Trouble, unusable
from thingjobs.cloud.s3_jobs import Job, Listed, Page, Status, Updated, read_job, read_page, read_updated
from thingjobs.cloud.words import NO_TEXT, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.cloud.caller import Caller
    from thingjobs.cloud.calls import Endpoint

_JOBS = "/v20180820/jobs"
_JOB_ID = re.compile(r"[a-zA-Z0-9\-_]{5,36}")
_STATUS = re.compile(r"[A-Za-z]{1,64}")
#: As in the API's model, where `#-_` is a range: it takes commas and semicolons, too.
_TOKEN = re.compile(r"[A-Za-z0-9+:/=?#-_]{1,1024}")
_MOST_RESULTS = 1000
_LONGEST_REASON = 256


class S3Batch:
    """The jobs of one account in one region.

    Args:
        caller: makes the calls.
        endpoint: see `endpoints.s3_control`.
        account: the 12 digits; it is in a header of each call, whatever the endpoint is.
    """

    def __init__(self, caller: Caller, endpoint: Endpoint, account: str) -> None:
        self._caller = caller
        self._endpoint = endpoint
        self._account = account

    def page(self, *statuses: str, max_results: int | None = None, token: str = "") -> Page:
        """Ask ListJobs for one page of the jobs that are active or ended within the last 90 days.

        Args:
            statuses: only jobs in one of these; none: all.
            max_results: 0..1000; None: as many as the service likes.
            token: `next_token` of the page before, with the same statuses.

        Raises:
            CloudError: an argument is none that the API takes, or there is no answer that brings jobs.
        """
        call = list_call(self._account, *statuses, max_results=max_results, token=token)
        return self._caller.make(call, self._endpoint, read_page)

    def jobs(self, *statuses: str, limit: int | None = None) -> Iterator[Listed]:
        """Give jobs, page after page, as they are wanted; `limit`: no more than so many.

        Raises:
            CloudError: as in `page`; or the service gives the same page without end.
        """
        token, seen, left = "", set[str](), limit
        while left is None or left > 0:
            page = self.page(*statuses, max_results=None if left is None else min(left, _MOST_RESULTS), token=token)
            yield from page.jobs[:left]
            left = None if left is None else left - len(page.jobs)
            token = page.next_token
            if not token:
                return
            if token in seen:
                message = "cannot list S3 batch jobs: the service gives the same page without end; try again later"
                raise CloudError(message, Trouble.NONSENSE, Fate.UNKNOWN)
            seen.add(token)

    def describe(self, job_id: str) -> Job:
        """Ask DescribeJob for all that is known of a job.

        Raises:
            CloudError: there is no such job (trouble not-found), or no answer that describes it.
        """
        return self._caller.make(describe_call(self._account, job_id), self._endpoint, read_job)

    def confirm(self, job_id: str, reason: str = "") -> Updated:
        """Ask UpdateJobStatus for `Ready`: run a job that is `Suspended` until somebody confirms it.

        Args:
            job_id: which.
            reason: 1..256 characters, kept as the job's StatusUpdateReason; "": none.

        Raises:
            CloudError: as in `cancel`.
        """
        return self._update(job_id, "Ready", reason)

    def cancel(self, job_id: str, reason: str = "") -> Updated:
        """Ask UpdateJobStatus for `Cancelled`; the job may be `Cancelling` for a while, or complete meanwhile.

        Args:
            job_id: which.
            reason: 1..256 characters, kept as the job's StatusUpdateReason; "": none.

        Raises:
            CloudError: it was not sent, was refused (trouble conflict: the job's status does not allow it), or nobody
                knows (fate unknown): then describe the job and see.
        """
        return self._update(job_id, "Cancelled", reason)

    def _update(self, job_id: str, status: Literal["Ready", "Cancelled"], reason: str) -> Updated:
        call = update_call(self._account, job_id, status, reason)
        return self._caller.make(call, self._endpoint, read_updated)


def list_call(account: str, *statuses: str, max_results: int | None = None, token: str = "") -> Call:
    """Return the call that asks for a page of jobs. Raises CloudError: an argument is none that the API takes."""
    purpose = "list S3 batch jobs"
    for status in statuses:
        if not _STATUS.fullmatch(status):
            raise unusable(purpose, f"{status!r} is no job status; known are {', '.join(Status)}")
    if max_results is not None and not 0 <= max_results <= _MOST_RESULTS:
        raise unusable(purpose, f"a page has 0 to {_MOST_RESULTS} jobs, not {max_results}")
    if token and not _TOKEN.fullmatch(token):
        raise unusable(purpose, "the token is none that an earlier page can have brought")
    query = [("jobStatuses", str(status)) for status in statuses]
    query += [("maxResults", str(max_results))] if max_results is not None else []
    query += [("nextToken", token)] if token else []
    return Call("ListJobs", purpose, "s3:ListJobs", "GET", _JOBS, tuple(query), _of(account))


def describe_call(account: str, job_id: str) -> Call:
    """Return the call that asks about a job. Raises CloudError: that is no job id."""
    path = _job_path(job_id, "look at")
    purpose = f"look at the S3 batch job {job_id}"
    return Call("DescribeJob", purpose, "s3:DescribeJob", "GET", path, headers=_of(account))


def update_call(account: str, job_id: str, status: Literal["Ready", "Cancelled"], reason: str = "") -> Call:
    """Return the call that asks for a status; both arguments are in the query, the body is empty.

    Raises:
        CloudError: that is no job id, or the reason is too long or no text.
    """
    verb = "confirm" if status == "Ready" else "cancel"
    path = f"{_job_path(job_id, verb)}/status"
    purpose = f"{verb} the S3 batch job {job_id}"
    if len(reason) > _LONGEST_REASON:
        raise unusable(purpose, f"the reason has {len(reason)} characters, the service takes {_LONGEST_REASON}")
    if not is_whole(reason):
        raise unusable(purpose, NO_TEXT)
    query = (("requestedJobStatus", str(status)),) + ((("statusUpdateReason", reason),) if reason else ())
    return Call(
        "UpdateJobStatus", purpose, "s3:UpdateJobStatus", "POST", path, query, headers=_of(account), changes=True
    )


def _of(account: str) -> tuple[tuple[str, str], ...]:
    return (("x-amz-account-id", account),)


def _job_path(job_id: str, verb: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        wrong = f"{job_id[:60]!r} is no job id; one has 5 to 36 of a-z A-Z 0-9 - _"
        raise unusable(f"{verb} an S3 batch job", wrong)
    return f"{_JOBS}/{job_id}"
