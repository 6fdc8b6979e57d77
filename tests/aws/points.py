"""What AWS documents leave open about Jobs, asked over MQTT and HTTPS as a device asks.

Each function asks one thing, and judges whether the agent's code is right about what it sees. Letters are those that
the open points go by among the developers.
"""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError
from tests.aws.asking import NoAnswerError
from tests.aws.world import Finding, NotHereError

from thingjobs.documents import route
from thingjobs.errors import DocumentError, ThingjobsError
from thingjobs.jobs import Describe, GetPending, Refusal, Refused, Update
from thingjobs.model import JobId, Status, ThingName
from thingjobs.transport.https_wire import call_for, doubt, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.aws.asking import Device, Heard
    from tests.aws.world import World

    from thingjobs.documents import Device as RoutingDevice
    from thingjobs.jobs import Reply, Request

#: A document that no handler here understands: what these jobs are for is their executions.
DOCUMENT = {"handler": "thingjobs-check-none"}
#: A refusal after which the agent knows that an execution is over.
_OVER = ("InvalidStateTransition", "TerminalStateReached")


def _updated(device: Device, job_id: str, status: str, **more: Any) -> Heard:
    return device.ask(f"{job_id}/update", {"status": status, **more})


def _details(device: Device, job_id: str) -> dict[str, str]:
    found: dict[str, str] = device.ask(f"{job_id}/get", {"includeJobDocument": False}).execution.get(
        "statusDetails", {}
    )
    return found


def _over_http(world: World, request: Request) -> tuple[str, Reply | None]:
    """Send a request of the agent's over HTTP; return what came, and what the agent's code makes of it."""
    answer = world.web().ask(call_for(request, ThingName(world.thing)))
    code = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    try:
        reply: Reply | None = read(request, answer)
    except ThingjobsError as error:
        return f"HTTP {answer.status} {code} ({error})", None
    return f"HTTP {answer.status} {code}".rstrip(), reply


def _update(job_id: str, version: int, status: Status) -> Update:
    return Update(uuid.uuid4().hex, JobId(job_id), 1, version, status, {})


def details_merged_or_replaced(world: World) -> Finding:
    """Update details twice with different keys, then without any."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        _updated(device, job_id, "IN_PROGRESS", statusDetails={"first": "1"})
        _updated(device, job_id, "IN_PROGRESS", statusDetails={"second": "2"})
        after = _details(device, job_id)
        _updated(device, job_id, "IN_PROGRESS")
        kept = _details(device, job_id) == after
    return judge_details(after, kept=kept)


def judge_details(after: dict[str, str], *, kept: bool) -> Finding:
    """The agent sends all details each time, or none at all to keep those that are stored."""
    names = {frozenset({"second"}): "replaced", frozenset({"first", "second"}): "merged"}
    how = names.get(frozenset(after), f"neither: {sorted(after)}")
    without = "kept" if kept else "lost"
    return Finding(f"{how}; {without} when an update has none", fits=kept and not how.startswith("neither"))


def version_mismatch(world: World) -> Finding:
    """Update with a version that is not the stored one."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        heard = _updated(device, job_id, "IN_PROGRESS", expectedVersion=99)
        request = _update(job_id, 99, Status.IN_PROGRESS)
        seen, reply = _over_http(world, request)
    fits = reply is not None and _is_settled(request, reply) and heard.verdict == Refusal.VERSION_MISMATCH
    return Finding(f"{seen}; over MQTT {heard.verdict}", fits)


def _is_settled(request: Request, reply: Reply) -> bool:
    """Whether the agent looks before it believes a refusal, or knows what this one means."""
    known = isinstance(reply, Refused) and reply.code in (Refusal.VERSION_MISMATCH, Refusal.TERMINAL_STATE_REACHED)
    return known or doubt(request, reply) is not None


def update_when_over(world: World) -> Finding:
    """Update and describe an execution that is over."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        _updated(device, job_id, "IN_PROGRESS")
        _updated(device, job_id, "SUCCEEDED")
        heard = _updated(device, job_id, "FAILED")
        got = device.ask(f"{job_id}/get", {})
        request = _update(job_id, 3, Status.FAILED)
        seen, reply = _over_http(world, request)
        described, _ = _over_http(world, Describe(uuid.uuid4().hex, JobId(job_id), 1))
    state = "with" if "executionState" in heard.body else "without"
    fits = heard.verdict in _OVER and reply is not None and _is_settled(request, reply)
    return Finding(
        f"{heard.verdict} {state} executionState, {seen}; a look at it: {got.verdict}, {described}",
        fits and (got.accepted or got.verdict in (*_OVER, "ResourceNotFound")),
    )


def over_from_queued(world: World) -> Finding:
    """Update QUEUED executions to each of the ends."""
    seen = {}
    for status in ("SUCCEEDED", "FAILED", "REJECTED"):
        with world.device() as device, world.job(DOCUMENT) as job_id:
            world.queued(device, job_id)
            seen[status] = _updated(device, job_id, status).verdict
    # The agent only ever rejects what is queued.
    return Finding(", ".join(f"{status} {verdict}" for status, verdict in seen.items()), seen["REJECTED"] == "accepted")


def omitted_parameters(world: World) -> Finding:
    """Leave out the optional parameter of a managed template."""
    template = f"arn:{_partition(world)}:iot:{world.account.region}::jobtemplate/AWS-Run-Command:1.0"
    what: dict[str, Any] = {"jobTemplateArn": template, "documentParameters": {"command": "true"}}
    try:
        with world.device() as device, world.job(**what) as job_id:
            document = world.queued(device, job_id).execution.get("jobDocument")
    except ClientError as error:
        if world.account.emulated:
            raise NotHereError(f"the emulator has no managed templates ({error.response['Error']['Code']})") from None
        raise
    return judge_template(document)


def _partition(world: World) -> str:
    return world.target.split(":")[1]


def judge_template(document: Any) -> Finding:
    """The agent takes a missing key, an empty string and the placeholder itself for a parameter that was not given."""
    text = json.dumps(document)
    try:
        action = document["steps"][0]["action"]
        as_user = f"runAsUser is {json.dumps(action['runAsUser'])}" if "runAsUser" in action else "runAsUser is missing"
        route(document, cast("RoutingDevice", SimpleNamespace(thing="", facts={}, scripts_shown="")))
    except (LookupError, TypeError):
        return Finding(f"a document of another form: {text}", fits=False)
    except DocumentError as error:
        return Finding(f"{as_user}, which the agent refuses: {error}", fits=False)
    return Finding(as_user)


def signed_on_data_ats(world: World) -> Finding:
    """Ask with a signature for iot-jobs-data in place of a certificate."""
    if world.account.emulated:
        raise NotHereError("an emulator takes any signature")
    request = GetPending(uuid.uuid4().hex)
    answer = world.signed_web().ask(call_for(request, ThingName(world.thing)))
    code = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    return Finding(f"HTTP {answer.status} {code}".rstrip(), fits=answer.status == 200)


def qos_of_notifications(world: World) -> Finding:
    """Listen to the notifications of a new job."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        following = device.hear(
            lambda heard: heard.suffix == "notify-next" and heard.execution.get("jobId") == job_id, 60.0
        )
        listed = device.hear(lambda heard: heard.suffix == "notify")
        answer = device.ask(f"{job_id}/get", {})
    heard = {"notify-next": following, "notify": listed, "answers": answer}
    retained = [name for name, each in heard.items() if each.retained]
    seen = ", ".join(f"{name} {each.qos}" for name, each in heard.items())
    return Finding(f"{seen}{'; retained: ' * bool(retained)}{', '.join(retained)}", fits=not retained)


def denied_subscription(world: World) -> Finding:
    """Subscribe to another thing's topics, with both versions of MQTT."""
    seen = {"MQTT 3.1.1": _denied(world, 4), "MQTT 5": _denied(world, 5)}
    granted = [name for name, how in seen.items() if how.startswith("granted")]
    if granted and world.account.emulated:
        raise NotHereError("the emulator grants it, whatever the policy says")
    return Finding(", ".join(f"{name}: {how}" for name, how in seen.items()), fits=not granted)


def _denied(world: World, version: int) -> str:
    with world.device(version) as device:
        try:
            (code,) = device.subscribe(f"$aws/things/{world.thing}-other/jobs/notify")
        except NoAnswerError as error:
            return str(error)
    return f"SUBACK {code.value:#04x}" if code.is_failure else "granted"


def longest_token(world: World) -> Finding:
    """Ask with ever longer clientTokens."""
    longest = 0
    with world.device() as device:
        for size in (36, 64, 128, 256, 1024):
            heard = device.ask("get", {}, "x" * size)
            if not heard.accepted or heard.body.get("clientToken") != "x" * size:
                return Finding(f"{longest} characters, and {size} not: {heard.verdict}", fits=longest >= 36)
            longest = size
    return Finding(f"{longest} characters or more")


def unit_of_1024(world: World) -> Finding:
    """Store details with values of many characters and bytes."""
    values = {"1024 ASCII": "x" * 1024, "1025 ASCII": "x" * 1025, "1024 é (2048 bytes)": "é" * 1024}
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        seen = {
            name: _updated(device, job_id, "IN_PROGRESS", statusDetails={"value": value}).verdict
            for name, value in values.items()
        }
    # The agent cuts at 1024 bytes, which is right for both.
    fits = seen["1024 ASCII"] == "accepted"
    return Finding(", ".join(f"{name}: {verdict}" for name, verdict in seen.items()), fits)


def step_timeout_on_start_next(world: World) -> Finding:
    """Start the next job twice with different step timeouts, and with -1. The agent never uses start-next."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        head = world.stop.until(lambda: _is_head(device, job_id), 30.0)
        if not head:
            raise NoAnswerError("another job was in front of ours")
        off = device.ask("start-next", {"stepTimeoutInMinutes": -1})
        device.ask("start-next", {"stepTimeoutInMinutes": 60})
        before = _left(device, job_id)
        again = device.ask("start-next", {"stepTimeoutInMinutes": 600})
        after = _left(device, job_id)
    return Finding(
        f"-1 {off.verdict}; then 60 minutes: {before}; then 600, in progress by now, {again.verdict}: {after}"
    )


def _is_head(device: Device, job_id: str) -> bool:
    return bool(device.ask("$next/get", {}).execution.get("jobId") == job_id)


def _left(device: Device, job_id: str) -> str:
    seconds = device.ask(f"{job_id}/get", {}).execution.get("approximateSecondsBeforeTimedOut")
    return "no timer" if seconds is None else f"{seconds} s left"


def version_after_the_service(world: World) -> Finding:
    """Have what is in progress cancelled by force, and another time out, and look at their versions."""
    cancelled = _ended_by_service(world, "CANCELED", 60.0)
    if world.account.emulated:
        return Finding(f"CANCELED {cancelled}; TIMED_OUT not answered here: the emulator keeps no time")
    return Finding(f"CANCELED {cancelled}; TIMED_OUT {_ended_by_service(world, 'TIMED_OUT', 240.0)}")


def _ended_by_service(world: World, status: str, seconds: float) -> str:
    """Start an execution that the service is to end; return what becomes of its version."""
    with world.device() as device, world.job(DOCUMENT) as job_id:
        world.queued(device, job_id)
        heard = _updated(device, job_id, "IN_PROGRESS", includeJobExecutionState=True, stepTimeoutInMinutes=1)
        if status == "CANCELED":
            world.iot.cancel_job(jobId=job_id, force=True)
        over = world.stop.until(
            lambda: found if (found := world.execution(job_id)).get("status") == status else None, seconds
        )
        if not over:
            raise NoAnswerError(f"the execution did not become {status} within {seconds:.0f} s")
    before, after = heard.body.get("executionState", {}).get("versionNumber"), over.get("versionNumber")
    return f"{'leaves it at' if before == after else f'takes it from {before} to'} {after}"


POINTS: tuple[tuple[str, str, Callable[[World], Finding]], ...] = (
    ("a", "status details of two updates", details_merged_or_replaced),
    ("b", "a stale expectedVersion over HTTP", version_mismatch),
    ("c", "an update of what is over", update_when_over),
    ("d", "from QUEUED to an end at once", over_from_queued),
    ("e", "a parameter of a managed template left out", omitted_parameters),
    ("f", "SigV4 for Jobs on Data-ATS", signed_on_data_ats),
    ("g", "QoS of what the service sends", qos_of_notifications),
    ("h", "a subscription that the policy denies", denied_subscription),
    ("l", "the longest clientToken", longest_token),
    ("m", "values of status details", unit_of_1024),
    ("n", "stepTimeoutInMinutes of start-next", step_timeout_on_start_next),
    ("o", "versionNumber after the service ended it", version_after_the_service),
)
