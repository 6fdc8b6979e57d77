"""The policies allow what the agent does, and nothing else: judged by AWS's documented rules, on what it sends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs import iam
from thingjobs.config import Report
from thingjobs.config.judge import Source
from thingjobs.config.settle import Host, settle
from thingjobs.iam import Name, Place
from thingjobs.jobs import Describe, DescribeNext, GetPending, Update
from thingjobs.model import JobId, Status
from thingjobs.ports import Shadow
from thingjobs.transport.https_wire import call_for, operation_of, shadow_call
from thingjobs.transport.patience import kind_of, topic_of
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.config import Config

ALIAS = {"role_alias": "device-role", "credentials_endpoint": "c.credentials.iot.eu-west-1.amazonaws.com"}
ACCOUNT = "123456789012"


def configured(thing: str = "pump-7", cloud: dict[str, Any] | None = None, **connection: Any) -> Config:
    """Return a configuration."""
    content = {
        "thing": {"name": thing},
        "connection": {"endpoint": "abc-ats.iot.eu-west-1.amazonaws.com", **connection},
        "cloud": {"account": ACCOUNT, **(cloud or {})},
    }
    return settle([Source(Path("/etc/thingjobs/config.toml"), content)], Host("host", {}))


def made(name: Name, config: Config, place: Place | None = None) -> Any:
    """Return a document, which must be there."""
    document = iam.document(name, config, place or iam.place_of(config))
    assert document is not None
    return json.loads(json.dumps(document))


# --- The judge --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """Who asks: what AWS IoT knows of a connection. Its documentation says where the name of the thing comes from.

    Attributes:
        client: the client id.
        thing: the thing that the certificate is attached to; "": the identity is no certificate, or HTTP is spoken.
    """

    client: str = ""
    thing: str = ""

    @property
    def variables(self) -> Mapping[str, str]:
        """Policy variables: that of the thing needs a client id that is its name."""
        attached = bool(self.thing) and self.client == self.thing
        known = {"iot:Connection.Thing.IsAttached": "true" if attached else "false"} if self.client else {}
        return {**known, **({"iot:Connection.Thing.ThingName": self.thing} if attached else {})}


def allows(document: Any, session: Session, action: str, resource: str) -> bool:
    """Judge as AWS documents it: a statement that allows it, its variables filled in, its conditions met."""
    return any(
        statement["Effect"] == "Allow"
        and action in listed(statement["Action"])
        and any(matches(pattern, resource, session.variables) for pattern in listed(statement["Resource"]))
        and met(statement.get("Condition", {}), session.variables)
        for statement in document["Statement"]
    )


def listed(value: Any) -> list[str]:
    """Return one or many as many."""
    return value if isinstance(value, list) else [value]


def matches(pattern: str, resource: str, variables: Mapping[str, str]) -> bool:
    """Match a resource: `*` is any characters, slashes too, `?` any one; an unknown variable matches nothing."""
    parts = re.split(r"(\$\{[^}]*\}|\*|\?)", pattern)
    if any(part.startswith("${") and part[2:-1] not in variables for part in parts):
        return False
    wild = {"*": ".*", "?": "."}
    filled = [wild.get(part) or re.escape(variables[part[2:-1]] if part.startswith("${") else part) for part in parts]
    return re.fullmatch("".join(filled), resource, re.DOTALL) is not None


def met(condition: Any, variables: Mapping[str, str]) -> bool:
    """Judge a condition; only those of booleans are understood here."""
    assert condition.keys() <= {"Bool"}
    return all(variables.get(name) == value for name, value in condition.get("Bool", {}).items())


def test_the_judge_itself_judges_by_the_examples_of_the_documentation() -> None:
    assert matches("topicfilter/some/*/topic", "topicfilter/some/+/topic", {})
    assert matches("topicfilter/some/*/topic", "topicfilter/some/a/b/topic", {})
    assert not matches("topicfilter/some/+/topic", "topicfilter/some/a/topic", {})
    assert matches("some/?????er/topic", "some/sensor/topic".replace("sensor", "1234er"), {}) is False
    assert matches("some/sensor?/topic", "some/sensor1/topic", {})
    assert not matches("client/${iot:Connection.Thing.ThingName}", "client/", {})


# --- What the agent does ----------------------------------------------------------------------------------


def requests(job_id: str) -> list[GetPending | DescribeNext | Describe | Update]:
    """Return one of each kind."""
    job = JobId(job_id)
    return [
        GetPending("t1"),
        DescribeNext("t2"),
        Describe("t3", job, 1, with_document=True),
        Update("t4", job, 1, 1, Status.IN_PROGRESS, {}),
    ]


def over_mqtt(config: Config, place: Place, job_ids: list[str]) -> set[tuple[str, str]]:
    """Return what the transports over MQTT do: as their own code does it."""
    topics = Topics(config.thing.name)
    sent = [topics.outgoing(request)[0] for job_id in job_ids for request in requests(job_id)]
    replies = [f"{topic}/{verdict}" for topic in sent for verdict in ("accepted", "rejected")]
    told = [f"$aws/things/{config.thing.name}/jobs/{name}" for name in ("notify", "notify-next")]
    return {
        ("iot:Connect", place.arn("iot", f"client/{config.connection.client_id}")),
        *(("iot:Publish", place.arn("iot", f"topic/{topic}")) for topic in sent),
        *(("iot:Subscribe", place.arn("iot", f"topicfilter/{name}")) for name in topics.filters),
        *(("iot:Receive", place.arn("iot", f"topic/{topic}")) for topic in (*replies, *told)),
    }


def over_https(config: Config, place: Place, job_ids: list[str]) -> set[tuple[str, str]]:
    """Return what the transport over HTTPS does."""
    wanted = [request for job_id in job_ids for request in requests(job_id)]
    assert all(call_for(request, config.thing.name) for request in wanted)
    thing = place.arn("iot", f"thing/{config.thing.name}")
    return {(f"iotjobsdata:{operation_of(request)}", thing) for request in wanted}


def of_shadow(config: Config, place: Place) -> set[tuple[str, str]]:
    """Return what the agent does to tell its shadow something."""
    thing, shadow = config.thing.name, Shadow(config.report.shadow, b"{}")
    if not shadow.name:
        return set()
    if config.connection.transport == "https":
        assert shadow_call(shadow, thing).path.endswith(f"/shadow?name={quote(shadow.name)}")
        return {("iot:UpdateThingShadow", place.arn("iot", f"thing/{thing}/{shadow.name}"))}
    return {("iot:Publish", place.arn("iot", f"topic/{topic_of(thing, kind_of(shadow))}"))}


def done(config: Config, place: Place, *job_ids: str) -> set[tuple[str, str]]:
    """Return what the agent does to get and report these jobs, and to tell how it is."""
    how = over_https if config.connection.transport == "https" else over_mqtt
    return how(config, place, [*job_ids]) | of_shadow(config, place)


def session_of(config: Config) -> Session:
    """Return what AWS IoT knows of the agent's connection."""
    connection = config.connection
    if connection.transport == "https":
        return Session()
    return Session(connection.client_id, config.thing.name if connection.shows_certificate else "")


def strangers(thing: str) -> list[str]:
    """Return names of other things, some of which differ little."""
    names = {f"{thing}x", f"x{thing}", thing[:-1], thing[1:], thing.swapcase(), "x", "jobs", "a:b"}
    return sorted(name for name in names if name and name != thing and len(name) <= 128)


def others(config: Config, place: Place) -> set[tuple[str, str]]:
    """Return what nobody has to allow: other things' jobs, other topics of this thing, other actions."""
    thing = config.thing.name
    found: set[tuple[str, str]] = set()
    for name in strangers(thing):
        other = configured(name, client_id=name)
        found |= over_mqtt(other, place, ["job-1", "get"]) | over_https(other, place, ["job-1"])
    elsewhere = [f"$aws/things/{thing}/shadow/update", f"$aws/things/{thing}", "$aws/things/+/jobs/notify", "#", "a"]
    elsewhere += [f"$aws/things/{thing}x/jobs/get", f"$aws/events/job/{thing}", f"{thing}/jobs/get", "+/jobs/get"]
    for topic in elsewhere:
        found |= {(f"iot:{action}", place.arn("iot", f"topic/{topic}")) for action in ("Publish", "Receive")}
        found.add(("iot:Subscribe", place.arn("iot", f"topicfilter/{topic}")))
    own = place.arn("iot", f"thing/{thing}")
    found |= {(f"iot:{action}", own) for action in ("UpdateThing", "DescribeThing", "GetThingShadow", "DeleteThing")}
    for name in ("thingjobsx", "x", config.report.shadow + "x"):
        found.add(("iot:UpdateThingShadow", f"{own}/{name}"))
        found.add(("iot:Publish", place.arn("iot", f"topic/$aws/things/{thing}/shadow/name/{name}/update")))
    shadow = config.report.shadow
    found |= {("iot:UpdateThingShadow", own), ("iot:GetThingShadow", f"{own}/{shadow}")}
    found.add(("iot:Publish", place.arn("iot", f"topic/$aws/things/{thing}/shadow/name/{shadow}/get")))
    found |= {("iotjobsdata:StartNextPendingJobExecution", own), ("iot:UpdateJobExecution", own)}
    topic = place.arn("iot", f"topic/$aws/things/{thing}/jobs/get")
    found |= {("iot:RetainPublish", topic), ("iot:Subscribe", topic), ("iot:Connect", topic)}
    elsewhere_place = Place("eu-north-1" if place.region != "eu-north-1" else "eu-west-1", place.account)
    return found | done(config, elsewhere_place, "job-1") | done(config, Place(place.region, "9" * 12), "job-1")


regions = ["eu-west-1", "ap-southeast-1", "us-gov-west-1", "cn-north-1", "us-isob-east-1", "eusc-de-east-1", ""]
things = st.from_regex(r"[a-zA-Z0-9:_-]{1,128}", fullmatch=True)
job_ids = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True) | st.sampled_from(["get", "notify", "update"])
places = st.builds(Place, st.sampled_from(regions), st.from_regex(r"[0-9]{12}", fullmatch=True) | st.just(""))
ways: list[dict[str, Any]] = [
    {},
    {"transport": "awsiot"},
    {"port": 443},
    {"client_id": "a"},
    {"client_id": "agent {thing}/ü$"},
    {"client_id": "agent-{thing}"},
    {"transport": "https"},
    {"websocket": True},
    {"transport": "https", "certificate": "", "private_key": ""},
    {"transport": "awsiot", "authorizer": {"name": "by-token"}},
    {"transport": "awsiot", "pkcs11": {"module": "/m.so"}},
]


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Make any that can reach the Jobs service."""
    way = draw(st.sampled_from(ways))
    thing = draw(things)
    if len(way.get("client_id", "{thing}").replace("{thing}", thing).encode()) > 128:
        thing = thing[:100]
    cloud: dict[str, Any] = {}
    if "pkcs11" not in way and way.get("certificate") != "" and draw(st.booleans()):
        cloud = {**ALIAS, "role_alias": draw(st.from_regex(r"[A-Za-z0-9_=,@-]{1,128}", fullmatch=True))}
    shadow = draw(st.sampled_from(["", "thingjobs", "a:b_C-9", "x" * 64]))
    return replace(configured(thing, cloud, **way), report=Report(shadow=shadow))


def reaching(config: Config) -> Name:
    """Return the document that lets the agent do its jobs."""
    return Name.ROLE if config.connection.signs else Name.IOT


@given(configurations(), places, job_ids)
def test_all_that_the_agent_does_is_allowed(config: Config, place: Place, job_id: str) -> None:
    document = made(reaching(config), config, place)
    session = session_of(config)
    assert [doing for doing in done(config, place, job_id, "get") if not allows(document, session, *doing)] == []


@settings(max_examples=50)
@given(configurations(), places)
def test_nothing_of_another_thing_and_nothing_else_is_allowed(config: Config, place: Place) -> None:
    document = made(reaching(config), config, place)
    session = session_of(config)
    assert [doing for doing in others(config, place) if allows(document, session, *doing)] == []


def topics_that_could_be(config: Config, place: Place) -> set[tuple[str, str]]:
    """Return all that could be done below the thing's jobs/ with the topics that there are."""
    requests = ["get", "start-next", "$next/get", "job-1/get", "job-1/update", "get/get"]
    topics = {*requests, *(f"{name}/{verdict}" for name in requests for verdict in ("accepted", "rejected"))}
    topics |= {"notify", "notify-next"}
    filters = {*topics, "#", "+", "+/get/accepted", "+/update/rejected", "+/+/+", "get/#", "start-next/+"}
    base = f"$aws/things/{config.thing.name}/jobs/"
    return {
        *(("iot:Publish", place.arn("iot", f"topic/{base}{name}")) for name in topics),
        *(("iot:Receive", place.arn("iot", f"topic/{base}{name}")) for name in topics),
        *(("iot:Subscribe", place.arn("iot", f"topicfilter/{base}{name}")) for name in filters),
    }


def beyond(config: Config) -> set[tuple[str, str]]:
    """Return what a policy allows of this thing's own topics though the agent does not use it."""
    place = iam.place_of(config)
    document, session = made(reaching(config), config), session_of(config)
    unused = topics_that_could_be(config, place) - done(config, place, "job-1", "get")
    allowed = {doing for doing in unused if allows(document, session, *doing)}
    return {(action, resource.rpartition("/jobs/")[2]) for action, resource in allowed}


@pytest.mark.parametrize("way", [{"websocket": True}, {"client_id": "a-{thing}"}])
def test_of_this_things_own_topics_only_those_are_allowed_that_are_used(way: dict[str, Any]) -> None:
    assert beyond(configured("p", **way)) == set()


def test_where_it_must_be_short_it_does_not_tell_accepted_from_rejected() -> None:
    assert beyond(configured("pump-7")) == {
        ("iot:Receive", "get/get"),
        *(("iot:Subscribe", name) for name in ("get/#", "get/get", "get/get/accepted", "get/get/rejected")),
    }


def subscribed(thing: str, **way: Any) -> int:
    """Return how many filters the policy names."""
    statements = made(Name.IOT, configured(thing, **way))["Statement"]
    (subscribe,) = [statement for statement in statements if statement["Action"] == "iot:Subscribe"]
    return len(subscribe["Resource"])


def test_the_most_exact_policy_that_fits_is_made_and_the_shortest_always_fits() -> None:
    assert subscribed("p", client_id="x") == 8
    assert subscribed("pump-7-of-the-north", client_id="x") == 5
    assert subscribed("p" * 100, client_id="x") == 1
    assert subscribed("p" * 100) == 5, "a variable is as long as ever"


@given(configurations(), places, st.sampled_from(Name))
def test_no_document_is_longer_than_aws_takes_even_when_its_placeholders_are_replaced(
    config: Config, place: Place, name: Name
) -> None:
    document = iam.document(name, config, place)
    text = re.sub(r"\s", "", json.dumps(document)).replace("REGION", "ap-southeast-10").replace("ACCOUNT", ACCOUNT)
    assert len(text) <= 2048
    assert text.isascii(), "IAM takes no others than those of Latin-1"


# --- One policy for many things ---------------------------------------------------------------------------


def test_one_policy_does_for_a_fleet_and_gives_each_thing_its_own_jobs_alone() -> None:
    document = made(Name.IOT, configured("pump-7"))
    assert document == made(Name.IOT, configured("valve-9"))
    assert "pump-7" not in json.dumps(document)
    pump, valve = configured("pump-7"), configured("valve-9")
    place = iam.place_of(pump)
    assert all(allows(document, session_of(valve), *doing) for doing in done(valve, place, "job-1"))
    assert not any(allows(document, session_of(valve), *doing) for doing in done(pump, place, "job-1"))


def test_a_certificate_that_is_attached_to_another_thing_may_not_even_connect() -> None:
    config = configured("pump-7")
    document, place = made(Name.IOT, config), iam.place_of(config)
    client = place.arn("iot", "client/pump-7")
    assert allows(document, Session("pump-7", "pump-7"), "iot:Connect", client)
    assert not allows(document, Session("pump-7", "valve-9"), "iot:Connect", client)
    assert not allows(document, Session("pump-7"), "iot:Connect", client)


def test_to_connect_thing_and_certificate_must_be_attached() -> None:
    (connect,) = [s for s in made(Name.IOT, configured())["Statement"] if s["Action"] == "iot:Connect"]
    assert connect["Condition"] == {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}


@pytest.mark.parametrize(
    "way",
    [
        {"client_id": "agent-{thing}"},
        {"transport": "https"},
        {"websocket": True},
        {"transport": "awsiot", "authorizer": {}},
    ],
)
def test_the_name_is_written_out_where_aws_iot_would_not_know_the_variable(way: dict[str, Any]) -> None:
    config = configured("pump-7", **way)
    assert "${" not in json.dumps(made(reaching(config), config))
    assert iam.remarks(config, reaching(config)) == (
        "the policy names the thing pump-7: every other one needs a policy of its own",
    )


def test_a_name_with_a_colon_is_written_out() -> None:
    assert "/things/site:7/jobs/" in json.dumps(made(Name.IOT, configured("site:7")))


# --- Which documents --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "cloud", "names"),
    [
        ({}, {}, "iot"),
        ({}, ALIAS, "iot trust role"),
        ({"transport": "https"}, {}, "iot"),
        ({"transport": "awsiot", "authorizer": {}}, {}, "iot"),
        ({"websocket": True}, {}, "role"),
        ({"websocket": True}, ALIAS, "iot trust role"),
        ({"transport": "https", "certificate": "", "private_key": ""}, {}, "role"),
    ],
)
def test_a_configuration_needs_the_documents_of_those_who_say_who_the_device_is(
    way: dict[str, Any], cloud: dict[str, Any], names: str
) -> None:
    assert " ".join(iam.needed(configured(cloud=cloud, **way))) == names


def actions(document: Any) -> set[str]:
    """Return all actions that a document allows."""
    return {action for statement in document["Statement"] for action in listed(statement["Action"])}


def test_the_certificate_may_take_the_role_of_its_alias_and_no_other() -> None:
    config = configured(cloud=ALIAS)
    document = made(Name.IOT, config)
    place = iam.place_of(config)
    take = "iot:AssumeRoleWithCertificate"
    assert allows(document, Session(), take, place.arn("iot", "rolealias/device-role"))
    assert not allows(document, Session(), take, place.arn("iot", "rolealias/device-role-2"))
    assert take not in actions(made(Name.IOT, configured()))


def test_what_signs_its_jobs_leaves_the_certificate_only_the_role_alias() -> None:
    config = configured(cloud=ALIAS, websocket=True)
    assert actions(made(Name.IOT, config)) == {"iot:AssumeRoleWithCertificate"}
    assert {"iot:Connect", "iot:Publish", "s3:ListJobs"} <= actions(made(Name.ROLE, config))


def test_the_role_trusts_the_credentials_provider_for_this_alias_of_this_account() -> None:
    (statement,) = made(Name.TRUST, configured(cloud=ALIAS))["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "credentials.iot.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": ACCOUNT},
            "ArnLike": {"aws:SourceArn": f"arn:aws:iot:eu-west-1:{ACCOUNT}:rolealias/device-role"},
        },
    }


def test_there_is_no_document_that_allows_nothing() -> None:
    place = Place("eu-west-1", ACCOUNT)
    assert iam.document(Name.TRUST, configured(), place) is None
    assert iam.document(Name.IOT, configured(websocket=True), place) is None
    assert iam.document(Name.ROLE, configured(cloud={"allow_s3_jobs": []}), place) is None


# --- The role ---------------------------------------------------------------------------------------------


def role(**cloud: Any) -> Any:
    """Return the document of a role with these settings."""
    return made(Name.ROLE, configured(cloud={**ALIAS, **cloud}))


def may(document: Any, action: str, service: str, job: str) -> bool:
    """Judge what is done to a job."""
    return allows(document, Session(), action, f"arn:aws:{service}:eu-west-1:{ACCOUNT}:job/{job}")


def test_only_the_jobs_that_documents_may_touch_are_allowed() -> None:
    document = role(allow_s3_jobs=["night-*", "job-?"], allow_batch_jobs=["0f*"])
    for action in ("s3:DescribeJob", "s3:UpdateJobStatus"):
        assert may(document, action, "s3", "night-12")
        assert may(document, action, "s3", "job-7")
        assert not may(document, action, "s3", "job-77")
    for action in ("batch:CancelJob", "batch:TerminateJob"):
        assert may(document, action, "batch", "0f3e:12")
        assert not may(document, action, "batch", "1f3e")
    assert allows(document, Session(), "s3:ListJobs", "*")
    assert allows(document, Session(), "batch:DescribeJobs", "*")


def test_a_service_none_of_whose_jobs_may_be_touched_is_left_out() -> None:
    assert not any(action.startswith("batch:") for action in actions(role()))
    assert not any(action.startswith("s3:") for action in actions(role(allow_s3_jobs=[], allow_batch_jobs=["*"])))
    assert {action.partition(":")[0] for action in actions(role(allow_batch_jobs=["*"]))} == {"s3", "batch"}


def test_patterns_that_iam_does_not_know_are_widened_and_those_that_no_id_matches_left_out() -> None:
    document = role(allow_s3_jobs=["job-[12]x", "job-[!a]", "a/b", "${aws:username}", "name with blanks", "*\u0085"])
    (statement,) = [s for s in document["Statement"] if "s3:DescribeJob" in s["Action"]]
    assert [arn.rpartition("/")[2] for arn in statement["Resource"]] == ["job-?x", "job-?"]


def test_patterns_beside_one_for_all_jobs_are_left_out() -> None:
    (statement,) = [s for s in role(allow_s3_jobs=["a-*", "*"])["Statement"] if "s3:DescribeJob" in s["Action"]]
    assert statement["Resource"] == [f"arn:aws:s3:eu-west-1:{ACCOUNT}:job/*"]


def test_patterns_that_are_too_many_for_a_policy_become_all_jobs_and_that_is_said() -> None:
    cloud = {**ALIAS, "allow_s3_jobs": [f"job-{number}-*" for number in range(300)], "allow_batch_jobs": ["a*"]}
    config = configured(cloud=cloud)
    document = made(Name.ROLE, config)
    assert may(document, "s3:DescribeJob", "s3", "anything")
    assert not may(document, "batch:CancelJob", "batch", "b")
    assert iam.size(document) <= 6144
    assert iam.remarks(config, Name.ROLE) == (
        "cloud.allow_s3_jobs has too many patterns for a policy, which allows all jobs; the agent does not",
    )


patterns = st.lists(st.text("ab*?[]!-", min_size=1, max_size=6), max_size=4)


@given(patterns, st.from_regex(r"[ab-]{1,6}", fullmatch=True))
def test_whatever_the_agent_would_touch_the_role_may_touch(allowed: list[str], job: str) -> None:
    document = role(allow_s3_jobs=allowed, allow_batch_jobs=["x"])
    if any(fnmatchcase(job, pattern) for pattern in allowed):
        assert may(document, "s3:UpdateJobStatus", "s3", job)


# --- Places -----------------------------------------------------------------------------------------------


def test_the_place_is_the_one_given_else_that_of_the_connection_else_that_of_the_cloud() -> None:
    cloud = {"region": "us-east-1"}
    assert iam.place_of(configured(cloud=cloud)) == Place("eu-west-1", ACCOUNT)
    assert iam.place_of(configured(cloud=cloud, endpoint="iot.example.com")) == Place("us-east-1", ACCOUNT)
    assert iam.place_of(configured(), "cn-north-1", "1" * 12) == Place("cn-north-1", "1" * 12)
    websocket = configured(cloud=cloud, endpoint="iot.example.com", websocket=True, region="eu-north-1")
    assert iam.place_of(websocket).region == "eu-north-1"


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("us-east-1", "aws"),
        ("cn-northwest-1", "aws-cn"),
        ("us-gov-east-1", "aws-us-gov"),
        ("us-iso-west-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_an_arn_is_of_the_partition_of_its_region(region: str, partition: str) -> None:
    assert Place(region, ACCOUNT).arn("iot", "thing/x") == f"arn:{partition}:iot:{region}:{ACCOUNT}:thing/x"


def test_what_nobody_said_is_a_placeholder_and_named() -> None:
    place = iam.place_of(configured(cloud={"account": ""}, endpoint="localhost"))
    assert place.missing() == ("REGION", "ACCOUNT")
    assert place.arn("iot", "client/x") == "arn:aws:iot:REGION:ACCOUNT:client/x"
    assert Place("eu-west-1", ACCOUNT).missing() == ()
