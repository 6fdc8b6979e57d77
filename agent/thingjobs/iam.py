"""The least that AWS must allow for a configuration: the certificate's policy, and the role of the role alias. Pure.

Three documents. Which of them a configuration needs depends on what says who the device is:

    iot     AWS IoT policy: what the certificate, or a custom authorizer, lets the device do
    trust   IAM trust policy: that the credentials provider of AWS IoT may take a role for the role alias
    role    IAM policy of the AWS credentials: what is signed with them, jobs too where no certificate is shown

Sources: AWS IoT Core developer guide, "AWS IoT Core policies", "Publish/Subscribe policy examples" (`*` crosses
slashes, `+` and `#` mean themselves), "Thing policy variables" (not for HTTP), "Action resources" (`topicfilter` for
iot:Subscribe alone, `iotjobsdata` on things, `iot:UpdateThingShadow` on a thing's shadow), "Authorizing direct calls to
AWS services", "Cross-service confused deputy prevention"; the service authorization references of Amazon S3 and AWS
Batch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from thingjobs.config.clashes import region_of
from thingjobs.transport.topics import FILTERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thingjobs.config import Config
    from thingjobs.model import Json

#: The thing that the client id names, if it is attached to the certificate: so one policy does for a whole fleet.
THING_VARIABLE = "${iot:Connection.Thing.ThingName}"
#: What stands where nobody said which region or account.
REGION, ACCOUNT = "REGION", "ACCOUNT"

#: By the beginning of a region's name: the partition in its ARNs.
_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "us-isof-": "aws-iso-f",
    "eu-isoe-": "aws-iso-e",
    "eusc-": "aws-eusc",
}
#: What is published below the thing's `jobs/`, as policies name it; `*` stands for a job id or `$next`.
_REQUESTS = ("get", "*/get", "*/update")
_OPERATIONS = ("DescribeJobExecution", "GetPendingJobExecutions", "UpdateJobExecution")


class Name(StrEnum):
    """The documents, in the order in which they are to be made: a role comes with its trust."""

    IOT = "iot"
    TRUST = "trust"
    ROLE = "role"


#: The longest policy that AWS IoT takes, in characters without whitespace (CreatePolicy), and IAM for trust policies
#: and for users.
LIMIT = 2048
#: What IAM takes for a managed policy; the patterns of many cloud jobs may need it.
_MANAGED = 6144
#: As long as they get, so that a policy whose placeholders were replaced is not too long after all.
_LONGEST = ("xx-xxxxxxxxx-10", "0" * 12)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose resources are meant.

    Attributes:
        region: empty: unknown.
        account: 12 digits; empty: unknown.
    """

    region: str = ""
    account: str = ""

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource."""
        starts = (part for start, part in _PARTITIONS.items() if self.region.startswith(start))
        where = f"{self.region or REGION}:{self.account or ACCOUNT}"
        return f"arn:{next(starts, 'aws')}:{service}:{where}:{resource}"

    def missing(self) -> tuple[str, ...]:
        """Return the placeholders that `arn` puts in."""
        return (*((REGION,) * (not self.region)), *((ACCOUNT,) * (not self.account)))


def place_of(config: Config, region: str = "", account: str = "") -> Place:
    """Return where a configuration's thing is; what is given counts before what is configured."""
    connection = config.connection
    known = region or connection.region or region_of(connection.endpoint) or config.cloud.region
    return Place(known, account or config.cloud.account)


def needed(config: Config) -> tuple[Name, ...]:
    """Return which documents the configuration needs."""
    alias = bool(config.cloud.role_alias)
    found = {
        Name.IOT: alias or not config.connection.signs,
        Name.TRUST: alias,
        Name.ROLE: alias or config.connection.signs,
    }
    return tuple(name for name, is_needed in found.items() if is_needed)


def document(name: Name, config: Config, place: Place) -> Json | None:
    """Return a document, or None where there is nothing that it could allow."""
    if name is Name.TRUST:
        return _trust(config, place) if config.cloud.role_alias else None
    longest = Place(place.region or _LONGEST[0], place.account or _LONGEST[1])
    detail = next(
        (detail for detail in _Detail if size(_policy(name, config, longest, detail)) <= LIMIT), _Detail.WHOLE
    )
    made = _policy(name, config, place, detail)
    return made if made["Statement"] else None


def size(document: Json) -> int:
    """Return how long AWS finds a document: in characters, without whitespace."""
    return len(re.sub(r"\s", "", json.dumps(document)))


def remarks(config: Config, *names: Name) -> tuple[str, ...]:
    """Return what these documents do not say themselves: one sentence each."""
    found = []
    if (Name.ROLE if config.connection.signs else Name.IOT) in names:
        found.append(_whom(config))
    for key, service, patterns in _allowed(config) if Name.ROLE in names else ():
        if len(_resources(service, patterns, Place())) < len(_wanted(service, patterns)):
            found.append(f"cloud.{key} has too many patterns for a policy, which allows all jobs; the agent does not")
    return tuple(found)


def _whom(config: Config) -> str:
    thing = config.thing.name
    if _thing(config) != THING_VARIABLE:
        return f"the policy names the thing {thing}: every other one needs a policy of its own"
    how = f"aws iot attach-thing-principal --thing-name {thing} --principal CERTIFICATE_ARN"
    return f"one AWS IoT policy does for all things whose client id is their name; attach thing and certificate: {how}"


# --- the Jobs service ---------------------------------------------------------------------------------------------


class _Detail(Enum):
    """How exactly topics are named: as long as there is room. None of it reaches beyond the jobs of this thing."""

    EXACT = (_REQUESTS, FILTERS)
    #: The service sends nothing else there than accepted and rejected.
    FOLDED = (_REQUESTS, tuple(dict.fromkeys(re.sub("(accepted|rejected)$", "*", name) for name in FILTERS)))
    WHOLE = (("*",), ("*",))


def _policy(name: Name, config: Config, place: Place, detail: _Detail) -> Json:
    reaching = _reaching(config, place, detail) if config.connection.signs == (name is Name.ROLE) else ()
    cloud = _assume(config, place) if name is Name.IOT else _bridge(config, place)
    return _document([*reaching, *cloud])


def _document(statements: Sequence[Json]) -> Json:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(actions: str | list[str], resources: str | list[str], **condition: Json) -> Json:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **condition}


def _reaching(config: Config, place: Place, detail: _Detail) -> Iterator[Json]:
    """Yield what the agent does to get its jobs and to report on them."""
    if config.connection.transport == "https":
        thing = place.arn("iot", f"thing/{config.thing.name}")
        yield _allow([f"iotjobsdata:{operation}" for operation in _OPERATIONS], thing)
        if config.report.shadow:
            yield _allow("iot:UpdateThingShadow", f"{thing}/{config.report.shadow}")
        return

    def arns(kind: str, names: Sequence[str]) -> list[str]:
        return [place.arn("iot", f"{kind}/$aws/things/{_thing(config)}/jobs/{name}") for name in names]

    requests, filters = detail.value
    yield _connect(config, place)
    yield _allow("iot:Publish", [*arns("topic", requests), *_shadow(config, place)])
    yield _allow("iot:Subscribe", arns("topicfilter", filters))
    yield _allow("iot:Receive", arns("topic", [name.replace("+", "*") for name in filters]))


def _shadow(config: Config, place: Place) -> list[str]:
    """Return what is published for the named shadow; its answers need no rights, as nobody listens to them."""
    name = config.report.shadow
    return [place.arn("iot", f"topic/$aws/things/{_thing(config)}/shadow/name/{name}/update")] if name else []


def _connect(config: Config, place: Place) -> Json:
    if _thing(config) == THING_VARIABLE:
        attached = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
        return _allow("iot:Connect", place.arn("iot", f"client/{THING_VARIABLE}"), Condition=attached)
    return _allow("iot:Connect", place.arn("iot", f"client/{config.connection.client_id}"))


def _thing(config: Config) -> str:
    """Return how to name the thing: by variable where AWS IoT knows it, which takes its name for the client id.

    A name with a colon is written out: "we don't recommend using colons in thing names", other services than the
    registry take them for delimiters.
    """
    connection, name = config.connection, config.thing.name
    knows = connection.transport != "https" and connection.shows_certificate and ":" not in name
    return THING_VARIABLE if knows and connection.client_id == name else name


# --- the cloud bridge ---------------------------------------------------------------------------------------------


def _assume(config: Config, place: Place) -> Iterator[Json]:
    if config.cloud.role_alias:
        yield _allow("iot:AssumeRoleWithCertificate", place.arn("iot", f"rolealias/{config.cloud.role_alias}"))


def _bridge(config: Config, place: Place) -> Iterator[Json]:
    """Yield what jobs may do to jobs in the cloud. Lists cannot be limited to some jobs: so says the service."""
    lists = {"s3": "s3:ListJobs", "batch": "batch:DescribeJobs"}
    others = {"s3": ["s3:DescribeJob", "s3:UpdateJobStatus"], "batch": ["batch:CancelJob", "batch:TerminateJob"]}
    for _, service, patterns in _allowed(config):
        if resources := _resources(service, patterns, place):
            yield _allow(lists[service], "*")
            yield _allow(others[service], resources)


def _allowed(config: Config) -> tuple[tuple[str, str, Sequence[str]], ...]:
    """Return for each service: the setting, the service, and the patterns of ids."""
    cloud = config.cloud
    return (("allow_s3_jobs", "s3", cloud.allow_s3_jobs), ("allow_batch_jobs", "batch", cloud.allow_batch_jobs))


def _resources(service: str, patterns: Sequence[str], place: Place) -> list[str]:
    """Return the jobs that match patterns: all of them where these are too many for a policy."""
    wanted = _wanted(service, patterns)
    found = [place.arn(service, f"job/{pattern}") for pattern in wanted]
    return found if len(json.dumps(found)) <= _MANAGED // 3 else [place.arn(service, "job/*")]


def _wanted(service: str, patterns: Sequence[str]) -> list[str]:
    """Return patterns as IAM knows them, without those that no id can match.

    `[ab]`, which the agent knows and IAM does not, becomes `?`: the agent refuses the rest.
    """
    possible = {"s3": r"[A-Za-z0-9*?_-]+", "batch": r"[A-Za-z0-9*?:_-]+"}[service]
    plain = dict.fromkeys(re.sub(r"\[!?\]?[^\]]*\]", "?", pattern) for pattern in patterns)
    found = [pattern for pattern in plain if re.fullmatch(possible, pattern)]
    return ["*"] if "*" in found else found


def _trust(config: Config, place: Place) -> Json:
    condition = {
        "StringEquals": {"aws:SourceAccount": place.account or ACCOUNT},
        "ArnLike": {"aws:SourceArn": place.arn("iot", f"rolealias/{config.cloud.role_alias}")},
    }
    service = {"Service": "credentials.iot.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole", "Condition": condition}
    return _document((statement,))
