"""When the simulated service notifies, of what, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.testing import JobsService, ManualClock

if TYPE_CHECKING:
    from thingjobs.testing import Message

THING = "pump-7"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> JobsService:
    return JobsService(clock)


class Heard:
    """What a device hears: answers and notifications in one row."""

    def __init__(self, service: JobsService) -> None:
        self._service = service
        self._messages: list[Message] = []
        service.listen(THING, self._messages.append)

    def ask(self, suffix: str, payload: bytes) -> None:
        self._service.handle(THING, suffix, payload, self._messages.append)

    def row(self) -> list[tuple[str, Any]]:
        """Return what was heard since the last call: topics, with job ids by status, or the head."""
        row = [(message.suffix, _gist(message.body)) for message in self._messages]
        self._messages.clear()
        return row


def _gist(body: dict[str, Any]) -> Any:
    if "jobs" in body:
        return {status: [job["jobId"] for job in jobs] for status, jobs in body["jobs"].items()}
    execution = body.get("execution")
    return (execution["jobId"], execution["status"]) if execution else None


def test_the_first_job_is_told_on_both_topics(service: JobsService) -> None:
    heard = Heard(service)
    service.create_job("one", {}, [THING])
    assert heard.row() == [("notify", {"QUEUED": ["one"]}), ("notify-next", ("one", "QUEUED"))]


def test_a_job_queued_behind_is_told_on_notify_only(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    heard = Heard(service)
    service.create_job("two", {}, [THING])
    assert heard.row() == [("notify", {"QUEUED": ["one", "two"]})]


@pytest.mark.parametrize(("suffix", "payload"), [("start-next", b"{}"), ("one/update", b'{"status":"IN_PROGRESS"}')])
def test_starting_the_head_is_told_nobody(service: JobsService, suffix: str, payload: bytes) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    heard = Heard(service)
    heard.ask(suffix, payload)
    assert [topic for topic, _ in heard.row()] == [f"{suffix}/accepted"]


def test_starting_one_that_is_not_the_head_is_told_on_notify_next_only(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    heard = Heard(service)
    heard.ask("two/update", b'{"status":"IN_PROGRESS"}')
    assert heard.row() == [("two/update/accepted", None), ("notify-next", ("two", "IN_PROGRESS"))]


def test_progress_is_told_nobody(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.ask(THING, "start-next")
    heard = Heard(service)
    heard.ask("one/update", b'{"status":"IN_PROGRESS","statusDetails":{"a":"b"},"stepTimeoutInMinutes":5}')
    assert [topic for topic, _ in heard.row()] == ["one/update/accepted"]


def test_the_end_of_the_head_is_answered_first_then_told_on_both_topics(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    heard = Heard(service)
    heard.ask("one/update", b'{"status":"SUCCEEDED"}')
    assert heard.row() == [
        ("one/update/accepted", None),
        ("notify", {"QUEUED": ["two"]}),
        ("notify-next", ("two", "QUEUED")),
    ]


def test_the_end_of_another_than_the_head_is_told_on_notify_only(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    heard = Heard(service)
    heard.ask("two/update", b'{"status":"REJECTED"}')
    assert heard.row() == [("two/update/accepted", None), ("notify", {"QUEUED": ["one"]})]


def test_the_end_of_the_last_one_leaves_both_empty(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    messages: list[Message] = []
    service.listen(THING, messages.append)
    service.ask(THING, "one/update", {"status": "SUCCEEDED"})
    now = service.requests[-1].at
    assert [message.body for message in messages] == [{"timestamp": now, "jobs": {}}, {"timestamp": now}]


def test_a_refused_update_is_told_nobody(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    heard = Heard(service)
    heard.ask("one/update", b'{"status":"SUCCEEDED","expectedVersion":7}')
    assert [topic for topic, _ in heard.row()] == ["one/update/rejected"]


def test_notify_next_carries_the_document_but_no_thing_name(service: JobsService) -> None:
    messages: list[Message] = []
    service.listen(THING, messages.append)
    service.create_job("one", {"handler": "greet"}, [THING])
    execution = messages[-1].body["execution"]
    assert execution["jobDocument"] == {"handler": "greet"}
    assert "thingName" not in execution


def test_both_statuses_are_listed_apart(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    service.ask(THING, "start-next")
    heard = Heard(service)
    service.create_job("three", {}, [THING])
    assert heard.row() == [("notify", {"IN_PROGRESS": ["one"], "QUEUED": ["two", "three"]})]


def test_an_eleventh_job_is_told_though_the_list_of_ten_does_not_show_it(service: JobsService) -> None:
    for number in range(10):
        service.create_job(f"job-{number}", {}, [THING])
    heard = Heard(service)
    service.create_job("job-10", {}, [THING])
    assert heard.row() == [("notify", {"QUEUED": [f"job-{number}" for number in range(10)]})]


def test_a_retry_is_told_after_the_end_of_the_attempt_before_it(service: JobsService) -> None:
    service.create_job("one", {}, [THING], retries={"FAILED": 1})
    heard = Heard(service)
    heard.ask("one/update", b'{"status":"FAILED"}')
    assert heard.row() == [
        ("one/update/accepted", None),
        ("notify", {}),
        ("notify-next", None),
        ("notify", {"QUEUED": ["one"]}),
        ("notify-next", ("one", "QUEUED")),
    ]


def test_a_timeout_is_told_like_any_end(service: JobsService, clock: ManualClock) -> None:
    service.create_job("one", {}, [THING], in_progress_timeout_minutes=1)
    service.ask(THING, "start-next")
    heard = Heard(service)
    clock.advance(60)
    service.tick()
    service.tick()
    assert heard.row() == [("notify", {}), ("notify-next", None)]


def test_a_forced_cancel_of_the_running_head_is_told_on_both_topics(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    service.ask(THING, "start-next")
    heard = Heard(service)
    service.cancel_job("one", force=True)
    assert heard.row() == [("notify", {"QUEUED": ["two"]}), ("notify-next", ("two", "QUEUED"))]


def test_a_cancel_that_cancels_nothing_is_told_nobody(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.ask(THING, "start-next")
    heard = Heard(service)
    service.cancel_job("one")
    assert heard.row() == []


def test_a_deleted_execution_is_told(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    heard = Heard(service)
    service.delete_execution(THING, "two", 1)
    service.delete_job("one", force=True)
    assert heard.row() == [
        ("notify", {"QUEUED": ["one"]}),
        ("notify", {}),
        ("notify-next", None),
    ]


def test_a_closed_window_hides_what_is_queued_and_an_open_one_shows_it(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    heard = Heard(service)
    service.hide_queued(THING, hidden=True)
    assert heard.row() == [("notify", {}), ("notify-next", None)]
    assert service.ask(THING, "get").body["queuedJobs"] == []  # type: ignore[union-attr]
    assert "execution" not in service.ask(THING, "start-next").body  # type: ignore[union-attr]
    service.create_job("two", {}, [THING])
    assert heard.row() == []
    service.hide_queued(THING, hidden=False)
    assert heard.row() == [("notify", {"QUEUED": ["one", "two"]}), ("notify-next", ("one", "QUEUED"))]


def test_what_is_running_goes_on_while_the_window_is_closed(service: JobsService) -> None:
    service.create_job("one", {}, [THING])
    service.create_job("two", {}, [THING])
    service.ask(THING, "start-next")
    heard = Heard(service)
    service.hide_queued(THING, hidden=True)
    assert heard.row() == [("notify", {"IN_PROGRESS": ["one"]})]
    heard.ask("one/update", b'{"status":"SUCCEEDED"}')
    assert heard.row() == [("one/update/accepted", None), ("notify", {}), ("notify-next", None)]


def test_one_thing_hears_nothing_of_another(service: JobsService) -> None:
    heard = Heard(service)
    service.create_job("one", {}, ["other"])
    assert heard.row() == []


def test_who_listens_to_every_thing_hears_all(service: JobsService) -> None:
    messages: list[Message] = []
    service.listen(None, messages.append)
    service.create_job("one", {}, ["a", "b"])
    assert [message.topic for message in messages] == [
        "$aws/things/a/jobs/notify",
        "$aws/things/a/jobs/notify-next",
        "$aws/things/b/jobs/notify",
        "$aws/things/b/jobs/notify-next",
    ]


def test_who_stopped_listening_hears_nothing_more(service: JobsService) -> None:
    messages: list[Message] = []
    unlisten = service.listen(THING, messages.append)
    unlisten()
    unlisten()
    service.create_job("one", {}, [THING])
    assert messages == []


def test_a_listener_that_calls_the_service_does_not_upset_the_order(service: JobsService) -> None:
    topics: list[str] = []

    def react(message: Message) -> None:
        topics.append(message.suffix)
        if message.suffix == "notify" and "QUEUED" in message.body["jobs"]:
            service.handle(THING, "one/update", b'{"status":"REJECTED"}', lambda it: topics.append(it.suffix))

    service.listen(THING, react)
    service.create_job("one", {}, [THING])
    assert topics == ["notify", "notify-next", "one/update/accepted", "notify", "notify-next"]


def test_a_listener_may_ask_and_gets_its_answer_at_once(service: JobsService) -> None:
    heads: list[Any] = []

    def look(message: Message) -> None:
        if message.suffix == "notify-next":
            answer = service.ask(THING, "$next/get")
            assert answer is not None
            heads.append(answer.body["execution"]["jobId"])

    service.listen(THING, look)
    service.create_job("one", {}, [THING])
    assert heads == ["one"]
