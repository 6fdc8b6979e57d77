"""Which reply belongs to which request: by topic taken apart at its slashes, and by token."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs.errors import WireError
from thingjobs.jobs import (
    Describe,
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.transport.topics import MAX_OPEN, Topics

if TYPE_CHECKING:
    from thingjobs.jobs import Incoming, Request

BASE = "$aws/things/pump-7/jobs/"
#: Legal job ids that mean something else where a topic has no job in it.
STRANGE_JOBS = ["get", "notify", "notify-next", "start-next", "update", "accepted", "rejected", "jobs", "_", "a-1"]


@pytest.fixture
def topics() -> Topics:
    return Topics(ThingName("pump-7"))


def get(job_id: str, token: str = "g") -> Describe:
    return Describe(token, JobId(job_id), 1)


def update(job_id: str, token: str = "u") -> Update:
    return Update(token, JobId(job_id), 1, 1, Status.IN_PROGRESS, {})


def answered(topics: Topics, suffix: str, **body: Any) -> Incoming | None:
    return topics.incoming(BASE + suffix, json.dumps(body).encode())


def matches(pattern: str, topic: str) -> bool:
    """Tell whether a subscription to `pattern` gets messages on `topic` (MQTT 5, 4.7; no `#` is used here)."""
    wanted, there = pattern.split("/"), topic.split("/")
    return len(wanted) == len(there) and all(w in ("+", t) for w, t in zip(wanted, there, strict=True))


# --- what belongs together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", STRANGE_JOBS)
def test_a_job_may_be_called_like_a_part_of_a_topic(topics: Topics, job_id: str) -> None:
    for request in (GetPending("p"), DescribeNext("n"), get(job_id), update(job_id)):
        topics.outgoing(request)

    assert answered(topics, f"{job_id}/get/accepted", clientToken="g") == Described("g", None)
    assert answered(topics, f"{job_id}/update/accepted", clientToken="u") == Updated("u", None, None)
    assert answered(topics, "$next/get/accepted", clientToken="n") == Described("n", None)
    assert answered(topics, "get/accepted", clientToken="p") == Pending("p", (), ())


@pytest.mark.parametrize("job_id", STRANGE_JOBS)
def test_the_subscriptions_bring_every_reply_and_none_of_our_own_requests(topics: Topics, job_id: str) -> None:
    for request in (GetPending("p"), DescribeNext("n"), get(job_id), update(job_id)):
        topic, _ = topics.outgoing(request)

        assert not [pattern for pattern in topics.filters if matches(pattern, topic)]
        for verdict in ("accepted", "rejected"):
            assert [pattern for pattern in topics.filters if matches(pattern, f"{topic}/{verdict}")]


def test_the_subscriptions_fit_into_one_packet(topics: Topics) -> None:
    # AWS IoT Core: at most 8 filters in one SUBSCRIBE.
    assert len(topics.filters) <= 8


def test_a_refusal_belongs_to_its_request(topics: Topics) -> None:
    topics.outgoing(update("a"))

    refused = answered(topics, "a/update/rejected", clientToken="u", code="VersionMismatch", message="no")

    assert refused == Refused("u", Refusal.VERSION_MISMATCH, "no", None, "VersionMismatch")


def test_notifications_need_no_request(topics: Topics) -> None:
    assert answered(topics, "notify-next") == NextChanged(None)
    assert answered(topics, "notify", jobs={}) == ListChanged((), ())


# --- what does not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["a/get/accepted", "a/get/rejected"])
def test_a_duplicate_reply_says_nothing(topics: Topics, suffix: str) -> None:
    topics.outgoing(get("a"))

    assert answered(topics, suffix, clientToken="g") is not None
    assert answered(topics, suffix, clientToken="g") is None


def test_a_reply_of_an_earlier_connection_says_nothing(topics: Topics) -> None:
    topics.outgoing(get("a", "new"))

    assert answered(topics, "a/get/accepted", clientToken="old") is None
    assert answered(topics, "a/get/accepted", clientToken="new") == Described("new", None)


def test_replies_may_come_in_any_order(topics: Topics) -> None:
    topics.outgoing(get("a", "1"))
    topics.outgoing(get("a", "2"))

    assert answered(topics, "a/get/accepted", clientToken="2") == Described("2", None)
    assert answered(topics, "a/get/accepted", clientToken="1") == Described("1", None)


@pytest.mark.parametrize("suffix", ["b/get/accepted", "a/update/accepted", "$next/get/accepted", "get/accepted"])
def test_a_token_on_the_wrong_topic_answers_nothing(topics: Topics, suffix: str) -> None:
    topics.outgoing(get("a"))

    assert answered(topics, suffix, clientToken="g") is None
    assert answered(topics, "a/get/accepted", clientToken="g") is not None


@pytest.mark.parametrize("body", [{}, {"clientToken": None}, {"clientToken": 5}, {"clientToken": ["g"]}])
@pytest.mark.parametrize("code", [Refusal.INVALID_JSON, Refusal.INVALID_REQUEST, Refusal.INVALID_TOPIC])
def test_a_refusal_of_a_message_without_a_token_is_about_the_only_request_it_can_be(
    topics: Topics, body: dict[str, Any], code: Refusal
) -> None:
    topics.outgoing(GetPending("p"))
    topics.outgoing(get("a"))

    assert answered(topics, "a/get/rejected", code=code.value, **body) == Refused("g", code, text=code.value)


@pytest.mark.parametrize("body", [{}, {"clientToken": None}, {"clientToken": 5}])
@pytest.mark.parametrize(
    "said",
    [
        ("accepted", {}),
        (
            "accepted",
            {"executionState": {"status": "IN_PROGRESS", "versionNumber": 2}, "jobDocument": {"handler": "h"}},
        ),
        ("rejected", {}),
        ("rejected", {"code": ["InvalidJson"]}),
        *(
            ("rejected", {"code": code})
            for code in ("VersionMismatch", "ResourceNotFound", "TerminalStateReached", "X")
        ),
    ],
)
def test_a_reply_about_an_execution_without_a_token_is_nobodys_and_the_request_stays_open(
    topics: Topics, said: tuple[str, dict[str, Any]], body: dict[str, Any]
) -> None:
    """It may be another client's, or a late one: it could start what somebody else claimed, or end what runs."""
    topics.outgoing(update("a"))
    verdict, content = said

    assert answered(topics, f"a/update/{verdict}", **content, **body) is None
    assert isinstance(answered(topics, "a/update/accepted", clientToken="u"), Updated)


def test_a_reply_without_a_token_to_two_requests_is_dropped_and_both_stay_open(topics: Topics) -> None:
    topics.outgoing(get("a", "1"))
    topics.outgoing(get("a", "2"))

    assert answered(topics, "a/get/rejected", code="InvalidJson") is None
    assert answered(topics, "a/get/accepted", clientToken="1") is not None
    assert answered(topics, "a/get/accepted", clientToken="2") is not None


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/pump-70/jobs/notify-next",
        "$aws/things/pump-/jobs/notify-next",
        "$aws/things/other/jobs/a/get/accepted",
        "$aws/things/pump-7/shadow/get/accepted",
        "$aws/things/pump-7/jobs/a/get",
        "$aws/things/pump-7/jobs/a/get/accepted/more",
        "$aws/things/pump-7/jobs/more/a/get/accepted",
        "$aws/things/pump-7/jobs/get/accepted/",
        "$aws/things/pump-7/jobs/accepted",
        "$aws/things/pump-7/jobs/notify/",
        "$aws/things/pump-7/jobs/notify-next/accepted",
        "$aws/things/pump-7/jobs/start-next/accepted",
        "$aws/things/pump-7/jobs/notify-namespace-x",
        "$aws/things/pump-7/jobs/",
        "$aws/things/pump-7/jobs",
        "$AWS/things/pump-7/jobs/notify-next",
        "notify-next",
        "",
    ],
)
def test_a_topic_that_is_none_of_ours_says_nothing_whatever_stands_in_the_message(topics: Topics, topic: str) -> None:
    topics.outgoing(GetPending("p"))
    topics.outgoing(get("a"))

    for payload in (b'{"clientToken":"g","jobs":{}}', b"{}", b"\xff", b""):
        assert topics.incoming(topic, payload) is None


@given(
    st.lists(
        st.sampled_from(["a", "get", "update", "$next", "notify", "notify-next", "accepted", "rejected", "", "é"])
    ),
    st.sampled_from(
        [b"{}", b'{"clientToken":"g"}', b'{"clientToken":"u","execution":5}', b'{"jobs":[]}', b"[", b"\xff"]
    ),
)
@settings(max_examples=settings().max_examples // 2, deadline=None)
def test_any_message_on_any_topic_is_read_left_out_or_raises_wire_error(parts: list[str], payload: bytes) -> None:
    topics = Topics(ThingName("pump-7"))
    for request in (get("a"), update("a"), DescribeNext("n"), GetPending("p")):
        topics.outgoing(request)

    with contextlib.suppress(WireError):
        topics.incoming(BASE + "/".join(parts), payload)


# --- a connection may live for years ------------------------------------------------------------------------------


def lost(count: int) -> list[Request]:
    """Return requests about so many jobs, of which none will be answered."""
    return [update(f"job-{n}", f"t-{n}") for n in range(count)]


def test_requests_that_were_never_answered_do_not_pile_up(topics: Topics) -> None:
    for request in lost(1000):
        topics.outgoing(request)

    assert len(topics._open) == MAX_OPEN
    assert answered(topics, "job-0/update/accepted", clientToken="t-0") is None


def test_the_newest_requests_are_the_ones_that_are_remembered(topics: Topics) -> None:
    for request in lost(1000):
        topics.outgoing(request)

    for n in range(1000 - MAX_OPEN, 1000):
        assert answered(topics, f"job-{n}/update/accepted", clientToken=f"t-{n}") is not None


def test_an_answered_request_takes_no_room(topics: Topics) -> None:
    for n in range(100):
        topics.outgoing(update("a", f"t-{n}"))
        answered(topics, "a/update/accepted", clientToken=f"t-{n}")

    assert not topics._open
