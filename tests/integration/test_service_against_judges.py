"""Is the simulated service the real one's likeness? Three judges that we did not write say so.

botocore has AWS's own model of the `iot-jobs-data` API; awsiotsdk has AWS's own classes for the MQTT payloads; and
ministack is an independent emulator whose MQTT side was measured against the live service. Every judge is shown
forgeries too, so that it is known to be able to object.
"""

from __future__ import annotations

import datetime as dt
import json
import queue
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from thingjobs.testing import JobsService, ManualClock
from thingjobs.testing.records import SETTABLE, STATUSES
from thingjobs.testing.validation import JOB_ID, MAX_DETAILS, THING_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import Ministack, Require

    Body = dict[str, Any]

THING = "pump-7"
DOCUMENT = {"handler": "greet", "params": {"name": "Ünal", "times": [3, None, 0.5], "polite": True, "by": None}}
#: What a device gets: null members are left out.
DELIVERED = {"handler": "greet", "params": {"name": "Ünal", "times": [3, None, 0.5], "polite": True}}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    service = JobsService(clock)
    service.create_job("greet", DOCUMENT, [THING], in_progress_timeout_minutes=60)
    service.create_job("later", {"handler": "later"}, [THING])
    return service


def answered(service: JobsService, suffix: str, body: Mapping[str, Any] | None = None) -> Body:
    answer = service.ask(THING, suffix, {"clientToken": "t", **(body or {})})
    assert answer is not None
    return answer.body


STARTED = {"status": "IN_PROGRESS", "statusDetails": {"a": "b"}, "stepTimeoutInMinutes": 5}
SHOWN = {"includeJobExecutionState": True, "includeJobDocument": True}


# --- The first judge: AWS's model of the API, as botocore has it --------------------------------------------


class Model:
    """The output shapes of `iot-jobs-data`, and botocore's parser for them."""

    def __init__(self) -> None:
        import botocore.parsers
        import botocore.session

        self._model = botocore.session.get_session().get_service_model("iot-jobs-data")
        self._parser = botocore.parsers.create_parser("rest-json")

    def shape(self, name: str) -> Any:
        return self._model.shape_for(name)

    def objections(self, operation: str, body: Body) -> list[str]:
        """Say what is wrong with an MQTT answer, once it is put as the same answer over HTTP."""
        http = _as_http(body)
        shape = self._model.operation_model(operation).output_shape
        response = {"status_code": 200, "headers": {}, "body": json.dumps(http).encode()}
        parsed = self._parser.parse(response, shape)
        parsed.pop("ResponseMetadata")
        lost = [] if parsed == http else [f"botocore reads {parsed} out of {http}"]
        return [*lost, *_misfits(shape, http, "body")]


def _as_http(body: Body) -> Body:
    """Put an MQTT answer as HTTP has it: documents are strings, token and timestamp stay behind."""
    http = {name: value for name, value in body.items() if name not in ("clientToken", "timestamp")}
    for holder in (http, http.get("execution", {})):
        if "jobDocument" in holder:
            holder["jobDocument"] = json.dumps(holder["jobDocument"])
    return http


def _misfits(shape: Any, value: Any, where: str) -> list[str]:
    kinds = {"structure": "dict", "map": "dict", "list": "list", "string": "str", "long": "int"}
    if type(value).__name__ != kinds[shape.type_name]:
        return [f"{where} is no {shape.type_name}: {value!r}"]
    match shape.type_name:
        case "structure":
            unknown = [f"{where} has {name}" for name in value if name not in shape.members]
            known = [name for name in value if name in shape.members]
            return unknown + [e for n in known for e in _misfits(shape.members[n], value[n], f"{where}.{n}")]
        case "list":
            return [e for n, item in enumerate(value) for e in _misfits(shape.member, item, f"{where}[{n}]")]
        case "map":
            return [e for key, item in value.items() for e in _misfits(shape.value, item, f"{where}.{key}")]
        case "string" if value not in shape.metadata.get("enum", [value]):
            return [f"{where} is {value}, none of {shape.enum}"]
    return []


@pytest.fixture(scope="module")
def model(require: Require) -> Model:
    require("boto3")
    return Model()


ANSWERS: list[tuple[str, str, Body]] = [
    ("GetPendingJobExecutions", "get", {}),
    ("DescribeJobExecution", "$next/get", {}),
    ("DescribeJobExecution", "greet/get", {"includeJobDocument": False}),
    ("StartNextPendingJobExecution", "start-next", {"statusDetails": {"a": "b"}}),
    ("UpdateJobExecution", "greet/update", {"status": "IN_PROGRESS"}),
    ("UpdateJobExecution", "greet/update", {**STARTED, **SHOWN}),
]


@pytest.mark.parametrize(("operation", "suffix", "body"), ANSWERS)
@pytest.mark.parametrize("before", [None, STARTED])
def test_every_member_of_an_answer_is_in_awss_model_with_its_type(
    service: JobsService, model: Model, operation: str, suffix: str, body: Body, before: Body | None
) -> None:
    if before:
        answered(service, "greet/update", before)
    assert model.objections(operation, answered(service, suffix, body)) == []


@pytest.mark.parametrize("suffix", ["$next/get", "start-next"])
def test_an_empty_answer_is_in_awss_model(model: Model, clock: ManualClock, suffix: str) -> None:
    operation = "DescribeJobExecution" if suffix == "$next/get" else "StartNextPendingJobExecution"
    assert model.objections(operation, answered(JobsService(clock), suffix)) == []


def test_between_them_the_answers_show_every_member_of_an_execution(service: JobsService, model: Model) -> None:
    answered(service, "greet/update", STARTED)
    assert set(answered(service, "greet/get")["execution"]) == set(model.shape("JobExecution").members)
    listed = answered(service, "get")["inProgressJobs"][0]
    assert set(listed) == set(model.shape("JobExecutionSummary").members)
    state = answered(service, "greet/update", {**STARTED, **SHOWN})["executionState"]
    assert set(state) == set(model.shape("JobExecutionState").members)


@pytest.mark.parametrize(
    "forge",
    [
        lambda execution: execution.update(state="QUEUED"),
        lambda execution: execution.update(versionNumber="1"),
        lambda execution: execution.update(queuedAt=1.5),
        lambda execution: execution.update(status="SUCCESS"),
        lambda execution: execution.update(statusDetails={"progress": 40}),
        lambda execution: execution.update(statusDetails={"detailsMap": {"progress": "40"}}),
        lambda execution: execution.update(thingName=None),
    ],
)
def test_the_model_objects_to_a_forgery(service: JobsService, model: Model, forge: Callable[[Body], None]) -> None:
    body = answered(service, "greet/get")
    forge(body["execution"])
    assert model.objections("DescribeJobExecution", body) != []


def test_names_and_limits_are_those_of_the_model(model: Model) -> None:
    assert set(model.shape("JobExecutionStatus").enum) == STATUSES
    for name, pattern in (("JobId", JOB_ID), ("ThingName", THING_NAME)):
        limits = model.shape(name).metadata
        assert pattern.pattern == f"{limits['pattern'].removesuffix('+')}{{{limits['min']},{limits['max']}}}"


# --- The second judge: AWS's own device SDK ------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdk(require: Require) -> Any:
    require("awsiot")
    import awsiot.iotjobs

    return awsiot.iotjobs


def local(at: int) -> dt.datetime:
    """Return what the SDK makes of a whole second: local time without a zone."""
    return dt.datetime.fromtimestamp(at)  # noqa: DTZ006 - just so


def test_the_sdk_reads_a_described_execution(service: JobsService, sdk: Any, clock: ManualClock) -> None:
    clock.advance(7)
    answered(service, "greet/update", STARTED)
    read = sdk.DescribeJobExecutionResponse.from_payload(answered(service, "greet/get"))
    assert read.client_token == "t"
    assert read.timestamp == local(int(clock()))
    execution = read.execution
    assert (execution.job_id, execution.thing_name, execution.status) == ("greet", THING, sdk.JobStatus.IN_PROGRESS)
    assert (execution.version_number, execution.execution_number) == (2, 1)
    assert execution.job_document == DELIVERED
    assert execution.status_details == {"a": "b"}
    assert execution.queued_at == local(int(clock()) - 7)
    assert execution.started_at == execution.last_updated_at == local(int(clock()))


def test_the_sdk_reads_the_answers_to_start_next_and_update(service: JobsService, sdk: Any) -> None:
    started = sdk.StartNextJobExecutionResponse.from_payload(answered(service, "start-next"))
    assert (started.execution.job_id, started.execution.version_number) == ("greet", 2)
    updated = sdk.UpdateJobExecutionResponse.from_payload(answered(service, "greet/update", {**STARTED, **SHOWN}))
    assert updated.execution_state.status == sdk.JobStatus.IN_PROGRESS
    assert updated.execution_state.version_number == 3
    assert updated.execution_state.status_details == {"a": "b"}
    assert updated.job_document == DELIVERED
    bare = sdk.UpdateJobExecutionResponse.from_payload(answered(service, "greet/update", STARTED))
    assert (bare.client_token, bare.execution_state, bare.job_document) == ("t", None, None)


def test_the_sdk_reads_the_list_of_pending_executions(service: JobsService, sdk: Any, clock: ManualClock) -> None:
    answered(service, "start-next")
    read = sdk.GetPendingJobExecutionsResponse.from_payload(answered(service, "get"))
    (running,), (queued,) = read.in_progress_jobs, read.queued_jobs
    assert (running.job_id, running.version_number, running.execution_number) == ("greet", 2, 1)
    assert running.started_at == local(int(clock()))
    assert (queued.job_id, queued.started_at) == ("later", None)


def test_the_sdk_reads_the_notifications(service: JobsService, sdk: Any) -> None:
    heard: dict[str, Body] = {}
    service.listen(THING, lambda message: heard.update({message.suffix: message.body}))
    answered(service, "greet/update", {"status": "SUCCEEDED"})
    changed = sdk.JobExecutionsChangedEvent.from_payload(heard["notify"])
    assert {status: [job.job_id for job in jobs] for status, jobs in changed.jobs.items()} == {"QUEUED": ["later"]}
    following = sdk.NextJobExecutionChangedEvent.from_payload(heard["notify-next"])
    assert (following.execution.job_id, following.execution.job_document) == ("later", {"handler": "later"})
    answered(service, "later/update", {"status": "SUCCEEDED"})
    assert sdk.JobExecutionsChangedEvent.from_payload(heard["notify"]).jobs == {}
    assert sdk.NextJobExecutionChangedEvent.from_payload(heard["notify-next"]).execution is None


@pytest.mark.parametrize("kind", ["V2ErrorResponse", "RejectedError"])
def test_the_sdk_reads_a_refusal_and_knows_its_code(service: JobsService, sdk: Any, kind: str) -> None:
    answered(service, "greet/update", STARTED)
    stale = {"status": "SUCCEEDED", "expectedVersion": 1}
    read = getattr(sdk, kind).from_payload(answered(service, "greet/update", stale))
    assert (read.client_token, read.code) == ("t", sdk.RejectedErrorCode.VERSION_MISMATCH)
    assert read.message
    assert (read.execution_state.status, read.execution_state.version_number) == ("IN_PROGRESS", 2)
    assert read.execution_state.status_details == {"a": "b"}


def test_every_code_that_the_service_gives_is_one_of_the_sdks(service: JobsService, sdk: Any) -> None:
    known = {value for name, value in vars(sdk.RejectedErrorCode).items() if name.isupper()}
    answered(service, "later/update", {"status": "REJECTED"})
    asked: list[tuple[str, Body]] = [
        ("greet/update", {}),
        ("greet/update", {"status": "CANCELED"}),
        ("greet/update", {"status": "FAILED", "expectedVersion": 5}),
        ("later/update", {"status": "FAILED"}),
        ("later/get", {}),
        ("other/get", {}),
    ]
    codes = {answered(service, suffix, body)["code"] for suffix, body in asked}
    assert codes == known - {"InvalidJson", "InvalidTopic", "InternalError", "RequestThrottled"}


def test_the_service_takes_what_the_sdk_sends(service: JobsService, sdk: Any) -> None:
    about = {"thing_name": THING, "client_token": "t"}
    one = {**about, "job_id": "greet", "execution_number": 1}
    requests = [
        ("get", sdk.GetPendingJobExecutionsRequest(**about)),
        ("$next/get", sdk.DescribeJobExecutionRequest(**about, job_id="$next")),
        ("greet/get", sdk.DescribeJobExecutionRequest(**one, include_job_document=False)),
        ("start-next", sdk.StartNextPendingJobExecutionRequest(**about, step_timeout_in_minutes=5)),
        (
            "greet/update",
            sdk.UpdateJobExecutionRequest(
                **one,
                status=sdk.JobStatus.SUCCEEDED,
                expected_version=2,
                status_details={"a": "b"},
                step_timeout_in_minutes=-1,
                include_job_execution_state=True,
                include_job_document=True,
            ),
        ),
    ]
    for suffix, request in requests:
        assert "code" not in answered(service, suffix, request.to_payload())
    ended = service.execution(THING, "greet")
    assert (ended.status, ended.version, dict(ended.details)) == ("SUCCEEDED", 3, {"a": "b"})


def test_the_sdk_cannot_read_times_in_milliseconds(service: JobsService, sdk: Any) -> None:
    body = answered(service, "greet/get")
    body["execution"]["queuedAt"] *= 1000
    with pytest.raises(ValueError, match="year"):
        sdk.DescribeJobExecutionResponse.from_payload(body)


# --- The third judge: an emulator measured against the live service ------------------------------------------


class Player(Protocol):
    """Something that can play the scripts below; each step returns all messages it caused, in their order."""

    def create(self, job_id: str, *, in_progress_timeout_minutes: int | None = None) -> list[Body]:
        """Queue a job with DOCUMENT."""

    def control(self, verb: str, job_id: str, **settings: Any) -> list[Body]:
        """Cancel or delete a job or an execution."""

    def send(self, suffix: str, payload: bytes) -> list[Body]:
        """Publish a request."""


class Simulator:
    """Plays on our service."""

    def __init__(self, **behaviour: Any) -> None:
        self._service = JobsService(ManualClock(), **behaviour)
        self._heard: list[Body] = []
        self._service.listen(THING, self._hear)

    def create(self, job_id: str, *, in_progress_timeout_minutes: int | None = None) -> list[Body]:
        self._service.create_job(job_id, DOCUMENT, [THING], in_progress_timeout_minutes=in_progress_timeout_minutes)
        return self._taken()

    def control(self, verb: str, job_id: str, **settings: Any) -> list[Body]:
        of_one = (THING, job_id) if "execution" in verb else (job_id,)
        getattr(self._service, verb)(*of_one, **settings)
        return self._taken()

    def send(self, suffix: str, payload: bytes) -> list[Body]:
        self._service.handle(THING, suffix, payload, self._hear)
        return self._taken()

    def _hear(self, message: Any) -> None:
        self._heard.append({"": message.suffix, **message.body})

    def _taken(self) -> list[Body]:
        taken, self._heard = self._heard, []
        return taken


class Emulator:
    """Plays on ministack: a device over MQTT with mutual TLS, its operator through boto3."""

    def __init__(self, ministack: Ministack) -> None:
        # One server for all tests: no two of them may share a thing or a job.
        self._mark = uuid.uuid4().hex[:8]
        self._thing = f"judge-{self._mark}"
        self._prefix = f"$aws/things/{self._thing}/jobs/"
        self._iot = ministack.boto("iot")
        self._inbox: queue.SimpleQueue[Body] = queue.SimpleQueue()
        certificate, key = ministack.new_thing(self._thing)
        self._arn = self._iot.describe_thing(thingName=self._thing)["thingArn"]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._thing)
        self._client.tls_set(str(ministack.ca_path), str(certificate), str(key))
        self._client.on_connect = lambda *_: self._subscribe()
        self._client.on_subscribe = lambda *_: self._inbox.put({"": "subscribed"})
        self._client.on_message = lambda *args: self._hear(args[2])
        self._client.connect("localhost", ministack.mqtt_port)
        self._client.loop_start()
        assert self._inbox.get(timeout=10) == {"": "subscribed"}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def create(self, job_id: str, *, in_progress_timeout_minutes: int | None = None) -> list[Body]:
        timeout = {"inProgressTimeoutInMinutes": in_progress_timeout_minutes} if in_progress_timeout_minutes else {}
        document = json.dumps(DOCUMENT)
        self._iot.create_job(jobId=self._own(job_id), targets=[self._arn], document=document, timeoutConfig=timeout)
        return self._until_quiet()

    def control(self, verb: str, job_id: str, **settings: Any) -> list[Body]:
        names = {"expected_version": "expectedVersion", "details": "statusDetails", "number": "executionNumber"}
        arguments = {names.get(name, name): value for name, value in settings.items()}
        if "execution" in verb:
            arguments["thingName"] = self._thing
            verb = verb.replace("execution", "job_execution")
        getattr(self._iot, verb)(jobId=self._own(job_id), **arguments)
        return self._until_quiet()

    def send(self, suffix: str, payload: bytes) -> list[Body]:
        first, slash, rest = suffix.partition("/")
        named = bool(slash) and first != "$next"
        self._client.publish(self._prefix + (f"{self._own(first)}/{rest}" if named else suffix), payload, qos=1)
        return self._until_quiet()

    def _own(self, job_id: str) -> str:
        return f"{job_id}-{self._mark}"

    def _subscribe(self) -> None:
        wanted = ("notify", "notify-next", "get/+", "start-next/+", "+/get/+", "+/update/+")
        self._client.subscribe([(self._prefix + suffix, 1) for suffix in wanted])

    def _hear(self, message: paho.MQTTMessage) -> None:
        text = message.payload.decode().replace(f"-{self._mark}", "")
        suffix = message.topic.removeprefix(self._prefix).replace(f"-{self._mark}", "")
        self._inbox.put({"": suffix, **json.loads(text)})

    def _until_quiet(self) -> list[Body]:
        """Collect what comes before the answer to one more request: nothing of an earlier one comes after it."""
        token = uuid.uuid4().hex
        self._client.publish(f"{self._prefix}get", json.dumps({"clientToken": token}), qos=1)
        heard: list[Body] = []
        while (message := self._inbox.get(timeout=10)).get("clientToken") != token:
            heard.append(message)
        return heard


@pytest.fixture
def emulator(ministack: Ministack) -> Iterator[Emulator]:
    player = Emulator(ministack)
    yield player
    player.close()


def request(**members: Any) -> bytes:
    return json.dumps({"clientToken": "t", **members}).encode()


def update(status: str, **members: Any) -> bytes:
    return request(status=status, includeJobExecutionState=True, **members)


def the_life_of_a_job(player: Player) -> Iterator[list[Body]]:
    yield player.send("get", request())
    yield player.send("start-next", request())
    yield player.send("$next/get", request())
    yield player.create("one", in_progress_timeout_minutes=60)
    yield player.create("two")
    yield player.send("get", request())
    yield player.send("$next/get", request())
    yield player.send("one/get", request(includeJobDocument=False))
    yield player.send("start-next", request(statusDetails={"step": "accepted"}))
    yield player.send("start-next", request(statusDetails={"step": "again"}))
    yield player.send("one/update", update("IN_PROGRESS", expectedVersion=2, executionNumber=1))
    yield player.send("one/update", update("IN_PROGRESS", statusDetails={"progress": "40"}, includeJobDocument=True))
    yield player.send("get", request())
    yield player.send("one/update", update("SUCCEEDED", expectedVersion=4))
    yield player.send("$next/get", request())
    yield player.send("two/update", update("REJECTED", statusDetails={"reason": "not here"}))
    yield player.send("get", request())


def what_is_refused(player: Player) -> Iterator[list[Body]]:
    yield player.send("get", b"{")
    yield player.send("one/update", b"[]")
    yield player.send("one/get", request())
    yield player.send("one/update", update("IN_PROGRESS"))
    yield player.create("one")
    yield player.send("one/update", request())
    yield player.send("one/update", update("SUCCESS"))
    for status in sorted(STATUSES - SETTABLE):
        yield player.send("one/update", update(status))
    yield player.send("one/update", update("IN_PROGRESS", expectedVersion=9))
    yield player.send("one/update", update("IN_PROGRESS", executionNumber=2))
    yield player.send("one/get", request(executionNumber=2))
    yield player.send("one/update", update("IN_PROGRESS", statusDetails={"progress": 40}))
    yield player.send("one/update", update("IN_PROGRESS", statusDetails={"progress": ""}))
    yield player.send("start-next", request(statusDetails=["progress"]))
    yield player.send("one/update", update("IN_PROGRESS", statusDetails={"claim": "abc"}))
    yield player.send("one/update", update("SUCCEEDED", expectedVersion=1))
    yield player.send("one/update", update("FAILED", statusDetails={"code": "handler.exit"}))
    yield player.send("one/update", update("FAILED"))
    yield player.send("one/get", request())


def what_an_operator_does(player: Player) -> Iterator[list[Body]]:
    for job_id in ("one", "two", "three", "four", "five", "six"):
        yield player.create(job_id)
    yield player.send("start-next", request())
    yield player.control("cancel_job", "one")
    yield player.send("one/update", update("IN_PROGRESS"))
    yield player.control("cancel_execution", "one", force=True)
    yield player.send("one/update", update("SUCCEEDED"))
    yield player.control("cancel_execution", "two", details={"why": "not yet"}, expected_version=1)
    yield player.send("two/get", request())
    yield player.control("cancel_execution", "four")
    yield player.send("three/update", update("IN_PROGRESS"))
    yield player.control("delete_execution", "three", number=1, force=True)
    yield player.send("three/update", update("SUCCEEDED"))
    yield player.control("delete_job", "six", force=True)
    yield player.control("delete_job", "five", force=True)
    yield player.send("five/update", update("SUCCEEDED"))
    yield player.send("get", request())


#: What differs between any two services, or is a person's to read.
VOLATILE = {"timestamp", "queuedAt", "startedAt", "lastUpdatedAt", "message", "approximateSecondsBeforeTimedOut"}


def comparable(value: Any) -> Any:
    """Replace what no two services have in common by its type, and leave out what the documents disagree on.

    thingName: the documentation's examples have it in answers, the emulator's authors saw none over MQTT.
    """
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: type(item).__name__ if name in VOLATILE else comparable(item)
        for name, item in value.items()
        if name != "thingName"
    }


def played(script: Callable[[Player], Iterator[list[Body]]], player: Player) -> list[Any]:
    return [comparable(messages) for messages in script(player)]


#: The emulator counts a cancel as a change of version; no document says that the live service does.
COUNTS = {"count_service_changes": True}


@pytest.mark.parametrize(
    ("script", "behaviour"),
    [(the_life_of_a_job, {}), (what_is_refused, {}), (what_an_operator_does, COUNTS)],
)
def test_the_emulator_and_the_simulator_play_the_same(
    emulator: Emulator, script: Callable[[Player], Iterator[list[Body]]], behaviour: Body
) -> None:
    assert played(script, Simulator(**behaviour)) == played(script, emulator)


@pytest.mark.parametrize(
    ("script", "behaviour"),
    [(what_is_refused, {"terminal_update_code": "TerminalStateReached"}), (what_an_operator_does, {})],
)
def test_the_emulator_tells_another_behaviour_from_its_own(
    emulator: Emulator, script: Callable[[Player], Iterator[list[Body]]], behaviour: Body
) -> None:
    assert played(script, Simulator(**behaviour)) != played(script, emulator)


def test_the_limits_that_the_emulator_does_not_know_are_the_published_ones(service: JobsService) -> None:
    # It takes any number of pairs of any length; AWS IoT Device Management quotas say 10 pairs of 1024 characters.
    assert MAX_DETAILS == 10
    too_long = update("IN_PROGRESS", statusDetails={"a": "x" * 1025})
    answers: list[Any] = []
    service.handle(THING, "greet/update", too_long, answers.append)
    assert answers[0].body["code"] == "InvalidRequest"
