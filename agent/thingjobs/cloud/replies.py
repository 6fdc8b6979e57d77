"""What an answer that is no result means: the services' codes in both their envelopes, sorted by what to do. Pure.

The code decides before the HTTP status: the API reference of S3 Control prints 400 for all its errors, the service
answers otherwise. Sources: the errors of ListJobs, DescribeJob and UpdateJobStatus (S3 Control), of CancelJob,
TerminateJob and DescribeJobs (AWS Batch), "Common Errors" of both, "Error Responses" of Amazon S3.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.markup import MarkupError, Node, parse
from thingjobs.cloud.words import plain, seconds_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.cloud.calls import Call, Reply

_LONGEST_AFTER = 60.0
_BY_CODE: Mapping[str, Trouble] = {
    code: trouble
    for trouble, codes in {
        Trouble.NOT_FOUND: "NotFoundException NoSuchJob ResourceNotFoundException NotFound",
        Trouble.CONFLICT: "JobStatusException",
        Trouble.THROTTLED: "TooManyRequestsException TooManyRequests SlowDown Throttling ThrottlingException Throttled "
        "ThrottledException RequestThrottled RequestThrottledException RequestLimitExceeded BandwidthLimitExceeded",
        Trouble.UNAVAILABLE: "InternalServiceException InternalError InternalFailure InternalServerError "
        "ServerException ServiceUnavailable ServiceUnavailableException",
        Trouble.EXPIRED: "ExpiredToken ExpiredTokenException TokenRefreshRequired",
        Trouble.CREDENTIALS: "InvalidAccessKeyId InvalidToken InvalidClientTokenId UnrecognizedClientException "
        "MissingAuthenticationToken MissingAuthenticationTokenException InvalidSecurity",
        Trouble.CLOCK: "RequestTimeTooSkewed RequestInTheFuture RequestExpired",
        Trouble.SIGNATURE: "SignatureDoesNotMatch InvalidSignatureException IncompleteSignature "
        "IncompleteSignatureException AuthFailure",
        Trouble.REGION: "PermanentRedirect TemporaryRedirect Redirect AuthorizationHeaderMalformed "
        "IllegalLocationConstraintException",
        Trouble.DENIED: "AccessDenied AccessDeniedException AllAccessDisabled UnauthorizedOperation NotAuthorized",
    }.items()
    for code in codes.split()
}
_FIXES: Mapping[Trouble, str] = {
    Trouble.NOT_FOUND: "look at the id, the region and the account; S3 Batch Operations forgets jobs 90 days after "
    "their end, AWS Batch after 7 days or more",
    Trouble.CONFLICT: "the job's status does not allow it (any more); look at the job",
    Trouble.THROTTLED: "try again later, and less often",
    Trouble.UNAVAILABLE: "try again later",
    Trouble.EXPIRED: "get fresh credentials",
    Trouble.CREDENTIALS: "the service does not know these credentials; are they complete, and of this partition?",
    Trouble.CLOCK: "set this device's clock",
    Trouble.SIGNATURE: "is the secret access key right, does a proxy change requests, is this device's clock set?",
    Trouble.REGION: "set cloud.region to the region where the job is, and any endpoint that is configured to match it",
    Trouble.DENIED: "allow {action} in the policies of the role or user, and see that cloud.account is its account",
    Trouble.REJECTED: "look at what was asked for",
}
_BY_STATUS = {401: Trouble.DENIED, 403: Trouble.DENIED, 404: Trouble.NOT_FOUND, 429: Trouble.THROTTLED}


@dataclass(frozen=True, slots=True)
class Said:
    """What a service says is wrong."""

    code: str = ""
    message: str = ""
    region: str = ""


def check(call: Call, reply: Reply) -> None:
    """Let only answers pass that bring a result.

    Raises:
        CloudError: it is an error or a redirect.
    """
    if not 200 <= reply.status < 300:
        raise refusal(call, reply, said_in(reply))


def xml_result(call: Call, reply: Reply) -> Node:
    """Return the root of an S3 Control answer.

    Raises:
        CloudError: it is an error, even under the status 200, or no XML.
    """
    check(call, reply)
    try:
        root = parse(reply.body)
    except MarkupError as error:
        raise _unreadable(call, reply, str(error)) from None
    if said := _xml_error(root):
        raise refusal(call, reply, said)
    return root


def json_result(call: Call, reply: Reply) -> Mapping[str, Any]:
    """Return the object in an AWS Batch answer; an empty one if it is empty.

    Raises:
        CloudError: it is an error, even under the status 200, or no JSON object.
    """
    check(call, reply)
    try:
        found = json.loads(reply.body) if reply.body.strip() else {}
    except (ValueError, RecursionError):
        raise _unreadable(call, reply, "it is no JSON") from None
    if not isinstance(found, dict):
        raise _unreadable(call, reply, "it is no JSON object")
    if said := _json_error(reply, found):
        raise refusal(call, reply, said)
    return found


def refusal(call: Call, reply: Reply, said: Said) -> CloudError:
    """Return the error for what a service says is wrong."""
    trouble = _by_words(said) or by_status(reply.status)
    words = f"{said.code}: {said.message}" if said.code and said.message else said.code or said.message
    number = str(reply.status) if reply.status >= 300 else ""
    where = ", ".join(part for part in (number, _request_id(reply)) if part)
    why = plain(words) or ("it sends us elsewhere" if trouble is Trouble.REGION else "it does not say why")
    elsewhere = f" (the service names {plain(said.region)})" if said.region and trouble is Trouble.REGION else ""
    return CloudError(
        f"cannot {call.purpose}: the service answers {why}{f' [{where}]' * bool(where)}; "
        f"{_FIXES[trouble].format(action=call.action)}{elsewhere}",
        trouble,
        Fate.UNKNOWN if trouble is Trouble.UNAVAILABLE else Fate.REFUSED,
        code=said.code,
        status=reply.status,
        after=_after(reply),
    )


def by_status(status: int) -> Trouble:
    """Say what an HTTP status is about that comes without a code that is known."""
    if status >= 500:
        return Trouble.UNAVAILABLE
    return _BY_STATUS.get(status, Trouble.REGION if 300 <= status < 400 else Trouble.REJECTED)


def said_in(reply: Reply) -> Said:
    """Return what an answer says is wrong, as far as it can be read."""
    try:
        return _xml_error(parse(reply.body)) or Said()
    except MarkupError:
        pass
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = {}
    return _json_error(reply, found if isinstance(found, dict) else {}) or Said(region=_region(reply))


def _by_words(said: Said) -> Trouble | None:
    known = _BY_CODE.get(said.code)
    if known is Trouble.SIGNATURE and "valid region" in said.message:
        return Trouble.REGION
    if known is Trouble.SIGNATURE and ("Signature expired" in said.message or "not yet current" in said.message):
        return Trouble.CLOCK
    return known


def _xml_error(root: Node) -> Said | None:
    """Return what `<Error>` says, or the one in `<ErrorResponse>`; None: it is neither."""
    error = root if root.name == "Error" else root.at("Error") if root.name == "ErrorResponse" else None
    if error is None:
        return None
    region = error.said("Region") or error.said("Endpoint")
    return Said(error.said("Code").strip(), error.said("Message").strip(), region.strip())


def _json_error(reply: Reply, found: Mapping[str, Any]) -> Said | None:
    """Return what is wrong by the header or by the body, which may have it inside `Output`; None: nothing."""
    inner = found.get("Output")
    body = inner if isinstance(inner, dict) and "__type" in inner else found
    code = reply.headers.get("x-amzn-errortype") or body.get("__type") or (reply.status >= 300 and body.get("code"))
    message = body.get("message") or body.get("Message")
    if not isinstance(code, str) or not code:
        code = ""
        if reply.status < 300:
            return None
    short = code.partition(":")[0].rpartition("#")[2].strip()
    return Said(short, message if isinstance(message, str) else "", _region(reply))


def _region(reply: Reply) -> str:
    return reply.headers.get("x-amz-bucket-region") or reply.headers.get("location") or ""


def _request_id(reply: Reply) -> str:
    found = reply.headers.get("x-amz-request-id") or reply.headers.get("x-amzn-requestid") or ""
    return f"request {plain(found)}" if found else ""


def _after(reply: Reply) -> float | None:
    said = reply.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said[:9]), _LONGEST_AFTER)
    at = seconds_of(said)
    return None if at is None else min(max(at - reply.received, 0.0), _LONGEST_AFTER)


def _unreadable(call: Call, reply: Reply, wrong: str) -> CloudError:
    kind = plain(reply.headers.get("content-type", "")) or "nothing named"
    return CloudError(
        f"cannot {call.purpose}: the answer is not the service's: {wrong} ({kind}, {len(reply.body)} bytes); a proxy "
        "or a captive portal may have answered in its place; look at what came of it before you try again",
        Trouble.NONSENSE,
        Fate.UNKNOWN,
        status=reply.status,
    )
