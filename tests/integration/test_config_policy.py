"""The printed policies do: ministack enforces them, and moto knows the grammar of IAM."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Ministack, Require, Server
    from tests.integration.conftest import Agent

ACCOUNT, REGION = "000000000000", "us-east-1"  # ministack's


@pytest.fixture(scope="module")
def strict(
    ministack: Ministack, lasting: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ministack]:
    """Run a ministack that enforces policies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTH", "true")
        server = type(ministack)(tmp_path_factory.mktemp("strict"))
    server.start()
    lasting.append(server)
    yield server
    lasting.remove(server)
    server.stop()


def printed(name: str, config: Path) -> str:
    """Return what `thingjobs policy NAME` prints."""
    place = ["--account", ACCOUNT, "--region", REGION]
    argv = [sys.executable, "-m", "thingjobs", "policy", name, "--config", str(config), *place]
    return str(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def allow(strict: Ministack, thing: str, document: str) -> None:
    """Give the certificate of a thing this policy and no other."""
    iot = strict.boto("iot")
    name = f"policy-{uuid.uuid4().hex[:8]}"
    iot.create_policy(policyName=name, policyDocument=document)
    (certificate,) = iot.list_thing_principals(thingName=thing)["principals"]
    iot.attach_policy(policyName=name, target=certificate)


@pytest.fixture
def agent(strict: Ministack, new_agent: Callable[..., Agent]) -> Agent:
    """Give an agent for a new thing, that nothing is allowed yet."""
    thing = f"pump-{uuid.uuid4().hex[:8]}"
    return new_agent(thing, port=strict.mqtt_port, pair=strict.new_thing(thing), ca=strict.ca_path)


def thing_of(agent: Agent) -> str:
    """Return the name in its configuration."""
    return agent.config.read_text().partition('name = "')[2].partition('"')[0]


def run_a_job(strict: Ministack, thing: str, eventually: Callable[..., Any]) -> str:
    """Create a job for a thing, and return how it ends."""
    iot = strict.boto("iot")
    job_id = f"job-{uuid.uuid4().hex[:8]}"
    arn = iot.describe_thing(thingName=thing)["thingArn"]
    action = {"name": "Run", "type": "runCommand", "input": {"command": "true"}, "runAsUser": ""}
    iot.create_job(jobId=job_id, targets=[arn], document=json.dumps({"version": "1.0", "steps": [{"action": action}]}))

    def status() -> str:
        found: str = iot.describe_job_execution(jobId=job_id, thingName=thing)["execution"]["status"]
        return "" if found in ("QUEUED", "IN_PROGRESS") else found

    return str(eventually(status))


@pytest.mark.parametrize("client_id", ["{thing}", "agent-{thing}"])
def test_an_agent_does_its_jobs_with_the_policy_that_is_printed_for_it(
    strict: Ministack, agent: Agent, eventually: Callable[..., Any], client_id: str
) -> None:
    text = agent.config.read_text().replace("[connection]\n", f'[connection]\nclient_id = "{client_id}"\n')
    agent.config.write_text(text)
    allow(strict, thing_of(agent), printed("iot", agent.config))

    agent.start()

    assert run_a_job(strict, thing_of(agent), eventually) == "SUCCEEDED"
    assert agent.stop() == 0


def test_the_policy_of_another_thing_lets_an_agent_not_even_connect(
    strict: Ministack, agent: Agent, eventually: Callable[..., Any]
) -> None:
    thing = thing_of(agent)
    other = agent.config.with_name("other.toml")
    other.write_text(agent.config.read_text().replace(f'name = "{thing}"', 'name = "valve:9"'))
    allow(strict, thing, printed("iot", other))

    agent.start()

    eventually(lambda: "iot:Connect" in agent.log_text())
    assert agent.stop() == 0


class Client:
    """A client that shows a certificate, and tries."""

    def __init__(self, agent: Agent, strict: Ministack, thing: str) -> None:
        context = ssl.create_default_context(cafile=str(strict.ca_path))
        lines = dict(line.split(" = ", 1) for line in agent.config.read_text().splitlines() if " = " in line)
        context.load_cert_chain(json.loads(lines["certificate"]), json.loads(lines["private_key"]))
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=thing, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.tls_set_context(context)
        self._client.on_connect = lambda *_: self._said.put("connected")
        self._client.on_disconnect = lambda *_: self._said.put("refused")
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._said.put(
            "refused" if codes[0].is_failure else "granted"
        )
        self._client.connect("localhost", strict.mqtt_port)
        self._client.loop_start()
        assert self._said.get(timeout=10) == "connected"

    def subscribe(self, topic: str) -> str:
        """Say whether a subscription is granted."""
        self._client.subscribe(topic, qos=1)
        return self._said.get(timeout=10)

    def close(self) -> None:
        """End it."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("$aws/things/{thing}/jobs/notify-next", "granted"),
        ("$aws/things/{thing}/jobs/+/update/accepted", "granted"),
        ("$aws/things/valve/jobs/notify-next", "refused"),
        ("$aws/things/+/jobs/notify-next", "refused"),
        ("$aws/things/{thing}/jobs/#", "refused"),
        ("$aws/things/{thing}/shadow/update/accepted", "refused"),
    ],
)
def test_a_client_with_that_policy_gets_the_agents_subscriptions_and_no_others(
    strict: Ministack, agent: Agent, topic: str, said: str
) -> None:
    thing = thing_of(agent)
    allow(strict, thing, printed("iot", agent.config))
    client = Client(agent, strict, thing)
    try:
        assert client.subscribe(topic.format(thing=thing)) == said
    finally:
        client.close()


def signing(tmp_path: Path, thing: str) -> Path:
    """Write the configuration of an agent that signs its requests over HTTPS, with a role alias beside."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"""[thing]
name = "{thing}"
[connection]
endpoint = "abc-ats.iot.{REGION}.amazonaws.com"
transport = "https"
certificate = ""
private_key = ""
[cloud]
allow_batch_jobs = ["night-*"]
"""
    )
    return path


def test_credentials_with_the_printed_policy_do_the_jobs_of_this_thing_alone(strict: Ministack, tmp_path: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    thing, other = (f"pump-{uuid.uuid4().hex[:8]}" for _ in range(2))
    for name in (thing, other):
        strict.new_thing(name)
    iam = strict.boto("iam")
    iam.create_user(UserName=thing)
    iam.put_user_policy(UserName=thing, PolicyName="jobs", PolicyDocument=printed("role", signing(tmp_path, thing)))
    key = iam.create_access_key(UserName=thing)["AccessKey"]
    client = boto3.client(
        "iot-jobs-data",
        endpoint_url=strict.url,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(proxies={}),
    )

    assert client.get_pending_job_executions(thingName=thing)["queuedJobs"] == []
    assert "execution" not in client.describe_job_execution(thingName=thing, jobId="$next")
    for denied in (
        lambda: client.get_pending_job_executions(thingName=other),
        lambda: client.start_next_pending_job_execution(thingName=thing),
        lambda: client.update_job_execution(thingName=other, jobId="j", status="IN_PROGRESS"),
    ):
        with pytest.raises(ClientError) as caught:
            denied()  # type: ignore[no-untyped-call]
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_role_is_made_of_what_is_printed(strict: Ministack, agent: Agent, require: Require) -> None:
    require("moto")
    from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator

    more = '[cloud]\nrole_alias = "device-role"\ncredentials_endpoint = "localhost"\nallow_batch_jobs = ["night-*"]\n'
    agent.config.write_text(agent.config.read_text() + more)
    role, trust = printed("role", agent.config), printed("trust", agent.config)
    # moto knows the regions in ARNs of S3 access points, but not yet those of S3 batch jobs.
    IAMPolicyDocumentValidator(role.replace(f"arn:aws:s3:{REGION}:{ACCOUNT}:", "arn:aws:s3:::")).validate()
    IAMTrustPolicyDocumentValidator(trust).validate()

    iam = strict.boto("iam")
    iam.create_role(RoleName="device", AssumeRolePolicyDocument=trust)
    iam.put_role_policy(RoleName="device", PolicyName="thingjobs", PolicyDocument=role)

    def may(action: str, resource: str) -> bool:
        asked = {"PolicyInputList": [role], "ActionNames": [action], "ResourceArns": [resource]}
        (found,) = iam.simulate_custom_policy(**asked)["EvaluationResults"]
        return bool(found["EvalDecision"] == "allowed")

    assert may("batch:TerminateJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job/night-1")
    assert not may("batch:TerminateJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job/day-1")
    assert may("s3:UpdateJobStatus", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/any")
    assert not may("s3:CreateJob", f"arn:aws:s3:{REGION}:{ACCOUNT}:job/any")
