"""`s3-batch-job` in bad weather: lost replies, errors, throttling, outages; what is sent again, and what never is."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs_handlers.s3_batch_job import S3BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.cloud.handlers.conftest import World

AT_ONCE = {"Retry-After": "0"}
JOB = "00e123a4-c0d8-41f4-a0eb-b46f9ba5b07c"


@pytest.fixture
def world(world_of: Callable[[type, str], World]) -> World:
    return world_of(S3BatchJob, JOB)


@pytest.mark.parametrize("after", [True, False])
def test_after_a_lost_reply_it_looks_before_it_asks_again(world: World, *, after: bool) -> None:
    world.fake.new_job(JOB, "Suspended")
    world.fake.faults.append(None)
    world.fake.hang_up(after=after)

    call = world.call("apply", "confirm")

    assert call.details["outcome"].endswith("is Ready; it was confirmed by this device job")
    assert world.sequence == ("dCd" if after else "dCdCd")


def test_a_request_that_may_be_on_its_way_is_given_time_to_arrive(world: World) -> None:
    world.fake.new_job(JOB, "Suspended")
    world.kit.dir.mkdir(parents=True, exist_ok=True)
    note = world.kit.dir / "cloud.json"
    note.write_text('{"asked": {"confirm": false}, "over": false}')
    world.hours.happens = lambda: world.fake.jobs[JOB].update(Status="Ready")

    call = world.call("apply", "confirm", attempt=2)

    assert (call.succeeded, world.sequence) == (True, "d")


@pytest.mark.parametrize(("status", "left"), [(500, {"confirm": False}), (503, {})])
def test_what_is_known_of_a_request_is_written_down(world: World, status: int, left: dict[str, bool]) -> None:
    world.fake.new_job(JOB, "Suspended")
    code = b"SlowDown" if status == 503 else b"InternalError"
    world.fake.faults.append(None)
    for _ in range(5 if status == 503 else 1):
        world.fake.fail(status, b"<Error><Code>" + code + b"</Code></Error>", headers=AT_ONCE)
    noted: list[Any] = []
    world.hours.happens = lambda: noted.append(json.loads((world.kit.dir / "cloud.json").read_text())["asked"])

    call = world.call("apply", "confirm")

    assert (call.succeeded, noted) == (True, [left])
    assert json.loads((world.kit.dir / "cloud.json").read_text()) == {"asked": {"confirm": True}, "over": True}


def test_a_service_error_of_which_nobody_knows_what_it_did_is_looked_into(world: World) -> None:
    world.fake.new_job(JOB, "Suspended")
    world.fake.faults.append(None)
    world.fake.fail(500, b"<Error><Code>InternalServiceException</Code></Error>", after=True)

    call = world.call("apply", "confirm")

    assert (call.succeeded, world.sequence) == (True, "dCd")


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (403, "AccessDenied", "cloud.denied", "allow s3:DescribeJob in the policies"),
        (404, "NoSuchJob", "cloud.unknown", "look at the id, the region and the account"),
        (403, "InvalidAccessKeyId", "cloud.credentials", "does not know these credentials"),
        (301, "PermanentRedirect", "cloud.config", "set cloud.region"),
        (400, "InvalidRequest", "cloud.refused", "look at what was asked for"),
    ],
)
def test_a_refusal_is_a_clear_end_at_once(world: World, status: int, body: str, code: str, words: str) -> None:
    world.fake.new_job(JOB, "Active")
    world.fake.refuse(status, body)

    call = world.call("apply", "cancel")

    assert (call.code, world.changes, world.hours.now) == (code, [], 0)
    assert words in call.reason


def test_credentials_past_their_time_are_replaced_and_then_complained_of(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    world.fake.expired = {"AKIDTEST"}

    call = world.call("apply", "cancel")

    assert (call.code, world.changes, len(world.fake.seen)) == ("cloud.credentials", [], 2)
    assert "ExpiredToken" in call.reason


def test_throttling_is_waited_through_until_the_hour_is_over(world: World) -> None:
    world.fake.new_job(JOB, "Suspended")

    def throttle(times: int) -> None:
        for _ in range(times):
            world.fake.fail(503, b"<Error><Code>SlowDown</Code></Error>", headers=AT_ONCE)

    throttle(5)
    assert world.call("apply", "confirm").succeeded

    world.fake.jobs[JOB]["Status"] = "Suspended"
    world.hours.happens = lambda: throttle(5)
    throttle(5)
    call = world.call("apply", "confirm")

    assert (call.code, world.changes) == ("cloud.unavailable", ["Ready"])
    assert "SlowDown" in call.reason
    assert "minutes now" in call.reason


def test_an_outage_of_days_is_waited_through_and_told(world: World) -> None:
    world.fake.new_job(JOB, "Active", ProgressSummary={})
    weather = itertools.cycle([(200, b"<DescribeJobResult><Job><JobId>"), (502, b"<html>"), (429, b"")])

    def outage() -> None:
        if world.hours.now > 3 * 86400:
            world.fake.faults.clear()
            world.fake.jobs[JOB]["Status"] = "Complete"
            return
        status, body = next(weather)
        for _ in range(5):
            world.fake.fail(status, body, headers=AT_ONCE)

    world.hours.happens = outage
    call = world.call("apply", "watch", pollSeconds=3600)

    assert call.succeeded
    assert {event.get("message", "").rpartition("; ")[2] for event in call.events} >= {"trying again"}


def test_where_thousands_follow_one_job_the_service_says_how_often_it_is_looked_at(world: World) -> None:
    world.fake.new_job(JOB, "Active")
    pauses: list[float] = []

    def busy() -> None:
        pauses.append(world.hours.now - sum(pauses))
        if len(pauses) == 30:
            world.fake.jobs[JOB]["Status"] = "Cancelled"
        for _ in range(5 * (len(pauses) <= 8)):
            world.fake.fail(429, b"<Error><Code>TooManyRequestsException</Code></Error>", headers=AT_ONCE)

    world.hours.happens = busy
    call = world.call("apply", "watch")

    assert call.code == "cloud.cancelled"
    assert pauses[:9] == [3.75, 90, 180, 360, 720, 1440, 2700, 2700, 2700]
    assert pauses[9:] == sorted(pauses[9:], reverse=True)
    assert 45 < pauses[-1] < 450
