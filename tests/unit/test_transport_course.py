"""What happened on a connection, and what is said of it: pure, and the same for both libraries that carry MQTT."""

from __future__ import annotations

import logging

import pytest

from thingjobs.jobs import RENEWED
from thingjobs.model import ThingName
from thingjobs.transport.course import Course
from thingjobs.transport.link import Link
from thingjobs.transport.patience import Cause, Ended

NOT_AUTHORIZED, TAKEN_OVER, OTHER = 0x87, 0x8E, 0x8B
WHERE = "localhost:8883"


@pytest.fixture
def course() -> Course:
    return Course(Link("localhost", 8883, "pump-7", ThingName("pump-7")))


def ready(course: Course, now: float = 100.0) -> Course:
    """Let it in, and grant what it asked for."""
    course.let_in = True
    course.asked = ["a", "b"]
    assert not course.not_granted([1, 0])
    course.subscribed(now)
    return course


def test_the_first_reason_is_the_true_one(course: Course) -> None:
    ready(course).unanswered_ping()
    course.stopped()
    course.closed()
    assert course.reason == f"{WHERE} did not answer a ping"
    assert course.ended(107.5) == Ended(Cause.LOST, 7.5)


def test_what_was_never_ready_was_not_reached_unless_it_is_known_better(course: Course) -> None:
    course.gave_up()
    assert course.reason == f"{WHERE} did not answer CONNECT"
    assert course.ended(1.0) == Ended(Cause.UNREACHED)


def test_which_step_was_not_answered_is_told(course: Course) -> None:
    course.let_in = True
    course.gave_up()
    assert course.reason == f"{WHERE} did not answer SUBSCRIBE"


def test_filters_that_are_refused_are_named(course: Course) -> None:
    course.let_in, course.asked = True, ["a", "b", "c"]
    assert course.not_granted([1, 0x87, 0x80])
    assert course.reason == "the broker refused to let us subscribe to b, c: check the policy (iot:Subscribe)"


def test_a_request_that_is_refused_was_not_taken(course: Course, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ready(course).asks()
    course.sent(1, "+/update")
    assert course.acknowledged(1, NOT_AUTHORIZED, "Not authorized") == ""
    assert "Not authorized; does the policy allow iot:Publish on $aws/things/pump-7/jobs/+/update?" in caplog.text
    course.sent(2, "get")
    assert course.acknowledged(2, 0, "Success") == "get"


@pytest.mark.parametrize("told", [False, True])
def test_the_oldest_request_without_an_answer_is_suspected_of_the_end(course: Course, told: bool) -> None:
    ready(course).sent(1, "get")
    course.sent(2, "+/update")
    course.acknowledged(1, 0, "Success")
    course.told_why(NOT_AUTHORIZED, "Not authorized") if told else course.closed("Connection reset by peer")
    assert course.reason.endswith("does the policy allow iot:Publish on $aws/things/pump-7/jobs/+/update?")
    assert course.ended(101.0).suspect == "+/update"


def test_an_end_while_it_subscribes_names_the_filters(course: Course) -> None:
    course.let_in, course.asked = True, ["a"]
    course.closed()
    assert course.reason.endswith("closed without a word; does the policy allow iot:Subscribe on a?")
    assert course.ended(1.0).cause is Cause.UNSUBSCRIBED


def test_an_end_before_connect_was_answered_has_the_hint_of_whoever_knows_one(course: Course) -> None:
    course.closed("Broken pipe", "it did not agree to x (ALPN)")
    assert course.reason == f"{WHERE}: Broken pipe, CONNECT was not answered; it did not agree to x (ALPN)"


def test_an_end_before_connect_was_answered_may_be_the_policy(course: Course) -> None:
    course.closed()
    assert course.reason.endswith("CONNECT was not answered; may this certificate connect as pump-7?")


def test_a_rival_is_known_by_what_the_broker_says(course: Course) -> None:
    ready(course).told_why(TAKEN_OVER, "Session taken over")
    assert "another client uses the id pump-7" in course.reason
    assert course.ended(101.0).cause is Cause.TAKEN


def test_any_other_end_is_told_as_the_broker_says_it(course: Course) -> None:
    ready(course).told_why(OTHER, "Server shutting down")
    assert course.reason == f"{WHERE} ended the connection: Server shutting down"


def test_a_new_connection_is_wanted_because_nothing_was_answered_or_just_so(course: Course) -> None:
    ready(course).asks()
    course.heard()
    course.renewed()
    assert (course.reason, course.ended(101.0).cause) == (RENEWED, Cause.RENEWED)


def test_who_is_never_answered_suspects_that_it_may_not_receive(course: Course) -> None:
    ready(course).asks()
    course.renewed()
    assert course.reason == (
        f"{WHERE} took 1 requests and answered none; does the policy allow iot:Receive on $aws/things/pump-7/jobs/*?"
    )
    assert course.ended(101.0).cause is Cause.DEAF
